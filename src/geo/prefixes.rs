use core::net::IpAddr;
use ipnet::IpNet;

/// A table of networks, of which the longest that holds an address is found.
///
/// The networks are cut into ranges that do not overlap, so a look is a binary search. 16 bytes and a value for each
/// range, of which there are at most two for a network.
#[derive(Debug)]
pub(super) struct Prefixes<V> {
    v4: Ranges<V>,
    v6: Ranges<V>,
}

/// Ranges of one family: each begins where the one before ends, the first at 0.
#[derive(Debug)]
struct Ranges<V> {
    starts: Box<[u128]>,
    values: Box<[Option<V>]>,
    bits: u8,
}

impl<V: Copy> Prefixes<V> {
    /// A table of these networks; of two that are the same, the later counts.
    pub(super) fn new(nets: impl IntoIterator<Item = (IpNet, V)>) -> Prefixes<V> {
        let (v4, v6): (Vec<_>, Vec<_>) = nets
            .into_iter()
            .map(|(net, value)| (canonical(net), value))
            .partition(|(net, _)| matches!(net, IpNet::V4(_)));
        Prefixes {
            v4: Ranges::new(v4, 32),
            v6: Ranges::new(v6, 128),
        }
    }

    /// The value of the longest network that holds `ip`, and how many leading bits of `ip` an address must share for
    /// the answer to be the same by what the table knows; as few as that is true of. `ip` is in its
    /// [canonical](IpAddr::to_canonical) form.
    #[inline]
    pub(super) fn find(&self, ip: IpAddr) -> (Option<V>, u8) {
        match ip {
            IpAddr::V4(ip) => self.v4.find(u128::from(u32::from(ip))),
            IpAddr::V6(ip) => self.v6.find(u128::from(ip)),
        }
    }
}

/// IPv4 networks in the guise of IPv6 as what they are, and no bits behind the prefix.
pub(super) fn canonical(net: IpNet) -> IpNet {
    let unmasked = match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96).unwrap_or(net),
            None => net,
        },
        _ => net,
    };
    unmasked.trunc()
}

impl<V: Copy> Ranges<V> {
    fn new(nets: Vec<(IpNet, V)>, bits: u8) -> Ranges<V> {
        let number = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let mut nets: Vec<_> = nets
            .into_iter()
            .map(|(net, value)| (number(net.network()), number(net.broadcast()), value))
            .collect();
        // Outer networks before those within them; the later of two equal ones stays the later.
        nets.sort_by_key(|(first, last, _)| (*first, u128::MAX - last));
        let mut ranges = Builder {
            starts: vec![0],
            values: vec![None],
        };
        let mut around: Vec<(u128, V)> = Vec::new();
        for (first, last, value) in nets {
            ranges.leave(&mut around, |end| end < first);
            ranges.begin(first, Some(value));
            around.push((last, value));
        }
        ranges.leave(&mut around, |_| true);
        Ranges {
            starts: ranges.starts.into(),
            values: ranges.values.into(),
            bits,
        }
    }

    #[inline]
    fn find(&self, key: u128) -> (Option<V>, u8) {
        let after = self.starts.partition_point(|start| *start <= key);
        let before = self.starts[after - 1].checked_sub(1);
        let neighbours = [before, self.starts.get(after).copied()];
        // The network around `key` that is just too small for the neighbours outside.
        let apart = |other: u128| ((key ^ other).leading_zeros() as u8 + 1).saturating_sub(128 - self.bits);
        let bits = neighbours.into_iter().flatten().map(apart).max();
        (self.values[after - 1], bits.unwrap_or(0).min(self.bits))
    }
}

struct Builder<V> {
    starts: Vec<u128>,
    values: Vec<Option<V>>,
}

impl<V: Copy> Builder<V> {
    fn begin(&mut self, start: u128, value: Option<V>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.values.pop();
        }
        self.starts.push(start);
        self.values.push(value);
    }

    /// Ends the innermost networks for as long as they are `over`: behind each, the one around it goes on.
    fn leave(&mut self, around: &mut Vec<(u128, V)>, over: impl Fn(u128) -> bool) {
        while let Some((last, _)) = around.pop_if(|(last, _)| over(*last)) {
            if let Some(next) = last.checked_add(1) {
                self.begin(next, around.last().map(|(_, value)| *value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Networks and addresses that meet often: few bits differ.
    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = (0..4_u32, 0..4_u32).prop_map(|(high, low)| IpAddr::from((high << 30 | low).to_be_bytes()));
        let v6 = (0..4_u128, 0..4_u128).prop_map(|(high, low)| IpAddr::from((high << 126 | low).to_be_bytes()));
        let any = any::<u32>().prop_map(|ip| IpAddr::from(ip.to_be_bytes()));
        prop_oneof![v4, v6, any]
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (address(), 0..=128_u8).prop_map(|(ip, prefix)| {
            let bits = if ip.is_ipv4() { 32 } else { 128 };
            IpNet::new(ip, prefix % (bits + 1)).unwrap()
        })
    }

    fn slow(nets: &[IpNet], ip: IpAddr) -> Option<usize> {
        let holding = nets.iter().enumerate().filter(|(_, net)| net.contains(&ip));
        holding.max_by_key(|(i, net)| (net.prefix_len(), *i)).map(|(i, _)| i)
    }

    proptest! {
        #[test]
        fn the_longest_network_is_found_and_the_scope_is_exact(
            nets in prop::collection::vec(net(), 0..20),
            ips in prop::collection::vec(address(), 1..20),
        ) {
            let table = Prefixes::new(nets.iter().copied().enumerate().map(|(i, net)| (net, i)));
            for ip in ips {
                let (found, bits) = table.find(ip);
                prop_assert_eq!(found, slow(&nets, ip));
                // All of the scope answers alike: its ends, and the ends of every network within it.
                let scope = IpNet::new(ip, bits).unwrap();
                let ends = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
                for other in ends.chain([scope.network(), scope.broadcast()]).filter(|ip| scope.contains(ip)) {
                    prop_assert_eq!(slow(&nets, other), found, "{} in {}", other, scope);
                }
                // A wider one would hold a network that ends within it.
                if let Some(wider) = scope.supernet() {
                    prop_assert!(nets.iter().any(|net| wider.contains(net) && *net != wider), "{}", scope);
                }
            }
        }
    }

    #[test]
    fn ipv4_in_the_guise_of_ipv6_is_ipv4() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(canonical(net("::ffff:192.0.2.9/120")), net("192.0.2.0/24"));
        assert_eq!(canonical(net("::ffff:0.0.0.0/95")), net("::fffe:0:0/95"));
        let table = Prefixes::new([(net("::/0"), 'a'), (net("0.0.0.0/0"), 'b')]);
        assert_eq!(table.find([192, 0, 2, 1].into()), (Some('b'), 0));
        assert_eq!(table.find([0, 0, 0, 0, 0, 0, 0, 1].into()), (Some('a'), 0));
    }

    #[test]
    fn ranges_that_end_where_the_addresses_end() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let table = Prefixes::new([
            (net("255.255.255.255/32"), 1),
            (net("128.0.0.0/1"), 2),
            (net("ffff::/16"), 3),
        ]);
        assert_eq!(table.find([255, 255, 255, 255].into()), (Some(1), 32));
        assert_eq!(table.find([255, 255, 255, 254].into()), (Some(2), 32));
        assert_eq!(table.find([192, 0, 0, 1].into()), (Some(2), 3));
        assert_eq!(table.find([1, 0, 0, 1].into()), (None, 1));
        assert_eq!(table.find([u16::MAX; 8].into()), (Some(3), 16));
    }
}
