//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use thiserror::Error;

/// What the user asked for.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Run(Options),
    /// Print [`HELP`].
    Help,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) traces: Vec<PathBuf>,
    /// In percent of a trace's keys.
    pub(crate) sizes: Vec<f64>,
    pub(crate) svg: PathBuf,
}

/// A command line that cannot be obeyed.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum UsageError {
    #[error("no FILE is given")]
    NoFile,
    #[error("unknown option {0}")]
    Unknown(String),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("--sizes {0}: want percentages above 0 and up to 100, such as 1,5,20")]
    Sizes(String),
}

pub(crate) const HELP: &str = "\
How often does each eviction policy hit, beside the best that is possible?

usage: hit_ratio [--sizes PERCENT,...] [--svg FILE] FILE...

Replays traces of requests: get, and on a miss insert. Prints a table of hit ratios in percent for each, and draws
them as a picture. FILE is *.u32.zst, *.u64.zst (a key for each request, little-endian) or *.tis.zst (time, key and
size as u32 each).

  --sizes PERCENT,...  sizes of the cache, in percent of a trace's keys [default: 0.5,1,2,5,10,20,50]
  --svg FILE           where the picture goes [default: ./hit_ratio.svg]
  -h, --help           print this
";

/// Understands the arguments, without the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut options = Options {
        traces: Vec::new(),
        sizes: vec![0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0],
        svg: PathBuf::from("hit_ratio.svg"),
    };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("-h" | "--help") => return Ok(Command::Help),
            Some("--sizes") => options.sizes = sizes(&args.next().ok_or(UsageError::NoValue("--sizes"))?)?,
            Some("--svg") => options.svg = args.next().ok_or(UsageError::NoValue("--svg"))?.into(),
            Some(option) if option.starts_with('-') => return Err(UsageError::Unknown(option.to_owned())),
            _ => options.traces.push(arg.into()),
        }
    }
    match options.traces.is_empty() {
        true => Err(UsageError::NoFile),
        false => Ok(Command::Run(options)),
    }
}

fn sizes(list: &OsString) -> Result<Vec<f64>, UsageError> {
    let list = list.to_string_lossy();
    let size = |text: &str| text.trim().parse().ok().filter(|size| *size > 0.0 && *size <= 100.0);
    let sizes: Option<Vec<f64>> = list.split(',').map(size).collect();
    let mut sizes = sizes.ok_or_else(|| UsageError::Sizes(list.into_owned()))?;
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Command, UsageError> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn files_and_options_in_any_order() {
        let Ok(Command::Run(options)) = parsed(&["a", "--sizes", "20,1", "b", "--svg", "c.svg"]) else {
            panic!("it is well formed");
        };
        assert_eq!(options.traces, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((options.sizes, options.svg), (vec![1.0, 20.0], PathBuf::from("c.svg")));
        assert_eq!(parsed(&["a", "--help"]), Ok(Command::Help));
    }

    #[test]
    fn what_cannot_be_obeyed() {
        assert_eq!(parsed(&[]), Err(UsageError::NoFile));
        assert_eq!(
            parsed(&["a", "--size", "1"]),
            Err(UsageError::Unknown("--size".to_owned()))
        );
        assert_eq!(parsed(&["a", "--svg"]), Err(UsageError::NoValue("--svg")));
        for sizes in ["", "0", "101", "1,,2", "x", "NaN", "inf"] {
            assert_eq!(
                parsed(&["a", "--sizes", sizes]),
                Err(UsageError::Sizes(sizes.to_owned()))
            );
        }
    }
}
