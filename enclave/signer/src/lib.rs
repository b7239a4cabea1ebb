//! The node: permits, scheduler, protocol runs.
