use std::sync::Arc;

/// How requests stay in the zone that they come from, and when they leave it.
///
/// The policy picks one endpoint of the zone and, if that one has more in flight than its [`headroom`](Self::headroom), one
/// of another zone; the request stays where it is until its endpoint is [`spill_factor`](Self::spill_factor) times as busy
/// as the other, each in proportion to its weight. So a zone that has too little, or slow, or few healthy endpoints for its clients sends away just what it
/// cannot carry, and one that has enough sends nothing away. What counts as busy is what this pool has in flight there or,
/// if that is more, what the endpoint [reported](super::Lease::report_load) in the last second.
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, PowerOfTwo, Request, ZoneRouting};
/// let pool = Pool::builder(PowerOfTwo::default())
///     .zones(ZoneRouting::local("a"))
///     .endpoints([Endpoint::new("1").zone("a"), Endpoint::new("2").zone("b")])
///     .build();
/// let near = pool.pick(&Request::new())?;
/// assert_eq!(&**near.id(), "1");
/// let far = pool.pick(&Request::new().zone("b"))?;
/// assert_eq!(&**far.id(), "2");
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ZoneRouting {
    /// The zone of requests that do not name one. None by default: those are placed as if there were no zones.
    pub local: Option<Arc<str>>,
    /// How many times busier an endpoint of the zone may be than one elsewhere before a request leaves. 2 by default; 1
    /// and less treats all zones alike, infinity never leaves a zone that has an endpoint.
    pub spill_factor: f64,
    /// With so much in flight an endpoint of the zone always keeps its requests, times its weight. 4 by default: endpoints
    /// that serve many requests at once take more, and those that serve one at a time take 0.
    pub headroom: u32,
}

impl ZoneRouting {
    /// Keeps requests in the zone that each [names](super::Request::zone).
    #[must_use]
    pub fn by_request() -> ZoneRouting {
        ZoneRouting {
            local: None,
            spill_factor: 2.0,
            headroom: 4,
        }
    }

    /// Keeps requests in `zone`, unless they name another.
    #[must_use]
    pub fn local(zone: impl Into<Arc<str>>) -> ZoneRouting {
        ZoneRouting {
            local: Some(zone.into()),
            ..ZoneRouting::by_request()
        }
    }

    /// Sets the [`spill_factor`](Self::spill_factor).
    #[must_use]
    pub fn spill_factor(mut self, factor: f64) -> Self {
        self.spill_factor = factor;
        self
    }

    /// Sets the [`headroom`](Self::headroom).
    #[must_use]
    pub fn headroom(mut self, in_flight: u32) -> Self {
        self.headroom = in_flight;
        self
    }
}
