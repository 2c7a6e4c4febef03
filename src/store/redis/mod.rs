//! A store on a Redis server.

mod builder;
mod commit;
mod entry;
mod fault;
pub(crate) mod link;

pub use builder::RedisStoreBuilder;

use super::{Batch, Capability, Effect, Entry, Error, Feature, Receipt, Result, Scan, Store};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use link::Link;
use redis::{Cmd, Script, Value, cmd};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

const COMMIT: &str = include_str!("commit.lua");
const SCAN: &str = include_str!("scan.lua");
/// The most entries of one page of a scan, whatever was asked for: the server does nothing else meanwhile.
const MAX_PAGE: usize = 10_000;
/// How many bytes end a page of a scan.
const PAGE_BYTES: usize = 4 << 20;

/// A [`Store`] on one Redis server, 7.0 or newer (feature `redis`). A clone is a handle to the same.
///
/// ```no_run
/// use outgrow::store::{RedisStore, StoreExt};
/// use std::time::Duration;
/// # async fn run() -> outgrow::store::Result<()> {
/// let store = RedisStore::builder("redis://127.0.0.1/").prefix("app:").timeout(Duration::from_secs(1)).connect().await?;
/// store.put("user/7", "Ada").await?;
/// assert!(store.read(b"user/7").await?.is_some());
/// # Ok(()) }
/// ```
///
/// # What it can do
/// All of [`Capability`] but two: a Redis has no log that this could read, so there are no
/// [tokens](Feature::Tokens) and no [`Feed`](super::Feed); and nothing here can promise that the server's disk has
/// what was acknowledged, so it is not [durable](Feature::Durable).
///
/// - A batch is one script, which no other command interrupts: expectations, counters, expiry and cursors with it. The
///   script is short, yet it holds up every other client while it runs, so keep batches to some thousand writes.
/// - Versions are unique and rise: each is the server's time in microseconds, or one more than the last. So they go on
///   rising where a server lost its data, unless its clock was set back too.
/// - All calls share one connection, on which none waits for another's answer; each has a time limit, and how many there
///   are at a time is for the caller to bound.
/// - The server's clock decides when an entry expires; a reader hides in addition what has expired by its own.
/// - A scan walks an index that each batch keeps. A page is consistent in itself and of 10,000 entries, or the entry
///   that passes 4 MiB, at most; what commits between pages may be seen.
/// - An entry takes its key twice, its value, about 30 bytes of header, and what Redis itself needs: some 150 bytes,
///   and 100 more where it expires. Of what expired, the index frees eight entries with each commit.
///
/// # What it cannot promise
/// - Replicas of a Redis follow late, and a failover loses what they had not received: an acknowledged write may go.
/// - So does a crash, by the server's own settings: by default a snapshot is taken now and then; `appendonly yes` with
///   `appendfsync always` writes first and answers then.
/// - A server that evicts entries (`maxmemory-policy` other than `noeviction`) is refused. One that is full answers
///   [`Error::Full`].
/// - It speaks to one server, not to a cluster. An address of `rediss://` needs a TLS feature of the crate `redis`,
///   which your own `Cargo.toml` may turn on.
///
/// # Errors
/// - [`Error::Unavailable`] with no effect: it could not connect, or the server refused before it did anything. Calls
///   connect anew as needed, at most every 50 ms.
/// - [`Error::Unavailable`] or [`Error::Timeout`] with an unknown effect: a commit was sent and not answered.
/// - [`Error::Corrupt`] for a value that another program wrote to one of this store's keys.
///
/// # Cancel safety
/// A commit that is dropped after it was sent may happen, as a whole.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    keys: Keys,
    commit: (&'static str, Script),
    scan: (&'static str, Script),
}

/// Where things are on the server.
struct Keys {
    /// What the keys of entries begin with.
    entries: Bytes,
    /// The last version.
    counter: Bytes,
    /// The keys that a scan may see, in a sorted set, all of score zero.
    index: Bytes,
    /// The keys that expire, in a sorted set, by when.
    expiries: Bytes,
    /// Where the script adds.
    scratch: Bytes,
}

impl Keys {
    fn new(prefix: &[u8]) -> Keys {
        let own = |name: &[u8]| Bytes::from([prefix, name].concat());
        Keys {
            entries: own(b"e:"),
            counter: own(b"version"),
            index: own(b"index"),
            expiries: own(b"expiries"),
            scratch: own(b"scratch"),
        }
    }

    fn entry(&self, key: &[u8]) -> Vec<u8> {
        [&self.entries, key].concat()
    }
}

impl Inner {
    fn new(link: Link, prefix: &[u8]) -> Inner {
        Inner {
            link,
            keys: Keys::new(prefix),
            commit: (COMMIT, Script::new(COMMIT)),
            scan: (SCAN, Script::new(SCAN)),
        }
    }

    fn decode(&self, key: &[u8], raw: Option<Bytes>) -> Result<Option<Entry>> {
        let entry = raw.map(|raw| entry::decode(key, &raw)).transpose()?;
        // Most entries live for ever, and those need no clock.
        let live = |entry: &Entry| entry.expires.is_none() || entry.is_live(self.link.env().wall());
        Ok(entry.filter(live))
    }

    /// Runs a script whose keys and arguments `fill` adds. The server knows it by its hash, or is told it.
    async fn script(
        &self,
        (code, script): &(&'static str, Script),
        effect: Effect,
        fill: impl Fn(&mut Cmd),
    ) -> Result<Value> {
        let call = |name: &str, script: &str| {
            let mut command = cmd(name);
            command.arg(script);
            fill(&mut command);
            command
        };
        let answer = self.link.call(&call("EVALSHA", script.get_hash()), effect).await;
        match answer {
            Err(error) if fault::is_unknown_script(&error) => self.link.call(&call("EVAL", code), effect).await,
            answer => answer,
        }
    }

    /// One page of what is left of a scan.
    async fn page(&self, rest: &Scan) -> Result<commit::Page> {
        let page = rest.page.min(rest.limit).min(MAX_PAGE);
        let end = |bound: &Bound<Bytes>, unbounded: &str| match bound {
            Bound::Included(key) => [b"[", &key[..]].concat(),
            Bound::Excluded(key) => [b"(", &key[..]].concat(),
            Bound::Unbounded => unbounded.as_bytes().to_vec(),
        };
        let (from, to) = (end(&rest.from, "-"), end(&rest.to, "+"));
        let fill = |command: &mut Cmd| {
            command.arg(1).arg(&self.keys.index[..]).arg(&self.keys.entries[..]);
            command.arg(&from[..]).arg(&to[..]);
            command.arg(if rest.descending { "down" } else { "up" });
            command.arg(page).arg(PAGE_BYTES);
        };
        commit::page(self.script(&self.scan, Effect::None, fill).await?)
    }
}

/// A scan under way: what is left of it, how many entries it may still give, and what was fetched already.
struct Walk {
    rest: Option<Scan>,
    limit: usize,
    fetched: VecDeque<(Bytes, Entry)>,
}

impl Inner {
    async fn next(&self, walk: &mut Walk) -> Result<Option<(Bytes, Entry)>> {
        while walk.limit > 0 {
            if let Some(found) = walk.fetched.pop_front() {
                walk.limit -= 1;
                return Ok(Some(found));
            }
            let Some(rest) = walk.rest.take() else { break };
            let (page, more) = self.page(&rest).await?;
            walk.rest = match page.last() {
                Some((last, _)) if more => Some(rest.after(last.clone(), 0)),
                _ => None,
            };
            for (key, raw) in page {
                // What expired stays in the index for a while.
                let entry = self.decode(&key, raw)?;
                walk.fetched.extend(entry.map(|entry| (key, entry)));
            }
        }
        Ok(None)
    }
}

impl RedisStore {
    /// Starts building a store on the server at `url`, such as `redis://user:password@host:6379/0`.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url)
    }

    /// How often it has connected: once, and once more for each time that the connection broke or a call was late.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.inner.link.connects()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for RedisStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let Inner { link, keys, .. } = &*self.inner;
        let mut command = cmd("GET");
        command.arg(&keys.entry(key)[..]);
        let raw = bytes_of(link.call(&command, Effect::None).await?)?;
        self.inner.decode(key, raw)
    }

    /// All at one moment.
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = cmd("MGET");
        for key in keys {
            command.arg(&self.inner.keys.entry(key)[..]);
        }
        let Value::Array(found) = self.inner.link.call(&command, Effect::None).await? else {
            return Err(Error::corrupt("an answer to MGET that is no list"));
        };
        if found.len() != keys.len() {
            return Err(Error::corrupt("an answer to MGET of another length than the question"));
        }
        let entries = keys.iter().zip(found);
        entries
            .map(|(key, found)| self.inner.decode(key, bytes_of(found)?))
            .collect()
    }

    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        let walk = Walk {
            limit: scan.limit,
            rest: (!scan.is_empty()).then(|| scan.limit(usize::MAX)),
            fetched: VecDeque::new(),
        };
        let next = move |mut walk| async move { Ok(self.inner.next(&mut walk).await?.map(|found| (found, walk))) };
        stream::try_unfold(walk, next).boxed()
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        commit::check(&batch)?;
        if batch.is_empty() {
            return Ok(Receipt::default());
        }
        let fill = |command: &mut Cmd| commit::arguments(command, &self.inner.keys, &batch);
        let answer = self.inner.script(&self.inner.commit, Effect::Unknown, fill).await?;
        commit::answer(&batch, answer)
    }

    fn capability(&self) -> Capability {
        Capability::all().without(Feature::Tokens).without(Feature::Durable)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.inner.keys.entries)
            .field("link", &self.inner.link)
            .finish()
    }
}

/// The bytes of a string that the server may not have.
fn bytes_of(value: Value) -> Result<Option<Bytes>> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        other => Err(Error::corrupt(format!(
            "an answer of another kind than asked for: {other:?}"
        ))),
    }
}

/// A string or number of the server's as text, empty for anything else.
fn text_of(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text,
        Value::Int(number) => number.to_string(),
        _ => String::new(),
    }
}
