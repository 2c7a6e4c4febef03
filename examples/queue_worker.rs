//! A worker on a durable queue: mails that arrive, that fail and are tried again, that can never be sent, and a shutdown
//! that finishes what runs. `cargo run --example queue_worker`
#![allow(clippy::print_stdout, reason = "a program, not a library")]
#![allow(clippy::disallowed_methods, reason = "a program acts as the outside world")]

use bytes::Bytes;
use futures::executor::block_on;
use futures::join;
use outgrow::env::Env;
use outgrow::queue::{Backoff, DEAD_REASON, DurableQueue, Error, Job, Message, Outcome, Worker, WorkerProgress};
use std::path::Path;
use std::time::Duration;

const MAILS: [&str; 6] = ["ada", "grace", "mary", "nobody", "edsger", "slow"];

/// Sends a mail, or says why not.
async fn deliver(env: &Env, mail: Job<Bytes>) -> Result<Outcome, String> {
    let to = String::from_utf8_lossy(&mail).into_owned();
    let attempt = mail.attempt();
    match to.as_str() {
        "nobody" => return Ok(Outcome::dead_letter("no such mailbox")),
        // Any error is a failed attempt, tried again by the schedule.
        "grace" if attempt == 1 => return Err("the mail server is busy".into()),
        // Five times as long as its lease, which the worker keeps.
        "slow" => env.sleep(Duration::from_millis(1_000)).await,
        _ => env.sleep(Duration::from_millis(20)).await,
    }
    println!("to {to:<8} delivered, attempt {attempt}");
    Ok(Outcome::Done)
}

/// In a service this is a signal.
async fn all_settled(env: &Env, progress: &WorkerProgress) {
    while progress.counts().done + progress.counts().dead < MAILS.len() as u64 {
        env.sleep(Duration::from_millis(5)).await;
    }
}

async fn run(dir: &Path) -> Result<(), Error> {
    let env = Env::system();
    let queue = DurableQueue::builder().env(env.clone()).open(dir).await?;
    let mails = queue.topic("mail");
    let subscriber = mails
        .subscribe("mailer")
        .lease(Duration::from_millis(200))
        .max_attempts(4)
        .backoff(Backoff::exponential(Duration::from_millis(50), Duration::from_secs(1)))
        .build()
        .await?;
    let worker = Worker::new(subscriber).concurrency(4).grace(Duration::from_secs(10));
    let progress = worker.progress();

    let produce = async {
        mails
            .send_all(MAILS.map(|to| Message::new(to).header("from", "outgrow")))
            .await
    };
    let (sent, counts) = join!(
        produce,
        worker.run(|mail| deliver(&env, mail), all_settled(&env, &progress))
    );
    let counts = counts?;
    println!(
        "{} sent: {} done, {} tried again, {} dead",
        sent?.len(),
        counts.done,
        counts.retried,
        counts.dead
    );

    let mut dead = queue.topic("mail.dead").subscribe("postmaster").build().await?;
    let letter = dead.next().await.ok_or(Error::Closed)??;
    let reason = letter.message().get(DEAD_REASON).unwrap_or_default();
    println!("dead: {:?}, because {:?}", letter.payload(), reason);
    letter.ack().await?;
    queue.close().await;
    Ok(())
}

fn main() -> Result<(), Error> {
    let dir = std::env::temp_dir().join(format!("outgrow-queue-worker-{}", std::process::id()));
    let ran = block_on(run(&dir));
    drop(std::fs::remove_dir_all(&dir));
    ran
}
