//! The logical data set: which row a query asks for, and whether the database has it in memory.

use crate::hardware::Hardware;
use bytes::Bytes;
use outgrow::env::Rng;

/// How many rows are modelled. Each stands for the same number of real ones, in memory and in caches too: under a
/// Zipf law, what share of requests the hottest tenth gets hardly depends on how finely it is cut.
pub(super) const ROWS: usize = 1 << 13;

/// The rows, by falling popularity.
#[derive(Debug)]
pub(super) struct Rows {
    /// For drawing a row in constant time.
    places: Vec<Place>,
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
        let weights = (1..=ROWS).map(|rank| (rank as f64).powf(-workload.row_skew));
        let fitting = |bytes: u64| ((bytes as f64 / workload.data_bytes as f64).min(1.0) * ROWS as f64) as usize;
        Rows {
            places: places(weights.collect()),
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
        let at = rng.index(ROWS);
        let place = &self.places[at];
        let rank = if rng.unit() < place.own { at } else { place.other };
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

/// One of equally likely places, shared by two rows.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// How much of it belongs to the row of its own rank; the rest is the other's.
    own: f64,
    other: usize,
}

/// Fills places of equal size with rows of these weights (Walker's alias method, 1977).
fn places(mut weights: Vec<f64>) -> Vec<Place> {
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    weights.iter_mut().for_each(|weight| *weight /= mean);
    let mut places: Vec<Place> = (0..weights.len()).map(|other| Place { own: 1.0, other }).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&row| weights[row] < 1.0);
    while let (Some(row), Some(&other)) = (small.pop(), large.last()) {
        places[row] = Place {
            own: weights[row],
            other,
        };
        // The larger one has given away what the smaller one's place had left.
        weights[other] -= 1.0 - weights[row];
        if weights[other] < 1.0 {
            large.pop();
            small.push(other);
        }
    }
    places
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
        let weight = |rank: usize| (rank as f64).powf(-hardware.workload.row_skew);
        let total: f64 = (1..=ROWS).map(weight).sum();
        let first = (1.0 - celebrity) / total;
        assert!((share(b"row/000000") / first - 1.0).abs() < 0.1);
        assert!((share(b"row/000009") / (first * weight(10)) - 1.0).abs() < 0.2);
        let hot: f64 = (1..=ROWS / 10).map(weight).sum::<f64>() * first;
        let drawn_hot = drawn
            .iter()
            .filter(|key| rank(key).is_some_and(|rank| rank < ROWS / 10));
        assert!((drawn_hot.count() as f64 / f64::from(draws) - hot).abs() < 0.01);
        assert!(rows.is_resident(b"row/000000", 1) && !rows.is_resident(b"row/008191", 1));
    }
}
