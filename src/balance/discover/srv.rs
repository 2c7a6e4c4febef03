use crate::balance::Endpoint;
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

/// A service record and the addresses of its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// The target's name, without the dot at its end.
    pub(super) host: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// The endpoints that the services stand for, sorted by address.
///
/// The priorities become 0, 1, 2 and so on in their order, since only their order has a meaning (RFC 2782); from 255 on
/// they are one. A service's weight is shared by its addresses. One of weight 0 gets a hundredth of a weight of 1, the
/// "very small chance" of the RFC, or what all others get where all have 0: a weight of 0 takes an endpoint out of a pool.
/// An address that several services name counts once, with the best of their priorities and the sum of its weights there.
pub(super) fn endpoints(services: &[Service]) -> Vec<Endpoint<SocketAddr>> {
    let mut ranks: Vec<u16> = services.iter().map(|service| service.priority).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let mut set: BTreeMap<SocketAddr, (u8, u64, &str)> = BTreeMap::new();
    for (rank, priority) in ranks.into_iter().enumerate() {
        let rank = u8::try_from(rank).unwrap_or(u8::MAX);
        let group: Vec<_> = services.iter().filter(|service| service.priority == priority).collect();
        for (service, weight) in group.iter().zip(weights(&group)) {
            for address in &service.addresses {
                let address = SocketAddr::new(*address, service.port);
                let (best, sum, _) = set.entry(address).or_insert((rank, 0, &service.host));
                if *best == rank {
                    *sum += weight;
                }
            }
        }
    }
    let endpoint = |(address, (rank, weight, host)): (SocketAddr, (u8, u64, &str))| {
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        Endpoint::from(address)
            .weight(weight)
            .priority(rank)
            .metadata("host", host)
    };
    set.into_iter().map(endpoint).collect()
}

/// The weight of one address of each service, in whole numbers that are as small as can be.
fn weights(group: &[&Service]) -> Vec<u64> {
    let all_zero = group.iter().all(|service| service.weight == 0);
    let some_zero = group.iter().any(|service| service.weight == 0);
    let unit = |weight: u16| match weight {
        0 => 1,
        _ if some_zero => u64::from(weight) * 100,
        _ => u64::from(weight),
    };
    let shares = |service: &&Service| service.addresses.len().max(1) as u64;
    // A common multiple of the numbers of addresses; where that grows too large, the shares are rounded.
    let multiple = group.iter().map(shares).try_fold(1, |multiple: u64, n| {
        let next = multiple / gcd(multiple, n) * n;
        (next <= MOST_MULTIPLE).then_some(next)
    });
    let multiple = multiple.unwrap_or(MOST_MULTIPLE);
    let weight = |service: &&Service| {
        let whole = if all_zero { 1 } else { unit(service.weight) };
        (whole * multiple / shares(service)).max(1)
    };
    let weights: Vec<u64> = group.iter().map(weight).collect();
    let common = weights.iter().copied().fold(0, gcd).max(1);
    weights.into_iter().map(|weight| weight / common).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A multiple of all numbers up to ten, so that the sum of a group's weights keeps to 32 bits in all but absurd cases.
const MOST_MULTIPLE: u64 = 2_520;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(priority: u16, weight: u16, addresses: &[&str]) -> Service {
        Service {
            priority,
            weight,
            port: 80,
            host: format!("{}.example.org", addresses.first().unwrap_or(&"nobody")),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    fn brief(services: &[Service]) -> Vec<(String, u8, u32)> {
        let brief = |e: &Endpoint<SocketAddr>| (e.target.ip().to_string(), e.priority, e.weight);
        endpoints(services).iter().map(brief).collect()
    }

    fn row(address: &str, priority: u8, weight: u32) -> (String, u8, u32) {
        (address.to_owned(), priority, weight)
    }

    #[test]
    fn priorities_are_ranks_and_weights_shares() {
        let set = [
            service(20, 0, &["10.0.0.4"]),
            service(10, 60, &["10.0.0.1"]),
            service(10, 20, &["10.0.0.2"]),
            service(10, 20, &["10.0.0.3", "::3"]),
        ];
        let want = [
            row("10.0.0.1", 0, 6),
            row("10.0.0.2", 0, 2),
            row("10.0.0.3", 0, 1),
            row("10.0.0.4", 1, 1),
            row("::3", 0, 1),
        ];
        assert_eq!(brief(&set), want);
        assert_eq!(&**endpoints(&set)[0].id(), "10.0.0.1:80");
    }

    #[test]
    fn weight_zero_is_a_very_small_chance_and_not_none() {
        let mixed = [service(0, 0, &["10.0.0.1"]), service(0, 2, &["10.0.0.2"])];
        assert_eq!(brief(&mixed), [row("10.0.0.1", 0, 1), row("10.0.0.2", 0, 200)]);
        let all = [service(0, 0, &["10.0.0.1"]), service(0, 0, &["10.0.0.2"])];
        assert_eq!(brief(&all), [row("10.0.0.1", 0, 1), row("10.0.0.2", 0, 1)]);
    }

    #[test]
    fn an_address_that_is_named_twice_is_there_once() {
        let set = [
            service(2, 50, &["10.0.0.1"]),
            service(1, 3, &["10.0.0.1"]),
            service(1, 4, &["10.0.0.1"]),
            service(1, 7, &["10.0.0.2"]),
            service(1, 7, &[]),
        ];
        assert_eq!(brief(&set), [row("10.0.0.1", 0, 7), row("10.0.0.2", 0, 7)]);
        assert_eq!(brief(&[]), []);
    }

    #[test]
    fn there_are_more_priorities_than_ranks() {
        let set: Vec<_> = (0..300_u16)
            .map(|i| service(i, 1, &[&format!("10.0.{}.{}", i / 256, i % 256)]))
            .collect();
        let ranks: Vec<_> = brief(&set).iter().map(|(_, rank, _)| *rank).collect();
        let want: Vec<_> = (0..300_u16).map(|i| u8::try_from(i).unwrap_or(255)).collect();
        assert_eq!(ranks, want);
    }

    proptest! {
        /// Services with addresses of their own have exactly the shares that their weights say.
        #[test]
        fn shares_are_exact(group in prop::collection::vec((1_u16..=u16::MAX, 1_usize..=10), 1..12)) {
            let services: Vec<_> = group.iter().enumerate().map(|(i, &(weight, addresses))| Service {
                priority: 7,
                weight,
                port: 1,
                host: i.to_string(),
                addresses: (0..addresses).map(|j| IpAddr::from([10, 0, i as u8, j as u8])).collect(),
            }).collect();
            let set = endpoints(&services);
            let total: u128 = set.iter().map(|endpoint| u128::from(endpoint.weight)).sum();
            let weights: u128 = group.iter().map(|(weight, _)| u128::from(*weight)).sum();
            for (i, (weight, addresses)) in group.iter().enumerate() {
                let own: Vec<_> = set.iter().filter(|endpoint| matches!(endpoint.target.ip(),
                    IpAddr::V4(ip) if ip.octets()[2] == i as u8)).collect();
                prop_assert_eq!(own.len(), *addresses);
                let share: u128 = own.iter().map(|endpoint| u128::from(endpoint.weight)).sum();
                prop_assert_eq!(share * weights, u128::from(*weight) * total);
            }
        }
    }
}
