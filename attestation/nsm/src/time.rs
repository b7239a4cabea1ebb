//! The hypervisor's time, which stands in every attestation document.
//!
//! A document comes from the enclave's own device, which the hypervisor made, so its signature is
//! not looked at here. What others are told by the same document they verify.

use minicbor::Decoder;

use crate::{Attest, NsmError, Wanted};

const WHAT: &str = "tell the time";

/// The time of a document made for this question, in milliseconds since 1970.
///
/// # Errors
/// If the module makes no document, or one without a time.
pub fn attested_time(module: &dyn Attest) -> Result<u64, NsmError> {
    let document = module.attest(Wanted::default())?;
    match timestamp(&document) {
        Some(time) if time > 0 => Ok(time),
        _ => Err(NsmError::Failed { what: WHAT, reason: "its document has no timestamp".into() }),
    }
}

/// `[protected, unprotected, payload, signature]`, and in the payload `{…, "timestamp": number, …}`; both
/// the array and the map have been seen with and without a length.
fn timestamp(document: &[u8]) -> Option<u64> {
    let mut envelope = Decoder::new(document);
    envelope.array().ok()?;
    envelope.bytes().ok()?;
    envelope.skip().ok()?;
    let mut payload = Decoder::new(envelope.bytes().ok()?);
    payload.map().ok()?;
    loop {
        if payload.str().ok()? == "timestamp" {
            return payload.u64().ok();
        }
        payload.skip().ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told(Vec<u8>);

    impl Attest for Told {
        fn attest(&self, _: Wanted<'_>) -> Result<Vec<u8>, NsmError> {
            Ok(self.0.clone())
        }
    }

    fn genuine(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/attestation/");
        std::fs::read(format!("{folder}{name}.bin")).unwrap()
    }

    /// The times are those that the vectors' own descriptions give.
    #[test]
    fn genuine_documents_tell_their_time() {
        for name in ["veracruz-2022-valid", "turnkey-2026-06-32pcrs", "batgo-2023-debug"] {
            let description = genuine_description(name);
            let (_, rest) = description.split_once("\"timestamp_ms\": ").unwrap();
            let stated: u64 = rest.split(',').next().unwrap().trim().parse().unwrap();
            assert_eq!(attested_time(&Told(genuine(name))), Ok(stated), "{name}");
        }
    }

    fn genuine_description(name: &str) -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/attestation/");
        std::fs::read_to_string(format!("{folder}{name}.json")).unwrap()
    }

    #[test]
    fn document_without_a_time_or_cut_short_of_it_is_refused() {
        let document = genuine("veracruz-2022-valid");
        let at = document.windows(9).position(|window| window == b"timestamp").unwrap();
        for end in 0..at + 9 {
            assert!(attested_time(&Told(document[..end].to_vec())).is_err(), "{end}");
        }
        let mut renamed = document.clone();
        renamed[at] = b'T';
        assert!(attested_time(&Told(renamed)).is_err());
        let mut zero = document[..at + 9].to_vec();
        zero.push(0);
        assert!(attested_time(&Told(zero)).is_err());
    }
}
