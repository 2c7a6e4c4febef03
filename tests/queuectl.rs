//! `queuectl` as a program, on a queue that this process has open, on one that nobody has, and on a damaged one; and the
//! look that it is made of, in the process of the queue itself.
#![allow(
    clippy::disallowed_methods,
    reason = "the test is the outside world: it starts the program and damages files"
)]

#[path = "support/example.rs"]
mod example;

use futures::executor::block_on;
use outgrow::env::Env;
use outgrow::queue::{Durability, DurableQueue, Message};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A folder of its own for each test, removed when the test passes.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("outgrow-queuectl-{}-{test}", std::process::id())))
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let there = std::fs::read_dir(&self.0).expect("the folder can be read");
        let paths = there.map(|entry| entry.expect("it can be listed").path());
        paths
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), std::fs::read(&path).expect("a file can be read")))
            .collect()
    }

    fn segments(&self) -> usize {
        let files = self.files();
        files
            .keys()
            .filter(|path| path.extension().is_some_and(|ending| ending == "seg"))
            .count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }
}

fn run(args: &[&str]) -> Output {
    example::run("queuectl", args)
}

/// What a command on the folder says, and what its exit code is.
fn said(folder: &Folder, args: &[&str]) -> (String, i32) {
    let dir = folder.0.to_str().expect("its name is text");
    let output = run(&[&[dir], args].concat());
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("it speaks UTF-8"));
    (said.concat(), output.status.code().expect("it is not killed"))
}

#[track_caller]
fn assert_says(folder: &Folder, args: &[&str], code: i32, words: &[&str]) {
    let (said, status) = said(folder, args);
    assert_eq!(status, code, "{args:?}: {said}");
    words
        .iter()
        .for_each(|words| assert!(said.contains(words), "{args:?} lacks {words:?}: {said}"));
}

async fn open(folder: &Folder) -> DurableQueue {
    let queue = DurableQueue::builder().env(Env::system()).segment_bytes(64 << 10);
    queue.open(&folder.0).await.expect("it opens")
}

/// Three mails, the first of them a dead letter of `mailer`; and one that is no text, for later.
async fn fill(queue: &DurableQueue) {
    let mail = queue.topic("mail");
    let mut jobs = mail.subscribe("mailer").build().await.expect("it subscribes");
    for to in ["Ada", "Grace", "Mary"] {
        let message = Message::new(format!("to {to}")).key("k").header("from", "outgrow");
        mail.send(message).await.expect("it is sent");
    }
    let late = Message::new(vec![0xff, 0])
        .deliver_in(Duration::from_secs(3_600))
        .dedup_id("late");
    queue.topic("later").send(late).await.expect("it is sent");
    let first = jobs.next().await.expect("the queue is open").expect("it is delivered");
    first.dead_letter("no such mailbox").await.expect("it is buried");
}

fn lines(folder: &Folder, args: &[&str]) -> Vec<Value> {
    let (said, code) = said(folder, args);
    assert_eq!(code, 0, "{said}");
    said.lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

#[test]
fn a_live_queue_is_looked_at_and_never_changed() {
    let folder = Folder::new("live");
    block_on(async {
        let queue = open(&folder).await;
        fill(&queue).await;
        // What comes a moment later by itself: the mark of an idle log.
        Env::system().sleep(Duration::from_millis(300)).await;
        let before = folder.files();

        assert_says(
            &folder,
            &["status"],
            0,
            &["mail", "mailer", "later", "0000000000000001.seg"],
        );
        if cfg!(target_os = "linux") {
            assert_says(
                &folder,
                &["status"],
                0,
                &[&format!("open in process {}", std::process::id())],
            );
        }
        let peek = ["peek", "mail", "--subscription", "mailer", "--count", "1"];
        assert_says(
            &folder,
            &peek,
            0,
            &["to Grace", "key k", "from: outgrow", "mailer (tried 0 times)"],
        );
        let (shown, _) = said(&folder, &peek);
        assert!(!shown.contains("to Mary") && !shown.contains("to Ada"), "{shown}");
        assert_says(&folder, &["peek", "later"], 0, &["0xff00", "due "]);
        assert_says(
            &folder,
            &["verify"],
            0,
            &["reading: 100 %", "everything is as it was written"],
        );

        let all = lines(&folder, &["dump"]);
        assert_eq!(all.len(), 4, "two mails, a dead letter, one for later");
        assert_eq!(
            (&all[0]["payload"], &all[0]["open"]["mailer"]),
            (&"to Grace".into(), &0.into())
        );
        let later = lines(&folder, &["dump", "later"]);
        assert_eq!(
            (&later[0]["payload_hex"], &later[0]["dedup_id"]),
            (&"ff00".into(), &"late".into())
        );
        assert_eq!(lines(&folder, &["dump", "mail", "--settled"]).len(), 3);

        for args in [&["redrive", "mail"][..], &["repair"]] {
            assert_says(&folder, args, 1, &["error: ", "has the queue open"]);
        }
        assert_eq!(folder.files(), before, "nothing is written");

        // In the same process, too.
        let inspection = DurableQueue::inspect(&folder.0).await.expect("it can be looked at");
        let stats = queue.stats();
        let of = inspection.topics()["mail"].subscriptions["mailer"];
        assert_eq!(of.backlog, stats.topics["mail"].subscriptions["mailer"].backlog);
        assert_eq!(inspection.topics()["mail"].dead_letters, 1);
        queue.close().await;
    });
}

#[test]
fn a_dead_queue_is_redriven_and_damage_is_told_and_repaired() {
    let folder = Folder::new("dead");
    block_on(async {
        let queue = open(&folder).await;
        fill(&queue).await;
        // So that what is damaged below is not in the newest segment, which opening reads in any case.
        let long = || Message::new(vec![b'x'; 1_000]);
        for _ in 0..8 {
            queue
                .topic("filler")
                .send_all((0..50).map(|_| long()))
                .await
                .expect("they are sent");
        }
        queue.close().await;
    });
    assert!(folder.segments() > 3, "{} segments", folder.segments());
    assert_says(&folder, &["status"], 0, &["open nowhere"]);
    let of = |name| ["redrive", "mail", "--subscription", name];
    assert_says(&folder, &of("audit"), 0, &["mail: 0 sent again, 1 dead letters left"]);
    assert_says(&folder, &of("mailer"), 0, &["mail: 1 sent again, 0 dead letters left"]);
    let mails: Vec<Value> = lines(&folder, &["dump", "mail"])
        .iter()
        .map(|line| line["payload"].clone())
        .collect();
    assert_eq!(mails, ["to Grace", "to Mary", "to Ada"]);
    assert_says(&folder, &["repair"], 0, &["nothing is damaged"]);

    let oldest = folder.0.join("0000000000000001.seg");
    let mut bytes = std::fs::read(&oldest).expect("it can be read");
    let at = bytes
        .windows(8)
        .position(|text| text == b"to Grace")
        .expect("it is in the oldest");
    bytes[at] ^= 1;
    std::fs::write(&oldest, bytes).expect("it can be damaged");
    let seq = lines(&folder, &["dump", "mail", "--settled"])[0]["seq"]
        .as_u64()
        .expect("a number")
        + 1;
    let place = "damaged: 0000000000000001.seg, bytes ";
    for command in ["verify", "status"] {
        assert_says(
            &folder,
            &[command],
            1,
            &[place, &format!("lost: number {seq}: it fails its checksum")],
        );
    }
    assert!(!folder.0.join("quarantine").exists(), "who looks quarantines nothing");
    assert_says(
        &folder,
        &["repair"],
        0,
        &[
            "copied the damaged bytes into quarantine/, 1 files",
            "it cost 1 entries",
        ],
    );
    assert_eq!(
        std::fs::read_dir(folder.0.join("quarantine"))
            .expect("it is there")
            .count(),
        1
    );
    assert_says(&folder, &["repair"], 0, &["were in quarantine/ already"]);
    assert_eq!(lines(&folder, &["dump", "mail"]).len(), 2, "the others are served");
}

#[test]
fn looks_beside_a_queue_that_is_busy_never_find_damage() {
    let folder = Folder::new("busy");
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let looks = std::thread::scope(|scope| {
        let worker = scope.spawn(|| block_on(work(&folder, &sent, &done)));
        let mut looks = 0;
        while (looks < 200 || sent.load(Ordering::Relaxed) < 20_000) && !worker.is_finished() {
            // One that is given up since the queue moved on too fast finds nothing wrong either.
            if let Ok(found) = block_on(DurableQueue::inspect(&folder.0)) {
                assert!(found.damaged().is_empty() && found.lost().is_empty(), "{found:?}");
                looks += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
        looks
    });
    assert!(looks >= 200);
    assert_says(&folder, &["verify"], 0, &["everything is as it was written"]);
    let found = block_on(DurableQueue::inspect(&folder.0)).expect("it can be looked at");
    assert!(
        found.segments()[0].segment > 10,
        "segments came and went: {:?}",
        found.segments()
    );
}

/// Sends and acknowledges until it is told to stop.
async fn work(folder: &Folder, sent: &AtomicU64, done: &AtomicBool) {
    let queue = DurableQueue::builder().env(Env::system()).segment_bytes(64 << 10);
    let queue = queue
        .durability(Durability::Os)
        .open(&folder.0)
        .await
        .expect("it opens");
    let topic = queue.topic("t");
    let mut jobs = topic.subscribe("s").prefetch(50).build().await.expect("it subscribes");
    let began = Env::system().now();
    while !done.load(Ordering::Relaxed) {
        assert!(
            Env::system().now() - began < Duration::from_secs(120),
            "it takes too long"
        );
        topic
            .send_all((0..50).map(|n| Message::new(vec![b'x'; 20 * n])))
            .await
            .expect("they are sent");
        for _ in 0..50 {
            let job = jobs.next().await.expect("the queue is open").expect("it is delivered");
            job.ack().await.expect("it is acknowledged");
        }
        sent.fetch_add(50, Ordering::Relaxed);
    }
    drop(jobs);
    queue.close().await;
}

#[test]
fn without_arguments_it_shows_itself() {
    let output = run(&[]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for command in ["status", "peek", "verify", "dump", "redrive", "repair"] {
        assert!(said.contains(&format!("$ queuectl DIR {command}")), "{said}");
    }
    let help = run(&["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("usage: queuectl DIR COMMAND"));
}

#[test]
fn what_cannot_be_obeyed() {
    let folder = Folder::new("none");
    assert_says(&folder, &[], 2, &["no COMMAND"]);
    assert_says(&folder, &["stats"], 2, &["unknown command stats"]);
    assert_says(&folder, &["peek"], 2, &["peek needs a TOPIC"]);
    assert_says(
        &folder,
        &["peek", "t", "--count", "0"],
        2,
        &["want a whole number above 0"],
    );
    assert_says(
        &folder,
        &["peek", "t", "--subscription"],
        2,
        &["--subscription needs a value"],
    );
    assert_says(&folder, &["verify", "t"], 2, &["t is one argument too many"]);
    assert_says(&folder, &["verify", "--fast"], 2, &["unknown option --fast"]);
    for command in ["status", "verify", "dump", "repair"] {
        assert_says(&folder, &[command], 1, &["error: "]);
    }
    assert!(!folder.0.exists(), "nothing is made where nothing is");
    std::fs::create_dir(&folder.0).expect("it can be made");
    for command in ["status", "repair"] {
        assert_says(&folder, &[command], 1, &["there is no queue"]);
    }
    assert_eq!(folder.files().len(), 0);
}
