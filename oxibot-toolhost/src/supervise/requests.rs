//! What main may say about work that runs: input, cancellation, transfers, status, the emergency stop.
//!
//! Admission of calls is in `admit`; nothing here starts a program.

use std::time::{Duration, Instant};

use oxibot_proto::message::{
    CallNumber, GetRequest, MAX_CHUNK, Origin, Outcome, PutRequest, RunningCall, StopScope, Stopped, ToMain,
    ToolhostStatus, TransferEnd,
};

use super::admit::Asked;
use super::asking::{only_judges, stop_denial};
use super::attacks::only_attacks;
use super::audit::About;
use super::broker::Broker;
use super::calls::{Body, Call, millis};
use super::desk::Owner;
use super::life::Reason;
use super::log;
use super::place::Place;
use super::process::Streams;
use super::transfer::Transfer;
use crate::wire::FilesWork;

/// Transfers at once: each may hold a window of chunks.
const MAX_TRANSFERS: usize = 16;
/// How often a stop by file is looked for while something runs.
const STOP_LOOK: Duration = Duration::from_secs(1);

impl Broker {
    pub(crate) fn stdin(&mut self, link: u64, number: CallNumber, data: Vec<u8>, now: Instant) {
        // For a run that ended meanwhile: its sender learns that from the result, and expects nothing after it.
        let Some(key) = self.call_key(link, number) else { return };
        let too_large = data.len() > MAX_CHUNK;
        let legal = match self.calls.get_mut(&key).map(|call| &mut call.body) {
            Some(Body::Process(process)) => match &mut process.streams {
                Streams::Apart { input, .. } => !too_large && input.push(data).is_ok(),
                Streams::Together { .. } => false,
            },
            Some(Body::Planned(plan)) => !too_large && plan.push_input(data).is_ok(),
            Some(Body::Files(_) | Body::Web(_)) | None => false,
        };
        if legal {
            self.input_ready(key);
        } else {
            self.illegal(link, "Stdin", now);
        }
    }

    pub(crate) fn cancel(&mut self, link: u64, number: CallNumber, now: Instant) {
        if let Some(key) = self.call_key(link, number) {
            self.end_call(key, Reason::Cancelled, now);
        } else if let Some(key) = self.transfer_key(link, number) {
            self.end_transfer(key, Outcome::Cancelled, now);
        }
    }

    pub(crate) fn taken(&mut self, link: u64, number: CallNumber, now: Instant) {
        if let Some(key) = self.call_key(link, number) {
            if let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) {
                process.taken();
            }
        } else if let Some(key) = self.transfer_key(link, number)
            && let Some((_, _, transfer)) = self.transfers.get_mut(&key)
        {
            let steps = transfer.taken(now);
            self.transfer_steps(key, steps, now);
        }
    }

    pub(crate) fn put(&mut self, link: u64, request: PutRequest, now: Instant) {
        let PutRequest { call, workspace, path, size } = request;
        let number = self.key();
        let made = Transfer::put(call, number, path.clone(), size, now);
        self.begin_transfer(
            link,
            call,
            workspace.as_deref(),
            ("put_file", &path, Some(size)),
            number,
            made,
            now,
        );
    }

    pub(crate) fn get(&mut self, link: u64, request: GetRequest, now: Instant) {
        let GetRequest { call, workspace, path, max_size } = request;
        let number = self.key();
        let made = Ok(Transfer::get(call, number, path.clone(), max_size, now));
        self.begin_transfer(link, call, workspace.as_deref(), ("get_file", &path, None), number, made, now);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the two kinds of transfer differ only in what they pass here"
    )]
    fn begin_transfer(
        &mut self,
        link: u64,
        call: CallNumber,
        workspace: Option<&str>,
        (kind, path, size): (&str, &str, Option<u64>),
        number: u64,
        made: Result<(Transfer, FilesWork), Outcome>,
        now: Instant,
    ) {
        let origin = Origin { who: String::new(), channel: String::new(), session: String::new() };
        let asked = Asked {
            number: call,
            tool: kind.to_owned(),
            origin,
            workspace: workspace.map(str::to_owned),
            about: About { text: path.to_owned(), size },
        };
        let admitted = self.admit_transfer(&asked, now).and_then(|place| made.map(|made| (place, made)));
        match admitted {
            Ok((place, (transfer, work))) => {
                let key = self.key();
                self.transfers.insert(key, (link, place, transfer));
                if let Some(place) = self.places.get_mut(place) {
                    place.bulk.put(number, work, Owner::Transfer(key));
                    place.used(now);
                }
            }
            Err(outcome) => {
                self.send(link, &ToMain::TransferEnd(TransferEnd { call, outcome, size: 0 }), now);
            }
        }
    }

    fn admit_transfer(&mut self, asked: &Asked, now: Instant) -> Result<usize, Outcome> {
        let place = self.place_for(asked.workspace.as_deref(), now).map_err(Outcome::Denied)?;
        if let Some(stop) = self.stop.cause() {
            return Err(Outcome::Denied(stop_denial(stop)));
        }
        if self.fixed.only_judges {
            return Err(Outcome::Denied(only_judges()));
        }
        if self.range.is_some() {
            return Err(Outcome::Denied(only_attacks()));
        }
        if self.transfers.len() >= MAX_TRANSFERS {
            let message = format!("{MAX_TRANSFERS} transfers are running; try again when one has ended");
            return Err(Outcome::Failed { message });
        }
        let subject = self.subject(asked, place);
        let level = self.places.get(place).map_or(self.fixed.wall.level, Place::level);
        self.audit
            .call(&subject, "allow", None, None, level)
            .map_err(|error| Outcome::Internal { message: format!("audit.unwritable: {error}") })?;
        Ok(place)
    }

    pub(crate) fn status(&self, now: Instant) -> ToolhostStatus {
        let running = self.calls.values().filter(|call| call.started.is_some()).map(|call| RunningCall {
            call_id: call.subject.call_id.clone(),
            tool: call.subject.tool.clone(),
            elapsed_ms: millis(now.saturating_duration_since(call.admitted)),
            origin: call.origin.clone(),
        });
        let zygotes: usize = self.places.iter().map(Place::zygotes).sum();
        ToolhostStatus {
            wall: self.fixed.wall.clone(),
            running: running.collect(),
            zygotes: u32::try_from(zygotes).unwrap_or(u32::MAX),
            stopped: self.stop.is_set(),
        }
    }

    /// A stop by file ends what runs too: it is looked for while anything does.
    pub(crate) fn obey_stop(&mut self, now: Instant) {
        if self.stop_due().is_none_or(|due| now < due) {
            return;
        }
        self.stop_looked = now;
        let stops = !self.transfers.is_empty() || self.calls.values().any(|call| call.attack.is_none());
        if stops && self.stop.is_set() {
            self.end_all(now);
        }
    }

    /// When to look for a stop by file next: not at all while nothing runs, for then it is looked for before each call.
    pub(crate) fn stop_due(&self) -> Option<Instant> {
        (!self.calls.is_empty() || !self.transfers.is_empty()).then(|| self.stop_looked + STOP_LOOK)
    }

    fn end_all(&mut self, now: Instant) -> u32 {
        let calls: Vec<u64> = self.calls.keys().copied().collect();
        let ended = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        for key in calls {
            self.end_call(key, Reason::Stopped, now);
        }
        let transfers: Vec<u64> = self.transfers.keys().copied().collect();
        for key in transfers {
            self.end_transfer(key, Outcome::Cancelled, now);
        }
        ended
    }

    pub(crate) fn stop_calls(&mut self, scope: StopScope, now: Instant) -> Stopped {
        let done = match scope {
            StopScope::Running => Ok(()),
            StopScope::All => self.stop.set(),
            StopScope::Clear => self.stop.clear(),
        };
        if let Err(errno) = done {
            log::always(&format!("cannot change the stop file: {errno}"));
        }
        let event = match scope {
            StopScope::Running => "emergency_stop",
            StopScope::All => "emergency_stop_all",
            StopScope::Clear => "emergency_stop_cleared",
        };
        if let Err(error) = self.audit.event(event) {
            self.log.line(&error.to_string(), now);
        }
        let ended = if scope == StopScope::Clear { 0 } else { self.end_all(now) };
        Stopped { ended, refusing: self.stop.is_set() }
    }
}
