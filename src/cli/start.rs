//! `mainstay start`: one member, until it is told to stop.
//!
//! The same command line starts it the first time and every time after. Standard output carries one line, `ready …`,
//! once the member serves; everything else is a log line on standard error.

use super::config::{StartArgs, resolve};
use crate::server::{LogFormat, ServerConfig, Stop};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs `start`.
pub(super) fn run(arguments: StartArgs) -> ExitCode {
    match resolve(arguments) {
        Ok(config) => serve(&config),
        Err(error) => {
            eprintln!("mainstay start: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a member in this process until SIGTERM or SIGINT.
pub(super) fn serve(config: &ServerConfig) -> ExitCode {
    start_log(config.log_format);
    let stop = Arc::new(Stop::default());
    let served = listen_for_signals(&stop)
        .map_err(|error| format!("signals cannot be caught: {error}"))
        .and_then(|()| crate::server::run(config, &stop).map_err(|error| error.to_string()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(format: LogFormat) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn listen_for_signals(stop: &Arc<Stop>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let stop = Arc::clone(stop);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            stop.stop();
        }
    })?;
    Ok(())
}
