//! Names against a model that tries every subset of the changes that were not synced.

use crate::env::Rng;
use crate::sim::disk::names::{Names, normal};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PATHS: [&str; 6] = ["a/x", "a/y", "b/x", "b/y", "c", "d"];
const DIRS: [&str; 3] = ["a", "b", ""];

#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Remove(usize),
    Rename(usize, usize),
    Sync(usize),
    Crash(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = 0..PATHS.len();
    let step = prop_oneof![
        4 => path.clone().prop_map(Step::Create),
        2 => path.clone().prop_map(Step::Remove),
        4 => (path.clone(), path).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => (0..DIRS.len()).prop_map(Step::Sync),
        1 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 0..25)
}

type Map = BTreeMap<&'static str, u32>;

/// From, to, file.
type Change = (Option<&'static str>, Option<&'static str>, u32);

#[derive(Default)]
struct Model {
    now: Map,
    durable: Map,
    pending: Vec<Change>,
}

fn apply(map: &mut Map, (from, to, file): Change) {
    let possible = match (from, to) {
        (Some(from), _) => map.get(from) == Some(&file),
        (None, to) => to.is_some_and(|to| !map.contains_key(to)),
    };
    if possible {
        from.map(|from| map.remove(from));
        to.map(|to| map.insert(to, file));
    }
}

impl Model {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, change);
        self.pending.push(change);
    }

    /// Everything that touches the directory, then again and again what shares a name with something later that is in.
    fn sync(&mut self, dir: &str) {
        let paths = |change: &Change| [change.0, change.1].into_iter().flatten().collect::<Vec<_>>();
        let parent = |path: &str| path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
        let mut within: Vec<bool> = self
            .pending
            .iter()
            .map(|c| paths(c).iter().any(|p| parent(p) == dir))
            .collect();
        for _ in 0..self.pending.len() {
            for later in 0..self.pending.len() {
                for earlier in 0..later {
                    let shared = paths(&self.pending[earlier])
                        .iter()
                        .any(|p| paths(&self.pending[later]).contains(p));
                    within[earlier] |= within[later] && shared;
                }
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for (change, within) in pending.into_iter().zip(within) {
            match within {
                true => apply(&mut self.durable, change),
                false => self.pending.push(change),
            }
        }
    }

    fn outcomes(&self) -> BTreeSet<Map> {
        let subset = |bits: u32| {
            let mut map = self.durable.clone();
            for (i, change) in self.pending.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1) {
                apply(&mut map, *change);
                debug_assert!(i < 32);
            }
            map
        };
        (0..1 << self.pending.len()).map(subset).collect()
    }
}

fn seen(names: &Names<u32>) -> BTreeMap<&str, u32> {
    names.files().map(|(path, file)| (path.as_str(), *file)).collect()
}

proptest! {
    #[test]
    fn a_crash_leaves_only_allowed_names(steps in steps()) {
        let mut names = Names::new();
        names.create_dir("a").unwrap();
        names.create_dir("b").unwrap();
        let mut model = Model::default();
        for (file, step) in (1..).zip(steps) {
            // The model tries every subset, so it must be small.
            if model.pending.len() == 10 {
                DIRS.iter().for_each(|dir| {
                    names.sync(dir).unwrap();
                    model.sync(dir);
                });
                prop_assert!(model.pending.is_empty());
            }
            match step {
                Step::Create(path) => {
                    let path = PATHS[path];
                    let there = model.now.contains_key(path);
                    prop_assert_eq!(names.create(path, file).is_err(), there);
                    if !there {
                        model.change((None, Some(path), file));
                    }
                }
                Step::Remove(path) => {
                    let path = PATHS[path];
                    let file = model.now.get(path).copied();
                    prop_assert_eq!(names.remove(path).is_ok(), file.is_some());
                    if let Some(file) = file {
                        model.change((Some(path), None, file));
                    }
                }
                Step::Rename(from, to) => {
                    let (from, to) = (PATHS[from], PATHS[to]);
                    let file = model.now.get(from).copied();
                    prop_assert_eq!(names.rename(from, to).is_ok(), file.is_some());
                    if let Some(file) = file.filter(|_| from != to) {
                        model.change((Some(from), Some(to), file));
                    }
                }
                Step::Sync(dir) => {
                    names.sync(DIRS[dir]).unwrap();
                    model.sync(DIRS[dir]);
                    let within = |map: &Map| map.clone().into_iter().filter(|(p, _)| p.rsplit_once('/').map_or("", |(d, _)| d) == DIRS[dir]).collect::<Vec<_>>();
                    prop_assert!(model.outcomes().iter().all(|map| within(map) == within(&model.now)));
                }
                Step::Crash(seed) => {
                    names.crash(&mut Rng::seeded(seed));
                    let found: Map = PATHS.into_iter().filter_map(|p| Some((p, *names.get(p).ok()?))).collect();
                    prop_assert!(model.outcomes().contains(&found), "{found:?} is none of {:?}", model.outcomes());
                    let files: BTreeSet<_> = found.values().collect();
                    prop_assert_eq!(files.len(), found.len(), "one file under two names");
                    model = Model { now: found.clone(), durable: found, pending: Vec::new() };
                }
            }
            prop_assert_eq!(seen(&names), model.now.clone());
        }
    }
}

#[test]
fn paths_have_one_spelling() {
    for path in ["a/b", "/a/b", "./a/b", "a/./b", "a/c/../b", "a/b/"] {
        assert_eq!(normal(Path::new(path)), "a/b", "{path}");
    }
    assert_eq!(normal(Path::new("/")), "");
    assert_eq!(normal(Path::new(".")), "");
}
