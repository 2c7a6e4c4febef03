//! Reading all of a log, to learn whether it is as it was written. Opening does not: it believes summaries.
//!
//! What is read is checked on one thread while the next is read on another, each into a buffer that was used before: of
//! sound entries nothing is kept but their count.

use super::index::FrameAt;
use super::reader::{self, Output, Plan, Step, read_into};
use super::shared::Segment;
use super::{Gap, Item, Log, LogError, Why, frame};
use crate::env::Task;
use std::io;
use std::ops::Range;

/// How much is read at a time: little enough to be in the processor's cache when it is checked.
const STEP: usize = if cfg!(test) { 4 << 10 } else { 1 << 20 };

/// How far [`Log::verify`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Entries read so far.
    pub(crate) done: u64,
    /// Entries to read.
    pub(crate) of: u64,
}

/// What [`Log::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Entries that are as they were written.
    pub(crate) entries: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Those that are not.
    pub(crate) lost: Vec<Gap>,
}

/// Where what is verified comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Device,
    /// What the system has in memory is not asked of the device.
    Memory,
}

impl Log {
    /// Reads every entry that is there when it is called, and compares checksums. `progress` is called a few times a second
    /// at the least where the disk is as fast as that.
    ///
    /// # Errors
    /// The disk's, and [`LogError::Closed`]. Damage is not an error. What is released meanwhile is left out.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn verify(&self, from: Source, progress: impl FnMut(Progress)) -> Result<Verified, LogError> {
        let wanted = self.range().start..self.durable();
        if from == Source::Device {
            self.drop_cache().await?;
        }
        let mut verified = Verified::default();
        let damaged = self.verify_range(wanted, &mut verified, progress).await?;
        self.count_damaged(damaged);
        Ok(verified)
    }

    /// Returns how many entries are found damaged.
    async fn verify_range(
        &self,
        wanted: Range<u64>,
        verified: &mut Verified,
        mut progress: impl FnMut(Progress),
    ) -> Result<u64, LogError> {
        let of = wanted.end.saturating_sub(wanted.start);
        let (mut damaged, mut spare) = (0, Vec::new());
        let mut reading = self.begin(&wanted, wanted.start, &mut spare)?;
        while let Some((next, task)) = reading {
            progress(Progress {
                done: of - (wanted.end - next),
                of,
            });
            let whole = task.await.map_err(|_| LogError::abandoned())??;
            let end = whole.end();
            let checking = self.env().spawn_blocking(whole.check());
            reading = self.begin(&wanted, end, &mut spare)?;
            let checked = checking.await.map_err(|_| LogError::abandoned())??;
            verified.entries += checked.entries;
            verified.bytes += checked.bytes;
            verified.lost.extend(checked.lost);
            damaged += checked.damaged;
            spare.extend(checked.buffers);
        }
        progress(Progress { done: of, of });
        Ok(damaged)
    }

    /// Begins to read what is wanted from number `next` on, or from the oldest that is still there.
    fn begin(&self, wanted: &Range<u64>, next: u64, spare: &mut Vec<Vec<u8>>) -> Result<Reading, LogError> {
        let next = next.max(self.range().start);
        if next >= wanted.end {
            return Ok(None);
        }
        match self.plan(next..wanted.end, STEP) {
            // It was released in this moment.
            Err(LogError::Gone { oldest }) => self.begin(wanted, oldest, spare),
            Err(error) => Err(error),
            Ok(None) => Ok(None),
            Ok(Some(plan)) => {
                let read = read(plan, std::mem::take(spare));
                Ok(Some((next, self.env().spawn_blocking(read))))
            }
        }
    }
}

/// From where on something is being read.
type Reading = Option<(u64, Task<io::Result<Whole>>)>;

/// What was read, step by step, and is to be checked.
struct Whole {
    plan: Plan,
    buffers: Vec<Vec<u8>>,
}

/// What a check found.
struct Checked {
    entries: u64,
    bytes: u64,
    lost: Vec<Gap>,
    damaged: u64,
    buffers: Vec<Vec<u8>>,
}

async fn read(plan: Plan, mut spare: Vec<Vec<u8>>) -> io::Result<Whole> {
    let mut buffers = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let Step::Run { segment, frames } = step else { continue };
        let mut bytes = spare.pop().unwrap_or_default();
        bytes.resize(reader::len_of(frames), 0);
        read_into(segment, frames[0].place.offset, &mut bytes).await?;
        buffers.push(bytes);
    }
    Ok(Whole { plan, buffers })
}

impl Whole {
    /// The number behind what was read.
    fn end(&self) -> u64 {
        let end = |step: &Step| match step {
            Step::Hole(range) => range.end,
            Step::Run { frames, .. } => frames[frames.len() - 1].end(),
            Step::Some { at, .. } => at.end(),
        };
        self.plan.steps.last().map_or(u64::MAX, end)
    }

    async fn check(self) -> io::Result<Checked> {
        let Plan {
            wanted, steps, pieces, ..
        } = self.plan;
        let mut read = self.buffers.iter();
        let (mut entries, mut bytes) = (0, 0);
        // What is not simply sound is read once more.
        let mut rest = Output::new(wanted.clone(), Vec::new(), pieces);
        for step in steps {
            match step {
                Step::Hole(range) => rest.gap(range, Why::Frame),
                Step::Run { segment, frames } => {
                    let whole = read.next().expect("every run was read");
                    for at in &frames {
                        match sound(&segment, *at, &whole[reader::within(&frames, *at)], &wanted) {
                            Some((more, long)) => (entries, bytes) = (entries + more, bytes + long),
                            None => rest.run(&segment, &[*at]).await?,
                        }
                    }
                }
                Step::Some { segment, at, .. } => rest.run(&segment, &[at]).await?,
            }
        }
        let mut lost = Vec::new();
        for item in rest.items {
            match item {
                Item::Record { bytes: entry, .. } => (entries, bytes) = (entries + 1, bytes + entry.len() as u64),
                Item::Gap(gap) => lost.push(gap),
            }
        }
        Ok(Checked {
            entries,
            bytes,
            lost,
            damaged: rest.damaged,
            buffers: self.buffers,
        })
    }
}

/// How many entries a frame has of those that are wanted, and how many bytes they are, if every entry in it is whole and
/// sound.
fn sound(segment: &Segment, at: FrameAt, bytes: &[u8], wanted: &Range<u64>) -> Option<(u64, u64)> {
    let seed = frame::seed(segment.salt, at.place);
    let head = frame::decode_head(bytes, seed).filter(|head| at.is_of(head))?;
    let (mut entries, mut len) = (0, 0);
    let rows = frame::rows(bytes, seed, head).take(at.count as usize);
    for (seq, row) in (at.first_seq..).zip(rows) {
        let row = row.filter(|row| !row.in_pieces)?;
        if wanted.contains(&seq) {
            entries += 1;
            len += row.range.len() as u64;
        }
    }
    Some((entries, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::{TempDir, open_with};
    use crate::log::{LogOptions, OnDamage};
    use bytes::Bytes;
    use futures::executor::block_on;
    use proptest::prelude::*;

    const OPTIONS: LogOptions = LogOptions {
        segment_bytes: 32 << 10,
        buffer_bytes: 1 << 20,
        on_damage: OnDamage::Serve,
    };

    /// Flips a bit of each file at about these parts of its length, as if the device did.
    #[allow(clippy::disallowed_methods, reason = "the test damages files in the real world")]
    fn flip(dir: &TempDir, parts: &[f64]) {
        let files = std::fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().path());
        for path in files.filter(|path| path.extension().is_some_and(|kind| kind == "seg")) {
            let mut bytes = std::fs::read(&path).unwrap();
            for part in parts {
                let at = (bytes.len() as f64 * part) as usize;
                bytes[at] ^= 1;
            }
            std::fs::write(path, bytes).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn it_finds_what_reading_everything_finds(
            appends in prop::collection::vec(prop::collection::vec(0..2_000_usize, 0..20), 1..30),
            parts in prop::collection::vec(0.1..0.9_f64, 0..4),
            from in prop_oneof![Just(Source::Device), Just(Source::Memory)],
        ) {
            let dir = TempDir::new("verify");
            let (log, _) = open_with(&dir, OPTIONS);
            for lens in appends {
                let entries = lens.into_iter().map(|len| Bytes::from(vec![7; len]));
                block_on(log.append(&entries.collect::<Vec<_>>()).unwrap()).unwrap();
            }
            flip(&dir, &parts);
            let mut expected = Verified::default();
            let mut reader = log.reader(log.range().start);
            while let Some(item) = block_on(reader.next()).unwrap() {
                match item {
                    Item::Record { bytes, .. } => {
                        expected.entries += 1;
                        expected.bytes += bytes.len() as u64;
                    }
                    Item::Gap(gap) => expected.lost.push(gap),
                }
            }
            let mut told = Vec::new();
            let found = block_on(log.verify(from, |progress| told.push(progress.done))).unwrap();
            prop_assert_eq!(found, expected);
            prop_assert!(told.is_sorted());
            prop_assert_eq!(told.last().copied(), Some(log.durable() - log.range().start));
            block_on(log.close());
        }
    }
}
