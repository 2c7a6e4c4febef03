//! Where addresses are, by a database in MaxMind's format.

use super::{Continent, Country, Error, Location, Locator, Position};
use crate::env::files::blocking;
use crate::env::{Env, OpenMode, read_exact_at};
use crate::sync::{AtomicU64, Ordering};
use core::net::IpAddr;
use maxminddb::{LookupResult, MaxMindDbError, Reader, path};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A City or Country database in MaxMind's format (`.mmdb`): GeoIP2, GeoLite2, DB-IP and others. Held in memory as it is,
/// so it takes as many bytes as the file has. Cheap to clone.
///
/// A Country database knows no positions: its clients are routed by overrides for countries and continents, and else
/// [fall back](super::Fallback). The licence of a database is a matter between its publisher and whoever fetches it.
///
/// ```no_run
/// use outgrow::env::Env;
/// use outgrow::geo::{Centre, Client, GeoIpDatabase, GeoRouter, Position};
///
/// # async fn run() -> Result<(), outgrow::geo::Error> {
/// let database = GeoIpDatabase::open("/var/lib/GeoIP/GeoLite2-City.mmdb", &Env::default()).await?;
/// let router = GeoRouter::builder()
///     .centres([Centre::new("eu", Position::new(50.1, 8.7)?), Centre::new("us", Position::new(39.0, -77.5)?)])
///     .locator(database)
///     .build()?;
/// let route = router.route(&Client::new().ip([81, 2, 69, 142]))?;
/// assert_eq!(&**route.id(), "eu");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct GeoIpDatabase {
    inner: Arc<Inner>,
}

struct Inner {
    reader: Reader<Vec<u8>>,
    unreadable: AtomicU64,
}

impl GeoIpDatabase {
    /// Reads the database from a file.
    ///
    /// # Errors
    /// [`Error::UnreadableDatabase`], and as for [`from_bytes`](GeoIpDatabase::from_bytes).
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind; a read that has begun is finished and forgotten.
    pub async fn open(path: impl Into<PathBuf>, env: &Env) -> Result<GeoIpDatabase, Error> {
        let path = path.into();
        let (disk, from) = (Arc::clone(env.disk()), path.clone());
        let read = async move {
            let file = disk.open(&from, OpenMode::Existing).await?;
            let len = usize::try_from(file.len().await?).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let mut bytes = vec![0; len];
            read_exact_at(&*file, &mut bytes, 0).await?;
            Ok(bytes)
        };
        match blocking(env, read).await {
            Ok(bytes) => GeoIpDatabase::from_bytes(bytes),
            Err(source) => Err(Error::UnreadableDatabase { path, source }),
        }
    }

    /// Takes the database from memory.
    ///
    /// # Errors
    /// [`Error::BadDatabase`] when its frame is damaged, and [`Error::WrongDatabase`] when it is about something else
    /// than places. A damaged record shows only when it is [looked up](GeoIpDatabase::unreadable).
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<GeoIpDatabase, Error> {
        let bad = |error: MaxMindDbError| Error::BadDatabase {
            reason: error.to_string(),
        };
        let reader = Reader::from_source(bytes.into()).map_err(bad)?;
        let kind = &reader.metadata().database_type;
        if !KINDS.iter().any(|known| kind.contains(known)) {
            return Err(Error::WrongDatabase { kind: kind.clone() });
        }
        Ok(GeoIpDatabase {
            inner: Arc::new(Inner {
                reader,
                unreadable: AtomicU64::new(0),
            }),
        })
    }

    /// How many lookups met a damaged record, and so found nothing. When it is not 0, fetch the database again.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.inner.unreadable.load(Ordering::Relaxed)
    }
}

/// What a database that holds places has in its type.
const KINDS: &[&str] = &["City", "Country", "Enterprise", "Insights", "Location"];

impl Locator for GeoIpDatabase {
    fn locate(&self, ip: IpAddr) -> Location {
        let found = self.inner.reader.lookup(ip).and_then(|found| read(ip, &found));
        match found {
            Ok(location) => location,
            // An IPv6 address in a database of IPv4 alone.
            Err(MaxMindDbError::InvalidInput { .. }) => Location {
                prefix: Some(0),
                ..Location::default()
            },
            Err(_) => {
                self.inner.unreadable.fetch_add(1, Ordering::Relaxed);
                Location::default()
            }
        }
    }
}

/// The few fields that routing needs, each found on its own: a record as a whole holds names in many languages.
fn read(ip: IpAddr, found: &LookupResult<'_, Vec<u8>>) -> Result<Location, MaxMindDbError> {
    let mut location = Location::default();
    let network = found.network()?;
    // An IPv4 address may be looked up in a tree of IPv6 that ends before IPv4 begins: all of IPv4 has that answer.
    let of_its_kind = network.is_ipv4() == ip.is_ipv4();
    location.prefix = Some(if of_its_kind { network.prefix() } else { 0 });
    if !found.has_data() {
        return Ok(location);
    }
    let latitude: Option<f64> = found.decode_path(&path!["location", "latitude"])?;
    let longitude: Option<f64> = found.decode_path(&path!["location", "longitude"])?;
    if let (Some(latitude), Some(longitude)) = (latitude, longitude) {
        location.position = Position::new(latitude, longitude).ok();
    }
    let mut country: Option<&str> = found.decode_path(&path!["country", "iso_code"])?;
    if country.is_none() {
        // Where an address is used is not always known; then where its network is registered.
        country = found.decode_path(&path!["registered_country", "iso_code"])?;
    }
    location.country = country.and_then(Country::from_code);
    let continent: Option<&str> = found.decode_path(&path!["continent", "code"])?;
    location.continent = continent.and_then(Continent::from_code);
    Ok(location)
}

impl fmt::Debug for GeoIpDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoIpDatabase")
            .field("kind", &self.inner.reader.metadata().database_type)
            .field("built", &self.inner.reader.metadata().build_epoch)
            .finish_non_exhaustive()
    }
}
