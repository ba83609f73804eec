//! Why something did not work behind the wall: what the toolhost is certain of, and what follows from what the program
//! printed, which is a guess and marked as one.
//!
//! The toolhost never reads what a program printed, so this is done here: pure, without input or output, over the bytes
//! main holds already, and over the facts the toolhost sent ([`oxibot_proto::view::View`]). Nothing is decided by it.
//! A program can print what it likes, so a guess is never more than a guess, repeats nothing of the output but a path
//! or an address, and never names a rule that is not in force ([`rule::Rule::in_force`]).

mod access;
mod asked;
mod cause;
mod complaint;
mod judge;
mod network;
mod place;
mod rule;
mod section;
#[cfg(test)]
mod tests;

use oxibot_proto::message::{CallResult, Certainty, Violation};
use oxibot_proto::view::View;

use crate::render::neutral;
use asked::Asked;
use complaint::Complaint;
pub use section::{quote_forged, section};

/// Most violations of one result. A hostile program must not fill the conversation with reasons.
pub const MAX_VIOLATIONS: usize = 20;
/// Most guesses about one rule and one kind of use: `rm -r /usr` is one mistake, not ten thousand.
const MAX_ALIKE: usize = 3;
/// Bytes of output looked at, from its end: the last complaint is the one that matters.
const MAX_LOOKED_AT: usize = 64 * 1024;
/// Lines looked at.
const MAX_LINES: usize = 2000;
/// Longest line looked at, in bytes. No program's complaint is longer; a path alone may have 4096.
const MAX_LINE: usize = 5000;
/// Longest path or address in a violation, in bytes.
const MAX_PATH: usize = 512;

/// A guess before it is put into words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guess {
    what: &'static str,
    path: String,
    rule: rule::Rule,
}

/// Everything known and guessed about what the wall refused, most certain first, without repetitions.
/// `command` is what the model asked for, if it was a shell command.
#[must_use]
pub fn violations(result: &CallResult, command: Option<&str>) -> Vec<Violation> {
    let mut all: Vec<Violation> = Vec::new();
    let certain = [Certainty::Kernel, Certainty::Observed];
    for wanted in certain {
        for violation in result.violations.iter().filter(|violation| violation.certainty == wanted) {
            let known = |known: &Violation| known.what == violation.what && known.path == violation.path;
            if !all.iter().any(known) {
                all.push(violation.clone());
            }
        }
    }
    if let Some(view) = &result.view {
        for guess in guesses(result, view, command) {
            // What is certain need not be guessed. An address or a path is still news, but not that of a device.
            let same = format!("(rule {})", guess.rule.id());
            let device = guess.rule == rule::Rule::DeviceNode || guess.rule == rule::Rule::SetId;
            let news = !guess.path.is_empty() && !device;
            let told = all.iter().filter(|known| known.certainty == Certainty::Kernel).any(|known| {
                let alike = guess.rule.told_as().iter().any(|id| known.why.contains(&format!("(rule {id}")));
                (known.why.contains(&same) || alike) && (!news || known.path == guess.path)
            });
            if !told {
                all.push(Violation {
                    what: guess.what.to_owned(),
                    path: neutral::line(&guess.path, MAX_PATH),
                    why: guess.rule.why(view),
                    certainty: Certainty::Guessed,
                });
            }
        }
    }
    all.truncate(MAX_VIOLATIONS);
    all
}

/// The shell command of a tool call, from its arguments as JSON.
#[must_use]
pub fn command(tool: &str, arguments: &str) -> Option<String> {
    if !matches!(tool, "bash" | "exec") {
        return None;
    }
    let arguments: serde_json::Value = serde_json::from_str(arguments).ok()?;
    arguments.get("command")?.as_str().map(str::to_owned)
}

fn guesses(result: &CallResult, view: &View, command: Option<&str>) -> Vec<Guess> {
    let asked = Asked { command, exit_code: result.exit_code };
    let mut guesses: Vec<Guess> = Vec::new();
    let mut lines = Vec::new();
    for part in [&result.output.head, &result.output.tail] {
        let from = part.len().saturating_sub(MAX_LOOKED_AT);
        let text = String::from_utf8_lossy(part.get(from..).unwrap_or_default()).into_owned();
        lines.extend(text.lines().filter(|line| line.len() <= MAX_LINE).map(str::to_owned));
    }
    let skipped = lines.len().saturating_sub(MAX_LINES);
    let mut context = complaint::Context::default();
    for line in lines.iter().skip(skipped) {
        if let Some(complaint) = Complaint::read(line, &mut context)
            && asked.believes(&complaint)
            && let Some(guess) = judge::judge(&complaint, view, &asked)
            && guess.rule.in_force(view)
        {
            add(&mut guesses, guess);
        }
    }
    // Who names the address says it all; the same complaint without one says nothing more.
    let named: Vec<_> = guesses.iter().filter(|guess| !guess.path.is_empty()).map(|g| g.rule).collect();
    guesses.retain(|guess| {
        // A socket that was refused is the connection that was not made.
        let named = |rule| named.contains(&rule);
        let said = named(guess.rule) || (guess.rule == rule::Rule::Socket && named(rule::Rule::Network));
        !guess.path.is_empty() || !said
    });
    guesses
}

fn add(guesses: &mut Vec<Guess>, guess: Guess) {
    // One path is refused for one reason; the first complaint about it is nearest to it.
    let known = guesses
        .iter()
        .any(|known| known.path == guess.path && (!guess.path.is_empty() || known.rule == guess.rule));
    let alike = guesses.iter().filter(|known| known.rule == guess.rule && known.what == guess.what).count();
    if !known && alike < MAX_ALIKE {
        guesses.push(guess);
    }
}
