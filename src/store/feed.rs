use super::{Entry, Error, LogId, Position, Record, Result};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use futures::task::AtomicWaker;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Weak};
use std::task::Poll;

/// The ordered changes of a store: what caches, views, mirrors and resharding follow.
pub trait Feed: Send + Sync {
    /// The log that the positions belong to, as in a [`Token`](super::Token).
    fn log(&self) -> LogId;

    /// The newest position: what a follower has to reach to have seen everything committed so far.
    fn position(&self) -> Position;

    /// Every record after `from`, then each new one as it is committed, without end.
    ///
    /// Fails with [`Error::PositionGone`] when the feed no longer goes back to `from`, or when the follower falls
    /// behind what is kept; the stream ends with any error.
    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>>;

    /// Everything live as of one moment, with the position to watch from.
    #[allow(
        clippy::type_complexity,
        reason = "each of its parts is the name of a thing that the caller gets"
    )]
    fn snapshot(&self) -> impl Future<Output = Result<(Position, BoxStream<'_, Result<(Bytes, Entry)>>)>> + Send;

    /// Calls `follower` with each record, in order, before the commit that made it returns. It must be quick and must
    /// not call the store. It is forgotten when its last `Arc` goes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] from a store whose commits happen elsewhere.
    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()>;
}

#[deny(clippy::missing_trait_methods)]
impl<F: Feed + ?Sized> Feed for Arc<F> {
    fn log(&self) -> LogId {
        (**self).log()
    }

    fn position(&self) -> Position {
        (**self).position()
    }

    fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        (**self).watch(from)
    }

    fn snapshot(&self) -> impl Future<Output = Result<(Position, BoxStream<'_, Result<(Bytes, Entry)>>)>> + Send {
        (**self).snapshot()
    }

    fn attach(&self, follower: Weak<dyn Follower>) -> Result<()> {
        (**self).attach(follower)
    }
}

/// Hears of each change before the commit returns; see [`Feed::attach`].
pub trait Follower: Send + Sync {
    /// `record` was committed at `at`.
    fn committed(&self, at: Position, record: &Record);
}

/// The most recent records of a feed in memory, with those who wait for more: the part that stores share.
pub(crate) struct FeedBuffer {
    state: Mutex<State>,
}

struct State {
    /// The position before the first record kept.
    oldest: Position,
    newest: Position,
    records: VecDeque<(Position, Arc<Record>)>,
    keep: usize,
    followers: Vec<Weak<dyn Follower>>,
    waiting: Vec<Weak<AtomicWaker>>,
}

impl FeedBuffer {
    /// A feed that starts after `at` and keeps the last `keep` records.
    pub(crate) fn new(at: Position, keep: usize) -> FeedBuffer {
        let state = State {
            oldest: at,
            newest: at,
            records: VecDeque::new(),
            keep: keep.max(1),
            followers: Vec::new(),
            waiting: Vec::new(),
        };
        FeedBuffer {
            state: Mutex::new(state),
        }
    }

    pub(crate) fn position(&self) -> Position {
        self.state.lock().newest
    }

    pub(crate) fn attach(&self, follower: Weak<dyn Follower>) {
        let mut state = self.state.lock();
        state.followers.retain(|follower| follower.strong_count() > 0);
        state.followers.push(follower);
    }

    /// Adds a record, tells the synchronous followers, then wakes the others. Calls come in the order of positions.
    pub(crate) fn push(&self, at: Position, record: impl Into<Arc<Record>>) {
        let record = record.into();
        let mut state = self.state.lock();
        state.newest = at;
        state.records.push_back((at, Arc::clone(&record)));
        if state.records.len() > state.keep
            && let Some((gone, _)) = state.records.pop_front()
        {
            state.oldest = gone;
        }
        for follower in &state.followers {
            if let Some(follower) = follower.upgrade() {
                follower.committed(at, &record);
            }
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waker in waiting.iter().filter_map(Weak::upgrade) {
            waker.wake();
        }
    }

    /// Starts anew after `at`: whoever watches from before it has to take a snapshot.
    pub(crate) fn reset(&self, at: Position) {
        let mut state = self.state.lock();
        state.records.clear();
        state.oldest = at;
        state.newest = at;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.iter().filter_map(Weak::upgrade).for_each(|waker| waker.wake());
    }

    /// Every record after `from`, for ever.
    pub(crate) fn watch(&self, from: Position) -> BoxStream<'_, Result<(Position, Record)>> {
        let waker = Arc::new(AtomicWaker::new());
        stream::try_unfold((from, waker), move |(from, waker)| async move {
            let (at, record) = poll_fn(|cx| {
                waker.register(cx.waker());
                let mut state = self.state.lock();
                let next = state.after(from);
                if matches!(next, Ok(None)) {
                    state.wait(&waker);
                }
                next.transpose().map_or(Poll::Pending, Poll::Ready)
            })
            .await?;
            Ok(Some(((at, Record::clone(&record)), (at, waker))))
        })
        .boxed()
    }
}

impl State {
    /// The first record after `from`.
    fn after(&self, from: Position) -> Result<Option<(Position, Arc<Record>)>> {
        if from < self.oldest || from > self.newest {
            return Err(Error::PositionGone { oldest: self.oldest });
        }
        let next = self.records.partition_point(|(at, _)| *at <= from);
        Ok(self.records.get(next).cloned())
    }

    fn wait(&mut self, waker: &Arc<AtomicWaker>) {
        let me = Arc::downgrade(waker);
        if !self.waiting.iter().any(|waiting| waiting.ptr_eq(&me)) {
            self.waiting.retain(|waiting| waiting.strong_count() > 0);
            self.waiting.push(me);
        }
    }
}

impl fmt::Debug for FeedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("FeedBuffer")
            .field("oldest", &state.oldest)
            .field("newest", &state.newest)
            .field("followers", &state.followers.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;

    fn at(seq: u64) -> Position {
        Position::new(1, seq)
    }

    #[test]
    fn watchers_see_what_is_kept_and_then_what_comes() {
        let feed = FeedBuffer::new(at(0), 2);
        feed.push(at(1), Record::default());
        feed.push(at(2), Record::default());
        let mut watch = feed.watch(at(0));
        let mut next = || block_on(watch.next()).unwrap().map(|(at, _)| at.seq);
        assert_eq!(next().unwrap(), 1);
        assert_eq!(next().unwrap(), 2);
        feed.push(at(3), Record::default());
        assert_eq!(next().unwrap(), 3);
        let gone = block_on(feed.watch(at(0)).next()).unwrap().unwrap_err();
        assert!(matches!(gone, Error::PositionGone { oldest } if oldest == at(1)));
        let ahead = block_on(feed.watch(at(9)).next()).unwrap();
        assert!(matches!(ahead, Err(Error::PositionGone { .. })));
    }

    #[test]
    fn a_waiting_watcher_is_woken_and_a_dropped_one_forgotten() {
        let feed = FeedBuffer::new(at(0), 10);
        let mut watch = feed.watch(at(0));
        for _ in 0..3 {
            assert!(watch.next().now_or_never().is_none());
        }
        assert_eq!(feed.state.lock().waiting.len(), 1);
        drop(feed.watch(at(0)).next().now_or_never());
        feed.push(at(1), Record::default());
        assert_eq!(block_on(watch.next()).unwrap().unwrap().0, at(1));
        assert_eq!(feed.state.lock().waiting.len(), 0);
    }
}
