use super::lines::{Unreadable, endpoints};
use super::{DiscoveryError, Found, PollSource, Refresh};
use crate::balance::Endpoint;
use crate::env::{Disk, Env, OpenMode, files};
use crate::sync::Mutex;
use futures::Stream;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A text file that names the endpoints, one a line, read again at an interval.
///
/// ```text
/// # id            options, in any order
/// 10.0.0.1:80     weight=2 zone=eu-1a priority=0
/// 10.0.0.2:80     meta.version=7         # what follows a word that begins with # is a comment
/// ```
///
/// Where it is left out, a weight is 1 and a priority 0. A file that names nothing is an error unless it has the line
/// `none`, and a line that makes no sense makes the whole file an error, which says where: the pool keeps the last good
/// set either way.
///
/// Whoever writes the file should write another and rename it. In case it is written in place, new contents count only
/// once they have stayed the same for the [`settle`](FileSource::settle) time, so that half a file is not read as a whole
/// one. A file is at most 16 MiB.
///
/// ```no_run
/// # fn run(pool: outgrow::balance::Pool<outgrow::balance::PowerOfTwo>) -> Result<(), outgrow::balance::NeedsSpawner> {
/// use outgrow::balance::discover::FileSource;
/// use std::time::Duration;
/// let backends = FileSource::new("/etc/shop/backends").interval(Duration::from_secs(2));
/// pool.follow(backends.stream()).source("/etc/shop/backends").spawn()?.detach();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a source says nothing until its stream is followed"]
pub struct FileSource {
    path: PathBuf,
    interval: Duration,
    settle: Duration,
    env: Option<Env>,
}

impl FileSource {
    /// Reads the file at `path`, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> FileSource {
        FileSource {
            path: path.into(),
            interval: Duration::from_secs(5),
            settle: Duration::from_millis(100),
            env: None,
        }
    }

    /// How long after one look at the file the next one comes, up to a tenth more. Default: 5 s. Zero is taken as a
    /// millisecond.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// For how long new contents must stay the same before they count. Default: 100 ms; at zero half a file may count.
    pub fn settle(mut self, time: Duration) -> Self {
        self.settle = time;
        self
    }

    /// Takes time and files from `env`; by default from [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// The sets: the first, and then those that are news. The file is read where blocking is allowed, not by whoever
    /// polls this.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub fn stream(self) -> impl Stream<Item = Result<Vec<Endpoint>, DiscoveryError>> + Send + 'static {
        let env = self.env.clone().unwrap_or_default();
        let refresh = Refresh::every(self.interval)
            .backoff(self.interval.min(Duration::from_secs(1)))
            .max_backoff(self.interval);
        let watched = Arc::new(Watched {
            env: env.clone(),
            path: self.path,
            settle: self.settle,
            last: Mutex::default(),
        });
        let ask = move || {
            let watched = Arc::clone(&watched);
            async move { watched.look().await.map(Found::new) }
        };
        let timeout = LONGEST_LOOK.max(self.settle.saturating_mul(10));
        PollSource::new(ask).refresh(refresh).timeout(timeout).env(env).stream()
    }
}

struct Watched {
    env: Env,
    path: PathBuf,
    settle: Duration,
    /// The contents that counted last, and what they say.
    last: Mutex<Option<(Vec<u8>, Vec<Endpoint>)>>,
}

impl Watched {
    async fn look(&self) -> Result<Vec<Endpoint>, DiscoveryError> {
        let mut bytes = self.read().await?;
        if let Some((same, set)) = &*self.last.lock()
            && *same == bytes
        {
            return Ok(set.clone());
        }
        // Ends by the time limit of the question at the latest.
        while !self.settle.is_zero() {
            self.env.sleep(self.settle).await;
            let again = self.read().await?;
            if again == bytes {
                break;
            }
            bytes = again;
        }
        let set = endpoints(&bytes).map_err(|why| self.unreadable(why))?;
        *self.last.lock() = Some((bytes, set.clone()));
        Ok(set)
    }

    async fn read(&self) -> Result<Vec<u8>, DiscoveryError> {
        let (disk, path) = (Arc::clone(self.env.disk()), self.path.clone());
        let read = files::blocking(&self.env, async move { read(&*disk, &path).await });
        let path = || self.path.clone();
        read.await.map_err(|source| DiscoveryError::Io { path: path(), source })
    }

    fn unreadable(&self, why: Unreadable) -> DiscoveryError {
        let path = self.path.clone();
        match why {
            Unreadable::Nothing => DiscoveryError::NoLine { path },
            Unreadable::Line(line, reason) => DiscoveryError::Line { path, line, reason },
        }
    }
}

/// The whole file, whatever length it has by the end.
async fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).await?;
    let mut bytes = Vec::new();
    loop {
        let have = bytes.len();
        bytes.resize(have + PIECE, 0);
        let more = file.read_at(&mut bytes[have..], have as u64).await?;
        bytes.truncate(have + more);
        if more == 0 {
            return Ok(bytes);
        }
        if bytes.len() > MOST_BYTES {
            return Err(io::Error::other("the file is longer than 16 MiB"));
        }
    }
}

const PIECE: usize = 64 << 10;
const MOST_BYTES: usize = 16 << 20;
const LONGEST_LOOK: Duration = Duration::from_secs(10);
