//! Do all the libraries that our blocks are measured against build, link and run here? One operation of each, so that
//! the lock file and the machine's set-up are proved before a bench of a block leans on them: `./bench.sh peers`.
//! The figures only say that something ran; a block's own bench asks the questions.
#![allow(missing_docs, reason = "a program, not a library")]

#[cfg(not(peers))]
fn main() {}

#[cfg(peers)]
fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    peers::remember(&mut criterion);
    peers::route(&mut criterion);
    peers::keep(&mut criterion);
    criterion.final_summary();
}

#[cfg(peers)]
mod peers {
    use criterion::Criterion;
    use std::hint::black_box;
    use std::path::{Path, PathBuf};

    pub(crate) fn remember(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("peers/get");
        let moka = moka::sync::Cache::new(16);
        moka.insert(1_u64, 1_u64);
        group.bench_function("moka", |b| b.iter(|| moka.get(black_box(&1))));
        let quick = quick_cache::sync::Cache::new(16);
        quick.insert(1_u64, 1_u64);
        group.bench_function("quick_cache", |b| b.iter(|| quick.get(black_box(&1))));
        let foyer: foyer::Cache<u64, u64> = foyer::CacheBuilder::new(16).build();
        foyer.insert(1, 1);
        group.bench_function("foyer", |b| b.iter(|| foyer.get(black_box(&1)).map(|e| *e.value())));
        let scc = scc::HashCache::<u64, u64, foldhash::fast::RandomState>::default();
        let _ = scc.put_sync(1, 1);
        group.bench_function("scc", |b| b.iter(|| scc.get_sync(black_box(&1)).map(|e| *e.get())));
    }

    pub(crate) fn route(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("peers/pick");
        let mut ring = hashring::HashRing::new();
        ring.add("10.0.0.1:80");
        ring.add("10.0.0.2:80");
        group.bench_function("hashring", |b| b.iter(|| ring.get(black_box(&7_u64)).copied()));
        group.bench_function("tower", |b| {
            let endpoint = |load: u32| {
                let answer = |request: u64| async move { Ok::<_, tower::BoxError>(request) };
                tower::load::Constant::new(tower::service_fn(answer), load)
            };
            let list = tower::discover::ServiceList::new([endpoint(1), endpoint(2)]);
            let mut balance = tower::balance::p2c::Balance::new(list);
            b.iter(|| {
                futures::executor::block_on(async {
                    let ready = tower::ServiceExt::<u64>::ready(&mut balance)
                        .await
                        .expect("always ready");
                    tower::Service::call(ready, black_box(7)).await.expect("never fails")
                })
            });
        });
        let pool =
            pingora_load_balancing::LoadBalancer::<pingora_load_balancing::selection::RoundRobin>::try_from_iter([
                "10.0.0.1:80",
                "10.0.0.2:80",
            ])
            .expect("literal addresses");
        group.bench_function("pingora", |b| b.iter(|| pool.select(black_box(b""), 2)));
    }

    pub(crate) fn keep(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("peers/append");
        group.sample_size(10);
        let payload = vec![7_u8; 100];

        let (mut send, _receive) = yaque::channel(place("yaque")).expect("an empty folder");
        group.bench_function("yaque", |b| {
            b.iter(|| futures::executor::block_on(send.send(&payload)).expect("room on disk"));
        });

        let wal = okaywal::WriteAheadLog::recover(place("okaywal"), Forget).expect("an empty folder");
        group.bench_function("okaywal", |b| {
            b.iter(|| {
                let mut entry = wal.begin_entry().expect("room on disk");
                entry.write_chunk(&payload).expect("room on disk");
                entry.commit().expect("room on disk")
            });
        });

        let config = raft_engine::Config {
            dir: place("raft_engine").to_string_lossy().into_owned(),
            ..raft_engine::Config::default()
        };
        let raft = raft_engine::Engine::open(config).expect("an empty folder");
        group.bench_function("raft_engine", |b| {
            b.iter(|| {
                let mut batch = raft_engine::LogBatch::default();
                batch.put(1, b"key".to_vec(), payload.clone()).expect("a plain key");
                raft.write(&mut batch, true).expect("room on disk")
            });
        });

        let fjall = fjall::Database::builder(place("fjall"))
            .open()
            .expect("an empty folder");
        let items = fjall
            .keyspace("items", fjall::KeyspaceCreateOptions::default)
            .expect("an empty database");
        group.bench_function("fjall", |b| {
            b.iter(|| {
                items.insert("key", &payload).expect("room on disk");
                fjall.persist(fjall::PersistMode::SyncData).expect("room on disk");
            });
        });

        let redb = redb::Database::create(place("redb").join("db")).expect("an empty folder");
        let table = redb::TableDefinition::<u64, &[u8]>::new("items");
        group.bench_function("redb", |b| {
            b.iter(|| {
                let write = redb.begin_write().expect("one writer");
                write
                    .open_table(table)
                    .and_then(|mut items| items.insert(1, payload.as_slice()).map(drop).map_err(Into::into))
                    .expect("room on disk");
                write.commit().expect("room on disk");
            });
        });

        let sqlite = rusqlite::Connection::open(place("rusqlite").join("db")).expect("an empty folder");
        sqlite
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE items (value BLOB)")
            .expect("an empty database");
        group.bench_function("rusqlite", |b| {
            b.iter(|| {
                sqlite
                    .execute("INSERT INTO items VALUES (?1)", [&payload])
                    .expect("room on disk")
            });
        });
    }

    /// A fresh folder for one peer's files, on the disk that the build lives on.
    #[expect(clippy::disallowed_methods, reason = "a bench acts as the outside world")]
    fn place(name: &str) -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers").join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("our own folder");
        }
        std::fs::create_dir_all(&path).expect("a writable target folder");
        path
    }

    #[derive(Debug)]
    struct Forget;

    impl okaywal::LogManager for Forget {
        fn recover(&mut self, _: &mut okaywal::Entry<'_>) -> std::io::Result<()> {
            Ok(())
        }

        fn checkpoint_to(
            &mut self,
            _: okaywal::EntryId,
            _: &mut okaywal::SegmentReader,
            _: &okaywal::WriteAheadLog,
        ) -> std::io::Result<()> {
            Ok(())
        }
    }
}
