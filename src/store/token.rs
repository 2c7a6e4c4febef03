use super::{Error, LogId, Position, Result};
use crate::codec::{self, Reader};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The longest text of a [`Token`], in bytes: it has to fit a cookie or a header.
const MAX_TEXT: usize = 1024;
const VERSION: char = '1';
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a session has seen: for each log, the newest position. Opaque, mergeable, and printable in at most 1 KiB
/// (about 60 logs), with characters that fit a cookie or header.
///
/// A read under a token sees everything that the token names. A store without a log gives empty tokens.
///
/// ```
/// use outgrow::store::{LogId, Position, Token};
/// let mut seen = Token::of(LogId(7), Position::new(1, 20));
/// seen.merge(&Token::of(LogId(7), Position::new(1, 12)))?;
/// let text = seen.to_string();
/// assert_eq!(text.parse::<Token>()?.position(LogId(7)), Some(Position::new(1, 20)));
/// # Ok::<(), outgrow::store::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    seen: BTreeMap<LogId, Position>,
}

impl Token {
    /// A token that asks for nothing.
    #[must_use]
    pub fn new() -> Token {
        Token::default()
    }

    /// A token that asks for one position of one log.
    #[must_use]
    pub fn of(log: LogId, position: Position) -> Token {
        Token {
            seen: BTreeMap::from([(log, position)]),
        }
    }

    /// The position that it asks for in `log`.
    #[must_use]
    pub fn position(&self, log: LogId) -> Option<Position> {
        self.seen.get(&log).copied()
    }

    /// Every log with its position.
    pub fn iter(&self) -> impl Iterator<Item = (LogId, Position)> + '_ {
        self.seen.iter().map(|(log, position)| (*log, *position))
    }

    /// True when it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Asks for what either asks for.
    ///
    /// # Errors
    /// [`Error::Full`] when the text would pass 1 KiB; the token is then as it was.
    pub fn merge(&mut self, other: &Token) -> Result<()> {
        let mut seen = self.seen.clone();
        for (log, position) in other.iter() {
            let newest = seen.entry(log).or_insert(position);
            *newest = position.max(*newest);
        }
        let merged = Token { seen };
        // Two positions of known logs cannot lengthen the text by much: only a new log needs the check.
        if merged.seen.len() > self.seen.len() && merged.to_string().len() > MAX_TEXT {
            let what =
                format!("a session token holds at most {MAX_TEXT} bytes of text; start a session per group of logs");
            return Err(Error::Full { what });
        }
        *self = merged;
        Ok(())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        if self.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for (log, position) in self.iter() {
            codec::put_varint(&mut bytes, log.0);
            codec::put_varint(&mut bytes, position.epoch);
            codec::put_varint(&mut bytes, position.seq);
        }
        f.write_char(VERSION)?;
        for chunk in bytes.chunks(3) {
            let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for i in 0..=chunk.len() {
                f.write_char(char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]))?;
            }
        }
        Ok(())
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Token> {
        if text.is_empty() {
            return Ok(Token::new());
        }
        if text.len() > MAX_TEXT {
            return Err(Error::invalid("a session token longer than 1 KiB"));
        }
        let malformed = || Error::invalid("a session token that this store did not write");
        let digits = text.strip_prefix(VERSION).ok_or_else(malformed)?;
        let mut bytes = Vec::with_capacity(digits.len());
        for chunk in digits.as_bytes().chunks(4) {
            let mut bits = 0_u32;
            for digit in chunk {
                let value = DIGITS.iter().position(|d| d == digit).ok_or_else(malformed)?;
                bits = bits << 6 | value as u32;
            }
            let bits = bits << (6 * (4 - chunk.len()));
            bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len().max(1)]);
        }
        let mut reader = Reader::new(&bytes);
        let mut token = Token::new();
        while !reader.is_empty() {
            let mut next = || reader.varint().map_err(|_| malformed());
            token.seen.insert(LogId(next()?), Position::new(next()?, next()?));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(logs in prop::collection::btree_map(any::<u64>(), any::<(u64, u64)>(), 0..20)) {
            let seen = logs.into_iter().map(|(log, (epoch, seq))| (LogId(log), Position { epoch, seq })).collect();
            let token = Token { seen };
            prop_assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        }

        #[test]
        fn any_text_is_a_token_or_an_error(text in "\\PC{0,40}", digits in "1[A-Za-z0-9_-]{0,60}") {
            for text in [text, digits] {
                let _parsed: Result<Token> = text.parse();
            }
        }
    }

    #[test]
    fn merging_stops_at_one_kibibyte_and_changes_nothing_then() {
        let mut token = Token::new();
        let mut logs = 0;
        let refused = loop {
            let before = token.clone();
            match token.merge(&Token::of(LogId((1 << 41) + logs), Position::new(3, 1 << 40))) {
                Ok(()) => logs += 1,
                Err(error) => {
                    assert_eq!(token, before);
                    break error;
                }
            }
        };
        assert!(matches!(refused, Error::Full { .. }));
        assert!(logs >= 50, "{logs}");
        assert!(token.to_string().len() <= MAX_TEXT);
    }
}
