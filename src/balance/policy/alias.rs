use crate::env::Rng;

/// Draws an index with a probability in proportion to its weight, in constant time: the alias method (Walker, 1977,
/// built as by Vose, 1991). 12 bytes per weight.
#[derive(Debug)]
pub(super) struct Alias {
    columns: Box<[Column]>,
}

/// A column stands for its own index below `cut`, and for `other` from there on.
#[derive(Clone, Copy, Debug)]
struct Column {
    cut: u32,
    other: u32,
}

impl Alias {
    /// `weights` are positive; the probabilities are right to one part in 2^32.
    pub(super) fn new(weights: &[u32]) -> Alias {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let columns = weights.len() as u64;
        // In units in which a column holds `total` and all the weights together fill the columns exactly.
        let mut rest: Vec<u128> = weights.iter().map(|&w| u128::from(w) * u128::from(columns)).collect();
        let total = u128::from(total);
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&i| rest[i] < total);
        let mut columns: Box<[Column]> = (0..columns)
            .map(|i| Column {
                cut: u32::MAX,
                other: i as u32,
            })
            .collect();
        while let (Some(i), Some(&giver)) = (small.pop(), large.last()) {
            columns[i] = Column {
                cut: ((rest[i] << 32) / total) as u32,
                other: giver as u32,
            };
            rest[giver] -= total - rest[i];
            if rest[giver] < total {
                small.extend(large.pop());
            }
        }
        Alias { columns }
    }

    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        let (i, coin) = split(rng.next_u64(), self.columns.len());
        let column = self.columns[i];
        if coin < column.cut { i } else { column.other as usize }
    }
}

/// An index below `len` from the high half of `bits`, and the untouched low half.
#[inline]
pub(super) fn split(bits: u64, len: usize) -> (usize, u32) {
    (scale((bits >> 32) as u32, len), bits as u32)
}

/// Maps 32 random bits to `0..len` (Lemire, 2019, without its rejection step).
#[inline]
pub(super) fn scale(bits: u32, len: usize) -> usize {
    ((u64::from(bits) * len as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exact probability of each index.
    fn shares(weights: &[u32]) -> Vec<f64> {
        let alias = Alias::new(weights);
        let mut shares = vec![0.0; weights.len()];
        for (i, column) in alias.columns.iter().enumerate() {
            let own = f64::from(column.cut) / 2_f64.powi(32);
            shares[i] += own / weights.len() as f64;
            shares[column.other as usize] += (1.0 - own) / weights.len() as f64;
        }
        shares
    }

    #[test]
    fn columns_hold_the_weights() {
        let uneven: Vec<u32> = (1..=1000).map(|i| i * i).collect();
        for weights in [
            &[5, 1, 1][..],
            &[1],
            &[7; 4],
            &[99, 1],
            &[u32::MAX, 1, u32::MAX],
            &uneven,
        ] {
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            for (share, &weight) in shares(weights).iter().zip(weights) {
                assert!(
                    (share - f64::from(weight) / total).abs() < 1e-9,
                    "{weights:?}: {share} for {weight}"
                );
            }
        }
    }

    #[test]
    fn draws_follow_the_weights() {
        let alias = Alias::new(&[6, 3, 1]);
        let mut rng = Rng::seeded(1);
        let mut counts = [0_i32; 3];
        (0..100_000).for_each(|_| counts[alias.draw(&mut rng)] += 1);
        // Deviations of at most 155: six of them.
        let off = [60_000, 30_000, 10_000]
            .iter()
            .zip(counts)
            .map(|(want, got)| (want - got).abs())
            .max();
        assert!(off < Some(930), "{counts:?}");
    }
}
