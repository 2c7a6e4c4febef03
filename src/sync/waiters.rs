use super::Mutex;
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

    /// Wakes up to `n` of those who wait, the oldest first.
    pub(crate) fn wake(&self, n: usize) {
        for _ in 0..n {
            let oldest = self.list.lock().waiting.pop_first();
            match oldest {
                Some((_, waker)) => waker.wake(),
                None => return,
            }
        }
    }

    /// Wakes all who wait.
    pub(crate) fn wake_all(&self) {
        let all = std::mem::take(&mut self.list.lock().waiting);
        all.into_values().for_each(Waker::wake);
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
        let mut list = self.list.list.lock();
        let id = *self.id.get_or_insert_with(|| {
            list.last += 1;
            list.last
        });
        list.waiting.insert(id, waker.clone());
    }

    /// Leaves the list, and says whether it had been woken since it last entered.
    fn leave(&mut self) -> bool {
        let id = self.id.take();
        id.is_some_and(|id| self.list.list.lock().waiting.remove(&id).is_none())
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
    use crate::sync::{AtomicUsize, Ordering};
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
