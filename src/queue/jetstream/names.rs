//! Names of topics and subscriptions as a server's streams, subjects and consumers, and back.

use crate::queue::{Error, Result};

/// The most bytes of a name as it was given.
const MAX_NAME: usize = 200;
/// The most bytes of a name as the server gets it, which allows 255 with the prefix.
const MAX_ESCAPED: usize = 230;
const MAX_PREFIX: usize = 24;

/// What all names of one queue begin with, so that several queues share a server.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Result<Names> {
        let plain = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        match plain && (1..=MAX_PREFIX).contains(&prefix.len()) {
            true => Ok(Names { prefix: prefix.into() }),
            false => Err(Error::invalid(format!(
                "prefix is 1 to {MAX_PREFIX} ASCII letters, digits and hyphens, not {prefix:?}"
            ))),
        }
    }

    /// The stream of a topic. A prefix has no underscore, so the first one ends it.
    pub(super) fn stream(&self, topic: &str) -> String {
        format!("{}_{}", self.prefix, escape(topic))
    }

    /// The topic of a stream; none for a stream of somebody else's.
    pub(super) fn topic(&self, stream: &str) -> Option<String> {
        unescape(stream.strip_prefix(&self.prefix)?.strip_prefix('_')?)
    }

    /// Where messages of a topic are published, and delivered from.
    pub(super) fn subject(&self, topic: &str) -> String {
        format!("{}.{}", self.prefix, escape(topic))
    }

    /// Where messages of a topic wait for their time: each has a subject of its own, since the server keeps one for each.
    pub(super) fn later(&self, topic: &str, id: &str) -> String {
        format!("{}.later.{id}", self.subject(topic))
    }
}

/// The consumer of a subscription.
pub(super) fn consumer(subscription: &str) -> String {
    escape(subscription)
}

/// The subscription of a consumer; none for a consumer of somebody else's.
pub(super) fn subscription(consumer: &str) -> Option<String> {
    unescape(consumer)
}

/// Refuses what has no name on the server.
pub(super) fn check(what: &str, name: &str) -> Result<()> {
    if !(1..=MAX_NAME).contains(&name.len()) {
        let len = name.len();
        let problem = format!("{what} has a name of 1 to {MAX_NAME} bytes, not {len}");
        return Err(Error::invalid(problem));
    }
    match escape(name).len() {
        ..=MAX_ESCAPED => Ok(()),
        len => Err(Error::invalid(format!(
            "{what}'s name takes {len} bytes on the server, more than {MAX_ESCAPED}: \
             each byte that is no ASCII letter, digit or hyphen counts three times"
        ))),
    }
}

/// Letters, digits and hyphens as they are, every other byte as an underscore and two hexadecimal digits.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => escaped.push(char::from(byte)),
            _ => {
                escaped.push('_');
                escaped.push(hex(byte >> 4));
                escaped.push(hex(byte & 15));
            }
        }
    }
    escaped
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).expect("broken invariant: four bits are a digit")
}

/// None for what [`escape`] does not give.
fn unescape(escaped: &str) -> Option<String> {
    let mut name = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'_' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                name.push(u8::try_from(high << 4 | low).ok()?);
            }
            byte => name.push(byte),
        }
    }
    let name = String::from_utf8(name).ok()?;
    (!name.is_empty() && escape(&name) == escaped).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_comes_back(topic in ".{1,60}", other in ".{1,60}") {
            let names = Names::new("app-1").expect("a plain prefix");
            let stream = names.stream(&topic);
            prop_assert_eq!(names.topic(&stream), Some(topic.clone()));
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            prop_assert!(stream.bytes().all(legal));
            prop_assert_eq!(topic == other, stream == names.stream(&other));
            prop_assert_eq!(subscription(&consumer(&topic)), Some(topic.clone()));
        }

        #[test]
        fn what_is_not_ours_has_no_name(stream in "[a-z0-9_A-Z-]{0,20}") {
            let names = Names::new("app").expect("a plain prefix");
            if let Some(topic) = names.topic(&stream) {
                prop_assert_eq!(names.stream(&topic), stream);
            }
        }
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert_eq!(check("a topic", "orders.eu/1"), Ok(()));
        for bad in ["", &"x".repeat(201), &"é".repeat(50)] {
            assert!(matches!(check("a topic", bad), Err(Error::Invalid { .. })), "{bad:?}");
        }
        for bad in ["", "a_b", "a.b", "a b", &"x".repeat(25)] {
            assert!(matches!(Names::new(bad), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }
}
