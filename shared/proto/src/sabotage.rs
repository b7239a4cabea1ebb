//! Bugs that are planted to show that the simulation and the tests notice them.
//!
//! A planted bug is there only in a build with `--cfg casemate_sabotage="its name"`, or with `"any"` in place
//! of the name: then all of them are there, and the environment's `CASEMATE_SABOTAGE` says which is awake, so
//! that one build serves for all (`tests/model/sabotage.sh`). It is no feature, so that nothing a build
//! depends on can bring it in. Wherever a bug is there, a marker is too, for which the builder of images
//! refuses the program (`eif/build/src/program.rs`).

/// Whether a planted bug is to do its harm here: `false`, and nothing else, in every build without the cfg.
#[macro_export]
macro_rules! sabotaged {
    ($name:literal) => {{
        #[cfg(any(casemate_sabotage = $name, casemate_sabotage = "any"))]
        let is_awake = {
            #[used]
            static MARKER: &str = "casemate-marker:sabotage";
            core::hint::black_box(&MARKER);
            cfg!(casemate_sabotage = $name)
                || std::env::var_os("CASEMATE_SABOTAGE").is_some_and(|awake| awake == $name)
        };
        #[cfg(not(any(casemate_sabotage = $name, casemate_sabotage = "any")))]
        let is_awake = false;
        is_awake
    }};
}
