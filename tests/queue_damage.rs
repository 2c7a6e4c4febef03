//! One flipped bit anywhere on the disk of a queue: in a message it costs that message at most, anywhere else the messages
//! that were sent together with it in one frame; it is always reported, by an inspection at the latest, and before that
//! where a message is missing; nothing ever comes with other bytes than were sent.
//!
//! Every bit of a small queue's segment is tried, and of a queue of a thousand messages one bit for each seed, or one of
//! every byte in `./test.sh --long`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use outgrow::env::{Env, OpenMode, Rng, write_all_at};
use outgrow::queue::{Delivery, DurableQueue, Message, Queue, Subscription};
use outgrow::sim::{Machine, World};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

const DIR: &str = "data/queue";

/// A queue's directory after it was closed, and what was sent.
struct Written {
    files: BTreeMap<String, Vec<u8>>,
    /// Payloads by number, and the batch that each was sent in.
    sent: BTreeMap<u64, (String, usize)>,
    /// Those that were acknowledged.
    acked: BTreeSet<u64>,
}

async fn open(env: &Env) -> DurableQueue {
    let queue = DurableQueue::builder().env(env.clone()).segment_bytes(16 << 10);
    queue.open(DIR).await.expect("no damage keeps it from opening")
}

fn reader() -> Subscription {
    let mut reader = Subscription::new("t", "reader");
    reader.max_in_flight = 10_000;
    reader.lease = Duration::from_secs(3_600);
    reader
}

/// Sends so many messages, in batches of these sizes in turn, and acknowledges a few.
fn write(messages: usize, batches: &[usize]) -> Written {
    let world = World::new(1);
    let machine = world.machine("node");
    let mut written = Written {
        files: BTreeMap::new(),
        sent: BTreeMap::new(),
        acked: BTreeSet::new(),
    };
    world.run(async {
        let env = machine.env();
        let queue = open(&env).await;
        queue.subscribe(&reader()).await.unwrap();
        let (mut rng, mut batch) = (env.rng("lengths"), 0);
        while written.sent.len() < messages {
            let left = messages - written.sent.len();
            let count = batches[batch % batches.len()].min(left);
            let payloads: Vec<_> = (0..count).map(|n| payload(written.sent.len() + n, &mut rng)).collect();
            let sending = payloads.iter().map(|payload| Message::new(payload.clone()).key("k"));
            let receipts = queue.send("t", sending.collect()).await.unwrap();
            let seqs = receipts.iter().map(|receipt| receipt.seq);
            written
                .sent
                .extend(seqs.zip(payloads.into_iter().map(|payload| (payload, batch))));
            batch += 1;
        }
        for raw in queue.receive(&reader(), messages / 10, Duration::ZERO).await.unwrap() {
            written.acked.insert(raw.token.seq);
            Delivery::new(queue.clone(), raw).ack().await.unwrap();
        }
        queue.close().await;
    });
    let names = machine.files().into_iter();
    written.files = names
        .map(|name| (name.clone(), machine.read_file(&name).unwrap()))
        .collect();
    written
}

/// What no other message holds.
fn payload(n: usize, rng: &mut Rng) -> String {
    let most = if n.is_multiple_of(10) { 400 } else { 20 };
    format!("<{n} {}>", "x".repeat(rng.index(most)))
}

impl Written {
    /// The segments, with the bytes that are not the zeros made ahead.
    fn segments(&self) -> Vec<(&str, usize)> {
        let segments = self.files.iter().filter(|(name, _)| name.ends_with(".seg"));
        let used = segments.map(|(name, bytes)| (&**name, bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1));
        used.collect()
    }

    /// Where the payload of each message lies.
    fn payloads(&self) -> Vec<(&str, Range<usize>, u64)> {
        let mut found = Vec::new();
        for (name, bytes) in &self.files {
            for (seq, (payload, _)) in &self.sent {
                let at = bytes
                    .windows(payload.len())
                    .position(|bytes| bytes == payload.as_bytes());
                found.extend(at.map(|at| (&**name, at..at + payload.len(), *seq)));
            }
        }
        assert_eq!(found.len(), self.sent.len(), "each is there once");
        found
    }

    async fn restore(&self, machine: &Machine) {
        let disk = machine.env().disk().clone();
        disk.create_dir(Path::new(DIR)).await.unwrap();
        for (name, bytes) in &self.files {
            let file = disk.open(Path::new(name), OpenMode::New).await.unwrap();
            write_all_at(&*file, bytes, 0).await.unwrap();
            file.sync_data().await.unwrap();
        }
        disk.sync_dir(Path::new(DIR)).await.unwrap();
    }

    /// Opens the queue with one bit of a file flipped, and takes everything from it. `hit` is the message that holds it.
    fn check(&self, name: &str, bit: usize, hit: Option<u64>) {
        let world = World::new(7);
        let machine = world.machine("node");
        world.run(async {
            self.restore(&machine).await;
            assert!(machine.flip_bit(name, bit as u64));
            let queue = open(&machine.env()).await;
            queue.subscribe(&reader()).await.unwrap();
            let mut found = BTreeSet::new();
            loop {
                let some = queue.receive(&reader(), 1_000, Duration::ZERO).await.unwrap();
                if some.is_empty() {
                    break;
                }
                for raw in some {
                    let (payload, _) = self.sent.get(&raw.token.seq).expect("it was sent");
                    assert_eq!(raw.message.payload, payload, "wrong bytes");
                    assert_eq!(raw.message.key.as_deref(), Some(&b"k"[..]), "wrong bytes");
                    assert!(found.insert(raw.token.seq), "number {} comes twice", raw.token.seq);
                }
            }
            let missing = self
                .sent
                .keys()
                .filter(|seq| !found.contains(seq) && !self.acked.contains(seq));
            let missing: Vec<_> = missing.copied().collect();
            let report = queue.opened();
            let told = !report.lost.is_empty() || !report.damaged.is_empty() || report.torn_bytes > 0;
            if !(told || DurableQueue::stats(&queue).lost > 0) {
                assert!(missing.is_empty(), "silent, with {missing:?} missing");
                // It hit what nobody waits for in a segment that opening did not read, or bytes between entries there.
                let inspector = DurableQueue::inspector().env(machine.env()).from_device();
                let looked = inspector.look(DIR).await.unwrap();
                let verified = queue.verify(|_| {}).await.unwrap();
                assert!(!looked.damaged().is_empty(), "it is never told");
                assert_eq!(
                    verified.lost.is_empty(),
                    looked.lost().is_empty(),
                    "{:?}",
                    looked.lost()
                );
            }
            let batches: BTreeSet<_> = missing.iter().map(|seq| self.sent[seq].1).collect();
            assert!(batches.len() <= 1, "more than a frame: {missing:?}");
            if let Some(hit) = hit {
                assert!(
                    missing.is_empty() || missing == [hit],
                    "more than message {hit}: {missing:?}"
                );
            }
            let told =
                |seq| report.lost.iter().any(|lost| lost.seqs.contains(seq)) || DurableQueue::stats(&queue).lost > 0;
            assert!(missing.iter().all(told), "{missing:?} are missing: {report:?}");
            queue.topic("t").send("and on").await.unwrap();
        });
    }

    fn hit(&self, payloads: &[(&str, Range<usize>, u64)], name: &str, byte: usize) -> Option<u64> {
        let hit = payloads
            .iter()
            .find(|(file, bytes, _)| *file == name && bytes.contains(&byte));
        hit.map(|(_, _, seq)| *seq)
    }
}

/// Names the bit at which a check fails.
struct Named<'a>(&'a str, usize);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "whoever sees the test fail needs the bit")]
            {
                eprintln!("this was bit {} of {}", self.1, self.0);
            }
        }
    }
}

fn flip(written: &Written, payloads: &[(&str, Range<usize>, u64)], name: &str, bit: usize) {
    let _named = Named(name, bit);
    written.check(name, bit, written.hit(payloads, name, bit / 8));
}

#[test]
fn any_flipped_bit_of_a_small_queue_costs_a_frame_at_most() {
    let written = write(12, &[1, 3]);
    let payloads = written.payloads();
    let mut flips = 0;
    for (name, used) in written.segments() {
        let len = written.files[name].len();
        // Of the zeros that wait for more, a bit here and there.
        for bit in (0..used * 8).chain((used * 8..len * 8).step_by(1_009)) {
            flip(&written, &payloads, name, bit);
            flips += 1;
        }
    }
    support::report("queue with a flipped bit", "bits of a small queue", flips);
    assert!(flips > 15_000, "{flips} bits");
}

#[test]
fn a_flipped_bit_among_a_thousand_messages_costs_a_frame_at_most() {
    let written = write(1_000, &[1, 1, 7, 1, 20]);
    let payloads = written.payloads();
    let segments = written.segments();
    assert!(segments.len() > 3, "{} segments", segments.len());
    let bytes = |(name, used)| (0..used).map(move |byte| (name, byte));
    let bytes: Vec<_> = segments.into_iter().flat_map(bytes).collect();
    let flips: Vec<_> = match support::long() {
        true => bytes.iter().map(|(name, byte)| (*name, byte * 8 + byte % 8)).collect(),
        false => support::seeds(support::SEEDS)
            .map(|seed| {
                let mut rng = World::new(seed).rng("bit");
                let (name, byte) = bytes[rng.index(bytes.len())];
                (name, byte * 8 + rng.index(8))
            })
            .collect(),
    };
    let mut hits = 0;
    for (name, bit) in &flips {
        hits += u64::from(written.hit(&payloads, name, bit / 8).is_some());
        flip(&written, &payloads, name, *bit);
    }
    support::report(
        "queue with a flipped bit",
        "bits among a thousand messages",
        flips.len() as u64,
    );
    support::report("queue with a flipped bit", "of them in a payload", hits);
}
