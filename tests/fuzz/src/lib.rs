//! Every decoder's fuzz target, run over its corpus by cargo test.
