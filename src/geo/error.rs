use crate::balance::EndpointId;
use std::io;
use std::path::PathBuf;

/// What goes wrong in routing among data centres, and in setting it up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no centre, or all are drained or of weight 0. Trying again helps only once that has changed.
    #[error("no data centre takes requests: add one, or enable one that is drained")]
    NoCentres,
    /// Every centre that is not drained is down, and [`AllDown::Refuse`](super::AllDown::Refuse) was chosen.
    #[error("every data centre is down: try again when one is healthy")]
    AllDown,
    /// A latitude beyond 90 degrees or a longitude beyond 180.
    #[error("latitude {latitude}, longitude {longitude} is no place: give degrees within 90 and 180")]
    BadPosition {
        /// The latitude.
        latitude: f64,
        /// The longitude.
        longitude: f64,
    },
    /// A code that names no country or continent.
    #[error("{code:?} is no code of a {what}")]
    BadCode {
        /// What it should name: `country` or `continent`.
        what: &'static str,
        /// The code.
        code: String,
    },
    /// An override or a fallback names a centre that there is not.
    #[error("there is no data centre called {id:?}: add it first, or correct the name")]
    NoSuchCentre {
        /// The name.
        id: EndpointId,
    },
    /// A database could not be read.
    #[error("{} cannot be read: {source}; check that it exists and that this process may read it", path.display())]
    UnreadableDatabase {
        /// Where it was looked for.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// What was read is no MaxMind database, or a damaged one.
    #[error("this is no whole MaxMind database ({reason}): fetch the .mmdb file again, unpacked")]
    BadDatabase {
        /// What is wrong with it.
        reason: String,
    },
    /// The database is about something else than places.
    #[error("a database of type {kind:?} holds no places: take a City or a Country one")]
    WrongDatabase {
        /// What it calls itself.
        kind: String,
    },
}

impl Error {
    pub(super) fn bad_code(what: &'static str, code: &str) -> Error {
        Error::BadCode {
            what,
            code: code.to_owned(),
        }
    }
}
