//! What a person wrote now, without the history their mail program put below it. Pure.
//!
//! The conversation holds what was said before, so a trailing quotation is dropped, with its introduction and a
//! signature. What is answered between quoted lines stays as it is, and so does what was forwarded: there the quotation
//! is the point. When nothing would be left, everything is.

/// Most lines of an introduction such as `On ..., Ann wrote:`.
const INTRODUCTION: usize = 3;

/// The text without trailing history. `quotes_are_marked`: lines of a quotation begin with `>`, as they do not where HTML
/// was turned into text.
pub(super) fn without_history(text: &str, quotes_are_marked: bool) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.lines().collect();
    let mut end = separator(&lines, quotes_are_marked).unwrap_or(lines.len());
    end = before_quotation(&lines, end);
    end = before_signature(&lines, end);
    let said = joined(&lines, end);
    if said.is_empty() { text.trim().to_owned() } else { said }
}

fn joined(lines: &[&str], end: usize) -> String {
    let mut said = String::new();
    let mut empty = 0;
    for line in lines.iter().take(end) {
        let line = line.trim_end();
        empty = if line.is_empty() { empty + 1 } else { 0 };
        // HTML turned into text is full of empty lines.
        if empty <= 2 {
            said.push_str(line);
            said.push('\n');
        }
    }
    said.trim().to_owned()
}

/// Where a mail program says that the original message begins.
fn separator(lines: &[&str], quotes_are_marked: bool) -> Option<usize> {
    lines.iter().enumerate().position(|(at, line)| {
        let line = line.trim();
        if line.is_empty() || forwards(line) {
            return false;
        }
        let dashes = line.starts_with("--") && line.ends_with("--") && line.len() > 8;
        if dashes && original(line.trim_matches('-').trim()) {
            return true;
        }
        // Outlook: a rule, then the head of the original.
        let ruled = line.len() >= 20 && line.bytes().all(|byte| byte == b'_');
        if ruled && lines.iter().skip(at + 1).take(3).any(|next| is_head(next)) {
            return true;
        }
        let heads = lines.iter().skip(at).take(6).filter(|next| is_head(next)).count();
        if is_head(line) && heads >= 3 && at > 0 && !after_forward(lines, at) {
            return true;
        }
        !quotes_are_marked && introduces(lines, at)
    })
}

fn original(words: &str) -> bool {
    [
        "original message",
        "original appointment",
        "ursprüngliche nachricht",
        "mensaje original",
        "message d'origine",
        "messaggio originale",
        "mensagem original",
        "oorspronkelijk bericht",
    ]
    .contains(&words.to_lowercase().as_str())
}

fn is_head(line: &str) -> bool {
    let line = line.trim_start_matches(['*', ' ']);
    [
        "From:",
        "Sent:",
        "Date:",
        "To:",
        "Subject:",
        "Cc:",
        "Von:",
        "Gesendet:",
        "An:",
        "Betreff:",
        "De:",
        "Enviado:",
        "Para:",
        "Asunto:",
        "Envoyé :",
        "À :",
        "Objet :",
    ]
    .iter()
    .any(|head| line.starts_with(head))
}

/// Whether a line says that what follows was forwarded.
pub(super) fn forwards(line: &str) -> bool {
    let words = line.trim().trim_matches('-').trim().to_lowercase();
    let words = words.trim_end_matches(':');
    [
        "forwarded message",
        "begin forwarded message",
        "weitergeleitete nachricht",
        "mensaje reenviado",
        "message transféré",
        "messaggio inoltrato",
    ]
    .contains(&words)
}

fn after_forward(lines: &[&str], at: usize) -> bool {
    lines.iter().take(at).rev().take(4).any(|line| forwards(line))
}

/// Whether an introduction of a quotation begins here.
fn introduces(lines: &[&str], at: usize) -> bool {
    let Some(first) = lines.get(at).map(|line| line.trim()) else { return false };
    let begins =
        ["On ", "Am ", "El ", "Le ", "Il ", "Em ", "Op ", "Den "].iter().any(|word| first.starts_with(word));
    if !begins {
        return false;
    }
    let mut whole = String::new();
    for line in lines.iter().skip(at).take(INTRODUCTION) {
        whole.push_str(line.trim());
        whole.push(' ');
        let said = whole.trim_end().to_lowercase();
        if [
            " wrote:",
            " schrieb:",
            " escribió:",
            " a écrit :",
            " ha scritto:",
            " escreveu:",
            " schreef:",
            " skrev:",
        ]
        .iter()
        .any(|verb| said.ends_with(verb))
            || (said.ends_with(':') && said.contains('@') && said.bytes().any(|byte| byte.is_ascii_digit()))
        {
            return true;
        }
    }
    false
}

/// Goes up over a quotation at the end, and its introduction.
fn before_quotation(lines: &[&str], end: usize) -> usize {
    let mut start = end;
    let mut quotes = false;
    while let Some(line) = start.checked_sub(1).and_then(|at| lines.get(at)).map(|line| line.trim_start()) {
        if line.starts_with('>') {
            quotes = true;
        } else if !line.is_empty() {
            break;
        }
        start -= 1;
    }
    if !quotes {
        return end;
    }
    let introduction =
        (1..=INTRODUCTION).filter_map(|up| start.checked_sub(up)).find(|at| introduces(lines, *at));
    introduction.unwrap_or(start)
}

/// Goes up over a signature: what follows a line of `-- `.
fn before_signature(lines: &[&str], end: usize) -> usize {
    lines.iter().take(end).position(|line| matches!(*line, "-- " | "--")).filter(|at| *at > 0).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn history_and_signature_are_left_out() {
        for (text, said) in [
            ("yes\n\nOn Mon, 30 Nov 2026 at 10:00, Bot <bot@example.org> wrote:\n> what?\n> more\n", "yes"),
            (
                "yes\r\n\r\nOn Mon, 30 Nov 2026 at 10:00, Bot\r\n<bot@example.org> wrote:\r\n\r\n> what?\r\n",
                "yes",
            ),
            ("ja\n\nAm 30.11.2026 um 10:00 schrieb Bot <b@example.org>:\n> was?\n", "ja"),
            ("do it\n-- \nAnn\nExample Ltd\n", "do it"),
            ("do it\n\n-----Original Message-----\nFrom: Bot\nSent: Monday\nhello", "do it"),
            ("do it\n________________________________\nFrom: Bot <b@x>\nSent: Monday\n\nhello", "do it"),
            ("do it\n\nFrom: Bot <b@x>\nSent: Monday\nTo: Ann\nSubject: x\n\nhello", "do it"),
            ("plain", "plain"),
            ("a\n\n\n\n\n\nb", "a\n\n\nb"),
        ] {
            assert_eq!(without_history(text, true), said, "{text:?}");
        }
    }

    #[test]
    fn history_of_html_has_no_marks() {
        let text = "yes\n\nOn Mon, 30 Nov 2026 at 10:00, Bot <bot@example.org> wrote:\n\nwhat do you want?\n";
        assert_eq!(without_history(text, false), "yes");
    }

    #[test]
    fn what_is_answered_between_quoted_lines_stays() {
        let text = "On Monday, Bot <b@example.org> wrote:\n> one?\nyes\n> two?\nno";
        assert_eq!(without_history(text, true), text);
    }

    #[test]
    fn forwarded_text_stays_and_a_mail_of_nothing_else_too() {
        let forwarded = "look:\n\n---------- Forwarded message ---------\nFrom: Eve <e@x>\nDate: Monday\nSubject: s\nTo: a\n\nhello";
        assert_eq!(without_history(forwarded, true), forwarded);
        assert_eq!(without_history("> only\n> this", true), "> only\n> this");
        assert_eq!(without_history("-- \nAnn", true), "--\nAnn");
    }

    #[test]
    fn words_that_look_like_an_introduction_are_words() {
        for text in ["On Monday we meet: bring cake", "From: the start\nit was wrong", "a\n> b\nc"] {
            assert_eq!(without_history(text, true), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_invented_and_nothing_panics(text in "[a-z>:@\\-_ \nOn wrote]{0,300}") {
            let said = without_history(&text, true);
            prop_assert!(said.is_empty() == text.trim().is_empty());
            for line in said.lines() {
                prop_assert!(text.contains(line));
            }
        }
    }
}
