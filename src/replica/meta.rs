use crate::codec::{self, Malformed, Reader};
use crate::env::{Disk, Env, files};
use crate::store::LogId;
use std::io;
use std::path::{Path, PathBuf};

/// What a node has to remember beside its log: which store it belongs to, and what it has promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) log: LogId,
    /// Every node's name, sorted: a majority of another set of nodes would mean nothing.
    pub(super) nodes: Vec<String>,
    /// Its own name.
    pub(super) name: String,
    /// The newest epoch whose primary it obeys.
    pub(super) promised: u64,
    /// Whether it counts towards a majority.
    pub(super) voter: bool,
    /// Where the snapshot was taken that is about to replace the log; zero when none is.
    pub(super) installing: u64,
}

/// What there is of a [`Meta`] on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// Bytes that fail their checksum or make no sense.
    Damaged,
    Meta(Meta),
}

const NAME: &str = "meta";
const MAGIC: &[u8; 8] = b"OGMETA\0\0";
const MAX_LEN: u64 = 64 << 10;

impl Meta {
    /// Reads it from a node's directory.
    pub(super) async fn read(env: &Env, dir: &Path) -> io::Result<Found> {
        let (disk, path) = (env.disk().clone(), dir.join(NAME));
        let bytes = files::blocking(env, async move { files::read(&*disk, &path, MAX_LEN).await }).await?;
        Ok(match bytes.as_deref().map(decode) {
            None => Found::Nothing,
            Some(Err(Malformed(_))) => Found::Damaged,
            Some(Ok(meta)) => Found::Meta(meta),
        })
    }

    /// Puts it on disk. After an error either the old or the new one is there.
    pub(super) async fn write(&self, env: &Env, dir: &Path) -> io::Result<()> {
        let bytes = self.encode();
        let (disk, dir): (_, PathBuf) = (env.disk().clone(), dir.to_owned());
        files::blocking(env, async move { write(&*disk, &dir, &bytes).await }).await
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        codec::put_varint(&mut body, self.log.0);
        codec::put_varint(&mut body, self.promised);
        body.push(self.voter.into());
        codec::put_varint(&mut body, self.installing);
        codec::put_bytes(&mut body, self.name.as_bytes());
        codec::put_varint(&mut body, self.nodes.len() as u64);
        for node in &self.nodes {
            codec::put_bytes(&mut body, node.as_bytes());
        }
        let sum = crc32c::crc32c(&body).to_le_bytes();
        [&MAGIC[..], &sum, &body].concat()
    }
}

async fn write(disk: &dyn Disk, dir: &Path, bytes: &[u8]) -> io::Result<()> {
    files::replace(disk, dir, NAME, bytes).await
}

fn decode(bytes: &[u8]) -> Result<Meta, Malformed> {
    let body = bytes.strip_prefix(MAGIC).ok_or(Malformed("not a node's memory"))?;
    let (sum, body) = body.split_at_checked(4).ok_or(Malformed("cut short"))?;
    if sum != crc32c::crc32c(body).to_le_bytes() {
        return Err(Malformed("the checksum is wrong"));
    }
    let mut reader = Reader::new(body);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a name that is not text"));
    let log = LogId(reader.varint()?);
    let promised = reader.varint()?;
    let voter = reader.byte()? != 0;
    let installing = reader.varint()?;
    let name = text(reader.bytes()?)?;
    let count = reader.varint()?;
    let nodes = (0..count).map(|_| text(reader.bytes()?)).collect::<Result<_, _>>()?;
    Ok(Meta {
        log,
        nodes,
        name,
        promised,
        voter,
        installing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_round_trips_and_any_flipped_bit_shows() {
        let meta = Meta {
            log: LogId(77),
            nodes: vec!["a".into(), "b".into()],
            name: "b".into(),
            promised: 300,
            voter: true,
            installing: 9,
        };
        let bytes = meta.encode();
        assert_eq!(decode(&bytes), Ok(meta));
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&wrong).is_err(), "bit {bit}");
        }
    }
}
