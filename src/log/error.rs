use std::io;

/// Why a log refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LogError {
    /// The disk has no room; what was asked is not in the log and will not be.
    #[error("the disk has no room for more of the log")]
    Full,
    /// More bytes would wait for the disk than the log may hold; nothing was taken. Wait for
    /// [`Log::room`](super::Log::room).
    #[error("{len} bytes more would make over {limit} that wait for the disk")]
    Busy {
        /// What it needs.
        len: usize,
        /// The bound, [`LogOptions::buffer_bytes`](super::LogOptions::buffer_bytes).
        limit: usize,
    },
    /// An earlier write or sync failed, so the log takes nothing more until it is opened again.
    #[error("an earlier write or sync of the log failed: open it again")]
    Poisoned,
    /// One append is more than a frame holds.
    #[error("an append of {len} bytes is more than a frame's {max}")]
    TooLarge {
        /// What it needs.
        len: usize,
        /// What there is.
        max: usize,
    },
    /// Another process, or another handle in this one, has the directory.
    #[error("the directory of the log is in use")]
    Locked,
    /// What was asked for has been released or was never there.
    #[error("the log begins at {oldest}")]
    Gone {
        /// The oldest sequence number that is kept.
        oldest: u64,
    },
    /// Another release of this crate wrote it, in a format that this one does not read. Nothing was changed.
    #[error(
        "segment {segment:x} has format {found}, which this release does not read: open it with the one that wrote it"
    )]
    Version {
        /// The format of the segment.
        found: u64,
        /// Which segment.
        segment: u64,
    },
    /// Bytes of it are not as they were written, and it was to be opened only whole. Nothing was changed.
    #[error("the log is damaged: {entries} entries are lost, and {bytes} bytes are not as they were written")]
    Damaged {
        /// Entries that are lost.
        entries: u64,
        /// Bytes in question.
        bytes: u64,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The operating system refused, and nothing was written.
    #[error("{message}")]
    Io {
        /// Its kind of error.
        kind: io::ErrorKind,
        /// Its words.
        message: String,
    },
    /// A write or a sync failed halfway: what was asked may or may not be found when the log is opened again.
    #[error("{message} (it may or may not be in the log)")]
    Unknown {
        /// The kind of error.
        kind: io::ErrorKind,
        /// The operating system's words.
        message: String,
    },
}

impl LogError {
    /// Whether what failed with this may have happened all the same.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, LogError::Unknown { .. })
    }

    pub(super) fn unknown(error: &io::Error) -> LogError {
        LogError::Unknown {
            kind: error.kind(),
            message: error.to_string(),
        }
    }

    /// What a waiter learns when the task that would have told it is gone.
    pub(super) fn abandoned() -> LogError {
        LogError::Unknown {
            kind: io::ErrorKind::Interrupted,
            message: "the log's task ended early".into(),
        }
    }
}

impl From<&io::Error> for LogError {
    fn from(error: &io::Error) -> LogError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::Full,
            kind => LogError::Io {
                kind,
                message: error.to_string(),
            },
        }
    }
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> LogError {
        LogError::from(&error)
    }
}
