use crate::queue::Result;
use crate::sync::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::vec;

/// What becomes of an append that is on its way, for those who wait for it: each is woken once.
///
/// Whoever tells it wakes them one after the other. The first of them to look wakes those that are left: it is likely to be
/// of their thread, where wakes cost little, and is there before another thread has woken them all.
#[derive(Debug)]
pub(super) struct Fate {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Vec<Option<Waker>>),
    /// With those who still have to be woken.
    Told(Result<()>, vec::IntoIter<Option<Waker>>),
}

impl Default for Fate {
    fn default() -> Fate {
        Fate {
            state: Mutex::new(State::Open(Vec::new())),
        }
    }
}

impl Fate {
    /// Settles it. Whoever waits still has to be [woken](Fate::wake).
    pub(super) fn tell(&self, result: Result<()>) {
        let mut state = self.state.lock();
        if let State::Open(waiting) = &mut *state {
            let waiting = std::mem::take(waiting);
            *state = State::Told(result, waiting.into_iter());
        }
    }

    pub(super) fn wake(&self) {
        while let Some(waker) = self.next() {
            waker.wake();
        }
    }

    /// The next one to be woken.
    fn next(&self) -> Option<Waker> {
        match &mut *self.state.lock() {
            State::Open(_) => None,
            State::Told(_, waiting) => waiting.flatten().next(),
        }
    }

    /// Waits until it is settled.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(super) fn wait(self: &Arc<Fate>) -> Seat {
        Seat {
            of: Arc::clone(self),
            at: None,
        }
    }
}

/// The place of one who waits, which is taken at the first poll.
#[derive(Debug)]
#[must_use = "whoever does not poll does not wait"]
pub(super) struct Seat {
    of: Arc<Fate>,
    at: Option<usize>,
}

impl Seat {
    pub(super) fn fate(&self) -> &Arc<Fate> {
        &self.of
    }
}

impl Future for Seat {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Seat { of, at } = &mut *self;
        // Dropped behind the lock: what goes with a waker may have a seat here.
        let mut old = None;
        let mut state = of.state.lock();
        match &mut *state {
            State::Told(result, waiting) => {
                *at = None;
                let (result, waiting) = (result.clone(), std::mem::take(waiting));
                drop(state);
                waiting.flatten().for_each(Waker::wake);
                Poll::Ready(result)
            }
            State::Open(waiting) => {
                match *at {
                    Some(at) if waiting[at].as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) => {}
                    Some(at) => old = waiting[at].replace(cx.waker().clone()),
                    None => {
                        *at = Some(waiting.len());
                        waiting.push(Some(cx.waker().clone()));
                    }
                }
                drop(state);
                drop(old);
                Poll::Pending
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(at) = self.at else { return };
        let gone = match &mut *self.of.state.lock() {
            State::Open(waiting) => waiting[at].take(),
            State::Told(..) => None,
        };
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use crate::queue::Error;
    use crate::sync::{AtomicUsize, Ordering};
    use futures::FutureExt;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many that wait, each with the count of its wakes.
    fn waiting(fate: &Arc<Fate>, many: usize) -> Vec<(Seat, Arc<Count>)> {
        let wait = |_| {
            let (mut seat, count) = (fate.wait(), Arc::new(Count::default()));
            assert_eq!(poll(&mut seat, &count), Poll::Pending);
            (seat, count)
        };
        (0..many).map(wait).collect()
    }

    fn poll(seat: &mut Seat, count: &Arc<Count>) -> Poll<Result<()>> {
        seat.poll_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(count))))
    }

    fn wakes(all: &[(Seat, Arc<Count>)]) -> Vec<usize> {
        all.iter().map(|(_, count)| count.0.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn the_first_to_look_wakes_the_others_and_nobody_is_woken_twice() {
        let fate = Arc::new(Fate::default());
        let mut all = waiting(&fate, 4);
        // One polls with another waker later, and one goes.
        let other = Arc::new(Count::default());
        assert_eq!(poll(&mut all[2].0, &other), Poll::Pending);
        all[2].1 = other;
        drop(all.remove(1));
        fate.tell(Ok(()));
        assert_eq!(wakes(&all), [0, 0, 0]);
        assert_eq!(fate.next().map(Waker::wake), Some(()));
        assert_eq!(wakes(&all), [1, 0, 0], "in the order in which they came");
        let (first, count) = &mut all[0];
        assert_eq!(poll(first, count), Poll::Ready(Ok(())));
        assert_eq!(wakes(&all), [1, 1, 1]);
        fate.wake();
        assert_eq!(wakes(&all), [1, 1, 1]);
        for (seat, count) in &mut all[1..] {
            assert_eq!(poll(seat, count), Poll::Ready(Ok(())));
        }
        assert_eq!(fate.wait().now_or_never(), Some(Ok(())), "also whoever comes late");
    }

    #[test]
    fn all_are_woken_when_nobody_looks() {
        let fate = Arc::new(Fate::default());
        let all = waiting(&fate, 3);
        fate.wake();
        assert_eq!(wakes(&all), [0; 3], "there is nothing to hear");
        fate.tell(Err(Error::Closed));
        fate.tell(Ok(()));
        fate.wake();
        assert_eq!(wakes(&all), [1; 3]);
        assert_eq!(fate.wait().now_or_never(), Some(Err(Error::Closed)), "it is told once");
    }
}
