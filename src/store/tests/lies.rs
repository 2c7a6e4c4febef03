//! The suite of stores catches stores that break their promises.

use super::{conforms, local};
use crate::env::Env;
use crate::store::{
    Batch, Capability, Entry, Error, Expect, LocalStore, MemoryEngine, Op, Receipt, Result, Scan, Store, StoreExt,
    Token, Version, is_reserved,
};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::ready;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A promise to break.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    GetIsEmptyForEmptyValues,
    ManyComeSorted,
    ManyLeaveOutTheMissing,
    ScansTakeTheFirstPageOnly,
    ScansForgetTheLimit,
    ScansForgetTheDirection,
    ScansIncludeTheirExcludedEnd,
    ScansShowReservedKeys,
    VersionsRepeat,
    TokensStandStill,
    BatchesStopHalfWay,
    OperationsGoBackwards,
    ExpectationsAreIgnored,
    PresentMeansAbsent,
    TimesToLiveAreIgnored,
    AddsSetTheDelta,
    ImportsGetNewVersions,
    ImportsForgetTheirExpiry,
    CursorsStand,
    ReservedKeysCanBeDeleted,
    DroppedCommitsAreHalf,
    ConflictsAreInvalid,
}

const LIES: [Lie; 22] = [
    Lie::GetIsEmptyForEmptyValues,
    Lie::ManyComeSorted,
    Lie::ManyLeaveOutTheMissing,
    Lie::ScansTakeTheFirstPageOnly,
    Lie::ScansForgetTheLimit,
    Lie::ScansForgetTheDirection,
    Lie::ScansIncludeTheirExcludedEnd,
    Lie::ScansShowReservedKeys,
    Lie::VersionsRepeat,
    Lie::TokensStandStill,
    Lie::BatchesStopHalfWay,
    Lie::OperationsGoBackwards,
    Lie::ExpectationsAreIgnored,
    Lie::PresentMeansAbsent,
    Lie::TimesToLiveAreIgnored,
    Lie::AddsSetTheDelta,
    Lie::ImportsGetNewVersions,
    Lie::ImportsForgetTheirExpiry,
    Lie::CursorsStand,
    Lie::ReservedKeysCanBeDeleted,
    Lie::DroppedCommitsAreHalf,
    Lie::ConflictsAreInvalid,
];

struct Liar {
    inner: LocalStore<MemoryEngine>,
    env: Env,
    lie: Lie,
}

impl Liar {
    fn tells(&self, lie: Lie) -> bool {
        self.lie == lie
    }

    /// The batch in a form that the lie leaves standing.
    fn twist(&self, batch: &Batch) -> Batch {
        let mut twisted = Batch::new();
        if !self.tells(Lie::ExpectationsAreIgnored) {
            for (key, expect) in batch.expectations() {
                let expect = match expect {
                    Expect::Present if self.tells(Lie::PresentMeansAbsent) => Expect::Absent,
                    other => *other,
                };
                twisted = twisted.expect(key.clone(), expect);
            }
        }
        let mut ops: Vec<Op> = batch.ops().to_vec();
        if self.tells(Lie::OperationsGoBackwards) {
            ops.reverse();
        }
        for op in ops {
            twisted = match op {
                Op::Put {
                    key,
                    value,
                    ttl: Some(ttl),
                } if !self.tells(Lie::TimesToLiveAreIgnored) => twisted.put_for(key, value, ttl),
                Op::Put { key, value, .. } => twisted.put(key, value),
                Op::Delete { key } if self.tells(Lie::ReservedKeysCanBeDeleted) && is_reserved(&key) => twisted,
                Op::Delete { key } => twisted.delete(key),
                Op::Add { key, delta } if self.tells(Lie::AddsSetTheDelta) => twisted.put(key, delta.to_string()),
                Op::Add { key, delta } => twisted.add(key, delta),
                Op::Import { key, entry } if self.tells(Lie::ImportsGetNewVersions) => twisted.put(key, entry.value),
                Op::Import { key, mut entry } => {
                    if self.tells(Lie::ImportsForgetTheirExpiry) {
                        entry.expires = None;
                    }
                    twisted.import(key, entry)
                }
            };
        }
        for (name, position) in batch.cursors() {
            if !self.tells(Lie::CursorsStand) {
                twisted = twisted.cursor(name.clone(), *position);
            }
        }
        twisted
    }
}

impl Store for Liar {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let entry = self.inner.get(key).await?;
        Ok(entry.filter(|entry| !entry.value.is_empty() || !self.tells(Lie::GetIsEmptyForEmptyValues)))
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        let mut keys = keys.to_vec();
        if self.tells(Lie::ManyComeSorted) {
            keys.sort();
        }
        let mut found = self.inner.get_many(&keys).await?;
        if self.tells(Lie::ManyLeaveOutTheMissing) {
            found.retain(Option::is_some);
        }
        Ok(found)
    }

    fn scan(&self, mut scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        match self.lie {
            Lie::ScansTakeTheFirstPageOnly => scan.limit = scan.limit.min(scan.page),
            Lie::ScansForgetTheLimit => scan.limit = usize::MAX,
            Lie::ScansForgetTheDirection => scan.descending = false,
            Lie::ScansIncludeTheirExcludedEnd => {
                if let Bound::Excluded(to) = scan.to.clone() {
                    scan.to = Bound::Included(to);
                }
            }
            Lie::ScansShowReservedKeys => {
                let cursor = crate::store::cursor_key(b"view");
                let all = async move { Ok::<_, Error>(self.inner.get(&cursor).await?.map(|entry| (cursor, entry))) };
                let shown = futures::stream::once(all).try_filter_map(async |found| Ok(found));
                return shown.chain(self.inner.scan(scan)).boxed();
            }
            _ => {}
        }
        self.inner.scan(scan)
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        let batch = self.twist(&batch);
        if self.tells(Lie::BatchesStopHalfWay) && batch.keys().eq(batch.ops().iter().map(Op::key)) {
            let mut last = Ok(Receipt::default());
            for op in batch.ops() {
                let one = match op.clone() {
                    Op::Put { key, value, .. } => Batch::new().put(key, value),
                    Op::Delete { key } => Batch::new().delete(key),
                    Op::Add { key, delta } => Batch::new().add(key, delta),
                    Op::Import { key, entry } => Batch::new().import(key, entry),
                };
                last = Ok(self.inner.commit(one).await?);
            }
            return last;
        }
        if self.tells(Lie::DroppedCommitsAreHalf)
            && let [Op::Put { key, value, .. }, _] = batch.ops()
        {
            self.inner.commit(Batch::new().put(key.clone(), value.clone())).await?;
            self.env.sleep(Duration::from_millis(1)).await;
        }
        let mut receipt = match self.inner.commit(batch).await {
            Err(Error::Conflict { .. }) if self.tells(Lie::ConflictsAreInvalid) => return Err(Error::invalid("no")),
            answer => answer?,
        };
        if self.tells(Lie::VersionsRepeat) {
            receipt.version = Version(1);
        }
        if self.tells(Lie::TokensStandStill) {
            receipt.at = Token::of(crate::store::LogId(1), crate::store::Position::new(1, 1));
        }
        Ok(receipt)
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

#[test]
fn every_lie_is_caught() {
    for lie in LIES {
        let make = move |env: &Env| {
            let liar = Liar {
                inner: local(env),
                env: env.clone(),
                lie,
            };
            ready(liar.boxed()).boxed()
        };
        let caught = catch_unwind(AssertUnwindSafe(|| conforms(&make)));
        assert!(caught.is_err(), "the suite believes that {lie:?}");
    }
}
