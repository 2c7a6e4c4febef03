use crate::sync::pins;
use std::thread;
use std::time::Duration;

/// How often others are let run at once, before they are given time.
const YIELDS: usize = 64;
/// How long they are given at a time, and how often: a second in all.
const PAUSE: Duration = Duration::from_micros(500);
const PAUSES: usize = 2_000;

/// How long a write waits for readers that hold memory back. A pin is held for moments, but its thread may lose its
/// processor meanwhile.
pub(super) struct Patience {
    left: usize,
}

impl Patience {
    pub(super) fn new() -> Patience {
        // The pin that holds memory back may be this thread's own: then waiting would be for itself.
        let left = if pins::is_pinned() { 0 } else { YIELDS + PAUSES };
        Patience { left }
    }

    /// Lets others run; false when that was done often enough. Not to be called under a pin of this thread.
    #[cold]
    pub(super) fn wait(&mut self) -> bool {
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        if left >= PAUSES {
            thread::yield_now();
        } else {
            thread::park_timeout(PAUSE);
        }
        true
    }
}
