//! Whatever is sent arrives as it was sent; whatever is changed on the way does not arrive.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod kit;

use std::cell::RefCell;

use casemate_channel::{Broken, Channel, Progress, Refused};
use kit::*;
use proptest::prelude::*;

/// Every byte of a greeting changed: the acceptor refuses it, or the dialler refuses the answer.
#[test]
fn i9_no_flipped_byte_of_the_first_message_leads_to_a_channel() {
    let (alpha, bravo) = (Party::honest(0), Party::honest(1));
    let (_, first) = alpha.dial("bravo").unwrap();
    let (mut refused, mut answered) = (0, 0);
    for at in 0..first.len() {
        let mut changed = first.clone();
        changed[at] ^= 1 << (at % 8);
        match bravo.receive(bravo.accept(), &changed) {
            Ok(Progress::Continue { send, .. }) => {
                let (dialling, _) = alpha.dial("bravo").unwrap();
                let error = alpha.receive(dialling, &send).unwrap_err();
                assert_eq!(error, Refused::NotAuthentic { message: 2 }, "byte {at}");
                answered += 1;
            }
            Ok(Progress::Done { .. }) => panic!("a channel after one message"),
            Err(_) => refused += 1,
        }
    }
    // the ephemeral key and the nonce are as good as any other; the rest is not
    assert_eq!((answered, refused + answered), (64, first.len()));
}

#[test]
fn i9_no_flipped_byte_of_the_second_message_leads_to_a_channel() {
    let (alpha, bravo) = (Party::honest(0), Party::honest(1));
    let (_, first) = alpha.dial("bravo").unwrap();
    let answered = bravo.receive(bravo.accept(), &first).unwrap();
    let Progress::Continue { send: second, .. } = answered else { panic!("a channel") };
    // whole where keys and lengths are, every seventh byte of the document
    let places = (0..200).chain((200..second.len()).step_by(7));
    for at in places.chain(second.len() - 17..second.len()) {
        let mut changed = second.clone();
        changed[at] ^= 1 << (at % 8);
        let (dialling, _) = alpha.dial("bravo").unwrap();
        let refused = alpha.receive(dialling, &changed).unwrap_err();
        assert_eq!(refused, Refused::NotAuthentic { message: 2 }, "byte {at}");
    }
}

thread_local! {
    /// A channel whose ends take turns; made anew when a case has broken it.
    static ENDS: RefCell<Option<(Channel, Channel)>> = const { RefCell::new(None) };
}

/// A message to either side: whose, and how long.
fn messages() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    let length = prop_oneof![4 => 0..300_usize, 1 => 65_000..66_100_usize, 1 => 0..140_000_usize];
    let message = (length, any::<u8>()).prop_map(|(length, first)| {
        let turning = (0..=u8::MAX).cycle().map(|byte| byte.wrapping_add(first));
        turning.take(length).collect()
    });
    prop::collection::vec((any::<bool>(), message), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_arrive_intact_and_in_order(messages in messages()) {
        ENDS.with_borrow_mut(|ends| {
            let (a, b) = ends.get_or_insert_with(pair);
            for (from_a, message) in messages {
                let (sender, receiver) = if from_a { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
                let frames = sender.seal(&message).unwrap();
                let opened: Vec<_> =
                    frames.iter().filter_map(|frame| receiver.open(frame).unwrap()).collect();
                prop_assert_eq!(opened, [message]);
            }
            Ok(())
        })?;
    }

    #[test]
    fn i9_no_changed_frame_yields_a_message(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
        which: prop::sample::Index,
        place: prop::sample::Index,
        bit in 0..8_u8,
    ) {
        let (mut a, mut b) = pair();
        let mut frames: Vec<Vec<u8>> =
            messages.iter().flat_map(|message| a.seal(message).unwrap()).collect();
        let which = which.index(frames.len());
        let at = place.index(frames[which].len());
        frames[which][at] ^= 1 << bit;
        for (number, frame) in frames.iter().enumerate() {
            match number.cmp(&which) {
                core::cmp::Ordering::Less => {
                    prop_assert_eq!(b.open(frame), Ok(Some(messages[number].clone())));
                }
                core::cmp::Ordering::Equal => {
                    let frame_number = u64::try_from(number).unwrap();
                    let broken = Broken::NotAuthentic { frame: frame_number };
                    prop_assert_eq!(b.open(frame), Err(broken));
                }
                core::cmp::Ordering::Greater => prop_assert_eq!(b.open(frame), Err(Broken::Ended)),
            }
        }
    }

    #[test]
    fn i9_no_flipped_byte_of_the_last_message_leads_to_a_channel(
        place: prop::sample::Index,
        bit in 0..8_u8,
    ) {
        let mut at = 0;
        let both = run(&Party::honest(0), "bravo", &Party::honest(1), |message, bytes| {
            if message == 3 {
                at = place.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
        });
        prop_assert_eq!(both.acceptor_refused(), Refused::NotAuthentic { message: 3 }, "byte {}", at);
    }

    #[test]
    fn i9_noise_never_makes_a_channel(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (alpha, bravo) = (Party::honest(0), Party::honest(1));
        prop_assert!(bravo.receive(bravo.accept(), &bytes).is_err());
        let (dialling, _) = alpha.dial("bravo").unwrap();
        prop_assert!(alpha.receive(dialling, &bytes).is_err());
    }
}
