//! Whether a file is a kernel that an x86-64 machine boots: a bzImage.
//!
//! Source: `Documentation/arch/x86/boot.rst` in Linux. The setup header begins at 0x1f1, and its
//! `syssize` says how long the file is, so that one cut short is found here and not at boot.

/// Most bytes of a kernel.
pub const MAX_KERNEL: usize = 64 * 1_024 * 1_024;

const SECTOR: usize = 512;
/// The boot protocol that Linux 3.8 brought: older kernels have no driver for the security module.
const MIN_PROTOCOL: u16 = 0x020c;
const LOADED_HIGH: u8 = 1;
const MAX_VERSION: usize = 256;

/// Why a file is no kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Longer than any kernel.
    #[error("has {found} bytes, at most {MAX_KERNEL} are allowed")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// No boot sector and setup header.
    #[error("is no bzImage: it has no x86 boot header")]
    NoBootHeader,
    /// A boot protocol that is too old, or a kernel that is loaded below one megabyte.
    #[error("is no bzImage that a 64-bit machine boots")]
    TooOld,
    /// The file ends before the kernel does.
    #[error("is cut short: its boot header names {expected} bytes, it has {found}")]
    Truncated {
        /// What the boot header says.
        expected: u64,
        /// Its length.
        found: usize,
    },
    /// No text that says which kernel it is.
    #[error("does not say its version")]
    NoVersion,
}

/// What a bzImage says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The release, such as `6.12.57`: the first word of its version text.
    pub release: String,
}

impl Kernel {
    /// Looks at a file that should be a bzImage.
    ///
    /// # Errors
    /// If it is none, or not whole.
    pub fn check(file: &[u8]) -> Result<Self, KernelError> {
        if file.len() > MAX_KERNEL {
            return Err(KernelError::TooLong { found: file.len() });
        }
        let none = KernelError::NoBootHeader;
        if bytes::<2>(file, 0x1fe) != Some([0x55, 0xaa]) || bytes(file, 0x202) != Some(*b"HdrS") {
            return Err(none);
        }
        let [setup_sectors] = bytes(file, 0x1f1).ok_or_else(|| none.clone())?;
        let system = bytes(file, 0x1f4).map(u32::from_le_bytes).ok_or_else(|| none.clone())?;
        let protocol = bytes(file, 0x206).map(u16::from_le_bytes).ok_or_else(|| none.clone())?;
        let version = bytes(file, 0x20e).map(u16::from_le_bytes).ok_or_else(|| none.clone())?;
        let [flags] = bytes(file, 0x211).ok_or(none)?;
        if protocol < MIN_PROTOCOL || flags & LOADED_HIGH == 0 {
            return Err(KernelError::TooOld);
        }
        // zero stands for four, for the sake of loaders from 1995
        let setup_sectors = if setup_sectors == 0 { 4 } else { usize::from(setup_sectors) };
        let setup = setup_sectors.saturating_add(1).saturating_mul(SECTOR);
        let expected = u64::from(system)
            .saturating_mul(16)
            .saturating_add(u64::try_from(setup).unwrap_or(u64::MAX));
        if u64::try_from(file.len()).is_ok_and(|found| found < expected) {
            return Err(KernelError::Truncated { expected, found: file.len() });
        }
        Ok(Self { release: release(file, version).ok_or(KernelError::NoVersion)? })
    }
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

/// The first word of the version text, whose place counts from the end of the boot sector.
fn release(file: &[u8], pointer: u16) -> Option<String> {
    let text = file.get(usize::from(pointer).checked_add(SECTOR)?..)?;
    let end = text.iter().take(MAX_VERSION).position(|byte| *byte == 0)?;
    let text = core::str::from_utf8(text.get(..end)?).ok()?;
    let word = text.split(' ').next().filter(|word| !word.is_empty())?;
    word.bytes().all(|byte| byte.is_ascii_graphic()).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage() -> Vec<u8> {
        let mut file = vec![0; 2 * 512 + 64];
        file[0x1f1] = 1;
        file[0x1f4] = 4;
        file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        file[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        file[0x211] = 1;
        file[0x300..0x310].copy_from_slice(b"6.12.57 (b@h) #1");
        file
    }

    fn refused(change: impl FnOnce(&mut Vec<u8>)) -> KernelError {
        let mut file = bzimage();
        change(&mut file);
        Kernel::check(&file).unwrap_err()
    }

    #[test]
    fn bzimage_is_taken_and_says_its_release() {
        assert_eq!(Kernel::check(&bzimage()).unwrap().release, "6.12.57");
        let mut signed = bzimage();
        signed.extend_from_slice(b"a signature");
        assert!(Kernel::check(&signed).is_ok());
    }

    #[test]
    fn file_without_a_boot_header_is_refused() {
        assert_eq!(Kernel::check(b""), Err(KernelError::NoBootHeader));
        assert_eq!(Kernel::check(b"\x7fELF, a vmlinux"), Err(KernelError::NoBootHeader));
        assert_eq!(refused(|file| file[0x202] = 0), KernelError::NoBootHeader);
        assert_eq!(refused(|file| file[0x1fe] = 0), KernelError::NoBootHeader);
        assert_eq!(refused(|file| file.truncate(0x208)), KernelError::NoBootHeader);
    }

    #[test]
    fn kernel_cut_short_is_refused() {
        let refused = refused(|file| file.truncate(2 * 512 + 63));
        assert_eq!(refused, KernelError::Truncated { expected: 1_088, found: 1_087 });
    }

    #[test]
    fn zimage_and_old_protocols_are_refused() {
        assert_eq!(refused(|file| file[0x211] = 0), KernelError::TooOld);
        assert_eq!(refused(|file| file[0x206] = 0x0b), KernelError::TooOld);
    }

    #[test]
    fn kernel_without_a_version_is_refused() {
        for change in [0_u8, b' ', 0x1b, 0xff] {
            assert_eq!(refused(|file| file[0x300] = change), KernelError::NoVersion, "{change}");
        }
        assert_eq!(refused(|file| file[0x20f] = 0xff), KernelError::NoVersion);
    }
}
