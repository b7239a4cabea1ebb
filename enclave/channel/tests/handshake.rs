//! The handshake: what makes a channel, and each thing that must not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod kit;

use kit::*;

#[test]
fn i9_two_nodes_attest_each_other_and_talk_both_ways() {
    let (dialler, acceptor) = (Party::honest(0), Party::honest(1));
    let both = undisturbed(&dialler, "bravo", &acceptor);
    let (mut a, bravo) = both.dialler.unwrap();
    let (mut b, alpha) = both.acceptor.unwrap().unwrap();
    assert_eq!(bravo.node(), &name("bravo"));
    assert_eq!(alpha.node(), &name("alpha"));
    assert_eq!(bravo.boot(), acceptor.identity.boot());
    assert_eq!(alpha.boot(), dialler.identity.boot());
    for (sender, receiver) in [(&mut a, &mut b)] {
        for message in [b"".as_slice(), b"hello", &[7; 100_000]] {
            let frames = sender.seal(message).unwrap();
            let mut opened = frames.iter().map(|frame| receiver.open(frame).unwrap());
            assert_eq!(opened.by_ref().flatten().collect::<Vec<_>>(), [message]);
            let frames = receiver.seal(message).unwrap();
            let mut opened = frames.iter().map(|frame| sender.open(frame).unwrap());
            assert_eq!(opened.by_ref().flatten().collect::<Vec<_>>(), [message]);
        }
    }
}
