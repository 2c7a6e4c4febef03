use super::router::Parts;
use super::{Centre, Error, GeoRouter, Locator, Overrides, Position};
use crate::balance::EndpointId;
use crate::env::Env;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where clients go of which nobody knows where they are: without an address, with a private one, or with one that the
/// locator does not find, as long as no override decides and no latency is observed.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Fallback {
    /// The weights of the centres divide them, each client always to the same one. The default.
    #[default]
    Divided,
    /// They are taken to be here.
    Position(Position),
    /// They belong to this centre; while it has left, the weights divide them.
    Centre(EndpointId),
}

/// What to do when no centre is healthy that is not drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllDown {
    /// To route as if all were healthy, as Amazon Route 53 does: that everything is down at once is more often a mistake
    /// of the checks. The default.
    #[default]
    RouteAll,
    /// To refuse with [`Error::AllDown`].
    Refuse,
}

/// Builds a [`GeoRouter`].
#[must_use]
pub struct GeoRouterBuilder<T = ()> {
    centres: Vec<Centre<T>>,
    overrides: Overrides,
    locator: Option<Arc<dyn Locator>>,
    fallback: Fallback,
    all_down: AllDown,
    reach: f64,
    groups: usize,
    latency_age: Duration,
    env: Option<Env>,
}

impl GeoRouterBuilder {
    pub(super) fn new() -> GeoRouterBuilder {
        GeoRouterBuilder {
            centres: Vec::new(),
            overrides: Overrides::default(),
            locator: None,
            fallback: Fallback::default(),
            all_down: AllDown::default(),
            reach: 500.0,
            groups: 1_024,
            latency_age: Duration::from_secs(600),
            env: None,
        }
    }

    /// Sets the data centres, with whatever target they have; none by default. The last of several with one id counts.
    pub fn centres<T>(self, centres: impl IntoIterator<Item = Centre<T>>) -> GeoRouterBuilder<T> {
        GeoRouterBuilder {
            centres: centres.into_iter().collect(),
            overrides: self.overrides,
            locator: self.locator,
            fallback: self.fallback,
            all_down: self.all_down,
            reach: self.reach,
            groups: self.groups,
            latency_age: self.latency_age,
            env: self.env,
        }
    }
}

impl<T: Send + Sync + 'static> GeoRouterBuilder<T> {
    /// Which clients belong to which centre whatever the distance; none by default.
    pub fn overrides(mut self, overrides: Overrides) -> Self {
        self.overrides = overrides;
        self
    }

    /// Finds out where addresses are by `locator`; by default nothing does.
    pub fn locator(mut self, locator: impl Locator) -> Self {
        self.locator = Some(Arc::new(locator));
        self
    }

    /// Where clients go of which nobody knows where they are; [`Fallback::Divided`] by default.
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// What to do when every centre is down; [`AllDown::RouteAll`] by default.
    pub fn all_down(mut self, choice: AllDown) -> Self {
        self.all_down = choice;
        self
    }

    /// How the load of a centre that cannot take it is divided: the trade of distance against spreading. Default: 500 km,
    /// about 5 ms of a fibre's round trip.
    ///
    /// Each of the other centres takes in proportion to the room that it has left (capacity less demand), and to how near
    /// it is to the centre that loses: one that is `reach` kilometres farther away than the nearest takes `1/e` as much
    /// of its room. None is filled beyond four fifths of its room while another has as much; none beyond its capacity
    /// while another has room. What finds no room at all stays with a centre that is healthy, and is else divided by
    /// capacity. A centre without a capacity counts by its weight, as if it had as much room for it as the others have,
    /// and is never full.
    ///
    /// A short reach sends clients to the nearest that has room. An endless one (`f64::INFINITY`) divides by the room
    /// alone. Below 1 and where it is no number it counts as 1.
    ///
    /// The room is worked out anew at every change and about once a second. Clients move only when a twentieth of a
    /// centre's clients or more should go elsewhere, and no more of them than must.
    pub fn reach(mut self, kilometres: f64) -> Self {
        self.reach = kilometres.max(1.0);
        self
    }

    /// Keeps the [observed](GeoRouter::observe) latencies of at most so many groups, of about 200 bytes and 8 for each
    /// centre; 1,024 by default. 0 counts as 1.
    pub fn groups(mut self, most: usize) -> Self {
        self.groups = most;
        self
    }

    /// Forgets the latency of a group to a centre when it was last observed so long ago; 10 minutes by default.
    pub fn latency_age(mut self, age: Duration) -> Self {
        self.latency_age = age;
        self
    }

    /// Takes time and chance from `env`; by default from [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Puts the router together.
    ///
    /// # Errors
    /// [`Error::NoSuchCentre`] when an override or the fallback names none of the centres.
    pub fn build(self) -> Result<GeoRouter<T>, Error> {
        GeoRouter::from_parts(Parts {
            centres: self.centres,
            overrides: self.overrides,
            locator: self.locator,
            fallback: self.fallback,
            all_down: self.all_down,
            reach: self.reach,
            groups: self.groups,
            latency_age: self.latency_age,
            env: self.env.unwrap_or_default(),
        })
    }
}

impl<T> fmt::Debug for GeoRouterBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let centres: Vec<_> = self.centres.iter().map(Centre::id).collect();
        f.debug_struct("GeoRouterBuilder")
            .field("centres", &centres)
            .field("fallback", &self.fallback)
            .field("all_down", &self.all_down)
            .finish_non_exhaustive()
    }
}
