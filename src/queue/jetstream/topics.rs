//! Topics and subscriptions as streams and consumers: made where they are missing, made again where they were lost.

use super::link::Fault;
use super::{Inner, leases, names};
use crate::queue::{Error, Result, Start, Subscription};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, FromConsumer, Info, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use std::sync::Arc;
use std::time::Duration;

const MAX_IN_FLIGHT: usize = 65_536;
/// How many nodes keep a topic of a cluster, unless somebody says otherwise.
const REPLICAS: usize = 3;

/// What a stream that is there can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) schedules: bool,
    pub(super) ttl: bool,
}

/// A subscription that is there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) stream: String,
    pub(super) consumer: String,
    pub(super) lease: Duration,
    pub(super) max_attempts: u32,
    config: pull::Config,
    /// Everything up to this is settled.
    floor: u64,
}

/// Refuses a subscription that makes no sense.
pub(super) fn check(wanted: &Subscription) -> Result<()> {
    names::check("a topic", &wanted.topic)?;
    names::check("a subscription", &wanted.name)?;
    wanted.check(MAX_IN_FLIGHT)
}

/// How long the server waits for a settlement, where the lease is `lease`.
fn ack_wait(lease: Duration) -> Duration {
    lease + leases::slack(lease)
}

/// The lease of a consumer that waits so long: what [`ack_wait`] was made of.
fn lease_of(wait: Duration) -> Duration {
    let tries = [
        wait.saturating_sub(Duration::from_millis(500)),
        wait / 5 * 4,
        wait.saturating_sub(Duration::from_secs(5)),
    ];
    let fits = tries.into_iter().filter(|lease| ack_wait(*lease) <= wait).max();
    fits.unwrap_or_default().max(Duration::from_millis(1))
}

impl Inner {
    /// Sees to it that a topic has its stream.
    pub(super) async fn stream(&self, topic: &Arc<str>) -> Result<Made> {
        if let Some(made) = self.core.lock().streams.get(topic) {
            return Ok(*made);
        }
        let made = self.link.ask(|| self.find_or_make(topic)).await?;
        let made = made.ok_or_else(|| Error::invalid("the NATS server made a stream, and has none"))?;
        self.core.lock().streams.insert(Arc::clone(topic), made);
        Ok(made)
    }

    /// A stream that was there may not be any more.
    pub(super) fn forget_stream(&self, topic: &str) {
        self.core.lock().streams.remove(topic);
    }

    async fn find_or_make(&self, topic: &str) -> Result<Made, Fault> {
        let (context, name) = (&self.link.context, self.names.stream(topic));
        let found = match context.get_stream(&name).await.map_err(Fault::from) {
            Ok(stream) => stream.cached_info().config.clone(),
            Err(Fault::Missing) => match self.make(self.config(topic)).await {
                // Somebody else made it at the same moment.
                Err(Fault::Taken) => return Err(Fault::Passing("the stream is being made".into())),
                made => made?,
            },
            Err(fault) => return Err(fault),
        };
        let subject = self.names.subject(topic);
        if !found.subjects.contains(&subject) {
            let problem = format!("the stream {name} is somebody else's: it does not have the subject {subject}");
            return Err(Fault::Lasting(Error::invalid(problem)));
        }
        let made = Made {
            schedules: found.allow_message_schedules,
            ttl: found.allow_message_ttl,
        };
        // One that an older server made. Where it is bounded, the server would drop the oldest rather than refuse.
        let bounded = found.max_bytes > 0 || found.max_messages > 0;
        let wanted = Made {
            schedules: made.schedules || self.settings.schedules && !bounded,
            ttl: made.ttl || self.settings.ttl,
        };
        if wanted != made {
            let update = Config {
                subjects: self.config(topic).subjects,
                discard: if wanted.schedules {
                    DiscardPolicy::Old
                } else {
                    found.discard
                },
                allow_message_schedules: wanted.schedules,
                allow_message_ttl: wanted.ttl,
                ..found
            };
            context.update_stream(update).await?;
            return Ok(wanted);
        }
        Ok(made)
    }

    /// Makes a stream: with fewer replicas where the server is alone, and nobody asked for more.
    async fn make(&self, config: Config) -> Result<Config, Fault> {
        let made = self.link.context.create_stream(config.clone()).await;
        let made = match made.map_err(Fault::from) {
            Err(Fault::Alone) if self.settings.replicas.is_none() => {
                let num_replicas = 1;
                let alone = Config { num_replicas, ..config };
                self.link.context.create_stream(alone).await?
            }
            made => made?,
        };
        Ok(made.cached_info().config.clone())
    }

    fn config(&self, topic: &str) -> Config {
        let settings = &self.settings;
        let mut subjects = vec![self.names.subject(topic)];
        if settings.schedules {
            subjects.push(self.names.later(topic, "*"));
        }
        Config {
            name: self.names.stream(topic),
            subjects,
            retention: RetentionPolicy::Limits,
            // A server that keeps schedules does not refuse: so it has no bounds then, beside those of its disk.
            discard: if settings.schedules {
                DiscardPolicy::Old
            } else {
                DiscardPolicy::New
            },
            storage: StorageType::File,
            num_replicas: settings.replicas.unwrap_or(REPLICAS),
            max_bytes: settings
                .max_bytes
                .and_then(|bytes| i64::try_from(bytes).ok())
                .unwrap_or(-1),
            max_age: settings.max_age.unwrap_or_default(),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            duplicate_window: settings.dedup_window,
            allow_direct: true,
            allow_message_schedules: settings.schedules,
            allow_message_ttl: settings.ttl,
            ..Config::default()
        }
    }

    pub(super) async fn subscribe(&self, wanted: Subscription) -> Result<()> {
        self.stream(&wanted.topic).await?;
        let (stream, consumer) = (self.names.stream(&wanted.topic), names::consumer(&wanted.name));
        let found = self.link.ask(|| self.find_consumer(&stream, &consumer)).await?;
        let mut config = match &found {
            Some(info) => pull_config(info)?,
            None => pull::Config {
                durable_name: Some(consumer.clone()),
                deliver_policy: deliver_policy(wanted.start)?,
                ack_policy: AckPolicy::Explicit,
                max_deliver: -1,
                filter_subject: self.names.subject(&wanted.topic),
                ..pull::Config::default()
            },
        };
        let before = config.clone();
        config.ack_wait = ack_wait(wanted.lease);
        config.max_ack_pending = i64::try_from(wanted.max_in_flight).unwrap_or(i64::MAX);
        let info = match found {
            Some(info) if config == before => info,
            _ => {
                let made = self.link.ask(|| self.make_consumer(&stream, &config)).await?;
                made.ok_or_else(|| gone(&wanted))?
            }
        };
        self.keep(Place {
            stream,
            consumer,
            lease: wanted.lease,
            max_attempts: wanted.max_attempts,
            config,
            floor: info.ack_floor.stream_sequence,
            topic: wanted.topic,
            name: wanted.name,
        });
        Ok(())
    }

    /// The subscription, if somebody has made it.
    pub(super) async fn place(&self, wanted: &Subscription) -> Result<Arc<Place>> {
        let known = (Arc::clone(&wanted.topic), Arc::clone(&wanted.name));
        if let Some(place) = self.core.lock().places.get(&known) {
            return Ok(Arc::clone(place));
        }
        check(wanted)?;
        let (stream, consumer) = (self.names.stream(&wanted.topic), names::consumer(&wanted.name));
        let found = self.link.ask(|| self.find_consumer(&stream, &consumer)).await?;
        let info = found.ok_or_else(|| gone(wanted))?;
        let config = pull_config(&info)?;
        Ok(self.keep(Place {
            topic: Arc::clone(&wanted.topic),
            name: Arc::clone(&wanted.name),
            stream,
            consumer,
            lease: lease_of(config.ack_wait),
            max_attempts: wanted.max_attempts,
            config,
            floor: info.ack_floor.stream_sequence,
        }))
    }

    /// Makes a consumer again that the server has lost, from where everything before was settled. One that it has is left.
    ///
    /// # Errors
    /// [`Error::NoSubscription`] when its whole stream is gone, which was then deleted on purpose or lost with its messages.
    pub(super) async fn revive(&self, place: &Place) -> Result<()> {
        if self
            .link
            .ask(|| self.find_consumer(&place.stream, &place.consumer))
            .await?
            .is_some()
        {
            return Ok(());
        }
        let mut config = place.config.clone();
        if place.floor > 0 {
            let start_sequence = place.floor + 1;
            config.deliver_policy = DeliverPolicy::ByStartSequence { start_sequence };
        }
        let made = self.link.ask(|| self.make_consumer(&place.stream, &config)).await?;
        if made.is_none() {
            self.forget_stream(&place.topic);
            let key = (Arc::clone(&place.topic), Arc::clone(&place.name));
            self.core.lock().places.remove(&key);
            return Err(Error::NoSubscription {
                topic: place.topic.to_string(),
                name: place.name.to_string(),
            });
        }
        Ok(())
    }

    fn keep(&self, place: Place) -> Arc<Place> {
        let place = Arc::new(place);
        let key = (Arc::clone(&place.topic), Arc::clone(&place.name));
        self.core.lock().places.insert(key, Arc::clone(&place));
        place
    }

    /// Deletes what all subscriptions of a topic have settled. What waits for its time stays.
    pub(super) async fn tidy(&self, topic: &Arc<str>) -> Result<()> {
        let consumers = self.consumers(topic).await?;
        let floor = consumers.iter().map(|info| info.ack_floor.stream_sequence).min();
        for info in &consumers {
            self.raise_floor(topic, info);
        }
        let Some(floor) = floor.filter(|floor| *floor > 0) else {
            return Ok(());
        };
        let (name, subject) = (&self.names.stream(topic), &self.names.subject(topic));
        let purge = || async move {
            let stream = self.link.context.get_stream_no_info(name).await?;
            stream.purge().filter(subject).sequence(floor + 1).await?;
            Ok(())
        };
        self.link.ask(purge).await?;
        Ok(())
    }

    /// Notes how far a subscription has come, for when it has to be made again.
    fn raise_floor(&self, topic: &Arc<str>, info: &Info) {
        let Some(name) = names::subscription(&info.name) else {
            return;
        };
        let mut core = self.core.lock();
        let Some(place) = core.places.get_mut(&(Arc::clone(topic), name.into())) else {
            return;
        };
        Arc::make_mut(place).floor = info.ack_floor.stream_sequence;
    }

    async fn find_consumer(&self, stream: &str, consumer: &str) -> Result<Info, Fault> {
        let stream = self.link.context.get_stream_no_info(stream).await?;
        Ok(stream.consumer_info(consumer).await?)
    }

    async fn make_consumer(&self, stream: &str, config: &pull::Config) -> Result<Info, Fault> {
        let context = &self.link.context;
        let made: PullConsumer = context.create_consumer_on_stream(config.clone(), stream).await?;
        Ok(made.cached_info().clone())
    }
}

fn gone(wanted: &Subscription) -> Error {
    Error::NoSubscription {
        topic: wanted.topic.to_string(),
        name: wanted.name.to_string(),
    }
}

fn pull_config(info: &Info) -> Result<pull::Config> {
    let config = pull::Config::try_from_consumer_config(info.config.clone());
    config.map_err(|error| Error::invalid(format!("the consumer {} is somebody else's: {error}", info.name)))
}

fn deliver_policy(start: Start) -> Result<DeliverPolicy> {
    Ok(match start {
        Start::First => DeliverPolicy::All,
        Start::Now => DeliverPolicy::New,
        Start::Seq(seq) => DeliverPolicy::ByStartSequence {
            start_sequence: seq.max(1),
        },
        Start::Time(time) => {
            let nanos = i128::from(time.as_millis()) * 1_000_000;
            let start_time = async_nats::datetime::from_nanos(nanos);
            let start_time = start_time.map_err(|error| Error::invalid(format!("a subscription's start: {error}")))?;
            DeliverPolicy::ByStartTime { start_time }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_waits_longer_than_the_lease_and_the_lease_is_found_again() {
        for millis in [1, 100, 1_999, 2_000, 2_001, 10_000, 20_000, 21_000, 3_600_000] {
            let lease = Duration::from_millis(millis);
            assert!(ack_wait(lease) >= lease + Duration::from_millis(500));
            let found = lease_of(ack_wait(lease));
            assert!(
                found <= lease && lease - found <= Duration::from_millis(1),
                "{lease:?}: {found:?}"
            );
        }
        assert_eq!(lease_of(Duration::from_millis(10)), Duration::from_millis(1));
    }
}
