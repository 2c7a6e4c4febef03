use crate::codec::{self, Malformed, Reader};
use crate::store::Position;

/// Which sequence numbers were written in which epoch, as one log has them: the epochs in order, each with the number
/// of its first record.
///
/// It answers what a bare position cannot: whether the record that somebody saw there is still the one that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    starts: Vec<Start>,
}

/// The first record of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    epoch: u64,
    seq: u64,
}

/// What became of a position that somebody remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The record is in the log.
    Survived,
    /// The log has not got that far yet.
    Ahead,
    /// Another record stands there; of what that epoch and those before it wrote, this much is left.
    Lost(Position),
}

/// Epochs that are remembered: one more is made by each failover.
const KEPT: usize = 1_024;

impl History {
    /// Takes note of a record at the end of the log.
    pub(crate) fn note(&mut self, at: Position) {
        if self.starts.last().is_none_or(|last| at.epoch > last.epoch) {
            self.starts.push(Start {
                epoch: at.epoch,
                seq: at.seq,
            });
            if self.starts.len() > KEPT {
                self.starts.remove(0);
            }
        }
    }

    /// Forgets every record after `seq`.
    pub(crate) fn cut(&mut self, seq: u64) {
        self.starts.retain(|start| start.seq <= seq);
    }

    /// The position of the record numbered `seq`; epoch 0 where nothing is known.
    pub(crate) fn at(&self, seq: u64) -> Position {
        let after = self.starts.partition_point(|start| start.seq <= seq);
        let epoch = after.checked_sub(1).map_or(0, |i| self.starts[i].epoch);
        Position::new(epoch, seq)
    }

    /// The first record of the epoch that the record numbered `seq` belongs to.
    pub(crate) fn start_of_epoch(&self, seq: u64) -> u64 {
        let after = self.starts.partition_point(|start| start.seq <= seq);
        after.checked_sub(1).map_or(1, |i| self.starts[i].seq)
    }

    /// What became of `seen` in the log that ends with the record numbered `last`.
    ///
    /// A position older than the epochs remembered counts as lost.
    pub(crate) fn fate(&self, seen: Position, last: u64) -> Fate {
        let newest = self.at(last);
        if seen.seq == 0 {
            Fate::Survived
        } else if seen.epoch > newest.epoch || (seen.epoch == newest.epoch && seen.seq > last) {
            Fate::Ahead
        } else if seen.seq <= last && self.at(seen.seq).epoch == seen.epoch {
            Fate::Survived
        } else {
            Fate::Lost(self.left_of(seen.epoch, last))
        }
    }

    /// The last record that `epoch` or one before it wrote.
    pub(crate) fn left_of(&self, epoch: u64, last: u64) -> Position {
        let next = self.starts.iter().find(|start| start.epoch > epoch);
        self.at(next.map_or(last, |next| next.seq.saturating_sub(1).min(last)))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        codec::put_varint(out, self.starts.len() as u64);
        for start in &self.starts {
            codec::put_varint(out, start.epoch);
            codec::put_varint(out, start.seq);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<History, Malformed> {
        let mut history = History::default();
        for _ in 0..reader.varint()? {
            let (epoch, seq) = (reader.varint()?, reader.varint()?);
            let grows = history
                .starts
                .last()
                .is_none_or(|last| epoch > last.epoch && seq > last.seq);
            if !grows || history.starts.len() == KEPT {
                return Err(Malformed("epochs that do not follow each other"));
            }
            history.starts.push(Start { epoch, seq });
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn history(records: &[(u64, u64)]) -> History {
        let mut history = History::default();
        for (epoch, seq) in records {
            history.note(Position::new(*epoch, *seq));
        }
        history
    }

    #[test]
    fn a_lost_tail_is_told_from_what_is_still_to_come() {
        // Epoch 1 wrote 1 to 9, but only 1 to 5 survived the failover to epoch 3.
        let history = history(&[(1, 1), (1, 5), (3, 6), (3, 8)]);
        let fate = |epoch, seq| history.fate(Position::new(epoch, seq), 8);
        assert_eq!(fate(1, 5), Fate::Survived);
        assert_eq!(fate(3, 6), Fate::Survived);
        assert_eq!(fate(0, 0), Fate::Survived);
        assert_eq!(fate(1, 6), Fate::Lost(Position::new(1, 5)));
        assert_eq!(fate(1, 9), Fate::Lost(Position::new(1, 5)));
        assert_eq!(fate(2, 7), Fate::Lost(Position::new(1, 5)));
        assert_eq!(fate(3, 9), Fate::Ahead);
        assert_eq!(fate(4, 2), Fate::Ahead);
    }

    proptest! {
        /// Against the dumbest thing that is right: the log itself, one epoch per record.
        #[test]
        fn it_agrees_with_the_log(steps in prop::collection::vec((0_u64..3, 0_usize..30), 1..40), epoch in 0_u64..12, seq in 0_u64..60) {
            let mut log: Vec<u64> = Vec::new();
            let mut history = History::default();
            let mut newest = 1;
            for (newer, cut) in steps {
                if cut < log.len() && newer > 0 {
                    log.truncate(cut);
                    history.cut(cut as u64);
                }
                newest += newer;
                log.push(newest);
                history.note(Position::new(newest, log.len() as u64));
            }
            for (i, epoch) in log.iter().enumerate() {
                prop_assert_eq!(history.at(i as u64 + 1).epoch, *epoch);
            }
            let last = log.len() as u64;
            let seen = Position::new(epoch, seq);
            let held = seq == 0 || log.get(seq as usize - 1) == Some(&epoch);
            match history.fate(seen, last) {
                Fate::Survived => prop_assert!(held),
                Fate::Ahead => prop_assert!(!held && epoch >= newest),
                Fate::Lost(left) => {
                    prop_assert!(!held);
                    let expected = log.iter().take_while(|written| **written <= epoch).count() as u64;
                    prop_assert_eq!(left.seq, expected);
                }
            }
            let mut bytes = Vec::new();
            history.encode(&mut bytes);
            prop_assert_eq!(History::decode(&mut Reader::new(&bytes)).unwrap(), history);
        }
    }
}
