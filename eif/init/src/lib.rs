//! The first program in an enclave: checks what the signer stands on, then runs it.
//!
//! In this order, and each step must succeed before the next:
//!
//! 1. `/dev`, `/proc` and `/sys` are mounted; standard output is the console.
//! 2. The measured settings are read: mode, parent's CID, trust root.
//! 3. The kernel draws on `nsm-hwrng`, and keeps time by a clock that only the hypervisor sets.
//! 4. Randomness of the security module is mixed into the kernel's pool, and the pool is full.
//! 5. The system's time is the one that the hypervisor attests.
//! 6. `/sys` goes away again; what the signer needs of `/dev` becomes its own.
//! 7. The parent hears that the enclave is up.
//! 8. The signer runs, as a user who may nothing, until it ends; then the enclave ends.
//!
//! A step that fails ends the enclave at once, after one line on the console that says which. Only an
//! enclave started in debug mode shows its console.
//!
//! What can be tried without being process 1 is a function here; the system calls are in [`system`].

pub mod checks;
pub mod entropy;
pub mod heartbeat;
pub mod settings;
pub mod system;

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casemate_image::{HEARTBEAT_PORT, SIGNER_PATH, SettingError};
use casemate_nsm::device::NsmDevice;
use casemate_nsm::{Attest, NsmError};

use crate::checks::CheckError;
use crate::heartbeat::HeartbeatError;
use crate::settings::Settings;

/// How long the kernel may take to settle on a clock: ten seconds.
const LOOKS: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Why an enclave does not go on.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file system cannot be mounted or unmounted.
    #[error("cannot {what} `{path}`: {error}")]
    Mount {
        /// `mount` or `unmount`.
        what: &'static str,
        /// Where.
        path: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// A file that must be there cannot be read or opened.
    #[error("`{path}`: {error}")]
    File {
        /// Which.
        path: String,
        /// The system's answer.
        error: io::Error,
    },
    /// There are no measured settings at all.
    #[error(
        "`{path}` is not there: the second ramdisk was not unpacked, as happens where the enclave has \
         too little memory"
    )]
    NoSettings {
        /// The first of them.
        path: &'static str,
    },
    /// A measured file is longer than it can be.
    #[error("`{path}` has more than {limit} bytes")]
    TooLong {
        /// Which.
        path: String,
        /// The most.
        limit: u64,
    },
    /// A measured setting is not one.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The measured trust root is not there.
    #[error("`{path}` is empty")]
    NoTrustRoot {
        /// Where it should be.
        path: String,
    },
    /// Something that the signer stands on is not as it should be.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The security module did not serve.
    #[error(transparent)]
    Nsm(#[from] NsmError),
    /// The kernel's pool takes no randomness, or gives none.
    #[error("the kernel's pool of randomness: {0}")]
    Pool(io::Error),
    /// The parent does not answer.
    #[error("no heartbeat with the parent at {cid}:{port}: {error}")]
    Heartbeat {
        /// The parent's CID.
        cid: u32,
        /// Its port.
        port: u32,
        /// What went wrong.
        error: HeartbeatError,
    },
    /// The clock cannot be set.
    #[error("cannot set the clock: {0}")]
    SetClock(io::Error),
    /// A right could not be given up.
    #[error("cannot drop {what}: {error}")]
    Drop {
        /// Which.
        what: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// The signer cannot be started or waited for.
    #[error("`{SIGNER_PATH}`: {0}")]
    Signer(io::Error),
}

/// Boots and runs the signer until it ends.
///
/// # Errors
/// The first step that fails.
pub fn run() -> Result<system::Ended, InitError> {
    system::mount_dev()?;
    system::take_console()?;
    system::mount_proc_and_sys()?;

    let settings = Settings::read("/")?;
    system::say(&format!("mode {}, parent's CID {}", settings.mode, settings.parent_cid));
    if settings.mode == casemate_image::Mode::Simulated {
        system::say("SIMULATED: this image trusts another root than that of AWS");
    }
    checks::hwrng(&system::read_sys(checks::HWRNG_PATH)?)?;
    checks::clock_source(&settled(
        || system::read_sys(checks::CLOCK_SOURCE_PATH),
        || std::thread::sleep(BETWEEN_LOOKS),
    )?)?;

    let nsm = NsmDevice::open()?;
    entropy::mix(|buffer| nsm.random(buffer), &mut system::open_pool()?)?;
    system::wait_for_pool()?;
    let apart = match attested_clock(&nsm, now) {
        // an emulated machine loses time while it boots, since its timer's ticks come late; what the module
        // attests is the hypervisor's time there as well
        Err(InitError::Check(CheckError::Clock { clock, attested }))
            if settings.mode == casemate_image::Mode::Simulated =>
        {
            system::say(&format!(
                "SIMULATED: sets the clock from {clock} to the attested {attested}"
            ));
            system::set_clock(attested)?;
            attested_clock(&nsm, now)?
        }
        apart => apart?,
    };
    system::say(&format!("`nsm-hwrng` seeds, and the clock is {apart} ms from the attested time"));
    drop(nsm);

    system::unmount_sys()?;
    system::hand_over_nsm()?;
    let cid = settings.parent_cid.get();
    heartbeat::with_parent(settings.parent_cid).map_err(|error| InitError::Heartbeat {
        cid,
        port: HEARTBEAT_PORT,
        error,
    })?;
    system::drop_rights()?;
    system::say(&format!("starts `{SIGNER_PATH}`"));
    system::run_signer()
}

/// How far the clock is from the time that the security module attests, in milliseconds.
fn attested_clock(nsm: &dyn Attest, now: impl Fn() -> u64) -> Result<u64, InitError> {
    let before = now();
    let attested = casemate_nsm::attested_time(nsm)?;
    Ok(checks::clock(before, attested, now())?)
}

/// What the kernel keeps time by, once it has settled: for its first second or two it is the processor's
/// counter under another name.
fn settled(
    read: impl Fn() -> Result<Vec<u8>, InitError>,
    wait: impl Fn(),
) -> Result<Vec<u8>, InitError> {
    for _ in 0..LOOKS {
        let found = read()?;
        if found.strip_suffix(b"\n").unwrap_or(&found) != checks::UNSETTLED_CLOCK_SOURCE.as_bytes()
        {
            return Ok(found);
        }
        wait();
    }
    read()
}

/// Milliseconds since 1970 by the system's clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use casemate_nsm::Wanted;

    use super::*;

    struct Told(Vec<u8>);

    impl Attest for Told {
        fn attest(&self, _: Wanted<'_>) -> Result<Vec<u8>, NsmError> {
            Ok(self.0.clone())
        }
    }

    fn genuine() -> Told {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/attestation/");
        Told(std::fs::read(format!("{folder}veracruz-2022-valid.bin")).unwrap())
    }

    #[test]
    fn clock_is_compared_with_the_time_that_a_document_carries() {
        let attested = casemate_nsm::attested_time(&genuine()).unwrap();
        let ticks = Cell::new(attested - 5);
        let apart = attested_clock(&genuine(), || {
            ticks.set(ticks.get() + 2);
            ticks.get()
        });
        assert_eq!(apart.unwrap(), 1);
        let late = attested_clock(&genuine(), || attested + 86_400_000).unwrap_err();
        assert!(matches!(late, InitError::Check(CheckError::Clock { .. })), "{late}");
    }

    #[test]
    fn clock_that_settles_is_waited_for_and_one_that_does_not_is_told_as_it_is() {
        let looks = Cell::new(0);
        let read = |settles_at: u32| {
            looks.set(0);
            settled(
                || {
                    Ok(if looks.get() < settles_at { b"tsc-early\n" } else { &b"tsc\n"[..] }
                        .to_vec())
                },
                || looks.set(looks.get() + 1),
            )
            .unwrap()
        };
        assert_eq!((read(0), looks.get()), (b"tsc\n".to_vec(), 0));
        assert_eq!((read(7), looks.get()), (b"tsc\n".to_vec(), 7));
        assert_eq!((read(u32::MAX), looks.get()), (b"tsc-early\n".to_vec(), LOOKS));
    }

    #[test]
    fn document_without_a_time_ends_the_boot() {
        let error = attested_clock(&Told(vec![0x84]), || 0).unwrap_err();
        assert!(matches!(error, InitError::Nsm(NsmError::Failed { .. })), "{error}");
    }
}
