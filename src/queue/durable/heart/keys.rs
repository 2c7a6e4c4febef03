//! Which keys hold back messages in an ordered subscription.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The keys of messages that are before the cursor and not settled. 32 bytes of memory each.
///
/// The first message of a key holds it; later ones stand in line behind it. The line runs through their slots, each of
/// which names the next, so that it costs nothing more.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    table: HashTable<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    /// A keyed hash: nobody outside can make many fall together, so it is its own hash here.
    key: u64,
    /// Messages that hold it: one, unless the subscription was made an ordered one while several had been delivered.
    holders: u32,
    /// The first and the last in line, or 0.
    first: u64,
    last: u64,
}

impl Keys {
    pub(crate) fn is_held(&self, key: u64) -> bool {
        self.table.find(key, |known| known.key == key).is_some()
    }

    /// One more message holds the key.
    pub(crate) fn hold(&mut self, key: u64) {
        match self.table.entry(key, |known| known.key == key, |known| known.key) {
            Entry::Occupied(mut held) => held.get_mut().holders += 1,
            Entry::Vacant(free) => drop(free.insert(Key {
                key,
                holders: 1,
                first: 0,
                last: 0,
            })),
        }
    }

    /// Puts a message in line behind the key, and returns the one that was the last so far.
    pub(crate) fn line_up(&mut self, key: u64, seq: u64) -> Option<u64> {
        let held = self.table.find_mut(key, |known| known.key == key)?;
        let before = std::mem::replace(&mut held.last, seq);
        if before == 0 {
            held.first = seq;
        }
        Some(before).filter(|before| *before != 0)
    }

    /// The first in line, and the last.
    pub(crate) fn line(&self, key: u64) -> Option<(u64, u64)> {
        let held = self.table.find(key, |known| known.key == key)?;
        (held.first != 0).then_some((held.first, held.last))
    }

    /// Changes where the line begins and ends.
    pub(crate) fn set_line(&mut self, key: u64, first: u64, last: u64) {
        if let Some(held) = self.table.find_mut(key, |known| known.key == key) {
            (held.first, held.last) = (first, last);
        }
    }

    /// A message that held the key is settled. Returns whether nobody holds it now; with nobody in line, it is
    /// forgotten then.
    pub(crate) fn release(&mut self, key: u64) -> bool {
        let Ok(mut entry) = self.table.find_entry(key, |known| known.key == key) else {
            return false;
        };
        let held = entry.get_mut();
        held.holders -= 1;
        let is_free = held.holders == 0;
        if is_free && held.first == 0 {
            entry.remove();
            self.shrink();
        }
        is_free
    }

    fn shrink(&mut self) {
        if self.table.capacity() > super::kept::SMALL && self.table.len() < self.table.capacity() / 8 {
            self.table.shrink_to(self.table.len() * 2, |known| known.key);
        }
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.table.capacity() * (size_of::<Key>() + 1) * 8 / 7
    }

    pub(crate) fn clear(&mut self) {
        self.table = HashTable::new();
    }
}
