//! Driving calls from the queue to their result. Which call may run was decided in `admit`.

use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use oxibot_proto::message::{
    CallNumber, CallResult, Denial, Level, Origin, Outcome, Output, OutputChunk, Progress, Started, Stream,
    ToMain,
};

use super::audit::{End, Subject};
use super::broker::Broker;
use super::collect::{self, Collector};
use super::desk::{Answer, Owner, Withdrawn};
use super::life::{Do, Event, Life, PrivateProcesses, Reason};
use super::place::Happened;
use super::process::{Guard, Input, Process, Streams, TooMuch};
use super::spill::Spill;
use super::transfer::Steps;
use crate::wire::{FilesResult, FilesWork, Job, WallFault};

/// Calls that run at once, of all connections.
const MAX_RUNNING: usize = 64;
/// Calls that run at once in one workspace, so that one conversation cannot starve the others.
const MAX_RUNNING_HERE: usize = 16;
/// How often a running call says that it is alive.
const PROGRESS: Duration = Duration::from_secs(1);

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) link: u64,
    pub(crate) number: CallNumber,
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
}

impl Plan {
    pub(crate) fn new(job: Job, shape: Shape) -> Self {
        Self { job, shape, input: Input::default() }
    }

    /// Keeps input for a run that waits.
    pub(crate) fn push_input(&mut self, data: Vec<u8>) -> Result<(), TooMuch> {
        match self.shape {
            Shape::Tool => Err(TooMuch),
            Shape::Run => self.input.push(data),
        }
    }

    fn process(&mut self, call_id: &str, deadline: Instant, level: Level, now: Instant) -> Process {
        let private = if level == Level::Full { PrivateProcesses::Yes } else { PrivateProcesses::No };
        let life = Life::new(deadline, private, self.job.limits);
        let (streams, guard) = match self.shape {
            Shape::Tool => {
                let spill = Spill::new(call_id.to_owned(), now);
                (Streams::Together { pipe: None, collector: Collector::default(), spill }, Guard::Recording)
            }
            Shape::Run => {
                let input = std::mem::take(&mut self.input);
                (Streams::Apart { out: None, err: None, input, unanswered: 0, total: 0 }, Guard::Off)
            }
        };
        Process::new(self.job.clone(), life, streams, guard)
    }
}

impl Call {
    pub(crate) fn process(&self) -> Option<&Process> {
        match &self.body {
            Body::Process(process) => Some(process),
            Body::Planned(_) | Body::Files(_) => None,
        }
    }

    pub(crate) fn process_mut(&mut self) -> Option<&mut Process> {
        match &mut self.body {
            Body::Process(process) => Some(process),
            Body::Planned(_) | Body::Files(_) => None,
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
            Body::Files(_) => Some(started + self.timeout),
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
    pub(crate) usage: Option<oxibot_proto::message::Usage>,
}

impl Finished {
    /// Nothing ran.
    pub(crate) fn plain(outcome: Outcome) -> Self {
        let output = collect::nothing();
        Self { outcome, exit_code: None, signal: None, output, notes: Vec::new(), usage: None }
    }
}

impl Broker {
    /// Starts what waits as far as there are slots, oldest first; a full workspace does not hold up another.
    pub(crate) fn start_queued(&mut self, now: Instant) {
        let mut running = self.calls.values().filter(|call| call.started.is_some()).count();
        let mut position = 0;
        while running < MAX_RUNNING
            && let Some(key) = self.queue.get(position).copied()
        {
            let Some(place) = self.calls.get(&key).map(|call| call.place) else {
                self.queue.remove(position);
                continue;
            };
            let here =
                self.calls.values().filter(|call| call.place == place && call.started.is_some()).count();
            if here >= MAX_RUNNING_HERE {
                position += 1;
                continue;
            }
            self.queue.remove(position);
            self.start(key, now);
            running += 1;
        }
    }

    fn start(&mut self, key: u64, now: Instant) {
        let work_number = self.key();
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Some(place) = self.places.get_mut(call.place) else { return };
        call.started = Some(now);
        call.last_progress = now;
        place.used(now);
        match &mut call.body {
            Body::Planned(plan) => {
                let process = plan.process(&call.subject.call_id, now + call.timeout, place.level(), now);
                if process.guard == Guard::Recording {
                    place.bulk.put(work_number, FilesWork::GitCheckpoint, Owner::Git(key));
                }
                call.body = Body::Process(Box::new(process));
            }
            Body::Process(_) => {}
            Body::Files(work) => {
                if let Some(work) = work.take() {
                    place.tools.put(work_number, work, Owner::Call(key));
                }
            }
        }
        let started = ToMain::Started(Started {
            call: call.number,
            call_id: call.subject.call_id.clone(),
            deadline_ms: millis(call.timeout),
        });
        let link = call.link;
        self.send(link, &started, now);
    }

    /// Gives inits to waiting programs, asks for more, and moves spills and worker queues on.
    pub(crate) fn serve_places(&mut self, now: Instant) {
        self.feed_spills();
        for index in 0..self.places.len() {
            let waiting: Vec<u64> = self
                .calls
                .iter()
                .filter(|(_, call)| {
                    call.place == index && call.process().is_some_and(Process::waits_for_init)
                })
                .map(|(key, _)| *key)
                .collect();
            let mut left = waiting.len();
            for key in waiting {
                let Some(place) = self.places.get_mut(index) else { break };
                let Some(init) = place.ready.pop_front() else { break };
                left -= 1;
                let null = &self.fixed.null;
                let process = self.calls.get_mut(&key).and_then(Call::process_mut);
                let todo = process.map(|process| process.launch(init, null, now)).unwrap_or_default();
                self.carry_out(key, todo, now);
            }
            let Some(place) = self.places.get_mut(index) else { continue };
            if let Err(fault) = place.top_up(left, &mut self.nursery, self.fixed.require, now) {
                self.no_zygote(index, &fault, now);
            }
            let Some(place) = self.places.get_mut(index) else { continue };
            let mut answers = place.tools.pump();
            answers.extend(place.bulk.pump());
            self.answers(index, answers, now);
        }
    }

    /// Nothing can be confined here now: everything that needs it fails.
    fn no_zygote(&mut self, index: usize, fault: &WallFault, now: Instant) {
        self.log.line(&fault.to_string(), now);
        let Some(place) = self.places.get_mut(index) else { return };
        let mut answers = place.tools.fail_queue();
        answers.extend(place.bulk.fail_queue());
        let happened = place.gone();
        self.answers(index, answers, now);
        self.happened(index, happened, now);
        let waiting: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.place == index && call.process().is_some_and(|p| p.life.waits()))
            .map(|(key, _)| *key)
            .collect();
        for key in waiting {
            self.event(key, Event::Broken(fault.to_string()), now);
        }
    }

    /// What a zygote or its workers brought about.
    pub(crate) fn happened(&mut self, index: usize, happened: Vec<Happened>, now: Instant) {
        for one in happened {
            match one {
                Happened::Swept(key) => self.event(key, Event::Swept, now),
                Happened::NoInit(fault) => {
                    self.log.line(&fault.to_string(), now);
                    let waiting = self
                        .calls
                        .iter()
                        .find(|(_, c)| c.place == index && c.process().is_some_and(Process::waits_for_init))
                        .map(|(key, _)| *key);
                    if let Some(key) = waiting {
                        self.event(key, Event::Broken(fault.to_string()), now);
                    }
                }
                Happened::Answers(answers) => self.answers(index, answers, now),
            }
        }
    }

    fn feed_spills(&mut self) {
        let mut work = Vec::new();
        for (key, call) in &mut self.calls {
            let place = call.place;
            let Some(process) = call.process_mut() else { continue };
            if let Streams::Together { spill, .. } = &mut process.streams
                && let Some(next) = spill.next()
            {
                work.push((place, Owner::Spill(*key), next));
            }
            if process.guard == Guard::Armed && process.finish_by().is_some() {
                process.guard = Guard::Comparing;
                work.push((place, Owner::Git(*key), FilesWork::GitRestore));
            }
        }
        for (place, owner, next) in work {
            let number = self.key();
            if let Some(place) = self.places.get_mut(place) {
                place.bulk.put(number, next, owner);
            }
        }
    }

    /// Answers of files workers go to whoever waits for them.
    pub(crate) fn answers(&mut self, index: usize, answers: Vec<Answer>, now: Instant) {
        for (owner, result) in answers {
            match owner {
                Owner::Nobody => {}
                Owner::Call(key) => {
                    let finished = files_finished(result);
                    self.conclude(key, finished, now);
                }
                Owner::Spill(key) => {
                    if let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut)
                        && let Streams::Together { spill, .. } = &mut process.streams
                    {
                        spill.answered(result.as_ref(), now);
                    }
                }
                Owner::Git(key) => {
                    if let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) {
                        process.guard = match (&process.guard, result) {
                            (Guard::Recording, Some(FilesResult::Done)) => Guard::Armed,
                            (Guard::Comparing, Some(FilesResult::Notes(notes))) => Guard::Compared(notes),
                            (Guard::Off | Guard::Recording | Guard::Armed | Guard::Comparing, _) => {
                                Guard::Compared(vec![
                                    "the git configuration could not be guarded during this call".to_owned(),
                                ])
                            }
                            (Guard::Compared(notes), _) => Guard::Compared(notes.clone()),
                        };
                    }
                }
                Owner::Transfer(key) => {
                    if let Some((_, _, transfer)) = self.transfers.get_mut(&key) {
                        let steps = transfer.answered(result, now);
                        self.transfer_steps(key, steps, now);
                    } else if let Some(place) = self.places.get_mut(index) {
                        place.used(now);
                    }
                }
            }
        }
    }

    /// Carries out what a transfer decided.
    pub(crate) fn transfer_steps(&mut self, key: u64, steps: Steps, now: Instant) {
        let Some((link, place, _)) = self.transfers.get(&key).map(|(l, p, t)| (*l, *p, t)) else { return };
        let owner = if steps.over { Owner::Nobody } else { Owner::Transfer(key) };
        for work in steps.work {
            let number = self.key();
            if let Some(place) = self.places.get_mut(place) {
                place.bulk.put(number, work, owner);
            }
        }
        if steps.over {
            self.transfers.remove(&key);
        }
        for message in steps.messages {
            self.send(link, &message, now);
        }
    }

    pub(crate) fn init_talks(&mut self, key: u64, flags: PollFlags, now: Instant) {
        let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) else { return };
        let todo = process.listen(now);
        if flags.contains(PollFlags::POLLHUP) {
            process.init_hung_up();
        }
        self.carry_out(key, todo, now);
    }

    pub(crate) fn init_ended(&mut self, key: u64, now: Instant) {
        let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) else { return };
        let todo = process.init_gone(now);
        self.carry_out(key, todo, now);
    }

    pub(crate) fn output_ready(&mut self, key: u64, stream: Stream, now: Instant) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let (link, number) = (call.link, call.number);
        let Body::Process(process) = &mut call.body else { return };
        if let Some(data) = process.read(stream, &mut self.buffer, now) {
            self.send(link, &ToMain::Output(OutputChunk { call: number, stream, data }), now);
        }
    }

    pub(crate) fn input_ready(&mut self, key: u64) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let (link, number) = (call.link, call.number);
        let Body::Process(process) = &mut call.body else { return };
        let started = !process.life.waits();
        let taken = match &mut process.streams {
            Streams::Together { .. } => 0,
            Streams::Apart { input, .. } => input.pump(started),
        };
        for _ in 0..taken {
            self.send(link, &ToMain::StdinTaken(number), Instant::now());
        }
    }

    fn event(&mut self, key: u64, event: Event, now: Instant) {
        let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) else { return };
        let todo = process.life.on(event, now);
        self.carry_out(key, todo, now);
    }

    fn carry_out(&mut self, key: u64, todo: Vec<Do>, now: Instant) {
        for one in todo {
            let Some(call) = self.calls.get_mut(&key) else { return };
            let index = call.place;
            match one {
                Do::Kill => {
                    if let Some(process) = call.process() {
                        process.kill();
                    }
                }
                Do::Finish => {
                    if let Body::Process(process) = &mut call.body {
                        process.finish(&mut self.buffer, now);
                    }
                }
                Do::Sweep => {
                    let asked = self.places.get_mut(index).map(|place| place.sweep(key));
                    if !matches!(asked, Some(Ok(()))) {
                        // The zygote is gone and, as the reaper of its orphans, took them along.
                        self.event(key, Event::Swept, now);
                    }
                }
                Do::Quarantine => {
                    let happened = self.places.get_mut(index).map(super::place::Place::quarantine);
                    self.happened(index, happened.unwrap_or_default(), now);
                }
            }
        }
    }

    /// Ends one call early.
    pub(crate) fn end_call(&mut self, key: u64, reason: Reason, now: Instant) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let outcome = match reason {
            Reason::Timeout => Outcome::TimedOut,
            Reason::Cancelled | Reason::Stopped => Outcome::Cancelled,
        };
        match &mut call.body {
            Body::Planned(_) => self.conclude(key, Finished::plain(outcome), now),
            Body::Process(_) => self.event(key, Event::End(reason), now),
            Body::Files(_) => {
                let index = call.place;
                if let Some(place) = self.places.get_mut(index) {
                    match place.tools.withdraw(Owner::Call(key)) {
                        Withdrawn::Queued | Withdrawn::InFlight | Withdrawn::Absent => {}
                    }
                }
                self.conclude(key, Finished::plain(outcome), now);
            }
        }
    }

    /// The connection of these calls is gone: nobody waits for them.
    pub(crate) fn abandon_calls(&mut self, link: u64, now: Instant) {
        let calls: Vec<u64> =
            self.calls.iter().filter(|(_, c)| c.link == link).map(|(key, _)| *key).collect();
        for key in calls {
            self.end_call(key, Reason::Cancelled, now);
        }
        let transfers: Vec<u64> =
            self.transfers.iter().filter(|(_, (l, _, _))| *l == link).map(|(key, _)| *key).collect();
        for key in transfers {
            self.end_transfer(key, Outcome::Cancelled, now);
        }
    }

    pub(crate) fn end_transfer(&mut self, key: u64, outcome: Outcome, now: Instant) {
        if let Some((_, _, transfer)) = self.transfers.get(&key) {
            let steps = transfer.abort(outcome);
            self.transfer_steps(key, steps, now);
        }
    }

    /// Deadlines, progress and patience.
    pub(crate) fn tick_calls(&mut self, now: Instant) {
        let keys: Vec<u64> = self.calls.keys().copied().collect();
        for key in keys {
            self.event(key, Event::Tick, now);
            let Some(call) = self.calls.get_mut(&key) else { continue };
            let Some(started) = call.started else { continue };
            let place = call.place;
            if matches!(call.body, Body::Files(_)) && now >= started + call.timeout {
                self.end_call(key, Reason::Timeout, now);
                continue;
            }
            if let Some(process) = call.process_mut()
                && let Streams::Together { spill, .. } = &mut process.streams
                && let Some(close) = spill.tick(now)
            {
                let number = self.key();
                if let Some(place) = self.places.get_mut(place) {
                    place.bulk.put(number, close, Owner::Nobody);
                }
            }
            self.progress(key, now);
        }
        let late: Vec<u64> =
            self.transfers.iter().filter(|(_, (_, _, t))| now >= t.due()).map(|(key, _)| *key).collect();
        for key in late {
            let message = "the transfer made no progress; try again".to_owned();
            self.end_transfer(key, Outcome::Failed { message }, now);
        }
    }

    fn progress(&mut self, key: u64, now: Instant) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        if now < call.last_progress + PROGRESS {
            return;
        }
        call.last_progress = now;
        let progress = Progress {
            call: call.number,
            elapsed_ms: millis(now.saturating_duration_since(call.admitted)),
            output_bytes: call.process().map_or(0, Process::total),
        };
        let link = call.link;
        if self.links.get(&link).is_some_and(|link| link.outbox.has_room()) {
            self.send(link, &ToMain::Progress(progress), now);
        }
    }

    /// Answers for every program that is over and settled.
    pub(crate) fn conclude_finished(&mut self, now: Instant) {
        let over: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.process().is_some_and(|process| process.settled(now)))
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            let Some(call) = self.calls.get_mut(&key) else { continue };
            let place = call.place;
            let Body::Process(process) = &mut call.body else { continue };
            let conclusion = process.life.conclusion();
            let mut notes = conclusion.notes;
            let mut close = None;
            let output = match &mut process.streams {
                Streams::Together { collector, spill, .. } => {
                    if !spill.settled() {
                        close = spill.abandon();
                    }
                    notes.extend(spill.note());
                    collector.output(spill.file())
                }
                Streams::Apart { total, .. } => Output { total_bytes: *total, ..collect::nothing() },
            };
            match &process.guard {
                Guard::Compared(changes) => notes.extend(changes.iter().cloned()),
                Guard::Off | Guard::Recording | Guard::Armed | Guard::Comparing => {}
            }
            if let Some(close) = close {
                let number = self.key();
                if let Some(place) = self.places.get_mut(place) {
                    place.bulk.put(number, close, Owner::Nobody);
                }
            }
            let finished = Finished {
                outcome: conclusion.outcome,
                exit_code: conclusion.exit_code,
                signal: conclusion.signal,
                output,
                notes,
                usage: conclusion.usage,
            };
            self.conclude(key, finished, now);
        }
    }

    /// Records and sends the result.
    fn conclude(&mut self, key: u64, finished: Finished, now: Instant) {
        let Some(call) = self.calls.remove(&key) else { return };
        self.queue.retain(|queued| *queued != key);
        let level = match self.places.get_mut(call.place) {
            Some(place) => {
                place.used(now);
                place.level()
            }
            None => self.fixed.wall.level,
        };
        let duration = now.saturating_duration_since(call.admitted);
        self.deliver(call.link, call.number, &call.subject, finished, (level, duration), now);
    }

    /// Records how a call ended and sends it to whoever asked.
    pub(crate) fn deliver(
        &mut self,
        link: u64,
        number: CallNumber,
        subject: &Subject,
        finished: Finished,
        (level, duration): (Level, Duration),
        now: Instant,
    ) {
        let rule = match &finished.outcome {
            Outcome::Denied(Denial { rule, .. }) | Outcome::NeedsApproval(Denial { rule, .. }) => {
                Some(rule.as_str())
            }
            Outcome::Completed
            | Outcome::Failed { .. }
            | Outcome::TimedOut
            | Outcome::Cancelled
            | Outcome::Killed { .. }
            | Outcome::Internal { .. } => None,
        };
        let end = End {
            outcome: finished.outcome.name(),
            rule,
            exit_code: finished.exit_code,
            signal: finished.signal,
            level,
            duration,
            output_bytes: finished.output.total_bytes,
        };
        if let Err(error) = self.audit.result(subject, end) {
            self.log.line(&error.to_string(), now);
        }
        let result = CallResult {
            call: number,
            call_id: subject.call_id.clone(),
            tool: subject.tool.clone(),
            outcome: finished.outcome,
            exit_code: finished.exit_code,
            signal: finished.signal,
            output: finished.output,
            violations: Vec::new(),
            notes: finished.notes,
            level,
            proven: self.fixed.wall.proven,
            duration_ms: millis(duration),
            usage: finished.usage,
        };
        self.send(link, &ToMain::CallResult(Box::new(result)), now);
    }
}

fn files_finished(result: Option<FilesResult>) -> Finished {
    let internal = |message: &str| Finished::plain(Outcome::Internal { message: message.to_owned() });
    match result {
        Some(FilesResult::Text { text, total_bytes }) => {
            let output = Output { head: text.into_bytes(), tail: Vec::new(), total_bytes, file: None };
            Finished { output, ..Finished::plain(Outcome::Completed) }
        }
        Some(FilesResult::Done) => Finished::plain(Outcome::Completed),
        Some(FilesResult::Denied(denial)) => Finished::plain(Outcome::Denied(denial)),
        Some(FilesResult::Failed(message)) => Finished::plain(Outcome::Failed { message }),
        Some(FilesResult::Bytes(_) | FilesResult::Size(_) | FilesResult::Notes(_)) => {
            internal("the files worker gave an unexpected answer")
        }
        None => internal("the files worker ended"),
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
