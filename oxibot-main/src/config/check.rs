//! Values of the right kind that make no sense: addresses, contradictions, clear-text passwords.
//!
//! Ranges and names are judged earlier (`reader.rs`), the sections shared with the toolhost by `oxibot-proto`. No text
//! here repeats a secret.

use std::collections::BTreeMap;
use std::net::IpAddr;

use oxibot_proto::settings::{self, SearchProvider};
use reqwest::Url;

use super::channels::{ChannelState, DmPolicy, GroupPolicy};
use super::error::{Origin, Problem};
use super::providers::ProviderConfig;
use super::{Config, secret};

/// What was found. Problems refuse the start, warnings are said.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

struct Check<'a> {
    config: &'a Config,
    origins: &'a BTreeMap<String, Origin>,
    verdict: Verdict,
}

pub(crate) fn check(config: &Config, origins: &BTreeMap<String, Origin>) -> Verdict {
    let mut check = Check { config, origins, verdict: Verdict::default() };
    check.agents();
    for (name, provider) in &config.providers {
        check.provider(name, provider);
    }
    check.channels();
    check.email();
    check.rest();
    for fault in settings::faults(&config.tools, &config.sandbox, &config.limits, &config.audit, &config.web)
    {
        check.problem(fault.key, fault.what, &fault.hint);
    }
    check.verdict
}

impl Check<'_> {
    fn make(&self, key: &str, what: impl Into<String>, hint: &str) -> Problem {
        let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
        Problem { origin, key: key.to_owned(), what: what.into(), hint: hint.to_owned() }
    }

    fn problem(&mut self, key: &str, what: impl Into<String>, hint: &str) {
        let problem = self.make(key, what, hint);
        self.verdict.problems.push(problem);
    }

    fn warning(&mut self, key: &str, what: impl Into<String>, hint: &str) {
        let warning = self.make(key, what, hint);
        self.verdict.warnings.push(warning);
    }

    fn agents(&mut self) {
        let defaults = &self.config.agents.defaults;
        if let Some(model) = &defaults.model {
            self.model("agents.defaults.model", model);
        }
        for model in &defaults.fallback_models {
            self.model("agents.defaults.fallbackModels", model);
        }
        if !defaults.fallback_models.is_empty() && defaults.model.is_none() {
            let what = "contradicts agents.defaults.model, which is not set";
            self.problem("agents.defaults.fallbackModels", what, "set agents.defaults.model too");
        }
        if defaults.max_tokens >= defaults.context_window_tokens {
            let what = format!(
                "{} contradicts agents.defaults.contextWindowTokens, which is {}: no room is left for the question",
                defaults.max_tokens, defaults.context_window_tokens
            );
            self.problem("agents.defaults.maxTokens", what, "lower the one or raise the other");
        }
        let workspace = &defaults.workspace;
        if !(workspace.starts_with('/') || workspace.starts_with("~/")) {
            let what = format!("`{}` is not an absolute path", workspace.escape_debug());
            self.problem("agents.defaults.workspace", what, "begin it with / or ~/");
        }
    }

    fn model(&mut self, key: &str, model: &str) {
        if model.is_empty() || model.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let what = format!("`{}` is no name of a model", model.escape_debug());
            self.problem(key, what, "give provider/model, for example ollama/llama3.2, or remove the key");
        }
    }

    fn provider(&mut self, name: &str, provider: &ProviderConfig) {
        let key = |last: &str| format!("providers.{name}.{last}");
        let credential = provider.extra_headers.keys().any(|header| secret::is_credential_header(header));
        let has_key = provider.api_key.is_some() || credential;
        match &provider.api_base {
            Some(base) => self.address(&key("apiBase"), base, &["https", "http"], has_key),
            None if name == "custom" && has_key => {
                self.problem(
                    &key("apiBase"),
                    "is not set",
                    "give the address of the service, https://.../v1",
                );
            }
            None => {}
        }
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        for (header, value) in &provider.extra_headers {
            if header.is_empty() || !header.chars().all(token) {
                let what = format!("`{}` is no name of a header", header.escape_debug());
                self.problem(&key("extraHeaders"), what, "use letters, digits and -");
            } else if value.chars().any(char::is_control) {
                let what = format!("the value of `{header}` holds a control character");
                self.problem(&key("extraHeaders"), what, "give it on one line");
            }
        }
    }

    /// An address must be one, hold no password, and be encrypted when a secret goes there. The first scheme is the
    /// encrypted one.
    fn address(&mut self, key: &str, text: &str, schemes: &[&str], secret: bool) {
        let form =
            format!("give an address such as {}://host/path", schemes.first().copied().unwrap_or("https"));
        if text.chars().any(char::is_control) {
            return self.problem(key, "holds a control character", &form);
        }
        let url = match Url::parse(text) {
            Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => url,
            Ok(_) => {
                return self.problem(key, format!("is not an address of {}", schemes.join(" or ")), &form);
            }
            Err(error) => return self.problem(key, format!("is not an address: {error}"), &form),
        };
        if !url.username().is_empty() || url.password().is_some() {
            self.problem(
                key,
                "holds a user name or password",
                "take it out; a key belongs into its own setting",
            );
        }
        if secret && schemes.first() != Some(&url.scheme()) && !is_loopback(&url) {
            let what = format!("a secret would go to {} unencrypted", url.host_str().unwrap_or("it"));
            let secure = schemes.first().copied().unwrap_or("https");
            self.problem(key, what, &format!("use {secure}://, or a service on this machine"));
        }
    }

    fn channels(&mut self) {
        let channels = &self.config.channels;
        if let Some(telegram) = &channels.telegram {
            use secrecy::ExposeSecret;
            let good = |proxy: &str| {
                Url::parse(proxy).is_ok_and(|url| {
                    ["http", "https", "socks5", "socks5h"].contains(&url.scheme()) && url.has_host()
                })
            };
            if telegram.proxy.as_ref().is_some_and(|proxy| !good(proxy.expose_secret())) {
                let hint = "give http://, https:// or socks5:// with host and port";
                self.problem("channels.telegram.proxy", "is not an address of a proxy", hint);
            }
        }
        if let Some((url, token)) =
            channels.discord.as_ref().and_then(|c| Some((c.gateway_url.as_deref()?, c.token.is_some())))
        {
            self.address("channels.discord.gatewayUrl", url, &["wss", "ws"], token);
        }
        if let Some(url) =
            channels.whatsapp.as_ref().and_then(|c| c.bridge_url.as_deref()).filter(|u| !u.is_empty())
        {
            // Whoever answers there reads and writes the account's messages: unencrypted only on this machine.
            self.address("channels.whatsapp.bridgeUrl", url, &["wss", "ws"], true);
        }
        if let Some(slack) = &channels.slack {
            if slack.group_policy == GroupPolicy::Allowlist && slack.group_allow_from.is_empty() {
                let hint = "list channel ids in channels.slack.groupAllowFrom";
                self.warning(
                    "channels.slack.groupPolicy",
                    "allowlist with an empty list answers nowhere",
                    hint,
                );
            }
            if slack.dm.policy == DmPolicy::Allowlist && slack.dm.allow_from.is_empty() {
                let hint = "list member ids in channels.slack.dm.allowFrom";
                self.warning("channels.slack.dm.policy", "allowlist with an empty list answers nobody", hint);
            }
        }
        for channel in channels.overview() {
            let key = format!("channels.{}", channel.name);
            let list = format!("{key}.allowedUsers");
            match &channel.state {
                ChannelState::NotConfigured { why } => {
                    self.warning(
                        &key,
                        format!("not configured: {why}"),
                        &format!("oxibot channels add {}", channel.name),
                    );
                }
                ChannelState::Configured if channel.allowed_users.is_empty() => {
                    let hint = "add your own id; [\"*\"] would admit everyone";
                    self.warning(&list, "is empty: nobody is admitted", hint);
                }
                ChannelState::Configured if channel.allowed_users.iter().any(|user| user == "*") => {
                    self.warning(&list, "admits everyone", "list the ids of the people you mean");
                }
                ChannelState::Configured | ChannelState::Disabled | ChannelState::Absent => {}
            }
        }
    }

    fn email(&mut self) {
        let Some(email) = &self.config.channels.email else { return };
        let clear = "a password would cross the network unencrypted";
        if email.imap_password.is_some() && !email.imap_use_ssl && !is_loopback_host(&email.imap_host) {
            self.problem("channels.email.imapUseSsl", clear, "set it to true");
        }
        if email.smtp_use_ssl && email.smtp_use_tls == Some(true) {
            let what = "contradicts channels.email.smtpUseSsl, which is true as well";
            self.problem(
                "channels.email.smtpUseTls",
                what,
                "keep smtpUseTls for port 587, smtpUseSsl for port 465",
            );
        }
        let encrypted = email.smtp_use_ssl || email.starttls();
        if email.smtp_password.is_some() && !encrypted && !is_loopback_host(&email.smtp_host) {
            self.problem("channels.email.smtpUseTls", clear, "set it to true");
        }
    }

    fn rest(&mut self) {
        let config = self.config;
        if config.tools.web.search.provider == SearchProvider::Searxng
            && config.tools.web.search.base_url.is_none()
        {
            let hint = "set tools.web.search.baseUrl to the address of your SearXNG";
            self.problem("tools.web.search.provider", "searxng has no address", hint);
        }
        if let Some(url) = &config.tools.web.search.base_url {
            self.address("tools.web.search.baseUrl", url, &["https", "http"], config.search_key.is_some());
        }
        let host = &config.gateway.host;
        match host.parse::<IpAddr>() {
            Ok(address) if !address.is_loopback() && config.gateway.health => {
                let what = format!("{address} is open to the network");
                self.warning("gateway.host", what, "127.0.0.1 unless this is a container");
            }
            Ok(_) => {}
            Err(_) if host == "localhost" => {}
            Err(_) => {
                let what = format!("`{}` is no address", host.escape_debug());
                self.problem("gateway.host", what, "give an IP address, for example 127.0.0.1");
            }
        }
        for entry in &config.gateway.admins {
            let known = config.channels.overview();
            let named =
                entry.split_once(':').filter(|(_, id)| !id.is_empty() && !id.contains(['*', '|', '@']));
            if !named.is_some_and(|(channel, _)| known.iter().any(|each| each.name == channel)) {
                let what = format!("`{}` is no channel and id", entry.escape_debug());
                self.problem("gateway.admins", what, "write for example telegram:123456789; a name is no id");
            }
        }
        let sessions = &config.sessions;
        if sessions.max_days != 0 && sessions.idle_days > sessions.max_days {
            let what = format!(
                "{} contradicts sessions.maxDays, which is {}",
                sessions.idle_days, sessions.max_days
            );
            self.problem("sessions.idleDays", what, "lower the one or raise the other");
        }
        let language = config.transcription.language.as_deref();
        let is_code =
            |code: &str| matches!(code.len(), 2 | 3) && code.bytes().all(|b| b.is_ascii_lowercase());
        if language.is_some_and(|code| !is_code(code)) {
            self.problem(
                "transcription.language",
                "is no language code",
                "give two or three letters, for example en",
            );
        }
        if let Some(file) = config.logging.file.as_deref()
            && !(file.starts_with('/') || file.starts_with("~/"))
        {
            let what = format!("`{}` is not an absolute path", file.escape_debug());
            self.problem("logging.file", what, "begin it with / or ~/");
        }
        if !config.tools.restrict_to_workspace {
            let what = "tools may read the whole file system, where this user may";
            self.warning("tools.restrictToWorkspace", what, "remove it to confine them to the workspace");
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback_host)
}

fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
