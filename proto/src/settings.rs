//! The configuration sections the toolhost obeys, in the form both processes read.
//!
//! Main validates them as part of the whole file and shows them in the schema; the toolhost takes them from the file
//! itself and never from main. No secret is among them. Unknown keys are errors in both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::message::Level;

/// Everything the toolhost reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ToolhostSettings {
    /// What tools may do.
    pub tools: Tools,
    /// The kernel wall.
    pub sandbox: Sandbox,
    /// Limits for each call.
    pub limits: Limits,
    /// Workspaces admitted, absolute paths; the first is the default. Filled from `agents`, not a section of its own.
    pub workspaces: Vec<String>,
}

impl Default for ToolhostSettings {
    fn default() -> Self {
        Self {
            tools: Tools::default(),
            sandbox: Sandbox::default(),
            limits: Limits::default(),
            workspaces: Vec::new(),
        }
    }
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
    pub exec: Exec,
    /// Tools that are not offered, by canonical name.
    pub disabled: Vec<String>,
}

impl Default for Tools {
    fn default() -> Self {
        Self { restrict_to_workspace: true, exec: Exec::default(), disabled: Vec::new() }
    }
}

/// Section `tools.exec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Exec {
    /// Deadline of a shell command in seconds, 1 to 600.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 600)))]
    pub timeout: u32,
}

impl Default for Exec {
    fn default() -> Self {
        Self { timeout: 60 }
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

/// Section `limits`: bounds of one call.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Longest deadline a call may ask for, in seconds, at most 600.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 600)))]
    pub max_timeout_seconds: u32,
    /// CPU time of one process, in seconds.
    pub cpu_seconds: u32,
    /// Memory in MiB: of the whole call where it has a cgroup, address space of one process elsewhere.
    pub memory_mb: u32,
    /// Processes and threads of a call.
    pub processes: u32,
    /// Largest file a call may write, in MiB.
    pub file_size_mb: u32,
    /// Open files of one process.
    pub open_files: u32,
    /// Size of the private `/tmp`, in MiB.
    pub tmp_mb: u32,
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
        }
    }
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
}
