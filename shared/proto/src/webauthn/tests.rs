use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer as _;

use super::*;

const DOCUMENT: Hash32 = Hash32::new([7; 32]);

fn rp() -> RelyingParty {
    RelyingParty { id: "example.org".to_owned(), origin: "https://example.org".to_owned() }
}

/// An authenticator and a browser, each of whose parts a test can turn against the verifier.
struct Ceremony {
    secret: SigningKey,
    rp_id: &'static str,
    flags: u8,
    count: u32,
    behind: &'static [u8],
    client_data: String,
}

fn client_data(challenge: &str) -> String {
    format!(
        r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"https://example.org","crossOrigin":false}}"#
    )
}

impl Ceremony {
    fn new() -> Self {
        let challenge = URL_SAFE_NO_PAD.encode(approval_challenge(&DOCUMENT));
        Self {
            secret: SigningKey::from_slice(&[5; 32]).unwrap(),
            rp_id: "example.org",
            flags: FLAG_USER_PRESENT | FLAG_USER_VERIFIED,
            count: 0,
            behind: &[],
            client_data: client_data(&challenge),
        }
    }

    fn key(&self) -> PublicKey {
        let point = self.secret.verifying_key().to_encoded_point(true);
        PublicKey::new(Algorithm::WebauthnP256, point.as_bytes()).unwrap()
    }

    fn assertion(&self) -> Assertion {
        let authenticator_data = [
            sha256(self.rp_id.as_bytes()).as_slice(),
            &[self.flags],
            &self.count.to_be_bytes(),
            self.behind,
        ]
        .concat();
        let client_data = self.client_data.clone().into_bytes();
        let message = [authenticator_data.as_slice(), &sha256(&client_data)].concat();
        let signature: p256::ecdsa::DerSignature = self.secret.sign(&message);
        Assertion {
            credential: self.key().id(),
            authenticator_data,
            client_data,
            signature: signature.as_bytes().to_vec(),
        }
    }

    fn result(&self) -> Result<VerifiedAssertion, WebauthnError> {
        self.assertion().verify(&self.key(), &rp(), &DOCUMENT)
    }

    fn with_client_data(change: impl Fn(&str) -> String) -> Result<(), WebauthnError> {
        let mut ceremony = Self::new();
        ceremony.client_data = change(&ceremony.client_data);
        ceremony.result().map(drop)
    }

    fn with_flags(flags: u8) -> Result<(), WebauthnError> {
        Self { flags, ..Self::new() }.result().map(drop)
    }
}

#[test]
fn an_approval_verifies_and_says_whose_and_of_what() {
    let ceremony = Ceremony { count: 9, ..Ceremony::new() };
    let verified = ceremony.result().unwrap();
    assert_eq!(verified.credential(), ceremony.key().id());
    assert_eq!(verified.document(), DOCUMENT);
    assert_eq!(verified.sign_count(), 9);
}

#[test]
fn the_challenge_is_tagged_and_bound_to_the_document() {
    let preimage = [b"casemate/approval/v1\0".as_slice(), &[7; 32]].concat();
    assert_eq!(approval_challenge(&DOCUMENT), sha256(&preimage));
    assert_ne!(approval_challenge(&Hash32::new([8; 32])), approval_challenge(&DOCUMENT));
}

#[test]
fn an_assertion_for_another_document_is_refused() {
    let ceremony = Ceremony::new();
    let result = ceremony.assertion().verify(&ceremony.key(), &rp(), &Hash32::new([8; 32]));
    assert!(matches!(result, Err(WebauthnError::Challenge { .. })), "{result:?}");
}

#[test]
fn a_document_hash_as_bare_challenge_is_refused() {
    let mut ceremony = Ceremony::new();
    ceremony.client_data = client_data(&URL_SAFE_NO_PAD.encode(DOCUMENT.as_bytes()));
    assert!(matches!(ceremony.result(), Err(WebauthnError::Challenge { .. })));
}

#[test]
fn a_padded_challenge_is_refused() {
    let result = Ceremony::with_client_data(|json| json.replace(r#"","origin"#, r#"=","origin"#));
    assert!(matches!(result, Err(WebauthnError::Challenge { .. })), "{result:?}");
}

#[test]
fn a_registration_is_refused() {
    let result = Ceremony::with_client_data(|json| json.replace("webauthn.get", "webauthn.create"));
    assert!(matches!(result, Err(WebauthnError::Type { .. })), "{result:?}");
}

#[test]
fn another_origin_is_refused() {
    for origin in [
        "https://example.org.evil.com",
        "https://example.org:8443",
        "http://example.org",
        "https://EXAMPLE.org",
        "https://example.org/",
        "https://www.example.org",
        "",
    ] {
        let result = Ceremony::with_client_data(|json| json.replace("https://example.org", origin));
        assert!(matches!(result, Err(WebauthnError::Origin { .. })), "{origin}: {result:?}");
    }
}

#[test]
fn a_cross_origin_frame_is_refused() {
    let result =
        Ceremony::with_client_data(|json| json.replace(r#"Origin":false"#, r#"Origin":true"#));
    assert_eq!(result, Err(WebauthnError::CrossOrigin));
}

#[test]
fn a_top_origin_is_refused_whatever_cross_origin_says() {
    let result = Ceremony::with_client_data(|json| {
        json.replace(r#"false}"#, r#"false,"topOrigin":"https://evil.com"}"#)
    });
    assert_eq!(result, Err(WebauthnError::CrossOrigin));
}

#[test]
fn cross_origin_may_be_absent() {
    let result = Ceremony::with_client_data(|json| json.replace(r#","crossOrigin":false"#, ""));
    assert_eq!(result, Ok(()));
}

#[test]
fn an_unknown_member_is_allowed() {
    let result = Ceremony::with_client_data(|json| {
        json.replace(r#"false}"#, r#"false,"other_keys_can_be_added_here":{"a":[1]}}"#)
    });
    assert_eq!(result, Ok(()));
}

#[test]
fn a_repeated_member_is_refused() {
    for member in [
        r#""type":"webauthn.get""#,
        r#""challenge":"AAAA""#,
        r#""origin":"https://example.org""#,
        r#""crossOrigin":false"#,
        r#""\u006frigin":"https://example.org""#,
        r#""x":1,"x":1"#,
    ] {
        let result =
            Ceremony::with_client_data(|json| json.replacen('{', &format!("{{{member},"), 1));
        assert!(matches!(result, Err(WebauthnError::ClientData { .. })), "{member}: {result:?}");
    }
}

#[test]
fn a_missing_member_is_refused() {
    for member in ["type", "challenge", "origin"] {
        let result = Ceremony::with_client_data(|json| json.replace(member, "other"));
        assert!(
            matches!(&result, Err(WebauthnError::ClientData { reason }) if reason.contains(member)),
            "{member}: {result:?}"
        );
    }
}

#[test]
fn client_data_that_is_not_one_json_object_is_refused() {
    let changes: [fn(&str) -> String; 8] = [
        |_| String::new(),
        |_| "[]".to_owned(),
        |json| format!("{json} {{}}"),
        |json| format!("\u{feff}{json}"),
        |json| json.replace(r#""webauthn.get""#, "1"),
        |json| json.replace("false", r#""false""#),
        |json| json.replace("false", "null"),
        |json| json.replace('}', ",}"),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let result = Ceremony::with_client_data(change);
        assert!(matches!(result, Err(WebauthnError::ClientData { .. })), "{number}: {result:?}");
    }
}

#[test]
fn another_relying_party_is_refused() {
    let ceremony = Ceremony { rp_id: "evil.com", ..Ceremony::new() };
    assert!(matches!(ceremony.result(), Err(WebauthnError::RelyingParty { .. })));
}

#[test]
fn a_user_who_is_not_present_is_refused() {
    assert_eq!(Ceremony::with_flags(FLAG_USER_VERIFIED), Err(WebauthnError::UserNotPresent));
}

#[test]
fn a_user_who_is_not_verified_is_refused() {
    assert_eq!(Ceremony::with_flags(FLAG_USER_PRESENT), Err(WebauthnError::UserNotVerified));
}

#[test]
fn attested_data_extensions_and_contradicting_backup_flags_are_refused() {
    for flag in [FLAG_ATTESTED_DATA, FLAG_EXTENSIONS, FLAG_BACKED_UP] {
        let result = Ceremony::with_flags(FLAG_USER_PRESENT | FLAG_USER_VERIFIED | flag);
        assert!(matches!(result, Err(WebauthnError::AuthenticatorData { .. })), "{flag:#x}");
    }
    let synchronised =
        FLAG_USER_PRESENT | FLAG_USER_VERIFIED | FLAG_BACKUP_ELIGIBLE | FLAG_BACKED_UP;
    assert_eq!(Ceremony::with_flags(synchronised), Ok(()));
}

#[test]
fn bytes_behind_authenticator_data_are_refused() {
    let ceremony = Ceremony { behind: &[0], ..Ceremony::new() };
    assert_eq!(
        ceremony.result().map(drop),
        Err(WebauthnError::TooLarge { part: "authenticator data", size: 38, max: 37 })
    );
}

#[test]
fn authenticator_data_cut_anywhere_is_refused() {
    let ceremony = Ceremony::new();
    for length in 0..AUTHENTICATOR_DATA_LEN {
        let mut assertion = ceremony.assertion();
        assertion.authenticator_data.truncate(length);
        let message =
            [assertion.authenticator_data.as_slice(), &sha256(&assertion.client_data)].concat();
        let signature: p256::ecdsa::DerSignature = ceremony.secret.sign(&message);
        assertion.signature = signature.as_bytes().to_vec();
        let result = assertion.verify(&ceremony.key(), &rp(), &DOCUMENT);
        assert!(matches!(result, Err(WebauthnError::AuthenticatorData { .. })), "{length}");
    }
}

#[test]
fn every_flipped_bit_of_what_is_signed_is_refused() {
    let ceremony = Ceremony::new();
    let genuine = ceremony.assertion();
    let refused = |assertion: &Assertion| {
        matches!(
            assertion.verify(&ceremony.key(), &rp(), &DOCUMENT),
            Err(WebauthnError::Signature(_) | WebauthnError::SignatureEncoding)
        )
    };
    for bit in 0..8 {
        for at in 0..genuine.authenticator_data.len() {
            let mut bad = genuine.clone();
            bad.authenticator_data[at] ^= 1 << bit;
            assert!(refused(&bad), "authenticator data, byte {at}, bit {bit}");
        }
        for at in 0..genuine.signature.len() {
            let mut bad = genuine.clone();
            bad.signature[at] ^= 1 << bit;
            assert!(refused(&bad), "signature, byte {at}, bit {bit}");
        }
    }
    for at in 0..genuine.client_data.len() {
        let mut bad = genuine.clone();
        bad.client_data[at] ^= 1;
        assert!(refused(&bad), "client data, byte {at}");
    }
}

#[test]
fn a_signature_that_is_not_der_in_its_one_form_is_refused() {
    let ceremony = Ceremony::new();
    let genuine = ceremony.assertion();
    let raw = p256::ecdsa::Signature::from_der(&genuine.signature).unwrap().to_bytes().to_vec();
    let longer_length = [&[0x30, 0x81], &genuine.signature[1..]].concat();
    let behind = [genuine.signature.as_slice(), &[0]].concat();
    for signature in [raw, longer_length, behind, vec![]] {
        let bad = Assertion { signature, ..genuine.clone() };
        let result = bad.verify(&ceremony.key(), &rp(), &DOCUMENT).map(drop);
        assert!(
            matches!(
                result,
                Err(WebauthnError::SignatureEncoding | WebauthnError::TooLarge { .. })
            ),
            "{result:?}"
        );
    }
}

#[test]
fn another_passkey_and_a_plain_credential_are_refused() {
    let ceremony = Ceremony::new();
    let other = Ceremony { secret: SigningKey::from_slice(&[6; 32]).unwrap(), ..Ceremony::new() };
    let mut assertion = ceremony.assertion();
    assert!(matches!(
        assertion.verify(&other.key(), &rp(), &DOCUMENT),
        Err(WebauthnError::OtherCredential { .. })
    ));
    assertion.credential = other.key().id();
    assert!(matches!(
        assertion.verify(&other.key(), &rp(), &DOCUMENT),
        Err(WebauthnError::Signature(_))
    ));
    let plain = PublicKey::new(Algorithm::P256, ceremony.key().as_bytes()).unwrap();
    assert!(matches!(
        ceremony.assertion().verify(&plain, &rp(), &DOCUMENT),
        Err(WebauthnError::NotAPasskey { .. })
    ));
}

#[test]
fn oversized_parts_are_refused_by_decoder_and_verifier() {
    let ceremony = Ceremony::new();
    let genuine = ceremony.assertion();
    for bad in [
        Assertion { authenticator_data: vec![0; AUTHENTICATOR_DATA_LEN + 1], ..genuine.clone() },
        Assertion { client_data: vec![b' '; MAX_CLIENT_DATA + 1], ..genuine.clone() },
        Assertion { signature: vec![0; MAX_SIGNATURE + 1], ..genuine.clone() },
    ] {
        assert!(matches!(
            bad.verify(&ceremony.key(), &rp(), &DOCUMENT),
            Err(WebauthnError::TooLarge { .. })
        ));
        assert!(matches!(
            Assertion::decode(&cbor::encode(&bad)),
            Err(cbor::CborError::Malformed { .. })
        ));
    }
    assert_eq!(Assertion::decode(&cbor::encode(&genuine)), Ok(genuine));
}

#[test]
fn the_counter_only_warns() {
    let count = |count| Ceremony { count, ..Ceremony::new() }.result().unwrap();
    assert_eq!(count(0).sign_count_warning(0), None);
    assert_eq!(count(6).sign_count_warning(5), None);
    assert_eq!(count(5).sign_count_warning(5), Some(SignCountWarning { previous: 5, found: 5 }));
    assert_eq!(count(0).sign_count_warning(5), Some(SignCountWarning { previous: 5, found: 0 }));
}

#[test]
fn relying_parties_have_a_host_name_and_an_origin_of_it() {
    let check = |id: &str, origin: &str| {
        RelyingParty { id: id.to_owned(), origin: origin.to_owned() }.check()
    };
    for (id, origin) in [
        ("example.org", "https://example.org"),
        ("example.org", "https://approvals.example.org"),
        ("example.org", "https://a.b.example.org:8443"),
        ("localhost", "http://localhost:3000"),
        ("localhost", "http://localhost"),
        ("localhost", "https://localhost:3000"),
    ] {
        assert_eq!(check(id, origin), Ok(()), "{id} {origin}");
    }
    for (id, origin) in [
        ("", "https://"),
        ("example", "https://example"),
        ("Example.org", "https://example.org"),
        ("example.org.", "https://example.org."),
        (".example.org", "https://a.example.org"),
        ("-a.example.org", "https://-a.example.org"),
        ("127.0.0.1", "https://127.0.0.1"),
        ("example.org", "http://example.org"),
        ("example.org", "https://example.org/"),
        ("example.org", "https://example.org:443"),
        ("example.org", "https://example.org:0"),
        ("example.org", "https://example.org:08443"),
        ("example.org", "https://example.org:70000"),
        ("example.org", "https://example.org:"),
        ("example.org", "https://evilexample.org"),
        ("example.org", "https://.example.org"),
        ("example.org", "https://example.org.evil.com"),
        ("example.org", "https://user@example.org"),
        ("example.org", "HTTPS://example.org"),
        ("localhost", "http://localhost:80"),
        ("example.org", "http://localhost"),
    ] {
        assert!(check(id, origin).is_err(), "{id} {origin}");
    }
}

#[derive(serde::Deserialize)]
struct Vectors {
    rp_id: String,
    origin: String,
    cases: std::collections::BTreeMap<String, Case>,
}
#[derive(serde::Deserialize)]
struct Case {
    registration: Registration,
    authentication: Authentication,
}
#[derive(serde::Deserialize)]
struct Registration {
    credential_private_key: Option<String>,
}
#[derive(serde::Deserialize)]
struct Authentication {
    challenge: String,
    #[serde(rename = "authenticatorData")]
    authenticator_data: String,
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    signature: String,
}

/// The specification's own ES256 assertions. All ten signatures verify; those made without user
/// verification or in a cross-origin frame are then refused for exactly that.
#[test]
fn w3c_level_3_vectors_verify_or_are_refused_for_their_flags() {
    let vectors: Vectors = serde_json::from_str(include_str!(
        "../../../../tests/vectors/webauthn/w3c_level3_vectors.json"
    ))
    .unwrap();
    let rp = RelyingParty { id: vectors.rp_id, origin: vectors.origin };
    let (mut verified, mut unverified_user, mut framed) = (0, 0, 0);
    for (name, case) in &vectors.cases {
        if !name.contains("es256") {
            continue;
        }
        let bytes = |text: &str| hex::decode(text).unwrap();
        let secret = case.registration.credential_private_key.as_deref().unwrap();
        let secret = SigningKey::from_slice(&bytes(secret)).unwrap();
        let point = secret.verifying_key().to_encoded_point(true);
        let key = PublicKey::new(Algorithm::WebauthnP256, point.as_bytes()).unwrap();
        let assertion = Assertion {
            credential: key.id(),
            authenticator_data: bytes(&case.authentication.authenticator_data),
            client_data: bytes(&case.authentication.client_data),
            signature: bytes(&case.authentication.signature),
        };
        let challenge = bytes(&case.authentication.challenge);
        match assertion.verify_challenge(&key, &rp, &challenge) {
            Ok(0) => verified += 1,
            Err(WebauthnError::UserNotVerified) => unverified_user += 1,
            Err(WebauthnError::CrossOrigin) => framed += 1,
            other => panic!("{name}: {other:?}"),
        }
        let result = assertion.verify_challenge(&key, &rp, &[0; 32]);
        assert!(matches!(result, Err(WebauthnError::Challenge { .. })), "{name}: {result:?}");
    }
    assert_eq!((verified, unverified_user, framed), (3, 5, 2));
}
