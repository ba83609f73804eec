//! What `doctor` found, in the shape that scripts depend on, and its form for each reader.
//!
//! Nothing is looked up or judged here. The JSON object is frozen: `level`, `checks`, `attacks`, in this order.

use oxibot_proto::message::Level;
use serde::Serialize;

use crate::exit::Exit;

/// The whole report. Serialises to exactly the object of `doctor --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// The level calls run under; none when no toolhost would start.
    pub(crate) level: Option<Level>,
    /// Each check, in the order of the table.
    pub(crate) checks: Vec<Check>,
    /// Each attack of `--attack`; empty without it.
    pub(crate) attacks: Vec<Attack>,
}

impl Report {
    /// 1 when a check failed or an attack succeeded; doubt is none.
    pub(crate) fn exit(&self) -> Exit {
        let failed = self.checks.iter().any(|check| check.state == State::Fail);
        let broken = self.attacks.iter().any(|attack| attack.result == AttackResult::Broken);
        if failed || broken { Exit::Failed } else { Exit::Done }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Stable name: group, dot, what was looked at.
    pub(crate) id: String,
    /// How it is.
    pub(crate) state: State,
    /// The facts.
    pub(crate) found: String,
    /// What that means for the user; empty when all is well.
    pub(crate) consequence: String,
    /// The exact command or setting; empty when there is nothing to do.
    pub(crate) remedy: String,
}

/// How a check came out. Only `fail` gives exit status 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Nothing is wrong, but it is worth knowing.
    Info,
    /// It works, with less than it could have.
    Warn,
    /// Something does not work or is not safe.
    Fail,
}

impl State {
    /// As printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Check {
    /// All is well.
    pub(crate) fn ok(id: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(id, State::Ok, found, "", "")
    }

    /// Nothing is wrong; what it means and what one may do about it.
    pub(crate) fn info(
        id: impl Into<String>,
        found: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(id, State::Info, found, consequence, remedy)
    }

    /// Less than it could be.
    pub(crate) fn warn(
        id: impl Into<String>,
        found: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(id, State::Warn, found, consequence, remedy)
    }

    /// Broken or unsafe.
    pub(crate) fn fail(
        id: impl Into<String>,
        found: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(id, State::Fail, found, consequence, remedy)
    }

    /// With everything said.
    pub(crate) fn new(
        id: impl Into<String>,
        state: State,
        found: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            state,
            found: found.into(),
            consequence: consequence.into(),
            remedy: remedy.into(),
        }
    }
}

/// One attack on the wall and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Attack {
    /// Stable name.
    pub(crate) id: String,
    /// What should hold, as `sandbox status` names it.
    pub(crate) protection: String,
    /// What answered, for example `landlock`.
    pub(crate) mechanism: String,
    /// What of the kernel it needs, for example `CONFIG_SECCOMP_FILTER`.
    pub(crate) feature: String,
    /// How it ended.
    pub(crate) result: AttackResult,
    /// What was seen.
    pub(crate) detail: String,
}

/// How an attack ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AttackResult {
    /// It was refused.
    Held,
    /// It succeeded.
    Broken,
    /// It could not be tried here.
    Skipped,
}

impl AttackResult {
    /// As printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken => "broken",
            Self::Skipped => "skipped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::report::to_line;

    fn report(state: State, result: AttackResult) -> Report {
        Report {
            level: Some(Level::Kernel),
            checks: vec![Check::new("files.home", state, "f", "c", "r")],
            attacks: vec![Attack {
                id: "read-shadow".into(),
                protection: "landlock".into(),
                mechanism: "m".into(),
                feature: "ABI 1".into(),
                result,
                detail: "d".into(),
            }],
        }
    }

    #[test]
    fn json_shape_is_frozen() {
        assert_eq!(
            to_line(&report(State::Warn, AttackResult::Held)),
            "{\"level\":\"kernel\",\"checks\":[{\"id\":\"files.home\",\"state\":\"warn\",\"found\":\"f\",\
             \"consequence\":\"c\",\"remedy\":\"r\"}],\"attacks\":[{\"id\":\"read-shadow\",\
             \"protection\":\"landlock\",\"mechanism\":\"m\",\"feature\":\"ABI 1\",\"result\":\"held\",\
             \"detail\":\"d\"}]}\n"
        );
        let empty = Report { level: None, checks: Vec::new(), attacks: Vec::new() };
        assert_eq!(to_line(&empty), "{\"level\":null,\"checks\":[],\"attacks\":[]}\n");
    }

    #[test]
    fn only_a_failure_or_a_broken_wall_gives_one() {
        for (state, result, exit) in [
            (State::Ok, AttackResult::Held, Exit::Done),
            (State::Info, AttackResult::Skipped, Exit::Done),
            (State::Warn, AttackResult::Held, Exit::Done),
            (State::Fail, AttackResult::Held, Exit::Failed),
            (State::Ok, AttackResult::Broken, Exit::Failed),
        ] {
            assert_eq!(report(state, result).exit(), exit, "{state:?} {result:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_json() {
        for state in [State::Ok, State::Info, State::Warn, State::Fail] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        for result in [AttackResult::Held, AttackResult::Broken, AttackResult::Skipped] {
            assert_eq!(serde_json::to_value(result).unwrap(), result.name());
        }
    }
}
