//! A real process that appends to a queue, killed with SIGKILL again and again. What it was told to be on disk is kept by
//! its parent, at the other end of a pipe, and must be there each time the queue is opened again.
#![allow(clippy::disallowed_methods, reason = "this is the outside world")]

mod support;

use futures::executor::block_on;
use futures::future::join_all;
use outgrow::env::Env;
use outgrow::queue::{DurableQueue, Queue, Settle, Subscription};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tells the child where its queue is.
const DIR: &str = "OUTGROW_CRASH_DIR";
/// Tells the child which round it is.
const ROUND: &str = "OUTGROW_CRASH_ROUND";
const KILLS: u64 = 50;
/// With `OUTGROW_LONG`.
const MANY_KILLS: u64 = 200;
const PRODUCERS: u64 = 8;

/// The child's half: run by the test below, in a process of its own; by itself it has nothing to do.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let round: u64 = std::env::var(ROUND)
        .expect("the parent says")
        .parse()
        .expect("a number");
    // The test harness has begun a line with the name of this test.
    say("");
    block_on(async {
        let queue = DurableQueue::builder()
            .segment_bytes(64 << 10)
            .open(dir)
            .await
            .expect("it opens after a kill");
        let producers = (0..PRODUCERS).map(|producer| produce(&queue, round, producer));
        join_all(producers).await;
    });
}

/// Sends for ever, and says what it sends and what has been acknowledged, a line each.
async fn produce(queue: &DurableQueue, round: u64, producer: u64) {
    let topic = queue.topic("t");
    for n in 0.. {
        let id = format!("{round}-{producer}-{n}");
        say(&format!("try {id}"));
        topic
            .send(format!("{id} {}", "x".repeat(200)))
            .await
            .expect("a send works");
        say(&format!("ok {id}"));
    }
}

fn say(line: &str) {
    // Not captured, unlike the output of `println!`.
    let line = format!("{line}\n");
    std::io::stdout()
        .write_all(line.as_bytes())
        .expect("the parent listens");
}

#[derive(Default)]
struct Ledger {
    tried: BTreeSet<String>,
    acked: BTreeSet<String>,
    /// Received and acknowledged in turn, so that the queue may have forgotten them.
    done: BTreeSet<String>,
}

/// Starts a child, reads what it says, kills it after `lines` acknowledgements, and reads the rest.
fn run_and_kill(dir: &Path, round: u64, lines: u64, ledger: &mut Ledger) {
    let mut child = Command::new(std::env::current_exe().expect("a test has a program"))
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test starts itself");
    let mut left = lines;
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line.expect("lines of text");
        if let Some(id) = line.strip_prefix("try ") {
            ledger.tried.insert(id.to_owned());
        } else if let Some(id) = line.strip_prefix("ok ") {
            ledger.acked.insert(id.to_owned());
            left = left.saturating_sub(1);
            if left == 0 {
                // SIGKILL; what the child wrote before is still in the pipe. A second one does nothing.
                child.kill().expect("it can be killed");
            }
        }
    }
    let status = child.wait().expect("it has ended");
    assert!(
        !status.success() && left == 0,
        "it was killed, and not before it got anywhere: {status}"
    );
}

/// Opens the queue, checks what it holds against the ledger, and acknowledges the half of it.
async fn check(dir: &Path, ledger: &mut Ledger) {
    let queue = DurableQueue::builder()
        .env(Env::system())
        .segment_bytes(64 << 10)
        .open(dir)
        .await
        .expect("it opens");
    assert!(
        queue.opened().lost.is_empty() && queue.opened().damaged.is_empty(),
        "{:?}",
        queue.opened()
    );
    let mut checker = Subscription::new("t", "checker");
    checker.max_attempts = u32::MAX;
    checker.max_in_flight = 65_536;
    queue.subscribe(&checker).await.expect("it subscribes");
    let mut found = BTreeSet::new();
    loop {
        let some = queue
            .receive(&checker, 1_000, Duration::from_millis(20))
            .await
            .expect("it receives");
        if some.is_empty() {
            break;
        }
        let mut acks = Vec::new();
        for raw in some {
            let text = String::from_utf8(raw.message.payload.to_vec()).expect("what was sent is text");
            let (id, rest) = text.split_once(' ').expect("what was sent");
            assert!(
                rest == "x".repeat(200) && ledger.tried.contains(id),
                "{id} was never sent like this"
            );
            assert!(!ledger.done.contains(id), "{id} was acknowledged for good");
            if found.len() % 2 == 0 {
                ledger.done.insert(id.to_owned());
                acks.push(async { queue.settle(&{ raw }.token, Settle::Ack).await });
            }
            assert!(found.insert(id.to_owned()), "{id} is there twice");
        }
        assert!(join_all(acks).await.iter().all(Result::is_ok));
    }
    let lost: Vec<_> = ledger
        .acked
        .iter()
        .filter(|id| !found.contains(*id) && !ledger.done.contains(*id))
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    queue.close().await;
}

#[test]
fn killed_again_and_again_and_nothing_acknowledged_is_lost() {
    let kills = if support::long() { MANY_KILLS } else { KILLS };
    let dir = TempDir::new();
    let mut ledger = Ledger::default();
    let mut rng = Env::system().rng("kills");
    for round in 0..kills {
        run_and_kill(&dir.0, round, 1 + rng.below(150), &mut ledger);
        block_on(check(&dir.0, &mut ledger));
    }
    support::report("killed processes", "kills", kills);
    support::report("killed processes", "acknowledged messages", ledger.acked.len() as u64);
    assert!(ledger.acked.len() as u64 > kills);
}

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        TempDir(std::env::temp_dir().join(format!("outgrow-crash-{}", std::process::id())))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
