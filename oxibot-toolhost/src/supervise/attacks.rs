//! Every attack on request: `doctor --attack`, on a toolhost that was started for nothing else.
//!
//! Each attack is a call like any other, with the call's deadline, end and cleanup; one at a time. The answer is an exit
//! status. A call that ends in any other way proves nothing and counts as broken.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use oxibot_proto::message::{
    AttackDone, AttackResult, Attacked, CallNumber, Denial, Level, Origin, Outcome, ToMain,
};

use super::admit::Asked;
use super::audit::{About, Sync};
use super::broker::Broker;
use super::calls::{Body, Call, Finished, Plan, Shape};
use crate::wall::attack::{Answer, Attack, Targets, all};
use crate::wire::{Job, Sockets};

/// Longest one attack may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of every call.
const UMASK: u32 = 0o022;
/// The workspace that is attacked: the default one.
const PLACE: usize = 0;

/// What a toolhost that was started for attacks holds.
#[derive(Debug)]
pub(crate) struct Range {
    targets: Targets,
    series: Option<Series>,
}

/// One request under way.
#[derive(Debug)]
struct Series {
    link: u64,
    left: VecDeque<&'static Attack>,
}

impl Range {
    pub(crate) fn new(targets: Targets) -> Self {
        Self { targets, series: None }
    }
}

/// Such a toolhost runs no call: its wall is not proven yet when it is ready.
pub(crate) fn only_attacks() -> Denial {
    Denial {
        rule: "attack.only".to_owned(),
        reason: "this toolhost was started to be attacked".to_owned(),
        hint: "start another one for calls".to_owned(),
    }
}

impl Broker {
    /// `Attack`.
    pub(crate) fn attack(&mut self, link: u64, now: Instant) {
        let refused = match &mut self.range {
            None if self.fixed.wall.level == Level::Off => Some("there is no wall to attack".to_owned()),
            None => Some("this toolhost was not started for attacks".to_owned()),
            Some(Range { series: Some(_), .. }) => Some("the wall is being attacked already".to_owned()),
            Some(range) => {
                range.series = Some(Series { link, left: all().into() });
                None
            }
        };
        if let Some(refused) = refused {
            return self.send(link, &ToMain::AttackDone(AttackDone { refused: Some(refused) }), now);
        }
        if let Err(error) = self.audit.event("attack") {
            self.log.line(&error.to_string(), now);
        }
        self.next_attack(now);
    }

    /// Starts the next attack, or says that there is none left. What cannot be tried here is answered at once.
    fn next_attack(&mut self, now: Instant) {
        loop {
            let Some(range) = &mut self.range else { return };
            let Some(series) = &mut range.series else { return };
            let link = series.link;
            let Some(attack) = series.left.pop_front() else {
                range.series = None;
                return self.send(link, &ToMain::AttackDone(AttackDone { refused: None }), now);
            };
            // Whoever is gone, or has to go, is told nothing more.
            if self.links.get(&link).is_none_or(|link| link.closing) {
                range.series = None;
                return;
            }
            let profile = self.places.get(PLACE).map(|place| place.profile());
            let granted = profile.and_then(|profile| attack.granted(profile, &range.targets));
            let reason = if let Some(granted) = granted {
                granted.to_owned()
            } else if range.targets.serve(attack.needs()) {
                let job = Job {
                    argv: attack.argv(&range.targets),
                    environment: Vec::new(),
                    directory: Vec::new(),
                    limits: attack.limits(self.fixed.settings.limits),
                    umask: UMASK,
                    sockets: Sockets::search(),
                };
                return self.begin_attack(link, attack, job, now);
            } else {
                "there is no such target here".to_owned()
            };
            self.tell(link, attack, AttackResult::Skipped, attack.mechanism, reason, now);
        }
    }

    fn begin_attack(&mut self, link: u64, attack: &'static Attack, mut job: Job, now: Instant) {
        let workspace = self.places.get(PLACE).map(|place| place.workspace.bytes()).unwrap_or_default();
        job.environment = self.environment(&workspace);
        let origin = Origin { who: String::new(), channel: String::new(), session: String::new() };
        let asked = Asked {
            // Attacks have no number of main's; nothing is sent under this one.
            number: CallNumber(0),
            tool: "attack".to_owned(),
            origin: origin.clone(),
            workspace: None,
            about: About { text: attack.id.to_owned(), size: None },
        };
        let subject = self.subject(&asked, PLACE);
        let key = self.key();
        let call = Call {
            link,
            number: asked.number,
            attack: Some(attack),
            origin,
            place: PLACE,
            subject,
            admitted: now,
            started: None,
            timeout: PATIENCE,
            body: Body::Planned(Box::new(Plan::new(job, Shape::Attack))),
            last_progress: now,
        };
        self.calls.insert(key, call);
        self.queue.push_back(key);
    }

    /// The call of an attack is over.
    pub(crate) fn attacked(&mut self, link: u64, attack: &'static Attack, finished: &Finished, now: Instant) {
        let (level, abi) = (self.wall_of(PLACE).0, self.fixed.wall.landlock_abi);
        let (result, mechanism, detail) = judge(attack, finished, level, abi);
        self.tell(link, attack, result, mechanism, detail, now);
        self.next_attack(now);
    }

    fn tell(
        &mut self,
        link: u64,
        attack: &Attack,
        result: AttackResult,
        mechanism: &str,
        detail: String,
        now: Instant,
    ) {
        let told = Attacked {
            id: attack.id.to_owned(),
            protection: attack.protection.to_owned(),
            mechanism: mechanism.to_owned(),
            feature: attack.feature.to_owned(),
            result,
            detail,
        };
        if let Err(error) = self.audit.told("self_attack", &told, Sync::Soon) {
            self.log.line(&error.to_string(), now);
        }
        self.send(link, &ToMain::Attacked(Box::new(told)), now);
    }
}

/// What the end of its call says of an attack.
fn judge(
    attack: &Attack,
    finished: &Finished,
    level: Level,
    abi: u32,
) -> (AttackResult, &'static str, String) {
    let answer = match &finished.outcome {
        Outcome::Completed | Outcome::Killed { .. } => attack.came_to(finished.exit_code),
        Outcome::Denied(_)
        | Outcome::NeedsApproval(_)
        | Outcome::Failed { .. }
        | Outcome::TimedOut
        | Outcome::Cancelled
        | Outcome::Internal { .. } => None,
    };
    let Some(answer) = answer else {
        let detail = match &finished.outcome {
            Outcome::Internal { message } | Outcome::Failed { message } => {
                format!("its call proves nothing: {message}")
            }
            Outcome::Completed
            | Outcome::Killed { .. }
            | Outcome::Denied(_)
            | Outcome::NeedsApproval(_)
            | Outcome::TimedOut
            | Outcome::Cancelled => format!("its call proves nothing: {}", finished.outcome.name()),
        };
        return (AttackResult::Broken, attack.mechanism, detail);
    };
    let (mechanism, detail) = attack.answered(answer, level);
    match (answer, attack.gap(level, abi)) {
        (Answer::Held(_) | Answer::Signalled, _) => (AttackResult::Held, mechanism, detail),
        (Answer::Skipped, _) => (AttackResult::Skipped, mechanism, detail),
        (Answer::Broken, Some(gap)) => {
            (AttackResult::Skipped, mechanism, format!("named gap of level {}: {gap}", level.name()))
        }
        (Answer::Broken, None) => (AttackResult::Broken, mechanism, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wall::attack::find;

    fn ended(outcome: Outcome, exit_code: Option<i32>) -> Finished {
        Finished { exit_code, ..Finished::plain(outcome) }
    }

    fn result(id: &str, finished: &Finished, level: Level) -> AttackResult {
        judge(find(id).unwrap(), finished, level, 7).0
    }

    #[test]
    fn exit_status_decides_and_nothing_else_counts_as_held() {
        let held = i32::from(Answer::Held(None).status());
        let broken = i32::from(Answer::Broken.status());
        for level in [Level::Full, Level::Kernel] {
            assert_eq!(result("bpf", &ended(Outcome::Completed, Some(held)), level), AttackResult::Held);
            assert_eq!(result("bpf", &ended(Outcome::Completed, Some(broken)), level), AttackResult::Broken);
            for finished in [
                ended(Outcome::TimedOut, None),
                ended(Outcome::Completed, Some(255)),
                ended(Outcome::Killed { limit: None }, None),
                ended(Outcome::Internal { message: String::new() }, None),
            ] {
                assert_eq!(result("bpf", &finished, level), AttackResult::Broken);
            }
        }
    }

    #[test]
    fn limit_that_ends_the_call_held_and_one_that_times_out_did_not() {
        let killed = ended(Outcome::Killed { limit: Some("memory".into()) }, None);
        assert_eq!(result("too-much-memory", &killed, Level::Full), AttackResult::Held);
        assert_eq!(
            result("too-much-memory", &ended(Outcome::TimedOut, None), Level::Full),
            AttackResult::Broken
        );
    }

    #[test]
    fn named_gap_is_named_where_it_is_one() {
        let broken = ended(Outcome::Completed, Some(Answer::Broken.status().into()));
        let chmod = find("chmod-outside").unwrap();
        assert_eq!(judge(chmod, &broken, Level::Full, 7).0, AttackResult::Broken);
        let (result, _, detail) = judge(chmod, &broken, Level::Kernel, 7);
        assert_eq!(result, AttackResult::Skipped);
        assert!(detail.contains("named gap of level kernel"), "{detail}");
    }

    #[test]
    fn detail_says_what_answered() {
        let status = i32::from(Answer::Held(Some(nix::errno::Errno::ENOENT)).status());
        let finished = ended(Outcome::Completed, Some(status));
        let (_, mechanism, detail) = judge(find("read-shadow").unwrap(), &finished, Level::Full, 7);
        assert_eq!((mechanism, detail.as_str()), ("file view", "ENOENT: not in the view"));
    }
}
