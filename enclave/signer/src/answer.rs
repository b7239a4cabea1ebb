//! What a node is asked and what it answers: the words of [`casemate_door`].

pub use casemate_door::{Answer, PendingAnswer, Receipt, Signed, SignedDenial, Submission, Ticket};
