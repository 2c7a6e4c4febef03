//! Runs of messages: how a record says which of very many are open.

use super::record::number;
use crate::codec::{Malformed, Reader, put_varint};

/// Messages with one number after the other, each delivered `attempts` times so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    /// Never 0; the end is a number.
    pub(super) count: u64,
    pub(super) attempts: u32,
}

impl Run {
    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }

    /// Messages in the order of their numbers, each with its attempts.
    pub(super) fn of(messages: impl IntoIterator<Item = (u64, u32)>) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (first, attempts) in messages {
            match runs.last_mut() {
                Some(last) if last.end() == first && last.attempts == attempts => last.count += 1,
                _ => runs.push(Run {
                    first,
                    count: 1,
                    attempts,
                }),
            }
        }
        runs
    }
}

/// Each run by its distance from the end of the one before.
pub(super) fn put_runs(out: &mut Vec<u8>, runs: &[Run]) {
    put_varint(out, runs.len() as u64);
    let mut end = 0;
    for run in runs {
        put_varint(out, run.first - end);
        put_varint(out, run.count);
        put_varint(out, run.attempts.into());
        end = run.end();
    }
}

pub(super) fn runs(input: &mut Reader<'_>) -> Result<Vec<Run>, Malformed> {
    let mut end = 0_u64;
    let count = input.varint()?;
    let run = |_| {
        let (gap, count, attempts) = (input.varint()?, input.varint()?, number(input)?);
        let first = end.checked_add(gap);
        let after = first.and_then(|first| first.checked_add(count));
        let (first, after) = first
            .zip(after)
            .filter(|_| count > 0)
            .ok_or(Malformed("a run of messages without an end"))?;
        end = after;
        Ok(Run { first, count, attempts })
    };
    (0..count).map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn runs_say_what_they_were_made_of(
            messages in prop::collection::btree_map(0..300_u64, 0..3_u32, 0..200),
            far in prop::option::of(0..u32::MAX),
        ) {
            let far = far.map(|attempts| (u64::MAX - 1, attempts));
            let messages: BTreeMap<_, _> = messages.into_iter().chain(far).collect();
            let made = Run::of(messages.clone());
            let mut bytes = Vec::new();
            put_runs(&mut bytes, &made);
            let read = runs(&mut Reader::new(&bytes)).unwrap();
            prop_assert_eq!(&read, &made);
            let said = read.iter().flat_map(|run| (run.first..run.end()).map(|seq| (seq, run.attempts)));
            prop_assert_eq!(said.collect::<BTreeMap<_, _>>(), messages);
            let join = |pair: &[Run]| pair[0].end() == pair[1].first && pair[0].attempts == pair[1].attempts;
            prop_assert!(!read.windows(2).any(join), "no two could be one");
        }
    }

    #[test]
    fn a_million_messages_in_a_row_are_a_few_bytes() {
        let mut bytes = Vec::new();
        put_runs(&mut bytes, &Run::of((5_000..1_005_000).map(|seq| (seq, 0))));
        assert_eq!(bytes.len(), 1 + 2 + 3 + 1);
    }

    #[test]
    fn runs_that_overflow_or_are_empty_are_refused() {
        let read = |numbers: &[u64]| {
            let mut bytes = Vec::new();
            numbers.iter().for_each(|n| put_varint(&mut bytes, *n));
            runs(&mut Reader::new(&bytes))
        };
        assert!(read(&[1, 3, 2, 0]).is_ok());
        assert!(read(&[1, 3, 0, 0]).is_err());
        assert!(read(&[1, 3, u64::MAX, 0]).is_err());
        assert!(read(&[2, u64::MAX, 0, 0, 1, 1, 0]).is_err());
    }
}
