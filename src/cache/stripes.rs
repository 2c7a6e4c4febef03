use crate::mutant::{Mutant, planted};
use crate::store::Version;
use crate::sync::Mutex;

/// How many stripes there are. More of them turn away fewer fills for a neighbour's sake; 64 bytes each.
const STRIPES: usize = 1_024;

/// What was invalidated lately, for each of a fixed number of parts of the keys: the judge of which reads of the store
/// below may be kept.
#[derive(Debug)]
pub(super) struct Stripes {
    stripes: Box<[Mutex<Stripe>]>,
}

/// The invalidations of one part of the keys.
#[derive(Clone, Copy, Debug, Default)]
struct Stripe {
    /// How many there were.
    count: u64,
    /// How many there had been when all was forgotten last.
    forgotten: u64,
    /// The newest version among those since.
    newest: Version,
    /// The last one that told a version, by the hash of its key.
    last: Option<(u64, Fate)>,
}

/// What an invalidation says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was set by a write of this version.
    Set(Version),
    /// It was removed by a write of this version.
    Removed(Version),
    /// It may or may not have been written.
    Unknown,
}

/// A read of the store below that has begun: what its stripe had seen by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    count: u64,
}

impl Stripes {
    pub(super) fn new() -> Stripes {
        Stripes {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
        }
    }

    fn of(&self, key: u64) -> &Mutex<Stripe> {
        &self.stripes[key as usize % STRIPES]
    }

    /// A read of the key with this hash begins.
    pub(super) fn lease(&self, key: u64) -> Lease {
        let count = self.of(key).lock().count;
        Lease { count }
    }

    /// Runs `keep` if a read under `lease` that found this version may be kept. No invalidation of the stripe comes in
    /// between.
    pub(super) fn fill(&self, key: u64, lease: Lease, found: Option<Version>, keep: impl FnOnce()) -> bool {
        let stripe = self.of(key).lock();
        let admits = stripe.admits(key, lease, found) || planted(Mutant::KeepOvertakenRead);
        if admits {
            keep();
        }
        admits
    }

    /// Notes an invalidation that the feed told of, in its order, before the entry is dropped.
    pub(super) fn heard(&self, key: u64, fate: Fate) {
        self.of(key).lock().invalidate(key, fate);
    }

    /// Notes an invalidation by a commit of this process, before the entry is dropped. The feed may have told of it, and
    /// of later ones, already.
    pub(super) fn wrote(&self, key: u64, fate: Fate) {
        let mut stripe = self.of(key).lock();
        let last = stripe
            .last
            .filter(|(last, known)| *last == key && known.version() > fate.version());
        stripe.invalidate(key, fate);
        if last.is_some() && fate != Fate::Unknown {
            stripe.last = last;
        }
    }

    /// Turns away every read that has begun, and forgets all versions: the store may go on from an older state.
    pub(super) fn forget(&self) {
        for stripe in &self.stripes {
            let mut stripe = stripe.lock();
            let count = stripe.count + 1;
            *stripe = Stripe {
                count,
                forgotten: count,
                ..Stripe::default()
            };
        }
    }
}

impl Stripe {
    fn invalidate(&mut self, key: u64, fate: Fate) {
        self.count += 1;
        self.newest = self.newest.max(fate.version().unwrap_or_default());
        if fate != Fate::Unknown {
            self.last = Some((key, fate));
        }
    }

    /// A read is current if nothing was invalidated since it began, or if what it found is no older than anything that
    /// was. And whatever it began with, it must not be older than a write of its own key that is known here: a store
    /// that reads from a copy that lags may answer so.
    fn admits(&self, key: u64, lease: Lease, found: Option<Version>) -> bool {
        let undisturbed = self.count == lease.count;
        let remembered = self.forgotten <= lease.count && self.newest > Version::default();
        let newer = remembered && found.is_some_and(|found| found >= self.newest);
        let known = match (self.last, found) {
            (Some((last, Fate::Set(set))), found) if last == key => found.is_some_and(|found| found >= set),
            (Some((last, Fate::Removed(removed))), Some(found)) if last == key => found > removed,
            _ => true,
        };
        (undisturbed || newer) && known
    }
}

impl Fate {
    fn version(self) -> Option<Version> {
        match self {
            Fate::Set(version) | Fate::Removed(version) => Some(version),
            Fate::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 5;
    const NEIGHBOUR: u64 = KEY + STRIPES as u64;

    fn admits(stripes: &Stripes, lease: Lease, found: Option<u64>) -> bool {
        let mut kept = false;
        let admitted = stripes.fill(KEY, lease, found.map(Version), || kept = true);
        assert_eq!(kept, admitted);
        admitted
    }

    #[test]
    fn an_undisturbed_read_is_kept_whatever_its_age() {
        let stripes = Stripes::new();
        stripes.heard(NEIGHBOUR, Fate::Set(Version(90)));
        let lease = stripes.lease(KEY);
        stripes.heard(KEY + 1, Fate::Set(Version(91)));
        assert!(admits(&stripes, lease, Some(3)) && admits(&stripes, lease, None));
    }

    #[test]
    fn a_read_that_an_invalidation_overtook_is_kept_only_if_it_saw_the_write() {
        for key in [KEY, NEIGHBOUR] {
            for (fate, seen) in [(Fate::Set(Version(9)), Some(9)), (Fate::Unknown, None)] {
                let stripes = Stripes::new();
                let lease = stripes.lease(KEY);
                stripes.heard(key, fate);
                assert!(!admits(&stripes, lease, Some(8)) && !admits(&stripes, lease, None));
                assert_eq!(admits(&stripes, lease, Some(9)), seen.is_some());
            }
        }
    }

    #[test]
    fn a_read_older_than_a_known_write_of_its_key_is_never_kept() {
        let stripes = Stripes::new();
        stripes.heard(KEY, Fate::Set(Version(9)));
        let lease = stripes.lease(KEY);
        assert!(!admits(&stripes, lease, Some(8)) && !admits(&stripes, lease, None));
        assert!(admits(&stripes, lease, Some(9)) && admits(&stripes, lease, Some(10)));
        stripes.heard(KEY, Fate::Removed(Version(11)));
        let lease = stripes.lease(KEY);
        assert!(!admits(&stripes, lease, Some(10)) && !admits(&stripes, lease, Some(11)));
        assert!(admits(&stripes, lease, None) && admits(&stripes, lease, Some(12)));
    }

    #[test]
    fn a_commit_that_returns_late_hides_no_later_write() {
        let stripes = Stripes::new();
        stripes.heard(KEY, Fate::Set(Version(9)));
        stripes.wrote(KEY, Fate::Set(Version(8)));
        assert!(!admits(&stripes, stripes.lease(KEY), Some(8)));
        assert!(admits(&stripes, stripes.lease(KEY), Some(9)));
        stripes.wrote(KEY, Fate::Unknown);
        assert!(!admits(&stripes, stripes.lease(KEY), Some(8)));
    }

    #[test]
    fn forgetting_turns_away_what_has_begun_and_starts_anew() {
        let stripes = Stripes::new();
        stripes.heard(KEY, Fate::Set(Version(9)));
        let lease = stripes.lease(KEY);
        stripes.forget();
        assert!(!admits(&stripes, lease, Some(9)));
        assert!(admits(&stripes, stripes.lease(KEY), Some(3)));
        // What is noted afterwards says nothing about what was forgotten.
        stripes.wrote(NEIGHBOUR, Fate::Set(Version(2)));
        assert!(!admits(&stripes, lease, Some(9)));
    }
}
