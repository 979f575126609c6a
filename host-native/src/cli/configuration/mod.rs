//! Settings of `kachet proxy` from three places: options count before the environment, and that before the file.
//!
//! There is one list of settings, that of clap. A variable of the environment is an option's name in capitals behind
//! `KACHET_`, a key of the file is the name with `_` in place of `-`, and their values are read by the option's own parser.
//! What the file says is put behind the arguments as if it had been given there, as far as nothing else says it, so that
//! which settings go together is checked for all alike.

mod file;

use core::fmt;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

pub(super) use self::file::FileError;
use self::file::Given;

/// The subcommand that is configured so.
const SUBCOMMAND: &str = "proxy";
/// Options that are no settings, or whose place is not in a file.
const NO_KEYS: [&str; 6] = ["config", "check", "json", "probe", "help", "version"];
/// Of these, what no variable stands for either.
const NO_VARIABLES: [&str; 5] = ["check", "json", "probe", "help", "version"];

/// Who has said what a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody.
    Default,
    Option(String),
    Variable(String),
    File {
        path: PathBuf,
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("by default"),
            Self::Option(option) => write!(f, "by {option}"),
            Self::Variable(name) => write!(f, "by {name} of the environment"),
            Self::File { path, line } => write!(f, "by {}, line {line}", path.display()),
        }
    }
}

/// A setting as it came to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    /// As in a file.
    pub(crate) key: String,
    /// As in a file, too: JSON's strings, numbers, booleans and arrays of strings are TOML's.
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// All settings that have a value, in the order of `--help`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(Vec<Setting>);

impl Origins {
    pub(crate) fn settings(&self) -> &[Setting] {
        &self.0
    }

    /// In words, who has said what a setting is.
    pub(crate) fn of(&self, key: &str) -> String {
        let setting = self.0.iter().find(|setting| setting.key == key);
        let origin = setting.map_or(&Origin::Default, |setting| &setting.origin);
        format!("{key} {origin}")
    }
}

/// Why there are no arguments.
#[derive(Debug)]
pub(super) enum Unread {
    /// The arguments or the environment are wrong, or help was asked for.
    Arguments {
        error: clap::Error,
        /// What may have to do with it, for a person.
        note: Option<String>,
    },
    File(FileError),
}

impl Unread {
    fn of_arguments(error: clap::Error) -> Self {
        Self::Arguments { error, note: None }
    }
}

/// Reads the arguments of the process with all that counts as such.
pub(super) fn read(command: Command, arguments: Vec<OsString>) -> Result<(ArgMatches, Origins), Unread> {
    let command = with_variables(command);
    let file = read_file(&command, &arguments)?;
    let Some((path, given)) = file else {
        let matches = command.clone().try_get_matches_from(&arguments);
        let matches = matches.map_err(|error| explained(error, &command, None))?;
        let origins = Origins(settings(&command, &matches, None));
        return Ok((matches, origins));
    };
    let mut all = arguments;
    all.extend(given.iter().flat_map(Given::arguments).map(OsString::from));
    let matches = command.clone().try_get_matches_from(&all);
    let matches = matches.map_err(|error| explained(error, &command, Some(&path)))?;
    let origins = Origins(settings(&command, &matches, Some((&path, &given))));
    Ok((matches, origins))
}

fn with_variables(command: Command) -> Command {
    command.mut_subcommand(SUBCOMMAND, |command| {
        command.mut_args(|arg| match arg.get_long() {
            Some(long) if !NO_VARIABLES.contains(&long) => {
                let name = format!("KACHET_{}", long.replace('-', "_").to_uppercase());
                arg.env(name)
            }
            _ => arg,
        })
    })
}

/// What the file says that nothing else does, if there is one.
fn read_file(command: &Command, arguments: &[OsString]) -> Result<Option<(PathBuf, Vec<Given>)>, Unread> {
    // Whatever is wrong or missing without the file: with it, it is looked at again.
    let leniently = command.clone().ignore_errors(true);
    let matches = leniently
        .try_get_matches_from(arguments)
        .map_err(Unread::of_arguments)?;
    let Some(matches) = matches.subcommand_matches(SUBCOMMAND) else {
        return Ok(None);
    };
    let Some(path) = matches.try_get_one::<PathBuf>("config").ok().flatten() else {
        return Ok(None);
    };
    let mut given = file::read(path, &keys(command)).map_err(Unread::File)?;
    given.retain(|given| {
        let source = matches.value_source(&given.id);
        !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    });
    Ok(Some((path.clone(), given)))
}

/// The options that may stand in a file.
fn keys(command: &Command) -> Vec<Arg> {
    let of_subcommand = command.find_subcommand(SUBCOMMAND).into_iter();
    let of_subcommand = of_subcommand.flat_map(Command::get_arguments);
    let is_key = |arg: &&Arg| arg.get_long().is_some_and(|long| !NO_KEYS.contains(&long));
    // The level of the log is an option of every subcommand.
    let global = command.get_arguments().filter(|arg| arg.is_global_set());
    of_subcommand.chain(global).filter(is_key).cloned().collect()
}

/// As in a file.
fn key(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().replace('-', "_")
}

fn settings(command: &Command, matches: &ArgMatches, file: Option<(&Path, &[Given])>) -> Vec<Setting> {
    let Some(matches) = matches.subcommand_matches(SUBCOMMAND) else {
        return Vec::new();
    };
    let setting = |arg: &Arg| {
        let id = arg.get_id().as_str();
        let raw = matches.try_get_raw(id).ok().flatten()?;
        let values: Vec<String> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
        let in_file = file.and_then(|(path, given)| {
            let given = given.iter().find(|given| given.id == id)?;
            Some(Origin::File {
                path: path.to_owned(),
                line: given.line,
            })
        });
        let origin = in_file.unwrap_or_else(|| match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Option(format!("--{}", arg.get_long().unwrap_or(id))),
            Some(ValueSource::EnvVariable) => Origin::Variable(variable(arg)),
            _ => Origin::Default,
        });
        Some(Setting {
            key: key(arg),
            value: file::value(arg, &values),
            origin,
        })
    };
    keys(command).iter().filter_map(setting).collect()
}

fn variable(arg: &Arg) -> String {
    let name = arg.get_env().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Says what clap does not: where a value comes from that was not given as an option.
fn explained(error: clap::Error, command: &Command, file: Option<&Path>) -> Unread {
    let is_of_value = matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue);
    let about = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) if is_of_value => arg.split(['=', ' ', '[']).next(),
        _ => None,
    };
    let arg = keys(command)
        .into_iter()
        .find(|arg| about.and_then(|about| about.strip_prefix("--")) == arg.get_long());
    // Values of the file were looked at before, and those of options can be seen.
    let given = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => Some(value),
        _ => None,
    };
    let by_variable = arg.map(|arg| variable(&arg)).filter(|name| {
        let value = std::env::var_os(name);
        value.is_some_and(|value| given.is_some_and(|given| value.to_string_lossy().contains(given.as_str())))
    });
    let note = match (by_variable, file) {
        (Some(name), _) => Some(format!("the value is that of {name} in the environment")),
        (None, Some(path)) if !is_of_value => Some(format!(
            "the settings of {} count as if they were given here",
            path.display()
        )),
        _ => None,
    };
    let wants_help = !error.use_stderr();
    Unread::Arguments {
        error,
        note: note.filter(|_| !wants_help),
    }
}

#[cfg(test)]
mod tests;
