use super::EndpointId;
use crate::hash::KeyedHash;

/// Which part of a large set of endpoints one of many clients uses, so that not every client is connected to every
/// endpoint.
///
/// All endpoints stand on a ring in the order of their ids' hashes, and the clients at even distances on the same ring;
/// each takes the next `size` endpoints from where it stands (deterministic aperture of Finagle, 2019, without its
/// fractions). So every endpoint is used by the same number of clients, give or take one, and when an endpoint joins or
/// leaves, a client changes two of its own at most.
///
/// ```
/// use outgrow::balance::{Endpoint, EndpointState, Pool, RoundRobin, Subset};
/// let endpoints = || (0..100).map(|i| Endpoint::new(i.to_string()));
/// let pool = Pool::builder(RoundRobin::default())
///     .subset(Subset::new(20).client(3, 50))
///     .endpoints(endpoints())
///     .build();
/// let mine = pool.status().endpoints.into_iter().filter(|endpoint| endpoint.state == EndpointState::Active);
/// assert_eq!(mine.count(), 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    size: usize,
    client: u32,
    clients: u32,
}

impl Subset {
    /// `size` endpoints, as the first and only client takes them; 0 is taken as 1. Too small a subset spoils the balance:
    /// 20 or more is usual.
    #[must_use]
    pub const fn new(size: usize) -> Subset {
        Subset {
            size: if size == 0 { 1 } else { size },
            client: 0,
            clients: 1,
        }
    }

    /// As client `index` of `clients` takes them. The index counts from 0, and one that is too large goes round; 0 clients
    /// are taken as 1. Numbers that go with a process are those of a stateful set or a partition of a queue.
    #[must_use]
    pub const fn client(mut self, index: u32, clients: u32) -> Subset {
        self.clients = if clients == 0 { 1 } else { clients };
        self.client = index % self.clients;
        self
    }

    /// The positions of those that are taken, in rising order. Does not depend on the order of `ids`.
    pub(super) fn choose(&self, ids: &[&EndpointId]) -> Vec<usize> {
        if ids.len() <= self.size {
            return (0..ids.len()).collect();
        }
        let hash = KeyedHash::default();
        let mut ring: Vec<(u64, &EndpointId, usize)> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| (hash.hash(id.as_bytes()), *id, i))
            .collect();
        ring.sort_unstable();
        let start = u64::from(self.client) * ids.len() as u64 / u64::from(self.clients);
        let mut taken: Vec<usize> = ring
            .iter()
            .cycle()
            .skip(start as usize)
            .take(self.size)
            .map(|place| place.2)
            .collect();
        taken.sort_unstable();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<EndpointId> {
        numbers.into_iter().map(|i| format!("10.0.0.{i}").into()).collect()
    }

    fn taken(subset: Subset, ids: &[EndpointId]) -> BTreeSet<EndpointId> {
        let refs: Vec<&EndpointId> = ids.iter().collect();
        subset.choose(&refs).into_iter().map(|i| ids[i].clone()).collect()
    }

    proptest! {
        #[test]
        fn every_endpoint_has_as_many_clients(endpoints in 1..80_u32, clients in 1..40_u32, size in 1..30_usize) {
            let all = ids(0..endpoints);
            let mut uses = vec![0_usize; all.len()];
            for client in 0..clients {
                let mine = taken(Subset::new(size).client(client, clients), &all);
                prop_assert_eq!(mine.len(), size.min(all.len()));
                for (i, id) in all.iter().enumerate() {
                    uses[i] += usize::from(mine.contains(id));
                }
            }
            let (least, most) = (uses.iter().min(), uses.iter().max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1, "{:?}", uses);
        }

        #[test]
        fn one_more_endpoint_changes_two_of_a_client_at_most(
            endpoints in 1..80_u32, clients in 1..40_u32, client in 0..40_u32, size in 1..30_usize,
        ) {
            let subset = Subset::new(size).client(client, clients);
            let (few, more) = (taken(subset, &ids(0..endpoints)), taken(subset, &ids((0..=endpoints).rev())));
            prop_assert!(few.difference(&more).count() <= 2, "{:?} {:?}", few, more);
        }
    }
}
