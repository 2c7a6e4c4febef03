#![allow(
    unsafe_code,
    reason = "vector instructions have no safe form in a function for all processors, and vector loads of atomics have none"
)]

//! Comparing all the tags of a bucket at once: three times as fast as a byte at a time.

use crate::sync::AtomicU64;

/// Which of the bytes of three lanes equal `tag`, as bits from the lowest on. It acquires what whoever stored these bytes
/// released.
#[cfg(all(target_arch = "x86_64", not(outgrow_loom)))]
#[inline(always)]
pub(super) fn equal(lanes: &[AtomicU64; 3], tag: u8) -> u32 {
    use std::arch::asm;
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set1_epi8};
    let (first, last): (__m128i, __m128i);
    // SAFETY: it loads 24 bytes that are there, eight at a time at least, as three atomic loads would: on these machines
    // every load acquires, and no part of an aligned lane is ever torn from the rest.
    unsafe {
        asm!(
            "movdqu {first}, xmmword ptr [{lanes}]",
            "movq {last}, qword ptr [{lanes} + 16]",
            lanes = in(reg) lanes.as_ptr(),
            first = out(xmm_reg) first,
            last = out(xmm_reg) last,
            options(readonly, nostack, preserves_flags),
        );
    }
    // SAFETY: every x86-64 processor has SSE2, and these touch no memory.
    unsafe {
        let tags = _mm_set1_epi8(tag as i8);
        let (first, last) = (_mm_cmpeq_epi8(first, tags), _mm_cmpeq_epi8(last, tags));
        // The upper half of the last is no lane.
        (_mm_movemask_epi8(first) | (_mm_movemask_epi8(last) & 0xff) << 16) as u32
    }
}

/// As above.
#[cfg(not(all(target_arch = "x86_64", not(outgrow_loom))))]
pub(super) fn equal(lanes: &[AtomicU64; 3], tag: u8) -> u32 {
    let lane = |at: usize| equal_in(lanes[at].load(crate::sync::Ordering::Acquire), tag) << (8 * at);
    lane(0) | lane(1) | lane(2)
}

/// Which bytes of a lane equal `tag`, without vector instructions.
#[cfg(any(test, outgrow_loom, not(target_arch = "x86_64")))]
fn equal_in(lane: u64, tag: u8) -> u32 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let differs = lane ^ (u64::from(tag) * LOW);
    let tops = !(((differs & !HIGH) + !HIGH) | differs) & HIGH;
    // Brings the top bits of the eight bytes together.
    ((tops >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[cfg(all(test, not(outgrow_loom)))]
mod tests {
    use super::*;
    use crate::sync::Ordering;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_equal_bytes_are_found(lanes in any::<[u64; 3]>(), tag: u8, at in 0..24_usize) {
            let mut bytes: Vec<u8> = lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect();
            bytes[at] = tag;
            let lane = |from: usize| AtomicU64::new(u64::from_le_bytes(bytes[from..from + 8].try_into().unwrap()));
            let lanes = [0, 8, 16].map(lane);
            let expected = (0..24).filter(|at| bytes[*at] == tag).fold(0, |found, at| found | 1 << at);
            prop_assert_eq!(equal(&lanes, tag), expected);
            let lane = |at: usize| equal_in(lanes[at].load(Ordering::Relaxed), tag) << (8 * at);
            prop_assert_eq!(lane(0) | lane(1) | lane(2), expected);
        }
    }
}
