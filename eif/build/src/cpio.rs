//! Ramdisks: cpio archives in the form that Linux unpacks at boot ("newc").
//!
//! Source: `Documentation/driver-api/early-userspace/buffer-format.rst` in Linux. Each entry is a header of
//! 110 characters, the name with a zero, the contents, each filled up to four bytes; an entry named
//! `TRAILER!!!` ends the archive. The kernel takes a ramdisk's archives one after the other, so
//! the second adds to what the first unpacked.
//!
//! Everything that would differ from one machine to the next is fixed: no times, root's ids, numbers
//! counted from one, the caller's order.

use core::fmt::Write as _;

/// Most entries of an archive.
pub const MAX_ENTRIES: usize = 4_096;
/// Most bytes of a name.
pub const MAX_NAME: usize = 255;

const MAGIC: &[u8] = b"070701";
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
const ALIGN: usize = 4;

const TYPE_MASK: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A folder.
    Directory,
    /// A file and its bytes.
    File(&'a [u8]),
    /// A character device: major and minor number.
    Device(u32, u32),
}

/// One file, folder or device; root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path from the root, without a slash at the beginning.
    pub name: &'a str,
    /// Its permissions.
    pub mode: u32,
    /// What it is.
    pub content: Content<'a>,
}

/// Why bytes are no archive that [`write()`] makes, or an entry cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpioError {
    /// An entry is not all there.
    #[error("the archive is cut short at byte {at}")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// Not an entry's header.
    #[error("there is no entry of a newc archive at byte {at}")]
    Header {
        /// Where.
        at: usize,
    },
    /// More entries than are allowed.
    #[error("the archive has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// A name that is empty, too long, no plain relative path, or the trailer's.
    #[error("`{name}` is no name of an entry")]
    Name {
        /// The name, escaped.
        name: String,
    },
    /// A name that stands there twice.
    #[error("`{name}` is there twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// An entry that is there before its folder, or in none.
    #[error("`{name}` comes before its folder")]
    NoFolder {
        /// The name.
        name: String,
    },
    /// A field with another value than this builder's.
    #[error("`{name}`: {field} is not what this builder writes")]
    Field {
        /// The entry.
        name: String,
        /// Which field.
        field: &'static str,
    },
    /// Contents too long for the format.
    #[error("`{name}` is too long for the format")]
    TooLong {
        /// The entry.
        name: String,
    },
    /// Something behind the trailer, or between the parts.
    #[error("the archive has bytes at {at} that belong to no entry")]
    Padding {
        /// Where.
        at: usize,
    },
}

/// Writes an archive.
///
/// # Errors
/// If a name or a size does not fit the format, or a name is there before its folder or twice.
pub fn write(entries: &[Entry<'_>]) -> Result<Vec<u8>, CpioError> {
    if entries.len() > MAX_ENTRIES {
        return Err(CpioError::TooMany);
    }
    let mut out = Vec::new();
    for (number, (index, entry)) in (1..).zip(entries.iter().enumerate()) {
        check_name(entry.name, entries.get(..index).unwrap_or_default())?;
        let (kind, contents, device, links) = match entry.content {
            Content::Directory => (DIRECTORY, &[][..], (0, 0), 2),
            Content::File(bytes) => (FILE, bytes, (0, 0), 1),
            Content::Device(major, minor) => (CHARACTER_DEVICE, &[][..], (major, minor), 1),
        };
        if entry.mode & !0o7777 != 0 {
            return Err(CpioError::Field { name: entry.name.to_owned(), field: "the mode" });
        }
        write_entry(&mut out, number, kind | entry.mode, links, device, entry.name, contents)?;
    }
    write_entry(&mut out, 0, 0, 1, (0, 0), TRAILER, &[])?;
    Ok(out)
}

fn write_entry(
    out: &mut Vec<u8>,
    number: u32,
    mode: u32,
    links: u32,
    device: (u32, u32),
    name: &str,
    contents: &[u8],
) -> Result<(), CpioError> {
    let too_long = || CpioError::TooLong { name: name.to_owned() };
    let size = u32::try_from(contents.len()).map_err(|_| too_long())?;
    let name_size = u32::try_from(name.len().saturating_add(1)).map_err(|_| too_long())?;
    let (major, minor) = device;
    let mut header = String::with_capacity(HEADER);
    // inode, mode, user, group, links, time, size, device of the file, its own, name, checksum
    for field in [number, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0] {
        write!(header, "{field:08x}").map_err(|_| too_long())?;
    }
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    fill(out);
    out.extend_from_slice(contents);
    fill(out);
    Ok(())
}

fn fill(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

/// A plain path, once, behind its folder.
fn check_name(name: &str, before: &[Entry<'_>]) -> Result<(), CpioError> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.len() > MAX_NAME || !printable || !name.split('/').all(plain) || name == TRAILER {
        return Err(CpioError::Name { name: name.escape_debug().to_string() });
    }
    if before.iter().any(|entry| entry.name == name) {
        return Err(CpioError::Twice { name: name.to_owned() });
    }
    let Some((folder, _)) = name.rsplit_once('/') else { return Ok(()) };
    let is_folder = |entry: &Entry<'_>| entry.name == folder && entry.content == Content::Directory;
    if before.iter().any(is_folder) {
        Ok(())
    } else {
        Err(CpioError::NoFolder { name: name.to_owned() })
    }
}

/// Reads an archive that [`write()`] made: nothing else is taken.
///
/// # Errors
/// Whatever [`write()`] would not have written.
pub fn read(archive: &[u8]) -> Result<Vec<Entry<'_>>, CpioError> {
    let mut reader = Reader { archive, at: 0 };
    let mut entries = Vec::new();
    loop {
        let at = reader.at;
        let fields = reader.header()?;
        let [
            number,
            mode,
            user,
            group,
            links,
            time,
            size,
            dev_a,
            dev_b,
            major,
            minor,
            length,
            check,
        ] = fields;
        let name = reader.name(length)?;
        let contents = reader.take(size)?;
        reader.padding()?;
        let odd = |field| CpioError::Field { name: name.escape_debug().to_string(), field };
        if [user, group, time, dev_a, dev_b, check] != [0; 6] {
            return Err(odd("a user, group, time, device or checksum"));
        }
        if name == TRAILER {
            if [number, mode, links, size, major, minor] != [0, 0, 1, 0, 0, 0] {
                return Err(odd("the trailer"));
            }
            return if reader.at == archive.len() {
                Ok(entries)
            } else {
                Err(CpioError::Padding { at: reader.at })
            };
        }
        if entries.len() >= MAX_ENTRIES {
            return Err(CpioError::TooMany);
        }
        check_name(name, &entries)?;
        let expected = u32::try_from(entries.len()).ok().and_then(|index| index.checked_add(1));
        if expected != Some(number) {
            return Err(odd("the number"));
        }
        let content = match (mode & TYPE_MASK, links) {
            (DIRECTORY, 2) if (size, major, minor) == (0, 0, 0) => Content::Directory,
            (FILE, 1) if (major, minor) == (0, 0) => Content::File(contents),
            (CHARACTER_DEVICE, 1) if size == 0 => Content::Device(major, minor),
            _ => return Err(odd("the kind")),
        };
        if mode & !(TYPE_MASK | 0o7777) != 0 {
            return Err(CpioError::Header { at });
        }
        entries.push(Entry { name, mode: mode & 0o7777, content });
    }
}

struct Reader<'a> {
    archive: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: u32) -> Result<&'a [u8], CpioError> {
        let cut = CpioError::Truncated { at: self.at };
        let length = usize::try_from(length).map_err(|_| cut.clone())?;
        let end = self.at.checked_add(length).ok_or_else(|| cut.clone())?;
        let bytes = self.archive.get(self.at..end).ok_or(cut)?;
        self.at = end;
        Ok(bytes)
    }

    /// The thirteen numbers of an entry.
    fn header(&mut self) -> Result<[u32; 13], CpioError> {
        let at = self.at;
        let digits = self.take(110)?;
        let wrong = || CpioError::Header { at };
        let digits = digits.strip_prefix(MAGIC).ok_or_else(wrong)?;
        let mut fields = [0; 13];
        for (field, digits) in fields.iter_mut().zip(digits.chunks(8)) {
            let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let text = core::str::from_utf8(digits).ok().filter(|_| digits.iter().all(lower));
            *field = text.and_then(|text| u32::from_str_radix(text, 16).ok()).ok_or_else(wrong)?;
        }
        Ok(fields)
    }

    fn name(&mut self, length: u32) -> Result<&'a str, CpioError> {
        let at = self.at;
        let name = self.take(length)?.strip_suffix(&[0]);
        let name = name.and_then(|name| core::str::from_utf8(name).ok());
        self.padding()?;
        name.ok_or(CpioError::Header { at })
    }

    fn padding(&mut self) -> Result<(), CpioError> {
        while !self.at.is_multiple_of(ALIGN) {
            let at = self.at;
            if self.take(1)? != [0] {
                return Err(CpioError::Padding { at });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Entry<'static>> {
        vec![
            Entry { name: "dev", mode: 0o755, content: Content::Directory },
            Entry { name: "dev/console", mode: 0o600, content: Content::Device(5, 1) },
            Entry { name: "init", mode: 0o500, content: Content::File(b"#!") },
            Entry { name: "empty", mode: 0o400, content: Content::File(b"") },
        ]
    }

    #[test]
    fn archive_is_read_back_and_is_a_multiple_of_four() {
        let archive = write(&sample()).unwrap();
        assert_eq!(archive.len() % 4, 0);
        assert_eq!(read(&archive).unwrap(), sample());
        assert_eq!(read(&write(&[]).unwrap()).unwrap(), []);
    }

    /// Written by hand after the format's description, not by [`write()`].
    #[test]
    fn one_entry_is_laid_out_as_the_kernel_documents_it() {
        let entry = Entry { name: "a", mode: 0o644, content: Content::File(b"hi") };
        let expected = [
            "070701",
            "00000001",
            "000081a4",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000002",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000002",
            "00000000",
            "a\0",
            "hi\0\0",
            "070701",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "0000000b",
            "00000000",
            "TRAILER!!!\0",
            "\0\0\0",
        ]
        .concat();
        assert_eq!(String::from_utf8(write(&[entry]).unwrap()).unwrap(), expected);
    }

    #[test]
    fn archive_cut_anywhere_is_refused() {
        let archive = write(&sample()).unwrap();
        for end in 0..archive.len() {
            assert!(read(&archive[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn bytes_behind_the_trailer_are_refused() {
        let mut archive = write(&sample()).unwrap();
        archive.extend_from_slice(&[0; 4]);
        assert_eq!(read(&archive), Err(CpioError::Padding { at: archive.len() - 4 }));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "/init", "../init", "a//b", "a/.", "init\n", "TRAILER!!!", "a b"] {
            let entry = Entry { name, mode: 0, content: Content::Directory };
            assert!(matches!(write(&[entry]), Err(CpioError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn second_entry_of_one_name_is_refused() {
        let mut entries = sample();
        entries.push(Entry { name: "init", mode: 0o500, content: Content::File(b"other") });
        assert!(matches!(write(&entries), Err(CpioError::Twice { .. })));
    }

    #[test]
    fn entry_before_its_folder_is_refused() {
        let entry = Entry { name: "etc/mode", mode: 0o400, content: Content::File(b"") };
        assert!(matches!(write(&[entry]), Err(CpioError::NoFolder { .. })));
    }

    #[test]
    fn time_or_owner_in_an_archive_is_refused() {
        let archive = write(&sample()).unwrap();
        for (at, field) in [(6 + 8 * 2, "user"), (6 + 8 * 5, "time"), (6 + 8 * 12, "checksum")] {
            let mut changed = archive.clone();
            changed[at + 7] = b'1';
            assert!(matches!(read(&changed), Err(CpioError::Field { .. })), "{field}");
        }
    }
}
