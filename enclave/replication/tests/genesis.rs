//! Birth: one genesis, echoed by all n, or none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::print_stderr,
    missing_docs
)]

mod kit;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use casemate_proto::cbor;
use casemate_proto::manifest::{BootRecord, GenesisRecord};
use casemate_proto::{BootId, Millis, NodeName, UnixMillis};
use casemate_replication::genesis::{BirthRefused, GenesisRun, Hopeless, Outgoing, verify_echoes};
use ed25519_dalek::{Signer, SigningKey};
use kit::{START, World};
use proptest::prelude::{any, prop_assert, prop_assert_eq};
use proptest::test_runner::{Config, TestRunner};

/// A boot at its birth, with a count of what its key has signed.
struct Boot {
    run: GenesisRun,
    record: BootRecord,
    key: SigningKey,
    signed: Cell<usize>,
}

impl Boot {
    fn new(world: &World, node: usize) -> Self {
        let (record, key) = world.boot(node, &world.birth_scope(), START);
        let run = GenesisRun::new(world.manifest.clone(), record.clone());
        Self { run, record, key, signed: Cell::new(0) }
    }

    fn id(&self) -> BootId {
        self.record.id()
    }

    fn name(&self) -> &NodeName {
        &self.record.node
    }

    fn take(
        &mut self,
        from: &NodeName,
        boot: BootId,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<Vec<Outgoing>, BirthRefused> {
        let (key, signed) = (&self.key, &self.signed);
        let sign = |message: &[u8]| {
            assert!(message.starts_with(b"casemate/genesis-echo/v1\0"));
            signed.set(signed.get() + 1);
            Some(key.sign(message).to_bytes())
        };
        self.run.receive(from, boot, bytes, now, &sign)
    }

    fn advance(&mut self, now: UnixMillis) -> Result<Vec<Outgoing>, BirthRefused> {
        let (key, signed) = (&self.key, &self.signed);
        let sign = |message: &[u8]| {
            signed.set(signed.get() + 1);
            Some(key.sign(message).to_bytes())
        };
        self.run.advance(now, &sign)
    }
}

/// Boots with channels between them. A host may run several boots of one node.
struct Birth {
    boots: Vec<Boot>,
    wires: VecDeque<(usize, usize, Vec<u8>)>,
    linked: Vec<(usize, usize)>,
    now: UnixMillis,
    refused: Vec<BirthRefused>,
}

impl Birth {
    fn new(boots: Vec<Boot>) -> Self {
        let (wires, linked, refused) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { boots, wires, linked, now: START, refused }
    }

    fn link(&mut self, a: usize, b: usize) {
        self.linked.push((a, b));
        for (a, b) in [(a, b), (b, a)] {
            let (name, id) = (self.boots[b].name().clone(), self.boots[b].id());
            for bytes in self.boots[a].run.connected(&name, id) {
                self.wires.push_back((a, b, bytes));
            }
        }
    }

    fn unlink(&mut self, a: usize, b: usize) {
        self.linked.retain(|link| *link != (a, b) && *link != (b, a));
        self.wires.retain(|(f, t, _)| (*f, *t) != (a, b) && (*f, *t) != (b, a));
    }

    fn send(&mut self, from: usize, out: Vec<Outgoing>) {
        for (to, bytes) in out {
            // as the runtime does: the newest link to that node
            let target = self.linked.iter().rev().find_map(|(a, b)| {
                let other = if *a == from {
                    *b
                } else if *b == from {
                    *a
                } else {
                    return None;
                };
                (*self.boots[other].name() == to).then_some(other)
            });
            if let Some(target) = target {
                self.wires.push_back((from, target, bytes));
            }
        }
    }

    fn deliver_one(&mut self) -> bool {
        let Some((from, to, bytes)) = self.wires.pop_front() else { return false };
        let (name, id) = (self.boots[from].name().clone(), self.boots[from].id());
        match self.boots[to].take(&name, id, &bytes, self.now) {
            Ok(out) => self.send(to, out),
            Err(error) => self.refused.push(error),
        }
        true
    }

    fn tick(&mut self) {
        for at in 0..self.boots.len() {
            match self.boots[at].advance(self.now) {
                Ok(out) => self.send(at, out),
                Err(error) => self.refused.push(error),
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..3 {
            while self.deliver_one() {}
            self.tick();
        }
        while self.deliver_one() {}
    }

    fn born(&self) -> Vec<Option<GenesisRecord>> {
        self.boots.iter().map(|b| b.run.genesis().cloned()).collect()
    }

    fn full(n: usize, t: u64) -> (World, Self) {
        let world = World::new(n, t);
        let mut birth = Self::new((0..n).map(|i| Boot::new(&world, i)).collect());
        for a in 0..n {
            for b in a + 1..n {
                birth.link(a, b);
            }
        }
        (world, birth)
    }
}

#[test]
fn i7_all_boots_echo_one_genesis_and_hold_the_same() {
    for n in [3, 5] {
        let (_, mut birth) = Birth::full(n, 2);
        birth.settle();
        let born = birth.born();
        let first = born[0].clone().unwrap();
        assert!(born.iter().all(|record| record.as_ref() == Some(&first)));
        assert!(birth.boots.iter().all(|boot| boot.signed.get() == 1));
        assert_eq!(first.boots.len(), n);
        let echoes = birth.boots[n - 1].run.certificate().unwrap();
        assert!(verify_echoes(&first, &echoes));
        assert!(!verify_echoes(&first, &echoes[1..]));
        assert_eq!(birth.refused, vec![]);
    }
}

#[test]
fn a_genesis_does_not_stand_while_one_boot_has_not_echoed() {
    let (_, mut birth) = Birth::full(3, 2);
    birth.unlink(0, 2);
    birth.unlink(1, 2);
    birth.settle();
    assert!(birth.born().iter().all(Option::is_none));
    assert!(birth.boots.iter().all(|boot| boot.signed.get() == 0));
    birth.link(0, 2);
    birth.settle();
    // the third has not seen the second's own channel: it does not echo what it cannot know
    assert!(birth.born().iter().all(Option::is_none));
    assert_eq!(birth.boots[2].signed.get(), 0);
    birth.link(1, 2);
    birth.settle();
    assert!(birth.born().iter().all(Option::is_some));
}

#[test]
fn what_a_broken_channel_lost_is_sent_again_by_the_next() {
    for lost in 0..24 {
        let (_, mut birth) = Birth::full(3, 2);
        for _ in 0..lost {
            birth.deliver_one();
            birth.tick();
        }
        birth.wires.clear();
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            birth.unlink(a, b);
            birth.link(a, b);
        }
        birth.settle();
        assert!(birth.born().iter().all(Option::is_some), "after {lost} messages");
        assert!(birth.boots.iter().all(|boot| boot.signed.get() == 1));
    }
}

#[test]
fn a_boot_is_heard_again_once_a_twin_of_it_has_come_and_gone() {
    let (world, mut birth) = Birth::full(3, 2);
    let twin = birth.boots.len();
    birth.boots.push(Boot::new(&world, 2));
    // the second has heard of the twin last, the first has not heard of it at all
    birth.link(1, twin);
    birth.settle();
    assert!(birth.born().iter().all(Option::is_none));
    assert_eq!(birth.boots[1].signed.get(), 0);
    birth.unlink(1, twin);
    birth.settle();
    assert!(birth.born().iter().all(Option::is_none), "the older channel's boot is not heard");
    let (name, gone) = (world.names[2].clone(), birth.boots[twin].id());
    assert!(birth.boots[1].run.disconnected(&name, gone));
    assert!(!birth.boots[0].run.disconnected(&name, gone));
    // the older channel is dialled anew, and what was proposed before is looked at again
    birth.unlink(1, 2);
    birth.link(1, 2);
    birth.settle();
    assert!(birth.born()[..3].iter().all(Option::is_some));
    assert!(birth.boots[..3].iter().all(|boot| boot.signed.get() == 1));
    assert_eq!(birth.boots[twin].signed.get(), 0);
}

#[test]
fn a_boot_that_lacks_an_echo_gets_it_from_another() {
    let (_, mut birth) = Birth::full(3, 2);
    // the channel between the second and the third breaks once both have each other's record
    while birth.boots.iter().any(|boot| boot.run.echoed().is_none()) {
        if !birth.deliver_one() {
            birth.tick();
        }
        if birth.boots[1].run.echoed().is_some() || birth.boots[2].run.echoed().is_some() {
            birth.unlink(1, 2);
        }
    }
    birth.unlink(1, 2);
    birth.settle();
    assert!(birth.born().iter().all(Option::is_some));
}

#[test]
fn i7_a_second_genesis_is_never_echoed() {
    let (world, mut birth) = Birth::full(3, 2);
    birth.settle();
    let first = birth.boots[1].run.echoed().unwrap();
    let mut second = birth.boots[0].run.genesis().cloned().unwrap();
    second.at = second.at.saturating_add(Millis(1));
    let offered = second.id();
    // the proposer's own message with another genesis in it: [1, [bytes]]
    let mut bytes = vec![0x82, 0x01, 0x81];
    bytes.extend(cbor::encode(&minicbor::bytes::ByteVec::from(cbor::encode(&second))));
    let (name, id) = (world.names[0].clone(), birth.boots[0].id());
    let now = birth.now;
    let result = birth.boots[1].take(&name, id, &bytes, now);
    assert_eq!(result, Err(BirthRefused::Second { offered, echoed: first }));
    assert_eq!(birth.boots[1].signed.get(), 1);
    assert_eq!(birth.boots[1].run.echoed(), Some(first));
}

/// What the first node would send to propose this.
fn proposal(record: &GenesisRecord) -> Vec<u8> {
    let mut bytes = vec![0x82, 0x01, 0x81];
    bytes.extend(cbor::encode(&minicbor::bytes::ByteVec::from(cbor::encode(record))));
    bytes
}

/// A second boot that has all records and no proposal, and what would be proposed.
fn about_to_echo() -> (World, Birth, GenesisRecord) {
    let (world, mut birth) = Birth::full(3, 2);
    // records only: nobody advances, and a proposal that one receipt leads to is not delivered
    let records: Vec<(usize, usize, Vec<u8>)> = birth.wires.drain(..).collect();
    for (from, to, bytes) in records {
        if to != 0 {
            let (name, id) = (birth.boots[from].name().clone(), birth.boots[from].id());
            let now = birth.now;
            birth.boots[to].take(&name, id, &bytes, now).unwrap();
        }
    }
    let boots = birth.boots.iter().map(|boot| boot.record.clone()).collect();
    let record = GenesisRecord { manifest: world.manifest.clone(), boots, at: START };
    (world, birth, record)
}

fn offer(birth: &mut Birth, record: &GenesisRecord) -> Result<usize, BirthRefused> {
    let (name, id) = (birth.boots[0].name().clone(), birth.boots[0].id());
    let now = birth.now;
    birth.boots[1].take(&name, id, &proposal(record), now)?;
    Ok(birth.boots[1].signed.get())
}

#[test]
fn a_proposal_of_the_records_that_came_is_echoed() {
    let (_, mut birth, record) = about_to_echo();
    assert_eq!(offer(&mut birth, &record), Ok(1));
}

#[test]
fn a_proposal_with_another_record_of_this_boot_is_refused() {
    let (world, mut birth, mut record) = about_to_echo();
    record.boots[1] = world.boot(1, &world.birth_scope(), START).0;
    assert_eq!(offer(&mut birth, &record), Err(BirthRefused::NotOwnRecord));
    record.boots[1] = birth.boots[1].record.clone();
    record.boots[1].evidence.push(0);
    assert_eq!(offer(&mut birth, &record), Err(BirthRefused::NotOwnRecord));
    assert_eq!(birth.boots[1].signed.get(), 0);
}

#[test]
fn i7_a_proposal_with_a_boot_that_the_peers_channel_did_not_attest_is_refused() {
    let (world, mut birth, mut record) = about_to_echo();
    record.boots[2] = world.boot(2, &world.birth_scope(), START).0;
    let node = world.names[2].clone();
    assert_eq!(offer(&mut birth, &record), Err(BirthRefused::Unattested { node }));
    assert_eq!(birth.boots[1].signed.get(), 0);
}

#[test]
fn a_proposal_of_another_manifest_is_refused() {
    let (_, mut birth, mut record) = about_to_echo();
    record.manifest.threshold = 3;
    assert_eq!(offer(&mut birth, &record), Err(BirthRefused::OtherManifest));
}

#[test]
fn a_proposal_more_than_delta_ahead_or_long_past_is_refused() {
    let (world, mut birth, mut record) = about_to_echo();
    let delta = world.manifest.limits.delta;
    record.at = START.saturating_add(delta).saturating_add(Millis(1));
    assert!(matches!(offer(&mut birth, &record), Err(BirthRefused::Untimely { .. })));
    record.at = START;
    birth.now = START.saturating_add(Millis(8 * 60_000 + 1));
    assert!(matches!(offer(&mut birth, &record), Err(BirthRefused::Untimely { .. })));
    birth.now = START;
    record.at = START.saturating_add(delta);
    assert_eq!(offer(&mut birth, &record), Ok(1));
}

#[test]
fn a_proposal_with_evidence_of_another_cluster_is_refused() {
    let (world, mut birth, mut record) = about_to_echo();
    let (foreign, _) = world.boot(2, &casemate_proto::Hash32::new([7; 32]), START);
    let (name, id) = (foreign.node.clone(), foreign.id());
    birth.boots[1].run.connected(&name, id);
    let mut bytes = vec![0x82, 0x00, 0x81];
    bytes.extend(cbor::encode(&foreign));
    let now = birth.now;
    birth.boots[1].take(&name, id, &bytes, now).unwrap();
    record.boots[2] = foreign;
    assert!(matches!(offer(&mut birth, &record), Err(BirthRefused::Genesis { .. })));
    assert_eq!(birth.boots[1].signed.get(), 0);
}

#[test]
fn a_proposal_by_another_node_than_the_first_is_refused() {
    let (_, mut birth, record) = about_to_echo();
    let (name, id) = (birth.boots[2].name().clone(), birth.boots[2].id());
    let now = birth.now;
    let result = birth.boots[1].take(&name, id, &proposal(&record), now);
    assert_eq!(result, Err(BirthRefused::NotTheProposer));
}

#[test]
fn a_record_of_another_boot_than_its_channels_is_refused() {
    let (world, mut birth) = Birth::full(3, 2);
    let (other, _) = world.boot(0, &world.birth_scope(), START);
    let mut bytes = vec![0x82, 0x00, 0x81];
    bytes.extend(cbor::encode(&other));
    let (name, id) = (world.names[0].clone(), birth.boots[0].id());
    let now = birth.now;
    assert_eq!(birth.boots[1].take(&name, id, &bytes, now), Err(BirthRefused::ForeignRecord));
    // and a message of a boot with no channel is not looked at
    assert!(matches!(
        birth.boots[1].take(&name, other.id(), &bytes, now),
        Err(BirthRefused::NoChannel { .. })
    ));
}

#[test]
fn an_echo_with_anothers_signature_is_refused() {
    let (_, mut birth, record) = about_to_echo();
    offer(&mut birth, &record).unwrap();
    // the third's echo, signed by the first's key
    let id = record.id();
    let hash = casemate_proto::hash::tagged_hash("casemate/genesis-echo/v1", &[id.as_bytes()]);
    let message = [b"casemate/genesis-echo/v1\0".as_slice(), hash.as_bytes()].concat();
    let signature = birth.boots[0].key.sign(&message).to_bytes();
    let echo =
        casemate_replication::genesis::Echo { node: birth.boots[2].name().clone(), signature };
    let mut bytes = vec![0x82, 0x02, 0x82];
    bytes.extend(cbor::encode(&id));
    bytes.extend(cbor::encode(&vec![echo]));
    let (name, boot) = (birth.boots[0].name().clone(), birth.boots[0].id());
    let now = birth.now;
    assert!(matches!(
        birth.boots[1].take(&name, boot, &bytes, now),
        Err(BirthRefused::BadEcho { .. })
    ));
    assert_eq!(birth.boots[1].run.genesis(), None);
}

#[test]
fn i7_two_boots_of_one_node_never_end_in_one_cluster_each() {
    // a host runs the third node twice and shows each peer another of the two, in every order
    for order in 0..6 {
        let world = World::new(3, 2);
        let boots = [0, 1, 2, 2].iter().map(|node| Boot::new(&world, *node)).collect();
        let mut birth = Birth::new(boots);
        let mut links = vec![(0, 1), (0, 2), (1, 3)];
        if order & 1 == 1 {
            links.push((0, 3));
        }
        if order & 2 == 2 {
            links.push((1, 2));
        }
        if order >= 4 {
            links.reverse();
        }
        for (a, b) in links {
            birth.link(a, b);
        }
        birth.settle();
        let born: Vec<GenesisRecord> = birth.born().into_iter().flatten().collect();
        let third: Vec<usize> =
            [2, 3].into_iter().filter(|i| birth.boots[*i].run.genesis().is_some()).collect();
        assert!(third.len() <= 1, "both boots of one node were born");
        assert!(born.windows(2).all(|pair| pair[0] == pair[1]), "two geneses stand");
        assert!(birth.boots.iter().all(|boot| boot.signed.get() <= 1));
    }
}

#[test]
fn a_boot_whose_peer_was_replaced_after_its_echo_says_so_and_echoes_no_other() {
    let (world, mut birth) = Birth::full(3, 2);
    while birth.boots[0].run.echoed().is_none() {
        if !birth.deliver_one() {
            birth.tick();
        }
    }
    assert_eq!(birth.boots[0].run.hopeless(birth.now), None);
    birth.wires.clear();
    let again = Boot::new(&world, 2);
    let (name, id) = (again.name().clone(), again.id());
    birth.boots[0].run.connected(&name, id);
    let later = birth.now.saturating_add(Millis(15_001));
    assert_eq!(birth.boots[0].run.hopeless(later), Some(Hopeless::Replaced { node: name }));
    assert_eq!(birth.boots[0].signed.get(), 1);
    birth.tick();
    assert_eq!(birth.boots[0].signed.get(), 1);
}

#[test]
fn a_boot_that_waits_for_echoes_in_vain_says_so() {
    let (_, mut birth, record) = about_to_echo();
    offer(&mut birth, &record).unwrap();
    let later = birth.now.saturating_add(Millis(600_001));
    assert_eq!(birth.boots[1].run.hopeless(later), Some(Hopeless::Stalled { have: 1, need: 3 }));
}

#[test]
fn renewed_evidence_takes_the_place_of_the_old() {
    let (world, mut birth) = Birth::full(3, 2);
    birth.unlink(0, 2);
    while birth.deliver_one() {}
    let later = START.saturating_add(Millis(11 * 60_000));
    birth.now = later;
    for at in 0..3 {
        let own = birth.boots[at].record.clone();
        let user_data = own.user_data(&world.birth_scope());
        let evidence =
            world.nsms[at].attest(Some(user_data.as_bytes()), None, None, later.0).unwrap();
        let record = BootRecord { evidence, ..own };
        birth.boots[at].record = record.clone();
        let out = birth.boots[at].run.renew(record);
        birth.send(at, out);
    }
    birth.settle();
    birth.link(0, 2);
    birth.settle();
    assert!(birth.born().iter().all(Option::is_some), "{:?}", birth.refused);
    // another boot's record is no renewal
    let stranger = world.boot(0, &world.birth_scope(), START).0;
    assert_eq!(birth.boots[0].run.renew(stranger), vec![]);
}

#[test]
fn hostile_bytes_at_a_birth_never_panic() {
    let world = World::new(3, 2);
    let boot = RefCell::new(Boot::new(&world, 1));
    let id = BootId::new([3; 32]);
    boot.borrow_mut().run.connected(&world.names[0], id);
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    TestRunner::default()
        .run(&bytes, |bytes| {
            let _ = boot.borrow_mut().take(&world.names[0], id, &bytes, START);
            prop_assert_eq!(boot.borrow().signed.get(), 0);
            Ok(())
        })
        .unwrap();
}

#[test]
fn i7_a_flipped_bit_at_a_birth_never_makes_two_geneses() {
    let config = Config { cases: 24, ..Config::default() };
    let flip = (any::<usize>(), 0_u8..8, 0_usize..24);
    TestRunner::new(config)
        .run(&flip, |(at, bit, which)| {
            let (_, mut birth) = Birth::full(3, 2);
            for step in 0..200 {
                if step == which
                    && let Some((_, _, bytes)) = birth.wires.front_mut()
                {
                    let at = at % bytes.len();
                    bytes[at] ^= 1 << bit;
                }
                if !birth.deliver_one() {
                    birth.tick();
                }
            }
            let born: Vec<GenesisRecord> = birth.born().into_iter().flatten().collect();
            prop_assert!(born.windows(2).all(|pair| pair[0] == pair[1]));
            prop_assert!(birth.boots.iter().all(|boot| boot.signed.get() <= 1));
            Ok(())
        })
        .unwrap();
}
