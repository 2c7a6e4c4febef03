/// Whether an endpoint is healthy, by the checks that it passed and failed. Pure.
///
/// The first check of all decides by itself: nothing is known that it could contradict. After that it takes `fall`
/// failures in a row to fall and `rise` passes in a row to rise; 0 is taken as 1.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    rise: u32,
    fall: u32,
    healthy: Option<bool>,
    /// Checks in a row that contradict.
    against: u32,
}

impl Gate {
    pub(super) fn new(rise: u32, fall: u32) -> Gate {
        Gate {
            rise,
            fall,
            healthy: None,
            against: 0,
        }
    }

    /// Takes the next check's verdict, and says whether the endpoint is healthy now.
    pub(super) fn take(&mut self, passed: bool) -> bool {
        let healthy = self.healthy.unwrap_or(passed);
        if healthy == passed {
            self.against = 0;
            self.healthy = Some(healthy);
            return healthy;
        }
        self.against += 1;
        let enough = if passed { self.rise } else { self.fall };
        if self.against >= enough {
            self.against = 0;
            self.healthy = Some(passed);
        }
        self.healthy == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(rise: u32, fall: u32, checks: &str) -> String {
        let mut gate = Gate::new(rise, fall);
        let verdicts = checks
            .chars()
            .map(|check| if gate.take(check == '+') { 'U' } else { 'D' });
        verdicts.collect()
    }

    #[test]
    fn it_takes_a_row_to_change_sides() {
        assert_eq!(run(2, 3, "+--+---++"), "UUUUUUDDU");
        assert_eq!(run(2, 3, "-+-++-"), "DDDDUU", "the first check decides");
        assert_eq!(run(1, 1, "+-+-"), "UDUD");
        assert_eq!(run(0, 0, "+-+-"), "UDUD");
    }

    proptest! {
        /// The side is that of the last row which was long enough, or of the first check.
        #[test]
        fn it_is_on_the_side_of_the_last_long_row(
            rise in 1_u32..5,
            fall in 1_u32..5,
            checks in prop::collection::vec(any::<bool>(), 1..60),
        ) {
            let mut gate = Gate::new(rise, fall);
            for end in 1..=checks.len() {
                let healthy = gate.take(checks[end - 1]);
                let long_row = |at: &usize| {
                    let side = checks[*at - 1];
                    let length = if side { rise } else { fall } as usize;
                    *at >= length && checks[*at - length..*at].iter().all(|&check| check == side)
                };
                let last = (1..=end).rev().find(long_row);
                prop_assert_eq!(healthy, last.map_or(checks[0], |at| checks[at - 1]));
            }
        }
    }
}
