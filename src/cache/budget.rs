use crate::sync::{AtomicU64, CachePadded, Ordering};

/// How much a cache may hold, by count and by weight, over all its shards. What is used never exceeds a limit, at no
/// moment: room is taken before an entry is put in, and given back after it has left.
#[derive(Debug)]
pub(super) struct Budget {
    count: Limit,
    /// Counted only where it is limited.
    weight: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    used: CachePadded<AtomicU64>,
    limit: CachePadded<AtomicU64>,
}

/// What an entry takes of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) count: u64,
    pub(super) weight: u64,
}

impl Limit {
    fn new(limit: u64) -> Limit {
        Limit {
            used: CachePadded::new(AtomicU64::new(0)),
            limit: CachePadded::new(AtomicU64::new(limit)),
        }
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    fn limit(&self) -> u64 {
        self.limit.load(Ordering::SeqCst)
    }

    fn take(&self, n: u64) -> bool {
        if n == 0 {
            return true;
        }
        let fits = |used: u64| used.checked_add(n).filter(|used| *used <= self.limit());
        let taken = self.used.fetch_update(Ordering::SeqCst, Ordering::Relaxed, fits);
        // The limit may have been lowered between the look at it and the taking. Whoever lowers it looks at what is used
        // afterwards, so one of the two sees the other.
        if taken.is_ok_and(|before| before + n > self.limit()) {
            self.give(n);
            return false;
        }
        taken.is_ok()
    }

    fn give(&self, n: u64) {
        if n > 0 {
            self.used.fetch_sub(n, Ordering::SeqCst);
        }
    }
}

impl Budget {
    /// `None` is no limit.
    pub(super) fn new(count: Option<u64>, weight: Option<u64>) -> Budget {
        Budget {
            count: Limit::new(count.unwrap_or(u64::MAX)),
            weight: weight.map(Limit::new),
        }
    }

    pub(super) fn is_weighted(&self) -> bool {
        self.weight.is_some()
    }

    /// What is used now.
    pub(super) fn used(&self) -> Size {
        Size {
            count: self.count.used(),
            weight: self.weight.as_ref().map_or(0, Limit::used),
        }
    }

    pub(super) fn limit(&self) -> Size {
        Size {
            count: self.count.limit(),
            weight: self.weight.as_ref().map_or(u64::MAX, Limit::limit),
        }
    }

    /// Whether more is used than is allowed, which only lowering a limit brings about.
    pub(super) fn is_over(&self) -> bool {
        let (used, limit) = (self.used(), self.limit());
        used.count > limit.count || used.weight > limit.weight
    }

    pub(super) fn set_count(&self, limit: u64) {
        self.count.limit.store(limit, Ordering::SeqCst);
    }

    pub(super) fn set_weight(&self, limit: u64) {
        if let Some(weight) = &self.weight {
            weight.limit.store(limit, Ordering::SeqCst);
        }
    }

    /// Gives back what an entry took that has left.
    pub(super) fn give(&self, size: Size) {
        self.count.give(size.count);
        if let Some(weight) = &self.weight {
            weight.give(size.weight);
        }
    }

    /// Takes room for one entry of no weight.
    #[inline]
    pub(super) fn take_one(&self) -> bool {
        // A full cache is the common case, and a look at it is shared by all.
        self.count.used.load(Ordering::Relaxed) < self.count.limit.load(Ordering::Relaxed) && self.count.take(1)
    }

    /// Starts to find room.
    pub(super) fn room(&self) -> Room<'_> {
        Room {
            budget: self,
            has: Size::default(),
        }
    }
}

/// Room that was found for an entry. What is not used is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room<'a> {
    budget: &'a Budget,
    has: Size,
}

impl Room<'_> {
    /// Takes what is missing to `need`; false when the budget has no more.
    pub(super) fn take(&mut self, need: Size) -> bool {
        let count = need.count.saturating_sub(self.has.count);
        let weight = need.weight.saturating_sub(self.has.weight);
        if !self.budget.count.take(count) {
            return false;
        }
        self.has.count += count;
        let Some(limit) = &self.budget.weight else { return true };
        let taken = limit.take(weight);
        if taken {
            self.has.weight += weight;
        }
        taken
    }

    /// Adds what an entry took that has left.
    pub(super) fn add(&mut self, size: Size) {
        self.has.count += size.count;
        self.has.weight += size.weight;
    }

    /// Gives back what was found so far.
    pub(super) fn give_back(&mut self) {
        self.budget.give(std::mem::take(&mut self.has));
    }

    /// Hands `need`, which was taken, to an entry.
    pub(super) fn spend(mut self, need: Size) {
        self.has.count -= need.count;
        self.has.weight -= need.weight;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(count: u64, weight: u64) -> Size {
        Size { count, weight }
    }

    #[test]
    fn room_is_taken_once_and_what_is_left_comes_back() {
        let budget = Budget::new(Some(2), Some(10));
        let mut room = budget.room();
        assert!(room.take(size(1, 8)));
        room.spend(size(1, 8));
        let mut room = budget.room();
        assert!(!room.take(size(1, 3)));
        room.add(size(1, 8));
        assert!(room.take(size(1, 3)));
        room.spend(size(1, 3));
        assert_eq!(budget.used(), size(1, 3));
        budget.set_weight(2);
        assert!(budget.is_over() && !budget.room().take(size(0, 1)));
        budget.set_count(0);
        budget.give(size(1, 3));
        assert!(!budget.is_over() && !budget.room().take(size(1, 0)));
        assert_eq!(budget.used(), size(0, 0));
    }

    #[test]
    fn without_a_limit_on_weight_none_is_counted() {
        let budget = Budget::new(None, None);
        let mut room = budget.room();
        assert!(room.take(size(1, u64::MAX)));
        room.spend(size(1, 0));
        assert_eq!((budget.used(), budget.is_weighted()), (size(1, 0), false));
    }
}
