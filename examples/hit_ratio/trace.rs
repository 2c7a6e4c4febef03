//! Recorded requests, read from a compressed file whose name tells its encoding.

use ruzstd::decoding::StreamingDecoder;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The keys that were asked for, in order, numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) keys: Vec<u32>,
    /// How many different keys there are.
    pub(crate) distinct: usize,
}

impl Trace {
    /// Reads `*.u32.zst`, `*.u64.zst` (a key for each request, little-endian) or `*.tis.zst` (time, key and size, of
    /// which only the key matters here).
    ///
    /// # Errors
    /// When the file cannot be read, its name tells no encoding, or it is not what its name says.
    pub(crate) fn read(path: &Path) -> Result<Trace, Box<dyn Error + Send + Sync>> {
        let shown = path.display();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let (name, encoding) =
            Encoding::of(&file).ok_or_else(|| format!("{shown} is none of *.u32.zst, *.u64.zst and *.tis.zst"))?;
        let bytes = decompress(path).map_err(|error| format!("{shown}: {error}"))?;
        let keys = encoding
            .decode(&bytes)
            .ok_or_else(|| format!("{shown} ends within a request"))?;
        if keys.is_empty() {
            return Err(format!("{shown} has no requests").into());
        }
        Ok(Trace::of(name.to_owned(), &keys))
    }

    /// The trace of these keys, whatever they are.
    pub(crate) fn of(name: String, keys: &[u64]) -> Trace {
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let number = |key: &u64| sorted.partition_point(|other| other < key) as u32;
        Trace {
            name,
            keys: keys.iter().map(number).collect(),
            distinct: sorted.len(),
        }
    }

    /// How many entries `percent` of its keys are, rounded down, and one at least.
    pub(crate) fn entries(&self, percent: f64) -> usize {
        ((self.distinct as f64 * percent / 100.0 + 1e-9) as usize).max(1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// So many bytes a request, and where in them the key is and how long.
    Records { bytes: usize, key: usize, key_bytes: usize },
}

impl Encoding {
    /// The name without what tells the encoding, and the encoding.
    fn of(file: &str) -> Option<(&str, Encoding)> {
        let (stem, bytes, key, key_bytes) = None
            .or_else(|| Some((file.strip_suffix(".u32.zst")?, 4, 0, 4)))
            .or_else(|| Some((file.strip_suffix(".u64.zst")?, 8, 0, 8)))
            .or_else(|| Some((file.strip_suffix(".tis.zst")?, 12, 4, 4)))?;
        Some((stem, Encoding::Records { bytes, key, key_bytes }))
    }

    fn decode(self, data: &[u8]) -> Option<Vec<u64>> {
        let Encoding::Records { bytes, key, key_bytes } = self;
        let records = data.chunks_exact(bytes);
        if !records.remainder().is_empty() {
            return None;
        }
        let number = |record: &[u8]| {
            let mut wide = [0; 8];
            wide[..key_bytes].copy_from_slice(&record[key..key + key_bytes]);
            u64::from_le_bytes(wide)
        };
        Some(records.map(number).collect())
    }
}

fn decompress(path: &Path) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let mut decoder = StreamingDecoder::new(File::open(path)?)?;
    let mut bytes = Vec::new();
    decoder.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(file: &str, data: &[u8]) -> Option<Vec<u64>> {
        Encoding::of(file).expect("the name tells an encoding").1.decode(data)
    }

    #[test]
    fn each_encoding_by_its_name() {
        let data: Vec<u8> = (0..24).collect();
        assert_eq!(decode("a.u32.zst", &data).unwrap()[1], 0x0706_0504);
        assert_eq!(decode("a.u64.zst", &data).unwrap()[2], 0x1716_1514_1312_1110);
        assert_eq!(decode("a.tis.zst", &data), Some(vec![0x0706_0504, 0x1312_1110]));
        assert_eq!(Encoding::of("two.dots.u32.zst").unwrap().0, "two.dots");
    }

    #[test]
    fn what_it_is_not() {
        assert_eq!(Encoding::of("a.log.gz"), None);
        assert_eq!(Encoding::of("u32.zst"), None);
        assert_eq!(decode("a.tis.zst", &[0; 25]), None);
    }

    #[test]
    fn keys_are_numbered() {
        let trace = Trace::of("t".to_owned(), &[1 << 40, 7, 1 << 40, 9]);
        assert_eq!((trace.keys, trace.distinct), (vec![2, 0, 2, 1], 3));
    }

    #[test]
    fn sizes_are_rounded_down() {
        let trace = Trace::of("t".to_owned(), &(0..1_011).collect::<Vec<_>>());
        assert_eq!(
            [1.0, 5.0, 50.0, 100.0, 0.01].map(|percent| trace.entries(percent)),
            [10, 50, 505, 1_011, 1]
        );
    }

    #[test]
    fn a_file_is_read_and_a_bad_one_named() {
        let folder = std::env::temp_dir().join(format!("outgrow-trace-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let packed = ruzstd::encoding::compress_to_vec(
            &[5, 0, 0, 0, 6, 0, 0, 0][..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        let trace = Trace::read(&write("two.u32.zst", &packed)).unwrap();
        assert_eq!(
            (trace.name.as_str(), trace.keys, trace.distinct),
            ("two", vec![0, 1], 2)
        );
        for (name, bytes) in [("a.txt", &packed[..]), ("b.u64.zst", b"no"), ("c.tis.zst", &packed[..])] {
            let error = Trace::read(&write(name, bytes)).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains('\n'), "{error}");
        }
        assert!(Trace::read(&folder.join("absent.u32.zst")).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
