//! What was asked for, as far as it helps to understand a complaint: is it this call's own, and what did the command do
//! with the path. The command is what the model wrote; it is read by its letters, no grammar is needed for a guess.

use super::complaint::{Complaint, base};

/// What was asked for: the context a complaint must fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The command, if it was one.
    pub(super) command: Option<&'a str>,
    pub(super) exit_code: Option<i32>,
}

impl Asked<'_> {
    /// Whether a complaint is likely one of this call, and not a text that quotes one.
    pub(super) fn believes(&self, complaint: &Complaint) -> bool {
        let Some(command) = self.command else { return true };
        let lower = command.to_ascii_lowercase();
        // Who searches for a complaint, or prints one, finds it.
        if !complaint.phrase.is_empty() && lower.contains(complaint.phrase) {
            return false;
        }
        if self.exit_code != Some(0) && !only_shows(command) {
            return true;
        }
        // All went well, or nothing but text was shown: only what the command itself names is its own failure.
        let shell = complaint.program.as_deref().is_none_or(|program| program == "bash" || program == "sh");
        let names_program = complaint.program.as_deref().is_some_and(|program| has_word(command, program));
        let subject = complaint.paths.iter().chain(&complaint.host);
        let has_subject = subject.clone().next().is_some();
        let names_subject = subject.clone().any(|path| names(command, path));
        let names_program = shell || names_program;
        if has_subject { names_subject && names_program } else { names_program }
    }

    /// What a redirection of the command does with a path.
    pub(super) fn redirection(&self, path: &str) -> Option<Redirection> {
        let command = self.command?;
        let mut from = 0_usize;
        while let Some(at) = command.get(from..)?.find(path) {
            let start = from.saturating_add(at);
            let before = command.get(..start)?.trim_end_matches(['"', '\'', ' ']);
            if before.ends_with('>') || before.ends_with(">|") || before.ends_with("of=") {
                return Some(Redirection::Write);
            }
            if before.ends_with('<') || before.ends_with("if=") {
                return Some(Redirection::Read);
            }
            from = start.saturating_add(path.len().max(1));
        }
        None
    }

    /// Where the command sends its output.
    pub(super) fn output(&self) -> Option<&str> {
        let command = self.command?;
        let target = command.get(command.rfind('>')?.saturating_add(1)..)?.trim_start();
        let end = target.find([' ', ';', '&', '|', ')', '\n']).unwrap_or(target.len());
        target.get(..end).map(|target| target.trim_matches(['"', '\''])).filter(|t| !t.is_empty())
    }

    /// Where the command went with its last `cd`.
    pub(super) fn went_to(&self) -> Option<&str> {
        let command = self.command?;
        let at = command.rfind("cd ").filter(|at| {
            command.get(..*at).is_some_and(|before| {
                before.is_empty() || before.ends_with([' ', ';', '&', '(', '\n', '{', 't'])
            })
        })?;
        let target = command.get(at.saturating_add(3)..)?.trim_start();
        let end = target.find([' ', ';', '&', '|', ')', '\n']).unwrap_or(target.len());
        target.get(..end).map(|target| target.trim_matches(['"', '\''])).filter(|t| !t.is_empty())
    }
}

/// `< path` or `> path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redirection {
    Read,
    Write,
}

/// Whether a command does nothing but show files and text: what looks like a complaint is then likely in them.
fn only_shows(command: &str) -> bool {
    const SHOWING: [&str; 28] = [
        "cat", "tac", "head", "tail", "less", "more", "grep", "egrep", "fgrep", "rg", "sed", "awk", "cut",
        "sort", "uniq", "wc", "nl", "tr", "column", "fold", "echo", "printf", "diff", "ls", "cd", "true",
        "false", "exit",
    ];
    let mut words = command
        .split([';', '|', '&', '\n'])
        .map(|part| part.split_whitespace().next().unwrap_or_default())
        .filter(|word| !word.is_empty())
        .peekable();
    words.peek().is_some() && words.all(|word| SHOWING.contains(&base(word)))
}

/// Whether a word of the command is this program, with or without directories.
fn has_word(command: &str, program: &str) -> bool {
    command
        .split(|c: char| c.is_whitespace() || "|&;()<>`$\"'={}".contains(c))
        .any(|word| base(word) == program)
}

/// Whether the command names a path or a directory above it.
fn names(command: &str, path: &str) -> bool {
    let mut part = path.trim_end_matches('/');
    while part.len() > 1 {
        if command.contains(part) {
            return true;
        }
        part = part.rsplit_once('/').map_or("", |(above, _)| above);
    }
    // `~root/.ssh/id_rsa` is spelled otherwise in the complaint.
    path.rsplit('/').next().is_some_and(|name| name.len() > 2 && command.contains(name))
}
