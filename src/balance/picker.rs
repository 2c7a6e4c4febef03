use super::dice::Die;
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::{Balancer, Endpoint, Lease, PickError, Request};
use crate::sync::pin;
use std::fmt;
use std::sync::Arc;

/// A handle on a pool for one task or thread, from [`Pool::picker`](super::Pool::picker).
///
/// It keeps the pool's snapshot and a random generator of its own, so a pick only looks whether the snapshot is still the
/// newest. One that lies idle keeps the endpoints of its last pick alive.
///
/// ```
/// use outgrow::balance::{Endpoint, Pool, PowerOfTwo, Request};
/// let pool = Pool::builder(PowerOfTwo::default()).endpoints([Endpoint::new("a")]).build();
/// let mut picker = pool.picker();
/// assert_eq!(&**picker.choose(&Request::new())?.id(), "a");
/// pool.update([Endpoint::new("b")]);
/// picker.pick(&Request::new())?.succeed();
/// assert_eq!(pool.status().endpoints[0].succeeded, 1);
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
pub struct Picker<B: Balancer, T: Send + Sync + 'static = ()> {
    shared: Arc<Shared<B, T>>,
    snapshot: Arc<Snapshot<B, T>>,
    die: Die,
}

impl<B: Balancer, T: Send + Sync + 'static> Picker<B, T> {
    pub(super) fn new(shared: Arc<Shared<B, T>>) -> Picker<B, T> {
        Picker {
            snapshot: shared.current.share(&pin()),
            die: shared.dice.die(),
            shared,
        }
    }

    /// Picks as [`Pool::pick`](super::Pool::pick) does.
    ///
    /// # Errors
    /// The same.
    #[inline(always)]
    pub fn pick(&mut self, request: &Request<'_>) -> Result<Lease<B, T>, PickError> {
        self.renew();
        self.shared.pick(&self.snapshot, request, &mut self.die.roll())
    }

    /// Chooses an endpoint without taking a lease: nothing is counted and no limit holds, so it serves where the policy
    /// does not learn from leases, to find the owner of a key, say.
    ///
    /// # Errors
    /// As [`pick`](Picker::pick), but never [`Saturated`](PickError::Saturated).
    #[inline]
    pub fn choose(&mut self, request: &Request<'_>) -> Result<&Endpoint<T>, PickError> {
        self.renew();
        let now = self.shared.core.look();
        match self.shared.choose(&self.snapshot, request, now, &mut self.die.roll()) {
            Some((group, i)) => Ok(&group.nodes[i].endpoint),
            None => Err(self.shared.why_none(&self.snapshot, request)),
        }
    }

    #[inline]
    fn renew(&mut self) {
        if !self.shared.current.is(&self.snapshot) || self.shared.is_stale(&self.snapshot) {
            self.take();
        }
    }

    #[cold]
    fn take(&mut self) {
        if self.shared.is_stale(&self.snapshot) {
            self.shared.try_settle();
        }
        self.snapshot = self.shared.current.share(&pin());
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Clone for Picker<B, T> {
    fn clone(&self) -> Self {
        Picker::new(Arc::clone(&self.shared))
    }
}

impl<B: Balancer, T: Send + Sync + 'static> fmt::Debug for Picker<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picker").finish_non_exhaustive()
    }
}
