//! Messages from main become admitted calls or refusals. What happens to an admitted call is in `calls`.
//!
//! The order is fixed: is the message legal, is the request understood, is the workspace listed, is there a stop,
//! what does the policy say, can it be recorded. Nothing in a request widens what the configuration grants.

use std::time::{Duration, Instant};

use oxibot_proto::message::{
    CallNumber, CallRequest, CloseReason, Denial, JudgedRule, Judgement, MAX_ARGUMENTS, MainHello, Origin,
    Outcome, PendingApproval, RunRequest, ToMain, ToToolhost, Verdict,
};
use oxibot_proto::settings::MAX_TIMEOUT_SECONDS;
use oxibot_proto::state::Stage;

use super::asking::{MAX_CLAIM, about, conversation, denial, fetch_work, narrowed, only_judges, stop_denial};
use super::attacks::only_attacks;
use super::audit::{About, Subject, capped};
use super::broker::{Broker, Fixed};
use super::calls::{Body, Call, Finished, Plan, Shape};
use super::place::Place;
use super::web::Asker;
use super::workspace::MAX_WORKSPACES;
use super::{approvals, environment, network, whole};
use crate::shell::Judged;
use crate::tools::{self, ToolRequest, WebRequest};
use crate::wire::{FetchWork, Job, Sockets};

/// Calls of one connection that may wait for a slot.
const MAX_QUEUED: usize = 64;
/// Bytes of a run's arguments: they have to fit a frame to the init.
const MAX_ARGV: usize = 900 * 1024;
/// File mode creation mask of a call.
const UMASK: u32 = 0o022;
/// Deadline of a file tool.
const FILES_TIMEOUT: Duration = Duration::from_secs(60);
/// Deadline of a web tool: the worker's own 30 s for the network, and what making text of a page may take.
const WEB_TIMEOUT: Duration = Duration::from_secs(35);

/// Makes what runs once the workspace is known.
type MakeBody = Box<dyn FnOnce(&Broker, usize) -> Body>;

/// A request that was understood, before it is judged.
pub(crate) struct Asked {
    pub(crate) number: CallNumber,
    pub(crate) tool: String,
    pub(crate) origin: Origin,
    pub(crate) workspace: Option<String>,
    pub(crate) about: About,
}

/// What the policy leaves to be decided once the workspace is known.
enum Gate {
    /// It may run.
    Open,
    /// It may not.
    Shut(Outcome),
    /// A person decides.
    Ask(Box<AskGate>),
}

/// A call that a person decides about.
pub(crate) struct AskGate {
    pub(crate) denial: Denial,
    /// The approval it claims to have.
    pub(crate) claimed: Option<String>,
    /// In their canonical spelling.
    pub(crate) arguments: String,
    /// For the person; nothing when it is too long to be read.
    pub(crate) whole: Option<String>,
}

/// Why a call does not run.
pub(crate) struct Refusal {
    pub(crate) outcome: Outcome,
    /// What to show the person who may still say yes.
    pub(crate) approval: Option<Box<PendingApproval>>,
}

impl Broker {
    /// One legal message.
    pub(crate) fn message(&mut self, link: u64, message: ToToolhost, now: Instant) {
        match message {
            ToToolhost::Hello(hello) => self.greet(link, &hello, now),
            ToToolhost::ListTools => self.list_tools(link, now),
            ToToolhost::Call(request) => {
                if self.number_is_new(link, request.call, "Call", now) {
                    self.call(link, request, now);
                }
            }
            ToToolhost::Judge(request) => {
                if self.number_is_new(link, request.call, "Judge", now) {
                    let judgement = self.judgement(&request);
                    match self.url_to_judge(&request, &judgement) {
                        Some(work) => {
                            let (number, asker) = (self.key(), Asker::DryRun(link, request.call));
                            let unasked = self.web.ask(number, work, asker);
                            self.web_answers(unasked.into_iter().collect(), now);
                        }
                        None => self.send(link, &ToMain::Judgement(judgement), now),
                    }
                }
            }
            ToToolhost::Run(request) => {
                if self.number_is_new(link, request.call, "Run", now) {
                    self.run(link, request, now);
                }
            }
            ToToolhost::Stdin(chunk) => {
                if self.number_is_known(link, chunk.call, "Stdin", now) {
                    self.stdin(link, chunk.call, chunk.data, now);
                }
            }
            ToToolhost::Cancel(number) => {
                if self.number_is_known(link, number, "Cancel", now) {
                    self.cancel(link, number, now);
                }
            }
            ToToolhost::Put(request) => {
                if self.number_is_new(link, request.call, "Put", now) {
                    self.put(link, request, now);
                }
            }
            ToToolhost::PutChunk(chunk) => {
                if self.number_is_known(link, chunk.call, "PutChunk", now)
                    && let Some(key) = self.transfer_key(link, chunk.call)
                {
                    let steps =
                        self.transfers.get_mut(&key).map(|(_, _, transfer)| transfer.chunk(chunk, now));
                    match steps {
                        Some(Ok(steps)) => self.transfer_steps(key, steps, now),
                        Some(Err(_)) => self.illegal(link, "PutChunk", now),
                        None => {}
                    }
                }
            }
            ToToolhost::Get(request) => {
                if self.number_is_new(link, request.call, "Get", now) {
                    self.get(link, request, now);
                }
            }
            ToToolhost::Taken(number) => {
                if self.number_is_known(link, number, "Taken", now) {
                    self.taken(link, number, now);
                }
            }
            ToToolhost::Status => {
                let status = self.status(now);
                self.send(link, &ToMain::Status(status), now);
            }
            ToToolhost::Stop(scope) => {
                let stopped = self.stop_calls(scope, now);
                self.send(link, &ToMain::Stopped(stopped), now);
            }
            ToToolhost::Attack => self.attack(link, now),
            ToToolhost::Approve(answer) => self.approve(link, &answer, now),
            ToToolhost::ListApprovals => {
                let pending = self.approvals.pending(now);
                self.send(link, &ToMain::Approvals(pending), now);
            }
        }
    }

    fn greet(&mut self, link: u64, hello: &MainHello, now: Instant) {
        if hello.magic != oxibot_proto::MAGIC {
            let detail = "the first message is not a hello of this protocol".to_owned();
            return self.close(link, CloseReason::Malformed { detail }, now);
        }
        if hello.version != oxibot_proto::PROTOCOL_VERSION {
            let ours = oxibot_proto::PROTOCOL_VERSION;
            return self.close(link, CloseReason::VersionMismatch { ours }, now);
        }
        if let Some(link) = self.links.get_mut(&link) {
            link.stage = Stage::Open;
        }
    }

    fn list_tools(&mut self, link: u64, now: Instant) {
        let disabled = &self.fixed.settings.tools.disabled;
        let mut offered: Vec<_> =
            tools::specs().into_iter().filter(|tool| !disabled.contains(&tool.name)).collect();
        if let Some(bash) = offered.iter_mut().find(|tool| tool.name == "bash") {
            bash.description = network::described(&bash.description, &self.fixed.settings.tools.exec.network);
        }
        self.send(link, &ToMain::Tools(offered), now);
    }

    pub(crate) fn illegal(&mut self, link: u64, message: &str, now: Instant) {
        self.close(link, CloseReason::Illegal { message: message.to_owned() }, now);
    }

    fn number_is_new(&mut self, link: u64, number: CallNumber, message: &str, now: Instant) -> bool {
        let new = self.links.get_mut(&link).is_some_and(|link| link.seen.take(number).is_ok());
        if !new {
            self.illegal(link, message, now);
        }
        new
    }

    /// A number may name a call that just ended; one that was never used is a fault of the peer.
    fn number_is_known(&mut self, link: u64, number: CallNumber, message: &str, now: Instant) -> bool {
        let known = self.links.get(&link).is_some_and(|link| link.seen.knows(number));
        if !known {
            self.illegal(link, message, now);
        }
        known
    }

    pub(crate) fn call_key(&self, link: u64, number: CallNumber) -> Option<u64> {
        self.calls.iter().find(|(_, c)| c.link == link && c.number == number).map(|(key, _)| *key)
    }

    pub(crate) fn transfer_key(&self, link: u64, number: CallNumber) -> Option<u64> {
        self.transfers.iter().find(|(_, (l, _, t))| *l == link && t.number() == number).map(|(key, _)| *key)
    }

    fn call_id(&mut self) -> String {
        let counter = self.key();
        format!("{}-{counter:04x}", self.fixed.id_prefix)
    }

    /// As [`Broker::place_of`]; a person's workspace that is granted and new becomes one.
    pub(crate) fn place_for(&mut self, workspace: Option<&str>, now: Instant) -> Result<usize, Denial> {
        let denial = match self.place_of(workspace) {
            Ok(place) => return Ok(place),
            Err(denial) => denial,
        };
        let people = self.fixed.people.as_ref();
        let Some((found, profile)) =
            people.zip(workspace).and_then(|(people, asked)| people.workspace(asked))
        else {
            return Err(denial);
        };
        if self.places.len() >= MAX_WORKSPACES {
            return Err(Denial {
                rule: "workspace.full".to_owned(),
                reason: format!("{MAX_WORKSPACES} workspaces are in use"),
                hint: "start OxiBot again, or let people share with agents.workspaceScope".to_owned(),
            });
        }
        self.places.push(Place::new(found, profile, self.fixed.require, now).made_when_needed());
        Ok(self.places.len() - 1)
    }

    pub(crate) fn place_of(&self, workspace: Option<&str>) -> Result<usize, Denial> {
        let Some(asked) = workspace else { return Ok(0) };
        self.places.iter().position(|place| place.workspace.answers_to(asked)).ok_or_else(|| Denial {
            rule: "workspace.unlisted".to_owned(),
            reason: format!("{} is not a configured workspace", capped(asked, MAX_CLAIM)),
            hint: "name a workspace of the configuration, or leave the workspace out".to_owned(),
        })
    }

    fn call(&mut self, link: u64, request: CallRequest, now: Instant) {
        let asked = Asked {
            number: request.call,
            tool: canonical(&request.tool),
            origin: request.origin,
            workspace: request.workspace,
            about: About::default(),
        };
        let parsed = self.parse(&request.tool, &request.arguments);
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(message) => return self.refuse(link, &asked, Outcome::Failed { message }, now),
        };
        let asked = Asked { about: about(&parsed), ..asked };
        if let Some(limited) = self.limited(&asked, now) {
            return self.refuse(link, &asked, Outcome::Denied(limited), now);
        }
        let conversation = conversation(&asked.origin);
        let judged = self.reader.judge(&mut self.nursery, &parsed);
        let whole = match judged.verdict {
            Verdict::Ask => whole::whole(&asked.tool, &parsed, &request.arguments),
            Verdict::Allow | Verdict::Block => None,
        };
        let limit = self.fixed.settings.limits.max_timeout_seconds.min(MAX_TIMEOUT_SECONDS);
        let (wanted, body): (Duration, MakeBody) = match parsed {
            ToolRequest::Bash { command, timeout_s, cwd } => {
                let seconds = timeout_s.unwrap_or(self.fixed.settings.tools.exec.timeout).min(limit);
                let argv = ["/bin/bash", "--norc", "--noprofile", "-c"].map(|word| word.as_bytes().to_vec());
                let argv: Vec<Vec<u8>> = argv.into_iter().chain([command.into_bytes()]).collect();
                let directory = cwd.unwrap_or_default().into_bytes();
                let plan =
                    move |broker: &Broker, place: usize| broker.plan(place, argv, directory, Shape::Tool);
                (Duration::from_secs(seconds.into()), Box::new(plan))
            }
            ToolRequest::Web(asked) => {
                let allow = &self.fixed.settings.web.allow_private;
                let work = fetch_work(asked, &conversation, allow);
                (WEB_TIMEOUT, Box::new(move |_: &Broker, _: usize| Body::Web(Some(work))))
            }
            ToolRequest::Files(work) => {
                (FILES_TIMEOUT, Box::new(move |_: &Broker, _: usize| Body::Files(Some(work))))
            }
        };
        let timeout = narrowed(wanted, request.timeout_ms);
        let rule = judged.rules.into_iter().next();
        let gate = match judged.verdict {
            Verdict::Allow => Gate::Open,
            Verdict::Ask => Gate::Ask(Box::new(AskGate {
                denial: denial(rule),
                claimed: request.approval,
                arguments: approvals::canonical(&request.arguments),
                whole,
            })),
            Verdict::Block => Gate::Shut(Outcome::Denied(denial(rule))),
        };
        self.admit(link, asked, gate, timeout, body, now);
    }

    fn run(&mut self, link: u64, request: RunRequest, now: Instant) {
        let printable: Vec<_> = request.argv.iter().map(|word| String::from_utf8_lossy(word)).collect();
        let asked = Asked {
            number: request.call,
            tool: "sandbox run".to_owned(),
            origin: request.origin,
            workspace: request.workspace,
            about: About { text: printable.join(" "), size: None },
        };
        let size: usize = request.argv.iter().map(|word| word.len() + 1).sum();
        let fault = if request.argv.first().is_none_or(Vec::is_empty) {
            Some("there is no program to run")
        } else if request.argv.iter().any(|word| word.contains(&0)) {
            Some("an argument holds a NUL byte")
        } else if size > MAX_ARGV {
            Some("the arguments are too long; write them to a file")
        } else {
            None
        };
        if let Some(fault) = fault {
            return self.refuse(link, &asked, Outcome::Failed { message: fault.to_owned() }, now);
        }
        let limit = Duration::from_secs(
            self.fixed.settings.limits.max_timeout_seconds.min(MAX_TIMEOUT_SECONDS).into(),
        );
        let standard = Duration::from_secs(self.fixed.settings.tools.exec.timeout.into());
        let timeout = request.timeout_ms.map_or(standard, Duration::from_millis).min(limit);
        let argv = request.argv;
        let plan = move |broker: &Broker, place: usize| broker.plan(place, argv, Vec::new(), Shape::Run);
        self.admit(link, asked, Gate::Open, timeout, Box::new(plan), now);
    }

    fn plan(&self, place: usize, argv: Vec<Vec<u8>>, directory: Vec<u8>, shape: Shape) -> Body {
        let workspace = self.places.get(place).map(|place| place.workspace.bytes()).unwrap_or_default();
        let environment = self.environment(&workspace);
        let job = Job {
            argv,
            environment,
            directory,
            limits: self.fixed.settings.limits,
            umask: UMASK,
            // Until it is launched nobody knows better.
            sockets: Sockets::search(),
        };
        Body::Planned(Box::new(Plan::new(job, shape)))
    }

    /// The environment of a call in this workspace.
    pub(crate) fn environment(&self, workspace: &[u8]) -> Vec<Vec<u8>> {
        let Fixed { settings, machine, .. } = &self.fixed;
        let proxy = if settings.tools.exec.network.is_on() { network::variables() } else { Vec::new() };
        environment::build(workspace, machine, &settings.sandbox, &proxy)
    }

    fn parse(&self, tool: &str, arguments: &str) -> Result<ToolRequest, String> {
        if arguments.len() > MAX_ARGUMENTS {
            return Err(format!("the arguments are longer than {MAX_ARGUMENTS} bytes; write them to a file"));
        }
        if self.fixed.settings.tools.disabled.contains(&canonical(tool)) {
            return Err(format!("the tool `{}` is disabled by the configuration", canonical(tool)));
        }
        tools::parse(tool, arguments).map_err(|error| error.to_string())
    }

    /// The common gate of calls and runs: workspace, stop, verdict, record, queue.
    fn admit(
        &mut self,
        link: u64,
        asked: Asked,
        gate: Gate,
        timeout: Duration,
        body: MakeBody,
        now: Instant,
    ) {
        let place = match self.place_for(asked.workspace.as_deref(), now) {
            Ok(place) => place,
            Err(denial) => return self.refuse(link, &asked, Outcome::Denied(denial), now),
        };
        if let Some(stop) = self.stop.cause() {
            return self.refuse(link, &asked, Outcome::Denied(stop_denial(stop)), now);
        }
        if self.fixed.only_judges {
            return self.refuse(link, &asked, Outcome::Denied(only_judges()), now);
        }
        if self.range.is_some() {
            return self.refuse(link, &asked, Outcome::Denied(only_attacks()), now);
        }
        let approved = match gate {
            Gate::Open => None,
            Gate::Shut(denied) => return self.refuse(link, &asked, denied, now),
            Gate::Ask(ask) => match self.ask(link, &asked, place, *ask, now) {
                Ok(approved) => Some(approved),
                Err(refusal) => return self.refuse_with(link, &asked, refusal, now),
            },
        };
        let subject = self.subject(&asked, place);
        let wall = self.wall_of(place);
        let (verdict, rule, approval) = match &approved {
            None => ("allow", None, None),
            Some(by) => ("approved", Some(by.rule.as_str()), Some(by.id.as_str())),
        };
        if let Err(error) = self.audit.call(&subject, verdict, rule, approval, wall.0) {
            let message = format!("audit.unwritable: {error}");
            let finished = Finished::plain(Outcome::Internal { message });
            return self.deliver(link, asked.number, &subject, finished, (wall, Duration::ZERO), now);
        }
        let waiting =
            self.queue.iter().filter(|key| self.calls.get(key).is_some_and(|c| c.link == link)).count();
        if waiting >= MAX_QUEUED {
            return self.close(link, CloseReason::Overload, now);
        }
        let origin = Origin {
            who: subject.who.clone(),
            channel: subject.channel.clone(),
            session: subject.session.clone(),
        };
        let body = body(self, place);
        let key = self.key();
        let call = Call {
            link,
            number: asked.number,
            attack: None,
            origin,
            place,
            subject,
            admitted: now,
            started: None,
            timeout,
            body,
            last_progress: now,
        };
        self.calls.insert(key, call);
        self.queue.push_back(key);
        // At once, so that a full queue means full slots and not merely a batch that came in one piece.
        self.start_queued(now);
    }

    pub(crate) fn subject(&mut self, asked: &Asked, place: usize) -> Subject {
        let id = self.call_id();
        let workspace =
            self.places.get(place).map(|place| place.workspace.path.to_string_lossy().into_owned());
        self.audit.subject(&id, &asked.tool, &asked.origin, &workspace.unwrap_or_default(), &asked.about)
    }

    /// Refuses before anything ran. Recorded all the same.
    fn refuse(&mut self, link: u64, asked: &Asked, outcome: Outcome, now: Instant) {
        self.refuse_with(link, asked, Refusal { outcome, approval: None }, now);
    }

    fn refuse_with(&mut self, link: u64, asked: &Asked, refusal: Refusal, now: Instant) {
        let Refusal { outcome, approval } = refusal;
        let place = self.place_of(asked.workspace.as_deref()).unwrap_or_default();
        let subject = self.subject(asked, place);
        let wall = self.wall_of(place);
        let (verdict, rule) = match &outcome {
            Outcome::Denied(denial) => ("block", Some(denial.rule.as_str())),
            Outcome::NeedsApproval(denial) => ("ask", Some(denial.rule.as_str())),
            Outcome::Completed
            | Outcome::Failed { .. }
            | Outcome::TimedOut
            | Outcome::Cancelled
            | Outcome::Killed { .. }
            | Outcome::Internal { .. } => ("invalid", None),
        };
        if let Err(error) = self.audit.call(&subject, verdict, rule, None, wall.0) {
            self.log.line(&error.to_string(), now);
        }
        let finished = Finished { approval, ..Finished::plain(outcome) };
        self.deliver(link, asked.number, &subject, finished, (wall, Duration::ZERO), now);
    }

    /// The URL of a dry run, where nothing else was found against it: only the fetch worker can judge it.
    fn url_to_judge(&self, request: &CallRequest, judgement: &Judgement) -> Option<FetchWork> {
        if judgement.verdict != Verdict::Allow {
            return None;
        }
        match self.parse(&request.tool, &request.arguments) {
            Ok(ToolRequest::Web(WebRequest::Get { url, .. })) => {
                Some(FetchWork::Judge { url, allow: self.fixed.settings.web.allow_private.clone() })
            }
            Ok(
                ToolRequest::Web(WebRequest::Search { .. })
                | ToolRequest::Bash { .. }
                | ToolRequest::Files(_),
            )
            | Err(_) => None,
        }
    }

    fn judgement(&mut self, request: &CallRequest) -> Judgement {
        let block = |id: &str, reason: String, alternative: &str| Judgement {
            call: request.call,
            verdict: Verdict::Block,
            rules: vec![JudgedRule { id: id.to_owned(), reason, alternative: alternative.to_owned() }],
            commands: Vec::new(),
        };
        let parsed = match self.parse(&request.tool, &request.arguments) {
            Ok(parsed) => parsed,
            Err(message) => return block("arguments.invalid", message, "correct the call"),
        };
        if let Err(denial) = self.place_for(request.workspace.as_deref(), Instant::now()) {
            return block(&denial.rule, denial.reason, &denial.hint);
        }
        let Judged { verdict, rules, mut commands } = self.reader.judge(&mut self.nursery, &parsed);
        for command in &mut commands {
            *command = capped(command, 4096);
        }
        Judgement { call: request.call, verdict, rules, commands }
    }
}

/// Canonical name of a tool; what was asked for, capped, when there is no such tool.
fn canonical(name: &str) -> String {
    tools::find(name).map_or_else(|| capped(name, MAX_CLAIM), |tool| tool.name.to_owned())
}
