//! Which process this is: `serve`, `keeper`, `nursery`, `zygote`, `egress`, `files`, `shell`, `fetcher`, `settings`, `facts`,
//! `audit`, `attack`, `probe`.
//!
//! Each role is one call into the module that owns it. Only `serve`, `fetcher`, `settings`, `facts` and `audit` are started
//! by people or by main.

use std::process::ExitCode;

use crate::{audit, egress, facts, fetcher, files, shell, supervise, sys, wall};

/// Status for a role that does not exist: wrong usage.
const USAGE: u8 = 2;

/// Runs the role named by the first argument.
#[must_use]
pub fn run() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next().unwrap_or_default();
    // None of our roles depends on what a parent ignores.
    let _ = sys::keep_ended_children();
    match role.to_str() {
        Some("serve") => supervise::serve_role(arguments),
        Some("settings") => supervise::settings_role(arguments),
        Some("facts") => facts::role(),
        Some("fetcher") => fetcher::role(arguments),
        Some("audit") => audit::role(arguments),
        Some("files") => files::role(),
        Some("shell") => shell::role(),
        Some("keeper") => wall::keeper_role(arguments),
        Some("nursery") => wall::nursery_role(arguments),
        Some("zygote") => wall::zygote_role(),
        Some("egress") => egress::role(),
        Some("attack") => {
            let rest: Vec<String> =
                arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
            wall::attack::attack_role(&rest)
        }
        // The payload of a zygote's first call: that it could be started is what is asked, and whether we are told of a
        // call that the filter refuses.
        Some("probe") => {
            let _ = sys::probe(sys::Probe::SecondListener);
            ExitCode::SUCCESS
        }
        Some(_) | None => ExitCode::from(USAGE),
    }
}
