//! The life of one program behind the wall, as a pure state machine: events go in, what to do comes out.
//!
//! It holds no descriptor and reads no clock. What a confined program says or does can end in `Completed` or `Killed`
//! only; `Internal` is reserved for our own processes.

use std::time::{Duration, Instant};

use oxibot_proto::message::{Denial, Outcome, Usage};
use oxibot_proto::settings::Limits;

use crate::wire::{Ending, FromInit, LimitEvents, Refusal};

/// How long an init may take to exit after its payload ended. A background process may hold the pipes open for ever.
const GRACE: Duration = Duration::from_millis(150);
/// How long the kernel may take to end a killed call, so that its answer comes within 5 s of its deadline. A process in
/// uninterruptible sleep would otherwise hold the call for ever.
const UNKILLABLE: Duration = Duration::from_secs(4);
/// How long a zygote may take to end orphans (levels without a PID namespace).
const SWEEP: Duration = Duration::from_secs(1);

/// Most refusals kept for a result.
const MAX_REFUSALS: usize = 20;

const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;
const SIGKILL: i32 = 9;

/// What happened to the call.
#[derive(Debug)]
pub(crate) enum Event {
    /// The job was handed to an init.
    Launched,
    /// The init said something.
    Said(FromInit),
    /// The init is gone, and with it (level full) every process of the call.
    Gone,
    /// The zygote ended what outlived the init.
    Swept,
    /// End it for this reason.
    End(Reason),
    /// The job could not be handed over.
    Broken(String),
    /// Time passed.
    Tick,
}

/// Why we ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its deadline passed.
    Timeout,
    /// Its peer asked, or is gone.
    Cancelled,
    /// Emergency stop.
    Stopped,
}

/// What the broker has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Do {
    /// SIGKILL to the init.
    Kill,
    /// Have the zygote end what outlived the init.
    Sweep,
    /// Nothing of the call runs any more: drain its pipes and answer.
    Finish,
    /// Something of the call could not be ended: use this zygote no more.
    Quarantine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Launched,
    Ended { kill_at: Instant },
    Killing { give_up_at: Instant },
    Sweeping { give_up_at: Instant },
    Finished,
}

/// How a call came out.
#[derive(Debug)]
pub(crate) struct Conclusion {
    /// The outcome.
    pub(crate) outcome: Outcome,
    /// How the payload ended, if it did by itself.
    pub(crate) exit_code: Option<i32>,
    /// Signal that ended it.
    pub(crate) signal: Option<i32>,
    /// What it used.
    pub(crate) usage: Option<Usage>,
    /// Remarks for the result.
    pub(crate) notes: Vec<String>,
    /// What the filter refused meanwhile, without repetitions.
    pub(crate) refusals: Vec<Refusal>,
    /// Limits of its cgroup it ran into.
    pub(crate) limits: LimitEvents,
}

/// One program's way from the queue to its end.
#[derive(Debug)]
pub(crate) struct Life {
    stage: Stage,
    deadline: Instant,
    private_processes: PrivateProcesses,
    limits: Limits,
    reason: Option<Reason>,
    ending: Option<Ending>,
    refused: Option<Outcome>,
    refusals: Vec<Refusal>,
    unkillable: bool,
}

/// Whether a call has a PID namespace of its own, so that its init's end is the end of all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrivateProcesses {
    /// Level full.
    Yes,
    /// Orphans have to be swept.
    No,
}

impl Life {
    /// A call that waits for an init.
    pub(crate) fn new(deadline: Instant, private_processes: PrivateProcesses, limits: Limits) -> Self {
        Self {
            stage: Stage::Waiting,
            deadline,
            private_processes,
            limits,
            reason: None,
            ending: None,
            refused: None,
            refusals: Vec::new(),
            unkillable: false,
        }
    }

    /// Whether it still waits for an init.
    pub(crate) fn waits(&self) -> bool {
        self.stage == Stage::Waiting
    }

    /// Whether we ended it, so that its reply must not wait for anything.
    pub(crate) fn ended_by_us(&self) -> bool {
        self.reason.is_some()
    }

    /// When to send the next [`Event::Tick`].
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting | Stage::Launched => Some(self.deadline),
            Stage::Ended { kill_at } => Some(kill_at),
            Stage::Killing { give_up_at } | Stage::Sweeping { give_up_at } => Some(give_up_at),
            Stage::Finished => None,
        }
    }

    /// Takes one event. The answer is to be carried out in order.
    #[must_use]
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Do> {
        match event {
            Event::Launched => {
                if self.stage == Stage::Waiting {
                    self.stage = Stage::Launched;
                }
                Vec::new()
            }
            Event::Said(said) => self.said(said, now),
            Event::Gone => self.gone(now),
            Event::Swept => self.swept(),
            Event::End(reason) => self.end(reason, now),
            Event::Broken(message) => {
                if self.stage != Stage::Waiting && self.stage != Stage::Launched {
                    return Vec::new();
                }
                self.refused.get_or_insert(Outcome::Internal { message });
                self.stage = Stage::Finished;
                vec![Do::Finish]
            }
            Event::Tick => self.tick(now),
        }
    }

    fn said(&mut self, said: FromInit, now: Instant) -> Vec<Do> {
        match said {
            // Taken by the process, which knows its place.
            FromInit::Running | FromInit::Sockets(_) | FromInit::Listening => return Vec::new(),
            FromInit::Refused(refusal) => {
                if self.refusals.len() < MAX_REFUSALS && !self.refusals.contains(&refusal) {
                    self.refusals.push(refusal);
                }
                return Vec::new();
            }
            FromInit::NotStarted { fault, exec: true } => {
                self.refused.get_or_insert(Outcome::Failed { message: fault.to_string() });
            }
            FromInit::NotStarted { fault, exec: false } => {
                self.refused.get_or_insert(Outcome::Internal { message: fault.to_string() });
            }
            FromInit::BadDirectory(denial) | FromInit::Unsafe(denial) => self.refuse(denial),
            FromInit::Ended(ending) => {
                self.ending.get_or_insert(ending);
            }
        }
        if self.stage == Stage::Launched {
            self.stage = Stage::Ended { kill_at: now + GRACE };
        }
        Vec::new()
    }

    fn refuse(&mut self, denial: Denial) {
        self.refused.get_or_insert(Outcome::Denied(denial));
    }

    fn gone(&mut self, now: Instant) -> Vec<Do> {
        match self.stage {
            Stage::Waiting | Stage::Sweeping { .. } | Stage::Finished => Vec::new(),
            Stage::Launched | Stage::Ended { .. } | Stage::Killing { .. } => match self.private_processes {
                PrivateProcesses::Yes => {
                    self.stage = Stage::Finished;
                    vec![Do::Finish]
                }
                PrivateProcesses::No => {
                    self.stage = Stage::Sweeping { give_up_at: now + SWEEP };
                    vec![Do::Sweep]
                }
            },
        }
    }

    fn swept(&mut self) -> Vec<Do> {
        match self.stage {
            Stage::Sweeping { .. } => {
                self.stage = Stage::Finished;
                vec![Do::Finish]
            }
            Stage::Waiting
            | Stage::Launched
            | Stage::Ended { .. }
            | Stage::Killing { .. }
            | Stage::Finished => Vec::new(),
        }
    }

    fn end(&mut self, reason: Reason, now: Instant) -> Vec<Do> {
        match self.stage {
            Stage::Waiting => {
                self.reason = Some(reason);
                self.stage = Stage::Finished;
                vec![Do::Finish]
            }
            Stage::Launched => {
                self.reason = Some(reason);
                self.stage = Stage::Killing { give_up_at: now + UNKILLABLE };
                vec![Do::Kill]
            }
            // Its own end came first: what it achieved is the answer.
            Stage::Ended { .. } | Stage::Killing { .. } | Stage::Sweeping { .. } | Stage::Finished => {
                Vec::new()
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Do> {
        match self.stage {
            Stage::Waiting | Stage::Launched if now >= self.deadline => self.end(Reason::Timeout, now),
            Stage::Ended { kill_at } if now >= kill_at => {
                self.stage = Stage::Killing { give_up_at: now + UNKILLABLE };
                vec![Do::Kill]
            }
            Stage::Killing { give_up_at } | Stage::Sweeping { give_up_at } if now >= give_up_at => {
                self.unkillable = true;
                self.stage = Stage::Finished;
                vec![Do::Quarantine, Do::Finish]
            }
            Stage::Waiting
            | Stage::Launched
            | Stage::Ended { .. }
            | Stage::Killing { .. }
            | Stage::Sweeping { .. }
            | Stage::Finished => Vec::new(),
        }
    }

    /// The answer, once finished.
    pub(crate) fn conclusion(&self) -> Conclusion {
        let mut notes = Vec::new();
        if self.unkillable {
            notes.push("a process of this call could not be ended; its zygote is used no more".to_owned());
        }
        if self.reason == Some(Reason::Stopped) {
            notes.push("ended by an emergency stop".to_owned());
        }
        let (exit_code, signal, usage) = match self.ending {
            Some(ending) => {
                match ending.left_behind {
                    0 => {}
                    1 => notes.push("1 background process was stopped".to_owned()),
                    many => notes.push(format!("{many} background processes were stopped")),
                }
                (ending.exit_code, ending.signal, Some(ending.usage))
            }
            None => (None, None, None),
        };
        let outcome = match (self.reason, &self.refused, self.ending) {
            (Some(Reason::Timeout), _, _) => Outcome::TimedOut,
            (Some(Reason::Cancelled | Reason::Stopped), _, _) => Outcome::Cancelled,
            (None, Some(refused), _) => refused.clone(),
            (None, None, Some(ending)) if ending.signal.is_some() => {
                Outcome::Killed { limit: self.limit(&ending) }
            }
            (None, None, Some(_)) => Outcome::Completed,
            (None, None, None) => {
                Outcome::Internal { message: "the init of the call ended before its program".to_owned() }
            }
        };
        // After our own kill the wait status says nothing about the program.
        let (exit_code, signal) = if self.reason.is_some() { (None, None) } else { (exit_code, signal) };
        let limits = self.ending.map(|ending| ending.limits).unwrap_or_default();
        Conclusion { outcome, exit_code, signal, usage, notes, refusals: self.refusals.clone(), limits }
    }

    fn limit(&self, ending: &Ending) -> Option<String> {
        let cpu_spent = ending.usage.cpu_ms >= u64::from(self.limits.cpu_seconds).saturating_mul(1000);
        match ending.signal {
            Some(SIGXCPU) => Some("cpu".to_owned()),
            Some(SIGXFSZ) => Some("file_size".to_owned()),
            // The kernel's choice when the memory of a cgroup is used up; its count tells it from others' kills.
            Some(SIGKILL) if ending.limits.out_of_memory > 0 => Some("memory".to_owned()),
            // The hard limit one second above the soft one kills without a word.
            Some(SIGKILL) if cpu_spent => Some("cpu".to_owned()),
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WallFault;

    fn life(private: PrivateProcesses) -> (Life, Instant) {
        let now = Instant::now();
        (Life::new(now + Duration::from_secs(10), private, Limits::default()), now)
    }

    fn ended(exit_code: Option<i32>, signal: Option<i32>) -> Event {
        Event::Said(FromInit::Ended(Ending {
            exit_code,
            signal,
            usage: Usage { cpu_ms: 1, max_rss_kb: 1 },
            left_behind: 2,
            limits: LimitEvents::default(),
        }))
    }

    #[test]
    fn program_that_exits_is_completed_with_its_status() {
        let (mut life, now) = life(PrivateProcesses::Yes);
        assert_eq!(life.on(Event::Launched, now), []);
        assert_eq!(life.on(Event::Said(FromInit::Running), now), []);
        assert_eq!(life.on(ended(Some(3), None), now), []);
        assert_eq!(life.on(Event::Gone, now), [Do::Finish]);
        let end = life.conclusion();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Completed, Some(3)));
        assert_eq!(end.notes, ["2 background processes were stopped"]);
    }

    #[test]
    fn kill_for_lack_of_memory_names_the_limit_and_other_kills_do_not() {
        let ended = |signal, out_of_memory| {
            let (mut life, now) = life(PrivateProcesses::Yes);
            let _ = life.on(Event::Launched, now);
            let limits = LimitEvents { out_of_memory, processes: 0 };
            let usage = Usage { cpu_ms: 1, max_rss_kb: 1 };
            let ending = Ending { exit_code: None, signal: Some(signal), usage, left_behind: 0, limits };
            let _ = life.on(Event::Said(FromInit::Ended(ending)), now);
            let _ = life.on(Event::Gone, now);
            life.conclusion()
        };
        assert_eq!(ended(9, 1).outcome, Outcome::Killed { limit: Some("memory".into()) });
        assert_eq!(ended(9, 0).outcome, Outcome::Killed { limit: None });
        // A child of it was ended for its memory; it crashed by itself.
        let crashed = ended(11, 1);
        assert_eq!(crashed.outcome, Outcome::Killed { limit: None });
        assert_eq!(crashed.limits.out_of_memory, 1, "told all the same");
    }

    #[test]
    fn deadline_kills_and_then_gives_up_on_what_cannot_be_killed() {
        let (mut life, now) = life(PrivateProcesses::Yes);
        let _ = life.on(Event::Launched, now);
        assert_eq!(life.on(Event::Tick, now), []);
        let due = life.due().unwrap();
        assert_eq!(life.on(Event::Tick, due), [Do::Kill]);
        assert_eq!(life.on(Event::Tick, due), []);
        assert_eq!(life.on(Event::Tick, life.due().unwrap()), [Do::Quarantine, Do::Finish]);
        assert!(life.conclusion().notes.iter().any(|note| note.contains("could not be ended")));
        assert_eq!(life.conclusion().outcome, Outcome::TimedOut);
    }

    #[test]
    fn wait_status_after_our_kill_is_not_the_outcome() {
        let (mut life, now) = life(PrivateProcesses::Yes);
        let _ = life.on(Event::Launched, now);
        assert_eq!(life.on(Event::End(Reason::Cancelled), now), [Do::Kill]);
        let _ = life.on(ended(None, Some(9)), now);
        assert_eq!(life.on(Event::Gone, now), [Do::Finish]);
        let end = life.conclusion();
        assert_eq!((end.outcome, end.exit_code, end.signal), (Outcome::Cancelled, None, None));
    }

    #[test]
    fn call_that_waits_is_cancelled_without_a_kill() {
        let (mut life, now) = life(PrivateProcesses::Yes);
        assert_eq!(life.on(Event::End(Reason::Stopped), now), [Do::Finish]);
        assert_eq!(life.conclusion().outcome, Outcome::Cancelled);
    }

    #[test]
    fn lingering_init_is_killed_after_its_grace_and_stays_completed() {
        let (mut life, now) = life(PrivateProcesses::Yes);
        let _ = life.on(Event::Launched, now);
        let _ = life.on(ended(Some(0), None), now);
        assert_eq!(life.on(Event::End(Reason::Timeout), now), []);
        assert_eq!(life.on(Event::Tick, life.due().unwrap()), [Do::Kill]);
        assert_eq!(life.on(Event::Gone, now), [Do::Finish]);
        assert_eq!(life.conclusion().outcome, Outcome::Completed);
    }

    #[test]
    fn without_a_pid_namespace_the_end_waits_for_the_sweep() {
        let (mut life, now) = life(PrivateProcesses::No);
        let _ = life.on(Event::Launched, now);
        let _ = life.on(ended(Some(0), None), now);
        assert_eq!(life.on(Event::Gone, now), [Do::Sweep]);
        assert_ne!(life.stage, Stage::Finished);
        assert_eq!(life.on(Event::Swept, now), [Do::Finish]);
    }

    #[test]
    fn init_that_dies_without_a_word_is_our_failure() {
        let (mut life, now) = life(PrivateProcesses::Yes);
        let _ = life.on(Event::Launched, now);
        assert_eq!(life.on(Event::Gone, now), [Do::Finish]);
        assert!(matches!(life.conclusion().outcome, Outcome::Internal { .. }));
    }

    #[test]
    fn missing_program_is_failed_and_broken_wall_is_internal() {
        for (exec, name) in [(true, "failed"), (false, "internal")] {
            let (mut life, now) = life(PrivateProcesses::Yes);
            let _ = life.on(Event::Launched, now);
            let fault = WallFault { step: "execute".into(), cause: "ENOENT".into() };
            let _ = life.on(Event::Said(FromInit::NotStarted { fault, exec }), now);
            let _ = life.on(Event::Gone, now);
            assert_eq!(life.conclusion().outcome.name(), name);
        }
    }

    #[test]
    fn signals_of_limits_are_named() {
        for (signal, limit) in [(24, Some("cpu")), (25, Some("file_size")), (11, None), (9, None)] {
            let (mut life, now) = life(PrivateProcesses::Yes);
            let _ = life.on(Event::Launched, now);
            let _ = life.on(ended(None, Some(signal)), now);
            let _ = life.on(Event::Gone, now);
            assert_eq!(life.conclusion().outcome, Outcome::Killed { limit: limit.map(String::from) });
        }
    }
}
