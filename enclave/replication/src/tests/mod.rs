//! Unit tests that need more than one room.

mod answers;
mod arms_length;
mod hostile;
#[path = "../../tests/kit/mod.rs"]
mod kit;
mod pairs;
