//! The device of a real enclave, `/dev/nsm`, through AWS's own crate.
//!
//! The device belongs to the hypervisor, which is trusted. Its answers are checked all the same
//! where a wrong one would go unnoticed: a random answer that is short, zero or a repetition, a
//! measurement that could still be extended.

use core::fmt;
use std::collections::BTreeSet;

use aws_nitro_enclaves_nsm_api::api::{Digest, ErrorCode, Request, Response};
use aws_nitro_enclaves_nsm_api::driver::{nsm_exit, nsm_init, nsm_process_request};
use zeroize::{Zeroize, Zeroizing};

use crate::{Attest, MAX_PUBLIC_KEY, MAX_USER_DATA, NsmError, Wanted};

/// Where the kernel's driver puts the device.
pub const PATH: &str = "/dev/nsm";

/// Most bytes of a document: more than any genuine one, and what the channel and the ledger take.
const MAX_DOCUMENT: usize = 16 * 1_024;
/// The PCRs that Nitro measures before the enclave's first instruction. One that is not locked
/// could be extended by the enclave itself and would vouch for nothing.
const MEASURED: [u16; 6] = [0, 1, 2, 3, 4, 8];
/// Least bytes of one random answer; the device gives 256.
const MIN_RANDOM: usize = 32;

/// What the device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The enclave's id: instance and enclave.
    pub module_id: String,
    /// Major, minor and patch of the device's interface.
    pub version: [u16; 3],
    /// How many PCRs it has.
    pub pcrs: u16,
    /// The PCRs that can no longer change.
    pub locked: BTreeSet<u16>,
}

/// The open device.
pub struct NsmDevice {
    /// As `nsm_init` gave it: a file descriptor that this value owns.
    fd: i32,
    description: Description,
}

impl NsmDevice {
    /// Opens the device and checks that it is one whose documents the verifier can believe.
    ///
    /// # Errors
    /// If there is none, or it describes itself as something else than a security module with
    /// SHA-384 and locked measurements.
    pub fn open() -> Result<Self, NsmError> {
        let fd = nsm_init();
        if fd < 0 {
            return Err(NsmError::NoDevice { path: PATH });
        }
        // from here on the descriptor is closed whatever happens
        let nothing = Description {
            module_id: String::new(),
            version: [0; 3],
            pcrs: 0,
            locked: BTreeSet::new(),
        };
        let mut device = Self { fd, description: nothing };
        device.description = described(device.process(Request::DescribeNSM))?;
        Ok(device)
    }

    /// What the device said of itself when it was opened.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Fills `buffer` with randomness of the hypervisor, to seed a generator together with the
    /// kernel's own: never as the only source.
    ///
    /// # Errors
    /// If the device fails, or its answer is short, all zero or a repetition. The buffer is then
    /// all zero.
    pub fn random(&self, buffer: &mut [u8]) -> Result<(), NsmError> {
        fill(buffer, || self.process(Request::GetRandom))
    }

    fn process(&self, request: Request) -> Response {
        nsm_process_request(self.fd, request)
    }
}

impl Attest for NsmDevice {
    fn attest(&self, wanted: Wanted<'_>) -> Result<Vec<u8>, NsmError> {
        document(self.process(request(wanted)?))
    }
}

impl Drop for NsmDevice {
    fn drop(&mut self) {
        nsm_exit(self.fd);
    }
}

impl fmt::Debug for NsmDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NsmDevice").field("module_id", &self.description.module_id).finish()
    }
}

/// The request for a document, each field within the device's limit.
fn request(wanted: Wanted<'_>) -> Result<Request, NsmError> {
    let within = |field, value: Option<&[u8]>, max| match value {
        Some(value) if value.len() > max => Err(NsmError::TooLong { field, len: value.len(), max }),
        value => Ok(value.map(|value| value.to_vec().into())),
    };
    Ok(Request::Attestation {
        user_data: within("user_data", wanted.user_data, MAX_USER_DATA)?,
        nonce: within("nonce", wanted.nonce, MAX_USER_DATA)?,
        public_key: within("public_key", wanted.public_key, MAX_PUBLIC_KEY)?,
    })
}

fn document(response: Response) -> Result<Vec<u8>, NsmError> {
    const WHAT: &str = "attest";
    match response {
        Response::Attestation { document } if document.is_empty() => {
            failed(WHAT, "it gave an empty document")
        }
        Response::Attestation { document } if document.len() > MAX_DOCUMENT => {
            failed(WHAT, format!("its document has {} bytes", document.len()))
        }
        Response::Attestation { document } => Ok(document),
        other => unexpected(WHAT, &other),
    }
}

fn described(response: Response) -> Result<Description, NsmError> {
    const WHAT: &str = "describe itself";
    let Response::DescribeNSM {
        version_major,
        version_minor,
        version_patch,
        module_id,
        max_pcrs,
        locked_pcrs,
        digest,
    } = response
    else {
        return unexpected(WHAT, &response);
    };
    if module_id.is_empty() {
        return failed(WHAT, "it has no module id");
    }
    if digest != Digest::SHA384 {
        return failed(WHAT, "its digest is not SHA-384");
    }
    if let Some(open) = MEASURED.iter().find(|index| !locked_pcrs.contains(index)) {
        return failed(WHAT, format!("its PCR{open} is not locked"));
    }
    Ok(Description {
        module_id,
        version: [version_major, version_minor, version_patch],
        pcrs: max_pcrs,
        locked: locked_pcrs,
    })
}

/// Fills a buffer from as many answers as it takes.
fn fill(buffer: &mut [u8], mut answer: impl FnMut() -> Response) -> Result<(), NsmError> {
    let mut previous = Zeroizing::new(Vec::new());
    for at in (0..buffer.len()).step_by(MIN_RANDOM) {
        let drawn = match random_of(answer()) {
            Ok(drawn) if *drawn == *previous => {
                failed("give randomness", "it gave the same bytes twice")
            }
            drawn => drawn,
        };
        let drawn = match drawn {
            Ok(drawn) => drawn,
            Err(error) => {
                buffer.zeroize();
                return Err(error);
            }
        };
        // as many bytes of each answer as the least that it has: few requests are needed, once
        let wanted = buffer.iter_mut().skip(at).take(MIN_RANDOM);
        wanted.zip(drawn.iter()).for_each(|(byte, drawn)| *byte = *drawn);
        previous = drawn;
    }
    Ok(())
}

fn random_of(response: Response) -> Result<Zeroizing<Vec<u8>>, NsmError> {
    const WHAT: &str = "give randomness";
    match response {
        Response::GetRandom { random } => {
            let random = Zeroizing::new(random);
            if random.len() < MIN_RANDOM {
                failed(WHAT, format!("it gave {} bytes", random.len()))
            } else if random.iter().all(|byte| *byte == 0) {
                failed(WHAT, "it gave nothing but zeroes")
            } else {
                Ok(random)
            }
        }
        other => unexpected(WHAT, &other),
    }
}

fn failed<T>(what: &'static str, reason: impl Into<String>) -> Result<T, NsmError> {
    Err(NsmError::Failed { what, reason: reason.into() })
}

fn unexpected<T>(what: &'static str, response: &Response) -> Result<T, NsmError> {
    let Response::Error(code) = response else {
        return failed(what, "it answered something that was not asked");
    };
    failed(
        what,
        match code {
            ErrorCode::Success => "it answered no error and no result",
            ErrorCode::InvalidArgument => "an argument is not valid",
            ErrorCode::InvalidIndex => "there is no such PCR",
            ErrorCode::InvalidResponse => "the answer does not fit the request",
            ErrorCode::ReadOnlyIndex => "the PCR is locked",
            ErrorCode::InvalidOperation => "it cannot do that",
            ErrorCode::BufferTooSmall => "the answer does not fit the buffer",
            ErrorCode::InputTooLarge => "the request is too large",
            ErrorCode::InternalError => "internal error",
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason<T: fmt::Debug>(result: Result<T, NsmError>) -> String {
        result.unwrap_err().to_string()
    }

    fn description(change: impl FnOnce(&mut BTreeSet<u16>, &mut String, &mut Digest)) -> Response {
        let (mut locked_pcrs, mut module_id, mut digest) =
            ((0..16).collect(), "i-0-enc0".to_owned(), Digest::SHA384);
        change(&mut locked_pcrs, &mut module_id, &mut digest);
        Response::DescribeNSM {
            version_major: 1,
            version_minor: 0,
            version_patch: 0,
            module_id,
            max_pcrs: 32,
            locked_pcrs,
            digest,
        }
    }

    #[test]
    fn without_a_device_that_is_what_is_said() {
        if !std::path::Path::new(PATH).exists() {
            assert_eq!(NsmDevice::open().unwrap_err(), NsmError::NoDevice { path: PATH });
        }
    }

    #[test]
    fn a_device_as_nitro_has_it_is_accepted() {
        let found = described(description(|_, _, _| {})).unwrap();
        assert_eq!((found.version, found.pcrs), ([1, 0, 0], 32));
        assert_eq!((found.module_id.as_str(), found.locked.len()), ("i-0-enc0", 16));
    }

    #[test]
    fn a_device_whose_documents_would_vouch_for_nothing_is_refused() {
        for measured in MEASURED {
            let open = described(description(|locked, _, _| assert!(locked.remove(&measured))));
            assert!(reason(open).ends_with(&format!("its PCR{measured} is not locked")));
        }
        let digest = described(description(|_, _, digest| *digest = Digest::SHA256));
        assert!(reason(digest).ends_with("its digest is not SHA-384"));
        let nameless = described(description(|_, id, _| id.clear()));
        assert!(reason(nameless).ends_with("it has no module id"));
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        assert!(reason(described(Response::LockPCR)).ends_with("not asked"));
        assert!(reason(document(Response::LockPCRs)).ends_with("not asked"));
        let random = || Response::Attestation { document: vec![1; 64] };
        assert!(reason(fill(&mut [0; 8], random)).ends_with("not asked"));
    }

    #[test]
    fn errors_of_the_device_are_named() {
        let said = |code| reason(document(Response::Error(code)));
        assert_eq!(
            said(ErrorCode::InternalError),
            "the security module failed to attest: internal error"
        );
        assert!(said(ErrorCode::InputTooLarge).ends_with("the request is too large"));
        assert!(said(ErrorCode::Success).ends_with("no error and no result"));
    }

    #[test]
    fn fields_longer_than_the_device_takes_are_refused_before_it_is_asked() {
        let (fits, long) = ([0; MAX_USER_DATA], [0; MAX_USER_DATA + 1]);
        let wanted = Wanted { user_data: Some(&fits), nonce: Some(&fits), public_key: Some(&long) };
        assert!(matches!(
            request(wanted),
            Ok(Request::Attestation { user_data: Some(user_data), .. }) if user_data.len() == 512
        ));
        let too_long = |wanted| match request(wanted) {
            Err(NsmError::TooLong { field, len, max }) => (field, len, max),
            other => panic!("{other:?}"),
        };
        let wanted = Wanted { user_data: Some(&long), ..Wanted::default() };
        assert_eq!(too_long(wanted), ("user_data", 513, 512));
        let wanted = Wanted { nonce: Some(&long), ..Wanted::default() };
        assert_eq!(too_long(wanted), ("nonce", 513, 512));
        let wanted = Wanted { public_key: Some(&[0; 1_025]), ..Wanted::default() };
        assert_eq!(too_long(wanted), ("public_key", 1_025, 1_024));
    }

    #[test]
    fn documents_of_a_wrong_length_are_refused() {
        let of = |len| document(Response::Attestation { document: vec![7; len] });
        assert_eq!(of(MAX_DOCUMENT).unwrap().len(), MAX_DOCUMENT);
        assert!(reason(of(0)).ends_with("an empty document"));
        assert!(reason(of(MAX_DOCUMENT + 1)).ends_with("16385 bytes"));
    }

    #[test]
    fn a_buffer_is_filled_from_several_answers() {
        let mut asked = 0_u8;
        let mut buffer = [0; 70];
        let answer = || {
            asked += 1;
            Response::GetRandom { random: vec![asked; 256] }
        };
        fill(&mut buffer, answer).unwrap();
        assert_eq!((buffer[0], buffer[31], buffer[32], buffer[69]), (1, 1, 2, 3));
        assert_eq!(asked, 3);
    }

    #[test]
    fn short_zero_and_repeated_randomness_is_refused_and_leaves_nothing() {
        let with = |random: Vec<u8>| {
            let mut buffer = [9; 64];
            let said = reason(fill(&mut buffer, || Response::GetRandom { random: random.clone() }));
            assert_eq!(buffer, [0; 64]);
            said
        };
        assert!(with(vec![1; 31]).ends_with("it gave 31 bytes"));
        assert!(with(Vec::new()).ends_with("it gave 0 bytes"));
        assert!(with(vec![0; 256]).ends_with("nothing but zeroes"));
        assert!(with(vec![5; 256]).ends_with("the same bytes twice"));
    }
}
