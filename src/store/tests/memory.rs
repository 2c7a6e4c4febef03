//! The engine in memory against an ordered map.

use crate::env::WallTime;
use crate::store::{Change, Changed, Engine, Entry, Error, MemoryEngine, Position, Record, Scan, Snapshot, Version};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    /// Applies a record `ahead` of the next position, `epochs` newer.
    Apply {
        epochs: i8,
        ahead: i8,
        changes: Vec<Change>,
    },
    Purge {
        now: u64,
        max: usize,
    },
    /// Takes a snapshot and keeps it.
    Snapshot,
    /// Installs the snapshot taken `ago`.
    Install {
        ago: prop::sample::Index,
    },
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(0..3_u8, 0..3).prop_map(Bytes::from)
}

fn change() -> impl Strategy<Value = Change> {
    let entry = (0..50_u64, prop::option::of(0..20_u64), 0..5_u8);
    (key(), 0..50_u64, prop::option::weighted(0.7, entry)).prop_map(|(key, removed, entry)| Change {
        key,
        to: match entry {
            None => Changed::Removed(Version(removed)),
            Some((version, expires, value)) => Changed::Set(Entry {
                value: vec![value].into(),
                version: Version(version),
                expires: expires.map(WallTime::from_millis),
            }),
        },
    })
}

fn step() -> impl Strategy<Value = Step> {
    let position = prop_oneof![4 => Just((0, 0)), 1 => Just((1, 0)), 1 => (-1..2_i8, -2..2_i8)];
    let changes = prop::collection::vec(change(), 0..4);
    prop_oneof![
        8 => (position, changes).prop_map(|((epochs, ahead), changes)| Step::Apply { epochs, ahead, changes }),
        2 => (0..25_u64, 0..4_usize).prop_map(|(now, max)| Step::Purge { now, max }),
        1 => Just(Step::Snapshot),
        1 => any::<prop::sample::Index>().prop_map(|ago| Step::Install { ago }),
    ]
}

/// The dumbest correct engine.
#[derive(Clone, Debug, Default)]
struct Model {
    entries: BTreeMap<Bytes, Entry>,
    applied: Position,
    version: Version,
}

impl Model {
    fn apply(&mut self, at: Position, changes: &[Change]) -> Result<(), &'static str> {
        if at.epoch < self.applied.epoch {
            return Err("fenced");
        }
        if at.epoch == self.applied.epoch && at.seq <= self.applied.seq {
            return Ok(());
        }
        if at.seq != self.applied.seq + 1 {
            return Err("invalid");
        }
        for change in changes {
            match &change.to {
                Changed::Set(entry) => drop(self.entries.insert(change.key.clone(), entry.clone())),
                Changed::Removed(_) => drop(self.entries.remove(&change.key)),
            }
            self.version = self.version.max(change.version());
        }
        self.applied = at;
        Ok(())
    }

    /// Frees up to `max` of the expired, the earliest first.
    fn purge(&mut self, now: u64, max: usize) -> usize {
        let now = WallTime::from_millis(now);
        let mut dead: Vec<_> = self.entries.iter().filter(|(_, entry)| !entry.is_live(now)).collect();
        dead.sort_by_key(|(key, entry)| (entry.expires, (*key).clone()));
        let dead: Vec<_> = dead.into_iter().take(max).map(|(key, _)| key.clone()).collect();
        dead.iter().for_each(|key| drop(self.entries.remove(key)));
        dead.len()
    }

    fn list(&self) -> Vec<(Bytes, Entry)> {
        self.entries.clone().into_iter().collect()
    }
}

proptest! {
    #[test]
    fn an_engine_in_memory_is_an_ordered_map(steps in prop::collection::vec(step(), 1..60), cut in key()) {
        let engine = MemoryEngine::new();
        let mut model = Model::default();
        let mut snapshots: Vec<(Snapshot, Model)> = Vec::new();
        for step in steps {
            match step {
                Step::Apply { epochs, ahead, changes } => {
                    let epoch = model.applied.epoch.saturating_add_signed(i64::from(epochs));
                    let seq = (model.applied.seq + 1).saturating_add_signed(i64::from(ahead));
                    let at = Position { epoch, seq };
                    let expected = model.apply(at, &changes);
                    let answer = engine.apply(at, &Record::new(changes)).map_err(|error| match error {
                        Error::Fenced { .. } => "fenced",
                        Error::Invalid { .. } => "invalid",
                        _ => "another error",
                    });
                    prop_assert_eq!(answer, expected, "{}", at);
                }
                Step::Purge { now, max } => {
                    let purged = engine.purge(WallTime::from_millis(now), max).unwrap();
                    prop_assert_eq!(purged, model.purge(now, max));
                }
                Step::Snapshot => snapshots.push((engine.snapshot().unwrap(), model.clone())),
                Step::Install { ago } => {
                    if !snapshots.is_empty() {
                        let (snapshot, then) = snapshots.swap_remove(ago.index(snapshots.len()));
                        engine.install(snapshot).unwrap();
                        model = then;
                    }
                }
            }
            prop_assert_eq!(engine.scan(&Scan::all()).unwrap(), model.list());
            prop_assert_eq!((engine.applied(), engine.version()), (model.applied, model.version));
            prop_assert_eq!(engine.get(&cut).unwrap(), model.entries.get(&cut).cloned());
            prop_assert_eq!(engine.len(), model.entries.len());
        }
        for (snapshot, then) in snapshots {
            prop_assert_eq!((snapshot.at, snapshot.version), (then.applied, then.version));
            prop_assert_eq!(snapshot.entries.collect::<Vec<_>>(), then.list());
        }
    }
}
