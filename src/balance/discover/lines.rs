use crate::balance::{Endpoint, EndpointId};
use std::collections::BTreeSet;

/// Why a text is no set of endpoints.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A line, counted from 1, and what is wrong with it.
    Line(usize, String),
    /// There is no endpoint and no `none`.
    Nothing,
}

/// Reads a set of endpoints, one a line: an id, then `weight=2`, `zone=a`, `priority=1`, `meta.KEY=value` in any order.
/// What follows a `#` that begins a word is a comment. The line `none` says that there are none.
pub(super) fn endpoints(text: &[u8]) -> Result<Vec<Endpoint>, Unreadable> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut seen: BTreeSet<EndpointId> = BTreeSet::new();
    let mut none = None;
    let mut set = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let wrong = |reason: String| Unreadable::Line(index + 1, reason);
        let line = str::from_utf8(line).map_err(|error| wrong(format!("is not UTF-8: {error}")))?;
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let Some(id) = words.next() else { continue };
        let endpoint = options(Endpoint::new(id), words).map_err(wrong)?;
        if id == NONE {
            none = Some(index + 1);
        } else if !seen.insert(endpoint.id().clone()) {
            return Err(wrong(format!("`{id}` is there twice")));
        } else {
            set.push(endpoint);
        }
    }
    match none {
        Some(line) if !set.is_empty() => {
            let reason = format!("`{NONE}` stands beside endpoints");
            Err(Unreadable::Line(line, reason))
        }
        None if set.is_empty() => Err(Unreadable::Nothing),
        _ => Ok(set),
    }
}

/// The line that says that there are no endpoints.
const NONE: &str = "none";

fn options<'a>(mut endpoint: Endpoint, words: impl Iterator<Item = &'a str>) -> Result<Endpoint, String> {
    let mut given = BTreeSet::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(format!("`{word}` is no `key=value`"));
        };
        if !given.insert(key) {
            return Err(format!("`{key}` is given twice"));
        }
        if value.is_empty() {
            return Err(format!("`{key}` has no value"));
        }
        let number = |most: &str| format!("`{key}` is {value}, not a whole number from 0 to {most}");
        endpoint = match key {
            "weight" => endpoint.weight(value.parse().map_err(|_| number("4294967295"))?),
            "priority" => endpoint.priority(value.parse().map_err(|_| number("255"))?),
            "zone" => endpoint.zone(value),
            _ => match key.strip_prefix("meta.") {
                Some(name) if !name.is_empty() => endpoint.metadata(name, value),
                _ => return Err(format!("`{key}` is not weight, zone, priority or meta.NAME")),
            },
        };
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrong(text: &str) -> (usize, String) {
        match endpoints(text.as_bytes()) {
            Err(Unreadable::Line(line, reason)) => (line, reason),
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn a_line_is_an_endpoint() {
        let text =
            "\u{feff}# ours\n10.0.0.1:80 weight=2 zone=a priority=1 # the big one\r\n\n  \t10.0.0.2:80\n[::1]:80#7";
        let set = endpoints(text.as_bytes()).unwrap();
        let big = Endpoint::new("10.0.0.1:80").weight(2).zone("a").priority(1);
        assert_eq!(set, [big, Endpoint::new("10.0.0.2:80"), Endpoint::new("[::1]:80#7")]);
    }

    #[test]
    fn none_is_said_and_not_guessed() {
        assert_eq!(endpoints(b"# nobody today\nnone\n"), Ok(vec![]));
        for nothing in ["", "\n\n", "# only words\n"] {
            assert_eq!(endpoints(nothing.as_bytes()), Err(Unreadable::Nothing));
        }
        assert_eq!(wrong("a\nnone\n"), (2, "`none` stands beside endpoints".into()));
        assert_eq!(wrong("none\n\na"), (1, "`none` stands beside endpoints".into()));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        let number = "`weight` is -1, not a whole number from 0 to 4294967295".to_owned();
        assert_eq!(wrong("a\nb weight=-1\n"), (2, number));
        assert_eq!(
            wrong("a priority=256"),
            (1, "`priority` is 256, not a whole number from 0 to 255".into())
        );
        assert_eq!(wrong("\n\na heavy"), (3, "`heavy` is no `key=value`".into()));
        assert_eq!(
            wrong("a wieght=1"),
            (1, "`wieght` is not weight, zone, priority or meta.NAME".into())
        );
        assert_eq!(wrong("a zone="), (1, "`zone` has no value".into()));
        assert_eq!(wrong("a zone=a zone=b"), (1, "`zone` is given twice".into()));
        assert_eq!(wrong("a\nb\na zone=x"), (3, "`a` is there twice".into()));
        let binary = endpoints(b"a\n\xff\n");
        assert!(
            matches!(&binary, Err(Unreadable::Line(2, reason)) if reason.starts_with("is not UTF-8")),
            "{binary:?}"
        );
    }

    proptest! {
        /// Whatever is written in the format is read as it was meant, and a part of it never as an empty set.
        #[test]
        fn what_is_written_is_read(
            set in prop::collection::btree_map(
                "[a-z][a-z0-9.:]{4,12}",
                (any::<u32>(), prop::option::of("[a-z]{1,4}"), any::<u8>()),
                1..10,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut text = String::from("# a list\n");
            let mut want = Vec::new();
            for (id, (weight, zone, priority)) in &set {
                let mut endpoint = Endpoint::new(&**id).weight(*weight).priority(*priority);
                text += &format!("{id} priority={priority}  weight={weight}");
                if let Some(zone) = zone {
                    text += &format!("\tzone={zone}");
                    endpoint = endpoint.zone(&**zone);
                }
                text += "\n";
                want.push(endpoint);
            }
            prop_assert_eq!(endpoints(text.as_bytes()), Ok(want));
            let half = &text.as_bytes()[..cut.index(text.len())];
            prop_assert_ne!(endpoints(half), Ok(vec![]));
        }

        #[test]
        fn no_bytes_are_too_much(bytes: Vec<u8>) {
            if let Err(Unreadable::Line(line, _)) = endpoints(&bytes) {
                prop_assert!((1..=bytes.split(|&byte| byte == b'\n').count()).contains(&line));
            }
        }
    }
}
