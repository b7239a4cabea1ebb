//! Entries and apply(state, entry) to (state, verdict, effects), run by enclaves and replayed by auditors.
