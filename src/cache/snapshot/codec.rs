use super::SnapshotError;
use bytes::Bytes;
use std::sync::Arc;

/// How the keys and values of a cache become bytes in its snapshot.
///
/// [`BytesCodec`] does for numbers, text and bytes; with the feature `postcard`, `PostcardCodec` for whatever serde
/// can serialize.
///
/// ```
/// use outgrow::cache::{SnapshotCodec, SnapshotError};
///
/// /// Celsius by town.
/// struct Degrees;
///
/// impl SnapshotCodec<String, f64> for Degrees {
///     fn schema(&self) -> String {
///         "town, celsius".into()
///     }
///     fn encode(&self, town: &String, degrees: &f64, key: &mut Vec<u8>, value: &mut Vec<u8>) -> Result<(), SnapshotError> {
///         key.extend_from_slice(town.as_bytes());
///         value.extend_from_slice(&degrees.to_le_bytes());
///         Ok(())
///     }
///     fn decode(&self, key: &[u8], value: &[u8]) -> Result<(String, f64), SnapshotError> {
///         let town = String::from_utf8(key.to_vec()).map_err(|error| SnapshotError::Codec(error.into()))?;
///         let degrees = value.try_into().map_err(|_| SnapshotError::Corrupt { what: "degrees are 8 bytes" })?;
///         Ok((town, f64::from_le_bytes(degrees)))
///     }
/// }
///
/// let (mut key, mut value) = (Vec::new(), Vec::new());
/// Degrees.encode(&"Oulu".into(), &-3.5, &mut key, &mut value)?;
/// assert_eq!(Degrees.decode(&key, &value)?, ("Oulu".into(), -3.5));
/// assert!(matches!(Degrees.decode(&key, &value[1..]), Err(SnapshotError::Corrupt { .. })));
/// # Ok::<(), SnapshotError>(())
/// ```
pub trait SnapshotCodec<K, V> {
    /// What the bytes mean: written into the snapshot and compared when it is read, so that a cache does not take up
    /// what another kind of cache, or another release of the service, wrote. Change it with the types. At most 64 KiB.
    fn schema(&self) -> String;

    /// Appends the bytes of `key` and of `value`, each to its own vector.
    ///
    /// # Errors
    /// [`Codec`](SnapshotError::Codec), when they have no bytes. The snapshot is not written then.
    fn encode(&self, key: &K, value: &V, key_out: &mut Vec<u8>, value_out: &mut Vec<u8>) -> Result<(), SnapshotError>;

    /// The key and value that [`encode`](SnapshotCodec::encode) made these bytes of.
    ///
    /// # Errors
    /// [`Codec`](SnapshotError::Codec) or [`Corrupt`](SnapshotError::Corrupt), when they are not its bytes. It never
    /// panics on them: a checksum tells of accidents, not of a snapshot written by someone else.
    fn decode(&self, key: &[u8], value: &[u8]) -> Result<(K, V), SnapshotError>;
}

/// The [`SnapshotCodec`] of keys and values that are [`Encode`]: numbers, text and bytes.
///
/// ```
/// use outgrow::cache::{BytesCodec, SnapshotCodec};
/// use std::sync::Arc;
///
/// let (mut key, mut value) = (Vec::new(), Vec::new());
/// BytesCodec.encode(&7_u64, &Arc::new(String::from("Ada")), &mut key, &mut value)?;
/// assert_eq!((&key[..], &value[..]), (&[7, 0, 0, 0, 0, 0, 0, 0][..], &b"Ada"[..]));
///
/// let (id, name): (u64, Arc<str>) = BytesCodec.decode(&key, &value)?;
/// assert_eq!((id, &*name), (7, "Ada"));
/// assert_eq!(SnapshotCodec::<u64, String>::schema(&BytesCodec), "bytes of u64, text");
/// # Ok::<(), outgrow::cache::SnapshotError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BytesCodec;

impl<K: Encode, V: Encode> SnapshotCodec<K, V> for BytesCodec {
    fn schema(&self) -> String {
        format!("bytes of {}, {}", K::SCHEMA, V::SCHEMA)
    }

    fn encode(&self, key: &K, value: &V, key_out: &mut Vec<u8>, value_out: &mut Vec<u8>) -> Result<(), SnapshotError> {
        key.encode(key_out);
        value.encode(value_out);
        Ok(())
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<(K, V), SnapshotError> {
        let corrupt = |what| move || SnapshotError::Corrupt { what };
        let key = K::decode(key).ok_or_else(corrupt("a key is not of its type"))?;
        let value = V::decode(value).ok_or_else(corrupt("a value is not of its type"))?;
        Ok((key, value))
    }
}

/// What [`BytesCodec`] can keep: integers as little-endian bytes, text and bytes as they are, and an `Arc` as what is
/// in it. A service may implement it for types of its own.
///
/// ```
/// use outgrow::cache::Encode;
///
/// #[derive(Debug, PartialEq)]
/// struct Rgb([u8; 3]);
///
/// impl Encode for Rgb {
///     const SCHEMA: &str = "rgb";
///     fn encode(&self, out: &mut Vec<u8>) {
///         out.extend_from_slice(&self.0);
///     }
///     fn decode(bytes: &[u8]) -> Option<Rgb> {
///         bytes.try_into().ok().map(Rgb)
///     }
/// }
///
/// let mut bytes = Vec::new();
/// Rgb([1, 2, 3]).encode(&mut bytes);
/// assert_eq!(Rgb::decode(&bytes), Some(Rgb([1, 2, 3])));
/// assert_eq!(Rgb::decode(b"four"), None);
/// ```
pub trait Encode: Sized {
    /// What its bytes mean; types with one meaning may share it.
    const SCHEMA: &str;

    /// Appends its bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// What [`encode`](Encode::encode) made these bytes of; `None` if they are not its bytes.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

macro_rules! encode_integers {
    ($($integer:ident)*) => {$(
        impl Encode for $integer {
            const SCHEMA: &str = stringify!($integer);

            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn decode(bytes: &[u8]) -> Option<$integer> {
                bytes.try_into().ok().map($integer::from_le_bytes)
            }
        }
    )*};
}

encode_integers!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128);

macro_rules! encode_slices {
    ($($owner:ty, $schema:literal, $as_bytes:expr, $from_bytes:expr;)*) => {$(
        impl Encode for $owner {
            const SCHEMA: &str = $schema;

            fn encode(&self, out: &mut Vec<u8>) {
                let as_bytes: fn(&$owner) -> &[u8] = $as_bytes;
                out.extend_from_slice(as_bytes(self));
            }

            fn decode(bytes: &[u8]) -> Option<$owner> {
                let from_bytes: fn(&[u8]) -> Option<$owner> = $from_bytes;
                from_bytes(bytes)
            }
        }
    )*};
}

encode_slices! {
    String, "text", |text| text.as_bytes(), |bytes| text(bytes).map(Into::into);
    Box<str>, "text", |text| text.as_bytes(), |bytes| text(bytes).map(Into::into);
    Arc<str>, "text", |text| text.as_bytes(), |bytes| text(bytes).map(Into::into);
    Vec<u8>, "bytes", |bytes| bytes, |bytes| Some(bytes.into());
    Arc<[u8]>, "bytes", |bytes| bytes, |bytes| Some(bytes.into());
    Bytes, "bytes", |bytes| bytes, |bytes| Some(Bytes::copy_from_slice(bytes));
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

impl<T: Encode> Encode for Arc<T> {
    const SCHEMA: &str = T::SCHEMA;

    fn encode(&self, out: &mut Vec<u8>) {
        T::encode(self, out);
    }

    fn decode(bytes: &[u8]) -> Option<Arc<T>> {
        T::decode(bytes).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn round_trip<T: Encode + Debug + PartialEq>(value: &T) -> Vec<u8> {
        let mut bytes = b"before".to_vec();
        value.encode(&mut bytes);
        let bytes = bytes.split_off(6);
        assert_eq!(T::decode(&bytes).as_ref(), Some(value));
        bytes
    }

    #[test]
    fn what_has_a_codec_round_trips() {
        assert_eq!(round_trip(&0x0102_u16), [2, 1]);
        assert_eq!(round_trip(&i128::MIN).len(), 16);
        assert_eq!(round_trip(&-1_i64), [0xff; 8]);
        assert_eq!(round_trip(&String::from("å")), "å".as_bytes());
        assert_eq!(round_trip(&Box::<str>::from("")), b"");
        assert_eq!(round_trip(&Arc::<str>::from("x")), b"x");
        assert_eq!(round_trip(&vec![0_u8, 255]), [0, 255]);
        assert_eq!(round_trip(&Arc::<[u8]>::from([1, 2])), [1, 2]);
        assert_eq!(round_trip(&Bytes::from_static(b"\xff")), [255]);
        assert_eq!(round_trip(&Arc::new(7_u8)), [7]);
    }

    #[test]
    fn what_is_not_of_a_type_is_refused() {
        assert_eq!(u64::decode(&[0; 7]), None);
        assert_eq!(u64::decode(&[0; 9]), None);
        assert_eq!(String::decode(&[0xff]), None);
        let refused: Result<(u8, String), _> = BytesCodec.decode(&[1, 2], b"");
        assert!(matches!(refused, Err(SnapshotError::Corrupt { what }) if what.contains("key")));
        let refused: Result<(u8, String), _> = BytesCodec.decode(&[1], &[0xff]);
        assert!(matches!(refused, Err(SnapshotError::Corrupt { what }) if what.contains("value")));
    }

    #[test]
    fn a_schema_tells_types_apart() {
        let schema = <BytesCodec as SnapshotCodec<u64, Arc<String>>>::schema(&BytesCodec);
        assert_eq!(
            schema,
            <BytesCodec as SnapshotCodec<u64, Box<str>>>::schema(&BytesCodec)
        );
        assert_ne!(schema, <BytesCodec as SnapshotCodec<i64, String>>::schema(&BytesCodec));
        assert_ne!(schema, <BytesCodec as SnapshotCodec<u64, Bytes>>::schema(&BytesCodec));
    }
}
