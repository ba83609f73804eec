//! The start of a command that does one thing: toolhost, hello, configuration, confinement, runtime, in this order.
//!
//! The order is the promise: no secret is read before the toolhost runs with an environment of its own, and nothing
//! hostile is read before this process is confined. The process is its own launcher and stays until the toolhost ended.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oxibot_proto::message::{CloseReason, Level, PEOPLE, ToolhostHello};

use crate::broker::{self, Broker, BrokerError, Greeted};
use crate::cli::Global;
use crate::config::{Environment, Loaded, Paths};
use crate::confine::{Network, Plan, confine};
use crate::exit::Exit;
use crate::launch::{LaunchOptions, Purpose, SearchDoor, Started, Toolhost, start_toolhost};
use crate::render::{neutral, terminal};

use super::fault::{self, Fault, warn_of};

/// What a command needs besides the toolhost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Directories typed on the command line, absolute; the first becomes the default workspace.
    pub workspaces: Vec<PathBuf>,
    /// Whether it talks to providers.
    pub network: Network,
    /// Whether it may ask for something of the web.
    pub web: bool,
    /// Whether it keeps conversations.
    pub state: State,
    /// What its toolhost is for.
    pub purpose: Purpose,
    /// Whether faults are reported as a JSON object.
    pub json: bool,
}

/// Whether a command uses the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not at all.
    Unused,
    /// It reads and writes there.
    Used,
}

/// The toolhost runs and said hello, the configuration is read, nothing is confined yet.
#[derive(Debug)]
pub struct Ready {
    /// The connection.
    pub greeted: Greeted,
    /// The configuration.
    pub loaded: Loaded,
    toolhost: Toolhost,
}

impl Ready {
    /// Process id of the supervisor.
    #[must_use]
    pub fn supervisor(&self) -> u32 {
        self.toolhost.id()
    }
}

/// Starts a toolhost, confines this process and runs a command to its end. `prepare` runs before the confinement, on one
/// thread; `command` after it. The toolhost is gone when this returns.
pub fn with_toolhost<P>(
    global: &Global,
    needs: &Needs,
    prepare: impl FnOnce(&Ready) -> Result<P, Exit>,
    command: impl AsyncFnOnce(P, Broker) -> Exit,
) -> Exit {
    let ready = match start(global, needs) {
        Ok(ready) => ready,
        Err(fault) => return fault.report(needs.json),
    };
    let prepared = match prepare(&ready) {
        Ok(prepared) => prepared,
        Err(exit) => {
            let Ready { greeted, toolhost, .. } = ready;
            drop(greeted);
            finish(toolhost);
            return exit;
        }
    };
    let Ready { greeted, loaded, toolhost } = ready;
    let exit = match confined(needs, greeted, &loaded, toolhost.id(), async move |broker| {
        command(prepared, broker).await
    }) {
        Ok(exit) => exit,
        Err(fault) => fault.report(needs.json),
    };
    finish(toolhost);
    exit
}

/// The toolhost first, then everything else.
pub(super) fn start(global: &Global, needs: &Needs) -> Result<Ready, Fault> {
    let options = LaunchOptions {
        web: needs.web,
        purpose: needs.purpose,
        ..launch_options(global, &needs.workspaces)?
    };
    let Started { socket, toolhost, search } = start_toolhost(&options)?;
    let greeted = match greet(socket) {
        Ok(greeted) => greeted,
        Err(refusal) => return Err(refusal.explain(global, toolhost)),
    };
    match fault::load(global) {
        Ok(loaded) => {
            // Only now there is a log: what it is to say is in the configuration.
            let hello = &greeted.hello;
            tracing::info!(pid = toolhost.id(), build = %neutral::line(&hello.build, 40), "the toolhost runs");
            tracing::debug!(
                level = hello.wall.level.name(),
                landlock_abi = hello.wall.landlock_abi,
                protections = hello.wall.protections.len(),
                workspaces = hello.workspaces.len(),
                "the toolhost said hello"
            );
            leave_search(search, &loaded);
            Ok(Ready { greeted, loaded, toolhost })
        }
        Err(fault) => {
            drop(greeted);
            finish(toolhost);
            Err(fault)
        }
    }
}

/// Leaves the search key for the fetch worker. Without it the web search says that it has none.
pub(super) fn leave_search(door: Option<SearchDoor>, loaded: &Loaded) {
    if let Some(Err(error)) = door.map(|door| door.leave(&loaded.config)) {
        tracing::warn!(%error, "cannot leave the search key for the fetch worker");
    }
}

/// As the start of every command, for one that reports what is wrong instead of ending.
pub(super) fn start_for_doctor(global: &Global) -> Result<(Greeted, Toolhost), Fault> {
    let Started { socket, toolhost, .. } = start_toolhost(&launch_options(global, &[])?)?;
    match greet(socket) {
        Ok(greeted) => Ok((greeted, toolhost)),
        Err(refusal) => Err(refusal.explain(global, toolhost)),
    }
}

/// A toolhost that is there to be attacked.
pub(super) fn start_for_attack(global: &Global) -> Result<(Greeted, Toolhost), Fault> {
    let options = LaunchOptions { purpose: Purpose::Attack, ..launch_options(global, &[])? };
    let Started { socket, toolhost, .. } = start_toolhost(&options)?;
    match greet(socket) {
        Ok(greeted) => Ok((greeted, toolhost)),
        Err(refusal) => Err(refusal.explain(global, toolhost)),
    }
}

/// A toolhost whose calls search for decoys, in a workspace made for that.
pub(super) fn start_for_decoys(global: &Global, workspace: &Path) -> Result<(Greeted, Toolhost), Fault> {
    // The searches are what a policy would refuse: they have to reach the wall.
    let options = LaunchOptions {
        purpose: Purpose::Demonstration,
        ..launch_options(global, &[typed_directory(workspace)])?
    };
    let Started { socket, toolhost, .. } = start_toolhost(&options)?;
    match greet(socket) {
        Ok(greeted) => Ok((greeted, toolhost)),
        Err(refusal) => Err(refusal.explain(global, toolhost)),
    }
}

/// What a toolhost says of itself, nothing having been asked of it.
pub(super) struct Seen {
    /// Its hello.
    pub(super) hello: ToolhostHello,
    /// Why it refuses to serve, where it only said hello because less was required of it.
    pub(super) refusal: Option<Fault>,
    /// Why its end could not be seen.
    pub(super) lingers: Option<std::io::Error>,
}

/// Starts a toolhost and lets it go after its hello. One that refuses because too little is to be had here is started
/// once more with the least required of it, so that what there is can be shown: no call is ever made through that one.
pub(super) fn look(global: &Global) -> Result<Seen, Fault> {
    let mut options = launch_options(global, &[])?;
    let greet_and_go = |options: &LaunchOptions| {
        let Started { socket, toolhost, .. } = start_toolhost(options)?;
        match greet(socket) {
            Ok(greeted) => {
                let hello = greeted.hello.clone();
                drop(greeted);
                Ok((hello, toolhost.finish().err()))
            }
            Err(refusal) => Err(refusal.explain(global, toolhost)),
        }
    };
    let refusal = match greet_and_go(&options) {
        Ok((hello, lingers)) => return Ok(Seen { hello, refusal: None, lingers }),
        Err(fault) => fault,
    };
    if refusal.kind != Fault::REFUSED || refusal.exit != Exit::Configuration {
        return Err(refusal);
    }
    options.require = Some(Level::Reduced);
    match greet_and_go(&options) {
        Ok((hello, lingers)) => Ok(Seen { hello, refusal: Some(refusal), lingers }),
        Err(_) => Err(refusal),
    }
}

/// What the toolhost of a command that does one thing is started with. Only paths are looked up; no file is read.
pub(super) fn launch_options(global: &Global, workspaces: &[PathBuf]) -> Result<LaunchOptions, Fault> {
    let paths = Paths::find(&super::options(global), &Environment::of_process())?;
    // A file that was named must be there; the usual one may be absent.
    let named = global.config.is_some();
    let config = (named || paths.config_file.symlink_metadata().is_ok()).then_some(paths.config_file);
    Ok(LaunchOptions {
        config,
        home: paths.home,
        workspaces: workspaces.to_vec(),
        no_sandbox: global.no_sandbox,
        purpose: Purpose::OneShot,
        web: false,
        require: None,
    })
}

/// A greeting that failed. The toolhost has said why on standard error, and its exit status tells what kind it was.
pub(super) struct Refusal(BrokerError);

/// Says hello.
pub(super) fn greet(socket: UnixStream) -> Result<Greeted, Refusal> {
    broker::greet(socket).map_err(Refusal)
}

impl Refusal {
    /// Waits for the end of the toolhost, whose status tells more, and says what it was.
    fn explain(self, global: &Global, toolhost: Toolhost) -> Fault {
        let status = toolhost.finish().ok().and_then(|status| status.code());
        let said = "the toolhost refused to start; it says why on standard error";
        match (self.0, status) {
            (BrokerError::Bye(reason), _) => Self(BrokerError::Bye(reason)).fault(global),
            // It may be the configuration: then we can name the place.
            (_, Some(78)) => match fault::load_quietly(global) {
                Err(error) => Fault::from(error),
                Ok(_) => Fault::new(Exit::Configuration, "configuration", said.to_owned()),
            },
            (_, Some(2)) => Fault::new(Exit::Usage, "usage", said.to_owned()),
            (error, Some(_) | None) => Fault::from(error),
        }
    }

    /// What it was, from what was said alone.
    pub(super) fn fault(self, global: &Global) -> Fault {
        if let BrokerError::Bye(CloseReason::CannotStart { reason, configuration }) = &self.0 {
            return match fault::load_quietly(global) {
                // Main names the place as well.
                Err(error) if *configuration => Fault::from(error),
                Ok(_) | Err(_) => Fault::refused(reason, *configuration),
            };
        }
        Fault::from(self.0)
    }
}

fn confined(
    needs: &Needs,
    greeted: Greeted,
    loaded: &Loaded,
    toolhost: u32,
    command: impl AsyncFnOnce(Broker) -> Exit,
) -> Result<Exit, Fault> {
    let plan = plan(needs, &greeted, loaded, Some(toolhost))?;
    let confined = confine(&plan)?;
    warn_of(&confined);
    tracing::debug!("this process is confined");
    let runtime = confined.small_runtime().map_err(|error| {
        Fault::new(Exit::Internal, "runtime", format!("cannot start the runtime: {error}"))
    })?;
    let exit = runtime.block_on(async {
        let (broker, connection) = Broker::start(greeted)?;
        let exit = command(broker).await;
        connection.close().await;
        Ok::<_, Fault>(exit)
    });
    // A thread may wait for a terminal that nobody types on: it ends with the process.
    runtime.shutdown_background();
    exit
}

/// What this process may do once it is confined.
pub(super) fn plan(
    needs: &Needs,
    greeted: &Greeted,
    loaded: &Loaded,
    toolhost: Option<u32>,
) -> Result<Plan, Fault> {
    let mut workspaces: Vec<PathBuf> = greeted.hello.workspaces.iter().map(PathBuf::from).collect();
    workspaces.extend(needs.workspaces.iter().cloned());
    workspaces.push(loaded.paths.workspace.clone());
    // Those of people come into being later, below this; main must not be able to read them either.
    workspaces.push(loaded.paths.home.join(PEOPLE));
    let (state, reread) = match needs.state {
        State::Unused => (Vec::new(), Vec::new()),
        State::Used => {
            loaded.paths.make_private_directories().map_err(|error| {
                let path = loaded.paths.state.display();
                Fault::new(Exit::Failed, "home", format!("cannot make {path}: {error}"))
                    .with_hint("give --home a directory you may write to")
            })?;
            let mut reread = vec![loaded.paths.config_file.clone()];
            reread.extend(loaded.secret_files.iter().cloned());
            (vec![loaded.paths.state.clone()], reread)
        }
    };
    Ok(Plan { state, reread, network: needs.network, workspaces, toolhost })
}

fn finish(toolhost: Toolhost) {
    if let Err(error) = toolhost.finish() {
        terminal::complain(&format!("cannot see the toolhost end: {error}"));
    }
}

/// A directory that was typed, absolute and, where it exists, without links.
pub(super) fn typed_directory(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}
