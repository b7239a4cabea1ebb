//! The shape all runs share: messages in, messages out, and one way to end.
//!
//! A run never sends, waits or reads a clock. [`Run::start`] and [`Run::receive`] answer with a
//! [`Step`]: the messages to send now, and the output if this was the last step. After an error
//! that [burns](RunError::burns) the run its one-time values are gone; so they are after the
//! deadline, whoever asks.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use casemate_proto::{Hash32, UnixMillis, cbor, hash::tagged_hash};

use crate::{
    context::{Claim, RunContext, RunId},
    error::{Abort, Refusal, RunError},
    message::{Chunk, Inbox, LaneLimit, RunMessage, VERSION},
    party::PartyId,
};

/// A message to send to one party, sealed for it by the channel.
///
/// The bytes may hold a key share meant for the receiver: they go into its channel and nowhere
/// else.
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The receiver.
    pub to: PartyId,
    /// An encoded [`RunMessage`].
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("to", &self.to)
            .field("bytes", &"<redacted>")
            .field("len", &self.bytes.len())
            .finish()
    }
}

/// What a call into a run comes to.
#[must_use]
#[derive(Debug)]
pub struct Step<T> {
    /// Messages to send, whether or not the run has ended: the others still need them.
    pub send: Vec<Outgoing>,
    /// The output, once.
    pub done: Option<T>,
}

/// A protocol run of one party.
pub trait Run {
    /// What the run yields.
    type Output;

    /// What the run is for.
    fn context(&self) -> &RunContext;

    /// This party.
    fn me(&self) -> PartyId;

    /// The last moment at which the run goes on.
    fn deadline(&self) -> UnixMillis;

    /// Makes the first step, which needs no message. Calling it again does nothing more.
    ///
    /// # Errors
    /// If the deadline has passed, the run is burned, or the library refuses.
    fn start(&mut self, now: UnixMillis) -> Result<Step<Self::Output>, RunError>;

    /// Takes a message that the channel authenticated as `from`'s.
    ///
    /// # Errors
    /// [`RunError::Refused`] drops the message and lets the run go on; what
    /// [burns](RunError::burns) ends it.
    fn receive(
        &mut self,
        from: PartyId,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<Step<Self::Output>, RunError>;

    /// Burns the run if its deadline has passed; whether the run is over.
    fn expire(&mut self, now: UnixMillis) -> bool;

    /// Burns the run: the epoch changed, another entry took the index, a participant's boot was
    /// retired.
    fn burn(&mut self);
}

/// What a protocol sees of its run, and where it puts what it sends.
pub struct Io<'a> {
    me: PartyId,
    context: &'a RunContext,
    sequence: u32,
    transcript: &'a mut Transcript,
    out: Vec<(Option<PartyId>, Chunk)>,
}

impl Io<'_> {
    /// The same bytes for every other participant; they go into the transcript.
    pub(crate) fn broadcast(&mut self, lane: u8, bytes: Vec<u8>) {
        self.transcript.record(self.me, self.sequence, lane, &bytes);
        self.out.push((None, Chunk { lane, private: false, bytes }));
    }

    /// Bytes for one participant alone.
    pub(crate) fn send(&mut self, to: PartyId, lane: u8, bytes: Vec<u8>) {
        self.out.push((Some(to), Chunk { lane, private: true, bytes }));
    }

    /// What the run is for.
    pub(crate) const fn context(&self) -> &RunContext {
        self.context
    }

    /// This party.
    pub(crate) const fn me(&self) -> PartyId {
        self.me
    }

    /// The hash of everything that was broadcast, by whom and in which order, but for the echo's
    /// own lane.
    pub(crate) fn transcript(&self) -> Hash32 {
        self.transcript.hash(self.context.id())
    }

    fn envelopes(self) -> Vec<Outgoing> {
        let (me, run, sequence) = (self.me, self.context.id(), self.sequence);
        let mut send = Vec::new();
        for to in self.context.participants().others(me) {
            let chunks: Vec<Chunk> = self
                .out
                .iter()
                .filter(|(receiver, _)| receiver.is_none_or(|r| r == to))
                .map(|(_, chunk)| chunk.clone())
                .collect();
            if !chunks.is_empty() {
                let message = RunMessage { version: VERSION, run, from: me, to, sequence, chunks };
                send.push(Outgoing { to, bytes: cbor::encode(&message) });
            }
        }
        send
    }
}

/// Lane of the transcript's echo, which cannot be part of the transcript.
pub(crate) const ECHO_LANE: u8 = 15;

/// Everything broadcast in a run, as this party saw it.
#[derive(Debug, Default)]
pub(crate) struct Transcript(BTreeMap<(PartyId, u32, usize), Hash32>);

impl Transcript {
    fn record(&mut self, from: PartyId, sequence: u32, lane: u8, bytes: &[u8]) {
        if lane == ECHO_LANE {
            return;
        }
        let position = self.0.range((from, sequence, 0)..=(from, sequence, usize::MAX)).count();
        let hash = tagged_hash("casemate/threshold/broadcast/v1", &[&[lane], bytes]);
        self.0.insert((from, sequence, position), hash);
    }

    fn hash(&self, run: RunId) -> Hash32 {
        let mut parts = Vec::new();
        for ((from, _, _), hash) in &self.0 {
            parts.extend_from_slice(&from.number().to_be_bytes());
            parts.extend_from_slice(hash.as_bytes());
        }
        tagged_hash("casemate/threshold/transcript/v1", &[run.0.as_bytes(), &parts])
    }
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// The part of a run that differs from one protocol to the next. Only this crate implements it.
pub trait Machine: sealed::Sealed {
    /// What the protocol yields.
    type Output;
    #[doc(hidden)]
    fn lanes(&self) -> &'static [LaneLimit];
    #[doc(hidden)]
    fn deliver(&mut self, from: PartyId, chunk: Chunk) -> Result<(), RunError>;
    #[doc(hidden)]
    fn advance(&mut self, io: &mut Io<'_>) -> Result<Option<Self::Output>, RunError>;
    /// Whether this party has said all that it will say and has all that it needs. What is left tells nobody
    /// anything, so that it cannot be late.
    #[doc(hidden)]
    fn is_complete(&self) -> bool {
        false
    }
}

enum State<M> {
    Open(M),
    Finished,
    Burned,
}

/// A protocol with its context, its inbox and its deadline: what callers hold.
pub struct Driven<M> {
    context: RunContext,
    me: PartyId,
    deadline: UnixMillis,
    sequence: u32,
    inbox: Inbox,
    transcript: Transcript,
    state: State<M>,
}

impl<M> std::fmt::Debug for Driven<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Open(_) => "<redacted>",
            State::Finished => "finished",
            State::Burned => "burned",
        };
        f.debug_struct("Run")
            .field("purpose", &self.context.spec().purpose.name())
            .field("id", &self.context.id())
            .field("me", &self.me)
            .field("deadline", &self.deadline)
            .field("state", &state)
            .finish()
    }
}

impl<M: Machine> Driven<M> {
    pub(crate) fn open(claim: Claim, machine: M) -> Self {
        Self {
            context: claim.context,
            me: claim.me,
            deadline: claim.deadline,
            sequence: 0,
            inbox: Inbox::default(),
            transcript: Transcript::default(),
            state: State::Open(machine),
        }
    }

    fn end(&mut self, state: State<M>) {
        let old = std::mem::replace(&mut self.state, state);
        // a library that has panicked once may panic again while it is dropped
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
    }

    /// The protocol, while the run goes on.
    pub(crate) const fn machine(&self) -> Option<&M> {
        match &self.state {
            State::Open(machine) => Some(machine),
            State::Finished | State::Burned => None,
        }
    }

    /// The same, to tell it how to go on.
    pub(crate) const fn machine_mut(&mut self) -> Option<&mut M> {
        match &mut self.state {
            State::Open(machine) => Some(machine),
            State::Finished | State::Burned => None,
        }
    }

    fn is_late(&self, now: UnixMillis) -> bool {
        now > self.deadline && self.machine().is_some_and(|machine| !machine.is_complete())
    }

    /// Brings the deadline forward, never back.
    pub(crate) fn end_by(&mut self, deadline: UnixMillis) {
        self.deadline = self.deadline.min(deadline);
    }

    /// Applies `change` to the protocol, then lets it go as far as it can.
    pub(crate) fn step(
        &mut self,
        now: UnixMillis,
        change: impl FnOnce(&mut M) -> Result<(), RunError>,
    ) -> Result<Step<M::Output>, RunError> {
        if self.is_late(now) {
            self.end(State::Burned);
            return Err(RunError::Expired { deadline: self.deadline, now });
        }
        let machine = match &mut self.state {
            State::Open(machine) => machine,
            State::Finished => return Ok(Step { send: Vec::new(), done: None }),
            State::Burned => return Err(RunError::Burned),
        };
        let mut io = Io {
            me: self.me,
            context: &self.context,
            sequence: self.sequence,
            transcript: &mut self.transcript,
            out: Vec::new(),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            change(machine)?;
            machine.advance(&mut io)
        }))
        .unwrap_or(Err(RunError::Aborted { what: Abort::Panicked }));
        match outcome {
            Ok(done) => {
                let send = io.envelopes();
                self.sequence = self.sequence.saturating_add(1);
                if done.is_some() {
                    self.end(State::Finished);
                }
                Ok(Step { send, done })
            }
            Err(error) => {
                if error.burns() {
                    self.end(State::Burned);
                }
                Err(error)
            }
        }
    }
}

impl<M: Machine> Run for Driven<M> {
    type Output = M::Output;

    fn context(&self) -> &RunContext {
        &self.context
    }

    fn me(&self) -> PartyId {
        self.me
    }

    fn deadline(&self) -> UnixMillis {
        self.deadline
    }

    fn start(&mut self, now: UnixMillis) -> Result<Step<M::Output>, RunError> {
        self.step(now, |_| Ok(()))
    }

    fn receive(
        &mut self,
        from: PartyId,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<Step<M::Output>, RunError> {
        let lanes = match &self.state {
            State::Open(machine) => machine.lanes(),
            State::Finished => return Err(RunError::Refused { from, why: Refusal::Finished }),
            State::Burned => return Err(RunError::Burned),
        };
        if self.is_late(now) {
            self.end(State::Burned);
            return Err(RunError::Expired { deadline: self.deadline, now });
        }
        let opened = self.inbox.open(&self.context, self.me, lanes, from, bytes)?;
        for chunk in opened.chunks.iter().filter(|chunk| !chunk.private) {
            self.transcript.record(from, opened.sequence, chunk.lane, &chunk.bytes);
        }
        self.step(now, |machine| {
            opened.chunks.into_iter().try_for_each(|chunk| machine.deliver(from, chunk))
        })
    }

    fn expire(&mut self, now: UnixMillis) -> bool {
        if self.is_late(now) {
            self.end(State::Burned);
        }
        !matches!(self.state, State::Open(_))
    }

    fn burn(&mut self) {
        if matches!(self.state, State::Open(_)) {
            self.end(State::Burned);
        }
    }
}

#[cfg(test)]
mod tests {
    use casemate_proto::{BootId, GenesisId, Hash32, Incarnation, KeyName};

    use super::*;
    use crate::{
        context::{RunRegistry, RunSpec},
        party::{Participant, Participants},
        purpose::{KeyEpoch, KeyRef, Purpose},
    };

    /// A library at its worst.
    struct Bad {
        panics_on_drop: bool,
    }

    impl Drop for Bad {
        fn drop(&mut self) {
            assert!(!self.panics_on_drop, "on drop");
        }
    }

    impl sealed::Sealed for Bad {}

    impl Machine for Bad {
        type Output = ();

        fn lanes(&self) -> &'static [LaneLimit] {
            &[LaneLimit { lane: 0, max_bytes: 8, broadcasts: 1, privates: 0 }]
        }

        fn deliver(&mut self, _: PartyId, chunk: Chunk) -> Result<(), RunError> {
            panic!("on {} bytes", chunk.bytes.len());
        }

        fn advance(&mut self, io: &mut Io<'_>) -> Result<Option<()>, RunError> {
            io.broadcast(0, vec![1]);
            Ok(None)
        }
    }

    fn run(panics_on_drop: bool) -> (Driven<Bad>, Vec<u8>) {
        let list: Vec<Participant> = (0..2_u8)
            .map(|n| Participant {
                party: PartyId::new(n.into()).unwrap(),
                boot: BootId::new([n; 32]),
            })
            .collect();
        let key = KeyRef { name: KeyName::new("k").unwrap(), epoch: KeyEpoch(0) };
        let context = RunContext::new(RunSpec {
            genesis: GenesisId::new([0; 32]),
            incarnation: Incarnation(0),
            purpose: Purpose::EcdsaKeygen { key },
            participants: Participants::new(list.clone()).unwrap(),
            threshold: 2,
            log_index: 0,
            entry: Hash32::new([0; 32]),
            attempt: 0,
        })
        .unwrap();
        let message = cbor::encode(&RunMessage {
            version: VERSION,
            run: context.id(),
            from: list[1].party,
            to: list[0].party,
            sequence: 0,
            chunks: vec![Chunk { lane: 0, private: false, bytes: vec![7] }],
        });
        let claim =
            RunRegistry::new(list[0].party, list[0].boot).claim(context, UnixMillis(9)).unwrap();
        (Driven::open(claim, Bad { panics_on_drop }), message)
    }

    #[test]
    fn pitfall_6_a_library_that_panics_costs_its_run_and_no_more() {
        for panics_on_drop in [false, true] {
            let (mut run, message) = run(panics_on_drop);
            let from = PartyId::new(1).unwrap();
            assert_eq!(
                run.receive(from, &message, UnixMillis(1)).unwrap_err(),
                RunError::Aborted { what: Abort::Panicked }
            );
            assert_eq!(run.start(UnixMillis(1)).unwrap_err(), RunError::Burned);
        }
    }

    #[test]
    fn pitfall_6_a_library_that_panics_when_dropped_costs_its_run_and_no_more() {
        let (mut run, _) = run(true);
        assert!(run.expire(UnixMillis(10)));
        assert_eq!(run.start(UnixMillis(1)).unwrap_err(), RunError::Burned);
    }

    #[test]
    fn a_step_goes_to_everybody_under_one_sequence() {
        let (mut run, _) = run(false);
        for sequence in 0..2 {
            let step = run.start(UnixMillis(1)).unwrap();
            assert_eq!(step.send.len(), 1);
            let message: RunMessage = cbor::decode(&step.send[0].bytes, 1024).unwrap();
            assert_eq!((message.sequence, message.to), (sequence, PartyId::new(1).unwrap()));
        }
    }
}
