use super::{Changed, Engine, Entry, Error, Position, Record, Result, Scan, Snapshot, Version};
use crate::env::WallTime;
use crate::sync::RwLock;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// An [`Engine`] in memory: an ordered map.
///
/// An entry costs its key, its value and about 150 bytes. A snapshot costs nothing until the first write after it,
/// which then copies the map (not the values).
#[derive(Default)]
pub struct MemoryEngine {
    state: RwLock<State>,
}

#[derive(Clone, Default)]
struct State {
    entries: Arc<BTreeMap<Bytes, Entry>>,
    expiring: BTreeSet<(WallTime, Bytes)>,
    applied: Position,
    version: Version,
}

impl MemoryEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    /// How many entries it holds, expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.read().entries.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    fn set(&mut self, key: &Bytes, entry: Option<&Entry>) {
        let entries = Arc::make_mut(&mut self.entries);
        let old = match entry {
            Some(entry) => entries.insert(key.clone(), entry.clone()),
            None => entries.remove(key),
        };
        if let Some(expires) = old.and_then(|old| old.expires) {
            self.expiring.remove(&(expires, key.clone()));
        }
        if let Some(expires) = entry.and_then(|entry| entry.expires) {
            self.expiring.insert((expires, key.clone()));
        }
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        Ok(self.state.read().entries.get(key).cloned())
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Entry)>> {
        if scan.is_empty() {
            return Ok(Vec::new());
        }
        let state = self.state.read();
        let range = state.entries.range((scan.from.clone(), scan.to.clone()));
        let page = scan.page.min(scan.limit);
        let owned = |(key, entry): (&Bytes, &Entry)| (key.clone(), entry.clone());
        Ok(if scan.descending {
            range.rev().take(page).map(owned).collect()
        } else {
            range.take(page).map(owned).collect()
        })
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let state = self.state.read();
        let entries = Arc::clone(&state.entries);
        let mut last: Option<Bytes> = None;
        // An iterator cannot borrow from the map that it keeps alive, so it looks each next key up.
        let entries = std::iter::from_fn(move || {
            use std::ops::Bound::{Excluded, Unbounded};
            let from = last.take().map_or(Unbounded, Excluded);
            let (key, entry) = entries.range((from, Unbounded)).next()?;
            last = Some(key.clone());
            Some((key.clone(), entry.clone()))
        });
        Ok(Snapshot {
            at: state.applied,
            version: state.version,
            entries: Box::new(entries),
        })
    }

    fn apply(&self, at: Position, record: &Record) -> Result<()> {
        let mut state = self.state.write();
        let applied = state.applied;
        if at.epoch < applied.epoch {
            return Err(Error::Fenced {
                mine: at.epoch,
                current: applied.epoch,
            });
        }
        if at.epoch == applied.epoch && at.seq <= applied.seq {
            return Ok(());
        }
        if at.seq != applied.seq + 1 {
            return Err(Error::invalid(format!("record {at} does not follow {applied}")));
        }
        for change in &record.changes {
            match &change.to {
                Changed::Set(entry) => state.set(&change.key, Some(entry)),
                Changed::Removed(_) => state.set(&change.key, None),
            }
        }
        state.version = state.version.max(record.version());
        state.applied = at;
        Ok(())
    }

    fn install(&self, snapshot: Snapshot) -> Result<()> {
        let mut state = State {
            applied: snapshot.at,
            version: snapshot.version,
            ..State::default()
        };
        for (key, entry) in snapshot.entries {
            state.set(&key, Some(&entry));
        }
        *self.state.write() = state;
        Ok(())
    }

    fn applied(&self) -> Position {
        self.state.read().applied
    }

    fn version(&self) -> Version {
        self.state.read().version
    }

    fn purge(&self, now: WallTime, max: usize) -> Result<usize> {
        // Most calls find nothing, and a read lock tells.
        if self
            .state
            .read()
            .expiring
            .first()
            .is_none_or(|(expires, _)| *expires > now)
        {
            return Ok(0);
        }
        let mut state = self.state.write();
        let mut purged = 0;
        while purged < max
            && let Some((expires, key)) = state.expiring.first().cloned()
            && expires <= now
        {
            state.set(&key, None);
            purged += 1;
        }
        Ok(purged)
    }
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.read();
        f.debug_struct("MemoryEngine")
            .field("entries", &state.entries.len())
            .field("applied", &state.applied)
            .finish_non_exhaustive()
    }
}
