use http::{Request, Uri};
use tower_service::Service;

/// How an HTTP request gets to the target of an endpoint.
pub trait Reach<T, Body> {
    /// What sends it.
    type Service: Service<Request<Body>>;

    /// The service for a request to `target`, and the request as that service wants it.
    fn reach(&self, target: &T, request: Request<Body>) -> (Self::Service, Request<Body>);
}

/// The target is the service: a client of one server, a `Channel`, a pool of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direct;

impl<S, Body> Reach<S, Body> for Direct
where
    S: Service<Request<Body>> + Clone,
{
    type Service = S;

    fn reach(&self, target: &S, request: Request<Body>) -> (S, Request<Body>) {
        (target.clone(), request)
    }
}

/// The target is the address of a server, and one client reaches them all. Scheme and authority of the target take the
/// place of the request's; its path and query stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Via<S>(pub S);

impl<S, Body> Reach<Uri, Body> for Via<S>
where
    S: Service<Request<Body>> + Clone,
{
    type Service = S;

    fn reach(&self, target: &Uri, mut request: Request<Body>) -> (S, Request<Body>) {
        *request.uri_mut() = at(target, request.uri());
        (self.0.clone(), request)
    }
}

/// `what` at the server of `target`; `what` itself if `target` names none.
fn at(target: &Uri, what: &Uri) -> Uri {
    let mut parts = what.clone().into_parts();
    let Some(authority) = target.authority() else {
        return what.clone();
    };
    parts.authority = Some(authority.clone());
    parts.scheme = Some(target.scheme().cloned().unwrap_or(http::uri::Scheme::HTTP));
    parts.path_and_query = parts
        .path_and_query
        .or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
    Uri::from_parts(parts).expect("a scheme, an authority and a path are all that it takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_the_targets_and_the_rest_the_requests() {
        let of = |target: &str, what: &str| at(&target.parse().unwrap(), &what.parse().unwrap()).to_string();
        assert_eq!(
            of("https://10.0.0.1:81/x", "/users/7?q=1"),
            "https://10.0.0.1:81/users/7?q=1"
        );
        assert_eq!(of("10.0.0.1:81", "http://service/users"), "http://10.0.0.1:81/users");
        assert_eq!(of("http://10.0.0.1", "http://service"), "http://10.0.0.1/");
        assert_eq!(of("/nowhere", "/users"), "/users");
    }
}
