//! Enclave images: made reproducibly, measured, taken apart.
//!
//! [`assemble`] is pure: the same kernel, command line, programs, trust root, parent's CID and signer
//! give the same bytes, on any machine and at any time. [`image::Image::parse`] and
//! [`measure::Measurements::of`] go the other way, over files of anybody.

pub mod contents;
pub mod cpio;
pub mod image;
pub mod kernel;
pub mod measure;
pub mod program;
pub mod sbom;
pub mod signature;

use casemate_image::ParentCid;
use serde_json::json;

use crate::contents::{Contents, MeasuredRoot};
use crate::cpio::CpioError;
use crate::image::{CmdlineError, FormatError, Image, check_cmdline};
use crate::kernel::{Kernel, KernelError};
use crate::measure::{Measurements, measure};
use crate::program::ProgramError;
use crate::signature::{SignatureError, Signer};

/// The command line that AWS's own tools use, without what only their kernel knows.
pub const DEFAULT_CMDLINE: &str =
    "reboot=k panic=30 pci=off nomodules console=ttyS0 random.trust_cpu=on";

/// What an image is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The kernel, a bzImage.
    pub kernel: &'a [u8],
    /// Its command line.
    pub cmdline: &'a str,
    /// The program that starts first.
    pub init: &'a [u8],
    /// The signer.
    pub enclave: &'a [u8],
    /// Under which root peers are believed.
    pub trust_root: &'a MeasuredRoot,
    /// Where the parent is.
    pub parent_cid: ParentCid,
    /// The image's version: not measured.
    pub version: &'a str,
    /// Who signs it, if anybody does.
    pub signer: Option<&'a Signer>,
}

/// An image and what it measures to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The file.
    pub image: Vec<u8>,
    /// Its PCRs.
    pub measurements: Measurements,
    /// Which kernel it has.
    pub kernel: Kernel,
}

/// Why an image is not made of these inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// The kernel is none.
    #[error("the kernel {0}")]
    Kernel(#[from] KernelError),
    /// The command line is none.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// The first program may not go into an image.
    #[error("the init program {0}")]
    Init(#[source] ProgramError),
    /// The signer may not go into an image.
    #[error("the enclave program {0}")]
    Enclave(#[source] ProgramError),
    /// A ramdisk cannot be written.
    #[error(transparent)]
    Ramdisk(#[from] CpioError),
    /// The image cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The image cannot be signed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// Makes an image.
///
/// # Errors
/// If an input is not what it should be.
pub fn assemble(inputs: &Inputs<'_>) -> Result<Built, AssembleError> {
    let kernel = Kernel::check(inputs.kernel)?;
    let cmdline = check_cmdline(inputs.cmdline.as_bytes())?;
    program::check(inputs.init).map_err(AssembleError::Init)?;
    program::check(inputs.enclave).map_err(AssembleError::Enclave)?;
    let contents = Contents {
        init: inputs.init,
        enclave: inputs.enclave,
        trust_root: inputs.trust_root,
        parent_cid: inputs.parent_cid,
    };
    let ramdisks = contents.ramdisks()?;
    let ramdisks: Vec<&[u8]> = ramdisks.iter().map(Vec::as_slice).collect();
    let metadata = metadata(inputs.version, &kernel);
    let pcr0 = measure(inputs.kernel, cmdline, &ramdisks).pcr0;
    let signature = inputs.signer.map(|signer| signer.sign(&pcr0)).transpose()?;
    let image = Image {
        signature: signature.as_deref(),
        ..Image::new(inputs.kernel, cmdline, &metadata, ramdisks)
    };
    let file = image.encode()?;
    // what is promised is what the file measures to when it is read back
    let measurements = Measurements::of(&Image::parse(&file)?)?;
    Ok(Built { image: file, measurements, kernel })
}

/// What AWS's tools show of an image. It is not measured; the time is fixed, so that the file is
/// the same whenever it is built.
fn metadata(version: &str, kernel: &Kernel) -> Vec<u8> {
    let metadata = json!({
        "ImageName": "casemate",
        "ImageVersion": version,
        "BuildMetadata": {
            "BuildTime": "1970-01-01T00:00:00Z",
            "BuildTool": "casemate-eif",
            "BuildToolVersion": env!("CARGO_PKG_VERSION"),
            "OperatingSystem": "casemate",
            "KernelVersion": kernel.release,
        },
        "DockerInfo": null,
        "CustomMetadata": null,
    });
    metadata.to_string().into_bytes()
}
