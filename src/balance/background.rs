use super::PoolStatus;
use super::check::Ledger;
use super::discover::Journal;
use crate::env::Tick;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, Waiters};
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

/// What a pool and those who work for it from outside, its discovery and its checks, tell each other. They hold it, and
/// the pool itself only weakly.
#[derive(Default)]
pub(super) struct Background {
    pub(super) discovery: Post<Journal>,
    pub(super) checks: Post<Ledger>,
    news: Waiters,
    changes: AtomicU64,
    gone: AtomicBool,
}

impl Background {
    /// Says that the membership changed, after it did.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.news.wake_all();
    }

    /// Adds what the discovery and the checks wrote down.
    pub(super) fn tell(&self, status: &mut PoolStatus, now: Tick) {
        status.discovery = self.discovery.read(|journal| journal.status(now));
        self.checks.read(|ledger| ledger.tell(&mut status.endpoints, now));
    }

    /// How often the membership changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Gives whoever asks the post, and a turn to know it by. The one who had it is woken, finds it
    /// [over](Background::over), and has nothing to [write](Post::work) any more.
    pub(super) fn take<W>(&self, post: &Post<W>, begin: impl FnOnce(&mut W)) -> u64 {
        let mut held = post.held.lock();
        held.turn += 1;
        begin(&mut held.work);
        let turn = held.turn;
        drop(held);
        self.news.wake_all();
        turn
    }

    /// Waits until the pool is gone or somebody else has the post.
    pub(super) fn over<W>(&self, post: &Post<W>, turn: u64) -> impl Future<Output = ()> {
        self.news.wait(move || self.is_over(post, turn).then_some(()))
    }

    /// Waits until the membership is another than after `seen` changes, or the work is over.
    pub(super) fn changed_since<W>(&self, seen: u64, post: &Post<W>, turn: u64) -> impl Future<Output = ()> {
        let check = move || (self.changes() != seen || self.is_over(post, turn)).then_some(());
        self.news.wait(check)
    }

    fn is_over<W>(&self, post: &Post<W>, turn: u64) -> bool {
        self.gone.load(Ordering::Acquire) || post.held.lock().turn != turn
    }
}

/// A job that one future at a time has, and what it wrote down.
#[derive(Default)]
pub(super) struct Post<W> {
    held: Mutex<Held<W>>,
}

#[derive(Default)]
struct Held<W> {
    turn: u64,
    work: W,
}

impl<W> Post<W> {
    /// Lets the holder of `turn` work; `None` when it is somebody else's by now.
    pub(super) fn work<R>(&self, turn: u64, work: impl FnOnce(&mut W) -> R) -> Option<R> {
        let mut held = self.held.lock();
        (held.turn == turn).then(|| work(&mut held.work))
    }

    /// Looks at what was written down.
    fn read<R>(&self, read: impl FnOnce(&W) -> R) -> R {
        read(&self.held.lock().work)
    }
}

/// The pool's own hold, whose end is the pool's.
#[derive(Default)]
pub(super) struct Home(Arc<Background>);

impl Deref for Home {
    type Target = Arc<Background>;
    fn deref(&self) -> &Arc<Background> {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
        self.0.news.wake_all();
    }
}

/// The [`Env`](crate::env::Env) of the pool has no runtime where futures of the user's may be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the env has no runtime for futures of the user's: give it a spawner, or spawn the future yourself")]
pub struct NeedsSpawner;

/// The first part of what an error says: enough to know it by, and no more than a status should hold.
pub(super) fn brief(error: &impl ToString) -> String {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(MOST_TEXT));
    text
}

/// A share within 0 and 1; what is no number is none.
pub(super) fn share(given: f64) -> f64 {
    if given.is_nan() { 0.0 } else { given.clamp(0.0, 1.0) }
}

/// Bytes that a status keeps of an error's text.
const MOST_TEXT: usize = 400;
