//! Routes clients to data centres: the nearest that can take them, with exceptions, and a way out when one is lost.
//!
//! A [`GeoRouter`] holds the data centres, each a [`Centre`] with its position, weight, capacity and a target. A
//! [`Client`] says what is known of who asks: an address, a position, a country. A [`Route`] derefs to the centre and
//! says why it is that one.
//!
//! ```
//! use outgrow::geo::{Centre, Client, Continent, GeoRouter, Overrides, Position, Reason};
//!
//! let router = GeoRouter::builder()
//!     .centres([
//!         Centre::new("virginia", Position::new(39.03, -77.46)?).capacity(3_000),
//!         Centre::new("dublin", Position::new(53.35, -6.27)?).capacity(1_000),
//!         Centre::new("frankfurt", Position::new(50.11, 8.68)?).capacity(2_000),
//!     ])
//!     .overrides(Overrides::new().country("CH".parse()?, "frankfurt").continent(Continent::Africa, "dublin"))
//!     .build()?;
//!
//! let london = Client::new().key(b"user-7").position(Position::new(51.51, -0.13)?);
//! let route = router.route(&london)?;
//! assert_eq!((&**route.id(), route.reason()), ("dublin", Reason::Nearest));
//!
//! router.set_health("dublin", false); // its clients are spread over the others, each always to the same one
//! let route = router.route(&london)?;
//! assert_eq!((&**route.home(), route.reason()), ("dublin", Reason::Spilled));
//! assert_eq!(router.route(&london)?.id(), route.id());
//!
//! router.set_health("dublin", true);
//! router.shift("dublin", 0.1); // a tenth of its clients come back
//! router.enable("dublin"); // all do
//! assert_eq!(&**router.route(&london)?.id(), "dublin");
//! # Ok::<(), outgrow::geo::Error>(())
//! ```
//!
//! Distance is a stand-in for latency, and a good one as long as nothing is known of the networks between. Where latency
//! is measured, tell it by [`GeoRouter::observe`].
//!
//! When not to use it: with one data centre, or where anycast or a DNS service does this already. The room does not
//! probe centres; say who is healthy with [`GeoRouter::set_health`], or hand on what the centre's pool says. Capacity is
//! about the requests that this router routes: routers do not talk to each other.

mod atlas;
mod builder;
mod centre;
mod client;
#[cfg(feature = "geoip")]
mod database;
mod error;
mod latency;
mod overrides;
mod place;
mod position;
mod prefixes;
mod roster;
mod route;
mod router;
mod spread;
mod status;

pub use builder::{AllDown, Fallback, GeoRouterBuilder};
pub use centre::Centre;
pub use client::Client;
#[cfg(feature = "geoip")]
pub use database::GeoIpDatabase;
pub use error::Error;
pub use ipnet::IpNet;
pub use latency::Group;
pub use overrides::Overrides;
pub use place::{Continent, Country, Location, Locator};
pub use position::Position;
pub use route::{MOST_ROUTES, Reason, Route, Routes};
pub use router::GeoRouter;
pub use status::{CentreStatus, GeoStatus};
