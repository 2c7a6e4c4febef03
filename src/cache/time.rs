use super::word::NEVER;
use crate::env::{Env, Tick};
use std::time::Duration;

/// How far the coarse clock may be behind: two ticks of a kernel that ticks a hundred times a second, the slowest
/// that Linux is built with. Nearer to a deadline than this the exact clock decides.
const COARSE_LAG: Duration = Duration::from_millis(20);

/// Deadlines of a cache: whole milliseconds since it was built, rounded down, so that nothing is served past its time.
#[derive(Debug)]
pub(super) struct Time {
    env: Env,
    start: Tick,
}

impl Time {
    pub(super) fn new(env: Env) -> Time {
        Time { start: env.now(), env }
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    /// The exact time.
    pub(super) fn read(&self) -> Tick {
        self.env.now()
    }

    /// A time in milliseconds.
    pub(super) fn at(&self, time: Tick) -> u64 {
        millis(time - self.start)
    }

    /// The exact time, in milliseconds.
    pub(super) fn now(&self) -> u64 {
        self.at(self.read())
    }

    /// The time, perhaps a little behind, in milliseconds.
    #[inline]
    pub(super) fn coarse(&self) -> u64 {
        millis(self.env.coarse() - self.start)
    }

    /// The deadline a time to live after `from`.
    pub(super) fn after(&self, from: Tick, ttl: Duration) -> u64 {
        self.at(from + ttl).min(NEVER - 1)
    }

    /// How long it is until `deadline`.
    pub(super) fn until(&self, deadline: u64) -> Duration {
        self.tick(deadline) - self.env.now()
    }

    /// Whether `deadline` has come: the coarse clock answers unless it is too near to tell.
    #[inline]
    pub(super) fn is_past(&self, deadline: u64) -> bool {
        if deadline >= NEVER {
            return false;
        }
        let deadline = self.tick(deadline);
        let coarse = self.env.coarse();
        deadline <= coarse || (deadline <= coarse + COARSE_LAG && deadline <= self.env.now())
    }

    /// Whether `deadline` is so far off that the coarse clock is enough to know that it has not come.
    #[inline]
    pub(super) fn is_far(&self, deadline: u64) -> bool {
        self.env.coarse() + COARSE_LAG < self.tick(deadline)
    }

    fn tick(&self, millis: u64) -> Tick {
        Tick::from_nanos(self.start.as_nanos().saturating_add(millis.saturating_mul(1_000_000)))
    }
}

/// Whole milliseconds of a duration.
#[inline]
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
