//! How often does the default cache hit on real traces, beside moka, quick_cache and foyer, and the best possible?
//!
//! 48 cells: eight traces of real use with room for 1, 5 and 20 % of their keys, and eight that the authors of LIRS made
//! or recorded, with room for 10, 25 and 50 %. Each is replayed by one thread against a cold cache as the library builds
//! it by default: get, and on a miss insert. `moka` puts writes off and so holds more than it was given, which in a small
//! cache is a good part of it; `moka_bound` runs its pending tasks after each insert. The gap is that of ours to the
//! best peer that keeps its bound.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::print_stdout, reason = "a program for the terminal")]
#![allow(clippy::disallowed_methods, reason = "it reads real files")]

#[allow(dead_code, unused_imports, reason = "its tests run in tests/hit_ratio_parts.rs")]
#[path = "../examples/hit_ratio/belady.rs"]
mod belady;
#[allow(dead_code, unused_imports, reason = "its tests run in tests/hit_ratio_parts.rs")]
#[path = "../examples/hit_ratio/trace.rs"]
mod trace;

use outgrow::cache::Cache;
use std::path::{Path, PathBuf};
use trace::Trace;

const REAL: [&str; 8] = [
    "arc_oltp.u32",
    "arc_p3.u32",
    "cache2k_orm_busy.u32",
    "cache2k_web07.u32",
    "corda_vaultservice.u64",
    "scarab_recs.u64",
    "twitter_c52_first1m.tis",
    "epa_get200.tis",
];
const REAL_SIZES: [f64; 3] = [1.0, 5.0, 20.0];
const LIRS: [&str; 8] = [
    "lirs_2_pools.u32",
    "lirs_cpp.u32",
    "lirs_loop.u32",
    "lirs_multi1.u32",
    "lirs_multi3.u32",
    "lirs_ps.u32",
    "lirs_sprite.u32",
    "lirs_zigzag.u32",
];
const LIRS_SIZES: [f64; 3] = [10.0, 25.0, 50.0];

/// A cache's name, whether it keeps its bound, and how often it hits on the keys with room for so many entries.
type Contender = (&'static str, bool, fn(&[u32], usize) -> u64);

fn main() {
    let shared = std::env::var_os("OUTGROW_SHARED").filter(|path| !path.is_empty());
    let shared = shared.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    let folder = shared.join("traces");
    if !folder.is_dir() {
        println!(
            "skipped: there are no traces in {} (OUTGROW_SHARED names the folder above)",
            folder.display()
        );
        return;
    }
    let ours: Contender = ("ours", true, ours);
    let contenders: Vec<Contender> = std::iter::once(ours).chain(peers::all()).collect();
    let mut table = Table::new(&contenders);
    for (names, sizes) in [(REAL, REAL_SIZES), (LIRS, LIRS_SIZES)] {
        for name in names {
            match Trace::read(&folder.join(format!("{name}.zst"))) {
                Ok(trace) => sizes.iter().for_each(|size| table.measure(&trace, *size)),
                Err(error) => println!("* skipped: {error}"),
            }
        }
        table.mean();
    }
}

/// Prints rows as they are measured, and keeps what the means need.
struct Table<'a> {
    contenders: &'a [Contender],
    /// The ratios of each cell so far: the optimum's, then each contender's.
    cells: Vec<Vec<f64>>,
    /// The cell where ours lies the furthest behind a peer that keeps its bound.
    worst: Option<(f64, String)>,
}

impl<'a> Table<'a> {
    fn new(contenders: &'a [Contender]) -> Table<'a> {
        let table = Table {
            contenders,
            cells: Vec::new(),
            worst: None,
        };
        let names = || std::iter::once("optimum").chain(contenders.iter().map(|(name, ..)| *name));
        let gap = if table.has_peers() {
            [" gap |", "---|"]
        } else {
            ["", ""]
        };
        println!(
            "| trace | % of keys | entries | {} |{}",
            names().collect::<Vec<_>>().join(" | "),
            gap[0]
        );
        println!("|---|---|---|{}{}", names().map(|_| "---|").collect::<String>(), gap[1]);
        table
    }

    fn has_peers(&self) -> bool {
        self.contenders.len() > 1
    }

    fn measure(&mut self, trace: &Trace, size: f64) {
        let entries = trace.entries(size);
        let percent = |hits: u64| hits as f64 * 100.0 / trace.keys.len() as f64;
        let optimum = belady::hits(&trace.keys, trace.distinct, entries);
        let contenders = self.contenders.iter().map(|(_, _, hits)| hits(&trace.keys, entries));
        let ratios: Vec<f64> = std::iter::once(optimum).chain(contenders).map(percent).collect();
        let label = format!("| {} | {size} | {entries} |", trace.name);
        let gap = self.gap(&ratios);
        self.print(&label, &ratios, gap);
        if let Some(gap) = gap
            && self.worst.as_ref().is_none_or(|(worst, _)| gap < *worst)
        {
            self.worst = Some((gap, format!("{} at {size} %", trace.name)));
        }
        self.cells.push(ratios);
    }

    /// How far ours, the first of the contenders, is ahead of the best peer that keeps its bound.
    fn gap(&self, ratios: &[f64]) -> Option<f64> {
        let bounded = self
            .contenders
            .iter()
            .zip(&ratios[1..])
            .filter(|((_, bound, _), _)| *bound);
        let best = bounded.skip(1).map(|(_, ratio)| *ratio).max_by(f64::total_cmp)?;
        Some(ratios[1] - best)
    }

    /// The means of all cells so far.
    fn mean(&self) {
        let cells = self.cells.len();
        if cells == 0 {
            return;
        }
        let mean = |column: usize| self.cells.iter().map(|cell| cell[column]).sum::<f64>() / cells as f64;
        let means: Vec<f64> = (0..=self.contenders.len()).map(mean).collect();
        self.print(&format!("| **mean of {cells}** | | |"), &means, None);
        if let Some((gap, cell)) = &self.worst {
            println!("\n* furthest behind a peer so far: {gap:.2} at {cell}\n");
        }
    }

    fn print(&self, label: &str, ratios: &[f64], gap: Option<f64>) {
        let ratios: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let gap = match gap {
            Some(gap) => format!(" {gap:+.2} |"),
            None if self.has_peers() => " |".to_owned(),
            None => String::new(),
        };
        println!("{label} {} |{gap}", ratios.join(" | "));
    }
}

/// How often `get` finds a key; where it does not, `insert` puts it in.
fn replay(keys: &[u32], mut get: impl FnMut(u64) -> bool, mut insert: impl FnMut(u64)) -> u64 {
    let mut hits = 0;
    for key in keys {
        let key = u64::from(*key);
        if get(key) {
            hits += 1;
        } else {
            insert(key);
        }
    }
    hits
}

fn ours(keys: &[u32], capacity: usize) -> u64 {
    let cache: Cache<u64, ()> = Cache::builder()
        .capacity(capacity)
        .build()
        .expect("the options are in bounds");
    replay(keys, |key| cache.get(&key).is_some(), |key| _ = cache.insert(key, ()))
}

#[cfg(not(peers))]
mod peers {
    pub(super) fn all() -> [super::Contender; 0] {
        []
    }
}

#[cfg(peers)]
mod peers {
    use super::{Contender, replay};

    pub(super) fn all() -> [Contender; 4] {
        [
            ("moka", false, |keys, capacity| moka(keys, capacity, false)),
            ("moka_bound", true, |keys, capacity| moka(keys, capacity, true)),
            ("quick_cache", true, quick_cache),
            ("foyer_s3fifo", true, foyer_s3fifo),
        ]
    }

    fn moka(keys: &[u32], capacity: usize, bound: bool) -> u64 {
        let cache = moka::sync::Cache::new(capacity as u64);
        let insert = |key| {
            cache.insert(key, ());
            if bound {
                cache.run_pending_tasks();
            }
        };
        replay(keys, |key| cache.get(&key).is_some(), insert)
    }

    fn quick_cache(keys: &[u32], capacity: usize) -> u64 {
        let cache = quick_cache::sync::Cache::new(capacity);
        replay(keys, |key| cache.get(&key).is_some(), |key| cache.insert(key, ()))
    }

    fn foyer_s3fifo(keys: &[u32], capacity: usize) -> u64 {
        let builder = foyer::CacheBuilder::new(capacity).with_eviction_config(foyer::S3FifoConfig::default());
        let cache = builder.build::<foyer::CacheProperties>();
        replay(keys, |key| cache.get(&key).is_some(), |key| _ = cache.insert(key, ()))
    }
}
