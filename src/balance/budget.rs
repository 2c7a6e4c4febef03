use crate::env::Tick;
use crate::sync::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How many retries a service may cause: a share of its requests, and a few a second besides.
///
/// A limit of attempts alone multiplies the load on servers that fail, just when they can least bear it. Each request
/// [deposits](RetryBudget::deposit) its share of a retry and each retry, or hedge, [withdraws](RetryBudget::withdraw) a
/// whole one. In the [ttl](RetryBudget::ttl) before any moment at which a retry was allowed there were at most
/// `requests × percent / 100 + min_per_second × ttl` of them, that one included. Finagle and tower have budgets of the
/// same kind, with the same defaults.
///
/// Clones share what is left, so that all callers of one service can draw on one budget. What a request deposited
/// lapses after the ttl. A call takes a lock for some nanoseconds.
///
/// ```
/// use outgrow::balance::RetryBudget;
/// use outgrow::env::Tick;
///
/// let budget = RetryBudget::default().percent(50).min_per_second(0);
/// budget.deposit(Tick::ZERO);
/// assert!(!budget.withdraw(Tick::ZERO), "half a retry is none");
/// budget.deposit(Tick::ZERO);
/// assert!(budget.clone().withdraw(Tick::ZERO));
/// assert!(!budget.withdraw(Tick::ZERO), "the clone took it");
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    rules: Rules,
    ledger: Arc<Mutex<Ledger>>,
}

impl RetryBudget {
    /// Retries for each hundred requests. Default: 20. With 0 only the [minimum](RetryBudget::min_per_second) is left; above
    /// 100 a request may be retried more than once.
    #[must_use]
    pub fn percent(self, percent: u32) -> RetryBudget {
        RetryBudget::new(Rules { percent, ..self.rules })
    }

    /// Retries a second that are allowed however few requests there are, for services that send few. Default: 10. All of a
    /// ttl may be used at once. With 0, and without requests, there are no retries.
    #[must_use]
    pub fn min_per_second(self, retries: u32) -> RetryBudget {
        RetryBudget::new(Rules {
            min_per_second: retries,
            ..self.rules
        })
    }

    /// For how long requests and retries count, from 1 to 60 seconds; what is outside is taken as the nearer end. Default:
    /// 10 s. It is kept in tenths: a request may count for a tenth less, and a retry for a tenth more.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> RetryBudget {
        let ttl = ttl.clamp(Duration::from_secs(1), Duration::from_secs(60));
        RetryBudget::new(Rules { ttl, ..self.rules })
    }

    fn new(rules: Rules) -> RetryBudget {
        RetryBudget {
            rules,
            ledger: Arc::default(),
        }
    }

    /// Notes a request, its first attempt and not its retries.
    pub fn deposit(&self, now: Tick) {
        self.ledger.lock().deposit(&self.rules, now);
    }

    /// Asks for a retry; it counts if the answer is yes.
    #[must_use]
    pub fn withdraw(&self, now: Tick) -> bool {
        self.ledger.lock().withdraw(&self.rules, now)
    }

    /// Retries that could be withdrawn now.
    #[must_use]
    pub fn left(&self, now: Tick) -> u64 {
        self.ledger.lock().left(&self.rules, now)
    }

    /// Undoes a withdrawal at `now` of a retry that was not sent.
    pub fn put_back(&self, now: Tick) {
        self.ledger.lock().put_back(&self.rules, now);
    }
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget::new(Rules {
            percent: 20,
            min_per_second: 10,
            ttl: Duration::from_secs(10),
        })
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.fmt(f)
    }
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    percent: u32,
    min_per_second: u32,
    ttl: Duration,
}

impl Rules {
    /// The slot of time that `now` is in.
    fn slot(&self, now: Tick) -> u64 {
        let len = self.ttl.as_nanos() as u64 / (SLOTS - 1);
        now.as_nanos() / len
    }

    /// The minimum of a whole ttl, in percents of a retry.
    fn reserve(&self) -> u64 {
        (u128::from(self.min_per_second) * self.ttl.as_millis() / 1_000) as u64 * RETRY
    }
}

/// Counts of the last ttl, by tenths of it. Pure: time is an argument.
#[derive(Debug, Default)]
struct Ledger {
    counts: [Counts; SLOTS as usize],
    /// The newest slot.
    head: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    retries: u64,
}

/// The slot that goes on, and those of a ttl before it.
const SLOTS: u64 = 11;
/// A retry in percents.
const RETRY: u64 = 100;

impl Ledger {
    fn deposit(&mut self, rules: &Rules, now: Tick) {
        self.at(rules.slot(now)).requests += 1;
    }

    fn withdraw(&mut self, rules: &Rules, now: Tick) -> bool {
        let allowed = self.left(rules, now) > 0;
        if allowed {
            self.at(self.head).retries += 1;
        }
        allowed
    }

    fn put_back(&mut self, rules: &Rules, now: Tick) {
        let slot = rules.slot(now);
        if slot + SLOTS > self.head {
            let retries = &mut self.counts[(slot % SLOTS) as usize].retries;
            *retries = retries.saturating_sub(1);
        }
    }

    /// Counts the retries of a little more than a ttl and the requests of a little less, so that no ttl, wherever it
    /// begins, has more retries than its requests allow.
    fn left(&mut self, rules: &Rules, now: Tick) -> u64 {
        self.at(rules.slot(now));
        let oldest = ((self.head + 1) % SLOTS) as usize;
        let all = self.counts.iter().fold(Counts::default(), |sum, slot| Counts {
            requests: sum.requests + slot.requests,
            retries: sum.retries + slot.retries,
        });
        let requests = all.requests - self.counts[oldest].requests;
        let earned = requests
            .saturating_mul(rules.percent.into())
            .saturating_add(rules.reserve());
        (earned / RETRY).saturating_sub(all.retries)
    }

    /// The counts of `slot`, or of the newest if that is later: threads may read the clock in one order and come here in
    /// another.
    fn at(&mut self, slot: u64) -> &mut Counts {
        let passed = slot.saturating_sub(self.head).min(SLOTS);
        self.head = self.head.max(slot);
        for back in 0..passed {
            self.counts[((self.head - back) % SLOTS) as usize] = Counts::default();
        }
        &mut self.counts[(self.head % SLOTS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Tick {
        Tick::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn requests_earn_a_share_and_it_lapses() {
        let budget = RetryBudget::default().min_per_second(0);
        (0..10).for_each(|_| budget.deposit(at(0)));
        assert_eq!(budget.left(at(9_999)), 2);
        assert_eq!(budget.left(at(10_000)), 0);
        (0..10).for_each(|_| budget.deposit(at(10_000)));
        assert!(budget.withdraw(at(10_000)) && budget.withdraw(at(10_000)) && !budget.withdraw(at(10_000)));
        budget.put_back(at(10_000));
        assert_eq!(budget.left(at(10_000)), 1);
    }

    #[test]
    fn the_minimum_is_there_at_once_and_comes_back_after_a_ttl() {
        let budget = RetryBudget::default().percent(0).ttl(Duration::from_secs(2));
        assert_eq!((0..100).filter(|_| budget.withdraw(at(500))).count(), 20);
        assert_eq!(budget.left(at(2_500)), 0);
        assert_eq!(budget.left(at(2_700)), 20);
        assert_eq!(budget.left(at(10_000_000)), 20, "what is not used does not add up");
    }

    #[test]
    fn extremes_are_named_answers() {
        let none = RetryBudget::default().percent(0).min_per_second(0);
        none.deposit(at(0));
        assert!(!none.withdraw(at(0)));
        let all = RetryBudget::default().percent(u32::MAX).min_per_second(u32::MAX);
        (0..3).for_each(|_| all.deposit(Tick::MAX));
        assert!(
            all.withdraw(Tick::MAX) && all.withdraw(at(0)),
            "the clock of another thread may be behind"
        );
        let short = RetryBudget::default().ttl(Duration::ZERO).percent(0);
        assert_eq!(short.left(at(0)), 10);
        assert_eq!(RetryBudget::default().ttl(Duration::MAX).left(at(0)), 600);
    }

    #[test]
    fn what_came_to_nothing_is_put_back_where_it_was_taken() {
        let budget = RetryBudget::default().percent(0).min_per_second(1);
        assert!((0..10).all(|_| budget.withdraw(at(0))));
        budget.put_back(at(0));
        assert_eq!(budget.left(at(5_000)), 1);
        budget.put_back(at(20_000));
        assert_eq!(budget.left(at(20_000)), 10);
        assert!(budget.withdraw(at(20_000)));
        budget.put_back(at(0));
        assert_eq!(budget.left(at(20_000)), 9, "too late: that has lapsed");
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Request,
        Retry,
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let wait = prop_oneof![0..200_u64, 0..3_000_u64, 0..30_000_u64];
        prop_oneof![4 => Just(Op::Request), 4 => Just(Op::Retry), 1 => wait.prop_map(Op::Wait)]
    }

    /// How many of `times` are in the stretch of `millis` that ends with `now`.
    fn within(times: &[u64], now: u64, millis: u64) -> u64 {
        times.iter().filter(|at| **at + millis > now).count() as u64
    }

    proptest! {
        /// Against all times ever: a retry that is allowed keeps to the bound, and one that is refused would have broken
        /// it, but for the tenth of a ttl by which counts are rounded.
        #[test]
        fn no_ttl_has_more_retries_than_its_requests_allow(
            ops in prop::collection::vec(op(), 1..400),
            percent in 0..150_u32,
            min in 0..3_u32,
            secs in 1..20_u64,
        ) {
            let budget = RetryBudget::default().percent(percent).min_per_second(min).ttl(Duration::from_secs(secs));
            let (mut now, mut requests, mut retries) = (0, Vec::new(), Vec::new());
            let ttl = secs * 1_000;
            let most = |requests: u64| requests * u64::from(percent) + u64::from(min) * secs * 100;
            for op in ops {
                match op {
                    Op::Wait(millis) => now += millis,
                    Op::Request => {
                        budget.deposit(at(now));
                        requests.push(now);
                    }
                    Op::Retry if budget.withdraw(at(now)) => {
                        retries.push(now);
                        prop_assert!(within(&retries, now, ttl) * 100 <= most(within(&requests, now, ttl)));
                    }
                    Op::Retry => {
                        let (more, fewer) = (ttl + ttl / 10, ttl - ttl / 10);
                        prop_assert!((within(&retries, now, more) + 1) * 100 > most(within(&requests, now, fewer)));
                    }
                }
            }
        }
    }
}
