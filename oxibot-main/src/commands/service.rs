//! Whether a command speaks to the machine's service, and where that keeps its things.
//!
//! A service is recognised by the socket that its administrators use. Whoever names a home or a configuration means those.

use std::path::{Path, PathBuf};

use crate::cli::{Command, Global};
use crate::render::terminal;

/// Where main connects.
const CALLS: &str = "/run/oxibot/toolhost.sock";
/// Where administrators stop, look and approve.
const CONTROL: &str = "/run/oxibot/control.sock";
/// Main's home, and its configuration.
const HOME: &str = "/var/lib/oxibot";
const CONFIGURATION: &str = "/etc/oxibot/config.json";
/// The toolhost's home, with its audit log.
const TOOLS_HOME: &str = "/var/lib/oxibot-tools";

/// The command line as it is meant where a service runs. Says so on standard error.
pub(super) fn chosen(global: &Global, command: &Command) -> Global {
    let mut chosen = global.clone();
    if global.toolhost.is_some() || !applies(global, command, Path::new(CONTROL)) {
        return chosen;
    }
    terminal::note("(speaking to the service of this machine; --embedded is for a toolhost of your own)");
    chosen.toolhost = Some(CALLS.into());
    chosen.config = Some(CONFIGURATION.into());
    let audit = matches!(command, Command::Audit(_));
    chosen.home = Some(if audit { TOOLS_HOME.into() } else { HOME.into() });
    chosen
}

fn applies(global: &Global, command: &Command, control: &Path) -> bool {
    let spoken = match command {
        // The attacks run in a toolhost that is made to be attacked.
        Command::Doctor(args) => !args.attack,
        Command::Sandbox(_)
        | Command::Tool(_)
        | Command::Audit(_)
        | Command::Approvals(_)
        | Command::Stop(_)
        | Command::Status(_) => true,
        Command::Demo(_)
        | Command::Agent(_)
        | Command::Gateway
        | Command::Config(_)
        | Command::Onboard(_)
        | Command::Usage(_)
        | Command::Sessions(_)
        | Command::Completions(_) => false,
    };
    let named = global.home.is_some() || global.config.is_some() || std::env::var_os("OXIBOT_HOME").is_some();
    // Whoever waives the wall means a toolhost of their own.
    spoken && !named && !global.embedded && global.no_sandbox == 0 && control.symlink_metadata().is_ok()
}

/// The socket for administrators, when the service is spoken to.
pub(super) fn control(global: &Global) -> Option<PathBuf> {
    let calls = global.toolhost.as_deref()?;
    Some(calls.with_file_name("control.sock"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn service_is_meant_unless_something_else_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("control.sock");
        let meant = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            applies(&cli.global, &cli.command, &control)
        };
        assert!(!meant("oxibot stop"), "there is no service");
        std::fs::write(&control, "").unwrap();
        for line in
            ["oxibot stop", "oxibot tool list", "oxibot doctor", "oxibot audit verify", "oxibot status"]
        {
            assert!(meant(line), "{line}");
        }
        for line in [
            "oxibot --home /h stop",
            "oxibot --config /c tool list",
            "oxibot --embedded doctor",
            "oxibot --no-sandbox tool list",
            "oxibot doctor --attack",
            "oxibot agent",
            "oxibot gateway",
        ] {
            assert!(!meant(line), "{line}");
        }
    }
}
