//! The command line: what can be typed, and the help that teaches it.
//!
//! Parsing only. Nothing is looked up, opened or checked here beyond the shape of the arguments, so that the launcher
//! can use the result before it has touched anything.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};

/// An assistant you can give a shell to.
#[derive(Debug, Parser)]
#[command(
    name = "oxibot",
    version,
    max_term_width = 80,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start here:\n  \
        oxibot demo                          watch it work, with no key and no network\n  \
        oxibot onboard                       first set-up: a provider, its key, a model\n  \
        oxibot agent -m 'what is in here?'   one message\n  \
        oxibot agent                         a conversation\n  \
        oxibot sandbox run -- ls -l          a program of your own behind the same wall\n\n\
        Exit status: 0 done, 1 failed, 2 usage, 3 denied or approval needed, 4 timed out,\n\
        5 killed, 70 internal, 75 try again, 78 configuration, 130 cancelled."
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Configuration file [default: config.json in the home]
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Where OxiBot keeps its things [default: $OXIBOT_HOME or ~/.oxibot]
    #[arg(long, value_name = "DIR", global = true, value_hint = ValueHint::DirPath)]
    pub home: Option<PathBuf>,
    /// Development only: run tools without the kernel wall (root: give it twice)
    #[arg(long, action = ArgAction::Count, global = true)]
    pub no_sandbox: u8,
    /// Use a toolhost of our own even where a service runs
    #[arg(long, global = true)]
    pub embedded: bool,
    /// Use the toolhost of a service, which listens there. For its units; commands find it by themselves.
    #[arg(long, value_name = "SOCKET", hide = true, global = true, conflicts_with_all = ["embedded", "no_sandbox"])]
    pub toolhost: Option<PathBuf>,
    /// No colour, no cursor movement, plain progress lines
    #[arg(long, global = true)]
    pub plain: bool,
    /// Append the log to a file instead of standard error
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
    /// Say more (twice: everything); RUST_LOG overrides
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Set by the launcher for the main process it starts: descriptor 0 is the control socket.
    #[arg(long, hide = true)]
    pub launched: bool,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// The tour on a machine with no key: a recorded conversation, real tools, real sandbox
    Demo(DemoArgs),
    /// Talk to the assistant: one message with -m, or a conversation
    #[command(after_help = "Examples:\n  \
        oxibot agent -m 'summarise notes.txt'\n  \
        oxibot agent -s work --model openrouter/anthropic/claude-sonnet-4\n\n\
        In a conversation, Ctrl-C cancels what runs and Ctrl-D leaves.")]
    Agent(AgentArgs),
    /// Answer on all configured channels, until it is ended
    #[command(after_help = "It reads `channels` of the configuration, one gateway for a home. Health and\n\
        figures are on http://127.0.0.1:18790 (/health, /ready, /metrics) unless\n\
        `gateway` says otherwise. SIGTERM lets running turns end first.")]
    Gateway,
    /// The tools a model may use, and calling one by hand
    #[command(subcommand)]
    Tool(ToolCommand),
    /// Run a program of your own behind the wall, or see what holds
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Check that everything is in order and say what to do where it is not
    #[command(after_help = "Examples:\n  \
        oxibot doctor\n  \
        oxibot doctor --attack\n  \
        oxibot doctor --format prometheus > /var/lib/node_exporter/oxibot.prom\n\n\
        Exit status: 1 when a check says `fail` or an attack succeeded, else 0.")]
    Doctor(DoctorArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// First set-up: a provider, its key tried by a real call, a model from its list
    Onboard(OnboardArgs),
    /// What is configured and what it would use
    Status(StatusArgs),
    /// Tokens and cost by day
    Usage(UsageArgs),
    /// Conversations that are kept
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Emergency stop: end the calls that run now
    #[command(after_help = "Examples:\n  \
        oxibot stop            end what runs now\n  \
        oxibot stop --all      and refuse every new call, until\n  \
        oxibot stop --clear    accepts calls again")]
    Stop(StopArgs),
    /// Calls that wait for a person's yes
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// What was done, and whether the record of it is whole
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  \
        oxibot completions bash > ~/.local/share/bash-completion/completions/oxibot")]
    Completions(CompletionsArgs),
}

/// `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Set by the outer process for the one that plays: where the decoys are.
    #[arg(long, hide = true, value_name = "DIR")]
    pub decoys: Option<PathBuf>,
}

/// `agent`.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// One message; the answer is printed and the program ends
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Conversation to go on with
    #[arg(short, long, value_name = "SESSION")]
    pub session: Option<String>,
    /// Model to use instead of the configured one
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Record what the model says, to be played back by the provider `replay`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub record: Option<PathBuf>,
    /// Print one JSON object (with -m)
    #[arg(long, requires = "message")]
    pub json: bool,
}

/// `tool`.
#[derive(Debug, Clone, Subcommand)]
pub enum ToolCommand {
    /// List the tools
    List(ListArgs),
    /// Call one tool, exactly as a model would
    #[command(after_help = "Examples:\n  \
        oxibot tool call bash '{\"command\":\"ls -l\"}'\n  \
        oxibot tool call read_file '{\"path\":\"notes.txt\"}' --json\n  \
        echo '{\"command\":\"make\"}' | oxibot tool call bash - --timeout 300")]
    Call(CallArgs),
}

/// `tool list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Print JSON, with the schema of each tool's arguments
    #[arg(long)]
    pub json: bool,
}

/// `tool call`.
#[derive(Debug, Clone, Args)]
pub struct CallArgs {
    /// Tool, see `oxibot tool list`
    #[arg(value_name = "NAME")]
    pub name: OsString,
    /// Its arguments as a JSON object; `-` reads them from standard input
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub arguments: Option<OsString>,
    /// Workspace [default: the configured one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub workspace: Option<PathBuf>,
    /// Deadline in seconds [default: the configured one]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub timeout: Option<u32>,
    /// Say yes to what would otherwise be asked
    #[arg(long)]
    pub approve: bool,
    /// Only say what the policy would decide
    #[arg(long)]
    pub dry_run: bool,
    /// Print exactly one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `sandbox`.
#[derive(Debug, Clone, Subcommand)]
pub enum SandboxCommand {
    /// Run a program behind the wall, its streams passed through
    #[command(after_help = "Examples:\n  \
        oxibot sandbox run -- make test\n  \
        oxibot sandbox run --workspace ~/project --timeout 300 -- bash -c 'curl example.org'\n\n\
        Exit status: the program's own; 124 timed out, 125 refused or failed,\n\
        128+n ended by signal n. The wall applies; filter, approvals and the cut of\n\
        output do not.")]
    Run(RunArgs),
    /// Show each protection and whether it is in force
    Status(StatusArgs),
}

/// `sandbox run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Directory it may write [default: the current one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub workspace: Option<PathBuf>,
    /// Deadline in seconds [default: the configured one]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub timeout: Option<u32>,
    /// Program and its arguments, after `--`
    #[arg(value_name = "CMD", required = true, last = true, value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// `status` and `sandbox status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Only the sandbox: its checks, and every attack of the long form
    #[arg(long)]
    pub attack: bool,
    /// Print JSON, as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// How to print it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
}

impl DoctorArgs {
    /// How to print it, whichever way that was said.
    #[must_use]
    pub fn format(&self) -> ReportFormat {
        if self.json { ReportFormat::Json } else { self.format }
    }
}

/// Forms of `doctor`'s report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One object
    Json,
    /// Prometheus text format, for a node exporter's textfile directory
    Prometheus,
    /// For people
    Text,
}

/// `config`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// Read it as every command does and say what is wrong
    Check,
    /// Print what is in force, with secrets left out
    Show,
    /// Print its JSON Schema, for editors
    Schema,
    /// Print where it is
    Path,
}

/// `onboard`.
#[derive(Debug, Clone, Args)]
pub struct OnboardArgs {
    /// Begin with the config.json of an older OxiBot or of nanobot
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub import: Option<PathBuf>,
    /// Take the defaults and ask nothing
    #[arg(long)]
    pub yes: bool,
}

/// `usage`.
#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    /// How many days back
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3660))]
    pub days: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `sessions`.
#[derive(Debug, Clone, Subcommand)]
pub enum SessionsCommand {
    /// List them
    List(StatusArgs),
    /// Print one
    Show {
        /// Its name, see `oxibot sessions list`
        session: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete those whose time is over
    Expire,
    /// Delete one
    Delete {
        /// Its name, see `oxibot sessions list`
        session: String,
    },
}

/// `stop`.
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    /// Also refuse new calls, until `--clear`
    #[arg(long, conflicts_with = "clear")]
    pub all: bool,
    /// Accept calls again
    #[arg(long)]
    pub clear: bool,
}

/// `approvals`.
#[derive(Debug, Clone, Subcommand)]
pub enum ApprovalsCommand {
    /// Show them, each call whole
    List(StatusArgs),
    /// Say yes to one, once
    Approve {
        /// Its id, see `oxibot approvals list`
        id: String,
    },
    /// Say no to one
    Deny {
        /// Its id, see `oxibot approvals list`
        id: String,
    },
    /// Write into the configuration that a rule is to allow instead of asking
    #[command(after_help = "Examples:\n  \
        oxibot approvals always git.force-push\n  \
        oxibot approvals always git.force-push 'git push --force origin wip/*'\n\n\
        It changes config.json and nothing else there; to undo it, remove the entry\n\
        from policy.overrides.")]
    Always(AlwaysArgs),
}

/// `approvals always`.
#[derive(Debug, Clone, Args)]
pub struct AlwaysArgs {
    /// The rule that asks, as the question named it
    #[arg(value_name = "RULE")]
    pub rule: String,
    /// Only for commands that fit this pattern [default: every command]
    #[arg(value_name = "PATTERN")]
    pub command: Option<String>,
}

/// `audit`.
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// Show what was recorded, the latest last
    #[command(after_help = "Examples:\n  \
        oxibot audit tail --tool bash --since 1h       what ran in the last hour\n  \
        oxibot audit tail --event approval_requested   what was asked about\n  \
        oxibot audit tail -f                           as it happens")]
    Tail(TailArgs),
    /// Check that every record is as it was written; exit status 1 if one is not
    #[command(after_help = "Example, with the heads that the journal keeps:\n  \
        journalctl -o json SYSLOG_IDENTIFIER=oxibot-toolhost |\n    \
        oxibot audit verify --anchors -")]
    Verify(VerifyArgs),
    /// Print every record as it lies, one JSON object a line
    Export,
}

/// `audit tail`.
#[derive(Debug, Clone, Args)]
pub struct TailArgs {
    /// Only of this tool
    #[arg(long, value_name = "T")]
    pub tool: Option<String>,
    /// Only this event; `tool_call` means every tool
    #[arg(long, value_name = "E")]
    pub event: Option<String>,
    /// Only since: 90s, 30m, 1h, 2d ago, or a time (UTC)
    #[arg(long, value_name = "D")]
    pub since: Option<String>,
    /// Go on as records come
    #[arg(short, long)]
    pub follow: bool,
}

/// `audit verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Compare with what the journal keeps (journalctl -o json; `-`: standard input)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub anchors: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_line_of_help_fits_80_columns_and_every_command_says_what_it_does() {
        fn check(command: &mut clap::Command) {
            let name = command.get_name().to_owned();
            assert!(command.get_about().is_some(), "{name} has no line of help");
            for line in command.render_long_help().to_string().lines() {
                assert!(line.chars().count() <= 80, "{name}: {line:?} is wider than 80 columns");
            }
            for sub in command.get_subcommands_mut() {
                check(sub);
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&mut command);
    }

    #[test]
    fn no_sandbox_counts() {
        let cli = Cli::try_parse_from(["oxibot", "--no-sandbox", "tool", "list", "--no-sandbox"]).unwrap();
        assert!(cli.global.no_sandbox >= 1);
        let cli = Cli::try_parse_from(["oxibot", "--no-sandbox", "--no-sandbox", "tool", "list"]).unwrap();
        assert_eq!(cli.global.no_sandbox, 2);
    }

    #[test]
    fn form_of_the_report_is_said_one_way_or_the_other() {
        let format = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["oxibot", "doctor"], arguments].concat()).ok()?;
            let Command::Doctor(args) = cli.command else { panic!("not the doctor") };
            Some((args.format(), args.attack))
        };
        assert_eq!(format(&[]), Some((ReportFormat::Text, false)));
        assert_eq!(format(&["--json", "--attack"]), Some((ReportFormat::Json, true)));
        assert_eq!(format(&["--format", "prometheus"]), Some((ReportFormat::Prometheus, false)));
        assert_eq!(format(&["--json", "--format", "text"]), None);
        assert_eq!(format(&["--format", "xml"]), None);
    }

    #[test]
    fn arguments_of_a_run_are_not_ours() {
        let cli = Cli::try_parse_from(["oxibot", "sandbox", "run", "--", "ls", "--home", "x"]).unwrap();
        let Command::Sandbox(SandboxCommand::Run(run)) = cli.command else { panic!("not a run") };
        assert_eq!(run.command, ["ls", "--home", "x"]);
        assert!(cli.global.home.is_none());
    }

    #[test]
    fn arguments_that_are_not_utf8_reach_the_call() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![0xff, b'{']);
        let cli = Cli::try_parse_from([
            OsString::from("oxibot"),
            "tool".into(),
            "call".into(),
            "bash".into(),
            odd.clone(),
        ])
        .unwrap();
        let Command::Tool(ToolCommand::Call(call)) = cli.command else { panic!("not a call") };
        assert_eq!(call.arguments, Some(odd));
    }
}
