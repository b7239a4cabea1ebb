//! Inputs that pass for the real ones.

use std::path::PathBuf;
use std::sync::LazyLock;

use casemate_eif::contents::MeasuredRoot;
use casemate_eif::signature::Signer;
use casemate_eif::{AssembleError, Built, DEFAULT_CMDLINE, Inputs, assemble};
use casemate_image::ParentCid;

pub(crate) fn vector(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/eif");
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The least that has the boot header of a bzImage.
pub(crate) fn kernel() -> Vec<u8> {
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

/// The least that is a static program of x86-64, with these bytes in it.
pub(crate) fn program(contents: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 64 + 56];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    for (at, value) in [(16, 2), (18, 62), (32, 64), (54, 56), (56, 1), (64, 1), (96, 120)] {
        file[at] = value;
    }
    file.extend_from_slice(contents);
    file
}

pub(crate) fn signer() -> Signer {
    Signer::from_pem(&vector("signer/cert.pem"), &vector("signer/key.pem")).unwrap()
}

pub(crate) fn aws() -> MeasuredRoot {
    MeasuredRoot::aws().unwrap()
}

/// Kernel, init, enclave and trust root.
type Defaults = (Vec<u8>, Vec<u8>, Vec<u8>, MeasuredRoot);

/// Inputs that serve.
static DEFAULTS: LazyLock<Defaults> =
    LazyLock::new(|| (kernel(), program(b"init"), program(b"enclave"), aws()));

pub(crate) fn attempt<'a>(change: impl FnOnce(&mut Inputs<'a>)) -> Result<Built, AssembleError> {
    let (kernel, init, enclave, trust_root) = &*DEFAULTS;
    let mut inputs: Inputs<'a> = Inputs {
        kernel,
        cmdline: DEFAULT_CMDLINE,
        init,
        enclave,
        trust_root,
        parent_cid: ParentCid::NITRO,
        version: "0.1.0",
        signer: None,
    };
    change(&mut inputs);
    assemble(&inputs)
}

pub(crate) fn built<'a>(change: impl FnOnce(&mut Inputs<'a>)) -> Built {
    attempt(change).unwrap()
}
