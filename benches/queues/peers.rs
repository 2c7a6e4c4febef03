//! What ours is compared with.
//!
//! - `okaywal` is a log with group commit; a message is an entry, a batch one entry of many chunks. It discards what it
//!   has checkpointed, so its files do not grow.
//! - `raft_engine` is a log with group commit that keeps keys and values; a message is a key of its own, a batch one
//!   write of many.
//! - `redb` and `fjall` are key-value stores, `sqlite` (rusqlite) a database with its log in WAL mode and
//!   `synchronous = FULL`; a message is a row, a batch one transaction.
//! - `yaque` is a queue that never syncs.

use super::{Contender, Keep, Produce};
use okaywal::{LogVoid, WriteAheadLog};
use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

pub(super) fn synced() -> Vec<Contender> {
    vec![
        ("raft_engine", raft_engine),
        ("okaywal", okaywal),
        ("redb", redb),
        ("fjall", fjall),
        ("sqlite", sqlite),
    ]
}

pub(super) fn unsynced() -> Vec<Contender> {
    vec![("yaque", yaque)]
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// What peers without numbers of their own number messages by.
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
}

struct OkayWal(Option<WriteAheadLog>);

fn okaywal(dir: &Path) -> Result<Box<dyn Keep>, String> {
    let log = WriteAheadLog::recover(dir.join("okaywal"), LogVoid).map_err(text)?;
    Ok(Box::new(OkayWal(Some(log))))
}

impl Keep for OkayWal {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(self.0.as_ref().expect("it is open"))
    }
}

impl Drop for OkayWal {
    fn drop(&mut self) {
        let log = self.0.take().expect("it is open");
        log.shutdown().expect("nobody else has it");
    }
}

impl Produce for &WriteAheadLog {
    fn one(&mut self, payload: &'static [u8]) {
        self.batch(payload, 1);
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        let mut entry = self.begin_entry().expect("the disk takes it");
        for _ in 0..count {
            entry.write_chunk(payload).expect("the disk takes it");
        }
        entry.commit().expect("the disk takes it");
    }
}

struct RaftEngine(raft_engine::Engine, Counter);

fn raft_engine(dir: &Path) -> Result<Box<dyn Keep>, String> {
    let config = raft_engine::Config {
        dir: dir.join("raft").to_string_lossy().into_owned(),
        ..raft_engine::Config::default()
    };
    let engine = raft_engine::Engine::open(config).map_err(text)?;
    Ok(Box::new(RaftEngine(engine, Counter::default())))
}

impl Keep for RaftEngine {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(self)
    }
}

impl Produce for &RaftEngine {
    fn one(&mut self, payload: &'static [u8]) {
        self.batch(payload, 1);
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        let mut batch = raft_engine::LogBatch::with_capacity(count);
        for _ in 0..count {
            let key = self.1.next().to_be_bytes().to_vec();
            batch.put(1, key, payload.to_vec()).expect("a plain key");
        }
        self.0.write(&mut batch, true).expect("the disk takes it");
    }
}

const TABLE: redb::TableDefinition<'static, u64, &'static [u8]> = redb::TableDefinition::new("items");

struct Redb(redb::Database, Counter);

fn redb(dir: &Path) -> Result<Box<dyn Keep>, String> {
    let database = redb::Database::create(dir.join("redb")).map_err(text)?;
    Ok(Box::new(Redb(database, Counter::default())))
}

impl Keep for Redb {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(self)
    }
}

impl Produce for &Redb {
    fn one(&mut self, payload: &'static [u8]) {
        self.batch(payload, 1);
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        let write = self.0.begin_write().expect("the disk takes it");
        {
            let mut table = write.open_table(TABLE).expect("it can be made");
            for _ in 0..count {
                table.insert(self.1.next(), payload).expect("the disk takes it");
            }
        }
        write.commit().expect("the disk takes it");
    }
}

struct Fjall {
    database: fjall::Database,
    items: fjall::Keyspace,
    counter: Counter,
}

fn fjall(dir: &Path) -> Result<Box<dyn Keep>, String> {
    let database = fjall::Database::builder(dir.join("fjall")).open().map_err(text)?;
    let items = database
        .keyspace("items", fjall::KeyspaceCreateOptions::default)
        .map_err(text)?;
    let counter = Counter::default();
    Ok(Box::new(Fjall {
        database,
        items,
        counter,
    }))
}

impl Keep for Fjall {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(self)
    }
}

impl Produce for &Fjall {
    fn one(&mut self, payload: &'static [u8]) {
        let key = self.counter.next().to_be_bytes();
        self.items.insert(key, payload).expect("the disk takes it");
        let persisted = self.database.persist(fjall::PersistMode::SyncData);
        persisted.expect("the disk takes it");
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        let mut batch = self.database.batch().durability(Some(fjall::PersistMode::SyncData));
        for _ in 0..count {
            batch.insert(&self.items, self.counter.next().to_be_bytes(), payload);
        }
        batch.commit().expect("the disk takes it");
    }
}

/// One connection, for whose turn all wait: SQLite has one writer, and waiting for it in the process is the cheapest.
struct Sqlite(Mutex<rusqlite::Connection>);

fn sqlite(dir: &Path) -> Result<Box<dyn Keep>, String> {
    let connection = rusqlite::Connection::open(dir.join("sqlite")).map_err(text)?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE items (value BLOB)")
        .map_err(text)?;
    Ok(Box::new(Sqlite(Mutex::new(connection))))
}

impl Keep for Sqlite {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(self)
    }
}

const INSERT: &str = "INSERT INTO items VALUES (?1)";

impl Produce for &Sqlite {
    fn one(&mut self, payload: &'static [u8]) {
        let connection = self.0.lock().expect("nobody panicked");
        let mut insert = connection.prepare_cached(INSERT).expect("plain SQL");
        insert.execute([payload]).expect("the disk takes it");
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        let mut connection = self.0.lock().expect("nobody panicked");
        let transaction = connection.transaction().expect("one writer");
        {
            let mut insert = transaction.prepare_cached(INSERT).expect("plain SQL");
            for _ in 0..count {
                insert.execute([payload]).expect("the disk takes it");
            }
        }
        transaction.commit().expect("the disk takes it");
    }
}

struct Yaque(Mutex<yaque::Sender>);

fn yaque(dir: &Path) -> Result<Box<dyn Keep>, String> {
    let sender = yaque::Sender::open(dir.join("yaque")).map_err(text)?;
    Ok(Box::new(Yaque(Mutex::new(sender))))
}

impl Keep for Yaque {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(self.0.lock().expect("one producer at a time"))
    }
}

impl Produce for MutexGuard<'_, yaque::Sender> {
    fn one(&mut self, payload: &'static [u8]) {
        self.try_send(payload).expect("the disk takes it");
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        let sent = self.try_send_batch(std::iter::repeat_n(payload, count));
        assert!(sent.is_ok(), "the disk takes it");
    }
}
