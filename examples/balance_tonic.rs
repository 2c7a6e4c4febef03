//! gRPC behind a balancer: a tonic `Channel` for each server, and one service above them all. One of three servers fails
//! at once.
//!
//! Generated clients take the balancer as they take a `Channel`: `GreeterClient::new(BalanceService::http(pool))`. This one
//! is written by hand, with text for messages, so that nothing has to be generated.
//!
//! `cargo run --example balance_tonic --features tower`
#![allow(clippy::disallowed_methods, reason = "a program on a runtime, with real servers")]

mod servers;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outgrow::balance::tower::BalanceService;
use outgrow::balance::{Endpoint, Pool, PowerOfTwo};
use servers::{Server, drive, report};
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tower_service::Service;

const METHOD: PathAndQuery = PathAndQuery::from_static("/hello.Greeter/SayHello");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = [
        greeter(None).await?,
        greeter(Some(Code::Internal)).await?,
        greeter(None).await?,
    ];
    let mut endpoints = Vec::new();
    for server in &servers {
        let channel = Channel::from_shared(format!("http://{}", server.address))?;
        let channel = channel.connect_timeout(Duration::from_secs(1)).connect_lazy();
        endpoints.push(Endpoint::new(server.address.to_string()).target(channel));
    }
    let pool = Pool::builder(PowerOfTwo::default()).endpoints(endpoints).build();
    let client = tonic::client::Grpc::new(BalanceService::http(pool.clone()).timeout(Duration::from_secs(1)));

    let tallies = drive(move || {
        let mut client = client.clone();
        async move {
            client.ready().await.expect("a balancer is always ready");
            let answer = client.unary(Request::new("world".to_owned()), METHOD, Text).await;
            answer.is_ok_and(|answer| answer.into_inner() == "hello world")
        }
    })
    .await;
    report(&pool.status(), &tallies);
    let [first, later] = tallies;
    assert!(first.sent > 100 && later.sent > 100, "{tallies:?}");
    assert!(later.failed * 100 <= later.sent, "the bad server is out: {tallies:?}");
    Ok(())
}

/// A server that greets after 5 ms, or says at once that it cannot.
async fn greeter(fails: Option<Code>) -> std::io::Result<Server> {
    Server::start(move |connection| async move {
        let answer = move |request: http::Request<Incoming>| async move {
            let mut grpc = tonic::server::Grpc::new(Text);
            Ok::<_, Infallible>(grpc.unary(Greeter { fails }, request).await)
        };
        let server = http2::Builder::new(TokioExecutor::new());
        // A client that goes away in the middle of a request is no news.
        let _ = server
            .serve_connection(TokioIo::new(connection), service_fn(answer))
            .await;
    })
    .await
}

struct Greeter {
    fails: Option<Code>,
}

impl Service<Request<String>> for Greeter {
    type Response = Response<String>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let fails = self.fails;
        Box::pin(async move {
            if let Some(code) = fails {
                return Err(Status::new(code, "out of order"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(Response::new(format!("hello {}", request.into_inner())))
        })
    }
}

/// Messages that are plain text.
#[derive(Clone, Copy, Debug)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Text;
    type Decoder = Text;

    fn encoder(&mut self) -> Text {
        Text
    }

    fn decoder(&mut self) -> Text {
        Text
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        String::from_utf8(bytes.into())
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
