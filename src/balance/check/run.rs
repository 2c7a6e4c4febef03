use super::Check;
use super::rota::{Rota, Rules, Turn};
use crate::balance::background::{Background, brief};
use crate::balance::pool::WeakPool;
use crate::balance::shared::SharedNode;
use crate::balance::{Balancer, EndpointId};
use crate::env::{Env, Rng, Tick};
use futures::FutureExt;
use futures::StreamExt;
use futures::future::{BoxFuture, Either, pending, select};
use futures::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// What a future of checks is made of.
pub(super) struct Work<B: Balancer, T: Send + Sync + 'static, C> {
    pub(super) pool: WeakPool<B, T>,
    pub(super) env: Env,
    pub(super) background: Arc<Background>,
    pub(super) check: Arc<C>,
    pub(super) rules: Rules,
    pub(super) timeout: Duration,
    pub(super) at_once: usize,
}

impl<B: Balancer, T: Send + Sync + 'static, C: Check<T>> Work<B, T, C> {
    pub(super) async fn run(self) {
        let post = &self.background.checks;
        let turn = self.background.take(post, super::Ledger::clear);
        let mut round = Round {
            rota: Rota::new(self.rules.clone()),
            rng: self.env.rng("health checks"),
            nodes: BTreeMap::new(),
            seen: None,
            running: FuturesUnordered::new(),
            turn,
            work: self,
        };
        while round.go().await.is_some() {}
    }
}

/// The checks of a pool as they go on.
struct Round<B: Balancer, T: Send + Sync + 'static, C> {
    work: Work<B, T, C>,
    turn: u64,
    rota: Rota,
    rng: Rng,
    nodes: BTreeMap<EndpointId, SharedNode<B, T>>,
    /// The number of the change after which the nodes were listed.
    seen: Option<u64>,
    running: FuturesUnordered<BoxFuture<'static, Checked>>,
}

/// A check that has ended.
struct Checked {
    turn: Turn,
    verdict: Result<(), String>,
}

impl<B: Balancer, T: Send + Sync + 'static, C: Check<T>> Round<B, T, C> {
    /// Begins what is due and waits for the next event; `None` when there is no pool to check any more, or somebody else
    /// checks it.
    async fn go(&mut self) -> Option<()> {
        let changes = self.list()?;
        self.begin();
        match self.next_event(changes).await {
            Some(checked) => self.end(checked),
            None => Some(()),
        }
    }

    /// Waits until a check ends, or else until one is due, the membership changes or the work is over.
    async fn next_event(&mut self, changes: u64) -> Option<Checked> {
        let background = Arc::clone(&self.work.background);
        let changed = pin!(background.changed_since(changes, &background.checks, self.turn));
        let due = if self.is_full() { None } else { self.rota.next() };
        let due = pin!(sleep_until(&self.work.env, due));
        let ended = pin!(async {
            match self.running.next().await {
                Some(checked) => checked,
                None => pending().await,
            }
        });
        match select(changed, select(ended, due)).await {
            Either::Right((Either::Left((checked, _)), _)) => Some(checked),
            Either::Left(_) | Either::Right((Either::Right(_), _)) => None,
        }
    }

    /// Brings the list of endpoints up to date, and says after which change that was; `None` as [`go`](Self::go).
    fn list(&mut self) -> Option<u64> {
        let pool = self.work.pool.upgrade()?;
        let post = &self.work.background.checks;
        // Before the list is made: a change that comes between the two is looked at again.
        let changes = self.work.background.changes();
        if self.seen == Some(changes) {
            return post.work(self.turn, |_| changes);
        }
        let nodes = pool.nodes().into_iter().map(|node| (node.endpoint.id().clone(), node));
        self.nodes = nodes.collect();
        let members = self.nodes.keys().cloned().collect();
        self.rota.set_members(&members, self.work.env.now());
        self.seen = Some(changes);
        post.work(self.turn, |ledger| {
            ledger.keep(&members);
            changes
        })
    }

    fn is_full(&self) -> bool {
        self.running.len() >= self.work.at_once.max(1)
    }

    /// Begins the checks that are due, as many as may run.
    fn begin(&mut self) {
        let now = self.work.env.now();
        while !self.is_full()
            && let Some(turn) = self.rota.begin(now)
        {
            let node = self
                .nodes
                .get(&turn.id)
                .expect("broken invariant: who is on the rota has a node");
            let check = one(
                self.work.env.clone(),
                Arc::clone(&self.work.check),
                Arc::clone(node),
                self.work.timeout,
            );
            let check = check.map(|verdict| Checked { turn, verdict });
            self.running.push(check.boxed());
        }
    }

    /// Takes a check's verdict to the pool. Each verdict, not only one that changes something: the pool may have forgotten
    /// the last one, with an endpoint that left and came back.
    fn end(&mut self, checked: Checked) -> Option<()> {
        let Checked { turn, verdict } = checked;
        let now = self.work.env.now();
        let pool = self.work.pool.upgrade()?;
        // What left by now, while the check ran, has no say: neither here nor under the name of a later one.
        self.list()?;
        let Some(healthy) = self.rota.end(&turn, verdict.is_ok(), now, &mut self.rng) else {
            return Some(());
        };
        let post = &self.work.background.checks;
        post.work(self.turn, |ledger| {
            ledger.note(&turn.id, verdict, healthy, now);
            pool.set_health(&turn.id, healthy);
        })
    }
}

impl<B: Balancer, T: Send + Sync + 'static, C> Drop for Round<B, T, C> {
    fn drop(&mut self) {
        let Some(pool) = self.work.pool.upgrade() else { return };
        // All: one may have been found unhealthy by those whose post this was before.
        let endpoints = pool.status().endpoints;
        self.work.background.checks.work(self.turn, |ledger| {
            ledger.clear();
            for endpoint in endpoints {
                pool.set_health(&endpoint.id, true);
            }
        });
    }
}

/// One check of one endpoint. One that panics has failed: it must not end the checks of all others.
async fn one<B: Balancer, T: Send + Sync + 'static, C: Check<T>>(
    env: Env,
    check: Arc<C>,
    node: SharedNode<B, T>,
    limit: Duration,
) -> Result<(), String> {
    let asked = AssertUnwindSafe(async { env.timeout(limit, check.check(&node.endpoint)).await });
    match asked.catch_unwind().await {
        Ok(Ok(verdict)) => verdict.map_err(|error| brief(&error)),
        Ok(Err(_)) => Err(format!("no answer within {limit:?}")),
        Err(_) => Err("the check panicked".to_owned()),
    }
}

/// Waits until `at`, or for ever.
async fn sleep_until(env: &Env, at: Option<Tick>) {
    match at {
        Some(at) => env.sleep_until(at).await,
        None => pending().await,
    }
}
