//! Files that are no image, each for one reason. A change is made with the CRC set right again, so that
//! it is not the CRC that finds it.

use casemate_eif::image::{CmdlineError, FormatError, Image, MAX_SECTIONS};

use crate::kit::vector;

const SECTIONS: usize = 26;
const OFFSETS: usize = 28;
const SIZES: usize = OFFSETS + 8 * 32;
const CRC: usize = 544;
const HEADER: usize = 548;

fn with_crc(mut file: Vec<u8>) -> Vec<u8> {
    if file.len() >= HEADER {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&file[..CRC]);
        crc.update(&file[HEADER..]);
        file[CRC..HEADER].copy_from_slice(&crc.finalize().to_be_bytes());
    }
    file
}

fn refused(change: impl FnOnce(&mut Vec<u8>)) -> FormatError {
    let mut file = vector("signed.eif");
    assert!(Image::parse(&with_crc(file.clone())).is_ok());
    change(&mut file);
    Image::parse(&with_crc(file)).unwrap_err()
}

fn number(file: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(file[at..at + 8].try_into().unwrap())
}

fn set(file: &mut [u8], at: usize, value: u64) {
    file[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// Where a section's own header begins.
fn section(file: &[u8], index: usize) -> usize {
    usize::try_from(number(file, OFFSETS + 8 * index)).unwrap()
}

#[test]
fn file_cut_anywhere_is_refused() {
    let file = vector("signed.eif");
    for end in 0..file.len() {
        let error = Image::parse(&file[..end]).unwrap_err();
        assert!(matches!(error, FormatError::Truncated { .. }), "{end}: {error}");
    }
}

#[test]
fn any_changed_bit_is_refused() {
    let file = vector("unsigned.eif");
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            assert!(Image::parse(&changed).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn wrong_crc_is_refused() {
    let mut file = vector("signed.eif");
    file[CRC + 3] ^= 1;
    let stated = u32::from_be_bytes(file[CRC..HEADER].try_into().unwrap());
    let error = FormatError::Crc { stated, computed: stated ^ 1 };
    assert_eq!(Image::parse(&file), Err(error));
}

#[test]
fn other_file_is_refused() {
    assert_eq!(refused(|file| file[1] = b'E'), FormatError::Magic);
}

#[test]
fn other_version_is_refused() {
    for version in [0, 3, 5] {
        assert_eq!(
            refused(|file| file[5] = version),
            FormatError::Version { found: version.into() }
        );
    }
}

#[test]
fn image_for_another_machine_is_refused() {
    assert_eq!(refused(|file| file[7] = 1), FormatError::Flags { found: 1 });
}

#[test]
fn reserved_field_that_is_not_zero_is_refused() {
    for at in [24, 25, 540, 543] {
        let error = refused(|file| file[at] = 1);
        assert!(matches!(error, FormatError::NotZero { .. }), "{at}: {error}");
    }
}

#[test]
fn too_many_sections_are_refused() {
    for count in [33, 0x7fff, 0xffff] {
        let error =
            refused(|file| file[SECTIONS..OFFSETS].copy_from_slice(&u16::to_be_bytes(count)));
        assert_eq!(error, FormatError::TooManySections { found: count });
    }
    let ramdisks = vec![&b"x"[..]; MAX_SECTIONS - 2];
    let error = Image::new(b"k", "c", b"{}", ramdisks).encode().unwrap_err();
    assert_eq!(error, FormatError::TooManySections { found: 33 });
}

#[test]
fn section_that_the_header_does_not_count_is_refused() {
    let error = refused(|file| file[SECTIONS + 1] -= 1);
    assert!(matches!(error, FormatError::NotZero { .. }), "{error}");
    let error = refused(|file| {
        file[SECTIONS + 1] -= 1;
        set(file, OFFSETS + 8 * 5, 0);
        set(file, SIZES + 8 * 5, 0);
    });
    assert!(matches!(error, FormatError::Trailing { .. }), "{error}");
}

#[test]
fn overlapping_sections_are_refused() {
    let error = refused(|file| {
        let first = number(file, OFFSETS + 8 * 3);
        set(file, OFFSETS + 8 * 4, first);
    });
    assert!(matches!(error, FormatError::Offset { index: 4, .. }), "{error}");
}

#[test]
fn gap_between_sections_is_refused() {
    let error = refused(|file| {
        let at = section(file, 1);
        file.insert(at, 0);
        for index in 1..6 {
            let offset = number(file, OFFSETS + 8 * index);
            set(file, OFFSETS + 8 * index, offset + 1);
        }
    });
    assert!(matches!(error, FormatError::Offset { index: 1, .. }), "{error}");
}

#[test]
fn section_before_or_beyond_the_file_is_refused() {
    for offset in [0, 547, u64::MAX, 1 << 63] {
        let error = refused(|file| set(file, OFFSETS, offset));
        assert!(matches!(error, FormatError::Offset { index: 0, .. }), "{error}");
    }
}

#[test]
fn sizes_that_do_not_add_up_are_refused() {
    let error = refused(|file| {
        let size = number(file, SIZES);
        set(file, SIZES, size + 1);
    });
    assert!(matches!(error, FormatError::Size { index: 0, .. }), "{error}");
    let error = refused(|file| {
        let at = section(file, 0) + 4;
        set(file, at, 1);
    });
    assert!(matches!(error, FormatError::Size { index: 0, .. }), "{error}");
}

#[test]
fn size_beyond_the_file_is_refused_before_anything_is_allocated() {
    for size in [1 << 20, u64::MAX, u64::MAX - 559] {
        let error = refused(|file| {
            let at = section(file, 0) + 4;
            set(file, at, size);
            set(file, SIZES, size);
        });
        assert!(matches!(error, FormatError::Truncated { .. }), "{error}");
    }
}

#[test]
fn bytes_behind_the_last_section_are_refused() {
    assert_eq!(refused(|file| file.push(0)), FormatError::Trailing { found: 1 });
}

#[test]
fn section_of_an_unknown_type_is_refused() {
    for kind in [0, 6, 0xff] {
        let error = refused(|file| {
            let at = section(file, 2);
            file[at + 1] = kind;
        });
        assert_eq!(error, FormatError::UnknownSection { index: 2, found: kind.into() });
    }
}

#[test]
fn section_flags_are_refused() {
    let error = refused(|file| {
        let at = section(file, 3);
        file[at + 3] = 1;
    });
    assert!(matches!(error, FormatError::NotZero { .. }), "{error}");
}

#[test]
fn sections_in_another_order_are_refused() {
    // (section, type put there, what is found first)
    for (index, kind, at) in
        [(0, 2, 0), (1, 1, 1), (2, 3, 2), (3, 1, 3), (3, 4, 3), (4, 5, 4), (4, 4, 5)]
    {
        let error = refused(|file| {
            let at = section(file, index);
            file[at + 1] = kind;
        });
        assert!(matches!(error, FormatError::Order { index, .. } if index == at), "{error}");
    }
}

#[test]
fn image_without_a_section_that_it_needs_is_refused() {
    for count in 0..4 {
        let error = refused(|file| {
            let end = section(file, usize::from(count));
            file.truncate(end);
            file[SECTIONS + 1] = count;
            for index in usize::from(count)..6 {
                set(file, OFFSETS + 8 * index, 0);
                set(file, SIZES + 8 * index, 0);
            }
        });
        assert!(matches!(error, FormatError::Missing { .. }), "{count}: {error}");
    }
    let error = Image::new(b"k", "c", b"{}", Vec::new()).encode().unwrap_err();
    assert_eq!(error, FormatError::Missing { expected: "a ramdisk" });
}

#[test]
fn command_line_that_no_kernel_takes_is_refused() {
    for byte in [0, b'\n', 0x7f, 0xff] {
        let error = refused(|file| {
            let at = section(file, 1) + 12;
            file[at + 6] = byte;
        });
        assert_eq!(error, FormatError::Cmdline(CmdlineError::Byte { found: byte, at: 6 }));
    }
    let long = "x".repeat(2_048);
    let error = Image::new(b"k", &long, b"{}", vec![b"r"]).encode().unwrap_err();
    assert_eq!(error, FormatError::Cmdline(CmdlineError::TooLong { found: 2_048 }));
}
