//! Images as they are made: the same from the same, and each input where it is measured.

use casemate_eif::contents::MeasuredRoot;
use casemate_eif::cpio::{self, Content};
use casemate_eif::image::Image;
use casemate_eif::kernel::KernelError;
use casemate_eif::program::ProgramError;
use casemate_eif::{AssembleError, DEFAULT_CMDLINE, Inputs, program};
use casemate_image::{Mode, ParentCid};
use casemate_sim::SimHost;

use crate::kit::{attempt, aws, built, kernel, program as elf, signer};

fn files(image: &Image<'_>, ramdisk: usize) -> Vec<(String, u32, Vec<u8>)> {
    let entries = cpio::read(image.ramdisks[ramdisk]).unwrap();
    let bytes = |content| match content {
        Content::File(bytes) => bytes.to_vec(),
        Content::Directory => b"folder".to_vec(),
        Content::Device(major, minor) => format!("{major}:{minor}").into_bytes(),
    };
    entries.iter().map(|it| (it.name.to_owned(), it.mode, bytes(it.content))).collect()
}

fn names(image: &Image<'_>, ramdisk: usize) -> Vec<(String, u32)> {
    files(image, ramdisk).into_iter().map(|(name, mode, _)| (name, mode)).collect()
}

#[test]
fn same_inputs_give_the_same_bytes_signed_or_not() {
    let signer = signer();
    assert_eq!(built(|_| {}), built(|_| {}));
    let signed = || built(|inputs| inputs.signer = Some(&signer));
    assert_eq!(signed(), signed());
}

#[test]
fn first_ramdisk_is_what_boots_and_the_second_what_runs() {
    let built = built(|_| {});
    let image = Image::parse(&built.image).unwrap();
    let entry = |name: &str, mode| (name.to_owned(), mode);
    assert_eq!(
        names(&image, 0),
        [
            entry("dev", 0o555),
            entry("dev/console", 0o600),
            entry("proc", 0o555),
            entry("sys", 0o555),
            entry("init", 0o500),
        ]
    );
    assert_eq!(
        names(&image, 1),
        [
            entry("casemate-enclave", 0o555),
            entry("etc", 0o555),
            entry("etc/casemate", 0o555),
            entry("etc/casemate/mode", 0o444),
            entry("etc/casemate/parent-cid", 0o444),
            entry("etc/casemate/trust-root.pem", 0o444),
        ]
    );
    assert_eq!(image.cmdline, DEFAULT_CMDLINE);
}

#[test]
fn image_for_aws_says_so_and_carries_its_root() {
    let built = built(|_| {});
    let image = Image::parse(&built.image).unwrap();
    let files = files(&image, 1);
    assert_eq!(files[3].2, b"nitro\n");
    assert_eq!(files[4].2, b"3\n");
    let root = String::from_utf8(files[5].2.clone()).unwrap();
    assert_eq!(MeasuredRoot::from_pem(&root).unwrap(), aws());
}

#[test]
fn image_under_another_root_is_simulated_and_measures_differently() {
    let host = SimHost::new().unwrap();
    let root = MeasuredRoot::from_pem(&host.root_pem().unwrap()).unwrap();
    assert_eq!((aws().mode(), root.mode()), (Mode::Nitro, Mode::Simulated));
    let simulated = built(|inputs| inputs.trust_root = &root);
    let files = files(&Image::parse(&simulated.image).unwrap(), 1);
    assert_eq!(files[3].2, b"simulated\n");
    let (released, simulated) = (built(|_| {}).measurements.image, simulated.measurements.image);
    assert_ne!(released.pcr0, simulated.pcr0);
    assert_ne!(released.pcr2, simulated.pcr2);
    // what boots is the same
    assert_eq!(released.pcr1, simulated.pcr1);
}

#[test]
fn root_in_other_lines_gives_the_same_image() {
    let pem = aws().pem().to_owned();
    let root = MeasuredRoot::from_pem(&pem.replace('\n', "\r\n")).unwrap();
    assert_eq!(root, aws());
    let text = built(|inputs| inputs.trust_root = &root);
    assert_eq!(text, built(|_| {}));
}

/// Which of PCR0, PCR1 and PCR2 another input changes.
fn changes<'a>(change: impl FnOnce(&mut Inputs<'a>)) -> [bool; 3] {
    let (before, after) = (built(|_| {}).measurements.image, built(change).measurements.image);
    [before.pcr0 != after.pcr0, before.pcr1 != after.pcr1, before.pcr2 != after.pcr2]
}

#[test]
fn every_input_is_measured_where_it_should_be() {
    let mut other_kernel = kernel();
    other_kernel.push(1);
    let other = elf(b"other");
    assert_eq!(changes(|inputs| inputs.kernel = &other_kernel), [true, true, false]);
    assert_eq!(changes(|inputs| inputs.cmdline = "other"), [true, true, false]);
    assert_eq!(changes(|inputs| inputs.init = &other), [true, true, false]);
    assert_eq!(changes(|inputs| inputs.enclave = &other), [true, false, true]);
    let cid = ParentCid::new(2).unwrap();
    assert_eq!(changes(|inputs| inputs.parent_cid = cid), [true, false, true]);
    // the version is metadata, and a signature is over what is measured
    assert_eq!(changes(|inputs| inputs.version = "9"), [false; 3]);
}

#[test]
fn metadata_is_what_awss_tools_read_and_has_no_time() {
    let built = built(|inputs| inputs.version = "1.2.3");
    let image = Image::parse(&built.image).unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(image.metadata).unwrap();
    assert_eq!(metadata["ImageName"], "casemate");
    assert_eq!(metadata["ImageVersion"], "1.2.3");
    assert_eq!(metadata["BuildMetadata"]["BuildTime"], "1970-01-01T00:00:00Z");
    assert_eq!(metadata["BuildMetadata"]["KernelVersion"], "6.12.57");
    for field in ["BuildTool", "BuildToolVersion", "OperatingSystem"] {
        assert!(metadata["BuildMetadata"][field].is_string(), "{field}");
    }
    assert!(metadata["DockerInfo"].is_null() && metadata["CustomMetadata"].is_null());
}

fn refused<'a>(change: impl FnOnce(&mut Inputs<'a>)) -> AssembleError {
    attempt(change).unwrap_err()
}

#[test]
fn kernel_that_is_none_is_refused() {
    let error = refused(|inputs| inputs.kernel = b"KERNEL-PLACEHOLDER");
    assert_eq!(error, AssembleError::Kernel(KernelError::NoBootHeader));
    assert_eq!(error.to_string(), "the kernel is no bzImage: it has no x86 boot header");
}

#[test]
fn program_built_for_tests_is_refused_in_either_place() {
    for marker in [program::SIMULATOR_MARKER, program::SABOTAGE_MARKER] {
        let marked = elf(marker.as_bytes());
        let cause = ProgramError::Marked { marker: marker.to_owned() };
        assert_eq!(
            refused(|inputs| inputs.enclave = &marked),
            AssembleError::Enclave(cause.clone())
        );
        assert_eq!(refused(|inputs| inputs.init = &marked), AssembleError::Init(cause));
    }
}

#[test]
fn builder_looks_for_the_marker_that_the_simulator_carries() {
    assert_eq!(program::SIMULATOR_MARKER, casemate_sim::MARKER);
}

#[test]
fn command_line_that_no_kernel_takes_is_refused() {
    assert!(matches!(refused(|inputs| inputs.cmdline = "a\nb"), AssembleError::Cmdline(_)));
}
