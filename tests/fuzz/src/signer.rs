//! What one node takes from another, before any of it is believed.

use casemate_signer::PeerMessage;

use crate::Target;

/// The target of this module.
pub const TARGETS: &[Target] = &[Target { name: "peer_message", run: peer_message }];

/// What decodes has one encoding, and is within its cap.
///
/// # Panics
/// If it does not.
pub fn peer_message(data: &[u8]) {
    if let Ok(message) = PeerMessage::decode(data) {
        assert_eq!(message.encode(), data, "two encodings of one message");
    }
}
