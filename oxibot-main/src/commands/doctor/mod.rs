//! `doctor`: what is in order, what is not, what follows from it and what to do.
//!
//! Looks, and changes nothing. Only a check that failed gives exit status 1; a key or model that is not set yet is
//! information.

mod attack;
mod prometheus;
mod report;
mod text;

use std::os::unix::fs::PermissionsExt;

use oxibot_proto::message::{Level, ProtectionState, Proven, ToolhostHello};

use crate::cli::{DoctorArgs, Global, ReportFormat};
use crate::config::{Environment, Loaded, Paths};
use crate::confine::{Network, Plan, confine};
use crate::exit::Exit;
use crate::launch::find_toolhost;
use crate::render::neutral;
use crate::render::report::to_line;

use super::fault::load_quietly;
use super::oneshot;
use super::sandbox::state_name;
use report::{Check, Report};

/// Looks and prints.
pub(super) fn run(global: &Global, args: &DoctorArgs) -> Exit {
    let format = args.format();
    let attacks = match if args.attack { attack::run() } else { Ok(Vec::new()) } {
        Ok(attacks) => attacks,
        Err(fault) => return fault.report(format == ReportFormat::Json),
    };
    let mut checks = vec![kernel(), programs()];
    // The toolhost comes before the configuration, as in every command.
    let started = oneshot::start_for_doctor(global);
    let (greeted, toolhost) = match started {
        Ok((greeted, toolhost)) => (Some(greeted), Some(toolhost)),
        Err(fault) => {
            checks.push(Check::fail(
                "toolhost",
                fault.message,
                "no tool can run",
                if fault.hint.is_empty() { "see the lines on standard error" } else { &fault.hint },
            ));
            (None, None)
        }
    };
    checks.extend(places(global));
    let loaded = load_quietly(global);
    checks.extend(configuration(&loaded));
    let level = greeted.as_ref().map(|greeted| greeted.hello.wall.level);
    if let Some(greeted) = &greeted {
        checks.extend(wall(&greeted.hello));
    }
    drop(greeted);
    let finished = toolhost.map(crate::launch::Toolhost::finish);
    if let Some(Err(error)) = finished {
        checks.push(Check::fail("toolhost", error.to_string(), "it does not end", "end it by hand"));
    }
    // Last, because afterwards nothing else can be looked at.
    checks.push(own_confinement());
    let report = Report { level, checks, attacks };
    let printed = super::print(&match format {
        ReportFormat::Json => to_line(&report),
        ReportFormat::Prometheus => prometheus::exposition(&report),
        ReportFormat::Text => text::text(&report),
    });
    let found = report.exit();
    if found == Exit::Done { printed } else { found }
}

fn kernel() -> Check {
    match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => Check::ok("kernel", format!("Linux {}", release.trim())),
        Err(error) => Check::warn(
            "kernel",
            format!("/proc cannot be read: {error}"),
            "what holds cannot be seen",
            "mount /proc",
        ),
    }
}

fn programs() -> Check {
    match find_toolhost() {
        Ok(program) => Check::ok("programs", format!("{} can be trusted", program.path.display())),
        Err(error) => Check::fail("programs", error.to_string(), "no tool can run", error.hint()),
    }
}

fn places(global: &Global) -> Vec<Check> {
    let paths = match Paths::find(&super::options(global), &Environment::of_process()) {
        Ok(paths) => paths,
        Err(error) => {
            return vec![Check::fail("home", error.to_string(), "nothing can be kept", error.hint())];
        }
    };
    let home = paths.home.display();
    let mut checks = vec![match paths.home.metadata() {
        Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => {
            Check::ok("home", format!("{home} is private"))
        }
        Ok(metadata) => Check::warn(
            "home",
            format!("{home} has mode {:04o}", metadata.permissions().mode() & 0o7777),
            "others of this machine may look into it",
            format!("chmod 700 {home}"),
        ),
        Err(_) => Check::info("home", format!("{home} is not there yet"), "", ""),
    }];
    for stop in [paths.home.join("run/stop"), paths.home.join("STOP"), "/run/oxibot/STOP".into()] {
        if stop.symlink_metadata().is_ok() {
            checks.push(Check::warn(
                "stop",
                format!("{} is there", stop.display()),
                "every call is refused",
                "oxibot stop --clear, or remove the file",
            ));
        }
    }
    checks
}

fn configuration(loaded: &Result<Loaded, crate::config::ConfigError>) -> Vec<Check> {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            return vec![Check::fail("configuration", error.to_string(), "nothing starts", error.hint())];
        }
    };
    let file = loaded.paths.config_file.display();
    let mut checks = vec![if loaded.file_found {
        Check::ok("configuration", format!("{file} is valid"))
    } else {
        Check::info("configuration", format!("{file} is not there: defaults hold"), "", "")
    }];
    for warning in &loaded.warnings {
        checks.push(Check::warn("configuration", warning.to_string(), "", ""));
    }
    checks.push(match &loaded.config.agents.defaults.model {
        Some(model) => Check::ok("model", model.clone()),
        None => Check::info(
            "model",
            "none is chosen",
            "`oxibot agent` has nobody to ask; tools and demo work",
            "oxibot onboard",
        ),
    });
    checks
}

fn wall(hello: &ToolhostHello) -> Vec<Check> {
    let wall = &hello.wall;
    let proven = match wall.proven {
        Some(Proven::Start) => "proven by attack at this start",
        Some(Proven::Recorded) => "proven by attack earlier in this boot",
        None => "not proven by attack",
    };
    let found = format!("{}, {proven}", wall.level.name());
    let mut checks = vec![match wall.level {
        Level::Full => Check::ok("level", found),
        Level::Kernel | Level::Reduced => Check::warn(
            "level",
            found,
            "some protections are missing, see below",
            "see the protections that are not active",
        ),
        Level::Off => Check::warn(
            "level",
            found,
            "tools can reach everything this user can reach",
            "leave out --no-sandbox",
        ),
    }];
    checks.push(match wall.landlock_abi {
        0 => Check::warn(
            "landlock",
            "this kernel has none",
            "files are guarded by namespaces alone",
            "a kernel from 5.13 on with landlock in its `lsm=` list",
        ),
        abi => Check::ok("landlock", format!("ABI {abi}")),
    });
    for protection in &wall.protections {
        let id = format!("protection.{}", neutral::line(&protection.name, 64));
        let detail = neutral::line(&protection.detail, 1024);
        checks.push(match protection.state {
            ProtectionState::Active => Check::ok(&id, "active"),
            ProtectionState::Degraded | ProtectionState::Unavailable => {
                Check::warn(&id, state_name(protection.state), "the wall is weaker here", &detail)
            }
        });
    }
    checks
}

/// Confines this process as main is confined, with nothing but the rules that always hold.
fn own_confinement() -> Check {
    let plan = Plan {
        state: Vec::new(),
        reread: Vec::new(),
        network: Network::None,
        workspaces: Vec::new(),
        toolhost: None,
    };
    match confine(&plan) {
        Ok(confined) if confined.missing().is_empty() => {
            Check::ok("main", "confines itself; each refusal was tried")
        }
        Ok(confined) => Check::warn(
            "main",
            confined.missing().join("; "),
            "a main that is taken over could do more",
            "a newer kernel",
        ),
        Err(error) => Check::fail("main", error.to_string(), "nothing starts", "a newer kernel"),
    }
}
