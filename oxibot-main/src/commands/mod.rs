//! What each command does. `run` is the whole program: close what was inherited, parse, dispatch.
//!
//! Reading order: this file (which command needs what), `oneshot` and `conversation` (the fixed order in which a
//! process is started, confined and run), then the commands.

mod approvals;
mod audit;
mod completions;
mod control;
mod conversation;
pub mod demo;
mod doctor;
mod fault;
mod gateway;
mod oneshot;
mod progress;
mod run;
mod sandbox;
mod setup;
mod signals;
mod stop;
mod tool;

pub mod agent;
pub mod config;
pub mod onboard;
pub mod sessions;
pub mod status;
pub mod usage;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, ConfigCommand, Global, SandboxCommand, ToolCommand};
use crate::config::{Environment, Loaded, Options};
use crate::confine::{Network, Plan};
use crate::exit::Exit;
use crate::launch;
use crate::render::terminal;

pub use fault::Fault;
pub use oneshot::{Needs, Ready, with_toolhost};

/// What the confinement check starts this program with, to see it refused.
const BROKEN: &str = "--confinement-broken";

/// The program. Returns its exit status; prints whatever there is to say.
#[must_use]
pub fn run() -> ExitCode {
    // Before anything secret is in memory; the environment may hold a key already. The launcher too keeps it from others.
    if let Err(error) = crate::confine::hide() {
        terminal::complain(&error.to_string());
        return Exit::Internal.into();
    }
    crate::redaction::guard_panics();
    let first = std::env::args_os().nth(1);
    if first.as_ref().is_some_and(|first| first == BROKEN) {
        terminal::complain("a confined process could start a program: the seccomp filter is not in force");
        return Exit::Internal.into();
    }
    if let Err(error) = launch::hold_secrets() {
        terminal::complain(&error.to_string());
        return Exit::Internal.into();
    }
    if first.is_some_and(|first| first == doctor::decoys::STAND_IN) {
        return doctor::decoys::stand_in();
    }
    if let Err(error) = launch::close_inherited().and_then(|()| launch::keep_statuses()) {
        terminal::complain(&error.to_string());
        return Exit::Internal.into();
    }
    // Started again by descriptor, the kernel would name it after that.
    let _ = nix::sys::prctl::set_name(c"oxibot");
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error).into(),
    };
    dispatch(&cli.global, &cli.command).into()
}

/// Help and version are answers, everything else is a wrong command line.
fn explain(error: &clap::Error) -> Exit {
    let text = error.render();
    if error.use_stderr() {
        terminal::note(text.to_string().trim_end());
        return Exit::Usage;
    }
    print(&text.to_string())
}

fn dispatch(global: &Global, command: &Command) -> Exit {
    match command {
        Command::Demo(args) => demo::run(global, args),
        Command::Agent(args) => conversation::agent(global, args),
        Command::Gateway => gateway::run(global),
        Command::Tool(ToolCommand::List(args)) => tool::list(global, args),
        Command::Tool(ToolCommand::Call(args)) => tool::call(global, args),
        Command::Sandbox(SandboxCommand::Run(args)) => run::run(global, args),
        Command::Sandbox(SandboxCommand::Status(args)) => sandbox::status(global, args),
        Command::Doctor(args) => doctor::run(global, args),
        Command::Config(command) => configuration(global, *command),
        Command::Onboard(args) => setup::onboard(global, args),
        Command::Status(args) => {
            with_configuration(global, |loaded| printed(|out| status::run(loaded, args.json, out)))
        }
        Command::Usage(args) => {
            with_configuration(global, |loaded| confined(loaded, || usage::run(args, &loaded.paths.state)))
        }
        Command::Sessions(command) => with_configuration(global, |loaded| {
            let expiry = agent::expiry(&loaded.config);
            confined(loaded, || sessions::run(command, &loaded.paths.state, expiry))
        }),
        Command::Stop(args) => stop::run(global, args),
        Command::Approvals(command) => approvals::run(global, command),
        Command::Audit(command) => audit::run(global, command),
        Command::Completions(args) => completions::run(args),
    }
}

/// What the command line says about the configuration.
pub(crate) fn options(global: &Global) -> Options {
    Options { config: global.config.clone(), home: global.home.clone() }
}

fn configuration(global: &Global, command: ConfigCommand) -> Exit {
    let (options, environment) = (options(global), Environment::of_process());
    match command {
        ConfigCommand::Check => printed(|out| config::check(&options, &environment, out)),
        ConfigCommand::Show => with_configuration(global, |loaded| printed(|out| config::show(loaded, out))),
        ConfigCommand::Schema => printed(config::schema),
        ConfigCommand::Path => {
            let mut fault = None;
            let exit = printed(|out| {
                config::path(&options, &environment, out).map(|found| {
                    found.unwrap_or_else(|error| {
                        fault = Some(Fault::from(error));
                        0
                    })
                })
            });
            fault.map_or(exit, |fault| fault.report(false))
        }
    }
}

fn with_configuration(global: &Global, command: impl FnOnce(&Loaded) -> Exit) -> Exit {
    match fault::load(global) {
        Ok(loaded) => command(&loaded),
        Err(fault) => fault.report(false),
    }
}

/// Commands that only look at the state directory have no use for anything else.
fn confined(loaded: &Loaded, command: impl FnOnce() -> Exit) -> Exit {
    let plan = || -> Result<(), Fault> {
        loaded.paths.make_private_directories().map_err(|error| {
            Fault::new(Exit::Failed, "home", format!("cannot make {}: {error}", loaded.paths.state.display()))
        })?;
        let confined = crate::confine::confine(&Plan {
            state: vec![loaded.paths.state.clone()],
            reread: Vec::new(),
            network: Network::None,
            workspaces: Vec::new(),
            toolhost: None,
        })?;
        fault::warn_of(&confined);
        Ok(())
    };
    match plan() {
        Ok(()) => command(),
        Err(fault) => fault.report(false),
    }
}

/// Runs something that writes to standard output and gives its exit status as a number.
fn printed(write: impl FnOnce(&mut dyn io::Write) -> io::Result<u8>) -> Exit {
    let mut text = Vec::new();
    match write(&mut text) {
        Ok(code) => match terminal::out_bytes(&text) {
            Ok(()) => Exit::Program(code),
            Err(error) => unwritable(&error),
        },
        Err(error) => unwritable(&error),
    }
}

/// Prints human output.
pub(crate) fn print(text: &str) -> Exit {
    match terminal::out(text) {
        Ok(()) => Exit::Done,
        Err(error) => unwritable(&error),
    }
}

fn unwritable(error: &io::Error) -> Exit {
    terminal::complain(&format!("cannot write to standard output: {error}"));
    Exit::Failed
}

/// The command line without the program, as it was typed.
fn typed() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}
