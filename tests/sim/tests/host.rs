//! One simulated platform for several processes, and the simulated device as an enclave has it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use casemate_attestation_verify::{
    At, Expectations, Freshness, Measurement, Pcr, TrustRoot, UnixMillis, verify,
};
use casemate_nsm::{Attest, NsmError, Wanted};
use casemate_sim::{EnclaveSpec, SimError, SimHost};

const NOW: u64 = 1_795_165_200_000;
const MEASUREMENT: [[u8; 48]; 3] = [[1; 48], [2; 48], [3; 48]];

fn expectations() -> Expectations {
    let [pcr0, pcr1, pcr2] = MEASUREMENT.map(Pcr::new);
    Expectations::measured_as([Measurement { pcr0, pcr1, pcr2 }])
}

fn now() -> At {
    let freshness = Freshness { max_age_ms: Some(0), future_tolerance_ms: 0 };
    At::Now { now: UnixMillis::new(NOW), freshness }
}

#[test]
fn hosts_of_one_stored_root_are_one_platform() {
    let first = SimHost::new().unwrap();
    let stored = first.to_secret_der().unwrap();
    let second = SimHost::from_secret_der(&stored).unwrap();
    assert_eq!(first.root_der(), second.root_der());
    assert_eq!(second.to_secret_der().unwrap(), stored);
    let root = TrustRoot::from_der(first.root_der()).unwrap();
    let nsm = second.start(EnclaveSpec::numbered(2, "eu-west-1", MEASUREMENT));
    let document = nsm.attest(Some(b"bound"), None, None, NOW).unwrap();
    let expectations = expectations().with_user_data(*b"bound").with_region("eu-west-1");
    verify(&document, &root, &expectations, now()).unwrap();
}

#[test]
fn bytes_that_are_no_stored_root_are_refused() {
    let (one, other) = (SimHost::new().unwrap(), SimHost::new().unwrap());
    let stored = one.to_secret_der().unwrap();
    for bytes in [&[][..], &stored[..stored.len() - 1], &[0x30, 0], one.root_der()] {
        SimHost::from_secret_der(bytes).expect_err("not a stored root");
    }
    // the one's key beside the other's certificate, which is as long but for a byte or two
    let certificate = one.root_der();
    let at = stored.windows(certificate.len()).position(|window| window == certificate).unwrap();
    let mut mixed = stored.to_vec();
    mixed.truncate(at);
    mixed.extend_from_slice(other.root_der());
    if other.root_der().len() == certificate.len() {
        let error = SimHost::from_secret_der(&mixed).unwrap_err();
        assert!(matches!(error, SimError::ForeignKey), "{error}");
    } else {
        SimHost::from_secret_der(&mixed).expect_err("lengths differ");
    }
}

#[test]
fn a_device_with_a_clock_attests_as_an_enclaves_does() {
    let host = SimHost::new().unwrap();
    let nsm = host.start(EnclaveSpec::numbered(1, "us-east-1", MEASUREMENT)).with_clock(|| NOW);
    let device: &dyn Attest = &nsm;
    let nonce = [5; 32];
    let wanted = Wanted { user_data: Some(b"data"), nonce: Some(&nonce), public_key: None };
    let document = device.attest(wanted).unwrap();
    let root = TrustRoot::from_der(host.root_der()).unwrap();
    let expectations = expectations().with_nonce(nonce).with_user_data(*b"data");
    let evidence = verify(&document, &root, &expectations, now()).unwrap();
    assert_eq!(evidence.timestamp().get(), NOW);
    assert_eq!(evidence.module_id(), nsm.nsm().enclave().module_id());
    let long = [0; 513];
    let wanted = Wanted { nonce: Some(&long), ..Wanted::default() };
    let refused = NsmError::TooLong { field: "nonce", len: 513, max: 512 };
    assert_eq!(device.attest(wanted), Err(refused));
}
