//! The line to the shell reader: one script at a time, an answer within a deadline, and a refusal where there is none.
//!
//! A command is never read in this process. The reader handles what a model wrote, so it is believed as far as a guard-rail
//! is: its answer has the number it was asked under and is bounded. Whatever else it does (it ends, hangs, answers
//! nonsense) blocks the command, and the next one gets a new reader. Asking blocks the loop: a verdict takes some ten
//! microseconds, and never longer than [`ANSWER_TIME`].

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{JudgedRule, Verdict};
use oxibot_proto::settings::{Policy, Unknown};
use oxibot_proto::web::MAX_URL;

use crate::shell::{FromReader, Judged, MAX_COMMANDS, MAX_SCRIPT, ToReader};
use crate::sys;
use crate::tools::{ToolRequest, WebRequest};
use crate::wall::{Nursery, ShellReader};

/// Longest a verdict may take. Generous beside what it takes, because the machine may be busy; short enough that a
/// reader that hangs does not hold up other calls for long.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Longest a new reader may take to confine itself and to load the policy.
const READY_TIME: Duration = Duration::from_secs(10);
/// Rules taken from one answer.
const MAX_RULES: usize = 64;
/// Bytes of any text taken from an answer.
const MAX_TEXT: usize = 8 * 1024;

/// The shell reader as the supervisor sees it.
#[derive(Debug)]
pub(crate) struct Reader {
    line: Option<Line>,
    section: String,
    unknown: Unknown,
    number: u64,
}

#[derive(Debug)]
struct Line {
    worker: ShellReader,
    decoder: Decoder<FromReader>,
    ready: bool,
}

impl Reader {
    /// Takes a reader that was started and gives it the policy. Does not wait for it.
    pub(crate) fn new(worker: Option<ShellReader>, policy: &Policy) -> Self {
        let section = serde_json::to_string(policy).unwrap_or_default();
        let mut reader = Self { line: None, section, unknown: policy.unknown, number: 0 };
        if let Some(worker) = worker {
            reader.attach(worker);
        }
        reader
    }

    fn attach(&mut self, worker: ShellReader) {
        let line = Line { worker, decoder: Decoder::new(), ready: false };
        if send(&line, &ToReader::Policy(self.section.clone())).is_ok() {
            self.line = Some(line);
        }
    }

    /// What the policy says of a request. File tools are judged by their worker, which resolves the path.
    pub(crate) fn judge(&mut self, nursery: &mut Nursery, request: &ToolRequest) -> Judged {
        match request {
            // Its length is judged here, because it has to get there.
            ToolRequest::Web(WebRequest::Get { url, .. }) if url.len() > MAX_URL => {
                let reason = format!("the URL is longer than {MAX_URL} bytes");
                judged(Verdict::Block, "web.url.length", reason, "use a shorter URL")
            }
            // The rest of a URL is judged by the fetch worker, which is who parses it.
            ToolRequest::Files(_) | ToolRequest::Web(_) => {
                Judged { verdict: Verdict::Allow, rules: Vec::new(), commands: Vec::new() }
            }
            ToolRequest::Bash { command, .. } if command.len() > MAX_SCRIPT => {
                let reason = format!("the command is longer than {} KiB", MAX_SCRIPT / 1024);
                let alternative = "put it into a file and run that";
                judged(self.unknown.unreadable, "policy.unreadable", reason, alternative)
            }
            ToolRequest::Bash { command, .. } => self.script(nursery, command).unwrap_or_else(|why| {
                self.end();
                let reason = format!("the command could not be judged: {why}");
                judged(Verdict::Block, "policy.reader", reason, "write the command in a simpler way")
            }),
        }
    }

    fn script(&mut self, nursery: &mut Nursery, script: &str) -> Result<Judged, String> {
        if self.line.is_none() {
            let worker = nursery.reader().map_err(|fault| fault.to_string())?;
            self.attach(worker);
        }
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let line = self.line.as_mut().ok_or("the shell reader cannot be started")?;
        if !line.ready {
            match receive(line, READY_TIME)? {
                FromReader::Ready(Ok(())) => line.ready = true,
                FromReader::Ready(Err(why)) => return Err(capped(&why)),
                FromReader::Judged { .. } => return Err("the shell reader answers nonsense".to_owned()),
            }
        }
        send(line, &ToReader::Judge { number, script: script.to_owned() })?;
        match receive(line, ANSWER_TIME)? {
            FromReader::Judged { number: answered, judged } if answered == number => bounded(judged),
            FromReader::Judged { .. } | FromReader::Ready(_) => {
                Err("the shell reader answers nonsense".to_owned())
            }
        }
    }

    /// Ends the reader. The next command gets another one.
    fn end(&mut self) {
        if let Some(line) = self.line.take() {
            // It may be dead already, which is what we want.
            let _ = sys::pidfd_send_signal(line.worker.pidfd.as_fd(), Signal::SIGKILL);
        }
    }
}

fn judged(verdict: Verdict, id: &str, reason: String, alternative: &str) -> Judged {
    let rule = JudgedRule { id: id.to_owned(), reason, alternative: alternative.to_owned() };
    Judged { verdict, rules: vec![rule], commands: Vec::new() }
}

/// Takes an answer only in the form a reader gives: a verdict that is not `allow` has its rule.
fn bounded(mut judged: Judged) -> Result<Judged, String> {
    judged.rules.truncate(MAX_RULES);
    judged.commands.truncate(MAX_COMMANDS);
    if judged.verdict != Verdict::Allow && judged.rules.is_empty() {
        return Err("the shell reader answers nonsense".to_owned());
    }
    for rule in &mut judged.rules {
        for text in [&mut rule.id, &mut rule.reason, &mut rule.alternative] {
            *text = capped(text);
        }
    }
    Ok(judged)
}

fn capped(text: &str) -> String {
    super::audit::capped(text, MAX_TEXT)
}

fn send(line: &Line, message: &ToReader) -> Result<(), String> {
    let frame = codec::frame(message).map_err(|error| error.to_string())?;
    let until = Instant::now().checked_add(ANSWER_TIME);
    let mut rest = frame.as_slice();
    while !rest.is_empty() {
        wait(line, PollFlags::POLLOUT, until)?;
        match sys::send(line.worker.socket.as_fd(), rest, &[]) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(_) => return Err("the shell reader ended".to_owned()),
        }
    }
    Ok(())
}

fn receive(line: &mut Line, time: Duration) -> Result<FromReader, String> {
    let until = Instant::now().checked_add(time);
    let mut buffer = [0; 16 * 1024];
    loop {
        match line.decoder.next_message() {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => {}
            Err(_) => return Err("the shell reader answers nonsense".to_owned()),
        }
        wait(line, PollFlags::POLLIN, until)?;
        match super::link::receive(line.worker.socket.as_fd(), &mut buffer) {
            Ok(count) => line.decoder.push(buffer.get(..count).unwrap_or_default()),
            Err(_) => return Err("the shell reader ended".to_owned()),
        }
    }
}

fn wait(line: &Line, flags: PollFlags, until: Option<Instant>) -> Result<(), String> {
    loop {
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err("the shell reader does not answer".to_owned());
        }
        let timeout = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(line.worker.socket.as_fd(), flags)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(format!("the shell reader cannot be asked: {errno}")),
        }
    }
}
