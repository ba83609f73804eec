//! `gateway`: all configured channels, until it is ended.
//!
//! What can be wrong is said before anything is confined or connected: no model, no channel, a list that admits nobody.
//! The health socket is opened here for the same reason: a confined main
//! may listen nowhere.

use std::sync::Arc;

use crate::channels::Channel;
use crate::channels::admission::{Identity, People, people};
use crate::channels::email::Email;
use crate::channels::telegram::{self, Telegram};
use crate::cli::{AgentArgs, Global};
use crate::config::{ChannelState, Config, GroupPolicy, Loaded, WorkspaceScope};
use crate::confine::Network;
use crate::exit::Exit;
use crate::gateway::{self, Door, Exits, Listener, Rooms, Setup};
use crate::launch::{OnHangUp, Purpose};
use crate::render::terminal;
use crate::repl;
use crate::store::lock_gateway;

use super::agent::{self, Prepared};
use super::conversation::{Check, Ended, launcher, under_launcher};
use super::fault::{self, Fault};
use super::oneshot::{Needs, State};

/// Channels this program can speak to.
const SPOKEN: [&str; 2] = ["telegram", "email"];

struct Ready {
    prepared: Prepared,
    setups: Vec<Setup>,
    admins: Vec<String>,
    rooms: Rooms,
    listener: Option<Listener>,
    state: std::path::PathBuf,
}

/// Runs it, whichever process this is.
pub(super) fn run(global: &Global) -> Exit {
    if !global.launched {
        return launcher(global, false, OnHangUp::Reload);
    }
    let needs = Needs {
        workspaces: Vec::new(),
        network: Network::Connect,
        state: State::Used,
        json: false,
        web: true,
        purpose: Purpose::LongLived,
    };
    let exits = Exits::default();
    let again = global.clone();
    let check: Check = Box::new(move || {
        let loaded = fault::load_quietly(&again)?;
        loaded.config.require_model()?;
        setups(&loaded.config).map(drop)
    });
    under_launcher(global, &needs, prepare, Ended::Told(exits.clone(), check), async |ready, broker| {
        let Ready { prepared, setups, admins, rooms, listener, state } = ready;
        let _only_one = match lock_gateway(&state) {
            Ok(lock) => lock,
            Err(error) => {
                let (exit, kind, hint) = repl::exit_of_error(&error);
                return Fault::new(exit, kind, error.to_string()).with_hint(hint).report(false);
            }
        };
        let voice = match agent::voice(prepared, &broker).await {
            Ok(voice) => voice,
            Err(unready) => return unready.report(false),
        };
        gateway::run(voice, setups, (&admins, rooms), listener, &exits).await
    })
}

fn prepare(loaded: &Loaded) -> Result<Ready, Exit> {
    let prepared = agent::prepare(&no_message(), loaded).map_err(|unready| unready.report(false))?;
    let config = &loaded.config;
    let setups = setups(config).map_err(|fault| fault.report(false))?;
    let admins = admins(config, &setups);
    if nix::unistd::geteuid().is_root() {
        terminal::complain("the gateway runs as root; give it a user of its own");
    }
    let gateway = &config.gateway;
    let listener = if gateway.health {
        match Listener::bind(&gateway.host, gateway.port) {
            Ok(listener) => Some(listener),
            Err(error) => {
                terminal::complain(&format!(
                    "cannot listen on {}:{}: {error}; going on without the health port",
                    gateway.host, gateway.port
                ));
                None
            }
        }
    } else {
        None
    };
    let rooms = Rooms::new(scope(config), &loaded.paths.home);
    Ok(Ready { prepared, setups, admins, rooms, listener, state: loaded.paths.state.clone() })
}

/// Who shares a workspace. Unset, people share none as soon as there is more than one.
fn scope(config: &Config) -> WorkspaceScope {
    let overview = config.channels.overview();
    let started = overview.iter().filter(|channel| channel.state == ChannelState::Configured);
    let admitted: Vec<String> = started.flat_map(|channel| channel.allowed_users).cloned().collect();
    config.agents.workspace_scope.unwrap_or(match people(&admitted) {
        People::Nobody | People::One => WorkspaceScope::Shared,
        People::Many => WorkspaceScope::Sender,
    })
}

/// Administrators: those listed; without a list the one who is admitted, where it is one.
fn admins(config: &Config, setups: &[Setup]) -> Vec<String> {
    let listed = &config.gateway.admins;
    if !listed.is_empty() {
        return listed.clone();
    }
    let admitted: Vec<String> = setups.iter().flat_map(|setup| setup.door.allowed.clone()).collect();
    if people(&admitted) != People::One {
        return Vec::new();
    }
    let named = |setup: &Setup| {
        let channel = setup.channel.name();
        setup.door.allowed.iter().map(move |id| format!("{channel}:{}", id.trim())).collect::<Vec<_>>()
    };
    setups.iter().flat_map(named).collect()
}

fn no_message() -> AgentArgs {
    AgentArgs { message: None, session: None, model: None, record: None, json: false }
}

fn setups(config: &Config) -> Result<Vec<Setup>, Fault> {
    let refused =
        |text: String, hint: &str| Fault::new(Exit::Configuration, "configuration", text).with_hint(hint);
    let mut ready = Vec::new();
    for overview in config.channels.overview() {
        match &overview.state {
            ChannelState::Absent | ChannelState::Disabled => {}
            ChannelState::NotConfigured { why } => {
                terminal::complain(&format!("channels.{} is not configured: {why}", overview.name));
            }
            ChannelState::Configured if !SPOKEN.contains(&overview.name) => {
                return Err(refused(
                    format!("cannot start channels.{}: this version does not speak to it yet", overview.name),
                    "set its `enabled` to false to start the other channels",
                ));
            }
            ChannelState::Configured => {
                if overview.allowed_users.is_empty() {
                    terminal::complain(&format!(
                        "channels.{}.allowedUsers is empty: nobody is admitted; put your id there",
                        overview.name
                    ));
                }
                ready.push(overview);
            }
        }
    }
    if ready.is_empty() {
        return Err(refused(
            "cannot start the gateway: no channel is configured".to_owned(),
            "put for example channels.telegram.token and channels.telegram.allowedUsers into the configuration, see \
             `oxibot config path`",
        ));
    }
    let mut setups = Vec::new();
    if let Some(telegram) = &config.channels.telegram
        && let Some(token) = &telegram.token
        && ready.iter().any(|overview| overview.name == "telegram")
    {
        let settings = telegram::Settings {
            token,
            base_url: telegram.base_url.as_deref(),
            proxy: telegram.proxy.as_ref(),
        };
        let channel = Telegram::new(&settings).map_err(|text| refused(text, "see `oxibot config check`"))?;
        let door = Door {
            allowed: telegram.allowed_users.clone(),
            identity: Identity::Opaque,
            group_policy: telegram.group_policy,
            groups: telegram.group_allow_from.clone(),
            // Where a group has a workspace of its own, nobody's memory is in it.
            in_groups: config.groups.memory || scope(config) != WorkspaceScope::Shared,
        };
        setups.push(Setup { channel: Arc::new(channel) as Arc<dyn Channel>, door });
    }
    if let Some(email) = &config.channels.email
        && ready.iter().any(|overview| overview.name == "email")
    {
        let channel = Email::new(email).map_err(|text| refused(text, "see `oxibot config check`"))?;
        let door = Door {
            allowed: email.allowed_users.clone(),
            identity: Identity::Address,
            group_policy: GroupPolicy::Mention,
            groups: Vec::new(),
            in_groups: false,
        };
        setups.push(Setup { channel: Arc::new(channel) as Arc<dyn Channel>, door });
    }
    Ok(setups)
}
