//! The logical data set: which row a query asks for, and whether the database has it in memory.

use crate::hardware::Hardware;
use bytes::Bytes;
use outgrow::env::Rng;

/// How many rows are modelled. Each stands for the same number of real ones, in memory and in caches too: under a
/// Zipf law, what share of requests the hottest tenth gets hardly depends on how finely it is cut.
pub(super) const ROWS: usize = 1 << 16;

/// The rows, by falling popularity.
#[derive(Debug)]
pub(super) struct Rows {
    /// The share of requests for this row or a hotter one.
    cumulative: Vec<f64>,
    keys: Vec<Bytes>,
    celebrity_share: f64,
    /// Rows that fit the database's page memory.
    resident: usize,
    /// Rows that fit one web machine's cache.
    cacheable: usize,
}

impl Rows {
    pub(super) fn new(hardware: &Hardware) -> Rows {
        let workload = &hardware.workload;
        let mut total = 0.0;
        let weights = (1..=ROWS).map(|rank| (rank as f64).powf(-workload.row_skew));
        let mut cumulative: Vec<f64> = weights
            .map(|weight| {
                total += weight;
                total
            })
            .collect();
        cumulative.iter_mut().for_each(|sum| *sum /= total);
        let fitting = |bytes: u64| ((bytes as f64 / workload.data_bytes as f64).min(1.0) * ROWS as f64) as usize;
        Rows {
            cumulative,
            keys: (0..ROWS).map(|rank| format!("row/{rank:06}").into()).collect(),
            celebrity_share: workload.celebrity_share,
            resident: fitting(hardware.database.page_memory_bytes),
            cacheable: fitting(hardware.web.cache_bytes).max(1),
        }
    }

    /// The key of a row drawn by popularity.
    pub(super) fn draw(&self, rng: &mut Rng) -> Bytes {
        if rng.chance(self.celebrity_share) {
            return Bytes::from_static(CELEBRITY);
        }
        let point = rng.unit();
        let rank = self.cumulative.partition_point(|&sum| sum <= point).min(ROWS - 1);
        self.keys[rank].clone()
    }

    /// Whether a database machine with `memory` times the memory of one answers for `key` without its disk: it keeps
    /// the hottest rows.
    pub(super) fn is_resident(&self, key: &[u8], memory: u32) -> bool {
        rank(key).is_none_or(|rank| rank < self.resident * memory as usize)
    }

    /// How many rows fit one web machine's cache.
    pub(super) fn cacheable(&self) -> usize {
        self.cacheable
    }

    /// The hottest rows that fit one web machine's cache, the hottest last.
    pub(super) fn hottest(&self) -> impl Iterator<Item = Bytes> + '_ {
        let rows = self.keys[..(self.cacheable - 1).min(ROWS)].iter().rev().cloned();
        rows.chain([Bytes::from_static(CELEBRITY)])
    }
}

/// The one key that `celebrity_share` goes to.
const CELEBRITY: &[u8] = b"celebrity";

fn rank(key: &[u8]) -> Option<usize> {
    std::str::from_utf8(key.strip_prefix(b"row/")?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_by_the_zipf_law() {
        let hardware = Hardware::built_in();
        let rows = Rows::new(&hardware);
        let mut rng = Rng::seeded(1);
        let draws = 200_000;
        let drawn: Vec<Bytes> = (0..draws).map(|_| rows.draw(&mut rng)).collect();
        let share = |key: &[u8]| drawn.iter().filter(|drawn| *drawn == key).count() as f64 / f64::from(draws);
        let celebrity = hardware.workload.celebrity_share;
        assert!((share(CELEBRITY) - celebrity).abs() < 0.002);
        let first = (1.0 - celebrity) * rows.cumulative[0];
        assert!((share(b"row/000000") / first - 1.0).abs() < 0.1);
        assert!(rows.is_resident(b"row/000000", 1) && !rows.is_resident(b"row/065535", 1));
    }
}
