//! `sandbox status`: each protection, and whether it is in force.
//!
//! What is shown comes from the toolhost, which found it by trying; the configuration is not asked.

use oxibot_proto::message::{ProtectionState, ToolhostHello, Wall};

use crate::cli::{Global, StatusArgs};
use crate::confine::Network;
use crate::exit::Exit;
use crate::render::neutral;
use crate::render::report::to_line;

use super::oneshot::{Needs, State, with_toolhost};
use super::print;
use super::tool::wrapped;

/// Prints it.
pub(super) fn status(global: &Global, args: &StatusArgs) -> Exit {
    let needs =
        Needs { workspaces: Vec::new(), network: Network::None, state: State::Unused, json: args.json };
    with_toolhost(
        global,
        &needs,
        |_| Ok(()),
        async |(), broker| {
            let hello = broker.hello();
            print(&if args.json { json(&hello) } else { text(&hello) })
        },
    )
}

/// Name of a state, as printed.
pub(super) fn state_name(state: ProtectionState) -> &'static str {
    match state {
        ProtectionState::Active => "active",
        ProtectionState::Degraded => "degraded",
        ProtectionState::Unavailable => "unavailable",
    }
}

/// Where the level is proven, in words.
fn proven(wall: &Wall) -> &'static str {
    match wall.proven {
        Some(oxibot_proto::message::Proven::Start) => "proven by attack at this start",
        Some(oxibot_proto::message::Proven::Recorded) => "proven by attack earlier in this boot",
        None => "not proven by attack",
    }
}

fn text(hello: &ToolhostHello) -> String {
    let wall = &hello.wall;
    let mut text = format!("level: {} ({})\n", wall.level.name(), proven(wall));
    text.push_str(&match wall.landlock_abi {
        0 => "Landlock: none in this kernel\n".to_owned(),
        abi => format!("Landlock: ABI {abi}\n"),
    });
    for protection in &wall.protections {
        let name = neutral::line(&protection.name, 40);
        text.push_str(&format!("  {:<12} {name}\n", state_name(protection.state)));
        for line in wrapped(&neutral::line(&protection.detail, 1024), 64) {
            text.push_str(&format!("               {line}\n"));
        }
    }
    for workspace in &hello.workspaces {
        text.push_str(&format!("workspace: {}\n", neutral::line(workspace, 4096)));
    }
    text
}

fn json(hello: &ToolhostHello) -> String {
    to_line(&serde_json::json!({
        "level": hello.wall.level,
        "proven": hello.wall.proven,
        "landlock_abi": hello.wall.landlock_abi,
        "protections": hello.wall.protections,
        "workspaces": hello.workspaces,
    }))
}

#[cfg(test)]
mod tests {
    use oxibot_proto::message::Protection;

    use super::*;
    use crate::broker::fake;

    #[test]
    fn each_protection_is_named_with_what_is_missing() {
        let mut hello = fake::hello();
        hello.wall.protections = vec![
            Protection { name: "landlock".into(), state: ProtectionState::Active, detail: String::new() },
            Protection {
                name: "network-namespace".into(),
                state: ProtectionState::Unavailable,
                detail: "user namespaces are refused".into(),
            },
        ];
        let text = text(&hello);
        assert!(text.contains("  active       landlock\n"), "{text}");
        assert!(
            text.contains("  unavailable  network-namespace\n               user namespaces are"),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_str(&json(&hello)).unwrap();
        assert_eq!(value["protections"][1]["state"], "unavailable");
        assert_eq!((&value["level"], &value["proven"]), (&"full".into(), &serde_json::Value::Null));
    }
}
