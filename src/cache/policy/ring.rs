/// A queue of words in one block of memory that grows by a sixteenth, so that a full cache wastes little on room to grow.
#[derive(Debug, Default)]
pub(super) struct Ring {
    words: Box<[u32]>,
    head: usize,
    len: usize,
}

impl Ring {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the next [`push`](Ring::push) has to move the whole queue.
    pub(super) fn is_full(&self) -> bool {
        self.len == self.words.len()
    }

    /// Adds `word` at the young end.
    pub(super) fn push(&mut self, word: u32) {
        if self.is_full() {
            self.rebuild(self.len + self.len / GROWTH + LEAST);
        }
        let at = self.at(self.len);
        self.words[at] = word;
        self.len += 1;
    }

    /// Takes the word at the old end.
    pub(super) fn pop(&mut self) -> Option<u32> {
        self.len = self.len.checked_sub(1)?;
        let word = self.words[self.head];
        self.head = self.at(1);
        if self.len < self.words.len() / 4 {
            self.fit();
        }
        Some(word)
    }

    /// The word at `index`, counted from the old end.
    pub(super) fn get(&self, index: usize) -> u32 {
        debug_assert!(index < self.len, "asks for a word of the queue");
        self.words[self.at(index)]
    }

    /// Writes over the word at `index`, counted from the old end.
    pub(super) fn set(&mut self, index: usize, word: u32) {
        debug_assert!(index < self.len, "writes over a word of the queue");
        let at = self.at(index);
        self.words[at] = word;
    }

    /// Drops what is younger than the oldest `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Gives back memory when more than an eighth of it is unused.
    pub(super) fn fit(&mut self) {
        if self.words.len() > self.len + self.len / 8 + 2 * LEAST {
            self.rebuild(self.len + self.len / (2 * GROWTH) + LEAST);
        }
    }

    fn at(&self, index: usize) -> usize {
        let at = self.head + index;
        if at >= self.words.len() {
            at - self.words.len()
        } else {
            at
        }
    }

    fn rebuild(&mut self, room: usize) {
        let mut words = Vec::with_capacity(room);
        words.extend((0..self.len).map(|index| self.get(index)));
        words.resize(room, 0);
        self.words = words.into_boxed_slice();
        self.head = 0;
    }
}

/// It grows by its length divided by this.
const GROWTH: usize = 16;
/// And by so many words at least.
const LEAST: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Op {
        Push(u32),
        Pop,
        Set(usize, u32),
        Truncate(usize),
        Fit,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => any::<u32>().prop_map(Op::Push),
            5 => Just(Op::Pop),
            1 => (any::<usize>(), any::<u32>()).prop_map(|(at, word)| Op::Set(at, word)),
            1 => (0..60_usize).prop_map(Op::Truncate),
            1 => Just(Op::Fit),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_queue(ops in prop::collection::vec(op(), 0..300)) {
            let (mut ring, mut model) = (Ring::default(), VecDeque::new());
            for op in ops {
                match op {
                    Op::Push(word) => {
                        ring.push(word);
                        model.push_back(word);
                    }
                    Op::Pop => prop_assert_eq!(ring.pop(), model.pop_front()),
                    Op::Set(at, word) if !model.is_empty() => {
                        let at = at % model.len();
                        ring.set(at, word);
                        model[at] = word;
                    }
                    Op::Set(..) => {}
                    Op::Truncate(len) => {
                        ring.truncate(len);
                        model.truncate(len);
                    }
                    Op::Fit => ring.fit(),
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert!((0..model.len()).all(|at| ring.get(at) == model[at]));
            }
        }
    }

    #[test]
    fn little_memory_is_unused() {
        let mut ring = Ring::default();
        for word in 0..10_000 {
            ring.push(word);
        }
        assert!(ring.words.len() <= 10_000 + 10_000 / GROWTH + LEAST);
        ring.truncate(1_000);
        ring.fit();
        assert!(ring.words.len() <= 1_000 + 1_000 / GROWTH + LEAST);
        assert!(
            (0..1_000).all(|at| ring.get(at as usize) == at),
            "what is kept is kept in order"
        );
    }
}
