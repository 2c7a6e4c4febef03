//! Spans of what takes long, under the feature `tracing`; nothing without it.

use std::future::Future;

/// A span that lasts until it is dropped.
#[must_use]
pub(super) struct Span {
    #[cfg(feature = "tracing")]
    entered: tracing::span::EnteredSpan,
}

impl Span {
    /// Says how many entries it was about.
    pub(super) fn note(&self, entries: u64) {
        #[cfg(feature = "tracing")]
        self.entered.record("entries", entries);
        #[cfg(not(feature = "tracing"))]
        let _ = entries;
    }
}

/// Saving a cache.
pub(super) fn save() -> Span {
    Span {
        #[cfg(feature = "tracing")]
        entered: tracing::info_span!("cache.save", entries = tracing::field::Empty).entered(),
    }
}

/// Restoring a cache.
pub(super) fn restore() -> Span {
    Span {
        #[cfg(feature = "tracing")]
        entered: tracing::info_span!("cache.restore", entries = tracing::field::Empty).entered(),
    }
}

/// Giving a cache another limit.
pub(super) fn resize(limit: u64) -> Span {
    #[cfg(not(feature = "tracing"))]
    let _ = limit;
    Span {
        #[cfg(feature = "tracing")]
        entered: tracing::info_span!("cache.resize", limit).entered(),
    }
}

/// Loading a value: from the start of the loader to its end, entered whenever it is polled.
pub(super) fn load<F: Future>(loader: F) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    return tracing::Instrument::instrument(loader, tracing::info_span!("cache.load"));
    #[cfg(not(feature = "tracing"))]
    loader
}
