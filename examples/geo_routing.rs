//! Three data centres, the pools of their endpoints, and a bad day: one is lost, comes back, and a fourth is tried out.
//!
//! `cargo run --release --example geo_routing`
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use outgrow::balance::{Endpoint, Pool, PowerOfTwo, Request};
use outgrow::geo::{Centre, Client, Continent, Error, GeoRouter, Overrides, Position};
use std::collections::BTreeMap;

/// What a centre's target is: the pool of its endpoints.
type Endpoints = Pool<PowerOfTwo>;

fn pool(name: &str) -> Endpoints {
    let endpoints = (1..=3).map(|i| Endpoint::new(format!("{name}-{i}")));
    Pool::builder(PowerOfTwo::default()).endpoints(endpoints).build()
}

fn centre(name: &str, latitude: f64, longitude: f64, capacity: u32) -> Result<Centre<Endpoints>, Error> {
    let centre = Centre::new(name, Position::new(latitude, longitude)?).capacity(capacity);
    Ok(centre.target(pool(name)))
}

/// Sends a request of each of 3,000 European users, and counts where they go and why.
fn morning(router: &GeoRouter<Endpoints>, what: &str) -> Result<BTreeMap<String, u32>, Box<dyn std::error::Error>> {
    let paris = Position::new(48.86, 2.35)?;
    let mut counts = BTreeMap::new();
    for user in 0..3_000_u32 {
        let key = user.to_be_bytes();
        let route = router.route(&Client::new().key(&key).position(paris))?;
        let lease = route.target.pick(&Request::new().key(&key))?;
        *counts
            .entry(format!("{} ({:?})", route.id(), route.reason()))
            .or_insert(0) += 1;
        lease.succeed();
    }
    println!("{what}: {counts:?}");
    Ok(counts)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let router = GeoRouter::builder()
        .centres([
            centre("frankfurt", 50.11, 8.68, 5_000)?,
            centre("dublin", 53.35, -6.27, 3_000)?,
            centre("virginia", 39.03, -77.46, 5_000)?,
        ])
        .overrides(Overrides::new().continent(Continent::Africa, "dublin"))
        .build()?;
    // What each centre's own clients ask for, in requests a second; left out, the router measures it.
    for (id, demand) in [("frankfurt", 3_000.0), ("dublin", 1_500.0), ("virginia", 2_000.0)] {
        router.set_demand(id, demand);
    }

    let quiet = morning(&router, "all is well")?;
    assert_eq!(quiet["frankfurt (Nearest)"], 3_000);

    // 3,000 requests a second are lost where the nearest has room for 1,500: it is not filled to the brim.
    router.set_health("frankfurt", false);
    let lost = morning(&router, "frankfurt is lost")?;
    assert!(lost["dublin (Spilled)"] < 1_400 && lost["virginia (Spilled)"] > 1_600);
    for centre in router.status().centres {
        let capacity = centre.capacity.unwrap_or(f64::INFINITY);
        println!("  {}: {:.0} of {capacity} requests a second", centre.id, centre.planned);
        assert!(centre.planned <= capacity);
    }

    router.set_health("frankfurt", true);
    router.add(centre("paris", 48.86, 2.35, 5_000)?);
    router.shift("paris", 0.05);
    let canary = morning(&router, "paris is tried out")?;
    assert!((80..=230).contains(&canary["paris (Nearest)"]));

    router.enable("paris");
    assert_eq!(morning(&router, "paris takes its clients")?["paris (Nearest)"], 3_000);
    Ok(())
}
