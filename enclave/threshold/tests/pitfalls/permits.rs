//! Permits: without one that fits nothing of a signature leaves.

use casemate_proto::{Hash32, UnixMillis, cbor};
use casemate_threshold::{Authorised, Misuse, Run, RunError, RunMessage, ed25519_subject};

use crate::common::{
    DEADLINE, NOW, Net, Packet, World, participants, party, permit_ecdsa, permit_frost,
};

#[test]
fn i4_no_share_of_an_ecdsa_signature_leaves_before_the_permit() {
    let mut world = World::new(3, 2, 12);
    let keys = world.ecdsa_live("hot");
    let digest = [4; 32];
    let runs = world.ecdsa_sign_runs(&keys, &participants(&[0, 1]), "m", digest);
    let mut net = Net::new(runs, 12);
    net.start();
    let sign_lane = |packet: &Packet| {
        let message: RunMessage = cbor::decode(&packet.bytes, 1 << 20).unwrap();
        message.chunks.iter().any(|chunk| chunk.lane == 1)
    };
    net.pump(|_, packet| {
        assert!(!sign_lane(&packet));
        vec![packet]
    });
    permit_ecdsa(&mut net, digest);
    assert!(net.queue.iter().all(sign_lane) && net.queue.len() == 2);
}

#[test]
fn i4_no_share_of_an_ed25519_signature_leaves_before_the_permit() {
    let mut world = World::new(3, 2, 13);
    let keys = world.ed25519_live("cold");
    let runs = world.frost_sign_runs(&keys, &participants(&[0, 1]), "m", b"x");
    let mut net = Net::new(runs, 13);
    net.start();
    let share_lane = |packet: &Packet| {
        let message: RunMessage = cbor::decode(&packet.bytes, 1 << 20).unwrap();
        message.chunks.iter().any(|chunk| chunk.lane == 1)
    };
    net.pump(|_, packet| {
        assert!(!share_lane(&packet));
        vec![packet]
    });
    permit_frost(&mut net, b"x");
    assert!(net.queue.iter().all(share_lane) && net.queue.len() == 2);
}

#[test]
fn i4_a_permit_serves_its_own_run_digest_and_time_once() {
    let mut world = World::new(3, 2, 14);
    let keys = world.ecdsa_live("hot");
    let digest = [4; 32];
    let mut runs = world.ecdsa_sign_runs(&keys, &participants(&[0, 1]), "m", digest);
    let mut run = runs.remove(0);
    let (id, other) = (run.context().id(), runs[0].context().id());
    assert_eq!(id, other);
    let permit = Authorised::dangerous_assert_committed_and_allowed;
    let stranger = casemate_threshold::RunId(Hash32::new([0; 32]));

    let wrong_run = run.authorise(permit(stranger, Hash32::new(digest), DEADLINE), NOW);
    assert!(matches!(wrong_run, Err(RunError::Misuse(Misuse::WrongPermit { .. }))));
    let wrong_digest = run.authorise(permit(id, Hash32::new([5; 32]), DEADLINE), NOW);
    assert!(matches!(wrong_digest, Err(RunError::Misuse(Misuse::WrongPermit { .. }))));
    let ended = run.authorise(permit(id, Hash32::new(digest), UnixMillis(NOW.0 - 1)), NOW);
    assert!(matches!(ended, Err(RunError::Misuse(Misuse::PermitExpired { .. }))));
    assert!(run.authorise(permit(id, Hash32::new(digest), DEADLINE), NOW).is_ok());
    let again = run.authorise(permit(id, Hash32::new(digest), DEADLINE), NOW);
    assert!(matches!(again, Err(RunError::Misuse(Misuse::PermitRepeated(_)))));
}

#[test]
fn i4_a_share_that_waits_for_its_peers_is_not_released_after_the_permit_ends() {
    let mut world = World::new(3, 2, 14);
    let digest = [4; 32];
    let ecdsa = world.ecdsa_live("hot");
    let ed25519 = world.ed25519_live("cold");
    let set = participants(&[0, 1]);
    let ends = UnixMillis(NOW.0 + 5);
    assert!(ends < DEADLINE);
    // the permit is there before the peers' first messages, so that nothing can be released yet
    let mut net = Net::new(world.ecdsa_sign_runs(&ecdsa, &set, "m", digest), 14);
    net.start();
    let packet = net.queue.iter().find(|p| p.to == party(0)).unwrap().clone();
    let run = net.runs.get_mut(&party(0)).unwrap();
    let permit = Authorised::dangerous_assert_committed_and_allowed(
        run.context().id(),
        Hash32::new(digest),
        ends,
    );
    assert!(run.authorise(permit, NOW).is_ok());
    let late = UnixMillis(ends.0 + 1);
    let error = run.receive(packet.from, &packet.bytes, late).unwrap_err();
    assert!(matches!(error, RunError::Expired { .. }), "{error:?}");

    let mut net = Net::new(world.frost_sign_runs(&ed25519, &set, "m", b"x"), 14);
    net.start();
    let packet = net.queue.iter().find(|p| p.to == party(0)).unwrap().clone();
    let run = net.runs.get_mut(&party(0)).unwrap();
    let permit = Authorised::dangerous_assert_committed_and_allowed(
        run.context().id(),
        ed25519_subject(b"x"),
        ends,
    );
    assert!(run.authorise(permit, NOW).is_ok());
    let error = run.receive(packet.from, &packet.bytes, late).unwrap_err();
    assert!(matches!(error, RunError::Expired { .. }), "{error:?}");
}
