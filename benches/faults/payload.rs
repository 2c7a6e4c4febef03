//! Messages that can be recognized, whole or damaged.

/// How many bytes say which message it is.
const TAG: usize = 16;

/// Message number `n`: its number, and bytes that nothing compresses.
pub(super) fn payload(n: u64, size: usize) -> Vec<u8> {
    let mut bytes = format!("{n:015}:").into_bytes();
    let mut word = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while bytes.len() < size {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Which message these bytes are, if they are one as it was sent.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    let tag = std::str::from_utf8(bytes.get(..TAG)?).ok()?;
    let n = tag.strip_suffix(':')?.parse().ok()?;
    (payload(n, bytes.len()) == bytes).then_some(n)
}
