/// One cycle of smooth weighted round robin: for each turn the index of the weight whose turn it is.
pub(super) fn cycle(weights: &[u32]) -> Box<[u32]> {
    let alike = weights.windows(2).all(|pair| pair[0] == pair[1]);
    if alike {
        // What the algorithm gives, without its square cost.
        return (0..weights.len() as u32).collect();
    }
    let mut smooth = Smooth::new(fit(weights, most_turns(weights.len())));
    (0..smooth.total).map(|_| smooth.next() as u32).collect()
}

/// The algorithm of nginx's `ngx_http_upstream_get_peer`: each turn raises every endpoint by its weight, takes the
/// highest, the first of equals, and lowers that by the sum of the weights. After as many turns as that sum all are
/// back at zero.
struct Smooth {
    weights: Box<[u32]>,
    current: Box<[i64]>,
    total: i64,
}

impl Smooth {
    fn new(weights: Box<[u32]>) -> Smooth {
        Smooth {
            current: vec![0; weights.len()].into(),
            total: weights.iter().map(|&weight| i64::from(weight)).sum(),
            weights,
        }
    }

    /// There must be a weight.
    fn next(&mut self) -> usize {
        let mut best = 0;
        for i in 0..self.weights.len() {
            self.current[i] += i64::from(self.weights[i]);
            if self.current[i] > self.current[best] {
                best = i;
            }
        }
        self.current[best] -= self.total;
        best
    }
}

/// The weights in lowest terms; if their sum is still over `most`, the nearest positive ones in proportion whose sum is
/// not, give or take half a turn each.
fn fit(weights: &[u32], most: u64) -> Box<[u32]> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let total: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
    if total <= most {
        return weights.iter().map(|&weight| weight / divisor).collect();
    }
    let total = u128::from(total);
    let scaled = |weight: u32| (u128::from(weight / divisor) * u128::from(most) + total / 2) / total;
    weights.iter().map(|&weight| scaled(weight).max(1) as u32).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A turn costs a step per endpoint to work out; this keeps a rebuild to a few milliseconds up to 2,900 endpoints.
fn most_turns(endpoints: usize) -> u64 {
    let endpoints = endpoints.max(1) as u64;
    (MOST_STEPS / endpoints).clamp(endpoints, MOST_TURNS.max(endpoints))
}

const MOST_TURNS: u64 = 1 << 16;
const MOST_STEPS: u64 = 1 << 23;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gives_the_sequence_of_nginx_state_by_state() {
        // The table in the message of the commit that brought the algorithm to nginx 1.3.1, weights 5, 1, 1.
        let mut smooth = Smooth::new([5, 1, 1].into());
        let turns: Vec<_> = (0..7).map(|_| (smooth.next(), smooth.current.to_vec())).collect();
        let want = [
            (0, [-2, 1, 1]),
            (0, [-4, 2, 2]),
            (1, [1, -4, 3]),
            (0, [-1, -3, 4]),
            (2, [4, -2, -2]),
            (0, [2, -1, -1]),
            (0, [0, 0, 0]),
        ];
        assert_eq!(turns, want.map(|(turn, state)| (turn, state.to_vec())));
        assert_eq!(*cycle(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_are_plain_round_robin() {
        let weights = [3_u32; 6];
        let mut smooth = Smooth::new(weights.into());
        let long_way: Vec<_> = (0..6).map(|_| smooth.next() as u32).collect();
        assert_eq!(*cycle(&weights), *long_way);
    }

    #[test]
    fn heavy_weights_are_brought_down_in_proportion() {
        let weights = [u32::MAX, u32::MAX / 2, 1];
        let cycle = cycle(&weights);
        assert!(cycle.len() <= 65_538);
        let count = |i| cycle.iter().filter(|&&turn| turn == i).count() as f64;
        assert!((count(0) / count(1) - 2.0).abs() < 1e-3);
        assert_eq!(count(2), 1.0);

        let many: Vec<u32> = (1..=1000).collect();
        let turns: u32 = fit(&many, most_turns(1000)).iter().sum();
        assert!((8_000..9_400).contains(&turns), "{turns}");
    }

    proptest! {
        #[test]
        fn a_cycle_has_each_as_often_as_its_weight_and_never_bunches(weights in prop::collection::vec(1_u32..40, 1..12)) {
            let cycle = cycle(&weights);
            let divisor = weights.iter().copied().fold(0, gcd);
            let total = f64::from(weights.iter().sum::<u32>());
            for (i, &weight) in weights.iter().enumerate() {
                let turns: Vec<_> = (0..cycle.len()).filter(|&turn| cycle[turn] as usize == i).collect();
                prop_assert_eq!(turns.len(), (weight / divisor) as usize);
                // The states add up to zero, so who is picked stood at the average or above: it never has a whole turn
                // more than its share.
                let ahead = 1.0 - 1.0 / weights.len() as f64 + 1e-9;
                for (had, turn) in turns.iter().enumerate() {
                    let share = (turn + 1) as f64 * f64::from(weight) / total;
                    prop_assert!((had + 1) as f64 - share <= ahead, "{} had {} of {}", i, had + 1, share);
                }
            }
        }
    }
}
