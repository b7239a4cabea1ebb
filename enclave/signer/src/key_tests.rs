//! Tests and confirmations of pending keys: what must happen before a share is live. See the head
//! of `keygen` for the whole way.

use casemate_ledger::EntryBody;
use casemate_ledger::entry::{Confirmation, KeyLive, TestSignature};
use casemate_ledger::keys::verify_signature;
use casemate_proto::hash::tagged_hash;
use casemate_proto::ids::Hash32;
use casemate_proto::{KeyName, NodeName, UnixMillis};
use casemate_threshold::ecdsa::TriplePair;
use casemate_threshold::{Misuse, RunContext, RunError, TriplePairId, covering_subsets};

use crate::event::Output;
use crate::keygen::{Candidate, Early, PROPOSE_AGAIN, retry_after};
use crate::node::Node;
use crate::peer::{PeerMessage, StartTest};
use crate::runs::{Role, Slot};
use crate::shares::{test_purpose, wants_triples};

impl Node {
    /// The sets that test a key, by name.
    fn test_sets(&self) -> Vec<Vec<NodeName>> {
        let Some(all) = self.everybody() else { return Vec::new() };
        let subsets = covering_subsets(&all, self.threshold);
        subsets.iter().map(|set| self.roster.names_of(set)).collect()
    }

    /// Leads the tests that are this node's to lead.
    pub(crate) fn drive_tests(&mut self, now: UnixMillis) {
        if self.keygen.jobs.is_empty() {
            return;
        }
        let sets: Vec<Vec<NodeName>> = self
            .test_sets()
            .into_iter()
            .filter(|set| set.first() == Some(self.roster.me()))
            .filter(|set| set.iter().all(|name| self.roster.is_linked(name)))
            .collect();
        let wanted: Vec<(KeyName, Hash32, bool, Vec<NodeName>)> = self
            .keygen
            .jobs
            .values()
            .flat_map(|job| job.candidates.iter())
            .filter(|candidate| candidate.test_at <= now)
            .flat_map(|candidate| {
                let facts = candidate.share.facts();
                sets.iter()
                    .filter(|set| {
                        !candidate.tests.contains_key(*set) && !candidate.testing.contains(set)
                    })
                    .map(|set| {
                        let with_triples = wants_triples(candidate.share.scheme());
                        (facts.key.name.clone(), facts.transcript, with_triples, set.clone())
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        for (name, transcript, with_triples, set) in wanted {
            let mut triples = None;
            if with_triples {
                let Some(boots) = self.run_participants(&set) else { continue };
                let Some(id) = self.triples.take_own(&boots) else {
                    if !self.triples.is_making(&boots) {
                        self.lead_triples(set, now);
                    }
                    continue;
                };
                triples = Some(id.0);
            }
            let (size, number) = (self.state.size(), self.fresh_number());
            let start = StartTest { name, transcript, participants: set, triples, size, number };
            let me = self.roster.me().clone();
            if self.begin_test(&me, &start, now) {
                if let Some(candidate) = self.keygen.candidate(&start.name, &transcript)
                    && !candidate.tests.contains_key(&start.participants)
                {
                    candidate.testing.push(start.participants.clone());
                }
                let to = start.participants.clone();
                self.send_first(&to, &PeerMessage::StartTest(start));
            }
        }
    }

    /// The first of a set begins its test. Kept until then if share, triples or a link are not here
    /// yet.
    pub(crate) fn join_test(
        &mut self,
        from: &NodeName,
        start: StartTest,
        until: UnixMillis,
        now: UnixMillis,
    ) {
        if start.participants.first() != Some(from)
            || !self.test_sets().contains(&start.participants)
            || !start.participants.contains(self.roster.me())
        {
            return;
        }
        let has_share = self.keygen.candidate(&start.name, &start.transcript).is_some();
        let has_triples = start.triples.is_none_or(|id| {
            self.run_participants(&start.participants)
                .is_some_and(|set| self.triples.has(&set, &TriplePairId(id)))
        });
        let has_links = start.participants.iter().all(|name| self.roster.is_linked(name));
        if has_share && has_triples && has_links {
            // the set's leader has one test of a share at a time: a new one means that it failed
            let same = |slot: &Slot| {
                matches!(&slot.role, Role::Test { transcript, .. } if *transcript == start.transcript)
                    && self.roster.names_of(&slot.participants) == start.participants
            };
            for id in self.runs.which(same) {
                self.end_run(id, &RunError::Burned, now);
            }
            self.begin_test(from, &start, now);
        } else {
            self.keygen.early.push(from, (Early::Test(start), until));
        }
    }

    /// Starts that waited get another look.
    pub(crate) fn resume_early_keygen(&mut self, now: UnixMillis) {
        for (from, (early, until)) in self.keygen.early.take() {
            if now > until {
                continue;
            }
            match early {
                Early::Key(start) => self.join_key(&from, start, until, now),
                Early::Test(start) => self.join_test(&from, start, until, now),
            }
        }
    }

    fn begin_test(&mut self, leader: &NodeName, start: &StartTest, now: UnixMillis) -> bool {
        match self.try_begin_test(leader, start, now) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(key = %start.name, %error, "test not begun");
                false
            }
        }
    }

    fn try_begin_test(
        &mut self,
        leader: &NodeName,
        start: &StartTest,
        now: UnixMillis,
    ) -> Result<(), RunError> {
        let set = self.run_participants(&start.participants).ok_or(Misuse::NotParticipating)?;
        let boot = self.state.current_boot(leader).ok_or(Misuse::NotParticipating)?;
        let (name, transcript) = (start.name.clone(), start.transcript);
        let candidate = self.keygen.candidate(&name, &transcript).ok_or(Misuse::WrongKey)?;
        let (scheme, key) = (candidate.share.scheme(), candidate.share.facts().key.clone());
        let pair: Option<TriplePair> =
            start.triples.and_then(|id| self.triples.take(&set, &TriplePairId(id)));
        let purpose = test_purpose(scheme, key, pair.as_ref())?;
        // no entry causes it: the boot that leads keeps its numbers apart from the others'
        let by = tagged_hash("casemate/key-test-by/v1", &[boot.as_bytes(), transcript.as_bytes()]);
        let spec = self.key_spec(purpose, set, start.size, by, start.number);
        let deadline = now.saturating_add(self.config.keygen_timeout);
        let role = Role::Test { name: name.clone(), transcript, leader: leader.clone() };
        self.begin_run(
            RunContext::new(spec)?,
            deadline,
            role,
            now,
            move |node, claim| {
                let candidate =
                    node.keygen.candidate(&name, &transcript).ok_or(Misuse::WrongKey)?;
                candidate.share.test(claim, pair, node.entropy.as_mut())
            },
            |_, _| Ok(None),
        )?;
        Ok(())
    }

    /// A test that this node led.
    pub(crate) fn test_made(
        &mut self,
        name: &KeyName,
        transcript: &Hash32,
        participants: Vec<NodeName>,
        signature: [u8; 64],
        now: UnixMillis,
    ) {
        let Some(candidate) = self.keygen.candidate(name, transcript) else { return };
        candidate.tests.insert(participants.clone(), signature);
        candidate.testing.retain(|set| *set != participants);
        let leader = candidate.leader.clone();
        if leader == *self.roster.me() {
            self.drive_confirmations(now);
        } else {
            let (name, transcript) = (name.clone(), *transcript);
            self.send(&leader, &PeerMessage::Tested { name, transcript, participants, signature });
        }
    }

    /// A test that this node led: led again a little later.
    pub(crate) fn test_failed(
        &mut self,
        name: &KeyName,
        transcript: &Hash32,
        participants: &[NodeName],
        now: UnixMillis,
    ) {
        if let Some(candidate) = self.keygen.candidate(name, transcript) {
            candidate.testing.retain(|set| set != participants);
            candidate.test_at = now.saturating_add(retry_after(candidate.test_failures));
            candidate.test_failures = candidate.test_failures.saturating_add(1);
        }
    }

    /// A link to a keys' leader came up: it may have missed a test that this node led.
    pub(crate) fn tell_tests_again(&mut self, leader: &NodeName) {
        let me = self.roster.me();
        let candidates = self.keygen.jobs.values().flat_map(|job| job.candidates.iter());
        let tests: Vec<PeerMessage> = candidates
            .filter(|candidate| candidate.leader == *leader)
            .flat_map(|candidate| {
                let facts = candidate.share.facts();
                let led = candidate.tests.iter().filter(|(set, _)| set.first() == Some(me));
                led.map(|(set, signature)| PeerMessage::Tested {
                    name: facts.key.name.clone(),
                    transcript: facts.transcript,
                    participants: set.clone(),
                    signature: *signature,
                })
            })
            .collect();
        for test in tests {
            self.send(leader, &test);
        }
    }

    /// At the key's leader: a test that another node led.
    pub(crate) fn tested(
        &mut self,
        name: &KeyName,
        transcript: &Hash32,
        participants: Vec<NodeName>,
        signature: [u8; 64],
        now: UnixMillis,
    ) {
        if !self.test_sets().contains(&participants) {
            return;
        }
        let Some(candidate) = self.keygen.candidate(name, transcript) else { return };
        let bare = key_live_of(candidate, &[]);
        let holds = bare.is_some_and(|bare| {
            self.state.test_digest(&bare, &participants).is_some_and(|digest| {
                verify_signature(bare.scheme, &bare.public_key, &digest, &signature)
            })
        });
        if holds && let Some(candidate) = self.keygen.candidate(name, transcript) {
            candidate.tests.insert(participants, signature);
            self.drive_confirmations(now);
        }
    }

    /// At keys' leaders: asks for confirmations when all tests are there, proposes when all have
    /// confirmed.
    pub(crate) fn drive_confirmations(&mut self, now: UnixMillis) {
        let sets = self.test_sets();
        let roster = self.roster.names().to_vec();
        let me = self.roster.me().clone();
        let mut ask = Vec::new();
        for job in self.keygen.jobs.values_mut() {
            for candidate in job.candidates.iter_mut().filter(|c| c.leader == me) {
                if candidate.confirming.is_none()
                    && let Some(live) = key_live_of(candidate, &sets)
                {
                    candidate.confirming = Some(live.clone());
                    candidate.ask_again_at = now.saturating_add(PROPOSE_AGAIN);
                    ask.push(live);
                }
                let Some(live) = &candidate.confirming else { continue };
                if candidate.confirmed.len() < roster.len() {
                    // what some have promised, nobody drops: a word that was lost is asked for again
                    if candidate.promised && candidate.ask_again_at <= now {
                        candidate.ask_again_at = now.saturating_add(PROPOSE_AGAIN);
                        ask.push(live.clone());
                    }
                    continue;
                }
                if candidate.propose_at > now {
                    continue;
                }
                candidate.propose_at = now.saturating_add(PROPOSE_AGAIN);
                let mut live = live.clone();
                live.confirmations = candidate
                    .confirmed
                    .iter()
                    .map(|(node, signature)| Confirmation {
                        node: node.clone(),
                        signature: *signature,
                    })
                    .collect();
                let body = EntryBody::KeyLive(live);
                self.out.push(Output::Propose { body, attachment: None, until: None });
            }
        }
        for live in ask {
            let others = self.roster.others();
            self.send_others(&others, &PeerMessage::ConfirmKey(live.clone()));
            let candidate = self.keygen.candidate(&live.name, &live.transcript);
            let is_promised = candidate.is_some_and(|candidate| candidate.promised);
            if !is_promised && let Some(signature) = self.confirmation_of(&live) {
                self.confirmed(&me, &live.name, &live.transcript, signature, now);
            }
        }
    }

    /// This boot's word for a key, if everything in it is what this node has, and the tests hold.
    fn confirmation_of(&mut self, live: &KeyLive) -> Option<[u8; 64]> {
        let sets = self.test_sets();
        let epoch = self.state.key_epoch(&live.name);
        let candidate = self.keygen.candidate(&live.name, &live.transcript)?;
        let facts = candidate.share.facts();
        let same = candidate.replaces == epoch
            && live.replaces == epoch
            && live.scheme == candidate.share.scheme()
            && live.epoch == facts.key.epoch.0
            && live.public_key == candidate.share.public_key()
            && live.chain_code == facts.chain_code
            && live.confirmations.is_empty()
            && live.tests.iter().map(|test| &test.participants).eq(sets.iter());
        let holds = |test: &TestSignature| {
            self.state.test_digest(live, &test.participants).is_some_and(|digest| {
                verify_signature(live.scheme, &live.public_key, &digest, &test.signature)
            })
        };
        if !same || !live.tests.iter().all(holds) {
            return None;
        }
        let message = live.confirm_message(&self.state.genesis());
        self.keygen.candidate(&live.name, &live.transcript)?.promised = true;
        Some(self.boot.sign(&message))
    }

    /// Shares of a boot that is gone never go live: an entry wants every current boot's word.
    pub(crate) fn drop_stale_candidates(&mut self) {
        let state = &self.state;
        for job in self.keygen.jobs.values_mut() {
            job.candidates.retain(|candidate| {
                let holders = candidate.share.facts().holders.as_slice();
                holders.iter().all(|holder| state.is_current(&holder.boot))
            });
        }
    }

    /// The key's leader asks for this boot's confirmation.
    pub(crate) fn confirm_key(&mut self, from: &NodeName, live: &KeyLive) {
        let candidate = self.keygen.candidate(&live.name, &live.transcript);
        if candidate.is_none_or(|candidate| candidate.leader != *from) {
            return;
        }
        if let Some(signature) = self.confirmation_of(live) {
            let (name, transcript) = (live.name.clone(), live.transcript);
            self.send(from, &PeerMessage::Confirmed { name, transcript, signature });
        } else {
            tracing::warn!(key = %live.name, %from, "key not confirmed: it is not what this node has");
        }
    }

    /// At the key's leader: a confirmation.
    pub(crate) fn confirmed(
        &mut self,
        from: &NodeName,
        name: &KeyName,
        transcript: &Hash32,
        signature: [u8; 64],
        now: UnixMillis,
    ) {
        let genesis = self.state.genesis();
        let Some(key) = self
            .state
            .current_boot_key(from)
            .and_then(|key| ed25519_dalek::VerifyingKey::from_bytes(&key).ok())
        else {
            return;
        };
        let Some(candidate) = self.keygen.candidate(name, transcript) else { return };
        let Some(live) = &candidate.confirming else { return };
        let parsed = ed25519_dalek::Signature::from_bytes(&signature);
        if key.verify_strict(&live.confirm_message(&genesis), &parsed).is_ok() {
            candidate.confirmed.insert(from.clone(), signature);
            self.drive_confirmations(now);
        }
    }
}

/// What everybody is to confirm, once every set has signed its test.
fn key_live_of(candidate: &Candidate, sets: &[Vec<NodeName>]) -> Option<KeyLive> {
    let facts = candidate.share.facts();
    let tests: Option<Vec<TestSignature>> = sets
        .iter()
        .map(|set| {
            let signature = *candidate.tests.get(set)?;
            Some(TestSignature { participants: set.clone(), signature })
        })
        .collect();
    Some(KeyLive {
        name: facts.key.name.clone(),
        scheme: candidate.share.scheme(),
        epoch: facts.key.epoch.0,
        public_key: candidate.share.public_key(),
        chain_code: facts.chain_code,
        transcript: facts.transcript,
        tests: tests?,
        confirmations: Vec::new(),
        replaces: candidate.replaces,
    })
}
