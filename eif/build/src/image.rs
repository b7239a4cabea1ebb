//! The enclave image format, version 4.
//!
//! A header of 548 bytes, then the sections, each behind a header of 12; everything big-endian. The
//! file's header repeats where each section is and how long, because the loader that places the
//! ramdisks reads that and not the sections. The last field of the header is the CRC-32 of the file
//! without that field. Source: the definitions in AWS's `aws-nitro-enclaves-image-format`.
//!
//! ```text
//! 0    ".eif", version u16, flags u16        28   number of sections u16
//! 8    default memory u64                    28+2 32 offsets u64, 32 sizes u64
//! 16   default CPUs u64                      542  unused u32
//! 24   reserved u16                          544+… CRC-32
//!
//! section: type u16, flags u16, size u64, then so many bytes
//! ```
//!
//! Two readers that take one file differently would measure one thing and run another. So
//! [`Image::parse`] takes exactly the files that [`Image::encode`] makes: kernel, command line,
//! metadata, ramdisks, at most one signature, without a gap, every unused field zero.

use crc32fast::Hasher;

/// Bytes of the file's header.
pub const HEADER_BYTES: usize = 548;
/// Bytes of a section's header.
pub const SECTION_HEADER_BYTES: usize = 12;
/// Most sections of a file.
pub const MAX_SECTIONS: usize = 32;
/// Most bytes of a file: far above any image of ours, and less than a machine has.
pub const MAX_IMAGE: usize = 512 * 1_024 * 1_024;
/// Most bytes of a kernel's command line: what Linux takes on x86-64, without the zero at its end.
pub const MAX_CMDLINE: usize = 2_047;

const MAGIC: [u8; 4] = *b".eif";
const VERSION: u16 = 4;
/// What `nitro-cli` writes; it takes memory and CPUs from its own arguments.
const DEFAULT_MEMORY: u64 = 1_024 * 1_024 * 1_024;
const DEFAULT_CPUS: u64 = 2;

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A kernel.
    Kernel,
    /// The kernel's command line.
    Cmdline,
    /// A cpio archive that the kernel unpacks.
    Ramdisk,
    /// PCR0 signed.
    Signature,
    /// What the image is, as JSON; not measured.
    Metadata,
}

impl Kind {
    const ALL: [(u16, Self); 5] = [
        (1, Self::Kernel),
        (2, Self::Cmdline),
        (3, Self::Ramdisk),
        (4, Self::Signature),
        (5, Self::Metadata),
    ];

    fn from_code(code: u16) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == code).map(|(_, kind)| *kind)
    }

    fn code(self) -> u16 {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(code, _)| *code)
    }

    /// The section's name, for a person.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Cmdline => "cmdline",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
        }
    }
}

/// Why bytes are no enclave image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The file is longer than any image.
    #[error("the file has {found} bytes, at most {limit} are allowed")]
    TooLong {
        /// Its length.
        found: usize,
        /// The most.
        limit: usize,
    },
    /// The file ends before what it says is in it.
    #[error("the file is cut short: {what} ends at byte {end}, the file at {found}")]
    Truncated {
        /// What is not all there.
        what: &'static str,
        /// Where it would end.
        end: u64,
        /// Where the file ends.
        found: usize,
    },
    /// The file does not begin as an image does.
    #[error("the file does not begin with `.eif`")]
    Magic,
    /// A version of the format that is not read here.
    #[error("the format's version is {found}; only {VERSION} is read")]
    Version {
        /// The version.
        found: u16,
    },
    /// An image for another machine, or a flag that nobody knows.
    #[error("the header's flags are {found:#06x}; only x86-64 images, which have none, are read")]
    Flags {
        /// The flags.
        found: u16,
    },
    /// A field that must be zero is not.
    #[error("{field} is not zero")]
    NotZero {
        /// Which.
        field: &'static str,
    },
    /// More sections than the format has room for.
    #[error("the header names {found} sections, at most {MAX_SECTIONS} are allowed")]
    TooManySections {
        /// How many.
        found: u16,
    },
    /// A section does not begin where the one before it ends.
    #[error("section {index} begins at byte {found}, and {expected} is where it must")]
    Offset {
        /// Which section.
        index: usize,
        /// Where the one before it ends.
        expected: u64,
        /// Where it begins by the file's header.
        found: u64,
    },
    /// The file's header and the section's own do not agree.
    #[error("section {index} has {section} bytes by its own header and {header} by the file's")]
    Size {
        /// Which section.
        index: usize,
        /// By the file's header.
        header: u64,
        /// By its own.
        section: u64,
    },
    /// A section of no known type.
    #[error("section {index} is of the unknown type {found}")]
    UnknownSection {
        /// Which section.
        index: usize,
        /// Its type.
        found: u16,
    },
    /// A section that is not the one that comes next.
    #[error("section {index} is a {found}, and {expected} must come there")]
    Order {
        /// Which section.
        index: usize,
        /// What it is.
        found: &'static str,
        /// What may be there.
        expected: &'static str,
    },
    /// The file lacks a section.
    #[error("the image ends without {expected}")]
    Missing {
        /// What should come.
        expected: &'static str,
    },
    /// There is something behind the last section.
    #[error("{found} bytes follow the last section")]
    Trailing {
        /// How many.
        found: usize,
    },
    /// The file was changed, or not completely written.
    #[error("the CRC-32 is {computed:08x}, and the header says {stated:08x}")]
    Crc {
        /// What the header says.
        stated: u32,
        /// What the file has.
        computed: u32,
    },
    /// The command line is not one that a kernel takes.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
}

/// Why a text is no command line of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// Longer than the kernel takes.
    #[error("the command line has {found} bytes, at most {MAX_CMDLINE} are allowed")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// A byte that is no printable ASCII.
    #[error("the command line has the byte {found:#04x} at {at}; printable ASCII is allowed")]
    Byte {
        /// The byte.
        found: u8,
        /// Its place.
        at: usize,
    },
}

/// A command line that a kernel takes: printable ASCII.
///
/// # Errors
/// If it is not.
pub fn check_cmdline(bytes: &[u8]) -> Result<&str, CmdlineError> {
    if bytes.len() > MAX_CMDLINE {
        return Err(CmdlineError::TooLong { found: bytes.len() });
    }
    let odd = |byte: &u8| !(byte.is_ascii_graphic() || *byte == b' ');
    let first = bytes.iter().enumerate().find(|(_, byte)| odd(byte));
    match (first, core::str::from_utf8(bytes)) {
        (None, Ok(text)) => Ok(text),
        (odd, _) => {
            let (at, found) = odd.map_or((0, 0), |(at, byte)| (at, *byte));
            Err(CmdlineError::Byte { found, at })
        }
    }
}

/// An image's sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Memory that the image asks for by default, in bytes.
    pub default_memory: u64,
    /// CPUs that the image asks for by default.
    pub default_cpus: u64,
    /// The kernel.
    pub kernel: &'a [u8],
    /// Its command line.
    pub cmdline: &'a str,
    /// What the image is, as JSON; not measured.
    pub metadata: &'a [u8],
    /// At least one cpio archive.
    pub ramdisks: Vec<&'a [u8]>,
    /// The signature section.
    pub signature: Option<&'a [u8]>,
}

/// One section and where its header begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it is.
    pub kind: Kind,
    /// Where its header begins in the file.
    pub offset: u64,
    /// What is in it.
    pub bytes: &'a [u8],
}

impl<'a> Image<'a> {
    /// An image without a signature, with the defaults that AWS's tools write.
    #[must_use]
    pub fn new(
        kernel: &'a [u8],
        cmdline: &'a str,
        metadata: &'a [u8],
        ramdisks: Vec<&'a [u8]>,
    ) -> Self {
        Self {
            default_memory: DEFAULT_MEMORY,
            default_cpus: DEFAULT_CPUS,
            kernel,
            cmdline,
            metadata,
            ramdisks,
            signature: None,
        }
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// Whatever [`Image::encode`] would not have written.
    pub fn parse(file: &'a [u8]) -> Result<Self, FormatError> {
        let header = Header::parse(file)?;
        let mut sections = Sections::parse(file, &header)?.into_iter();
        let computed = crc(file);
        if computed != header.crc {
            return Err(FormatError::Crc { stated: header.crc, computed });
        }
        let kernel = required(sections.next(), 0, Kind::Kernel, "a kernel")?;
        let cmdline = required(sections.next(), 1, Kind::Cmdline, "a command line")?;
        let metadata = required(sections.next(), 2, Kind::Metadata, "metadata")?;
        let (mut ramdisks, mut signature) = (Vec::new(), None);
        for (index, section) in (3..).zip(sections) {
            let expected = match (section.kind, signature) {
                (Kind::Ramdisk, None) => {
                    ramdisks.push(section.bytes);
                    continue;
                }
                (Kind::Signature, None) if !ramdisks.is_empty() => {
                    signature = Some(section.bytes);
                    continue;
                }
                (_, Some(_)) => "nothing",
                (_, None) if ramdisks.is_empty() => "a ramdisk",
                (_, None) => "a ramdisk or a signature",
            };
            return Err(FormatError::Order { index, found: section.kind.name(), expected });
        }
        if ramdisks.is_empty() {
            return Err(FormatError::Missing { expected: "a ramdisk" });
        }
        Ok(Self {
            default_memory: header.default_memory,
            default_cpus: header.default_cpus,
            kernel,
            cmdline: check_cmdline(cmdline)?,
            metadata,
            ramdisks,
            signature,
        })
    }

    /// The sections in the order of the file.
    #[must_use]
    pub fn sections(&self) -> Vec<Section<'a>> {
        let mut offset = widen(HEADER_BYTES);
        let first = [
            (Kind::Kernel, self.kernel),
            (Kind::Cmdline, self.cmdline.as_bytes()),
            (Kind::Metadata, self.metadata),
        ];
        let ramdisks = self.ramdisks.iter().map(|ramdisk| (Kind::Ramdisk, *ramdisk));
        let signature = self.signature.map(|bytes| (Kind::Signature, bytes));
        first
            .into_iter()
            .chain(ramdisks)
            .chain(signature)
            .map(|(kind, bytes)| {
                let section = Section { kind, offset, bytes };
                offset = offset
                    .saturating_add(widen(SECTION_HEADER_BYTES))
                    .saturating_add(widen(bytes.len()));
                section
            })
            .collect()
    }

    /// Writes the whole file.
    ///
    /// # Errors
    /// If there is no ramdisk, more sections than the format has room for, or more bytes than
    /// [`Image::parse`] takes.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check_cmdline(self.cmdline.as_bytes())?;
        if self.ramdisks.is_empty() {
            return Err(FormatError::Missing { expected: "a ramdisk" });
        }
        let sections = self.sections();
        let count = u16::try_from(sections.len()).unwrap_or(u16::MAX);
        if sections.len() > MAX_SECTIONS {
            return Err(FormatError::TooManySections { found: count });
        }
        let length = sections.iter().fold(HEADER_BYTES, |length, section| {
            length.saturating_add(SECTION_HEADER_BYTES).saturating_add(section.bytes.len())
        });
        if length > MAX_IMAGE {
            return Err(FormatError::TooLong { found: length, limit: MAX_IMAGE });
        }
        let mut file = Vec::with_capacity(length);
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&VERSION.to_be_bytes());
        file.extend_from_slice(&[0; 2]);
        file.extend_from_slice(&self.default_memory.to_be_bytes());
        file.extend_from_slice(&self.default_cpus.to_be_bytes());
        file.extend_from_slice(&[0; 2]);
        file.extend_from_slice(&count.to_be_bytes());
        let slots = |of: fn(&Section<'_>) -> u64| {
            let used = sections.iter().map(of);
            used.chain(core::iter::repeat(0)).take(MAX_SECTIONS).collect::<Vec<u64>>()
        };
        for slot in [slots(|section| section.offset), slots(|section| widen(section.bytes.len()))] {
            slot.iter().for_each(|value| file.extend_from_slice(&value.to_be_bytes()));
        }
        // the unused field, and the CRC's own
        file.extend_from_slice(&[0; 8]);
        for section in &sections {
            file.extend_from_slice(&section.kind.code().to_be_bytes());
            file.extend_from_slice(&[0; 2]);
            file.extend_from_slice(&widen(section.bytes.len()).to_be_bytes());
            file.extend_from_slice(section.bytes);
        }
        let crc = crc(&file).to_be_bytes();
        let field = file.iter_mut().skip(HEADER_BYTES.saturating_sub(crc.len()));
        field.zip(crc).for_each(|(byte, of_crc)| *byte = of_crc);
        Ok(file)
    }
}

fn required<'a>(
    section: Option<Section<'a>>,
    index: usize,
    kind: Kind,
    expected: &'static str,
) -> Result<&'a [u8], FormatError> {
    match section {
        Some(section) if section.kind == kind => Ok(section.bytes),
        Some(section) => Err(FormatError::Order { index, found: section.kind.name(), expected }),
        None => Err(FormatError::Missing { expected }),
    }
}

/// The file's header, with the slots that are used.
struct Header {
    default_memory: u64,
    default_cpus: u64,
    /// Offset and size of each section.
    slots: Vec<(u64, u64)>,
    crc: u32,
}

impl Header {
    fn parse(file: &[u8]) -> Result<Self, FormatError> {
        if file.len() > MAX_IMAGE {
            return Err(FormatError::TooLong { found: file.len(), limit: MAX_IMAGE });
        }
        let mut reader = Reader { file, at: 0, what: "the header" };
        if reader.array::<4>()? != MAGIC {
            return Err(FormatError::Magic);
        }
        match u16::from_be_bytes(reader.array()?) {
            VERSION => {}
            found => return Err(FormatError::Version { found }),
        }
        match u16::from_be_bytes(reader.array()?) {
            0 => {}
            found => return Err(FormatError::Flags { found }),
        }
        let default_memory = u64::from_be_bytes(reader.array()?);
        let default_cpus = u64::from_be_bytes(reader.array()?);
        zero(u16::from_be_bytes(reader.array()?).into(), "the header's reserved field")?;
        let count = u16::from_be_bytes(reader.array()?);
        let used = usize::from(count);
        if used > MAX_SECTIONS {
            return Err(FormatError::TooManySections { found: count });
        }
        let mut numbers = [[0_u64; MAX_SECTIONS]; 2];
        for number in numbers.as_flattened_mut() {
            *number = u64::from_be_bytes(reader.array()?);
        }
        let [offsets, sizes] = numbers;
        let mut slots: Vec<(u64, u64)> = offsets.into_iter().zip(sizes).collect();
        for (offset, size) in slots.split_off(used) {
            zero(offset | size, "an unused section's place in the header")?;
        }
        zero(u32::from_be_bytes(reader.array()?).into(), "the header's unused field")?;
        let crc = u32::from_be_bytes(reader.array()?);
        Ok(Self { default_memory, default_cpus, slots, crc })
    }
}

fn zero(value: u64, field: &'static str) -> Result<(), FormatError> {
    if value == 0 { Ok(()) } else { Err(FormatError::NotZero { field }) }
}

struct Sections;

impl Sections {
    fn parse<'a>(file: &'a [u8], header: &Header) -> Result<Vec<Section<'a>>, FormatError> {
        let mut reader = Reader { file, at: HEADER_BYTES, what: "a section" };
        let mut sections = Vec::with_capacity(header.slots.len());
        for (index, (found, size)) in header.slots.iter().copied().enumerate() {
            let offset = widen(reader.at);
            if found != offset {
                return Err(FormatError::Offset { index, expected: offset, found });
            }
            let code = u16::from_be_bytes(reader.array()?);
            let kind =
                Kind::from_code(code).ok_or(FormatError::UnknownSection { index, found: code })?;
            zero(u16::from_be_bytes(reader.array()?).into(), "a section's flags field")?;
            let section = u64::from_be_bytes(reader.array()?);
            if section != size {
                return Err(FormatError::Size { index, header: size, section });
            }
            sections.push(Section { kind, offset, bytes: reader.take(size)? });
        }
        match file.len().saturating_sub(reader.at) {
            0 => Ok(sections),
            found => Err(FormatError::Trailing { found }),
        }
    }
}

/// Takes a file apart from its beginning.
struct Reader<'a> {
    file: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], FormatError> {
        let end = widen(self.at).saturating_add(length);
        let taken =
            usize::try_from(end).ok().and_then(|to| Some((self.file.get(self.at..to)?, to)));
        let Some((bytes, to)) = taken else {
            let found = self.file.len();
            return Err(FormatError::Truncated { what: self.what, end, found });
        };
        self.at = to;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let bytes = self.take(widen(N))?;
        bytes.try_into().map_err(|_| FormatError::Truncated {
            what: self.what,
            end: widen(self.at),
            found: self.file.len(),
        })
    }
}

/// The CRC-32 of a file without the last field of its header, which is where it stands.
#[must_use]
pub fn crc(file: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    let field = HEADER_BYTES.saturating_sub(4);
    hasher.update(file.get(..field).unwrap_or_default());
    hasher.update(file.get(HEADER_BYTES..).unwrap_or_default());
    hasher.finalize()
}

/// No machine that this runs on has larger addresses.
fn widen(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
