//! The questions of `onboard`, and how `--yes` answers them.
//!
//! It decides what to write; it opens no file.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::{Console, OnboardError, ProbeError, ProviderProbe, Request};
use crate::config::{Config, KEYLESS, Origin, PROVIDERS, ProviderConfig, variable_of};

/// How often a refused key is asked for again.
const TRIES: usize = 3;

/// Most models shown at once; OpenRouter has hundreds.
const SHOWN: usize = 20;

/// What was chosen.
pub(super) struct Answers {
    provider: String,
    /// A key that was typed; one from the environment stays there.
    key: Option<SecretString>,
    /// An address that was typed.
    base: Option<String>,
    /// Without the provider's prefix.
    model: String,
}

impl Answers {
    /// Adds them to a configuration; what is set there stays.
    pub(super) fn put_into(self, tree: &mut Value) {
        let model = Value::String(format!("{}/{}", self.provider, self.model));
        set(tree, &["agents", "defaults", "model"], model);
        // The section by itself says that the provider is meant, also when the key is elsewhere.
        set(tree, &["providers", &self.provider], Value::Object(Map::new()));
        if let Some(key) = self.key {
            set(
                tree,
                &["providers", &self.provider, "apiKey"],
                Value::String(key.expose_secret().to_owned()),
            );
        }
        if let Some(base) = self.base {
            set(tree, &["providers", &self.provider, "apiBase"], Value::String(base));
        }
    }
}

/// Sets a key unless it has a value; `""` and `null` are none.
fn set(tree: &mut Value, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        if tree.is_null() || tree.as_str() == Some("") {
            *tree = value;
        }
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    if let Value::Object(map) = tree {
        set(map.entry((*first).to_owned()).or_insert(Value::Null), rest, value);
    }
}

pub(super) fn ask(
    request: &Request<'_>,
    config: &Config,
    origins: &BTreeMap<String, Origin>,
    probe: &mut dyn ProviderProbe,
    console: &mut Console<'_>,
) -> Result<Answers, OnboardError> {
    let ollama = probe.local_ollama();
    if request.yes {
        return decide(config, ollama, probe, console);
    }
    console.say("Welcome to OxiBot. Three questions, then you can talk to it.\n")?;
    let provider = choose_provider(config, ollama.as_deref(), console)?;
    let mut settings = config.providers.get(&provider).cloned().unwrap_or_default();
    let mut base = None;
    if provider == "custom" && settings.api_base.is_none() {
        base = Some(ask_base(console)?);
        settings.api_base.clone_from(&base);
    }
    let (key, models) = match &ollama {
        Some(models) if provider == "ollama" && settings.api_base.is_none() => (None, models.clone()),
        Some(_) | None => ask_key(&provider, &mut settings, origins, probe, console)?,
    };
    let model = choose_model(&provider, &models, console)?;
    Ok(Answers { provider, key, base, model })
}

/// `--yes`: the one provider with a key, else the ollama that runs; a model only where there is no choice to make.
fn decide(
    config: &Config,
    ollama: Option<Vec<String>>,
    probe: &mut dyn ProviderProbe,
    console: &mut Console<'_>,
) -> Result<Answers, OnboardError> {
    let model_variable = variable_of("agents.defaults.model");
    let ready: Vec<&String> = config
        .providers
        .iter()
        .filter(|(_, provider)| provider.api_key.is_some() || provider.api_base.is_some())
        .map(|(name, _)| name)
        .collect();
    let (provider, models) = match (ready.as_slice(), ollama) {
        ([one], _) => {
            let settings = config.providers.get(*one).cloned().unwrap_or_default();
            let models = probe
                .list_models(one, &settings)
                .map_err(|cause| OnboardError::Provider { provider: (*one).clone(), cause })?;
            console.say(&format!("{one} answers; it offers {} models.", models.len()))?;
            ((*one).clone(), models)
        }
        ([], Some(models)) => ("ollama".to_owned(), models),
        ([], None) => {
            let hint = format!(
                "set {}_FILE to a file with a key, or start ollama",
                variable_of("providers.openrouter.apiKey")
            );
            return Err(OnboardError::Undecided { what: "a provider", hint });
        }
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
            let hint = format!("set {model_variable} to one of {}/MODEL", names.join("/MODEL, "));
            return Err(OnboardError::Undecided { what: "one of several providers", hint });
        }
    };
    // ollama lists what somebody pulled on purpose, the newest first.
    match models.as_slice() {
        [model, ..] if provider == "ollama" || models.len() == 1 => {
            console.say(&format!("Model: {provider}/{model}"))?;
            Ok(Answers { model: model.clone(), provider, key: None, base: None })
        }
        [] if provider == "ollama" => {
            let hint = "pull one first: ollama pull llama3.2".into();
            Err(OnboardError::Undecided { what: "a model", hint })
        }
        models => {
            let some: Vec<&str> = models.iter().take(3).map(String::as_str).collect();
            let example = some.first().copied().unwrap_or("MODEL");
            let hint = format!(
                "set {model_variable}, for example to {provider}/{example}; it offers {}",
                some.join(", ")
            );
            Err(OnboardError::Undecided { what: "a model", hint })
        }
    }
}

fn choose_provider(
    config: &Config,
    ollama: Option<&[String]>,
    console: &mut Console<'_>,
) -> Result<String, OnboardError> {
    let has_key = |name: &str| config.providers.get(name).is_some_and(|provider| provider.api_key.is_some());
    let mut names: Vec<&str> = PROVIDERS.to_vec();
    // What works at once comes first, then what offers most models; the rest by name.
    let rank = |name: &str| match name {
        "ollama" if ollama.is_some() => 0,
        name if has_key(name) => 1,
        "openrouter" => 2,
        _ => 3,
    };
    names.sort_by_key(|name| (rank(name), *name));
    console.say("Where shall the model come from?")?;
    for (number, name) in names.iter().enumerate() {
        let note = match (*name, ollama) {
            ("ollama", Some(models)) => format!(" (runs on this machine, {} models)", models.len()),
            (name, _) if has_key(name) => " (key found)".to_owned(),
            ("openrouter", _) => " (one key for many models)".to_owned(),
            ("custom", _) => " (any OpenAI-compatible service)".to_owned(),
            _ => String::new(),
        };
        console.say(&format!("  {:>2}  {name}{note}", number + 1))?;
    }
    loop {
        let answer = console.ask("Number or name [1]: ")?.to_lowercase();
        let number = if answer.is_empty() { Some(1) } else { answer.parse::<usize>().ok() };
        let chosen = match number {
            Some(number) => number.checked_sub(1).and_then(|index| names.get(index)).copied(),
            None => names.iter().find(|name| **name == answer).copied(),
        };
        match chosen {
            Some(name) => return Ok(name.to_owned()),
            None => console.say(&format!("Please give a number from 1 to {}, or a name.", names.len()))?,
        }
    }
}

fn ask_base(console: &mut Console<'_>) -> Result<String, OnboardError> {
    loop {
        let answer = console.ask("Address of the service, such as https://host/v1: ")?;
        let document = serde_json::json!({ "providers": { "custom": { "apiBase": answer } } }).to_string();
        match crate::config::parse(document.as_bytes(), std::path::Path::new("answer")) {
            Ok(_) => return Ok(answer),
            Err(error) => console.say(&format!("That cannot be used: {}", error.hint()))?,
        }
    }
}

/// Asks for the key where one is needed and tries it. Returns what was typed, and the models on offer.
fn ask_key(
    name: &str,
    settings: &mut ProviderConfig,
    origins: &BTreeMap<String, Origin>,
    probe: &mut dyn ProviderProbe,
    console: &mut Console<'_>,
) -> Result<(Option<SecretString>, Vec<String>), OnboardError> {
    let given = settings.api_key.is_some();
    if given {
        let from = origins.get(&format!("providers.{name}.apiKey"));
        let from = from.map_or_else(|| "the configuration".to_owned(), ToString::to_string);
        console.say(&format!("The key from {from} is used."))?;
    }
    let mut last = ProbeError::Failed("no key was given".into());
    for _ in 0..TRIES {
        let mut typed = None;
        if !given {
            let optional = KEYLESS.contains(&name);
            let end = if optional { "empty for none" } else { "it is not shown" };
            typed = console.ask_hidden(&format!("Key for {name} ({end}): "))?;
            if typed.is_none() && !optional {
                continue;
            }
            if let Some(key) = &typed {
                crate::redaction::learn(&format!("providers.{name}.apiKey"), key);
            }
            settings.api_key.clone_from(&typed);
        }
        console.say(&format!("Asking {name} for its models ..."))?;
        match probe.list_models(name, settings) {
            Ok(models) => {
                console.say(&format!("It works: {} models.", models.len()))?;
                return Ok((typed, models));
            }
            Err(refused @ ProbeError::KeyRefused(_)) if !given => {
                console.say(&format!("{name}: {refused}"))?;
                last = refused;
            }
            Err(error @ ProbeError::Failed(_)) => {
                console.say(&format!("{name}: {error}"))?;
                if console.confirm("Keep these settings without having tried them?", false)? {
                    return Ok((typed, Vec::new()));
                }
                last = error;
            }
            Err(cause @ ProbeError::KeyRefused(_)) => {
                return Err(OnboardError::Provider { provider: name.to_owned(), cause });
            }
        }
    }
    Err(OnboardError::Provider { provider: name.to_owned(), cause: last })
}

/// From the list, by number or by part of the name; without a list, as typed.
fn choose_model(name: &str, models: &[String], console: &mut Console<'_>) -> Result<String, OnboardError> {
    let mut shown: Vec<&String> = if models.len() <= SHOWN { models.iter().collect() } else { Vec::new() };
    if models.len() > SHOWN {
        console.say(&format!("{name} offers {} models. Type part of a name to see which.", models.len()))?;
    }
    loop {
        for (number, model) in shown.iter().enumerate() {
            console.say(&format!("  {:>2}  {model}", number + 1))?;
        }
        let answer =
            console.ask(if shown.is_empty() { "Model: " } else { "Model, number or part of a name: " })?;
        let picked =
            answer.parse::<usize>().ok().and_then(|number| shown.get(number.checked_sub(1)?).copied());
        let exact = models.iter().find(|model| **model == answer);
        if let Some(model) = picked.or(exact) {
            return Ok(model.clone());
        }
        let is_name = !answer.is_empty() && !answer.chars().any(|c| c.is_whitespace() || c.is_control());
        if !is_name {
            continue;
        }
        if models.is_empty() {
            return Ok(answer);
        }
        let part = answer.to_lowercase();
        let found: Vec<&String> =
            models.iter().filter(|model| model.to_lowercase().contains(&part)).collect();
        match found.len() {
            0 if console
                .confirm(&format!("{name} does not list `{answer}`. Take it all the same?"), false)? =>
            {
                return Ok(answer);
            }
            0 => {}
            count if count > SHOWN => {
                console.say(&format!("{count} models match; type more of the name."))?
            }
            _ => shown = found,
        }
    }
}
