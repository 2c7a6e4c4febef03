use super::{Continent, Country, Location, Position};
use crate::balance::EndpointId;
use crate::hash::KeyedHash;
use core::net::IpAddr;

/// What is known of a client that is to be routed. What is not given is found out by its address, as far as the router
/// has a [`Locator`](super::Locator).
///
/// ```
/// use outgrow::geo::{Client, Position};
/// let client = Client::new().ip([192, 0, 2, 7]).key(b"user-7").position(Position::new(52.5, 13.4)?);
/// assert_eq!(client.key, Some(&b"user-7"[..]));
/// # Ok::<(), outgrow::geo::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Client<'a> {
    /// Its address, or any of its network, as a DNS resolver passes it on (RFC 7871).
    pub ip: Option<IpAddr>,
    /// What tells it from others: a user, a session. Where a share of the clients goes elsewhere, the key decides who,
    /// always in the same way. Without a key the network of the address does, so that neighbours go together: the
    /// first 24 bits of IPv4 and 56 of IPv6, as many as RFC 7871 tells resolvers to pass on. With neither it is left to
    /// chance, anew for each request.
    pub key: Option<&'a [u8]>,
    /// Where it is.
    pub position: Option<Position>,
    /// In which country it is.
    pub country: Option<Country>,
    /// On which continent it is.
    pub continent: Option<Continent>,
    /// The group of clients that it belongs to, under which latencies are
    /// [observed](super::GeoRouter::observe): an access provider, an office.
    pub group: Option<&'a str>,
    /// Centres that were tried already; one of them is given only when there is no other.
    pub avoid: &'a [EndpointId],
}

impl<'a> Client<'a> {
    /// A client of which nothing is known.
    #[must_use]
    pub fn new() -> Client<'a> {
        Client::default()
    }

    /// Sets the [address](Client::ip).
    #[must_use]
    pub fn ip(mut self, ip: impl Into<IpAddr>) -> Self {
        self.ip = Some(ip.into());
        self
    }

    /// Sets the [`key`](Client::key).
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the [`position`](Client::position).
    #[must_use]
    pub fn position(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// Sets the [`country`](Client::country).
    #[must_use]
    pub fn country(mut self, country: Country) -> Self {
        self.country = Some(country);
        self
    }

    /// Sets the [`continent`](Client::continent).
    #[must_use]
    pub fn continent(mut self, continent: Continent) -> Self {
        self.continent = Some(continent);
        self
    }

    /// Sets the [`group`](Client::group).
    #[must_use]
    pub fn group(mut self, group: &'a str) -> Self {
        self.group = Some(group);
        self
    }

    /// Sets the centres to [`avoid`](Client::avoid).
    #[must_use]
    pub fn avoid(mut self, tried: &'a [EndpointId]) -> Self {
        self.avoid = tried;
        self
    }

    /// What the client says itself, before any locator.
    pub(super) fn location(&self) -> Location {
        Location {
            position: self.position,
            country: self.country,
            continent: self.continent,
            prefix: Some(0),
        }
    }

    /// Whether a locator has nothing to add.
    pub(super) fn is_located(&self) -> bool {
        self.position.is_some() && self.country.is_some() && self.continent.is_some()
    }
}

/// Leading bits of an address that neighbours share.
const V4_NEIGHBOURS: u8 = 24;
const V6_NEIGHBOURS: u8 = 56;

/// What decides, among a client's choices, the same for the same client: a hash, worked out when first asked for.
pub(super) struct Who<'a> {
    key: Option<&'a [u8]>,
    ip: Option<IpAddr>,
    chance: u64,
    hash: Option<u64>,
}

impl<'a> Who<'a> {
    /// The client with this key and address, or `chance` when it has neither.
    pub(super) fn new(key: Option<&'a [u8]>, ip: Option<IpAddr>, chance: u64) -> Who<'a> {
        Who {
            key,
            ip,
            chance,
            hash: None,
        }
    }

    /// A number in `(0, 1)` that is the client's own for what `seed` stands for.
    #[inline]
    pub(super) fn draw(&mut self, seed: u64) -> f64 {
        let hash = match self.hash {
            Some(hash) => hash,
            None => self.work_out(),
        };
        ((mix(hash ^ seed) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    fn work_out(&mut self) -> u64 {
        let hash = match (self.key, self.ip) {
            (Some(key), _) => KeyedHash::default().hash(key),
            (None, Some(IpAddr::V4(ip))) => {
                KeyedHash::default().hash(&(u32::from(ip) >> (32 - V4_NEIGHBOURS)).to_be_bytes())
            }
            (None, Some(IpAddr::V6(ip))) => {
                KeyedHash::default().hash(&(u128::from(ip) >> (128 - V6_NEIGHBOURS)).to_be_bytes())
            }
            (None, None) => self.chance,
        };
        self.hash = Some(hash);
        hash
    }

    /// How many leading bits of the address the answers so far depend on.
    pub(super) fn scope(&self, ip: IpAddr) -> u8 {
        match (self.hash, self.key, ip) {
            (None, ..) => 0,
            (_, Some(_), IpAddr::V4(_)) => 32,
            (_, Some(_), IpAddr::V6(_)) => 128,
            (_, None, IpAddr::V4(_)) => V4_NEIGHBOURS,
            (_, None, IpAddr::V6(_)) => V6_NEIGHBOURS,
        }
    }
}

/// Every bit of the result depends on every bit of `x` (Stafford's thirteenth variant of MurmurHash3's finaliser).
#[inline]
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_key_decides_else_the_network_else_chance() {
        let draw = |key, address, chance| Who::new(key, address, chance).draw(1);
        let near = [ip("192.0.2.1"), ip("192.0.2.254"), ip("192.0.3.1")].map(|ip| draw(None, ip, 0));
        assert_eq!(near[0], near[1]);
        assert_ne!(near[0], near[2]);
        let near = ["2001:db8:1:100::1", "2001:db8:1:1ff::2", "2001:db8:1:200::1"].map(|text| draw(None, ip(text), 0));
        assert_eq!(near[0], near[1]);
        assert_ne!(near[0], near[2]);
        assert_eq!(
            draw(Some(b"a"), ip("192.0.2.1"), 1),
            draw(Some(b"a"), ip("2001:db8::"), 2)
        );
        assert_ne!(draw(None, None, 1), draw(None, None, 2));
    }

    #[test]
    fn the_scope_grows_only_when_the_hash_was_asked_for() {
        let address = ip("192.0.2.1").unwrap();
        let mut who = Who::new(None, Some(address), 0);
        assert_eq!(who.scope(address), 0);
        who.draw(7);
        assert_eq!(who.scope(address), 24);
        let mut keyed = Who::new(Some(b"k"), Some(address), 0);
        keyed.draw(7);
        assert_eq!(keyed.scope(address), 32);
    }

    #[test]
    fn draws_of_one_client_are_even_and_independent() {
        let mut pairs = [[0_u32; 8]; 8];
        for client in 0..64_000_u32 {
            let key = client.to_be_bytes();
            let mut who = Who::new(Some(&key), None, 0);
            let at = |unit: f64| (unit * 8.0) as usize;
            pairs[at(who.draw(1))][at(who.draw(2))] += 1;
        }
        // Each of the 64 pairs is binomial with mean 1,000 and deviation 31: six deviations.
        assert!(
            pairs.as_flattened().iter().all(|n| (810..1_190).contains(n)),
            "{pairs:?}"
        );
    }
}
