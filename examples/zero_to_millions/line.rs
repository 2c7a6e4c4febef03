//! One line of an access log: which format it is, and what it says.

/// What one well-formed line says. Bytes are borrowed from the line and kept as they are, valid UTF-8 or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The client, as logged: an address or a name.
    pub(crate) host: &'a [u8],
    /// When the request was served.
    pub(crate) stamp: Stamp,
    /// The request's method; empty when the client sent something else than `METHOD target ..`.
    pub(crate) method: &'a [u8],
    /// What was asked for, without the method and the protocol.
    pub(crate) target: &'a [u8],
    /// The status of the answer.
    pub(crate) status: u16,
    /// The size of the answer's body; `-` in the log is 0.
    pub(crate) bytes: u64,
    /// Which of the formats the line is written in.
    pub(crate) format: Format,
}

/// A time as its format writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Seconds since 1970, UTC.
    Unix(i64),
    /// A day of some month, and the second within that day.
    DayOfMonth {
        /// 1 to 31.
        day: u8,
        /// 0 to 86,400 (a leap second).
        second: u32,
    },
}

/// The formats that are recognised, each line by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `host ident user [day/month/year:time zone] "request" status bytes`.
    Common,
    /// Common, then `"referrer" "user agent"`.
    Combined,
    /// `host [day:hour:minute:second] "request" status bytes`, as in the EPA-HTTP log of 1995.
    Epa,
}

/// Reads one line; `None` when it is in none of the formats.
///
/// A quote inside the request does not end it: the request ends at the first quote that a status and a size follow.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.trim_ascii();
    let (host, rest) = split_at_byte(line, b' ')?;
    let (stamp, rest, epa) = match rest.strip_prefix(b"[") {
        Some(time) => {
            let (time, rest) = split_at_byte(time, b']')?;
            (day_of_month(time)?, rest, true)
        }
        // The user between the host and the time may hold blanks, and brackets that are no time.
        None => {
            let (stamp, rest) = first_date(rest)?;
            (stamp, rest, false)
        }
    };
    let request = rest.strip_prefix(b" \"")?;
    let (request, status, bytes, tail) = end_of_request(request)?;
    let (method, target) = method_and_target(request);
    let format = match (epa, tail.starts_with(b" \"")) {
        (true, _) => Format::Epa,
        (false, true) => Format::Combined,
        (false, false) => Format::Common,
    };
    (!host.is_empty()).then_some(Line {
        host,
        stamp,
        method,
        target,
        status,
        bytes,
        format,
    })
}

/// Splits `"GET /path HTTP/1.0"`. Anything that is not of that shape is a target without a method: the server
/// answered it, so it counts.
fn method_and_target(request: &[u8]) -> (&[u8], &[u8]) {
    let Some((method, rest)) = split_at_byte(request, b' ').filter(|(method, _)| is_method(method)) else {
        return (b"", request);
    };
    let target = match rest.iter().rposition(|&b| b == b' ') {
        Some(at) if rest[at + 1..].starts_with(b"HTTP/") => &rest[..at],
        _ => rest,
    };
    (method, target.trim_ascii())
}

fn is_method(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(u8::is_ascii_uppercase)
}

/// The first date in square brackets, and what follows it.
fn first_date(rest: &[u8]) -> Option<(Stamp, &[u8])> {
    positions(rest, b'[').find_map(|at| {
        let (time, rest) = split_at_byte(&rest[at + 1..], b']')?;
        Some((date(time)?, rest))
    })
}

/// Finds the quote that ends the request: the first one followed by ` status size`.
fn end_of_request(text: &[u8]) -> Option<(&[u8], u16, u64, &[u8])> {
    positions(text, b'"').find_map(|at| {
        let rest = text[at + 1..].strip_prefix(b" ")?;
        let (status, rest) = split_at_byte(rest, b' ')?;
        let status = number(status).filter(|n| status.len() == 3 && (100..1000).contains(n))?;
        let end = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
        let bytes = match &rest[..end] {
            b"-" => 0,
            digits => number(digits)?,
        };
        Some((&text[..at], status as u16, bytes, &rest[end..]))
    })
}

/// `17/May/2015:10:05:03 +0000`.
fn date(text: &[u8]) -> Option<Stamp> {
    let text = str::from_utf8(text).ok()?;
    let (clock, zone) = text.split_once(' ')?;
    let mut parts = clock.split([':', '/']);
    let mut part = || parts.next();
    let day: u8 = digits(part()?, 2)?;
    let month = MONTHS.iter().position(|&name| Some(name) == part_of(clock, 1))?;
    part()?;
    let year: u16 = digits(part()?, 4)?;
    let second = second_of_day(part()?, part()?, part()?)?;
    if part().is_some() || day == 0 || day > days_in(year, month) {
        return None;
    }
    let days = days_before(year, month) + i64::from(day) - 1;
    Some(Stamp::Unix(days * DAY + i64::from(second) - offset(zone)?))
}

fn part_of(clock: &str, index: usize) -> Option<&str> {
    clock.split([':', '/']).nth(index)
}

/// `29:23:53:25`: day of the month, hour, minute, second.
fn day_of_month(text: &[u8]) -> Option<Stamp> {
    let text = str::from_utf8(text).ok()?;
    let mut parts = text.split(':');
    let day = digits(parts.next()?, 2).filter(|day| (1..=31).contains(day))?;
    let second = second_of_day(parts.next()?, parts.next()?, parts.next()?)?;
    parts.next().is_none().then_some(Stamp::DayOfMonth { day, second })
}

fn second_of_day(hour: &str, minute: &str, second: &str) -> Option<u32> {
    let (hour, minute, second): (u32, u32, u32) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// `+0530` in seconds.
fn offset(zone: &str) -> Option<i64> {
    let (sign, digits_only) = match zone.as_bytes().first()? {
        b'+' => (1, zone.get(1..)?),
        b'-' => (-1, zone.get(1..)?),
        _ => return None,
    };
    let number: i64 = digits(digits_only, 4)?;
    (number % 100 < 60).then_some(sign * (number / 100 * 3600 + number % 100 * 60))
}

/// A decimal number of exactly `width` digits.
fn digits<T: std::str::FromStr>(text: &str, width: usize) -> Option<T> {
    (text.len() == width && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// A decimal number of 1 to 19 digits.
fn number(text: &[u8]) -> Option<u64> {
    ((1..=19).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)).then(|| {
        text.iter()
            .fold(0, |number, &digit| number * 10 + u64::from(digit - b'0'))
    })
}

fn split_at_byte(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&b| b == byte)?;
    Some((&text[..at], &text[at + 1..]))
}

fn positions(text: &[u8], byte: u8) -> impl Iterator<Item = usize> {
    (0..text.len()).filter(move |&at| text[at] == byte)
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn days_in(year: u16, month: usize) -> u8 {
    match month {
        1 => 28 + u8::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// Days from the start of 1970 to the first of this month (0 is January).
fn days_before(year: u16, month: usize) -> i64 {
    let before = i64::from(year) - 1;
    let leaps = before / 4 - before / 100 + before / 400 - LEAPS_BEFORE_1970;
    let in_year: i64 = (0..month).map(|month| i64::from(days_in(year, month))).sum();
    (i64::from(year) - 1970) * 365 + leaps + in_year
}

const DAY: i64 = 86_400;
const LEAPS_BEFORE_1970: i64 = 1969 / 4 - 1969 / 100 + 1969 / 400;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_each_format() {
        let epa = parse(br#"host.net [29:23:53:25] "GET /a%20b HTTP/1.0" 200 1497"#).expect("an EPA line");
        assert_eq!(
            (epa.host, epa.method, epa.target),
            (&b"host.net"[..], &b"GET"[..], &b"/a%20b"[..])
        );
        assert_eq!(
            epa.stamp,
            Stamp::DayOfMonth {
                day: 29,
                second: 86_005
            }
        );
        assert_eq!((epa.status, epa.bytes, epa.format), (200, 1497, Format::Epa));

        let common = parse(br#"::1 - a b [17/May/2015:10:05:03 +0200] "POST / HTTP/1.1" 302 -"#).expect("common");
        assert_eq!(common.stamp, Stamp::Unix(1_431_849_903));
        assert_eq!(
            (common.method, common.bytes, common.format),
            (&b"POST"[..], 0, Format::Common)
        );

        let combined =
            parse(br#"h - - [29/Feb/2024:23:59:60 -0030] "GET /" 404 7 "-" "half a quote"#).expect("combined");
        assert_eq!(combined.stamp, Stamp::Unix(1_709_253_000));
        assert_eq!((combined.target, combined.format), (&b"/"[..], Format::Combined));
    }

    #[test]
    fn quotes_and_odd_bytes_survive() {
        let line = parse(b"h [01:00:00:00] \"GET /say\"hi\"?\xff\xfe HTTP/1.0\" 200 5").expect("a line");
        assert_eq!(line.target, b"/say\"hi\"?\xff\xfe");
        let line = parse(br#"h [01:00:00:00] "\x16\x03 no request" 400 -"#).expect("a line");
        assert_eq!((line.method, line.target), (&b""[..], &br"\x16\x03 no request"[..]));
    }

    #[test]
    fn refuses_what_is_in_no_format() {
        for bad in [
            &b""[..],
            b"hello",
            br#"h [29:23:53:25] "GET / HTTP/1.0" 404"#,
            br#"h [32:23:53:25] "GET / HTTP/1.0" 404 -"#,
            br#"h [29:24:00:00] "GET / HTTP/1.0" 404 -"#,
            br#"h - - [30/Feb/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#,
            br#"h - - [17/Mai/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#,
            br#"h - - [17/May/2015:10:05:03] "GET / HTTP/1.1" 200 1"#,
            br#"h [29:23:53:25] "GET / HTTP/1.0" 40 1"#,
            br#"h [29:23:53:25] "GET / HTTP/1.0" 200 99999999999999999999"#,
        ] {
            assert_eq!(parse(bad), None, "{:?}", bad.escape_ascii().to_string());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
        }

        #[test]
        fn no_almost_right_line_makes_it_panic(line in r#".{0,9} ?(- - )?\[?[0-9]{0,3}[:/][0-9A-Ja-u]{0,4}[:/][0-9]{0,5}:[0-9:]{0,9} ?[+-]?[0-9]{0,5}\]? ?"?[A-Z]{0,4} ?/?.{0,9}( HTTP/1.0)?"? [0-9]{0,4} ?[0-9-]{0,22}"#) {
            if let Some(parsed) = parse(line.as_bytes()) {
                prop_assert!((100..1000).contains(&parsed.status) && !parsed.host.is_empty());
            }
        }

        #[test]
        fn what_was_written_is_read_back(
            host in "[a-z0-9.:-]{1,20}", day in 1_u8..=28, month in 0_usize..12, year in 1970_u16..2200,
            second in 0_u32..86_400, path in "/[!#-~]{0,30}", status in 100_u16..600, bytes in 0_u64..1 << 60,
        ) {
            let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
            let text = format!(
                "{host} - - [{day:02}/{}/{year}:{h:02}:{m:02}:{s:02} +0000] \"GET {path} HTTP/1.1\" {status} {bytes}",
                MONTHS[month]
            );
            let line = parse(text.as_bytes()).expect("a well-formed line");
            let mut days = 0;
            for y in 1970..year { for m in 0..12 { days += i64::from(days_in(y, m)); } }
            for m in 0..month { days += i64::from(days_in(year, m)); }
            prop_assert_eq!(line.stamp, Stamp::Unix((days + i64::from(day) - 1) * DAY + i64::from(second)));
            prop_assert_eq!((line.host, line.target), (host.as_bytes(), path.as_bytes()));
            prop_assert_eq!((line.status, line.bytes), (status, bytes));
        }
    }
}
