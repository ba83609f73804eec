//! `doctor`: what is in order, what is not, what follows from it and what to do.
//!
//! Looks, and changes nothing. Facts are gathered first, as much of them as can be before this process confines itself
//! for good; then pure functions judge them, in the order of the table. What cannot be found out is said to be so. Only
//! a check that failed gives exit status 1; a key, model or file that is not there yet is information.
//!
//! Reading order: this file (what is gathered when), `table`, then the checks, then the forms of the report.

mod attack;
mod cgroups;
mod channels;
mod clock;
mod configuration;
pub(super) mod decoys;
mod disk;
mod facts;
mod files;
mod gateway;
mod journal;
mod kernel;
mod namespaces;
mod prometheus;
mod report;
mod seen;
mod sockets;
mod table;
mod text;
pub(super) mod wall;
mod web;

use std::path::{Path, PathBuf};

use oxibot_proto::facts::MachineFacts;
use oxibot_proto::message::{Protection, ToolhostHello};

use crate::cli::{DoctorArgs, Global, ReportFormat};
use crate::config::{Environment, Paths};
use crate::confine::{Locked, Network, Plan, confine};
use crate::exit::Exit;
use crate::launch::{LaunchError, find_fetch, find_toolhost, machine_facts};
use crate::render::report::to_line;

use super::fault::load_quietly;
use super::oneshot;
use report::Report;
use table::{Extent, Facts};
use wall::{Trouble, WallFacts};

/// Looks and prints.
pub(super) fn run(global: &Global, args: &DoctorArgs) -> Exit {
    let format = args.format();
    let (extent, attacks) = if args.attack {
        match attack::run(global, format) {
            Ok(attacks) => (Extent::Wall, attacks),
            Err(fault) => return fault.report(format == ReportFormat::Json),
        }
    } else {
        (Extent::Everything, Vec::new())
    };
    let facts = gather(global);
    let report = Report { level: facts.wall.level(), checks: table::judge(&facts, extent), attacks };
    let printed = super::print(&match format {
        ReportFormat::Json => to_line(&report),
        ReportFormat::Prometheus => prometheus::exposition(&report),
        ReportFormat::Text => text::text(&report),
    });
    let found = report.exit();
    if found == Exit::Done { printed } else { found }
}

/// Everything there is to know, and this process confined at the end of it.
fn gather(global: &Global) -> Facts {
    // The toolhost comes before the configuration, as in every command.
    let program = find_toolhost().map(|program| program.path).map_err(|error| trouble(&error));
    let worker = find_fetch().map(|program| program.path).map_err(|error| trouble(&error));
    let machine = machine_facts().ok();
    let (hello, lingers) = look(global);
    let paths = Paths::find(&super::options(global), &Environment::of_process());
    let loaded = load_quietly(global);
    let settings = loaded.as_ref().ok();
    let workspace = settings.map(|loaded| loaded.paths.workspace.clone());
    let home = paths.as_ref().ok().map(|paths| paths.home.clone());
    let admitted = hello.as_ref().ok().map(|hello| hello.workspaces.iter().map(PathBuf::from).collect());
    let kernel = kernel::KernelFacts::gather(machine.as_ref().map(|machine| machine.landlock_abi));
    let namespaces =
        namespaces::NamespaceFacts::gather(machine.as_ref().map(|machine| machine.namespaces.clone()));
    let homeless = paths.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let files = files::FileFacts::gather(paths.as_ref().map_err(|_| homeless.as_str()), settings);
    let gateway = settings.map(|loaded| gateway::GatewayFacts::gather(loaded.config.gateway.clone()));
    let disk = home.as_ref().map(|home| disk::DiskFacts::gather(home, workspace.as_deref().unwrap_or(home)));
    let sockets = workspace.as_deref().map(|path| {
        sockets::SocketFacts::gather(&path.canonicalize().unwrap_or_else(|_| path.to_path_buf()))
    });
    let cgroups = cgroups::CgroupFacts::gather(hello.as_ref().ok().and_then(call_cgroup));
    let journal = journal::JournalFacts::gather();
    let clock = clock::ClockFacts::gather(machine.and_then(|machine: MachineFacts| machine.clock));
    let key = settings.is_some_and(|loaded| loaded.config.search_key.is_some());
    let private = settings.map(|loaded| loaded.config.web.allow_private.clone()).unwrap_or_default();
    let require = settings.map(|loaded| loaded.config.sandbox.require);
    let stops = home.as_deref().map(stops).unwrap_or_default();
    let configuration = configuration::ConfigurationFacts::gather(loaded, admitted);
    // Last, because afterwards nothing else can be looked at.
    let (main, locked) = match own_confinement() {
        Ok((missing, locked)) => (Ok(missing), Some(locked)),
        Err(error) => (Err(error), None),
    };
    let wall = WallFacts { program, hello, lingers, main, stops, require };
    let web = web::WebFacts { worker, key, private };
    Facts {
        kernel,
        namespaces,
        cgroups,
        wall,
        files,
        configuration,
        gateway,
        clock,
        journal,
        disk,
        sockets,
        web,
        locked,
    }
}

/// What a toolhost says, and why its end could not be seen.
fn look(global: &Global) -> (Result<ToolhostHello, Trouble>, Option<String>) {
    match oneshot::look(global) {
        Ok(seen) => (Ok(seen.hello), seen.lingers.map(|error| error.to_string())),
        Err(fault) => (Err(Trouble { what: fault.message, hint: fault.hint }), None),
    }
}

fn trouble(error: &LaunchError) -> Trouble {
    Trouble { what: error.to_string(), hint: error.hint().to_owned() }
}

fn call_cgroup(hello: &ToolhostHello) -> Option<Protection> {
    hello.wall.protections.iter().find(|protection| protection.name.ends_with("cgroup")).cloned()
}

fn stops(home: &Path) -> Vec<PathBuf> {
    [home.join("run/stop"), home.join("STOP"), "/run/oxibot/STOP".into()]
        .into_iter()
        .filter(|stop| stop.symlink_metadata().is_ok())
        .collect()
}

/// Confines this process as main is confined, with nothing but the rules that always hold.
fn own_confinement() -> Result<(Vec<String>, Locked), String> {
    let plan = Plan {
        state: Vec::new(),
        reread: Vec::new(),
        network: Network::None,
        workspaces: Vec::new(),
        toolhost: None,
    };
    confine(&plan)
        .map(|confined| (confined.missing().to_vec(), confined.locked().clone()))
        .map_err(|error| error.to_string())
}
