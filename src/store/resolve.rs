use super::{Batch, Change, Changed, Entry, Error, Expect, Op, Position, Record, Result, Version};
use crate::env::WallTime;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What the crate keeps for itself among the keys.
const RESERVED: &[u8] = b"\0outgrow/";
const CURSOR: &[u8] = b"cursor/";
/// The newest version that an import may bring. Later writes go on from there, and never reach the end of the numbers.
pub(crate) const MAX_IMPORTED: Version = Version(1 << 63);

/// Whether `key` is the crate's own.
pub(crate) fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(RESERVED)
}

/// Where the cursor of the follower `name` is kept.
pub(crate) fn cursor_key(name: &[u8]) -> Bytes {
    [RESERVED, CURSOR, name].concat().into()
}

/// The follower whose cursor is kept at `key`.
pub(crate) fn cursor_name(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(RESERVED)?.strip_prefix(CURSOR)
}

/// The bytes of a cursor.
fn cursor_value(at: Position) -> Bytes {
    at.to_string().into()
}

/// Turns a batch into the record that carries it out at `version`, or says why it may not happen.
///
/// `read` gives what the store holds, expired entries included; `now` decides about those.
pub(crate) fn resolve(
    batch: &Batch,
    version: Version,
    now: WallTime,
    mut read: impl FnMut(&[u8]) -> Result<Option<Entry>>,
) -> Result<Record> {
    if let Some(key) = batch.keys().find(|key| is_reserved(key)) {
        return Err(Error::invalid(format!("the key {key:?} is reserved")));
    }
    let mut live = |key: &[u8]| Ok::<_, Error>(read(key)?.filter(|entry| entry.is_live(now)));
    for (key, expect) in batch.expectations() {
        let current = live(key)?.map(|entry| entry.version);
        let holds = match expect {
            Expect::At(version) => current == Some(*version),
            Expect::Present => current.is_some(),
            Expect::Absent => current.is_none(),
        };
        if !holds {
            return Err(Error::Conflict {
                key: key.clone(),
                current,
            });
        }
    }
    let mut changes = Vec::with_capacity(batch.ops().len() + batch.cursors().len());
    // What this batch itself made of the keys that it adds to: a later add sees an earlier write.
    let mut pending: BTreeMap<&Bytes, Option<Entry>> = BTreeMap::new();
    let has_counters = batch.ops().iter().any(|op| matches!(op, Op::Add { .. }));
    for op in batch.ops() {
        let to = match op {
            Op::Put { value, ttl, .. } => Changed::Set(Entry {
                value: value.clone(),
                version,
                expires: ttl.map(|ttl| now + ttl),
            }),
            Op::Delete { .. } => Changed::Removed(version),
            Op::Import { entry, .. } if entry.version > MAX_IMPORTED => {
                return Err(Error::invalid(format!("no store issued the version {}", entry.version)));
            }
            Op::Import { entry, .. } => Changed::Set(entry.clone()),
            Op::Add { key, delta } => {
                let current = match pending.get(key) {
                    Some(written) => written.clone().filter(|entry| entry.is_live(now)),
                    None => live(key)?,
                };
                Changed::Set(sum(key, current.as_ref(), *delta, version)?)
            }
        };
        if has_counters {
            let written = if let Changed::Set(entry) = &to {
                Some(entry.clone())
            } else {
                None
            };
            pending.insert(op.key(), written);
        }
        changes.push(Change {
            key: op.key().clone(),
            to,
        });
    }
    for (name, at) in batch.cursors() {
        let entry = Entry {
            value: cursor_value(*at),
            version,
            expires: None,
        };
        changes.push(Change {
            key: cursor_key(name),
            to: Changed::Set(entry),
        });
    }
    Ok(Record::new(changes))
}

fn sum(key: &Bytes, current: Option<&Entry>, delta: i64, version: Version) -> Result<Entry> {
    let count = match current {
        None => 0,
        Some(entry) => std::str::from_utf8(&entry.value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .ok_or_else(|| Error::invalid(format!("the value at {key:?} is not a counter")))?,
    };
    let total = count
        .checked_add(delta)
        .ok_or_else(|| Error::invalid(format!("the counter at {key:?} would overflow")))?;
    Ok(Entry {
        value: total.to_string().into(),
        version,
        expires: current.and_then(|entry| entry.expires),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: WallTime = WallTime::from_millis(1_000);

    fn entry(value: &str, version: u64, expires: Option<u64>) -> Entry {
        let expires = expires.map(WallTime::from_millis);
        Entry {
            value: value.to_owned().into(),
            version: Version(version),
            expires,
        }
    }

    fn resolve_over(state: &[(&str, Entry)], batch: &Batch) -> Result<Record> {
        resolve(batch, Version(9), NOW, |key| {
            Ok(state
                .iter()
                .find(|(k, _)| k.as_bytes() == key)
                .map(|(_, entry)| entry.clone()))
        })
    }

    #[test]
    fn a_batch_becomes_absolute() {
        let batch = Batch::new()
            .put_for("a", "1", Duration::from_secs(2))
            .delete("b")
            .cursor("view", Position::new(1, 4));
        let record = resolve_over(&[], &batch).unwrap();
        let set = |key: &str, entry| Change {
            key: key.to_owned().into(),
            to: Changed::Set(entry),
        };
        let removed = Change {
            key: "b".into(),
            to: Changed::Removed(Version(9)),
        };
        let expected = [
            set("a", entry("1", 9, Some(3_000))),
            removed,
            set("\0outgrow/cursor/view", entry("1.4", 9, None)),
        ];
        assert_eq!(record.changes, expected);
    }

    #[test]
    fn expectations_see_what_is_live() {
        let state = [("a", entry("1", 3, None)), ("gone", entry("1", 4, Some(1_000)))];
        let check = |key: &'static str, expect| resolve_over(&state, &Batch::new().expect(key, expect)).is_ok();
        assert!(check("a", Expect::At(Version(3))) && check("a", Expect::Present) && !check("a", Expect::Absent));
        assert!(!check("a", Expect::At(Version(2))));
        assert!(check("gone", Expect::Absent) && !check("gone", Expect::Present));
        let refused = resolve_over(&state, &Batch::new().expect("a", Expect::Absent)).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Conflict {
                    current: Some(Version(3)),
                    ..
                }
            ),
            "{refused}"
        );
    }

    #[test]
    fn counters_add_up_within_a_batch() {
        let state = [("n", entry("40", 3, Some(5_000))), ("text", entry("x", 3, None))];
        let batch = Batch::new()
            .add("n", 1)
            .add("n", 1)
            .put("m", "7")
            .add("m", -10)
            .delete("m")
            .add("m", 1);
        let record = resolve_over(&state, &batch).unwrap();
        let last = |key: &str| {
            record
                .changes
                .iter()
                .rfind(|change| change.key == key)
                .cloned()
                .unwrap()
                .to
        };
        assert_eq!(last("n"), Changed::Set(entry("42", 9, Some(5_000))));
        assert_eq!(last("m"), Changed::Set(entry("1", 9, None)));
        assert!(matches!(
            resolve_over(&state, &Batch::new().add("text", 1)),
            Err(Error::Invalid { .. })
        ));
        let over = Batch::new().add("big", i64::MAX).add("big", 1);
        assert!(matches!(resolve_over(&state, &over), Err(Error::Invalid { .. })));
    }

    #[test]
    fn what_a_batch_wrote_and_let_expire_counts_from_nothing() {
        let batch = Batch::new().put_for("n", "5", Duration::ZERO).add("n", 1);
        let record = resolve_over(&[], &batch).unwrap();
        assert_eq!(record.changes[1].to, Changed::Set(entry("1", 9, None)));
    }

    #[test]
    fn a_version_that_leaves_no_room_is_refused() {
        let import = |version| resolve_over(&[], &Batch::new().import("a", entry("1", version, None)));
        assert!(import(1 << 63).is_ok());
        assert!(matches!(import((1 << 63) + 1), Err(Error::Invalid { .. })));
    }

    #[test]
    fn reserved_keys_are_refused() {
        let batch = Batch::new().put("\0outgrow/cursor/view", "1.4");
        assert!(matches!(resolve_over(&[], &batch), Err(Error::Invalid { .. })));
    }
}
