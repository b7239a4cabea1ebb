//! Values under their declared types: every object has exactly its declared members, every scalar
//! one of a few spellings.
//!
//! What the general encoder is given is not the caller's JSON but the JSON written here, where
//! each scalar has one form. So its leniency (`"true"` for a boolean, octal and underscores in
//! numbers, lists of numbers for bytes, members that no type declares) is out of reach.

use alloy_primitives::U256;
use serde_json::{Map, Value};

use crate::EvmAddress;

use super::error::TypedDataError;
use super::json::{Path, clip, kind};
use super::types::{Atom, Base, FieldType, Types};

/// The most structs a message may hold: each is hashed with its whole type string.
pub const MAX_STRUCT_VALUES: usize = 256;

fn wrong_type(value: &Value, path: Path<'_>, expected: &'static str) -> TypedDataError {
    TypedDataError::WrongJsonType { at: path.to_string(), expected, got: kind(value) }
}

pub(super) fn object<'v>(
    value: &'v Value,
    path: Path<'_>,
) -> Result<&'v Map<String, Value>, TypedDataError> {
    value.as_object().ok_or_else(|| wrong_type(value, path, "an object"))
}

pub(super) fn array<'v>(value: &'v Value, path: Path<'_>) -> Result<&'v [Value], TypedDataError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong_type(value, path, "an array"))
}

pub(super) fn text<'v>(value: &'v Value, path: Path<'_>) -> Result<&'v str, TypedDataError> {
    value.as_str().ok_or_else(|| wrong_type(value, path, "a string"))
}

/// The member of an object.
pub(super) fn member<'v>(
    object: &'v Map<String, Value>,
    path: Path<'_>,
    name: &str,
) -> Result<&'v Value, TypedDataError> {
    object
        .get(name)
        .ok_or_else(|| TypedDataError::Missing { at: path.to_string(), member: name.to_owned() })
}

/// Refuses a member that is not declared.
pub(super) fn only_members(
    object: &Map<String, Value>,
    path: Path<'_>,
    declared: impl Fn(&str) -> bool,
) -> Result<(), TypedDataError> {
    match object.keys().find(|key| !declared(key)) {
        Some(key) => Err(TypedDataError::Undeclared { at: path.to_string(), member: clip(key) }),
        None => Ok(()),
    }
}

/// The members of an object that has exactly these.
pub(super) fn closed_object<'v, const N: usize>(
    value: &'v Value,
    path: Path<'_>,
    names: [&str; N],
) -> Result<[&'v Value; N], TypedDataError> {
    let object = object(value, path)?;
    let mut out = [value; N];
    for (slot, name) in out.iter_mut().zip(names) {
        *slot = member(object, path, name)?;
    }
    only_members(object, path, |key| names.contains(&key))?;
    Ok(out)
}

fn bad(value: &Value, path: Path<'_>, expected: impl Into<String>) -> TypedDataError {
    let input = match value {
        Value::String(text) => clip(text),
        other => clip(&other.to_string()),
    };
    TypedDataError::BadValue { at: path.to_string(), input, expected: expected.into() }
}

/// Digits without a leading zero.
fn decimal(text: &str) -> Option<U256> {
    let plain = text.bytes().all(|b| b.is_ascii_digit())
        && (1..=78).contains(&text.len())
        && (text == "0" || !text.starts_with('0'));
    if plain { U256::from_str_radix(text, 10).ok() } else { None }
}

/// An unsigned integer of at most `bits` bits: a JSON number, a decimal string, or `0x` and up to
/// 64 hex digits.
pub(super) fn uint(value: &Value, path: Path<'_>, bits: usize) -> Result<U256, TypedDataError> {
    let number = match value {
        Value::Number(number) => number.as_u64().map(U256::from),
        Value::String(text) => match text.strip_prefix("0x") {
            Some(digits) => {
                let plain = (1..=64).contains(&digits.len())
                    && digits.bytes().all(|b| b.is_ascii_hexdigit());
                if plain { U256::from_str_radix(digits, 16).ok() } else { None }
            }
            None => decimal(text),
        },
        _ => None,
    };
    number.filter(|n| n.bit_len() <= bits).ok_or_else(|| {
        bad(value, path, format!("a `uint{bits}`: a whole number, decimal or 0x hex string"))
    })
}

/// A signed integer of at most `bits` bits, as decimal text.
fn int(value: &Value, path: Path<'_>, bits: usize) -> Result<String, TypedDataError> {
    let wrong = || bad(value, path, format!("an `int{bits}`: a whole number or a decimal string"));
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(wrong()),
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.as_str()),
    };
    let magnitude = decimal(digits).ok_or_else(wrong)?;
    // the magnitude of the lowest number, which the highest stays below
    let bound = bits.checked_sub(1).and_then(|b| U256::ONE.checked_shl(b)).ok_or_else(wrong)?;
    let fits =
        if negative { !magnitude.is_zero() && magnitude <= bound } else { magnitude < bound };
    if fits { Ok(text) } else { Err(wrong()) }
}

/// `0x` and 40 hex digits, in one case or with a correct EIP-55 checksum.
pub(super) fn address(value: &Value, path: Path<'_>) -> Result<EvmAddress, TypedDataError> {
    value.as_str().and_then(EvmAddress::parse).ok_or_else(|| {
        bad(value, path, "an `address`: 0x and 40 hex digits, with a correct checksum if mixed")
    })
}

/// `0x` and pairs of hex digits.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?.strip_prefix("0x")?).ok()
}

/// `0x` and 64 hex digits.
pub(super) fn bytes32(value: &Value, path: Path<'_>) -> Result<[u8; 32], TypedDataError> {
    bytes(value)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| bad(value, path, "a `bytes32`: 0x and 64 hex digits"))
}

/// Rewrites a message with one form for each scalar.
pub(super) struct Rewrite<'a> {
    types: &'a Types,
    structs: usize,
}

impl<'a> Rewrite<'a> {
    pub(super) const fn new(types: &'a Types) -> Self {
        Self { types, structs: 0 }
    }

    /// A struct. Its members come out in declared order.
    pub(super) fn structure(
        &mut self,
        name: &str,
        value: &Value,
        path: Path<'_>,
    ) -> Result<Value, TypedDataError> {
        self.structs = self.structs.saturating_add(1);
        if self.structs > MAX_STRUCT_VALUES {
            return Err(TypedDataError::TooManyStructs { max: MAX_STRUCT_VALUES });
        }
        let object = object(value, path)?;
        let fields = self.types.fields(name).unwrap_or_default();
        let mut out = Map::new();
        for field in fields {
            let value = member(object, path, &field.name)?;
            let FieldType { base, dimensions } = &field.ty;
            let value = self.array(base, dimensions, value, Path::Key(&path, &field.name))?;
            out.insert(field.name.clone(), value);
        }
        only_members(object, path, |key| fields.iter().any(|f| f.name == key))?;
        Ok(out.into())
    }

    /// A base with these dimensions around it, the innermost first.
    fn array(
        &mut self,
        base: &Base,
        dimensions: &[Option<usize>],
        value: &Value,
        path: Path<'_>,
    ) -> Result<Value, TypedDataError> {
        let Some((outermost, inner)) = dimensions.split_last() else {
            return match base {
                Base::Atom(ty) => atom(*ty, value, path),
                Base::Struct(name) => self.structure(name, value, path),
            };
        };
        let items = array(value, path)?;
        if let Some(expected) = *outermost
            && expected != items.len()
        {
            let (at, got) = (path.to_string(), items.len());
            return Err(TypedDataError::ArrayLength { at, expected, got });
        }
        let rewritten: Result<Vec<_>, _> = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.array(base, inner, item, Path::Index(&path, index)))
            .collect();
        Ok(rewritten?.into())
    }
}

fn atom(ty: Atom, value: &Value, path: Path<'_>) -> Result<Value, TypedDataError> {
    Ok(match ty {
        Atom::Bool if value.is_boolean() => value.clone(),
        Atom::Bool => return Err(bad(value, path, "a `bool`: true or false")),
        Atom::Address => address(value, path)?.to_checksum().into(),
        Atom::String => text(value, path)?.into(),
        Atom::Bytes => {
            let raw = bytes(value)
                .ok_or_else(|| bad(value, path, "`bytes`: 0x and pairs of hex digits"))?;
            format!("0x{}", hex::encode(raw)).into()
        }
        Atom::FixedBytes(size) => {
            let raw = bytes(value).filter(|b| b.len() == size).ok_or_else(|| {
                bad(value, path, format!("a `bytes{size}`: 0x and {size} pairs of hex digits"))
            })?;
            format!("0x{}", hex::encode(raw)).into()
        }
        Atom::Uint(bits) => uint(value, path, bits)?.to_string().into(),
        Atom::Int(bits) => int(value, path, bits)?.into(),
    })
}
