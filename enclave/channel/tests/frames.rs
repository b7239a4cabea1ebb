//! The frames of a channel: what arrives, and what ends it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod kit;

use casemate_channel::{Broken, Channel, MAX_FRAME, MAX_MESSAGE};
use kit::forger::{self, truthful};
use kit::*;
use snow::TransportState;

/// Bytes of a message in a full frame.
const CHUNK: usize = MAX_FRAME - 17;

/// An error ends the channel, in both directions.
#[track_caller]
fn ends(channel: &mut Channel, frame: &[u8], why: &Broken) {
    assert_eq!(channel.open(frame).as_ref(), Err(why));
    assert_eq!(channel.open(frame), Err(Broken::Ended));
    assert_eq!(channel.seal(b"more"), Err(Broken::Ended));
}

/// The one frame of a short message.
fn sealed(channel: &mut Channel, message: &[u8]) -> Vec<u8> {
    let mut frames = channel.seal(message).unwrap();
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

#[test]
fn messages_of_every_length_around_a_frame_arrive() {
    let (mut a, mut b) = pair();
    let lengths = [
        (0, 1),
        (1, 1),
        (CHUNK - 1, 1),
        (CHUNK, 1),
        (CHUNK + 1, 2),
        (2 * CHUNK, 2),
        (2 * CHUNK + 1, 3),
        (MAX_MESSAGE, 17),
    ];
    for (length, count) in lengths {
        let message: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let frames = a.seal(&message).unwrap();
        assert_eq!(frames.len(), count, "{length}");
        assert!(frames.iter().all(|frame| frame.len() <= MAX_FRAME));
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            assert_eq!(frame.len(), MAX_FRAME);
            assert_eq!(b.open(frame), Ok(None));
        }
        assert_eq!(b.open(last), Ok(Some(message)), "{length}");
    }
}

#[test]
fn halves_work_apart_and_end_together() {
    let (a, b) = pair();
    let ((mut seal_a, mut open_a), (mut seal_b, mut open_b)) = (a.split(), b.split());
    assert_eq!(open_b.open(&seal_a.seal(b"one").unwrap()[0]), Ok(Some(b"one".to_vec())));
    assert_eq!(open_a.open(&seal_b.seal(b"two").unwrap()[0]), Ok(Some(b"two".to_vec())));
    assert_eq!((seal_a.frames(), open_a.frames()), (1, 1));
    assert_eq!(open_b.open(&[0; 40]), Err(Broken::NotAuthentic { frame: 1 }));
    assert_eq!(seal_b.seal(b"three"), Err(Broken::Ended));
    // the other end has not heard of it yet
    seal_a.seal(b"four").unwrap();
}

#[test]
fn i12_oversized_frame_is_refused() {
    let (_, mut b) = pair();
    let (len, min, max) = (MAX_FRAME + 1, 17, MAX_FRAME);
    ends(&mut b, &vec![0; len], &Broken::FrameLength { frame: 0, len, min, max });
}

#[test]
fn frame_shorter_than_any_is_refused() {
    for len in [0, 1, 15, 16] {
        let (_, mut b) = pair();
        let (min, max) = (17, MAX_FRAME);
        ends(&mut b, &vec![0; len], &Broken::FrameLength { frame: 0, len, min, max });
    }
}

#[test]
fn truncated_frame_is_refused() {
    let (mut a, mut b) = pair();
    let frame = sealed(&mut a, b"a message");
    ends(&mut b, &frame[..frame.len() - 1], &Broken::NotAuthentic { frame: 0 });
}

#[test]
fn lengthened_frame_is_refused() {
    let (mut a, mut b) = pair();
    let mut frame = sealed(&mut a, b"a message");
    frame.push(0);
    ends(&mut b, &frame, &Broken::NotAuthentic { frame: 0 });
}

#[test]
fn flipped_frame_is_refused() {
    let (mut a, mut b) = pair();
    let mut frame = sealed(&mut a, b"a message");
    frame[3] ^= 1;
    ends(&mut b, &frame, &Broken::NotAuthentic { frame: 0 });
}

#[test]
fn replayed_frame_is_refused() {
    let (mut a, mut b) = pair();
    let frame = sealed(&mut a, b"a message");
    b.open(&frame).unwrap();
    ends(&mut b, &frame, &Broken::NotAuthentic { frame: 1 });
}

#[test]
fn frames_out_of_order_are_refused() {
    let (mut a, mut b) = pair();
    let (_, second) = (sealed(&mut a, b"one"), sealed(&mut a, b"two"));
    ends(&mut b, &second, &Broken::NotAuthentic { frame: 0 });
}

#[test]
fn dropped_frame_of_a_long_message_is_noticed() {
    let (mut a, mut b) = pair();
    let frames = a.seal(&vec![1; 3 * CHUNK]).unwrap();
    assert_eq!(b.open(&frames[0]), Ok(None));
    ends(&mut b, &frames[2], &Broken::NotAuthentic { frame: 1 });
}

#[test]
fn frame_reflected_to_its_sender_is_refused() {
    let (mut a, _) = pair();
    let frame = sealed(&mut a, b"to the other side");
    ends(&mut a, &frame, &Broken::NotAuthentic { frame: 0 });
}

#[test]
fn frame_of_another_channel_is_refused() {
    let dialler = Party { seed: 3, ..Party::honest(0) };
    let other = undisturbed(&dialler, "bravo", &Party::honest(1));
    let (mut elsewhere, _) = other.dialler.unwrap();
    let (_, mut b) = pair();
    let frame = sealed(&mut elsewhere, b"a message");
    ends(&mut b, &frame, &Broken::NotAuthentic { frame: 0 });
}

#[test]
fn message_that_is_too_long_is_not_sealed_and_the_channel_lives() {
    let (mut a, mut b) = pair();
    let (len, max) = (MAX_MESSAGE + 1, MAX_MESSAGE);
    assert_eq!(a.seal(&vec![0; len]), Err(Broken::TooLong { len, max }));
    let frame = sealed(&mut a, b"shorter");
    assert_eq!(b.open(&frame), Ok(Some(b"shorter".to_vec())));
}

/// A peer that holds the channel's keys and does not keep to the protocol.
fn misbehaving() -> (TransportState, Channel) {
    forger::dial(truthful(0), &Party::honest(1)).unwrap()
}

fn seal(transport: &mut TransportState, plain: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; plain.len() + 16];
    let len = transport.write_message(plain, &mut frame).unwrap();
    assert_eq!(len, frame.len());
    frame
}

fn framed(kind: u8, length: usize) -> Vec<u8> {
    [vec![kind], vec![0; length]].concat()
}

#[test]
fn frames_by_snows_own_functions_are_understood() {
    let (mut peer, mut channel) = misbehaving();
    let frame = seal(&mut peer, b"\x01hello");
    assert_eq!(channel.open(&frame), Ok(Some(b"hello".to_vec())));
    let frame = sealed(&mut channel, b"and back");
    let mut plain = vec![0; frame.len()];
    let len = peer.read_message(&frame, &mut plain).unwrap();
    assert_eq!(&plain[..len], b"\x01and back");
}

#[test]
fn i12_message_longer_than_the_cap_is_refused_while_it_comes_in() {
    let (mut peer, mut channel) = misbehaving();
    let fit = MAX_MESSAGE / CHUNK;
    for _ in 0..fit {
        let frame = seal(&mut peer, &framed(0, CHUNK));
        assert_eq!(channel.open(&frame), Ok(None));
    }
    let frame = seal(&mut peer, &framed(0, CHUNK));
    let (len, max) = ((fit + 1) * CHUNK, MAX_MESSAGE);
    ends(&mut channel, &frame, &Broken::TooLong { len, max });
}

#[test]
fn i12_message_one_byte_longer_than_the_cap_is_refused() {
    let (mut peer, mut channel) = misbehaving();
    let fit = MAX_MESSAGE / CHUNK;
    for _ in 0..fit {
        let frame = seal(&mut peer, &framed(0, CHUNK));
        assert_eq!(channel.open(&frame), Ok(None));
    }
    let frame = seal(&mut peer, &framed(1, MAX_MESSAGE - fit * CHUNK + 1));
    let (len, max) = (MAX_MESSAGE + 1, MAX_MESSAGE);
    ends(&mut channel, &frame, &Broken::TooLong { len, max });
}

#[test]
fn i12_frame_that_goes_on_and_is_not_full_is_refused() {
    for length in [0, 1, CHUNK - 1] {
        let (mut peer, mut channel) = misbehaving();
        let frame = seal(&mut peer, &framed(0, length));
        let reason = "goes on and is not full";
        ends(&mut channel, &frame, &Broken::Frame { frame: 0, reason });
    }
}

#[test]
fn last_frame_that_adds_nothing_is_refused() {
    let (mut peer, mut channel) = misbehaving();
    let frame = seal(&mut peer, &framed(0, CHUNK));
    assert_eq!(channel.open(&frame), Ok(None));
    let frame = seal(&mut peer, &framed(1, 0));
    let reason = "ends a message and adds nothing";
    ends(&mut channel, &frame, &Broken::Frame { frame: 1, reason });
}

#[test]
fn frame_of_an_unknown_kind_is_refused() {
    for kind in [2, 0x80, 0xff] {
        let (mut peer, mut channel) = misbehaving();
        let frame = seal(&mut peer, &framed(kind, 4));
        let reason = "is of no known kind";
        ends(&mut channel, &frame, &Broken::Frame { frame: 0, reason });
    }
}
