//! What every command that speaks to a cluster is told: where, how long, and how to print.
//!
//! Always: a flag beats the environment, the environment beats the default; an address that cannot be one is
//! refused before anything is sent. Left out: what each command asks.

use super::output::Format;
use crate::client::{Client, ClientOptions};
use clap::Args;
use std::time::Duration;

/// Where a member on this machine listens unless told otherwise.
const ENDPOINT_DEFAULT: &str = "127.0.0.1:2378";

const ENDPOINTS_VARIABLE: &str = "MAINSTAY_ENDPOINTS";

/// The flags that put, get, del, txn and status have in common.
#[derive(Args, Clone, Debug)]
pub(super) struct ClientArgs {
    /// Native addresses of some members, separated by commas; also by the environment, `MAINSTAY_ENDPOINTS`
    /// [default: 127.0.0.1:2378]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = parse_endpoint)]
    endpoints: Vec<String>,

    /// Give up after this time, such as 500ms, 5s or 1m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,

    /// How to print the answer [default: simple; status: table]
    #[arg(short = 'w', long, value_name = "FORMAT", value_enum)]
    write_out: Option<Format>,

    /// Short for `-w json`: one JSON object on stdout and nothing else
    #[arg(long, conflicts_with = "write_out")]
    json: bool,
}

impl ClientArgs {
    pub(super) fn format_or(&self, default: Format) -> Format {
        if self.json { Format::Json } else { self.write_out.unwrap_or(default) }
    }

    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The endpoints, wherever they were named.
    ///
    /// # Errors
    /// The environment names something that is no address.
    pub(super) fn endpoints(&self) -> Result<Vec<String>, String> {
        if !self.endpoints.is_empty() {
            return Ok(self.endpoints.clone());
        }
        let named = std::env::var(ENDPOINTS_VARIABLE).unwrap_or_default();
        let named: Vec<&str> = named.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        if named.is_empty() {
            return Ok(vec![ENDPOINT_DEFAULT.to_owned()]);
        }
        let parsed = named.into_iter().map(parse_endpoint).collect::<Result<Vec<String>, String>>();
        parsed.map_err(|fault| format!("{ENDPOINTS_VARIABLE}: {fault}"))
    }

    /// A client as the flags say.
    ///
    /// # Errors
    /// As `endpoints`.
    pub(super) fn client(&self) -> Result<Client, String> {
        self.options().map(Client::new)
    }

    /// What a client is to be told.
    ///
    /// # Errors
    /// As `endpoints`.
    pub(super) fn options(&self) -> Result<ClientOptions, String> {
        let options = ClientOptions::of(&self.endpoints()?);
        Ok(ClientOptions { timeout: self.timeout, ..options })
    }
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains("://") {
        return Err(format!("{text:?}: name it host:port, without a scheme"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("{text:?} is not host:port, such as {ENDPOINT_DEFAULT}")),
    }
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is not a time above zero, such as 500ms, 5s or 1m");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let millis_each = match text.get(digits.len()..) {
        Some("ms") => 1,
        Some("s") => 1_000,
        Some("m") => 60_000,
        _ => return Err(fault()),
    };
    let count: u64 = digits.parse().map_err(|_| fault())?;
    let millis = count.checked_mul(millis_each).filter(|millis| (1..=86_400_000).contains(millis));
    millis.map(Duration::from_millis).ok_or_else(fault)
}

#[cfg(test)]
mod tests {
    use super::{parse_duration, parse_endpoint};
    use std::time::Duration;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for good in ["127.0.0.1:2378", "n1.example:1", "[::1]:2378"] {
            assert_eq!(parse_endpoint(good).as_deref(), Ok(good));
        }
        for bad in ["", "127.0.0.1", ":2378", "a:0", "a:99999", "http://a:1"] {
            assert!(parse_endpoint(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_has_a_unit_and_is_not_zero() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "5", "s", "0s", "1h", "-1s", "99999999999999999999s", "9999m"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }
}
