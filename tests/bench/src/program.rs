//! The program that is measured: `casemate-dev`, built in the same way as this benchmark.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use casemate_dev::processes::Program;

use crate::BenchError;

const NAME: &str = "casemate-dev";

/// `casemate-dev` from beside this benchmark. Cargo is asked to build it each time, which takes a
/// moment if nothing has changed: an old one would be measured otherwise.
///
/// # Errors
/// If it cannot be built.
pub fn built() -> Result<Program, BenchError> {
    let own = std::env::current_exe().map_err(|error| no_program(error.to_string()))?;
    let place = Place::of(&own)
        .ok_or_else(|| no_program(format!("`{}` is in no target folder", own.display())))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Command::new(&cargo);
    build.args(["build", "--quiet", "--locked", "--package", NAME, "--bin", NAME]);
    build.arg("--profile").arg(&place.profile).arg("--target-dir").arg(&place.target);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    let status = build.status();
    let status = status.map_err(|error| no_program(format!("`{}`: {error}", cargo.display())))?;
    if !status.success() {
        return Err(no_program(format!("`cargo build --bin {NAME}` ended with {status}")));
    }
    if place.program.is_file() {
        Ok(Program::new(place.program))
    } else {
        Err(no_program(format!("`{}` was not built", place.program.display())))
    }
}

const fn no_program(reason: String) -> BenchError {
    BenchError::Program { reason }
}

/// Where Cargo puts what, as far as a benchmark's own path says.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    target: PathBuf,
    profile: String,
    program: PathBuf,
}

impl Place {
    /// A benchmark is `TARGET/FOLDER/deps/NAME-HASH`, and a program `TARGET/FOLDER/NAME`.
    fn of(benchmark: &Path) -> Option<Self> {
        let deps = benchmark.parent()?;
        if deps.file_name()? != "deps" {
            return None;
        }
        let folder = deps.parent()?;
        // the folder's name is the profile's, but for the one that is called otherwise
        let profile = match folder.file_name()?.to_str()? {
            "debug" => "dev",
            other => other,
        };
        Some(Self {
            target: folder.parent()?.to_owned(),
            profile: profile.to_owned(),
            program: folder.join(NAME),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_looked_for_where_the_benchmarks_profile_puts_it() {
        let place = |path: &str| Place::of(Path::new(path));
        let expected = |profile: &str, folder: &str| Place {
            target: PathBuf::from("/x/target"),
            profile: profile.to_owned(),
            program: PathBuf::from(format!("/x/target/{folder}/casemate-dev")),
        };
        let found = place("/x/target/release/deps/ratios-0f");
        assert_eq!(found, Some(expected("release", "release")));
        assert_eq!(place("/x/target/debug/deps/ratios-0f"), Some(expected("dev", "debug")));
        assert_eq!(place("/usr/bin/ratios"), None);
    }
}
