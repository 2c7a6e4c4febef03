use super::background::Home;
use super::counts::Full;
use super::dice::Dice;
use super::lease::Started;
use super::load::Era;
use super::roster::{Roster, Rules};
use super::snapshot::{Choice, Group, Snapshot};
use super::{
    Balancer, Completion, Endpoint, Lease, Load, Member, Outcome, PickError, PoolStatus, Request, ServerLoad, Timing,
    ZoneRouting,
};
use crate::env::{Env, Rng, Tick};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, Published, Waiters, pin};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What the clones of a pool have in common.
pub(super) struct Shared<B: Balancer, T: Send + Sync + 'static> {
    me: Weak<Shared<B, T>>,
    pub(super) core: Arc<Core<B>>,
    pub(super) dice: Dice,
    /// Written only under the lock of `roster`.
    pub(super) current: Published<Snapshot<B, T>>,
    roster: Mutex<Roster<SharedNode<B, T>>>,
    refused: AtomicU64,
    /// Those who wait for an endpoint's last lease to end.
    pub(super) idle: Waiters,
    pub(super) home: Home,
}

/// What leases need of a pool.
pub(super) struct Core<B> {
    pub(super) policy: B,
    pub(super) env: Env,
    timing: Timing,
    pub(super) zones: Option<ZoneRouting>,
    /// Failures in a row that end in an ejection.
    row: u32,
    sweeps: Option<Sweeps>,
    limit: Option<Limit>,
    /// The most leases of an endpoint that does not say it.
    limit_each: u32,
}

/// When endpoints are compared with each other.
struct Sweeps {
    interval: Duration,
    /// In nanoseconds.
    next: AtomicU64,
    /// Whether latencies count.
    timed: bool,
}

/// The most leases of a pool at once.
struct Limit {
    most: u32,
    in_flight: AtomicU32,
}

/// What a pool is built from.
pub(super) struct Parts<B> {
    pub(super) policy: B,
    pub(super) env: Env,
    pub(super) rules: Rules,
    pub(super) zones: Option<ZoneRouting>,
    pub(super) limit: Option<u32>,
    pub(super) limit_each: u32,
}

/// The clock that a policy with such a `timing` lives by. One that wants no time has no other use for it than the cheapest.
#[inline]
fn time(timing: Timing, env: &Env) -> Tick {
    match timing {
        Timing::Always => env.stopwatch(),
        Timing::Sampled | Timing::Never => env.coarse(),
    }
}

impl<B: Balancer> Core<B> {
    fn new(parts: Parts<B>) -> Core<B> {
        let outliers = parts.rules.outliers.as_ref();
        let timed = outliers.is_some_and(|rules| rules.latency.is_some());
        let sweeping =
            outliers.filter(|rules| timed || rules.success_rate.is_some() || rules.failure_percentage.is_some());
        let timing = match parts.policy.timing() {
            Timing::Never if timed => Timing::Sampled,
            timing => timing,
        };
        let start = time(timing, &parts.env);
        Core {
            timing,
            zones: parts.zones,
            row: outliers.map_or(u32::MAX, |rules| rules.consecutive_failures.max(1)),
            sweeps: sweeping.map(|rules| Sweeps {
                interval: rules.interval,
                next: AtomicU64::new((start + rules.interval).as_nanos()),
                timed,
            }),
            limit: parts.limit.map(|most| Limit {
                most,
                in_flight: AtomicU32::new(0),
            }),
            limit_each: parts.limit_each,
            policy: parts.policy,
            env: parts.env,
        }
    }

    /// The time that the policy wants at a pick.
    #[inline]
    pub(super) fn look(&self) -> Tick {
        match self.timing {
            Timing::Never => Tick::ZERO,
            timing => time(timing, &self.env),
        }
    }

    /// The time that loads and the policy are told of.
    fn time(&self) -> Tick {
        time(self.timing, &self.env)
    }

    /// When a request to `load` began, if it is to be timed.
    #[inline]
    fn start(&self, load: &Load, now: Tick) -> Started {
        match self.timing {
            Timing::Always => Started::at(now),
            Timing::Sampled if load.samples(now) => Started::at(self.env.stopwatch()),
            Timing::Sampled | Timing::Never => Started::UNTIMED,
        }
    }

    /// Counts a request in, if its endpoint and the pool have room.
    #[inline]
    fn begin(&self, load: &Load) -> Result<Era, Full> {
        if let Some(limit) = &self.limit
            && !limit.begin()
        {
            return Err(Full { last: false });
        }
        let era = load.begin();
        match era {
            Ok(_) => self.policy.begin(load),
            Err(_) => self.end(),
        }
        era
    }

    /// Counts a request of the pool out.
    #[inline]
    fn end(&self) {
        if let Some(limit) = &self.limit {
            limit.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Limit {
    fn begin(&self) -> bool {
        let admitted = self.in_flight.fetch_add(1, Ordering::Relaxed) < self.most;
        if !admitted {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        admitted
    }

    fn is_full(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= self.most
    }
}

impl Sweeps {
    /// Whether whoever asks at `now` is to compare the endpoints; one of those who ask at once is.
    fn is_due(&self, now: Tick) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        let after = (now + self.interval).as_nanos();
        now.as_nanos() >= next
            && self
                .next
                .compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Shared<B, T> {
    pub(super) fn new(parts: Parts<B>) -> Arc<Shared<B, T>> {
        let now = parts.env.now();
        let dice = Dice::new(parts.env.rng("balance"));
        let roster = Roster::new(parts.rules.clone(), parts.env.rng("balance ejections"), now);
        let core = Core::new(parts);
        Arc::new_cyclic(|me| Shared {
            me: Weak::clone(me),
            dice,
            current: Published::new(Snapshot::new(&core.policy, &roster, now)),
            roster: Mutex::new(roster),
            refused: AtomicU64::new(0),
            idle: Waiters::default(),
            home: Home::default(),
            core: Arc::new(core),
        })
    }

    /// Whether `snapshot` has to be settled before a pick.
    #[inline]
    pub(super) fn is_stale(&self, snapshot: &Snapshot<B, T>) -> bool {
        snapshot.expires != Tick::MAX && self.core.env.coarse() >= snapshot.expires
    }

    // Always, as `choose` below.
    #[inline(always)]
    pub(super) fn pick(
        &self,
        snapshot: &Snapshot<B, T>,
        request: &Request<'_>,
        rng: &mut Rng,
    ) -> Result<Lease<B, T>, PickError> {
        let now = self.core.look();
        let Some((group, i)) = self.choose(snapshot, request, now, rng) else {
            return Err(self.why_none(snapshot, request));
        };
        // Where they are is looked up before the endpoint is counted in, which is when the processor waits.
        let (mut load, mut node) = (&*group.loads[i], &group.nodes[i]);
        let era = match self.core.begin(load) {
            Ok(era) => era,
            Err(full) => {
                let found;
                (found, node, load) = self.find_room(full, snapshot, group, i, request)?;
                found
            }
        };
        Ok(Lease::new(Arc::clone(node), era, self.core.start(load, now)))
    }

    /// Chooses without taking a lease. [`why_none`](Self::why_none) tells why there is none.
    // Always: where the policy's draws are seen, the generator's unused words are never made.
    #[inline(always)]
    pub(super) fn choose<'s>(
        &self,
        snapshot: &'s Snapshot<B, T>,
        request: &Request<'_>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<(&'s Group<B, T>, usize)> {
        if snapshot.is_empty() || self.is_too_late(request) {
            return None;
        }
        let core = &*self.core;
        snapshot.choose(&Choice { core, request, now }, rng)
    }

    #[inline]
    fn is_too_late(&self, request: &Request<'_>) -> bool {
        request.deadline.is_some_and(|deadline| self.core.env.now() >= deadline)
    }

    #[cold]
    pub(super) fn why_none(&self, snapshot: &Snapshot<B, T>, request: &Request<'_>) -> PickError {
        self.refuse(match () {
            () if snapshot.is_empty() && snapshot.any_out => PickError::AllEjected {
                returns_in: snapshot.next_return.map(|at| at - self.core.env.coarse()),
            },
            () if snapshot.is_empty() => PickError::NoEndpoints,
            () if self.is_too_late(request) => PickError::Expired,
            () => PickError::Refused,
        })
    }

    #[cold]
    fn note(&self, full: Full) {
        if full.last {
            self.idle.wake_all();
        }
    }

    /// Counts into the next endpoint that has room, beginning with those of `group` that follow the one at `i`, which is
    /// `full`; into one that was tried already only if there is no other.
    #[cold]
    fn find_room<'s>(
        &self,
        full: Full,
        snapshot: &'s Snapshot<B, T>,
        group: &'s Group<B, T>,
        i: usize,
        request: &Request<'_>,
    ) -> Result<(Era, &'s SharedNode<B, T>, &'s Load), PickError> {
        self.note(full);
        for tried in [false, true] {
            for (group, i) in snapshot.places(group, i) {
                if self.core.limit.as_ref().is_some_and(Limit::is_full) {
                    return Err(self.refuse(PickError::Saturated));
                }
                let load = &*group.loads[i];
                if request.avoids(load) != tried || !load.has_room() {
                    continue;
                }
                match self.core.begin(load) {
                    Ok(era) => return Ok((era, &group.nodes[i], load)),
                    Err(full) => self.note(full),
                }
            }
        }
        Err(self.refuse(PickError::Saturated))
    }

    /// Changes the membership and publishes what came of it.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Roster<SharedNode<B, T>>, Tick) -> R) -> R {
        let mut roster = self.roster.lock();
        let now = self.core.env.now();
        let result = change(&mut roster, now);
        roster.settle(now);
        self.publish(&roster, now);
        drop(roster);
        self.home.changed();
        result
    }

    /// The same where it may come to nothing: publishes if `change` says so, or if somebody returned.
    fn may_change(&self, change: impl FnOnce(&mut Roster<SharedNode<B, T>>, Tick) -> bool) {
        let mut roster = self.roster.lock();
        let now = self.core.env.now();
        let settled = roster.settle(now);
        if change(&mut roster, now) || settled {
            self.publish(&roster, now);
        }
    }

    /// Lets back those whose ejection is over, and gives those that are let in slowly what they have grown to. On behalf
    /// of a pick, which does not wait: if the lock is taken, its holder or the next pick does it.
    #[cold]
    pub(super) fn try_settle(&self) {
        if let Some(mut roster) = self.roster.try_lock() {
            self.settle(&mut roster);
        }
    }

    fn settle(&self, roster: &mut Roster<SharedNode<B, T>>) -> Tick {
        let now = self.core.env.now();
        let stale = self.current.load(&pin()).expires <= now;
        if roster.settle(now) || stale {
            self.publish(roster, now);
        }
        now
    }

    fn publish(&self, roster: &Roster<SharedNode<B, T>>, now: Tick) {
        self.current.store(Snapshot::new(&self.core.policy, roster, now));
    }

    /// Notes what an active check says of an endpoint; false if there is none.
    pub(super) fn set_health(&self, id: &str, healthy: bool) -> bool {
        let mut found = false;
        self.may_change(|roster, now| {
            let news = roster.set_health(id, healthy, now);
            found = news.is_some();
            news.unwrap_or(false)
        });
        found
    }

    pub(super) fn load(&self, id: &str) -> Option<Arc<Load>> {
        self.roster.lock().load(id).cloned()
    }

    pub(super) fn status(&self) -> PoolStatus {
        let refused = self.refused.load(Ordering::Relaxed);
        let mut roster = self.roster.lock();
        let now = self.settle(&mut roster);
        let mut status = PoolStatus {
            endpoints: roster.status(now),
            ejections: roster.ejections,
            refused,
            discovery: None,
        };
        // Those who write there change the pool while they do.
        drop(roster);
        self.home.tell(&mut status, now);
        status
    }

    /// The endpoints of which this client may make use: those that are drained, ejected or not well too.
    pub(super) fn nodes(&self) -> Vec<SharedNode<B, T>> {
        let roster = self.roster.lock();
        let seats = roster.seats().iter().filter(|seat| seat.is_used());
        seats.map(|seat| Arc::clone(&seat.node)).collect()
    }

    /// What the roster takes: an endpoint's face to the policy, and how to make its node.
    pub(super) fn seat(&self, endpoint: Endpoint<T>) -> (Member, impl FnOnce(&Arc<Load>) -> SharedNode<B, T>) {
        let member = Member::from(&endpoint);
        let (core, pool) = (Arc::clone(&self.core), Weak::clone(&self.me));
        let node = |load: &Arc<Load>| {
            load.limit_to(endpoint.max_in_flight.unwrap_or(core.limit_each));
            Arc::new(Node {
                endpoint,
                load: Arc::clone(load),
                core,
                pool,
            })
        };
        (member, node)
    }

    pub(super) fn report(&self, load: &Load, said: ServerLoad) {
        self.core.report(load, said);
    }

    #[cold]
    fn refuse(&self, error: PickError) -> PickError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        error
    }
}

impl<B: Balancer> Core<B> {
    fn report(&self, load: &Load, said: ServerLoad) {
        let now = self.time();
        load.report(said, now);
        self.policy.report(load, &said, now);
    }
}

/// An endpoint as leases hold it: made anew when the endpoint is replaced, with the load of its id.
pub(super) struct Node<B: Balancer, T: Send + Sync + 'static> {
    pub(super) endpoint: Endpoint<T>,
    load: Arc<Load>,
    core: Arc<Core<B>>,
    /// Weak, since the pool holds its nodes.
    pool: Weak<Shared<B, T>>,
}

pub(super) type SharedNode<B, T> = Arc<Node<B, T>>;

impl<B: Balancer, T: Send + Sync + 'static> Node<B, T> {
    /// Ends a lease.
    // Always: most leases end well and untimed, which takes few instructions where that is known.
    #[inline(always)]
    pub(super) fn finish(&self, era: Era, started: Started, outcome: Outcome) {
        if outcome != Outcome::Success || started.get().is_some() {
            return self.finish_with_news(era, started, outcome);
        }
        let last = self.load.succeed(era);
        self.core.end();
        self.core
            .policy
            .finish(&self.load, &Completion::new(outcome, None, None));
        if last {
            self.tell_pool(false, true, era);
        }
    }

    /// A request that was timed or did not succeed.
    #[inline(never)]
    fn finish_with_news(&self, era: Era, started: Started, outcome: Outcome) {
        let core = &*self.core;
        let ended = self.load.end(era, outcome, core.row);
        core.end();
        let started = started.get();
        let stopped = started.map(|_| core.env.stopwatch());
        let latency = stopped.zip(started).map(|(stopped, started)| stopped - started);
        let failed = matches!(outcome, Outcome::Failure(_));
        let sweeps = core
            .sweeps
            .as_ref()
            .filter(|sweeps| failed || (sweeps.timed && latency.is_some()));
        let wanted = sweeps.is_some() || (failed && core.timing != Timing::Never);
        let at = match core.timing {
            Timing::Always if stopped.is_some() => stopped,
            _ => (stopped.is_some() || wanted).then(|| core.time()),
        };
        core.policy.finish(&self.load, &Completion::new(outcome, latency, at));
        if let Some(sweeps) = sweeps {
            self.sweep(sweeps, latency.filter(|_| outcome != Outcome::Cancelled), at);
        }
        if let Outcome::Backoff(pause) = outcome {
            self.pause(pause);
        }
        if ended.row || ended.last {
            self.tell_pool(ended.row, ended.last, era);
        }
    }

    /// Counts a latency, and compares the endpoints if it is time to.
    fn sweep(&self, sweeps: &Sweeps, latency: Option<Duration>, at: Option<Tick>) {
        if let Some(latency) = latency.filter(|_| sweeps.timed) {
            self.load.time(latency);
        }
        if at.is_some_and(|at| sweeps.is_due(at))
            && let Some(pool) = self.pool.upgrade()
        {
            pool.may_change(Roster::sweep);
        }
    }

    #[cold]
    fn tell_pool(&self, row: bool, last: bool, era: Era) {
        let Some(pool) = self.pool.upgrade() else { return };
        if row {
            pool.may_change(|roster, now| roster.eject(&self.load, era, now));
        }
        if last {
            pool.idle.wake_all();
        }
    }

    #[cold]
    fn pause(&self, pause: Duration) {
        if let Some(pool) = self.pool.upgrade() {
            pool.may_change(|roster, now| roster.pause(&self.load, pause, now));
        }
    }

    pub(super) fn report(&self, said: ServerLoad) {
        self.core.report(&self.load, said);
    }
}
