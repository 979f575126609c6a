//! What the program is told.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use kachet_core::wire::TopicId;
use kachet_wasm::parse_topic_id;
use lexopt::{Arg, Parser, ValueExt};

use crate::error::Error;

/// What `--help` prints.
pub const HELP: &str = "\
Keeps Kafka's Fetch responses in a folder, and reads records from it.

Usage: kachet-wasi [--folder FOLDER] COMMAND

Commands:
  request TOPIC PARTITION OFFSET   Write the Fetch request for a place to stdout
      --max-bytes BYTES            How many bytes of batches it asks for [default: 1048576]
      --committed                  Ask for what is committed, and for which transactions were aborted
  absorb REQUEST RESPONSE ...      Keep what a broker answered: files, in pairs; `-` is stdin
      --size-limit BYTES           The most that the folder may hold; the oldest goes [default: 1073741824]
  record TOPIC PARTITION OFFSET    Print the record at an offset as a line of JSON, as `kachet fetch` does
  records TOPIC PARTITION OFFSET   Print the cached records from an offset on, a line each; those of transactions that were
                                   aborted are among them, because segments do not tell which transactions are complete
      --count COUNT                So many at most [default: 100]
  fetch [REQUEST]                  Answer a Fetch request from the folder: the response goes to stdout
  stat                             Print what the folder holds, as JSON
  clear                            Remove everything that is cached

Options:
  --folder FOLDER   A mount point; `absorb` makes one of an empty folder [default: /cache]
  -h, --help        Print this
  -V, --version     Print the version

TOPIC is a topic id, as `kafka-topics --describe` prints it. Requests and responses are what Kafka sends over a
connection without the four bytes of length in front, and what the gateway takes and gives at `POST /v1/fetch`:

  kachet-wasi request $ID 0 500 > q && curl --data-binary @q http://127.0.0.1:8080/v1/fetch > r && kachet-wasi absorb q r

Nothing here asks a broker: what is answered is what was absorbed, however long ago. One program at a time may change
the folder; a native Kachet that has it mounted is not noticed, so stop it first, or give a copy.

Ends with 0 if all went well, 1 if something failed, 2 if the arguments make no sense, 3 if it is not cached, 4 if it is
known that there is no such record.
";

const MAX_BYTES: i32 = 1 << 20;
const SIZE_LIMIT_BYTES: u64 = 1 << 30;
const COUNT: usize = 100;

/// What to do, and in which folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The mount point.
    pub folder: PathBuf,
    /// What to do.
    pub command: Command,
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition's index.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Write a request.
    Request {
        /// For which place.
        place: Place,
        /// How many bytes of batches it asks for.
        max_bytes: i32,
        /// Whether for committed data.
        committed: bool,
    },
    /// Keep what was answered.
    Absorb {
        /// Requests and their responses.
        pairs: Vec<(PathBuf, PathBuf)>,
        /// The most that the folder may hold, in bytes.
        size_limit_bytes: u64,
    },
    /// Print records.
    Records {
        /// From where on.
        place: Place,
        /// So many at most; `None` for the one that is exactly there.
        count: Option<usize>,
    },
    /// Answer a request.
    Fetch {
        /// Where it lies.
        request: PathBuf,
    },
    /// Print the figures.
    Stat,
    /// Remove what is cached.
    Clear,
}

/// Options as they came, before it is known whether the command has them.
#[derive(Debug, Default)]
struct Given {
    max_bytes: Option<i32>,
    size_limit_bytes: Option<u64>,
    count: Option<usize>,
    committed: Option<bool>,
}

impl Arguments {
    /// Reads the arguments behind the program's name.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        let mut parser = Parser::from_args(arguments);
        let mut folder = PathBuf::from("/cache");
        let mut given = Given::default();
        let mut words = Vec::new();
        let plain = |command| Self {
            folder: PathBuf::new(),
            command,
        };
        while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(plain(Command::Help)),
                Arg::Short('V') | Arg::Long("version") => return Ok(plain(Command::Version)),
                Arg::Long("folder") => folder = parser.value().map_err(|error| usage(&error))?.into(),
                Arg::Long("max-bytes") => given.max_bytes = Some(number(&mut parser)?),
                Arg::Long("size-limit") => given.size_limit_bytes = Some(number(&mut parser)?),
                Arg::Long("count") => given.count = Some(number(&mut parser)?),
                Arg::Long("committed") => given.committed = Some(true),
                Arg::Value(word) => words.push(word),
                other => return Err(usage(&other.unexpected())),
            }
        }
        let command = command(&words, &mut given)?;
        given.nothing_is_left()?;
        Ok(Self { folder, command })
    }
}

fn command(words: &[OsString], given: &mut Given) -> Result<Command, Error> {
    let Some((name, words)) = words.split_first() else {
        return Err(Error::Usage("there is no command".to_owned()));
    };
    match (name.to_str().unwrap_or_default(), words) {
        ("request", words) => Ok(Command::Request {
            place: place(words)?,
            max_bytes: at_least(0, given.max_bytes.take().unwrap_or(MAX_BYTES), "--max-bytes")?,
            committed: given.committed.take().unwrap_or_default(),
        }),
        ("absorb", words) => Ok(Command::Absorb {
            pairs: pairs(words)?,
            size_limit_bytes: at_least(
                1,
                given.size_limit_bytes.take().unwrap_or(SIZE_LIMIT_BYTES),
                "--size-limit",
            )?,
        }),
        (name @ ("record" | "records"), words) => Ok(Command::Records {
            place: place(words)?,
            count: match name {
                "record" => None,
                _ => Some(at_least(1, given.count.take().unwrap_or(COUNT), "--count")?),
            },
        }),
        ("fetch", []) => Ok(Command::Fetch { request: "-".into() }),
        ("fetch", [request]) => Ok(Command::Fetch {
            request: request.into(),
        }),
        ("stat", []) => Ok(Command::Stat),
        ("clear", []) => Ok(Command::Clear),
        ("fetch" | "stat" | "clear", _) => Err(Error::Usage(format!(
            "`{}` takes no such argument",
            name.display()
        ))),
        _ => Err(Error::Usage(format!("there is no command `{}`", name.display()))),
    }
}

impl Given {
    /// What no command took is a mistake.
    fn nothing_is_left(&self) -> Result<(), Error> {
        let left = [
            (self.max_bytes.is_some(), "--max-bytes"),
            (self.size_limit_bytes.is_some(), "--size-limit"),
            (self.count.is_some(), "--count"),
            (self.committed.is_some(), "--committed"),
        ];
        match left.into_iter().find(|(is_left, _)| *is_left) {
            Some((_, name)) => Err(Error::Usage(format!("the command does not have {name}"))),
            None => Ok(()),
        }
    }
}

fn place(words: &[OsString]) -> Result<Place, Error> {
    let [topic, partition, offset] = words else {
        return Err(Error::Usage("TOPIC, PARTITION and OFFSET are wanted".to_owned()));
    };
    let topic_id = topic.to_str().and_then(parse_topic_id);
    let topic_id = topic_id.filter(|id| !id.is_zero()).ok_or_else(|| {
        Error::Usage(format!(
            "`{}` is no topic id: 22 characters as Kafka prints them, or a UUID",
            topic.display()
        ))
    })?;
    Ok(Place {
        topic_id,
        partition: at_least(0, parsed(partition, "PARTITION")?, "PARTITION")?,
        offset: at_least(0, parsed(offset, "OFFSET")?, "OFFSET")?,
    })
}

fn pairs(words: &[OsString]) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let (pairs, rest) = words.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        let wanted = "files are wanted in pairs: a request and its response";
        return Err(Error::Usage(wanted.to_owned()));
    }
    if words.iter().filter(|word| *word == "-").count() > 1 {
        return Err(Error::Usage("stdin is one file only".to_owned()));
    }
    Ok(pairs
        .iter()
        .map(|[request, response]| (request.into(), response.into()))
        .collect())
}

fn parsed<T: std::str::FromStr>(word: &OsStr, name: &str) -> Result<T, Error> {
    let number = word.to_str().and_then(|word| word.parse().ok());
    number.ok_or_else(|| Error::Usage(format!("{name}: `{}` is no such number", word.display())))
}

fn at_least<T: Copy + PartialOrd + std::fmt::Display>(least: T, number: T, name: &str) -> Result<T, Error> {
    if number >= least {
        return Ok(number);
    }
    Err(Error::Usage(format!("{name}: {number} is less than {least}")))
}

fn number<T: std::str::FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>>(
    parser: &mut Parser,
) -> Result<T, Error> {
    let value = parser.value().and_then(|value| value.parse());
    value.map_err(|error| usage(&error))
}

fn usage(error: &lexopt::Error) -> Error {
    Error::Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Command, Error> {
        Arguments::parse(words.split_whitespace().map(OsString::from)).map(|arguments| arguments.command)
    }

    #[test]
    fn every_command_of_the_help_is_read() {
        let id = "ABEiM0RVZneImaq7zN3u_w";
        let place = Place {
            topic_id: parse_topic_id(id).unwrap(),
            partition: 3,
            offset: 500,
        };
        let cases = [
            (
                format!("request {id} 3 500 --max-bytes 7 --committed"),
                Command::Request {
                    place,
                    max_bytes: 7,
                    committed: true,
                },
            ),
            (
                "absorb --size-limit=9 a - c d".to_owned(),
                Command::Absorb {
                    pairs: vec![("a".into(), "-".into()), ("c".into(), "d".into())],
                    size_limit_bytes: 9,
                },
            ),
            (
                format!("record {id} 3 500"),
                Command::Records { place, count: None },
            ),
            (
                format!("records --count 2 {id} 3 500"),
                Command::Records {
                    place,
                    count: Some(2),
                },
            ),
            ("fetch".to_owned(), Command::Fetch { request: "-".into() }),
            ("fetch q".to_owned(), Command::Fetch { request: "q".into() }),
            ("stat".to_owned(), Command::Stat),
            ("clear".to_owned(), Command::Clear),
            ("record --help".to_owned(), Command::Help),
        ];
        for (words, expected) in cases {
            assert_eq!(parse(&words).unwrap(), expected, "{words}");
            let name = words.split_whitespace().next().unwrap();
            assert!(HELP.contains(&format!("\n  {name} ")), "{name} is in the help");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_name() {
        let id = "ABEiM0RVZneImaq7zN3u_w";
        for (words, named) in [
            (String::new(), "no command"),
            ("eat".to_owned(), "`eat`"),
            ("absorb a".to_owned(), "pairs"),
            ("absorb".to_owned(), "pairs"),
            ("absorb - -".to_owned(), "stdin"),
            ("absorb a b --size-limit 0".to_owned(), "--size-limit"),
            ("stat --committed".to_owned(), "--committed"),
            ("stat more".to_owned(), "`stat`"),
            ("record topic 0 0".to_owned(), "`topic`"),
            (format!("record {id} 0"), "OFFSET"),
            (format!("record {id} -- -1 0"), "PARTITION"),
            (format!("record {id} 0 x"), "`x`"),
            (format!("record {id} 0 0 --count 3"), "--count"),
            (format!("records {id} 0 0 --committed"), "--committed"),
            (format!("records {id} 0 0 --count 0"), "--count"),
            ("record AAAAAAAAAAAAAAAAAAAAAA 0 0".to_owned(), "topic id"),
            ("stat --fodler x".to_owned(), "--fodler"),
        ] {
            let error = parse(&words).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{words}: {error}");
            assert!(error.to_string().contains(named), "{words}: {error}");
        }
    }
}
