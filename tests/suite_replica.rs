//! The store's contract, on replicated stores of one node and of three, on real threads and files and in simulation.
#![allow(clippy::disallowed_methods, reason = "the test cleans up after itself")]

use futures::executor::block_on;
use outgrow::env::Env;
use outgrow::replica::{Ack, Node, ReadPreference, ReplicatedStore};
use outgrow::sim::World;
use outgrow::store::suite::{self, Subject};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of its own for each store of a test, gone at the end.
struct Dirs {
    root: PathBuf,
    next: AtomicU64,
}

impl Dirs {
    fn new(test: &str) -> Dirs {
        let root = std::env::temp_dir().join(format!("outgrow-suite-{test}-{}", std::process::id()));
        Dirs {
            root,
            next: AtomicU64::new(0),
        }
    }

    fn next(&self) -> PathBuf {
        self.root.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Dirs {
    fn drop(&mut self) {
        let _result = std::fs::remove_dir_all(&self.root);
    }
}

async fn open(env: &Env, nodes: &[&str], dir: PathBuf) -> ReplicatedStore {
    let builder = ReplicatedStore::builder().env(env.clone()).feed(100);
    let builder = nodes
        .iter()
        .fold(builder, |builder, name| builder.node(Node::new(*name)));
    builder.open(dir).await.expect("a new directory opens")
}

fn on_the_system(test: &str, nodes: &[&str]) {
    let dirs = Dirs::new(test);
    let env = Env::system();
    let make = async || {
        let db = open(&env, nodes, dirs.next()).await;
        let env = env.clone();
        Subject::new(db, move |by| env.sleep(by)).keeps(100)
    };
    block_on(suite::store(make));
    block_on(suite::feed(make));
}

#[test]
fn one_node_on_the_system() {
    on_the_system("one", &["a"]);
}

#[test]
fn three_nodes_on_the_system() {
    on_the_system("three", &["a", "b", "c"]);
}

#[test]
fn views_and_sessions_in_simulation() {
    let world = World::new(1);
    let env = world.env();
    let next = AtomicU64::new(0);
    let fresh = async || {
        let dir = format!("db{}", next.fetch_add(1, Ordering::Relaxed));
        open(&env, &["a", "b", "c"], dir.into()).await
    };
    let advance = |env: Env| move |by| env.sleep(by);
    world.run(suite::store(async || {
        Subject::new(fresh().await.acking(Ack::All), advance(env.clone()))
    }));
    world.run(suite::store(async || {
        Subject::new(fresh().await.acking(Ack::Primary), advance(env.clone()))
    }));
    world.run(suite::store(async || {
        Subject::new(fresh().await.session(), advance(env.clone()))
    }));
    let secondary = ReadPreference::secondary_preferred();
    world.run(suite::store(async || {
        Subject::new(fresh().await.reading(secondary.clone()).session(), advance(env.clone()))
    }));
    world.run(suite::feed(async || Subject::new(fresh().await, advance(env.clone()))));
}
