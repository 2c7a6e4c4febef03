//! The pool as a tower service, for tonic, hyper and whatever else speaks [`tower_service::Service`] (feature `tower`).
//!
//! - [`BalanceService`] is the leaf of a stack: it picks an endpoint for each request and sends the request through the
//!   service that is the endpoint's target. It is `Clone` and always ready, and picks when it is called, so that the
//!   policy sees the request. (A service that picks in `poll_ready` cannot: there is no request yet.)
//! - [`BalanceLayer`] does the same through one client for all endpoints, by writing the endpoint's address into the
//!   request.
//! - [`RetryLayer`] goes on top and sends again, to other endpoints, and hedges.
//! - [`http_check`] asks an endpoint's page whether the endpoint is well.
//!
//! A lease of an HTTP request ends with the body of the response: until then the endpoint works on it. What the response
//! says of how it went is up to a [`Classify`], which is [`ByStatus`] by default.
//!
//! ```
//! use futures::future::BoxFuture;
//! use http::{Request, Response, StatusCode};
//! use outgrow::balance::tower::{BalanceService, RetryLayer};
//! use outgrow::balance::{Endpoint, Pool, PowerOfTwo};
//! use std::convert::Infallible;
//! use std::task::{Context, Poll};
//! use tower_layer::Layer;
//! use tower_service::Service;
//!
//! /// Stands in for a client of one server.
//! #[derive(Clone)]
//! struct Server(StatusCode);
//!
//! impl Service<Request<String>> for Server {
//!     type Response = Response<String>;
//!     type Error = Infallible;
//!     type Future = BoxFuture<'static, Result<Response<String>, Infallible>>;
//!
//!     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
//!         Poll::Ready(Ok(()))
//!     }
//!
//!     fn call(&mut self, _: Request<String>) -> Self::Future {
//!         let mut response = Response::new(String::new());
//!         *response.status_mut() = self.0;
//!         Box::pin(async { Ok(response) })
//!     }
//! }
//!
//! # futures::executor::block_on(async {
//! let pool = Pool::builder(PowerOfTwo::default())
//!     .endpoints([
//!         Endpoint::new("a").target(Server(StatusCode::OK)),
//!         Endpoint::new("b").target(Server(StatusCode::INTERNAL_SERVER_ERROR)),
//!     ])
//!     .build();
//! let mut client = RetryLayer::new().layer(BalanceService::http(pool.clone()));
//! for _ in 0..50 {
//!     let response = client.call(Request::new(String::new())).await?;
//!     assert_eq!(response.status(), StatusCode::OK);
//! }
//! assert_eq!(pool.status().endpoints[1].ejections, 1);
//! # Ok::<(), outgrow::balance::tower::BalanceError<Infallible>>(())
//! # }).unwrap();
//! ```

mod avoid;
mod body;
mod check;
mod classify;
mod future;
mod load;
mod reach;
mod retry;
mod sending;
mod service;

pub use avoid::{Avoid, Deadline};
pub use body::LeasedBody;
pub use check::{NotWell, http_check};
pub use classify::{ByStatus, Classify, failure_of};
pub use future::{HttpFuture, PlainFuture};
pub use reach::{Direct, Reach, Via};
pub use retry::{Retriable, RetryLayer, RetryService};
pub use service::{BalanceLayer, BalanceService, Http, Plain};

use super::PickError;

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BalanceError<E> {
    /// There was no endpoint, so nothing was sent.
    #[error(transparent)]
    Pick(PickError),
    /// The endpoint's service failed.
    #[error(transparent)]
    Service(E),
    /// There was no response within the [time limit](BalanceService::timeout), or before the request's [`Deadline`].
    #[error("there was no response in time")]
    Timeout,
}
