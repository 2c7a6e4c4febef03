//! The connection to a server: made when needed, shared by all calls, made anew when it broke.

use super::fault;
use crate::env::{Env, Tick};
use crate::store::{Effect, Error, Result};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisResult, Value,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long after an attempt to connect that failed the next one waits: until then calls fail with its error at once.
const PAUSE: Duration = Duration::from_millis(50);

/// A server, and the one connection that all calls share. A clone is a handle to the same.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Inner>,
}

struct Inner {
    client: Client,
    env: Env,
    timeout: Duration,
    state: Mutex<State>,
    /// Connections made so far.
    connects: AtomicU64,
}

enum State {
    Down { failed: Option<(Tick, Error)> },
    Dialing(Dialing),
    Up(Up),
}

type Dialing = Shared<BoxFuture<'static, Result<Up>>>;

/// A connection, and which one it is.
#[derive(Clone)]
struct Up {
    number: u64,
    connection: MultiplexedConnection,
    /// Set when the client notices that it was closed.
    ended: Arc<AtomicBool>,
}

impl Link {
    /// Prepares a link; nothing is sent. A call takes at most `timeout`, connecting included.
    pub(crate) fn new(url: &str, env: Env, timeout: Duration) -> Result<Link> {
        let invalid = |error: redis::RedisError| Error::invalid(format!("the address of the Redis server: {error}"));
        let info = url.into_connection_info().map_err(invalid)?;
        // The third version of the protocol reports a closed connection even while nobody asks.
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(redis)).map_err(invalid)?;
        let shared = Inner {
            client,
            env,
            timeout,
            state: Mutex::new(State::Down { failed: None }),
            connects: AtomicU64::new(0),
        };
        Ok(Link {
            shared: Arc::new(shared),
        })
    }

    pub(crate) fn env(&self) -> &Env {
        &self.shared.env
    }

    /// How often a connection was made.
    pub(crate) fn connects(&self) -> u64 {
        self.shared.connects.load(Ordering::Relaxed)
    }

    /// Sends a command and waits for its answer. `effect` is what a failure after sending leaves behind.
    ///
    /// # Cancel safety
    /// A command that was sent is carried out whether or not anyone waits for its answer.
    pub(crate) async fn call(&self, command: &Cmd, effect: Effect) -> Result<Value> {
        let sent = AtomicBool::new(false);
        let over = AtomicU64::new(0);
        let call = async {
            let mut up = self.connection().await?;
            over.store(up.number, Ordering::Relaxed);
            sent.store(true, Ordering::Relaxed);
            let answer = up.connection.send_packed_command(command).await;
            answer
                .and_then(Value::extract_error)
                .map_err(|error| self.failed(up.number, &error, effect))
        };
        match self.shared.env.timeout(self.shared.timeout, call).await {
            Ok(answer) => answer,
            Err(_) => {
                // Nothing tells a server that is slow from a peer that is gone, so the next call tries another way.
                self.shared.broke(over.into_inner());
                let effect = if sent.into_inner() { effect } else { Effect::None };
                Err(Error::Timeout { effect })
            }
        }
    }

    fn failed(&self, number: u64, error: &redis::RedisError, effect: Effect) -> Error {
        if error.is_unrecoverable_error() {
            self.shared.broke(number);
        }
        fault::of_call(error, effect)
    }

    /// A connection of its own that hands what the server pushes to `push`, until it is dropped; it ends with a
    /// [`PushKind::Disconnection`].
    pub(crate) async fn dedicated(
        &self,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection> {
        let dial = dial(Arc::clone(&self.shared), push);
        let limit = self.shared.timeout;
        let made = self.shared.env.timeout(limit, self.shared.on_runtime(dial)).await;
        made.unwrap_or(Err(Error::Timeout { effect: Effect::None }))
    }

    /// Waits for a call on a [dedicated](Link::dedicated) connection that changes no data, as long as any other.
    pub(crate) async fn within<T: Send>(&self, call: impl Future<Output = RedisResult<T>> + Send) -> Result<T> {
        match self.shared.env.timeout(self.shared.timeout, call).await {
            Ok(answer) => answer.map_err(|error| fault::of_call(&error, Effect::None)),
            Err(_) => Err(Error::Timeout { effect: Effect::None }),
        }
    }

    /// The shared connection, made if there is none: by one task for all who wait.
    async fn connection(&self) -> Result<Up> {
        let dialing = {
            let mut state = self.shared.state.lock();
            match &*state {
                State::Up(up) if !up.ended.load(Ordering::Acquire) => return Ok(up.clone()),
                // One that ended and left no mark lost its runtime.
                State::Dialing(dialing) if dialing.peek().is_none() => dialing.clone(),
                State::Down {
                    failed: Some((at, error)),
                } if self.shared.env.now() < *at + PAUSE => {
                    return Err(error.clone());
                }
                State::Up(_) | State::Dialing(_) | State::Down { .. } => {
                    let connect = connect(Arc::clone(&self.shared));
                    let dialing = self.shared.on_runtime(connect).boxed().shared();
                    *state = State::Dialing(dialing.clone());
                    dialing
                }
            }
        };
        dialing.await
    }
}

impl Inner {
    /// Runs `dial` as a task of the environment, since the client needs tokio's runtime around it.
    fn on_runtime<T: Send + 'static>(
        &self,
        dial: impl Future<Output = Result<T>> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send + 'static {
        let task = self.env.spawn(async move {
            if !crate::env::has_tokio() {
                let what = "Redis needs an environment on a tokio runtime: `Env::tokio()`, inside of one";
                return Err(Error::invalid(what));
            }
            dial.await
        });
        async move {
            task.await
                .unwrap_or_else(|gone| Err(Error::unavailable(gone.to_string(), Effect::None)))
        }
    }

    /// Gives up the connection `number`, if it is the one in use.
    fn broke(&self, number: u64) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Up(up) if up.number == number) {
            *state = State::Down { failed: None };
        }
    }
}

/// Makes the shared connection, and notes how that went.
async fn connect(inner: Arc<Inner>) -> Result<Up> {
    let number = inner.connects.fetch_add(1, Ordering::Relaxed) + 1;
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let watch = move |info: PushInfo| {
        if info.kind == PushKind::Disconnection {
            end.store(true, Ordering::Release);
        }
    };
    let limit = inner.timeout;
    let dialed = inner.env.timeout(limit, dial(Arc::clone(&inner), watch)).await;
    let made = dialed.unwrap_or(Err(Error::Timeout { effect: Effect::None }));
    let made = made.map(|connection| Up {
        number,
        connection,
        ended,
    });
    *inner.state.lock() = match &made {
        Ok(up) => State::Up(up.clone()),
        Err(error) => State::Down {
            failed: Some((inner.env.now(), error.clone())),
        },
    };
    made
}

async fn dial(inner: Arc<Inner>, push: impl Fn(PushInfo) + Send + Sync + 'static) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_push_sender(move |info: PushInfo| {
            push(info);
            Ok::<(), redis::aio::SendError>(())
        });
    let made = inner.client.get_multiplexed_async_connection_with_config(&config).await;
    made.map_err(|error| fault::of_dial(&error))
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        let state = match &*self.shared.state.lock() {
            State::Down { .. } => "down",
            State::Dialing(_) => "connecting",
            State::Up(_) => "up",
        };
        f.debug_struct("Link")
            .field("state", &state)
            .field("connects", &self.connects())
            .finish_non_exhaustive()
    }
}
