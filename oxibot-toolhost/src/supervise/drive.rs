//! Driving calls: from the queue to an init, and what inits, pipes and workers say to whoever waits for it.

use std::time::Instant;

use nix::poll::PollFlags;
use oxibot_proto::message::{Level, OutputChunk, Proven, Started, Stream, ToMain};

use super::audit::SelfAttack;
use super::broker::Broker;
use super::calls::{Body, Call, millis};
use super::conclude::{files_finished, web_finished, web_judgement};
use super::desk::{Answer, Owner};
use super::explain;
use super::life::{Do, Event};
use super::place::{Happened, Place, Spare};
use super::process::{Guard, Process, Streams};
use super::transfer::Steps;
use super::web::{self, Answered, Asker};
use crate::wire::{FilesResult, FilesWork, WallFault};

/// Calls that run at once, of all connections.
const MAX_RUNNING: usize = 64;
/// Calls that run at once in one workspace, so that one conversation cannot starve the others.
const MAX_RUNNING_HERE: usize = 16;

impl Broker {
    /// Starts what waits as far as there are slots, oldest first; a full workspace does not hold up another.
    pub(crate) fn start_queued(&mut self, now: Instant) {
        let of_the_web = |call: &Call| matches!(call.body, Body::Web(_));
        let on_the_web =
            self.calls.values().filter(|call| call.started.is_some() && of_the_web(call)).count();
        let waiting: Vec<u64> =
            self.queue.iter().copied().filter(|key| self.calls.get(key).is_some_and(of_the_web)).collect();
        for key in waiting.into_iter().take(web::MAX_RUNNING.saturating_sub(on_the_web)) {
            self.queue.retain(|queued| *queued != key);
            self.start(key, now);
        }
        let mut running =
            self.calls.values().filter(|call| call.started.is_some() && !of_the_web(call)).count();
        let mut position = 0;
        while running < MAX_RUNNING
            && let Some(key) = self.queue.get(position).copied()
        {
            let Some(call) = self.calls.get(&key) else {
                self.queue.remove(position);
                continue;
            };
            if of_the_web(call) {
                position += 1;
                continue;
            }
            let place = call.place;
            let here = self
                .calls
                .values()
                .filter(|call| call.place == place && call.started.is_some() && !of_the_web(call))
                .count();
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
        let mut unasked = None;
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Some(place) = self.places.get_mut(call.place) else { return };
        call.started = Some(now);
        call.last_progress = now;
        place.used(now);
        match &mut call.body {
            Body::Planned(plan) => {
                let redactor = &self.fixed.redactor;
                let deadline = now + call.timeout;
                let process = plan.process(&call.subject.call_id, deadline, place.level(), redactor, now);
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
            Body::Web(work) => {
                if let Some(work) = work.take() {
                    unasked = self.web.ask(work_number, work, Asker::Call(key));
                }
            }
        }
        let started = ToMain::Started(Started {
            call: call.number,
            call_id: call.subject.call_id.clone(),
            deadline_ms: millis(call.timeout),
        });
        let link = call.link;
        if call.attack.is_none()
            && self.links.get_mut(&link).is_some_and(|link| link.send_at_leisure(&started, now).is_err())
        {
            // As any other message that cannot be sent.
            self.send(link, &started, now);
        }
        self.web_answers(unasked.into_iter().collect(), now);
    }

    /// Answers of the fetch worker go to whoever waits for them.
    pub(crate) fn web_answers(&mut self, answers: Vec<Answered>, now: Instant) {
        for (asker, result) in answers {
            match asker {
                Asker::Call(key) => {
                    let finished = web_finished(result, &self.fixed.redactor);
                    self.conclude(key, finished, now);
                }
                Asker::DryRun(link, call) => {
                    self.send(link, &ToMain::Judgement(web_judgement(call, result)), now);
                }
            }
        }
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
                self.beware(key, index, now);
                let null = &self.fixed.null;
                let process = self.calls.get_mut(&key).and_then(Call::process_mut);
                let todo = process.map(|process| process.launch(init, null, now)).unwrap_or_default();
                self.carry_out(key, todo, now);
            }
            let Some(place) = self.places.get_mut(index) else { continue };
            let (require, battery) = (self.fixed.require, self.fixed.battery.as_ref());
            let before = place.proven();
            let running = self
                .calls
                .values()
                .any(|call| call.place == index && call.process().is_some_and(Process::runs));
            let spare = if running { Spare::One } else { Spare::All };
            if let Err(fault) = place.top_up((left, spare), &mut self.nursery, require, battery, now) {
                self.no_zygote(index, &fault, now);
            }
            self.proven_meanwhile(index, before, now);
            let Some(place) = self.places.get_mut(index) else { continue };
            let mut answers = place.tools.pump();
            answers.extend(place.bulk.pump());
            self.answers(index, answers, now);
        }
    }

    /// Tells a call about to be launched which sockets are not its own. Without namespaces it can make none to connect.
    fn beware(&mut self, key: u64, index: usize, now: Instant) {
        let Some(place) = self.places.get(index).filter(|place| place.level() == Level::Full) else { return };
        let accompanied = self.calls.iter().any(|(other, call)| {
            *other != key
                && call.process().is_some_and(Process::runs)
                && self.places.get(call.place).is_some_and(|other| place.others.shares(&other.others))
        });
        let listed = self.listing.now();
        let (sockets, search) = place.others.ask(listed.as_deref(), accompanied, now);
        if let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) {
            process.beware(sockets, search);
        }
    }

    /// A profile that is used for the first time was attacked before: that is recorded.
    fn proven_meanwhile(&mut self, index: usize, before: Option<Proven>, now: Instant) {
        let Some(place) = self.places.get(index).filter(|place| place.proven() != before) else { return };
        let level = place.level();
        let detail = place.workspace.path.to_string_lossy().into_owned();
        let attack = SelfAttack { result: "held", level, detail: Some(&detail) };
        if let Err(error) = self.audit.self_attack(attack) {
            self.log.line(&error.to_string(), now);
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
                    let mut finished = files_finished(result, &self.fixed.redactor);
                    if let Some(call) = self.calls.get(&key) {
                        let what = if matches!(call.subject.tool.as_str(), "write_file" | "edit_file") {
                            "write"
                        } else {
                            "read"
                        };
                        finished.violations = explain::denied(&finished.outcome, what, &call.subject.text);
                    }
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
                            (Guard::Recording | Guard::Armed | Guard::Comparing, _) => Guard::Compared(vec![
                                "the git configuration could not be guarded during this call".to_owned(),
                            ]),
                            (Guard::Compared(notes), _) => Guard::Compared(notes.clone()),
                        };
                    } else if result == Some(FilesResult::Done) {
                        // Recorded for a call that is over already: a record left open would be compared with what
                        // the user does later.
                        let number = self.key();
                        if let Some(place) = self.places.get_mut(index) {
                            place.bulk.put(number, FilesWork::GitRestore, Owner::Nobody);
                        }
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
        let Some(call) = self.calls.get_mut(&key) else { return };
        let index = call.place;
        let Some(process) = call.process_mut() else { return };
        let todo = process.listen(now);
        let found = process.take_found();
        let listener = process.take_listener();
        if flags.contains(PollFlags::POLLHUP) {
            process.init_hung_up();
        }
        if let (Some(place), Some((search, found))) = (self.places.get_mut(index), found) {
            place.others.found(search, found);
        }
        if let Some(listener) = listener {
            self.open_way(key, listener);
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

    pub(crate) fn event(&mut self, key: u64, event: Event, now: Instant) {
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
                    self.close_way(key, now);
                    let Some(call) = self.calls.get_mut(&key) else { return };
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
                    let happened = self.places.get_mut(index).map(Place::quarantine);
                    self.happened(index, happened.unwrap_or_default(), now);
                }
            }
        }
    }
}
