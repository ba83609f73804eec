//! What a call is, from its admission to its result. How it gets there is in `drive` and `conclude`.

use std::time::{Duration, Instant};

use oxibot_proto::message::{CallNumber, Level, Origin, Outcome, Output, PendingApproval, Violation};
use oxibot_proto::redact::Redactor;

use oxibot_proto::view::View;

use super::audit::Subject;
use super::collect::{self, Collector};
use super::life::{Life, PrivateProcesses};
use super::process::{Guard, Input, Process, Streams, TooMuch};
use super::spill::Spill;
use crate::wall::attack::Attack;
use crate::wire::{FetchWork, FilesWork, Job};

/// How often a running call says that it is alive.
pub(crate) const PROGRESS: Duration = Duration::from_secs(1);

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) link: u64,
    pub(crate) number: CallNumber,
    /// The attack it is, if it is one: its end is told otherwise.
    pub(crate) attack: Option<&'static Attack>,
    pub(crate) origin: Origin,
    pub(crate) place: usize,
    pub(crate) subject: Subject,
    pub(crate) admitted: Instant,
    /// When it left the queue.
    pub(crate) started: Option<Instant>,
    pub(crate) timeout: Duration,
    pub(crate) body: Body,
    pub(crate) last_progress: Instant,
}

/// What runs.
#[derive(Debug)]
pub(crate) enum Body {
    /// A program that has not left the queue.
    Planned(Box<Plan>),
    /// A program.
    Process(Box<Process>),
    /// A file tool.
    Files(Option<FilesWork>),
    /// A web tool.
    Web(Option<FetchWork>),
}

/// A program to be, without a deadline yet: that counts from the moment the call leaves the queue.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) job: Job,
    pub(crate) shape: Shape,
    /// What came for it while it waited.
    input: Input,
}

/// What becomes of the output of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Kept in part, for a result.
    Tool,
    /// Passed on unchanged.
    Run,
    /// An attacker's, which prints nothing anybody reads, and touches no repository.
    Attack,
}

impl Plan {
    pub(crate) fn new(job: Job, shape: Shape) -> Self {
        Self { job, shape, input: Input::default() }
    }

    /// Keeps input for a run that waits.
    pub(crate) fn push_input(&mut self, data: Vec<u8>) -> Result<(), TooMuch> {
        match self.shape {
            Shape::Tool | Shape::Attack => Err(TooMuch),
            Shape::Run => self.input.push(data),
        }
    }

    /// The process, once the deadline is known.
    pub(crate) fn process(
        &mut self,
        call_id: &str,
        deadline: Instant,
        level: Level,
        redactor: &Redactor,
        now: Instant,
    ) -> Process {
        let private = if level == Level::Full { PrivateProcesses::Yes } else { PrivateProcesses::No };
        let life = Life::new(deadline, private, self.job.limits);
        let streams = match self.shape {
            Shape::Tool | Shape::Attack => {
                let spill = Spill::new(call_id.to_owned(), now);
                let redaction = Box::new(redactor.stream());
                Streams::Together { pipe: None, redaction, collector: Collector::default(), spill }
            }
            Shape::Run => {
                let input = std::mem::take(&mut self.input);
                Streams::Apart { out: None, err: None, input, unanswered: 0, total: 0 }
            }
        };
        let guard = match self.shape {
            Shape::Tool | Shape::Run => Guard::Recording,
            Shape::Attack => Guard::Compared(Vec::new()),
        };
        Process::new(self.job.clone(), life, streams, guard)
    }
}

impl Call {
    pub(crate) fn process(&self) -> Option<&Process> {
        match &self.body {
            Body::Process(process) => Some(process),
            Body::Planned(_) | Body::Files(_) | Body::Web(_) => None,
        }
    }

    pub(crate) fn process_mut(&mut self) -> Option<&mut Process> {
        match &mut self.body {
            Body::Process(process) => Some(process),
            Body::Planned(_) | Body::Files(_) | Body::Web(_) => None,
        }
    }

    /// When something about it is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let started = self.started?;
        let own = match &self.body {
            Body::Planned(_) => None,
            Body::Process(process) => {
                let spill = match &process.streams {
                    Streams::Together { spill, .. } => spill.due(),
                    Streams::Apart { .. } => None,
                };
                [process.life.due(), process.finish_by(), spill].into_iter().flatten().min()
            }
            Body::Files(_) | Body::Web(_) => Some(started + self.timeout),
        };
        let progress = self.last_progress + PROGRESS;
        Some(own.map_or(progress, |own| own.min(progress)))
    }
}

/// How a call ended, before it is dressed as a result.
pub(crate) struct Finished {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) output: Output,
    pub(crate) notes: Vec<String>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) usage: Option<oxibot_proto::message::Usage>,
    pub(crate) view: Option<Box<View>>,
    pub(crate) approval: Option<Box<PendingApproval>>,
}

impl Finished {
    /// Nothing ran.
    pub(crate) fn plain(outcome: Outcome) -> Self {
        let output = collect::nothing();
        let (notes, violations) = (Vec::new(), Vec::new());
        Self {
            outcome,
            exit_code: None,
            signal: None,
            output,
            notes,
            violations,
            usage: None,
            view: None,
            approval: None,
        }
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
