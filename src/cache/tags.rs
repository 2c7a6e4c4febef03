use crate::hash::KeyedHash;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use dashmap::DashMap;
use std::sync::Arc;

/// The parts of the table, each with a lock; fixed, so that nothing depends on the machine.
const PARTS: usize = 16;
/// A table of at most so many tags is never searched for unused ones.
const FEW: usize = 64;

/// The tags that entries carry, by name. Each has a generation; to invalidate a tag is to start its next one.
///
/// A tag takes its name and about 60 bytes. One that no entry carries any more is dropped when the table has doubled since
/// it was last searched for such.
#[derive(Debug)]
pub(super) struct Tags {
    table: DashMap<Box<str>, Arc<AtomicU64>, KeyedHash>,
    /// How many tags there may be before unused ones are looked for.
    search_at: AtomicUsize,
}

/// A tag at the generation in which an entry was written.
#[derive(Debug)]
pub(super) struct Stamp {
    tag: Arc<AtomicU64>,
    written: u64,
}

impl Stamp {
    #[inline]
    pub(super) fn is_past(&self) -> bool {
        self.tag.load(Ordering::Acquire) != self.written
    }
}

impl Tags {
    pub(super) fn new(hash: KeyedHash) -> Tags {
        Tags {
            table: DashMap::with_hasher_and_shard_amount(hash, PARTS),
            search_at: AtomicUsize::new(FEW),
        }
    }

    /// The present generation of `name`.
    pub(super) fn stamp(&self, name: &str) -> Stamp {
        let known = self.table.get(name).map(|tag| Arc::clone(&tag));
        let tag = known.unwrap_or_else(|| {
            self.forget_unused();
            Arc::clone(&self.table.entry(name.into()).or_default())
        });
        let written = tag.load(Ordering::Acquire);
        Stamp { tag, written }
    }

    /// Ends the generation of `name`: what carries it is past from now on, on every thread. False when nothing does.
    pub(super) fn invalidate(&self, name: &str) -> bool {
        let tag = self.table.get(name);
        tag.map(|tag| tag.fetch_add(1, Ordering::AcqRel)).is_some()
    }

    /// The name of a stamp's tag, found by a search through all.
    pub(super) fn name(&self, stamp: &Stamp) -> Option<String> {
        let mut all = self.table.iter();
        all.find(|tag| Arc::ptr_eq(tag.value(), &stamp.tag))
            .map(|tag| tag.key().to_string())
    }

    fn forget_unused(&self) {
        let limit = self.search_at.load(Ordering::Relaxed);
        if self.table.len() < limit {
            return;
        }
        // Nobody gets hold of a tag but through its entry of the table, which `retain` has to itself.
        self.table.retain(|_, tag| Arc::strong_count(tag) > 1);
        self.search_at.store((self.table.len() * 2).max(FEW), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_ends_for_what_was_written_in_it() {
        let tags = Tags::new(KeyedHash::default());
        let (old, other) = (tags.stamp("org:7"), tags.stamp("org:8"));
        assert!(!old.is_past() && tags.invalidate("org:7") && !tags.invalidate("org:9"));
        let new = tags.stamp("org:7");
        assert!(old.is_past() && !new.is_past() && !other.is_past());
        assert_eq!(tags.name(&old).as_deref(), Some("org:7"));
    }

    #[test]
    fn unused_tags_do_not_pile_up() {
        let tags = Tags::new(KeyedHash::default());
        let kept = tags.stamp("kept");
        (0..10_000).for_each(|n| drop(tags.stamp(&n.to_string())));
        assert!(tags.table.len() <= 2 * FEW, "{}", tags.table.len());
        tags.invalidate("kept");
        assert!(kept.is_past());
    }
}
