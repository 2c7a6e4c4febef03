use crate::balance::{EndpointId, EndpointStatus};
use crate::env::Tick;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the active checks of an endpoint found; part of its [`EndpointStatus`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CheckStatus {
    /// Whether its checks let it be picked.
    pub healthy: bool,
    /// How long ago the last check ended.
    pub age: Duration,
    /// Checks that it passed.
    pub passed: u64,
    /// Checks that it failed.
    pub failed: u64,
    /// What the last failed check said, cut after 400 bytes; it stays after the recovery.
    pub last_error: Option<String>,
}

/// What whoever checks a pool writes down. Pure: time is an argument.
#[derive(Default)]
pub(in crate::balance) struct Ledger {
    pages: BTreeMap<EndpointId, Page>,
}

struct Page {
    healthy: bool,
    at: Tick,
    passed: u64,
    failed: u64,
    last_error: Option<String>,
}

impl Ledger {
    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.pages.clear();
    }

    /// Forgets those that left.
    pub(super) fn keep(&mut self, members: &BTreeSet<EndpointId>) {
        self.pages.retain(|id, _| members.contains(id));
    }

    pub(super) fn note(&mut self, id: &EndpointId, verdict: Result<(), String>, healthy: bool, now: Tick) {
        let page = self.pages.entry(id.clone()).or_insert(Page {
            healthy,
            at: now,
            passed: 0,
            failed: 0,
            last_error: None,
        });
        page.healthy = healthy;
        page.at = now;
        match verdict {
            Ok(()) => page.passed += 1,
            Err(error) => {
                page.failed += 1;
                page.last_error = Some(error);
            }
        }
    }

    /// Tells each endpoint's status what is known.
    pub(in crate::balance) fn tell(&self, endpoints: &mut [EndpointStatus], now: Tick) {
        for endpoint in endpoints {
            endpoint.check = self.pages.get(&endpoint.id).map(|page| CheckStatus {
                healthy: page.healthy,
                age: now - page.at,
                passed: page.passed,
                failed: page.failed,
                last_error: page.last_error.clone(),
            });
        }
    }
}
