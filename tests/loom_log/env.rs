//! Time that passes when somebody waits for it.

use std::future::Future;
use std::ops::Add;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

impl Add<Duration> for Tick {
    type Output = Tick;

    fn add(self, time: Duration) -> Tick {
        Tick(self.0 + time.as_nanos() as u64)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Env {
    now: Arc<AtomicU64>,
}

impl Env {
    pub(crate) fn now(&self) -> Tick {
        Tick(self.now.load(Ordering::SeqCst))
    }

    pub(crate) fn coarse(&self) -> Tick {
        self.now()
    }

    pub(crate) fn sleep_until(&self, at: Tick) -> Sleep {
        Sleep { env: self.clone(), at }
    }
}

pub(crate) struct Sleep {
    env: Env,
    at: Tick,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.env.now.fetch_max(self.at.0, Ordering::SeqCst);
        // Others get on meanwhile.
        loom::thread::yield_now();
        Poll::Ready(())
    }
}
