//! The one program for libFuzzer: it runs the target that CASEMATE_FUZZ_TARGET names.
#![no_main]

use std::sync::LazyLock;

use casemate_fuzz::Target;
use libfuzzer_sys::fuzz_target;

/// Shows that what is wrong is found: no other target panics with this input.
const PLANTED: Target = Target {
    name: "planted",
    run: |data| {
        let is_found = data.windows(8).any(|window| window == b"casemate");
        assert!(!is_found, "planted");
    },
};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("CASEMATE_FUZZ_TARGET").expect("CASEMATE_FUZZ_TARGET names a target");
    if name == PLANTED.name {
        return PLANTED;
    }
    casemate_fuzz::target(&name).unwrap_or_else(|| panic!("there is no target `{name}`"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
