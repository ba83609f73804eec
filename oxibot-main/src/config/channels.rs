//! Section `channels`: where people write from, and who is admitted.
//!
//! The keys are those of the older systems; `allowFrom` is another name of `allowedUsers`. An empty list admits
//! nobody. Speaking to the services is not here.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret;

/// Every channel that can be configured.
pub const CHANNELS: [&str; 5] = ["telegram", "discord", "whatsapp", "slack", "email"];

/// Where WhatsApp's bridge listens unless said otherwise.
pub(super) const DEFAULT_BRIDGE: &str = "ws://localhost:3001";

/// Section `channels`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Channels {
    /// Telegram, by long polling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telegram: Option<Telegram>,
    /// Discord, by its gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discord: Option<Discord>,
    /// WhatsApp, by a bridge on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whatsapp: Option<Whatsapp>,
    /// Slack, by socket mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack: Option<Slack>,
    /// Mail, by IMAP and SMTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
}

/// Section `channels.telegram`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Telegram {
    /// `false` switches the channel off; unset, it is on as soon as it has what it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The bot's token, from @BotFather.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretString>,
    /// Numeric ids of those admitted; `["*"]` admits everyone, an empty list nobody.
    #[schemars(extend("x-alias" = "allowFrom"))]
    pub allowed_users: Vec<String>,
    /// When to answer in a group.
    pub group_policy: GroupPolicy,
    /// Chat ids for `groupPolicy` `allowlist`.
    pub group_allow_from: Vec<String>,
    /// Address of the Bot API, where it is not Telegram's own. `http://` only on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Proxy for this channel; kept as a secret because it may hold a password.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SecretString>,
}

/// Section `channels.discord`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Discord {
    /// `false` switches the channel off; unset, it is on as soon as it has what it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The bot's token.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretString>,
    /// Numeric ids of those admitted; `["*"]` admits everyone, an empty list nobody.
    #[schemars(extend("x-alias" = "allowFrom"))]
    pub allowed_users: Vec<String>,
    /// Address of the gateway, where it is not Discord's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_url: Option<String>,
    /// Gateway intents, as Discord numbers them; chosen by OxiBot when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intents: Option<u32>,
}

/// Section `channels.whatsapp`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Whatsapp {
    /// `false` switches the channel off; `true` without `bridgeUrl` means the bridge at ws://localhost:3001.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Address of the bridge. `ws://` only on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_url: Option<String>,
    /// What the bridge wants to hear first.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub bridge_token: Option<SecretString>,
    /// Phone numbers of those admitted, with country code; `["*"]` admits everyone, an empty list nobody.
    #[schemars(extend("x-alias" = "allowFrom"))]
    pub allowed_users: Vec<String>,
}

impl Whatsapp {
    /// Address of the bridge, if the channel has one.
    #[must_use]
    pub fn bridge(&self) -> Option<&str> {
        match (&self.bridge_url, self.enabled) {
            (Some(url), _) if !url.is_empty() => Some(url),
            (_, Some(true)) => Some(DEFAULT_BRIDGE),
            (_, Some(false) | None) => None,
        }
    }
}

/// Section `channels.slack`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Slack {
    /// `false` switches the channel off; unset, it is on as soon as it has what it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How to connect; only socket mode, which listens on no port.
    pub mode: SlackMode,
    /// The bot's token, `xoxb-`.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub bot_token: Option<SecretString>,
    /// The app's token, `xapp-`.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub app_token: Option<SecretString>,
    /// Member ids of those admitted; `["*"]` admits everyone, an empty list nobody. Holds in direct messages too.
    #[schemars(extend("x-alias" = "allowFrom"))]
    pub allowed_users: Vec<String>,
    /// When to answer in a channel.
    pub group_policy: GroupPolicy,
    /// Channel ids for `groupPolicy` `allowlist`.
    pub group_allow_from: Vec<String>,
    /// Direct messages.
    pub dm: SlackDm,
}

/// How to connect to Slack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SlackMode {
    /// An outgoing WebSocket.
    #[default]
    Socket,
}

/// When to answer in a group. Whoever writes must be admitted in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupPolicy {
    /// When mentioned.
    #[default]
    Mention,
    /// Always.
    Open,
    /// Always, in the groups listed.
    Allowlist,
}

/// Section `channels.slack.dm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SlackDm {
    /// Whether direct messages are read.
    pub enabled: bool,
    /// `open`: whoever is in `allowedUsers`; `allowlist`: only who is in `dm.allowFrom` as well.
    pub policy: DmPolicy,
    /// Member ids for `policy` `allowlist`.
    #[schemars(extend("x-alias" = "allowedUsers"))]
    pub allow_from: Vec<String>,
}

impl Default for SlackDm {
    fn default() -> Self {
        Self { enabled: true, policy: DmPolicy::Open, allow_from: Vec::new() }
    }
}

/// Whose direct messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DmPolicy {
    /// Those of everyone admitted to the channel.
    Open,
    /// Those of the people listed.
    Allowlist,
}

/// Section `channels.email`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Email {
    /// `false` switches the channel off; unset, it is on as soon as it has what it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// `false` keeps the mailbox unread; asked for by an older system, and `true` or unset here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consent_granted: Option<bool>,
    /// Server to read from.
    pub imap_host: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65_535))]
    pub imap_port: u16,
    /// User there.
    pub imap_username: String,
    /// Password there.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub imap_password: Option<SecretString>,
    /// Mailbox to read.
    pub imap_mailbox: String,
    /// TLS from the first byte.
    pub imap_use_ssl: bool,
    /// Server to send by.
    pub smtp_host: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65_535))]
    pub smtp_port: u16,
    /// User there.
    pub smtp_username: String,
    /// Password there.
    #[schemars(schema_with = "secret::schema")]
    #[serde(serialize_with = "secret::masked", skip_serializing_if = "Option::is_none")]
    pub smtp_password: Option<SecretString>,
    /// STARTTLS. Without a word here it is on, unless `smtpUseSsl` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_use_tls: Option<bool>,
    /// TLS from the first byte.
    pub smtp_use_ssl: bool,
    /// Sender of replies; `smtpUsername` when empty.
    pub from_address: String,
    /// Whether mail is answered.
    pub auto_reply_enabled: bool,
    /// Seconds between two looks at the mailbox.
    #[schemars(range(min = 5, max = 86_400))]
    pub poll_interval_seconds: u32,
    /// Whether answered mail is marked as read.
    pub mark_seen: bool,
    /// Most characters of a mail the model sees.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_body_chars: u32,
    /// Put before the subject of a reply.
    pub subject_prefix: String,
    /// Name by which your mail server signs `Authentication-Results`; the first word of that field in a mail you received.
    pub authserv_id: String,
    /// Whether a sender must be proven (SPF, DKIM or DMARC). `false` admits whoever writes an admitted address.
    pub require_authentication: bool,
    /// Most mails of one sender that are answered in an hour.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_mails_per_hour: u32,
    /// Addresses of those admitted; `["*"]` admits everyone, an empty list nobody.
    #[schemars(extend("x-alias" = "allowFrom"))]
    pub allowed_users: Vec<String>,
}

impl Default for Email {
    fn default() -> Self {
        Self {
            enabled: None,
            consent_granted: None,
            imap_host: String::new(),
            imap_port: 993,
            imap_username: String::new(),
            imap_password: None,
            imap_mailbox: "INBOX".into(),
            imap_use_ssl: true,
            smtp_host: String::new(),
            smtp_port: 587,
            smtp_username: String::new(),
            smtp_password: None,
            smtp_use_tls: None,
            smtp_use_ssl: false,
            from_address: String::new(),
            auto_reply_enabled: true,
            poll_interval_seconds: 30,
            mark_seen: true,
            max_body_chars: 12_000,
            subject_prefix: "Re: ".into(),
            authserv_id: String::new(),
            require_authentication: true,
            max_mails_per_hour: 60,
            allowed_users: Vec::new(),
        }
    }
}

impl Email {
    /// Whether mail leaves by STARTTLS.
    #[must_use]
    pub fn starttls(&self) -> bool {
        self.smtp_use_tls.unwrap_or(!self.smtp_use_ssl)
    }
}

/// Whether a channel can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelState {
    /// No word about it.
    Absent,
    /// Switched off by `enabled`.
    Disabled,
    /// Something is there, but not all it needs.
    NotConfigured {
        /// What is missing, for example `allowedUsers without token`.
        why: String,
    },
    /// It has what it needs.
    Configured,
}

/// What is known of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelOverview<'a> {
    /// Its name.
    pub name: &'static str,
    /// Whether it can start.
    pub state: ChannelState,
    /// Who is admitted.
    pub allowed_users: &'a [String],
}

impl ChannelOverview<'_> {
    /// Who is admitted, in words.
    #[must_use]
    pub fn admits(&self) -> String {
        match self.allowed_users {
            [] => "nobody".into(),
            users if users.iter().any(|user| user == "*") => "everyone".into(),
            [_] => "1 person".into(),
            users => format!("{} people", users.len()),
        }
    }
}

impl Channels {
    /// All channels, in a fixed order, whether configured or not.
    #[must_use]
    pub fn overview(&self) -> Vec<ChannelOverview<'_>> {
        let telegram = self.telegram.as_ref();
        let discord = self.discord.as_ref();
        let whatsapp = self.whatsapp.as_ref();
        let slack = self.slack.as_ref();
        let email = self.email.as_ref();
        vec![
            overview(
                "telegram",
                telegram.map(|c| (c.enabled, &c.allowed_users, vec![("token", c.token.is_some())])),
            ),
            overview(
                "discord",
                discord.map(|c| (c.enabled, &c.allowed_users, vec![("token", c.token.is_some())])),
            ),
            overview(
                "whatsapp",
                whatsapp.map(|c| (c.enabled, &c.allowed_users, vec![("bridgeUrl", c.bridge().is_some())])),
            ),
            overview(
                "slack",
                slack.map(|c| {
                    let needs =
                        vec![("botToken", c.bot_token.is_some()), ("appToken", c.app_token.is_some())];
                    (c.enabled, &c.allowed_users, needs)
                }),
            ),
            overview(
                "email",
                email.map(|c| {
                    let needs = vec![
                        ("imapHost", !c.imap_host.is_empty()),
                        ("imapPassword", c.imap_password.is_some()),
                        ("smtpHost", !c.smtp_host.is_empty()),
                        ("smtpPassword", c.smtp_password.is_some()),
                        ("consentGranted", c.consent_granted != Some(false)),
                        ("authservId", !c.require_authentication || !c.authserv_id.trim().is_empty()),
                    ];
                    (c.enabled, &c.allowed_users, needs)
                }),
            ),
        ]
    }
}

type Needs<'a> = (Option<bool>, &'a Vec<String>, Vec<(&'static str, bool)>);

fn overview<'a>(name: &'static str, channel: Option<Needs<'a>>) -> ChannelOverview<'a> {
    let Some((enabled, allowed_users, needs)) = channel else {
        return ChannelOverview { name, state: ChannelState::Absent, allowed_users: &[] };
    };
    let missing: Vec<&str> = needs.iter().filter(|(_, there)| !there).map(|(key, _)| *key).collect();
    let state = if enabled == Some(false) {
        ChannelState::Disabled
    } else if missing.is_empty() {
        ChannelState::Configured
    } else {
        let missing = missing.join(", ");
        let why = if allowed_users.is_empty() {
            format!("{missing} missing")
        } else {
            format!("allowedUsers without {missing}")
        };
        ChannelState::NotConfigured { why }
    };
    ChannelOverview { name, state, allowed_users }
}
