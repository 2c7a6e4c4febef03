//! How bytes, sizes, times and tables are written.

use outgrow::env::WallTime;
use std::fmt::Write;
use std::time::Duration;

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let (mut left, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if left < 1_024.0 {
            break;
        }
        (left, unit) = (left / 1_024.0, larger);
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ => format!("{left:.1} {unit}"),
    }
}

/// A duration for people.
pub(crate) fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A time as `2026-01-31T23:59:59.000Z`.
pub(crate) fn time(at: WallTime) -> String {
    let (millis, seconds) = (at.as_millis() % 1_000, at.as_millis() / 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{millis:03}Z",
        second % 60
    )
}

/// Year, month and day, so many days after the first of 1970. Counted in eras of 400 years that begin with a March, so
/// that a leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since the first of March of year 0
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let since_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * since_march + 2) / 5 + 1;
    let month = if since_march < 10 {
        since_march + 3
    } else {
        since_march - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// Bytes that are text, if they are.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_plain = |letter: char| !letter.is_control() || matches!(letter, '\n' | '\r' | '\t');
    text.chars().all(is_plain).then_some(text)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Bytes on one line, at most so many letters of it: as text, or as `0x..`.
pub(crate) fn short(bytes: &[u8], most: usize) -> String {
    // What is cut off in the middle of a letter is no reason to call it none.
    let head = &bytes[..bytes.len().min(most * 4)];
    let whole = match std::str::from_utf8(head) {
        Err(error) if error.error_len().is_none() && head.len() < bytes.len() => &head[..error.valid_up_to()],
        _ => head,
    };
    let line: String = match text(whole) {
        Some(text) => text.chars().flat_map(char::escape_debug).collect(),
        None => format!("0x{}", hex(&head[..head.len().min(most)])),
    };
    match line.char_indices().nth(most) {
        Some((at, _)) => format!("{}.. ({})", &line[..at], size(bytes.len() as u64)),
        None if whole.len() < bytes.len() => format!("{line}.. ({})", size(bytes.len() as u64)),
        None => line,
    }
}

/// Rows under a heading, each column as wide as it has to be. A heading with `>` before it has its column to the right.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let (to_the_right, names): (Vec<bool>, Vec<&str>) = heading
        .iter()
        .map(|name| (name.starts_with('>'), name.trim_start_matches('>')))
        .unzip();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
        let cells = cells.chain([names[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, width), right) in cells.zip(&widths).zip(&to_the_right) {
            let _ = match right {
                true => write!(line, "  {cell:>width$}"),
                false => write!(line, "  {cell:<width$}"),
            };
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut out = line(&mut names.iter().copied());
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (millis, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_001, "2000-03-01T00:00:00.001Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(WallTime::from_millis(millis)), shown);
        }
        // Each day follows the one before it.
        let mut last = date(0);
        for days in 1..60_000 {
            let (year, month, day) = date(days);
            let next_month = (last.1 % 12 + 1, 1);
            let follows = (year, month, day) == (last.0, last.1, last.2 + 1) && day <= 31
                || (month, day) == next_month && year == last.0 + last.1 / 12 && last.2 >= 28;
            assert!(follows, "{year}-{month}-{day} after {last:?}");
            last = (year, month, day);
        }
    }

    #[test]
    fn sizes_and_ages_are_for_people() {
        assert_eq!(
            [0, 1_023, 1_024, 1_536, 64 << 20].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "64.0 MiB"]
        );
        let ages = [0, 119, 120, 7_199, 7_200, 172_800].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 d"]);
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_no_text_is_digits() {
        assert_eq!(short(b"plain", 10), "plain");
        assert_eq!(short("two\nlines".as_bytes(), 20), "two\\nlines");
        assert_eq!(short(b"0123456789", 4), "0123.. (10 B)");
        assert_eq!(short(&[0xff, 0x00], 10), "0xff00");
        assert_eq!(short(&[0; 100], 6), "0x0000.. (100 B)");
        // Cut in the middle of a letter, which is no reason to call it none.
        let letters = "\u{20ac}".repeat(100);
        assert_eq!(
            short(letters.as_bytes(), 4),
            format!("{}.. (300 B)", "\u{20ac}".repeat(4))
        );
        assert_eq!(
            short(letters.as_bytes(), 5),
            format!("{}.. (300 B)", "\u{20ac}".repeat(5))
        );
        assert_eq!(text("line\n".as_bytes()), Some("line\n"));
        assert_eq!(text(b"\x1b[2J"), None);
    }

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = [["a", "5"], ["longer", "1234"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            table(&["name", ">n"], &rows),
            "  name       n\n  a          5\n  longer  1234\n"
        );
        assert_eq!(table(&["name", ">n"], &[]), "  name  n\n");
    }
}
