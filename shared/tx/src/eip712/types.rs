//! The declared types: parsed, capped, closed and free of cycles.
//!
//! The encoder behind us expands a type into a tree before it looks at a value, takes any text
//! for a field's name, and reads more spellings than EIP-712 has. So names are identifiers here
//! (a name with a comma or a parenthesis could spell another type's string), aliases such as
//! `uint` are refused, each reference resolves, and the tree's size is computed before it grows.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::TypedDataError;
use super::json::{Path, clip};
use super::value::{array, closed_object, object, text};

/// The name of the domain's type.
pub(super) const DOMAIN: &str = "EIP712Domain";
/// The most types that may be declared.
pub const MAX_TYPES: usize = 64;
/// The most fields that one type may have.
pub const MAX_FIELDS: usize = 128;
/// The most bytes of declarations, names and types together.
pub const MAX_TYPE_BYTES: usize = 8 * 1024;
/// The deepest that structs may contain structs.
pub const MAX_STRUCT_DEPTH: usize = 16;
/// The most nodes of the tree that the message's type expands to.
pub const MAX_EXPANDED_NODES: usize = 4_096;
/// The longest name of a type or field.
pub const MAX_NAME_BYTES: usize = 64;
/// The most dimensions of an array.
pub const MAX_DIMENSIONS: usize = 4;

/// Why declared types are refused. `at` is a JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypesError {
    /// Not an identifier, or too long.
    #[error("`{at}`: `{name}` is not an identifier of at most {MAX_NAME_BYTES} bytes")]
    BadName {
        /// Where.
        at: String,
        /// The beginning of what came.
        name: String,
    },
    /// The name of a basic type, or one that could be read as such.
    #[error("`{at}`: `{name}` is a basic type's name")]
    ReservedName {
        /// Where.
        at: String,
        /// What came.
        name: String,
    },
    /// A field's type that EIP-712 does not have.
    #[error("`{at}`: `{name}` is not a type")]
    BadType {
        /// Where.
        at: String,
        /// The beginning of what came.
        name: String,
    },
    /// A field twice in one type.
    #[error("`{at}` has the field `{name}` twice")]
    DuplicateField {
        /// Which type.
        at: String,
        /// Which field.
        name: String,
    },
    /// A type that is named but not declared.
    #[error("`{at}`: type `{name}` is not declared")]
    NotDeclared {
        /// Where it is named.
        at: String,
        /// Which type.
        name: String,
    },
    /// A type that the message does not use.
    #[error("`/types` declares `{name}`, which `{primary}` does not use")]
    Unused {
        /// Which type.
        name: String,
        /// The message's type.
        primary: String,
    },
    /// A type that contains itself.
    #[error("type `{name}` contains itself")]
    Recursive {
        /// Which type.
        name: String,
    },
    /// The domain's type as, or within, the message's.
    #[error("`EIP712Domain` is no type for a message")]
    DomainAsMessage,
    /// Past one of the caps.
    #[error("`/types` has more than {max} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
}

/// A type that is no struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Atom {
    Bool,
    Address,
    String,
    Bytes,
    /// 1 to 32 bytes.
    FixedBytes(usize),
    /// 8 to 256 bits.
    Uint(usize),
    /// 8 to 256 bits.
    Int(usize),
}

impl Atom {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "bool" => return Some(Self::Bool),
            "address" => return Some(Self::Address),
            "string" => return Some(Self::String),
            "bytes" => return Some(Self::Bytes),
            _ => {}
        }
        if let Some(n) = name.strip_prefix("bytes").and_then(plain_number) {
            return (n <= 32).then_some(Self::FixedBytes(n));
        }
        let whole_bytes = |n: usize| n <= 256 && n.is_multiple_of(8);
        if let Some(n) = name.strip_prefix("uint").and_then(plain_number) {
            return whole_bytes(n).then_some(Self::Uint(n));
        }
        let n = name.strip_prefix("int").and_then(plain_number)?;
        whole_bytes(n).then_some(Self::Int(n))
    }
}

/// A positive number without a leading zero.
fn plain_number(text: &str) -> Option<usize> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

/// Names that some implementation takes for a basic type: those with a size, aliases, and the
/// types of Solidity that EIP-712 leaves out.
fn is_reserved(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    matches!(
        stem,
        "bool"
            | "address"
            | "string"
            | "bytes"
            | "byte"
            | "uint"
            | "int"
            | "fixed"
            | "ufixed"
            | "function"
            | "tuple"
            | "mapping"
            | "struct"
            | "enum"
    ) || name.starts_with("fixed") && name.contains(|c: char| c.is_ascii_digit())
        || name.starts_with("ufixed") && name.contains(|c: char| c.is_ascii_digit())
}

fn is_identifier(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b'$');
    name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(letter)
        && name.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

/// What an array is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Atom(Atom),
    Struct(String),
}

/// A field's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldType {
    pub(super) base: Base,
    /// The lengths of fixed arrays, `None` for dynamic ones; the innermost first.
    pub(super) dimensions: Vec<Option<usize>>,
}

impl FieldType {
    fn parse(text: &str) -> Option<Self> {
        let (name, mut rest) = text.split_at(text.find('[').unwrap_or(text.len()));
        let mut dimensions = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.strip_prefix('[')?.split_once(']')?;
            let length = if length.is_empty() { None } else { Some(plain_number(length)?) };
            dimensions.push(length);
            rest = behind;
        }
        let base = match Atom::parse(name) {
            Some(atom) => Base::Atom(atom),
            None if is_identifier(name) && !is_reserved(name) => Base::Struct(name.to_owned()),
            None => return None,
        };
        (dimensions.len() <= MAX_DIMENSIONS).then_some(Self { base, dimensions })
    }
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// As declared; [`FieldType`] has one spelling only.
    pub(super) type_text: String,
    pub(super) ty: FieldType,
}

/// The declared types.
#[derive(Clone, Debug)]
pub(super) struct Types {
    structs: BTreeMap<String, Vec<Field>>,
}

impl Types {
    /// Parses `types`; what refers to what is not looked at.
    pub(super) fn parse(value: &Value, path: Path<'_>) -> Result<Self, TypedDataError> {
        let declared = object(value, path)?;
        if declared.len() > MAX_TYPES {
            return Err(TypesError::TooMany { what: "types", max: MAX_TYPES }.into());
        }
        let mut bytes = 0_usize;
        let mut structs = BTreeMap::new();
        for (name, fields) in declared {
            let path = Path::Key(&path, name);
            let at = || path.to_string();
            if !is_identifier(name) {
                return Err(TypesError::BadName { at: at(), name: clip(name) }.into());
            }
            if is_reserved(name) {
                return Err(TypesError::ReservedName { at: at(), name: name.clone() }.into());
            }
            let fields = parse_fields(fields, path)?;
            for field in &fields {
                bytes =
                    bytes.saturating_add(field.name.len()).saturating_add(field.type_text.len());
            }
            bytes = bytes.saturating_add(name.len());
            if bytes > MAX_TYPE_BYTES {
                return Err(TypesError::TooMany { what: "bytes", max: MAX_TYPE_BYTES }.into());
            }
            structs.insert(name.clone(), fields);
        }
        Ok(Self { structs })
    }

    /// The fields of a struct.
    pub(super) fn fields(&self, name: &str) -> Option<&[Field]> {
        self.structs.get(name).map(Vec::as_slice)
    }

    /// Every struct but the domain's.
    pub(super) fn structs(&self) -> impl Iterator<Item = (&str, &[Field])> {
        self.structs
            .iter()
            .filter(|(name, _)| *name != DOMAIN)
            .map(|(name, fields)| (name.as_str(), fields.as_slice()))
    }

    /// `Name(type name,…)`, without the types it refers to.
    pub(super) fn type_string(&self, name: &str) -> String {
        let fields = self.fields(name).unwrap_or_default();
        let list: Vec<_> = fields.iter().map(|f| [&f.type_text, " ", &f.name].concat()).collect();
        format!("{name}({})", list.join(","))
    }

    /// Checks that `primary` refers to declared structs only, to each of them, never to itself,
    /// and within the caps.
    pub(super) fn check_message_type(&self, primary: &str) -> Result<(), TypesError> {
        if primary == DOMAIN {
            return Err(TypesError::DomainAsMessage);
        }
        if !self.structs.contains_key(primary) {
            return Err(TypesError::NotDeclared {
                at: "/primaryType".to_owned(),
                name: clip(primary),
            });
        }
        let mut walk = Walk { types: self, within: Vec::new(), sizes: BTreeMap::new() };
        let size = walk.measure(primary)?;
        if size.depth > MAX_STRUCT_DEPTH {
            return Err(TypesError::TooMany {
                what: "structs within structs",
                max: MAX_STRUCT_DEPTH,
            });
        }
        if size.nodes > MAX_EXPANDED_NODES {
            return Err(TypesError::TooMany {
                what: "nodes when expanded",
                max: MAX_EXPANDED_NODES,
            });
        }
        match self.structs().find(|(name, _)| !walk.sizes.contains_key(name)) {
            Some((name, _)) => {
                Err(TypesError::Unused { name: name.to_owned(), primary: primary.to_owned() })
            }
            None => Ok(()),
        }
    }
}

fn parse_fields(value: &Value, path: Path<'_>) -> Result<Vec<Field>, TypedDataError> {
    let list = array(value, path)?;
    if list.len() > MAX_FIELDS {
        return Err(TypesError::TooMany { what: "fields in a type", max: MAX_FIELDS }.into());
    }
    let mut fields: Vec<Field> = Vec::new();
    for (index, field) in list.iter().enumerate() {
        let path = Path::Index(&path, index);
        let [name, type_text] = closed_object(field, path, ["name", "type"])?;
        let name = text(name, Path::Key(&path, "name"))?;
        let type_text = text(type_text, Path::Key(&path, "type"))?;
        if !is_identifier(name) {
            let at = Path::Key(&path, "name").to_string();
            return Err(TypesError::BadName { at, name: clip(name) }.into());
        }
        if fields.iter().any(|f| f.name == name) {
            let (at, name) = (path.to_string(), name.to_owned());
            return Err(TypesError::DuplicateField { at, name }.into());
        }
        let ty = FieldType::parse(type_text).ok_or_else(|| TypesError::BadType {
            at: Path::Key(&path, "type").to_string(),
            name: clip(type_text),
        })?;
        fields.push(Field { name: name.to_owned(), type_text: type_text.to_owned(), ty });
    }
    Ok(fields)
}

struct Walk<'a> {
    types: &'a Types,
    /// The structs around the present one.
    within: Vec<&'a str>,
    sizes: BTreeMap<&'a str, Size>,
}

/// What a struct expands to.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    /// How many structs contain each other, itself included.
    depth: usize,
}

impl<'a> Walk<'a> {
    fn measure(&mut self, name: &'a str) -> Result<Size, TypesError> {
        if let Some(size) = self.sizes.get(name) {
            return Ok(*size);
        }
        // a chain is at most MAX_TYPES long, as a struct that returns to itself ends here
        if self.within.contains(&name) {
            return Err(TypesError::Recursive { name: name.to_owned() });
        }
        self.within.push(name);
        let mut size = Size { nodes: 1, depth: 0 };
        for field in self.types.fields(name).unwrap_or_default() {
            let inner = match &field.ty.base {
                Base::Atom(_) => Size { nodes: 1, depth: 0 },
                Base::Struct(inner) if inner == DOMAIN => {
                    return Err(TypesError::DomainAsMessage);
                }
                Base::Struct(inner) if self.types.fields(inner).is_none() => {
                    return Err(TypesError::NotDeclared {
                        at: format!("/types/{name}"),
                        name: inner.clone(),
                    });
                }
                Base::Struct(inner) => self.measure(inner)?,
            };
            size.depth = size.depth.max(inner.depth);
            size.nodes =
                size.nodes.saturating_add(inner.nodes).saturating_add(field.ty.dimensions.len());
        }
        size.depth = size.depth.saturating_add(1);
        self.within.pop();
        self.sizes.insert(name, size);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_basic_type() {
        for good in ["bool", "address", "string", "bytes", "bytes1", "bytes32", "uint8", "int256"] {
            assert!(Atom::parse(good).is_some(), "{good}");
        }
        for bad in [
            "uint",
            "int",
            "byte",
            "bytes0",
            "bytes33",
            "bytes01",
            "uint0",
            "uint7",
            "uint264",
            "uint08",
            "int+8",
            "function",
            "fixed128x18",
            "Bool",
            "",
            "uint8 ",
            "bytes-1",
        ] {
            assert_eq!(Atom::parse(bad), None, "{bad}");
            assert!(FieldType::parse(bad).is_none_or(|t| t.base == Base::Struct(bad.to_owned())));
        }
        for reserved in ["uint", "int", "byte", "bytes33", "uint7", "function", "fixed128x18"] {
            assert!(FieldType::parse(reserved).is_none(), "{reserved}");
        }
    }

    #[test]
    fn arrays_have_one_spelling() {
        let parsed = FieldType::parse("uint8[2][]").unwrap();
        assert_eq!(parsed.dimensions, [Some(2), None]);
        for bad in [
            "uint8[",
            "uint8]",
            "uint8[0]",
            "uint8[01]",
            "uint8[-1]",
            "uint8[ ]",
            "uint8[][",
            "[]",
            "uint8[]x",
            "uint8[][][][][]",
            "uint8[99999999999999999999]",
            "(uint8)[]",
        ] {
            assert_eq!(FieldType::parse(bad), None, "{bad}");
        }
    }
}
