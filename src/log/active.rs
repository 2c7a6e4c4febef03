//! The segment that takes frames, and which of the zeros behind its tail are written with them.

use crate::env::File;
use std::sync::Arc;

/// The segment that takes frames.
pub(super) struct Active {
    pub(super) id: u64,
    pub(super) salt: u64,
    pub(super) file: Arc<dyn File>,
    /// Where the next byte goes.
    pub(super) tail: u32,
    /// Where it is full.
    pub(super) limit: u32,
    /// The pages up to here have been written by us, so that they are in memory.
    pub(super) warm: u32,
}

impl Active {
    /// A segment that is to be gone on with behind its header or its last frame.
    pub(super) fn new(header: (u64, u64), file: Arc<dyn File>, tail: u32, limit: u32) -> Active {
        let (id, salt) = header;
        Active {
            id,
            salt,
            file,
            tail,
            limit,
            warm: 0,
        }
    }

    /// Up to where zeros are written with bytes that end at `end`. A part of a page that is not in memory would have to be
    /// read before it can be changed, so whole ones are written.
    pub(super) fn padded(&self, end: u32) -> u32 {
        match end <= self.warm {
            true => end,
            false => end.next_multiple_of(PAGE).min(self.limit).max(end),
        }
    }
}

/// What the disk and the kernel deal with at once, at the least.
pub(super) const PAGE: u32 = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Env, OpenMode};
    use crate::sim::World;
    use std::path::Path;

    #[test]
    fn whole_pages_are_written_the_first_time() {
        let world = World::new(1);
        let env: Env = world.machine("node").env();
        let file = world.run(async move { env.disk().open(Path::new("/f"), OpenMode::New).await.unwrap() });
        let limit = 1 << 20;
        let mut active = Active::new((1, 2), file, 1_024, limit);
        assert_eq!(active.padded(1_100), 4_096);
        active.warm = 4_096;
        assert_eq!(active.padded(1_100), 1_100);
        assert_eq!(active.padded(4_096), 4_096);
        assert_eq!(active.padded(4_097), 8_192);
        assert_eq!(active.padded(limit - 8), limit);
        assert_eq!(
            active.padded(limit + 80),
            limit + 80,
            "an entry larger than the segment"
        );
    }
}
