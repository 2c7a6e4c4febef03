use bytes::Bytes;
use std::ops::{Bound, RangeBounds};

/// A walk over a range of keys in byte order. By default: all keys, ascending, without a limit, 1,000 a page.
///
/// ```
/// use outgrow::store::Scan;
/// let newest_ten = Scan::prefix("event/").reverse().limit(10);
/// assert!(newest_ten.contains(b"event/7"));
/// assert!(!newest_ten.contains(b"user/7"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Scan {
    /// The lower end.
    pub from: Bound<Bytes>,
    /// The upper end.
    pub to: Bound<Bytes>,
    /// Whether to go down from the upper end.
    pub descending: bool,
    /// The most entries to return.
    pub limit: usize,
    /// How many entries are fetched at a time at most; what a page returns was there at one moment.
    pub page: usize,
}

impl Scan {
    /// Every key.
    pub fn all() -> Scan {
        Scan {
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            descending: false,
            limit: usize::MAX,
            page: 1_000,
        }
    }

    /// The keys in `range`. A range whose start is past its end is empty.
    pub fn range(range: impl RangeBounds<Bytes>) -> Scan {
        Scan {
            from: range.start_bound().cloned(),
            to: range.end_bound().cloned(),
            ..Scan::all()
        }
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Scan {
        let prefix = prefix.into();
        let to = after_prefix(&prefix);
        Scan {
            from: Bound::Included(prefix),
            to,
            ..Scan::all()
        }
    }

    /// Goes from the last key to the first.
    pub fn reverse(mut self) -> Scan {
        self.descending = true;
        self
    }

    /// Returns at most `limit` entries.
    pub fn limit(mut self, limit: usize) -> Scan {
        self.limit = limit;
        self
    }

    /// Fetches `page` entries at a time, at least one.
    pub fn page(mut self, page: usize) -> Scan {
        self.page = page.max(1);
        self
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let after_start = match &self.from {
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
            Bound::Unbounded => true,
        };
        after_start
            && match &self.to {
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
                Bound::Unbounded => true,
            }
    }

    /// Whether no key can lie in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
            _ => false,
        }
    }

    /// What is left of the scan after `key`, which was the `taken`-th entry.
    pub(crate) fn after(mut self, key: Bytes, taken: usize) -> Scan {
        self.limit = self.limit.saturating_sub(taken);
        if self.descending {
            self.to = Bound::Excluded(key);
        } else {
            self.from = Bound::Excluded(key);
        }
        self
    }
}

/// The first key that does not begin with `prefix` and is greater than all that do.
fn after_prefix(prefix: &[u8]) -> Bound<Bytes> {
    match prefix.iter().rposition(|byte| *byte != u8::MAX) {
        None => Bound::Unbounded,
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bound::Excluded(end.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_prefix_holds_what_begins_with_it(
            prefix in prop::collection::vec(prop::sample::select(vec![0_u8, 7, 254, 255]), 0..4),
            key in prop::collection::vec(prop::sample::select(vec![0_u8, 7, 254, 255]), 0..6),
        ) {
            prop_assert_eq!(Scan::prefix(prefix.clone()).contains(&key), key.starts_with(&prefix));
        }

        #[test]
        fn an_empty_range_contains_nothing(from: (u8, bool), to: (u8, bool), key: u8) {
            let bound = |(byte, included)| {
                let key = Bytes::from(vec![byte]);
                if included { Bound::Included(key) } else { Bound::Excluded(key) }
            };
            let scan = Scan::range((bound(from), bound(to)));
            prop_assert!(!(scan.is_empty() && scan.contains(&[key])));
        }
    }
}
