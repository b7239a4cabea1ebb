//! What a node is asked and what it answers: the words of [`casemate_door`].

pub use casemate_door::{
    Answer, BootView, ClusterView, FreezeView, KeyView, PendingAnswer, PendingChangeView,
    PendingRequestView, Query, Receipt, Reply, Signed, SignedDenial, SignedReply, Submission,
    Ticket,
};
