use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// Runs a future on this thread, which sleeps while it waits. Unlike an executor's it may be called within another's, and
/// makes nothing but one waker per thread.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    thread_local!(static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current()))));
    let mut future = pin!(future);
    let _waiting = Waiting(WAITS.replace(true));
    WAKER.with(|waker| {
        let mut cx = Context::from_waker(waker);
        loop {
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(output) => return output,
                // One wake too many, perhaps of an earlier wait, costs a poll.
                Poll::Pending => thread::park(),
            }
        }
    })
}

/// Whether what asks is polled by [`wait`], so that it may block its thread, which has nothing else to do.
pub(crate) fn may_work_here() -> bool {
    WAITS.get()
}

/// Lets other tasks go first.
pub(crate) async fn give_way() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

thread_local!(static WAITS: Cell<bool> = const { Cell::new(false) });

/// Puts back what was there.
struct Waiting(bool);

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITS.set(self.0);
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::{may_work_here, wait};
    use futures::channel::oneshot;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
    fn a_thread_waits_for_another_within_an_executor_too() {
        let (send, receive) = oneshot::channel();
        let other = std::thread::spawn(move || send.send(7));
        let received = futures::executor::block_on(async { wait(receive) });
        assert!(wait(async { may_work_here() }) && !may_work_here());
        assert_eq!(received, Ok(7));
        assert_eq!(other.join().unwrap(), Ok(()));
    }
}
