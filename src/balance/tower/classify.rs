use crate::balance::{Failure, Outcome};
use http::{HeaderMap, Response, StatusCode};
use std::error::Error;
use std::io;
use std::time::Duration;

/// Says how a request went, by what its service answered. Closures can: `|answer: &Result<_, _>| Outcome::Success`.
pub trait Classify<Response, E> {
    /// How a request went that was answered so. Of an HTTP response the body is yet to come: a success may still fail with
    /// it.
    fn classify(&self, answer: &Result<Response, E>) -> Outcome;
}

impl<F, Response, E> Classify<Response, E> for F
where
    F: Fn(&Result<Response, E>) -> Outcome,
{
    fn classify(&self, answer: &Result<Response, E>) -> Outcome {
        self(answer)
    }
}

/// Judges HTTP and gRPC responses as it is usual.
///
/// | answer | outcome |
/// |---|---|
/// | 429 or 503 with a `Retry-After` of a second or more | back-off |
/// | another 5xx | [`Failure::Response`] |
/// | any other status without a `grpc-status` | success: 4xx is for the client to mend |
/// | `grpc-status` 2, 8, 13, 14, 15 (unknown, exhausted, internal, unavailable, data loss) | back-off if there is a `grpc-retry-pushback-ms`, else [`Failure::Response`] |
/// | `grpc-status` 4 (deadline exceeded) | [`Failure::Timeout`] |
/// | any other `grpc-status` | success |
/// | an error | by its causes: see [`failure_of`] |
///
/// A `Retry-After` that is a date is not read, and counts as none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByStatus;

impl<B, E: Error + 'static> Classify<Response<B>, E> for ByStatus {
    fn classify(&self, answer: &Result<Response<B>, E>) -> Outcome {
        match answer {
            Ok(response) => by_head(response.status(), response.headers()),
            Err(error) => Outcome::Failure(failure_of(error)),
        }
    }
}

fn by_head(status: StatusCode, headers: &HeaderMap) -> Outcome {
    if let Some(outcome) = by_grpc_status(headers) {
        return outcome;
    }
    let asks = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    match number(headers, "retry-after").filter(|secs| asks && *secs > 0) {
        Some(secs) => Outcome::Backoff(Duration::from_secs(secs)),
        None if status.is_server_error() => Outcome::Failure(Failure::Response),
        None => Outcome::Success,
    }
}

/// How a gRPC request went, by the headers or trailers that say it; none if they do not.
pub(super) fn by_grpc_status(headers: &HeaderMap) -> Option<Outcome> {
    Some(match number(headers, "grpc-status")? {
        4 => Outcome::Failure(Failure::Timeout),
        2 | 8 | 13..=15 => match number(headers, "grpc-retry-pushback-ms").filter(|millis| *millis > 0) {
            Some(millis) => Outcome::Backoff(Duration::from_millis(millis)),
            None => Outcome::Failure(Failure::Response),
        },
        _ => Outcome::Success,
    })
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// What kind of failure an error is, by the [`io::Error`]s among its causes: [`Failure::Connect`] if a connection was
/// refused or there is no way to the address, [`Failure::Timeout`] if time was up, else [`Failure::Other`].
///
/// A client that knows more, such as hyper-util's and reqwest's `is_connect`, is better asked itself.
///
/// ```
/// use outgrow::balance::Failure;
/// use outgrow::balance::tower::failure_of;
/// use std::io::{Error, ErrorKind};
/// let refused = Error::from(ErrorKind::ConnectionRefused);
/// assert_eq!(failure_of(&refused), Failure::Connect);
/// assert_eq!(failure_of(&Error::other(refused)), Failure::Connect);
/// assert_eq!(failure_of(&Error::from(ErrorKind::ConnectionReset)), Failure::Other, "it may have been sent");
/// ```
#[must_use]
pub fn failure_of(error: &(dyn Error + 'static)) -> Failure {
    let mut cause = Some(error);
    for _ in 0..MOST_CAUSES {
        let Some(this) = cause else { break };
        cause = this.source();
        let Some(this) = this.downcast_ref::<io::Error>() else {
            continue;
        };
        match this.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
            // Of a socket that is a file.
            | io::ErrorKind::NotFound => return Failure::Connect,
            io::ErrorKind::TimedOut => return Failure::Timeout,
            // What it wraps is no source of its, only that thing's source is.
            _ => cause = this.get_ref().map(|inner| inner as _).or(cause),
        }
    }
    Failure::Other
}

/// An error that is its own cause ends there.
const MOST_CAUSES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn outcome(status: u16, headers: &[(&'static str, &str)]) -> Outcome {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        ByStatus.classify(&Ok::<_, Infallible>(response.body(()).unwrap()))
    }

    #[test]
    fn statuses_are_judged_as_the_table_says() {
        const FAILED: Outcome = Outcome::Failure(Failure::Response);
        let secs = |secs| Outcome::Backoff(Duration::from_secs(secs));
        assert_eq!(
            [200, 301, 404, 429].map(|status| outcome(status, &[])),
            [Outcome::Success; 4]
        );
        assert_eq!([500, 502, 503, 504].map(|status| outcome(status, &[])), [FAILED; 4]);
        let after = |status, value| outcome(status, &[("retry-after", value)]);
        assert_eq!((after(429, "7"), after(503, " 7 ")), (secs(7), secs(7)));
        assert_eq!((after(500, "7"), after(200, "7")), (FAILED, Outcome::Success));
        assert_eq!(
            (after(503, "0"), after(503, "Fri, 31 Dec 1999 23:59:59 GMT")),
            (FAILED, FAILED)
        );
    }

    #[test]
    fn grpc_says_it_in_a_header_of_its_own() {
        let by_code = |code: u32| outcome(200, &[("grpc-status", &code.to_string())]);
        let failed: Vec<u32> = (0..=16)
            .filter(|code| by_code(*code) == Outcome::Failure(Failure::Response))
            .collect();
        assert_eq!(failed, [2, 8, 13, 14, 15]);
        assert_eq!(by_code(4), Outcome::Failure(Failure::Timeout));
        let pushed = outcome(200, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "250")]);
        assert_eq!(pushed, Outcome::Backoff(Duration::from_millis(250)));
    }

    #[test]
    fn an_error_is_what_its_causes_are() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let of = |kind: io::ErrorKind| failure_of(&Outer(kind.into()));
        assert_eq!(of(io::ErrorKind::ConnectionRefused), Failure::Connect);
        assert_eq!(of(io::ErrorKind::TimedOut), Failure::Timeout);
        assert_eq!(of(io::ErrorKind::BrokenPipe), Failure::Other);
        let nested = Outer(io::Error::other(Outer(io::Error::other(Outer(
            io::ErrorKind::HostUnreachable.into(),
        )))));
        assert_eq!(failure_of(&nested), Failure::Connect);
    }
}
