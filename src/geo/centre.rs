use super::Position;
use crate::balance::EndpointId;

/// A data centre: one of the places that run the service.
///
/// It is to a [`GeoRouter`](super::GeoRouter) what an [`Endpoint`](crate::balance::Endpoint) is to a pool; its target
/// may well be the [`Pool`](crate::balance::Pool) of its endpoints.
///
/// ```
/// use outgrow::geo::{Centre, Position};
/// let centre = Centre::new("eu", Position::new(50.11, 8.68)?).capacity(2_000).bias(10).target("https://eu.example");
/// assert_eq!(centre.target, "https://eu.example");
/// # Ok::<(), outgrow::geo::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Centre<T = ()> {
    id: EndpointId,
    /// Where it is.
    pub position: Position,
    /// Its size relative to the others; 1 by default. It decides among centres less than a kilometre apart, for clients
    /// of which nothing is known, and, where no capacity is given, how much it takes of what another centre loses. One
    /// of weight 0 counts as drained.
    pub weight: u32,
    /// How many requests a second it can serve of those that this router routes; without a limit by default. With
    /// several routers, give each its share.
    pub capacity: Option<u32>,
    /// By how many percent it seems nearer than it is, or farther when negative, as in Amazon Route 53: a distance `d`
    /// counts as `d * (1 - bias / 100)`, and with a negative bias as `d / (1 + bias / 100)`, so 50 halves it and -50
    /// doubles it. 0 by default; beyond 99 it counts as 99, and below -99 as -99.
    pub bias: i8,
    /// What the caller needs in order to reach it: the pool of its endpoints, an address, a client. Dropped some time
    /// after the centre was removed and its last route is gone, on any thread that uses the router; its `Drop` must not
    /// call the router.
    pub target: T,
}

impl Centre {
    /// The centre called `id`, with weight 1, no limit to its capacity, no bias, and nothing as its target.
    #[must_use]
    pub fn new(id: impl Into<EndpointId>, position: Position) -> Centre {
        Centre {
            id: id.into(),
            position,
            weight: 1,
            capacity: None,
            bias: 0,
            target: (),
        }
    }
}

impl<T> Centre<T> {
    /// Its name, which tells it from every other centre of the router. Health, drain and demand belong to it.
    #[inline]
    #[must_use]
    pub fn id(&self) -> &EndpointId {
        &self.id
    }

    /// Sets the [`weight`](Centre::weight).
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the [`capacity`](Centre::capacity), in requests a second.
    #[must_use]
    pub fn capacity(mut self, requests_a_second: u32) -> Self {
        self.capacity = Some(requests_a_second);
        self
    }

    /// Sets the [`bias`](Centre::bias), in percent.
    #[must_use]
    pub fn bias(mut self, percent: i8) -> Self {
        self.bias = percent;
        self
    }

    /// Sets the [`target`](Centre::target).
    #[must_use]
    pub fn target<U>(self, target: U) -> Centre<U> {
        Centre {
            id: self.id,
            position: self.position,
            weight: self.weight,
            capacity: self.capacity,
            bias: self.bias,
            target,
        }
    }

    /// What routing needs to know of it.
    pub(super) fn without_target(&self) -> Centre {
        Centre {
            id: self.id.clone(),
            position: self.position,
            weight: self.weight,
            capacity: self.capacity,
            bias: self.bias,
            target: (),
        }
    }
}
