//! The operator's log: standard error or a file, text or JSON.
//!
//! Ids, sizes and outcomes only; never what people or models wrote. Libraries say what they like at `RUST_LOG=trace`:
//! secrets are taken out of every line. Started once the configuration is known, and before
//! main confines itself, because the file lies where main may not write later.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::Global;
use crate::commands::Fault;
use crate::config::{LogFormat, LogLevel, Logging};
use crate::exit::Exit;
use crate::redaction::Redacted;

/// Names our lines are logged under, for `RUST_LOG`.
const TARGETS: [&str; 4] = ["oxibot_main", "oxibot_agent", "oxibot_broker", "oxibot_channels"];

/// Starts the log. A second call changes nothing.
///
/// # Errors
/// When the file cannot be opened or `RUST_LOG` cannot be understood.
pub fn start(global: &Global, logging: &Logging) -> Result<(), Fault> {
    let filter = filter(global, logging)?;
    let file = global.log_file.clone().or_else(|| logging.file.as_deref().map(PathBuf::from));
    match file {
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&path)
                .map_err(|error| unopenable(&path, &error))?;
            install(filter, logging.format, Mutex::new(Redacted(file)));
        }
        None => install(filter, logging.format, || Redacted(io::stderr())),
    }
    Ok(())
}

fn filter(global: &Global, logging: &Logging) -> Result<Targets, Fault> {
    if let Some(said) = std::env::var_os("RUST_LOG") {
        let said = said.to_string_lossy();
        return said.parse().map_err(|error| {
            Fault::new(Exit::Usage, "usage", format!("cannot understand RUST_LOG={said}: {error}"))
                .with_hint("write for example RUST_LOG=debug or RUST_LOG=oxibot_main=trace")
        });
    }
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => match logging.level {
            LogLevel::Off => "off",
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        },
        (false, 1) => "info",
        (false, 2..) => "debug",
    };
    // Libraries log what they send; that is for RUST_LOG only.
    let directives = if level == "off" {
        "off".to_owned()
    } else {
        TARGETS.iter().fold("error".to_owned(), |all, target| format!("{all},{target}={level}"))
    };
    directives
        .parse()
        .map_err(|error| Fault::new(Exit::Internal, "log", format!("cannot set up the log: {error}")))
}

/// Levels by module, and no more: what else `EnvFilter` understands costs a quarter of a megabyte of code in each process.
fn install<W>(filter: Targets, format: LogFormat, writer: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match format {
        LogFormat::Text => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    // An error means that a log runs already: then that one goes on.
    let _already = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

fn unopenable(path: &Path, error: &io::Error) -> Fault {
    Fault::new(Exit::Configuration, "log", format!("cannot open the log {}: {error}", path.display()))
        .with_hint("give --log-file a file you may write to, or correct logging.file")
}
