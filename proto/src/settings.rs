//! The configuration sections the toolhost obeys, in the form both processes read.
//!
//! Main validates them as part of the whole file and shows them in the schema; the toolhost takes them from the file
//! itself and never from main. No secret is among them. Unknown keys are errors in both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::message::{Level, Verdict};
use crate::reach::Network;
use crate::web::Exception;

/// Everything the toolhost reads.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ToolhostSettings {
    /// What tools may do.
    pub tools: Tools,
    /// The kernel wall.
    pub sandbox: Sandbox,
    /// Limits for each call and each sender.
    pub limits: Limits,
    /// What is wise: rules for commands, beside those that come with the product.
    pub policy: Policy,
    /// The web tools' address guard.
    pub web: WebAccess,
    /// Who says yes to what the policy asks about.
    pub approvals: Approvals,
    /// The record of what was done.
    pub audit: Audit,
    /// Workspaces admitted, absolute paths; the first is the default. Filled from `agents`, not a section of its own.
    pub workspaces: Vec<String>,
    /// Whether people may have workspaces of their own: always, but where `agents.workspaceScope` says `shared`.
    pub people: bool,
}

/// Section `tools`, the part the toolhost reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tools {
    /// Confine tools to the workspace. `false` shows the rest of the file system read-only.
    pub restrict_to_workspace: bool,
    /// The `bash` tool (also `exec`, its older name).
    #[serde(alias = "bash")]
    #[cfg_attr(feature = "schema", schemars(extend("x-alias" = "bash")))]
    pub exec: Exec,
    /// Tools that are not offered, by canonical name.
    pub disabled: Vec<String>,
    /// The web tools.
    pub web: Web,
}

impl Default for Tools {
    fn default() -> Self {
        Self { restrict_to_workspace: true, exec: Exec::default(), disabled: Vec::new(), web: Web::default() }
    }
}

/// Section `tools.web`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Web {
    /// The `web_search` tool.
    pub search: WebSearch,
}

/// Section `tools.web.search` without `apiKey`: whoever reads the file takes the key out first, because no process
/// that reads this type may know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebSearch {
    /// The search service.
    pub provider: SearchProvider,
    /// Results of one search unless it asks for another number, 1 to 20.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 20)))]
    pub max_results: u32,
    /// Address of the service, where it is not the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
}

impl Default for WebSearch {
    fn default() -> Self {
        Self { provider: SearchProvider::Brave, max_results: 5, base_url: None }
    }
}

/// Section `web`: what the web tools may reach.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebAccess {
    /// Addresses that are not public and may be reached all the same: CIDR and port, for example `10.1.0.0/16:443`,
    /// `127.0.0.1:8080` or `[fd00::/8]:443`; without a port, every port.
    pub allow_private: Vec<String>,
}

/// Most entries of `web.allowPrivate`. They travel with each request; a list this long is no exception any more.
pub const MAX_ALLOW_PRIVATE: usize = 64;

/// Search services `web_search` speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SearchProvider {
    /// Brave Search API, with a key.
    Brave,
    /// A SearXNG of one's own, without a key; `baseUrl` says where.
    Searxng,
}

/// Section `tools.exec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Exec {
    /// Deadline of a shell command in seconds, 1 to 600.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 600)))]
    pub timeout: u32,
    /// Hosts a shell command may reach by name, through a proxy in its own network: `none`, or a list of `host`,
    /// `host:port` and `*.host`. Level `full` only.
    pub network: Network,
}

impl Default for Exec {
    fn default() -> Self {
        Self { timeout: 60, network: Network::None }
    }
}

/// Section `sandbox`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sandbox {
    /// Lowest level accepted; below it the toolhost refuses to start. `off` is not accepted here.
    pub require: Level,
    /// More paths calls may read.
    pub read: Vec<String>,
    /// More paths calls may write.
    pub write: Vec<String>,
    /// More environment variables for calls.
    pub env: BTreeMap<String, String>,
    /// Author of commits made inside.
    pub git: Git,
    /// Names guarded inside the workspace when they exist at the start of a call.
    pub protect: Vec<String>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            require: Level::Kernel,
            read: Vec::new(),
            write: Vec::new(),
            env: BTreeMap::new(),
            git: Git::default(),
            protect: [
                ".git/hooks",
                ".vscode",
                ".idea",
                ".claude",
                ".cursor",
                ".codex",
                ".gemini",
                ".mcp.json",
                ".envrc",
                ".husky",
            ]
            .map(String::from)
            .to_vec(),
        }
    }
}

/// Section `sandbox.git`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Git {
    /// `GIT_AUTHOR_NAME` and `GIT_COMMITTER_NAME`.
    pub name: String,
    /// `GIT_AUTHOR_EMAIL` and `GIT_COMMITTER_EMAIL`.
    pub email: String,
}

impl Default for Git {
    fn default() -> Self {
        Self { name: "OxiBot".into(), email: "oxibot@localhost".into() }
    }
}

/// Section `policy`: the user's rules, and what is to become of those that come with the product.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// What is done with commands that cannot be judged.
    pub unknown: Unknown,
    /// Names for paths, to be used in rules beside those that come with the product.
    pub places: BTreeMap<String, Vec<String>>,
    /// More rules. The strictest of all that match decides.
    pub rules: Vec<PolicyRule>,
    /// Other verdicts for rules that come with the product.
    pub overrides: Vec<PolicyOverride>,
}

/// Section `policy.unknown`: verdicts for what cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Unknown {
    /// For what cannot be read as bash.
    pub unreadable: Verdict,
    /// For programs whose name is known only at run time.
    pub runtime: Verdict,
}

impl Default for Unknown {
    fn default() -> Self {
        Self { unreadable: Verdict::Ask, runtime: Verdict::Allow }
    }
}

/// One rule. Written alike in the configuration and in the policy that comes with the product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct PolicyRule {
    /// Stable id, for example `git.force-push`.
    pub id: String,
    /// What is done with a command that matches.
    pub verdict: Verdict,
    /// Why, for who asked.
    pub reason: String,
    /// What to do instead.
    pub alternative: String,
    /// It matches when one of these does.
    pub when: Vec<PolicyClause>,
    /// Commands it must match. They are tried when the rule is loaded.
    #[serde(rename = "match")]
    pub matches: Vec<String>,
    /// Commands it must not match. As above.
    pub not_match: Vec<String>,
}

/// Conditions on one simple command; all that are given must hold. Where several words are given one of them is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields, default)]
pub struct PolicyClause {
    /// Names of programs, without directory, with `*` and `?`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// First operands, alternatives separated by `|`: `push`, `stash drop|stash clear`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Options that must be there; each entry has alternatives: `-f|--force`. Bundles and abbreviations count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Options of which none may be there: `-n|--dry-run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
    /// Patterns of which one argument must fit one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arg: Option<String>,
    /// Patterns that no argument may fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_arg: Option<String>,
    /// Places or paths in which one operand must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Places or paths in which no operand may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_path: Option<String>,
    /// Places or paths in which the last of several operands must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// `key:places`: an argument `key=path` with its path there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyed: Option<String>,
    /// `-d|--data:patterns`: the value of an option fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// Places or paths to which output is redirected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes: Option<String>,
    /// Places or paths from which input is redirected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<String>,
    /// Names of variables that are set, with `*` and `?`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigns: Option<String>,
    /// A regular expression for the command with its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A regular expression that the command with its arguments may not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_text: Option<String>,
    /// A regular expression for a program in another language, or statements for a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Programs whose output it reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Programs whose output it must not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_from: Option<String>,
    /// Programs that run it, such as `sudo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// `runs-input`, `runs-output`, `runs-download`, `fork-bomb`, `endless-spawn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Fewest operands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<u8>,
}

/// Another verdict for a rule that comes with the product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct PolicyOverride {
    /// Id of the rule; `*` alone for every rule that comes with the product.
    pub rule: String,
    /// The verdict it is to have.
    pub verdict: Verdict,
    /// Only for commands that fit one of these patterns; for all when empty.
    #[serde(default)]
    pub commands: Vec<String>,
}

/// Section `approvals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Approvals {
    /// Who may say yes.
    pub mode: ApprovalsMode,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { mode: ApprovalsMode::Channel }
    }
}

/// Who may say yes to what the policy asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalsMode {
    /// Whoever asked, where they asked: at the terminal, in the chat. Trusts main's word on who said yes.
    Channel,
    /// `oxibot approvals` on the toolhost's own socket. Does not trust main.
    OutOfBand,
    /// Nobody: what would be asked about is denied.
    Deny,
}

/// Section `audit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Audit {
    /// What is kept of a call.
    pub detail: AuditDetail,
    /// Size at which a chain goes on in a new file, in MiB, 1 to 1024.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1024)))]
    pub rotate_mb: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self { detail: AuditDetail::Calls, rotate_mb: 64 }
    }
}

/// What the audit log keeps of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AuditDetail {
    /// The command line, or path and size.
    Calls,
    /// Their SHA-256 only.
    Digest,
}

/// Section `limits`: bounds of one call, and of one sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Longest deadline a call may ask for, in seconds, at most 600.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 600)))]
    pub max_timeout_seconds: u32,
    /// CPU time of one process, in seconds.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 86400)))]
    pub cpu_seconds: u32,
    /// Memory in MiB: of the whole call where it has a cgroup, address space of one process elsewhere.
    #[cfg_attr(feature = "schema", schemars(range(min = 16)))]
    pub memory_mb: u32,
    /// Processes and threads of a call.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub processes: u32,
    /// Largest file a call may write, in MiB.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub file_size_mb: u32,
    /// Open files of one process.
    #[cfg_attr(feature = "schema", schemars(range(min = 16)))]
    pub open_files: u32,
    /// Size of the private `/tmp`, in MiB.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub tmp_mb: u32,
    /// Bounds of one sender.
    pub senders: Senders,
}

/// Section `limits.senders`: what one sender may ask for. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Senders {
    /// Tool calls a minute, after the first burst.
    pub calls_per_minute: u32,
    /// Tool calls at once.
    pub call_burst: u32,
    /// Tool calls a day (UTC).
    pub calls_per_day: u32,
    /// Messages a minute, after the first burst.
    pub messages_per_minute: u32,
    /// Messages at once.
    pub message_burst: u32,
    /// Tokens a day (UTC), of prompts and replies together.
    pub tokens_per_day: u64,
    /// Whether all this holds for the person at the terminal too.
    pub terminal: bool,
}

impl Default for Senders {
    fn default() -> Self {
        Self {
            calls_per_minute: 120,
            call_burst: 60,
            calls_per_day: 5000,
            messages_per_minute: 20,
            message_burst: 10,
            tokens_per_day: 0,
            terminal: false,
        }
    }
}

/// Hard upper bound of any deadline, in seconds: a call that runs longer is a service and belongs elsewhere.
pub const MAX_TIMEOUT_SECONDS: u32 = 600;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_timeout_seconds: MAX_TIMEOUT_SECONDS,
            cpu_seconds: 600,
            memory_mb: 8192,
            processes: 512,
            file_size_mb: 4096,
            open_files: 4096,
            tmp_mb: 512,
            senders: Senders::default(),
        }
    }
}

/// One value that has the right type and no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsFault {
    /// The key, for example `tools.exec.timeout`.
    pub key: &'static str,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl ToolhostSettings {
    /// Everything that has the right type and no sense: ranges, contradictions, paths that are not absolute. Both
    /// processes ask, because neither trusts the other's reading; empty means usable.
    #[must_use]
    pub fn faults(&self) -> Vec<SettingsFault> {
        faults(&self.tools, &self.sandbox, &self.limits, &self.audit, &self.web)
    }
}

/// As [`ToolhostSettings::faults`], of the sections as they lie in the whole configuration.
#[must_use]
pub fn faults(
    tools: &Tools,
    sandbox: &Sandbox,
    limits: &Limits,
    audit: &Audit,
    web: &WebAccess,
) -> Vec<SettingsFault> {
    let mut found = Vec::new();
    let mut fault =
        |key, what: String, hint: &str| found.push(SettingsFault { key, what, hint: hint.into() });
    let mut range = |key, value: u32, least: u32, most: u32| {
        if value < least || value > most {
            let what = format!("{value} is out of range");
            fault(key, what, &format!("give a whole number from {least} to {most}"));
        }
    };
    range("tools.exec.timeout", tools.exec.timeout, 1, MAX_TIMEOUT_SECONDS);
    range("tools.web.search.maxResults", tools.web.search.max_results, 1, 10);
    range("limits.maxTimeoutSeconds", limits.max_timeout_seconds, 1, MAX_TIMEOUT_SECONDS);
    range("limits.cpuSeconds", limits.cpu_seconds, 1, 86_400);
    range("limits.memoryMb", limits.memory_mb, 16, u32::MAX);
    range("limits.processes", limits.processes, 1, u32::MAX);
    range("limits.fileSizeMb", limits.file_size_mb, 1, u32::MAX);
    range("limits.openFiles", limits.open_files, 16, u32::MAX);
    range("limits.tmpMb", limits.tmp_mb, 1, u32::MAX);
    range("audit.rotateMb", audit.rotate_mb, 1, 1024);
    let senders = limits.senders;
    if senders.calls_per_minute > 0 {
        range("limits.senders.callBurst", senders.call_burst, 1, u32::MAX);
    }
    if senders.messages_per_minute > 0 {
        range("limits.senders.messageBurst", senders.message_burst, 1, u32::MAX);
    }
    if tools.exec.timeout > limits.max_timeout_seconds && limits.max_timeout_seconds > 0 {
        fault(
            "tools.exec.timeout",
            format!(
                "{} contradicts limits.maxTimeoutSeconds, which is {}",
                tools.exec.timeout, limits.max_timeout_seconds
            ),
            "lower the one or raise the other",
        );
    }
    if sandbox.require == Level::Off {
        let hint = "give reduced, kernel or full; to run once without it: oxibot --no-sandbox";
        fault("sandbox.require", "the wall cannot be switched off in a file".into(), hint);
    }
    for cause in web.allow_private.iter().filter_map(|entry| Exception::parse(entry).err()) {
        fault("web.allowPrivate", cause, "give a CIDR and a port, for example 10.1.0.0/16:443");
    }
    if web.allow_private.len() > MAX_ALLOW_PRIVATE {
        let what = format!("it has {} entries, the limit is {MAX_ALLOW_PRIVATE}", web.allow_private.len());
        fault("web.allowPrivate", what, "use wider blocks");
    }
    for (key, paths) in [("sandbox.read", &sandbox.read), ("sandbox.write", &sandbox.write)] {
        for path in paths.iter().filter(|path| !path.starts_with('/') && !path.starts_with("~/")) {
            fault(key, format!("`{path}` is not an absolute path"), "begin it with / or ~/");
        }
    }
    for name in sandbox.env.keys().filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
        let what = format!("`{}` is no name of a variable", name.escape_debug());
        fault("sandbox.env", what, "use letters, digits and _");
    }
    for name in
        sandbox.protect.iter().filter(|name| name.starts_with('/') || name.split('/').any(|p| p == ".."))
    {
        fault(
            "sandbox.protect",
            format!("`{name}` leaves the workspace"),
            "name it relative to the workspace",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_key_is_refused() {
        assert!(serde_json::from_str::<ToolhostSettings>(r#"{"sandbox":{"requires":"full"}}"#).is_err());
    }

    #[test]
    fn workspace_is_the_limit_unless_said_otherwise() {
        assert!(ToolhostSettings::default().tools.restrict_to_workspace);
        assert_eq!(ToolhostSettings::default().sandbox.require, Level::Kernel);
    }

    #[test]
    fn defaults_have_no_fault() {
        assert_eq!(ToolhostSettings::default().faults(), []);
    }

    #[test]
    fn every_senseless_value_is_named_with_its_key() {
        let cases = [
            (r#"{"tools":{"exec":{"timeout":0}}}"#, "tools.exec.timeout"),
            (r#"{"tools":{"exec":{"timeout":601}}}"#, "tools.exec.timeout"),
            (r#"{"tools":{"web":{"search":{"maxResults":11}}}}"#, "tools.web.search.maxResults"),
            (r#"{"limits":{"maxTimeoutSeconds":30}}"#, "tools.exec.timeout"),
            (r#"{"limits":{"maxTimeoutSeconds":0}}"#, "limits.maxTimeoutSeconds"),
            (r#"{"limits":{"cpuSeconds":0}}"#, "limits.cpuSeconds"),
            (r#"{"limits":{"memoryMb":1}}"#, "limits.memoryMb"),
            (r#"{"limits":{"processes":0}}"#, "limits.processes"),
            (r#"{"limits":{"fileSizeMb":0}}"#, "limits.fileSizeMb"),
            (r#"{"limits":{"openFiles":3}}"#, "limits.openFiles"),
            (r#"{"limits":{"tmpMb":0}}"#, "limits.tmpMb"),
            (r#"{"limits":{"senders":{"callBurst":0}}}"#, "limits.senders.callBurst"),
            (r#"{"limits":{"senders":{"messageBurst":0}}}"#, "limits.senders.messageBurst"),
            (r#"{"audit":{"rotateMb":0}}"#, "audit.rotateMb"),
            (r#"{"sandbox":{"require":"off"}}"#, "sandbox.require"),
            (r#"{"web":{"allowPrivate":["localhost:80"]}}"#, "web.allowPrivate"),
            (r#"{"sandbox":{"read":["data"]}}"#, "sandbox.read"),
            (r#"{"sandbox":{"write":["../x"]}}"#, "sandbox.write"),
            (r#"{"sandbox":{"env":{"A=B":"x"}}}"#, "sandbox.env"),
            (r#"{"sandbox":{"protect":["../x"]}}"#, "sandbox.protect"),
        ];
        for (text, key) in cases {
            let settings: ToolhostSettings = serde_json::from_str(text).unwrap();
            assert!(
                settings.faults().iter().any(|fault| fault.key == key),
                "{text}: {:?}",
                settings.faults()
            );
        }
    }

    #[test]
    fn the_search_key_is_no_setting_of_the_toolhost() {
        let text = r#"{"tools":{"web":{"search":{"apiKey":"sk"}}}}"#;
        assert!(serde_json::from_str::<ToolhostSettings>(text).is_err());
    }
}
