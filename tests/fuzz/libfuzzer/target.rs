//! The one wrapper: every binary of this crate runs the target that has its name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = casemate_fuzz::target(env!("CARGO_BIN_NAME")).expect("a target of this name");
    (target.run)(data);
});
