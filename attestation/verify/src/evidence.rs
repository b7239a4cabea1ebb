//! What a verified document says.

use std::collections::BTreeMap;

use crate::{
    chain::Chain,
    pcr::{Measurement, Pcr},
    refusal::{Refusal, Unmet},
    time::UnixMillis,
    wire::Statement,
};

/// The contents of a genuine document that met every expectation. Only [`verify`](crate::verify) makes
/// one.
///
/// A document binds what the enclave put into it, and nothing more: use
/// [`public_key`](Evidence::public_key) as the key of the connection that the document was asked for,
/// or the document proves nothing about that connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    module_id: String,
    region: String,
    timestamp: UnixMillis,
    measurement: Measurement,
    pcrs: BTreeMap<u8, Pcr>,
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    leaf_not_after: UnixMillis,
    chain_not_after: UnixMillis,
}

impl Evidence {
    /// To be called once every signature has been verified.
    pub(crate) fn collect(statement: Statement<'_>, chain: &Chain<'_>) -> Result<Self, Refusal> {
        let pcr = |index| {
            statement.pcrs.get(&index).copied().ok_or(Refusal::Unmet(Unmet::PcrMissing { index }))
        };
        Ok(Self {
            region: chain.region_of(statement.module_id)?,
            measurement: Measurement { pcr0: pcr(0)?, pcr1: pcr(1)?, pcr2: pcr(2)? },
            module_id: statement.module_id.to_owned(),
            timestamp: statement.timestamp,
            pcrs: statement.pcrs,
            public_key: statement.public_key.map(<[u8]>::to_vec),
            user_data: statement.user_data.map(<[u8]>::to_vec),
            nonce: statement.nonce.map(<[u8]>::to_vec),
            leaf_not_after: chain.leaf_not_after(),
            chain_not_after: chain.not_after(),
        })
    }

    /// The enclave's id: `INSTANCE-encNNNN`, visible ASCII.
    #[must_use]
    pub fn module_id(&self) -> &str {
        &self.module_id
    }

    /// The AWS region that the chain's subjects name, for example `eu-west-1`.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// When the hypervisor made the document.
    #[must_use]
    pub fn timestamp(&self) -> UnixMillis {
        self.timestamp
    }

    /// PCR0, PCR1 and PCR2: the image.
    #[must_use]
    pub fn measurement(&self) -> Measurement {
        self.measurement
    }

    /// Whether the enclave runs in debug mode; false unless the expectations allowed it.
    #[must_use]
    pub fn is_debug(&self) -> bool {
        self.measurement.is_debug()
    }

    /// One PCR, if the document holds it.
    #[must_use]
    pub fn pcr(&self, index: u8) -> Option<Pcr> {
        self.pcrs.get(&index).copied()
    }

    /// All PCRs in the document by rising index, those that are zero included.
    pub fn pcrs(&self) -> impl Iterator<Item = (u8, Pcr)> {
        self.pcrs.iter().map(|(&index, &pcr)| (index, pcr))
    }

    /// The public key that the enclave gave, at most 1024 bytes; in no set format.
    #[must_use]
    pub fn public_key(&self) -> Option<&[u8]> {
        self.public_key.as_deref()
    }

    /// The user data that the enclave gave, at most 512 bytes.
    #[must_use]
    pub fn user_data(&self) -> Option<&[u8]> {
        self.user_data.as_deref()
    }

    /// The nonce that the enclave gave, at most 512 bytes.
    #[must_use]
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// When the leaf certificate expires.
    #[must_use]
    pub fn leaf_not_after(&self) -> UnixMillis {
        self.leaf_not_after
    }

    /// When the first certificate of the chain expires: from then on the document is refused.
    #[must_use]
    pub fn chain_not_after(&self) -> UnixMillis {
        self.chain_not_after
    }
}
