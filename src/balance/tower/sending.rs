use super::{Avoid, BalanceError, Classify};
use crate::balance::attempts::Verdict;
use crate::balance::{Balancer, Failure, Lease, Outcome, PickError, Pool, Request};
use crate::env::{Sleep, Tick};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tower_service::Service;

pin_project_lite::pin_project! {
    /// A request on its way through the service of the endpoint that was picked for it.
    pub(super) struct Sending<B, T, S, R>
    where
        B: Balancer,
        T: Send,
        T: Sync,
        T: 'static,
        S: Service<R>,
    {
        picked: Option<Picked<B, T>>,
        // Until the service has been ready for it.
        waiting: Option<(S, R)>,
        #[pin]
        sent: Option<S::Future>,
    }
}

/// The endpoint of a request, or why there is none.
pub(super) struct Picked<B: Balancer, T: Send + Sync + 'static> {
    lease: Result<Lease<B, T>, PickError>,
    limit: Option<Limit>,
    avoid: Option<Avoid>,
}

struct Limit {
    sleep: Sleep,
    /// Whether it says something about the endpoint that time was up.
    blames: bool,
}

/// What the endpoint's service said; the lease has not ended.
pub(super) struct Answered<B: Balancer, T: Send + Sync + 'static, Res, E> {
    pub(super) lease: Lease<B, T>,
    avoid: Option<Avoid>,
    answer: Result<Res, E>,
}

impl<B: Balancer, T: Send + Sync + 'static, Res, E> Answered<B, T, Res, E> {
    /// Judges the answer, and tells whoever sent the request.
    pub(super) fn judge(
        self,
        classify: &impl Classify<Res, E>,
    ) -> (Lease<B, T>, Outcome, Result<Res, BalanceError<E>>) {
        let outcome = classify.classify(&self.answer);
        if let Some(avoid) = self.avoid {
            avoid.note(outcome);
        }
        (self.lease, outcome, self.answer.map_err(BalanceError::Service))
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Picked<B, T> {
    /// Picks an endpoint of `pool`; one that `avoid` has already only if there is no other and it is not strict.
    pub(super) fn pick(
        pool: &Pool<B, T>,
        request: Request<'_>,
        avoid: Option<Avoid>,
        timeout: Option<Duration>,
    ) -> Picked<B, T> {
        let first = avoid.as_ref().is_none_or(|avoid| avoid.lock().is_empty());
        let lease = match &avoid {
            None => pool.pick(&request),
            Some(avoid) => choose(pool, request, avoid).map_err(|refused| {
                avoid.note(refused);
                match refused {
                    Verdict::Refused(error) => error,
                    _ => PickError::NoEndpoints,
                }
            }),
        };
        Picked {
            limit: limit(pool, request.deadline, timeout, first),
            lease,
            avoid,
        }
    }

    /// The endpoint's target.
    pub(super) fn target(&self) -> Option<&T> {
        self.lease.as_ref().ok().map(|lease| &lease.target)
    }

    fn answered<Res, E>(self, answer: Result<Res, E>) -> Judgeable<B, T, Res, E> {
        Ok(Answered {
            lease: self.lease.map_err(BalanceError::Pick)?,
            avoid: self.avoid,
            answer,
        })
    }

    /// Ends the lease, if there is one.
    fn finish(self, outcome: Outcome) {
        if let Ok(lease) = self.lease {
            lease.finish(outcome);
        }
        if let Some(avoid) = self.avoid {
            avoid.note(outcome);
        }
    }
}

/// Picks for a request that was sent before, or may be again, and notes what was picked.
fn choose<B: Balancer, T: Send + Sync + 'static>(
    pool: &Pool<B, T>,
    request: Request<'_>,
    avoid: &Avoid,
) -> Result<Lease<B, T>, Verdict> {
    let mut tried = avoid.lock();
    let request = Request {
        avoid: &tried,
        ..request
    };
    let lease = pool.pick(&request).map_err(Verdict::Refused)?;
    if avoid.strict && tried.contains(lease.id()) {
        return Err(Verdict::NoOther);
    }
    tried.push(lease.id().clone());
    Ok(lease)
}

fn limit<B: Balancer, T: Send + Sync + 'static>(
    pool: &Pool<B, T>,
    deadline: Option<Tick>,
    timeout: Option<Duration>,
    first: bool,
) -> Option<Limit> {
    let env = &pool.shared.core.env;
    let whole = timeout.map(|timeout| env.now() + timeout);
    let at = whole.unwrap_or(Tick::MAX).min(deadline.unwrap_or(Tick::MAX));
    (whole.is_some() || deadline.is_some()).then(|| Limit {
        sleep: env.sleep_until(at),
        blames: first || Some(at) == whole,
    })
}

impl<B: Balancer, T: Send + Sync + 'static, S: Service<R>, R> Sending<B, T, S, R> {
    /// Sends a request through the service of the endpoint that was picked, if one was.
    pub(super) fn new(picked: Picked<B, T>, waiting: Option<(S, R)>) -> Sending<B, T, S, R> {
        Sending {
            picked: Some(picked),
            waiting,
            sent: None,
        }
    }

    /// What the endpoint's service says, or why it says nothing.
    pub(super) fn poll_answer(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Judgeable<B, T, S::Response, S::Error>> {
        let mut this = self.project();
        let picked = this.picked.as_mut().expect("a future is not polled after it was ready");
        if let Err(error) = picked.lease {
            return Poll::Ready(Err(BalanceError::Pick(error)));
        }
        let polled = match poll_service(this.waiting, this.sent.as_mut(), cx) {
            Poll::Ready(polled) => Some(polled),
            Poll::Pending => {
                let Some(limit) = &mut picked.limit else {
                    return Poll::Pending;
                };
                ready!(Pin::new(&mut limit.sleep).poll(cx));
                None
            }
        };
        let blames = picked.limit.as_ref().is_some_and(|limit| limit.blames);
        let picked = this.picked.take().expect("it was there just now");
        Poll::Ready(match polled {
            Some(Ok(answer)) => picked.answered(answer),
            Some(Err(error)) => {
                picked.finish(Outcome::Failure(Failure::Connect));
                Err(BalanceError::Service(error))
            }
            None => {
                // What is under way is dropped at once, and not only with this future.
                this.sent.set(None);
                *this.waiting = None;
                picked.finish(if blames {
                    Outcome::Failure(Failure::Timeout)
                } else {
                    Outcome::Cancelled
                });
                Err(BalanceError::Timeout)
            }
        })
    }
}

/// An answer to be judged, or the error that there is instead.
type Judgeable<B, T, Res, E> = Result<Answered<B, T, Res, E>, BalanceError<E>>;

/// What a service said, or how it failed to become ready for the request.
type Said<Res, E> = Result<Result<Res, E>, E>;

/// Sends the request when its service is ready, and waits for the answer.
fn poll_service<S: Service<R>, R>(
    waiting: &mut Option<(S, R)>,
    mut sent: Pin<&mut Option<S::Future>>,
    cx: &mut Context<'_>,
) -> Poll<Said<S::Response, S::Error>> {
    if let Some((service, _)) = waiting {
        if let Err(error) = ready!(service.poll_ready(cx)) {
            return Poll::Ready(Err(error));
        }
        if let Some((mut service, request)) = waiting.take() {
            sent.set(Some(service.call(request)));
        }
    }
    let sent = sent.as_pin_mut().expect("the request waits, or it was sent");
    sent.poll(cx).map(Ok)
}
