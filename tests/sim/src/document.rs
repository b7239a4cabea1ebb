//! Documents, as genuine ones are and with every part open.

use crate::{IssuedChain, PcrBytes, SimError, SimKey, cbor};

/// The protected header of every genuine document: `{1: -35}`, the algorithm ES384.
pub const PROTECTED_ES384: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

/// A document before it is signed.
#[derive(Clone, Debug)]
pub struct DocumentSpec {
    /// A CBOR tag around the document; genuine ones have none.
    pub tag: Option<u64>,
    /// The protected header's bytes.
    pub protected: Vec<u8>,
    /// The unprotected header: one CBOR item.
    pub unprotected: Vec<u8>,
    /// The payload.
    pub payload: PayloadSpec,
    /// Bytes after the document.
    pub trailing: Vec<u8>,
}

/// A payload before it is encoded.
#[derive(Clone, Debug)]
pub struct PayloadSpec {
    /// Whether the map is of indefinite length, as since September 2025.
    pub indefinite: bool,
    /// The entries in order: key and value, each one CBOR item.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes after the map.
    pub trailing: Vec<u8>,
}

impl PayloadSpec {
    /// The nine entries in their genuine order. Absent fields are null.
    #[must_use]
    pub fn new(
        module_id: &str,
        timestamp_ms: u64,
        pcrs: &[(u8, PcrBytes)],
        chain: &IssuedChain,
    ) -> Self {
        let bundle: Vec<_> = chain.cabundle().iter().map(|bytes| cbor::bytes(bytes)).collect();
        let entries = [
            ("module_id", cbor::text(module_id)),
            ("digest", cbor::text("SHA384")),
            ("timestamp", cbor::unsigned(timestamp_ms)),
            ("pcrs", pcr_map(pcrs)),
            ("certificate", cbor::bytes(chain.leaf())),
            ("cabundle", cbor::array(&bundle)),
            ("public_key", cbor::null()),
            ("user_data", cbor::null()),
            ("nonce", cbor::null()),
        ];
        Self {
            indefinite: true,
            entries: entries.into_iter().map(|(key, value)| (cbor::text(key), value)).collect(),
            trailing: Vec::new(),
        }
    }

    /// Sets the value of a key, or appends the key.
    pub fn set(&mut self, key: &str, value: Vec<u8>) {
        let key = cbor::text(key);
        match self.entries.iter_mut().find(|(present, _)| *present == key) {
            Some((_, present)) => *present = value,
            None => self.entries.push((key, value)),
        }
    }

    /// Appends an entry, whether or not the key is there.
    pub fn push(&mut self, key: &str, value: Vec<u8>) {
        self.entries.push((cbor::text(key), value));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        let key = cbor::text(key);
        self.entries.retain(|(present, _)| *present != key);
    }

    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let map = if self.indefinite { cbor::map_indefinite } else { cbor::map };
        [map(&self.entries), self.trailing.clone()].concat()
    }
}

/// The map `pcrs`.
fn pcr_map(pcrs: &[(u8, PcrBytes)]) -> Vec<u8> {
    let entries: Vec<_> = pcrs
        .iter()
        .map(|(index, value)| (cbor::unsigned(u64::from(*index)), cbor::bytes(value)))
        .collect();
    cbor::map(&entries)
}

impl DocumentSpec {
    /// A genuine envelope around a payload.
    #[must_use]
    pub fn new(payload: PayloadSpec) -> Self {
        Self {
            tag: None,
            protected: PROTECTED_ES384.to_vec(),
            unprotected: cbor::map(&[]),
            payload,
            trailing: Vec::new(),
        }
    }

    /// Encodes and signs the document.
    ///
    /// # Errors
    /// When the signer fails.
    pub fn sign(&self, key: &SimKey) -> Result<Vec<u8>, SimError> {
        let payload = self.payload.encode();
        let signature = key.sign_fixed(&sig_structure(&self.protected, &payload))?;
        let document = cbor::array(&[
            cbor::bytes(&self.protected),
            self.unprotected.clone(),
            cbor::bytes(&payload),
            cbor::bytes(&signature),
        ]);
        let tag = self.tag.map(|tag| cbor::head(6, tag)).unwrap_or_default();
        Ok([tag, document, self.trailing.clone()].concat())
    }
}

/// What COSE has signed: `["Signature1", protected, '', payload]` (RFC 9052, section 4.4).
#[must_use]
pub fn sig_structure(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    cbor::array(&[
        cbor::text("Signature1"),
        cbor::bytes(protected),
        cbor::bytes(&[]),
        cbor::bytes(payload),
    ])
}
