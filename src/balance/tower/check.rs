use crate::balance::Endpoint;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, Uri};
use http_body::Body;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use tower_service::Service;

/// Asks an endpoint's service for a page: the endpoint is well if the status is 2xx. What `Pool::check` takes.
///
/// `page` is as the service wants it: `/health` for one that knows its server, with scheme and authority for one that does
/// not. The body is read up to a thousand frames, so that the connection can be used again.
///
/// ```
/// use futures::future::BoxFuture;
/// use http::{Request, Response};
/// use outgrow::balance::Endpoint;
/// use outgrow::balance::tower::http_check;
/// # use std::convert::Infallible;
/// # use std::task::{Context, Poll};
/// # #[derive(Clone)]
/// # struct Server(u16);
/// # impl tower_service::Service<Request<String>> for Server {
/// #     type Response = Response<String>;
/// #     type Error = Infallible;
/// #     type Future = BoxFuture<'static, Result<Response<String>, Infallible>>;
/// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
/// #         Poll::Ready(Ok(()))
/// #     }
/// #     fn call(&mut self, request: Request<String>) -> Self::Future {
/// #         assert_eq!(request.uri(), "/health");
/// #         let response = Response::builder().status(self.0).body(String::new());
/// #         Box::pin(async { Ok(response.expect("a status")) })
/// #     }
/// # }
///
/// // `Server` stands in for a client of one server, here one that always answers with the same status.
/// let check = http_check("/health".parse()?);
/// # futures::executor::block_on(async {
/// assert!(check(&Endpoint::new("a").target(Server(204))).await.is_ok());
/// let not_well = check(&Endpoint::new("b").target(Server(503))).await.unwrap_err();
/// assert_eq!(not_well.to_string(), "the status is 503 Service Unavailable");
/// # });
/// # Ok::<(), http::uri::InvalidUri>(())
/// ```
pub fn http_check<S, Asked, Answered>(
    page: Uri,
) -> impl Fn(&Endpoint<S>) -> BoxFuture<'static, Result<(), NotWell>> + Clone + Send + Sync + 'static
where
    S: Service<Request<Asked>, Response = Response<Answered>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: fmt::Display,
    Asked: Default + Send + 'static,
    Answered: Body + Send + 'static,
    Answered::Data: Send,
    Answered::Error: fmt::Display + Send,
{
    move |endpoint| {
        let (service, mut request) = (endpoint.target.clone(), Request::new(Asked::default()));
        *request.uri_mut() = page.clone();
        Box::pin(ask(service, request))
    }
}

/// Why an endpoint is not well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotWell {
    /// The page has another status than 2xx.
    #[error("the status is {0}")]
    Status(StatusCode),
    /// The page could not be had.
    #[error("{0}")]
    Failed(String),
}

async fn ask<S, Asked, Answered>(mut service: S, request: Request<Asked>) -> Result<(), NotWell>
where
    S: Service<Request<Asked>, Response = Response<Answered>>,
    S::Error: fmt::Display,
    Answered: Body,
    Answered::Error: fmt::Display,
{
    let failed = |error: S::Error| NotWell::Failed(error.to_string());
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    let response = service.call(request).await.map_err(failed)?;
    let status = response.status();
    let mut body = pin!(response.into_body());
    for _ in 0..MOST_FRAMES {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            Some(frame) => drop(frame.map_err(|error| NotWell::Failed(error.to_string()))?),
            None => break,
        }
    }
    if status.is_success() {
        Ok(())
    } else {
        Err(NotWell::Status(status))
    }
}

const MOST_FRAMES: usize = 1_000;
