//! A batch as the arguments of its script, and the script's answer as a receipt.

use super::entry::NEVER;
use super::{Keys, bytes_of, text_of};
use crate::store::{Batch, Error, Expect, MAX_IMPORTED, Op, Receipt, Result, Token, Version, cursor_key, is_reserved};
use bytes::Bytes;
use redis::{Cmd, Value};
use std::time::Duration;

/// The longest time to live that the script can add to the time: more than any.
const LONGEST: u128 = 1 << 53;

/// Checks what needs no server.
pub(super) fn check(batch: &Batch) -> Result<()> {
    if let Some(key) = batch.keys().find(|key| is_reserved(key)) {
        return Err(Error::invalid(format!("the key {key:?} is reserved")));
    }
    for op in batch.ops() {
        if let Op::Import { entry, .. } = op
            && entry.version > MAX_IMPORTED
        {
            return Err(Error::invalid(format!("no store issued the version {}", entry.version)));
        }
    }
    Ok(())
}

/// The keys as the script is given them: of expectations, then of operations.
fn keys_in_order(batch: &Batch) -> impl Iterator<Item = &Bytes> {
    let expected = batch.expectations().iter().map(|(key, _)| key);
    expected.chain(batch.ops().iter().map(Op::key))
}

/// Adds the keys and arguments of `batch` to a call of the script.
pub(super) fn arguments(command: &mut Cmd, keys: &Keys, batch: &Batch) {
    let count = batch.ops().len() + batch.cursors().len();
    command.arg(4 + batch.expectations().len() + count);
    for own in [&keys.counter, &keys.index, &keys.expiries, &keys.scratch] {
        command.arg(&own[..]);
    }
    for key in keys_in_order(batch) {
        command.arg(&keys.entry(key)[..]);
    }
    for (name, _) in batch.cursors() {
        command.arg(&keys.entry(&cursor_key(name))[..]);
    }
    let imported = batch.ops().iter().filter_map(|op| match op {
        Op::Import { entry, .. } => Some(entry.version),
        _ => None,
    });
    command
        .arg(keys.entries.len())
        .arg(batch.expectations().len())
        .arg(count)
        .arg(imported.max().unwrap_or_default().0);
    for (_, expect) in batch.expectations() {
        match expect {
            Expect::At(version) => command.arg("at").arg(version.0),
            Expect::Present => command.arg("present").arg(""),
            Expect::Absent => command.arg("absent").arg(""),
        };
    }
    for op in batch.ops() {
        operation(command, op);
    }
    for (_, position) in batch.cursors() {
        command.arg("cursor").arg(position.to_string()).arg("").arg("");
    }
}

fn operation(command: &mut Cmd, op: &Op) {
    match op {
        Op::Put { value, ttl, .. } => {
            let ttl = ttl.map_or(String::new(), millis);
            command.arg("put").arg(&value[..]).arg(ttl).arg("")
        }
        Op::Delete { .. } => command.arg("delete").arg("").arg("").arg(""),
        Op::Add { delta, .. } => command.arg("add").arg(*delta).arg("").arg(""),
        Op::Import { entry, .. } => {
            let expires = entry.expires.map_or(NEVER.to_owned(), |at| at.as_millis().to_string());
            command
                .arg("import")
                .arg(&entry.value[..])
                .arg(entry.version.0)
                .arg(expires)
        }
    };
}

fn millis(ttl: Duration) -> String {
    ttl.as_millis().min(LONGEST).to_string()
}

/// What the script answered about `batch`.
pub(super) fn answer(batch: &Batch, answer: Value) -> Result<Receipt> {
    let foreign = || Error::corrupt("an answer that the script of this store does not give");
    let Value::Array(parts) = answer else {
        return Err(foreign());
    };
    let mut parts = parts.into_iter();
    let mut next = || parts.next().map(text_of).ok_or_else(foreign);
    let number = |text: &str| text.parse::<u64>().map_err(|_| foreign());
    let place = |text: &str| Ok::<_, Error>(usize::try_from(number(text)?).unwrap_or(usize::MAX).wrapping_sub(1));
    match next()?.as_str() {
        "done" => Ok(Receipt::new(Version(number(&next()?)?), Token::new())),
        "conflict" => {
            let (key, _) = batch.expectations().get(place(&next()?)?).ok_or_else(foreign)?;
            let current = next()?;
            let current = (!current.is_empty()).then(|| number(&current)).transpose()?;
            Err(Error::Conflict {
                key: key.clone(),
                current: current.map(Version),
            })
        }
        "invalid" => {
            let op = batch.ops().get(place(&next()?)?).ok_or_else(foreign)?;
            Err(Error::invalid(format!("the value at {:?}: {}", op.key(), next()?)))
        }
        "corrupt" => {
            let key = keys_in_order(batch).nth(place(&next()?)?).ok_or_else(foreign)?;
            Err(Error::corrupt(format!(
                "what the server holds for the key {key:?} is no entry"
            )))
        }
        _ => Err(foreign()),
    }
}

/// The entries of a page, as keys with what is stored there, and whether there may be more.
pub(super) type Page = (Vec<(Bytes, Option<Bytes>)>, bool);

/// What the script for a page answered.
pub(super) fn page(answer: Value) -> Result<Page> {
    let foreign = || Error::corrupt("an answer that the script of this store does not give");
    let Value::Array(parts) = answer else {
        return Err(foreign());
    };
    let mut parts = parts.into_iter();
    let more = parts.next().map(text_of).ok_or_else(foreign)? == "more";
    let mut entries = Vec::with_capacity(parts.len() / 2);
    while let Some(key) = parts.next() {
        let key = bytes_of(key)?.ok_or_else(foreign)?;
        entries.push((key, bytes_of(parts.next().ok_or_else(foreign)?)?));
    }
    Ok((entries, more))
}
