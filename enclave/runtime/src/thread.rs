//! The node's own thread.
//!
//! A protocol step takes milliseconds to tens of them; heartbeats and channels must not wait for it.
//! The node takes one event after another from a bounded queue and hands its outputs to the core,
//! which always takes them: so neither waits for the other. Of events that wait already a few are taken
//! together: outputs leave at once, but those who follow what is applied hear of it once for all of them, and
//! one checkpoint is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_door::{Reply, Status, Ticket};
use casemate_proto::{Millis, UnixMillis};
use casemate_replication::{AppliedView, ReadClock};
use casemate_signer::{Event, Node, Output};
use tokio::sync::{mpsc, watch};

/// Most events that wait for the node.
const QUEUE: usize = 4_096;
/// Most that wait beside them and are taken first: what freezers and governors say.
const URGENT: usize = 64;

/// Most events that are taken together, and how long until no further one is.
const TOGETHER: usize = 16;
const TOGETHER_FOR: Duration = Duration::from_millis(2);

/// How often a node is asked whether it has other shares to seal.
const SEAL_EVERY: Millis = Millis(1_000);

/// What goes to the node's thread.
#[derive(Debug)]
enum ToNode {
    Event(Box<Event>),
    /// Sign a reply that the node did not make: it has no security module.
    Sign {
        ticket: Ticket,
        nonce: [u8; 32],
        reply: Reply,
    },
    /// Something urgent waits.
    Wake,
}

/// What comes from the node's thread.
#[derive(Debug)]
pub(crate) enum FromNode {
    /// What it wants done, in this order.
    Outputs(Vec<Output>),
    /// What it sealed now.
    Sealed(Vec<u8>),
    /// The thread has ended. It only does so when it is told to, halts, or something is broken.
    Ended,
}

/// The node's thread, from outside.
pub(crate) struct NodeHandle {
    events: mpsc::Sender<ToNode>,
    urgent: mpsc::Sender<ToNode>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) applied: watch::Receiver<AppliedView>,
}

impl NodeHandle {
    /// Starts the thread. What the node puts out comes to `out`.
    pub(crate) fn start(
        node: Node,
        clock: Arc<dyn ReadClock>,
        out: mpsc::UnboundedSender<FromNode>,
    ) -> std::io::Result<Self> {
        let (events, queue) = mpsc::channel(QUEUE);
        let (urgent, first) = mpsc::channel(URGENT);
        let queues = Queues { queue, first, was_first: false };
        let (status_in, status) = watch::channel(node.status(clock.now()));
        let (applied_in, applied) = watch::channel(AppliedView::of(node.state()));
        std::thread::Builder::new()
            .name("node".to_owned())
            .spawn(move || run(node, &*clock, queues, &status_in, &applied_in, &out))?;
        Ok(Self { events, urgent, status, applied })
    }

    /// Hands over an event that must not be lost; waits while the queue is full.
    pub(crate) async fn must(&self, event: Event) {
        // where the thread has ended, its end is on its way to the core
        let _ = self.events.send(ToNode::Event(Box::new(event))).await;
    }

    /// Hands over an event that may be lost when too many wait. Whether it was taken.
    pub(crate) fn offer(&self, event: Event) -> bool {
        self.events.try_send(ToNode::Event(Box::new(event))).is_ok()
    }

    /// The same for what is not to wait behind everything else, and not to be refused for it.
    pub(crate) fn offer_first(&self, event: Event) -> bool {
        let taken = self.urgent.try_send(ToNode::Event(Box::new(event))).is_ok();
        if taken {
            // where there is no room for that, the node is awake
            let _ = self.events.try_send(ToNode::Wake);
        }
        taken
    }

    /// Has a reply signed; it comes back as the node's output. Whether there was room.
    pub(crate) fn sign(&self, ticket: Ticket, nonce: [u8; 32], reply: Reply) -> bool {
        self.events.try_send(ToNode::Sign { ticket, nonce, reply }).is_ok()
    }
}

/// What waits for the node.
struct Queues {
    queue: mpsc::Receiver<ToNode>,
    first: mpsc::Receiver<ToNode>,
    was_first: bool,
}

impl Queues {
    /// The next: in turns, so that neither queue keeps the other waiting. Whatever is in the first has
    /// left a word in the other, if that was not full.
    fn next(&mut self) -> Option<ToNode> {
        if !self.was_first
            && let Ok(event) = self.first.try_recv()
        {
            self.was_first = true;
            return Some(event);
        }
        self.was_first = false;
        self.queue.blocking_recv()
    }

    /// The same, if one is there.
    fn next_waiting(&mut self) -> Option<ToNode> {
        if !self.was_first
            && let Ok(event) = self.first.try_recv()
        {
            self.was_first = true;
            return Some(event);
        }
        self.was_first = false;
        self.queue.try_recv().ok()
    }
}

fn run(
    mut node: Node,
    clock: &dyn ReadClock,
    mut queues: Queues,
    status: &watch::Sender<Status>,
    applied: &watch::Sender<AppliedView>,
    out: &mpsc::UnboundedSender<FromNode>,
) {
    let mut sealed_at = UnixMillis(0);
    let say =
        |outputs: Vec<Output>| outputs.is_empty() || out.send(FromNode::Outputs(outputs)).is_ok();
    while let Some(event) = queues.next() {
        let (mut ticked, mut committed, mut next) = (false, false, Some(event));
        let (began, mut left) = (Instant::now(), TOGETHER);
        // what follows an admission goes to the boots that are current behind it, so it waits for the view
        let retired = node.state().retired_boots().len();
        while let Some(event) = next {
            match event {
                ToNode::Event(event) => {
                    ticked |= matches!(*event, Event::Tick);
                    committed |= matches!(*event, Event::Committed(_));
                    node.take(*event, clock.now());
                    if !say(node.outputs(clock.now())) {
                        return;
                    }
                }
                ToNode::Wake => {}
                ToNode::Sign { ticket, nonce, reply } => {
                    let reply = Some(node.sign_reply(&nonce, &reply));
                    if !say(vec![Output::Reply { ticket, reply }]) {
                        return;
                    }
                }
            }
            left = left.saturating_sub(1);
            let is_same = node.state().retired_boots().len() == retired;
            let goes_on =
                left > 0 && began.elapsed() < TOGETHER_FOR && is_same && !node.is_halted();
            next = if goes_on { queues.next_waiting() } else { None };
        }
        node.settle(clock.now());
        if !say(node.outputs(clock.now())) {
            return;
        }
        if committed {
            applied.send_modify(|view| *view = view.next(node.state()));
        }
        let now = clock.now();
        if ticked && now.since(sealed_at) >= SEAL_EVERY {
            sealed_at = now;
            if let Some(blob) = node.seal()
                && out.send(FromNode::Sealed(blob.encode())).is_err()
            {
                return;
            }
        }
        if ticked {
            status.send_replace(node.status(clock.now()));
        }
        if node.is_halted() {
            break;
        }
    }
    let _ = out.send(FromNode::Ended);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_urgent_is_taken_before_a_full_queue_and_in_turns_with_it() {
        let (events, queue) = mpsc::channel(4);
        let (urgent, first) = mpsc::channel(4);
        let mut queues = Queues { queue, first, was_first: false };
        while events.try_send(ToNode::Wake).is_ok() {}
        for _ in 0..2 {
            urgent.try_send(ToNode::Event(Box::new(Event::Tick))).unwrap();
        }
        drop(events);
        let taken = core::iter::from_fn(|| queues.next());
        let urgent: Vec<bool> = taken.map(|event| matches!(event, ToNode::Event(_))).collect();
        assert_eq!(urgent, [true, false, true, false, false, false]);
    }
}
