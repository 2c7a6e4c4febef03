//! A mailer whose queue changes from a directory of its own to a NATS cluster by one line: `run` knows a `Queue`, and not
//! which. `cargo run --features nats --example queue_jetstream`, or with `-- nats://127.0.0.1:4222` on servers of yours
#![allow(clippy::print_stdout, reason = "a program, not a library")]
#![allow(clippy::disallowed_methods, reason = "a program, not a library")]

use outgrow::env::Env;
use outgrow::queue::{DEAD_REASON, DurableQueue, JetStreamQueue, Message, Queue, Result, Topic, dead_letters};
use std::time::Duration;

/// What became of the letters: those that were sent out, and the reasons for those that were not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    mailed: Vec<String>,
    dead: Vec<String>,
}

/// Sends three letters and mails them. One fails at first, and one always.
async fn run<Q: Queue + Clone + Unpin + 'static>(queue: Q) -> Result<Outcome> {
    let mail = Topic::new(queue.clone(), "mail");
    let dead = Topic::new(queue.clone(), &dead_letters("mail"));
    let mut undertaker = dead.subscribe("undertaker").build().await?;
    let mut mailer = mail.subscribe("mailer").max_attempts(2).build().await?;
    let letters = ["to Ada", "to Grace", "to nobody"];
    mail.send_all(letters.map(|to| Message::new(to).header("from", "us")))
        .await?;

    let mut outcome = Outcome::default();
    while outcome.mailed.len() < 2 {
        let job = mailer.next().await.expect("the queue is open")?;
        let to = String::from_utf8_lossy(job.payload()).into_owned();
        match (&*to, job.attempt()) {
            ("to nobody", _) => job.dead_letter("no such address").await?,
            ("to Grace", 1) => job.retry_in(Duration::from_millis(100)).await?,
            _ => {
                job.ack().await?;
                outcome.mailed.push(to);
            }
        }
    }
    let letter = undertaker.next().await.expect("the queue is open")?;
    let reason = letter.message().get(DEAD_REASON).unwrap_or_default();
    outcome.dead.push(String::from_utf8_lossy(&reason).into_owned());
    letter.ack().await?;
    Ok(outcome)
}

/// The example, on the NATS servers at `url` or else in a directory.
pub(crate) async fn example(url: Option<&str>) -> Result<()> {
    let outcome = match url {
        Some(url) => {
            let queue = JetStreamQueue::builder().prefix("mailer").connect(url).await?;
            for warning in queue.warnings() {
                println!("note: {warning}");
            }
            run(queue).await?
        }
        None => {
            let dir = std::env::temp_dir().join(format!("outgrow-mailer-{}", std::process::id()));
            let queue = DurableQueue::builder().env(Env::default()).open(&dir).await?;
            let outcome = run(queue.clone()).await?;
            queue.close().await;
            let _gone = std::fs::remove_dir_all(&dir);
            outcome
        }
    };
    println!(
        "mailed: {:?}, not mailed because of: {:?}",
        outcome.mailed, outcome.dead
    );
    assert_eq!(outcome.mailed, ["to Ada", "to Grace"]);
    assert_eq!(outcome.dead, ["no such address"]);
    Ok(())
}

#[allow(dead_code, reason = "a test runs the example too, by its function")]
fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(example(url.as_deref()))?)
}
