//! What a peer can send into threshold runs: the envelope's decoder, then one fresh run of each
//! kind that any first message may reach.

use casemate_proto::{BootId, GenesisId, Hash32, Incarnation, KeyName, UnixMillis, cbor};
use casemate_threshold::{
    Bip340KeygenRun, EcdsaKeygenRun, Ed25519KeygenRun, KeyEpoch, KeyRef, Participant, Participants,
    PartyId, Purpose, Run, RunContext, RunMessage, RunRegistry, RunSpec, TripleRun,
    message::VERSION, peek_run,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::Target;

/// The target of this module.
pub const TARGETS: &[Target] = &[Target { name: "threshold_message", run: run_message }];

const NOW: UnixMillis = UnixMillis(1);

/// Feeds the bytes to the envelope's decoder; then, as an envelope where they are one and as the
/// chunks of a well-addressed envelope in any case, to a fresh key generation of each scheme and a
/// fresh triple generation.
pub fn run_message(data: &[u8]) {
    let _ = peek_run(data);
    let Some((&kind, rest)) = data.split_first() else { return };
    let key = KeyName::new("k").map(|name| KeyRef { name, epoch: KeyEpoch(0) });
    let Ok(key) = key else { return };
    let purpose = match kind % 4 {
        0 => Purpose::EcdsaKeygen { key },
        1 => Purpose::Ed25519Keygen { key },
        2 => Purpose::Triples,
        _ => Purpose::Bip340Keygen { key },
    };
    let Some((context, me, from)) = two_parties(purpose) else { return };
    let Ok(claim) = RunRegistry::new(me.party, me.boot).claim(context.clone(), NOW) else { return };
    let addressed = address(&context, me.party, from.party, rest);
    match context.spec().purpose {
        Purpose::EcdsaKeygen { .. } => {
            feed(EcdsaKeygenRun::generate(claim, [1; 32]).ok(), from.party, data, &addressed);
        }
        Purpose::Ed25519Keygen { .. } => {
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            let run = Ed25519KeygenRun::generate(claim, [1; 32], &mut rng).ok();
            feed(run, from.party, data, &addressed);
        }
        Purpose::Bip340Keygen { .. } => {
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            let run = Bip340KeygenRun::generate(claim, [1; 32], &mut rng).ok();
            feed(run, from.party, data, &addressed);
        }
        _ => feed(TripleRun::new(claim).ok(), from.party, data, &addressed),
    }
}

fn two_parties(purpose: Purpose) -> Option<(RunContext, Participant, Participant)> {
    let me = Participant { party: PartyId::new(0).ok()?, boot: BootId::new([0; 32]) };
    let other = Participant { party: PartyId::new(1).ok()?, boot: BootId::new([1; 32]) };
    let context = RunContext::new(RunSpec {
        genesis: GenesisId::new([0; 32]),
        incarnation: Incarnation(0),
        purpose,
        participants: Participants::new(vec![me, other]).ok()?,
        threshold: 2,
        log_index: 0,
        entry: Hash32::new([0; 32]),
        attempt: 0,
    })
    .ok()?;
    Some((context, me, other))
}

/// An envelope that passes every check of addresses, so that its chunks are reached.
fn address(context: &RunContext, to: PartyId, from: PartyId, data: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    let mut rest = data;
    while let [lane, length_high, length_low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        let (bytes, next) = tail.split_at(length.min(tail.len()));
        chunks.push(casemate_threshold::message::Chunk {
            lane: lane & 0x0f,
            private: lane & 0x80 != 0,
            bytes: bytes.to_vec(),
        });
        rest = next;
    }
    let run = context.id();
    cbor::encode(&RunMessage { version: VERSION, run, from, to, sequence: 0, chunks })
}

fn feed<R: Run>(run: Option<R>, from: PartyId, raw: &[u8], addressed: &[u8]) {
    let Some(mut run) = run else { return };
    let _ = run.start(NOW);
    let _ = run.receive(from, raw, NOW);
    let _ = run.receive(from, addressed, NOW);
    assert!(run.expire(UnixMillis(2)), "a run ends at its deadline");
}
