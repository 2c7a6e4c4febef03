use crate::balance::{EndpointId, Member};
use crate::hash::KeyedHash;

/// Where each endpoint is among the members, by a hash of its id: for a policy that remembers endpoints over changes of the
/// membership. A look-up takes time in proportion to the logarithm of their number.
#[derive(Debug)]
pub(super) struct Places(Box<[(u64, u32)]>);

impl Places {
    pub(super) fn new(members: &[Member]) -> Places {
        let mut places: Vec<_> = members.iter().map(|member| name(member.id())).zip(0..).collect();
        places.sort_unstable();
        Places(places.into())
    }

    #[inline]
    pub(super) fn of(&self, name: u64) -> Option<usize> {
        let found = self.0.binary_search_by_key(&name, |(name, _)| *name);
        found.ok().map(|at| self.0[at].1 as usize)
    }
}

/// What stands for an endpoint; never 0.
pub(super) fn name(id: &EndpointId) -> u64 {
    KeyedHash::default().hash(id.as_bytes()).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::members;
    use super::*;

    #[test]
    fn everybody_is_found_and_nobody_else() {
        let members = members(&[1; 100]);
        let places = Places::new(&members);
        for (i, member) in members.iter().enumerate() {
            assert_eq!(places.of(name(member.id())), Some(i));
        }
        assert_eq!(places.of(name(&"elsewhere".into())), None);
        assert_eq!(Places::new(&[]).of(1), None);
    }
}
