//! What the store's handles and the tasks of its nodes share.

use super::entry::Entry;
use super::gate::Gate;
use super::history::{Fate, History};
use super::link::{CLIENT, Link, Passage};
use super::node::{Candidate, InFlight, Live, Message, Permit, Refused, Slot, Write, WriteAnswer};
use super::preference::{Pick, ReadPreference};
use super::status::{Divergent, NodeStatus, ReplicaStatus, Role};
use super::{Ack, node};
use crate::env::Env;
use crate::store::{Batch, Effect, Engine, Error, LogId, Position, Receipt, Result};
use crate::sync::{AtomicU64, Mutex, Ordering, Published, Waiters, pin};
use futures::channel::oneshot;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What the builder was told.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) dir: PathBuf,
    pub(super) ack: Ack,
    pub(super) max_pending: usize,
    pub(super) max_exposed: usize,
    pub(super) write_timeout: Duration,
    pub(super) read_wait: Duration,
    pub(super) failover_timeout: Duration,
    pub(super) checkpoint_bytes: u64,
    pub(super) window_bytes: usize,
    pub(super) feed: usize,
}

/// Who is the primary.
#[derive(Clone, Debug, Default)]
pub(super) struct Topology {
    pub(super) epoch: u64,
    pub(super) primary: Option<usize>,
    /// A failover is under way: writes wait for its end.
    pub(super) moving: bool,
    pub(super) closed: bool,
    /// The epochs of the primary's log.
    pub(super) history: Arc<History>,
}

pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) log: LogId,
    pub(super) options: Arc<Options>,
    pub(super) link: Option<Arc<dyn Link>>,
    pub(super) slots: Vec<Slot>,
    pub(super) topology: Published<Topology>,
    pub(super) gate: Gate,
    /// Woken when a node has applied something, and when the topology changes.
    pub(super) moved: Waiters,
    pub(super) in_flight: Arc<InFlight>,
    /// The newest epoch that anybody has heard of.
    pub(super) highest: AtomicU64,
    /// Held by whoever starts nodes or changes the primary: one at a time.
    pub(super) control: futures::lock::Mutex<()>,
    divergent: Mutex<HandedBack>,
    dice: AtomicU64,
}

#[derive(Default)]
struct HandedBack {
    records: VecDeque<Divergent>,
    count: u64,
}

/// Records handed back that are kept until somebody takes them.
const MAX_DIVERGENT: usize = 10_000;

impl Shared {
    pub(super) fn new(
        env: Env,
        log: LogId,
        options: Arc<Options>,
        link: Option<Arc<dyn Link>>,
        slots: Vec<Slot>,
    ) -> Shared {
        let dice = AtomicU64::new(env.rng("replica choice").next_u64());
        Shared {
            env,
            log,
            link,
            slots,
            topology: Published::new(Topology::default()),
            gate: Gate::new(options.feed),
            moved: Waiters::default(),
            in_flight: Arc::default(),
            highest: AtomicU64::new(0),
            control: futures::lock::Mutex::new(()),
            divergent: Mutex::default(),
            dice,
            options,
        }
    }

    /// Changes who is the primary. Only whoever holds `control` does.
    pub(super) fn set_topology(&self, change: impl FnOnce(&mut Topology)) {
        let mut topology = self.topology().clone();
        change(&mut topology);
        self.topology.store(topology);
        self.moved.wake_all();
    }

    pub(super) fn topology(&self) -> Topology {
        self.topology.load(&pin()).clone()
    }

    pub(super) fn node(&self, name: &str) -> Result<usize> {
        let node = self.slots.iter().position(|slot| slot.name == name);
        node.ok_or_else(|| Error::Invalid {
            what: format!("there is no node {name:?}"),
        })
    }

    /// Runs `read` on the primary's engine.
    #[inline]
    pub(super) fn at_primary<T>(&self, read: impl FnOnce(&Live) -> Result<T>) -> Result<T> {
        let pin = pin();
        let topology = self.topology.load(&pin);
        let live = topology
            .primary
            .and_then(|primary| self.slots[primary].live.load(&pin).as_ref());
        match live.filter(|live| live.serves()) {
            Some(live) => read(live),
            None => Err(self.no_primary(topology, Effect::None)),
        }
    }

    fn no_primary(&self, topology: &Topology, effect: Effect) -> Error {
        let what = match topology.primary {
            _ if topology.closed => "the store is closed".into(),
            Some(primary) => format!(
                "the primary {:?} is down: fail over, or start it again",
                self.slots[primary].name
            ),
            None if topology.moving => "a failover is under way".into(),
            None => "there is no primary: fail over".into(),
        };
        Error::Unavailable { what, effect }
    }

    /// Chooses a node for a read that needs to see `need`.
    pub(super) fn choose(&self, preference: &ReadPreference, need: Position, patient: bool) -> Choice {
        let pin = pin();
        let topology = self.topology.load(&pin);
        let newest = topology.primary.and_then(|primary| {
            let live = self.slots[primary].live.load(&pin).as_ref()?;
            live.serves().then(|| live.engine.applied())
        });
        let now = self.env.now();
        let live = |node: usize| self.slots[node].live.load(&pin).as_ref();
        let candidate = |node: usize| Candidate {
            slot: &self.slots[node],
            live: live(node),
            primary: topology.primary == Some(node),
            newest,
            epoch: topology.epoch,
            now,
        };
        let dice = || splitmix(self.dice.fetch_add(1, Ordering::Relaxed));
        match preference.pick(self.slots.len(), candidate, need, patient, dice) {
            Pick::Node(node) => live(node).map_or(Choice::Nobody, |live| Choice::Node(Arc::clone(live))),
            Pick::Behind => Choice::Behind,
            Pick::Nobody => Choice::Nobody,
        }
    }

    /// The best position among the nodes that answer reads.
    pub(super) fn best(&self) -> Position {
        let pin = pin();
        let lives = self.slots.iter().filter_map(|slot| slot.live.load(&pin).as_ref());
        let applied = lives.filter(|live| live.serves()).map(|live| live.engine.applied());
        applied.max().unwrap_or_default()
    }

    fn passage(&self, from: Option<usize>, to: Option<usize>) -> Passage {
        let name = |node: Option<usize>| node.map_or(CLIENT, |node| &self.slots[node].name);
        let link = self.link.as_ref();
        link.map_or(Passage::AtOnce, |link| link.pass(name(from), name(to)))
    }

    /// Whether what a session saw at `need` still holds.
    pub(super) fn check_survived(&self, need: Position) -> Result<()> {
        let pin = pin();
        // Most sessions saw something of the present epoch, or nothing.
        let topology = self.topology.load(&pin);
        match topology.history.fate(need, u64::MAX) {
            Fate::Survived | Fate::Ahead => Ok(()),
            Fate::Lost(survived) => Err(Error::TokenLost {
                log: self.log,
                need,
                survived,
            }),
        }
    }

    /// Carries out a batch at the primary; waits while there is about to be another one.
    pub(super) async fn commit(&self, mut batch: Batch, ack: Ack) -> Result<Receipt> {
        let mut permit = Some(self.in_flight.enter(self.options.max_pending)?);
        let mut tried = None;
        loop {
            let primary = self.primary(tried).await?;
            let permit = match permit.take() {
                Some(permit) => permit,
                None => self.in_flight.enter(self.options.max_pending)?,
            };
            match self.ask_primary(primary.1, batch, ack, permit).await {
                Ok(receipt) => return Ok(receipt),
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::NotPrimary(back)) => batch = back,
            }
            tried = Some(primary.0);
        }
    }

    async fn ask_primary(&self, primary: usize, batch: Batch, ack: Ack, permit: Permit) -> WriteAnswer {
        let slot = &self.slots[primary];
        let gone = |effect| {
            let what = format!("the primary {:?} has gone away", slot.name);
            Refused::Failed(Error::Unavailable { what, effect })
        };
        let arrives = travel(&self.env, self.passage(None, Some(primary))).await;
        arrives.map_err(|_| gone(Effect::Unknown))?;
        let (reply, answer) = oneshot::channel();
        match slot.send(Message::Commit(Write {
            batch,
            ack,
            reply,
            permit,
        })) {
            Ok(()) => {}
            Err(Message::Commit(write)) => return Err(Refused::NotPrimary(write.batch)),
            Err(_) => return Err(gone(Effect::None)),
        }
        let answer = answer.await.unwrap_or_else(|_| Err(gone(Effect::Unknown)));
        let arrives = travel(&self.env, self.passage(Some(primary), None)).await;
        arrives.map_err(|_| gone(Effect::Unknown)).and(answer)
    }

    /// The primary with its epoch: one newer than `tried`, whose primary had ceased to be one.
    async fn primary(&self, tried: Option<u64>) -> Result<(u64, usize)> {
        let look = || {
            let pin = pin();
            let topology = self.topology.load(&pin);
            let is_new = tried.is_none_or(|tried| topology.epoch > tried);
            match topology.primary {
                Some(primary) if is_new => Some(Ok((topology.epoch, primary))),
                _ if topology.moving => None,
                _ => Some(Err(self.no_primary(topology, Effect::None))),
            }
        };
        if let Some(found) = look() {
            return found;
        }
        let limit = self.options.write_timeout;
        let waited = self.env.timeout(limit, self.moved.wait(look)).await;
        waited.unwrap_or(Err(Error::Timeout { effect: Effect::None }))
    }

    /// Keeps records that a node gave up, until somebody takes them.
    pub(super) fn hand_back<'a>(&self, node: usize, entries: impl Iterator<Item = &'a Entry>) {
        let mut divergent = self.divergent.lock();
        for entry in entries {
            divergent.count += 1;
            divergent.records.push_back(Divergent {
                node: self.slots[node].name.clone(),
                at: entry.at,
                record: (*entry.record).clone(),
            });
            if divergent.records.len() > MAX_DIVERGENT {
                divergent.records.pop_front();
            }
        }
    }

    pub(super) fn take_divergent(&self) -> Vec<Divergent> {
        std::mem::take(&mut self.divergent.lock().records).into()
    }

    pub(super) fn status(&self) -> ReplicaStatus {
        let topology = self.topology();
        let pin = pin();
        let live = |node: usize| self.slots[node].live.load(&pin).as_ref();
        let primary = topology
            .primary
            .filter(|primary| live(*primary).is_some_and(|live| live.serves()));
        let newest = primary.and_then(live).map(|live| live.engine.applied());
        let now = self.env.now();
        let node = |(i, slot): (usize, &Slot)| {
            let report = slot.report.lock().clone();
            let live = live(i);
            let is_up = report.role != Role::Down;
            NodeStatus {
                name: slot.name.clone(),
                role: report.role,
                applied: live.map(|live| live.engine.applied()).unwrap_or_default(),
                durable: report.durable,
                lag: live
                    .filter(|live| live.serves())
                    .map(|live| node::lag(live, newest, now)),
                why: report.why.filter(|_| !is_up),
                failed_checkpoints: report.failed_checkpoints,
            }
        };
        ReplicaStatus {
            epoch: topology.epoch,
            primary: primary.map(|primary| self.slots[primary].name.clone()),
            nodes: self.slots.iter().enumerate().map(node).collect(),
            pending: self.in_flight.count(),
            divergent: self.divergent.lock().count,
        }
    }
}

/// Where a read goes.
pub(super) enum Choice {
    Node(Arc<Live>),
    Behind,
    Nobody,
}

/// Why a message had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreached {
    /// Nobody is there.
    Gone,
    /// It, or the answer, got lost on the way.
    Lost,
}

/// Sends a message from one node to another, or from the store itself, and waits for the answer.
pub(super) async fn ask<T>(
    shared: &Weak<Shared>,
    from: Option<usize>,
    to: usize,
    env: &Env,
    message: impl FnOnce(oneshot::Sender<T>) -> Message,
) -> Result<T, Unreached> {
    // Nothing is held while waiting: the store must be able to go.
    let passage = |from, to| {
        shared
            .upgrade()
            .map(|shared| shared.passage(from, to))
            .ok_or(Unreached::Gone)
    };
    travel(env, passage(from, Some(to))?).await?;
    let (reply, answer) = oneshot::channel();
    let sent = shared.upgrade().map(|shared| shared.slots[to].send(message(reply)));
    if !matches!(sent, Some(Ok(()))) {
        return Err(Unreached::Gone);
    }
    let answer = answer.await.map_err(|_| Unreached::Gone)?;
    travel(env, passage(Some(to), from)?).await?;
    Ok(answer)
}

async fn travel(env: &Env, passage: Passage) -> Result<(), Unreached> {
    match passage {
        Passage::AtOnce => {}
        Passage::After(time) => env.sleep(time).await,
        Passage::Lost => return Err(Unreached::Lost),
    }
    Ok(())
}

fn splitmix(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
