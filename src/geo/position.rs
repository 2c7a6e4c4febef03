use super::Error;

/// The mean radius of the Earth in kilometres (IUGG, 2019).
const RADIUS: f64 = 6_371.008_8;

/// A place on the Earth, by latitude and longitude in degrees.
///
/// ```
/// use outgrow::geo::Position;
/// let (paris, london) = (Position::new(48.857, 2.352)?, Position::new(51.507, -0.128)?);
/// assert!((343.0..345.0).contains(&paris.kilometres_to(london)));
/// assert!(Position::new(91.0, 0.0).is_err());
/// # Ok::<(), outgrow::geo::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Position {
    latitude: f64,
    longitude: f64,
}

impl Position {
    /// The place at `latitude` degrees north (south when negative) and `longitude` degrees east.
    ///
    /// # Errors
    /// [`Error::BadPosition`] unless they are within 90 and 180 degrees.
    pub fn new(latitude: f64, longitude: f64) -> Result<Position, Error> {
        if latitude.abs() <= 90.0 && longitude.abs() <= 180.0 {
            Ok(Position { latitude, longitude })
        } else {
            Err(Error::BadPosition { latitude, longitude })
        }
    }

    /// Degrees north of the equator.
    #[must_use]
    pub fn latitude(self) -> f64 {
        self.latitude
    }

    /// Degrees east of Greenwich.
    #[must_use]
    pub fn longitude(self) -> f64 {
        self.longitude
    }

    /// The length of the great circle between the two, in kilometres, on a sphere: up to 0.6 % off the Earth's.
    ///
    /// By the haversine formula, which stays exact for near places (Sinnott, 1984).
    #[must_use]
    pub fn kilometres_to(self, other: Position) -> f64 {
        let (lat, other_lat) = (self.latitude.to_radians(), other.latitude.to_radians());
        let lon = (other.longitude - self.longitude).to_radians();
        let half_square = |angle: f64| (angle / 2.0).sin().powi(2);
        let haversine = half_square(other_lat - lat) + lat.cos() * other_lat.cos() * half_square(lon);
        kilometres(haversine.sqrt())
    }
}

/// The great circle over half a chord, which is the square root of the haversine.
fn kilometres(half_chord: f64) -> f64 {
    2.0 * RADIUS * half_chord.min(1.0).asin()
}

/// A position as a point of the unit sphere: the distance between two costs no sine or cosine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point([f64; 3]);

impl Point {
    /// The square of the straight line between the two, through the sphere of radius 1.
    #[inline]
    pub(super) fn square_chord(self, other: Point) -> f64 {
        let [x, y, z] = [0, 1, 2].map(|axis| self.0[axis] - other.0[axis]);
        x * x + y * y + z * z
    }

    /// What [`square_chord`](Point::square_chord) is at most for two points so many kilometres apart: the square of the
    /// arc.
    #[inline]
    pub(super) fn square_chord_of(kilometres: f64) -> f64 {
        (kilometres / RADIUS).powi(2)
    }

    /// As [`Position::kilometres_to`].
    #[inline]
    pub(super) fn kilometres_to(self, other: Point) -> f64 {
        kilometres(self.half_chord(other))
    }

    #[inline]
    fn half_chord(self, other: Point) -> f64 {
        self.square_chord(other).sqrt() / 2.0
    }
}

impl From<Position> for Point {
    #[inline]
    fn from(position: Position) -> Point {
        let (lat_sin, lat_cos) = position.latitude.to_radians().sin_cos();
        let (lon_sin, lon_cos) = position.longitude.to_radians().sin_cos();
        Point([lat_cos * lon_cos, lat_cos * lon_sin, lat_sin])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(latitude: f64, longitude: f64) -> Position {
        Position::new(latitude, longitude).unwrap()
    }

    #[test]
    fn known_distances() {
        // A degree of a meridian, a quarter and half of the way round, over the pole and over the date line.
        let degree = RADIUS * 1.0_f64.to_radians();
        for (a, b, degrees) in [
            (at(0.0, 0.0), at(1.0, 0.0), 1.0),
            (at(0.0, 0.0), at(0.0, 90.0), 90.0),
            (at(90.0, 0.0), at(-90.0, 77.0), 180.0),
            (at(80.0, 0.0), at(80.0, 180.0), 20.0),
            (at(0.0, 179.5), at(0.0, -179.5), 1.0),
        ] {
            let found = a.kilometres_to(b);
            assert!((found - degrees * degree).abs() < 1e-6, "{a:?} {b:?}: {found}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for (lat, lon) in [(90.1, 0.0), (0.0, -180.1), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert!(matches!(Position::new(lat, lon), Err(Error::BadPosition { .. })));
        }
    }

    proptest! {
        #[test]
        fn points_are_as_far_as_positions(
            a in (-90.0..=90.0_f64, -180.0..=180.0_f64),
            b in (-90.0..=90.0_f64, -180.0..=180.0_f64),
            step in prop_oneof![Just(1.0), Just(1e-4)],
        ) {
            let (a, mut b) = (at(a.0, a.1), at(b.0, b.1));
            // Near ones too, where differences of coordinates are small.
            b = at(a.latitude + (b.latitude - a.latitude) * step, a.longitude + (b.longitude - a.longitude) * step);
            let (p, q) = (Point::from(a), Point::from(b));
            let expected = a.kilometres_to(b);
            // Towards the antipode an arc sine turns the last bit of its argument into metres.
            let tolerance = if expected > 20_000.0 { 1.0 } else { 1e-4 };
            prop_assert!((p.kilometres_to(q) - expected).abs() < tolerance);
            prop_assert!(p.square_chord(q) <= Point::square_chord_of(expected + tolerance));
        }
    }
}
