//! `onboard` around the questions of [`super::onboard`]: toolhost, confinement, the real call that tries a key, and the
//! files a new workspace starts with, written through the toolhost.
//!
//! The configuration is written by renaming a file, so here, and only here, main may write to the directory that holds
//! it; nothing but a person's answers and one provider's list of models is read meanwhile.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use oxibot_proto::message::MAX_TRANSFER;
use tokio::runtime::Runtime;

use crate::broker::{Broker, BrokerError};
use crate::cli::{Global, OnboardArgs};
use crate::config::{Environment, Loaded, ProviderConfig};
use crate::confine::{Network, Plan, confine};
use crate::exit::Exit;
use crate::launch::Host;
use crate::provider::{self, ConnectOptions, ProviderError, ProviderSettings};
use crate::render::terminal;

use super::fault::{self, Fault, warn_of};
use super::onboard::{self, Console, Onboarded, ProbeError, ProviderProbe, Request, Template};
use super::oneshot;

/// Asks, tries, writes.
pub(super) fn onboard(global: &Global, args: &OnboardArgs) -> Exit {
    let (greeted, toolhost) = match oneshot::start_for_doctor(global) {
        Ok(started) => started,
        Err(fault) => return fault.report(false),
    };
    let exit = set_up(global, args, greeted, &toolhost);
    if let Err(error) = toolhost.finish() {
        terminal::complain(&format!("cannot see the toolhost end: {error}"));
    }
    exit.unwrap_or_else(|fault| fault.report(false))
}

fn set_up(
    global: &Global,
    args: &OnboardArgs,
    greeted: crate::broker::Greeted,
    toolhost: &Host,
) -> Result<Exit, Fault> {
    let loaded = fault::load(global)?;
    let confined = confine(&plan(&loaded, args, toolhost)?)?;
    warn_of(&confined);
    let runtime = confined.small_runtime().map_err(|error| {
        Fault::new(Exit::Internal, "runtime", format!("cannot start the runtime: {error}"))
    })?;
    let options = super::options(global);
    let environment = Environment::of_process();
    let request = Request {
        options: &options,
        environment: &environment,
        import: args.import.as_deref(),
        yes: args.yes,
    };
    let stdin = std::io::stdin();
    let typed_at = stdin.is_terminal().then(|| stdin.as_fd());
    let (mut input, mut output) = (stdin.lock(), std::io::stdout());
    let mut console = Console::new(&mut input, &mut output, typed_at);
    let done = match onboard::run(&request, &mut Probe { runtime: &runtime }, &mut console) {
        Ok(done) => done,
        Err(error) => {
            return Ok(Fault::new(Exit::Program(error.exit_code()), "onboard", error.to_string())
                .with_hint(error.hint())
                .report(false));
        }
    };
    let exit = runtime.block_on(async {
        let (broker, connection) = Broker::start(greeted)?;
        let exit = write_templates(&broker, &done).await;
        connection.close().await;
        Ok::<_, Fault>(exit)
    });
    runtime.shutdown_background();
    exit
}

fn plan(loaded: &Loaded, args: &OnboardArgs, toolhost: &Host) -> Result<Plan, Fault> {
    let unmakable = |error: std::io::Error| {
        let home = loaded.paths.home.display();
        Fault::new(Exit::Failed, "home", format!("cannot make {home}: {error}"))
            .with_hint("give --home a directory you may write to")
    };
    loaded.paths.make_private_directories().map_err(unmakable)?;
    let mut state = vec![loaded.paths.home.clone()];
    if let Some(directory) = loaded.paths.config_file.parent().filter(|directory| directory.is_dir()) {
        state.push(directory.to_path_buf());
    }
    let mut reread = loaded.secret_files.clone();
    reread.extend(args.import.as_deref().map(oneshot::typed_directory));
    let workspaces = Vec::new();
    Ok(Plan { state, reread, network: Network::Connect, workspaces, toolhost: toolhost.id() })
}

/// Tries a provider by asking for its models.
struct Probe<'a> {
    runtime: &'a Runtime,
}

impl ProviderProbe for Probe<'_> {
    fn list_models(&mut self, name: &str, provider: &ProviderConfig) -> Result<Vec<String>, ProbeError> {
        let settings = ProviderSettings {
            name: name.to_owned(),
            api_key: provider.api_key.clone(),
            api_base: provider.api_base.clone(),
            extra_headers: provider.extra_headers.clone(),
        };
        // Any model will do: which ones there are is the question.
        let opened = provider::open(&format!("{name}/any"), &[], &[settings], &ConnectOptions::default())
            .map_err(|error| ProbeError::Failed(error.to_string()))?;
        let models = self.runtime.block_on(opened.provider.list_models()).map_err(|error| {
            if let ProviderError::Unauthorized { detail, .. } = error {
                ProbeError::KeyRefused(detail)
            } else {
                ProbeError::Failed(error.to_string())
            }
        })?;
        Ok(models.into_iter().map(|model| model.id).collect())
    }
}

/// What a new workspace starts with; what is there already stays.
async fn write_templates(broker: &Broker, done: &Onboarded) -> Exit {
    let hello = broker.hello();
    let ours = oneshot::typed_directory(&done.loaded.paths.workspace);
    if hello.workspaces.first().map(String::as_str) != ours.to_str() {
        terminal::note("The workspace changed; its first files are written when onboard runs once more.");
        return Exit::Done;
    }
    for template in done.templates {
        if let Err(error) = write_template(broker, template).await {
            terminal::complain(&error.to_string());
            return Exit::Failed;
        }
    }
    Exit::Done
}

async fn write_template(broker: &Broker, template: &Template) -> Result<(), BrokerError> {
    if broker.get_file(None, template.path, MAX_TRANSFER).await.is_ok() {
        return Ok(());
    }
    broker.put_file(None, template.path, template.content.as_bytes()).await
}
