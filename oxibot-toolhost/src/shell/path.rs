//! Paths as rules see them: one spelling for each place. `/usr/..`, `//` and `/./` are all `/`; what is named
//! relative to the working directory begins with `.`, the home directory with `~`. A last part that is a pattern for
//! everything (`/*`) means the contents of what is before it, which is as bad to lose as the thing itself.

use super::pattern::Pattern;
use super::value::{HOME, WORK, is_pattern, is_unknown};

/// Steps above the workspace that surely end at the root.
const SURELY_ROOT: usize = 4;

/// The one spelling of a path, or `None` when where it begins is known only at run time.
pub(super) fn normal(value: &str, cwd: &str) -> Option<String> {
    let first = value.chars().next()?;
    let whole;
    let value = if matches!(first, '/' | HOME | WORK) || is_unknown(first) {
        value
    } else {
        whole = format!("{cwd}/{value}");
        &whole
    };
    let mut letters = value.chars();
    let first = letters.next()?;
    let mut base = match first {
        '/' => "/",
        HOME => "~",
        WORK => ".",
        _ => return None,
    };
    let mut parts: Vec<&str> = Vec::new();
    let mut above = 0_usize;
    for part in letters.as_str().split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    match base {
                        "~" => {
                            base = "/";
                            parts.push("home");
                        }
                        "." => above += 1,
                        _ => {}
                    }
                }
            }
            part => parts.push(part),
        }
    }
    while let Some(last) = parts.last() {
        if last.chars().any(is_pattern)
            && !last.chars().any(is_unknown)
            && Pattern::of_value(last).takes_all()
        {
            parts.pop();
        } else {
            break;
        }
    }
    if above >= SURELY_ROOT {
        base = "/";
        above = 0;
    }
    let mut text = match (base, above) {
        (".", 1..) => vec![".."; above].join("/"),
        ("/", _) => String::new(),
        (base, _) => base.to_owned(),
    };
    for part in &parts {
        text.push('/');
        text.push_str(part);
    }
    if text.is_empty() { Some("/".to_owned()) } else { Some(text) }
}

/// Places a rule speaks of, as written in the policy: `/etc/*.conf`, `~/.ssh/**`, `**/.git`.
#[derive(Debug, Clone)]
pub(super) struct Place {
    parts: Vec<Segment>,
}

#[derive(Debug, Clone)]
enum Segment {
    /// `**`: any number of parts, none included.
    Rest,
    Literal(String),
    Pattern(Pattern),
}

impl Place {
    pub(super) fn new(text: &str) -> Self {
        let parts = split(text)
            .map(|part| match part {
                "**" => Segment::Rest,
                part if part.contains(['*', '?', '[']) => Segment::Pattern(Pattern::of_rule(part)),
                part => Segment::Literal(part.to_owned()),
            })
            .collect();
        Self { parts }
    }

    /// Whether the normal form of a path is here. A pattern in the path is here if it could be.
    pub(super) fn holds(&self, normal: &str) -> bool {
        let parts: Vec<&str> = split(normal).collect();
        holds(&self.parts, &parts)
    }
}

/// The root is one empty part, so that `/` and `/etc` begin alike.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let text = if text == "/" { "" } else { text };
    text.split('/')
}

fn holds(place: &[Segment], path: &[&str]) -> bool {
    match (place.split_first(), path.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((Segment::Rest, [])), _) => true,
        (Some((Segment::Rest, rest)), _) => {
            (0..=path.len()).any(|skipped| path.get(skipped..).is_some_and(|path| holds(rest, path)))
        }
        (Some(_), None) => false,
        (Some((segment, rest)), Some((part, parts))) => {
            let here = match segment {
                Segment::Rest => false,
                Segment::Pattern(pattern) => !part.is_empty() && pattern.fits(part),
                Segment::Literal(wanted) if part.chars().any(is_pattern) && !part.chars().any(is_unknown) => {
                    // A pattern does not take a leading dot.
                    (!wanted.starts_with('.') || part.starts_with('.'))
                        && Pattern::of_value(part).fits(wanted)
                }
                Segment::Literal(wanted) => wanted == part,
            };
            here && holds(rest, parts)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::{OPEN, STAR};
    use super::*;

    fn at_work(value: &str) -> Option<String> {
        normal(value, &WORK.to_string())
    }

    #[test]
    fn spellings_of_one_place_are_one() {
        for root in ["/", "//", "/./", "/../", "/usr/..", "/usr/bin/../..", "../../../../../.."] {
            assert_eq!(at_work(root).as_deref(), Some("/"), "{root}");
        }
        for work in [".", "./", "./.", "src/..", &format!("{WORK}/"), &format!("./{STAR}")] {
            assert_eq!(at_work(work).as_deref(), Some("."), "{work}");
        }
        assert_eq!(at_work(&format!("{HOME}/../..")).as_deref(), Some("/"));
        assert_eq!(at_work(&format!("{HOME}/{STAR}")).as_deref(), Some("~"));
        assert_eq!(at_work(&format!("/{STAR}")).as_deref(), Some("/"));
        assert_eq!(at_work(&format!("/.{OPEN}!.]{STAR}")).as_deref(), Some("/"));
        assert_eq!(at_work("../x").as_deref(), Some("../x"));
        assert_eq!(at_work("src/main.rs").as_deref(), Some("./src/main.rs"));
        assert_eq!(normal("x", "/etc").as_deref(), Some("/etc/x"));
        assert_eq!(at_work("\u{100000}/x"), None);
        assert_eq!(at_work(""), None);
    }

    #[test]
    fn places_hold_what_they_name() {
        for (place, path, held) in [
            ("/", "/", true),
            ("/", "/etc", false),
            ("/etc", "/etc", true),
            ("/etc/**", "/etc", true),
            ("/etc/**", "/etc/ssh/sshd_config", true),
            ("**/.git", "./.git", true),
            ("**/.git", "./a/b/.git", true),
            ("**/.git", "./.github", false),
            ("/home/*", "/home/\u{100000}", true),
            ("/home/*", "/home/me/x", false),
        ] {
            assert_eq!(Place::new(place).holds(path), held, "{place} {path}");
        }
        assert!(Place::new("/etc/shadow").holds(&format!("/e{STAR}c/sh{STAR}")));
        assert!(!Place::new("./.git").holds(&format!("./{STAR}t")), "a pattern takes no leading dot");
    }
}
