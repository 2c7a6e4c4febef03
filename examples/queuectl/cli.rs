//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use thiserror::Error;

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Do something with the queue in a directory.
    Run(PathBuf, Command),
    /// Show all of it on a queue made for that.
    Demo,
    /// Print [`HELP`].
    Help,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Status,
    Peek {
        topic: String,
        subscription: Option<String>,
        count: usize,
    },
    Verify,
    Dump {
        topic: Option<String>,
        settled_too: bool,
    },
    Redrive {
        topic: String,
        subscription: Option<String>,
        max: usize,
    },
    Repair,
}

/// A command line that cannot be obeyed.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum UsageError {
    #[error("no COMMAND is given")]
    NoCommand,
    #[error("unknown command {0}")]
    Command(String),
    #[error("{0} needs a TOPIC")]
    NoTopic(&'static str),
    #[error("{0} is one argument too many")]
    Stray(String),
    #[error("unknown option {0}")]
    Unknown(String),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{0} {1}: want a whole number above 0")]
    Number(&'static str, String),
    #[error("{0} is not UTF-8")]
    NotText(String),
}

pub(crate) const HELP: &str = "\
Looks after the directory of a durable queue.

usage: queuectl DIR COMMAND
       queuectl            shows all of them on a queue made for that

These look, without a lock and without writing anything, so a process may have the queue open:

  status                   topics, subscriptions and files
  peek TOPIC [--subscription NAME] [--count N]
                           the next messages of a subscription, or the oldest that the topic keeps [count: 10]
  verify                   read every byte from the device and compare checksums
  dump [TOPIC] [--settled] messages as lines of JSON; those that are settled too, while they are on disk

These open the queue, so no process may have it open:

  redrive TOPIC [--subscription NAME] [--max N]
                           send dead letters to their topic again; those that one subscription gave up
  repair                   copy damaged bytes into quarantine/, make anew what can be made of the rest, and tell the cost

It exits with 0; with 1 when the queue is damaged or a command fails; with 2 when the command line is wrong.
";

/// Understands the arguments, without the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, UsageError> {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        return Ok(Request::Help);
    }
    let Some((dir, rest)) = args.split_first() else {
        return Ok(Request::Demo);
    };
    if let Some(option) = dir.to_str().filter(|dir| dir.starts_with('-')) {
        return Err(UsageError::Unknown(option.to_owned()));
    }
    let text = |arg: &OsString| {
        let lossy = || UsageError::NotText(arg.to_string_lossy().into_owned());
        arg.to_str().map(str::to_owned).ok_or_else(lossy)
    };
    let rest: Vec<String> = rest.iter().map(text).collect::<Result<_, _>>()?;
    let (command, rest) = rest.split_first().ok_or(UsageError::NoCommand)?;
    Ok(Request::Run(dir.into(), parse_command(command, rest)?))
}

fn parse_command(command: &str, rest: &[String]) -> Result<Command, UsageError> {
    let mut rest = Rest::new(rest);
    let command = match command {
        "status" => Command::Status,
        "verify" => Command::Verify,
        "repair" => Command::Repair,
        "peek" => Command::Peek {
            subscription: rest.value("--subscription")?,
            count: rest.number("--count")?.unwrap_or(10),
            topic: rest.next()?.ok_or(UsageError::NoTopic("peek"))?,
        },
        "dump" => Command::Dump {
            settled_too: rest.flag("--settled"),
            topic: rest.next()?,
        },
        "redrive" => Command::Redrive {
            subscription: rest.value("--subscription")?,
            max: rest.number("--max")?.unwrap_or(usize::MAX),
            topic: rest.next()?.ok_or(UsageError::NoTopic("redrive"))?,
        },
        _ => return Err(UsageError::Command(command.to_owned())),
    };
    match rest.next()? {
        Some(stray) => Err(UsageError::Stray(stray)),
        None => Ok(command),
    }
}

/// Arguments that nobody has taken yet.
struct Rest(Vec<String>);

impl Rest {
    fn new(args: &[String]) -> Rest {
        Rest(args.to_vec())
    }

    fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|arg| arg != name);
        before > self.0.len()
    }

    /// Takes an option and its value.
    fn value(&mut self, name: &'static str) -> Result<Option<String>, UsageError> {
        let Some(at) = self.0.iter().position(|arg| arg == name) else {
            return Ok(None);
        };
        self.0.remove(at);
        match at < self.0.len() {
            true => Ok(Some(self.0.remove(at))),
            false => Err(UsageError::NoValue(name)),
        }
    }

    fn number(&mut self, name: &'static str) -> Result<Option<usize>, UsageError> {
        let Some(text) = self.value(name)? else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| *number > 0);
        number.map(Some).ok_or(UsageError::Number(name, text))
    }

    /// Takes the next argument, which must be no option.
    fn next(&mut self) -> Result<Option<String>, UsageError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let next = self.0.remove(0);
        match next.starts_with('-') {
            true => Err(UsageError::Unknown(next)),
            false => Ok(Some(next)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Request, UsageError> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn commands_with_their_options_in_any_order() {
        let peek = Command::Peek {
            topic: "t".into(),
            subscription: Some("s".into()),
            count: 3,
        };
        for args in [
            ["q", "peek", "t", "--subscription", "s", "--count", "3"],
            ["q", "peek", "--count", "3", "--subscription", "s", "t"],
        ] {
            assert_eq!(parsed(&args), Ok(Request::Run("q".into(), peek.clone())));
        }
        let dump = |topic: Option<&str>, settled_too| {
            let topic = topic.map(str::to_owned);
            Ok(Request::Run("q".into(), Command::Dump { topic, settled_too }))
        };
        assert_eq!(parsed(&["q", "dump"]), dump(None, false));
        assert_eq!(parsed(&["q", "dump", "--settled", "t"]), dump(Some("t"), true));
        let redrive = Command::Redrive {
            topic: "t".into(),
            subscription: None,
            max: usize::MAX,
        };
        assert_eq!(parsed(&["q", "redrive", "t"]), Ok(Request::Run("q".into(), redrive)));
        assert_eq!(parsed(&[]), Ok(Request::Demo));
        assert_eq!(parsed(&["q", "peek", "--help"]), Ok(Request::Help));
    }

    #[test]
    fn what_cannot_be_obeyed() {
        assert_eq!(parsed(&["q"]), Err(UsageError::NoCommand));
        assert_eq!(parsed(&["--queue"]), Err(UsageError::Unknown("--queue".into())));
        assert_eq!(parsed(&["q", "look"]), Err(UsageError::Command("look".into())));
        assert_eq!(parsed(&["q", "redrive"]), Err(UsageError::NoTopic("redrive")));
        assert_eq!(parsed(&["q", "status", "t"]), Err(UsageError::Stray("t".into())));
        assert_eq!(
            parsed(&["q", "dump", "--all"]),
            Err(UsageError::Unknown("--all".into()))
        );
        assert_eq!(
            parsed(&["q", "peek", "t", "--count"]),
            Err(UsageError::NoValue("--count"))
        );
        for count in ["0", "-1", "x", "1.5", ""] {
            let error = UsageError::Number("--count", count.into());
            assert_eq!(parsed(&["q", "peek", "t", "--count", count]), Err(error));
        }
    }
}
