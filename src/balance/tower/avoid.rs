use crate::balance::EndpointId;
use crate::balance::attempts::Verdict;
use crate::env::Tick;
use crate::sync::{Mutex, MutexGuard};
use std::fmt;
use std::sync::Arc;

/// The endpoints that a request was sent to, as an extension of the request.
///
/// A [`BalanceService`](super::BalanceService) avoids them and adds the one that it picks. Clones are one list, so
/// whoever sends a request several times puts it into the first and clones the request; [`RetryLayer`](super::RetryLayer)
/// does.
///
/// ```
/// use outgrow::balance::tower::Avoid;
/// let avoid = Avoid::new(["10.0.0.7:80".into()]);
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(avoid.clone());
/// assert_eq!(avoid.tried(), ["10.0.0.7:80".into()]);
/// ```
#[derive(Clone, Default)]
pub struct Avoid {
    tried: Arc<Mutex<Vec<EndpointId>>>,
    verdict: Arc<Mutex<Option<Verdict>>>,
    /// Rather no endpoint than one that was tried.
    pub(super) strict: bool,
}

impl Avoid {
    /// A list that begins with these.
    pub fn new(tried: impl IntoIterator<Item = EndpointId>) -> Avoid {
        Avoid {
            tried: Arc::new(Mutex::new(tried.into_iter().collect())),
            ..Avoid::default()
        }
    }

    /// The endpoints so far, in the order in which they were picked.
    #[must_use]
    pub fn tried(&self) -> Vec<EndpointId> {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<EndpointId>> {
        self.tried.lock()
    }

    /// The same list for another request, which notes how it went by itself.
    pub(super) fn again(&self, strict: bool) -> Avoid {
        Avoid {
            tried: Arc::clone(&self.tried),
            verdict: Arc::default(),
            strict,
        }
    }

    /// Notes how the request went.
    pub(super) fn note(&self, verdict: impl Into<Verdict>) {
        *self.verdict.lock() = Some(verdict.into());
    }

    /// How it went; none if no balancer saw to the end of it.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        *self.verdict.lock()
    }
}

impl fmt::Debug for Avoid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&*self.lock()).finish()
    }
}

/// When a request's response is of no more use, as an extension of the request; on the clock of the pool's environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Tick);
