use bytes::Bytes;
use std::error::Error;

/// Why a value could not be written or read: whatever the codec says.
pub type CodecError = Box<dyn Error + Send + Sync>;

/// How values become payloads, and payloads values.
///
/// With the feature `json` there is `Json`, with `postcard` there is `Postcard`. Messages outlive releases: think of what
/// the next one reads before choosing a format without names.
///
/// ```
/// use outgrow::queue::{Codec, CodecError};
/// use bytes::Bytes;
///
/// /// Degrees Celsius, in text.
/// struct Degrees;
///
/// impl Codec<f64> for Degrees {
///     fn encode(&self, value: &f64) -> Result<Bytes, CodecError> {
///         Ok(value.to_string().into())
///     }
///     fn decode(&self, payload: &Bytes) -> Result<f64, CodecError> {
///         Ok(std::str::from_utf8(payload)?.parse()?)
///     }
/// }
///
/// assert_eq!(Degrees.decode(&Degrees.encode(&-3.5)?)?, -3.5);
/// assert!(Degrees.decode(&"cold".into()).is_err());
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec<T>: Send + Sync {
    /// The payload that says `value`.
    ///
    /// # Errors
    /// When the format cannot say it.
    fn encode(&self, value: &T) -> Result<Bytes, CodecError>;

    /// The value that `payload` says.
    ///
    /// # Errors
    /// When it says none.
    fn decode(&self, payload: &Bytes) -> Result<T, CodecError>;
}

/// Values as JSON, by serde.
///
/// ```
/// use outgrow::queue::{Codec, CodecError, Json};
/// assert_eq!(Json.encode(&("Ada".to_owned(), 36_u8))?, r#"["Ada",36]"#);
/// let back: (String, u8) = Json.decode(&r#"["Ada", 36]"#.into())?;
/// assert_eq!(back, ("Ada".to_owned(), 36));
/// # Ok::<(), CodecError>(())
/// ```
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(payload)?)
    }
}

/// Values in the format of the postcard crate, by serde: small, and without names, so both ends have to agree on every
/// field and its place.
///
/// ```
/// use outgrow::queue::{Codec, CodecError, Postcard};
/// let payload = Postcard.encode(&("Ada".to_owned(), 36_u8))?;
/// assert_eq!(payload.len(), 5);
/// let back: (String, u8) = Postcard.decode(&payload)?;
/// assert_eq!(back, ("Ada".to_owned(), 36));
/// # Ok::<(), CodecError>(())
/// ```
#[cfg(feature = "postcard")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for Postcard {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(postcard::to_stdvec(value)?.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<T, CodecError> {
        match postcard::take_from_bytes(payload)? {
            (value, []) => Ok(value),
            (_, rest) => Err(format!("{} bytes follow the value", rest.len()).into()),
        }
    }
}
