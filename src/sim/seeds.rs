use super::cut::message;
use super::{FaultCounts, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `case` in the worlds of many seeds, and returns all faults injected in them.
///
/// The seeds are `0..default`; the environment variable `OUTGROW_SEEDS` sets another number, and `OUTGROW_SEED` names
/// one seed to be run alone, which is how a failure is replayed.
///
/// ```
/// use outgrow::sim::{FaultKind, each_seed};
///
/// let faults = each_seed(20, |world| world.machine("n1").kill());
/// assert!(faults.get(FaultKind::Kill) > 0);
/// ```
///
/// # Panics
/// When the case does, with the seed and how to replay it in the message; and when a variable holds no number.
pub fn each_seed(default: u64, case: impl FnMut(&World)) -> FaultCounts {
    let seeds = match (variable("OUTGROW_SEED"), variable("OUTGROW_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(default),
    };
    run(seeds, case)
}

fn run(seeds: impl Iterator<Item = u64>, mut case: impl FnMut(&World)) -> FaultCounts {
    let mut faults = FaultCounts::default();
    for seed in seeds {
        let world = World::new(seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&world))) {
            panic!(
                "seed {seed} failed, replay with OUTGROW_SEED={seed}: {}",
                message(&*panic)
            );
        }
        faults += world.faults();
    }
    faults
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    match value.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} is {value:?}, which is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "seed 3 failed, replay with OUTGROW_SEED=3")]
    fn a_failing_seed_says_how_to_replay_it() {
        run(0..5, |world| assert_ne!(world.seed(), 3, "three"));
    }
}
