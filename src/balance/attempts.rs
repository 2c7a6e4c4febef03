//! How a call is tried again and hedged, whatever it is that is sent.

use super::dice::Dice;
use super::hedge::Hedging;
use super::{Failure, Outcome, PickError, Retry, RetryBudget};
use crate::env::{Env, Rng, Sleep, Tick};
use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The rules, and what the calls under them share.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) attempts: u32,
    pub(super) retry: Retry,
    pub(super) first: Duration,
    pub(super) longest: Duration,
    pub(super) budget: RetryBudget,
    pub(super) hedging: Option<Arc<Hedging>>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            attempts: 3,
            retry: Retry::default(),
            first: Duration::from_millis(10),
            longest: Duration::from_secs(1),
            budget: RetryBudget::default(),
            hedging: None,
        }
    }
}

/// One call under a plan.
pub(super) struct Call<'a> {
    pub(super) plan: &'a Plan,
    pub(super) env: &'a Env,
    pub(super) dice: &'a Dice,
    /// Which failures let it be sent again.
    pub(super) retry: Retry,
    pub(super) deadline: Option<Tick>,
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    /// From 1; a hedge has the number of the attempt that it is for.
    pub(super) number: u32,
    pub(super) hedge: bool,
}

/// What came of it.
pub(super) struct Done<O> {
    pub(super) output: O,
    pub(super) verdict: Verdict,
}

/// What it means for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A good answer.
    Success,
    /// An answer that no other endpoint would better.
    Settled,
    /// An answer that another endpoint may better, or none.
    Failed(Failure),
    /// Nothing was sent: there was no endpoint.
    Refused(PickError),
    /// A hedge was not sent: there was no endpoint that had not been tried.
    NoOther,
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Success => Verdict::Success,
            Outcome::Cancelled => Verdict::Settled,
            Outcome::Failure(failure) => Verdict::Failed(failure),
            Outcome::Backoff(_) => Verdict::Failed(Failure::Response),
        }
    }
}

impl Verdict {
    fn was_sent(self) -> bool {
        !matches!(self, Verdict::Refused(_) | Verdict::NoOther)
    }
}

impl Call<'_> {
    /// Sends what `begin` makes until an answer is good or nothing may be sent any more. Returns the last answer, and how
    /// many were sent.
    ///
    /// # Cancel safety
    /// Dropping the future drops what is under way.
    pub(super) async fn run<O, F>(&self, mut begin: impl FnMut(Try) -> F) -> (O, u32)
    where
        F: Future<Output = Done<O>>,
    {
        self.plan.budget.deposit(self.env.coarse());
        let (mut sent, mut number) = (0, 1);
        let mut answer = None;
        loop {
            let done = self.attempt(number, &mut begin, &mut sent).await;
            let again = self.again(done.verdict, number);
            // That there is no endpoint now says less than what one has answered.
            if answer.is_none() || done.verdict.was_sent() {
                answer = Some(done.output);
            }
            let Some(pause) = again else { break };
            if !pause.is_zero() {
                self.env.sleep(pause).await;
            }
            number += 1;
        }
        (answer.expect("there was an attempt"), sent)
    }

    /// How long to wait before the attempt after number `made`; none if there is to be none.
    fn again(&self, verdict: Verdict, made: u32) -> Option<Duration> {
        if made >= self.plan.attempts {
            return None;
        }
        let pause = match verdict {
            Verdict::Failed(failure) if self.retry == Retry::Always || failure == Failure::Connect => match made {
                1 => Duration::ZERO, // There is another endpoint for it.
                _ => self.backoff(made - 1),
            },
            Verdict::Refused(PickError::Saturated) => self.backoff(made),
            Verdict::Refused(PickError::AllEjected { returns_in }) => self
                .backoff(made)
                .max(returns_in.map_or(Duration::ZERO, |time| time.min(self.plan.longest))),
            _ => return None,
        };
        let late = |deadline| self.env.now() + pause >= deadline;
        if self.deadline.is_some_and(late) || (verdict.was_sent() && !self.plan.budget.withdraw(self.env.coarse())) {
            return None;
        }
        Some(pause)
    }

    fn backoff(&self, pauses: u32) -> Duration {
        backoff(self.plan, pauses, &mut self.dice.roll())
    }

    /// Sends one attempt, and its hedges.
    async fn attempt<O, F>(&self, number: u32, begin: &mut impl FnMut(Try) -> F, sent: &mut u32) -> Done<O>
    where
        F: Future<Output = Done<O>>,
    {
        let first = begin(Try { number, hedge: false });
        *sent += 1;
        let done = match &self.plan.hedging {
            Some(hedging) if self.retry == Retry::Always => self.race(hedging, first, number, begin, sent).await,
            _ => first.await,
        };
        if !done.verdict.was_sent() {
            *sent -= 1;
        }
        done
    }

    /// Sends more of what `first` is while there is no good answer. The first good one wins; if none is, the last.
    async fn race<O, F>(
        &self,
        hedging: &Hedging,
        first: F,
        number: u32,
        begin: &mut impl FnMut(Try) -> F,
        sent: &mut u32,
    ) -> Done<O>
    where
        F: Future<Output = Done<O>>,
    {
        let start = self.env.now();
        let delay = hedging.delay(start);
        let mut timer = delay.map(|delay| self.env.sleep_until(start + delay));
        let mut hedges = 0;
        let mut failed = None;
        let mut running = FuturesUnordered::new();
        running.push(paid(None, first));
        loop {
            let Some((paid_at, done)) = next_before(&mut running, &mut timer).await else {
                hedges += 1;
                timer = None;
                if let Some(now) = self.may_hedge() {
                    running.push(paid(Some(now), begin(Try { number, hedge: true })));
                    *sent += 1;
                    let delay = delay.filter(|_| hedges < hedging.max());
                    timer = delay.map(|delay| self.env.sleep_until(now + delay));
                }
                continue;
            };
            if let Some(now) = paid_at
                && !done.verdict.was_sent()
            {
                self.plan.budget.put_back(now);
                *sent -= 1;
            } else if matches!(done.verdict, Verdict::Success | Verdict::Settled) {
                if done.verdict == Verdict::Success {
                    let now = self.env.now();
                    hedging.note(now, now - start);
                }
                return done;
            } else {
                failed = Some(done);
            }
            if running.is_empty() {
                return failed.expect("the first attempt ended, or ends");
            }
        }
    }

    /// Pays for a hedge; tells when it was paid.
    fn may_hedge(&self) -> Option<Tick> {
        let now = self.env.now();
        let late = self.deadline.is_some_and(|deadline| now >= deadline);
        (!late && self.plan.budget.withdraw(now)).then_some(now)
    }
}

/// A future that remembers when it was paid for.
async fn paid<F: Future>(at: Option<Tick>, future: F) -> (Option<Tick>, F::Output) {
    (at, future.await)
}

/// The next that is ready; none if the timer is up first.
async fn next_before<F: Future>(running: &mut FuturesUnordered<F>, timer: &mut Option<Sleep>) -> Option<F::Output> {
    match timer {
        None => running.next().await,
        Some(timer) => match select(running.next(), timer).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => None,
        },
    }
}

/// A random time below a bound that doubles with each pause (Brooker, "Exponential backoff and jitter", 2015).
fn backoff(plan: &Plan, pauses: u32, rng: &mut Rng) -> Duration {
    let doubled = 1_u32.checked_shl(pauses - 1).unwrap_or(u32::MAX);
    plan.first.saturating_mul(doubled).min(plan.longest).mul_f64(rng.unit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_are_spread_below_it() {
        let plan = Plan::default();
        let mut rng = Rng::seeded(1);
        let mut longest = |pauses| {
            (0..1_000)
                .map(|_| backoff(&plan, pauses, &mut rng))
                .max()
                .unwrap()
                .as_millis()
        };
        assert_eq!([1, 2, 3, 4].map(&mut longest), [9, 19, 39, 79]);
        assert!(
            [8, 40, u32::MAX]
                .map(longest)
                .iter()
                .all(|millis| (990..1_000).contains(millis))
        );
    }
}
