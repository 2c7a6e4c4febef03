use crate::env::Tick;
use std::time::Duration;

/// A value that fades with time, as an endpoint's [cell](crate::balance::Load::cell) holds it: the value above and the
/// time of its last change below, in units of 2^20 ns, which come round after 52 days. Zero is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Faded(pub(super) u64);

impl Faded {
    #[inline]
    pub(super) fn new(value: f32, at: Tick) -> Faded {
        Faded(u64::from(value.to_bits()) << 32 | u64::from(stamp(at)))
    }

    #[inline]
    pub(super) fn is_unset(self) -> bool {
        self.0 == 0
    }

    /// Whether its last change was at `at`, as far as its time tells.
    #[inline]
    pub(super) fn is_of(self, at: Tick) -> bool {
        self.0 as u32 == stamp(at)
    }

    /// What it was at its last change.
    #[inline]
    pub(super) fn value(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    /// The same time with `factor` times the value, or nothing below `least`.
    pub(super) fn times(self, factor: f32, least: f32) -> Faded {
        let value = self.value() * factor;
        let stamp = self.0 & u64::from(u32::MAX);
        if value < least {
            return Faded(0);
        }
        Faded(u64::from(value.to_bits()) << 32 | stamp)
    }

    /// What is left at `now` of each unit of it; all if `now` is earlier.
    #[inline]
    pub(super) fn left(self, now: Tick, fade: Fade) -> f32 {
        let age = stamp(now).wrapping_sub(self.0 as u32);
        if age > u32::MAX / 2 { 1.0 } else { fade.after(age) }
    }
}

#[inline]
fn stamp(at: Tick) -> u32 {
    (at.as_nanos() >> 20) as u32
}

/// A unit of time, in seconds.
const UNIT: f64 = (1_u64 << 20) as f64 * 1e-9;

/// How fast something fades: half-lives per unit of time, in parts of 2^31.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fade(u32);

impl Fade {
    /// To 1/e in `time`, which counts as a millisecond at least and a day at most, to 3 % there.
    pub(super) fn new(time: Duration) -> Fade {
        let seconds = time.as_secs_f64().clamp(1e-3, 86_400.0);
        Fade((std::f64::consts::LOG2_E * UNIT / seconds * f64::from(1_u32 << 31)) as u32)
    }

    /// 2^-x for the half-lives in `age` units, at most 1.1 % too low. Between whole numbers it is a parabola with the right slope
    /// at 0, so that what fades in small steps fades in the right time. In whole numbers, since a pick waits for it: a float of
    /// 32 bits, taken as a number, is the logarithm of its value plus a parabola, near enough.
    #[inline]
    fn after(self, age: u32) -> f32 {
        const ONE: u64 = 1 << 23;
        let x = (u64::from(age) * u64::from(self.0)) >> 8;
        if x >= 126 * ONE {
            return 0.0;
        }
        let part = x % ONE;
        // 2 ln 2 - 1, the slope that a straight line lacks at 0.
        let bend = (((part * (ONE - part)) >> 23) * 99) >> 8;
        f32::from_bits((127 * ONE - x - bend) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_as_stated() {
        for millis in [1, 7, 1_000, 10_000, 3_600_000, 86_400_000] {
            let fade = Fade::new(Duration::from_millis(millis));
            let ideal = std::f64::consts::LOG2_E * UNIT / (millis as f64 / 1000.0);
            assert!(
                (f64::from(fade.0) / 2_f64.powi(31) / ideal - 1.0).abs() < 0.03,
                "{millis}"
            );
            // A hundred half-lives, in steps of a thousandth if units are that short.
            let half_life = 2_f64.powi(31) / f64::from(fade.0);
            let step = (half_life / 1000.0).max(1.0) as u32;
            for age in (0..(100.0 * half_life) as u32).step_by(step as usize) {
                let want = (-f64::from(age) / half_life).exp2();
                let off = f64::from(fade.after(age)) / want - 1.0;
                assert!((-0.011..1e-4).contains(&off), "{age} of {half_life} is off by {off}");
            }
            assert_eq!(
                (fade.after(0), fade.after(u32::MAX).min(1e-20)),
                (1.0, fade.after(u32::MAX))
            );
        }
    }

    #[test]
    fn fades_to_a_third_in_its_time_in_one_step_or_many() {
        let at = |millis| Tick::ZERO + Duration::from_millis(millis);
        let fade = Fade::new(Duration::from_secs(10));
        let faded = Faded::new(8.0, at(5_000));
        assert!(!faded.is_unset() && faded.is_of(at(5_000)) && !faded.is_of(at(5_003)));
        assert_eq!((faded.value(), faded.left(at(5_000), fade)), (8.0, 1.0));
        assert_eq!(faded.left(at(4_000), fade), 1.0, "a time before its own");
        let third = (-1.0_f64).exp();
        assert!((f64::from(faded.left(at(15_000), fade)) / third - 1.0).abs() < 0.01);
        let steps = (10.0 / UNIT) as i32;
        assert!((f64::from(fade.after(1)).powi(steps) / third - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_value_is_lowered_until_it_is_none() {
        let faded = Faded::new(8.0, Tick::from_nanos(3 << 20));
        assert_eq!(faded.times(0.5, 4.0), Faded::new(4.0, Tick::from_nanos(3 << 20)));
        assert!(faded.times(0.5, 4.1).is_unset());
    }
}
