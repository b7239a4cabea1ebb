//! Whether a file is a program that may go into an image: static, whole, for x86-64, and not one
//! that was built to be attacked.
//!
//! An enclave has no loader and no libraries, so a program that asks for either would not start.
//!
//! **Markers.** What must never be in an enclave carries a text that survives the linker, and this
//! module looks for it. `tests/sim`, the software security module, carries [`SIMULATOR_MARKER`];
//! a program in which a rule is broken on purpose, to see that a test notices, must carry
//! [`SABOTAGE_MARKER`].

/// Most bytes of a program.
pub const MAX_PROGRAM: usize = 256 * 1_024 * 1_024;

/// What both markers begin with: one that is not known here is refused too.
const MARKER: &[u8] = b"casemate-marker:";
/// Carried by everything that has the simulator in it.
pub const SIMULATOR_MARKER: &str = "casemate-marker:simulator";
/// Carried by everything in which a rule is broken on purpose.
pub const SABOTAGE_MARKER: &str = "casemate-marker:sabotage";

/// Most bytes of a marker that are shown.
const MAX_SHOWN: usize = 32;

const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const POSITION_INDEPENDENT: u16 = 3;
const X86_64: u16 = 62;
const SEGMENT_HEADER: usize = 56;
const SECTION_HEADER: u64 = 64;
const MAX_SEGMENTS: usize = 64;
const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const NEEDED: u64 = 1;

/// Why a file may not go into an image as a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Longer than any program of ours.
    #[error("has {found} bytes, at most {MAX_PROGRAM} are allowed")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Not an ELF file, or one whose headers make no sense.
    #[error("is no ELF program")]
    NotElf,
    /// An ELF file for another machine, or a library, or an object.
    #[error("is no program for x86-64")]
    OtherMachine,
    /// The file ends before what its headers name.
    #[error("is cut short: its headers name {expected} bytes, it has {found}")]
    Truncated {
        /// What the headers say.
        expected: u64,
        /// Its length.
        found: usize,
    },
    /// It asks for a loader or for libraries.
    #[error("is not static: it asks for {wants}; build it for x86_64-unknown-linux-musl")]
    NotStatic {
        /// What it asks for.
        wants: &'static str,
    },
    /// It carries a marker.
    #[error("carries `{marker}`: it was built for tests and must not run in an enclave")]
    Marked {
        /// The marker.
        marker: String,
    },
}

/// Checks a file that should run in an enclave.
///
/// # Errors
/// If it may not.
pub fn check(file: &[u8]) -> Result<(), ProgramError> {
    if file.len() > MAX_PROGRAM {
        return Err(ProgramError::TooLong { found: file.len() });
    }
    check_elf(file)?;
    match find(file, MARKER) {
        None => Ok(()),
        Some(at) => {
            let word = at
                .iter()
                .take(MAX_SHOWN)
                .take_while(|byte| byte.is_ascii_lowercase() || matches!(byte, b':' | b'-'));
            Err(ProgramError::Marked { marker: word.copied().map(char::from).collect() })
        }
    }
}

fn check_elf(file: &[u8]) -> Result<(), ProgramError> {
    let elf = |at| bytes::<2>(file, at).map(u16::from_le_bytes).ok_or(ProgramError::NotElf);
    let elf_u64 = |at| bytes::<8>(file, at).map(u64::from_le_bytes).ok_or(ProgramError::NotElf);
    if !file.starts_with(b"\x7fELF") {
        return Err(ProgramError::NotElf);
    }
    if bytes(file, 4) != Some([CLASS_64, LITTLE_ENDIAN])
        || !matches!(elf(16)?, EXECUTABLE | POSITION_INDEPENDENT)
        || elf(18)? != X86_64
    {
        return Err(ProgramError::OtherMachine);
    }
    let (segments, sections) = (elf_u64(32)?, elf_u64(40)?);
    let (segment_size, segment_count) = (usize::from(elf(54)?), usize::from(elf(56)?));
    let section_count = u64::from(elf(60)?);
    let within = |at: u64, length: u64| {
        let end = at.checked_add(length).ok_or(ProgramError::NotElf)?;
        match usize::try_from(end) {
            Ok(to) if to <= file.len() => Ok(to),
            _ => Err(ProgramError::Truncated { expected: end, found: file.len() }),
        }
    };
    if segment_size != SEGMENT_HEADER || !(1..=MAX_SEGMENTS).contains(&segment_count) {
        return Err(ProgramError::NotElf);
    }
    // the table of sections comes last in what linkers write
    within(sections, SECTION_HEADER.saturating_mul(section_count))?;
    let table_bytes = SEGMENT_HEADER.saturating_mul(segment_count);
    let end = within(segments, u64::try_from(table_bytes).unwrap_or(u64::MAX))?;
    let table = file.get(end.saturating_sub(table_bytes)..end).ok_or(ProgramError::NotElf)?;
    let mut loads = false;
    for segment in table.chunks_exact(SEGMENT_HEADER) {
        let field = |at| bytes(segment, at).map(u64::from_le_bytes).ok_or(ProgramError::NotElf);
        let kind = bytes(segment, 0).map(u32::from_le_bytes).ok_or(ProgramError::NotElf)?;
        let (offset, length) = (field(8)?, field(32)?);
        let to = within(offset, length)?;
        match kind {
            LOAD => loads = true,
            INTERPRETER => return Err(ProgramError::NotStatic { wants: "a loader" }),
            DYNAMIC => {
                let from = usize::try_from(offset).map_err(|_| ProgramError::NotElf)?;
                let entries = file.get(from..to).ok_or(ProgramError::NotElf)?;
                let needs = |entry: &[u8]| bytes(entry, 0).map(u64::from_le_bytes) == Some(NEEDED);
                if entries.chunks(16).any(needs) {
                    return Err(ProgramError::NotStatic { wants: "libraries" });
                }
            }
            _ => {}
        }
    }
    if loads { Ok(()) } else { Err(ProgramError::NotElf) }
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

/// What begins with `wanted`, up to the file's end.
fn find<'a>(file: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let first = wanted.first()?;
    let mut rest = file;
    loop {
        rest = rest.get(rest.iter().position(|byte| byte == first)?..)?;
        if rest.starts_with(wanted) {
            return Some(rest);
        }
        rest = rest.get(1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of one segment that is loaded, and another of the kind given.
    fn program(kind: u32, contents: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[16] = 3;
        file[18] = 62;
        file[32] = 64;
        file[54] = 56;
        file[56] = 2;
        for (kind, offset, length) in [(LOAD, 0, 176), (kind, 176, contents.len())] {
            let mut segment = [0; 56];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[8..16].copy_from_slice(&u64::try_from(offset).unwrap().to_le_bytes());
            segment[32..40].copy_from_slice(&u64::try_from(length).unwrap().to_le_bytes());
            file.extend_from_slice(&segment);
        }
        file.extend_from_slice(contents);
        file
    }

    #[test]
    fn static_program_is_taken() {
        assert_eq!(check(&program(LOAD, b"code")), Ok(()));
        // static-pie has a table for its own relocations, which needs nothing
        assert_eq!(
            check(&program(DYNAMIC, &[4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])),
            Ok(())
        );
    }

    #[test]
    fn program_with_a_loader_is_refused() {
        let file = program(INTERPRETER, b"/lib64/ld-linux-x86-64.so.2\0");
        assert_eq!(check(&file), Err(ProgramError::NotStatic { wants: "a loader" }));
    }

    #[test]
    fn program_that_needs_a_library_is_refused() {
        let mut needed = [0; 32];
        needed[16] = 1;
        let file = program(DYNAMIC, &needed);
        assert_eq!(check(&file), Err(ProgramError::NotStatic { wants: "libraries" }));
    }

    /// The linker of this machine makes one by default.
    #[test]
    fn this_very_test_is_no_static_program() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(matches!(check(&file), Err(ProgramError::NotStatic { .. })));
    }

    #[test]
    fn file_that_is_no_program_is_refused() {
        for file in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01\x01"] {
            assert!(check(file).is_err(), "{file:?}");
        }
        let mut empty = program(LOAD, b"");
        empty[64] = 0x6e;
        empty[120] = 0x6e;
        assert_eq!(check(&empty), Err(ProgramError::NotElf));
    }

    #[test]
    fn program_for_another_machine_is_refused() {
        for (at, value) in [(4, 1), (5, 2), (16, 1), (18, 183)] {
            let mut file = program(LOAD, b"code");
            file[at] = value;
            assert_eq!(check(&file), Err(ProgramError::OtherMachine), "{at}");
        }
    }

    #[test]
    fn program_cut_anywhere_is_refused() {
        let file = program(LOAD, b"code");
        for end in 0..file.len() {
            assert!(check(&file[..end]).is_err(), "{end}");
        }
        let mut sections = file.clone();
        sections[40] = 176;
        sections[60] = 1;
        let cut = ProgramError::Truncated { expected: 240, found: 180 };
        assert_eq!(check(&sections), Err(cut));
    }

    #[test]
    fn program_with_a_marker_is_refused_and_the_marker_named() {
        for marker in [SIMULATOR_MARKER, SABOTAGE_MARKER, "casemate-marker:what-comes-later"] {
            let file = program(LOAD, format!("..ccase{marker}\0and more").as_bytes());
            assert_eq!(check(&file), Err(ProgramError::Marked { marker: marker.to_owned() }));
        }
    }
}
