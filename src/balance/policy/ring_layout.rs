use crate::balance::Member;
use crate::hash::KeyedHash;

/// Where the endpoints stand on a [`Ring`](super::Ring) and where keys fall: for a ring that others lay out too.
///
/// The ring has 2^64 places. A layout of fewer bits puts them into the high ones, of points and keys alike.
///
/// ```
/// use outgrow::balance::{Endpoint, Member, Pool, Request, Ring, RingLayout};
///
/// /// An endpoint named `n` answers for the keys that begin with a byte up to `n`.
/// struct ByFirstByte;
///
/// impl RingLayout for ByFirstByte {
///     fn points(&self, members: &[Member], put: &mut dyn FnMut(usize, u64)) {
///         for (i, member) in members.iter().enumerate() {
///             put(i, member.id().parse::<u64>().unwrap_or(0) << 56);
///         }
///     }
///
///     fn key(&self, key: &[u8]) -> u64 {
///         u64::from(key.first().copied().unwrap_or(0)) << 56
///     }
/// }
///
/// let pool = Pool::builder(Ring::laid_out_by(ByFirstByte)).endpoints(["99", "128"].map(Endpoint::new)).build();
/// let owner = |key| pool.pick(&Request::new().key(key)).map(|lease| lease.id().to_string());
/// assert_eq!((owner("Zoe")?, owner("zoe")?), ("99".to_owned(), "128".to_owned()));
/// # Ok::<(), outgrow::balance::PickError>(())
/// ```
pub trait RingLayout: Send + Sync + 'static {
    /// Calls `put(i, place)` for every point of the `i`th of the members. One that has none gets no request by key. At most
    /// 2^32 - 2 in all. Of two points at the same place that of the lesser id counts.
    fn points(&self, members: &[Member], put: &mut dyn FnMut(usize, u64));

    /// The place of a key, which belongs to the first point that is not before it.
    fn key(&self, key: &[u8]) -> u64;
}

/// The most points of an endpoint, whatever its weight.
pub(super) const MOST_POINTS: u32 = 1 << 16;

/// SipHash points in proportion to the weights.
pub(super) struct Even {
    /// Points of the heaviest, at most [`MOST_POINTS`].
    pub(super) points: u32,
}

impl RingLayout for Even {
    fn points(&self, members: &[Member], put: &mut dyn FnMut(usize, u64)) {
        let heaviest = members.iter().map(|member| member.weight).max().unwrap_or(1).max(1);
        for (i, member) in members.iter().enumerate() {
            let share = u64::from(self.points) * u64::from(member.weight);
            let points = (share + u64::from(heaviest) / 2) / u64::from(heaviest);
            for point in 0..points.max(1) {
                put(i, KeyedHash::new(1, point).hash(member.id().as_bytes()));
            }
        }
    }

    fn key(&self, key: &[u8]) -> u64 {
        KeyedHash::default().hash(key)
    }
}

/// libmemcached's weighted ketama, over an MD5.
pub(super) struct Ketama<H>(pub(super) H);

/// Points that a digest makes.
const PER_DIGEST: usize = 4;

impl<H: Fn(&[u8]) -> [u8; 16] + Send + Sync + 'static> RingLayout for Ketama<H> {
    fn points(&self, members: &[Member], put: &mut dyn FnMut(usize, u64)) {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        for (i, member) in members.iter().enumerate() {
            // In single precision, step by step as there: it decides how many points an uneven weight gets.
            let share = member.weight as f32 / total as f32;
            let digests = share * 160.0 / PER_DIGEST as f32 * members.len() as f32;
            let digests = ((f64::from(digests) + 1e-10) as f32).floor() as u32;
            for digest in 0..digests.min(MOST_POINTS / PER_DIGEST as u32) {
                let bytes = (self.0)(format!("{}-{digest}", member.id()).as_bytes());
                let (words, _) = bytes.as_chunks::<PER_DIGEST>();
                words.iter().for_each(|word| put(i, high(u32::from_le_bytes(*word))));
            }
        }
    }

    fn key(&self, key: &[u8]) -> u64 {
        let [a, b, c, d, ..] = (self.0)(key);
        high(u32::from_le_bytes([a, b, c, d]))
    }
}

/// nginx's `hash .. consistent`, over a CRC-32.
pub(super) struct Nginx<H>(pub(super) H);

impl<H: Fn(&[u8]) -> u32 + Send + Sync + 'static> RingLayout for Nginx<H> {
    fn points(&self, members: &[Member], put: &mut dyn FnMut(usize, u64)) {
        for (i, member) in members.iter().enumerate() {
            let (host, port) = host_and_port(member.id());
            let mut bytes = [host.as_bytes(), b"\0", port.as_bytes(), &[0; 4]].concat();
            let chained = bytes.len() - 4;
            for _ in 0..member.weight.saturating_mul(160).min(MOST_POINTS) {
                let hash = (self.0)(&bytes);
                put(i, high(hash));
                bytes[chained..].copy_from_slice(&hash.to_le_bytes());
            }
        }
    }

    fn key(&self, key: &[u8]) -> u64 {
        high((self.0)(key))
    }
}

/// What nginx takes for the two in the name of a server.
fn host_and_port(id: &str) -> (&str, &str) {
    match (id.strip_prefix("unix:"), id.rsplit_once(':')) {
        (Some(path), _) => (path, ""),
        (None, Some((host, port))) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (id, ""),
    }
}

/// The place of 32 bits.
fn high(hash: u32) -> u64 {
    u64::from(hash) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_what_nginx_takes_for_one() {
        let cases = [
            ("10.0.0.1:80", ("10.0.0.1", "80")),
            ("[::1]:8080", ("[::1]", "8080")),
            ("example.org", ("example.org", "")),
            ("[::1]", ("[::1]", "")),
            ("unix:/run/a:1", ("/run/a:1", "")),
        ];
        for (id, want) in cases {
            assert_eq!(host_and_port(id), want);
        }
    }
}
