//! Servers on this machine and clients that call them, for the examples of balancing.
#![allow(dead_code, reason = "each example takes what it needs")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "programs for the terminal, with real servers"
)]

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use outgrow::balance::{EndpointStatus, PoolStatus};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A server on a free port, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepts: JoinHandle<()>,
}

impl Server {
    /// Hands each connection to `serve`.
    pub(crate) async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> std::io::Result<Server>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accepts = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection));
            }
        });
        Ok(Server { address, accepts })
    }

    /// Answers every request with this status, after a while.
    pub(crate) async fn answering(status: StatusCode, after: Duration) -> std::io::Result<Server> {
        let answer = move |_: Request<Incoming>| async move {
            tokio::time::sleep(after).await;
            let mut response = Response::new(Full::new(Bytes::from_static(b"hello\n")));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        };
        Server::start(move |connection| async move {
            // A client that goes away in the middle of a request is no news.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(connection), service_fn(answer))
                .await;
        })
        .await
    }

    /// Two that are well and take 5 ms, and one that fails at once.
    pub(crate) async fn three() -> std::io::Result<[Server; 3]> {
        let well = || Server::answering(StatusCode::OK, Duration::from_millis(5));
        let failing = Server::answering(StatusCode::INTERNAL_SERVER_ERROR, Duration::ZERO).await?;
        Ok([well().await?, failing, well().await?])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

/// How the requests of a while went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
}

/// Sends requests from eight tasks for two seconds; `send` says whether the answer was good. Returns how those of the
/// first second went, and how the others.
pub(crate) async fn drive<F>(send: impl Fn() -> F + Clone + Send + 'static) -> [Tally; 2]
where
    F: Future<Output = bool> + Send + 'static,
{
    let start = Instant::now();
    let clients: Vec<_> = (0..8).map(|_| tokio::spawn(client(start, send.clone()))).collect();
    let mut all = [Tally::default(); 2];
    for client in clients {
        for (all, its) in all.iter_mut().zip(client.await.expect("a client does not panic")) {
            all.sent += its.sent;
            all.failed += its.failed;
        }
    }
    all
}

async fn client<F: Future<Output = bool>>(start: Instant, send: impl Fn() -> F) -> [Tally; 2] {
    let mut tallies = [Tally::default(); 2];
    while start.elapsed() < Duration::from_secs(2) {
        let tally = &mut tallies[usize::from(start.elapsed() >= Duration::from_secs(1))];
        tally.sent += 1;
        tally.failed += u64::from(!send().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tallies
}

/// Prints what each server got, and how many requests failed.
pub(crate) fn report(pool: &PoolStatus, [first, later]: &[Tally; 2]) {
    let ended = |of: &EndpointStatus| of.succeeded + of.failed;
    let all: u64 = pool.endpoints.iter().map(ended).sum();
    for of in &pool.endpoints {
        let share = 100.0 * ended(of) as f64 / all as f64;
        println!(
            "{}: {} requests ({share:.1} %), {} failed, ejected {} times",
            of.id,
            ended(of),
            of.failed,
            of.ejections
        );
    }
    println!("the first second: {} of {} requests failed", first.failed, first.sent);
    println!("the second after: {} of {} requests failed", later.failed, later.sent);
}
