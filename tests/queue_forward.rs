//! A real disk on which few messages stay for long while many pass: what it holds stays bounded, and after a restart the
//! few are what they were.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "this is the outside world")]

mod support;

use futures::executor::block_on;
use outgrow::queue::{DurableQueue, Message, Queue, Settle, Subscription};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const MESSAGES: u64 = 300_000;
const BATCH: u64 = 500;
/// One of so many is never acknowledged.
const STAYS: u64 = 10_000;
const SEGMENT: u64 = 256 << 10;

fn segments(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".seg")).count()
}

async fn open(dir: &Path) -> DurableQueue {
    DurableQueue::builder().segment_bytes(SEGMENT).open(dir).await.unwrap()
}

#[test]
fn one_message_of_ten_thousand_that_stays_keeps_no_segments() {
    let dir = std::env::temp_dir().join(format!("outgrow-forward-{}", std::process::id()));
    let (mut most, mut stays) = (0, BTreeMap::new());
    block_on(async {
        let queue = open(&dir).await;
        let mut from = Subscription::new("t", "s");
        from.lease = Duration::from_secs(86_400);
        queue.subscribe(&from).await.unwrap();
        for first in (0..MESSAGES).step_by(BATCH as usize) {
            let batch = (first..first + BATCH).map(|n| Message::new(format!("{n:>40}")));
            queue.send("t", batch.collect()).await.unwrap();
            let mut left = BATCH;
            while left > 0 {
                let received = queue.receive(&from, 500, Duration::from_secs(60)).await.unwrap();
                left -= received.len() as u64;
                for raw in received {
                    let text = String::from_utf8_lossy(&raw.message.payload).into_owned();
                    if text.trim().parse::<u64>().unwrap().is_multiple_of(STAYS) {
                        stays.insert(text, raw.token.seq);
                    } else {
                        queue.settle(&raw.token, Settle::Ack).await.unwrap();
                    }
                }
            }
            most = most.max(segments(&dir));
            // The queue looks a tenth of a second after something was settled: it is not to be outrun by far.
            let until = Instant::now() + Duration::from_secs(20);
            while segments(&dir) > 15 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(
                segments(&dir) <= 15,
                "{} segments, and nothing is freed",
                segments(&dir)
            );
        }
        let until = Instant::now() + Duration::from_secs(20);
        while segments(&dir) > 4 && Instant::now() < until {
            // Something has to be settled for the queue to look.
            queue.topic("t").send("x").await.unwrap();
            for raw in queue.receive(&from, 1, Duration::from_secs(1)).await.unwrap() {
                queue.settle(&raw.token, Settle::Ack).await.unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let stats = queue.stats();
        assert_eq!(stays.len() as u64, MESSAGES / STAYS);
        assert!(segments(&dir) <= 4, "{} segments in the end", segments(&dir));
        assert!(stats.rewritten >= stays.len() as u64 - 2, "{}", stats.rewritten);
        // What is settled is known for as long as its segment is there, and each message takes 50 bytes at least.
        assert!(stats.topics["t"].messages as u64 <= 4 * SEGMENT / 50, "{stats:?}");
        queue.close().await;

        let queue = open(&dir).await;
        queue.subscribe(&from).await.unwrap();
        let received = queue.receive(&from, 1_000, Duration::from_secs(10)).await.unwrap();
        let left: BTreeMap<String, u64> = received
            .iter()
            .map(|raw| {
                (
                    String::from_utf8_lossy(&raw.message.payload).into_owned(),
                    raw.token.seq,
                )
            })
            .collect();
        assert_eq!(left, stays);
        assert!(received.iter().all(|raw| raw.attempt == 2), "attempts are counted on");
        queue.close().await;
    });
    std::fs::remove_dir_all(&dir).unwrap();
    // All of it would be about 80 segments.
    support::report("queue forward", "most segments on the way", most as u64);
    assert!(most < 20, "{most} segments on the way");
}
