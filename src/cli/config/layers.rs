//! The environment and the file, turned into flags.
//!
//! Each setting becomes one argument (`--election-ms=500`) that the flags' own parser reads, so the three cannot
//! differ in what they understand, and an error names the variable or the key it came from. What it leaves out: what
//! the settings mean.

use super::{ConfigError, StartArgs};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command, FromArgMatches};
use std::ffi::OsString;
use std::path::Path;
use toml::{Table, Value};

const VARIABLE_PREFIX: &str = "MAINSTAY_";

/// Bytes of the largest configuration file that is read.
///
/// Chosen: a thousand times the longest sensible one; a mistaken path to something huge is found out at once.
const FILE_BYTES_MAX: u64 = 1_024 * 1_024;

/// The variable that stands for `flag`.
pub(super) fn variable_of(flag: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", flag.replace('-', "_").to_uppercase())
}

/// What the environment says. Variables that are no flag of ours are somebody else's, and ignored.
pub(super) fn from_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<StartArgs, ConfigError> {
    let flags = flags();
    let mut settings = StartArgs::default();
    for (variable, value) in variables {
        let Some(flag) = flags.iter().find(|flag| variable == *variable_of(flag)) else { continue };
        let value = value
            .into_string()
            .map_err(|_| ConfigError::new("config-value", format!("{} is not UTF-8", variable_of(flag))))?;
        let place = variable_of(flag);
        settings = one(&place, flag, &value)?.over(settings);
    }
    Ok(settings)
}

/// What the file says. Every key must be a flag's name, with `-` or `_`.
pub(super) fn from_file(path: &Path) -> Result<StartArgs, ConfigError> {
    let shown = path.display();
    let unreadable = |why: String| {
        let words = format!(
            "cannot read the configuration file {shown}: {why}; mend it, or name another with --config"
        );
        ConfigError::new("config-file", words)
    };
    let bytes_count = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if bytes_count > FILE_BYTES_MAX {
        return Err(unreadable(format!(
            "it has {bytes_count} bytes, and more than {FILE_BYTES_MAX} are not believed"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    from_text(&shown.to_string(), &text)
}

/// As `from_file`; `shown` is the file's name for people.
pub(super) fn from_text(shown: &str, text: &str) -> Result<StartArgs, ConfigError> {
    let table: Table = text
        .parse()
        .map_err(|error| ConfigError::new("config-file", format!("{shown} is not TOML: {error}")))?;
    let mut settings = StartArgs::default();
    for (key, value) in &table {
        let flag = key.replace('_', "-");
        if flag == "config" {
            let words = format!("{shown}: a configuration file cannot name another one; remove '{key}'");
            return Err(ConfigError::new("config-file", words));
        }
        let Some(written) = as_flag_value(value) else {
            let words =
                format!("{shown}: '{key}' is neither a text, a number, true or false, nor a list of them");
            return Err(ConfigError::new("config-value", words));
        };
        let said = one(&format!("{shown}: '{key}'"), &flag, &written)?;
        settings = said.over(settings);
    }
    Ok(settings)
}

/// How a flag would be given this value: lists with commas, tables (members by name) as `name=value`.
fn as_flag_value(value: &Value) -> Option<String> {
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(is_on) => Some(is_on.to_string()),
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    };
    match value {
        Value::Array(list) => Some(list.iter().map(plain).collect::<Option<Vec<_>>>()?.join(",")),
        Value::Table(table) => {
            let pairs = table.iter().map(|(name, value)| Some(format!("{name}={}", plain(value)?)));
            Some(pairs.collect::<Option<Vec<_>>>()?.join(","))
        }
        Value::String(_) | Value::Integer(_) | Value::Boolean(_) | Value::Float(_) | Value::Datetime(_) => {
            plain(value)
        }
    }
}

/// The setting `--flag=value`, read as the command line would read it.
fn one(place: &str, flag: &str, value: &str) -> Result<StartArgs, ConfigError> {
    let parsed = parser().try_get_matches_from(["mainstay".to_owned(), format!("--{flag}={value}")]);
    let settings = parsed.and_then(|matches| StartArgs::from_arg_matches(&matches));
    settings.map_err(|error| {
        if error.kind() == ErrorKind::UnknownArgument {
            let hint = match error.get(ContextKind::SuggestedArg) {
                Some(ContextValue::String(nearest)) => {
                    format!("the nearest that there is: {}", nearest.trim_start_matches('-'))
                }
                _ => format!("there are {}", flags().join(", ")),
            };
            return ConfigError::new("config-unknown-key", format!("{place} is no setting; {hint}"));
        }
        let words = error.to_string();
        let first = words.lines().next().unwrap_or("it was not understood");
        ConfigError::new("config-value", format!("{place}: {}", first.trim_start_matches("error: ")))
    })
}

fn parser() -> Command {
    StartArgs::augment_args(Command::new("mainstay")).disable_help_flag(true)
}

/// The names of all flags.
fn flags() -> Vec<String> {
    parser().get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
}

impl StartArgs {
    /// What is said here, and otherwise what `lower` says.
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            name: self.name.or(lower.name),
            data: self.data.or(lower.data),
            listen_client: self.listen_client.or(lower.listen_client),
            listen_native: self.listen_native.or(lower.listen_native),
            listen_peer: self.listen_peer.or(lower.listen_peer),
            initial_cluster: self.initial_cluster.or(lower.initial_cluster),
            initial_cluster_state: self.initial_cluster_state.or(lower.initial_cluster_state),
            initial_cluster_token: self.initial_cluster_token.or(lower.initial_cluster_token),
            advertise_client: self.advertise_client.or(lower.advertise_client),
            advertise_native: self.advertise_native.or(lower.advertise_native),
            advertise_peer: self.advertise_peer.or(lower.advertise_peer),
            election_ms: self.election_ms.or(lower.election_ms),
            heartbeat_ms: self.heartbeat_ms.or(lower.heartbeat_ms),
            quota_bytes: self.quota_bytes.or(lower.quota_bytes),
            snapshot_entries: self.snapshot_entries.or(lower.snapshot_entries),
            read_mode: self.read_mode.or(lower.read_mode),
            shards: self.shards.or(lower.shards),
            front_threads: self.front_threads.or(lower.front_threads),
            cpus: self.cpus.or(lower.cpus),
            insecure: self.insecure.or(lower.insecure),
            config: self.config.or(lower.config),
            log_format: self.log_format.or(lower.log_format),
        }
    }
}
