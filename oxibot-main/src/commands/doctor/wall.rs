//! The wall: the programs, the toolhost and what it found to hold, main's own confinement, the emergency stop.

use std::path::PathBuf;

use oxibot_proto::message::{Level, ProtectionState, Proven, ToolhostHello, Wall};

use crate::render::neutral;

use super::super::sandbox::meaning_of;
use super::report::Check;

/// What is known of the wall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WallFacts {
    /// Where the toolhost's program is, or why it cannot be trusted and what to do.
    pub(super) program: Result<PathBuf, Trouble>,
    /// What the toolhost found, or why it does not run.
    pub(super) hello: Result<ToolhostHello, Trouble>,
    /// Why it did not end, if it did not.
    pub(super) lingers: Option<String>,
    /// What main lacks for its own confinement, or why it cannot be confined.
    pub(super) main: Result<Vec<String>, String>,
    /// Files of the emergency stop that are there.
    pub(super) stops: Vec<PathBuf>,
    /// `sandbox.require`, where the configuration can be read.
    pub(super) require: Option<Level>,
}

/// Something that went wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) what: String,
    pub(super) hint: String,
}

impl WallFacts {
    /// The level calls run under.
    pub(super) fn level(&self) -> Option<Level> {
        self.hello.as_ref().ok().map(|hello| hello.wall.level)
    }
}

/// The toolhost's program and the directories above it.
pub(super) fn programs(facts: &WallFacts) -> Vec<Check> {
    let id = "sandbox.programs";
    vec![match &facts.program {
        Ok(path) => Check::ok(id, format!("{} belongs to root or to you alone", path.display())),
        Err(trouble) => Check::fail(id, &trouble.what, "no tool runs", &trouble.hint),
    }]
}

/// Whether it starts and ends.
pub(super) fn toolhost(facts: &WallFacts) -> Vec<Check> {
    let id = "sandbox.toolhost";
    let hint = |hint: &str| {
        if hint.is_empty() { "see the lines on standard error".to_owned() } else { hint.to_owned() }
    };
    vec![match (&facts.hello, &facts.lingers) {
        (Ok(hello), None) => {
            Check::ok(id, format!("version {} starts, answers and ends", neutral::line(&hello.build, 40)))
        }
        (Ok(_), Some(why)) => Check::fail(
            id,
            why,
            "it does not end, and may hold files and processes",
            "pkill -KILL oxibot-toolhost",
        ),
        (Err(trouble), _) => Check::fail(id, &trouble.what, "no tool runs", hint(&trouble.hint)),
    }]
}

/// The level as a whole.
pub(super) fn level(facts: &WallFacts) -> Vec<Check> {
    let id = "sandbox.level";
    let Ok(hello) = &facts.hello else {
        return vec![Check::info(id, "none, as no toolhost runs", "", "see sandbox.toolhost")];
    };
    let found = format!("{}, {}", hello.wall.level.name(), proven(&hello.wall));
    vec![match hello.wall.level {
        Level::Full => Check::ok(id, found),
        Level::Kernel | Level::Reduced => {
            Check::warn(id, found, "some protections are missing", "see sandbox.protection and namespaces")
        }
        Level::Off => {
            Check::warn(id, found, "tools can reach everything this user can reach", "leave out --no-sandbox")
        }
    }]
}

/// How the level was proven, in words.
pub(in super::super) fn proven(wall: &Wall) -> &'static str {
    match wall.proven {
        Some(Proven::Start) => "proven by attack at this start",
        Some(Proven::Recorded) => "proven by attack earlier in this boot",
        None => "not proven by attack",
    }
}

/// What the configuration asks for at least.
pub(super) fn require(facts: &WallFacts) -> Vec<Check> {
    let id = "sandbox.require";
    let Some(require) = facts.require else { return Vec::new() };
    let found = format!("sandbox.require is {}", require.name());
    vec![match facts.level() {
        Some(level) if level < require => Check::fail(
            id,
            format!("{found}, {} is to be had", level.name()),
            "every command that runs tools refuses to start",
            format!(
                "give what is missing, see sandbox.protection; or accept less: \"sandbox\": {{\"require\": \"{}\"}}",
                level.name()
            ),
        ),
        Some(_) | None => Check::ok(id, found),
    }]
}

/// Each protection.
pub(super) fn protections(facts: &WallFacts) -> Vec<Check> {
    let Ok(hello) = &facts.hello else { return Vec::new() };
    hello
        .wall
        .protections
        .iter()
        .map(|protection| {
            let id = format!("sandbox.protection.{}", neutral::line(&protection.name, 64));
            let detail = neutral::line(&protection.detail, 1024);
            let found = |state: &str| {
                if detail.is_empty() { state.to_owned() } else { format!("{state}: {detail}") }
            };
            let meaning = meaning_of(&protection.name);
            match protection.state {
                // A detail of what holds is the operator's to read where it is asked for: `sandbox status`.
                ProtectionState::Active => Check::ok(id, "active"),
                ProtectionState::Degraded => {
                    let holds = meaning.map_or("it holds", |meaning| meaning.holds);
                    Check::warn(
                        id,
                        found("degraded"),
                        format!("a call, in part: {holds}"),
                        cause(&protection.name),
                    )
                }
                ProtectionState::Unavailable => {
                    let lost = meaning.map_or("is without it", |meaning| meaning.lost);
                    Check::warn(id, found("unavailable"), format!("a call {lost}"), cause(&protection.name))
                }
            }
        })
        .collect()
}

/// The check that says what would give a protection.
fn cause(protection: &str) -> &'static str {
    if protection.ends_with("cgroup") {
        "see cgroup.delegation"
    } else if protection.starts_with("landlock") {
        "see kernel.landlock"
    } else if protection == "rlimits" {
        "run as another user than root, or see namespaces.tried"
    } else {
        "see namespaces.tried"
    }
}

/// The process that talks to the world.
pub(super) fn main(facts: &WallFacts) -> Vec<Check> {
    let id = "sandbox.main";
    vec![match &facts.main {
        Ok(missing) if missing.is_empty() => Check::ok(id, "confines itself; each refusal was tried"),
        Ok(missing) => Check::warn(
            id,
            missing.join("; "),
            "a main that is taken over could do more",
            "see kernel.landlock and kernel.seccomp",
        ),
        Err(why) => Check::fail(
            id,
            why,
            "nothing that talks to the world starts",
            "see kernel.landlock and kernel.seccomp",
        ),
    }]
}

/// Whether calls are refused at the moment.
pub(super) fn stop(facts: &WallFacts) -> Vec<Check> {
    let id = "sandbox.stop";
    let Some(first) = facts.stops.first() else {
        return vec![Check::ok(id, "no emergency stop is in force")];
    };
    let names: Vec<String> = facts.stops.iter().map(|path| path.display().to_string()).collect();
    let remedy = if first.ends_with("run/stop") && facts.stops.len() == 1 {
        "oxibot stop --clear".to_owned()
    } else {
        let paths: Vec<String> = facts.stops.iter().map(|path| crate::config::file::shell(path)).collect();
        format!("rm {}", paths.join(" "))
    };
    vec![Check::warn(id, format!("{} is there", names.join(" and ")), "every call is refused", remedy)]
}

#[cfg(test)]
mod tests {
    use oxibot_proto::message::Protection;

    use super::super::report::State;
    use super::*;
    use crate::broker::fake;

    fn good() -> WallFacts {
        WallFacts {
            program: Ok("/usr/libexec/oxibot/oxibot-toolhost".into()),
            hello: Ok(fake::hello()),
            lingers: None,
            main: Ok(Vec::new()),
            stops: Vec::new(),
            require: Some(Level::Kernel),
        }
    }

    fn trouble() -> Trouble {
        Trouble { what: "it is broken".into(), hint: String::new() }
    }

    fn at(level: Level) -> WallFacts {
        let mut hello = fake::hello();
        hello.wall.level = level;
        WallFacts { hello: Ok(hello), ..good() }
    }

    fn one(checks: Vec<Check>) -> Check {
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn a_program_that_cannot_be_trusted_fails() {
        assert_eq!(one(programs(&good())).state, State::Ok);
        assert_eq!(one(programs(&WallFacts { program: Err(trouble()), ..good() })).state, State::Fail);
    }

    #[test]
    fn a_toolhost_that_does_not_start_or_end_fails() {
        assert_eq!(one(toolhost(&good())).state, State::Ok);
        let dead = one(toolhost(&WallFacts { hello: Err(trouble()), ..good() }));
        assert_eq!((dead.state, dead.remedy.as_str()), (State::Fail, "see the lines on standard error"));
        assert_eq!(one(toolhost(&WallFacts { lingers: Some("x".into()), ..good() })).state, State::Fail);
    }

    #[test]
    fn level_below_full_is_doubtful_and_below_what_is_required_fails() {
        assert_eq!(one(level(&at(Level::Full))).state, State::Ok);
        for lower in [Level::Kernel, Level::Reduced, Level::Off] {
            assert_eq!(one(level(&at(lower))).state, State::Warn);
        }
        assert_eq!(one(require(&at(Level::Kernel))).state, State::Ok);
        let refused = one(require(&at(Level::Reduced)));
        assert_eq!(refused.state, State::Fail);
        assert!(refused.remedy.contains("\"require\": \"reduced\""), "{refused:?}");
    }

    #[test]
    fn each_protection_is_a_check_with_what_is_missing() {
        let mut facts = at(Level::Kernel);
        if let Ok(hello) = &mut facts.hello {
            let protection = |name: &str, state, detail: &str| Protection {
                name: name.into(),
                state,
                detail: detail.into(),
            };
            hello.wall.protections = vec![
                protection("landlock", ProtectionState::Active, ""),
                protection("landlock-scopes", ProtectionState::Degraded, "needs ABI 6"),
                protection("pid-namespace", ProtectionState::Unavailable, "needs user namespaces"),
            ];
        }
        let checks = protections(&facts);
        let states: Vec<State> = checks.iter().map(|check| check.state).collect();
        assert_eq!(states, [State::Ok, State::Warn, State::Warn]);
        assert_eq!(checks[2].id, "sandbox.protection.pid-namespace");
        assert_eq!(checks[2].found, "unavailable: needs user namespaces");
        assert_eq!(checks[2].consequence, "a call sees the list of all processes");
        let remedies: Vec<&str> = checks.iter().map(|check| check.remedy.as_str()).collect();
        assert_eq!(remedies, ["", "see kernel.landlock", "see namespaces.tried"]);
    }

    #[test]
    fn main_that_cannot_be_confined_fails_and_an_old_kernel_is_doubtful() {
        assert_eq!(one(main(&good())).state, State::Ok);
        assert_eq!(
            one(main(&WallFacts { main: Ok(vec!["no seccomp".into()]), ..good() })).state,
            State::Warn
        );
        assert_eq!(one(main(&WallFacts { main: Err("no".into()), ..good() })).state, State::Fail);
    }

    #[test]
    fn an_emergency_stop_is_named_with_what_ends_it() {
        assert_eq!(one(stop(&good())).state, State::Ok);
        let clear = one(stop(&WallFacts { stops: vec!["/h/run/stop".into()], ..good() }));
        assert_eq!((clear.state, clear.remedy.as_str()), (State::Warn, "oxibot stop --clear"));
        let remove = one(stop(&WallFacts { stops: vec!["/h/STOP".into()], ..good() }));
        assert_eq!(remove.remedy, "rm /h/STOP");
    }
}
