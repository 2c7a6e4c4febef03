use futures::future::{Either, select};
use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A source of time and timers. Implemented by the operating system and by the simulated world.
///
/// Callers use [`Env::sleep`](super::Env::sleep) rather than the timer calls below.
pub trait Clock: Send + Sync {
    /// The monotonic time.
    fn now(&self) -> Tick;

    /// The monotonic time, possibly a few milliseconds old, at the lowest price the platform has.
    fn coarse(&self) -> Tick;

    /// A monotonic time for how long things take, which may drift from the others, and so is compared with nothing but
    /// itself: at half the price of [`now`](Clock::now) where the processor counts by itself. By default that time.
    fn stopwatch(&self) -> Tick {
        self.now()
    }

    /// The wall-clock time.
    fn wall(&self) -> WallTime;

    /// Wakes `waker` once when the time reaches `at`, and holds it until then or until the timer is disarmed.
    fn arm(&self, at: Tick, waker: &Waker) -> TimerId;

    /// Forgets a timer; one that has fired already is ignored.
    fn disarm(&self, timer: TimerId);
}

/// The name of an armed timer, given by [`Clock::arm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    /// When it fires.
    pub at: Tick,
    /// What tells it from other timers of the same instant.
    pub seq: u64,
}

/// An instant of monotonic time, in nanoseconds since a start that each clock chooses.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The clock's start.
    pub const ZERO: Tick = Tick(0);

    /// An instant that never comes.
    pub const MAX: Tick = Tick(u64::MAX);

    /// The instant `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Tick {
        Tick(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

/// Saturates at [`Tick::MAX`].
impl Add<Duration> for Tick {
    type Output = Tick;
    fn add(self, duration: Duration) -> Tick {
        Tick(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// The time from `earlier` to `self`, zero when `earlier` is the later one.
impl Sub for Tick {
    type Output = Duration;
    fn sub(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// A wall-clock time, in milliseconds since 1970. What outlives a process (an expiry, a delivery time) is kept in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WallTime(u64);

impl WallTime {
    /// The time `millis` milliseconds after the start of 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> WallTime {
        WallTime(millis)
    }

    /// Milliseconds since the start of 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

/// Saturates at the end of time.
impl Add<Duration> for WallTime {
    type Output = WallTime;
    fn add(self, duration: Duration) -> WallTime {
        WallTime(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// The time from `earlier` to `self`, zero when `earlier` is the later one.
impl Sub for WallTime {
    type Output = Duration;
    fn sub(self, earlier: WallTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Waits for an instant; made by [`Env::sleep`](super::Env::sleep). Dropping it forgets the timer.
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep {
    clock: Arc<dyn Clock>,
    at: Tick,
    armed: Option<(TimerId, WakerId)>,
}

/// Tells a waker from every other that is alive, without holding it: a clone for each sleep would write to the waker's
/// count twice. The clock holds the waker of a timer until the timer has fired, so for that long no other waker can
/// look the same.
type WakerId = (usize, usize);

fn waker_id(waker: &Waker) -> WakerId {
    (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr())
}

impl Sleep {
    pub(crate) fn new(clock: Arc<dyn Clock>, at: Tick) -> Sleep {
        Sleep { clock, at, armed: None }
    }

    fn disarm(&mut self) {
        if let Some((timer, _)) = self.armed.take() {
            self.clock.disarm(timer);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.at {
            self.disarm();
            return Poll::Ready(());
        }
        let waker = waker_id(cx.waker());
        if self.armed.is_none_or(|(_, armed)| armed != waker) {
            self.disarm();
            self.armed = Some((self.clock.arm(self.at, cx.waker()), waker));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The time limit of [`Env::timeout`](super::Env::timeout) passed before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time limit passed")]
pub struct Elapsed;

pub(super) async fn timeout<F: Future + Send>(limit: Sleep, future: F) -> Result<F::Output, Elapsed> {
    match select(pin!(future), limit).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), _)) => Err(Elapsed),
    }
}
