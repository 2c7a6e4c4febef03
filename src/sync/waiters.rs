use super::{AtomicUsize, Mutex, Ordering};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Tasks that wait for a condition which somebody else makes true, in the order in which they came.
///
/// [`wake`](Waiters::wake) wakes as many as the news can serve. One that is dropped after it was woken hands the wake on,
/// so no news is lost with it.
#[derive(Default)]
pub(crate) struct Waiters {
    list: Mutex<List>,
    /// How many are on the list.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct List {
    waiting: BTreeMap<u64, Waker>,
    last: u64,
}

impl Waiters {
    /// Waits until `check` gives something. Whoever changes what `check` looks at must call `wake` afterwards.
    ///
    /// # Cancel safety
    /// Dropping the future takes it off the list and passes on a wake that it did not use.
    pub(crate) async fn wait<T>(&self, mut check: impl FnMut() -> Option<T>) -> T {
        let mut place = Place { list: self, id: None };
        poll_fn(|cx| {
            let found = check().or_else(|| {
                place.keep(cx.waker());
                // The news may have come between the look and the entry in the list.
                check()
            });
            if found.is_some() {
                place.leave();
            }
            found.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Whether anybody waits, for those who hold the lock under which `check` looks: whoever comes on the list after this
    /// looks once more behind that lock.
    pub(crate) fn has_any(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Wakes up to `n` of those who wait, the oldest first.
    pub(crate) fn wake(&self, n: usize) {
        for _ in 0..n {
            let oldest = self.change(|list| list.waiting.pop_first());
            match oldest {
                Some((_, waker)) => waker.wake(),
                None => return,
            }
        }
    }

    /// Wakes all who wait.
    pub(crate) fn wake_all(&self) {
        let all = self.change(|list| std::mem::take(&mut list.waiting));
        all.into_values().for_each(Waker::wake);
    }

    fn change<T>(&self, change: impl FnOnce(&mut List) -> T) -> T {
        let mut list = self.list.lock();
        let result = change(&mut list);
        self.waiting.store(list.waiting.len(), Ordering::Relaxed);
        result
    }
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waiting", self.list.lock().waiting.len())
    }
}

/// One waiter's place in the list.
struct Place<'a> {
    list: &'a Waiters,
    id: Option<u64>,
}

impl Place<'_> {
    fn keep(&mut self, waker: &Waker) {
        self.list.change(|list| {
            let id = *self.id.get_or_insert_with(|| {
                list.last += 1;
                list.last
            });
            list.waiting.insert(id, waker.clone())
        });
    }

    /// Leaves the list, and says whether it had been woken since it last entered.
    fn leave(&mut self) -> bool {
        let id = self.id.take();
        id.is_some_and(|id| self.list.change(|list| list.waiting.remove(&id)).is_none())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.leave() {
            self.list.wake(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::task::Context;

    #[test]
    fn a_dropped_waiter_hands_its_wake_on() {
        let waiters = Waiters::default();
        let ready = AtomicUsize::new(0);
        let take = || (ready.load(Ordering::Relaxed) > 0).then(|| ready.fetch_sub(1, Ordering::Relaxed));
        let mut first = Box::pin(waiters.wait(take));
        let mut second = Box::pin(waiters.wait(take));
        let cx = &mut Context::from_waker(futures::task::noop_waker_ref());
        assert!(first.poll_unpin(cx).is_pending());
        assert!(second.poll_unpin(cx).is_pending());
        ready.store(1, Ordering::Relaxed);
        waiters.wake(1);
        assert_eq!(format!("{waiters:?}"), "1 waiting");
        drop(first);
        assert_eq!(format!("{waiters:?}"), "0 waiting");
        assert!(second.poll_unpin(cx).is_ready());
    }
}
