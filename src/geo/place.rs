use super::{Error, Position};
use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

/// A country, by its code of two letters (ISO 3166-1).
///
/// ```
/// use outgrow::geo::Country;
/// let country: Country = "se".parse()?;
/// assert_eq!(country.to_string(), "SE");
/// assert!("Sweden".parse::<Country>().is_err());
/// # Ok::<(), outgrow::geo::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// The two letters, in upper case.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made of ASCII letters only")
    }

    pub(super) fn from_code(code: &str) -> Option<Country> {
        let letters: [u8; 2] = code.as_bytes().try_into().ok()?;
        let is_code = letters.iter().all(u8::is_ascii_alphabetic);
        is_code.then(|| Country(letters.map(|letter| letter.to_ascii_uppercase())))
    }
}

impl FromStr for Country {
    type Err = Error;

    /// # Errors
    /// [`Error::BadCode`] unless it is two ASCII letters. Whether such a country exists is not asked.
    fn from_str(code: &str) -> Result<Country, Error> {
        Country::from_code(code).ok_or_else(|| Error::bad_code("country", code))
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A continent, one of seven, with the codes of MaxMind's databases: `AF`, `AN`, `AS`, `EU`, `NA`, `OC`, `SA`.
///
/// ```
/// use outgrow::geo::Continent;
/// assert_eq!("EU".parse::<Continent>()?, Continent::Europe);
/// # Ok::<(), outgrow::geo::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Continent {
    /// `AF`
    Africa,
    /// `AN`
    Antarctica,
    /// `AS`
    Asia,
    /// `EU`
    Europe,
    /// `NA`
    NorthAmerica,
    /// `OC`
    Oceania,
    /// `SA`
    SouthAmerica,
}

impl Continent {
    pub(super) fn from_code(code: &str) -> Option<Continent> {
        Some(match code {
            "AF" => Continent::Africa,
            "AN" => Continent::Antarctica,
            "AS" => Continent::Asia,
            "EU" => Continent::Europe,
            "NA" => Continent::NorthAmerica,
            "OC" => Continent::Oceania,
            "SA" => Continent::SouthAmerica,
            _ => return None,
        })
    }
}

impl FromStr for Continent {
    type Err = Error;

    /// # Errors
    /// [`Error::BadCode`] unless it is one of the seven codes.
    fn from_str(code: &str) -> Result<Continent, Error> {
        Continent::from_code(code).ok_or_else(|| Error::bad_code("continent", code))
    }
}

/// What a [`Locator`] knows about where an address is; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Location {
    /// The place, as near as it is known.
    pub position: Option<Position>,
    /// The country.
    pub country: Option<Country>,
    /// The continent.
    pub continent: Option<Continent>,
    /// How many leading bits of the address this holds for: 24 of `192.0.2.1` say that it does for all of
    /// `192.0.2.0/24`. `None` stands for all of them. It becomes part of [`Route::scope`](super::Route::scope).
    pub prefix: Option<u8>,
}

/// Finds out where an address is.
///
/// [`GeoIpDatabase`](super::GeoIpDatabase) (feature `geoip`) is one; so is any function of this form:
///
/// ```
/// use outgrow::geo::{Centre, Client, GeoRouter, Location, Position};
/// use std::net::IpAddr;
///
/// let (london, tokyo) = (Position::new(51.5, -0.1)?, Position::new(35.7, 139.7)?);
/// let offices = move |ip: IpAddr| {
///     let mut location = Location::default();
///     if let IpAddr::V4(ip) = ip {
///         location.position = (ip.octets()[..2] == [10, 81]).then_some(tokyo);
///     }
///     location
/// };
/// let router = GeoRouter::builder()
///     .centres([Centre::new("eu", london), Centre::new("jp", tokyo)])
///     .locator(offices)
///     .build()?;
/// assert_eq!(&**router.route(&Client::new().ip([10, 81, 0, 9]))?.id(), "jp");
/// # Ok::<(), outgrow::geo::Error>(())
/// ```
pub trait Locator: Send + Sync + 'static {
    /// What is known about `ip`, which is never an IPv4 address in the guise of an IPv6 one (`::ffff:192.0.2.1`).
    ///
    /// Runs for a request on the caller's thread, unless a subnet's override decides: it must not block, and is
    /// expected not to allocate.
    fn locate(&self, ip: IpAddr) -> Location;
}

impl<F: Fn(IpAddr) -> Location + Send + Sync + 'static> Locator for F {
    fn locate(&self, ip: IpAddr) -> Location {
        self(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_and_the_rest_is_refused() {
        assert_eq!("de".parse::<Country>().unwrap().code(), "DE");
        for code in ["", "D", "DEU", "D1", "é"] {
            assert!(matches!(code.parse::<Country>(), Err(Error::BadCode { .. })), "{code}");
        }
        let codes = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"];
        let mut continents: Vec<_> = codes.iter().map(|code| code.parse::<Continent>().unwrap()).collect();
        continents.dedup();
        assert_eq!(continents.len(), 7);
        assert!(matches!("eu".parse::<Continent>(), Err(Error::BadCode { .. })));
    }
}
