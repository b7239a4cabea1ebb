//! JSON as strict as a signature needs it.
//!
//! Two readers of one text must not see two messages: a key given twice, a number that a double
//! cannot hold exactly, or another number for the same digits would let a wallet show one and
//! sign the other. serde_json's tokenizer, with our own rules for what becomes a value. (Were its
//! `arbitrary_precision` ever switched on, numbers would arrive as maps and be refused.)

use core::cell::RefCell;
use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 32;

/// Why a text is refused as JSON. `at` is a JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("malformed json at line {line}, column {column}: {reason}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
        /// What the parser says.
        reason: String,
    },
    /// One object has a key twice.
    #[error("`{at}` has the key `{key}` twice")]
    DuplicateKey {
        /// Which object.
        at: String,
        /// Which key.
        key: String,
    },
    /// A number with a point, an exponent, or more than 64 bits.
    #[error("`{at}` is not a 64-bit whole number; larger ones are written as strings")]
    NotExact {
        /// Where.
        at: String,
    },
    /// Nested deeper than allowed.
    #[error("`{at}` is nested more than {max} deep")]
    TooDeep {
        /// Where.
        at: String,
        /// How deep it may be.
        max: usize,
    },
}

/// The beginning of what came, for an error.
pub(super) fn clip(text: &str) -> String {
    const MAX: usize = 100;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => [text.get(..end).unwrap_or_default(), "…"].concat(),
        None => text.to_owned(),
    }
}

/// Where in a document a value is.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) => {
                write!(f, "{parent}/{}", clip(&key.replace('~', "~0").replace('/', "~1")))
            }
            Self::Index(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// What kind of JSON a value is, for errors.
pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Parses exactly one JSON value.
pub(super) fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let failure = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let seed = Seed { path: Path::Root, depth: 0, failure: &failure };
    let outcome = seed.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v));
    outcome.map_err(|error| {
        failure.take().unwrap_or_else(|| {
            let text = error.to_string();
            let reason = text.split(" at line ").next().unwrap_or_default();
            JsonError::Malformed {
                line: error.line(),
                column: error.column(),
                reason: clip(reason),
            }
        })
    })
}

/// Reads one value. An error of our own is left in `failure`, as serde's carry only text.
#[derive(Clone, Copy)]
struct Seed<'a> {
    path: Path<'a>,
    /// How many objects and arrays are around it.
    depth: usize,
    failure: &'a RefCell<Option<JsonError>>,
}

impl Seed<'_> {
    fn fail<E: serde::de::Error>(&self, error: JsonError) -> E {
        self.failure.replace(Some(error));
        E::custom("refused")
    }

    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            let at = self.path.to_string();
            return Err(self.fail(JsonError::TooDeep { at, max: MAX_DEPTH }));
        }
        Ok(self.depth.saturating_add(1))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    /// Also whole numbers of more than 64 bits, and `-0`.
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Value, E> {
        Err(self.fail(JsonError::NotExact { at: self.path.to_string() }))
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut out: Vec<Value> = Vec::new();
        loop {
            let path = Path::Index(&self.path, out.len());
            match items.next_element_seed(Seed { path, depth, failure: self.failure })? {
                Some(value) => out.push(value),
                None => return Ok(out.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut out = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if out.contains_key(&key) {
                let at = self.path.to_string();
                return Err(self.fail(JsonError::DuplicateKey { at, key: clip(&key) }));
            }
            let path = Path::Key(&self.path, &key);
            let value = members.next_value_seed(Seed { path, depth, failure: self.failure })?;
            out.insert(key, value);
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> JsonError {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_key_given_twice_is_refused_at_any_depth() {
        assert_eq!(
            refused(r#"{"a":[{"b":1,"c":2,"b":1}]}"#),
            JsonError::DuplicateKey { at: "/a/0".to_owned(), key: "b".to_owned() }
        );
        // the same key by another spelling
        assert!(matches!(refused(r#"{"a":1,"\u0061":2}"#), JsonError::DuplicateKey { .. }));
    }

    #[test]
    fn numbers_that_a_reader_could_round_are_refused() {
        for text in ["1.0", "1e3", "18446744073709551616", "-9223372036854775809", "-0"] {
            assert_eq!(
                refused(&format!(r#"{{"a/b":[0,{text}]}}"#)),
                JsonError::NotExact { at: "/a~1b/1".to_owned() },
                "{text}"
            );
        }
        for text in ["18446744073709551615", "-9223372036854775808", "0"] {
            assert!(parse(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn nesting_is_capped() {
        let nested = |n: usize| ["[".repeat(n), "]".repeat(n)].concat();
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(matches!(refused(&nested(MAX_DEPTH + 1)), JsonError::TooDeep { .. }));
        assert!(matches!(refused(&nested(20_000)), JsonError::TooDeep { .. }));
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "{}{}",
            "{},",
            "[1,]",
            "{\"a\":1,}",
            "{'a':1}",
            "{a:1}",
            "01",
            "0x1",
            "NaN",
            "// x\n1",
            "\u{feff}{}",
            "\"\\ud800\"",
            "\"\u{1}\"",
            "tru",
        ] {
            assert!(matches!(refused(text), JsonError::Malformed { .. }), "{text:?}");
        }
        assert!(matches!(parse(b"\"\xff\"").unwrap_err(), JsonError::Malformed { .. }));
    }
}
