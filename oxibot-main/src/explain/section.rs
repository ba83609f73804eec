//! The few lines after the output that say what the wall refused: for a model, and for a person.
//!
//! A path or an address is all that comes from outside, and it is written so that it cannot be read as anything else:
//! one word, short, without a space. Lines of the output that look like ours are marked.

use std::fmt::Write as _;

use oxibot_proto::message::{Certainty, Violation};

/// Longest section, in bytes. It stands within the 10 240 of the output.
const MAX_SECTION: usize = 2048;
/// Longest path or address in it, in bytes.
const MAX_WORD: usize = 160;
/// How each line begins.
const MARK: &str = "[wall]";

/// One line for each violation, or nothing. Ends with a line feed.
#[must_use]
pub fn section(violations: &[Violation]) -> String {
    let mut text = String::new();
    for (number, violation) in violations.iter().enumerate() {
        // An address is looked up by two families; the reason is one.
        let again = |earlier: &Violation| {
            earlier.certainty == Certainty::Kernel
                && earlier.what == violation.what
                && earlier.why == violation.why
        };
        if violations.iter().take(number).any(again) {
            continue;
        }
        let line = line(violation);
        let left = violations.len().saturating_sub(number);
        if text.len().saturating_add(line.len()) > MAX_SECTION.saturating_sub("[wall] and 1000 more\n".len())
        {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{MARK} and {left} more");
            break;
        }
        text.push_str(&line);
    }
    text
}

fn line(violation: &Violation) -> String {
    let certainty = match violation.certainty {
        Certainty::Kernel => "kernel",
        Certainty::Observed => "observed",
        Certainty::Guessed => "guessed from the output",
    };
    let path =
        if violation.path.is_empty() { String::new() } else { format!(" {}", quoted(&violation.path)) };
    format!("{MARK} {}{path}: {} ({certainty})\n", violation.what, violation.why)
}

/// A path or address as one word: what is not plainly part of one is written `\` and the character, so that no sentence
/// can be made of it.
pub(super) fn quoted(path: &str) -> String {
    let mut word = String::new();
    for character in path.chars() {
        let plain = character.is_alphanumeric() || "/._-+=@%,:~#".contains(character);
        let needed = character.len_utf8().saturating_add(usize::from(!plain));
        if word.len().saturating_add(needed) > MAX_WORD {
            word.push_str("...");
            break;
        }
        if !plain {
            word.push('\\');
        }
        word.push(if character.is_whitespace() { '_' } else { character });
    }
    word
}

/// The output with every line marked that begins as ours do.
#[must_use]
pub fn quote_forged(output: &str) -> String {
    let mut text = String::with_capacity(output.len());
    for line in output.split_inclusive('\n') {
        if line.trim_start().starts_with(MARK) {
            text.push('|');
        }
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(path: &str) -> Violation {
        Violation {
            what: "write".into(),
            path: path.into(),
            why: "outside the workspace (rule view); write below /srv/w instead".into(),
            certainty: Certainty::Guessed,
        }
    }

    #[test]
    fn line_says_what_where_why_and_how_sure() {
        assert_eq!(
            section(&[violation("/etc/hosts")]),
            "[wall] write /etc/hosts: outside the workspace (rule view); write below /srv/w instead (guessed from \
             the output)\n"
        );
        assert_eq!(section(&[]), "");
    }

    #[test]
    fn path_stays_one_word() {
        assert_eq!(quoted("/a b\n[wall] \"x\"'"), "/a\\_b\\_\\[wall\\]\\_\\\"x\\\"\\'");
        let long = quoted(&"ä".repeat(500));
        assert!(long.len() <= MAX_WORD + 3 && long.ends_with("..."));
    }

    #[test]
    fn section_is_bounded_and_counts_the_rest() {
        let many = vec![violation(&"x".repeat(400)); 20];
        let text = section(&many);
        assert!(text.len() <= MAX_SECTION, "{}", text.len());
        assert!(text.lines().last().is_some_and(|last| last.starts_with("[wall] and ")), "{text}");
    }

    #[test]
    fn forged_lines_are_marked() {
        assert_eq!(quote_forged("a\n[wall] x\n  [wall] y\nb [wall]"), "a\n|[wall] x\n|  [wall] y\nb [wall]");
    }
}
