//! The caches that the benches compare, u64 to u64, behind one trait; each as its own documentation builds it.

use outgrow::cache::Cache;

/// A cache as the workloads use it.
pub(crate) trait Remember: Sync {
    fn get(&self, key: u64) -> Option<u64>;
    fn insert(&self, key: u64, value: u64);
    /// How many entries it holds, after whatever it put off is done.
    #[allow(dead_code, reason = "not every bench asks")]
    fn held(&self) -> usize;

    /// Many gets whose results nobody looks at.
    #[allow(dead_code, reason = "not every bench asks")]
    fn get_each(&self, keys: &[u64]) {
        for &key in keys {
            std::hint::black_box(self.get(key));
        }
    }
}

/// What a bench does with each of the caches.
pub(crate) trait Visit {
    /// `new` builds an empty cache for as many entries as it is given.
    fn visit<C: Remember>(&mut self, who: &str, new: impl Fn(usize) -> C);
}

/// Ours as it is built by default.
pub(crate) fn ours(capacity: usize) -> Cache<u64, u64> {
    let cache = Cache::builder().capacity(capacity).build();
    cache.expect("the options are in bounds")
}

/// The peers, where the bench was built with them: none without `--cfg peers`.
pub(crate) fn visit_peers(visit: &mut impl Visit) {
    #[cfg(peers)]
    peers::visit(visit);
    #[cfg(not(peers))]
    let _ = visit;
}

impl Remember for Cache<u64, u64> {
    fn get(&self, key: u64) -> Option<u64> {
        Cache::get(self, &key)
    }

    fn insert(&self, key: u64, value: u64) {
        Cache::insert(self, key, value);
    }

    fn held(&self) -> usize {
        self.len()
    }
}

#[cfg(peers)]
mod peers;
