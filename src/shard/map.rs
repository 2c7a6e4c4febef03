use super::{Partitioner, count};
use crate::codec::{self, Reader};
use crate::env::{DirLock, Disk, Env, files};
use crate::store::{Effect, Error, Result};
use std::io;
use std::path::{Path, PathBuf};

/// The shard map as it is kept on disk.
#[derive(Clone, Debug)]
pub(super) struct MapFile<P> {
    pub(super) version: u64,
    /// The shards' names, in the partitioner's order.
    pub(super) names: Vec<String>,
    pub(super) partitioner: P,
    pub(super) state: State,
}

/// How far a change has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Settled,
    /// Keys are being copied to this new shard, which is not in the map yet.
    Moving { name: String, weight: u32 },
    /// The map has changed; the keys that moved away may still be at their old shards.
    Clearing,
}

const NAME: &str = "shards";
const MAGIC: &[u8; 8] = b"OGSHARD\0";
/// A map of 65,535 slots and as many names of reasonable length is smaller.
const MAX_LEN: u64 = 16 << 20;
const MOST_SHARDS: usize = 1 << 16;

impl<P: Partitioner> MapFile<P> {
    /// The partitioner with the shard that is being added.
    pub(super) fn next(&self, name: &str, weight: u32) -> P {
        let mut next = self.partitioner.clone();
        next.add(name, weight);
        next
    }

    /// Makes `dir`, takes it for this process, and reads the map in there, if there is one.
    pub(super) async fn open(env: &Env, dir: &Path) -> Result<(DirLock, Option<MapFile<P>>)> {
        let (disk, dir): (_, PathBuf) = (env.disk().clone(), dir.to_owned());
        let open = files::blocking(env, async move {
            files::make_dir(&*disk, &dir).await?;
            let lock = disk.lock(&dir).await?;
            Ok((lock, files::read(&*disk, &dir.join(NAME), MAX_LEN).await?))
        });
        let (lock, bytes) = open.await.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::unavailable("the shard map is open elsewhere", Effect::None),
            _ => Error::io(&error, Effect::None),
        })?;
        Ok((lock, bytes.map(|bytes| MapFile::decode(&bytes)).transpose()?))
    }

    /// Puts it in `dir`; durable when this returns. After an error either the old or the new one is there.
    ///
    /// To be polled where blocking is allowed.
    pub(super) async fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        files::replace(disk, dir, NAME, &self.encode()).await
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        codec::put_varint(&mut body, self.version);
        codec::put_varint(&mut body, self.names.len() as u64);
        self.names
            .iter()
            .for_each(|name| codec::put_bytes(&mut body, name.as_bytes()));
        codec::put_bytes(&mut body, &self.partitioner.save());
        match &self.state {
            State::Settled => body.push(0),
            State::Clearing => body.push(1),
            State::Moving { name, weight } => {
                body.push(2);
                codec::put_bytes(&mut body, name.as_bytes());
                codec::put_varint(&mut body, u64::from(*weight));
            }
        }
        let crc = crc32c::crc32c(&body).to_le_bytes();
        [&MAGIC[..], &crc, &body].concat()
    }

    fn decode(bytes: &[u8]) -> Result<MapFile<P>> {
        let corrupt = |what: &str| Error::corrupt(format!("the shard map {what}: restore it from a copy"));
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| corrupt("is of an unknown format"))?;
        let (crc, body) = rest.split_first_chunk().ok_or_else(|| corrupt("is cut short"))?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
            return Err(corrupt("fails its checksum"));
        }
        let mut reader = Reader::new(body);
        let text = |reader: &mut Reader<'_>| {
            let bytes = reader.bytes()?.to_vec();
            String::from_utf8(bytes).map_err(|_| corrupt("has a name that is no text"))
        };
        let version = reader.varint()?;
        let names = (0..count(&mut reader, MOST_SHARDS)?)
            .map(|_| text(&mut reader))
            .collect::<Result<Vec<_>>>()?;
        let partitioner = P::restore(reader.bytes()?)?;
        let state = match reader.byte()? {
            0 => State::Settled,
            1 => State::Clearing,
            2 => {
                let name = text(&mut reader)?;
                let weight = u32::try_from(reader.varint()?).map_err(|_| corrupt("has a weight that is too large"))?;
                State::Moving { name, weight }
            }
            _ => return Err(corrupt("is in an unknown state")),
        };
        if partitioner.shards() != names.len() {
            return Err(corrupt("names other shards than it spreads keys over"));
        }
        Ok(MapFile {
            version,
            names,
            partitioner,
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::SlotTable;

    #[test]
    fn bytes_round_trip_and_any_damage_is_noticed() {
        let mut partitioner = SlotTable::new(64);
        partitioner.add("a", 1);
        partitioner.add("b", 2);
        let state = State::Moving {
            name: "c".to_owned(),
            weight: 3,
        };
        let names = vec!["a".to_owned(), "b".to_owned()];
        let bytes = MapFile {
            version: 9,
            names: names.clone(),
            partitioner,
            state: state.clone(),
        }
        .encode();
        let back = MapFile::<SlotTable>::decode(&bytes).unwrap();
        assert_eq!((back.version, back.names, back.state), (9, names, state));
        for at in 0..bytes.len() {
            assert!(MapFile::<SlotTable>::decode(&bytes[..at]).is_err());
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(MapFile::<SlotTable>::decode(&damaged).is_err());
        }
    }
}
