//! `sandbox status`: what holds, what does not, and what that means, on one screen.
//!
//! What is shown comes from the toolhost, which found it by trying; the configuration is not asked. Where it refuses to
//! serve because too little is to be had, it is started once more only to be asked what there is.

mod meaning;

use oxibot_proto::message::{Protection, ProtectionState, ToolhostHello};

use crate::cli::{Global, StatusArgs};
use crate::exit::Exit;
use crate::render::neutral;
use crate::render::report::to_line;

use super::doctor::wall::proven;
use super::print;
use super::tool::wrapped;
use super::{fault, oneshot};

pub(super) use meaning::of as meaning_of;

/// Column where the meaning begins.
const MEANING: usize = 33;

/// Prints it.
pub(super) fn status(global: &Global, args: &StatusArgs) -> Exit {
    let (hello, refusal) = match oneshot::look(global) {
        Ok(seen) => (seen.hello, seen.refusal),
        Err(fault) => return fault.report(args.json),
    };
    if let Err(fault) = fault::load(global) {
        return fault.report(args.json);
    }
    let printed = print(&if args.json { json(&hello) } else { text(&hello) });
    match refusal {
        // What there is was printed; that it is too little is said as every command says it.
        Some(fault) => {
            let exit = fault.exit;
            if args.json { exit } else { fault.report(false) }
        }
        None => printed,
    }
}

/// Name of a state, as printed.
fn state_name(state: ProtectionState) -> &'static str {
    match state {
        ProtectionState::Active => "active",
        ProtectionState::Degraded => "degraded",
        ProtectionState::Unavailable => "unavailable",
    }
}

fn text(hello: &ToolhostHello) -> String {
    let wall = &hello.wall;
    let landlock = match wall.landlock_abi {
        0 => "no Landlock".to_owned(),
        abi => format!("Landlock ABI {abi}"),
    };
    let mut text = format!("level: {}, {}; {landlock}\na call:\n", wall.level.name(), proven(wall));
    let mut protections: Vec<&Protection> = wall.protections.iter().collect();
    protections.sort_by_key(|protection| meaning::rank(&protection.name));
    // One reason usually takes away many: each is said once, below the table.
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for protection in protections {
        let name = neutral::line(&protection.name, 40);
        let meaning = meaning::of(&protection.name);
        let means = match protection.state {
            ProtectionState::Active => meaning.map_or("", |meaning| meaning.holds).to_owned(),
            ProtectionState::Degraded => format!("in part: {}", meaning.map_or("", |meaning| meaning.holds)),
            ProtectionState::Unavailable => meaning.map_or("", |meaning| meaning.lost).to_owned(),
        };
        let mut lines = wrapped(&means, 80 - MEANING).into_iter();
        let first = lines.next().unwrap_or_default();
        text.push_str(format!("{:<12} {name:<19} {first}", state_name(protection.state)).trim_end());
        text.push('\n');
        for line in lines {
            text.push_str(&format!("{:MEANING$}{line}\n", ""));
        }
        if protection.state != ProtectionState::Active {
            let detail = neutral::line(&protection.detail, 1024);
            match reasons.iter_mut().find(|(known, _)| *known == detail) {
                Some((_, names)) => names.push(name),
                None => reasons.push((detail, vec![name])),
            }
        }
    }
    for (reason, names) in reasons {
        let needs: Vec<&str> =
            names.first().and_then(|name| meaning::of(name)).iter().map(|m| m.needs).collect();
        let needs = if names.len() == 1 && !needs.is_empty() {
            format!(" (needs {})", needs.concat())
        } else {
            String::new()
        };
        for line in wrapped(&format!("{}{needs}: {reason}", names.join(", ")), 80) {
            text.push_str(&format!("{line}\n"));
        }
    }
    for workspace in &hello.workspaces {
        text.push_str(&format!("workspace: {}\n", neutral::line(workspace, 4096)));
    }
    text
}

fn json(hello: &ToolhostHello) -> String {
    let protections: Vec<serde_json::Value> = hello
        .wall
        .protections
        .iter()
        .map(|protection| {
            let meaning = meaning::of(&protection.name);
            serde_json::json!({
                "name": protection.name,
                "state": protection.state,
                "detail": protection.detail,
                "needs": meaning.map(|meaning| meaning.needs),
            })
        })
        .collect();
    to_line(&serde_json::json!({
        "level": hello.wall.level,
        "proven": hello.wall.proven,
        "landlock_abi": hello.wall.landlock_abi,
        "protections": protections,
        "workspaces": hello.workspaces,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::fake;

    const NAMESPACES: [&str; 4] = ["user-namespace", "mount-namespace", "pid-namespace", "network-namespace"];

    fn hello(state: ProtectionState, detail: &str) -> ToolhostHello {
        let protection =
            |name: &str, state, detail: &str| Protection { name: name.into(), state, detail: detail.into() };
        let mut hello = fake::hello();
        hello.wall.protections = NAMESPACES.iter().map(|name| protection(name, state, detail)).collect();
        hello.wall.protections.push(protection("landlock", ProtectionState::Active, ""));
        hello
    }

    #[test]
    fn what_holds_is_a_line_each() {
        let text = text(&hello(ProtectionState::Active, ""));
        assert!(
            text.contains("active       pid-namespace       sees and reaches its own processes only\n"),
            "{text}"
        );
        assert!(text.contains("active       landlock            opens no file outside"), "{text}");
    }

    #[test]
    fn a_reason_is_said_once_for_all_it_takes_away() {
        let text = text(&hello(ProtectionState::Unavailable, "user namespaces are refused; allow them"));
        assert_eq!(text.matches("are refused").count(), 1, "{text}");
        assert!(text.contains("unavailable  pid-namespace       sees the list of all processes\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_name_of_a_newer_toolhost_is_shown_all_the_same() {
        let mut hello = hello(ProtectionState::Active, "");
        hello.wall.protections.push(Protection {
            name: "new-thing".into(),
            state: ProtectionState::Degraded,
            detail: "a piece is missing".into(),
        });
        let text = text(&hello);
        assert!(
            text.contains("degraded     new-thing") && text.contains("new-thing: a piece is missing\n"),
            "{text}"
        );
    }

    #[test]
    fn json_shape_is_frozen() {
        let mut hello = hello(ProtectionState::Active, "");
        hello.wall.protections.truncate(1);
        hello.workspaces = vec!["/w".into()];
        assert_eq!(
            json(&hello),
            format!(
                "{{\"landlock_abi\":{},\"level\":\"full\",\"protections\":[{{\"detail\":\"\",\"name\":\
                 \"user-namespace\",\"needs\":\"user namespaces\",\"state\":\"active\"}}],\"proven\":null,\
                 \"workspaces\":[\"/w\"]}}\n",
                hello.wall.landlock_abi
            )
        );
    }
}
