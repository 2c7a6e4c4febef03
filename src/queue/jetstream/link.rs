//! The connection: requests that are repeated until their time is over, and what goes wrong with them.

use crate::env::{Env, Tick};
use crate::queue::{Effect, Error, Result};
use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamErrorKind, RequestErrorKind as ApiErrorKind,
};
use async_nats::jetstream::stream::{ConsumerErrorKind, PurgeErrorKind};
use async_nats::{Client, RequestErrorKind};
use bytes::Bytes;
use futures::FutureExt;
use std::io;
use std::time::Duration;

/// How long one try waits for its answer. An answer that was lost is not waited for again: what is asked can be repeated.
pub(super) const TRY: Duration = Duration::from_secs(2);
/// How long after a try that failed the next one begins.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// The server's code for a message whose id another one has that is not stored yet.
const DUPLICATE_IN_PROCESS: ErrorCode = ErrorCode(10_158);

/// A client and the time its requests may take.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) env: Env,
    pub(super) client: Client,
    pub(super) context: jetstream::Context,
    pub(super) timeout: Duration,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no such stream or consumer.
    Missing,
    /// A single server cannot keep that many replicas.
    Alone,
    /// There is a stream of that name, made otherwise.
    Taken,
    /// Trying again may help.
    Passing(String),
    /// Trying again does not help.
    Lasting(Error),
}

impl Link {
    pub(super) fn new(env: Env, client: Client, timeout: Duration) -> Link {
        let builder = jetstream::context::ContextBuilder::new();
        let context = builder.timeout(TRY).ack_timeout(TRY).build(client.clone());
        Link {
            env,
            client,
            context,
            timeout,
        }
    }

    /// When a request that begins now has to be answered.
    pub(super) fn deadline(&self) -> Tick {
        self.env.now() + self.timeout
    }

    /// Repeats `request` until it is answered. None: what it is about does not exist.
    pub(super) async fn ask<T, F>(&self, request: impl Fn() -> F + Send) -> Result<Option<T>>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        let until = self.deadline();
        loop {
            match request().await {
                Ok(answer) => return Ok(Some(answer)),
                Err(Fault::Missing) => return Ok(None),
                Err(Fault::Alone) => return Err(Error::invalid("a server that is no cluster keeps one replica")),
                Err(Fault::Taken) => return Err(Error::invalid("a stream of that name is there already")),
                Err(Fault::Lasting(error)) => return Err(error),
                Err(Fault::Passing(what)) if self.env.now() + PAUSE >= until => {
                    return Err(unanswered(what, Effect::Unknown));
                }
                Err(Fault::Passing(_)) => self.env.sleep(PAUSE).await,
            }
        }
    }

    /// Tells the server what becomes of a delivery, until it says that it knows, or it is `until`.
    pub(super) async fn settle(&self, reply: &str, words: Bytes, until: Tick) -> Result<()> {
        let until = until.min(self.deadline());
        loop {
            let left = (until - self.env.now()).min(TRY);
            let request = self.client.request(reply.to_owned(), words.clone());
            let failed = match self.env.timeout(left, request).await {
                Ok(Ok(_answer)) => return Ok(()),
                Ok(Err(error)) if error.kind() == RequestErrorKind::InvalidSubject => {
                    return Err(Error::invalid(error.to_string()));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it did not answer".to_owned(),
            };
            if self.env.now() + PAUSE >= until {
                return Err(unanswered(failed, Effect::Unknown));
            }
            self.env.sleep(PAUSE).await;
        }
    }

    /// Tells the server something without waiting for it: at once where the client has room, so that whatever is said next
    /// comes after it.
    pub(super) fn tell(&self, reply: &str, words: &'static [u8]) {
        let (client, reply) = (self.client.clone(), reply.to_owned());
        let mut telling = async move {
            // The server hears nothing of it then, and goes on when its own limit has passed.
            let _closed = client.publish(reply, Bytes::from_static(words)).await;
        }
        .boxed();
        if (&mut telling).now_or_never().is_none() {
            self.env.spawn(telling).detach();
        }
    }

    /// Runs `work` on the runtime that the client needs around it, whoever waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let done = self.env.spawn(work).await;
        done.unwrap_or_else(|gone| Err(unanswered(gone.to_string(), Effect::Unknown)))
    }
}

/// The error of a request that nobody answered in time.
pub(super) fn unanswered(what: impl Into<String>, effect: Effect) -> Error {
    Error::Io {
        kind: io::ErrorKind::TimedOut,
        message: format!("the NATS server: {}", what.into()),
        effect,
    }
}

/// What an answer that is an error says.
pub(super) fn refused(error: &jetstream::Error) -> Fault {
    let what = || format!("the NATS server refused: {error}");
    let code = error.error_code();
    match code {
        ErrorCode::STREAM_NOT_FOUND | ErrorCode::CONSUMER_NOT_FOUND => Fault::Missing,
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => Fault::Alone,
        ErrorCode::STREAM_NAME_EXIST => Fault::Taken,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::MAXIMUM_CONSUMERS_LIMIT
        | ErrorCode::MAXIMUM_STREAMS_LIMIT => Fault::Lasting(Error::Full { what: what() }),
        // The only way to tell a stream that is full from one that failed.
        ErrorCode::STREAM_STORE_FAILED if error.to_string().contains("maximum") => {
            Fault::Lasting(Error::Full { what: what() })
        }
        ErrorCode::STREAM_INVALID_CONFIG => Fault::Lasting(Error::invalid(what())),
        // The one before it is on its way through the cluster, and soon there or not.
        DUPLICATE_IN_PROCESS => Fault::Passing(what()),
        _ if error.code() == 503 || error.code() == 500 => Fault::Passing(what()),
        _ if error.code() == 404 => Fault::Missing,
        _ => Fault::Lasting(Error::invalid(what())),
    }
}

/// Errors of the client's calls, each with the server's own where there is one.
macro_rules! fault {
    ($error:ty, $kind:ident) => {
        impl From<async_nats::error::Error<$error>> for Fault {
            fn from(error: async_nats::error::Error<$error>) -> Fault {
                match error.kind() {
                    $kind::JetStream(refusal) => refused(&refusal),
                    _ => Fault::Passing(error.to_string()),
                }
            }
        }
    };
}

fault!(GetStreamErrorKind, GetStreamErrorKind);
fault!(CreateStreamErrorKind, CreateStreamErrorKind);
fault!(ConsumerErrorKind, ConsumerErrorKind);
fault!(PurgeErrorKind, PurgeErrorKind);

impl From<async_nats::error::Error<ConsumerInfoErrorKind>> for Fault {
    fn from(error: async_nats::error::Error<ConsumerInfoErrorKind>) -> Fault {
        match error.kind() {
            ConsumerInfoErrorKind::JetStream(refusal) => refused(&refusal),
            ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound => Fault::Missing,
            _ => Fault::Passing(error.to_string()),
        }
    }
}

impl From<async_nats::error::Error<ApiErrorKind>> for Fault {
    fn from(error: async_nats::error::Error<ApiErrorKind>) -> Fault {
        Fault::Passing(error.to_string())
    }
}
