use super::schedule::Schedule;
use super::{DiscoveryError, Refresh};
use crate::balance::Endpoint;
use crate::env::{Env, Rng, Tick};
use futures::Stream;
use futures::stream::unfold;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// What a source found when it was asked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Found<T = ()> {
    /// The whole set.
    pub endpoints: Vec<Endpoint<T>>,
    /// For how long it holds; if that is not known, for the [`ceiling`](Refresh::ceiling).
    pub ttl: Option<Duration>,
}

impl<T> Found<T> {
    /// This set, for as long as the ceiling says.
    pub fn new(endpoints: Vec<Endpoint<T>>) -> Found<T> {
        Found { endpoints, ttl: None }
    }

    /// Sets for how long it holds.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// A source that asks a future of your own again and again: a registry over HTTP, an orchestrator's API.
///
/// ```
/// use futures::StreamExt;
/// use outgrow::balance::Endpoint;
/// use outgrow::balance::discover::{Found, PollSource, Refresh};
/// use outgrow::sim::World;
/// use std::time::Duration;
///
/// let world = World::new(1);
/// let mut asked = 0;
/// let registry = move || {
///     asked += 1;
///     // The second answer is the same as the first, and no news.
///     let set = (0..=asked / 3).map(|i| Endpoint::new(format!("s{i}"))).collect();
///     async move { Ok(Found::new(set)) }
/// };
/// let every = Refresh::every(Duration::from_secs(10));
/// let sets = PollSource::new(registry).refresh(every).env(world.env()).stream();
/// let sizes: Vec<_> = world.run(sets.take(2).map(|set| set.map_or(0, |set| set.len())).collect());
/// assert_eq!(sizes, [1, 2]);
/// assert!(world.now().as_nanos() >= 20_000_000_000);
/// ```
#[must_use = "a source says nothing until its stream is followed"]
pub struct PollSource<F> {
    ask: F,
    refresh: Refresh,
    timeout: Duration,
    env: Option<Env>,
}

impl<F> PollSource<F> {
    /// Asks `ask`.
    pub fn new(ask: F) -> PollSource<F> {
        PollSource {
            ask,
            refresh: Refresh::default(),
            timeout: Duration::from_secs(10),
            env: None,
        }
    }

    /// When to ask again. Default: [`Refresh::default`].
    pub fn refresh(mut self, refresh: Refresh) -> Self {
        self.refresh = refresh;
        self
    }

    /// How long one question may take; its future is dropped then, and it counts as failed. Default: 10 s. At zero only
    /// what is ready at once is an answer.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Takes time and chance from `env`; by default from [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// The sets: the first answer, each one that is another than the one before, each error, and the first answer after
    /// an error. It never ends, and waits for nothing but time between two questions.
    ///
    /// # Cancel safety
    /// Dropping it drops the question that is being asked.
    pub fn stream<Fut, T>(self) -> impl Stream<Item = Result<Vec<Endpoint<T>>, DiscoveryError>> + Send + 'static
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Found<T>, DiscoveryError>> + Send,
        T: Clone + PartialEq + Send + 'static,
    {
        let env = self.env.unwrap_or_default();
        let asking = Asking {
            rng: env.rng("discovery"),
            schedule: Schedule::new(self.refresh),
            timeout: self.timeout,
            at: Tick::ZERO,
            last: None,
            ask: self.ask,
            env,
        };
        unfold(asking, |mut asking| async move {
            let item = asking.news().await;
            Some((item, asking))
        })
    }
}

impl<F> fmt::Debug for PollSource<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollSource")
            .field("refresh", &self.refresh)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

struct Asking<F, T> {
    ask: F,
    env: Env,
    rng: Rng,
    schedule: Schedule,
    timeout: Duration,
    /// When to ask next.
    at: Tick,
    /// What was said last, unless that was an error.
    last: Option<Vec<Endpoint<T>>>,
}

impl<F, Fut, T> Asking<F, T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Found<T>, DiscoveryError>> + Send,
    T: Clone + PartialEq,
{
    async fn news(&mut self) -> Result<Vec<Endpoint<T>>, DiscoveryError> {
        loop {
            self.env.sleep_until(self.at).await;
            let limit = self.timeout;
            let answer = self.env.timeout(limit, (self.ask)()).await;
            let answer = answer.unwrap_or(Err(DiscoveryError::Timeout { limit }));
            let now = self.env.now();
            match answer {
                Ok(found) => {
                    self.at = self.schedule.answered(found.ttl, now, &mut self.rng);
                    if self.last.as_ref() != Some(&found.endpoints) {
                        self.last = Some(found.endpoints.clone());
                        return Ok(found.endpoints);
                    }
                }
                Err(error) => {
                    self.at = self.schedule.failed(now, &mut self.rng);
                    self.last = None;
                    return Err(error);
                }
            }
        }
    }
}
