use super::tags::Stamp;

/// What only some entries have. An allocation of its own, made when the entry is written.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// The deadline that idle time cannot move the entry past, in milliseconds since the cache was built.
    pub(super) latest: Option<u64>,
    /// Its own idle time, in milliseconds, instead of the cache's.
    pub(super) idle: Option<u64>,
    /// Its tags, as they stood when it was written.
    pub(super) tags: Box<[Stamp]>,
}

impl Extra {
    /// True when there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_none() && self.idle.is_none() && self.tags.is_empty()
    }

    /// Whether one of its tags was invalidated since.
    pub(super) fn is_invalid(&self) -> bool {
        self.tags.iter().any(Stamp::is_past)
    }
}
