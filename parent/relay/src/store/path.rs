//! The path of a file within the store.

use core::fmt;

/// Most bytes of a path.
pub const MAX_PATH: usize = 200;
/// Most parts of a path: an index of a tile has up to seven.
const MAX_PARTS: usize = 12;

/// A path within the store that leads nowhere else: parts of letters, digits, `-`, `.` and `_` with `/`
/// between, none of them beginning with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StorePath(String);

/// Why a text is no path within the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{input}` is not a path within the store")]
pub struct BadPath {
    /// Its beginning.
    pub input: String,
}

impl StorePath {
    /// Parses a path.
    ///
    /// # Errors
    /// If it could lead out of the store, or is too long.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        let fits = text.len() <= MAX_PATH && text.split('/').count() <= MAX_PARTS;
        if fits && text.split('/').all(part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadPath { input: text.chars().take(80).collect() })
        }
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_store_are_accepted() {
        for path in [
            "genesis.cbor",
            "checkpoint",
            "tile/0/000",
            "tile/0/x001/234.p/7",
            "tile/entries/x001/x002/x003/x004/x005/x006/007.p/255",
            "checkpoints/7-00ff",
            "receipts/000000000007-00ff",
        ] {
            assert_eq!(StorePath::parse(path).unwrap().as_str(), path);
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let long = "a".repeat(MAX_PATH + 1);
        let deep = ["a"; MAX_PARTS + 1].join("/");
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../genesis.cbor",
            "tile/../../x",
            "tile/..",
            ".",
            "./tile",
            "tile/./0",
            "tile//0",
            "tile/",
            ".hidden",
            "tile/.x",
            "tile\\0",
            "C:x",
            "tile/0\0",
            "tile/0 ",
            "tile/%2e%2e",
            "tile/\u{ff0e}\u{ff0e}",
            &long,
            &deep,
        ] {
            assert!(StorePath::parse(path).is_err(), "{path}");
        }
    }
}
