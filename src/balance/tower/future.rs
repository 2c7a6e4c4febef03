use super::body::LeasedBody;
use super::load::LoadReader;
use super::sending::Sending;
use super::{BalanceError, Classify};
use crate::balance::{Balancer, Outcome};
use http::Response;
use http_body::Body;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_service::Service;

pin_project_lite::pin_project! {
    /// The response to an HTTP request, to come; of a [`BalanceService`](super::BalanceService).
    ///
    /// # Cancel safety
    /// Dropping it drops the request, which counts as cancelled.
    #[must_use = "futures do nothing unless they are polled"]
    pub struct HttpFuture<B, T, S, R, C>
    where
        B: Balancer,
        T: Send,
        T: Sync,
        T: 'static,
        S: Service<R>,
    {
        #[pin]
        pub(super) sending: Sending<B, T, S, R>,
        pub(super) classify: C,
        pub(super) loads: LoadReader,
    }
}

impl<B, T, S, R, C, Inner> Future for HttpFuture<B, T, S, R, C>
where
    B: Balancer,
    T: Send + Sync + 'static,
    S: Service<R, Response = Response<Inner>>,
    C: Classify<Response<Inner>, S::Error>,
    Inner: Body,
{
    type Output = Result<Response<LeasedBody<Inner, B, T>>, BalanceError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (lease, outcome, answer) = ready!(this.sending.poll_answer(cx))?.judge(this.classify);
        if let Ok(response) = &answer
            && let Some(load) = this.loads.read(response.headers())
        {
            lease.report_load(load);
        }
        // A failure is told at once: the pool should know before the client has read, or thrown away, the page that says
        // so.
        let goes_on = answer.as_ref().is_ok_and(|response| !response.body().is_end_stream());
        let lease = if outcome == Outcome::Success && goes_on {
            Some(lease)
        } else {
            lease.finish(outcome);
            None
        };
        Poll::Ready(answer.map(|response| response.map(|body| LeasedBody::new(body, lease, *this.loads))))
    }
}

impl<B, T, S, R, C> fmt::Debug for HttpFuture<B, T, S, R, C>
where
    B: Balancer,
    T: Send + Sync + 'static,
    S: Service<R>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFuture").finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// The response to any request, to come; of a [`BalanceService`](super::BalanceService).
    ///
    /// # Cancel safety
    /// Dropping it drops the request, which counts as cancelled.
    #[must_use = "futures do nothing unless they are polled"]
    pub struct PlainFuture<B, T, S, R, C>
    where
        B: Balancer,
        T: Send,
        T: Sync,
        T: 'static,
        S: Service<R>,
    {
        #[pin]
        pub(super) sending: Sending<B, T, S, R>,
        pub(super) classify: C,
    }
}

impl<B, T, S, R, C> Future for PlainFuture<B, T, S, R, C>
where
    B: Balancer,
    T: Send + Sync + 'static,
    S: Service<R>,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, BalanceError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (lease, outcome, answer) = ready!(this.sending.poll_answer(cx))?.judge(this.classify);
        lease.finish(outcome);
        Poll::Ready(answer)
    }
}

impl<B, T, S, R, C> fmt::Debug for PlainFuture<B, T, S, R, C>
where
    B: Balancer,
    T: Send + Sync + 'static,
    S: Service<R>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainFuture").finish_non_exhaustive()
    }
}
