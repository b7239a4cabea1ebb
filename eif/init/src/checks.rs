//! What must be so before a key is made here.

/// Which generator the kernel draws on.
pub const HWRNG_PATH: &str = "/sys/class/misc/hw_random/rng_current";
/// By which counter the kernel keeps time.
pub const CLOCK_SOURCE_PATH: &str =
    "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// The generator that the driver of the security module registers.
pub const HWRNG: &str = "nsm-hwrng";
/// The counters that a Nitro enclave has: the hypervisor's clock, or the processor's counter, which the
/// hypervisor scales. The parent instance sets neither.
pub const CLOCK_SOURCES: [&str; 2] = ["kvm-clock", "tsc"];
/// The processor's counter while the kernel has not settled on it yet.
pub const UNSETTLED_CLOCK_SOURCE: &str = "tsc-early";
/// How far the clock may be from the attested time: a machine without the hypervisor's clock starts
/// from a battery clock, which counts seconds.
pub const CLOCK_TOLERANCE_MS: u64 = 2_000;

/// Most bytes of a name that are shown.
const MAX_SHOWN: usize = 64;

/// What is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The kernel draws on another generator, or none.
    #[error("the kernel draws randomness from `{found}`, and `{HWRNG}` is required")]
    Hwrng {
        /// What it draws on.
        found: String,
    },
    /// The kernel keeps time by something else.
    #[error("the kernel keeps time by `{found}`, and `kvm-clock` or `tsc` is required")]
    ClockSource {
        /// By what it does.
        found: String,
    },
    /// The clock is wrong.
    #[error(
        "the clock says {clock} ms since 1970, the hypervisor attests {attested}: more than \
         {CLOCK_TOLERANCE_MS} ms apart"
    )]
    Clock {
        /// The system's clock, after the answer.
        clock: u64,
        /// What the document says.
        attested: u64,
    },
    /// The clock went back while it was looked at.
    #[error("the clock went back from {before} to {after} ms since 1970")]
    Backwards {
        /// Before the question.
        before: u64,
        /// After the answer.
        after: u64,
    },
}

/// The kernel's generator is the security module's.
///
/// # Errors
/// If it is another.
pub fn hwrng(current: &[u8]) -> Result<(), CheckError> {
    let found = line(current);
    if found == HWRNG { Ok(()) } else { Err(CheckError::Hwrng { found }) }
}

/// The kernel keeps time by a counter that only the hypervisor sets.
///
/// # Errors
/// If it does not.
pub fn clock_source(current: &[u8]) -> Result<(), CheckError> {
    let found = line(current);
    if CLOCK_SOURCES.contains(&found.as_str()) {
        Ok(())
    } else {
        Err(CheckError::ClockSource { found })
    }
}

/// How far the clock is from the attested time, for which it was read before and after; all in
/// milliseconds.
///
/// # Errors
/// If that is more than [`CLOCK_TOLERANCE_MS`], or the clock went back.
pub fn clock(before: u64, attested: u64, after: u64) -> Result<u64, CheckError> {
    if after < before {
        return Err(CheckError::Backwards { before, after });
    }
    let apart = before.saturating_sub(attested).max(attested.saturating_sub(after));
    if apart > CLOCK_TOLERANCE_MS {
        return Err(CheckError::Clock { clock: after, attested });
    }
    Ok(apart)
}

/// The one line of a file under `/sys`, for comparison and for a person.
fn line(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.iter().take(MAX_SHOWN).flat_map(|byte| byte.escape_ascii()).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_of_the_security_module_is_required() {
        assert_eq!(hwrng(b"nsm-hwrng\n"), Ok(()));
        for other in
            [&b""[..], b"\n", b"none\n", b"virtio_rng.0\n", b"nsm-hwrng2\n", b"nsm-hwrng\n\n"]
        {
            assert!(matches!(hwrng(other), Err(CheckError::Hwrng { .. })), "{other:?}");
        }
        let error = hwrng(b"virtio_rng.0\n").unwrap_err().to_string();
        assert_eq!(
            error,
            "the kernel draws randomness from `virtio_rng.0`, and `nsm-hwrng` is required"
        );
    }

    #[test]
    fn clock_of_the_hypervisor_is_required() {
        assert_eq!(clock_source(b"kvm-clock\n"), Ok(()));
        assert_eq!(clock_source(b"tsc\n"), Ok(()));
        for other in [&b""[..], b"hpet\n", b"refined-jiffies\n", b"acpi_pm\n", b"tsc-early\n"] {
            assert!(
                matches!(clock_source(other), Err(CheckError::ClockSource { .. })),
                "{other:?}"
            );
        }
    }

    #[test]
    fn clock_near_the_attested_time_is_taken_and_one_further_away_is_not() {
        const T: u64 = 1_795_165_200_000;
        assert_eq!(clock(T, T + 3, T + 9), Ok(0));
        assert_eq!(clock(T, T - 2_000, T + 9), Ok(2_000));
        assert_eq!(clock(T, T + 2_009, T + 9), Ok(2_000));
        assert!(matches!(clock(T, T - 2_001, T + 9), Err(CheckError::Clock { .. })));
        assert!(matches!(clock(T, T + 2_010, T + 9), Err(CheckError::Clock { .. })));
        assert!(matches!(clock(0, T, 1), Err(CheckError::Clock { .. })));
        assert!(matches!(clock(T, 0, T), Err(CheckError::Clock { .. })));
        assert!(matches!(clock(T, u64::MAX, T), Err(CheckError::Clock { .. })));
    }

    #[test]
    fn clock_that_goes_back_is_refused() {
        assert_eq!(clock(9, 9, 8), Err(CheckError::Backwards { before: 9, after: 8 }));
    }
}
