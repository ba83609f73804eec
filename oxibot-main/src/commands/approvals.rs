//! `approvals`: calls that wait for a yes, and saying it from another terminal.
//!
//! It speaks to the toolhosts of the home at their own sockets, where main cannot: what is said here does not hang on
//! main's word. "Always" is a rule in the configuration that the person sees and writes with a command of their own;
//! no message of a chat ends there.

use std::path::{Path, PathBuf};

use oxibot_proto::message::{ApprovalAnswer, ApprovalOutcome, PendingApproval, ToMain, ToToolhost};
use serde_json::{Map, Value, json};

use crate::cli::{AlwaysArgs, ApprovalsCommand, Global};
use crate::config::file::{self, Existing, Links, MAX_CONFIG_BYTES};
use crate::config::{self, Environment, Paths};
use crate::exit::Exit;
use crate::render::{neutral, terminal};
use crate::repl::consent::described;

use super::control;
use super::fault::Fault;

/// Does what was asked. Blocks, at most some seconds for each toolhost that runs.
pub(super) fn run(global: &Global, command: &ApprovalsCommand) -> Exit {
    let paths = match Paths::find(&super::options(global), &Environment::of_process()) {
        Ok(paths) => paths,
        Err(error) => return Fault::from(error).report(false),
    };
    let sockets = control::sockets(global, &paths.home);
    match command {
        ApprovalsCommand::List(args) => list(&sockets, args.json),
        ApprovalsCommand::Approve { id } => answer(&sockets, id, true),
        ApprovalsCommand::Deny { id } => answer(&sockets, id, false),
        ApprovalsCommand::Always(args) => always(&paths, args).unwrap_or_else(|fault| fault.report(false)),
    }
}

/// Everything that waits in the home, and where.
fn waiting(sockets: &[PathBuf]) -> (Vec<(PathBuf, PendingApproval)>, bool) {
    let mut all = Vec::new();
    let mut reached = true;
    for socket in sockets {
        match control::ask(socket, &ToToolhost::ListApprovals, ToMain::into_approvals) {
            Ok(pending) => {
                all.extend(pending.into_iter().flatten().map(|pending| (socket.clone(), pending)));
            }
            Err(error) => {
                reached = false;
                terminal::complain(&format!("cannot reach {}: {error}", socket.display()));
            }
        }
    }
    all.sort_by_key(|(_, pending)| pending.expires_ms);
    (all, reached)
}

fn list(sockets: &[PathBuf], json: bool) -> Exit {
    let (all, reached) = waiting(sockets);
    let text = if json {
        let all: Vec<Value> = all.iter().map(|(_, pending)| object(pending)).collect();
        format!("{}\n", Value::Array(all))
    } else if all.is_empty() {
        "no call waits for a yes\n".to_owned()
    } else {
        all.iter().map(|(_, pending)| entry(pending)).collect::<Vec<_>>().join("\n")
    };
    let printed = super::print(&text);
    if reached { printed } else { Exit::Failed }
}

/// One that waits, for scripts. Frozen.
fn object(pending: &PendingApproval) -> Value {
    json!({
        "id": pending.id,
        "tool": pending.tool,
        "text": pending.text,
        "rule": pending.rule,
        "reason": pending.reason,
        "workspace": pending.workspace,
        "who": pending.origin.who,
        "channel": pending.origin.channel,
        "session": pending.origin.session,
        "expires_ms": pending.expires_ms,
    })
}

fn entry(pending: &PendingApproval) -> String {
    format!(
        "{}  for {} at {}, {} s left\n{}",
        neutral::line(&pending.id, 40),
        neutral::line(&pending.origin.who, 100),
        neutral::line(&pending.origin.channel, 100),
        pending.expires_ms / 1000,
        described(pending)
    )
}

fn answer(sockets: &[PathBuf], id: &str, yes: bool) -> Exit {
    let (all, _reached) = waiting(sockets);
    let Some((socket, pending)) = all.into_iter().find(|(_, pending)| pending.id == id) else {
        let shown = neutral::line(id, 40);
        return Fault::new(
            Exit::Failed,
            "approval",
            format!("cannot answer {shown}: no call waits under this id"),
        )
        .with_hint("`oxibot approvals list` shows what waits; an answer counts once, for 10 minutes")
        .report(false);
    };
    let request =
        ToToolhost::Approve(ApprovalAnswer { id: id.to_owned(), yes, by: super::tool::origin().who });
    let said = match control::ask(&socket, &request, ToMain::into_approved) {
        Ok(Some(approved)) => approved.outcome,
        Ok(None) => ApprovalOutcome::Void { reason: "its toolhost has ended".to_owned() },
        Err(error) => ApprovalOutcome::Void { reason: error.to_string() },
    };
    match said {
        ApprovalOutcome::Granted => super::print(&format!("approved, once:\n{}", described(&pending))),
        ApprovalOutcome::Refused => super::print(&format!("denied:\n{}", described(&pending))),
        ApprovalOutcome::Void { reason } => Fault::new(
            Exit::Failed,
            "approval",
            format!("cannot answer {id}: {}", neutral::line(&reason, 400)),
        )
        .report(false),
    }
}

/// Writes the rule that asks no more into the configuration, the rest of which stays as it is.
fn always(paths: &Paths, args: &AlwaysArgs) -> Result<Exit, Fault> {
    let path = &paths.config_file;
    let changed = write_rule(path, &args.rule, args.command.as_deref())?;
    let what = match &args.command {
        Some(command) => format!("commands that fit {command:?}"),
        None => "every command".to_owned(),
    };
    let said = if changed {
        format!(
            "{}: rule {} now allows {what}, from the next start of OxiBot on\n",
            path.display(),
            args.rule
        )
    } else {
        format!("{}: rule {} allows {what} already\n", path.display(), args.rule)
    };
    Ok(super::print(&neutral::text(&said)))
}

/// Changes the file, whole or not at all, and only if every command could still read it. `false` when it says so already.
fn write_rule(path: &Path, rule: &str, command: Option<&str>) -> Result<bool, Fault> {
    let contents = file::read(path, Links::Refuse, MAX_CONFIG_BYTES, None)?;
    let tree: Value = match &contents {
        None => Value::Object(Map::new()),
        Some(contents) => {
            // First as every command reads it: that names line and column of what is wrong.
            config::parse(&contents.bytes, path)?;
            serde_json::from_slice(&contents.bytes).unwrap_or_else(|_| Value::Object(Map::new()))
        }
    };
    let Some(tree) = with_rule(tree, rule, command) else { return Ok(false) };
    let failed = |error: std::io::Error| {
        Fault::new(Exit::Failed, "configuration", format!("cannot write {}: {error}", path.display()))
    };
    let mut text = zeroize::Zeroizing::new(
        serde_json::to_vec_pretty(&tree).map_err(|error| failed(std::io::Error::other(error)))?,
    );
    text.push(b'\n');
    config::parse(&text, path)?;
    if let Some(directory) = path.parent() {
        config::make_private(directory).map_err(failed)?;
    }
    let existing = if contents.is_some() { Existing::Replace } else { Existing::Keep };
    file::write_private(path, &text, existing).map_err(failed)?;
    Ok(true)
}

/// The configuration with one more entry in `policy.overrides`; nothing when it is there.
fn with_rule(mut tree: Value, rule: &str, command: Option<&str>) -> Option<Value> {
    let mut entry = json!({ "rule": rule, "verdict": "allow" });
    if let (Some(command), Some(entry)) = (command, entry.as_object_mut()) {
        entry.insert("commands".to_owned(), json!([command]));
    }
    let policy = tree.as_object_mut()?.entry("policy").or_insert_with(|| json!({}));
    let overrides = policy.as_object_mut()?.entry("overrides").or_insert_with(|| json!([])).as_array_mut()?;
    if overrides.contains(&entry) {
        return None;
    }
    overrides.push(entry);
    Some(tree)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use oxibot_proto::message::{Approved, Asks, Origin};

    use super::*;
    use crate::broker::fake;

    fn pending(id: &str) -> PendingApproval {
        PendingApproval {
            id: id.into(),
            tool: "bash".into(),
            text: "in .:\ngit push --force".into(),
            rule: "git.force-push".into(),
            reason: "r".into(),
            workspace: "/w".into(),
            origin: Origin { who: "ada".into(), channel: "telegram".into(), session: "s".into() },
            expires_ms: 5000,
            asks: Asks::Main,
        }
    }

    #[test]
    fn object_is_frozen() {
        assert_eq!(
            object(&pending("ab12")).to_string(),
            concat!(
                r#"{"channel":"telegram","expires_ms":5000,"id":"ab12","reason":"r","rule":"git.force-push","#,
                r#""session":"s","text":"in .:\ngit push --force","tool":"bash","who":"ada","workspace":"/w"}"#
            )
        );
    }

    #[test]
    fn entry_says_whose_call_it_is_and_shows_all_of_it() {
        let text = entry(&pending("ab12"));
        assert!(text.starts_with("ab12  for ada at telegram, 5 s left\n"), "{text}");
        assert!(text.contains("  | git push --force\n"), "{text}");
    }

    #[test]
    fn rule_is_added_once_and_the_rest_stays() {
        let before =
            json!({"agents": {"defaults": {"model": "m"}}, "policy": {"overrides": [{"rule": "x"}]}});
        let after = with_rule(before.clone(), "git.force-push", Some("git push --force wip")).unwrap();
        assert_eq!(after["agents"], before["agents"]);
        assert_eq!(
            after["policy"]["overrides"],
            json!([{"rule": "x"}, {"rule": "git.force-push", "verdict": "allow",
                    "commands": ["git push --force wip"]}])
        );
        assert_eq!(with_rule(after.clone(), "git.force-push", Some("git push --force wip")), None);
        assert!(with_rule(after, "git.force-push", None).is_some(), "that is another rule");
        assert_eq!(with_rule(json!({"policy": []}), "x", None), None);
    }

    #[test]
    fn answer_goes_to_the_toolhost_that_asked() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("run")).unwrap();
        let serve = |name: &str, holds: &'static str, connections: usize| {
            let listener = UnixListener::bind(home.path().join("run").join(name)).unwrap();
            std::thread::spawn(move || {
                for _ in 0..connections {
                    let (stream, _) = listener.accept().unwrap();
                    fake::serve(stream, |fake| {
                        assert!(matches!(fake.receive(), Some(ToToolhost::Hello(_))));
                        fake.send(&ToMain::Hello(fake::hello()));
                        match fake.receive() {
                            Some(ToToolhost::ListApprovals) => {
                                fake.send(&ToMain::Approvals(vec![pending(holds)]));
                            }
                            Some(ToToolhost::Approve(said)) => {
                                assert_eq!((said.id.as_str(), said.yes), (holds, true));
                                let outcome = ApprovalOutcome::Granted;
                                fake.send(&ToMain::Approved(Approved { id: said.id, outcome }));
                            }
                            other => panic!("{other:?}"),
                        }
                    });
                }
            })
        };
        let (first, second) = (serve("1.sock", "aa", 1), serve("2.sock", "bb", 2));
        assert_eq!(answer(&control::below(home.path()), "bb", true), Exit::Done);
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(answer(&control::below(home.path()), "cc", true), Exit::Failed, "nobody listens any more");
    }
}
