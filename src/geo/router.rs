use super::atlas::{Atlas, Decision};
use super::latency::{LatencyTable, Observed};
use super::roster::{Roster, is_worth_it};
use super::{
    AllDown, Centre, Client, Error, Fallback, GeoRouterBuilder, GeoStatus, Group, Locator, Overrides, Reason, Route,
    Routes,
};
use crate::balance::PoolStatus;
use crate::env::{Env, Tick};
use crate::sync::{AtomicU64, Counter, Mutex, Ordering, Published, pin};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How often demand is measured, and with it how much of a centre's load others have to take.
const MEASURED_EVERY: Duration = Duration::from_secs(1);

/// A set of data centres, and the rules by which clients are routed among them. Cheap to clone; clones are the same
/// router.
///
/// A route reads an immutable snapshot without a lock, so it never waits for a change. One that begins after a change
/// has returned sees it.
///
/// Centres are told apart by id: health, share, demand and latencies survive every change that keeps the id.
///
/// The router has no tasks of its own: about once a second a route measures the demand on the way, if nobody else does.
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, PowerOfTwo, Request};
/// use outgrow::geo::{Centre, Client, GeoRouter, Position, Reason};
///
/// let pool = |name| Pool::builder(PowerOfTwo::default()).endpoints([Endpoint::new(name)]).build();
/// let router = GeoRouter::builder()
///     .centres([
///         Centre::new("eu", Position::new(50.1, 8.7)?).target(pool("eu-1")),
///         Centre::new("us", Position::new(39.0, -77.5)?).target(pool("us-1")),
///     ])
///     .build()?;
///
/// let client = Client::new().position(Position::new(48.9, 2.4)?);
/// let route = router.route(&client)?;
/// assert_eq!((&**route.id(), route.reason()), ("eu", Reason::Nearest));
/// let lease = route.target.pick(&Request::new())?; // an endpoint in that centre
/// lease.succeed();
///
/// router.set_health("eu", false);
/// let route = router.route(&client)?;
/// assert_eq!((&**route.id(), route.reason()), ("us", Reason::Spilled));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GeoRouter<T: Send + Sync + 'static = ()> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    env: Env,
    /// Written only under the lock of `state`.
    current: Published<Snapshot<T>>,
    state: Mutex<State<T>>,
    /// When demand is measured again: nanoseconds of the clock.
    due: AtomicU64,
    /// Tells clients apart that do not tell themselves.
    chance: AtomicU64,
    unlocated: Counter,
    refused: Counter,
}

/// What changes are made to: the centres twice, position by position, without their targets and with them.
struct State<T> {
    roster: Roster,
    nodes: Vec<Arc<Node<T>>>,
    /// Groups took the place of others, which routes do not see yet.
    stale_groups: bool,
}

/// What routes read.
struct Snapshot<T> {
    atlas: Option<Atlas>,
    nodes: Box<[Arc<Node<T>>]>,
}

/// A centre as routes hold it: made anew when the centre is replaced, with the counts of its id.
pub(super) struct Node<T> {
    pub(super) centre: Centre<T>,
    meter: Arc<Meter>,
}

/// What went on at a centre since it joined. 4 KiB.
#[derive(Default)]
struct Meter {
    /// Requests of its own clients, wherever they went.
    asked: Counter,
    /// Requests that went to it.
    routed: Counter,
}

impl GeoRouter {
    /// Starts a router without centres.
    pub fn builder() -> GeoRouterBuilder {
        GeoRouterBuilder::new()
    }
}

impl<T: Send + Sync + 'static> GeoRouter<T> {
    /// The centre for `client`. Never waits, whoever changes the router meanwhile. Allocates nothing, other than at a
    /// thread's first route and, at most once a second, for one that works out anew where the load of a centre goes that
    /// cannot take it.
    ///
    /// Whose client it is, the most specific rule decides: an override for a subnet, for a country, for a continent; the
    /// fastest centre, where latencies are [observed](GeoRouter::observe) for the client's group; the nearest. Of what is
    /// not known where it is, see [`Fallback`]. If that centre can take the client, it gets it. If the centre is down,
    /// shifted, drained or full, a part of its clients or all of them are spread over the others, each client always
    /// to the same one: see [`GeoRouterBuilder::reach`].
    ///
    /// # Errors
    /// [`Error::NoCentres`] and [`Error::AllDown`].
    #[inline]
    pub fn route(&self, client: &Client<'_>) -> Result<Route<T>, Error> {
        let shared = &*self.shared;
        shared.measure_if_due();
        let pin = pin();
        let snapshot = shared.current.load(&pin);
        let Some(atlas) = &snapshot.atlas else {
            return Err(shared.refuse());
        };
        let decision = shared.decide(atlas, client);
        snapshot.nodes[decision.home].meter.asked.add(1);
        Ok(snapshot.route(&decision))
    }

    /// Up to `most` centres for `client`, and at most [`MOST_ROUTES`](super::MOST_ROUTES): the one that
    /// [`route`](GeoRouter::route) gives, then the nearest others that are up, not drained, and not to be avoided,
    /// whatever their load. For requests to several centres at once, and for DNS answers with several addresses.
    ///
    /// # Errors
    /// As for [`route`](GeoRouter::route).
    pub fn nearest(&self, client: &Client<'_>, most: usize) -> Result<Routes<T>, Error> {
        let shared = &*self.shared;
        shared.measure_if_due();
        let pin = pin();
        let snapshot = shared.current.load(&pin);
        let Some(atlas) = &snapshot.atlas else {
            return Err(shared.refuse());
        };
        let decision = shared.decide(atlas, client);
        snapshot.nodes[decision.home].meter.asked.add(1);
        let (centres, len) = atlas.nearest(&decision, client, most);
        Ok(Routes::new(len, |at| match at {
            0 => Some(snapshot.route(&decision)),
            _ if at >= len => None,
            _ => {
                let node = &snapshot.nodes[centres[at]];
                node.meter.routed.add(1);
                Some(Route::new(Arc::clone(node), None, Reason::Nearest, decision.scope))
            }
        }))
    }

    /// Makes `set` the data centres. Those that were there already, by id, keep what belongs to them; the last of several
    /// with one id counts.
    ///
    /// Takes time in proportion to the square of the number of centres, and to the overrides and groups; so do the other
    /// changes.
    pub fn update(&self, set: impl IntoIterator<Item = Centre<T>>) {
        let mut centres: Vec<Centre<T>> = Vec::new();
        for centre in set {
            match centres.iter_mut().find(|known| known.id() == centre.id()) {
                Some(known) => *known = centre,
                None => centres.push(centre),
            }
        }
        self.shared.change(|state| {
            let nodes = centres.into_iter().map(|centre| state.node(centre)).collect();
            state.seat(nodes);
        });
    }

    /// Adds a centre, or replaces the one of the same id, which keeps what belongs to it.
    pub fn add(&self, centre: Centre<T>) {
        self.shared.change(|state| {
            let mut nodes = state.nodes.clone();
            let node = state.node(centre);
            match nodes.iter_mut().find(|known| known.centre.id() == node.centre.id()) {
                Some(known) => *known = node,
                None => nodes.push(node),
            }
            state.seat(nodes);
        });
    }

    /// Removes a centre and forgets what belongs to its id; routes that lead to it stay good. False if there is none.
    pub fn remove(&self, id: &str) -> bool {
        self.shared.change(|state| {
            let there = state.roster.position(id).is_some();
            let nodes = state.nodes.iter().filter(|node| **node.centre.id() != *id);
            state.seat(nodes.cloned().collect());
            there
        })
    }

    /// Says whether a centre is healthy; all are at first. False if there is no such centre.
    pub fn set_health(&self, id: &str, healthy: bool) -> bool {
        self.shared.change(|state| state.roster.set_health(id, healthy))
    }

    /// Takes the health of a centre from the pool of its endpoints: it is healthy if any endpoint may be picked, and
    /// its capacity is the part of theirs, by weight, that may. False if there is no such centre.
    ///
    /// ```
    /// # use outgrow::balance::{Endpoint, Pool, PowerOfTwo};
    /// # use outgrow::geo::{Centre, GeoRouter, Position};
    /// let pool: Pool<_> = Pool::builder(PowerOfTwo::default()).endpoints(["a", "b"].map(Endpoint::new)).build();
    /// let eu = Centre::new("eu", Position::new(50.1, 8.7)?).capacity(1_000);
    /// let router = GeoRouter::builder().centres([eu]).build()?;
    /// pool.drain("a");
    /// router.report_pool("eu", &pool.status());
    /// assert_eq!(router.status().centres[0].capacity, Some(500.0));
    /// # Ok::<(), outgrow::geo::Error>(())
    /// ```
    pub fn report_pool(&self, id: &str, pool: &PoolStatus) -> bool {
        self.shared.change(|state| state.roster.report_pool(id, pool))
    }

    /// Leaves a centre this share of its clients, from 0 (none, as [`drain`](GeoRouter::drain)) to 1 (all); the others
    /// are spread. A canary starts at 0.01 and is turned up: clients that are there stay there. It also takes only this
    /// share of what it has room for when others lose load. False if there is no such centre.
    pub fn shift(&self, id: &str, share: f64) -> bool {
        let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
        self.shared.change(|state| state.roster.shift(id, share))
    }

    /// Gives a centre no new requests until it is [enabled](GeoRouter::enable). False if there is no such centre.
    pub fn drain(&self, id: &str) -> bool {
        self.shift(id, 0.0)
    }

    /// Ends a drain or a shift. False if there is no such centre.
    pub fn enable(&self, id: &str) -> bool {
        self.shift(id, 1.0)
    }

    /// Says how many requests a second the clients of a centre make, wherever they are routed, in place of what this
    /// router measures: where it does not see them all, as behind DNS. `None` measures again. False if there is no such
    /// centre.
    pub fn set_demand(&self, id: &str, requests_a_second: impl Into<Option<f64>>) -> bool {
        let demand = requests_a_second
            .into()
            .map(|demand| demand.max(0.0))
            .filter(|demand| demand.is_finite());
        self.shared.change(|state| state.roster.set_demand(id, demand))
    }

    /// Replaces all overrides.
    ///
    /// # Errors
    /// [`Error::NoSuchCentre`], and nothing is changed.
    pub fn set_overrides(&self, overrides: Overrides) -> Result<(), Error> {
        self.shared.change(|state| {
            if let Some(id) = overrides.centres().find(|id| state.roster.position(id).is_none()) {
                return Err(Error::NoSuchCentre { id: id.clone() });
            }
            state.roster.overrides = overrides;
            Ok(())
        })
    }

    /// Replaces what finds out where addresses are, as when a new edition of a database has come.
    pub fn set_locator(&self, locator: impl Locator) {
        let locator: Arc<dyn Locator> = Arc::new(locator);
        self.shared.change(|state| state.roster.locator = Some(locator));
    }

    /// Takes note of a latency that was measured between clients of a group and a centre, wherever it was measured. The
    /// average, of which a new observation is an eighth, decides between centres once it is known of the one that is
    /// nearest to the client: another has to be faster than that by a tenth. False if there is no such centre.
    ///
    /// The number of groups is [bounded](GeoRouterBuilder::groups): the group observed longest ago makes room for a new
    /// one, which then takes up to a second to count.
    ///
    /// ```
    /// # use outgrow::geo::{Centre, Client, GeoRouter, Position, Reason};
    /// # use std::time::Duration;
    /// let (eu, us) = (Position::new(50.1, 8.7)?, Position::new(39.0, -77.5)?);
    /// let router = GeoRouter::builder().centres([Centre::new("eu", eu), Centre::new("us", us)]).build()?;
    /// let net: ipnet::IpNet = "192.0.2.0/24".parse()?;
    /// router.observe(net, "eu", Duration::from_millis(180)); // a satellite link that lands elsewhere
    /// router.observe(net, "us", Duration::from_millis(90));
    /// let route = router.route(&Client::new().ip([192, 0, 2, 1]).position(eu))?;
    /// assert_eq!((&**route.id(), route.reason()), ("us", Reason::Latency));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observe(&self, group: impl Into<Group>, centre: &str, latency: Duration) -> bool {
        let shared = &*self.shared;
        let now = shared.env.coarse();
        let mut state = shared.state.lock();
        let Some(place) = state.roster.position(centre) else {
            return false;
        };
        match state.roster.latencies.observe(group.into(), place, latency, now) {
            Observed::Figures => {}
            Observed::Joined => shared.publish(&mut state),
            Observed::Replaced => state.stale_groups = true,
        }
        true
    }

    /// How the router and its centres are. Takes the lock of the changes, and time in proportion to the square of the
    /// number of centres.
    #[must_use]
    pub fn status(&self) -> GeoStatus {
        let state = self.shared.state.lock();
        GeoStatus {
            centres: state
                .roster
                .status(state.nodes.iter().map(|node| node.meter.routed.sum())),
            all_down: state.roster.is_all_down(),
            idle_overrides: state.roster.idle_overrides(),
            groups: state.roster.latencies.len(),
            groups_evicted: state.roster.latencies.evicted,
            unlocated: self.shared.unlocated.sum(),
            refused: self.shared.refused.sum(),
        }
    }

    pub(super) fn from_parts(parts: Parts<T>) -> Result<GeoRouter<T>, Error> {
        let latencies = LatencyTable::new(parts.groups, parts.latency_age);
        let mut roster = Roster::new(parts.fallback.clone(), parts.all_down, parts.reach, latencies);
        roster.locator = parts.locator;
        let router = GeoRouter {
            shared: Arc::new(Shared {
                chance: AtomicU64::new(parts.env.rng("geo").next_u64()),
                due: AtomicU64::new(0),
                env: parts.env,
                current: Published::new(Snapshot {
                    atlas: None,
                    nodes: Box::default(),
                }),
                state: Mutex::new(State {
                    roster,
                    nodes: Vec::new(),
                    stale_groups: false,
                }),
                unlocated: Counter::new(),
                refused: Counter::new(),
            }),
        };
        router.update(parts.centres);
        if let Fallback::Centre(id) = parts.fallback
            && router.shared.state.lock().roster.position(&id).is_none()
        {
            return Err(Error::NoSuchCentre { id });
        }
        router.set_overrides(parts.overrides)?;
        Ok(router)
    }
}

/// What a router is made of.
pub(super) struct Parts<T> {
    pub(super) centres: Vec<Centre<T>>,
    pub(super) overrides: Overrides,
    pub(super) locator: Option<Arc<dyn Locator>>,
    pub(super) fallback: Fallback,
    pub(super) all_down: AllDown,
    pub(super) reach: f64,
    pub(super) groups: usize,
    pub(super) latency_age: Duration,
    pub(super) env: Env,
}

impl<T: Send + Sync + 'static> Clone for GeoRouter<T> {
    fn clone(&self) -> Self {
        GeoRouter {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for GeoRouter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = pin();
        let nodes = &self.shared.current.load(&pin).nodes;
        let ids: Vec<_> = nodes.iter().map(|node| node.centre.id()).collect();
        f.debug_struct("GeoRouter")
            .field("centres", &ids)
            .finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    #[inline]
    fn decide(&self, atlas: &Atlas, client: &Client<'_>) -> Decision {
        let chance = match client.key.is_none() && client.ip.is_none() {
            true => self.chance.fetch_add(1, Ordering::Relaxed),
            false => 0,
        };
        let decision = atlas.decide(client, || self.env.coarse(), super::client::mix(chance));
        if decision.reason == Reason::Fallback {
            self.unlocated.add(1);
        }
        decision
    }

    /// Changes something and publishes what came of it.
    fn change<R>(&self, change: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state);
        self.publish(&mut state);
        result
    }

    fn publish(&self, state: &mut State<T>) {
        state.stale_groups = false;
        self.current.store(Snapshot {
            atlas: state.roster.atlas(),
            nodes: state.nodes.iter().cloned().collect(),
        });
    }

    #[inline]
    fn measure_if_due(&self) {
        let now = self.env.coarse();
        if now.as_nanos() >= self.due.load(Ordering::Relaxed) {
            self.measure(now);
        }
    }

    /// Measures the demand on behalf of a route, which does not wait: if the lock is taken, the next route does it.
    #[cold]
    fn measure(&self, now: Tick) {
        let Some(mut state) = self.state.try_lock() else { return };
        let State { roster, nodes, .. } = &mut *state;
        roster.measure(now, nodes.iter().map(|node| node.meter.asked.sum()));
        self.due.store((now + MEASURED_EVERY).as_nanos(), Ordering::Relaxed);
        if state.stale_groups || self.is_behind(&state.roster) {
            self.publish(&mut state);
        }
    }

    /// Whether the demand has changed so much that more, fewer or other clients should go elsewhere.
    fn is_behind(&self, roster: &Roster) -> bool {
        let pin = pin();
        let Some(atlas) = &self.current.load(&pin).atlas else {
            return false;
        };
        if roster.is_settled() && atlas.shares.iter().all(|share| share.keep >= 1.0) {
            return false;
        }
        is_worth_it(&atlas.shares, &roster.shares())
    }

    #[cold]
    fn refuse(&self) -> Error {
        self.refused.add(1);
        // There may be one by now; this client came too early.
        self.state.lock().roster.refusal().unwrap_or(Error::AllDown)
    }
}

impl<T> State<T> {
    /// The node of a centre, with the counts of its id.
    fn node(&self, centre: Centre<T>) -> Arc<Node<T>> {
        let known = self.nodes.iter().find(|node| node.centre.id() == centre.id());
        let meter = known.map_or_else(Arc::default, |node| Arc::clone(&node.meter));
        Arc::new(Node { centre, meter })
    }

    fn seat(&mut self, nodes: Vec<Arc<Node<T>>>) {
        self.roster
            .update(nodes.iter().map(|node| node.centre.without_target()));
        self.nodes = nodes;
    }
}

impl<T> Snapshot<T> {
    #[inline]
    fn route(&self, decision: &Decision) -> Route<T> {
        let node = &self.nodes[decision.centre];
        node.meter.routed.add(1);
        let home = (decision.home != decision.centre).then(|| self.nodes[decision.home].centre.id().clone());
        Route::new(Arc::clone(node), home, decision.reason, decision.scope)
    }
}
