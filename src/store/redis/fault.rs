//! What the client and the server report, in the words of every store.

use crate::store::{Effect, Error};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The error of a call that was sent. `effect` is what it leaves behind where nothing better is known.
pub(super) fn of_call(error: &RedisError, effect: Effect) -> Error {
    let what = || format!("the Redis server answered: {error}");
    match (error.kind(), error.code()) {
        // It refused before it did anything.
        (_, Some("OOM")) => Error::Full { what: what() },
        (
            _,
            Some(
                "LOADING" | "BUSY" | "MISCONF" | "READONLY" | "NOREPLICAS" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN",
            ),
        ) => Error::unavailable(what(), Effect::None),
        (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) | (ErrorKind::AuthenticationFailed, _) => Error::invalid(what()),
        (ErrorKind::Server(_) | ErrorKind::Extension, _) => Error::Other(std::sync::Arc::new(error.clone())),
        (ErrorKind::Parse | ErrorKind::UnexpectedReturnType, _) => Error::unavailable(what(), effect),
        _ => Error::unavailable(format!("the Redis server: {error}"), effect),
    }
}

/// The error of an attempt to connect: nothing was asked of the server yet.
pub(super) fn of_dial(error: &RedisError) -> Error {
    match of_call(error, Effect::None) {
        Error::Other(_) => Error::invalid(format!("the Redis server refused the connection: {error}")),
        error => error,
    }
}

/// Whether the server does not know a script, which it forgets when it starts.
pub(super) fn is_unknown_script(error: &Error) -> bool {
    let Error::Other(error) = error else { return false };
    let error = error.downcast_ref::<RedisError>();
    error.is_some_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}
