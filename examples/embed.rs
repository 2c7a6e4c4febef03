//! The smallest service on the blocks: users behind a cache on a replicated store, welcome mails through a durable
//! queue, mail servers behind a pool, all of it one system. `cargo run --example embed`
#![allow(clippy::print_stdout, reason = "a program, not a library")]

use futures::executor::block_on;
use outgrow::balance::{Endpoint, Pool, PowerOfTwo, Request};
use outgrow::cache::CachedStore;
use outgrow::env::Env;
use outgrow::queue::DurableQueue;
use outgrow::replica::{Node, ReplicatedStore};
use outgrow::store::StoreExt;
use outgrow::system::{Health, System};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

type Answer<T> = Result<T, Box<dyn Error>>;

struct Service {
    users: CachedStore<ReplicatedStore>,
    jobs: DurableQueue,
    mailers: Pool<PowerOfTwo>,
    system: System,
}

impl Service {
    async fn start(dir: &Path) -> Answer<Service> {
        let env = Env::system();
        let db = ReplicatedStore::builder().env(env.clone());
        let db = db.node(Node::new("n0")).open(dir.join("db")).await?;
        let users = CachedStore::builder(db.clone()).env(env.clone()).capacity(10_000);
        let users = users.build().await?;
        let jobs = DurableQueue::builder().env(env.clone()).open(dir.join("jobs")).await?;
        let mailers = Pool::builder(PowerOfTwo::default()).env(env.clone());
        let mailers = mailers
            .endpoints(["10.0.0.1:25", "10.0.0.2:25"].map(Endpoint::new))
            .build();
        // What others depend on comes first: it is stopped last.
        let system = System::builder()
            .env(env)
            .block("db", db)
            .block("users", users.clone())
            .block("jobs", jobs.clone())
            .block("mailers", mailers.clone())
            .build()?;
        Ok(Service {
            users,
            jobs,
            mailers,
            system,
        })
    }

    /// On disk when it returns, the job too.
    async fn sign_up(&self, id: &str, name: &'static str) -> Answer<()> {
        self.users.put(id.to_owned(), name).await?;
        self.jobs.topic("mail").send(id.to_owned()).await?;
        Ok(())
    }

    /// Sends `count` welcome mails. A job that fails is delivered again.
    async fn mail(&self, count: usize) -> Answer<()> {
        let mut jobs = self
            .jobs
            .topic("mail")
            .subscribe("mailer")
            .max_attempts(5)
            .build()
            .await?;
        for _ in 0..count {
            let job = jobs.next().await.ok_or("the queue is closed")??;
            let user = self.users.read(job.payload()).await?.ok_or("a job of nobody")?;
            let server = self.mailers.pick(&Request::new())?;
            println!("welcome {} by {}", String::from_utf8_lossy(&user.value), server.id());
            server.succeed();
            job.ack().await?;
        }
        Ok(())
    }
}

async fn run(dir: &Path) -> Answer<()> {
    let service = Service::start(dir).await?;
    service.sign_up("user/7", "Ada").await?;
    service.sign_up("user/8", "Grace").await?;
    service.mail(1).await?;
    let status = service.system.status();
    println!("{status}");
    assert_eq!(status.health, Health::Ready);
    assert!(service.system.shut_down(Duration::from_secs(5)).await.is_clean());
    drop(service);

    // The next process, which finds everything where it was: the users, and the mail that is not sent yet.
    let service = Service::start(dir).await?;
    let user = service.users.read(b"user/7").await?.ok_or("user 7 is gone")?;
    assert_eq!(user.value, "Ada");
    let waiting = service.jobs.stats().topics["mail"].subscriptions["mailer"].backlog;
    assert_eq!(waiting, 1);
    service.mail(1).await?;
    assert!(service.system.shut_down(Duration::from_secs(5)).await.is_clean());
    println!("restarted, and nothing was lost");
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "an example is the outside world: it owns its directory"
)]
fn main() -> Answer<()> {
    let dir = std::env::temp_dir().join(format!("outgrow-embed-{}", std::process::id()));
    let answer = block_on(run(&dir));
    std::fs::remove_dir_all(&dir)?;
    answer
}
