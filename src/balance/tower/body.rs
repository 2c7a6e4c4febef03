use super::classify::by_grpc_status;
use super::load::LoadReader;
use crate::balance::{Balancer, Failure, Lease, Outcome};
use http_body::{Body, Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pin_project_lite::pin_project! {
    /// The body of a response, which holds the lease of the endpoint that sends it.
    ///
    /// The lease ends with the body: as a success, as a failure if the body breaks off with an error, or as the
    /// `grpc-status` in its trailers says. Of a response that was judged a failure by its head the lease has ended before.
    /// Dropping a body before its end counts as cancelled.
    pub struct LeasedBody<Inner, B, T>
    where
        B: Balancer,
        T: Send,
        T: Sync,
        T: 'static,
    {
        #[pin]
        inner: Inner,
        lease: Option<Lease<B, T>>,
        loads: LoadReader,
    }
}

impl<Inner: Body, B: Balancer, T: Send + Sync + 'static> LeasedBody<Inner, B, T> {
    pub(super) fn new(inner: Inner, lease: Option<Lease<B, T>>, loads: LoadReader) -> LeasedBody<Inner, B, T> {
        LeasedBody { inner, lease, loads }
    }
}

impl<Inner: Body, B: Balancer, T: Send + Sync + 'static> Body for LeasedBody<Inner, B, T> {
    type Data = Inner::Data;
    type Error = Inner::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        let outcome = match &frame {
            None => Some(Outcome::Success),
            Some(Err(_)) => Some(Outcome::Failure(Failure::Other)),
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => {
                    if let (Some(lease), Some(load)) = (&this.lease, this.loads.read(trailers)) {
                        lease.report_load(load);
                    }
                    Some(by_grpc_status(trailers).unwrap_or(Outcome::Success))
                }
                // Who knows the length does not ask for more.
                None => this.inner.is_end_stream().then_some(Outcome::Success),
            },
        };
        if let Some(outcome) = outcome
            && let Some(lease) = this.lease.take()
        {
            lease.finish(outcome);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<Inner: Default, B: Balancer, T: Send + Sync + 'static> Default for LeasedBody<Inner, B, T> {
    fn default() -> Self {
        LeasedBody {
            inner: Inner::default(),
            lease: None,
            loads: LoadReader::default(),
        }
    }
}

impl<Inner: fmt::Debug, B: Balancer, T: Send + Sync + 'static> fmt::Debug for LeasedBody<Inner, B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedBody")
            .field("inner", &self.inner)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
