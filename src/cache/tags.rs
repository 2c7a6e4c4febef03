use crate::hash::KeyedHash;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use dashmap::DashMap;
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
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
    table: DashMap<Named, (), KeyedHash>,
    /// How many tags there may be before unused ones are looked for.
    search_at: AtomicUsize,
}

#[derive(Debug)]
struct Tag {
    name: Box<str>,
    generation: AtomicU64,
}

/// A tag that is known by its name.
#[derive(Debug)]
struct Named(Arc<Tag>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Named) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Named {}

/// A tag at the generation in which an entry was written.
#[derive(Debug)]
pub(super) struct Stamp {
    tag: Arc<Tag>,
    written: u64,
}

impl Stamp {
    #[inline]
    pub(super) fn is_past(&self) -> bool {
        self.tag.generation.load(Ordering::Acquire) != self.written
    }

    pub(super) fn name(&self) -> &str {
        &self.tag.name
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
        let known = self.table.get(name).map(|known| Arc::clone(&known.key().0));
        let tag = known.unwrap_or_else(|| {
            self.forget_unused();
            let tag = Named(Arc::new(Tag {
                name: name.into(),
                generation: AtomicU64::new(0),
            }));
            Arc::clone(&self.table.entry(tag).or_default().key().0)
        });
        let written = tag.generation.load(Ordering::Acquire);
        Stamp { tag, written }
    }

    /// Ends the generation of `name`: what carries it is past from now on, on every thread. False when nothing does.
    pub(super) fn invalidate(&self, name: &str) -> bool {
        let known = self.table.get(name);
        known
            .map(|known| known.key().0.generation.fetch_add(1, Ordering::AcqRel))
            .is_some()
    }

    fn forget_unused(&self) {
        let limit = self.search_at.load(Ordering::Relaxed);
        if self.table.len() < limit {
            return;
        }
        // Nobody gets hold of a tag but through its entry of the table, which `retain` has to itself.
        self.table.retain(|known, ()| Arc::strong_count(&known.0) > 1);
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
        assert_eq!((old.name(), new.name(), other.name()), ("org:7", "org:7", "org:8"));
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
