//! The report for people: 80 columns, grouped, nothing said by colour or symbol alone.
//!
//! The same with and without a terminal: there is no colour and no movement to leave out.

use crate::render::neutral;

use super::report::{Check, Report, State};

/// Columns of a line.
const COLUMNS: usize = 80;
/// Longest text of one field, in bytes.
const MOST: usize = 4096;

/// The report as text.
pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut group = "";
    let mut checks = report.checks.iter().peekable();
    while let Some(check) = checks.next() {
        let (own, name) = check.id.split_once('.').unwrap_or(("", &check.id));
        if own != group {
            group = own;
            out.push_str(&format!("{own}\n"));
        }
        // Protections that hold say nothing but their name: together they are one line of names.
        let mut names = vec![name.to_owned()];
        let kin = |other: &Check| -> Option<String> {
            let (front, last) = other.id.rsplit_once('.')?;
            let same = check.id.rsplit_once('.').is_some_and(|(own, _)| own == front && own.contains('.'));
            (same && plain(check) && plain(other) && other.found == check.found).then(|| last.to_owned())
        };
        while let Some(last) = checks.peek().and_then(|other| kin(other)) {
            names.push(last);
            checks.next();
        }
        match names.as_slice() {
            [_] => entry(&mut out, check.state, name, &check.found),
            [first, rest @ ..] => {
                let (front, last) = first.rsplit_once('.').unwrap_or(("", first));
                let all = [&[last.to_owned()], rest].concat().join(", ");
                entry(&mut out, check.state, front, &format!("{} {}: {all}", names.len(), check.found));
            }
            [] => {}
        }
        for (label, value) in [("means:", &check.consequence), ("do:", &check.remedy)] {
            put(&mut out, &format!("          {label:<7}"), &neutral::line(value, MOST));
        }
    }
    out.push_str(&summary(report));
    out
}

fn plain(check: &Check) -> bool {
    check.state == State::Ok && check.consequence.is_empty() && check.remedy.is_empty()
}

fn entry(out: &mut String, state: State, name: &str, found: &str) {
    let found = neutral::text(&found.chars().take(MOST).collect::<String>());
    let name = neutral::line(name, 64);
    for (at, line) in found.lines().enumerate() {
        let front = if at == 0 { format!("  {:<5} {name}: ", state.name()) } else { " ".repeat(10) };
        put(out, &front, line);
    }
}

/// Words after a front, on as many lines as they need; further lines are indented.
fn put(out: &mut String, front: &str, text: &str) {
    let indent = front.chars().count().min(17);
    let mut line = front.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        let mut word = word;
        loop {
            let used = line.chars().count();
            let space = usize::from(!empty);
            if used.saturating_add(space).saturating_add(word.chars().count()) <= COLUMNS {
                if !empty {
                    line.push(' ');
                }
                line.push_str(word);
                empty = false;
                break;
            }
            if empty && used <= indent {
                // Longer than a whole line: it is cut, as a terminal would.
                let room = COLUMNS.saturating_sub(used);
                let cut = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
                let (here, rest) = word.split_at(cut);
                line.push_str(here);
                word = rest;
            }
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(indent.max(10));
            empty = true;
        }
    }
    if !empty {
        out.push_str(&line);
        out.push('\n');
    }
}

fn summary(report: &Report) -> String {
    let count = |state| report.checks.iter().filter(|check| check.state == state).count();
    let mut out = String::new();
    let level = match report.level {
        Some(level) => format!("level {}", level.name()),
        None => "no level, the toolhost does not start".to_owned(),
    };
    put(
        &mut out,
        "",
        &format!(
            "{level}; {} ok, {} info, {} warn, {} fail",
            count(State::Ok),
            count(State::Info),
            count(State::Warn),
            count(State::Fail)
        ),
    );
    for state in [State::Fail, State::Warn] {
        let ids: Vec<&str> = report
            .checks
            .iter()
            .filter(|check| check.state == state)
            .map(|check| check.id.as_str())
            .collect();
        put(&mut out, &format!("{}: ", state.name()), &neutral::line(&ids.join(", "), MOST));
    }
    out
}

#[cfg(test)]
mod tests {
    use oxibot_proto::message::Level;
    use proptest::prelude::*;

    use super::*;

    fn report(checks: Vec<Check>) -> Report {
        Report { level: Some(Level::Full), checks, attacks: Vec::new() }
    }

    #[test]
    fn people_see_state_meaning_and_remedy_by_group() {
        let checks = vec![
            Check::ok("kernel.version", "Linux 6.12"),
            Check::warn("files.home", "mode 0755", "others may look", "chmod 700 x"),
            Check::ok("files.state", "fine"),
        ];
        assert_eq!(
            text(&report(checks)),
            "kernel\n  ok    version: Linux 6.12\n\
             files\n  warn  home: mode 0755\n          means: others may look\n          do:    chmod 700 x\n\
             \x20 ok    state: fine\n\
             level full; 2 ok, 0 info, 1 warn, 0 fail\nwarn: files.home\n"
        );
    }

    #[test]
    fn protections_that_hold_share_a_line() {
        let checks = vec![
            Check::ok("sandbox.level", "full"),
            Check::ok("sandbox.protection.landlock", "active"),
            Check::ok("sandbox.protection.seccomp", "active"),
            Check::warn("sandbox.protection.call-cgroup", "unavailable", "c", "r"),
        ];
        let text = text(&report(checks));
        assert!(
            text.contains(
                "  ok    protection: 2 active: landlock, seccomp\n  warn  protection.call-cgroup: "
            ),
            "{text}"
        );
    }

    #[test]
    fn without_a_toolhost_that_is_said() {
        let none =
            Report { level: None, checks: vec![Check::fail("a.b", "f", "c", "r")], attacks: Vec::new() };
        assert!(
            text(&none).ends_with(
                "no level, the toolhost does not start; 0 ok, 0 info, 0 warn, 1 fail\nfail: a.b\n"
            )
        );
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_80_columns_and_no_word_is_lost(
            found in "([a-z/]{1,200} ?){0,8}", remedy in "([a-z]{1,120} ?){0,6}",
        ) {
            let checks = vec![Check::warn("files.home", found.clone(), "c", remedy.clone())];
            let shown = text(&report(checks));
            for line in shown.lines() {
                prop_assert!(line.chars().count() <= COLUMNS, "{line:?}");
            }
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert!(letters(&shown).contains(&letters(&found)));
            prop_assert!(letters(&shown).contains(&letters(&remedy)));
        }
    }
}
