//! `mainstay config check`: what a member would be told, or why it would not start.
//!
//! Takes what `start` takes and prints the configuration in effect, with every default in it, as a file that
//! `--config` reads, or as JSON. Exit code 0 if `start` would accept it, 2 if not. What it leaves out: trying it.

use super::{ConfigError, StartArgs, resolve};
use crate::server::{LogFormat, ServerConfig};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;

/// The arguments of `mainstay config`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the configuration that `start` would use, or what is wrong with it
    Check(Box<CheckArgs>),
}

#[derive(Args, Debug)]
struct CheckArgs {
    #[command(flatten)]
    start: StartArgs,

    /// Print it as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs what was asked for.
pub(in crate::cli) fn run(arguments: ConfigArgs) -> ExitCode {
    let ConfigCommand::Check(check) = arguments.command;
    match resolve(check.start) {
        Ok(config) if check.json => println!("{}", as_json(&config)),
        Ok(config) => print!("{}", as_toml(&config)),
        Err(error) => return refused(&error, check.json),
    }
    ExitCode::SUCCESS
}

fn refused(error: &ConfigError, is_json: bool) -> ExitCode {
    if is_json {
        println!("{}", json!({ "error": { "code": error.code, "words": error.words } }));
    } else {
        eprintln!("error: {error}");
    }
    ExitCode::from(2)
}

fn as_json(config: &ServerConfig) -> Value {
    let members = config.initial_cluster.iter();
    let members: Vec<Value> =
        members.map(|member| json!({ "name": member.name, "peer": member.peer.to_string() })).collect();
    json!({
        "name": config.name,
        "data": config.data.display().to_string(),
        "listen_client": config.listen_client.to_string(),
        "listen_native": config.listen_native.to_string(),
        "listen_peer": config.listen_peer.to_string(),
        "advertise_client": config.advertise_client,
        "advertise_native": config.advertise_native,
        "advertise_peer": config.advertise_peer,
        "initial_cluster": members,
        "initial_cluster_token": config.initial_cluster_token,
        "election_ms": config.election_ms,
        "heartbeat_ms": config.heartbeat_ms,
        "read_mode": read_mode(config),
        "quota_bytes": config.quota_bytes,
        "snapshot_entries": config.snapshot_entries,
        "shards": config.shards,
        "cpus": config.cpus,
        "log_format": format_name(config.log_format),
        "insecure": is_beyond_loopback(config),
    })
}

/// The same as a configuration file.
fn as_toml(config: &ServerConfig) -> String {
    let mut lines = String::new();
    let mut line = |key: &str, value: toml::Value| {
        lines.extend([key, " = ", &value.to_string(), "\n"]);
    };
    let text = |text: String| toml::Value::String(text);
    let number = |number: u64| toml::Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    line("name", text(config.name.clone()));
    line("data", text(config.data.display().to_string()));
    line("listen-client", text(config.listen_client.to_string()));
    line("listen-native", text(config.listen_native.to_string()));
    line("listen-peer", text(config.listen_peer.to_string()));
    let advertised = [
        ("advertise-client", &config.advertise_client),
        ("advertise-native", &config.advertise_native),
        ("advertise-peer", &config.advertise_peer),
    ];
    for (key, address) in advertised {
        if let Some(address) = address {
            line(key, text(address.clone()));
        }
    }
    let members = config.initial_cluster.iter().map(|member| format!("{}={}", member.name, member.peer));
    line("initial-cluster", text(members.collect::<Vec<_>>().join(",")));
    line("initial-cluster-token", text(config.initial_cluster_token.clone()));
    line("election-ms", number(config.election_ms));
    line("heartbeat-ms", number(config.heartbeat_ms));
    line("read-mode", text(read_mode(config).to_owned()));
    line("quota-bytes", number(config.quota_bytes));
    line("snapshot-entries", number(config.snapshot_entries));
    line("shards", number(config.shards.into()));
    if !config.cpus.is_empty() {
        line("cpus", toml::Value::Array(config.cpus.iter().map(|cpu| number((*cpu).into())).collect()));
    }
    line("log-format", text(format_name(config.log_format).to_owned()));
    line("insecure", toml::Value::Boolean(is_beyond_loopback(config)));
    lines
}

const fn read_mode(config: &ServerConfig) -> &'static str {
    if config.reads_by_quorum { "quorum" } else { "lease" }
}

fn format_name(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

/// Whether this configuration needed `--insecure`.
fn is_beyond_loopback(config: &ServerConfig) -> bool {
    [config.listen_client, config.listen_native, config.listen_peer]
        .iter()
        .any(|address| !super::is_loopback(address.ip()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::resolved;
    use super::{as_json, as_toml};
    use crate::cli::config::{StartArgs, layers, resolve_with};

    #[test]
    fn what_check_prints_is_a_file_that_says_the_same() {
        let words = "--name a --data /d --listen-native 0.0.0.0:1 --advertise-native h:1 --insecure --cpus 0,1 \
             --initial-cluster a=127.0.0.1:2380,b=127.0.0.1:3380 --initial-cluster-token \"t --log-format json";
        let config = resolved(words).expect("it is sound");
        let file = layers::from_text("f", &as_toml(&config)).expect("it is read");
        let again = resolve_with(StartArgs::default().over(file), std::iter::empty()).expect("it is sound");
        assert_eq!(again, config);
        assert_eq!(as_json(&config)["insecure"], true);
    }
}
