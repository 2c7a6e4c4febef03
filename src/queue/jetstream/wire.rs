//! Messages as a server keeps them: the payload as it is, everything else in headers.
//!
//! Header names and values are bytes of the user's in an order that counts, and a server's are neither: so all of them go
//! into one, `outgrow-headers`, as `name=value&name=value`, percent-encoded. A message of another program's has its own
//! headers, by name.

use crate::env::WallTime;
use crate::queue::{DeliverAt, Error, Message, Priority, Result};
use async_nats::HeaderMap;
use bytes::Bytes;
use std::time::Duration;

/// Says that the other headers here are this crate's.
const FORMAT: &str = "outgrow";
const HEADERS: &str = "outgrow-headers";
const KEY: &str = "outgrow-key";
const DEDUP: &str = "outgrow-dedup";
const DELIVER: &str = "outgrow-deliver";
const TTL: &str = "outgrow-ttl";
const PRIORITY: &str = "outgrow-priority";
/// When it was sent, when it may be delivered and when it is forgotten, in milliseconds since 1970.
const SENT: &str = "outgrow-sent";
const DUE: &str = "outgrow-due";
const EXPIRES: &str = "outgrow-expires";

/// What the server itself reads.
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(super) const SERVER_TTL: &str = "Nats-TTL";
pub(super) const SCHEDULE: &str = "Nats-Schedule";
pub(super) const SCHEDULE_TARGET: &str = "Nats-Schedule-Target";
pub(super) const SCHEDULE_TTL: &str = "Nats-Schedule-TTL";
/// What begins the names of headers that are the server's.
const SERVERS: &str = "nats-";

/// A message's times by the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) sent: Option<WallTime>,
    pub(super) due: Option<WallTime>,
    pub(super) expires: Option<WallTime>,
}

impl Times {
    /// Those of a message that is sent now.
    pub(super) fn of(message: &Message, now: WallTime) -> Times {
        let due = match message.deliver {
            Some(DeliverAt::In(delay)) => Some(now + delay),
            Some(DeliverAt::At(at)) => Some(at),
            None => None,
        };
        Times {
            sent: Some(now),
            due: due.filter(|due| *due > now),
            expires: message.ttl.map(|ttl| now + ttl),
        }
    }
}

/// The headers of a message, but for those that the server reads.
pub(super) fn encode(message: &Message, times: &Times) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(FORMAT, "1");
    let list: Vec<_> = message
        .headers
        .iter()
        .map(|(name, value)| format!("{}={}", percent(name.as_bytes()), percent(value)))
        .collect();
    let mut put = |name: &'static str, value: Option<String>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    put(HEADERS, (!list.is_empty()).then(|| list.join("&")));
    // An empty key is a key, and an empty header might be trimmed away: so each value has a mark before it.
    put(KEY, message.key.as_ref().map(|key| format!("={}", percent(key))));
    put(DEDUP, message.dedup_id.as_ref().map(|id| format!("={}", percent(id))));
    put(
        DELIVER,
        message.deliver.map(|deliver| match deliver {
            DeliverAt::In(delay) => format!("in {}", millis(delay)),
            DeliverAt::At(at) => format!("at {}", at.as_millis()),
        }),
    );
    put(TTL, message.ttl.map(|ttl| millis(ttl).to_string()));
    put(
        PRIORITY,
        (message.priority != Priority::Normal).then(|| (message.priority as u8).to_string()),
    );
    let number = |time: WallTime| time.as_millis().to_string();
    put(SENT, times.sent.map(number));
    put(DUE, times.due.map(number));
    put(EXPIRES, times.expires.map(number));
    headers
}

/// A message and its times.
///
/// # Errors
/// [`Error::Corrupt`] for headers that say they are this crate's, and make no sense.
pub(super) fn decode(headers: Option<&HeaderMap>, payload: Bytes) -> Result<(Message, Times)> {
    let mut message = Message::new(payload);
    let Some(headers) = headers else {
        return Ok((message, Times::default()));
    };
    let get = |name: &'static str| headers.get(name).map(async_nats::HeaderValue::as_str);
    match get(FORMAT) {
        Some("1") => {}
        Some(other) => return Err(corrupt(FORMAT, other)),
        None => {
            message.headers = foreign(headers);
            return Ok((message, Times::default()));
        }
    }
    if let Some(list) = get(HEADERS) {
        for pair in list.split('&') {
            let parts = pair.split_once('=').and_then(|(name, value)| {
                Some((
                    String::from_utf8(unpercent(name)?).ok()?,
                    Bytes::from(unpercent(value)?),
                ))
            });
            message.headers.push(parts.ok_or_else(|| corrupt(HEADERS, pair))?);
        }
    }
    let bytes = |name: &'static str| {
        get(name)
            .map(|value| {
                let bytes = value.strip_prefix('=').and_then(unpercent);
                bytes.map(Bytes::from).ok_or_else(|| corrupt(name, value))
            })
            .transpose()
    };
    message.key = bytes(KEY)?;
    message.dedup_id = bytes(DEDUP)?;
    let number = |name: &'static str, value: &str| value.parse::<u64>().map_err(|_| corrupt(name, value));
    message.deliver = match get(DELIVER).map(|value| (value, value.split_once(' '))) {
        None => None,
        Some((_, Some(("in", delay)))) => Some(DeliverAt::In(Duration::from_millis(number(DELIVER, delay)?))),
        Some((_, Some(("at", at)))) => Some(DeliverAt::At(WallTime::from_millis(number(DELIVER, at)?))),
        Some((value, _)) => return Err(corrupt(DELIVER, value)),
    };
    let numbers = |name: &'static str| get(name).map(|value| number(name, value)).transpose();
    message.ttl = numbers(TTL)?.map(Duration::from_millis);
    message.priority = match numbers(PRIORITY)? {
        None | Some(1) => Priority::Normal,
        Some(0) => Priority::Low,
        Some(2) => Priority::High,
        Some(3) => Priority::Urgent,
        Some(other) => return Err(corrupt(PRIORITY, &other.to_string())),
    };
    let times = Times {
        sent: numbers(SENT)?.map(WallTime::from_millis),
        due: numbers(DUE)?.map(WallTime::from_millis),
        expires: numbers(EXPIRES)?.map(WallTime::from_millis),
    };
    Ok((message, times))
}

/// The headers that another program gave, by name.
fn foreign(headers: &HeaderMap) -> Vec<(String, Bytes)> {
    let mut list: Vec<_> = headers
        .iter()
        .map(|(name, values)| (name.to_string(), values))
        .filter(|(name, _)| !name.to_ascii_lowercase().starts_with(SERVERS))
        .flat_map(|(name, values)| {
            let value = |value: &async_nats::HeaderValue| Bytes::from(value.as_str().to_owned());
            values
                .iter()
                .map(value)
                .map(move |value| (name.clone(), value))
                .collect::<Vec<_>>()
        })
        .collect();
    list.sort_by(|(a, _), (b, _)| a.cmp(b));
    list
}

/// What the server tells a repetition by: the sender's name for the message.
pub(super) fn message_id(dedup_id: &[u8]) -> String {
    format!("id.{}", percent(dedup_id))
}

/// A time as the server's schedules have it: RFC 3339, to the millisecond.
pub(super) fn rfc3339(time: WallTime) -> String {
    let (days, of_day) = (time.as_millis() / 86_400_000, time.as_millis() % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        of_day % 1_000
    )
}

/// The date so many days after the first of 1970, in eras of 400 years that begin in March
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// What the server says of a delivery, in the subject that takes its settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) seq: u64,
    pub(super) attempt: u32,
    pub(super) stored: WallTime,
}

/// Reads `$JS.ACK.<stream>.<consumer>.<attempt>.<seq>.<consumer's seq>.<nanoseconds>.<pending>`; newer servers have the domain and
/// a hash of the account before the stream, and may have more at the end.
pub(super) fn delivered(reply: &str) -> Option<Delivered> {
    let rest: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let from = match rest.len() {
        7 => 2,
        9.. => 4,
        _ => return None,
    };
    let number = |index: usize| rest[from + index].parse::<u64>().ok();
    Some(Delivered {
        attempt: u32::try_from(number(0)?).unwrap_or(u32::MAX),
        seq: number(1)?,
        stored: WallTime::from_millis(number(3)? / 1_000_000),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn corrupt(name: &str, value: &str) -> Error {
    Error::Corrupt {
        what: format!("the header {name} of a message says {value:?}"),
    }
}

fn percent(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn unpercent(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                bytes.push(u8::try_from(high << 4 | low).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    fn message() -> impl Strategy<Value = Message> {
        let parts = (
            bytes(),
            prop::option::of(bytes()),
            prop::collection::vec((".{0,9}", bytes()), 0..4),
            prop::option::of(bytes()),
            prop::option::of(prop_oneof![
                (0..1u64 << 40).prop_map(|ms| DeliverAt::In(Duration::from_millis(ms))),
                (0..1u64 << 40).prop_map(|ms| DeliverAt::At(WallTime::from_millis(ms))),
            ]),
            prop::option::of((0..1u64 << 40).prop_map(Duration::from_millis)),
            0..4u8,
        );
        parts.prop_map(|(payload, key, headers, dedup_id, deliver, ttl, priority)| Message {
            payload,
            key,
            headers,
            dedup_id,
            deliver,
            ttl,
            priority: [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent][usize::from(priority)],
        })
    }

    proptest! {
        #[test]
        fn every_part_comes_back(message in message(), now in 0..1u64 << 41) {
            let times = Times::of(&message, WallTime::from_millis(now));
            let headers = encode(&message, &times);
            for (name, values) in headers.iter() {
                let visible = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                prop_assert!(visible(name.as_ref()) && values.iter().all(|value| visible(value.as_str())));
            }
            let (got, then) = decode(Some(&headers), message.payload.clone()).expect("what was encoded");
            prop_assert!(got == message, "{:?} for {:?}", got, message);
            prop_assert_eq!(then, times);
        }
    }

    #[test]
    fn what_others_wrote_keeps_its_headers_and_nonsense_is_told() {
        let mut headers = HeaderMap::new();
        headers.insert("trace", "1");
        headers.insert("Nats-Msg-Id", "7");
        headers.append("app", "x");
        let (message, times) = decode(Some(&headers), "p".into()).expect("it says nothing of us");
        let expected = Message::new("p").header("app", "x").header("trace", "1");
        assert!(message == expected, "{message:?}");
        assert_eq!(times, Times::default());
        headers.insert(FORMAT, "1");
        headers.insert(TTL, "soon");
        assert!(matches!(decode(Some(&headers), "p".into()), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn deliveries_of_old_and_new_servers_are_read() {
        let expected = Delivered {
            seq: 7,
            attempt: 2,
            stored: WallTime::from_millis(1_700_000_000_123),
        };
        for reply in [
            "$JS.ACK.s.c.2.7.9.1700000000123456789.5",
            "$JS.ACK._.hash.s.c.2.7.9.1700000000123456789.5",
            "$JS.ACK.d.hash.s.c.2.7.9.1700000000123456789.5.token",
        ] {
            assert_eq!(delivered(reply), Some(expected), "{reply}");
        }
        for reply in [
            "",
            "_INBOX.x",
            "$JS.ACK.s.c.2",
            "$JS.ACK.s.c.two.7.9.1700000000123456789.5",
        ] {
            assert_eq!(delivered(reply), None, "{reply}");
        }
    }

    #[test]
    fn times_are_written_as_the_server_reads_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_704_067_199_001, "2023-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(WallTime::from_millis(millis)), text);
        }
    }
}
