//! A node's whole state in one file, from which it starts instead of from the first record of its log.
//!
//! The file is a list of frames: length and checksum (CRC-32C, both four bytes, little-endian), then the payload. The
//! first says where the snapshot was taken, each other holds entries as a [`Record`] that sets them, and the last, which
//! is empty, says that nothing is missing. The newest two are kept, so that one that is damaged costs only time.

use super::history::History;
use crate::codec::{self, Reader};
use crate::env::{Disk, Env, File, OpenMode, files, read_exact_at, write_all_at};
use crate::store::{Change, Changed, Entry, Position, Record, Snapshot, Version};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};

/// A state that has been read back.
pub(super) struct Checkpoint {
    pub(super) at: Position,
    pub(super) version: Version,
    pub(super) history: History,
    pub(super) entries: Vec<(Bytes, Entry)>,
}

/// What [`read_newest`] found.
pub(super) struct FoundCheckpoints {
    pub(super) newest: Option<Checkpoint>,
    /// Where the older one that is kept was taken: the log from there on must stay.
    pub(super) older: u64,
    /// Files that fail their checksum.
    pub(super) damaged: Vec<String>,
}

const PREFIX: &str = "checkpoint-";
const TEMPORARY: &str = "checkpoint.new";
const MAGIC: &[u8; 8] = b"OGSTATE\0";
/// Payloads are about this long.
const FRAME: usize = 256 << 10;
/// No payload is longer: one entry of the largest size after a frame that was almost full.
const MAX_FRAME: usize = 4 << 20;
const KEPT: usize = 2;

/// Writes `snapshot` into `dir` and removes all but the newest two. Blocks its thread.
pub(super) async fn write(disk: &dyn Disk, dir: &Path, snapshot: Snapshot, history: &History) -> io::Result<()> {
    let temporary = dir.join(TEMPORARY);
    let file = files::create(disk, &temporary).await?;
    let mut out = Output {
        file: &*file,
        offset: 0,
    };
    let mut head = MAGIC.to_vec();
    for n in [snapshot.at.epoch, snapshot.at.seq, snapshot.version.0] {
        codec::put_varint(&mut head, n);
    }
    history.encode(&mut head);
    out.frame(&head).await?;
    let mut changes = Vec::new();
    let mut bytes = 0;
    for (key, entry) in snapshot.entries {
        bytes += key.len() + entry.value.len() + 24;
        changes.push(Change {
            key,
            to: Changed::Set(entry),
        });
        if bytes >= FRAME {
            out.record(std::mem::take(&mut changes)).await?;
            bytes = 0;
        }
    }
    if !changes.is_empty() {
        out.record(changes).await?;
    }
    out.frame(&[]).await?;
    let name = format!("{PREFIX}{:020}", snapshot.at.seq);
    files::publish(disk, &*file, &temporary, dir, &name).await?;
    let names = list(disk, dir).await?;
    for (_, old) in names.iter().rev().skip(KEPT) {
        disk.remove(&dir.join(old)).await?;
    }
    Ok(())
}

/// Reads the newest checkpoint in `dir` that is sound.
pub(super) async fn read_newest(env: &Env, dir: &Path) -> io::Result<FoundCheckpoints> {
    let (disk, dir): (_, PathBuf) = (env.disk().clone(), dir.to_owned());
    files::blocking(env, async move {
        // A name that is only cached is made to last before anything is built on it.
        disk.sync_dir(&dir).await?;
        let mut found = FoundCheckpoints {
            newest: None,
            older: 0,
            damaged: Vec::new(),
        };
        for (seq, name) in list(&*disk, &dir).await?.into_iter().rev() {
            if found.newest.is_some() {
                found.older = found.older.max(seq);
                continue;
            }
            match load(&*disk, &dir.join(&name)).await? {
                Some(checkpoint) if checkpoint.at.seq == seq => found.newest = Some(checkpoint),
                _ => found.damaged.push(name),
            }
        }
        Ok(found)
    })
    .await
}

/// The checkpoints in `dir` with the numbers in their names, oldest first.
async fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<(u64, String)>> {
    let names = disk.list(dir).await?.into_iter();
    let numbered = |name: String| Some((name.strip_prefix(PREFIX)?.parse().ok()?, name));
    Ok(names.filter_map(numbered).collect())
}

struct Output<'a> {
    file: &'a dyn File,
    offset: u64,
}

impl Output<'_> {
    async fn record(&mut self, changes: Vec<Change>) -> io::Result<()> {
        let mut payload = Vec::with_capacity(FRAME + FRAME / 4);
        Record::new(changes).encode(&mut payload);
        self.frame(&payload).await
    }

    async fn frame(&mut self, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(payload.len() + 8);
        frame.extend_from_slice(&len.to_le_bytes());
        frame.extend_from_slice(&checksum(payload).to_le_bytes());
        frame.extend_from_slice(payload);
        write_all_at(self.file, &frame, self.offset).await?;
        self.offset += frame.len() as u64;
        Ok(())
    }
}

/// The checksum of a payload with its length, so that a frame of zeros is none.
fn checksum(payload: &[u8]) -> u32 {
    crc32c::crc32c_append(!(payload.len() as u32), payload)
}

/// Reads a whole file; `None` when anything is wrong with it.
async fn load(disk: &dyn Disk, path: &Path) -> io::Result<Option<Checkpoint>> {
    let file = disk.open(path, OpenMode::Existing).await?;
    file.drop_cache().await?;
    let mut input = Input {
        file: &*file,
        offset: 0,
    };
    let Some(mut checkpoint) = input.frame().await?.and_then(|head| decode_head(&head)) else {
        return Ok(None);
    };
    loop {
        let Some(payload) = input.frame().await? else {
            return Ok(None);
        };
        if payload.is_empty() {
            return Ok(Some(checkpoint));
        }
        let Some(entries) = decode_entries(&payload) else {
            return Ok(None);
        };
        checkpoint.entries.extend(entries);
    }
}

struct Input<'a> {
    file: &'a dyn File,
    offset: u64,
}

impl Input<'_> {
    /// The next payload; `None` when it is not as it was written.
    async fn frame(&mut self) -> io::Result<Option<Bytes>> {
        let mut head = [0; 8];
        if !self.fill(&mut head).await? {
            return Ok(None);
        }
        let [a, b, c, d, sum @ ..] = head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > MAX_FRAME {
            return Ok(None);
        }
        let mut payload = vec![0; len];
        let whole = self.fill(&mut payload).await?;
        let sound = whole && checksum(&payload).to_le_bytes() == sum;
        Ok(sound.then(|| payload.into()))
    }

    /// Reads on; false when the file ends before.
    async fn fill(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        match read_exact_at(self.file, buf, self.offset).await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        self.offset += buf.len() as u64;
        Ok(true)
    }
}

fn decode_head(head: &Bytes) -> Option<Checkpoint> {
    let mut reader = Reader::new(head.strip_prefix(MAGIC)?);
    let mut number = || reader.varint().ok();
    Some(Checkpoint {
        at: Position::new(number()?, number()?),
        version: Version(number()?),
        history: History::decode(&mut reader).ok()?,
        entries: Vec::new(),
    })
}

fn decode_entries(payload: &Bytes) -> Option<Vec<(Bytes, Entry)>> {
    let changes = Record::decode(payload).ok()?.changes;
    let set = |change: Change| match change.to {
        Changed::Removed(_) => None,
        Changed::Set(entry) => {
            // Copied, so that one small entry does not keep a whole frame in memory.
            let value = Bytes::copy_from_slice(&entry.value);
            Some((Bytes::copy_from_slice(&change.key), Entry { value, ..entry }))
        }
    };
    changes.into_iter().map(set).collect()
}

impl Checkpoint {
    /// Its entries, as an engine installs them.
    pub(super) fn into_snapshot(self) -> Snapshot {
        Snapshot {
            at: self.at,
            version: self.version,
            entries: Box::new(self.entries.into_iter()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::World;
    use crate::store::{Engine, MemoryEngine};

    fn engine(entries: u64) -> MemoryEngine {
        let engine = MemoryEngine::new();
        for seq in 1..=entries {
            let entry = Entry {
                value: vec![seq as u8; 3_000].into(),
                version: Version(seq),
                expires: None,
            };
            let change = Change {
                key: format!("key {seq}").into(),
                to: Changed::Set(entry),
            };
            engine.apply(Position::new(2, seq), &Record::new(vec![change])).unwrap();
        }
        engine
    }

    #[test]
    fn the_newest_sound_one_is_read_and_two_are_kept() {
        let world = World::new(1);
        let machine = world.machine("n");
        let (env, dir) = (machine.env(), Path::new(""));
        let mut history = History::default();
        history.note(Position::new(2, 1));
        world.run(async {
            assert!(read_newest(&env, dir).await.unwrap().newest.is_none());
            for entries in [1, 2, 300] {
                let snapshot = engine(entries).snapshot().unwrap();
                write(&**env.disk(), dir, snapshot, &history).await.unwrap();
            }
            let found = read_newest(&env, dir).await.unwrap();
            assert_eq!((found.older, found.damaged.len()), (2, 0));
            let newest = found.newest.unwrap();
            assert_eq!((newest.at, newest.version), (Position::new(2, 300), Version(300)));
            assert_eq!(newest.history, history);
            let back = MemoryEngine::new();
            back.install(newest.into_snapshot()).unwrap();
            let all = |engine: &MemoryEngine| engine.snapshot().unwrap().entries.collect::<Vec<_>>();
            assert_eq!(all(&back), all(&engine(300)));
        });
        let files = machine.files();
        assert_eq!(files.len(), 2, "{files:?}");
        // A flipped bit anywhere in it makes the older one count.
        let len = machine.read_file(&files[1]).unwrap().len() as u64;
        for bit in [3, 40, 200, len * 4, len * 8 - 1] {
            assert!(machine.flip_bit(&files[1], bit));
            let found = world.run(read_newest(&env, dir)).unwrap();
            assert_eq!(found.damaged.len(), 1);
            assert_eq!(found.newest.unwrap().at.seq, 2);
            assert!(machine.flip_bit(&files[1], bit));
        }
    }

    #[test]
    fn a_crash_at_any_operation_leaves_the_old_or_the_new() {
        use crate::sim::{DiskOp, Inject};
        for op in [
            DiskOp::Create,
            DiskOp::Write,
            DiskOp::Sync,
            DiskOp::Rename,
            DiskOp::SyncDir,
            DiskOp::Remove,
        ] {
            for nth in 0..3 {
                let world = World::new(nth);
                let machine = world.machine("n");
                let write_one = |entries| {
                    let env = machine.env();
                    let task = env.clone().spawn(async move {
                        let snapshot = engine(entries).snapshot().unwrap();
                        write(&**env.disk(), Path::new(""), snapshot, &History::default()).await
                    });
                    world.run(task)
                };
                let before = machine.ops(op);
                write_one(1).unwrap().unwrap();
                let per_write = machine.ops(op) - before;
                write_one(2).unwrap().unwrap();
                // A plan that the write does not come to must not outlive it.
                if op != DiskOp::Remove && nth >= per_write {
                    continue;
                }
                machine.inject(op, nth, Inject::Crash);
                let written = matches!(write_one(3), Ok(Ok(())));
                machine.crash();
                let env = machine.env();
                let found = world.run(read_newest(&env, Path::new(""))).unwrap();
                assert!(found.damaged.is_empty(), "{op:?} {nth}");
                let seq = found.newest.unwrap().at.seq;
                assert!(seq == 3 || (seq == 2 && !written), "{op:?} {nth}: {seq}");
            }
        }
    }
}
