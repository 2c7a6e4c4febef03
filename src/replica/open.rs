//! Opening one node's directory: what does its disk say?

use super::checkpoint::{self, FoundCheckpoints};
use super::entry::Entry;
use super::history::History;
use super::meta::{Found, Meta};
use super::node::Live;
use crate::env::Env;
use crate::log::{Item, Log, LogError, LogOptions};
use crate::store::{Effect, Engine, Error, Position, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A node's directory, opened and looked through, before anybody has decided what it takes part in.
pub(super) struct Opened {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) log: Log,
    pub(super) meta: Found,
    /// The engine as of the newest checkpoint. Everything in it is committed.
    pub(super) live: Arc<Live>,
    pub(super) history: History,
    /// The last record that counts.
    pub(super) last: u64,
    /// What is missing of what was once there, in words.
    pub(super) damage: Option<String>,
    /// Where the older checkpoint was taken.
    pub(super) older: u64,
    /// Whether nothing was ever kept here.
    pub(super) is_new: bool,
    /// Whether the checkpoint is a snapshot that was about to replace the log.
    pub(super) replaces_log: bool,
}

impl Opened {
    /// Opens `dir`, which is made if it does not exist. Changes nothing that is there.
    pub(super) async fn open(env: Env, dir: PathBuf, options: LogOptions) -> Result<Opened> {
        let (log, _report) = Log::open(&env, &dir.join("log"), options).await.map_err(from_log)?;
        let io = |e: std::io::Error| Error::io(&e, Effect::None);
        let meta = Meta::read(&env, &dir).await.map_err(io)?;
        let FoundCheckpoints { newest, older, damaged } = checkpoint::read_newest(&env, &dir).await.map_err(io)?;
        let live = Arc::new(Live::new(env.clone()));
        let mut history = History::default();
        if let Some(newest) = newest {
            history = newest.history.clone();
            live.engine.install(newest.into_snapshot())?;
        }
        let mut opened = Opened {
            env,
            dir,
            log,
            meta,
            last: live.engine.applied().seq,
            live,
            history,
            damage: None,
            older,
            is_new: false,
            replaces_log: false,
        };
        opened.replaces_log =
            matches!(&opened.meta, Found::Meta(meta) if meta.installing > 0 && meta.installing == opened.last);
        if !opened.replaces_log {
            opened.scan().await?;
        }
        let is_empty = opened.last == 0 && opened.log.range().end == 1 && damaged.is_empty();
        opened.is_new = is_empty && opened.meta == Found::Nothing;
        if !opened.is_new && matches!(opened.meta, Found::Nothing | Found::Damaged) {
            opened.damage = Some("the file that says what the node has promised is missing or damaged".into());
        }
        if let [damaged, ..] = &damaged[..]
            && opened.damage.is_some()
        {
            let why = opened.damage.take().unwrap_or_default();
            opened.damage = Some(format!("{damaged} is damaged, and {why}"));
        }
        Ok(opened)
    }

    /// Empties the log: all that counts of it is in the checkpoint too, and what follows has to follow that.
    pub(super) async fn clear_log(&self) -> Result<()> {
        self.log.reset(self.last + 1).await.map_err(from_log)
    }

    /// Reads the log after the checkpoint, for its epochs and for gaps.
    async fn scan(&mut self) -> Result<()> {
        let range = self.log.range();
        let from = self.last + 1;
        if range.start > from {
            self.damage = Some(format!("records {from} to {} are missing", range.start - 1));
            return Ok(());
        }
        if range.end < from {
            let end = range.end;
            self.damage = Some(format!(
                "the log ends before {end}, and the checkpoint was taken at {}",
                self.last
            ));
            return Ok(());
        }
        let mut reader = self.log.reader(from);
        while let Some(item) = reader.next().await.map_err(from_log)? {
            let why = match item {
                Item::Gap(gap) => format!(
                    "records {} to {} are lost: {}",
                    gap.range.start,
                    gap.range.end - 1,
                    gap.why
                ),
                Item::Record { seq, bytes } => match Entry::epoch(&bytes) {
                    Ok(epoch) if epoch >= self.history.at(self.last).epoch => {
                        self.history.note(Position::new(epoch, seq));
                        self.last = seq;
                        continue;
                    }
                    Ok(_) => format!("record {seq} is of an older epoch than those before it"),
                    Err(error) => format!("record {seq}: {error}"),
                },
            };
            self.damage = Some(why);
            break;
        }
        Ok(())
    }
}

/// An empty engine brought to the newest checkpoint in `dir`.
pub(super) async fn rebuild(env: &Env, dir: &Path) -> Result<Arc<Live>> {
    let live = Arc::new(Live::new(env.clone()));
    let found = checkpoint::read_newest(env, dir).await;
    if let Some(newest) = found.map_err(|e| Error::io(&e, Effect::None))?.newest {
        live.engine.install(newest.into_snapshot())?;
    }
    Ok(live)
}

/// The store's word for a log's error.
pub(super) fn from_log(error: LogError) -> Error {
    let effect = if error.is_unknown() {
        Effect::Unknown
    } else {
        Effect::None
    };
    match error {
        LogError::Full => Error::Full {
            what: "the disk has no room for more of the log".into(),
        },
        LogError::Busy { .. } => Error::Full {
            what: error.to_string(),
        },
        LogError::Poisoned => Error::Poisoned,
        LogError::TooLarge { .. } => Error::Invalid {
            what: error.to_string(),
        },
        LogError::Gone { .. } | LogError::Version { .. } | LogError::Damaged { .. } => Error::Corrupt {
            what: error.to_string(),
        },
        LogError::Locked | LogError::Closed => Error::Unavailable {
            what: error.to_string(),
            effect,
        },
        LogError::Io { kind, message } | LogError::Unknown { kind, message } => Error::Io { kind, message, effect },
    }
}
