use crate::sync::pins;
use std::collections::VecDeque;

/// Slots on their way from retired to free, oldest first. What every write looks at comes first, to be on few cache lines.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Retired {
    slots: VecDeque<u16>,
    /// How many of them, from the oldest on, carry which stamp: the first, the last where there are two, and others.
    first: Group,
    last: Group,
    /// How many, of the youngest, carry none yet.
    unstamped: u32,
    between: VecDeque<Group>,
}

/// Slots with the same stamp.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    stamp: u64,
    count: u32,
}

impl Retired {
    pub(super) fn for_some(slots: usize) -> Retired {
        Retired {
            slots: VecDeque::with_capacity(4 * slots),
            between: VecDeque::with_capacity(16),
            ..Retired::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().copied().map(u32::from)
    }

    /// The oldest slot, which will be free first.
    #[inline]
    pub(super) fn oldest(&self) -> Option<u32> {
        self.slots.front().copied().map(u32::from)
    }

    /// Gives a stamp to what was retired under an earlier holder of the lock. To be called with the lock just taken.
    #[inline]
    pub(super) fn stamp_after_lock(&mut self) {
        if self.unstamped > 0 {
            let count = std::mem::take(&mut self.unstamped);
            self.add(Group {
                stamp: pins::stamp_after_lock(),
                count,
            });
        }
    }

    #[inline]
    fn add(&mut self, new: Group) {
        let Retired { first, last, .. } = self;
        if first.count == 0 {
            *first = new;
        } else if last.count == 0 {
            match first.stamp == new.stamp {
                true => first.count += new.count,
                false => *last = new,
            }
        } else if last.stamp == new.stamp {
            last.count += new.count;
        } else {
            self.between.push_back(std::mem::replace(last, new));
        }
    }

    #[inline]
    pub(super) fn push(&mut self, slot: u32) {
        self.slots.push_back(slot as u16);
        self.unstamped += 1;
    }

    /// The oldest slot, if nobody can read it any more. With `push` it tries to move the epoch on first.
    #[inline]
    pub(super) fn next_free(&mut self, push: bool) -> Option<u32> {
        let first = &mut self.first;
        let is_free = first.count > 0
            && (pins::is_free(first.stamp, pins::epoch()) || push && pins::is_free(first.stamp, pins::advance()));
        if !is_free {
            return None;
        }
        self.pop_front()
    }

    #[inline]
    fn pop_front(&mut self) -> Option<u32> {
        self.first.count -= 1;
        if self.first.count == 0 {
            let last = &mut self.last;
            self.first = self.between.pop_front().unwrap_or_else(|| std::mem::take(last));
        }
        self.slots.pop_front().map(u32::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slots_come_out_in_order_each_under_its_stamp(ops in prop::collection::vec((0..4_u8, 1..4_u64), 0..300)) {
            let (mut retired, mut model) = (Retired::for_some(4), VecDeque::new());
            let (mut stamp, mut slot) = (0, 0);
            for (what, n) in ops {
                if what > 0 {
                    stamp += u64::from(what == 1);
                    for _ in 0..n {
                        retired.push(slot);
                        model.push_back((slot, stamp));
                        slot += 1;
                    }
                    let count = std::mem::take(&mut retired.unstamped);
                    retired.add(Group { stamp, count });
                } else {
                    for _ in 0..n {
                        let Some((slot, stamp)) = model.pop_front() else { break };
                        prop_assert_eq!((retired.first.stamp, retired.oldest()), (stamp, Some(slot)));
                        prop_assert_eq!(retired.pop_front(), Some(slot));
                    }
                }
                prop_assert_eq!(retired.len(), model.len());
                prop_assert!(retired.slots().eq(model.iter().map(|(slot, _)| *slot)));
                prop_assert_eq!(retired.first.count == 0, model.is_empty());
            }
        }
    }
}
