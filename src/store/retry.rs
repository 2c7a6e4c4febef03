use super::{Batch, Effect, Error, Expect, Op, Retry};
use crate::env::Rng;
use std::time::Duration;

/// What one retry costs, in the unit of a [`Budget`]: a percent of a call.
const RETRY: u64 = 100;

/// How a [`Retried`](super::Retried) store tries again.
///
/// ```
/// use outgrow::store::RetryPolicy;
/// use std::time::Duration;
/// let policy = RetryPolicy::default()
///     .attempts(5)
///     .back_off(Duration::from_millis(5), Duration::from_millis(200))
///     .budget(10, 50);
/// assert_ne!(policy, RetryPolicy::default());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct RetryPolicy {
    attempts: u32,
    first: Duration,
    longest: Duration,
    percent: u32,
    reserve: u32,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 3,
            first: Duration::from_millis(10),
            longest: Duration::from_secs(1),
            percent: 20,
            reserve: 100,
        }
    }
}

impl RetryPolicy {
    /// How often a call is tried at most, the first time included. Default: 3. With 1, and 0, nothing is retried.
    pub fn attempts(mut self, attempts: u32) -> RetryPolicy {
        self.attempts = attempts;
        self
    }

    /// How long to wait before trying again: a random time below a bound that begins at `first` and doubles with each
    /// attempt up to `longest` (Brooker, "Exponential backoff and jitter", 2015). Default: 10 ms and 1 s. With zeros,
    /// the next attempt follows at once.
    pub fn back_off(mut self, first: Duration, longest: Duration) -> RetryPolicy {
        self.first = first;
        self.longest = longest;
        self
    }

    /// How much load the retries of all callers together may add: `percent` of the calls, beyond a reserve of
    /// `reserve` retries that is full at the start and fills again at that rate. Default: 20 % and 100. With 0 and 0,
    /// nothing is retried.
    ///
    /// Without a budget a store that is down gets `attempts` times the load just when it can least bear it.
    pub fn budget(mut self, percent: u32, reserve: u32) -> RetryPolicy {
        self.percent = percent;
        self.reserve = reserve;
        self
    }

    /// A full budget.
    pub(super) fn new_budget(&self) -> Budget {
        Budget { left: self.full() }
    }

    fn full(&self) -> u64 {
        u64::from(self.reserve) * RETRY
    }

    /// How long to wait before attempt `made + 1`.
    fn wait(&self, made: u32, error: &Error, rng: &mut Rng) -> Duration {
        let doubled = 1_u32.checked_shl(made - 1).unwrap_or(u32::MAX);
        let bound = self.first.saturating_mul(doubled).min(self.longest);
        let wait = bound.mul_f64(rng.unit());
        match error {
            // Before then the answer is known.
            Error::Behind { eta: Some(eta), .. } => wait.max((*eta).min(self.longest)),
            _ => wait,
        }
    }
}

/// The retries that are left to all calls together.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
}

impl Budget {
    /// A call begins, which earns its part of a retry.
    pub(super) fn earn(&mut self, policy: &RetryPolicy) {
        self.left = (self.left + u64::from(policy.percent)).min(policy.full());
    }

    fn spend(&mut self) -> bool {
        let left = self.left.checked_sub(RETRY);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// One call and its attempts so far.
#[derive(Debug)]
pub(super) struct Attempts {
    made: u32,
    kind: Kind,
    /// How an attempt failed that may have happened all the same.
    unknown: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Changes nothing.
    Read,
    /// Cannot happen twice.
    OnceOnly,
    /// Could happen twice.
    Blind,
}

/// What follows a failed attempt.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Try again after so long.
    Again(Duration),
    /// Tell the caller.
    GiveUp(Error),
}

impl Attempts {
    /// The attempts of a read.
    pub(super) fn reading() -> Attempts {
        Attempts::new(Kind::Read)
    }

    /// The attempts of a commit of `batch`.
    pub(super) fn committing(batch: &Batch) -> Attempts {
        Attempts::new(if happens_once(batch) {
            Kind::OnceOnly
        } else {
            Kind::Blind
        })
    }

    fn new(kind: Kind) -> Attempts {
        Attempts {
            made: 0,
            kind,
            unknown: None,
        }
    }

    /// Decides what follows an attempt that failed with `error`.
    pub(super) fn failed(&mut self, error: Error, policy: &RetryPolicy, budget: &mut Budget, rng: &mut Rng) -> Verdict {
        self.made += 1;
        let unknown = self.kind != Kind::Read && error.effect() == Effect::Unknown;
        let may = error.retry() == Retry::May && !(unknown && self.kind == Kind::Blind);
        if may && self.made < policy.attempts && budget.spend() {
            let wait = policy.wait(self.made, &error, rng);
            if unknown {
                self.unknown = Some(error);
            }
            return Verdict::Again(wait);
        }
        let last = match self.unknown.take() {
            // Whatever it failed with now, a conflict above all, may be the work of the attempt that nobody knows of.
            Some(earlier) if !unknown => earlier,
            None if !may => return Verdict::GiveUp(error),
            _ => error,
        };
        Verdict::GiveUp(match last {
            Error::Retried { .. } => last,
            last => Error::Retried {
                attempts: self.made,
                last: Box::new(last),
            },
        })
    }
}

/// Whether `batch` cannot happen twice: carrying it out breaks one of its own expectations.
fn happens_once(batch: &Batch) -> bool {
    batch.expectations().iter().any(|(key, expect)| {
        let Some(last) = batch.ops().iter().rfind(|op| op.key() == key) else {
            return false;
        };
        match expect {
            // A new version, or none; only an import brings an old version back.
            Expect::At(_) => !matches!(last, Op::Import { .. }),
            Expect::Absent => matches!(last, Op::Put { ttl: None, .. }),
            Expect::Present => matches!(last, Op::Delete { .. }),
        }
    })
}
