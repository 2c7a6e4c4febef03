use super::Check;
use crate::balance::Endpoint;
use crate::env::has_tokio;
use std::fmt;
use std::io;
use tokio::net::TcpStream;

/// A check that opens a TCP connection and closes it: somebody listens there (feature `tokio`).
///
/// It says nothing about whether requests are answered; for a check that does, write a closure. It must run on a tokio
/// runtime that has its I/O enabled, or else it fails.
///
/// ```no_run
/// # fn run(pool: outgrow::balance::Pool<outgrow::balance::PowerOfTwo>) -> Result<(), outgrow::balance::NeedsSpawner> {
/// use outgrow::balance::TcpCheck;
/// use std::time::Duration;
/// pool.check(TcpCheck::by_id()).interval(Duration::from_secs(2)).spawn()?.detach();
/// # Ok(())
/// # }
/// ```
pub struct TcpCheck<T = ()> {
    address: AddressOf<T>,
}

type AddressOf<T> = Box<dyn Fn(&Endpoint<T>) -> String + Send + Sync>;

impl<T> TcpCheck<T> {
    /// Connects to the address that is the endpoint's id, `10.0.0.1:80`, `[::1]:80` or `host:80`. A host's name is looked
    /// up by the operating system at each check.
    #[must_use]
    pub fn by_id() -> TcpCheck<T> {
        TcpCheck::to(|endpoint| endpoint.id().clone())
    }

    /// Connects to the address that `address` gives for an endpoint: a `SocketAddr`, or a text as for
    /// [`by_id`](TcpCheck::by_id).
    ///
    /// ```
    /// use outgrow::balance::{Endpoint, TcpCheck};
    /// use std::net::SocketAddr;
    /// let check = TcpCheck::to(|endpoint: &Endpoint<SocketAddr>| endpoint.target);
    /// # drop(check);
    /// ```
    #[must_use]
    pub fn to<A: fmt::Display>(address: impl Fn(&Endpoint<T>) -> A + Send + Sync + 'static) -> TcpCheck<T> {
        TcpCheck {
            address: Box::new(move |endpoint| address(endpoint).to_string()),
        }
    }
}

impl<T: Send + Sync + 'static> Check<T> for TcpCheck<T> {
    type Error = io::Error;

    async fn check(&self, endpoint: &Endpoint<T>) -> io::Result<()> {
        if !has_tokio() {
            return Err(io::Error::other("needs a tokio runtime, and is polled outside one"));
        }
        TcpStream::connect((self.address)(endpoint)).await.map(drop)
    }
}

impl<T> fmt::Debug for TcpCheck<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpCheck").finish_non_exhaustive()
    }
}
