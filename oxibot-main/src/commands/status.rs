//! `oxibot status`: what is configured, in one screen. It prints no byte of a key and asks nobody.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::agent::prompt::date_of;
use crate::config::{ChannelState, Loaded, PROVIDERS};
use crate::render::neutral;
use crate::store::post::{DeadLetter, Waiting};
use crate::store::{Database, StoreError};

/// Dead letters shown.
const MOST_DEAD: u32 = 5;

/// Prints the overview, for people or as one JSON object. Returns the exit status, 0.
///
/// # Errors
/// Those of the output.
pub fn run(loaded: &Loaded, json: bool, out: &mut dyn Write) -> io::Result<u8> {
    if json {
        serde_json::to_writer_pretty(&mut *out, &overview(loaded))?;
        writeln!(out)?;
    } else {
        for_people(loaded, out)?;
    }
    Ok(0)
}

fn overview(loaded: &Loaded) -> Value {
    let config = &loaded.config;
    let providers: Vec<Value> = PROVIDERS
        .iter()
        .map(|name| {
            let provider = config.providers.get(*name);
            let key = format!("providers.{name}.apiKey");
            json!({
                "name": name,
                "configured": provider.is_some_and(|provider| provider.is_configured(name)),
                "key_from": loaded.origins.get(&key).map(ToString::to_string),
                "api_base": provider.and_then(|provider| provider.api_base.as_deref()),
            })
        })
        .collect();
    let channels: Vec<Value> = config
        .channels
        .overview()
        .iter()
        .map(|channel| {
            let (state, detail) = state(&channel.state);
            json!({ "name": channel.name, "state": state, "detail": detail, "admits": channel.admits() })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "config": { "path": loaded.paths.config_file.display().to_string(), "found": loaded.file_found },
        "home": loaded.paths.home.display().to_string(),
        "workspace": loaded.paths.workspace.display().to_string(),
        "model": config.agents.defaults.model,
        "fallback_models": config.agents.defaults.fallback_models,
        "providers": providers,
        "channels": channels,
        "post": match post(loaded) {
            None => Value::Null,
            Some(Err(error)) => json!({ "error": error.to_string() }),
            Some(Ok((waiting, dead))) => json!({
                "inbound": waiting.inbound, "outbound": waiting.outbound, "dead": waiting.dead,
                "dead_letters": dead.iter().map(|letter| json!({
                    "conversation": letter.conversation, "fault": letter.fault, "at_ms": letter.at,
                })).collect::<Vec<_>>(),
            }),
        },
        "gateway": { "host": config.gateway.host, "port": config.gateway.port, "health": config.gateway.health },
        "restrict_to_workspace": config.tools.restrict_to_workspace,
        "sandbox_require": config.sandbox.require.name(),
        "warnings": loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// What the gateway has not answered, not delivered and given up; none where no conversation was ever kept.
fn post(loaded: &Loaded) -> Option<Result<(Waiting, Vec<DeadLetter>), StoreError>> {
    let state = &loaded.paths.state;
    state.join("conversations.db").exists().then(|| {
        let database = Database::open(state)?;
        Ok((database.waiting()?, database.dead(MOST_DEAD)?))
    })
}

fn state(state: &ChannelState) -> (&'static str, Option<&str>) {
    match state {
        ChannelState::Absent => ("not configured", None),
        ChannelState::NotConfigured { why } => ("not configured", Some(why)),
        ChannelState::Disabled => ("disabled", None),
        ChannelState::Configured => ("configured", None),
    }
}

fn for_people(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let config = &loaded.config;
    writeln!(out, "OxiBot {}", env!("CARGO_PKG_VERSION"))?;
    let found = if loaded.file_found { "" } else { " (not there: defaults)" };
    writeln!(out, "config     {}{found}", loaded.paths.config_file.display())?;
    writeln!(out, "home       {}", loaded.paths.home.display())?;
    writeln!(out, "workspace  {}", loaded.paths.workspace.display())?;
    let model = config.agents.defaults.model.as_deref();
    writeln!(out, "model      {}", model.unwrap_or("not chosen: run `oxibot onboard`"))?;
    let confined = if config.tools.restrict_to_workspace { "to the workspace" } else { "to read everything" };
    writeln!(out, "tools      confined {confined}, sandbox at least {}", config.sandbox.require.name())?;
    let gateway = &config.gateway;
    let health = if gateway.health { "" } else { " (off)" };
    writeln!(out, "health     {}:{}{health}", gateway.host, gateway.port)?;

    writeln!(out, "\nproviders")?;
    let (mut absent, mut any) = (Vec::new(), false);
    for name in PROVIDERS {
        let Some(provider) = config.providers.get(name).filter(|provider| provider.is_configured(name))
        else {
            absent.push(name);
            continue;
        };
        any = true;
        let key = match loaded.origins.get(&format!("providers.{name}.apiKey")) {
            Some(origin) => format!("key from {origin}"),
            None => "no key".into(),
        };
        let base = provider.api_base.as_deref().map(|base| format!(", at {base}")).unwrap_or_default();
        writeln!(out, "  {name:<11} configured: {key}{base}")?;
    }
    let others = absent.join(" ");
    writeln!(
        out,
        "  not configured: {}",
        if any { others } else { "none of them; run `oxibot onboard`".into() }
    )?;

    writeln!(out, "\nchannels")?;
    for channel in config.channels.overview() {
        let (state, detail) = state(&channel.state);
        let more = match (&channel.state, detail) {
            (ChannelState::Configured, _) => format!(", admits {}", channel.admits()),
            (_, Some(detail)) => format!(": {detail}"),
            (_, None) => String::new(),
        };
        writeln!(out, "  {:<11} {state}{more}", channel.name)?;
    }
    match post(loaded) {
        None => {}
        Some(Err(error)) => writeln!(out, "\npost\n  {error}")?,
        Some(Ok((Waiting { inbound, outbound, dead }, letters))) => {
            writeln!(
                out,
                "\npost\n  {inbound} messages without an answer, {outbound} deliveries waiting, {dead} given up"
            )?;
            for letter in letters {
                let (to, why) = (neutral::line(&letter.conversation, 60), neutral::line(&letter.fault, 200));
                writeln!(out, "  given up on {}: {to}: {why}", date_of(letter.at))?;
            }
        }
    }
    for warning in &loaded.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Options, load};

    fn loaded(variables: &[(&str, &str)]) -> Loaded {
        let options = Options { home: Some("/nonexistent/home".into()), config: None };
        load(&options, &Environment::of(variables)).unwrap()
    }

    fn said(loaded: &Loaded, json: bool) -> String {
        let mut out = Vec::new();
        assert_eq!(run(loaded, json, &mut out).unwrap(), 0);
        String::from_utf8(out).unwrap()
    }

    const SOME: [(&str, &str); 5] = [
        ("HOME", "/"),
        ("OXIBOT_PROVIDERS__XAI__API_KEY", "sk-4711"),
        ("OXIBOT_CHANNELS__EMAIL__ALLOWED_USERS", "[\"a@example.com\"]"),
        ("OXIBOT_CHANNELS__TELEGRAM__TOKEN", "tg-4711"),
        ("OXIBOT_CHANNELS__TELEGRAM__ALLOWED_USERS", "[\"1\"]"),
    ];

    #[test]
    fn people_see_what_is_configured_and_no_key() {
        let text = said(&loaded(&SOME), false);
        for line in [
            "config     /nonexistent/home/config.json (not there: defaults)",
            "workspace  /nonexistent/home/workspace",
            "model      not chosen: run `oxibot onboard`",
            "health     127.0.0.1:18790",
            "  xai         configured: key from OXIBOT_PROVIDERS__XAI__API_KEY",
            "  telegram    configured, admits 1 person",
            "  email       not configured: allowedUsers without imapHost",
            "  slack       not configured\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("4711"), "{text}");
    }

    #[test]
    fn programs_get_one_object_and_no_key() {
        let text = said(&loaded(&SOME), true);
        assert!(!text.contains("4711"), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "channels",
                "config",
                "fallback_models",
                "gateway",
                "home",
                "model",
                "post",
                "providers",
                "restrict_to_workspace",
                "sandbox_require",
                "version",
                "warnings",
                "workspace"
            ]
        );
        let xai = value["providers"].as_array().unwrap().iter().find(|p| p["name"] == "xai").unwrap();
        assert_eq!(xai["configured"], true);
        assert_eq!(value["channels"][4]["state"], "not configured");
        assert_eq!(value["model"], Value::Null);
    }
}
