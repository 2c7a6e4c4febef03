//! A row of messages as a topic keeps them in memory.

use super::kept::{Stored, search, shrink};
use crate::queue::Priority;
use std::collections::VecDeque;

/// Messages one behind the other.
#[derive(Debug)]
pub(crate) struct Part {
    priority: Priority,
    heads: VecDeque<Head>,
    /// What heads have besides, in their order.
    words: VecDeque<u64>,
    /// Words that have gone from the front.
    words_gone: u64,
    /// How often a message was put in.
    #[cfg(test)]
    pub(crate) puts: usize,
}

/// Number, and packed from the lowest bit on: 27 bits of length, whether there is a due time, an end, a key, and 34
/// bits of where their words are, counted from the first that ever was.
#[derive(Clone, Copy, Debug)]
struct Head {
    seq: u64,
    packed: u64,
}

const LEN_MASK: u64 = (1 << 27) - 1;
const DUE: u64 = 1 << 27;
const EXPIRES: u64 = 1 << 28;
const KEY: u64 = 1 << 29;
const WORD_SHIFT: u32 = 30;
const WORD_MASK: u64 = (1 << 34) - 1;

impl Part {
    pub(crate) fn new(priority: Priority) -> Part {
        Part {
            priority,
            heads: VecDeque::new(),
            words: VecDeque::new(),
            words_gone: 0,
            #[cfg(test)]
            puts: 0,
        }
    }

    pub(crate) fn push_back(&mut self, stored: &Stored) {
        debug_assert!(self.last().is_none_or(|last| last < stored.seq));
        let mut packed = u64::from(stored.len).min(LEN_MASK);
        packed |= (self.words_end() & WORD_MASK) << WORD_SHIFT;
        for (flag, word) in [(DUE, stored.due), (EXPIRES, stored.expires), (KEY, stored.key)] {
            if word != 0 {
                packed |= flag;
                self.words.push_back(word);
            }
        }
        let seq = stored.seq;
        self.heads.push_back(Head { seq, packed });
        #[cfg(test)]
        (self.puts += 1);
    }

    pub(crate) fn push_front(&mut self, stored: &Stored) {
        debug_assert!(self.first().is_none_or(|first| first > stored.seq));
        let mut packed = u64::from(stored.len).min(LEN_MASK);
        for (flag, word) in [(KEY, stored.key), (EXPIRES, stored.expires), (DUE, stored.due)] {
            if word != 0 {
                packed |= flag;
                self.words.push_front(word);
                self.words_gone = self.words_gone.wrapping_sub(1);
            }
        }
        packed |= (self.words_gone & WORD_MASK) << WORD_SHIFT;
        let seq = stored.seq;
        self.heads.push_front(Head { seq, packed });
        #[cfg(test)]
        (self.puts += 1);
    }

    pub(crate) fn pop_front(&mut self) -> Option<Stored> {
        let stored = self.get(0)?;
        self.heads.pop_front();
        let unused = match self.heads.front() {
            Some(first) => self.word_of(*first),
            None => self.words.len(),
        };
        self.words.drain(..unused);
        self.words_gone = self.words_gone.wrapping_add(unused as u64);
        self.shrink();
        Some(stored)
    }

    pub(crate) fn pop_back(&mut self) -> Option<Stored> {
        let stored = self.get(self.len().checked_sub(1)?)?;
        let last = self.heads.pop_back()?;
        self.words.truncate(self.word_of(last));
        self.shrink();
        Some(stored)
    }

    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.heads.front().map(|head| head.seq)
    }

    pub(crate) fn last(&self) -> Option<u64> {
        self.heads.back().map(|head| head.seq)
    }

    pub(crate) fn find(&self, seq: u64) -> Option<usize> {
        search(&self.heads, seq, |head| head.seq).ok()
    }

    pub(crate) fn first_from(&self, from: u64) -> usize {
        self.heads.partition_point(|head| head.seq < from)
    }

    pub(crate) fn get(&self, index: usize) -> Option<Stored> {
        let head = *self.heads.get(index)?;
        let mut at = self.word_of(head);
        let mut word = |flag: u64| {
            let word = if head.packed & flag == 0 {
                None
            } else {
                self.words.get(at)
            };
            at += usize::from(word.is_some());
            word.copied().unwrap_or(0)
        };
        Some(Stored {
            seq: head.seq,
            len: (head.packed & LEN_MASK) as u32,
            priority: self.priority,
            due: word(DUE),
            expires: word(EXPIRES),
            key: word(KEY),
        })
    }

    /// The number of the message at `index`.
    pub(crate) fn seq(&self, index: usize) -> Option<u64> {
        self.heads.get(index).map(|head| head.seq)
    }

    /// Whether no message has a due time, an end or a key.
    pub(crate) fn is_plain(&self) -> bool {
        self.words.is_empty()
    }

    /// Takes a message out, and says how long it was.
    pub(crate) fn remove(&mut self, seq: u64) -> Option<u32> {
        let gone = self.heads.remove(self.find(seq)?)?;
        // Its words stay until what is before them has gone.
        Some((gone.packed & LEN_MASK) as u32)
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.heads.capacity() * size_of::<Head>() + self.words.capacity() * size_of::<u64>()
    }

    fn words_end(&self) -> u64 {
        self.words_gone.wrapping_add(self.words.len() as u64)
    }

    /// Where a head's words are now.
    fn word_of(&self, head: Head) -> usize {
        ((head.packed >> WORD_SHIFT).wrapping_sub(self.words_gone) & WORD_MASK) as usize
    }

    fn shrink(&mut self) {
        shrink(&mut self.words);
        shrink(&mut self.heads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_message_is_16_bytes() {
        assert_eq!(size_of::<Head>(), 16);
    }
}
