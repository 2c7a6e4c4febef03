//! Acknowledgements of which the log does not know yet.

use super::record::{Record, SubId};
use crate::log::Entry;
use std::collections::BTreeMap;

/// The most acknowledgements of one record.
const CHUNK: usize = 10_000;

/// What was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    One(u64),
    /// A message and everything before it.
    Through(u64),
}

impl Ack {
    pub(super) fn record(self, id: SubId) -> Record {
        match self {
            Ack::One(seq) => Record::Acked { id, seqs: vec![seq] },
            Ack::Through(seq) => Record::AckedThrough { id, seq },
        }
    }
}

/// Acknowledgements of each subscription. What is settled stays settled, so their order does not matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Acks {
    of: BTreeMap<SubId, Settled>,
}

#[derive(Clone, Debug, Default)]
struct Settled {
    seqs: Vec<u64>,
    through: Option<u64>,
}

impl Acks {
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Adds one; returns how many the subscription has.
    pub(super) fn add(&mut self, id: SubId, ack: Ack) -> usize {
        let of = self.of.entry(id).or_default();
        match ack {
            Ack::One(seq) => of.seqs.push(seq),
            Ack::Through(seq) => of.through = of.through.max(Some(seq)),
        }
        of.seqs.len()
    }

    pub(super) fn add_all(&mut self, more: Acks) {
        for (id, more) in more.of {
            let of = self.of.entry(id).or_default();
            of.seqs.extend(more.seqs);
            of.through = of.through.max(more.through);
        }
    }

    /// What the log has to be told.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (&id, of) in &self.of {
            let through = of.through.map(|seq| Ack::Through(seq).record(id));
            let chunks = of.seqs.chunks(CHUNK);
            let seqs = chunks.map(|seqs| Record::Acked {
                id,
                seqs: seqs.to_vec(),
            });
            entries.extend(through.into_iter().chain(seqs).map(|record| record.encode().into()));
        }
        entries
    }

    /// Splits what is too much for one append.
    pub(super) fn halves(mut self) -> (Acks, Acks) {
        let mut rest = Acks::default();
        for (id, of) in &mut self.of {
            let seqs = of.seqs.split_off(of.seqs.len() / 2);
            rest.of.insert(*id, Settled { seqs, through: None });
        }
        (self, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Given;
    use bytes::Bytes;

    #[test]
    fn nothing_is_left_out_when_split_and_put_together() {
        let mut acks = Acks::default();
        for seq in 0..25_000 {
            acks.add(1, Ack::One(seq));
        }
        assert_eq!(acks.add(2, Ack::Through(9)), 0);
        acks.add(2, Ack::Through(5));
        let told = |acks: &Acks| {
            let entries = acks.entries();
            let records = entries
                .iter()
                .map(|entry| Record::decode(&Bytes::copy_from_slice(Given::from(entry).bytes)).unwrap());
            let mut all = Vec::new();
            for record in records {
                match record {
                    Record::Acked { id, seqs } => all.extend(seqs.into_iter().map(|seq| (id, seq))),
                    Record::AckedThrough { id, seq } => all.push((id, seq)),
                    other => panic!("{other:?}"),
                }
            }
            all.sort_unstable();
            all
        };
        let whole = told(&acks);
        assert_eq!(whole.len(), 25_001);
        assert_eq!(whole.last(), Some(&(2, 9)), "the furthest");
        let (mut one, other) = acks.halves();
        assert!(one.entries().len() + other.entries().len() >= 4);
        one.add_all(other);
        assert_eq!(told(&one), whole);
    }
}
