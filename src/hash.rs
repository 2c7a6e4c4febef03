//! Stable keyed hashing: the same key gives the same hash in every process and release.

use siphasher::sip::SipHasher13;
use std::hash::{BuildHasher, Hash};

/// SipHash-1-3 under a key (Aumasson and Bernstein, 2012): stable across processes, platforms and releases, and not
/// to be steered by whoever chooses the hashed keys without knowing the secret one.
///
/// ```
/// use outgrow::hash::KeyedHash;
/// let hash = KeyedHash::new(1, 2);
/// assert_eq!(hash.hash(b"user-7"), KeyedHash::new(1, 2).hash(b"user-7"));
/// assert_ne!(hash.hash(b"user-7"), KeyedHash::new(1, 3).hash(b"user-7"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct KeyedHash {
    sip: SipHasher13,
}

impl KeyedHash {
    /// The hash function of this 128-bit key.
    #[must_use]
    pub fn new(k0: u64, k1: u64) -> KeyedHash {
        KeyedHash {
            sip: SipHasher13::new_with_keys(k0, k1),
        }
    }

    /// The hash of some bytes.
    #[inline]
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        self.sip.hash(bytes)
    }

    /// The hash of any value, by its [`Hash`] implementation. Stable for one type within one release of Rust; use
    /// [`hash`](KeyedHash::hash) for what is kept or compared between programs.
    #[inline]
    #[must_use]
    pub fn hash_value<T: Hash + ?Sized>(&self, value: &T) -> u64 {
        self.hash_one(value)
    }
}

/// The fixed key zero.
impl Default for KeyedHash {
    fn default() -> KeyedHash {
        KeyedHash::new(0, 0)
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.sip
    }
}
