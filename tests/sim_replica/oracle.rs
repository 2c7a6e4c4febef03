//! What was done and what it answered, in order; and what must follow from that.

use crate::cluster::Plan;
use bytes::Bytes;
use outgrow::replica::{Divergent, FailoverReport};
use outgrow::store::{Effect, Entry, Error, Position, Receipt, Result, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
use std::sync::Mutex;

#[derive(Default)]
pub(crate) struct Oracle {
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// Counts beginnings and ends, so that each has a number of its own.
    now: u64,
    writes: Vec<Write>,
    reads: Vec<Read>,
    /// What the nodes hold in the end.
    state: BTreeMap<Bytes, Entry>,
    divergent: BTreeSet<Bytes>,
    /// Keys of writes that failovers reported as lost.
    lost: BTreeSet<Bytes>,
    /// For each opening of the whole store that is over, whether it was closed. The next one is a failover that reports to
    /// nobody.
    over: Vec<bool>,
    counts: Counts,
}

/// A batch that sets a key and, beside it, a mark of its own.
pub(crate) struct Write {
    pub(crate) key: Bytes,
    pub(crate) mark: Bytes,
    /// Whether a majority has to have it before it is acknowledged.
    pub(crate) safe: bool,
    /// The opening of the store whose handle took it.
    opening: usize,
    begun: u64,
    ended: u64,
    how: How,
}

enum How {
    UnderWay,
    Acknowledged(Version, Position),
    Unknown,
    Refused,
}

/// A read at the primary.
struct Read {
    key: Bytes,
    begun: u64,
    ended: u64,
    found: Option<Version>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    acknowledged: u64,
    unknown: u64,
    refused: u64,
    reads: u64,
    session_reads: u64,
    tokens_lost: u64,
    failovers: u64,
    lost: u64,
    divergent: u64,
}

impl Counts {
    pub(crate) fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("writes acknowledged", self.acknowledged),
            ("writes of unknown effect", self.unknown),
            ("writes refused", self.refused),
            ("reads at the primary", self.reads),
            ("reads of sessions", self.session_reads),
            ("sessions whose token was lost", self.tokens_lost),
            ("failovers", self.failovers),
            ("weak writes reported lost", self.lost),
            ("records handed back", self.divergent),
        ]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.reads += other.reads;
        self.session_reads += other.session_reads;
        self.tokens_lost += other.tokens_lost;
        self.failovers += other.failovers;
        self.lost += other.lost;
        self.divergent += other.divergent;
    }
}

/// What one session has seen or written of each key.
#[derive(Default)]
pub(crate) struct Seen(BTreeMap<Bytes, Version>);

impl Seen {
    pub(crate) fn wrote(&mut self, key: &Bytes, version: Version) {
        let newest = self.0.entry(key.clone()).or_default();
        *newest = version.max(*newest);
    }

    /// Time does not run backwards: what this session wrote or read, it reads, or something newer.
    pub(crate) fn read(&mut self, key: &Bytes, found: Option<Version>) {
        let found = found.unwrap_or_default();
        let newest = self.0.entry(key.clone()).or_default();
        assert!(
            found >= *newest,
            "a session saw {key:?} at {newest}, and then at {found}"
        );
        *newest = found;
    }
}

impl Book {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }
}

impl Oracle {
    /// A write to a handle of this opening begins; gives its number and its mark.
    pub(crate) fn begin_write(&self, opening: usize, key: &Bytes, safe: bool) -> (usize, Bytes) {
        let book = &mut *self.book.lock().unwrap();
        let begun = book.tick();
        let mark = Bytes::from(format!("mark/{:05}", book.writes.len()));
        book.writes.push(Write {
            key: key.clone(),
            mark: mark.clone(),
            safe,
            opening,
            begun,
            ended: u64::MAX,
            how: How::UnderWay,
        });
        (book.writes.len() - 1, mark)
    }

    pub(crate) fn end_write(&self, write: usize, result: &Result<Receipt>) {
        let book = &mut *self.book.lock().unwrap();
        let ended = book.tick();
        let write = &mut book.writes[write];
        write.ended = ended;
        write.how = match result {
            Ok(receipt) => {
                book.counts.acknowledged += 1;
                let (_, at) = receipt.at.iter().next().expect("a receipt says where");
                How::Acknowledged(receipt.version, at)
            }
            Err(error) if error.effect() == Effect::None => {
                book.counts.refused += 1;
                How::Refused
            }
            Err(_) => {
                book.counts.unknown += 1;
                How::Unknown
            }
        };
    }

    pub(crate) fn begin_read(&self) -> u64 {
        self.book.lock().unwrap().tick()
    }

    pub(crate) fn end_read(&self, begun: u64, key: &Bytes, found: Option<Version>) {
        let book = &mut *self.book.lock().unwrap();
        let ended = book.tick();
        book.counts.reads += 1;
        book.reads.push(Read {
            key: key.clone(),
            begun,
            ended,
            found,
        });
    }

    pub(crate) fn session_read(&self) {
        self.book.lock().unwrap().counts.session_reads += 1;
    }

    pub(crate) fn token_lost(&self, plan: &Plan) {
        assert!(plan.weak, "a token was lost though a majority has every write");
        self.book.lock().unwrap().counts.tokens_lost += 1;
    }

    pub(crate) fn failed_over(&self, report: &Result<FailoverReport, Error>) {
        let Ok(report) = report else { return };
        let book = &mut *self.book.lock().unwrap();
        book.counts.failovers += 1;
        for lost in &report.lost {
            book.counts.lost += 1;
            book.lost.extend(lost.keys.iter().cloned());
        }
    }

    pub(crate) fn divergent(&self, records: &[Divergent]) {
        let book = &mut *self.book.lock().unwrap();
        book.counts.divergent += records.len() as u64;
        let changes = records.iter().flat_map(|divergent| &divergent.record.changes);
        book.divergent.extend(changes.map(|change| change.key.clone()));
    }

    /// The present opening of the store, counted from 0.
    pub(crate) fn opening(&self) -> usize {
        self.book.lock().unwrap().over.len()
    }

    /// The present opening is over: it was closed, or just dropped.
    pub(crate) fn opening_over(&self, closed: bool) {
        self.book.lock().unwrap().over.push(closed);
    }

    pub(crate) fn state<'a>(&self, entries: impl Iterator<Item = &'a (Bytes, Entry)>) {
        self.book.lock().unwrap().state = entries.cloned().collect();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.book.lock().unwrap().counts
    }

    /// Checks the whole history.
    pub(crate) fn judge(&self, plan: &Plan) {
        let book = self.book.lock().unwrap();
        book.check_nothing_is_lost(plan);
        book.check_one_primary_at_a_time();
        book.check_reads_are_fresh(plan);
    }
}

impl Book {
    fn acknowledged(&self) -> impl Iterator<Item = (&Write, Version, Position)> {
        self.writes.iter().filter_map(|write| match write.how {
            How::Acknowledged(version, at) => Some((write, version, at)),
            _ => None,
        })
    }

    fn check_nothing_is_lost(&self, plan: &Plan) {
        for write in &self.writes {
            let mark = self.state.get(&write.mark);
            match write.how {
                How::Acknowledged(version, at) if write.safe || !plan.weak => {
                    let mark = mark.unwrap_or_else(|| panic!("acknowledged and lost: {:?} at {at}", write.mark));
                    assert!(mark.version >= version, "{:?}", write.mark);
                    let newest = &self.state[&write.key];
                    assert!(
                        newest.version >= version,
                        "{:?} is older than its last write",
                        write.key
                    );
                }
                // A weak write may be lost, but then somebody said so.
                How::Acknowledged(_, at) if mark.is_none() => {
                    let told = self.lost.contains(&write.mark) || self.divergent.contains(&write.mark);
                    assert!(
                        told || !self.over.is_empty(),
                        "lost without a word: {:?} at {at}",
                        write.mark
                    );
                }
                How::Acknowledged(_, at) => {
                    assert!(
                        !self.lost.contains(&write.mark),
                        "said to be lost: {:?} at {at}",
                        write.mark
                    );
                }
                How::Refused => assert!(mark.is_none(), "refused, and yet there: {:?}", write.mark),
                _ => {}
            }
        }
    }

    /// Where one epoch has acknowledged something, an older one never does again; and nothing is counted twice.
    ///
    /// One write may be late: a weak one to a handle that outlived its opening. A session keeps a store that was dropped
    /// and not closed, and with it the directories of the nodes that it still runs. A majority of the others is enough to
    /// open the store anew, and nobody tells the old primary; what it acknowledges is on its own disk, as was asked for.
    fn check_one_primary_at_a_time(&self) {
        let mut acknowledged: Vec<_> = self.acknowledged().collect();
        acknowledged.sort_by_key(|(write, ..)| write.ended);
        for (write, _, at) in &acknowledged {
            let may_be_late = !write.safe && self.over.get(write.opening) == Some(&false);
            // The newest epoch of all acknowledgements that were there before this write began.
            let before = acknowledged.iter().filter(|(earlier, ..)| {
                earlier.ended < write.begun && (earlier.opening <= write.opening || !may_be_late)
            });
            let before = before.map(|(.., at)| at.epoch).max().unwrap_or(0);
            assert!(
                at.epoch >= before,
                "epoch {} acknowledged after epoch {before}",
                at.epoch
            );
        }
        let mut safe: Vec<_> = acknowledged.iter().filter(|(write, ..)| write.safe).collect();
        safe.sort_by_key(|(.., at)| at.seq);
        for pair in safe.windows(2) {
            let [(_, older, first), (_, newer, second)] = [pair[0], pair[1]];
            assert!(
                first.seq < second.seq && first.epoch <= second.epoch,
                "{first} and {second}"
            );
            assert!(older < newer, "{second} has version {newer}, but {first} has {older}");
        }
    }

    /// A read at the primary sees every write that was acknowledged before it began, and what an earlier read saw.
    fn check_reads_are_fresh(&self, plan: &Plan) {
        for read in &self.reads {
            let found = read.found.unwrap_or_default();
            for (write, version, at) in self.acknowledged() {
                let counts = write.safe && write.key == read.key && write.ended < read.begun;
                assert!(
                    !counts || found >= version,
                    "a read of {:?} missed the write at {at}",
                    read.key
                );
            }
            for earlier in self.reads.iter().filter(|_| !plan.weak) {
                let counts = earlier.key == read.key && earlier.ended < read.begun;
                assert!(
                    !counts || found >= earlier.found.unwrap_or_default(),
                    "reads of {:?} went back",
                    read.key
                );
            }
        }
    }
}
