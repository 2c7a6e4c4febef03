use super::srv::{self, Service};
use super::{DiscoveryError, Found, PollSource, Refresh};
use crate::balance::Endpoint;
use crate::env::{Env, has_tokio};
use crate::sync::Mutex;
use core::net::{IpAddr, SocketAddr};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use futures::{FutureExt, TryFutureExt};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The addresses of a name, asked for again when their time to live is over (feature `dns`).
///
/// Each address is an endpoint: its id and its target are the address with the port, its metadata `host` is the name.
/// The order in which a server answers does not matter.
///
/// An answer that a name does not exist or has no addresses is an empty set, and what the pool does with that is up to
/// [`on_empty`](super::Follow::on_empty). A server that refuses, fails or is silent is an error. A set is whole or not there: if one
/// of several questions fails, all have failed.
///
/// ```no_run
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use outgrow::balance::discover::{DnsSource, Refresh};
/// use outgrow::balance::{Pool, PowerOfTwo};
/// use std::net::SocketAddr;
/// use std::time::Duration;
///
/// let pool = Pool::<_, SocketAddr>::builder(PowerOfTwo::default()).build();
/// let refresh = Refresh::default().ceiling(Duration::from_secs(60));
/// let addresses = DnsSource::host("api.example.org.", 8080).refresh(refresh).stream()?;
/// pool.follow(addresses).source("api.example.org").spawn()?.detach();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a source says nothing until its stream is followed"]
pub struct DnsSource {
    name: String,
    kind: Kind,
    settings: Settings,
    refresh: Refresh,
    env: Option<Env>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Host { port: u16 },
    Srv,
}

#[derive(Clone, Debug)]
struct Settings {
    servers: Vec<SocketAddr>,
    families: Families,
    timeout: Duration,
}

/// Which addresses of a name count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Families {
    /// The IPv4 addresses, or the IPv6 addresses of a name that has no others. The default.
    #[default]
    PreferV4,
    /// The IPv6 addresses, or the IPv4 addresses of a name that has no others.
    PreferV6,
    /// IPv4 addresses alone.
    V4,
    /// IPv6 addresses alone.
    V6,
    /// All. A server that has one of each is two endpoints then.
    Both,
}

impl DnsSource {
    /// The A and AAAA records of `name`, with this port. A name with a dot at its end is complete; others are looked up in
    /// the system's search domains too.
    pub fn host(name: impl Into<String>, port: u16) -> DnsSource {
        DnsSource::new(name.into(), Kind::Host { port })
    }

    /// The SRV records of a name such as `_http._tcp.example.org.`, and the addresses of their targets.
    ///
    /// Their priorities become the endpoints' priorities, 0 for the best and so on. A record's weight is shared by the
    /// addresses of its target; a weight of 0 beside others is a very small chance (RFC 2782), not none. A target of `.`
    /// says that there is no such service: an empty set.
    pub fn srv(name: impl Into<String>) -> DnsSource {
        DnsSource::new(name.into(), Kind::Srv)
    }

    fn new(name: String, kind: Kind) -> DnsSource {
        DnsSource {
            name,
            kind,
            settings: Settings {
                servers: Vec::new(),
                families: Families::default(),
                timeout: Duration::from_secs(2),
            },
            refresh: Refresh::default(),
            env: None,
        }
    }

    /// Asks these name servers, by UDP and, for what is too long, TCP. Default: those that the system is set up to ask,
    /// which is read again after each failure. With servers of its own a source knows no search domains.
    pub fn servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.settings.servers = servers.into_iter().collect();
        self
    }

    /// Which addresses count. Default: [`Families::PreferV4`].
    pub fn families(mut self, families: Families) -> Self {
        self.settings.families = families;
        self
    }

    /// How long one try of one question may take; there are two tries. Default: 2 s. The answer to all questions together
    /// may take ten times that.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.settings.timeout = limit;
        self
    }

    /// When to ask again: after the least time to live of what was answered, within these bounds, and after a failure.
    /// Default: [`Refresh::default`].
    pub fn refresh(mut self, refresh: Refresh) -> Self {
        self.refresh = refresh;
        self
    }

    /// Takes the time between questions from `env`; by default from [`Env::default`]. The questions themselves are asked
    /// on the tokio runtime where the stream is polled.
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// The sets: the first, and then those that are news. It must be polled on a tokio runtime that has its I/O and time
    /// enabled; outside one its items are [`DiscoveryError::NeedsTokio`].
    ///
    /// # Errors
    /// [`Lookup`](DiscoveryError::Lookup) when the name is no domain name.
    ///
    /// # Cancel safety
    /// Dropping it drops the questions that are being asked.
    pub fn stream(
        self,
    ) -> Result<impl Stream<Item = Result<Vec<Endpoint<SocketAddr>>, DiscoveryError>> + Send + 'static, DiscoveryError>
    {
        let name = Name::from_utf8(&self.name).map_err(|error| lookup_error(&self.name, &error))?;
        let timeout = self.settings.timeout.saturating_mul(10);
        let kind = self.kind;
        let asker = Arc::new(Asker {
            settings: self.settings,
            resolver: Mutex::default(),
        });
        let ask = move || {
            let (asker, name) = (Arc::clone(&asker), name.clone());
            async move { asker.ask(&name, kind).await }
        };
        let source = PollSource::new(ask).refresh(self.refresh).timeout(timeout);
        Ok(source.env(self.env.unwrap_or_default()).stream())
    }
}

struct Asker {
    settings: Settings,
    /// Made when it is needed first, on the runtime that it runs on, and after a failure.
    resolver: Mutex<Option<TokioResolver>>,
}

/// An answer, and for how long it holds.
struct Answer<T> {
    records: Vec<T>,
    ttl: Duration,
}

impl Asker {
    async fn ask(&self, name: &Name, kind: Kind) -> Result<Found<SocketAddr>, DiscoveryError> {
        if !has_tokio() {
            return Err(DiscoveryError::NeedsTokio);
        }
        let resolver = self.resolver().map_err(|error| lookup_error(name, &error))?;
        // It would give what it has for as long as that lives, and this is asked only afterwards, or because of a floor.
        resolver.clear_cache();
        let answer = match kind {
            Kind::Host { port } => self.host(&resolver, name, port).await,
            Kind::Srv => self.services(&resolver, name).await,
        };
        if answer.is_err() {
            *self.resolver.lock() = None;
        }
        answer.map(|answer| Found::new(answer.records).ttl(answer.ttl))
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut resolver = self.resolver.lock();
        if let Some(resolver) = &*resolver {
            return Ok(resolver.clone());
        }
        let made = self.settings.resolver()?;
        *resolver = Some(made.clone());
        Ok(made)
    }

    async fn host(
        &self,
        resolver: &TokioResolver,
        name: &Name,
        port: u16,
    ) -> Result<Answer<Endpoint<SocketAddr>>, DiscoveryError> {
        let answer = self.addresses(resolver, name).await?;
        let host = host(name);
        let endpoint = |ip| Endpoint::from(SocketAddr::new(ip, port)).metadata("host", &*host);
        Ok(Answer {
            records: answer.records.into_iter().map(endpoint).collect(),
            ttl: answer.ttl,
        })
    }

    async fn services(
        &self,
        resolver: &TokioResolver,
        name: &Name,
    ) -> Result<Answer<Endpoint<SocketAddr>>, DiscoveryError> {
        let srv = |data: &RData| match data {
            RData::SRV(srv) => Some(srv.clone()),
            _ => None,
        };
        let Answer { records, mut ttl } = ask(resolver, name, RecordType::SRV, srv).await?;
        let records: Vec<SRV> = records.into_iter().filter(|srv| !srv.target.is_root()).collect();
        let targets: BTreeMap<&Name, ()> = records.iter().map(|srv| (&srv.target, ())).collect();
        let asked = targets.into_keys().map(|target| {
            let addresses = self.addresses(resolver, target);
            addresses.map_ok(move |addresses| (target, addresses)).boxed()
        });
        // In a list first: of futures made within a stream the compiler cannot tell that they are `Send`.
        let asked: Vec<_> = asked.collect();
        let addresses: BTreeMap<_, _> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        ttl = addresses.values().map(|answer| answer.ttl).fold(ttl, Duration::min);
        let service = |srv: &SRV| Service {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            host: host(&srv.target),
            addresses: addresses[&srv.target].records.clone(),
        };
        let services: Vec<Service> = records.iter().map(service).collect();
        Ok(Answer {
            records: srv::endpoints(&services),
            ttl,
        })
    }

    /// The addresses of a name, sorted.
    async fn addresses(&self, resolver: &TokioResolver, name: &Name) -> Result<Answer<IpAddr>, DiscoveryError> {
        let v4 = || ask(resolver, name, RecordType::A, ip);
        let v6 = || ask(resolver, name, RecordType::AAAA, ip);
        let mut answer = match self.settings.families {
            Families::V4 => v4().await?,
            Families::V6 => v6().await?,
            Families::PreferV4 => v4().await?.or(v6).await?,
            Families::PreferV6 => v6().await?.or(v4).await?,
            Families::Both => {
                let (v4, v6) = futures::try_join!(v4(), v6())?;
                v4.and(v6)
            }
        };
        answer.records.sort_unstable();
        answer.records.dedup();
        Ok(answer)
    }
}

impl<T> Answer<T> {
    /// This answer, or if it is empty another.
    async fn or<F: Future<Output = Result<Answer<T>, DiscoveryError>>>(
        self,
        other: impl FnOnce() -> F,
    ) -> Result<Answer<T>, DiscoveryError> {
        match self.records.is_empty() {
            true => Ok(self.and(other().await?)),
            false => Ok(self),
        }
    }

    fn and(mut self, other: Answer<T>) -> Answer<T> {
        self.records.extend(other.records);
        self.ttl = self.ttl.min(other.ttl);
        self
    }
}

impl Settings {
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match self.servers.is_empty() {
            true => TokioResolver::builder_tokio()?,
            false => {
                let servers = self.servers.iter().copied().map(name_server).collect();
                let config = ResolverConfig::from_name_servers(servers);
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.timeout = self.timeout;
        options.attempts = 2;
        builder.build()
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// Asks one question. That there are no such records is an answer too, which holds as long as the zone says (RFC 2308),
/// or not at all where it says nothing.
async fn ask<T>(
    resolver: &TokioResolver,
    name: &Name,
    kind: RecordType,
    read: impl Fn(&RData) -> Option<T>,
) -> Result<Answer<T>, DiscoveryError> {
    match resolver.lookup(name.clone(), kind).await {
        Ok(lookup) => {
            let records = lookup.answers();
            let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
            Ok(Answer {
                records: records.iter().filter_map(|record| read(&record.data)).collect(),
                ttl: Duration::from_secs(ttl.into()),
            })
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
            if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
                && (none.soa.is_some() || none.ns.is_none()) =>
        {
            Ok(Answer {
                records: Vec::new(),
                ttl: Duration::from_secs(none.negative_ttl.unwrap_or(0).into()),
            })
        }
        Err(error) => Err(lookup_error(&format_args!("{name} {kind}"), &error)),
    }
}

fn ip(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

/// A name as a certificate or a `Host` header has it.
fn host(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

fn lookup_error(name: &impl ToString, error: &impl ToString) -> DiscoveryError {
    DiscoveryError::Lookup {
        name: name.to_string(),
        reason: error.to_string(),
    }
}

/// The most names whose addresses are asked for at once.
const AT_ONCE: usize = 8;
