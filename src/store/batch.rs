use super::{Capability, Entry, Feature, Position, Version};
use bytes::Bytes;
use std::time::Duration;

/// Writes that happen together or not at all, with what they expect to find.
///
/// ```
/// use outgrow::store::{Batch, Expect};
/// let transfer = Batch::new()
///     .expect("account/7", Expect::Present)
///     .add("account/7", -30)
///     .add("account/9", 30);
/// assert_eq!(transfer.ops().len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Batch {
    ops: Vec<Op>,
    expectations: Vec<(Bytes, Expect)>,
    cursors: Vec<(Bytes, Position)>,
}

/// One write of a [`Batch`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Op {
    /// Sets a value, for ever or for a time.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// How long it lives; for ever when `None`.
        ttl: Option<Duration>,
    },
    /// Removes a key; one that is not there is fine.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Adds to a counter: a decimal integer as text, 0 when absent. Keeps its expiry.
    Add {
        /// The key.
        key: Bytes,
        /// What to add.
        delta: i64,
    },
    /// Sets an entry that another store issued, with its version and expiry.
    Import {
        /// The key.
        key: Bytes,
        /// The entry.
        entry: Entry,
    },
}

/// What a [`Batch`] expects of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key exists at this version.
    At(Version),
    /// The key exists.
    Present,
    /// The key does not exist.
    Absent,
}

impl Batch {
    /// A batch that writes nothing.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets `key` to `value`.
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Batch {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
            ttl: None,
        });
        self
    }

    /// Sets `key` to `value` for the time `ttl`, counted from the commit.
    pub fn put_for(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>, ttl: Duration) -> Batch {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
            ttl: Some(ttl),
        });
        self
    }

    /// Removes `key`.
    pub fn delete(mut self, key: impl Into<Bytes>) -> Batch {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }

    /// Adds `delta` to the counter at `key`.
    pub fn add(mut self, key: impl Into<Bytes>, delta: i64) -> Batch {
        self.ops.push(Op::Add { key: key.into(), delta });
        self
    }

    /// Sets `key` to an entry read from another store, keeping its version and expiry: the write of a migration.
    pub fn import(mut self, key: impl Into<Bytes>, entry: Entry) -> Batch {
        self.ops.push(Op::Import { key: key.into(), entry });
        self
    }

    /// Commits only if `key` is as expected.
    pub fn expect(mut self, key: impl Into<Bytes>, expect: Expect) -> Batch {
        self.expectations.push((key.into(), expect));
        self
    }

    /// Keeps the place of the follower `name` in another log, in the same commit as what it wrote. Read it back with
    /// [`StoreExt::cursor`](super::StoreExt::cursor).
    pub fn cursor(mut self, name: impl Into<Bytes>, position: Position) -> Batch {
        self.cursors.push((name.into(), position));
        self
    }

    /// The writes, in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// What must hold, all before the first write.
    #[must_use]
    pub fn expectations(&self) -> &[(Bytes, Expect)] {
        &self.expectations
    }

    /// The cursors to keep.
    #[must_use]
    pub fn cursors(&self) -> &[(Bytes, Position)] {
        &self.cursors
    }

    /// True when it neither writes nor expects anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.expectations.is_empty() && self.cursors.is_empty()
    }

    /// What a store must be able to do to commit it.
    pub fn needs(&self) -> Capability {
        let mut needs = Capability::none();
        let mut need = |feature, needed: bool| {
            if needed {
                needs = needs.with(feature);
            }
        };
        for op in &self.ops {
            need(Feature::Ttl, matches!(op, Op::Put { ttl: Some(_), .. }));
            need(Feature::Counters, matches!(op, Op::Add { .. }));
            need(Feature::Import, matches!(op, Op::Import { .. }));
        }
        need(Feature::Expectations, !self.expectations.is_empty());
        need(Feature::Cursors, !self.cursors.is_empty());
        let first = self.keys().next();
        need(Feature::AtomicBatches, self.keys().any(|key| Some(key) != first));
        needs
    }

    /// The same batch under other keys; names of cursors are changed likewise.
    pub(crate) fn map_keys(mut self, map: impl Fn(&Bytes) -> Bytes) -> Batch {
        for op in &mut self.ops {
            let (Op::Put { key, .. } | Op::Delete { key } | Op::Add { key, .. } | Op::Import { key, .. }) = op;
            *key = map(key);
        }
        self.expectations.iter_mut().for_each(|(key, _)| *key = map(key));
        self.cursors.iter_mut().for_each(|(name, _)| *name = map(name));
        self
    }

    /// Every key that it writes or expects something of, cursors aside; a key may come twice.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.ops
            .iter()
            .map(Op::key)
            .chain(self.expectations.iter().map(|(key, _)| key))
    }
}

impl Op {
    /// The key that it writes.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::Delete { key } | Op::Add { key, .. } | Op::Import { key, .. } => key,
        }
    }
}
