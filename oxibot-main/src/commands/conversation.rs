//! `agent`: one message runs as a one-shot command, a conversation under the launcher.
//!
//! Under the launcher main takes over the terminal and the toolhost's socket, and another toolhost whenever the launcher
//! had to start one; when the launcher is gone, main ends.

use oxibot_proto::web::SearchService;

use crate::broker::{self, Broker, Connection};
use crate::cli::{AgentArgs, Global};
use crate::config::Logging;
use crate::confine::{Network, confine};
use crate::exit::Exit;
use crate::launch::{self, Control, ControlEvent, LaunchOptions, Purpose, receive_handover, search_service};
use crate::render::terminal::{self, Terminal};

use super::agent::{self, Prepared};
use super::fault::{self, Fault, warn_of};
use super::oneshot::{self, Needs, State};
use super::signals::Endings;

/// Runs it, whichever process this is.
pub(super) fn agent(global: &Global, args: &AgentArgs) -> Exit {
    let needs = Needs {
        workspaces: Vec::new(),
        network: Network::Connect,
        web: true,
        state: State::Used,
        purpose: Purpose::LongLived,
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
    let ended = if global.launched {
        main_process(global, args, &needs, terminal)
    } else {
        // The launcher reads no configuration: its log is what the command line and the environment say.
        crate::logging::start(global, &Logging::default())
            .and_then(|()| oneshot::launch_options(global, &[]))
            .map(|options| LaunchOptions { purpose: Purpose::LongLived, ..options })
            .and_then(|options| Ok(launch::launch(&options, super::typed())?))
    };
    ended.unwrap_or_else(|fault| fault.report(args.json))
}

fn main_process(global: &Global, args: &AgentArgs, needs: &Needs, terminal: Terminal) -> Result<Exit, Fault> {
    launch::join_launcher()?;
    let handover = receive_handover()?;
    let greeted = oneshot::greet(handover.toolhost).map_err(|refusal| refusal.fault(global))?;
    let loaded = fault::load(global)?;
    oneshot::leave_search(handover.search, &loaded);
    let service = search_service(&loaded.config);
    let prepared = match agent::prepare(args, &loaded) {
        Ok(prepared) => prepared,
        Err(unready) => return Ok(unready.report(args.json)),
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
        Ok(converse(prepared, broker, connection, &control, &service, terminal).await)
    });
    runtime.shutdown_background();
    exit
}

async fn converse(
    prepared: Prepared,
    broker: Broker,
    mut connection: Connection,
    control: &Control,
    service: &SearchService,
    terminal: Terminal,
) -> Exit {
    let mut endings = match Endings::listen() {
        Ok(endings) => endings,
        Err(error) => {
            return Fault::new(Exit::Internal, "runtime", format!("cannot listen for signals: {error}"))
                .report(false);
        }
    };
    let conversation = agent::run(prepared, broker.clone(), terminal);
    tokio::pin!(conversation);
    let exit = loop {
        tokio::select! {
            exit = &mut conversation => break exit,
            () = endings.next() => leave(connection, Exit::Cancelled).await,
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
    connection.close().await;
    exit
}

/// Ends in the middle of a conversation. Its calls end with the connection; what was said is in the store, written as it
/// happened. The process ends here and not by returning, because a thread may sit in a read of the terminal that
/// nothing else ends. The launcher puts the terminal back.
async fn leave(connection: Connection, exit: Exit) -> ! {
    connection.close().await;
    std::process::exit(i32::from(exit.code()))
}
