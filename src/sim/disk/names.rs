use crate::env::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::image::Fate;

/// The names of a disk, twice: as programs see them, and as they would be after a power cut.
///
/// Names are paths from the root without a leading slash. Directories are durable once made; a change of a file's name
/// is durable once one of the directories that it touches is synced, and until then a crash may keep it or lose it.
/// A change survives only if those that it builds on do: nothing is renamed that was never created.
pub(super) struct Names<T> {
    now: BTreeMap<String, T>,
    durable: BTreeMap<String, T>,
    /// Changes that are not durable, in order.
    pending: Vec<Change<T>>,
    dirs: BTreeSet<String>,
}

/// A file appears under a name, goes from one, or both at once.
#[derive(Clone)]
struct Change<T> {
    from: Option<String>,
    to: Option<String>,
    file: T,
}

impl<T: Clone + PartialEq> Names<T> {
    pub(super) fn new() -> Names<T> {
        Names {
            now: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            dirs: BTreeSet::from([String::new()]),
        }
    }

    pub(super) fn get(&self, path: &str) -> io::Result<&T> {
        self.now.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&String, &T)> {
        self.now.iter()
    }

    pub(super) fn is_dir(&self, path: &str) -> bool {
        self.dirs.contains(path)
    }

    /// Makes a directory and those above it.
    pub(super) fn create_dir(&mut self, path: &str) -> io::Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let dirs: Vec<_> = ends.map(|end| path[..end].to_owned()).collect();
        if dirs.iter().any(|dir| self.now.contains_key(dir)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        self.dirs.extend(dirs);
        Ok(())
    }

    /// The files and directories right under `dir`, sorted.
    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.check_dir(dir)?;
        let all = self.now.keys().chain(&self.dirs);
        let names = all.filter(|path| !path.is_empty() && parent(path) == dir);
        let mut names: Vec<_> = names.map(|path| base(path).to_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn create(&mut self, path: &str, file: T) -> io::Result<()> {
        self.check_dir(parent(path))?;
        if self.now.contains_key(path) || self.dirs.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(None, Some(path), file);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        let file = self.get(path)?.clone();
        self.change(Some(path), None, file);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = self.get(from)?.clone();
        self.check_dir(parent(to))?;
        if self.dirs.contains(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from != to {
            self.change(Some(from), Some(to), file);
        }
        Ok(())
    }

    fn change(&mut self, from: Option<&str>, to: Option<&str>, file: T) {
        let change = Change {
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            file,
        };
        let fits = change.apply(&mut self.now);
        assert!(
            fits,
            "broken invariant: a change of names was checked before it was made"
        );
        self.pending.push(change);
    }

    /// Makes the changes durable that touch `dir`, and those that they build on.
    pub(super) fn sync(&mut self, dir: &str) -> io::Result<()> {
        self.check_dir(dir)?;
        let mut needed = BTreeSet::new();
        let mut durable = vec![false; self.pending.len()];
        for (change, durable) in self.pending.iter().zip(&mut durable).rev() {
            if change.paths().any(|path| parent(path) == dir || needed.contains(path)) {
                *durable = true;
                needed.extend(change.paths().cloned());
            }
        }
        let mut durable = durable.into_iter();
        let done = self.pending.extract_if(.., |_| durable.next() == Some(true));
        for change in done {
            let fits = change.apply(&mut self.durable);
            assert!(fits, "broken invariant: a synced name builds on one that is not");
        }
        Ok(())
    }

    /// Leaves what a power cut leaves.
    pub(super) fn crash(&mut self, rng: &mut Rng) -> Fate {
        let mut fate = Fate::default();
        for change in self.pending.drain(..) {
            match rng.chance(0.5) && change.apply(&mut self.durable) {
                true => fate.kept += 1,
                false => fate.lost += 1,
            }
        }
        self.now.clone_from(&self.durable);
        fate
    }

    fn check_dir(&self, dir: &str) -> io::Result<()> {
        if self.is_dir(dir) {
            return Ok(());
        }
        let kind = match self.now.contains_key(dir) {
            true => io::ErrorKind::NotADirectory,
            false => io::ErrorKind::NotFound,
        };
        Err(kind.into())
    }
}

impl<T: Clone + PartialEq> Change<T> {
    fn paths(&self) -> impl Iterator<Item = &String> {
        self.from.iter().chain(&self.to)
    }

    /// False, with nothing done, when the names are not those that the change was made for.
    fn apply(&self, names: &mut BTreeMap<String, T>) -> bool {
        let fits = match (&self.from, &self.to) {
            (Some(from), _) => names.get(from) == Some(&self.file),
            (None, Some(to)) => !names.contains_key(to),
            (None, None) => true,
        };
        if fits {
            self.from.as_ref().map(|from| names.remove(from));
            self.to.as_ref().map(|to| names.insert(to.clone(), self.file.clone()));
        }
        fits
    }
}

/// The path from the root, in one spelling: the current directory is the root.
pub(super) fn normal(path: &Path) -> String {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
