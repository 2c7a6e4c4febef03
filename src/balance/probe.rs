use super::shared::{Shared, SharedNode};
use super::{Balancer, Endpoint, Pool, ServerLoad};
use crate::env::{Env, Rng};
use crate::sync::{AtomicUsize, Ordering, pin};
use futures::future::join_all;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// An endpoint that is to be asked for its load, which it derefs to. It is no lease: nothing is counted.
pub struct Probe<B: Balancer, T: Send + Sync + 'static = ()> {
    node: SharedNode<B, T>,
}

impl<B: Balancer, T: Send + Sync + 'static> Probe<B, T> {
    /// Notes what the endpoint answered.
    pub fn report_load(&self, load: ServerLoad) {
        self.node.report(load);
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Deref for Probe<B, T> {
    type Target = Endpoint<T>;

    fn deref(&self) -> &Endpoint<T> {
        &self.node.endpoint
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Clone for Probe<B, T> {
    fn clone(&self) -> Self {
        Probe {
            node: Arc::clone(&self.node),
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for Probe<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("id", self.id()).finish_non_exhaustive()
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Pool<B, T> {
    /// Whom to ask for their load next: `n` different endpoints at random of those that get requests, or all if there are fewer.
    /// For whoever sends probes by hand; [`Probes`] does it otherwise.
    ///
    /// ```
    /// use outgrow::balance::{Endpoint, Pool, Prequal, ServerLoad};
    /// let pool = Pool::builder(Prequal::default()).endpoints(["a", "b", "c"].map(Endpoint::new)).build();
    /// let probes = pool.probe_targets(2);
    /// assert_eq!(probes.len(), 2);
    /// assert_ne!(probes[0].id(), probes[1].id());
    /// probes[0].report_load(ServerLoad::new(4.0)); // what it answered
    /// ```
    #[must_use]
    pub fn probe_targets(&self, n: usize) -> Vec<Probe<B, T>> {
        self.shared.probe_targets(n)
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Shared<B, T> {
    fn probe_targets(&self, n: usize) -> Vec<Probe<B, T>> {
        let pin = pin();
        let snapshot = self.current.load(&pin);
        let all = snapshot.busy_groups().map(|group| group.nodes.len()).sum();
        let node = |mut i: usize| {
            let mut groups = snapshot.busy_groups();
            let group = groups.find(|group| {
                let found = i < group.nodes.len();
                i -= if found { 0 } else { group.nodes.len() };
                found
            });
            group.map(|group| Arc::clone(&group.nodes[i]))
        };
        let chosen = sample(all, n, &mut self.dice.roll());
        chosen.into_iter().filter_map(node).map(|node| Probe { node }).collect()
    }
}

/// `n` different numbers below `all`, each set as likely as any other (Floyd's, in Bentley and Floyd, 1987); all if there are
/// fewer.
fn sample(all: usize, n: usize, rng: &mut Rng) -> Vec<usize> {
    let n = n.min(all);
    let mut chosen = Vec::with_capacity(n);
    for last in all - n..all {
        let i = rng.index(last + 1);
        chosen.push(if chosen.contains(&i) { last } else { i });
    }
    chosen
}

/// Asks endpoints for their load, some at random for each request, and reports what they answer: what
/// [`Prequal`](super::Prequal) lives on. Clones share the limit.
///
/// It has no tasks of its own. Call [`round`](Probes::round) with every pick, and spawn what it returns or let it go along with
/// the request:
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, Prequal, Probes, Request, ServerLoad};
/// # futures::executor::block_on(async {
/// let pool = Pool::builder(Prequal::default())
///     .endpoints([1_u8, 2, 3].map(|n| Endpoint::new(n.to_string()).target(n)))
///     .build();
/// let probes = Probes::new(pool.clone(), |endpoint| async move {
///     // A small request to the endpoint, answered with what it has in flight.
///     Ok::<_, std::io::Error>(ServerLoad::new(endpoint.target.into()))
/// });
/// probes.round().await;
/// let lease = pool.pick(&Request::new())?;
/// assert_eq!(lease.target, 1);
/// # Ok::<(), outgrow::balance::PickError>(())
/// # }).unwrap();
/// ```
pub struct Probes<B: Balancer, T: Send + Sync + 'static, F> {
    pool: Pool<B, T>,
    ask: Arc<F>,
    per_pick: usize,
    most: usize,
    timeout: Duration,
    in_flight: Arc<AtomicUsize>,
}

impl<B, T, F, A, E> Probes<B, T, F>
where
    B: Balancer,
    T: Send + Sync + 'static,
    F: Fn(Probe<B, T>) -> A + Send + Sync + 'static,
    A: Future<Output = Result<ServerLoad, E>> + Send + 'static,
    E: Send + 'static,
{
    /// Asks the endpoints of `pool` by `ask`. An endpoint whose answer is an error has said nothing; failures of requests are
    /// what tells that it is bad.
    #[must_use]
    pub fn new(pool: Pool<B, T>, ask: F) -> Self {
        Probes {
            pool,
            ask: Arc::new(ask),
            per_pick: 3,
            most: 64,
            timeout: Duration::from_secs(1),
            in_flight: Arc::default(),
        }
    }

    /// Asks so many with each [`round`](Probes::round). 3 by default.
    #[must_use]
    pub fn per_pick(mut self, n: usize) -> Self {
        self.per_pick = n;
        self
    }

    /// Asks no more than so many at once: a round with too little room asks fewer, or nobody. 64 by default.
    #[must_use]
    pub fn max_in_flight(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Waits for an answer that long, by the clock of the pool's environment. 1 s by default, at which age Prequal has no more
    /// use for it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Chooses whom to ask, and returns the future that asks them all at once. It ends when all have answered or their time is
    /// up.
    ///
    /// # Cancel safety
    /// Dropping the future drops the probes that have not been answered, and gives back their room; answers that came before
    /// count.
    pub fn round(&self) -> impl Future<Output = ()> + Send + use<B, T, F, A, E> {
        let slots = self.take(self.per_pick);
        let probes = self.pool.probe_targets(slots.0);
        let (ask, env, timeout) = (Arc::clone(&self.ask), self.pool.shared.core.env.clone(), self.timeout);
        async move {
            let asked = probes.into_iter().map(|probe| one(&*ask, probe, &env, timeout));
            join_all(asked).await;
            drop(slots);
        }
    }

    /// Up to `n` of the room that is left.
    fn take(&self, n: usize) -> Slots {
        let before = self.in_flight.update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.max(self.most.min(taken.saturating_add(n)))
        });
        let taken = self.most.saturating_sub(before).min(n);
        Slots(taken, Arc::clone(&self.in_flight))
    }
}

/// Asks one, and notes what it answers in time.
async fn one<B, T, A, E>(ask: &impl Fn(Probe<B, T>) -> A, probe: Probe<B, T>, env: &Env, timeout: Duration)
where
    B: Balancer,
    T: Send + Sync + 'static,
    A: Future<Output = Result<ServerLoad, E>> + Send,
{
    if let Ok(Ok(load)) = env.timeout(timeout, ask(probe.clone())).await {
        probe.report_load(load);
    }
}

/// Room for so many probes, until it is dropped.
struct Slots(usize, Arc<AtomicUsize>);

impl Drop for Slots {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0, Ordering::Relaxed);
    }
}

impl<B: Balancer, T: Send + Sync + 'static, F> Clone for Probes<B, T, F> {
    fn clone(&self) -> Self {
        Probes {
            pool: self.pool.clone(),
            ask: Arc::clone(&self.ask),
            in_flight: Arc::clone(&self.in_flight),
            ..*self
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static, F> fmt::Debug for Probes<B, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes")
            .field("per_pick", &self.per_pick)
            .field("max_in_flight", &self.most)
            .field("in_flight", &self.in_flight.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{EndpointId, Prequal};
    use crate::sim::World;
    use crate::sync::Mutex;
    use futures::FutureExt;
    use proptest::prelude::*;

    #[test]
    fn every_set_is_as_likely() {
        let mut rng = crate::env::Rng::seeded(1);
        let mut counts = std::collections::BTreeMap::<Vec<usize>, u32>::new();
        for _ in 0..20_000 {
            let mut set = sample(6, 3, &mut rng);
            set.sort_unstable();
            *counts.entry(set).or_default() += 1;
        }
        assert_eq!(counts.len(), 20);
        // Means of 1,000 with deviations of 31: six of them.
        assert!(counts.values().all(|n| (815..1_185).contains(n)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn nobody_is_asked_twice_at_once(all in 0_usize..40, n in 0_usize..50, seed in any::<u64>()) {
            let mut set = sample(all, n, &mut crate::env::Rng::seeded(seed));
            prop_assert_eq!(set.len(), n.min(all));
            set.sort_unstable();
            set.dedup();
            prop_assert_eq!(set.len(), n.min(all));
            prop_assert!(set.iter().all(|i| *i < all));
        }
    }

    /// Of which every other stands by.
    fn pool(env: Env, n: usize) -> Pool<Prequal> {
        let endpoints = (0..2 * n).map(|i| Endpoint::new(i.to_string()).priority((i % 2) as u8));
        Pool::builder(Prequal::default()).endpoints(endpoints).env(env).build()
    }

    fn now<F: Future>(future: F) -> Option<F::Output> {
        Box::pin(future).as_mut().now_or_never()
    }

    fn reported(pool: &Pool<Prequal>, id: &str) -> Option<f32> {
        let load = pool.shared.load(id)?;
        load.reported(pool.shared.core.env.coarse())
            .map(|(in_flight, _)| in_flight)
    }

    #[test]
    fn a_round_asks_as_many_as_it_should_and_reports_what_they_say() {
        let pool = pool(World::new(1).env(), 10);
        let asked = Arc::new(Mutex::new(Vec::<EndpointId>::new()));
        let seen = Arc::clone(&asked);
        let probes = Probes::new(pool.clone(), move |probe| {
            seen.lock().push(probe.id().clone());
            async move { probe.id().parse::<f32>().map(ServerLoad::new) }
        });
        assert_eq!(now(probes.per_pick(4).round()), Some(()));
        let asked = asked.lock();
        assert_eq!(asked.len(), 4);
        for id in asked.iter() {
            assert_eq!(reported(&pool, id), id.parse().ok());
            assert!(id.parse::<u32>().is_ok_and(|id| id % 2 == 0), "{id} gets no requests");
        }
    }

    #[test]
    fn room_is_kept_and_given_back() {
        let pool = pool(World::new(1).env(), 10);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let probes = Probes::new(pool, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Result<ServerLoad, ()>>()
        });
        let probes = probes.per_pick(4).max_in_flight(6);
        let in_flight = || probes.in_flight.load(Ordering::Relaxed);
        let (mut first, mut second, mut third) = (
            Box::pin(probes.round()),
            Box::pin(probes.clone().round()),
            Box::pin(probes.round()),
        );
        assert_eq!(first.as_mut().now_or_never(), None);
        assert_eq!(second.as_mut().now_or_never(), None);
        assert_eq!(third.as_mut().now_or_never(), Some(()), "there is no room left");
        assert_eq!((asked.load(Ordering::Relaxed), in_flight()), (6, 6));
        drop((first, third));
        assert_eq!(in_flight(), 2);
        drop(probes.round());
        assert_eq!(in_flight(), 2, "a round that never began holds nothing");
        drop(second);
        assert_eq!(in_flight(), 0);
    }

    #[test]
    fn who_fails_or_answers_too_late_has_said_nothing() {
        let world = World::new(1);
        let env = world.env();
        let pool = pool(env.clone(), 3);
        let clock = env.clone();
        let probes = Probes::new(pool.clone(), move |probe| {
            let clock = clock.clone();
            async move {
                let takes = match &**probe.id() {
                    "0" => return Err("is not well"),
                    "2" => 200,
                    _ => 50,
                };
                clock.sleep(Duration::from_millis(takes)).await;
                Ok(ServerLoad::new(7.0))
            }
        });
        let probes = probes.timeout(Duration::from_millis(100));
        let before = env.now();
        world.run(probes.round());
        assert_eq!(env.now() - before, Duration::from_millis(100));
        assert_eq!(["0", "2", "4"].map(|id| reported(&pool, id)), [None, None, Some(7.0)]);
    }
}
