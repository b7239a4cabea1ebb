//! Reading TOML with every mistake listed, each with its line and field.

use std::collections::BTreeMap;

use casemate_proto::Amount;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::error::{PolicyError, Problem};

pub(crate) type Value<'t> = &'t Spanned<DeValue<'t>>;
pub(crate) type Fields<'t> = BTreeMap<&'t str, Value<'t>>;

/// What was found wrong so far, and on which line each place is.
pub(crate) struct Reader {
    /// Offset of each line's end.
    ends: Vec<usize>,
    lines: BTreeMap<String, usize>,
    errors: Vec<PolicyError>,
}

impl Reader {
    pub(crate) fn new(text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at).collect();
        Self { ends, lines: BTreeMap::new(), errors: Vec::new() }
    }

    pub(crate) fn line_at(&self, offset: usize) -> usize {
        self.ends.partition_point(|end| *end < offset).saturating_add(1)
    }

    pub(crate) fn add(&mut self, place: &str, problem: Problem) {
        let line = self.line_of(place);
        self.errors.push(PolicyError { line, place: place.to_owned(), problem });
    }

    /// Remembers on which line a place is.
    pub(crate) fn note(&mut self, place: &str, value: Value<'_>) {
        let line = self.line_at(value.span().start);
        self.lines.insert(place.to_owned(), line);
    }

    /// The line of a place, or of the nearest that it is part of.
    pub(crate) fn line_of(&self, place: &str) -> Option<usize> {
        let mut place = place;
        loop {
            if let Some(line) = self.lines.get(place) {
                return Some(*line);
            }
            place = place.rfind(['.', '[']).and_then(|at| place.get(..at))?;
        }
    }

    pub(crate) fn errors(&self) -> &[PolicyError] {
        &self.errors
    }

    fn wrong_type(&mut self, place: &str, expected: &'static str, value: Value<'_>) {
        let found = value.get_ref().type_str();
        self.add(place, Problem::WrongType { expected, found });
    }

    /// The fields of a table, none of them unknown.
    pub(crate) fn table<'t>(
        &mut self,
        place: &str,
        value: Value<'t>,
        known: &[&str],
    ) -> Option<Fields<'t>> {
        self.note(place, value);
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(place, "a table", value);
            return None;
        };
        Some(self.fields(place, table, known))
    }

    pub(crate) fn fields<'t>(
        &mut self,
        place: &str,
        table: &'t DeTable<'t>,
        known: &[&str],
    ) -> Fields<'t> {
        let mut fields = Fields::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                self.note(&join(place, name), value);
                fields.insert(name, value);
            } else {
                let line = Some(self.line_at(key.span().start));
                let field = name.chars().take(80).collect();
                let problem = Problem::UnknownField { field, known: known.join(", ") };
                self.errors.push(PolicyError { line, place: place.to_owned(), problem });
            }
        }
        fields
    }

    /// The entries of a table whose keys are names of the policy's own.
    pub(crate) fn entries<'t>(
        &mut self,
        place: &str,
        value: Value<'t>,
    ) -> Vec<(&'t str, Value<'t>)> {
        self.note(place, value);
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(place, "a table", value);
            return Vec::new();
        };
        table.iter().map(|(key, value)| (key.get_ref().as_ref(), value)).collect()
    }

    pub(crate) fn array<'t>(&mut self, place: &str, value: Value<'t>) -> Vec<Value<'t>> {
        if let DeValue::Array(array) = value.get_ref() {
            return array.iter().collect();
        }
        self.wrong_type(place, "an array", value);
        Vec::new()
    }

    /// An array, or one element in place of an array of one.
    pub(crate) fn one_or_many<'t>(&mut self, value: Value<'t>) -> Vec<Value<'t>> {
        match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        }
    }

    pub(crate) fn string<'t>(&mut self, place: &str, value: Value<'t>) -> Option<&'t str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(place, "a string", value);
        }
        text
    }

    pub(crate) fn boolean(&mut self, place: &str, value: Value<'_>) -> Option<bool> {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(place, "true or false", value);
        }
        found
    }

    pub(crate) fn number(&mut self, place: &str, value: Value<'_>) -> Option<u64> {
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(place, "a whole number", value);
            return None;
        };
        let found = u64::from_str_radix(number.as_str(), number.radix()).ok();
        if found.is_none() {
            let input = number.as_str().chars().take(40).collect();
            self.add(place, Problem::Form { input, expected: "a whole number from 0 on" });
        }
        found
    }

    /// A string that `parse` turns into something.
    pub(crate) fn parse<T>(
        &mut self,
        place: &str,
        value: Value<'_>,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        let text = self.string(place, value)?;
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.add(place, problem);
                None
            }
        }
    }

    /// The same for a field that may be absent.
    pub(crate) fn optional<T>(
        &mut self,
        place: &str,
        fields: &Fields<'_>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        let value = fields.get(name)?;
        self.parse(&join(place, name), value, parse)
    }

    pub(crate) fn required<'t>(
        &mut self,
        place: &str,
        fields: &Fields<'t>,
        name: &'static str,
    ) -> Option<Value<'t>> {
        let value = fields.get(name).copied();
        if value.is_none() {
            self.add(place, Problem::Missing { field: name });
        }
        value
    }

    /// An amount: a decimal string, never a bare number.
    pub(crate) fn amount(&mut self, place: &str, value: Value<'_>, decimals: u8) -> Option<Amount> {
        let bare = match value.get_ref() {
            DeValue::Integer(number) => Some((number.to_string(), "integer")),
            DeValue::Float(number) => Some((number.to_string(), "float")),
            _ => None,
        };
        if let Some((input, found)) = bare {
            let input = input.chars().take(80).collect();
            self.add(place, Problem::BareNumber { input, found });
            return None;
        }
        self.parse(place, value, |text| {
            Amount::from_decimal(text, decimals).map_err(Problem::Amount)
        })
    }
}

pub(crate) fn join(place: &str, field: &str) -> String {
    if place.is_empty() { field.to_owned() } else { format!("{place}.{field}") }
}

pub(crate) fn form(text: &str, expected: &'static str) -> Problem {
    Problem::Form { input: text.chars().take(80).collect(), expected }
}
