//! The attacker: what a hostile program would try from inside a call, by our own binary under the real rules.
//!
//! It answers by its exit status, so that nobody has to parse what a confined program printed. An attack that reaches
//! the kernel proper counts as broken even if the kernel then refuses it for another reason: the tests run every one of
//! them at level `off` too, where it must break. `table` is what there is, by class; `paths`, `processes`, `network`,
//! `privilege` and `resources` are how each is tried; `targets` is what they are aimed at, made by whoever asks.
//! Deliberately absent: any judgement whether the wall is good enough. Whoever asks decides that.

mod answer;
mod network;
mod outer;
mod paths;
mod privilege;
mod processes;
mod resources;
mod table;
mod targets;

use std::process::ExitCode;

use nix::errno::Errno;
use oxibot_proto::message::Level;
use oxibot_proto::settings::Limits;

use super::orders::OURSELVES;
use crate::sys;
use crate::wire::Profile;

pub use answer::{Answer, Verdict};
pub use paths::{Op, Place};
pub use resources::Bound;
pub(super) use targets::remove_planted;
pub use targets::{Around, Target, Targets};

/// One attack.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Stable name.
    pub id: &'static str,
    /// Which protection (see [`crate::wire::Obtained::protections`]) it is aimed at.
    pub protection: &'static str,
    /// What is expected to refuse it.
    pub mechanism: &'static str,
    /// The kernel feature behind that.
    pub feature: &'static str,
    tried: Tried,
    gap: Gap,
    fixed: bool,
}

/// How an attack is tried.
#[derive(Debug, Clone, Copy)]
enum Tried {
    /// A system call; held if it is answered with one of these.
    Call(sys::Attempt, &'static [Errno]),
    /// The same, aimed at a process outside the call.
    Process(fn(i32) -> sys::Attempt),
    /// Something done to a path.
    Path(Op, Place),
    /// A limit of the call, to be exceeded.
    Beyond(Bound),
    /// Anything else, perhaps with targets.
    By(&'static [Target], fn(&Targets) -> Answer),
}

/// Where an attack is known to get through, and named so in what the level promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Nowhere.
    None,
    /// At `kernel` and below it: there are no namespaces.
    WithoutNamespaces(&'static str),
    /// At `reduced`, where Landlock is older than this ABI.
    BeforeAbi(u32, &'static str),
}

/// Every attack, in the order they are tried.
#[must_use]
pub fn all() -> Vec<&'static Attack> {
    table::CLASSES.iter().flat_map(|class| class.iter()).collect()
}

/// Those of the battery that runs at a start: quick, and without a trace in the workspace.
#[must_use]
pub fn fixed() -> Vec<&'static Attack> {
    all().into_iter().filter(|attack| attack.fixed).collect()
}

/// The attack of that name.
#[must_use]
pub fn find(id: &str) -> Option<&'static Attack> {
    table::CLASSES.iter().flat_map(|class| class.iter()).find(|attack| attack.id == id)
}

impl Attack {
    /// The name of the gap, if it is one of a wall of this level and Landlock ABI.
    #[must_use]
    pub fn gap(&self, level: Level, abi: u32) -> Option<&'static str> {
        match (self.gap, level) {
            (Gap::None, _) | (_, Level::Full | Level::Off) => None,
            (Gap::WithoutNamespaces(name), Level::Kernel | Level::Reduced) => Some(name),
            (Gap::BeforeAbi(first, name), Level::Kernel | Level::Reduced) => (abi < first).then_some(name),
        }
    }

    /// Targets it cannot do without.
    #[must_use]
    pub fn needs(&self) -> &'static [Target] {
        match self.tried {
            Tried::Call(..) => &[],
            Tried::Process(_) => &[Target::Process],
            Tried::Path(_, Place::At(_)) => &[],
            Tried::Path(_, Place::Of(target)) => target.alone(),
            Tried::Beyond(bound) => bound.target().alone(),
            Tried::By(needs, _) => needs,
        }
    }

    /// Why it is none against this profile: the configuration grants what it is aimed at.
    #[must_use]
    pub fn granted(&self, profile: &Profile, targets: &Targets) -> Option<&'static str> {
        match self.tried {
            Tried::Path(op, Place::At(path)) => paths::granted(op, path, profile),
            // What is ours is never granted, wherever it lies, and what was planted lies outside of every grant.
            Tried::Path(op, Place::Of(target)) => {
                targets.get(target).and_then(|path| paths::leads_there(op, path, profile))
            }
            Tried::Call(..) | Tried::Process(_) | Tried::Beyond(_) | Tried::By(..) => None,
        }
    }

    /// A path of this machine it needs, without which there is nothing to attack.
    #[must_use]
    pub fn fixed_path(&self) -> Option<&'static str> {
        match self.tried {
            Tried::Path(op, Place::At(path)) if !op.makes() => Some(path),
            Tried::Path(..) | Tried::Call(..) | Tried::Process(_) | Tried::Beyond(_) | Tried::By(..) => None,
        }
    }

    /// The `argv` of the job that tries it alone. Its exit status is an [`Answer`].
    #[must_use]
    pub fn argv(&self, targets: &Targets) -> Vec<Vec<u8>> {
        words("one", targets, self.needs(), &[self])
    }

    /// Limits of that job: small where it is a limit that is attacked.
    #[must_use]
    pub fn limits(&self, limits: Limits) -> Limits {
        match self.tried {
            Tried::Beyond(bound) => bound.limits(limits),
            Tried::Call(..) | Tried::Process(_) | Tried::Path(..) | Tried::By(..) => limits,
        }
    }

    /// What a job that tried it alone came to. `None` where its end says nothing: it was killed, or it was not the
    /// attacker that exited.
    #[must_use]
    pub fn came_to(&self, exit_code: Option<i32>) -> Option<Answer> {
        match (exit_code, self.tried) {
            (Some(status), _) => Answer::from_status(status),
            // A limit of the whole call ends the whole call.
            (None, Tried::Beyond(_)) => Some(Answer::Signalled),
            (None, Tried::Call(..) | Tried::Process(_) | Tried::Path(..) | Tried::By(..)) => None,
        }
    }

    /// What answered, in words, and the errno it gave.
    #[must_use]
    pub fn answered(&self, answer: Answer, level: Level) -> (&'static str, String) {
        let mechanism = match (answer, self.tried) {
            (Answer::Held(Some(errno)), tried) => answer::mechanism(errno, level, tried, self.mechanism),
            (Answer::Held(None) | Answer::Signalled | Answer::Broken | Answer::Skipped, _) => self.mechanism,
        };
        (mechanism, answer.detail())
    }

    fn attempt(&self, targets: &Targets) -> Answer {
        if self.needs().iter().any(|target| targets.get(*target).is_none()) {
            return Answer::Skipped;
        }
        match self.tried {
            Tried::Call(call, held) => {
                let tried = sys::attempt(call);
                if tried.is_ok() {
                    // Device nodes are the only thing these make.
                    let _ = std::fs::remove_file(sys::NODE);
                }
                Answer::of_call(outer::translated(call, tried), held)
            }
            Tried::Process(call) => processes::aimed(targets, call),
            Tried::Path(op, place) => match place.path(targets) {
                Some(path) => paths::attempt(op, &path),
                None => Answer::Skipped,
            },
            Tried::Beyond(bound) => resources::attempt(bound, targets),
            Tried::By(_, attempt) => attempt(targets),
        }
    }
}

/// The `argv` of a job that tries several, one after the other. Its exit status is a [`Verdict`] over this list.
#[must_use]
pub fn argv_of_many(attacks: &[&Attack], targets: &Targets) -> Vec<Vec<u8>> {
    let needs: Vec<Target> = attacks.iter().flat_map(|attack| attack.needs()).copied().collect();
    words("all", targets, &needs, attacks)
}

fn words(mode: &str, targets: &Targets, needs: &[Target], attacks: &[&Attack]) -> Vec<Vec<u8>> {
    let mut argv = vec![OURSELVES.to_vec(), b"attack".to_vec(), mode.as_bytes().to_vec()];
    argv.extend(targets.words(needs).into_iter().map(String::into_bytes));
    argv.extend(attacks.iter().map(|attack| attack.id.as_bytes().to_vec()));
    argv
}

/// Entry point of the role `attack one|all [TARGET=VALUE...] ID...`.
#[must_use]
pub fn attack_role(arguments: &[String]) -> ExitCode {
    let (mode, rest) = match arguments.split_first() {
        Some((mode, rest)) => (mode.as_str(), rest),
        None => ("", arguments),
    };
    let (aims, ids): (Vec<&String>, Vec<&String>) = rest.iter().partition(|word| word.contains('='));
    let targets = Targets::parse(aims.iter().map(|word| word.as_str()));
    let status = match mode {
        "one" => ids
            .first()
            .and_then(|id| find(id))
            .map_or(Answer::Skipped, |attack| attack.attempt(&targets))
            .status(),
        "all" => {
            let answers =
                ids.iter().map(|id| find(id).map_or(Answer::Skipped, |attack| attack.attempt(&targets)));
            Verdict::over(answers).status()
        }
        // Nobody asks for anything else.
        _ => Answer::Skipped.status(),
    };
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_enough_and_each_has_a_name_of_its_own() {
        let ids: BTreeSet<_> = all().iter().map(|attack| attack.id).collect();
        assert_eq!(ids.len(), all().len(), "names repeat");
        assert!(all().len() >= 85, "{}", all().len());
        assert!(fixed().len() >= 40, "{}", fixed().len());
        for attack in all() {
            assert!(!attack.id.contains('='), "{}", attack.id);
            assert!(!attack.mechanism.is_empty() && !attack.feature.is_empty(), "{}", attack.id);
        }
    }

    #[test]
    fn battery_fits_an_exit_status() {
        assert!(fixed().len() < usize::from(Verdict::MOST));
    }

    #[test]
    fn gaps_are_those_of_levels_without_namespaces_only() {
        for attack in all() {
            assert_eq!(attack.gap(Level::Full, 7), None, "{}", attack.id);
            assert_eq!(attack.gap(Level::Off, 7), None, "{}", attack.id);
        }
        let chmod = find("chmod-outside").unwrap();
        assert!(chmod.gap(Level::Kernel, 7).is_some());
        let truncate = find("truncate-outside").unwrap();
        assert_eq!(truncate.gap(Level::Kernel, 7), None);
        assert!(truncate.gap(Level::Reduced, 2).is_some());
    }
}
