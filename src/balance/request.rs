use super::{EndpointId, Load};
use crate::env::Tick;

/// What a policy may know about the request that it places.
///
/// ```
/// use outgrow::balance::{EndpointId, Request};
/// let tried = [EndpointId::from("a")];
/// let request = Request::new().key(b"user-7").avoid(&tried).zone("eu-1");
/// assert_eq!(request.key, Some(&b"user-7"[..]));
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Request<'a> {
    /// What requests that belong together have in common: a user, a session. For policies that place by key; the
    /// others ignore it.
    pub key: Option<&'a [u8]>,
    /// Endpoints that were tried already; one of them is picked only when there is no other.
    pub avoid: &'a [EndpointId],
    /// Where it comes from, if that is not the pool's own [zone](super::ZoneRouting::local); a pool without zone routing
    /// ignores it.
    pub zone: Option<&'a str>,
    /// When its answer is of no more use, on the clock of the pool's environment. A pick that comes later is refused.
    pub deadline: Option<Tick>,
}

impl<'a> Request<'a> {
    /// A request of which nothing is known.
    #[must_use]
    pub const fn new() -> Request<'a> {
        Request {
            key: None,
            avoid: &[],
            zone: None,
            deadline: None,
        }
    }

    /// Sets the [`key`](Request::key).
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the endpoints to [`avoid`](Request::avoid).
    #[must_use]
    pub const fn avoid(mut self, tried: &'a [EndpointId]) -> Self {
        self.avoid = tried;
        self
    }

    /// Sets the [`zone`](Request::zone).
    #[must_use]
    pub const fn zone(mut self, zone: &'a str) -> Self {
        self.zone = Some(zone);
        self
    }

    /// Sets the [`deadline`](Request::deadline).
    #[must_use]
    pub const fn deadline(mut self, deadline: Tick) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Whether the endpoint of `load` was tried already.
    #[inline]
    #[must_use]
    pub fn avoids(&self, load: &Load) -> bool {
        !self.avoid.is_empty() && self.avoid.contains(load.id())
    }
}
