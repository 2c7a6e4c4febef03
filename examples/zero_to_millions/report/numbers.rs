//! Numbers as people read them.

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Milliseconds with three significant digits or all whole ones: `0.412`, `7.35`, `1,204`.
pub(crate) fn millis(ms: f64) -> String {
    decimals(ms, 3)
}

/// A number with about `significant` digits, and at most three behind the point.
pub(crate) fn decimals(number: f64, significant: i32) -> String {
    let whole_digits = match number.abs() {
        small if small < 1.0 => 0,
        size => size.log10().floor() as i32 + 1,
    };
    match (significant - whole_digits).clamp(0, 3) {
        0 if number >= 0.0 => thousands(number.round() as u64),
        places => format!("{number:.*}", places as usize),
    }
}

/// A share as a percentage: `0.07 %`, `4.2 %`, `88 %`.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let places = match percent.abs() {
        0.0 => 0,
        small if small < 1.0 => 2,
        small if small < 10.0 => 1,
        _ => 0,
    };
    format!("{percent:.places$} %")
}

/// For an axis: `250`, `10k`, `2.5M`.
pub(crate) fn short(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        size if size >= 1e9 => (number / 1e9, "G"),
        size if size >= 1e6 => (number / 1e6, "M"),
        size if size >= 1e3 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let text = format!("{scaled:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A modelled figure as it is written in its file: no more digits than it has.
pub(crate) fn plain(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 12, 123, 1234, 1_234_567].map(thousands),
            ["0", "12", "123", "1,234", "1,234,567"]
        );
        assert_eq!(
            [0.0, 0.4121, 7.349, 42.06, 250.4, 1204.0].map(millis),
            ["0.000", "0.412", "7.35", "42.1", "250", "1,204"]
        );
        assert_eq!(
            [0.0, 0.0007, 0.042, 0.876].map(percent),
            ["0 %", "0.07 %", "4.2 %", "88 %"]
        );
        assert_eq!([5.0, 250.0, 1e4, 2.5e6].map(short), ["5", "250", "10k", "2.5M"]);
        assert_eq!([6.0, 0.25, 1024.0].map(plain), ["6", "0.25", "1024"]);
    }
}
