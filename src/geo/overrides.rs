use super::prefixes::{Prefixes, canonical};
use super::{Continent, Country, Location};
use crate::balance::EndpointId;
use ipnet::IpNet;
use std::collections::BTreeMap;

/// Which clients belong to which centre whatever the distance. The most specific wins: a subnet (the longest that
/// holds the address), else the country, else the continent; of two for the same, the later.
///
/// An override says whose client it is; where that centre cannot take it, it goes where the others of that centre go.
/// One that names a centre which has left does not apply until it is back.
///
/// ```
/// use outgrow::geo::{Continent, Overrides};
/// let overrides = Overrides::new()
///     .subnet("10.0.0.0/8".parse()?, "office")
///     .country("CH".parse()?, "zurich")
///     .continent(Continent::Europe, "frankfurt");
/// assert_eq!(overrides.len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    subnets: BTreeMap<IpNet, EndpointId>,
    countries: BTreeMap<Country, EndpointId>,
    continents: BTreeMap<Continent, EndpointId>,
}

impl Overrides {
    /// None.
    #[must_use]
    pub fn new() -> Overrides {
        Overrides::default()
    }

    /// Clients with an address in `net` belong to `centre`. IPv4 networks hold IPv4 addresses in the guise of IPv6
    /// ones too; IPv6 networks hold no IPv4 address, however wide they are.
    #[must_use]
    pub fn subnet(mut self, net: IpNet, centre: impl Into<EndpointId>) -> Self {
        self.subnets.insert(canonical(net), centre.into());
        self
    }

    /// Clients in `country` belong to `centre`.
    #[must_use]
    pub fn country(mut self, country: Country, centre: impl Into<EndpointId>) -> Self {
        self.countries.insert(country, centre.into());
        self
    }

    /// Clients on `continent` belong to `centre`.
    #[must_use]
    pub fn continent(mut self, continent: Continent, centre: impl Into<EndpointId>) -> Self {
        self.continents.insert(continent, centre.into());
        self
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.centres().count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The centres that are named, one for each override.
    pub(super) fn centres(&self) -> impl Iterator<Item = &EndpointId> {
        let subnets = self.subnets.values().chain(self.countries.values());
        subnets.chain(self.continents.values())
    }

    /// The overrides as a router looks them up, with centres by their number; those without a number are left out.
    pub(super) fn rules(&self, number: impl Fn(&EndpointId) -> Option<u32>) -> Rules {
        let subnets = self.subnets.iter();
        let countries = self.countries.iter();
        let continents = self.continents.iter();
        Rules {
            subnets: Prefixes::new(subnets.filter_map(|(net, id)| Some((*net, number(id)?)))),
            countries: countries.filter_map(|(of, id)| Some((*of, number(id)?))).collect(),
            continents: continents.filter_map(|(of, id)| Some((*of, number(id)?))).collect(),
        }
    }
}

/// [`Overrides`] with centres by their number.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) subnets: Prefixes<u32>,
    countries: BTreeMap<Country, u32>,
    continents: BTreeMap<Continent, u32>,
}

impl Rules {
    #[inline]
    pub(super) fn country(&self, location: &Location) -> Option<u32> {
        self.countries.get(&location.country?).copied()
    }

    #[inline]
    pub(super) fn continent(&self, location: &Location) -> Option<u32> {
        self.continents.get(&location.continent?).copied()
    }
}
