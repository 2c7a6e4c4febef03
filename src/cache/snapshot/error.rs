use crate::codec::Malformed;
use std::io;

/// Why a cache's snapshot could not be written, or is not believed.
///
/// Whatever the reason, nothing of a snapshot that is refused gets into a cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes do not begin like a cache's snapshot.
    #[error("this is not a cache's snapshot")]
    NotASnapshot,
    /// It was written by a release with another format.
    #[error("the snapshot has format version {found}, which this release does not know")]
    Version {
        /// The format's version.
        found: u32,
    },
    /// It was written with another [schema](super::SnapshotCodec::schema): its bytes mean something else.
    #[error("the snapshot holds `{found}` where `{expected}` is read")]
    Schema {
        /// The schema of what was written.
        found: String,
        /// The schema of the codec that is to read it.
        expected: String,
    },
    /// Its bytes are not those that were written.
    #[error("the snapshot is corrupt: {what}")]
    Corrupt {
        /// What is wrong with them.
        what: &'static str,
    },
    /// It ends before its end: it was not written to the last byte, or was cut.
    #[error("the snapshot is cut short")]
    Truncated,
    /// Something is larger than a snapshot may hold. When written, the entry alone is refused: nothing of it was
    /// written, and others may follow.
    #[error("{what}: {size}, and at most {limit} fit in a snapshot")]
    TooLarge {
        /// What is too large, and its unit.
        what: &'static str,
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The codec could not encode or decode a key or a value.
    #[error("a key or value of the snapshot")]
    Codec(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The reader or the writer failed.
    #[error("the snapshot's reader or writer failed")]
    Io(#[source] io::Error),
}

impl SnapshotError {
    pub(super) fn too_large(what: &'static str, size: usize, limit: usize) -> SnapshotError {
        SnapshotError::TooLarge {
            what,
            size: size as u64,
            limit: limit as u64,
        }
    }
}

/// A reader that ends too early is a snapshot cut short.
impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> SnapshotError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::Truncated,
            _ => SnapshotError::Io(error),
        }
    }
}

impl From<Malformed> for SnapshotError {
    fn from(Malformed(what): Malformed) -> SnapshotError {
        SnapshotError::Corrupt { what }
    }
}
