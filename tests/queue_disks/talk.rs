//! The process that sends, and what it tells its parent.

use futures::executor::block_on;
use futures::future::join_all;
use outgrow::queue::DurableQueue;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Tells the child where its queue is.
const DIR: &str = "OUTGROW_DISKS_DIR";
/// Tells the child which round it is.
const ROUND: &str = "OUTGROW_DISKS_ROUND";
const PRODUCERS: u64 = 8;
const FILLER: usize = 1_000;

/// What was tried, and what was acknowledged.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) tried: BTreeSet<String>,
    pub(crate) acked: BTreeSet<String>,
}

/// Sends until a send fails, and says what it sends, what has been acknowledged, and why it ended, a line each.
pub(crate) fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let round = std::env::var(ROUND).expect("the parent says");
    // The test harness has begun a line with the name of this test.
    say("");
    block_on(async {
        let builder = DurableQueue::builder().segment_bytes(256 << 10);
        let queue = match builder.open(dir).await {
            Ok(queue) => queue,
            Err(error) => return say(&format!("failed {error}")),
        };
        let producers = (0..PRODUCERS).map(|producer| produce(&queue, &round, producer));
        join_all(producers).await;
    });
}

async fn produce(queue: &DurableQueue, round: &str, producer: u64) {
    let topic = queue.topic("t");
    for n in 0.. {
        let id = format!("{round}-{producer}-{n}");
        say(&format!("try {id}"));
        if let Err(error) = topic.send(format!("{id} {}", "x".repeat(FILLER))).await {
            return say(&format!("failed {error}"));
        }
        say(&format!("ok {id}"));
    }
}

/// The name of a message, if it is one that a child sends.
pub(crate) fn id_of(payload: &[u8]) -> Option<String> {
    let (id, rest) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    (rest.len() == FILLER && rest.bytes().all(|byte| byte == b'x')).then(|| id.to_owned())
}

fn say(line: &str) {
    // Not captured, unlike the output of `println!`; all at once, so that lines stay whole.
    let line = format!("{line}\n");
    std::io::stdout()
        .write_all(line.as_bytes())
        .expect("the parent listens");
}

/// A child that sends.
pub(crate) struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    failures: Vec<String>,
}

impl Process {
    pub(crate) fn start(dir: &Path, round: u64) -> Process {
        let mut child = Command::new(std::env::current_exe().expect("a test has a program"))
            .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
            .env(DIR, dir)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the test starts itself");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let failures = Vec::new();
        Process { child, lines, failures }
    }

    /// Listens until so many more are acknowledged.
    pub(crate) fn hear(&mut self, ledger: &mut Ledger, acked: usize) {
        let enough = ledger.acked.len() + acked;
        while ledger.acked.len() < enough {
            assert!(self.next(ledger), "it ended early: {:?}", self.failures);
        }
    }

    /// Listens until it has nothing more to say.
    pub(crate) fn hear_all(&mut self, ledger: &mut Ledger) {
        while self.next(ledger) {}
    }

    fn next(&mut self, ledger: &mut Ledger) -> bool {
        let Some(line) = self.lines.next() else { return false };
        let line = line.expect("lines of text");
        match line.split_once(' ') {
            Some(("try", id)) => drop(ledger.tried.insert(id.to_owned())),
            Some(("ok", id)) => drop(ledger.acked.insert(id.to_owned())),
            Some(("failed", why)) => self.failures.push(why.to_owned()),
            _ => {}
        }
        true
    }

    /// Why its first send failed.
    pub(crate) fn failure(&self) -> &str {
        self.failures.first().map_or("", String::as_str)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
    }

    /// Listens to the rest, and waits for its end.
    pub(crate) fn end(mut self, ledger: &mut Ledger) {
        self.hear_all(ledger);
        self.child.wait().expect("it has ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and need not be.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A folder of its own, which goes with it.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new(what: &str) -> TempDir {
        let dir = std::env::temp_dir().join(format!("outgrow-{what}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary folder can be made");
        TempDir(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
