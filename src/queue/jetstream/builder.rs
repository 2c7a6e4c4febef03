use super::link::{Link, unanswered};
use super::names::Names;
use super::{Inner, JetStreamQueue, least};
use crate::env::Env;
use crate::queue::{Capability, Effect, Error, Feature, Result};
use async_nats::{Client, ConnectOptions};
use std::fmt;
use std::time::Duration;

/// What the servers do before they acknowledge. They do not tell their clients, so whoever runs them has to say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerSync {
    /// Nobody knows; by default a server syncs every two minutes.
    #[default]
    Unknown,
    /// Each server has `sync_interval: always`: what it acknowledged is on its disk.
    Always,
}

/// What new streams are like, and how they are kept.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) replicas: Option<usize>,
    pub(super) dedup_window: Duration,
    pub(super) max_bytes: Option<u64>,
    pub(super) max_age: Option<Duration>,
    pub(super) tidy_every: Option<Duration>,
    /// Whether the server keeps messages until their time comes, and forgets them when theirs is over.
    pub(super) schedules: bool,
    pub(super) ttl: bool,
}

/// Builds a [`JetStreamQueue`]; see each option for its default.
#[must_use]
pub struct JetStreamBuilder {
    env: Option<Env>,
    options: Option<ConnectOptions>,
    prefix: String,
    timeout: Duration,
    sync: ServerSync,
    strict: bool,
    settings: Settings,
}

impl Default for JetStreamBuilder {
    fn default() -> JetStreamBuilder {
        JetStreamBuilder {
            env: None,
            options: None,
            prefix: "outgrow".into(),
            timeout: Duration::from_secs(15),
            sync: ServerSync::Unknown,
            strict: false,
            settings: Settings {
                replicas: None,
                dedup_window: Duration::from_secs(120),
                max_bytes: None,
                max_age: None,
                tidy_every: Some(Duration::from_secs(10)),
                schedules: false,
                ttl: false,
            },
        }
    }
}

impl JetStreamBuilder {
    /// How to connect: credentials, TLS, callbacks of the crate `async_nats`, some of which need a feature of it that your own
    /// `Cargo.toml` turns on. Default: none of those, with attempts to connect again at most half a second apart.
    pub fn options(mut self, options: ConnectOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// What the names of all streams begin with, so that several queues share an account: 1 to 24 ASCII letters, digits and
    /// hyphens. Default: `outgrow`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long a call may take at most, all its tries included. An election after a node died takes some five seconds; a
    /// shorter time than that fails meanwhile. Default: 15 s; at least 1 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many nodes keep each new topic: 1, 3 or 5. Default: 3 in a cluster, and 1 on a server alone.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.settings.replicas = Some(replicas);
        self
    }

    /// How long a new topic remembers the ids of messages; repetitions within it are stored once, those of a send that was not
    /// answered too. Default: 2 minutes; at least [`timeout`](JetStreamBuilder::timeout), since a call repeats for so long.
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.settings.dedup_window = window;
        self
    }

    /// How many bytes a new topic keeps; then sends are refused with [`Error::Full`] until its subscriptions have settled enough
    /// and it was [tidied](JetStreamBuilder::tidy_every). A server cannot do this and keep delayed messages, so with this there
    /// are none. At least 1; default: as many as the server has room for, which refuses in the same way.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_bytes = Some(bytes);
        self
    }

    /// How long a new topic keeps a message, settled or not. Default: for ever; at least 100 ms.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.settings.max_age = Some(age);
        self
    }

    /// How often what all subscriptions of a topic have settled is deleted, by whoever settled some of it; `None` leaves that to
    /// the limits above, and to replays. Default: 10 s; at least 1 ms.
    pub fn tidy_every(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.tidy_every = interval.into();
        self
    }

    /// What the servers do before they acknowledge. Default: [`ServerSync::Unknown`].
    pub fn server_sync(mut self, sync: ServerSync) -> Self {
        self.sync = sync;
        self
    }

    /// Has [`connect`](JetStreamBuilder::connect) refuse where there would be [warnings](JetStreamQueue::warnings).
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// The world it lives in; its tasks must run on a tokio runtime. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Connects to the server at `url`, or to the first that answers of several with commas between; the others of its cluster
    /// it hears of from there.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a setting out of its bounds, an address that is none, an environment without tokio, a server older
    /// than what [`server_sync`](JetStreamBuilder::server_sync) says of it, and warnings if it is
    /// [strict](JetStreamBuilder::strict); [`Error::Io`] when nobody answers.
    ///
    /// # Cancel safety
    /// Dropped halfway, it leaves nothing behind.
    pub async fn connect(self, url: &str) -> Result<JetStreamQueue> {
        self.check()?;
        let (env, timeout) = (self.world(), self.timeout);
        let options = self.options.clone().unwrap_or_else(default_options);
        let urls: Vec<String> = url.split(',').map(|url| url.trim().to_owned()).collect();
        let (clock, limit) = (env.clone(), timeout);
        let connect = async move {
            on_tokio()?;
            match clock.timeout(limit, options.connect(urls)).await {
                Ok(Ok(client)) => Ok(client),
                Ok(Err(error)) if error.kind() == async_nats::ConnectErrorKind::ServerParse => {
                    Err(Error::invalid(format!("the address of the NATS server: {error}")))
                }
                Ok(Err(error)) => Err(unanswered(error.to_string(), Effect::None)),
                Err(_) => Err(unanswered("nobody answers", Effect::None)),
            }
        };
        let client = env.spawn(connect).await;
        let client = client.unwrap_or_else(|gone| Err(unanswered(gone.to_string(), Effect::None)))?;
        self.finish(env, client)
    }

    /// A queue over a connection that exists, which has its own options and must be connected.
    ///
    /// # Errors
    /// As [`connect`](JetStreamBuilder::connect).
    ///
    /// # Cancel safety
    /// Dropped halfway, it leaves nothing behind.
    pub async fn client(self, client: Client) -> Result<JetStreamQueue> {
        self.check()?;
        let env = self.world();
        let tokio = env.spawn(async { on_tokio() }).await;
        tokio.unwrap_or_else(|gone| Err(unanswered(gone.to_string(), Effect::None)))?;
        self.finish(env, client)
    }

    fn world(&self) -> Env {
        self.env.clone().unwrap_or_default()
    }

    fn finish(mut self, env: Env, client: Client) -> Result<JetStreamQueue> {
        let Some(info) = client.try_server_info() else {
            return Err(unanswered("the client is not connected yet", Effect::None));
        };
        if !info.jetstream && !info.version.is_empty() {
            return Err(Error::invalid(
                "the NATS server has no JetStream: turn it on in its configuration",
            ));
        }
        let (version, text) = (version(&info.version), &info.version);
        let mut warnings = Vec::new();
        if version < (2, 10) {
            let problem = format!("server {text} knows no sync_interval, so it cannot sync before it acknowledges");
            if self.sync == ServerSync::Always {
                return Err(Error::invalid(problem));
            }
            warnings.push(problem);
        } else if self.sync == ServerSync::Unknown {
            warnings.push(format!(
                "server {text} does not tell whether it syncs before it acknowledges: \
                 set `sync_interval: always` on each, and say `server_sync(ServerSync::Always)`"
            ));
        }
        self.settings.schedules = version >= (2, 12) && self.settings.max_bytes.is_none();
        self.settings.ttl = version >= (2, 11);
        if version < (2, 12) {
            warnings.push(format!(
                "server {text} keeps no schedules, which delayed messages need: use 2.12 or newer"
            ));
        }
        if let (true, Some(warning)) = (self.strict, warnings.first()) {
            return Err(Error::invalid(warning.clone()));
        }
        let capability = self.capability();
        let names = Names::new(&self.prefix)?;
        let link = Link::new(env, client, self.timeout);
        Ok(JetStreamQueue::new(Inner::new(
            link,
            names,
            self.settings,
            capability,
            warnings,
        )))
    }

    fn capability(&self) -> Capability {
        let mut capability = least();
        if self.sync == ServerSync::Always {
            capability = capability.with(Feature::Durable);
        }
        if self.settings.schedules {
            capability = capability.with(Feature::DelayedMessages);
        }
        capability
    }

    fn check(&self) -> Result<()> {
        Names::new(&self.prefix)?;
        let settings = &self.settings;
        let moment = Duration::from_millis(1);
        let problem = if self.timeout < moment {
            "timeout is at least a millisecond"
        } else if settings.replicas.is_some_and(|replicas| !matches!(replicas, 1 | 3 | 5)) {
            "replicas is 1, 3 or 5"
        } else if settings.dedup_window < self.timeout {
            "dedup_window is at least as long as timeout"
        } else if settings
            .max_bytes
            .is_some_and(|bytes| bytes == 0 || i64::try_from(bytes).is_err())
        {
            "max_bytes is 1 to 2^63 - 1"
        } else if settings.max_age.is_some_and(|age| age < Duration::from_millis(100)) {
            "max_age is at least 100 ms"
        } else if settings.max_age.is_some_and(|age| age < settings.dedup_window) {
            "max_age is at least as long as dedup_window"
        } else if settings.tidy_every.is_some_and(|interval| interval < moment) {
            "tidy_every is at least a millisecond"
        } else {
            return Ok(());
        };
        Err(Error::invalid(problem))
    }
}

impl fmt::Debug for JetStreamBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options may hold a password.
        f.debug_struct("JetStreamBuilder")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn default_options() -> ConnectOptions {
    let delay = |attempts: usize| Duration::from_millis(50 * attempts.min(10) as u64);
    ConnectOptions::new().reconnect_delay_callback(delay)
}

fn on_tokio() -> Result<()> {
    match crate::env::has_tokio() {
        true => Ok(()),
        false => Err(Error::invalid(
            "NATS needs an environment on a tokio runtime: `Env::tokio()`, inside of one",
        )),
    }
}

/// The first two numbers of a version; zeros where it has none.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("2.15.1", (2, 15)),
            ("2.9.10-beta", (2, 9)),
            ("", (0, 0)),
            ("x", (0, 0)),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn settings_out_of_their_bounds_are_refused() {
        let day = Duration::from_secs(86_400);
        let wrong = [
            JetStreamQueue::builder().prefix("a.b"),
            JetStreamQueue::builder().timeout(Duration::ZERO),
            JetStreamQueue::builder().replicas(2),
            JetStreamQueue::builder().timeout(day),
            JetStreamQueue::builder().max_bytes(0),
            JetStreamQueue::builder().max_bytes(u64::MAX),
            JetStreamQueue::builder().max_age(Duration::from_secs(1)),
            JetStreamQueue::builder().tidy_every(Duration::ZERO),
        ];
        for builder in wrong {
            assert!(matches!(builder.check(), Err(Error::Invalid { .. })), "{builder:?}");
        }
        let right = JetStreamQueue::builder().replicas(5).max_age(day).tidy_every(None);
        assert_eq!(right.check(), Ok(()));
    }
}
