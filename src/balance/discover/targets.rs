use super::DiscoveryError;
use crate::balance::{Endpoint, EndpointId};
use futures::{Stream, StreamExt};
use std::collections::BTreeMap;
use std::error::Error;

/// What can be done with any stream of endpoint sets. Implemented by all of them.
pub trait DiscoverExt<T>: Stream<Item = Result<Vec<Endpoint<T>>, DiscoveryError>> + Sized + sealed::Sealed<T> {
    /// Gives each endpoint what a caller needs to reach it, such as a channel or a client.
    ///
    /// `make` runs once for each endpoint that joins, with what the source gave as its target, and again when that
    /// changes; a target stays with its endpoint and is dropped from here when the endpoint leaves. It must not block.
    /// When it fails the whole set counts as failed: what was made is kept for the next one.
    ///
    /// ```
    /// use futures::StreamExt;
    /// use outgrow::balance::Endpoint;
    /// use outgrow::balance::discover::{DiscoverExt, DiscoveryError};
    ///
    /// let sets = futures::stream::iter([vec!["a"], vec!["a", "b"]])
    ///     .map(|set| Ok(set.into_iter().map(Endpoint::new).collect()));
    /// let mut made = 0;
    /// let numbered = sets.targets(move |_| {
    ///     made += 1;
    ///     Ok::<_, DiscoveryError>(made)
    /// });
    /// let last = futures::executor::block_on_stream(numbered).last().expect("two sets")?;
    /// assert_eq!(last.iter().map(|endpoint| endpoint.target).collect::<Vec<_>>(), [1, 2]);
    /// # Ok::<(), DiscoveryError>(())
    /// ```
    fn targets<U, E>(
        self,
        make: impl FnMut(&Endpoint<T>) -> Result<U, E> + Send + 'static,
    ) -> impl Stream<Item = Result<Vec<Endpoint<U>>, DiscoveryError>> + Send + 'static
    where
        Self: Send + 'static,
        T: Clone + PartialEq + Send + 'static,
        U: Clone + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>;
}

impl<T, S: Stream<Item = Result<Vec<Endpoint<T>>, DiscoveryError>>> DiscoverExt<T> for S {
    fn targets<U, E>(
        self,
        mut make: impl FnMut(&Endpoint<T>) -> Result<U, E> + Send + 'static,
    ) -> impl Stream<Item = Result<Vec<Endpoint<U>>, DiscoveryError>> + Send + 'static
    where
        Self: Send + 'static,
        T: Clone + PartialEq + Send + 'static,
        U: Clone + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut kept: BTreeMap<EndpointId, (T, U)> = BTreeMap::new();
        self.map(move |set| {
            let set = set?;
            let mut made = Vec::with_capacity(set.len());
            for endpoint in &set {
                let known = kept.get(endpoint.id()).filter(|(from, _)| *from == endpoint.target);
                let target = match known {
                    Some((_, target)) => target.clone(),
                    None => {
                        let target = make(endpoint).map_err(DiscoveryError::other)?;
                        kept.insert(endpoint.id().clone(), (endpoint.target.clone(), target.clone()));
                        target
                    }
                };
                made.push(endpoint.clone().target(target));
            }
            let mut stay: Vec<_> = set.iter().map(Endpoint::id).collect();
            stay.sort_unstable();
            kept.retain(|id, _| stay.binary_search(&id).is_ok());
            Ok(made)
        })
    }
}

mod sealed {
    use super::{DiscoveryError, Endpoint, Stream};

    pub trait Sealed<T> {}

    impl<T, S: Stream<Item = Result<Vec<Endpoint<T>>, DiscoveryError>>> Sealed<T> for S {}
}
