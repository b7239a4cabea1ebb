//! A deterministic simulation of whole clusters under a hostile host; all of it is in
//! `tests/histories`, so that what it switches on in its dependencies is in no released program.
