//! First-in, first-out queues that share their memory: what one loses another gains. When they have held so many in all
//! for a while, with a few chunks to spare, no write asks for more.

/// An entry in a queue, at three bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) slot: u16,
    pub(super) state: u8,
}

/// The memory of some queues, in chunks.
#[derive(Debug, Default)]
pub(super) struct Pool {
    chunks: Vec<Chunk>,
    /// The first of those that no queue has.
    free: Link,
    used: usize,
}

#[derive(Clone, Debug)]
struct Chunk {
    /// The two bytes of the slot and that of the state, side by side, so that a reference is on one cache line.
    references: [[u8; 3]; CHUNK],
    /// The next younger chunk of its queue, or the next free one.
    next: Link,
}

/// The number of a chunk and one more, or zero for none.
type Link = u16;

impl Pool {
    fn chunk(&self, link: Link) -> &Chunk {
        &self.chunks[usize::from(link) - 1]
    }

    fn chunk_mut(&mut self, link: Link) -> &mut Chunk {
        &mut self.chunks[usize::from(link) - 1]
    }

    fn get(&self, link: Link, at: u8) -> Reference {
        let [low, high, state] = self.chunk(link).references[usize::from(at)];
        Reference {
            slot: u16::from_le_bytes([low, high]),
            state,
        }
    }

    fn set(&mut self, link: Link, at: u8, reference: Reference) {
        let [low, high] = reference.slot.to_le_bytes();
        self.chunk_mut(link).references[usize::from(at)] = [low, high, reference.state];
    }

    fn take(&mut self) -> Link {
        if self.free == NONE {
            self.grow(SPARE.max(self.chunks.len() / 32));
        }
        let taken = self.free;
        self.free = std::mem::replace(&mut self.chunk_mut(taken).next, NONE);
        self.used += 1;
        taken
    }

    fn give(&mut self, link: Link) -> Link {
        let free = std::mem::replace(&mut self.free, link);
        self.used -= 1;
        std::mem::replace(&mut self.chunk_mut(link).next, free)
    }

    #[cold]
    fn grow(&mut self, by: usize) {
        self.chunks.reserve_exact(by);
        for _ in 0..by {
            self.chunks.push(Chunk {
                references: [[0; 3]; CHUNK],
                next: self.free,
            });
            self.free = Link::try_from(self.chunks.len()).expect("there are far fewer chunks than slots");
        }
    }

    /// Whether much more memory is held than is needed.
    pub(super) fn is_wasteful(&self) -> bool {
        self.chunks.len() > 2 * self.used + 4 * SPARE
    }

    /// Moves all queues to memory that is no larger than they need.
    #[cold]
    pub(super) fn fit<'a>(&mut self, queues: impl IntoIterator<Item = &'a mut Fifo>) {
        let mut pool = Pool::default();
        pool.grow(self.used + SPARE);
        for queue in queues {
            let mut moved = Fifo::default();
            queue.iter(self).for_each(|reference| moved.push(&mut pool, reference));
            *queue = moved;
        }
        *self = pool;
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Chunk>()
    }
}

/// A queue over a [`Pool`], which is the same in every call.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    first: Link,
    last: Link,
    /// Where the oldest stands in the first chunk.
    head: u8,
    /// Behind the youngest in the last chunk.
    tail: u8,
    len: usize,
}

impl Fifo {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a reference at the young end.
    pub(super) fn push(&mut self, pool: &mut Pool, reference: Reference) {
        if self.last == NONE || usize::from(self.tail) == CHUNK {
            let chunk = pool.take();
            match self.last {
                NONE => (self.first, self.head) = (chunk, 0),
                last => pool.chunk_mut(last).next = chunk,
            }
            (self.last, self.tail) = (chunk, 0);
        }
        pool.set(self.last, self.tail, reference);
        self.tail += 1;
        self.len += 1;
    }

    /// The one at the old end.
    pub(super) fn front(&self, pool: &Pool) -> Option<Reference> {
        (self.len > 0).then(|| pool.get(self.first, self.head))
    }

    /// Takes the one at the old end.
    pub(super) fn pop(&mut self, pool: &mut Pool) -> Option<Reference> {
        let popped = self.front(pool)?;
        self.len -= 1;
        self.head += 1;
        if self.len == 0 {
            self.clear(pool);
        } else if usize::from(self.head) == CHUNK {
            self.first = pool.give(self.first);
            self.head = 0;
        }
        Some(popped)
    }

    /// Takes out the one at the young end, if it can be seen and `is_it`.
    pub(super) fn take_back(&mut self, pool: &mut Pool, is_it: impl Fn(Reference) -> bool) {
        if self.len > 0 && self.tail > 0 && is_it(pool.get(self.last, self.tail - 1)) {
            self.tail -= 1;
            self.len -= 1;
            if self.len == 0 {
                self.clear(pool);
            }
        }
    }

    fn clear(&mut self, pool: &mut Pool) {
        let mut next = self.first;
        while next != NONE {
            next = pool.give(next);
        }
        *self = Fifo::default();
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self, pool: &Pool) -> impl Iterator<Item = Reference> {
        let mut at = Cursor::at(self.first, self.head);
        (0..self.len).map(move |_| pool.get(at.link(pool), at.step()))
    }

    /// Keeps those of which `keeps` says so, being asked of each in turn, oldest first.
    pub(super) fn retain(&mut self, pool: &mut Pool, mut keeps: impl FnMut(Reference) -> bool) {
        let mut from = Cursor::at(self.first, self.head);
        let mut to = Cursor::at(self.first, self.head);
        let mut kept = 0;
        for _ in 0..self.len {
            let reference = pool.get(from.link(pool), from.step());
            if keeps(reference) {
                pool.set(to.link(pool), to.step(), reference);
                kept += 1;
            }
        }
        self.len = kept;
        if kept == 0 {
            return self.clear(pool);
        }
        (self.last, self.tail) = (to.chunk, to.at);
        let mut rest = std::mem::replace(&mut pool.chunk_mut(to.chunk).next, NONE);
        while rest != NONE {
            rest = pool.give(rest);
        }
    }
}

/// A walk through a queue.
struct Cursor {
    chunk: Link,
    at: u8,
}

impl Cursor {
    fn at(chunk: Link, at: u8) -> Cursor {
        Cursor { chunk, at }
    }

    /// The chunk of the next one.
    fn link(&mut self, pool: &Pool) -> Link {
        if usize::from(self.at) == CHUNK {
            self.chunk = pool.chunk(self.chunk).next;
            self.at = 0;
        }
        self.chunk
    }

    /// Its place there, which is passed.
    fn step(&mut self) -> u8 {
        self.at += 1;
        self.at - 1
    }
}

const NONE: Link = 0;
/// References in a chunk.
const CHUNK: usize = 64;
/// Chunks that are made at a time, at least: two for each of two queues, since its first and its last may hold one
/// reference each.
const SPARE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Op {
        Push(usize, u16, u8),
        Pop(usize),
        TakeBack(usize),
        Retain(usize, u16),
        Fit,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            60 => (0..2_usize, any::<u16>(), any::<u8>()).prop_map(|(queue, slot, state)| Op::Push(queue, slot, state)),
            40 => (0..2_usize).prop_map(Op::Pop),
            5 => (0..2_usize).prop_map(Op::TakeBack),
            1 => (0..2_usize, 1..5_u16).prop_map(|(queue, of)| Op::Retain(queue, of)),
            1 => Just(Op::Fit),
        ]
    }

    proptest! {
        #[test]
        fn they_are_queues_over_one_pool(ops in prop::collection::vec(op(), 0..2_000)) {
            let mut pool = Pool::default();
            let mut queues = [Fifo::default(), Fifo::default()];
            let mut models: [VecDeque<Reference>; 2] = Default::default();
            let mut most = 0;
            for op in ops {
                match op {
                    Op::Push(queue, slot, state) => {
                        let reference = Reference { slot, state };
                        queues[queue].push(&mut pool, reference);
                        models[queue].push_back(reference);
                    }
                    Op::Pop(queue) => prop_assert_eq!(queues[queue].pop(&mut pool), models[queue].pop_front()),
                    Op::TakeBack(queue) => {
                        if let Some(last) = models[queue].back().copied() {
                            queues[queue].take_back(&mut pool, |youngest| youngest == last);
                            // It may not be seen, and stays then.
                            if queues[queue].len() < models[queue].len() {
                                models[queue].pop_back();
                            }
                        }
                    }
                    Op::Retain(queue, of) => {
                        let keeps = |reference: &Reference| reference.slot.is_multiple_of(of);
                        queues[queue].retain(&mut pool, |reference| keeps(&reference));
                        models[queue].retain(keeps);
                    }
                    Op::Fit => pool.fit(&mut queues),
                }
                most = most.max(models[0].len() + models[1].len());
                for (queue, model) in queues.iter().zip(&models) {
                    prop_assert_eq!(queue.len(), model.len());
                    prop_assert_eq!(queue.front(&pool), model.front().copied());
                    prop_assert!(queue.iter(&pool).eq(model.iter().copied()));
                }
                prop_assert!(pool.chunks.len() <= most.div_ceil(CHUNK) + 2 * SPARE + pool.chunks.len() / 32);
            }
        }
    }

    #[test]
    fn nothing_is_asked_for_while_as_many_are_held() {
        let (mut pool, mut queues) = (Pool::default(), [Fifo::default(), Fifo::default()]);
        let reference = |slot| Reference { slot, state: 0 };
        (0..10_000).for_each(|slot| queues[0].push(&mut pool, reference(slot)));
        let bytes = pool.bytes();
        assert!(bytes < 10_000 * 7 / 2);
        // All of them move to the other queue and back, at every pace.
        for round in 0..100_000_u32 {
            let from = usize::from(round % 30_011 < 15_000);
            if let Some(moved) = queues[from].pop(&mut pool) {
                queues[1 - from].push(&mut pool, moved);
            }
        }
        assert_eq!((pool.bytes(), queues[0].len() + queues[1].len()), (bytes, 10_000));
        assert!(!pool.is_wasteful());
        for n in 0..9_000 {
            let popped = queues[n % 2].pop(&mut pool);
            assert!(popped.or_else(|| queues[1 - n % 2].pop(&mut pool)).is_some());
        }
        assert!(pool.is_wasteful());
        pool.fit(&mut queues);
        assert!(pool.bytes() < 1_000 * 7);
    }
}
