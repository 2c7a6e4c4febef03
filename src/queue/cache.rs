use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What each entry takes beside its own bytes, about.
const OVERHEAD: usize = 96;

/// Recent entries of the log by their number, within a bound of bytes; the one put in first goes first.
#[derive(Debug)]
pub(super) struct Cache {
    entries: BTreeMap<u64, Bytes>,
    order: VecDeque<u64>,
    bytes: usize,
    limit: usize,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Cache {
        Cache {
            entries: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    pub(super) fn get(&self, seq: u64) -> Option<Bytes> {
        self.entries.get(&seq).cloned()
    }

    /// Puts in an entry that is durable, so that it never changes again.
    pub(super) fn put(&mut self, seq: u64, entry: Bytes) {
        let size = entry.len() + OVERHEAD;
        if size > self.limit || self.entries.contains_key(&seq) {
            return;
        }
        self.bytes += size;
        self.entries.insert(seq, entry);
        self.order.push_back(seq);
        while self.bytes > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, seq: u64) {
        if let Some(entry) = self.entries.remove(&seq) {
            self.bytes -= entry.len() + OVERHEAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_the_first_in_goes_first() {
        let entry = |len| Bytes::from(vec![0; len]);
        let mut cache = Cache::new(3 * (OVERHEAD + 10));
        for seq in 0..5 {
            cache.put(seq, entry(10));
        }
        let kept: Vec<_> = (0..5).filter(|seq| cache.get(*seq).is_some()).collect();
        assert_eq!(kept, [2, 3, 4]);
        cache.put(9, entry(10_000));
        assert_eq!((cache.get(9), cache.bytes), (None, cache.limit));
        cache.put(4, entry(1));
        assert_eq!(cache.get(4).unwrap().len(), 10);
    }
}
