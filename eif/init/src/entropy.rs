//! Randomness of the security module, mixed into the kernel's pool before anybody draws from it.
//!
//! The kernel feeds its pool from `nsm-hwrng` by itself. This does not wait for when it gets round to
//! it, and comes by another way, so that a flaw in either is made good by the other. What is
//! mixed in can only add: the pool is a hash of all that ever came.

use std::io::Write;

use casemate_nsm::NsmError;
use zeroize::Zeroizing;

use crate::InitError;

/// Bytes mixed in: as many as the module gives in one answer.
pub const SEED_BYTES: usize = 256;

/// Draws from the module and writes to the pool.
///
/// # Errors
/// If the one gives nothing or the other takes nothing.
pub fn mix(
    random: impl FnOnce(&mut [u8]) -> Result<(), NsmError>,
    pool: &mut impl Write,
) -> Result<(), InitError> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    random(seed.as_mut())?;
    pool.write_all(seed.as_ref()).and_then(|()| pool.flush()).map_err(InitError::Pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seed_goes_into_the_pool() {
        let mut pool = Vec::new();
        let random = |buffer: &mut [u8]| {
            buffer.iter_mut().zip(0_u8..=255).for_each(|(byte, value)| *byte = value);
            Ok(())
        };
        mix(random, &mut pool).unwrap();
        assert_eq!(pool, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn module_that_gives_nothing_ends_the_boot_and_leaves_the_pool_alone() {
        let mut pool = Vec::new();
        let random = |_: &mut [u8]| {
            Err(NsmError::Failed { what: "give randomness", reason: "it gave 0 bytes".to_owned() })
        };
        assert!(matches!(mix(random, &mut pool), Err(InitError::Nsm(_))));
        assert!(pool.is_empty());
    }

    #[test]
    fn pool_that_takes_nothing_ends_the_boot() {
        let mut full: &mut [u8] = &mut [];
        assert!(matches!(mix(|_| Ok(()), &mut full), Err(InitError::Pool(_))));
    }
}
