use super::ear::{Drop as Forget, Ear, Verdict};
use super::outbox::{Outbox, Place};
use super::stats::TieredStats;
use crate::cache::InsertOptions;
use crate::cache::bus::{ErasedBus, Message, Notice, Origin};
use crate::cache::remember::{Entries, Lifetimes};
use crate::cache::stripes::{Fate, Lease, Stripes};
use crate::env::{Env, Tick};
use crate::store::{Entry, Error};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Counter, Mutex, Ordering, Waiters};
use bytes::Bytes;
use std::time::Duration;

/// How far the coarse clock may be behind. Nearer to the end of trust than this the exact clock decides.
const COARSE_LAG: Duration = Duration::from_millis(20);

/// What is cached, and what the bus says about it. It knows no store: it is told of writes and reads.
pub(super) struct Front {
    pub(super) env: Env,
    pub(super) bus: Box<dyn ErasedBus>,
    pub(super) me: Origin,
    /// How long the bus may be silent.
    pub(super) limit: Duration,
    pub(super) outbox: Outbox,
    entries: Entries,
    lifetimes: Lifetimes,
    stripes: Stripes,
    ear: Mutex<Ear>,
    /// Until when the entries may be used: what `ear` says, for readers, who take no lock.
    until: AtomicU64,
    /// Whether the task that listens has ended.
    deaf: AtomicBool,
    /// Those who wait for the bus to be heard for the first time.
    heard: Waiters,
    commits: Commits,
    pub(super) counters: Counters,
}

/// The commits under way, and whether more may begin.
#[derive(Debug, Default)]
struct Commits {
    running: AtomicUsize,
    refused: AtomicBool,
    idle: Waiters,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) bypassed: Counter,
    pub(super) sent: Counter,
    pub(super) unsent: Counter,
    pub(super) garbage: Counter,
    heard: Counter,
    missed: Counter,
    emptied: Counter,
    refused_fills: Counter,
}

impl Front {
    pub(super) fn new(
        env: Env,
        bus: Box<dyn ErasedBus>,
        limit: Duration,
        entries: Entries,
        lifetimes: Lifetimes,
    ) -> Front {
        let me = Origin::random(&mut env.rng("bus"));
        Front {
            env,
            bus,
            me,
            limit,
            outbox: Outbox::default(),
            entries,
            lifetimes,
            stripes: Stripes::new(),
            ear: Mutex::new(Ear::new(me, limit)),
            until: AtomicU64::new(0),
            deaf: AtomicBool::new(false),
            heard: Waiters::default(),
            commits: Commits::default(),
            counters: Counters::default(),
        }
    }

    /// The map, to read and to load through. Nothing is put into it but by [`keep`](Front::keep).
    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Whether what is cached may be used at this moment, whatever the tasks got to do lately.
    pub(super) fn is_hearing(&self) -> bool {
        let until = Tick::from_nanos(self.until.load(Ordering::Acquire));
        self.env.coarse() + COARSE_LAG < until || self.env.now() < until
    }

    /// Waits until the bus is heard, or never will be.
    pub(super) async fn hearing(&self) {
        let settled = || {
            let over = self.deaf.load(Ordering::Acquire) || self.outbox.is_closed();
            (over || self.is_hearing()).then_some(())
        };
        self.heard.wait(settled).await;
    }

    /// A read of `key` from the store below begins.
    pub(super) fn lease(&self, key: &[u8]) -> Lease {
        self.stripes.lease(self.entries.hash(key))
    }

    /// Keeps what a read under `lease` found for as long as it may be, unless a write has overtaken it.
    pub(super) fn keep(&self, key: Bytes, found: Option<Entry>, lease: Lease) {
        let ttl = self.lifetimes.of(found.as_ref(), self.env.wall());
        if ttl.is_zero() || !self.is_hearing() {
            return;
        }
        let (hash, version) = (self.entries.hash(&key[..]), found.as_ref().map(|entry| entry.version));
        let fill = || self.entries.fill(key, found, &InsertOptions::new().ttl(ttl));
        if !self.stripes.fill(hash, lease, version, fill) {
            self.counters.refused_fills.add(1);
        }
    }

    /// Drops keys that may have been written.
    fn forget(&self, keys: &[Bytes]) {
        for key in keys {
            let hash = self.entries.hash(&key[..]);
            // What a store that lost data holds may be older than what it held, so versions judge nothing here.
            self.stripes.heard(hash, Fate::Unknown);
            self.entries.remove_if(hash, &key[..], |_| true);
        }
    }

    fn empty(&self) {
        self.stripes.forget();
        self.entries.clear();
    }

    /// Drops keys that this process may have written, and has others told.
    pub(super) fn wrote(&self, keys: &[Bytes]) -> Place {
        self.forget(keys);
        self.outbox.put(keys)
    }

    /// Drops everything, here and elsewhere.
    pub(super) fn forget_all(&self) -> Place {
        self.empty();
        self.outbox.put_everything()
    }

    /// Drops everything here.
    pub(super) fn clear(&self) {
        self.empty();
    }

    /// Waits until others were told, but no longer than the bus may be silent.
    pub(super) async fn told(&self, place: Place) {
        // Where it could not be said in time, that is counted, and others will notice.
        let _late = self.env.timeout(self.limit, self.outbox.reached(place)).await;
    }

    pub(super) fn subscribed(&self) {
        self.ear.lock().subscribed(self.env.now());
    }

    /// The subscription ended, or the task that listened.
    pub(super) fn ended(&self) {
        let believed = self.ear.lock().ended(self.env.now());
        self.until.store(0, Ordering::Release);
        self.empty();
        if believed {
            self.counters.missed.add(1);
            self.counters.emptied.add(1);
        }
    }

    /// Nobody listens any more.
    pub(super) fn deafen(&self) {
        self.deaf.store(true, Ordering::Release);
        self.heard.wake_all();
    }

    /// Nobody speaks any more.
    pub(super) fn mute(&self) {
        self.outbox.close();
        self.heard.wake_all();
    }

    pub(super) fn hear(&self, message: &Message) {
        let (verdict, until) = {
            let mut ear = self.ear.lock();
            (ear.hear(self.env.now(), message), ear.until())
        };
        if message.origin != self.me
            && let Notice::Keys(keys) = &message.notice
        {
            self.counters.heard.add(keys.len() as u64);
        }
        self.follow(&verdict, until);
    }

    /// Looks at what was not heard; says when to look again.
    pub(super) fn check(&self) -> Tick {
        let (verdict, until, next) = {
            let mut ear = self.ear.lock();
            (ear.check(self.env.now()), ear.until(), ear.next_check())
        };
        self.follow(&verdict, until);
        next
    }

    fn follow(&self, verdict: &Verdict<'_>, until: Tick) {
        if !verdict.begins {
            self.until.store(until.as_nanos(), Ordering::Release);
        }
        if verdict.missed {
            self.counters.missed.add(1);
        }
        match verdict.drop {
            Forget::Nothing => {}
            Forget::Keys(keys) => self.forget(keys),
            Forget::Everything => {
                self.empty();
                if !verdict.begins {
                    self.counters.emptied.add(1);
                }
            }
        }
        if verdict.begins {
            self.until.store(until.as_nanos(), Ordering::Release);
            self.heard.wake_all();
        }
    }

    pub(super) fn stats(&self) -> TieredStats {
        let Counters {
            bypassed,
            sent,
            unsent,
            garbage,
            heard,
            missed,
            emptied,
            refused_fills,
        } = &self.counters;
        TieredStats {
            cache: self.entries.stats(),
            hearing: self.is_hearing(),
            peers: self.ear.lock().peers(),
            missed_heartbeats: missed.sum(),
            emptied: emptied.sum(),
            invalidations_heard: heard.sum(),
            invalidations_sent: sent.sum(),
            unsent: unsent.sum(),
            garbage: garbage.sum(),
            bypassed: bypassed.sum(),
            refused_fills: refused_fills.sum(),
        }
    }
}

impl Front {
    /// Begins a commit that writes `keys`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when nobody would tell others of it.
    pub(super) fn begin(&self, keys: Vec<Bytes>) -> Result<Writing<'_>, Error> {
        // Counted before it looks, so that whoever refuses more and sees none under way has seen the last.
        self.commits.running.fetch_add(1, Ordering::SeqCst);
        let writing = Writing { front: self, keys };
        if self.commits.refused.load(Ordering::SeqCst) || self.outbox.is_closed() {
            writing.wrote_nothing();
            let what = "the cache is closed, and other caches would not hear of this write";
            return Err(Error::unavailable(what, crate::store::Effect::None));
        }
        Ok(writing)
    }

    /// Refuses more commits, and waits for those under way.
    pub(super) async fn finish_commits(&self) {
        self.commits.refused.store(true, Ordering::SeqCst);
        let none = || (self.commits.running.load(Ordering::SeqCst) == 0).then_some(());
        self.commits.idle.wait(none).await;
    }
}

/// A commit under way. When it ends, by being dropped too, what it may have written is forgotten here and elsewhere.
#[must_use]
pub(super) struct Writing<'a> {
    front: &'a Front,
    keys: Vec<Bytes>,
}

impl Writing<'_> {
    /// It wrote, or may have. Says when others know; at once if there is nothing to know.
    pub(super) fn wrote(mut self) -> Option<Place> {
        let keys = std::mem::take(&mut self.keys);
        (!keys.is_empty()).then(|| self.front.wrote(&keys))
    }

    pub(super) fn wrote_nothing(mut self) {
        self.keys.clear();
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.front.wrote(&self.keys);
        }
        let commits = &self.front.commits;
        if commits.running.fetch_sub(1, Ordering::SeqCst) == 1 && commits.refused.load(Ordering::SeqCst) {
            commits.idle.wake_all();
        }
    }
}
