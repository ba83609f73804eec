//! `demo`: the tour on a machine with no key.
//!
//! Two processes: the outer one makes the decoys, starts this program again for the tour itself, and removes the decoys,
//! which the inner one may not: it has shut itself out of everything but its state. The inner one is a command like any
//! other: toolhost first, then confinement, then the conversation.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use oxibot_proto::message::Origin;

use super::oneshot::{self, Needs, State};
use crate::agent::acting::Acting;
use crate::cli::{DemoArgs, Global};
use crate::confine::Network;
use crate::demo::{self, Decoys, KEY_VARIABLE};
use crate::exit::Exit;
use crate::launch::{self, Purpose};
use crate::render::terminal::{self, Terminal};
use crate::store::Store;

/// Plays it, whichever of the two processes this is.
pub fn run(global: &Global, args: &DemoArgs) -> Exit {
    if global.no_sandbox > 0 {
        terminal::complain(demo::refuse_without_wall());
        return Exit::Failed;
    }
    match &args.decoys {
        None => outer(global),
        Some(directory) => inner(global, directory),
    }
}

fn outer(global: &Global) -> Exit {
    let decoys = match Decoys::plant() {
        Ok(decoys) => decoys,
        Err(error) => {
            terminal::complain(&format!(
                "cannot make the demonstration's decoys in {}: {error}; set TMPDIR to a directory you may write to",
                std::env::temp_dir().display()
            ));
            return Exit::Failed;
        }
    };
    let mut command = Command::new("/proc/self/exe");
    command.arg0("oxibot").arg("--home").arg(decoys.home()).arg("demo").arg("--decoys").arg(&decoys.outside);
    if global.plain {
        command.arg("--plain");
    }
    command.env(KEY_VARIABLE, &decoys.key_canary);
    // A Ctrl-C reaches both: the inner process ends, this one removes the decoys.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    let exit = match signals.thread_block().map_err(std::io::Error::from).and_then(|()| command.status()) {
        Ok(status) => match (status.code().and_then(|code| u8::try_from(code).ok()), status.signal()) {
            (Some(code), _) => Exit::Program(code),
            (None, Some(_)) => Exit::Cancelled,
            (None, None) => Exit::Internal,
        },
        Err(error) => {
            terminal::complain(&format!("cannot start the demonstration: {error}"));
            Exit::Internal
        }
    };
    if let Err(error) = decoys.remove() {
        terminal::complain(&format!(
            "cannot remove {}: {error}; remove it by hand",
            decoys.outside.display()
        ));
        return Exit::Failed;
    }
    exit
}

fn inner(global: &Global, directory: &Path) -> Exit {
    if let Err(error) = launch::join_launcher() {
        terminal::complain(&error.to_string());
        return Exit::Internal;
    }
    let terminal = Terminal::detect(global.plain);
    let needs = Needs {
        web: false,
        workspaces: vec![oneshot::typed_directory(&directory.join("workspace"))],
        network: Network::None,
        state: State::Used,
        purpose: Purpose::Demonstration,
        json: false,
    };
    oneshot::with_toolhost(
        global,
        &needs,
        |ready| {
            let decoys = Decoys::found(directory, ready.supervisor().unwrap_or_default());
            match decoys
                .and_then(|decoys| Ok((decoys, Decoys::open_port()?, ready.loaded.paths.state.clone())))
            {
                Ok(prepared) => Ok(prepared),
                Err(error) => {
                    terminal::complain(&format!("cannot prepare the demonstration: {error}"));
                    Err(Exit::Failed)
                }
            }
        },
        async |(decoys, port, state), broker| {
            let origin = Origin { who: "you".into(), channel: "terminal".into(), session: "demo".into() };
            let hands = Arc::new(Acting::new(broker.clone(), origin, None));
            let played = match Store::open(&state) {
                Ok(store) => demo::play(&broker, hands, &decoys, port, store, terminal).await,
                Err(error) => Err(error.into()),
            };
            match played {
                Ok(true) => Exit::Done,
                Ok(false) => Exit::Failed,
                Err(error) => {
                    terminal::complain(&error.to_string());
                    Exit::Failed
                }
            }
        },
    )
}
