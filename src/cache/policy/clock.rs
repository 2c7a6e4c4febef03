/// Time as a policy sees it: it passes by entries taken in, [`TURNOVER`] ticks while as many come in as the cache holds.
#[derive(Debug, Default)]
pub(super) struct Clock {
    tick: u32,
    /// Sixty-fourths of an entry that have not made a tick yet.
    rest: usize,
}

impl Clock {
    pub(super) fn now(&self) -> u32 {
        self.tick
    }

    /// An entry comes into a cache that holds `entries`.
    pub(super) fn advance(&mut self, entries: usize) {
        self.rest += TURNOVER as usize;
        let entries = entries.max(1);
        if self.rest >= entries {
            self.tick = self.tick.wrapping_add((self.rest / entries) as u32);
            self.rest %= entries;
        }
    }
}

/// Ticks while as many entries come in as there are in the cache.
pub(super) const TURNOVER: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turnover_has_its_ticks_whatever_the_size() {
        for entries in [1, 3, 51, 64, 1_000, 15_625] {
            let mut clock = Clock::default();
            for _ in 0..entries {
                clock.advance(entries);
            }
            assert_eq!(clock.now(), TURNOVER, "with {entries} entries");
        }
    }
}
