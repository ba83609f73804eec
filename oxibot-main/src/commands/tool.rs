//! `tool list` and `tool call`: the tools, and one call exactly as a model would make it.
//!
//! What the arguments mean is the toolhost's to say: here they are bytes until they are known to be UTF-8 of a bearable
//! size. `tool call --json` prints exactly one object, whatever happens.

use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use oxibot_proto::message::{
    ApprovalOutcome, Asks, CallNumber, CallResult, MAX_ARGUMENTS, Origin, Outcome, Output, PendingApproval,
    ToolSpec, ToolhostHello,
};

use crate::agent::consent::{Approver, Consent};
use crate::broker::{Broker, BrokerError, CallEvent, CallOptions, PendingCall};
use crate::cli::{CallArgs, Global, ListArgs};
use crate::confine::Network;
use crate::exit::Exit;
use crate::explain;
use crate::launch::Purpose;
use crate::render::neutral;
use crate::render::report::{CallReport, JudgementReport, to_line};
use crate::render::terminal::{self, Terminal};
use crate::repl::screen::Detail;
use crate::repl::{self, AtTerminal, Screen};

use super::fault::Fault;
use super::oneshot::{Needs, State, typed_directory, with_toolhost};
use super::print;
use super::progress::{ProgressLine, Style};
use super::signals::Interrupts;

/// Prints the tools on offer.
pub(super) fn list(global: &Global, args: &ListArgs) -> Exit {
    let needs = Needs {
        workspaces: Vec::new(),
        network: Network::None,
        web: false,
        state: State::Unused,
        purpose: Purpose::OneShot,
        json: args.json,
    };
    with_toolhost(
        global,
        &needs,
        |_| Ok(()),
        async |(), broker| match broker.tools().await {
            Ok(tools) if args.json => print(&list_json(&tools)),
            Ok(tools) => print(&list_text(&tools)),
            Err(error) => Fault::from(error).report(args.json),
        },
    )
}

/// Makes one call.
pub(super) fn call(global: &Global, args: &CallArgs) -> Exit {
    let workspace = args.workspace.as_deref().map(typed_directory);
    let needs = Needs {
        workspaces: workspace.iter().cloned().collect(),
        network: Network::None,
        // Only there is it worth the process that waits for it.
        web: args.name.to_str().is_some_and(|name| name.starts_with("web_")),
        state: State::Unused,
        purpose: if args.dry_run { Purpose::Judge } else { Purpose::OneShot },
        json: args.json,
    };
    let style = progress_style(global, args.json);
    with_toolhost(
        global,
        &needs,
        |ready| Ok(request(args, workspace.as_ref(), &ready.greeted.hello)),
        async |request, broker| match request {
            Ok(request) if args.dry_run => judge(&broker, request, args.json).await,
            Ok(request) => run(&broker, request, args.json, style).await,
            Err(refused) => show(&refused, None, args.json),
        },
    )
}

/// A call that can be put on the wire.
struct Request {
    tool: String,
    arguments: String,
    options: CallOptions,
    /// `--approve`: yes was said beforehand, by whoever typed it.
    approve: bool,
}

/// Bytes to text; what cannot be a call is a result that failed, as it would be for a model.
fn request(
    args: &CallArgs,
    workspace: Option<&PathBuf>,
    hello: &ToolhostHello,
) -> Result<Request, Box<CallResult>> {
    let tool = args.name.to_string_lossy().into_owned();
    let failed = |message: String| Box::new(failed(&tool, message, hello));
    let arguments = match args.arguments.as_deref() {
        None => "{}".to_owned(),
        Some(dash) if dash == "-" => read_stdin().map_err(failed)?,
        Some(typed) => text(typed).map_err(failed)?,
    };
    if arguments.len() > MAX_ARGUMENTS {
        return Err(failed(too_long(arguments.len())));
    }
    let workspace = match workspace {
        None => None,
        Some(path) => Some(path.to_str().map(str::to_owned).ok_or_else(|| {
            failed(format!("cannot use the workspace {}: its name is not UTF-8", path.display()))
        })?),
    };
    let mut options = CallOptions::new(origin());
    options.workspace = workspace;
    options.timeout_ms = args.timeout.map(|seconds| u64::from(seconds).saturating_mul(1000));
    Ok(Request { tool, arguments, options, approve: args.approve })
}

async fn judge(broker: &Broker, request: Request, json: bool) -> Exit {
    let Request { tool, arguments, options, approve: _ } = request;
    match broker.judge(&tool, &arguments, options).await {
        Ok(Ok(judgement)) => {
            let report = JudgementReport::new(&judgement);
            let printed = print(&if json { report.json() } else { report.human() });
            worse(printed, Exit::of_verdict(judgement.verdict))
        }
        Ok(Err(result)) => show(&result, None, json),
        Err(error) => Fault::from(error).report(json),
    }
}

async fn run(broker: &Broker, request: Request, json: bool, style: Style) -> Exit {
    let Request { tool, arguments, options, approve } = request;
    let mut interrupts = match Interrupts::listen() {
        Ok(interrupts) => interrupts,
        Err(error) => {
            return Fault::new(Exit::Internal, "runtime", format!("cannot listen for Ctrl-C: {error}"))
                .report(json);
        }
    };
    let mut options = options;
    loop {
        let pending = match broker.start_call(&tool, &arguments, options.clone()).await {
            Ok(pending) => pending,
            Err(BrokerError::TooLarge(_)) => {
                let result = failed(&tool, too_long(arguments.len()), &broker.hello());
                return show(&result, None, json);
            }
            Err(error) => return Fault::from(error).report(json),
        };
        let Some(result) = watch(broker, pending, &mut interrupts, ProgressLine::new(style)).await else {
            return Exit::Cancelled;
        };
        let answered = match result.approval.as_deref() {
            Some(approval) => tokio::select! {
                answered = consent(broker, approval, approve, json, &options.origin.who) => answered,
                () = interrupts.next() => return Exit::Cancelled,
            },
            None => return show(&result, explain::command(&tool, &arguments).as_deref(), json),
        };
        match &result.approval {
            Some(approval) if answered => options.approval = Some(approval.id.clone()),
            Some(_) | None => return show(&result, None, json),
        }
    }
}

/// Whether somebody said yes: beforehand by `--approve`, now at the terminal, or an administrator elsewhere.
async fn consent(broker: &Broker, pending: &PendingApproval, approve: bool, json: bool, by: &str) -> bool {
    let outcome = match pending.asks {
        Asks::Main if approve => broker.approve(&pending.id, true, by).await,
        Asks::Administrator if approve => {
            terminal::note(&repl::consent::waiting(pending));
            broker.approval(&pending.id).await
        }
        Asks::Main if !json && AtTerminal::possible() => {
            let screen = Arc::new(Screen::new(Terminal::detect(true), Detail::All));
            match Approver::ask(&AtTerminal::new(screen, by.to_owned()), pending).await {
                Consent::Yes(by) => broker.approve(&pending.id, true, &by).await,
                Consent::No(by) => broker.approve(&pending.id, false, &by).await,
                Consent::Nobody | Consent::NotAsked(_) => return false,
            }
        }
        Asks::Main | Asks::Administrator => return false,
    };
    match outcome {
        Ok(ApprovalOutcome::Granted) => true,
        Ok(ApprovalOutcome::Refused) => false,
        Ok(ApprovalOutcome::Void { reason }) => {
            terminal::complain(&neutral::line(&reason, 400));
            false
        }
        Err(error) => {
            terminal::complain(&error.to_string());
            false
        }
    }
}

/// Waits for the result. Ctrl-C cancels the call; a second one does not wait for its result.
async fn watch(
    broker: &Broker,
    mut pending: PendingCall,
    interrupts: &mut Interrupts,
    mut progress: ProgressLine,
) -> Option<Box<CallResult>> {
    let mut cancelled = false;
    loop {
        tokio::select! {
            event = pending.next() => match event {
                CallEvent::Result(result) => {
                    progress.clear();
                    return Some(result);
                }
                CallEvent::Progress(now) => progress.show(&now),
                CallEvent::Started(_) | CallEvent::Output(_) => {}
            },
            () = interrupts.next() => {
                progress.clear();
                if cancelled {
                    return None;
                }
                cancelled = true;
                // A connection that is gone says so by the result.
                drop(broker.cancel(pending.number).await);
            }
        }
    }
}

fn show(result: &CallResult, command: Option<&str>, json: bool) -> Exit {
    let report = CallReport::of(result, command);
    let mut text = if json { report.json() } else { report.human() };
    if !json && Terminal::detect(true).stdout && !text.is_empty() && !text.ends_with('\n') {
        // Else the shell's prompt would follow on the same line.
        text.push('\n');
    }
    worse(print(&text), Exit::of_outcome(&result.outcome))
}

/// What could not be printed counts only when all else went well.
fn worse(printed: Exit, exit: Exit) -> Exit {
    if exit == Exit::Done { printed } else { exit }
}

/// How progress is shown for this command line.
pub(super) fn progress_style(global: &Global, json: bool) -> Style {
    let terminal = Terminal::detect(global.plain);
    if json || global.quiet {
        Style::Silent
    } else if terminal.fancy && terminal.stderr {
        Style::Redrawn
    } else {
        Style::Plain
    }
}

/// Who asks, for the log of the toolhost. A claim, not a proof.
pub(super) fn origin() -> Origin {
    let uid = nix::unistd::getuid();
    let who = match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    };
    Origin { who, channel: "terminal".into(), session: "command-line".into() }
}

fn text(typed: &OsStr) -> Result<String, String> {
    typed
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| "the arguments are not UTF-8; write them as JSON, with other bytes escaped".to_owned())
}

fn read_stdin() -> Result<String, String> {
    let limit = u64::try_from(MAX_ARGUMENTS).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read the arguments from standard input: {error}"))?;
    if bytes.len() > MAX_ARGUMENTS {
        return Err(too_long(bytes.len()));
    }
    String::from_utf8(bytes)
        .map_err(|_| "the arguments on standard input are not UTF-8; write them as JSON".to_owned())
}

fn too_long(length: usize) -> String {
    format!(
        "the arguments are too long ({length} bytes or more, at most {MAX_ARGUMENTS}); write the text to a file \
         in pieces and name the file"
    )
}

/// A call that never reached the wire, in the form of one that failed.
fn failed(tool: &str, message: String, hello: &ToolhostHello) -> CallResult {
    CallResult {
        call: CallNumber(0),
        call_id: String::new(),
        tool: tool.to_owned(),
        outcome: Outcome::Failed { message },
        exit_code: None,
        signal: None,
        output: Output { head: Vec::new(), tail: Vec::new(), total_bytes: 0, passed_bytes: 0, file: None },
        violations: Vec::new(),
        notes: Vec::new(),
        level: hello.wall.level,
        proven: hello.wall.proven,
        duration_ms: 0,
        usage: None,
        view: None,
        approval: None,
    }
}

fn list_text(tools: &[ToolSpec]) -> String {
    let mut text = String::new();
    for tool in tools {
        let also = if tool.aliases.is_empty() {
            String::new()
        } else {
            format!(" (also {})", tool.aliases.join(", "))
        };
        text.push_str(&neutral::line(&format!("{}{also}", tool.name), 80));
        text.push('\n');
        for line in wrapped(&neutral::line(&tool.description, 4096), 76) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

fn list_json(tools: &[ToolSpec]) -> String {
    let tools: Vec<serde_json::Value> = tools
        .iter()
        .map(|tool| {
            let parameters = serde_json::from_str::<serde_json::Value>(&tool.parameters).ok();
            serde_json::json!({
                "name": tool.name,
                "aliases": tool.aliases,
                "description": tool.description,
                "parameters": parameters,
            })
        })
        .collect();
    to_line(&tools)
}

/// Words on lines of at most `width` characters.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line)
                if line.chars().count().saturating_add(word.chars().count()).saturating_add(1) <= width =>
            {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::broker::fake;

    fn args(arguments: Option<OsString>) -> CallArgs {
        CallArgs {
            name: "bash".into(),
            arguments,
            workspace: None,
            timeout: Some(5),
            approve: true,
            dry_run: false,
            json: true,
        }
    }

    #[test]
    fn what_cannot_be_a_call_is_a_result_that_failed() {
        let hello = fake::hello();
        for bad in [OsString::from_vec(vec![0xff]), OsString::from("x".repeat(3_000_000))] {
            let refused = request(&args(Some(bad)), None, &hello).err().unwrap();
            assert!(matches!(refused.outcome, Outcome::Failed { .. }));
            let report = CallReport::new(&refused);
            assert_eq!((report.outcome, report.call_id), ("failed", None));
        }
    }

    #[test]
    fn options_of_the_command_line_reach_the_call() {
        let request = request(&args(None), Some(&"/w".into()), &fake::hello()).ok().unwrap();
        assert_eq!(request.arguments, "{}");
        assert_eq!(request.options.workspace.as_deref(), Some("/w"));
        assert_eq!(request.options.timeout_ms, Some(5000));
        assert!(request.approve);
    }

    #[test]
    fn bad_json_is_the_toolhosts_to_judge() {
        let request = request(&args(Some("{not json".into())), None, &fake::hello()).ok().unwrap();
        assert_eq!(request.arguments, "{not json");
    }

    #[test]
    fn list_fits_80_columns() {
        let tools = vec![ToolSpec {
            name: "bash".into(),
            aliases: vec!["exec".into()],
            description: "word ".repeat(60),
            parameters: "{}".into(),
        }];
        let text = list_text(&tools);
        assert!(text.starts_with("bash (also exec)\n    word"));
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        let json: serde_json::Value = serde_json::from_str(&list_json(&tools)).unwrap();
        assert_eq!(json[0]["parameters"], serde_json::json!({}));
    }
}
