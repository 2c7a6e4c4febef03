use crate::env::Tick;
use std::time::Duration;

/// How an endpoint that comes into the range gets its share little by little: its weight grows in a line from a tenth
/// to the whole over the window, in steps. Pure.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    pub(super) window: Duration,
}

/// What a weight is multiplied with while somebody is in the window, so that a weight of 1 has parts.
const WHOLE: u32 = 100;
/// The first share, of [`WHOLE`].
const LEAST: u32 = 10;
/// The share grows in so many steps, each of which builds the policy's table anew.
const STEPS: u32 = 9;

impl SlowStart {
    /// The share of [`WHOLE`] at `now` of one that came in `since`, and when it grows; none once it is whole.
    pub(super) fn share(&self, since: Tick, now: Tick) -> Option<(u32, Tick)> {
        let step = self.window / STEPS;
        let done = (now - since).as_nanos().checked_div(step.as_nanos())?;
        let done = u32::try_from(done).ok().filter(|done| *done < STEPS)?;
        let share = LEAST + done * (WHOLE - LEAST) / STEPS;
        Some((share, since + step * (done + 1)))
    }
}

/// `weight` as the policy sees it while somebody is in the window, with `share` of [`WHOLE`]; at least 1.
pub(super) fn weigh(weight: u32, share: Option<u32>) -> u32 {
    let scaled = u64::from(weight) * u64::from(share.unwrap_or(WHOLE));
    u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_from_a_tenth_to_the_whole() {
        let slow = SlowStart {
            window: Duration::from_secs(90),
        };
        let at = |secs| Tick::ZERO + Duration::from_secs(secs);
        assert_eq!(slow.share(at(0), at(0)), Some((10, at(10))));
        assert_eq!(slow.share(at(5), at(14)), Some((10, at(15))));
        assert_eq!(slow.share(at(5), at(15)), Some((20, at(25))));
        assert_eq!(slow.share(at(0), at(89)), Some((90, at(90))));
        assert_eq!(slow.share(at(0), at(90)), None);
        let none = SlowStart { window: Duration::ZERO };
        assert_eq!(none.share(at(0), at(0)), None);
    }

    #[test]
    fn weights_keep_their_proportions() {
        assert_eq!([weigh(1, None), weigh(3, None), weigh(3, Some(10))], [100, 300, 30]);
        assert_eq!([weigh(0, Some(10)), weigh(u32::MAX, None)], [1, u32::MAX]);
    }
}
