//! One line of output as a complaint: who says what failed, why, and on which paths. Forms of bash, coreutils, Python,
//! Perl, Node, Java, Go, git, gcc, make, tar and their like; a line of any other form is no complaint.
//!
//! A line must be the complaint from its beginning to its end, so that a log or a text that quotes one is none.

use super::cause::{self, Cause};
use super::network;

/// Longest name of a program in front of a complaint, in bytes.
const MAX_PROGRAM: usize = 64;
/// Paths of one complaint that are looked at.
const MAX_PATHS: usize = 4;
/// What a complaint without a program's name begins with.
const BEGINNINGS: [&str; 22] = [
    "cannot ",
    "can't ",
    "could not ",
    "couldn't ",
    "failed to ",
    "unable to ",
    "error opening ",
    "error writing ",
    "error reading ",
    "open ",
    "mkdir ",
    "rename ",
    "link ",
    "unlink ",
    "remove ",
    "rmdir ",
    "stat ",
    "write ",
    "chmod ",
    "chown ",
    "dial ",
    "lookup ",
];
/// Put before a complaint by programs that relay it.
const RELAYED: [&str; 6] =
    ["npm ERR! ", "npm error ", "Uncaught ", "Caused by: ", "Exception in thread \"main\" ", "E   "];

/// What the lines before said.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// A traceback went through Python's `socket` module.
    socket: bool,
    /// A reason without a path, for a line that names the path only.
    reason: Option<Cause>,
}

/// What a program says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Its name without directories, if it says it.
    pub(super) program: Option<String>,
    /// Everything before the reason, lower-case: `cannot create`, `changing ownership of`.
    pub(super) words: String,
    pub(super) cause: Cause,
    /// The reason as it is searched for in a command that quotes it.
    pub(super) phrase: &'static str,
    /// As written.
    pub(super) paths: Vec<String>,
    /// Host, of network complaints.
    pub(super) host: Option<String>,
}

impl Complaint {
    /// Reads one line.
    pub(super) fn read(line: &str, context: &mut Context) -> Option<Self> {
        // Progress bars end in a carriage return, or in nothing at all.
        let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
        let line = line.find("curl: (").map_or(line, |at| line.get(at..).unwrap_or(line));
        let line = RELAYED.iter().find_map(|relay| line.strip_prefix(relay)).unwrap_or(line);
        let lower = line.to_ascii_lowercase();
        if lower.trim_start().starts_with("file \"") || lower.trim_start().starts_with("_socket.") {
            context.socket = lower.contains("socket");
            return None;
        }
        let in_socket = context.socket;
        if !line.starts_with(' ') {
            context.socket = false;
        }
        if let Some(complaint) = network::read(line, &lower) {
            return Some(complaint);
        }
        if let Some(complaint) = node(line) {
            return Some(complaint);
        }
        if let Some(complaint) = bare(line, &lower) {
            return Some(complaint);
        }
        let reason = context.reason.take();
        if let Some(path) =
            lower.strip_prefix("zip error: could not create output file (").and_then(|_| inside(line))
        {
            return Some(Self {
                program: Some("zip".to_owned()),
                words: "create".to_owned(),
                cause: reason?,
                phrase: "could not create output file",
                paths: vec![path.to_owned()],
                host: None,
            });
        }
        let found = cause::find(&lower)?;
        if lower.starts_with("zip i/o error: ") {
            context.reason = Some(found.cause);
            return None;
        }
        let complaint = |words: &str, program: Option<&str>, paths: Vec<String>| Self {
            program: program.map(|program| base(program).to_owned()),
            // An apostrophe opens no quotation.
            words: words.to_ascii_lowercase().replace("n't ", "nt "),
            cause: found.cause,
            phrase: found.phrase,
            paths,
            host: None,
        };
        let before = line.get(..found.start)?;
        let after = line.get(found.end..)?;
        if let Some(paths) = python(before, after) {
            let words = if in_socket { "python socket" } else { "python" };
            return Some(complaint(words, None, paths));
        }
        if !ends(after) {
            return None;
        }
        let head = head(before)?;
        let (program, rest) = match head.split_once(": ") {
            Some((first, rest)) if is_program(first) => (Some(first), rest),
            None if head == "RTNETLINK answers" => (Some("rtnetlink answers"), ""),
            Some((first, rest)) if is_position(first) && rest.starts_with("fatal error") => {
                (Some("cc"), rest)
            }
            Some(_) | None if is_program(head) && !head.starts_with('/') => (Some(head), ""),
            Some(_) | None if begins(head) => (None, head),
            Some(_) | None if head.starts_with('/') && !head.contains(": ") => (None, head),
            Some(_) | None => return None,
        };
        Some(complaint(rest, program, paths(rest)))
    }
}

/// The name without its directories; a shell is `bash` also as `/bin/bash` and `-bash`.
pub(super) fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program).trim_start_matches('-')
}

/// What stands before a reason, without the `: ` or `(` that leads to it.
fn head(before: &str) -> Option<&str> {
    if let Some(head) = before.strip_suffix(": ") {
        return Some(head);
    }
    // bash: `kill: (1) - `; openssl: `Can't open "x" for writing, `.
    if let Some(head) = before.strip_suffix(" - ").or_else(|| before.strip_suffix(", ")) {
        return Some(head);
    }
    // `/etc/x (Permission denied)`, `/etc/x - open (13: Permission denied)`.
    let (head, opened) = before.rsplit_once(" (")?;
    let number = opened.strip_suffix(": ").unwrap_or(opened);
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| {
        head.rsplit_once(" - ").map_or(head, |(path, call)| if call.contains('/') { head } else { path })
    })
}

/// What stands in the last parentheses.
fn inside(line: &str) -> Option<&str> {
    line.trim_end().strip_suffix(')')?.rsplit_once('(').map(|(_, path)| path)
}

/// Whether nothing but an ending follows a reason.
fn ends(after: &str) -> bool {
    let after = after.trim_end();
    matches!(after, "" | "." | ")" | ")." | ".  Stop." | ". Stop." | ", aborting.")
        || after.strip_prefix(" (os error ").is_some_and(|rest| rest.ends_with(')'))
        || (after.starts_with(" at ") && after.contains(" line ") && after.ends_with('.'))
        || after.starts_with(" (core dumped)")
}

fn is_program(text: &str) -> bool {
    text.len() <= MAX_PROGRAM
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./+-[]@".contains(&byte))
}

/// `file.c:1:10`.
fn is_position(text: &str) -> bool {
    let mut parts = text.rsplit(':');
    let mut number =
        || parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    number() && number()
}

fn begins(head: &str) -> bool {
    let lower = head.to_ascii_lowercase();
    BEGINNINGS.iter().any(|beginning| lower.starts_with(beginning))
}

/// Python: `PermissionError: [Errno 13] Permission denied: '/etc/x' -> '/etc/y'`.
fn python(before: &str, after: &str) -> Option<Vec<String>> {
    let (kind, number) = before.rsplit_once("[Errno ")?;
    let number = number.strip_suffix("] ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_kind = kind.is_empty()
        || kind.strip_suffix(": ").is_some_and(|kind| kind.ends_with("Error") || kind.ends_with("error"));
    if !is_number || !is_kind {
        return None;
    }
    match after.strip_prefix(": ") {
        Some(named) => Some(quoted(named)),
        None if after.is_empty() => Some(Vec::new()),
        None => None,
    }
}

/// Node: `Error: EACCES: permission denied, open '/etc/x'`.
fn node(line: &str) -> Option<Complaint> {
    let (kind, rest) = line.split_once("rror: ").or_else(|| line.split_once("code: '"))?;
    if kind.len() > MAX_PROGRAM || kind.contains(' ') {
        return None;
    }
    let (code, rest) = rest.split_once(": ")?;
    let cause = cause::of_code(code)?;
    let (_, call) = rest.split_once(", ")?;
    let phrase = cause::find(&rest.to_ascii_lowercase()).map_or("", |found| found.phrase);
    Some(Complaint {
        program: None,
        words: call.split('\'').next().unwrap_or_default().trim().to_owned(),
        cause,
        phrase,
        paths: quoted(call),
        host: None,
    })
}

/// Complaints that are a single phrase, or say something else than the kernel's reason.
fn bare(line: &str, lower: &str) -> Option<Complaint> {
    let complaint = |cause, phrase, program: Option<&str>, words: &str, paths| Complaint {
        program: program.map(str::to_owned),
        words: words.to_owned(),
        cause,
        phrase,
        paths,
        host: None,
    };
    if lower == "memoryerror" || lower.starts_with("memoryerror:") {
        return Some(complaint(Cause::NoMemory, "memoryerror", None, "", Vec::new()));
    }
    if let Some(found) = cause::find(lower)
        && matches!(found.cause, Cause::TooLarge | Cause::CpuTime | Cause::BadCall)
        && let Some((_, rest)) = lower.split_once(": line ")
        && let Some((_, rest)) = rest.split_once(": ")
        // bash about a process that was ended: `bash: line 1:   123 File size limit exceeded...`.
        && rest.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with(found.phrase)
    {
        return Some(complaint(found.cause, found.phrase, Some("bash"), "", Vec::new()));
    }
    // Node: `Error: spawnSync /opt/x ENOENT`.
    if let Some((_, rest)) = line.split_once("rror: spawn")
        && let Some((_, rest)) = rest.split_once(' ')
        && let Some((path, code)) = rest.rsplit_once(' ')
        && let Some(cause) = cause::of_code(code)
    {
        return Some(complaint(cause, "", None, "spawn", vec![path.to_owned()]));
    }
    for phrase in ["javascript heap out of memory", "std::bad_alloc", "out of memory!"] {
        if lower.ends_with(phrase) {
            return Some(complaint(Cause::NoMemory, phrase, None, "", Vec::new()));
        }
    }
    for (start, end) in [
        ("fatal: repository '", "' does not exist"),
        ("fatal: '", "' does not appear to be a git repository"),
    ] {
        if let Some(path) = line.strip_prefix(start).and_then(|rest| rest.strip_suffix(end)) {
            return Some(complaint(Cause::Missing, end, Some("git"), "open", vec![path.to_owned()]));
        }
    }
    for (phrase, cause) in [
        ("cannot connect to the docker daemon at unix://", Cause::Missing),
        ("docker daemon socket at unix://", Cause::Denied),
    ] {
        if let Some(at) = lower.find(phrase)
            && let Some(rest) = line.get(at.saturating_add(phrase.len())..)
        {
            let end = rest.find([' ', ':', '?']).unwrap_or(rest.len());
            let path = rest.get(..end).unwrap_or_default().trim_end_matches('.');
            return Some(complaint(cause, phrase, Some("docker"), "connect", vec![path.to_owned()]));
        }
    }
    None
}

/// Everything between quotation marks of any kind.
fn quoted(text: &str) -> Vec<String> {
    // Old GNU style is `x', Rust's is `x`.
    const MARKS: [(char, &[char]); 5] =
        [('\'', &['\'']), ('‘', &['’']), ('"', &['"']), ('“', &['”']), ('`', &['`', '\''])];
    let mut found = Vec::new();
    let mut rest = text;
    while found.len() < MAX_PATHS {
        let Some((open, close)) =
            rest.chars().find_map(|c| MARKS.iter().find(|(open, _)| *open == c)).copied()
        else {
            break;
        };
        let Some((_, after)) = rest.split_once(open) else { break };
        let Some((inside, after)) = after.split_once(close) else { break };
        if !inside.is_empty() {
            found.push(inside.to_owned());
        }
        rest = after;
    }
    found
}

/// The paths in what a program says before its reason.
fn paths(text: &str) -> Vec<String> {
    let mut named = quoted(&text.replace("n't ", "nt "));
    if !named.is_empty() {
        named.retain(|name| !matches!(name.as_str(), "standard output" | "standard input"));
        return named;
    }
    for segment in text.rsplit(": ") {
        let segment = segment.trim_start_matches("*** ").trim();
        if segment.starts_with('/') {
            return vec![segment.to_owned()];
        }
        if let Some(path) = segment.split(' ').find(|word| word.starts_with('/') || word.starts_with("./")) {
            return vec![path.trim_end_matches([',', ';']).to_owned()];
        }
        let is_word = !segment.is_empty() && !segment.contains(' ');
        if is_word && !segment.starts_with('(') {
            return vec![segment.to_owned()];
        }
    }
    Vec::new()
}
