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
    /// Whether the zeros behind the tail may be no more than room on the disk, so that the sync of the first write there
    /// writes metadata too.
    pub(super) is_room: bool,
    /// Zeros up to here have been written by us, or are about to be: they are in memory, and more than room.
    pub(super) warm: u32,
}

/// The zeros that are written behind a part's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    /// With the part, up to here.
    pub(super) with: u32,
    /// By themselves, up to here.
    pub(super) then: u32,
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
            is_room: true,
            warm: 0,
        }
    }

    /// What is written behind bytes that end at `end`. A part of a page that is not in memory would have to be read before
    /// it can be changed, so whole ones are written; and where there is only room, small writes that are synced are spared
    /// the metadata by writing the next of the zeros in one go.
    pub(super) fn ahead(&self, end: u32, syncs: bool) -> Ahead {
        let limit = |at: u32| at.min(self.limit).max(end);
        if end <= self.warm {
            return Ahead { with: end, then: end };
        }
        let with = limit(end.next_multiple_of(PAGE));
        let small = end - self.tail <= SMALL_WRITE;
        let then = match self.is_room && syncs && small {
            true => limit(end.next_multiple_of(AHEAD)),
            false => with,
        };
        Ahead { with, then }
    }
}

/// What the disk and the kernel deal with at once, at the least.
pub(super) const PAGE: u32 = 4 << 10;
/// The longest write that is worth zeros ahead of those behind it.
const SMALL_WRITE: u32 = 32 << 10;
/// Where these end: at a multiple of this.
const AHEAD: u32 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Env, OpenMode};
    use crate::sim::World;
    use std::path::Path;

    fn at(tail: u32, warm: u32, is_room: bool) -> Active {
        let world = World::new(1);
        let env: Env = world.machine("node").env();
        let file = world.run(async move { env.disk().open(Path::new("/f"), OpenMode::New).await.unwrap() });
        let active = Active::new((1, 2), file, tail, 1 << 20);
        Active {
            warm,
            is_room,
            ..active
        }
    }

    #[test]
    fn whole_pages_are_written_the_first_time() {
        let ahead = |end, warm| at(1_024, warm, false).ahead(end, true);
        assert_eq!(
            ahead(1_100, 0),
            Ahead {
                with: 4_096,
                then: 4_096
            }
        );
        assert_eq!(
            ahead(1_100, 4_096),
            Ahead {
                with: 1_100,
                then: 1_100
            }
        );
        assert_eq!(
            ahead(4_097, 4_096),
            Ahead {
                with: 8_192,
                then: 8_192
            }
        );
        let limit = 1 << 20;
        assert_eq!(
            ahead(limit - 8, 0),
            Ahead {
                with: limit,
                then: limit
            }
        );
        let beyond = limit + 80;
        assert_eq!(
            ahead(beyond, 0),
            Ahead {
                with: beyond,
                then: beyond
            },
            "an entry larger than the segment"
        );
    }

    #[test]
    fn small_writes_that_are_synced_go_where_zeros_are_on_disk() {
        let ahead = |tail, end, is_room, syncs| at(tail, tail, is_room).ahead(end, syncs).then;
        assert_eq!(ahead(4_096, 4_200, true, true), AHEAD);
        assert_eq!(ahead(AHEAD, AHEAD + 1, true, true), 2 * AHEAD);
        assert_eq!(ahead(4_096, 4_200, false, true), 8_192, "they are there already");
        assert_eq!(ahead(4_096, 4_200, true, false), 8_192, "nobody waits for a sync");
        assert_eq!(
            ahead(4_096, 4_096 + SMALL_WRITE + 1, true, true),
            40_960,
            "not worth it"
        );
        assert_eq!(ahead((1 << 20) - 16, (1 << 20) - 8, true, true), 1 << 20);
    }
}
