//! What goes through a channel: a byte that says whose it is, and the message.

/// Whose a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The birth's: records, the proposal, echoes.
    Genesis,
    /// Admission's: asks, confirmations, the snapshot.
    Join,
    /// Replication's.
    Raft,
    /// The node's.
    Node,
    /// Nobody's: the sender is there.
    Alive,
}

const KINDS: [Kind; 5] = [Kind::Genesis, Kind::Join, Kind::Raft, Kind::Node, Kind::Alive];

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Genesis => 1,
            Self::Join => 2,
            Self::Raft => 3,
            Self::Node => 4,
            Self::Alive => 5,
        }
    }
}

pub(crate) fn seal(kind: Kind, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len().saturating_add(1));
    bytes.push(kind.byte());
    bytes.extend_from_slice(message);
    bytes
}

pub(crate) fn open(bytes: &[u8]) -> Option<(Kind, &[u8])> {
    let (first, message) = bytes.split_first()?;
    let kind = KINDS.into_iter().find(|kind| kind.byte() == *first)?;
    Some((kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_open_to_what_was_sealed_and_unknown_kinds_to_nothing() {
        for kind in KINDS {
            assert_eq!(open(&seal(kind, b"x")), Some((kind, b"x".as_slice())));
        }
        assert_eq!(open(&[]), None);
        assert_eq!(open(&[0, 1]), None);
        assert_eq!(open(&[9]), None);
    }
}
