//! A policy's text to its data.
use crate::{
    error::{PolicyError, PolicyErrors, Problem},
    policy::Policy,
};
pub(crate) fn read(_text: &str) -> Result<Policy, PolicyErrors> {
    let problem = Problem::Syntax { message: "not read yet".to_owned() };
    Err(PolicyErrors { errors: vec![PolicyError { line: None, place: String::new(), problem }] })
}
