use outgrow::geo::{Centre, Client, GeoRouter, Position, Reason};

pub(crate) fn at(latitude: f64, longitude: f64) -> Position {
    Position::new(latitude, longitude).unwrap()
}

/// Centres along the equator, a degree of which is 111 km.
pub(crate) fn equator<const N: usize>(centres: [(&str, f64); N]) -> [Centre; N] {
    centres.map(|(id, longitude)| Centre::new(id, at(0.0, longitude)))
}

pub(crate) fn goes<T: Send + Sync>(router: &GeoRouter<T>, client: &Client<'_>) -> (String, Reason) {
    let route = router.route(client).unwrap();
    (route.id().to_string(), route.reason())
}

/// How many of `clients`, told apart by their keys, go to each centre, in the order of the status.
pub(crate) fn census<T: Send + Sync>(router: &GeoRouter<T>, clients: u32, client: Client<'_>) -> Vec<u32> {
    let ids: Vec<_> = router.status().centres.into_iter().map(|centre| centre.id).collect();
    let mut counts = vec![0; ids.len()];
    for key in 0..clients {
        let key = key.to_be_bytes();
        let route = router.route(&client.key(&key)).unwrap();
        counts[ids.iter().position(|id| id == route.id()).unwrap()] += 1;
    }
    counts
}

/// Whether `found` of `all` is what a share gives by chance: within six deviations.
pub(crate) fn is_share(found: u32, all: u32, share: f64) -> bool {
    let (all, mean) = (f64::from(all), f64::from(all) * share);
    (f64::from(found) - mean).abs() <= 6.0 * (all * share * (1.0 - share)).sqrt().max(1e-9)
}
