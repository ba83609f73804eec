//! `sandbox run`: a program of the person's own behind the wall, its three streams passed through.
//!
//! Nothing of ours appears on standard output, nothing is cut and nothing is judged; only where a stream is a terminal
//! is what would steer it made visible. Backpressure reaches the program: it waits while our output is not read.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oxibot_proto::message::{CallResult, Outcome, OutputChunk, Stream, Violation};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use crate::broker::{Broker, CallEvent, CallOptions, PendingCall, RunInput};
use crate::cli::{Global, RunArgs};
use crate::confine::Network;
use crate::exit::Exit;
use crate::launch::Purpose;
use crate::render::neutral::{self, Streaming};
use crate::render::report::CallReport;
use crate::render::terminal::{self, Terminal};

use super::oneshot::{Needs, State, typed_directory, with_toolhost};
use super::signals::Interrupts;
use super::tool::origin;

/// Refused or failed before or apart from the program.
const REFUSED: Exit = Exit::Program(125);
/// What a shell reports when a program wrote to a pipe nobody reads: 128 and SIGPIPE.
const NOBODY_READS: Exit = Exit::Program(141);
/// How long a reader who takes nothing has after the deadline, before the rest is not waited for.
const LATE: Duration = Duration::from_secs(2);
/// Longest a last word may take where nobody reads standard error either.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Bytes of input read at once.
const PIECE: usize = 64 * 1024;

/// Runs it.
pub(super) fn run(global: &Global, args: &RunArgs) -> Exit {
    let workspace = match workspace(args.workspace.as_deref()) {
        Ok(workspace) => workspace,
        Err(reason) => {
            terminal::complain(&reason);
            return REFUSED;
        }
    };
    let needs = Needs {
        workspaces: vec![workspace.clone()],
        network: Network::None,
        web: false,
        state: State::Unused,
        purpose: Purpose::OneShot,
        json: false,
    };
    let mut options = CallOptions::new(origin());
    options.timeout_ms = args.timeout.map(|seconds| u64::from(seconds).saturating_mul(1000));
    options.workspace = workspace.to_str().map(str::to_owned);
    if options.workspace.is_none() {
        terminal::complain(&format!(
            "cannot use the workspace {}: its name is not UTF-8",
            workspace.display()
        ));
        return REFUSED;
    }
    let argv: Vec<Vec<u8>> = args.command.iter().cloned().map(OsString::into_vec).collect();
    let terminal = Terminal::detect(global.plain);
    let exit = with_toolhost(
        global,
        &needs,
        |ready| {
            // The home may lie elsewhere than usual: only the configuration knows.
            let home = typed_directory(&ready.loaded.paths.home);
            if args.workspace.is_none() && home.starts_with(&workspace) {
                terminal::complain(&format!(
                    "cannot use the current directory {} as workspace: it holds OxiBot's home",
                    workspace.display()
                ));
                terminal::note("  change to a project directory, or give --workspace DIR");
                return Err(REFUSED);
            }
            Ok(())
        },
        async |(), broker| {
            let started = broker.run(argv, options).await;
            match started {
                Ok((pending, input)) => relay(&broker, pending, input, terminal).await,
                Err(error) => {
                    terminal::complain(&error.to_string());
                    REFUSED
                }
            }
        },
    );
    // Whatever kept the program from running is one thing to a script.
    if matches!(exit, Exit::Program(_)) { exit } else { REFUSED }
}

/// The directory the program may write: the one typed, or the current one if that is no one's home.
fn workspace(typed: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(typed) = typed {
        return Ok(typed_directory(typed));
    }
    let current =
        std::env::current_dir().map_err(|error| format!("cannot find the current directory: {error}"))?;
    let current = typed_directory(&current);
    let homes = homes();
    refuse_default(&current, &homes).map_or(Ok(current), Err)
}

/// Why a directory cannot be taken without having been named, if it cannot.
fn refuse_default(current: &Path, homes: &[PathBuf]) -> Option<String> {
    let what = if current == Path::new("/") {
        "the root directory"
    } else if homes.iter().any(|home| home == current) || current.parent() == Some(Path::new("/home")) {
        "a home directory"
    } else {
        return None;
    };
    Some(format!(
        "cannot use the current directory {} as workspace: it is {what}\n  change to a project directory, or give \
         --workspace DIR",
        current.display()
    ))
}

/// Home directories of this machine's users.
fn homes() -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = std::env::var_os("HOME").map(PathBuf::from).into_iter().collect();
    if let Ok(users) = std::fs::read("/etc/passwd") {
        homes.extend(
            users
                .split(|byte| *byte == b'\n')
                .filter_map(|line| line.split(|byte| *byte == b':').nth(5))
                .filter(|home| home.len() > 1)
                .map(|home| PathBuf::from(OsString::from_vec(home.to_vec()))),
        );
    }
    homes.iter().map(|home| typed_directory(home)).collect()
}

async fn relay(broker: &Broker, mut pending: PendingCall, input: RunInput, terminal: Terminal) -> Exit {
    let mut interrupts = match Interrupts::listen() {
        Ok(interrupts) => interrupts,
        Err(error) => {
            terminal::complain(&format!("cannot listen for Ctrl-C: {error}"));
            return REFUSED;
        }
    };
    let mut streams = Streams::new(terminal);
    let pump = pump(input);
    tokio::pin!(pump);
    let mut pumping = true;
    let mut nobody_reads = false;
    let mut cancelled = false;
    let mut later = VecDeque::new();
    loop {
        let event = tokio::select! {
            event = next(&mut later, &mut pending) => event,
            () = &mut pump, if pumping => {
                pumping = false;
                continue;
            }
            () = interrupts.next() => {
                if cancelled {
                    return Exit::Cancelled;
                }
                cancelled = true;
                // A connection that is gone says so by the result.
                drop(broker.cancel(pending.number).await);
                continue;
            }
        };
        match event {
            CallEvent::Output(chunk) if !nobody_reads => {
                let write = streams.write(&chunk);
                let written = match hand_over(write, &mut pending, &mut interrupts, &mut later).await {
                    Handed::Over(written) => written,
                    Handed::Interrupted => {
                        drop(broker.cancel(pending.number).await);
                        return Exit::Cancelled;
                    }
                    Handed::TooLate(result) => {
                        let word = "oxibot: what it printed last was not read by anybody\n".as_bytes();
                        // Standard error may be what is not read.
                        drop(timeout(LAST_WORD, tokio::io::stderr().write_all(word)).await);
                        return Exit::of_run(&result.outcome, result.exit_code, result.signal);
                    }
                };
                if let Err(error) = written {
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        terminal::complain(&format!("cannot pass on what the program prints: {error}"));
                    }
                    nobody_reads = true;
                    drop(broker.cancel(pending.number).await);
                }
            }
            CallEvent::Output(_) | CallEvent::Started(_) | CallEvent::Progress(_) => {}
            CallEvent::Result(result) => {
                // Half a character at the end of a terminal's stream; what cannot be written there is lost anyway.
                drop(streams.finish().await);
                if nobody_reads {
                    return NOBODY_READS;
                }
                return end(&result);
            }
        }
    }
}

/// What was taken earlier, then what comes.
async fn next(later: &mut VecDeque<CallEvent>, pending: &mut PendingCall) -> CallEvent {
    match later.pop_front() {
        Some(event) => event,
        None => pending.next().await,
    }
}

/// What became of a piece of output.
enum Handed {
    /// Written, or it cannot be.
    Over(io::Result<()>),
    Interrupted,
    /// The program was ended, and its output is not read.
    TooLate(Box<CallResult>),
}

/// Waits for our reader, who may be slow, but not beyond the end of a program that was ended: its deadline is kept
/// whether anybody reads or not. What comes meanwhile is put aside.
async fn hand_over(
    write: impl Future<Output = io::Result<()>>,
    pending: &mut PendingCall,
    interrupts: &mut Interrupts,
    later: &mut VecDeque<CallEvent>,
) -> Handed {
    let late = pending.deadline().and_then(|deadline| deadline.checked_add(LATE));
    let late = if later.is_empty() { late } else { None };
    let mut write = std::pin::pin!(write);
    tokio::select! {
        biased;
        written = &mut write => return Handed::Over(written),
        () = interrupts.next() => return Handed::Interrupted,
        () = passed(late) => {}
    }
    loop {
        match pending.next().await {
            CallEvent::Result(result) => {
                if result.outcome != Outcome::Completed {
                    return Handed::TooLate(result);
                }
                later.push_back(CallEvent::Result(result));
                break;
            }
            event @ (CallEvent::Output(_) | CallEvent::Started(_) | CallEvent::Progress(_)) => {
                later.push_back(event);
            }
        }
    }
    // It did all it had to: its reader may be as slow as a reader of any program.
    tokio::select! {
        written = &mut write => Handed::Over(written),
        () = interrupts.next() => Handed::Interrupted,
    }
}

/// Never, where there is no such moment.
async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn end(result: &CallResult) -> Exit {
    match &result.outcome {
        Outcome::Completed | Outcome::Cancelled => {}
        Outcome::Killed { limit } => {
            if let Some(limit) = limit {
                terminal::complain(&format!("ended by the limit on {}", neutral::line(limit, 64)));
            }
        }
        Outcome::TimedOut => {
            let seconds = result.duration_ms / 1000;
            terminal::complain(&format!("timed out after {seconds} s; every process of it was ended"));
        }
        Outcome::Failed { message } | Outcome::Internal { message } => {
            terminal::complain(&neutral::text(message));
        }
        Outcome::Denied(_) | Outcome::NeedsApproval(_) => {
            terminal::complain(CallReport::new(result).human().trim_end());
        }
    }
    for violation in &result.violations {
        terminal::complain(&neutral::line(&refused(violation), 512));
    }
    for note in &result.notes {
        terminal::complain(&neutral::line(note, 512));
    }
    Exit::of_run(&result.outcome, result.exit_code, result.signal)
}

/// One violation for a person. What is refused need not have a path.
fn refused(violation: &Violation) -> String {
    let Violation { what, path, why, certainty: _ } = violation;
    let space = if path.is_empty() { "" } else { " " };
    format!("refused by the sandbox: {what}{space}{path}: {why}")
}

/// Reads our standard input and passes it on until it ends, or nobody takes it.
async fn pump(input: RunInput) {
    let mut stdin = tokio::io::stdin();
    let mut piece = vec![0_u8; PIECE];
    loop {
        match stdin.read(&mut piece).await {
            Ok(0) => break,
            Ok(read) => {
                if input.write(piece.get(..read).unwrap_or_default()).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                terminal::complain(&format!("cannot read standard input: {error}"));
                break;
            }
        }
    }
    // A connection that is gone says so by the result.
    drop(input.end().await);
}

/// Our two outputs. A terminal gets text it can be trusted with, anything else the bytes as they are.
struct Streams {
    stdout: Sink<tokio::io::Stdout>,
    stderr: Sink<tokio::io::Stderr>,
}

impl Streams {
    fn new(terminal: Terminal) -> Self {
        Self {
            stdout: Sink::new(tokio::io::stdout(), terminal.stdout),
            stderr: Sink::new(tokio::io::stderr(), terminal.stderr),
        }
    }

    async fn write(&mut self, chunk: &OutputChunk) -> io::Result<()> {
        match chunk.stream {
            Stream::Stdout => self.stdout.write(&chunk.data).await,
            Stream::Stderr => self.stderr.write(&chunk.data).await,
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.stdout.finish().await?;
        self.stderr.finish().await
    }
}

struct Sink<W> {
    out: W,
    neutral: Option<Streaming>,
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    fn new(out: W, is_terminal: bool) -> Self {
        Self { out, neutral: is_terminal.then(Streaming::default) }
    }

    async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match &mut self.neutral {
            Some(neutral) => self.out.write_all(neutral.push(data).as_bytes()).await?,
            None => self.out.write_all(data).await?,
        }
        self.out.flush().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        if let Some(neutral) = &mut self.neutral {
            self.out.write_all(neutral.finish().as_bytes()).await?;
        }
        self.out.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobodys_home_and_not_the_root_is_taken_unasked() {
        let homes = [PathBuf::from("/srv/someone")];
        for refused in ["/", "/home/u", "/srv/someone"] {
            let reason = refuse_default(Path::new(refused), &homes).unwrap();
            assert!(reason.contains("--workspace"), "{reason}");
        }
        for taken in ["/home/u/project", "/srv", "/tmp/x"] {
            assert_eq!(refuse_default(Path::new(taken), &homes), None);
        }
    }

    #[test]
    fn what_was_refused_is_said_with_its_path_or_without() {
        let mut violation = Violation {
            what: "write".into(),
            path: "/etc/hosts".into(),
            why: "outside".into(),
            certainty: oxibot_proto::message::Certainty::Kernel,
        };
        assert_eq!(refused(&violation), "refused by the sandbox: write /etc/hosts: outside");
        violation.path.clear();
        assert_eq!(refused(&violation), "refused by the sandbox: write: outside");
    }

    #[tokio::test]
    async fn bytes_pass_unchanged_and_a_terminal_is_protected() {
        let odd = b"\x1b[31m\xff\0\r";
        let mut plain = Sink::new(Vec::new(), false);
        plain.write(odd).await.unwrap();
        plain.finish().await.unwrap();
        assert_eq!(plain.out, odd);
        let mut guarded = Sink::new(Vec::new(), true);
        guarded.write(odd).await.unwrap();
        guarded.finish().await.unwrap();
        assert_eq!(String::from_utf8(guarded.out).unwrap(), "␛[31m\u{fffd}␀␍");
    }
}
