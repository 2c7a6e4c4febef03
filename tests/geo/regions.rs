//! Real places: the regions of the big clouds.

use crate::places::{at, goes};
use crate::support::need;
use outgrow::geo::{Centre, Client, GeoRouter, Reason};

/// The regions of a provider: name, latitude, longitude. The file is data that others keep, so what it says of a
/// position is checked here.
fn regions(provider: &str) -> Option<Vec<(String, f64, f64)>> {
    let path = need("geo")?.join("cloud_regions.json");
    #[allow(clippy::disallowed_methods, reason = "tests act as the outside world")]
    let text = std::fs::read_to_string(path).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let regions = file["regions"][provider].as_object().unwrap().iter();
    let number = |region: &serde_json::Value, i: usize| region[i].as_f64().unwrap();
    Some(
        regions
            .map(|(id, region)| (id.clone(), number(region, 0), number(region, 1)))
            .collect(),
    )
}

fn centres(regions: &[(String, f64, f64)]) -> impl Iterator<Item = Centre> {
    regions
        .iter()
        .map(|(id, lat, lon)| Centre::new(id.as_str(), at(*lat, *lon)).capacity(1_000))
}

#[test]
fn cities_go_to_the_region_next_to_them() {
    let Some(regions) = regions("aws") else { return };
    let router = GeoRouter::builder().centres(centres(&regions)).build().unwrap();
    for (city, lat, lon, region) in [
        ("Berlin", 52.52, 13.40, "eu-central-1"),
        ("Cork", 51.90, -8.47, "eu-west-1"),
        ("Oslo", 59.91, 10.75, "eu-north-1"),
        ("Washington", 38.91, -77.04, "us-east-1"),
        ("Seattle", 47.61, -122.33, "us-west-2"),
        ("Durban", -29.86, 31.03, "af-south-1"),
        ("Canberra", -35.28, 149.13, "ap-southeast-2"),
        ("Rio de Janeiro", -22.91, -43.17, "sa-east-1"),
    ] {
        assert_eq!(
            goes(&router, &Client::new().position(at(lat, lon))),
            (region.into(), Reason::Nearest),
            "{city}"
        );
    }
}

#[test]
fn every_region_of_every_cloud_can_be_lost() {
    let Some(_) = need("geo") else { return };
    let providers = ["aws", "azure", "gcp"];
    for provider in providers {
        let Some(regions) = regions(provider) else { return };
        let router = GeoRouter::builder().centres(centres(&regions)).build().unwrap();
        for (id, ..) in &regions {
            router.set_demand(id, 700.0);
        }
        let total = 700.0 * regions.len() as f64;
        for (lost, lat, lon) in &regions {
            router.set_health(lost, false);
            let status = router.status();
            let planned: f64 = status.centres.iter().map(|centre| centre.planned).sum();
            assert!((planned - total).abs() < 1.0, "{lost}: {planned} of {total}");
            let gains = status.centres.iter().filter(|centre| centre.planned > 700.5);
            assert!(gains.count() >= 3, "{lost}: 700 do not fit into twice 300 of room");
            for centre in &status.centres {
                assert!(
                    centre.planned <= 1_000.0 + 1e-6,
                    "{lost} pushes {} to {}",
                    centre.id,
                    centre.planned
                );
                if *centre.id != **lost {
                    // Near ones bear it: nobody a hemisphere away has to.
                    let distance = at(*lat, *lon).kilometres_to(centre.position);
                    assert!(
                        distance < 9_000.0 || centre.planned < 750.0,
                        "{lost}: {} is {distance} km away",
                        centre.id
                    );
                }
            }
            router.set_health(lost, true);
        }
        assert!(
            router
                .status()
                .centres
                .iter()
                .all(|centre| (centre.planned - 700.0).abs() < 1e-6)
        );
    }
}
