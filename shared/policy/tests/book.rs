//! The book of charges against a plain list, and its snapshots.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    unreachable_pub
)]

mod common;

use casemate_policy::{
    AssetKey, BookError, Charge, ChargeBook, ChargeKind, Decision, Scope, Slack, model::Per,
};
use casemate_proto::{Amount, ChainId, DerivationPath, KeyName, Millis, PrincipalId, UnixMillis};
use common::*;
use proptest::prelude::*;

const CAP: usize = 1 << 20;

fn asset(number: u8) -> Option<AssetKey> {
    let chain = ChainId::eip155(1);
    match number {
        0 => None,
        1 => Some(AssetKey { chain, token: None }),
        n => Some(AssetKey { chain, token: Some(casemate_tx::EvmAddress([n; 20])) }),
    }
}

fn charge(at: u64, key: u8, path: u8, who: u8, of: u8, fee: bool, amount: u64) -> Charge {
    Charge {
        at: UnixMillis(at),
        key: KeyName::new(&format!("k{key}")).unwrap(),
        path: DerivationPath::new(&[u32::from(path)]).unwrap(),
        principal: PrincipalId::new(&format!("p{who}")).unwrap(),
        asset: asset(of),
        kind: if fee { ChargeKind::Fee } else { ChargeKind::Amount },
        amount: Amount::from(amount),
    }
}

fn charges() -> impl Strategy<Value = Vec<Charge>> {
    let one = (0_u64..8, 0_u8..2, 0_u8..2, 0_u8..2, 0_u8..3, any::<bool>(), 0_u64..50);
    prop::collection::vec(one, 0..60).prop_map(|steps| {
        let mut at = 1_000_000;
        let made = steps.into_iter().map(|(wait, key, path, who, of, fee, amount)| {
            // a coarse grid, so that charges fall on the ends of windows
            at += if wait < 4 { 0 } else { wait * 500 };
            charge(at, key, path, who, of, fee, amount)
        });
        made.collect()
    })
}

fn book_of(charges: &[Charge], slack: Slack) -> ChargeBook {
    let mut book = ChargeBook::new(slack);
    for charge in charges {
        book.record(std::slice::from_ref(charge)).unwrap();
    }
    book
}

proptest! {
    /// A window is the sum of what a plain list holds in (now − window, now].
    #[test]
    fn windows_are_sums_of_a_plain_list(
        charges in charges(),
        window in (1_u64..120).prop_map(|n| n * 500),
        after in (0_u64..40).prop_map(|n| n * 500),
        per in prop_oneof![Just(Per::Group), Just(Per::Key), Just(Per::Path), Just(Per::Principal)],
        pairs in prop::collection::btree_set((0_u8..2, 0_u8..3), 1..4),
    ) {
        let book = book_of(&charges, Slack::ZERO);
        let now = UnixMillis(book.latest().0 + after);
        let (key, path, who) = (KeyName::new("k0").unwrap(), DerivationPath::new(&[1]).unwrap(), PrincipalId::new("p1").unwrap());
        let pairs: Vec<_> =
            pairs.iter().map(|(k, a)| (KeyName::new(&format!("k{k}")).unwrap(), asset(*a))).collect();
        for kind in [ChargeKind::Amount, ChargeKind::Fee] {
            let scope = Scope { kind, per, key: &key, path: &path, principal: &who, pairs: &pairs };
            let counted: Vec<_> = charges.iter().filter(|c| {
                c.kind == kind
                    && c.at.0 + window > now.0
                    && pairs.contains(&(c.key.clone(), c.asset.clone()))
                    && match per {
                        Per::Group => true,
                        Per::Key => c.key == key,
                        Per::Path => c.key == key && c.path == path,
                        Per::Principal => c.principal == who,
                    }
            }).collect();
            let used = book.used(&scope, Millis(window), now);
            let sum: u128 = counted.iter().map(|c| c.amount.to_u128().unwrap()).sum();
            prop_assert_eq!(used.count, u64::try_from(counted.len()).unwrap());
            prop_assert_eq!(used.sum, Some(Amount::from_u128(sum)));
        }
    }

    /// Over any interval of a window's length, no more is signed than the limit says, whatever is
    /// asked when: checked on the list of what was signed, not on the book.
    #[test]
    fn i5_no_interval_of_a_windows_length_holds_more_than_its_limit(
        asks in prop::collection::vec((0_u64..4_000_000, 1_u64..120), 1..120),
        sum in 50_u64..400,
        count in 1_u64..9,
        slack in prop_oneof![Just(0_u64), 1_u64..600_000],
    ) {
        let text = X402
            .replace("sum = \"200\", window = \"24h\"", &format!("sum = \"0.{sum:06}\", window = \"90m\""))
            .replace("count = 120", &format!("count = {count}"))
            .replace("hours =", "# hours =");
        let mut world = World::new(&text, "agent-7", "agent:research");
        world.slack = Slack::new(Millis(slack), Millis(0));
        world.book = ChargeBook::new(world.slack);
        let mut signed: Vec<(u64, u64)> = Vec::new();
        for (wait, units) in asks {
            world.now = UnixMillis(world.now.0 + wait / 3);
            if let Decision::Allow(allowance) = world.ask(&x402(units, world.now)) {
                world.book.record(allowance.charges()).unwrap();
                signed.push((world.now.0, units));
            }
        }
        for (start, _) in &signed {
            for (window, of_sum) in [(90 * 60_000 + slack, true), (3_600_000 + slack, false)] {
                let within = signed.iter().filter(|(at, _)| at >= start && *at < start + window);
                if of_sum {
                    prop_assert!(within.map(|(_, units)| units).sum::<u64>() <= sum);
                } else {
                    prop_assert!(u64::try_from(within.count()).unwrap() <= count);
                }
            }
        }
    }

    #[test]
    fn snapshots_round_trip_to_the_same_book_and_bytes(charges in charges(), prune in 0_u64..4_000_000_000) {
        let slack = Slack::new(Millis(5_000), Millis(100));
        let mut book = book_of(&charges, slack);
        book.prune(UnixMillis(1_000_000 + prune));
        let bytes = book.to_snapshot();
        let again = ChargeBook::from_snapshot(&bytes, CAP).unwrap();
        prop_assert_eq!(again.to_snapshot(), bytes);
        prop_assert_eq!(again.root(), book.root());
        prop_assert_eq!(again.charges().collect::<Vec<_>>(), book.charges().collect::<Vec<_>>());
        // and goes on as the first one does
        let next = charge(again.latest().0 + 5, 1, 1, 1, 2, false, 7);
        let (mut a, mut b) = (book, again);
        a.record(std::slice::from_ref(&next)).unwrap();
        b.record(std::slice::from_ref(&next)).unwrap();
        prop_assert_eq!(a.to_snapshot(), b.to_snapshot());
    }

    #[test]
    fn damaged_snapshots_are_refused_or_the_same(charges in charges(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let bytes = book_of(&charges, Slack::ZERO).to_snapshot();
        let mut damaged = bytes.clone();
        let at = at.index(bytes.len());
        damaged[at] ^= 1 << bit;
        // what still parses is another book, in its own canonical form
        if let Ok(book) = ChargeBook::from_snapshot(&damaged, CAP) {
            prop_assert_eq!(book.to_snapshot(), damaged);
        }
    }
}

#[test]
fn charges_are_kept_for_the_longest_window_and_its_slack_and_no_longer() {
    let slack = Slack::new(Millis(5_000), Millis(100));
    let mut book = ChargeBook::new(slack);
    book.record(&[charge(1_000_000, 0, 0, 0, 1, false, 1)]).unwrap();
    let kept_until = 1_000_000 + 31 * 86_400_000 + 5_200;
    book.prune(UnixMillis(kept_until - 1));
    assert_eq!(book.len(), 1);
    book.prune(UnixMillis(kept_until));
    assert!(book.is_empty());
}

#[test]
fn time_does_not_go_back_and_nothing_of_a_refused_record_stays() {
    let mut book = ChargeBook::new(Slack::ZERO);
    book.record(&[charge(1_000, 0, 0, 0, 1, false, 1)]).unwrap();
    let before = book.to_snapshot();
    let batch = [charge(2_000, 0, 0, 0, 1, false, 1), charge(1_999, 0, 0, 0, 1, true, 1)];
    assert_eq!(
        book.record(&batch),
        Err(BookError::TimeWentBack { at: UnixMillis(1_999), latest: UnixMillis(2_000) })
    );
    assert_eq!(book.to_snapshot(), before);
}

#[test]
fn i12_book_holds_no_more_than_its_cap_until_old_charges_leave() {
    let mut book = ChargeBook::with_cap(Slack::ZERO, 2);
    let at = |at| charge(at, 0, 0, 0, 1, false, 1);
    book.record(&[at(1_000), at(2_000)]).unwrap();
    assert_eq!(book.record(&[at(3_000)]), Err(BookError::Full { cap: 2 }));
    assert!(!book.has_room(1, UnixMillis(3_000)));
    book.record(&[at(1_000 + 31 * 86_400_000)]).unwrap();
    assert_eq!(book.len(), 2);
}

#[test]
fn roots_differ_where_what_was_charged_differs() {
    let a = book_of(&[charge(1, 0, 0, 0, 1, false, 1)], Slack::ZERO);
    let b = book_of(&[charge(1, 0, 0, 0, 1, false, 2)], Slack::ZERO);
    let c = book_of(&[charge(1, 0, 0, 0, 1, true, 1)], Slack::ZERO);
    assert_ne!(a.root(), b.root());
    assert_ne!(a.root(), c.root());
    // one batch or two make no difference
    let batch = [charge(1, 0, 0, 0, 1, false, 1), charge(1, 0, 0, 0, 1, true, 1)];
    let mut together = ChargeBook::new(Slack::ZERO);
    together.record(&batch).unwrap();
    assert_eq!(together.root(), book_of(&batch, Slack::ZERO).root());
}

#[test]
fn a_renamed_asset_and_a_renamed_grant_keep_their_history() {
    let mut world = World::new(X402, "agent-7", "agent:research");
    for _ in 0..40 {
        world.sign(&x402(5_000_000, world.now));
    }
    world.policy =
        policy(&X402.replace("usdc_base", "dollar").replace("x402-research-agent", "g2"));
    assert_eq!(world.denied(&x402(1, world.now)).remaining, Some(Amount::ZERO));
}
