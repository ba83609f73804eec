//! The end of calls: deadlines, cancellation, and the result that is recorded and sent.

use std::time::{Duration, Instant};

use oxibot_proto::message::{
    CallNumber, CallResult, Denial, JudgedRule, Judgement, Level, Outcome, Output, Progress, Proven, ToMain,
    Verdict,
};

use oxibot_proto::redact::Redactor;

use super::audit::{End, Subject};
use super::broker::Broker;
use super::calls::{Body, Finished, PROGRESS, millis};
use super::collect;
use super::desk::{Owner, Withdrawn};
use super::explain;
use super::life::{Event, Reason};
use super::process::{Guard, Process, Streams};
use super::web::Asker;
use crate::wire::{FetchResult, FilesResult};

impl Broker {
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
            Body::Web(_) => {
                self.web.withdraw(Asker::Call(key));
                self.conclude(key, Finished::plain(outcome), now);
            }
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
            if matches!(call.body, Body::Files(_) | Body::Web(_)) && now >= started + call.timeout {
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
        if call.attack.is_some() {
            return;
        }
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
            let mut conclusion = process.life.conclusion();
            let mut notes = std::mem::take(&mut conclusion.notes);
            let mut seen: &[String] = &[];
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
                Guard::Compared(changes) => {
                    notes.extend(changes.iter().cloned());
                    seen = changes;
                }
                // Nothing ran before the record was made.
                Guard::Recording => {}
                Guard::Armed | Guard::Comparing => {
                    notes.push(
                        "the git configuration was not compared in time; it is put back later".to_owned(),
                    );
                }
            }
            notes.extend(process.way.notes().iter().cloned());
            let limits = self.fixed.settings.limits;
            let directory = String::from_utf8_lossy(&process.directory).into_owned();
            let (violations, view) = match process.streams {
                Streams::Together { .. } => {
                    let mut violations = explain::program(&conclusion, &limits, call.timeout, seen);
                    violations.extend(explain::denied(&conclusion.outcome, "enter", &directory));
                    violations.extend_from_slice(process.way.violations());
                    violations.truncate(explain::MAX_VIOLATIONS);
                    let place = self.places.get(place);
                    (violations, place.and_then(|place| place.facts(&process.directory, limits)))
                }
                // Main passes this output on and does not look at it; limits it says in its own words.
                Streams::Apart { .. } => {
                    let mut violations = explain::refusals(&conclusion.refusals);
                    violations.extend_from_slice(process.way.violations());
                    (violations, None)
                }
            };
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
                violations,
                usage: conclusion.usage,
                view,
                approval: None,
            };
            self.conclude(key, finished, now);
        }
    }

    /// Records and sends the result.
    pub(crate) fn conclude(&mut self, key: u64, finished: Finished, now: Instant) {
        let Some(call) = self.calls.remove(&key) else { return };
        self.queue.retain(|queued| *queued != key);
        if let Some(place) = self.places.get_mut(call.place) {
            place.used(now);
        }
        if let Some(attack) = call.attack {
            return self.attacked(call.link, attack, &finished, now);
        }
        let wall = self.wall_of(call.place);
        let duration = now.saturating_duration_since(call.admitted);
        self.deliver(call.link, call.number, &call.subject, finished, (wall, duration), now);
    }

    /// What holds for calls of a workspace, and how that was proven.
    pub(crate) fn wall_of(&self, place: usize) -> (Level, Option<Proven>) {
        let wall = (self.fixed.wall.level, self.fixed.wall.proven);
        self.places.get(place).map_or(wall, |place| (place.level(), place.proven()))
    }

    /// Records how a call ended and sends it to whoever asked.
    pub(crate) fn deliver(
        &mut self,
        link: u64,
        number: CallNumber,
        subject: &Subject,
        finished: Finished,
        ((level, proven), duration): ((Level, Option<Proven>), Duration),
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
            usage: finished.usage,
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
            violations: finished.violations,
            notes: finished.notes,
            level,
            proven,
            duration_ms: millis(duration),
            usage: finished.usage,
            view: finished.view,
            approval: finished.approval,
        };
        self.send(link, &ToMain::CallResult(Box::new(result)), now);
    }
}

/// The result of a web tool. What the worker says can be no other outcome than these.
pub(crate) fn web_finished(result: FetchResult, redactor: &Redactor) -> Finished {
    match result {
        FetchResult::Text { text, total_bytes } => {
            let output = read(&text, total_bytes, redactor);
            Finished { output, ..Finished::plain(Outcome::Completed) }
        }
        FetchResult::Denied(denial) => Finished::plain(Outcome::Denied(denial)),
        FetchResult::Failed(message) => {
            Finished::plain(Outcome::Failed { message: redactor.text(&message).into_owned() })
        }
        FetchResult::Allowed | FetchResult::Lost(_) => {
            let message = "the fetch worker gave an unexpected answer".to_owned();
            Finished::plain(Outcome::Internal { message })
        }
    }
}

/// What a reading tool read, secrets taken out. What it left out itself stays left out.
fn read(text: &str, total_bytes: u64, redactor: &Redactor) -> Output {
    let head = redactor.bytes(text.as_bytes()).into_owned();
    let passed_bytes = total_bytes.saturating_sub(text.len() as u64).saturating_add(head.len() as u64);
    Output { head, tail: Vec::new(), total_bytes, passed_bytes, file: None }
}

/// What a dry run says of a URL. Without an answer nothing is allowed.
pub(crate) fn web_judgement(call: CallNumber, result: FetchResult) -> Judgement {
    let rule =
        |id: &str, reason: String, alternative: String| JudgedRule { id: id.to_owned(), reason, alternative };
    let rules = match result {
        FetchResult::Allowed => Vec::new(),
        FetchResult::Denied(Denial { rule: id, reason, hint }) => vec![rule(&id, reason, hint)],
        FetchResult::Failed(message) | FetchResult::Lost(message) => {
            vec![rule("web.unavailable", message, "see `oxibot doctor`".to_owned())]
        }
        FetchResult::Text { .. } => {
            let reason = "the fetch worker gave an unexpected answer".to_owned();
            vec![rule("web.unavailable", reason, "see `oxibot doctor`".to_owned())]
        }
    };
    let verdict = if rules.is_empty() { Verdict::Allow } else { Verdict::Block };
    Judgement { call, verdict, rules, commands: Vec::new() }
}

/// What a files worker's answer means for the call.
pub(crate) fn files_finished(result: Option<FilesResult>, redactor: &Redactor) -> Finished {
    let internal = |message: &str| Finished::plain(Outcome::Internal { message: message.to_owned() });
    match result {
        Some(FilesResult::Text { text, total_bytes }) => {
            let output = read(&text, total_bytes, redactor);
            Finished { output, ..Finished::plain(Outcome::Completed) }
        }
        Some(FilesResult::Done) => Finished::plain(Outcome::Completed),
        Some(FilesResult::Denied(denial)) => Finished::plain(Outcome::Denied(denial)),
        Some(FilesResult::Failed(message)) => {
            Finished::plain(Outcome::Failed { message: redactor.text(&message).into_owned() })
        }
        Some(FilesResult::Bytes(_) | FilesResult::Size(_) | FilesResult::Notes(_)) => {
            internal("the files worker gave an unexpected answer")
        }
        None => internal("the files worker ended"),
    }
}
