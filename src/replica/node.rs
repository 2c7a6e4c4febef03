//! What a node is to the rest of the store: the state that others read, and the messages that it takes.

use super::accept::{Answer, Append};
use super::choose::Promised;
use super::history::History;
use super::preference::Routable;
use super::{Ack, status::Role};
use crate::env::{Env, Tick};
use crate::store::{Batch, Engine, Entry, Error, MemoryEngine, Position, Receipt, Result, Snapshot};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, Published, RwLock, Waiters};
use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use std::sync::Arc;
use std::time::Duration;

/// A place for a node in the store, whether the node runs or not.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) tags: Vec<(String, String)>,
    /// The present engine with what is known of it; another one after a restart, a snapshot or a rebuild.
    pub(super) live: Published<Option<Arc<Live>>>,
    /// Where its messages go.
    pub(super) door: RwLock<Option<mpsc::UnboundedSender<Message>>>,
    pub(super) report: Mutex<Report>,
}

/// What a node last said of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// Counts the node's starts, so that a late word of an earlier life is not taken for one of this.
    pub(super) life: u64,
    pub(super) role: Role,
    pub(super) durable: Position,
    pub(super) promised: u64,
    /// Why it is down.
    pub(super) why: Option<String>,
    pub(super) failed_checkpoints: u64,
}

/// A node's engine, and what readers have to know before they ask it.
pub(super) struct Live {
    pub(super) env: Env,
    pub(super) engine: MemoryEngine,
    /// Whether its state is a prefix of what the present primary has, and not an ancient one.
    pub(super) serving: AtomicBool,
    pub(super) in_flight: AtomicU32,
    /// When the primary had nothing more than this has now, in nanoseconds.
    fresh_at: AtomicU64,
}

impl Live {
    pub(super) fn new(env: Env) -> Live {
        Live {
            env,
            engine: MemoryEngine::new(),
            serving: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            fresh_at: AtomicU64::new(0),
        }
    }

    pub(super) fn serves(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    pub(super) fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Release);
    }

    pub(super) fn set_fresh(&self, at: Tick) {
        self.fresh_at.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let entry = self.engine.get(key)?;
        // Most entries live for ever, and those need no clock.
        Ok(entry.filter(|entry| entry.expires.is_none() || entry.is_live(self.env.wall())))
    }
}

impl Slot {
    pub(super) fn new(name: String, tags: Vec<(String, String)>) -> Slot {
        Slot {
            name,
            tags,
            live: Published::new(None),
            door: RwLock::new(None),
            report: Mutex::default(),
        }
    }

    /// Sends it a message; gives it back when nobody is there.
    pub(super) fn send(&self, message: Message) -> Result<(), Message> {
        match &*self.door.read() {
            Some(door) => door.unbounded_send(message).map_err(mpsc::TrySendError::into_inner),
            None => Err(message),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.door.read().as_ref().is_some_and(|door| !door.is_closed())
    }
}

/// A slot as one read sees it.
pub(super) struct Candidate<'a> {
    pub(super) slot: &'a Slot,
    pub(super) live: Option<&'a Arc<Live>>,
    pub(super) primary: bool,
    /// What the primary has got to, if it is up.
    pub(super) newest: Option<Position>,
    /// The newest epoch of which it is known what it kept of the older ones.
    pub(super) epoch: u64,
    pub(super) now: Tick,
}

impl Routable for Candidate<'_> {
    fn serves(&self) -> bool {
        self.live.is_some_and(|live| live.serves())
    }

    fn is_primary(&self) -> bool {
        self.primary
    }

    fn has_tag(&self, name: &str, value: &str) -> bool {
        self.slot.tags.iter().any(|(n, v)| n == name && v == value)
    }

    fn lag(&self) -> Duration {
        self.live.map_or(Duration::MAX, |live| lag(live, self.newest, self.now))
    }

    fn has(&self, need: Position) -> bool {
        let applied = self.live.map(|live| live.engine.applied());
        // A node may be ahead of the news: of an epoch that has only begun, nobody can say yet whether it kept `need`.
        applied.is_some_and(|applied| applied >= need && applied.epoch <= self.epoch)
    }

    fn in_flight(&self) -> u32 {
        self.live.map_or(0, |live| live.in_flight.load(Ordering::Relaxed))
    }
}

/// How far a node may be behind: nothing when it has all that the primary has, else since it last had.
pub(super) fn lag(live: &Live, newest: Option<Position>, now: Tick) -> Duration {
    if newest.is_some_and(|newest| live.engine.applied() >= newest) {
        return Duration::ZERO;
    }
    now - Tick::from_nanos(live.fresh_at.load(Ordering::Relaxed))
}

/// What a node is asked to do. All but the first come from the primary or from a failover.
pub(super) enum Message {
    /// Carry out a batch, as the primary.
    Commit(Write),
    /// Take these records.
    Append(Append, oneshot::Sender<Answer>),
    /// Take this state.
    Install(Box<Install>, oneshot::Sender<Answer>),
    /// Count towards a majority from now on.
    Admit { epoch: u64, reply: oneshot::Sender<Answer> },
    /// Obey nobody older than `epoch`.
    Promise {
        epoch: u64,
        reply: oneshot::Sender<PromiseAnswer>,
    },
    /// Be the primary of `epoch`.
    Promote {
        epoch: u64,
        reply: oneshot::Sender<Promoted>,
    },
    /// Write what these keys hold once more, with a new version.
    Restate {
        keys: Vec<Bytes>,
        reply: oneshot::Sender<WriteAnswer>,
    },
    /// That node has been started again.
    Back(usize),
    /// Say that you are there.
    Ping(oneshot::Sender<()>),
    /// Finish, and free the directory.
    Close(oneshot::Sender<()>),
}

/// A batch on its way, and whom to tell.
pub(super) struct Write {
    pub(super) batch: Batch,
    pub(super) ack: Ack,
    pub(super) reply: oneshot::Sender<WriteAnswer>,
    pub(super) permit: Permit,
}

/// How a write ended.
pub(super) type WriteAnswer = Result<Receipt, Refused>;

/// Why there is no receipt.
pub(super) enum Refused {
    /// It asked a node that is not the primary; nothing has happened.
    NotPrimary(Batch),
    Failed(Error),
}

/// A primary's state for a node that its log no longer helps.
pub(super) struct Install {
    pub(super) epoch: u64,
    pub(super) history: History,
    /// The same state twice: for the node's disk and for its engine.
    pub(super) for_disk: Snapshot,
    pub(super) for_engine: Snapshot,
}

/// A node's answer to a new epoch.
pub(super) enum PromiseAnswer {
    Promised {
        promised: Promised,
        history: History,
        /// What its engine has.
        applied: Position,
    },
    /// It has promised this one, which is not older.
    Refused { promised: u64 },
}

/// A primary in office: its first record, and all before it, are committed.
#[derive(Clone, Debug)]
pub(super) struct Promoted {
    pub(super) start: Position,
    pub(super) history: History,
}

/// Writes under way, with the bound on them.
#[derive(Default)]
pub(super) struct InFlight {
    count: AtomicUsize,
    /// Those who wait until there are none.
    idle: Waiters,
}

/// One write under way, until it is dropped.
pub(super) struct Permit(Arc<InFlight>);

impl InFlight {
    /// Counts one more, unless there are `max`.
    pub(super) fn enter(self: &Arc<InFlight>, max: usize) -> Result<Permit> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Full {
                what: format!("{max} writes wait for their acknowledgement; raise max_pending or slow down"),
            });
        }
        Ok(Permit(Arc::clone(self)))
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) async fn idle(&self) {
        self.idle.wait(|| (self.count() == 0).then_some(())).await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.wake_all();
        }
    }
}
