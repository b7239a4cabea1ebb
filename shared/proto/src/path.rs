//! Derivation paths: non-hardened BIP-32 steps below a key.

use core::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Most steps in a path.
pub const MAX_DEPTH: usize = 8;
/// Largest step: the first 2³¹ indices are non-hardened.
pub const MAX_INDEX: u32 = 0x7fff_ffff;

/// A path such as `m` (the key itself) or `m/0/7`: at most 8 steps, none hardened.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DerivationPath(Vec<u32>);

/// Why a text is not a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{input}` is not a derivation path: `m` or `m/0/7`, at most {MAX_DEPTH} steps from 0 to {MAX_INDEX}, none hardened"
)]
pub struct PathError {
    /// The beginning of the text.
    pub input: String,
}

impl DerivationPath {
    /// The key itself.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// From its steps.
    ///
    /// # Errors
    /// If there are too many, or one is hardened.
    pub fn new(steps: &[u32]) -> Result<Self, PathError> {
        if steps.len() > MAX_DEPTH || steps.iter().any(|&s| s > MAX_INDEX) {
            return Err(PathError { input: format!("{steps:?}").chars().take(80).collect() });
        }
        Ok(Self(steps.to_vec()))
    }

    /// Parses `m` or `m/…`, in the one canonical form.
    ///
    /// # Errors
    /// If the text has another form.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let wrong = || PathError { input: text.chars().take(80).collect() };
        let mut parts = text.split('/');
        if text.len() > 100 || parts.next() != Some("m") {
            return Err(wrong());
        }
        let steps: Vec<u32> =
            parts.map(|p| p.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
        let path = Self::new(&steps).map_err(|_| wrong())?;
        if path.to_string() == text { Ok(path) } else { Err(wrong()) }
    }

    /// The steps from the key down.
    #[must_use]
    pub fn steps(&self) -> &[u32] {
        &self.0
    }

    /// Whether this is the key itself.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for DerivationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        self.0.iter().try_for_each(|step| write!(f, "/{step}"))
    }
}
impl fmt::Debug for DerivationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl<C> Encode<C> for DerivationPath {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        self.0.encode(e, c)
    }
}
impl<'b, C> Decode<'b, C> for DerivationPath {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let steps = <Vec<u32>>::decode(d, c)?;
        Self::new(&steps).map_err(|_| decode::Error::message("not a derivation path").at(at))
    }
}
impl serde::Serialize for DerivationPath {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> serde::Deserialize<'de> for DerivationPath {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        for good in ["m", "m/0", "m/0/7", "m/2147483647"] {
            assert_eq!(DerivationPath::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "/",
            "m/",
            "m//1",
            "0/1",
            "m/01",
            "m/+1",
            "m/0'",
            "m/0h",
            "m/2147483648",
            "m/-1",
            "M/0",
            "m/0/0/0/0/0/0/0/0/0",
        ] {
            assert!(DerivationPath::parse(bad).is_err(), "{bad}");
        }
    }
}
