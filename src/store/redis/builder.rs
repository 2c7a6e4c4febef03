use super::link::Link;
use super::{Inner, RedisStore, text_of};
use crate::env::Env;
use crate::store::{Effect, Error, Result};
use bytes::Bytes;
use redis::{Cmd, cmd};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Builds a [`RedisStore`]; see each option for its default.
#[must_use]
pub struct RedisStoreBuilder {
    url: String,
    prefix: Bytes,
    timeout: Duration,
    env: Option<Env>,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder {
            url: url.into(),
            prefix: Bytes::from_static(b"outgrow:"),
            timeout: Duration::from_secs(1),
            env: None,
        }
    }

    /// What all keys of this store begin with on the server, so that several stores and programs share one. Choose
    /// prefixes of which none begins another. Default: `outgrow:`.
    pub fn prefix(mut self, prefix: impl Into<Bytes>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long a call may take at most, connecting included; a longer one fails with [`Error::Timeout`]. Zero fails
    /// whatever is not answered at once. Default: 1 second.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The world it lives in; its tasks must run on a tokio runtime. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Connects, and asks the server whether it may throw entries away.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address that is none, credentials that the server refuses, an environment without
    /// tokio, or a server with a limit on its memory and an eviction policy other than `noeviction`.
    /// [`Error::Unavailable`] or [`Error::Timeout`] when nobody answers.
    ///
    /// # Cancel safety
    /// Dropped halfway, it leaves nothing behind.
    pub async fn connect(self) -> Result<RedisStore> {
        let env = self.env.unwrap_or_default();
        let link = Link::new(&self.url, env, self.timeout)?;
        let inner = Inner::new(link, &self.prefix);
        // Whatever is wrong with the address or the credentials shows here, by a read as every user of it may do.
        let mut read: Cmd = cmd("GET");
        read.arg(&inner.keys.counter[..]);
        inner.link.call(&read, Effect::None).await?;
        check_evictions(&inner.link).await?;
        Ok(RedisStore { inner: Arc::new(inner) })
    }
}

/// Refuses a server that throws away what was acknowledged. One that does not say is believed.
async fn check_evictions(link: &Link) -> Result<()> {
    let mut info: Cmd = cmd("INFO");
    info.arg("memory");
    let answer = match link.call(&info, Effect::None).await {
        Ok(answer) => text_of(answer),
        // Some services keep it from their users.
        Err(Error::Invalid { .. } | Error::Other(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let value = |name: &str| {
        let mut lines = answer.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    match (value("maxmemory"), value("maxmemory_policy")) {
        (Some(limit), Some(policy)) if limit != "0" && policy != "noeviction" => Err(Error::invalid(format!(
            "the Redis server evicts entries when it is full (maxmemory-policy {policy}); a store needs noeviction"
        ))),
        _ => Ok(()),
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
