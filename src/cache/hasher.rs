use foldhash::SharedSeed;
use foldhash::fast::{FoldHasher, SeedableRandomState};
use std::fmt;
use std::hash::BuildHasher;

/// How a [`Cache`](super::Cache) hashes its keys by default: foldhash, keyed by a secret that each cache draws from its
/// [`Env`](crate::env::Env), so that whoever chooses keys cannot choose where they go. Fast rather than strong: against
/// somebody who can measure each lookup, give the cache a [`KeyedHash`](crate::hash::KeyedHash) by
/// [`CacheBuilder::hasher`](super::CacheBuilder::hasher).
#[derive(Clone)]
pub struct DefaultHash(SeedableRandomState);

impl DefaultHash {
    pub(super) fn keyed(secret: u64) -> DefaultHash {
        DefaultHash(SeedableRandomState::with_seed(secret, SharedSeed::global_fixed()))
    }
}

impl BuildHasher for DefaultHash {
    type Hasher = FoldHasher<'static>;

    #[inline]
    fn build_hasher(&self) -> FoldHasher<'static> {
        self.0.build_hasher()
    }
}

/// Shows no secret.
impl fmt::Debug for DefaultHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultHash")
    }
}
