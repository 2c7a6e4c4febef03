//! What an inspection finds, beside an open queue and after it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::hooks::rewrite_often;
use super::testing::{SECOND, next, open, small, subscribe};
use crate::env::{Env, OpenMode, Rng, read_exact_at, write_all_at};
use crate::queue::*;
use crate::sim::World;
use futures::future::join;
use std::collections::BTreeMap;
use std::path::Path;

async fn look(env: &Env) -> Inspection {
    DurableQueue::inspector().env(env.clone()).look("q").await.unwrap()
}

/// Every file with its bytes.
async fn files(env: &Env) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in env.disk().list(Path::new("q")).await.unwrap() {
        let file = env
            .disk()
            .open(&Path::new("q").join(&name), OpenMode::Read)
            .await
            .unwrap();
        let mut bytes = vec![0; file.len().await.unwrap() as usize];
        read_exact_at(&*file, &mut bytes, 0).await.unwrap();
        files.insert(name, bytes);
    }
    files
}

/// Every message of a topic: its text, whether it is kept, and to whom it is open.
async fn all(inspection: &mut Inspection, topic: Option<&str>) -> Vec<(String, bool, Vec<(String, u32)>)> {
    let mut found = Vec::new();
    let mut messages = inspection.messages(topic);
    while let Some(message) = messages.next().await.unwrap() {
        let text = String::from_utf8(message.message.payload.to_vec()).unwrap();
        found.push((text, message.kept, message.open));
    }
    found
}

fn texts(found: &[MessageView]) -> Vec<&[u8]> {
    found.iter().map(|found| &found.message.payload[..]).collect()
}

#[test]
fn a_look_beside_an_open_queue_changes_nothing_and_finds_what_the_log_knows() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let (a, b) = (subscribe(&queue, "t", "a").await, subscribe(&queue, "t", "b").await);
        let topic = queue.topic("t");
        topic.send_all(["one", "two", "three"]).await.unwrap();
        topic.send(Message::new("late").deliver_in(60 * SECOND)).await.unwrap();
        topic
            .send(Message::new("urgent").priority(Priority::Urgent))
            .await
            .unwrap();
        queue.topic("alone").send("kept").await.unwrap();
        let urgent = next(&queue, &a).await.unwrap();
        assert_eq!(urgent.payload(), "urgent");
        next(&queue, &a).await.unwrap().ack().await.unwrap();
        next(&queue, &b).await.unwrap().dead_letter("no").await.unwrap();
        next(&queue, &b).await.unwrap().ack().await.unwrap();
        env.sleep(2 * SECOND).await;
        let before = files(&env).await;

        let mut inspection = look(&env).await;
        assert_eq!(files(&env).await, before, "nothing is written");
        assert!(inspection.damaged().is_empty() && inspection.lost().is_empty());
        assert_eq!(inspection.bytes(), queue.stats().bytes);
        let t = &inspection.topics()["t"];
        let of_a = t.subscriptions["a"];
        assert_eq!((of_a.backlog, of_a.tried, of_a.delayed), (4, 1, 1));
        assert_eq!((of_a.lag, of_a.oldest), (4, Some(4)));
        assert!(of_a.oldest_age >= 2 * SECOND && of_a.oldest_age < 4 * SECOND);
        assert_eq!((t.messages, t.dead_letters, t.subscriptions["b"].backlog), (4, 1, 3));
        assert_eq!(inspection.topics()["alone"].messages, 1);

        // Twice, since a look takes nothing.
        for _ in 0..2 {
            let peeked = inspection.peek("t", "a", 10).await.unwrap();
            assert_eq!(texts(&peeked), [b"urgent".as_slice(), b"two", b"three"]);
            assert_eq!(peeked[0].open, [("a".to_owned(), 1)], "b has buried it");
            assert_eq!(peeked[1].open, ["a", "b"].map(|name| (name.to_owned(), 0)));
        }
        let error = inspection.peek("t", "c", 1).await.unwrap_err();
        assert!(matches!(error, Error::NoSubscription { .. }));
        let found = all(&mut inspection, Some("t")).await;
        assert_eq!(found[0].0, "one");
        assert_eq!(found[0].2, [], "both have settled it");
        assert!(!found[0].1 && found[1].1);
        assert_eq!(found.len(), 5);
        assert_eq!(all(&mut inspection, Some("t.dead")).await.len(), 1);
        assert_eq!(all(&mut inspection, None).await.len(), 7);

        // The queue has not noticed.
        urgent.ack().await.unwrap();
        assert!(topic.send("more").await.is_ok());
        queue.close().await;
    });
}

#[test]
fn damage_is_told_with_its_place_and_its_numbers_and_left_where_it_is() {
    let world = World::new(2);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let seqs: Vec<u64> = {
            let topic = queue.topic("t");
            let mut seqs = Vec::new();
            for n in 0..5 {
                seqs.push(topic.send(format!("message {n}")).await.unwrap().seq);
            }
            seqs
        };
        queue.close().await;
        let before = files(&env).await;
        let (name, bytes) = before.iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
        let at = bytes.windows(9).position(|text| text == b"message 2").unwrap();
        let file = env
            .disk()
            .open(&Path::new("q").join(name), OpenMode::Existing)
            .await
            .unwrap();
        write_all_at(&*file, b"M", at as u64).await.unwrap();
        let before = files(&env).await;

        let mut inspection = look(&env).await;
        let lost = seqs[2]..seqs[2] + 1;
        let [damaged] = inspection.damaged() else {
            panic!("{inspection:?}")
        };
        assert!(
            damaged.segment == 1 && damaged.bytes.contains(&(at as u32)),
            "{damaged}"
        );
        assert_eq!(damaged.lost, std::slice::from_ref(&lost));
        assert_eq!(inspection.lost()[0].seqs, lost);
        assert_eq!(inspection.segments()[0].damaged, 1);
        let left = all(&mut inspection, Some("t")).await;
        assert_eq!(left.iter().map(|(text, ..)| &text[8..]).collect::<String>(), "0134");
        assert_eq!(files(&env).await, before, "nothing is quarantined");
    });
}

#[test]
fn any_flipped_byte_costs_at_most_what_it_hit_and_is_told() {
    let world = World::new(6);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let from = subscribe(&queue, "t", "s").await;
        let mut sent = BTreeMap::new();
        for n in 0..4 {
            let texts = [format!("{n} one"), format!("{n} two")];
            let receipts = queue.topic("t").send_all(texts.clone()).await.unwrap();
            sent.extend(receipts.iter().map(|receipt| receipt.seq).zip(texts));
        }
        next(&queue, &from).await.unwrap().ack().await.unwrap();
        queue.close().await;
        let whole = look(&env).await;
        let (end, entries) = (whole.segments()[0].bytes, whole.entries());
        let name = Path::new("q/0000000000000001.seg");
        let file = env.disk().open(name, OpenMode::Existing).await.unwrap();
        for at in 0..end {
            let mut byte = [0];
            read_exact_at(&*file, &mut byte, at).await.unwrap();
            write_all_at(&*file, &[byte[0] ^ 0x10], at).await.unwrap();
            let mut found = look(&env).await;
            let torn = found.unfinished_bytes() > 0;
            let hit = |place: &DamagedBytes| place.bytes.contains(&(at as u32));
            assert!(torn || found.damaged().iter().any(hit), "byte {at}: {found:?}");
            assert!(found.damaged().iter().all(hit), "byte {at}: {found:?}");
            let lost: Vec<_> = found.lost().iter().map(|lost| lost.seqs.clone()).collect();
            let at_places: Vec<_> = found.damaged().iter().flat_map(|place| place.lost.clone()).collect();
            assert_eq!(lost, at_places, "byte {at}");
            let most = lost.iter().map(|lost| lost.end - lost.start).sum::<u64>();
            assert!(most <= 2, "byte {at}: a frame at most: {lost:?}");
            assert!(torn || found.entries() + most == entries, "byte {at}");
            let mut left = BTreeMap::new();
            let mut messages = found.messages(None);
            while let Some(message) = messages.next().await.unwrap() {
                left.insert(
                    message.seq,
                    String::from_utf8(message.message.payload.to_vec()).unwrap(),
                );
            }
            for (seq, text) in &sent {
                let is_lost = lost.iter().any(|lost| lost.contains(seq));
                assert_eq!(
                    left.remove(seq).as_ref(),
                    (!is_lost).then_some(text),
                    "byte {at}, message {seq}"
                );
            }
            assert!(left.is_empty(), "byte {at}: {left:?}");
            write_all_at(&*file, &byte, at).await.unwrap();
        }
    });
}

#[test]
fn a_write_that_is_half_there_counts_for_nothing() {
    let world = World::new(3);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        queue.topic("t").send("whole").await.unwrap();
        queue.close().await;
        let whole = look(&env).await;
        assert_eq!(whole.unfinished_bytes(), 0);
        let segment = whole.segments()[0];
        let name = format!("q/{:016x}.seg", segment.segment);
        let file = env.disk().open(Path::new(&name), OpenMode::Existing).await.unwrap();
        write_all_at(&*file, b"oGf1 the beginning of a frame", segment.bytes)
            .await
            .unwrap();
        let mut torn = look(&env).await;
        assert!(torn.unfinished_bytes() > 0 && torn.damaged().is_empty() && torn.lost().is_empty());
        assert_eq!(all(&mut torn, None).await.len(), 1);
    });
}

#[test]
fn where_no_queue_ever_was() {
    let world = World::new(4);
    let env = world.env();
    world.run(async {
        let missing = DurableQueue::inspector().env(env.clone()).look("none").await;
        assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
        env.disk().create_dir(Path::new("q")).await.unwrap();
        let mut empty = look(&env).await;
        assert!(empty.segments().is_empty() && empty.topics().is_empty() && empty.entries() == 0);
        assert_eq!(all(&mut empty, None).await, []);
    });
}

/// Sends, acknowledges and lets go, so that segments come, go and are used again.
async fn busy(env: &Env, queue: &DurableQueue, rng: &mut Rng, steps: usize) {
    let (s, slow) = (subscribe(queue, "t", "s").await, subscribe(queue, "t", "slow").await);
    for step in 0..steps {
        let message = Message::new(format!("{step} {}", "x".repeat(rng.index(900))));
        queue.topic("t").send(message).await.unwrap();
        let from = if step % 20 > 12 { &slow } else { &s };
        for raw in queue.receive(from, 4, Duration::ZERO).await.unwrap() {
            let settle = match rng.index(10) {
                0 => Settle::Retry { after: Duration::ZERO },
                _ => Settle::Ack,
            };
            queue.settle(&raw.token, settle).await.unwrap();
        }
        if rng.chance(0.1) {
            env.sleep(Duration::from_millis(200)).await;
        }
    }
}

#[test]
fn looks_beside_a_busy_queue_never_find_damage_and_agree_with_it_when_it_rests() {
    let mut looks = 0;
    for seed in 0..30 {
        let world = World::new(seed);
        let env = world.env();
        looks += world.run(async {
            let queue = small(&env).open("q").await.unwrap();
            let mut rng = env.rng("busy");
            let mut done = false;
            let (mut looks, mut rng_of_looks) = (0, env.rng("looks"));
            {
                let work = async {
                    busy(&env, &queue, &mut rng, 150).await;
                    done = true;
                };
                let watch = async {
                    for _ in 0..12 {
                        let mut found = look(&env).await;
                        assert!(
                            found.damaged().is_empty() && found.lost().is_empty(),
                            "seed {seed}: {found:?}"
                        );
                        let backlog = found.topics().get("t").map_or(0, |t| t.messages);
                        let kept = all(&mut found, Some("t")).await;
                        // What goes while they are read goes because everybody has settled it.
                        assert!(
                            kept.iter().filter(|(_, kept, _)| *kept).count() <= backlog,
                            "seed {seed}"
                        );
                        looks += 1;
                        env.sleep(Duration::from_millis(rng_of_looks.below(40))).await;
                    }
                };
                join(work, watch).await;
            }
            assert!(done);
            env.sleep(SECOND).await;
            let (found, stats) = (look(&env).await, queue.stats());
            for (name, wanted) in &stats.topics["t"].subscriptions {
                let of = found.topics()["t"].subscriptions[name];
                assert_eq!((of.backlog, of.delayed), (wanted.backlog, 0), "seed {seed}: {name}");
                // The open queue counts settled messages that it has not forgotten yet, too.
                let lag = of.backlog..=wanted.lag;
                assert!(lag.contains(&of.lag), "seed {seed}: {name}: {} of {lag:?}", of.lag);
                let seen = [of.oldest_age, wanted.oldest_age];
                assert!(seen[0].abs_diff(seen[1]) < SECOND, "seed {seed}: {seen:?}");
            }
            let mut again = look(&env).await;
            let kept = all(&mut again, Some("t"))
                .await
                .into_iter()
                .filter(|(_, kept, _)| *kept);
            assert_eq!(found.topics()["t"].messages, kept.count(), "seed {seed}");
            assert!(
                found.topics()["t"].messages <= stats.topics["t"].messages,
                "seed {seed}"
            );
            queue.close().await;
            looks
        });
    }
    assert_eq!(looks, 30 * 12);
}

#[test]
fn a_released_segment_is_left_out_of_what_is_read_later() {
    let world = World::new(5);
    let env = world.env();
    world.run(async {
        let queue = open(&env).await;
        let from = subscribe(&queue, "t", "s").await;
        for n in 0..80 {
            queue.topic("t").send(format!("{n:>500}")).await.unwrap();
        }
        let mut found = look(&env).await;
        let oldest = found.segments()[0].segment;
        while let Some(job) = next(&queue, &from).await {
            job.ack().await.unwrap();
        }
        // Used again until its bytes are others.
        for n in 0..200 {
            queue.topic("t").send(format!("{n:>500}")).await.unwrap();
            next(&queue, &from).await.unwrap().ack().await.unwrap();
            env.sleep(Duration::from_millis(50)).await;
        }
        assert!(look(&env).await.segments()[0].segment > oldest);
        let left = all(&mut found, None).await;
        assert!(left.len() < 80, "{}", left.len());
        let texts: Vec<u64> = left.iter().map(|(text, ..)| text.trim().parse().unwrap()).collect();
        assert!(texts.is_sorted(), "an end of what there was: {texts:?}");
        assert!(texts.last().is_none_or(|last| *last == 79));
        queue.close().await;
    });
}

#[test]
fn a_message_that_was_written_again_is_shown_once() {
    let world = World::new(4);
    let env = world.env();
    world.run(async {
        let queue = rewrite_often(small(&env)).open("q").await.unwrap();
        let from = subscribe(&queue, "t", "s").await;
        let busy = subscribe(&queue, "busy", "s").await;
        queue.topic("t").send_all(["settled", "one", "two"]).await.unwrap();
        let settled = next(&queue, &from).await.unwrap();
        for round in 0..4 {
            let many = (0..20).map(|_| Message::new("x".repeat(500)));
            queue.send("busy", many.collect()).await.unwrap();
            for raw in queue.receive(&busy, 20, SECOND).await.unwrap() {
                queue.settle(&raw.token, Settle::Ack).await.unwrap();
            }
            env.sleep(SECOND).await;
            let mut inspection = look(&env).await;
            let found = all(&mut inspection, Some("t")).await;
            let open = |text: &str, attempts| (text.to_owned(), true, vec![("s".to_owned(), attempts)]);
            assert_eq!(found, [open("settled", 1), open("one", 0), open("two", 0)], "{round}");
            // Beyond the lease of the first.
            let peeked = inspection.peek("t", "s", 10).await.unwrap();
            assert_eq!(texts(&peeked), [b"settled".as_slice(), b"one", b"two"]);
            let seqs: Vec<u64> = peeked.iter().map(|message| message.seq).collect();
            assert_eq!(seqs[1..], [seqs[0] + 1, seqs[0] + 2]);
        }
        assert!(queue.stats().rewritten >= 9, "{}", queue.stats().rewritten);
        // Its copy stays until its segment goes.
        settled.ack().await.unwrap();
        env.sleep(Duration::from_millis(20)).await;
        let mut inspection = look(&env).await;
        assert!(
            inspection.segments()[0].first > Some(4),
            "the messages themselves are gone"
        );
        let found = all(&mut inspection, Some("t")).await;
        let kept = found.iter().filter(|(_, kept, _)| *kept).count();
        assert_eq!((found.len() - kept, kept), (1, 2), "{found:?}");
        queue.close().await;
    });
}
