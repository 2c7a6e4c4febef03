use super::BlockStatus;
use crate::env::Env;
use futures::future::BoxFuture;
use std::sync::Arc;

/// A part of a system, as one who operates it sees it. The blocks of this crate are; a service adds its own.
///
/// ```
/// use futures::FutureExt;
/// use futures::future::{BoxFuture, ready};
/// use outgrow::env::Env;
/// use outgrow::system::{Block, BlockStatus, Health};
///
/// struct Mailer;
///
/// impl Block for Mailer {
///     fn kind(&self) -> &'static str {
///         "mailer"
///     }
///     fn status(&self) -> BlockStatus {
///         BlockStatus::new(Health::Ready).figure("sent", 12.0)
///     }
///     fn drain<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, ()> {
///         ready(()).boxed()
///     }
///     fn close(&self) -> BoxFuture<'_, ()> {
///         ready(()).boxed()
///     }
/// }
/// # assert_eq!(Mailer.status().figures["sent"], 12.0);
/// ```
pub trait Block: Send + Sync {
    /// What it is, in a word or two: `replicated store`.
    fn kind(&self) -> &'static str;

    /// How it is at this moment. Quick, and never fails.
    fn status(&self) -> BlockStatus;

    /// Takes nothing new and waits for what it has begun. May be called again, also after a call that was dropped.
    fn drain<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, ()>;

    /// Stops its background tasks and gives its files back. May be called again.
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<B: Block + ?Sized> Block for Arc<B> {
    fn kind(&self) -> &'static str {
        (**self).kind()
    }

    fn status(&self) -> BlockStatus {
        (**self).status()
    }

    fn drain<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, ()> {
        (**self).drain(env)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        (**self).close()
    }
}
