//! The crates that ours is compared with.

use super::drivers::{Driver, Found, Kind, Tell};
use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};
use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, Mutex};
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

pub(super) fn all() -> Vec<Kind> {
    vec![
        Kind {
            name: "yaque",
            open: yaque,
            read: read_yaque,
        },
        Kind {
            name: "okaywal",
            open: okaywal,
            read: read_okaywal,
        },
        Kind {
            name: "raft_engine",
            open: raft_engine,
            read: read_raft_engine,
        },
        Kind {
            name: "redb",
            open: redb,
            read: read_redb,
        },
        Kind {
            name: "fjall",
            open: fjall,
            read: read_fjall,
        },
        Kind {
            name: "sqlite",
            open: sqlite,
            read: read_sqlite,
        },
        Kind {
            name: "walrus",
            open: walrus,
            read: read_walrus,
        },
    ]
}

fn text(error: impl Display) -> String {
    error.to_string()
}

struct Yaque(yaque::Sender, yaque::Receiver);

/// Opens it; where that fails, has it recovered first, as its documentation says for a queue whose process died.
fn open_yaque(dir: &Path) -> Result<Yaque, String> {
    let place = dir.join("yaque");
    let open = || yaque::channel(&place).map(|(sender, receiver)| Yaque(sender, receiver));
    open().or_else(|_| {
        yaque::recovery::recover(&place).map_err(text)?;
        open().map_err(text)
    })
}

fn yaque(dir: &Path) -> Result<Box<dyn Driver>, String> {
    Ok(Box::new(open_yaque(dir)?))
}

fn read_yaque(dir: &Path, found: Tell<'_>) -> Result<(), String> {
    let Yaque(_sender, mut receiver) = open_yaque(dir)?;
    loop {
        match receiver.try_recv() {
            Ok(message) => {
                found(Found::Message(message.to_vec()));
                message.commit().map_err(text)?;
            }
            Err(yaque::TryRecvError::QueueEmpty) => return Ok(()),
            Err(yaque::TryRecvError::Io(error)) => return Err(text(error)),
        }
    }
}

impl Driver for Yaque {
    fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        self.0.try_send(payload).map_err(text)
    }

    fn remove(&mut self) -> Option<Result<(), String>> {
        let removed = match self.1.try_recv() {
            Ok(message) => message.commit().map_err(text),
            Err(yaque::TryRecvError::QueueEmpty) => Ok(()),
            Err(yaque::TryRecvError::Io(error)) => Err(text(error)),
        };
        Some(removed)
    }
}

/// Keeps everything that is recovered, and gives nothing up: the log is all there is.
#[derive(Clone, Debug, Default)]
struct Collect(Arc<Mutex<Vec<Found>>>);

impl LogManager for Collect {
    fn recover(&mut self, entry: &mut Entry<'_>) -> std::io::Result<()> {
        let mut found = self.0.lock().expect("nobody panicked");
        match entry.read_all_chunks() {
            Ok(Some(chunks)) => found.extend(chunks.into_iter().map(Found::Message)),
            Ok(None) => found.push(Found::Report("an aborted entry".to_owned())),
            Err(error) => found.push(Found::Report(text(error))),
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> std::io::Result<()> {
        Ok(())
    }
}

fn open_okaywal(dir: &Path, collect: Collect) -> Result<WriteAheadLog, String> {
    Configuration::default_for(dir.join("okaywal"))
        .checkpoint_after_bytes(u64::MAX)
        .open(collect)
        .map_err(text)
}

fn okaywal(dir: &Path) -> Result<Box<dyn Driver>, String> {
    Ok(Box::new(open_okaywal(dir, Collect::default())?))
}

fn read_okaywal(dir: &Path, found: Tell<'_>) -> Result<(), String> {
    let collect = Collect::default();
    let opened = open_okaywal(dir, collect.clone());
    collect.0.lock().expect("nobody panicked").drain(..).for_each(found);
    opened.map(drop)
}

impl Driver for WriteAheadLog {
    fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        let mut entry = self.begin_entry().map_err(text)?;
        entry.write_chunk(payload).map_err(text)?;
        entry.commit().map(drop).map_err(text)
    }

    fn remove(&mut self) -> Option<Result<(), String>> {
        None
    }
}

struct RaftEngine {
    engine: raft_engine::Engine,
    first: u64,
    next: u64,
}

fn open_raft_engine(dir: &Path) -> Result<RaftEngine, String> {
    let config = raft_engine::Config {
        dir: dir.join("raft").to_string_lossy().into_owned(),
        ..raft_engine::Config::default()
    };
    let engine = raft_engine::Engine::open(config).map_err(text)?;
    let (mut first, mut next) = (None, 0);
    let scanned = engine.scan_raw_messages(1, None, None, false, |key, _| {
        let key = key.first_chunk().map_or(0, |key| u64::from_be_bytes(*key));
        first = first.or(Some(key));
        next = key + 1;
        true
    });
    scanned.map_err(text)?;
    let first = first.unwrap_or(0);
    Ok(RaftEngine { engine, first, next })
}

fn raft_engine(dir: &Path) -> Result<Box<dyn Driver>, String> {
    Ok(Box::new(open_raft_engine(dir)?))
}

fn read_raft_engine(dir: &Path, found: Tell<'_>) -> Result<(), String> {
    let store = open_raft_engine(dir)?;
    let scanned = store.engine.scan_raw_messages(1, None, None, false, |_, value| {
        found(Found::Message(value.to_vec()));
        true
    });
    scanned.map_err(text)
}

impl Driver for RaftEngine {
    fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        let mut batch = raft_engine::LogBatch::default();
        let key = self.next.to_be_bytes().to_vec();
        self.next += 1;
        batch.put(1, key, payload.to_vec()).map_err(text)?;
        self.engine.write(&mut batch, true).map(drop).map_err(text)
    }

    fn remove(&mut self) -> Option<Result<(), String>> {
        let mut batch = raft_engine::LogBatch::default();
        batch.delete(1, self.first.to_be_bytes().to_vec());
        self.first += 1;
        Some(self.engine.write(&mut batch, true).map(drop).map_err(text))
    }
}

const TABLE: redb::TableDefinition<'static, u64, &'static [u8]> = redb::TableDefinition::new("items");

struct Redb(redb::Database);

fn redb(dir: &Path) -> Result<Box<dyn Driver>, String> {
    let database = redb::Database::create(dir.join("redb")).map_err(text)?;
    Ok(Box::new(Redb(database)))
}

fn read_redb(dir: &Path, found: Tell<'_>) -> Result<(), String> {
    use redb::{ReadableDatabase, ReadableTable};
    let database = redb::Database::create(dir.join("redb")).map_err(text)?;
    let read = database.begin_read().map_err(text)?;
    let table = read.open_table(TABLE).map_err(text)?;
    for item in table.iter().map_err(text)? {
        let (_, value) = item.map_err(text)?;
        found(Found::Message(value.value().to_vec()));
    }
    Ok(())
}

impl Redb {
    fn write(&self, payload: Option<&[u8]>) -> Result<(), redb::Error> {
        use redb::ReadableTable;
        let write = self.0.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            match payload {
                Some(payload) => {
                    let next = table.last()?.map_or(0, |(key, _)| key.value() + 1);
                    table.insert(next, payload)?;
                }
                None => _ = table.pop_first()?,
            }
        }
        write.commit()?;
        Ok(())
    }
}

impl Driver for Redb {
    fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        self.write(Some(payload)).map_err(text)
    }

    fn remove(&mut self) -> Option<Result<(), String>> {
        Some(self.write(None).map_err(text))
    }
}

struct Fjall {
    database: fjall::Database,
    items: fjall::Keyspace,
}

fn open_fjall(dir: &Path) -> Result<Fjall, String> {
    let database = fjall::Database::builder(dir.join("fjall")).open().map_err(text)?;
    let items = database.keyspace("items", fjall::KeyspaceCreateOptions::default);
    let items = items.map_err(text)?;
    Ok(Fjall { database, items })
}

fn fjall(dir: &Path) -> Result<Box<dyn Driver>, String> {
    Ok(Box::new(open_fjall(dir)?))
}

fn read_fjall(dir: &Path, found: Tell<'_>) -> Result<(), String> {
    let store = open_fjall(dir)?;
    for item in store.items.iter() {
        found(Found::Message(item.value().map_err(text)?.to_vec()));
    }
    Ok(())
}

impl Fjall {
    fn write(&self, payload: Option<&[u8]>) -> fjall::Result<()> {
        match payload {
            Some(payload) => {
                let last = self.items.last_key_value().map(fjall::Guard::key).transpose()?;
                let last = last.and_then(|key| key.first_chunk().map(|key| u64::from_be_bytes(*key)));
                let next = last.map_or(0, |last| last + 1);
                self.items.insert(next.to_be_bytes(), payload)?;
            }
            None => {
                if let Some(first) = self.items.first_key_value() {
                    self.items.remove(first.key()?)?;
                }
            }
        }
        self.database.persist(fjall::PersistMode::SyncData)
    }
}

impl Driver for Fjall {
    fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        self.write(Some(payload)).map_err(text)
    }

    fn remove(&mut self) -> Option<Result<(), String>> {
        Some(self.write(None).map_err(text))
    }
}

fn open_sqlite(dir: &Path) -> Result<rusqlite::Connection, String> {
    let connection = rusqlite::Connection::open(dir.join("sqlite")).map_err(text)?;
    let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, value BLOB)";
    connection.execute_batch(settings).map_err(text)?;
    Ok(connection)
}

fn sqlite(dir: &Path) -> Result<Box<dyn Driver>, String> {
    Ok(Box::new(open_sqlite(dir)?))
}

fn read_sqlite(dir: &Path, found: Tell<'_>) -> Result<(), String> {
    let connection = open_sqlite(dir)?;
    let check = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    let check: String = check.map_err(text)?;
    if check != "ok" {
        found(Found::Report(check));
    }
    let mut all = connection
        .prepare("SELECT value FROM items ORDER BY id")
        .map_err(text)?;
    let rows = all.query_map([], |row| row.get(0)).map_err(text)?;
    for row in rows {
        found(Found::Message(row.map_err(text)?));
    }
    Ok(())
}

impl Driver for rusqlite::Connection {
    fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        let sent = self.execute("INSERT INTO items (value) VALUES (?1)", [payload]);
        sent.map(drop).map_err(text)
    }

    fn remove(&mut self) -> Option<Result<(), String>> {
        let removed = self.execute("DELETE FROM items WHERE id = (SELECT MIN(id) FROM items)", []);
        Some(removed.map(drop).map_err(text))
    }
}

/// It keeps its files where the environment says, which a child's parent has set.
fn open_walrus() -> Result<Walrus, String> {
    Walrus::with_consistency_and_schedule(ReadConsistency::StrictlyAtOnce, FsyncSchedule::SyncEach).map_err(text)
}

fn walrus(_: &Path) -> Result<Box<dyn Driver>, String> {
    Ok(Box::new(open_walrus()?))
}

fn read_walrus(_: &Path, found: Tell<'_>) -> Result<(), String> {
    let store = open_walrus()?;
    while let Some(entry) = store.read_next("t", true).map_err(text)? {
        found(Found::Message(entry.data));
    }
    Ok(())
}

impl Driver for Walrus {
    fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        self.append_for_topic("t", payload).map_err(text)
    }

    fn remove(&mut self) -> Option<Result<(), String>> {
        Some(self.read_next("t", true).map(drop).map_err(text))
    }
}
