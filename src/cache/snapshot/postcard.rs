use super::{SnapshotCodec, SnapshotError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The [`SnapshotCodec`] of whatever serde can serialize, in the format of the crate postcard: compact, and without the
/// names of fields. So the bytes do not tell when a type has changed; the schema does, which whoever changes a type
/// changes with it.
///
/// A type that serde cannot read without names (`#[serde(flatten)]`, untagged enums) needs a codec of its own.
///
/// ```
/// use outgrow::cache::{PostcardCodec, SnapshotCodec};
/// use std::collections::BTreeMap;
///
/// let codec = PostcardCodec::new("stock by place, 1");
/// let stock = BTreeMap::from([("bolts".to_string(), 300_u32)]);
/// let (mut key, mut value) = (Vec::new(), Vec::new());
/// codec.encode(&("hall".to_string(), 7_u8), &stock, &mut key, &mut value)?;
///
/// let (place, again): ((String, u8), BTreeMap<String, u32>) = codec.decode(&key, &value)?;
/// assert_eq!((place, again), (("hall".to_string(), 7), stock));
/// # Ok::<(), outgrow::cache::SnapshotError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostcardCodec {
    schema: String,
}

impl PostcardCodec {
    /// A codec for types that go by the name of `schema`: one snapshot is read under the schema that it was written
    /// under, and no other. At most 64 KiB.
    #[must_use]
    pub fn new(schema: impl Into<String>) -> PostcardCodec {
        PostcardCodec { schema: schema.into() }
    }
}

impl<K, V> SnapshotCodec<K, V> for PostcardCodec
where
    K: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    fn schema(&self) -> String {
        format!("postcard of {}", self.schema)
    }

    fn encode(&self, key: &K, value: &V, key_out: &mut Vec<u8>, value_out: &mut Vec<u8>) -> Result<(), SnapshotError> {
        encode(key, key_out)?;
        encode(value, value_out)
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<(K, V), SnapshotError> {
        Ok((decode(key)?, decode(value)?))
    }
}

fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), SnapshotError> {
    *out = postcard::to_extend(value, std::mem::take(out)).map_err(failed)?;
    Ok(())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SnapshotError> {
    match postcard::take_from_bytes(bytes).map_err(failed)? {
        (value, []) => Ok(value),
        _ => Err(SnapshotError::Corrupt {
            what: "a key or value has more bytes than its type",
        }),
    }
}

fn failed(error: postcard::Error) -> SnapshotError {
    SnapshotError::Codec(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct User {
        name: String,
        logins: Option<u32>,
    }

    #[test]
    fn types_of_serde_round_trip_and_other_bytes_are_refused() {
        let codec = PostcardCodec::new("users");
        let user = User {
            name: "Ada".into(),
            logins: Some(300),
        };
        let (mut key, mut value) = (b"k".to_vec(), b"v".to_vec());
        codec.encode(&7_u64, &user, &mut key, &mut value).unwrap();
        let (key, value) = (&key[1..], &value[1..]);
        assert_eq!(codec.decode(key, value).unwrap(), (7_u64, user));
        for cut in 0..value.len() {
            let refused: Result<(u64, User), _> = codec.decode(key, &value[..cut]);
            assert!(matches!(refused, Err(SnapshotError::Codec(_))), "at {cut}");
        }
        let longer = [value, &[0]].concat();
        let refused: Result<(u64, User), _> = codec.decode(key, &longer);
        assert!(matches!(refused, Err(SnapshotError::Corrupt { .. })));
        assert_eq!(SnapshotCodec::<u64, User>::schema(&codec), "postcard of users");
    }
}
