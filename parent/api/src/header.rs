//! Who says so: the two headers in which a request or an approval is proved.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use casemate_ledger::entry::ApprovalProof;
use casemate_proto::CredentialId;
use casemate_proto::ids::{Hash32, parse_hex};
use casemate_proto::stamp::{Stamp, StampError};
use casemate_proto::webauthn::{
    AUTHENTICATOR_DATA_LEN, Assertion, MAX_CLIENT_DATA, MAX_SIGNATURE as MAX_PASSKEY_SIGNATURE,
};

/// A stamp: `v1.<credential>.<issued>.<expires>.<nonce>.<signature>`.
pub const STAMP_HEADER: &str = "casemate-stamp";
/// A passkey's assertion:
/// `v1.<credential>.<authenticatorData>.<clientDataJSON>.<signature>`, the credential's id in hex without `0x`,
/// the rest base64url without padding.
pub const PASSKEY_HEADER: &str = "casemate-passkey";
/// Most bytes of a passkey header's value.
pub const MAX_PASSKEY_HEADER: usize = 4 * 1024;

/// Why a header proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is not there.
    #[error("header `{name}` is missing")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// Both are there, or one is there twice.
    #[error("exactly one of `Casemate-Stamp` and `Casemate-Passkey` is needed, once")]
    NotOne,
    /// Not ASCII text.
    #[error("header `{name}` is not plain ASCII")]
    NotText {
        /// Which.
        name: &'static str,
    },
    /// A stamp that is none.
    #[error(transparent)]
    Stamp(#[from] StampError),
    /// A passkey's assertion that is none.
    #[error("the passkey header's {field} is malformed: `{input}`")]
    Passkey {
        /// Which part.
        field: &'static str,
        /// Its beginning.
        input: String,
    },
}

/// Parses a stamp's header.
///
/// # Errors
/// If a part is missing or malformed.
pub fn parse_stamp(value: &str) -> Result<Stamp, HeaderError> {
    Ok(Stamp::from_header(value)?)
}

/// Parses a passkey's header; one text is accepted for each assertion.
///
/// # Errors
/// If a part is missing, malformed or too long.
pub fn parse_passkey(value: &str) -> Result<Assertion, HeaderError> {
    let wrong = |field, input: &str| HeaderError::Passkey {
        field,
        input: input.chars().take(80).collect(),
    };
    if value.len() > MAX_PASSKEY_HEADER {
        return Err(wrong("length", value));
    }
    let parts: Vec<&str> = value.split('.').collect();
    let [version, credential, authenticator_data, client_data, signature] = parts.as_slice() else {
        return Err(wrong("form", value));
    };
    if *version != "v1" {
        return Err(wrong("version", version));
    }
    let id = parse_hex::<32>("credential id", &format!("0x{credential}"))
        .map_err(|_| wrong("credential id", credential))?;
    let part = |field, text: &str, max: usize| {
        let decoded = URL_SAFE_NO_PAD.decode(text).ok();
        decoded.filter(|bytes| bytes.len() <= max).ok_or_else(|| wrong(field, text))
    };
    Ok(Assertion {
        credential: CredentialId(Hash32::new(id)),
        authenticator_data: part("authenticator data", authenticator_data, AUTHENTICATOR_DATA_LEN)?,
        client_data: part("client data", client_data, MAX_CLIENT_DATA)?,
        signature: part("signature", signature, MAX_PASSKEY_SIGNATURE)?,
    })
}

/// The value of a passkey's header.
#[must_use]
pub fn passkey_value(assertion: &Assertion) -> String {
    format!(
        "v1.{}.{}.{}.{}",
        hex::encode(assertion.credential.0.as_bytes()),
        URL_SAFE_NO_PAD.encode(&assertion.authenticator_data),
        URL_SAFE_NO_PAD.encode(&assertion.client_data),
        URL_SAFE_NO_PAD.encode(&assertion.signature)
    )
}

/// What proves an approval, of the values of its two possible headers.
///
/// # Errors
/// If there is none or more than one, or it is malformed.
pub fn approval_proof(
    stamp: Option<&str>,
    passkey: Option<&str>,
) -> Result<ApprovalProof, HeaderError> {
    match (stamp, passkey) {
        (Some(stamp), None) => parse_stamp(stamp).map(ApprovalProof::Stamp),
        (None, Some(passkey)) => {
            let assertion = parse_passkey(passkey)?;
            Ok(ApprovalProof::Passkey { credential: assertion.credential, assertion })
        }
        (None, None) | (Some(_), Some(_)) => Err(HeaderError::NotOne),
    }
}

/// The name and the value of the header that carries this proof.
#[must_use]
pub fn of_approval(proof: &ApprovalProof) -> (&'static str, String) {
    match proof {
        ApprovalProof::Stamp(stamp) => (STAMP_HEADER, stamp.to_header()),
        ApprovalProof::Passkey { assertion, .. } => (PASSKEY_HEADER, passkey_value(assertion)),
    }
}

#[cfg(test)]
mod tests {
    use casemate_proto::UnixMillis;

    use super::*;

    fn assertion() -> Assertion {
        Assertion {
            credential: CredentialId(Hash32::new([1; 32])),
            authenticator_data: vec![2; 37],
            client_data: br#"{"type":"webauthn.get"}"#.to_vec(),
            signature: vec![3; 70],
        }
    }

    fn stamp() -> Stamp {
        Stamp {
            credential: CredentialId(Hash32::new([1; 32])),
            issued_at: UnixMillis(1),
            expires_at: UnixMillis(2),
            nonce: [3; 16],
            signature: [4; 64],
        }
    }

    #[test]
    fn proofs_go_through_their_headers_unchanged() {
        let passkey =
            ApprovalProof::Passkey { credential: assertion().credential, assertion: assertion() };
        let (name, value) = of_approval(&passkey);
        assert_eq!((name, approval_proof(None, Some(&value))), (PASSKEY_HEADER, Ok(passkey)));
        let stamped = ApprovalProof::Stamp(stamp());
        let (name, value) = of_approval(&stamped);
        assert_eq!((name, approval_proof(Some(&value), None)), (STAMP_HEADER, Ok(stamped)));
    }

    #[test]
    fn approval_with_no_proof_or_with_two_is_refused() {
        let (stamp, passkey) = (stamp().to_header(), passkey_value(&assertion()));
        assert_eq!(approval_proof(None, None), Err(HeaderError::NotOne));
        assert_eq!(approval_proof(Some(&stamp), Some(&passkey)), Err(HeaderError::NotOne));
    }

    #[test]
    fn malformed_passkey_headers_are_refused_and_the_part_is_named() {
        let good = passkey_value(&assertion());
        let parts: Vec<&str> = good.split('.').collect();
        let with = |at: usize, text: &str| {
            let mut parts = parts.clone();
            parts[at] = text;
            parts.join(".")
        };
        let long = URL_SAFE_NO_PAD.encode(vec![0; MAX_CLIENT_DATA + 1]);
        for (value, part) in [
            (String::new(), "form"),
            (good.replace('.', ","), "form"),
            (format!("{good}.x"), "form"),
            (with(0, "v2"), "version"),
            (with(1, "01"), "credential id"),
            (with(1, &"AB".repeat(32)), "credential id"),
            (with(2, "*"), "authenticator data"),
            (with(2, &"A".repeat(60)), "authenticator data"),
            (with(3, &format!("{}=", parts[3])), "client data"),
            (with(3, &long), "client data"),
            (with(4, &"A".repeat(100)), "signature"),
            (with(4, "A"), "signature"),
            ("v".repeat(MAX_PASSKEY_HEADER + 1), "length"),
        ] {
            match parse_passkey(&value) {
                Err(HeaderError::Passkey { field, .. }) => assert_eq!(field, part, "{value:.100}"),
                other => panic!("{value:.100}: {other:?}"),
            }
        }
    }
}
