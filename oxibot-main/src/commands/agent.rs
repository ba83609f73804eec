//! `agent`: one message, or a conversation.
//!
//! In two steps, because main confines itself between them: [`prepare`] reads and opens what lies outside the state
//! directory (the recording, the user database) and starts no thread; [`run`] opens the conversations and talks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oxibot_proto::message::{Origin, ToolSpec};
use oxibot_proto::settings::Senders;

use crate::agent::acting::Acting;
use crate::agent::allowance::{Allowance, Sender};
use crate::agent::hands::Mind;
use crate::agent::runner::{Agent, Terms};
use crate::agent::thinking::Thinking;
use crate::agent::turn::Budget;
use crate::broker::Broker;
use crate::cli::AgentArgs;
use crate::config::{Config, Loaded};
use crate::exit::Exit;
use crate::gateway::Voice;
use crate::model::OfferedTool;
use crate::provider::{self, ConnectOptions, Opened, Provider, ProviderSettings, Recorder, Replay};
use crate::render::report::error_object;
use crate::render::terminal::{self, Terminal};
use crate::repl::{self, AtTerminal, Desk, OpenMind, Screen, screen::Detail};
use crate::store::{Expiry, Store};

/// How long cancelled calls may take to answer. The toolhost ends a call's processes at once and then looks for up to
/// 5 s whether they are gone.
const STOP_GRACE: Duration = Duration::from_secs(7);
/// Models named `replay/FILE` are recordings, played back.
const REPLAY: &str = "replay/";

/// Why there can be no conversation.
#[derive(Debug)]
pub struct Unready {
    /// The exit status.
    pub exit: Exit,
    kind: &'static str,
    message: String,
    hint: String,
}

impl Unready {
    fn new(exit: Exit, kind: &'static str, text: &str) -> Self {
        let (message, hint) = text.rsplit_once("; ").unwrap_or((text, ""));
        Self { exit, kind, message: message.to_owned(), hint: hint.to_owned() }
    }

    /// Says so, as JSON where that was asked for, and gives the exit status.
    pub fn report(self, json: bool) -> Exit {
        if json {
            drop(terminal::out(&format!("{}\n", error_object(self.kind, &self.message, &self.hint))));
        } else {
            terminal::complain(&self.message);
            if !self.hint.is_empty() {
                terminal::note(&format!("  {}", self.hint));
            }
        }
        self.exit
    }
}

/// What [`run`] needs and [`prepare`] found.
pub struct Prepared {
    args: AgentArgs,
    mind: Arc<dyn Mind>,
    open_mind: OpenMind,
    terms: Terms,
    vision: Option<bool>,
    expiry: Expiry,
    state: PathBuf,
    who: String,
    session: String,
    senders: Senders,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("terms", &self.terms)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// Everything that can be wrong before a toolhost is needed. Blocks briefly; starts no thread and connects nowhere.
///
/// # Errors
/// No model or provider (exit 78), a recording that cannot be written, an empty message (exit 2).
pub fn prepare(args: &AgentArgs, loaded: &Loaded) -> Result<Prepared, Unready> {
    if args.message.as_deref().is_some_and(|text| text.trim().is_empty()) {
        return Err(Unready::new(Exit::Usage, "usage", "cannot send an empty message; give -m some text"));
    }
    let config = &loaded.config;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => config
            .require_model()
            .map_err(|error| Unready {
                exit: Exit::Configuration,
                kind: "configuration",
                message: error.to_string(),
                hint: error.hint(),
            })?
            .to_owned(),
    };
    let opened = open(&model, &config.agents.defaults.fallback_models, &settings(config))
        .map_err(|text| Unready::new(Exit::Configuration, "configuration", &text))?;
    let opened = match &args.record {
        None => opened,
        Some(file) => record(opened, file)?,
    };
    let recording = args.record.is_some();
    let configured = settings(config);
    let open_mind: OpenMind = Box::new(move |model| {
        if recording {
            return Err("cannot change the model while recording; leave and start again".to_owned());
        }
        // No fallbacks: who names a model wants that one.
        Ok(Arc::new(Thinking::new(open(model, &[], &configured)?)))
    });
    let name = args.session.as_deref().unwrap_or("default");
    Ok(Prepared {
        args: args.clone(),
        mind: Arc::new(Thinking::new(opened)),
        open_mind,
        terms: terms(config, model),
        vision: config.agents.defaults.vision,
        expiry: expiry(config),
        state: loaded.paths.state.clone(),
        who: user(),
        session: session_key(name),
        senders: config.limits.senders,
    })
}

/// Talks. The broker's connection is the caller's to close.
pub async fn run(prepared: Prepared, broker: Broker, terminal: Terminal) -> Exit {
    let json = prepared.args.json;
    let state = prepared.state.clone();
    let desk = match desk(prepared, &broker, terminal).await {
        Ok((desk, message)) => match message {
            Some(text) => return repl::once(&desk, &text, json).await,
            None => desk,
        },
        Err(unready) => return unready.report(json),
    };
    repl::converse(desk, Some(state.join("prompt_history"))).await
}

async fn desk(
    prepared: Prepared,
    broker: &Broker,
    terminal: Terminal,
) -> Result<(Desk, Option<String>), Unready> {
    let (json, message) = (prepared.args.json, prepared.args.message.clone());
    let (vision, session, who) = (prepared.vision, prepared.session.clone(), prepared.who.clone());
    let Voice { mut agent, terms, open_mind, broker, allowance } = voice(prepared, broker).await?;
    let detail = if json { Detail::Remarks } else { Detail::All };
    let screen = Arc::new(Screen::new(terminal, detail));
    let sender = Sender { channel: "terminal".to_owned(), who: who.clone() };
    if AtTerminal::possible() {
        let origin = Origin { who: who.clone(), channel: "terminal".to_owned(), session: session.clone() };
        let acting = Acting::new(broker, origin, None);
        agent.hands = Arc::new(acting.asking(Arc::new(AtTerminal::new(Arc::clone(&screen), who))));
    }
    Ok((Desk { agent, terms, session, open_mind, vision, screen, allowance, sender }, message))
}

/// Opens the conversations and asks the toolhost what it offers. Nobody is asked about calls that need a yes.
pub(super) async fn voice(prepared: Prepared, broker: &Broker) -> Result<Voice, Unready> {
    let Prepared { mind, open_mind, terms, expiry, state, who, session, senders, args: _, vision: _ } =
        prepared;
    // Opening may wait for another process that migrates: not on the runtime's thread.
    let store = tokio::task::spawn_blocking(move || Store::open(&state))
        .await
        .map_err(|error| Unready::new(Exit::Internal, "internal", &error.to_string()))?
        .map_err(|error| {
            let (exit, kind, hint) = repl::exit_of_error(&error);
            Unready { exit, kind, message: error.to_string(), hint: hint.to_owned() }
        })?;
    let allowance = Allowance::new(senders, store.clone());
    let specs = broker
        .tools()
        .await
        .map_err(|error| Unready::new(Exit::TryAgain, "toolhost", &format!("{error}; try again")))?;
    let hello = broker.hello();
    let origin = Origin { who, channel: "terminal".to_owned(), session };
    let acting = Acting::new(broker.clone(), origin, None);
    let agent = Agent {
        store,
        hands: Arc::new(acting),
        mind,
        tool_names: specs
            .iter()
            .flat_map(|spec| std::iter::once(&spec.name).chain(&spec.aliases))
            .cloned()
            .collect(),
        tools: specs.into_iter().map(offered).collect(),
        workspace: hello.workspaces.first().cloned().unwrap_or_default(),
        level: hello.wall.level.name().to_owned(),
        expiry,
    };
    Ok(Voice { agent, terms, open_mind, broker: broker.clone(), allowance })
}

/// The key of a conversation at the terminal.
#[must_use]
pub fn session_key(name: &str) -> String {
    let name = name.strip_prefix("terminal:").unwrap_or(name);
    format!("terminal:{name}")
}

/// When conversations end, from the configuration; 0 days is never.
#[must_use]
pub fn expiry(config: &Config) -> Expiry {
    let days = |days: u32| (days > 0).then(|| Duration::from_secs(u64::from(days).saturating_mul(86_400)));
    Expiry { idle: days(config.sessions.idle_days), absolute: days(config.sessions.max_days) }
}

/// The providers of the configuration, as the provider module wants them.
#[must_use]
pub fn settings(config: &Config) -> Vec<ProviderSettings> {
    config
        .providers
        .iter()
        .map(|(name, provider)| ProviderSettings {
            name: name.clone(),
            api_key: provider.api_key.clone(),
            api_base: provider.api_base.clone(),
            extra_headers: provider.extra_headers.clone(),
        })
        .collect()
}

fn terms(config: &Config, model: String) -> Terms {
    let defaults = &config.agents.defaults;
    Terms {
        model,
        budget: Budget {
            tool_rounds: defaults.max_tool_iterations,
            tokens: Some(defaults.turn_token_budget),
            wall: Duration::from_secs(defaults.turn_timeout_seconds),
            stop_grace: STOP_GRACE,
        },
        window: u64::from(defaults.context_window_tokens),
        max_tokens: defaults.max_tokens,
        temperature: defaults.temperature,
        reasoning_effort: defaults.reasoning_effort.clone(),
    }
}

fn open(model: &str, fallbacks: &[String], configured: &[ProviderSettings]) -> Result<Opened, String> {
    if let Some(file) = model.strip_prefix(REPLAY) {
        let replay = Replay::open(Path::new(file)).map_err(|error| error.to_string())?;
        return Ok(Opened { provider: Provider::Replay(replay), model: model.to_owned() });
    }
    provider::open(model, fallbacks, configured, &ConnectOptions::default())
        .map_err(|error| error.to_string())
}

fn record(opened: Opened, file: &Path) -> Result<Opened, Unready> {
    let recorder = Recorder::new(opened.provider, file)
        .map_err(|error| Unready::new(Exit::Failed, "recording", &error.to_string()))?;
    Ok(Opened { provider: Provider::Recorder(Box::new(recorder)), model: opened.model })
}

fn offered(spec: ToolSpec) -> OfferedTool {
    let parameters = serde_json::from_str(&spec.parameters).unwrap_or_else(|error| {
        tracing::warn!(tool = %spec.name, %error, "the toolhost sent a schema that is no JSON");
        serde_json::json!({"type": "object"})
    });
    OfferedTool { name: spec.name, description: spec.description, parameters }
}

fn user() -> String {
    let uid = nix::unistd::getuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
