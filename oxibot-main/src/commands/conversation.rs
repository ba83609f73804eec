//! `agent`: one message runs as a one-shot command, a conversation under the launcher.
//!
//! Under the launcher main takes over the terminal and the toolhost's socket, and another toolhost whenever the launcher
//! had to start one; when the launcher is gone, main ends.

use oxibot_proto::web::SearchService;

use crate::broker::{self, Broker, Connection};
use crate::cli::{AgentArgs, Global};
use crate::config::{Loaded, Logging};
use crate::confine::{Network, confine};
use crate::exit::Exit;
use crate::gateway::Exits;
use crate::launch::{
    self, Control, ControlEvent, LaunchOptions, OnHangUp, Purpose, receive_handover, search_service,
};
use crate::render::terminal::{self, Terminal};

use super::agent;
use super::fault::{self, Fault, warn_of};
use super::oneshot::{self, Needs, State};
use super::signals::{Asked, Endings};

/// Runs it, whichever process this is.
pub(super) fn agent(global: &Global, args: &AgentArgs) -> Exit {
    let needs = Needs {
        workspaces: Vec::new(),
        network: Network::Connect,
        web: true,
        state: State::Used,
        purpose: if args.message.is_some() { Purpose::OneShot } else { Purpose::LongLived },
        json: args.json,
    };
    let terminal = Terminal::detect(global.plain);
    if args.message.is_some() {
        return oneshot::with_toolhost(
            global,
            &needs,
            |ready| agent::prepare(args, &ready.loaded).map_err(|unready| unready.report(args.json)),
            async |prepared, broker| agent::run(prepared, broker, terminal).await,
        );
    }
    if global.launched {
        return under_launcher(
            global,
            &needs,
            |loaded| agent::prepare(args, loaded).map_err(|unready| unready.report(args.json)),
            // Whoever ends a conversation at a terminal wants it gone at once.
            Ended::AtOnce,
            async |prepared, broker| agent::run(prepared, broker, terminal).await,
        );
    }
    launcher(global, args.json, OnHangUp::End)
}

/// The launcher of a long-lived command: starts a toolhost and this program again, as its main process.
pub(super) fn launcher(global: &Global, json: bool, hang_up: OnHangUp) -> Exit {
    // It reads no configuration: its log is what the command line and the environment say.
    crate::logging::start(global, &Logging::default())
        .and_then(|()| oneshot::launch_options(global, &[]))
        .map(|options| LaunchOptions { purpose: Purpose::LongLived, ..options })
        .and_then(|options| Ok(launch::launch(&options, super::typed(), hang_up)?))
        .unwrap_or_else(|fault| fault.report(json))
}

/// What a polite request to end does to a long-lived command.
pub(super) enum Ended {
    /// It ends where it is.
    AtOnce,
    /// It is told, and ends by itself. Where no terminal can hang up, SIGHUP has the configuration read again: if the
    /// check finds nothing against it, the command ends to be started again with it.
    Told(Exits, Check),
}

/// Whether what the configuration says now can be started with.
pub(super) type Check = Box<dyn Fn() -> Result<(), Fault>>;

/// The main process of a long-lived command: toolhost, configuration, `prepare`, confinement, runtime, `command`.
pub(super) fn under_launcher<P>(
    global: &Global,
    needs: &Needs,
    prepare: impl FnOnce(&Loaded) -> Result<P, Exit>,
    ended: Ended,
    command: impl AsyncFnOnce(P, Broker) -> Exit,
) -> Exit {
    main_process(global, needs, prepare, ended, command).unwrap_or_else(|fault| fault.report(needs.json))
}

fn main_process<P>(
    global: &Global,
    needs: &Needs,
    prepare: impl FnOnce(&Loaded) -> Result<P, Exit>,
    ended: Ended,
    command: impl AsyncFnOnce(P, Broker) -> Exit,
) -> Result<Exit, Fault> {
    launch::join_launcher()?;
    let handover = receive_handover()?;
    let greeted = oneshot::greet(handover.toolhost).map_err(|refusal| refusal.fault(global))?;
    let loaded = fault::load(global)?;
    oneshot::leave_search(handover.search, &loaded);
    let service = search_service(&loaded.config);
    let prepared = match prepare(&loaded) {
        Ok(prepared) => prepared,
        Err(exit) => return Ok(exit),
    };
    let confined = confine(&oneshot::plan(needs, &greeted, &loaded, None)?)?;
    warn_of(&confined);
    let runtime = confined.runtime().map_err(|error| {
        Fault::new(Exit::Internal, "runtime", format!("cannot start the runtime: {error}"))
    })?;
    let exit = runtime.block_on(async {
        let control = Control::new(handover.control)
            .map_err(|error| Fault::new(Exit::Internal, "launcher", error.to_string()))?;
        let (broker, connection) = Broker::start(greeted)?;
        let work = command(prepared, broker.clone());
        Ok(attend(work, broker, connection, &control, &service, ended).await)
    });
    runtime.shutdown_background();
    exit
}

/// Runs the command, and meanwhile hears what signals and the launcher say.
async fn attend(
    work: impl Future<Output = Exit>,
    broker: Broker,
    mut connection: Connection,
    control: &Control,
    service: &SearchService,
    ended: Ended,
) -> Exit {
    let mut endings = match Endings::listen() {
        Ok(endings) => endings,
        Err(error) => {
            return Fault::new(Exit::Internal, "runtime", format!("cannot listen for signals: {error}"))
                .report(false);
        }
    };
    tokio::pin!(work);
    let exit = loop {
        tokio::select! {
            exit = &mut work => break exit,
            asked = endings.next() => match (&ended, asked) {
                (Ended::AtOnce, Asked::End | Asked::HangUp) => leave(connection, Exit::Cancelled).await,
                (Ended::Told(exits, check), Asked::HangUp) if launch::reloads_on_hang_up() => reload(exits, check),
                (Ended::Told(exits, _), Asked::End | Asked::HangUp) => exits.end(),
            },
            event = control.next() => match event {
                ControlEvent::Toolhost(socket, search) => {
                    if let Some(Err(error)) = search.map(|door| door.leave_service(service)) {
                        tracing::warn!(%error, "cannot leave the search key for the fetch worker");
                    }
                    // The hello may take a while: not on the runtime's thread, and the conversation waits for it.
                    let greeted = tokio::task::spawn_blocking(move || broker::greet(socket)).await;
                    match greeted.map_err(|error| error.to_string()).and_then(|greeted| {
                        greeted.and_then(|greeted| broker.replace(greeted)).map_err(|error| error.to_string())
                    }) {
                        Ok(another) => {
                            std::mem::replace(&mut connection, another).close().await;
                            tracing::warn!("the toolhost was started again");
                        }
                        Err(error) => tracing::error!(%error, "cannot go on with another toolhost"),
                    }
                }
                ControlEvent::LauncherGone => {
                    // Where there is no terminal either, nobody is told.
                    terminal::complain("the launcher is gone; ending");
                    leave(connection, Exit::Internal).await
                }
            },
        }
    };
    if let Ended::Told(exits, _) = &ended
        && exits.restarts()
        && let Err(error) = control.ask_for_restart().await
    {
        tracing::error!(%error, "cannot ask to be started again");
    }
    connection.close().await;
    exit
}

/// Starts again with what the configuration and the files of secrets say now, or says why not and goes on as it is.
fn reload(exits: &Exits, check: &Check) {
    match check() {
        Ok(()) => {
            tracing::warn!("the configuration is read again");
            exits.restart();
        }
        Err(fault) => {
            terminal::complain("the configuration is not taken, and everything goes on as it was");
            let _exit = fault.report(false);
        }
    }
}

/// Ends in the middle of a conversation. Its calls end with the connection; what was said is in the store, written as it
/// happened. The process ends here and not by returning, because a thread may sit in a read of the terminal that
/// nothing else ends. The launcher puts the terminal back.
async fn leave(connection: Connection, exit: Exit) -> ! {
    connection.close().await;
    std::process::exit(i32::from(exit.code()))
}
