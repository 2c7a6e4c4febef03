use super::dice::Dice;
use super::load::Era;
use super::roster::Roster;
use super::{Balancer, Completion, Endpoint, Lease, Load, Member, Outcome, OutlierEjection, PoolStatus, Request};
use crate::env::{Env, Tick};
use crate::sync::{AtomicU64, Mutex, Ordering, Published, pin};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A set of endpoints, and the policy that picks among them. Cheap to clone; clones are the same pool.
///
/// A pick reads an immutable snapshot without a lock, so it never waits for a change of the membership. A pick that
/// begins after [`remove`](Pool::remove), [`drain`](Pool::drain) or [`update`](Pool::update) has returned sees the
/// change.
///
/// Endpoints are told apart by id: in-flight counts, ejections and drains survive every change that keeps the id.
///
/// The pool has no tasks of its own: an endpoint whose ejection is over returns at the next pick, change or
/// [`status`](Pool::status).
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, Request, RoundRobin};
///
/// let pool = Pool::builder(RoundRobin::default())
///     .endpoints([Endpoint::new("a").target(8001), Endpoint::new("b").target(8002)])
///     .build();
/// pool.drain("a");
/// let lease = pool.pick(&Request::new())?;
/// assert_eq!(lease.target, 8002);
/// assert_eq!(pool.status().endpoints[1].in_flight, 1);
/// lease.succeed();
/// assert_eq!(pool.status().endpoints[1].succeeded, 1);
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
pub struct Pool<B: Balancer, T: Send + Sync + 'static = ()> {
    shared: Arc<Shared<B, T>>,
}

impl<B: Balancer, T: Send + Sync + 'static> Pool<B, T> {
    /// Starts a pool that picks by `policy`.
    pub fn builder(policy: B) -> PoolBuilder<B, T> {
        PoolBuilder {
            policy,
            endpoints: Vec::new(),
            outliers: Some(OutlierEjection::default()),
            env: None,
        }
    }

    /// Picks the endpoint for a request. Never waits. Allocates nothing, other than at a thread's first pick and, now
    /// and then, for a pick that frees what a change of the membership left behind.
    ///
    /// # Errors
    /// [`NoEndpoints`](PickError::NoEndpoints) when there are none or all are drained,
    /// [`AllEjected`](PickError::AllEjected), which happens only with a `max_ejection_percent` of 100, and
    /// [`Refused`](PickError::Refused) by the policy.
    #[inline]
    pub fn pick(&self, request: &Request<'_>) -> Result<Lease<B, T>, PickError> {
        let shared = &*self.shared;
        let pin = pin();
        let mut snapshot = shared.current.load(&pin);
        if snapshot.next_return.is_some_and(|at| shared.core.env.coarse() >= at) {
            shared.try_settle();
            snapshot = shared.current.load(&pin);
        }
        if snapshot.loads.is_empty() {
            return Err(shared.nobody(snapshot.next_return));
        }
        let policy = &shared.core.policy;
        let index = policy.pick(&snapshot.table, &snapshot.loads, request, &mut shared.dice.roll());
        let Some((load, node)) = index.and_then(|i| Some((snapshot.loads.get(i)?, snapshot.nodes.get(i)?))) else {
            return Err(shared.refuse(PickError::Refused));
        };
        let era = load.begin();
        let started = policy.needs_latency().then(|| shared.core.env.now());
        Ok(Lease::new(Arc::clone(node), era, started))
    }

    /// Makes `set` the endpoints of the pool. Those that were there already, by id, keep their in-flight count, ejection
    /// and drain; the last of several with one id counts.
    ///
    /// Takes time in proportion to the size of the set, plus what the policy's table takes; so do the next four.
    pub fn update(&self, set: impl IntoIterator<Item = Endpoint<T>>) {
        let set: Vec<_> = set.into_iter().collect();
        self.shared
            .change(|roster, _| roster.update(set.into_iter().map(|endpoint| self.shared.seat(endpoint))));
    }

    /// Adds an endpoint, or replaces the one of the same id, which keeps its in-flight count, ejection and drain.
    pub fn add(&self, endpoint: Endpoint<T>) {
        let (member, node) = self.shared.seat(endpoint);
        self.shared.change(|roster, _| roster.add(member, node));
    }

    /// Removes an endpoint and forgets what belongs to its id; leases that it has go on. False if there is none.
    pub fn remove(&self, id: &str) -> bool {
        self.shared.change(|roster, _| roster.remove(id))
    }

    /// Gives an endpoint no new requests until it is [enabled](Pool::enable); leases that it has go on, and are over
    /// when its `in_flight` in [`status`](Pool::status) is 0. False if there is no such endpoint.
    pub fn drain(&self, id: &str) -> bool {
        self.shared.change(|roster, _| roster.drain(id))
    }

    /// Ends a drain and an ejection. False if there is no such endpoint.
    pub fn enable(&self, id: &str) -> bool {
        self.shared.change(|roster, now| roster.enable(id, now))
    }

    /// How the pool and its endpoints are. Takes the lock of the changes, and time in proportion to the endpoints.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let refused = self.shared.refused.load(Ordering::Relaxed);
        let mut roster = self.shared.roster.lock();
        let now = self.shared.core.env.now();
        self.shared.settle(&mut roster, now);
        PoolStatus {
            endpoints: roster.status(now),
            ejections: roster.ejections,
            refused,
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Clone for Pool<B, T> {
    fn clone(&self) -> Self {
        Pool {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for Pool<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = pin();
        let range = &self.shared.current.load(&pin).loads;
        f.debug_struct("Pool").field("range", range).finish_non_exhaustive()
    }
}

/// Builds a [`Pool`].
#[must_use]
pub struct PoolBuilder<B: Balancer, T: Send + Sync + 'static = ()> {
    policy: B,
    endpoints: Vec<Endpoint<T>>,
    outliers: Option<OutlierEjection>,
    env: Option<Env>,
}

impl<B: Balancer, T: Send + Sync + 'static> PoolBuilder<B, T> {
    /// Adds endpoints; none by default. The last of several with one id counts.
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = Endpoint<T>>) -> Self {
        self.endpoints.extend(endpoints);
        self
    }

    /// When failing endpoints are ejected; by default as [`OutlierEjection::default`] says, and never with `None`.
    pub fn outliers(mut self, rules: impl Into<Option<OutlierEjection>>) -> Self {
        self.outliers = rules.into();
        self
    }

    /// Takes time and chance from `env`; by default from [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Puts the pool together.
    #[must_use]
    pub fn build(self) -> Pool<B, T> {
        let env = self.env.unwrap_or_default();
        let shared = Arc::new_cyclic(|me| Shared {
            me: Weak::clone(me),
            dice: Dice::new(env.rng("balance")),
            current: Published::new(Snapshot {
                table: self.policy.table(&[]),
                loads: Box::default(),
                nodes: Box::default(),
                next_return: None,
            }),
            roster: Mutex::new(Roster::new(self.outliers.clone())),
            refused: AtomicU64::new(0),
            core: Arc::new(Core {
                policy: self.policy,
                env,
                row: self
                    .outliers
                    .map_or(u32::MAX, |rules| rules.consecutive_failures.max(1)),
            }),
        });
        let pool = Pool { shared };
        pool.update(self.endpoints);
        pool
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for PoolBuilder<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("outliers", &self.outliers)
            .finish_non_exhaustive()
    }
}

/// Why there is no endpoint for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// The pool has no endpoint, or all are drained. Trying again helps only once that has changed.
    #[error("the pool has no endpoint that takes requests")]
    NoEndpoints,
    /// Every endpoint is ejected for having failed.
    #[error("every endpoint is ejected, the first returns in {returns_in:?}")]
    AllEjected {
        /// How long until the first returns, which is when to try again.
        returns_in: Duration,
    },
    /// The policy takes no endpoint for this request.
    #[error("the policy takes no endpoint for this request")]
    Refused,
}

/// What leases need of a pool.
struct Core<B> {
    policy: B,
    env: Env,
    /// Failures in a row that end in an ejection.
    row: u32,
}

struct Shared<B: Balancer, T: Send + Sync + 'static> {
    me: Weak<Shared<B, T>>,
    core: Arc<Core<B>>,
    dice: Dice,
    /// Written only under the lock of `roster`.
    current: Published<Snapshot<B, T>>,
    roster: Mutex<Roster<SharedNode<B, T>>>,
    refused: AtomicU64,
}

/// What picks read: the endpoints that may be picked, position by position, and the policy's table for them.
struct Snapshot<B: Balancer, T: Send + Sync + 'static> {
    table: B::Table,
    loads: Box<[Arc<Load>]>,
    nodes: Box<[SharedNode<B, T>]>,
    next_return: Option<Tick>,
}

impl<B: Balancer, T: Send + Sync + 'static> Shared<B, T> {
    /// Changes the membership and publishes what came of it.
    fn change<R>(&self, change: impl FnOnce(&mut Roster<SharedNode<B, T>>, Tick) -> R) -> R {
        let mut roster = self.roster.lock();
        let now = self.core.env.now();
        let result = change(&mut roster, now);
        roster.settle(now);
        self.publish(&roster);
        result
    }

    /// Lets back those whose ejection is over.
    fn settle(&self, roster: &mut Roster<SharedNode<B, T>>, now: Tick) {
        if roster.settle(now) {
            self.publish(roster);
        }
    }

    /// The same on behalf of a pick, which does not wait: if the lock is taken, its holder or the next pick does it.
    #[cold]
    fn try_settle(&self) {
        if let Some(mut roster) = self.roster.try_lock() {
            self.settle(&mut roster, self.core.env.now());
        }
    }

    #[cold]
    fn eject(&self, load: &Arc<Load>, era: Era) {
        let mut roster = self.roster.lock();
        let now = self.core.env.now();
        let settled = roster.settle(now);
        if roster.eject(load, era, now) || settled {
            self.publish(&roster);
        }
    }

    fn publish(&self, roster: &Roster<SharedNode<B, T>>) {
        let members: Vec<Member> = roster.range().map(|seat| seat.member.clone()).collect();
        self.current.store(Snapshot {
            table: self.core.policy.table(&members),
            loads: roster.range().map(|seat| Arc::clone(&seat.load)).collect(),
            nodes: roster.range().map(|seat| Arc::clone(&seat.node)).collect(),
            next_return: roster.next_return(),
        });
    }

    /// What the roster takes: an endpoint's face to the policy, and how to make its node.
    fn seat(&self, endpoint: Endpoint<T>) -> (Member, impl FnOnce(&Arc<Load>) -> SharedNode<B, T>) {
        let member = Member::from(&endpoint);
        let (core, pool) = (Arc::clone(&self.core), Weak::clone(&self.me));
        let node = |load: &Arc<Load>| {
            Arc::new(Node {
                endpoint,
                load: Arc::clone(load),
                core,
                pool,
            })
        };
        (member, node)
    }

    #[cold]
    fn nobody(&self, next_return: Option<Tick>) -> PickError {
        self.refuse(match next_return {
            Some(at) => PickError::AllEjected {
                returns_in: at - self.core.env.coarse(),
            },
            None => PickError::NoEndpoints,
        })
    }

    #[cold]
    fn refuse(&self, error: PickError) -> PickError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        error
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

type SharedNode<B, T> = Arc<Node<B, T>>;

impl<B: Balancer, T: Send + Sync + 'static> Node<B, T> {
    /// Ends a lease.
    #[inline]
    pub(super) fn finish(&self, era: Era, started: Option<Tick>, outcome: Outcome) {
        let row_is_full = self.load.end(era, outcome, self.core.row);
        let latency = started.map(|started| self.core.env.now() - started);
        self.core.policy.finish(&self.load, &Completion::new(outcome, latency));
        if row_is_full && let Some(pool) = self.pool.upgrade() {
            pool.eject(&self.load, era);
        }
    }
}
