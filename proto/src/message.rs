//! The messages themselves.
//!
//! Twin names: what main sends as `X` the toolhost answers as `X…` ([`ToToolhost::Call`] and [`ToMain::CallResult`],
//! [`ToToolhost::ListTools`] and [`ToMain::Tools`]). Enums are append-only, because the encoding is positional.
//! Arguments and schemas travel as JSON text: the wire does not know what a tool takes. Nothing here can carry a
//! policy: a request can narrow what the toolhost's own configuration grants, never widen it.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::view::View;

/// Largest tool arguments as JSON text, in bytes. Room for `write_file` (768 KiB, escaped) inside one frame.
pub const MAX_ARGUMENTS: usize = 1_000_000;
/// Largest chunk of a transferred file or of a stream, in bytes.
pub const MAX_CHUNK: usize = 256 * 1024;
/// Chunks a sender may have unanswered. Bounds what either side must hold for one transfer.
pub const CHUNK_WINDOW: usize = 4;
/// Largest file that crosses the wire, in bytes.
pub const MAX_TRANSFER: u64 = 25 * 1024 * 1024;
/// Output a model is shown for one call, in bytes of UTF-8 text.
pub const MAX_OUTPUT: usize = 10_240;

/// Number of a call on its connection, chosen by main, never reused on that connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct CallNumber(pub u64);

/// Main to toolhost.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToToolhost {
    /// First message of a connection.
    Hello(MainHello),
    /// Which tools are there? Answered by [`ToMain::Tools`].
    ListTools,
    /// Judge and run one tool call. Answered by [`ToMain::CallResult`].
    Call(CallRequest),
    /// Judge one tool call and run nothing. Answered by [`ToMain::Judgement`].
    Judge(CallRequest),
    /// Run a program behind the wall, no judgement, streams unchanged. Answered by [`ToMain::CallResult`].
    Run(RunRequest),
    /// Input for a [`ToToolhost::Run`]; at most [`CHUNK_WINDOW`] unanswered.
    Stdin(StdinChunk),
    /// End a running call; its result comes with outcome cancelled.
    Cancel(CallNumber),
    /// Begin to write a file of the workspace. Answered by [`ToMain::PutProgress`].
    Put(PutRequest),
    /// Next bytes of a [`ToToolhost::Put`].
    PutChunk(FileChunk),
    /// Read a file of the workspace. Answered by [`ToMain::GetChunk`], closed by [`ToMain::TransferEnd`].
    Get(GetRequest),
    /// One [`ToMain::GetChunk`] or [`ToMain::Output`] chunk was taken; another may be sent.
    Taken(CallNumber),
    /// What is running? Answered by [`ToMain::Status`].
    Status,
    /// Emergency stop. Answered by [`ToMain::Stopped`].
    Stop(StopScope),
    /// Try every attack on the wall of the default workspace, each in a call of its own. Answered by one
    /// [`ToMain::Attacked`] for each, then [`ToMain::AttackDone`]. Only a toolhost that was started for it does.
    Attack,
    /// What a person said to a call that needs approval. Answered by [`ToMain::Approved`].
    Approve(ApprovalAnswer),
    /// Which calls wait for approval? Answered by [`ToMain::Approvals`].
    ListApprovals,
}

/// Toolhost to main.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToMain {
    /// First message of a connection.
    Hello(ToolhostHello),
    /// Answer to [`ToToolhost::ListTools`].
    Tools(Vec<ToolSpec>),
    /// The call was admitted and is running.
    Started(Started),
    /// A running call is alive. Sent at most once a second, dropped when the connection is slow.
    Progress(Progress),
    /// Unchanged bytes of a [`ToToolhost::Run`]; at most [`CHUNK_WINDOW`] unanswered.
    Output(OutputChunk),
    /// One [`ToToolhost::Stdin`] chunk was taken.
    StdinTaken(CallNumber),
    /// A call ended, one way or another.
    CallResult(Box<CallResult>),
    /// Answer to [`ToToolhost::Judge`].
    Judgement(Judgement),
    /// [`ToToolhost::Put`] may go on: so many chunks were taken.
    PutProgress(CallNumber),
    /// Next bytes of a [`ToToolhost::Get`].
    GetChunk(FileChunk),
    /// A transfer ended.
    TransferEnd(TransferEnd),
    /// Answer to [`ToToolhost::Status`].
    Status(ToolhostStatus),
    /// Answer to [`ToToolhost::Stop`].
    Stopped(Stopped),
    /// The toolhost closes the connection and says why.
    Bye(CloseReason),
    /// One attack of a [`ToToolhost::Attack`] was tried.
    Attacked(Box<Attacked>),
    /// The end of [`ToToolhost::Attack`].
    AttackDone(AttackDone),
    /// Answer to [`ToToolhost::Approve`]; also sent unasked to the connection whose call somebody else answered.
    Approved(Approved),
    /// Answer to [`ToToolhost::ListApprovals`].
    Approvals(Vec<PendingApproval>),
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MainHello {
    /// [`crate::MAGIC`].
    pub magic: u32,
    /// [`crate::PROTOCOL_VERSION`].
    pub version: u32,
    /// Version of the program, for the log only.
    pub build: String,
}

/// Who answers, and what holds there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ToolhostHello {
    /// [`crate::MAGIC`].
    pub magic: u32,
    /// [`crate::PROTOCOL_VERSION`].
    pub version: u32,
    /// Version of the program, for the log only.
    pub build: String,
    /// What is enforced, and what is missing.
    pub wall: Wall,
    /// Workspaces the toolhost's own configuration admits, absolute paths; the first is the default.
    pub workspaces: Vec<String>,
}

/// What the kernel enforces for calls, as found by trying, not as configured.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Wall {
    /// The level obtained.
    pub level: Level,
    /// Landlock ABI of the running kernel, 0 when there is none.
    pub landlock_abi: u32,
    /// Each protection and its state.
    pub protections: Vec<Protection>,
    /// How the wall was proven by attack, if it was.
    pub proven: Option<Proven>,
}

/// Levels of design: what holds for a call. Ordered from weakest to strongest.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No kernel wall; only by `--no-sandbox`.
    Off,
    /// As `kernel` on an older Landlock ABI; what is missing is listed by name.
    Reduced,
    /// No namespaces: Landlock ABI 6, strict seccomp, rlimits, no capabilities.
    Kernel,
    /// All namespaces, Landlock, seccomp, rlimits, no capabilities.
    Full,
}

impl Level {
    /// Lower-case name as printed and configured.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Reduced => "reduced",
            Self::Kernel => "kernel",
            Self::Full => "full",
        }
    }
}

/// One protection and whether it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Protection {
    /// Stable name, for example `network-namespace`.
    pub name: String,
    /// In force, partly, or not.
    pub state: ProtectionState,
    /// What is missing and what would give it; empty when active.
    pub detail: String,
}

/// State of a [`Protection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtectionState {
    /// In force.
    Active,
    /// Partly in force.
    Degraded,
    /// Not to be had here.
    Unavailable,
}

/// How the wall was proven by attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proven {
    /// The battery ran at this start.
    Start,
    /// A pass recorded earlier in this boot was reused.
    Recorded,
}

/// One tool as offered to a model.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ToolSpec {
    /// Canonical name.
    pub name: String,
    /// Other names accepted in a call.
    pub aliases: Vec<String>,
    /// One paragraph for the model.
    pub description: String,
    /// JSON Schema of the arguments object, as text.
    pub parameters: String,
}

/// Who asked, as main claims it: recorded, never believed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Origin {
    /// Sender, for example a chat id or a local user name.
    pub who: String,
    /// Channel, for example `terminal`.
    pub channel: String,
    /// Conversation.
    pub session: String,
}

/// One tool call as a model wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CallRequest {
    /// Number for answers and cancellation.
    pub call: CallNumber,
    /// Name or alias of the tool.
    pub tool: String,
    /// JSON object as text, at most [`MAX_ARGUMENTS`] bytes.
    pub arguments: String,
    /// Absolute path of a configured workspace; the default when absent.
    pub workspace: Option<String>,
    /// Shorter deadline than the configured one, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Who asked.
    pub origin: Origin,
    /// Id of an approval of exactly this call, as [`CallResult::approval`] named it. It is good for one call.
    pub approval: Option<String>,
}

/// A call that waits for a person's yes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PendingApproval {
    /// Names it in [`ApprovalAnswer`] and [`CallRequest::approval`].
    pub id: String,
    /// Canonical name of the tool.
    pub tool: String,
    /// The whole call for the person's eyes; holds what a model wrote. At most [`MAX_APPROVAL_TEXT`] bytes.
    pub text: String,
    /// The rule that asks.
    pub rule: String,
    /// Why it asks.
    pub reason: String,
    /// Where it would run.
    pub workspace: String,
    /// Who asked, as main claims it.
    pub origin: Origin,
    /// Milliseconds until it can be approved no more.
    pub expires_ms: u64,
    /// Whose yes counts.
    pub asks: Asks,
}

/// Largest text of a call that can be approved, in bytes: nobody reads more before saying yes. So small that
/// [`MAX_APPROVALS`] of them fit one frame.
pub const MAX_APPROVAL_TEXT: usize = 24 * 1024;
/// Directory of the home below which each person's workspace lies, where they have one of their own.
pub const PEOPLE: &str = "people";
/// Calls that may wait for approval at once, and what an answer to [`ToToolhost::ListApprovals`] may hold.
pub const MAX_APPROVALS: usize = 32;

/// Whose yes counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Asks {
    /// Main's word on what the person who asked said.
    Main,
    /// An administrator's, at the toolhost's own socket.
    Administrator,
}

/// What a person said.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ApprovalAnswer {
    /// Which call.
    pub id: String,
    /// Yes or no.
    pub yes: bool,
    /// Who said it, as the sender claims: recorded.
    pub by: String,
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Approved {
    /// Which call.
    pub id: String,
    /// Whether the call may now be made, once.
    pub outcome: ApprovalOutcome,
}

/// What became of an answer to a call that needs approval.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ApprovalOutcome {
    /// It may be made once, exactly as it was shown.
    Granted,
    /// A person said no.
    Refused,
    /// The answer does not count.
    Void {
        /// Why.
        reason: String,
    },
}

/// A program to run behind the wall with its streams unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RunRequest {
    /// Number for answers and cancellation.
    pub call: CallNumber,
    /// Program and arguments, arbitrary bytes without NUL.
    pub argv: Vec<Vec<u8>>,
    /// Absolute path of a configured workspace; the default when absent.
    pub workspace: Option<String>,
    /// Deadline in milliseconds; the configured one when absent.
    pub timeout_ms: Option<u64>,
    /// Who asked.
    pub origin: Origin,
}

/// Input bytes for a run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StdinChunk {
    /// Which run.
    pub call: CallNumber,
    /// At most [`MAX_CHUNK`] bytes; empty means end of input.
    pub data: Vec<u8>,
}

/// A running call was admitted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Started {
    /// Which call.
    pub call: CallNumber,
    /// Unique id, as in the audit log and in the output file's name.
    pub call_id: String,
    /// Deadline in milliseconds from now.
    pub deadline_ms: u64,
}

/// A running call is alive.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Progress {
    /// Which call.
    pub call: CallNumber,
    /// Since the call started.
    pub elapsed_ms: u64,
    /// Output so far, raw bytes.
    pub output_bytes: u64,
}

/// Which stream bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Unchanged output of a run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OutputChunk {
    /// Which run.
    pub call: CallNumber,
    /// Which stream.
    pub stream: Stream,
    /// At most [`MAX_CHUNK`] bytes.
    pub data: Vec<u8>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// It ran to its end; for a program, whatever its exit status.
    Completed,
    /// The toolhost refused it before or while it ran.
    Denied(Denial),
    /// It may run once a person says yes.
    NeedsApproval(Denial),
    /// Unknown tool, bad argument, no such file and the like.
    Failed {
        /// What is wrong and what to do.
        message: String,
    },
    /// The deadline passed; every process of the call is gone.
    TimedOut,
    /// Cancelled by whoever asked; every process of the call is gone.
    Cancelled,
    /// A signal or a limit ended it.
    Killed {
        /// The limit, when one is known to have done it, for example `memory`.
        limit: Option<String>,
    },
    /// The broker itself failed. Never caused by what a confined program said.
    Internal {
        /// What failed.
        message: String,
    },
}

impl Outcome {
    /// Stable name as printed in results.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Denied(_) => "denied",
            Self::NeedsApproval(_) => "needs_approval",
            Self::Failed { .. } => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Killed { .. } => "killed",
            Self::Internal { .. } => "internal",
        }
    }
}

/// Why something was refused and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Denial {
    /// Stable id of the rule, for example `path.outside`.
    pub rule: String,
    /// Why.
    pub reason: String,
    /// What to do instead.
    pub hint: String,
}

/// What the wall refused while a call ran.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Violation {
    /// What was tried, for example `write`.
    pub what: String,
    /// On which path or address; empty when there is none.
    pub path: String,
    /// Why it was refused.
    pub why: String,
    /// How sure we are.
    pub certainty: Certainty,
}

/// How a [`Violation`] is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// The kernel reported it.
    Kernel,
    /// We saw its effect.
    Observed,
    /// Concluded from what the program printed.
    Guessed,
}

/// What a call printed or read, bounded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Output {
    /// First bytes, as they came; the whole output when nothing was left out.
    pub head: Vec<u8>,
    /// Last bytes; empty when nothing was left out.
    pub tail: Vec<u8>,
    /// All bytes the call produced.
    pub total_bytes: u64,
    /// Bytes that were left once secrets were taken out: `head` and `tail` are the ends of these.
    pub passed_bytes: u64,
    /// Workspace-relative file that holds the whole output, if it was kept.
    pub file: Option<String>,
}

/// What a call used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time of all its processes, in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident size of one of its processes, in KiB.
    pub max_rss_kb: u64,
}

/// The whole answer to a call or run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CallResult {
    /// Which call.
    pub call: CallNumber,
    /// Unique id.
    pub call_id: String,
    /// Canonical tool name; what was asked for when there is no such tool.
    pub tool: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Exit status of the program, if it exited.
    pub exit_code: Option<i32>,
    /// Signal that ended the program, if one did.
    pub signal: Option<i32>,
    /// What it printed or read.
    pub output: Output,
    /// What the wall refused meanwhile.
    pub violations: Vec<Violation>,
    /// Remarks for model and user, for example that background processes were ended.
    pub notes: Vec<String>,
    /// Level it ran under.
    pub level: Level,
    /// How that level was proven.
    pub proven: Option<Proven>,
    /// From admission to end, in milliseconds.
    pub duration_ms: u64,
    /// What it used, if it ran.
    pub usage: Option<Usage>,
    /// What it could see and do, for explanations. Only of a program whose output is in `output`, behind a wall.
    pub view: Option<Box<View>>,
    /// With outcome [`Outcome::NeedsApproval`]: what to show the person who is to say yes.
    pub approval: Option<Box<PendingApproval>>,
}

/// What the policy says of a call, nothing having run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Judgement {
    /// Which request.
    pub call: CallNumber,
    /// The strictest verdict of all rules that matched.
    pub verdict: Verdict,
    /// The rules that matched.
    pub rules: Vec<JudgedRule>,
    /// The simple commands found, for `bash`.
    pub commands: Vec<String>,
}

/// What the policy decides. Ordered from mildest to strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Run it.
    Allow,
    /// Ask a person.
    Ask,
    /// Refuse it.
    Block,
}

/// A policy rule that matched.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct JudgedRule {
    /// Stable id.
    pub id: String,
    /// Why it exists.
    pub reason: String,
    /// What to do instead.
    pub alternative: String,
}

/// A file to be written into the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PutRequest {
    /// Number of the transfer, from the same sequence as calls.
    pub call: CallNumber,
    /// Workspace, the default when absent.
    pub workspace: Option<String>,
    /// Path below the workspace.
    pub path: String,
    /// Exact size in bytes, at most [`MAX_TRANSFER`].
    pub size: u64,
}

/// A file to be read from the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GetRequest {
    /// Number of the transfer, from the same sequence as calls.
    pub call: CallNumber,
    /// Workspace, the default when absent.
    pub workspace: Option<String>,
    /// Path below the workspace.
    pub path: String,
    /// Refuse files larger than this many bytes.
    pub max_size: u64,
}

/// A piece of a transferred file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FileChunk {
    /// Which transfer.
    pub call: CallNumber,
    /// Position of the first byte.
    pub offset: u64,
    /// At most [`MAX_CHUNK`] bytes.
    pub data: Vec<u8>,
}

/// A transfer ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TransferEnd {
    /// Which transfer.
    pub call: CallNumber,
    /// How; `Completed`, `Denied`, `Failed`, `Cancelled` or `Internal`.
    pub outcome: Outcome,
    /// Bytes of the whole file.
    pub size: u64,
}

/// What is going on in the toolhost.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ToolhostStatus {
    /// What holds.
    pub wall: Wall,
    /// Running calls of all connections.
    pub running: Vec<RunningCall>,
    /// Zygotes alive.
    pub zygotes: u32,
    /// New calls are refused because of an emergency stop.
    pub stopped: bool,
}

/// One running call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RunningCall {
    /// Unique id.
    pub call_id: String,
    /// Tool.
    pub tool: String,
    /// Since it started, in milliseconds.
    pub elapsed_ms: u64,
    /// Who asked, as main claims it.
    pub origin: Origin,
}

/// What an emergency stop covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum StopScope {
    /// End the calls that run now.
    Running,
    /// End them and refuse new ones.
    All,
    /// Accept calls again.
    Clear,
}

/// Answer to a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Stopped {
    /// Calls that were ended.
    pub ended: u32,
    /// New calls are refused from now on.
    pub refusing: bool,
}

/// What came of one attack on the wall.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Attacked {
    /// Stable name.
    pub id: String,
    /// The protection it is aimed at, as in [`Wall::protections`].
    pub protection: String,
    /// What answered, as far as it can be told; what was expected to, where it got through.
    pub mechanism: String,
    /// The kernel feature behind that.
    pub feature: String,
    /// Whether it was held.
    pub result: AttackResult,
    /// The kernel's answer, or why it was not tried.
    pub detail: String,
}

/// Whether an attack was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttackResult {
    /// The wall refused it.
    Held,
    /// It got through, or it did not end in a way that proves anything.
    Broken,
    /// There is nothing to attack here, or it is a named gap of the level.
    Skipped,
}

/// The end of a series of attacks.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AttackDone {
    /// Why no attack was tried, if none was.
    pub refused: Option<String>,
}

/// Why the toolhost closes a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CloseReason {
    /// The versions differ; restart both with the same build.
    VersionMismatch {
        /// The toolhost's version.
        ours: u32,
    },
    /// The bytes are not this protocol.
    Malformed {
        /// What was wrong.
        detail: String,
    },
    /// A message that is not legal in this state.
    Illegal {
        /// Name of the message.
        message: String,
    },
    /// More work was queued than is allowed.
    Overload,
    /// The toolhost ends.
    ShuttingDown,
    /// The toolhost cannot serve: said instead of a hello.
    CannotStart {
        /// Why, and what to do.
        reason: String,
        /// The configuration, or what it asks for, is the cause.
        configuration: bool,
    },
}
