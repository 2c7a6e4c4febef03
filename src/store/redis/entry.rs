use crate::env::WallTime;
use crate::store::{Entry, Error, Result, Version};
use bytes::Bytes;

/// The longest header of an entry: two numbers of twenty digits, and what stands between them.
const MAX_HEADER: usize = 44;
/// What stands for "never" where an expiry is written.
pub(super) const NEVER: &str = "-";

/// Reads what the scripts write: `1 VERSION EXPIRES`, a line feed, the value. The value shares `raw`.
pub(super) fn decode(key: &[u8], raw: &Bytes) -> Result<Entry> {
    let foreign = || {
        let key = String::from_utf8_lossy(key);
        Error::corrupt(format!("what the server holds for the key {key:?} is no entry"))
    };
    let end = raw.iter().take(MAX_HEADER).position(|byte| *byte == b'\n');
    let end = end.ok_or_else(foreign)?;
    let header = std::str::from_utf8(&raw[..end]).map_err(|_| foreign())?;
    let (version, expires) = header
        .strip_prefix("1 ")
        .and_then(|rest| rest.split_once(' '))
        .ok_or_else(foreign)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| foreign());
    Ok(Entry {
        value: raw.slice(end + 1..),
        version: Version(number(version)?),
        expires: match expires {
            NEVER => None,
            at => Some(WallTime::from_millis(number(at)?)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_and_the_value_left_alone() {
        let entry = decode(b"k", &Bytes::from_static(b"1 18446744073709551615 -\n1 2\n\0")).unwrap();
        assert_eq!((&entry.value[..], entry.version), (&b"1 2\n\0"[..], Version(u64::MAX)));
        assert_eq!(entry.expires, None);
        let dated = decode(b"k", &Bytes::from_static(b"1 7 18446744073709551615\n")).unwrap();
        assert_eq!(
            (dated.value.len(), dated.expires),
            (0, Some(WallTime::from_millis(u64::MAX)))
        );
    }

    #[test]
    fn what_another_program_wrote_is_an_error() {
        for raw in [
            "",
            "Ada",
            "1 7 -",
            "2 7 -\nAda",
            "1 7\nAda",
            "1 x -\nAda",
            "1 7 soon\nAda",
            "1 99999999999999999999 -\nAda",
            "\n",
            "1 000000000000000000000000000000000000000000007 -\nAda",
        ] {
            let found = decode(b"k", &Bytes::copy_from_slice(raw.as_bytes()));
            assert!(matches!(found, Err(Error::Corrupt { .. })), "{raw:?} is {found:?}");
        }
    }
}
