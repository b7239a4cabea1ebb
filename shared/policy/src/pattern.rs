//! Patterns that a grant or a deny rule matches with. They are few and plain: whether two of them
//! can match the same thing is decidable, which `lint` needs.

use core::fmt;

use casemate_proto::{DerivationPath, PrincipalId};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Which paths below a key: `m`, `m/0/7`, or with `*` for any one step, `m/0/*`.
///
/// A pattern matches paths of its own depth only.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathPattern(Vec<Option<u32>>);

impl PathPattern {
    /// The key itself, which is what a grant without `path` means.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Parses a pattern in its one form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // a star is a step like any other for the rules on depth and form
        DerivationPath::parse(&text.replace('*', "0")).ok()?;
        let steps = text
            .split('/')
            .skip(1)
            .map(|step| if step == "*" { Some(None) } else { step.parse().ok().map(Some) })
            .collect::<Option<Vec<_>>>()?;
        Some(Self(steps)).filter(|p| p.to_string() == text)
    }

    /// Whether `path` is one of them.
    #[must_use]
    pub fn matches(&self, path: &DerivationPath) -> bool {
        let steps = path.steps();
        steps.len() == self.0.len()
            && self.0.iter().zip(steps).all(|(want, step)| want.is_none_or(|w| w == *step))
    }

    /// Whether some path matches both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(a, b)| a.is_none() || b.is_none() || a == b)
    }

    /// Whether every path of `other` matches this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(a, b)| a.is_none() || a == b)
    }

    /// How many paths match: 1, or 2³¹ for each star; `None` where that does not fit.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.0.iter().filter(|s| s.is_none()).try_fold(1_u64, |n, _| n.checked_mul(1 << 31))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        self.0.iter().try_for_each(|step| match step {
            Some(step) => write!(f, "/{step}"),
            None => f.write_str("/*"),
        })
    }
}
impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl<C> Encode<C> for PathPattern {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}
impl<'b, C> Decode<'b, C> for PathPattern {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        Self::parse(d.str()?).ok_or_else(|| decode::Error::message("not a path pattern").at(at))
    }
}

/// Which principals: one by its id, or all whose id begins with a prefix that ends in a colon,
/// `operator:*`. Only principals that the policy registers ever match.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrincipalPattern {
    /// Exactly this one.
    Exact(PrincipalId),
    /// All whose id begins with this text, which ends in `:`.
    Prefix(String),
}

impl PrincipalPattern {
    /// Parses `operator:alice` or `operator:*`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            None => PrincipalId::new(text).ok().map(Self::Exact),
            Some(prefix) if prefix.ends_with(':') && PrincipalId::new(prefix).is_ok() => {
                Some(Self::Prefix(prefix.to_owned()))
            }
            Some(_) => None,
        }
    }

    /// Whether `principal` is one of them.
    #[must_use]
    pub fn matches(&self, principal: &PrincipalId) -> bool {
        match self {
            Self::Exact(id) => id == principal,
            Self::Prefix(prefix) => principal.as_str().starts_with(prefix.as_str()),
        }
    }

    /// Whether every principal of `other` matches this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Exact(_), Self::Prefix(_)) => false,
            (Self::Prefix(_), Self::Exact(b)) => self.matches(b),
            (Self::Prefix(a), Self::Prefix(b)) => b.starts_with(a.as_str()),
        }
    }
}

impl fmt::Display for PrincipalPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => write!(f, "{id}"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}
impl fmt::Debug for PrincipalPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl<C> Encode<C> for PrincipalPattern {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}
impl<'b, C> Decode<'b, C> for PrincipalPattern {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        Self::parse(d.str()?)
            .ok_or_else(|| decode::Error::message("not a principal pattern").at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    #[test]
    fn path_patterns_have_one_form() {
        for good in ["m", "m/0", "m/*", "m/0/*", "m/*/7/*"] {
            assert_eq!(path(good).to_string(), good);
        }
        for bad in ["", "*", "m/", "m/**", "m/0*", "m/*0", "m/01", "m/0'", "m/0/0/0/0/0/0/0/0/*"] {
            assert!(PathPattern::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_star_matches_one_step() {
        let is = |text| DerivationPath::parse(text).unwrap();
        assert!(path("m/0/*").matches(&is("m/0/9")));
        assert!(!path("m/0/*").matches(&is("m/1/9")));
        assert!(!path("m/0/*").matches(&is("m/0")));
        assert!(!path("m/0/*").matches(&is("m/0/9/9")));
        assert!(path("m").matches(&is("m")));
        assert!(path("m/0/*").overlaps(&path("m/*/7")));
        assert!(!path("m/0/*").overlaps(&path("m/1/*")));
        assert!(path("m/*").covers(&path("m/3")));
        assert!(!path("m/3").covers(&path("m/*")));
        assert_eq!(path("m/*").count(), Some(1 << 31));
        assert_eq!(path("m/*/*/*").count(), None);
    }

    #[test]
    fn principal_prefixes_end_in_a_colon() {
        let p = PrincipalPattern::parse("operator:*").unwrap();
        assert!(p.matches(&PrincipalId::new("operator:alice").unwrap()));
        assert!(!p.matches(&PrincipalId::new("operators:alice").unwrap()));
        for bad in ["*", "op*", "operator:*:x", "", ":**"] {
            assert!(PrincipalPattern::parse(bad).is_none(), "{bad}");
        }
    }
}
