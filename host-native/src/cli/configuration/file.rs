//! The file: TOML without tables, a key for each option.

use core::any::TypeId;
use core::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::key;

/// A file of settings is shorter.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// Keys that are less alike than this are not taken for each other.
const LIKENESS_MIN: f64 = 0.8;

/// A setting that stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// Clap's id of the option.
    pub(super) id: String,
    long: String,
    values: Vec<String>,
    /// From 1 on.
    pub(super) line: usize,
}

impl Given {
    /// As it would be given on the command line.
    pub(super) fn arguments(&self) -> Vec<String> {
        let argument = |value: &String| format!("--{}={value}", self.long);
        self.values.iter().map(argument).collect()
    }
}

/// Why a file cannot be used, and where in it.
#[derive(Debug)]
pub(crate) struct FileError {
    path: PathBuf,
    /// Line and column, from 1 on.
    at: Option<(usize, usize)>,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    Read(io::Error),
    Toml(String),
    /// With the key that is most like it, if one is.
    UnknownKey {
        key: String,
        nearest: Option<String>,
    },
    WrongType {
        key: String,
        takes: &'static str,
        given: &'static str,
    },
    Value {
        key: String,
        value: String,
        reason: String,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.at {
            Some((line, column)) => write!(f, "{path}, line {line}, column {column}: ")?,
            None => write!(f, "{path}: ")?,
        }
        match &self.reason {
            Reason::Read(error) => write!(f, "the settings cannot be read: {error}"),
            Reason::Toml(message) => write!(f, "this is not TOML: {message}"),
            Reason::UnknownKey {
                key,
                nearest: Some(nearest),
            } => {
                write!(f, "there is no setting '{key}'; did you mean '{nearest}'?")
            }
            Reason::UnknownKey { key, nearest: None } => write!(
                f,
                "there is no setting '{key}'; 'kachet proxy --help' lists them, in a file with _ in place of -"
            ),
            Reason::WrongType { key, takes, given } => write!(f, "{key} takes {takes}, not {given}"),
            Reason::Value { key, value, reason } => write!(f, "{key} cannot be '{value}': {reason}"),
        }
    }
}

/// Reads a file, and checks each value by itself.
pub(super) fn read(path: &Path, keys: &[Arg]) -> Result<Vec<Given>, FileError> {
    let error = |at, reason| FileError {
        path: path.to_owned(),
        at,
        reason,
    };
    let text = text(path).map_err(|failure| error(None, Reason::Read(failure)))?;
    parse(&text, keys).map_err(|(at_byte, reason)| error(at_byte.map(|at| place(&text, at)), reason))
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(FILE_LIMIT_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > FILE_LIMIT_BYTES {
        return Err(io::Error::other("it is too large for a file of settings"));
    }
    Ok(text)
}

/// Line and column of a byte, from 1 on.
fn place(text: &str, at_byte: usize) -> (usize, usize) {
    let before = text.get(..at_byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

type Wrong = (Option<usize>, Reason);

fn parse(text: &str, keys: &[Arg]) -> Result<Vec<Given>, Wrong> {
    let table = DeTable::parse(text).map_err(|error| {
        let message = error.message().replace('\n', ", ");
        (error.span().map(|span| span.start), Reason::Toml(message))
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    // What is wrong first is told first.
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut all = Vec::with_capacity(entries.len());
    for (name, given) in entries {
        let at = name.span().start;
        let arg = keys.iter().find(|arg| key(arg) == **name.get_ref());
        let arg = arg.ok_or_else(|| (Some(at), unknown(name.get_ref(), keys)))?;
        let at_value = Some(given.span().start);
        let values = values(arg, given.get_ref()).map_err(|reason| (at_value, reason))?;
        check(arg, &values).map_err(|reason| (at_value, reason))?;
        all.push(Given {
            id: arg.get_id().as_str().to_owned(),
            long: arg.get_long().unwrap_or_default().to_owned(),
            values,
            line: place(text, at).0,
        });
    }
    Ok(all)
}

fn unknown(name: &str, keys: &[Arg]) -> Reason {
    let plain = name.to_lowercase().replace('-', "_");
    let likeness = |key: &String| strsim::jaro_winkler(&plain, key);
    let nearest = keys
        .iter()
        .map(key)
        .filter(|key| likeness(key) >= LIKENESS_MIN)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Reason::UnknownKey {
        key: name.escape_debug().to_string(),
        nearest,
    }
}

fn is_bool(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<bool>()
}

/// The values of an option, as words.
fn values(arg: &Arg, given: &DeValue<'_>) -> Result<Vec<String>, Reason> {
    let takes_several = arg.get_value_delimiter().is_some();
    let wrong = |given: &DeValue<'_>| Reason::WrongType {
        key: key(arg),
        takes: match (is_bool(arg), takes_several) {
            (true, _) => "true or false",
            (_, true) => "a string, or an array of strings",
            (_, false) => "a string or an integer",
        },
        given: given.type_str(),
    };
    match given {
        DeValue::Boolean(value) if is_bool(arg) => Ok(vec![value.to_string()]),
        _ if is_bool(arg) => Err(wrong(given)),
        DeValue::String(value) => Ok(vec![value.to_string()]),
        DeValue::Integer(value) if value.radix() == 10 => Ok(vec![value.as_str().to_owned()]),
        DeValue::Array(elements) if takes_several => {
            let element = |element: &toml::Spanned<DeValue<'_>>| match element.get_ref() {
                DeValue::String(value) => Ok(value.to_string()),
                other => Err(wrong(other)),
            };
            elements.iter().map(element).collect()
        }
        other => Err(wrong(other)),
    }
}

/// Has the option's own parser read each value, without the others that it may need.
fn check(arg: &Arg, values: &[String]) -> Result<(), Reason> {
    let long = arg.get_long().unwrap_or_default().to_owned();
    let alone = Arg::new(long.clone())
        .long(long.clone())
        .value_parser(arg.get_value_parser().clone())
        .value_delimiter(arg.get_value_delimiter())
        .ignore_case(arg.is_ignore_case_set())
        .require_equals(true);
    let alone = Command::new("kachet").no_binary_name(true).arg(alone);
    for value in values {
        let parsed = alone.clone().try_get_matches_from([format!("--{long}={value}")]);
        parsed.map_err(|error| Reason::Value {
            key: key(arg),
            value: value.escape_debug().to_string(),
            reason: reason(&error),
        })?;
    }
    Ok(())
}

/// What is wrong with a value, in one line and without the option's name.
fn reason(error: &clap::Error) -> String {
    if let Some(source) = std::error::Error::source(error) {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) if !words.is_empty() => format!("it takes {}", words.join(", ")),
        _ => "it takes a value".to_owned(),
    }
}

/// A value as it would stand in a file.
pub(super) fn value(arg: &Arg, values: &[String]) -> Value {
    let is_number = |of: &TypeId| arg.get_value_parser().type_id() == *of;
    let numbers = [TypeId::of::<i32>(), TypeId::of::<usize>(), TypeId::of::<u64>()];
    match values {
        _ if arg.get_value_delimiter().is_some() => values.to_vec().into(),
        [value] if is_bool(arg) => matches!(value.as_str(), "true" | "yes" | "on" | "1" | "y" | "t").into(),
        [value] if numbers.iter().any(is_number) => value
            .parse::<i64>()
            .map_or_else(|_| value.as_str().into(), Value::from),
        [value] => value.as_str().into(),
        several => several.to_vec().into(),
    }
}
