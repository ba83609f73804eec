//! `audit`: what was done, whether the record of it is whole, and the record itself.
//!
//! The log is the toolhost's: its program reads it, this process shows it. It needs no configuration, so it works when
//! that is what is broken. What is shown was written by models and strangers: every character that could steer a
//! terminal becomes visible.

mod line;
mod report;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cli::{AuditCommand, Global, TailArgs, VerifyArgs};
use crate::config::{Environment, Paths};
use crate::confine::{Network, Plan};
use crate::exit::Exit;
use crate::launch;
use crate::render::{neutral, terminal};

use super::fault::Fault;
use line::{Record, Wanted};
use report::Report;

/// Records shown when neither a time nor `-f` asks for more.
const LAST: usize = 50;
/// Longest line of the reader.
const MAX_LINE: u64 = 1024 * 1024;
/// Longest input of `--anchors`.
const MAX_ANCHORS: u64 = 64 * 1024 * 1024;

/// Does what was asked. Blocks; with `-f` until it is interrupted.
pub(super) fn run(global: &Global, command: &AuditCommand) -> Exit {
    let home = match Paths::find(&super::options(global), &Environment::of_process()) {
        Ok(paths) => paths.home,
        Err(error) => return Fault::from(error).report(false),
    };
    let done = match command {
        AuditCommand::Tail(args) => tail(&home, args),
        AuditCommand::Verify(args) => verify(&home, args),
        AuditCommand::Export => export(&home),
    };
    done.unwrap_or_else(|fault| fault.report(false))
}

fn tail(home: &Path, args: &TailArgs) -> Result<Exit, Fault> {
    let since = match &args.since {
        None => None,
        Some(text) => Some(line::since(text, SystemTime::now()).ok_or_else(|| {
            Fault::new(Exit::Usage, "usage", format!("cannot use --since {text:?}")).with_hint(
                "give a duration such as 90s, 30m, 1h or 2d, or a time such as 2026-11-30T16:00:00Z",
            )
        })?),
    };
    let wanted = Wanted { tool: args.tool.clone(), event: args.event.clone(), since };
    let mut wish: Vec<OsString> = vec!["export".into()];
    if args.follow {
        wish.push("--follow".into());
    }
    if let Some(since) = since {
        // Whole files of before are not even opened.
        let seconds = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        wish.extend(["--since".into(), seconds.to_string().into()]);
    }
    let mut reader = Reader::start(home, &wish, false)?;
    let mut shown = 0_usize;
    let mut last: VecDeque<Record> = VecDeque::new();
    while let Some(line) = reader.line()? {
        let Some(record) = Record::parse(&line).filter(|record| wanted.fits(record)) else { continue };
        shown = shown.saturating_add(1);
        if args.follow {
            if let Err(error) = terminal::out(&record.shown()) {
                return Ok(ended_by(&error));
            }
            continue;
        }
        last.push_back(record);
        if since.is_none() && last.len() > LAST {
            last.pop_front();
        }
    }
    reader.end()?;
    // Chains of several processes lie one after another; people read by time.
    let mut records: Vec<Record> = last.into();
    records.sort_by(|left, right| left.time.cmp(&right.time));
    let text: String = records.iter().map(Record::shown).collect();
    let printed = super::print(&text);
    if shown == 0 {
        let what = if home.join("audit").is_dir() {
            "nothing that fits is recorded"
        } else {
            "nothing is recorded yet"
        };
        terminal::note(&format!("{what} in {}", home.join("audit").display()));
    } else if shown > records.len() {
        terminal::note(&format!("the last {} of {shown}; --since 1d shows all of a day", records.len()));
    }
    Ok(printed)
}

fn verify(home: &Path, args: &VerifyArgs) -> Result<Exit, Fault> {
    let anchors = args.anchors.as_deref().map(anchors).transpose()?;
    let mut wish: Vec<OsString> = vec!["verify".into()];
    if anchors.is_some() {
        wish.push("--anchors".into());
    }
    let mut reader = Reader::start(home, &wish, anchors.is_some())?;
    if let Some(anchors) = anchors {
        reader.give(&anchors)?;
    }
    let line = reader.line()?;
    let status = reader.end_status()?;
    let unreadable = || Fault::new(Exit::Failed, "audit", String::new());
    let line = line.ok_or_else(unreadable)?;
    let report: Report = serde_json::from_slice(&line).map_err(|error| {
        Fault::new(Exit::Internal, "audit", format!("cannot read the toolhost's report: {error}"))
    })?;
    let text = if args.json { format!("{}\n", String::from_utf8_lossy(&line)) } else { report.human(home) };
    let printed = super::print(&text);
    // The reader's own status says the same; what it said in words counts.
    if report.bad.is_some() || !status.success() { Ok(Exit::Failed) } else { Ok(printed) }
}

fn export(home: &Path) -> Result<Exit, Fault> {
    let neutralise = rustix::termios::isatty(io::stdout());
    let mut reader = Reader::start(home, &["export".into()], false)?;
    let mut out = io::stdout().lock();
    while let Some(mut line) = reader.line()? {
        if neutralise {
            line = neutral::text(&String::from_utf8_lossy(&line)).into_bytes();
        }
        line.push(b'\n');
        if let Err(error) = out.write_all(&line) {
            return Ok(ended_by(&error));
        }
    }
    if let Err(error) = out.flush() {
        return Ok(ended_by(&error));
    }
    reader.end()?;
    Ok(Exit::Done)
}

/// Whoever read us has gone, which is an end and no failure; anything else is.
fn ended_by(error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Exit::Done;
    }
    terminal::complain(&format!("cannot write to standard output: {error}"));
    Exit::Failed
}

/// What the journal holds of us, from `journalctl -o json`, as the reader takes it.
fn anchors(path: &Path) -> Result<String, Fault> {
    let failed = |error: io::Error| {
        Fault::new(Exit::Failed, "anchors", format!("cannot read {}: {error}", path.display()))
    };
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_ANCHORS).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_ANCHORS).read_to_string(&mut text).map_err(failed)?;
    }
    let anchors = report::anchors(&text);
    if anchors.is_empty() {
        let hint = "give the output of: journalctl -o json SYSLOG_IDENTIFIER=oxibot-toolhost";
        let none = format!("there is no anchor in {}", path.display());
        return Err(Fault::new(Exit::Failed, "anchors", none).with_hint(hint));
    }
    Ok(anchors)
}

/// The toolhost's program, reading its log.
struct Reader {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Reader {
    /// Starts it, then shuts this process in: what it prints was written by strangers.
    fn start(home: &Path, wish: &[OsString], input: bool) -> Result<Self, Fault> {
        let home = std::path::absolute(home).unwrap_or_else(|_| PathBuf::from(home));
        let mut child = launch::audit_reader(&home, wish, input)?;
        let Some(stdout) = child.stdout.take() else {
            return Err(Fault::new(
                Exit::Internal,
                "audit",
                "the reader of the audit log has no output".into(),
            ));
        };
        let plan = Plan {
            state: Vec::new(),
            reread: Vec::new(),
            network: Network::None,
            workspaces: Vec::new(),
            toolhost: Some(child.id()),
        };
        super::fault::warn_of(&crate::confine::confine(&plan)?);
        Ok(Self { child, lines: BufReader::new(stdout) })
    }

    fn give(&mut self, text: &str) -> Result<(), Fault> {
        let Some(mut input) = self.child.stdin.take() else { return Ok(()) };
        input.write_all(text.as_bytes()).map_err(|error| Self::lost(&error))
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let mut line = Vec::new();
        (&mut self.lines).take(MAX_LINE).read_until(b'\n', &mut line).map_err(|error| Self::lost(&error))?;
        Ok(match line.pop() {
            None => None,
            Some(b'\n') => Some(line),
            Some(last) => {
                line.push(last);
                Some(line)
            }
        })
    }

    fn end_status(mut self) -> Result<ExitStatus, Fault> {
        self.child.wait().map_err(|error| Self::lost(&error))
    }

    fn end(self) -> Result<(), Fault> {
        // It has said why on standard error.
        let failed = Fault::new(Exit::Failed, "audit", String::new());
        if self.end_status()?.success() { Ok(()) } else { Err(failed) }
    }

    fn lost(error: &io::Error) -> Fault {
        Fault::new(Exit::Internal, "audit", format!("cannot read from the toolhost: {error}"))
    }
}

/// As long as a person says it: `90s`, `30m`, `1h`, `2d`, `1w`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}
