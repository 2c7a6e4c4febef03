//! Reading all of a log from the device, to learn whether it is as it was written. Opening does not: it believes summaries.

use super::{Gap, Item, Log, LogError};

/// How much is read at a time.
const STEP: usize = 4 << 20;

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

impl Log {
    /// Reads every entry that is there when it is called, from the device, and compares checksums. `progress` is called a
    /// few times a second at the least where the disk is as fast as that.
    ///
    /// # Errors
    /// The disk's, and [`LogError::Closed`]. Damage is not an error. What is released meanwhile is left out.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(crate) async fn verify(&self, mut progress: impl FnMut(Progress)) -> Result<Verified, LogError> {
        let range = self.range();
        let (mut next, end) = (range.start, self.durable());
        let of = end.saturating_sub(range.start);
        self.drop_cache().await?;
        let mut verified = Verified::default();
        while next < end {
            progress(Progress {
                done: next - range.start,
                of,
            });
            let items = match self.read(next..end, STEP).await {
                Err(LogError::Gone { oldest }) => {
                    next = oldest;
                    continue;
                }
                items => items?,
            };
            for item in items {
                next = item.end();
                match item {
                    Item::Record { bytes, .. } => {
                        verified.entries += 1;
                        verified.bytes += bytes.len() as u64;
                    }
                    Item::Gap(gap) => verified.lost.push(gap),
                }
            }
        }
        progress(Progress { done: of, of });
        Ok(verified)
    }
}
