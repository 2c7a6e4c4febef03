use crate::env::Tick;

/// A value that fades with time, as an endpoint's [cell](crate::balance::Load::cell) holds it: the value above and the
/// time of its last change below, in units of 2^20 ns, which come round after 52 days. Zero is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Faded(pub(super) u64);

impl Faded {
    pub(super) fn new(value: f32, at: Tick) -> Faded {
        Faded(u64::from(value.to_bits()) << 32 | u64::from(stamp(at)))
    }

    #[inline]
    pub(super) fn is_unset(self) -> bool {
        self.0 == 0
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

    /// What is left at `now` of each unit, at `rate` half-lives per unit of time; all of it if `now` is earlier.
    #[inline]
    pub(super) fn left(self, now: Tick, rate: f32) -> f32 {
        let age = stamp(now).wrapping_sub(self.0 as u32);
        if age > u32::MAX / 2 {
            1.0
        } else {
            halved(age as f32 * rate)
        }
    }
}

/// Half-lives per unit of time for something that falls to 1/e in `seconds`.
pub(super) fn rate(seconds: f32) -> f32 {
    std::f32::consts::LOG2_E * UNIT / seconds
}

/// A unit of time, in seconds.
const UNIT: f32 = (1_u64 << 20) as f32 * 1e-9;

#[inline]
fn stamp(at: Tick) -> u32 {
    (at.as_nanos() >> 20) as u32
}

/// 2^-x for `x` from 0 on, at most 1 % too low: between whole numbers a parabola that has the right slope at 0, so that
/// what fades in small steps fades in the right time.
#[inline]
fn halved(x: f32) -> f32 {
    const SLOPE: f32 = std::f32::consts::LN_2;
    let whole = x as u32;
    if whole > 125 {
        return 0.0;
    }
    let part = x - whole as f32;
    let power = f32::from_bits((127 - whole) << 23);
    power * (1.0 - part * (SLOPE - (SLOPE - 0.5) * part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn halves_as_stated() {
        for i in 0..120_000 {
            let x = i as f32 / 1000.0;
            let off = f64::from(halved(x)) / (-f64::from(x)).exp2() - 1.0;
            assert!((-0.01..1e-5).contains(&off), "2^-{x} is off by {off}");
        }
        assert_eq!(
            (halved(0.0), halved(1.0), halved(126.0), halved(1e30)),
            (1.0, 0.5, 0.0, 0.0)
        );
        assert!((halved(1e-3) - 0.999_307).abs() < 1e-6);
    }

    #[test]
    fn fades_to_a_third_in_its_time_and_never_grows() {
        let at = |millis| Tick::ZERO + Duration::from_millis(millis);
        let rate = rate(10.0);
        let faded = Faded::new(8.0, at(5_000));
        assert!(!faded.is_unset());
        assert_eq!((faded.value(), faded.left(at(5_000), rate)), (8.0, 1.0));
        assert!((faded.left(at(15_000), rate) * std::f32::consts::E - 1.0).abs() < 0.01);
        assert_eq!(faded.left(at(4_000), rate), 1.0, "a time before its own");
    }
}
