//! The host: every machine, network and disk in one hostile hand.
//!
//! Which of these a history has, how often, and against whom, is the dice's. In a merciless history
//! the host stops at nothing, and all that is asked is that nothing wrong is signed. In the others it
//! takes one node's place at a time and lets the cluster recover before it takes the next, which is
//! what a cluster promises to survive; there service must come back when the host leaves off.

use casemate_proto::DerivationPath;
use casemate_proto::governance::{Change, FreezerStatement};
use casemate_proto::request::{Payload, SignRequest};
use casemate_proto::{Hash32, KeyName, RequestId, Scheme};
use casemate_signer::Submission;

use crate::digest::{self, Payment};
use crate::enclave::{Eid, Enclave};
use crate::people::{COLD, NOTARY, PAYEE, PAYER, TOKEN};
use crate::reference::{Ask, Checked, Meant};
use crate::world::World;

/// What the host, or somebody outside, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Ends an enclave and starts another in its place.
    Restart,
    /// Ends one without its peers being told.
    RestartSilently,
    /// Starts a second enclave for a node whose first runs.
    Clone,
    /// Cuts a node's enclave off and starts another: the first is fenced, and not told.
    Fence,
    /// Pauses an enclave for longer or shorter than any timeout.
    Pause,
    /// Cuts the cluster in two.
    Partition,
    /// Cuts it without anybody being told.
    Blackhole,
    /// Withholds everything on a link and delivers it together.
    Stall,
    /// Breaks a link's frames.
    Mangle,
    /// Messages take long.
    Slow,
    /// A clock is wrong, within δ.
    Skew,
    /// A clock is wrong by much more.
    Warp,
    /// A freezer freezes; the quorum lifts it some time later.
    Freeze,
    /// Another policy: renamed grants, or a lower limit.
    Policy,
    /// Many requests at all nodes at once.
    Flood,
    /// A heartbeat of a freezer is held back.
    Silence,
}

impl Act {
    pub const ALL: [Self; 16] = [
        Self::Restart,
        Self::RestartSilently,
        Self::Clone,
        Self::Fence,
        Self::Pause,
        Self::Partition,
        Self::Blackhole,
        Self::Stall,
        Self::Mangle,
        Self::Slow,
        Self::Skew,
        Self::Warp,
        Self::Freeze,
        Self::Policy,
        Self::Flood,
        Self::Silence,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "host: restart",
            Self::RestartSilently => "host: restart, peers not told",
            Self::Clone => "host: second enclave",
            Self::Fence => "host: fence",
            Self::Pause => "host: pause",
            Self::Partition => "host: partition",
            Self::Blackhole => "host: black hole",
            Self::Stall => "host: withhold",
            Self::Mangle => "host: mangle",
            Self::Slow => "host: slow network",
            Self::Skew => "host: clock within δ",
            Self::Warp => "host: clock far off",
            Self::Freeze => "freeze",
            Self::Policy => "policy change",
            Self::Flood => "flood",
            Self::Silence => "host: heartbeats held back",
        }
    }
}

/// What the host and the people outside remember.
#[derive(Debug, Default)]
pub struct Hands {
    requests: Vec<(Ask, Vec<u8>, usize)>,
    serial: u64,
    freezes: u64,
    /// Whether it does no more harm.
    repented: bool,
    /// Until when heartbeats are held back.
    pub silent_until: u64,
    heal_at: Option<u64>,
    calm_at: Option<u64>,
    next_beat: u64,
    policies: u64,
    /// Until when clusters that nobody means go on.
    pub rivals_until: u64,
    /// The freeze that a recovered cluster comes up with, and when it is lifted.
    lift: Option<(Hash32, u64)>,
}

impl Hands {
    fn live(world: &World) -> Vec<Eid> {
        world.of_main().filter(|e| !e.is_over() && !e.paused).map(|e| e.id).collect()
    }

    fn members(world: &World) -> Vec<Eid> {
        world.of_main().filter(|e| e.is_member() && !e.paused).map(|e| e.id).collect()
    }

    /// Members of former incarnations that go on.
    fn formers(world: &World) -> Vec<Eid> {
        let of = world.incarnations();
        let is_former = |e: &&Enclave| {
            e.is_member()
                && !e.paused
                && e.cluster.is_some_and(|c| c != world.main && of.contains(&c))
        };
        world.enclaves.values().filter(is_former).map(|e| e.id).collect()
    }

    /// Whether the cluster comes through it if this node loses its enclave: all others are sound, and
    /// nobody else's place is being taken. A merciless host does not ask.
    fn spare(world: &World, place: usize) -> bool {
        world.shape.merciless
            || (world.all_sound()
                && !world.starts_elsewhere(place)
                && world.of_main().all(|e| e.place == place || e.is_member() || e.is_over()))
    }

    /// What goes on by itself: heartbeats, what was broken for a while gets well.
    pub fn routine(&mut self, world: &mut World) {
        let now = world.now();
        if self.heal_at.is_some_and(|at| now >= at) {
            self.heal_at = None;
            world.heal();
        }
        if self.calm_at.is_some_and(|at| now >= at) {
            self.calm_at = None;
            world.mangled = 0;
            world.delay = (1, 12);
        }
        // a second enclave that nobody admits is ended again some day
        let waiting: Vec<Eid> = world
            .of_main()
            .filter(|e| e.is_joining() && now > e.born + 12_000)
            .filter(|e| world.speaker(e.place).is_some())
            .map(|e| e.id)
            .collect();
        waiting.into_iter().for_each(|id| world.kill(id, true));
        if now >= self.rivals_until {
            world.rivals().into_iter().for_each(|id| world.kill(id, true));
        }
        if let Some((freeze, at)) = self.lift
            && now >= at
        {
            self.lift_recovery(world, freeze);
        }
        if now >= self.next_beat && now >= self.silent_until {
            self.next_beat = now + world.dice.between(2_000, 4_000);
            self.heartbeat(world);
        }
    }

    /// Everything that is broken gets well, and every node has an enclave that runs.
    pub fn repent(&mut self, world: &mut World) {
        self.silent_until = 0;
        self.repented = true;
        self.leave_alone(world);
    }

    /// Nothing is cut, broken or slow any more, and all clocks are right.
    pub fn leave_alone(&mut self, world: &mut World) {
        self.heal_at = None;
        self.calm_at = None;
        world.heal();
        world.mangled = 0;
        world.delay = (1, 12);
        world.wrong_by.fill(0);
        world.enclaves.values().for_each(|enclave| enclave.clock.set(0));
    }

    /// A recovered cluster has come up: the quorum will lift its freeze.
    pub fn recovered(&mut self, world: &mut World, certificate: Hash32) {
        world.forget_said();
        self.lift = Some((certificate, world.now() + world.dice.between(1_000, 15_000)));
    }

    fn lift_recovery(&mut self, world: &mut World, freeze: Hash32) {
        let Some(id) = world.speakers().first().copied() else { return };
        self.lift = Some((freeze, world.now() + 2_000));
        let at = world.true_time();
        let Some(state) = world.enclaves[&id].state() else { return };
        if !state.freezes().contains_key(&freeze) {
            self.lift = None;
            return;
        }
        let signed = world.people.change(state, at, Change::Unfreeze { freeze }, 2);
        world.submit(id, Submission::Governance { signed, attachment: None }, None);
    }

    fn heartbeat(&mut self, world: &mut World) {
        // a host that means well no longer has what freezers say end in a boot that was retired
        let members = if self.repented { world.speakers() } else { Self::members(world) };
        if members.is_empty() {
            return;
        }
        let at = *world.dice.pick(&members);
        let Some(state) = world.enclaves[&at].state() else { return };
        let statement = FreezerStatement::Heartbeat {
            size: state.size(),
            root: state.root(),
            pending: state.pending_changes().keys().copied().take(64).collect(),
        };
        let when = world.true_time();
        let signed = world.people.statement(state, when, statement, 0, false);
        world.submit(at, Submission::Statement(signed), None);
    }

    pub fn act(&mut self, world: &mut World, act: Act) -> Checked {
        world.count(act.name());
        let at = world.now();
        world.trace.note(at, format_args!("{}", act.name()));
        world.trace.step(world.start.elapsed().as_millis() as u64, act.name(), 0, 0);
        let live = Self::live(world);
        if live.is_empty() {
            return Ok(());
        }
        let id = *world.dice.pick(&live);
        let place = world.enclaves[&id].place;
        match act {
            Act::Restart | Act::RestartSilently => {
                if Self::spare(world, place) {
                    world.kill(id, act == Act::Restart);
                    let after = world.dice.between(10, 4_000);
                    world.start_in(place, after);
                }
            }
            Act::Clone => {
                if Self::spare(world, place) {
                    world.start_in(place, 1);
                }
            }
            Act::Fence => {
                if Self::spare(world, place) && world.enclaves[&id].is_member() {
                    let told = world.dice.percent(50);
                    world.partition(&[id], told);
                    world.start_in(place, 5);
                    let lasts = world.dice.between(2_000, 14_000);
                    self.heal_at = Some(world.now() + lasts);
                }
            }
            Act::Pause => {
                let millis = match world.dice.below(3) {
                    0 => world.dice.between(50, 1_000),
                    1 => world.dice.between(1_000, 5_000),
                    _ => world.dice.between(5_000, 20_000),
                };
                world.pause(id, millis);
            }
            Act::Partition | Act::Blackhole => {
                let half = world.dice.index(live.len()) + 1;
                let mut with = live;
                while with.len() > half {
                    let gone = world.dice.index(with.len());
                    with.remove(gone);
                }
                world.partition(&with, act == Act::Partition);
                let lasts = world.dice.between(500, 12_000);
                self.heal_at = Some(world.now() + lasts);
            }
            Act::Stall => {
                let links = world.linked();
                if !links.is_empty() {
                    let pair = *world.dice.pick(&links);
                    let millis = world.dice.between(200, 7_000);
                    world.stall(pair, millis);
                }
            }
            Act::Mangle => {
                world.mangled = world.dice.between(1, 40);
                let lasts = world.dice.between(500, 5_000);
                self.calm_at = Some(world.now() + lasts);
            }
            Act::Slow => {
                let most = world.dice.between(20, 400);
                world.delay = (most / 4, most);
                let lasts = world.dice.between(500, 6_000);
                self.calm_at = Some(world.now() + lasts);
            }
            Act::Skew => {
                let half = (world.shape.delta.0 / 2) as i64;
                self.skew(world, place, half);
            }
            Act::Warp => {
                // one machine's in a history: what two of them say at different times can stay in a
                // log until the other says so too, and then is the time
                let place = world.shape.liar % world.names.len();
                let is_right = world.wrong_by[place].unsigned_abs() <= world.shape.delta.0;
                if is_right && !Self::spare(world, place) {
                    return Ok(());
                }
                if is_right {
                    let far = if world.dice.percent(50) { 8_000 } else { 120_000 };
                    self.skew(world, place, far);
                } else {
                    self.set_clock(world, place, 0);
                }
            }
            Act::Freeze => self.freeze(world, id),
            Act::Policy => self.policy(world, id),
            Act::Flood => {
                for _ in 0..world.dice.between(5, 30) {
                    self.request(world);
                }
            }
            Act::Silence => {
                let lasts = world.dice.between(1_000, 30_000);
                self.silent_until = world.now() + lasts;
            }
        }
        Ok(())
    }

    pub fn skew(&mut self, world: &mut World, place: usize, most: i64) {
        let wrong = world.dice.below(2 * most as u64 + 1) as i64 - most;
        self.set_clock(world, place, wrong);
    }

    fn set_clock(&mut self, world: &mut World, place: usize, wrong: i64) {
        let at = world.now();
        world.trace.note(at, format_args!("clocks of {place} wrong by {wrong}"));
        world.wrong_by[place] = wrong;
        for enclave in world.enclaves.values().filter(|enclave| enclave.place == place) {
            enclave.clock.set(wrong);
        }
    }

    fn freeze(&mut self, world: &mut World, id: Eid) {
        let lift: Vec<_> = world.enclaves[&id]
            .state()
            .map(|state| state.freezes().keys().copied().collect())
            .unwrap_or_default();
        if !lift.is_empty() && world.dice.percent(70) {
            self.lift(world, id, lift[0]);
            return;
        }
        if self.freezes >= 3 {
            return;
        }
        self.freezes += 1;
        let forged = world.dice.percent(15);
        let nonce = world.dice.bytes();
        let who = world.dice.index(2);
        let at = world.true_time();
        let Some(state) = world.enclaves[&id].state() else { return };
        let statement = FreezerStatement::Freeze { nonce };
        let signed = world.people.statement(state, at, statement, who, forged);
        if !forged {
            world.reference_mut().given(signed.id());
        }
        let everywhere = world.dice.percent(30);
        let to: Vec<Eid> = if everywhere { Self::members(world) } else { vec![id] };
        for id in to {
            world.submit(id, Submission::Statement(signed.clone()), None);
        }
    }

    fn lift(&mut self, world: &mut World, id: Eid, freeze: casemate_proto::Hash32) {
        let enough = if world.dice.percent(90) { 2 } else { 1 };
        let at = world.true_time();
        let Some(state) = world.enclaves[&id].state() else { return };
        let change = world.people.change(state, at, Change::Unfreeze { freeze }, enough);
        world.submit(id, Submission::Governance { signed: change, attachment: None }, None);
    }

    /// The quorum lifts whatever is in force.
    pub fn lift_all(&mut self, world: &mut World) {
        let Some(id) = world.speakers().first().copied() else { return };
        let freezes: Vec<_> =
            world.enclaves[&id].state().unwrap().freezes().keys().copied().collect();
        if let Some(freeze) = freezes.first() {
            let at = world.true_time();
            let state = world.enclaves[&id].state().unwrap();
            let change = Change::Unfreeze { freeze: *freeze };
            let signed = world.people.change(state, at, change, 2);
            world.submit(id, Submission::Governance { signed, attachment: None }, None);
        }
    }

    fn policy(&mut self, world: &mut World, id: Eid) {
        let at = world.true_time();
        let (next, terms) = {
            self.policies += 1;
            let pick = world.dice.index(world.shape.terms.len());
            (self.policies, world.shape.terms[pick])
        };
        // a name of its own each time: every grant is renamed
        let renamed = world.dice.percent(60);
        let terms = crate::people::Terms { name: if renamed { next + 1 } else { 1 }, ..terms };
        let Some(state) = world.enclaves[&id].state() else { return };
        let submission = world.people.set_policy(state, at, &terms);
        world.submit(id, submission, None);
    }

    /// A request: mostly a good one, sometimes one that nobody may have signed, sometimes one that was
    /// made before, at the same or another node.
    pub fn request(&mut self, world: &mut World) {
        let members = Self::live(world);
        if members.is_empty() {
            return;
        }
        let mut at = *world.dice.pick(&members);
        let formers = Self::formers(world);
        if !formers.is_empty() && world.dice.percent(35) {
            // somebody who has not heard of the recovery
            at = *world.dice.pick(&formers);
        } else if world.incarnations().len() > 1 && world.dice.percent(20) {
            world.say_again(at);
            return;
        }
        let kind = world.dice.below(100);
        if kind < 20 && !self.requests.is_empty() {
            let again = world.dice.index(self.requests.len());
            let (ask, body, who) = self.requests[again].clone();
            self.send(world, at, ask, body, who, 0);
            return;
        }
        self.fresh(world, at, kind);
    }

    fn fresh(&mut self, world: &mut World, at: Eid, kind: u64) {
        self.serial += 1;
        let who = world.dice.index(2);
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.serial.to_be_bytes());
        let mut ask = (world.people.agents[who].public.id(), RequestId::new(id));
        if (20..30).contains(&kind) && !self.requests.is_empty() {
            // another body under a known id
            let known = world.dice.index(self.requests.len());
            let (same, _, whose) = self.requests[known].clone();
            if whose == who {
                ask = same;
            }
        }
        let pick = world.dice.index(world.shape.keys.len() - 1) + 1;
        let (key, scheme) = world.shape.keys[pick];
        let name = KeyName::new(key).unwrap();
        let Some((_, public)) = world.reference().key(&name).cloned() else { return };
        let (payload, digest, amount) = match scheme {
            Scheme::EcdsaSecp256k1 => {
                let value = world.dice.between(1, 6) * 1_000_000;
                self.payment(world, &public, value)
            }
            _ => {
                let text = format!("message {}", self.serial).into_bytes();
                let digest = digest::message(world.reference().genesis(), &text);
                (Payload::Message(text), digest, 1)
            }
        };
        // what no policy allows: a payment by the second agent; a message with the log's key
        let mut allowed = key != PAYER || who == 0;
        let mut name = name;
        if (30..34).contains(&kind) {
            name = KeyName::new(crate::people::LOG).unwrap();
            allowed = false;
        }
        debug_assert!([NOTARY, COLD, PAYER].contains(&key));
        let request = SignRequest {
            request_id: ask.1,
            key: name.clone(),
            path: DerivationPath::root(),
            payload,
        };
        let body = request.to_body().into_bytes();
        let meant =
            Meant { body: body.clone(), key: name, digest, amount, allowed, stamped: false };
        for of in world.incarnations() {
            world.clusters[of].reference.meant(ask, meant.clone());
        }
        self.requests.push((ask, body.clone(), who));
        self.send(world, at, ask, body, who, kind);
    }

    fn payment(&self, world: &World, key: &[u8], value: u64) -> (Payload, [u8; 32], u64) {
        let seconds = world.true_time().0 / 1_000;
        let (after, before) = (seconds - 600, seconds + 300);
        let from = digest::own_address(key);
        let mut nonce = [0; 32];
        nonce[24..].copy_from_slice(&self.serial.to_be_bytes());
        let json = format!(
            r#"{{"types":{{"EIP712Domain":[{{"name":"name","type":"string"}},{{"name":"version","type":"string"}},{{"name":"chainId","type":"uint256"}},{{"name":"verifyingContract","type":"address"}}],"TransferWithAuthorization":[{{"name":"from","type":"address"}},{{"name":"to","type":"address"}},{{"name":"value","type":"uint256"}},{{"name":"validAfter","type":"uint256"}},{{"name":"validBefore","type":"uint256"}},{{"name":"nonce","type":"bytes32"}}]}},"primaryType":"TransferWithAuthorization","domain":{{"name":"USD Coin","version":"2","chainId":8453,"verifyingContract":"{TOKEN}"}},"message":{{"from":"0x{}","to":"{PAYEE}","value":"{value}","validAfter":"{after}","validBefore":"{before}","nonce":"0x{}"}}}}"#,
            hex::encode(from),
            hex::encode(nonce),
        );
        let to = digest::address(PAYEE);
        let payment = Payment { from, to, value, after, before, nonce };
        let digest = digest::payment(&payment, &digest::address(TOKEN));
        (Payload::TypedData(json), digest, value)
    }

    fn send(&mut self, world: &mut World, at: Eid, ask: Ask, body: Vec<u8>, who: usize, kind: u64) {
        // stamped by somebody's clock that is a little off, or by somebody unknown
        let person = match kind {
            34..=37 => world.people.stranger.clone(),
            _ => world.people.agents[who].clone(),
        };
        let mut when = world.true_time();
        if (38..42).contains(&kind) {
            when.0 -= 600_000;
        }
        let nonce = world.dice.bytes();
        // stamped for whichever incarnation its client knows
        let cluster = world.enclaves[&at].cluster;
        let mut of_it = world.enclaves.values().filter(|e| e.cluster == cluster);
        let Some(state) = of_it.find_map(Enclave::state) else { return };
        let mut stamp = person.stamp(state, &body, when, nonce);
        if (34..36).contains(&kind) {
            // as if it were the agent's
            stamp.credential = ask.0;
        }
        let known = (stamp.credential == ask.0).then_some(ask);
        if !(34..42).contains(&kind) {
            world.clusters[cluster.unwrap()].reference.stamped(&ask, &body);
        }
        let everywhere = cluster == Some(world.main) && world.dice.percent(15);
        let to: Vec<Eid> = if everywhere { Self::live(world) } else { vec![at] };
        for at in to {
            let submission = Submission::Request { stamp: stamp.clone(), body: body.clone() };
            let ticket = world.submit(at, submission, known);
            let now = world.now();
            world
                .trace
                .note(now, format_args!("request {} to {at}: {} kind {kind}", ask.1, ticket.0));
        }
    }

    /// A request that any cluster that is well signs, at this enclave.
    pub fn good_request(&mut self, world: &mut World, at: Eid) -> casemate_signer::Ticket {
        self.serial += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.serial.to_be_bytes());
        let person = world.people.agents[0].clone();
        let ask = (person.public.id(), RequestId::new(id));
        let text = format!("at last {}", self.serial).into_bytes();
        let digest = digest::message(world.reference().genesis(), &text);
        let key = KeyName::new(NOTARY).unwrap();
        let payload = Payload::Message(text);
        let request = SignRequest {
            request_id: ask.1,
            key: key.clone(),
            path: DerivationPath::root(),
            payload,
        };
        let body = request.to_body().into_bytes();
        world.reference_mut().meant(
            ask,
            Meant { body: body.clone(), key, digest, amount: 1, allowed: true, stamped: true },
        );
        let (when, nonce) = (world.true_time(), world.dice.bytes());
        let state = world.enclaves[&at].state().unwrap();
        let stamp = person.stamp(state, &body, when, nonce);
        world.submit(at, Submission::Request { stamp, body }, Some(ask))
    }
}
