//! What comes out of an enclave: carried on, and told to the reference model.

use casemate_ledger::EntryBody;
use casemate_ledger::permit::RunBinding;
use casemate_proto::ids::Hash32;
use casemate_proto::{BootId, NodeName, Scheme};
use casemate_replication::join::HandedOver;
use casemate_signer::{Answer, HaltReason, Output, PeerMessage, Ticket};
use casemate_threshold::{
    KeyEpoch, KeyRef, Participant, Participants, PartyId, Purpose, RunContext, RunId, RunMessage,
    RunSpec, TriplePairId, bip340_subject, ed25519_subject,
};

use super::{Run, SHARE_LANE, World};
use crate::enclave::{Eid, Kind, Member};
use crate::reference::{Checked, Released, What, violated};

impl World {
    pub(super) fn outputs(
        &mut self,
        id: Eid,
        member: &mut Member,
        outputs: Vec<Output>,
    ) -> Checked {
        for output in outputs {
            match output {
                Output::Propose { body, attachment, until } => {
                    if let EntryBody::Signed { credential, request_id, signature } = &body {
                        let now = self.true_time();
                        self.reference_of(id).signature(
                            (*credential, *request_id),
                            signature,
                            now,
                            None,
                        )?;
                    }
                    let kind = body.kind();
                    if let Err(refused) = member.replication.propose_until(body, attachment, until)
                    {
                        let what = format_args!("{id} proposes {kind} in vain: {refused}");
                        self.trace.note(self.now(), what);
                    }
                }
                Output::Send { to, bytes } => {
                    self.sent(id, member, bytes.as_slice())?;
                    if let Some(boot) = member.node.state().current_boot(&to) {
                        self.send(id, boot, Kind::Node, bytes.as_slice().to_vec());
                    }
                }
                Output::Answer { ticket, answer } => self.answered(ticket, answer)?,
                Output::Reply { .. } => {}
                Output::Handover(handover) => {
                    if let Some(at) = member.admitted.remove(&handover.boot) {
                        let boot = handover.boot;
                        let handed = HandedOver {
                            boot,
                            node: handover.node,
                            size: handover.size,
                            hash: handover.hash,
                            snapshot: handover.snapshot,
                            tail: handover.tail,
                            position: at.position(),
                        };
                        let word = member.handovers.put(handed, self.enclaves[&id].now());
                        self.send(id, boot, Kind::Join, word);
                    }
                }
                Output::Publish(files) => {
                    for (path, _) in &files {
                        if let Some((size, root)) =
                            path.strip_prefix("checkpoints/").and_then(|name| name.split_once('-'))
                        {
                            self.count("checkpoints");
                            let size = size.parse().unwrap();
                            self.reference_of(id).checkpoint(size, root)?;
                        }
                    }
                    self.stored(id, files);
                }
                Output::Halt { reason } => {
                    self.trace.note(self.now(), format_args!("{id} halts: {reason}"));
                    if !matches!(reason, HaltReason::Retired) {
                        violated!("enclave {id} halted: {reason}");
                    }
                    self.count("enclaves fenced");
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) -> Checked {
        let Some(client) = self.clients.remove(&ticket) else { return Ok(()) };
        self.count(match &answer {
            Answer::Signed(_) => "answers: signed",
            Answer::Denied(_) => "answers: denied",
            Answer::Pending(_) => "answers: pending",
            Answer::Accepted { .. } => "answers: accepted",
            Answer::Expired(_) => "answers: expired",
            Answer::Recorded { .. } => "answers: recorded",
            Answer::Unknown => "answers: unknown",
            Answer::Busy { .. } => "answers: busy",
        });
        if let (Answer::Signed(signed), Some(ask)) = (&answer, client.ask) {
            let now = self.true_time();
            self.reference_of(client.at).answered(ask, signed, now)?;
        }
        if let Some(ask) = client.ask {
            self.reference_of(client.at).said(ask, &answer)?;
        }
        self.trace.step(self.now(), "answered", client.at, ticket.0);
        let name = name_of(&answer);
        match &answer {
            Answer::Denied(denial) => {
                let (code, index) = (denial.denial.code, denial.index);
                let what = format_args!("answer to {}: {name} {code:?} at {index:?}", ticket.0);
                self.trace.note(self.now(), what);
            }
            _ => self.trace.note(self.now(), format_args!("answer to {}: {name}", ticket.0)),
        }
        self.answers.insert(ticket, answer);
        Ok(())
    }

    /// An enclave sends to another: whether it may, if it is part of a signing run.
    fn sent(&mut self, id: Eid, member: &Member, bytes: &[u8]) -> Checked {
        let Ok(message) = PeerMessage::decode(bytes) else {
            violated!("enclave {id} sends what it would not read itself");
        };
        match message {
            PeerMessage::StartSign { index, attempt, participants, triples, epoch, .. } => {
                self.count("signing runs");
                let asked = self.cluster_of(id).reference.what_is_signed(index);
                self.leads(id, member, (index, attempt, epoch), &participants, triples, asked);
            }
            PeerMessage::StartAhead { index, entry, participants, triples, epoch, .. } => {
                self.count("signing runs ahead of the commit");
                let asked = match self.appended.get(&entry) {
                    Some(EntryBody::Request { stamp, body }) => {
                        let reference = &self.cluster_of(id).reference;
                        reference.what_is_asked(stamp.credential, body, entry)
                    }
                    _ => None,
                };
                self.leads(id, member, (index, 0, epoch), &participants, triples, asked);
            }
            PeerMessage::Run(bytes) => {
                let max = casemate_threshold::message::MAX_MESSAGE_BYTES;
                let Ok(message) = casemate_proto::cbor::decode::<RunMessage>(&bytes, max) else {
                    violated!("enclave {id} sends a run's message that is none");
                };
                if self.runs.contains_key(&message.run)
                    && message.chunks.iter().any(|chunk| chunk.lane == SHARE_LANE)
                {
                    self.count("shares released");
                    let run = &self.runs[&message.run];
                    let enclave = &self.enclaves[&id];
                    let cluster = &mut self.clusters[enclave.cluster.unwrap()];
                    cluster.reference.released(&Released {
                        node: &enclave.name,
                        boot: enclave.boot,
                        applied: member.node.state().size(),
                        now: enclave.now(),
                        index: run.index,
                        entry: run.entry,
                        participants: &run.participants,
                    })?;
                }
            }
            PeerMessage::Declined { index, attempt, .. } => {
                let what = format_args!("{id} declines attempt {attempt} at {index}");
                self.trace.note(self.now(), what);
            }
            _ => {}
        }
        Ok(())
    }

    /// A leader names a run: from here on its messages are known for what they are.
    fn leads(
        &mut self,
        id: Eid,
        member: &Member,
        (index, attempt, epoch): (u64, u8, u64),
        names: &[NodeName],
        triples: Option<Hash32>,
        asked: Option<What>,
    ) {
        let among: Vec<&str> = names.iter().map(NodeName::as_str).collect();
        let what = format_args!("{id} leads attempt {attempt} at {index} among {among:?}");
        self.trace.note(self.now(), what);
        if let Some(asked) = asked
            && let Some((run, known)) =
                self.run_of(id, member, (index, attempt, epoch), names, triples, asked)
        {
            self.runs.insert(run, known);
        }
    }

    /// The id of the run that a leader names.
    fn run_of(
        &self,
        id: Eid,
        member: &Member,
        (index, attempt, epoch): (u64, u8, u64),
        names: &[NodeName],
        triples: Option<Hash32>,
        What { key, path, digest, entry }: What,
    ) -> Option<(RunId, Run)> {
        let state = member.node.state();
        let (scheme, _) = self.cluster_of(id).reference.key(&key)?;
        let mut participants: Vec<(NodeName, BootId)> = names
            .iter()
            .map(|name| Some((name.clone(), state.current_boot(name)?)))
            .collect::<Option<_>>()?;
        participants.sort();
        let binding = RunBinding {
            genesis: state.genesis(),
            incarnation: state.incarnation(),
            index,
            entry,
            key: key.clone(),
            epoch,
            path: path.clone(),
            participants: participants.clone(),
            attempt,
        };
        let key = KeyRef { name: key, epoch: KeyEpoch(epoch) };
        let purpose = match scheme {
            Scheme::Ed25519 => {
                Purpose::Ed25519Sign { key, path, subject: ed25519_subject(&digest) }
            }
            Scheme::Bip340Secp256k1 => {
                Purpose::Bip340Sign { key, path, subject: bip340_subject(&digest) }
            }
            Scheme::EcdsaSecp256k1 => {
                let triples = TriplePairId(triples?);
                Purpose::EcdsaSign { key, path, digest, triples }
            }
        };
        let parties = participants
            .iter()
            .map(|(name, boot)| {
                let place = self.names.iter().position(|known| known == name)?;
                let party = PartyId::new(u16::try_from(place).ok()?).ok()?;
                Some(Participant { party, boot: *boot })
            })
            .collect::<Option<_>>()?;
        let context = RunContext::new(RunSpec {
            genesis: binding.genesis,
            incarnation: binding.incarnation,
            purpose,
            participants: Participants::new(parties).ok()?,
            threshold: u16::try_from(participants.len()).ok()?,
            log_index: index,
            entry: binding.hash(),
            attempt: u64::from(attempt),
        });
        Some((context.ok()?.id(), Run { index, entry, participants }))
    }
}

const fn name_of(answer: &Answer) -> &'static str {
    match answer {
        Answer::Signed(_) => "signed",
        Answer::Denied(_) => "denied",
        Answer::Pending(_) => "pending",
        Answer::Accepted { .. } => "accepted",
        Answer::Expired(_) => "expired",
        Answer::Recorded { .. } => "recorded",
        Answer::Unknown => "unknown",
        Answer::Busy { .. } => "busy",
    }
}
