//! Caches that outlive their process.

use super::cache::Cache;
use super::extra::Extra;
use super::inner::{Inner, Standing};
use super::iter::At;
use super::patience::Patience;
use super::slab::Located;
use super::snapshot::{SavedEntry, SavedIdle, SnapshotReader, SnapshotWriter};
use super::time::millis;
use super::word::NEVER;
use super::write::{Gone, Incoming, Refused};
use super::{Rejected, SnapshotCodec, SnapshotError, trace};
use crate::env::Tick;
use crate::sync::pins;
use std::hash::{BuildHasher, Hash};
use std::io::{Read, Write};
use std::time::Duration;

/// What the rounding of two clocks, of each down to its millisecond, may make a time too long when it is saved and
/// restored.
const ROUNDING_MS: u64 = 2;

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Writes its entries to `out`, hottest first, and says how many: with their times left, weights and tags.
    ///
    /// It walks as [`iter`](Cache::iter) does, so the cache may be used meanwhile, and what is written then is in the
    /// snapshot or not. Left out are keys that are known to have no value, values past their time to live, and entries
    /// larger than a snapshot can hold, which is 256 MiB. It holds about 256 KiB, or the largest entry, beside four bytes
    /// for each entry. It blocks as `out` does; on an executor, that is for [`Env::spawn_blocking`](crate::env::Env::spawn_blocking).
    /// To a file it is best written under another name, synced, and renamed.
    ///
    /// ```
    /// use outgrow::cache::{BytesCodec, Cache};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let old: Cache<u64, String> = Cache::builder().build()?;
    /// old.insert(7, "Ada".into());
    /// let mut file = Vec::new();
    /// assert_eq!(old.save(&mut file, &BytesCodec)?, 1);
    ///
    /// let new: Cache<u64, String> = Cache::builder().build()?;
    /// assert_eq!(new.restore(&file[..], &BytesCodec)?, 1);
    /// assert_eq!(new.get(&7).as_deref(), Some("Ada"));
    ///
    /// let empty: Cache<u64, String> = Cache::builder().build()?;
    /// assert!(empty.restore(&file[..file.len() - 1], &BytesCodec).is_err());
    /// assert!(empty.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SnapshotError::Io`] when `out` fails, [`SnapshotError::Codec`] when the codec does; what was written by then is
    /// no snapshot, and is refused. [`SnapshotError::TooLarge`] for a schema past 64 KiB.
    pub fn save(&self, out: impl Write, codec: &impl SnapshotCodec<K, V>) -> Result<u64, SnapshotError> {
        let span = trace::save();
        let inner = &*self.inner;
        let (now, wall) = (inner.time.now(), inner.time.env().wall());
        let mut writer = SnapshotWriter::new(out, wall, &codec.schema())?;
        let (mut walk, mut saved) = (self.walk(), 0);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        loop {
            key.clear();
            value.clear();
            let next = walk.next(|at| {
                codec.encode(at.entry.key(), at.value, &mut key, &mut value)?;
                Ok::<_, SnapshotError>(inner.about(at, now))
            });
            // What the writer does is done without a pin.
            let Some(about) = next.transpose()? else { break };
            let Some(about) = about else { continue };
            let pushed = writer.push(&SavedEntry {
                key: &key,
                value: &value,
                weight: about.weight,
                ttl_ms: about.ttl_ms,
                idle: about.idle,
                tags: about.tags.iter().map(String::as_str).collect(),
            });
            match pushed {
                Ok(()) => saved += 1,
                Err(SnapshotError::TooLarge { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        writer.finish()?;
        span.note(saved);
        Ok(saved)
    }

    /// Puts in what [`save`](Cache::save) wrote, and says how many entries.
    ///
    /// Nothing of a snapshot gets in before all of it was read and found whole. Until then as many entries are held aside as the
    /// cache may hold, by count and by weight, the hottest; the others are skipped. They go in coldest first, so that
    /// the hottest are the newest to the policy. What the cache has under a key already stays, and what is being loaded
    /// replaces what was restored.
    ///
    /// Each entry lives as long as it had left when it was saved, less the time since then by the wall clock; where that
    /// was set back meanwhile, no more than it had left. What has expired is skipped. No jitter is taken off again. One
    /// that was saved without a time to live, or idle time, gets that of this cache; one that weighed nothing is weighed anew.
    /// It blocks as `from` does, and reads in large pieces: a file needs no buffer.
    ///
    /// # Errors
    /// Whatever is wrong with the snapshot, see [`SnapshotError`]; [`SnapshotError::Io`] when `from` fails. The cache is
    /// then as it was.
    pub fn restore(&self, from: impl Read, codec: &impl SnapshotCodec<K, V>) -> Result<u64, SnapshotError> {
        let span = trace::restore();
        let inner = &*self.inner;
        // Before the reading, so that how long that takes makes nothing live longer.
        let (start, now) = (inner.time.read(), inner.time.env().wall());
        let mut reader = SnapshotReader::new(from)?;
        reader.expect_schema(&codec.schema())?;
        let (written, limit) = (reader.written(), inner.budget.limit());
        let (mut staged, mut weight) = (Vec::new(), 0_u64);
        while let Some(entry) = reader.next()? {
            let Some(entry) = entry.aged(written, now) else {
                continue;
            };
            if staged.len() as u64 == limit.count {
                continue;
            }
            let entry = Staged::decode(&entry, codec, |key, value, saved| inner.weight_of(key, value, saved))?;
            let more = weight.checked_add(entry.about.weight);
            let Some(more) = more.filter(|more| *more <= limit.weight) else {
                continue;
            };
            weight = more;
            staged.push(entry);
        }
        reader.finish()?;
        let incoming = |entry: Staged<K, V>| inner.restored(entry, start);
        let put = staged
            .into_iter()
            .rev()
            .map(incoming)
            .filter_map(|incoming| inner.fill(incoming).then_some(()));
        let restored = put.count() as u64;
        span.note(restored);
        Ok(restored)
    }
}

/// What is saved of an entry beside its key and value.
struct About {
    weight: u64,
    ttl_ms: Option<u64>,
    idle: Option<SavedIdle>,
    tags: Vec<String>,
}

/// An entry of a snapshot that is not known to be whole yet.
struct Staged<K, V> {
    key: K,
    value: V,
    about: About,
}

impl<K, V> Staged<K, V> {
    fn decode(
        entry: &SavedEntry<'_>,
        codec: &impl SnapshotCodec<K, V>,
        weigh: impl Fn(&K, &V, u64) -> u64,
    ) -> Result<Staged<K, V>, SnapshotError> {
        let (key, value) = codec.decode(entry.key, entry.value)?;
        let about = About {
            weight: weigh(&key, &value, entry.weight),
            ttl_ms: entry.ttl_ms,
            idle: entry.idle,
            tags: entry.tags.iter().map(|tag| (*tag).to_owned()).collect(),
        };
        Ok(Staged { key, value, about })
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// What is to be saved of an entry as of `now`; nothing if it has ended by then.
    fn about(&self, at: &At<'_, K, V>, now: u64) -> Option<About> {
        let shard = &self.shards[at.shard];
        let read = at.entry.word.read();
        let extra = shard.extra(at.slot, read, at.pin);
        let left = |end: u64| end.checked_sub(now + ROUNDING_MS).filter(|left| *left > 0);
        let end = match extra.and_then(|extra| extra.latest) {
            Some(latest) => latest,
            None if read.kind().idle => NEVER,
            None => read.deadline(),
        };
        let ttl_ms = match end {
            NEVER => None,
            end => Some(left(end.saturating_sub(self.grace))?),
        };
        let period = extra.and_then(|extra| extra.idle).or(self.settings.idle.map(millis));
        let idle = match period.filter(|_| read.kind().idle) {
            None => None,
            Some(period_ms) => Some(SavedIdle {
                left_ms: left(read.deadline())?,
                period_ms,
            }),
        };
        let weight = if self.budget.is_weighted() {
            // The pin keeps the slot from being used for another entry.
            shard.lock().state().weight(at.slot)
        } else {
            0
        };
        let tags = extra.map_or(&[][..], |extra| &extra.tags);
        Some(About {
            weight,
            ttl_ms,
            idle,
            tags: tags.iter().map(|stamp| stamp.name().to_owned()).collect(),
        })
    }

    /// What an entry of a snapshot weighs here.
    fn weight_of(&self, key: &K, value: &V, saved: u64) -> u64 {
        match (saved, &self.weigher) {
            _ if !self.budget.is_weighted() => 0,
            (0, Some(weigher)) => weigher(key, value),
            (0, None) => 1,
            (weight, _) => weight,
        }
    }

    /// An entry of a snapshot, ready to go in; its times count from `start`.
    fn restored(&self, staged: Staged<K, V>, start: Tick) -> Incoming<K, V> {
        let Staged { key, value, about } = staged;
        let after = |left_ms| self.time.after(start, Duration::from_millis(left_ms));
        let ttl = about.ttl_ms.or(self.settings.ttl.map(millis));
        let latest = ttl.map_or(NEVER, |ttl| after(ttl).saturating_add(self.grace).min(NEVER - 1));
        let own = self.settings.idle.map(millis);
        let idle = about.idle.or(own.map(|own| SavedIdle {
            left_ms: own,
            period_ms: own,
        }));
        let extra = Extra {
            latest: idle.and(ttl).map(|_| latest),
            idle: idle.map(|idle| idle.period_ms).filter(|period| Some(*period) != own),
            tags: about.tags.iter().map(|tag| self.tags.stamp(tag)).collect(),
        };
        Incoming {
            hash: self.hash(&key),
            deadline: idle.map_or(latest, |idle| after(idle.left_ms).min(latest)),
            idle: idle.is_some(),
            extra: (!extra.is_empty()).then(|| Box::new(extra)),
            spares: false,
            key,
            value: Some(value),
            weight: about.weight,
        }
    }

    /// Puts an entry in if nothing that has not expired is under its key; says whether it did. Loads for the key go on.
    pub(super) fn fill(&self, incoming: Incoming<K, V>) -> bool {
        let shard = self.shard(incoming.hash);
        let mut incoming = Some(incoming);
        let mut patience = Patience::new();
        loop {
            let pin = pins::pin();
            let mut gone = Gone::new();
            let is_free = |_: &mut _, old: Option<Located>| {
                let old = old.and_then(|old| Some((old.slot, shard.at(old.slot, &pin)?.word.read())));
                old.is_none_or(|(slot, read)| self.judge(shard, slot, read, &pin) == Standing::Gone)
            };
            let put = self.put(&mut incoming, is_free, &pin, &mut gone);
            gone.tell(self.listener.as_ref());
            drop(gone);
            drop(pin);
            match put {
                Ok(inserted) => return inserted.is_kept(),
                Err(Refused::Condition) => return false,
                Err(Refused::NoSlot) => {}
            }
            if !patience.wait() {
                self.reject(incoming, Rejected::HeldBack);
                return false;
            }
        }
    }
}
