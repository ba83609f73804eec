//! `list_dir`, `find_files` and `grep`: one walk, three ways to show it.
//!
//! Regular expressions and globs run in linear time; files, lines, results and time are bounded. Nothing is indexed or
//! remembered between calls.

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat};
use regex::bytes::{Regex, RegexBuilder};

use super::fault::Fault;
use super::read::{binary, read_at};
use super::spill;
use super::text::{self, Page};
use super::walk::{Scope, Walk};
use super::workspace::{Inside, Kind, Workspace, kind, look, open_name, size};
use crate::wire::FilesResult;

/// Largest file that is searched; it is held in memory whole.
const MAX_GREP_FILE: u64 = 16 * 1024 * 1024;
/// Bytes of a matching line that are shown.
const MAX_GREP_LINE: usize = 400;
/// Bytes of a line that are searched. Time for one search is the length of the line times the size of the expression,
/// and nothing can stop it halfway.
const MAX_SEARCHED_LINE: usize = 64 * 1024;
/// Bytes searched between two looks at the clock.
const CLOCK_EVERY: usize = 256 * 1024;
/// Memory a compiled expression may take.
const MAX_REGEX: usize = 2 * 1024 * 1024;
/// Braces in a glob. The parser of globs is not asked to nest without bound.
const MAX_BRACES: usize = 16;

/// `list_dir`.
pub(super) fn list(workspace: &Workspace, path: &str, depth: u32, offset: u64) -> Result<FilesResult, Fault> {
    let at = workspace.locate(path)?;
    let start = at.path().components().filter(|part| part.as_os_str() != ".").count();
    let mut walk = Walk::start(workspace, &at, Scope::Levels(depth.max(1)))
        .map_err(|fault| not_a_directory(workspace, &at, fault))?;
    let mut page = Page::new(offset);
    while let Some(entry) = walk.next() {
        let relative: std::path::PathBuf = entry.path.components().skip(start).collect();
        let mut shown = text::name(relative.as_os_str().as_bytes());
        // A look at each entry costs a system call: only for those that are shown.
        let stat = page.wants_next().then(|| look(entry.directory.as_fd(), &entry.name).ok()).flatten();
        let bytes = match entry.kind {
            Kind::File => stat.as_ref().map(|stat| size(stat).to_string()).unwrap_or_default(),
            Kind::Directory => {
                shown.push('/');
                "-".into()
            }
            Kind::Link => {
                if stat.is_some()
                    && let Ok(link) = readlinkat(entry.directory.as_fd(), &entry.name)
                {
                    shown.push_str(" -> ");
                    shown.push_str(&text::name(link.as_bytes()));
                }
                "-".into()
            }
            Kind::Pipe | Kind::Socket | Kind::Device => "-".into(),
        };
        page.line(&format!("{:<6} {bytes:>10} {shown}", entry.kind.name()));
    }
    page.finish("(empty directory)", &walk.into_notes())
}

fn not_a_directory(workspace: &Workspace, at: &Inside, fault: Fault) -> Fault {
    match workspace.open_file(at, "list") {
        Ok(_) => Fault::failed("list", &at.shown(), "it is a file; read_file shows it"),
        Err(_) => fault,
    }
}

/// `find_files`.
pub(super) fn find(
    workspace: &Workspace,
    pattern: &str,
    path: &str,
    glob: Option<&str>,
    offset: u64,
) -> Result<FilesResult, Fault> {
    let at = workspace.locate(path)?;
    let wanted = if pattern.contains(['*', '?', '[', '{']) {
        Wanted::Glob(Glob::new(pattern)?)
    } else {
        Wanted::Part(pattern.trim_start_matches("./").to_ascii_lowercase())
    };
    let glob = glob.map(Glob::new).transpose()?;
    let mut walk =
        Walk::start(workspace, &at, scope(&at)).map_err(|fault| not_a_directory(workspace, &at, fault))?;
    let mut page = Page::new(offset);
    while let Some(entry) = walk.next() {
        if entry.kind == Kind::Directory {
            continue;
        }
        let matches = match &wanted {
            Wanted::Glob(glob) => glob.matches(&entry.path, &at),
            Wanted::Part(part) => {
                let path = entry.path.as_os_str().as_bytes().to_ascii_lowercase();
                memchr::memmem::find(&path, part.as_bytes()).is_some()
            }
        };
        if matches && glob.as_ref().is_none_or(|glob| glob.matches(&entry.path, &at)) {
            page.line(&text::name(entry.path.as_os_str().as_bytes()));
        }
    }
    page.finish("(no file matches)", &walk.into_notes())
}

enum Wanted {
    Glob(Glob),
    Part(String),
}

/// Kept outputs are hidden from searches by their own `.gitignore`, and shown to who searches there on purpose.
fn scope(at: &Inside) -> Scope {
    if at.path().components().next().is_some_and(|part| part.as_os_str() == spill::DIRECTORY) {
        Scope::All
    } else {
        Scope::NotIgnored
    }
}

/// A glob a model wrote: without `/` it is matched against the name, with one against the path.
struct Glob {
    matcher: GlobMatcher,
    name_only: bool,
}

impl Glob {
    fn new(pattern: &str) -> Result<Self, Fault> {
        let plain = pattern.trim_start_matches("./").trim_start_matches('/');
        let failed = |cause: &str| {
            let mut shown = String::new();
            text::push_safe(&mut shown, pattern.as_bytes(), 80);
            Fault::failed("use the glob", &format!("`{shown}`"), cause)
        };
        if plain.bytes().filter(|byte| *byte == b'{').count() > MAX_BRACES {
            return Err(failed("it has too many braces"));
        }
        let glob = GlobBuilder::new(plain)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| failed(&error.kind().to_string()))?;
        Ok(Self { matcher: glob.compile_matcher(), name_only: !plain.contains('/') })
    }

    /// A path is tried as seen from the workspace and from where the search starts.
    fn matches(&self, path: &Path, start: &Inside) -> bool {
        if self.name_only {
            return path.file_name().is_some_and(|name| self.matcher.is_match(name));
        }
        self.matcher.is_match(path)
            || path.strip_prefix(start.path()).is_ok_and(|relative| self.matcher.is_match(relative))
    }
}

/// `grep`.
pub(super) fn grep(
    workspace: &Workspace,
    pattern: &str,
    path: &str,
    glob: Option<&str>,
    offset: u64,
) -> Result<FilesResult, Fault> {
    let regex = RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX)
        .dfa_size_limit(MAX_REGEX)
        .build()
        .map_err(|error| unusable(pattern, &error))?;
    let glob = glob.map(Glob::new).transpose()?;
    let at = workspace.locate(path)?;
    let mut page = Page::new(offset);
    if let Ok((file, stat)) = workspace.open_file(&at, "search") {
        let mut notes = Vec::new();
        if let Err(skipped) = grep_file(&regex, &file, &stat, &at.shown(), &mut page, &mut || false) {
            notes.push(format!("{}: {skipped}", at.shown()));
        }
        return page.finish("(no line matches)", &notes);
    }
    let mut walk = Walk::start(workspace, &at, scope(&at))?;
    while let Some(entry) = walk.next() {
        if page.is_full() {
            break;
        }
        if entry.kind != Kind::File || glob.as_ref().is_some_and(|glob| !glob.matches(&entry.path, &at)) {
            continue;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let Ok(fd) = open_name(entry.directory.as_fd(), &entry.name, flags, Mode::empty()) else {
            walk.note("some files could not be read");
            continue;
        };
        let Ok(stat) = fstat(&fd) else { continue };
        if kind(&stat) != Kind::File {
            continue;
        }
        let shown = text::name(entry.path.as_os_str().as_bytes());
        let searched = grep_file(&regex, &File::from(fd), &stat, &shown, &mut page, &mut || walk.is_late());
        if let Err(skipped) = searched
            && skipped != Skipped::Binary
        {
            walk.note(&format!("not everything was searched: {skipped}"));
        }
    }
    page.finish("(no line matches)", &walk.into_notes())
}

/// Why a file was not searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Skipped {
    #[error("not text")]
    Binary,
    #[error("more than {MAX_GREP_FILE} bytes, use grep with bash")]
    Large,
    #[error("not readable")]
    Unreadable,
    #[error("lines of more than {MAX_SEARCHED_LINE} bytes are searched only so far")]
    LongLine,
    #[error("the time was up")]
    Late,
}

fn grep_file(
    regex: &Regex,
    file: &File,
    stat: &FileStat,
    shown: &str,
    page: &mut Page,
    late: &mut dyn FnMut() -> bool,
) -> Result<(), Skipped> {
    if size(stat) > MAX_GREP_FILE {
        return Err(Skipped::Large);
    }
    // The head decides, so that a tree of images costs little.
    let head = read_at(file, 0, 8192).map_err(|_| Skipped::Unreadable)?;
    if binary(&head).is_some() {
        return Err(Skipped::Binary);
    }
    let most = usize::try_from(size(stat)).unwrap_or(usize::MAX);
    let content =
        if head.len() >= most { head } else { read_at(file, 0, most).map_err(|_| Skipped::Unreadable)? };
    if content.is_empty() {
        return Ok(());
    }
    let mut line = String::new();
    let lines = content.strip_suffix(b"\n").unwrap_or(&content);
    let (mut since_look, mut long) = (0_usize, false);
    for (index, bytes) in lines.split(|byte| *byte == b'\n').enumerate() {
        since_look = since_look.saturating_add(bytes.len()).saturating_add(1);
        if since_look > CLOCK_EVERY {
            since_look = 0;
            if late() {
                return Err(Skipped::Late);
            }
        }
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        long |= bytes.len() > MAX_SEARCHED_LINE;
        let bytes = bytes.get(..MAX_SEARCHED_LINE).unwrap_or(bytes);
        let Some(found) = regex.find(bytes) else { continue };
        line.clear();
        let _ = write!(line, "{shown}:{}:", index.saturating_add(1));
        // A match far to the right is shown with a little of what precedes it.
        let from = if found.end() > MAX_GREP_LINE { found.start().saturating_sub(40) } else { 0 };
        let tail = bytes.get(from..).unwrap_or_default();
        if from > 0 {
            line.push_str("...");
        }
        let used = text::push_safe(&mut line, tail, MAX_GREP_LINE);
        if used < tail.len() {
            line.push_str("...");
        }
        page.line(&line);
        if page.is_full() {
            break;
        }
    }
    if long { Err(Skipped::LongLine) } else { Ok(()) }
}

fn unusable(pattern: &str, error: &regex::Error) -> Fault {
    let mut shown = String::new();
    text::push_safe(&mut shown, pattern.as_bytes(), 80);
    let cause = if matches!(error, regex::Error::CompiledTooBig(_)) {
        "it is too large".to_owned()
    } else {
        // The crate draws the pattern with a caret over several lines; its last one says what is wrong.
        error.to_string().lines().last().unwrap_or_default().replace("error: ", "")
    };
    let cause = format!(
        "{}; look-around and back-references are not supported, and `\\` makes a special character plain",
        text::cut(&cause, 200)
    );
    Fault::failed("use the pattern", &format!("`{shown}`"), &cause)
}
