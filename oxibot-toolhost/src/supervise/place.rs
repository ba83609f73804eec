//! One workspace at work: its zygote, the inits that wait ready, its two files workers.
//!
//! It knows no call and no connection. A zygote that dies takes its calls with it and is replaced when it is needed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use oxibot_proto::message::{Level, Proven};
use oxibot_proto::settings::Limits;
use oxibot_proto::view::View;

use super::battery::{Battery, Unproven};
use super::desk::{Answer, Desk};
use super::sockets::Others;
use super::workspace::Workspace;
use crate::wall::{self, Nursery, ReadyInit, Zygote, ZygoteEvent};
use crate::wire::{Profile, ToZygote, WallFault};

/// Inits that wait ready beyond those that are needed at once.
const POOL: usize = 2;
/// The same while a call runs here: making one takes half a processor from it.
const POOL_AT_WORK: usize = 1;
/// A zygote without work ends after this long.
const IDLE: Duration = Duration::from_secs(600);
/// After a zygote could not make an init none is asked for in advance for this long.
const COOL: Duration = Duration::from_secs(5);
/// Zygotes of one workspace that hold something unkillable. Beyond it the workspace is not served.
const MAX_RETIRED: usize = 8;

/// Which files worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// File tools.
    Tools,
    /// Output files, transfers, the guard of git's configuration: a long grep must not hold these up.
    Bulk,
}

/// How many inits are to wait ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spare {
    /// As many as there should be.
    All,
    /// One, the others when there is time.
    One,
}

/// What a zygote was asked for; it answers in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Init,
    Files(Role),
    Sweep(u64),
}

/// What the broker has to know.
#[derive(Debug)]
pub(crate) enum Happened {
    /// What outlived the init of this call is ended.
    Swept(u64),
    /// An init could not be made: a waiting call fails.
    NoInit(WallFault),
    /// Answers from or for a files worker.
    Answers(Vec<Answer>),
}

/// One workspace.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) workspace: Workspace,
    profile: Profile,
    pub(crate) others: Others,
    zygote: Option<Zygote>,
    level: Level,
    /// How the wall of this profile was proven. Later zygotes of it only verify themselves.
    proven: Option<Proven>,
    pub(crate) ready: VecDeque<ReadyInit>,
    asked: VecDeque<Asked>,
    pub(crate) tools: Desk,
    pub(crate) bulk: Desk,
    retired: Vec<Zygote>,
    last_used: Instant,
    cool_until: Option<Instant>,
    /// Whether its directory is made, where it is not there.
    make: bool,
}

impl Place {
    /// A workspace without a zygote yet.
    pub(crate) fn new(workspace: Workspace, profile: Profile, level: Level, now: Instant) -> Self {
        Self {
            workspace,
            others: Others::new(&profile),
            profile,
            zygote: None,
            level,
            proven: None,
            ready: VecDeque::new(),
            asked: VecDeque::new(),
            tools: Desk::default(),
            bulk: Desk::default(),
            retired: Vec::new(),
            last_used: now,
            cool_until: None,
            make: false,
        }
    }

    /// Its directory is made when its zygote is started.
    pub(crate) fn made_when_needed(self) -> Self {
        Self { make: true, ..self }
    }

    /// Level that holds for calls here.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// How that was proven.
    pub(crate) fn proven(&self) -> Option<Proven> {
        self.proven
    }

    /// What its zygotes build.
    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// A pass recorded earlier counts for this profile.
    pub(crate) fn proven_before(&mut self) {
        self.proven = Some(Proven::Recorded);
    }

    /// Attacks calls here. Blocks; its zygote must be there. Answers how many attacks were held.
    pub(crate) fn prove(&mut self, battery: &Battery) -> Result<usize, Unproven> {
        let Some(zygote) = &mut self.zygote else {
            return Err(Unproven::Failed("there is no zygote to attack".to_owned()));
        };
        let held = battery.prove(zygote, &self.profile)?;
        self.proven = Some(Proven::Start);
        Ok(held)
    }

    /// What a call here could see and do, for explanations.
    pub(crate) fn facts(&self, directory: &[u8], limits: Limits) -> Option<Box<View>> {
        wall::facts(&self.profile, self.level, directory, limits)
    }

    /// Zygotes alive.
    pub(crate) fn zygotes(&self) -> usize {
        usize::from(self.zygote.is_some()) + self.retired.len()
    }

    /// The zygote, started if there is none. Blocks while it builds its view, and while a profile that was not proven
    /// yet is attacked. A level below `require` is refused, and so is a wall that does not hold.
    pub(crate) fn ensure(
        &mut self,
        nursery: &mut Nursery,
        require: Level,
        battery: Option<&Battery>,
    ) -> Result<&Zygote, WallFault> {
        if self.zygote.is_none() {
            if self.retired.len() >= MAX_RETIRED {
                return Err(WallFault {
                    step: "start another zygote".to_owned(),
                    cause: "too many hold processes that cannot be ended".to_owned(),
                });
            }
            let zygote = if self.make {
                nursery.zygote_and_workspace(&self.profile)?
            } else {
                nursery.zygote(&self.profile)?
            };
            let level = zygote.obtained().level;
            if level < require {
                zygote.kill();
                return Err(WallFault {
                    step: format!("confine calls in {}", self.workspace.path.display()),
                    cause: format!("level {} is to be had, {} is required", level.name(), require.name()),
                });
            }
            self.level = level;
            self.zygote = Some(zygote);
            if let Some(battery) = battery
                && self.proven.is_none()
                && level > Level::Off
                && let Err(unproven) = self.prove(battery)
            {
                drop(self.gone());
                return Err(unproven.into());
            }
        }
        self.zygote
            .as_ref()
            .ok_or_else(|| WallFault { step: "start a zygote".to_owned(), cause: "none".to_owned() })
    }

    /// Asks for inits and workers so that `waiting` calls can start and a few are ready beyond them.
    pub(crate) fn top_up(
        &mut self,
        (waiting, spare): (usize, Spare),
        nursery: &mut Nursery,
        require: Level,
        battery: Option<&Battery>,
        now: Instant,
    ) -> Result<(), WallFault> {
        let work = waiting > 0 || self.tools.wants_worker() || self.bulk.wants_worker();
        if work {
            self.last_used = now;
            self.ensure(nursery, require, battery)?;
        }
        if self.zygote.is_none() {
            return Ok(());
        }
        let pool = match spare {
            _ if self.cool_until.is_some_and(|until| now < until) => 0,
            Spare::All => POOL,
            Spare::One => POOL_AT_WORK,
        };
        let coming = self.asked.iter().filter(|asked| **asked == Asked::Init).count();
        for _ in (self.ready.len() + coming)..(waiting + pool) {
            self.ask(Asked::Init)?;
        }
        if self.tools.wants_worker() {
            self.tools.asked = true;
            self.ask(Asked::Files(Role::Tools))?;
        }
        if self.bulk.wants_worker() {
            self.bulk.asked = true;
            self.ask(Asked::Files(Role::Bulk))?;
        }
        Ok(())
    }

    /// Has what outlived a call's init ended (levels without a PID namespace).
    pub(crate) fn sweep(&mut self, call: u64) -> Result<(), WallFault> {
        self.ask(Asked::Sweep(call))
    }

    fn ask(&mut self, asked: Asked) -> Result<(), WallFault> {
        let request = match asked {
            Asked::Init => ToZygote::MakeInit,
            Asked::Files(Role::Tools | Role::Bulk) => ToZygote::MakeFiles,
            Asked::Sweep(_) => ToZygote::Sweep,
        };
        match &mut self.zygote {
            Some(zygote) => zygote.ask(request)?,
            None => {
                return Err(WallFault { step: "ask the zygote".to_owned(), cause: "it is gone".to_owned() });
            }
        }
        self.asked.push_back(asked);
        Ok(())
    }

    /// Takes what the zygote said.
    pub(crate) fn listen(&mut self, now: Instant) -> Vec<Happened> {
        let mut happened = Vec::new();
        while let Some(zygote) = &mut self.zygote {
            let event = zygote.receive();
            match event {
                Ok(None) => break,
                Ok(Some(ZygoteEvent::Init(init))) => {
                    self.expect(|asked| *asked == Asked::Init);
                    self.ready.push_back(init);
                }
                Ok(Some(ZygoteEvent::Files(worker))) => match self.expect(|a| matches!(a, Asked::Files(_))) {
                    Some(Asked::Files(Role::Tools)) => self.tools.attach(worker),
                    Some(Asked::Files(Role::Bulk)) => self.bulk.attach(worker),
                    Some(Asked::Init | Asked::Sweep(_)) | None => {}
                },
                Ok(Some(ZygoteEvent::Swept(_))) => {
                    if let Some(Asked::Sweep(call)) = self.expect(|asked| matches!(asked, Asked::Sweep(_))) {
                        happened.push(Happened::Swept(call));
                    }
                }
                Ok(Some(ZygoteEvent::CouldNot(fault))) => match self.asked.pop_front() {
                    Some(Asked::Files(Role::Tools)) => {
                        happened.push(Happened::Answers(self.tools.fail_queue()))
                    }
                    Some(Asked::Files(Role::Bulk)) => {
                        happened.push(Happened::Answers(self.bulk.fail_queue()))
                    }
                    Some(Asked::Sweep(_)) => {}
                    Some(Asked::Init) | None => {
                        self.cool_until = Some(now + COOL);
                        happened.push(Happened::NoInit(fault));
                    }
                },
                Ok(Some(ZygoteEvent::Gone)) | Err(_) => {
                    happened.extend(self.gone());
                    break;
                }
            }
        }
        happened
    }

    /// The oldest question of this kind is answered.
    fn expect(&mut self, kind: impl Fn(&Asked) -> bool) -> Option<Asked> {
        let position = self.asked.iter().position(kind)?;
        self.asked.remove(position)
    }

    /// The zygote died: so do its inits and workers, the calls notice by themselves.
    pub(crate) fn gone(&mut self) -> Vec<Happened> {
        let Some(zygote) = self.zygote.take() else { return Vec::new() };
        zygote.kill();
        drop(zygote);
        self.forget()
    }

    fn forget(&mut self) -> Vec<Happened> {
        self.ready.clear();
        let mut happened = Vec::new();
        for asked in std::mem::take(&mut self.asked) {
            match asked {
                Asked::Sweep(call) => happened.push(Happened::Swept(call)),
                Asked::Files(Role::Tools) => self.tools.asked = false,
                Asked::Files(Role::Bulk) => self.bulk.asked = false,
                Asked::Init => {}
            }
        }
        happened
    }

    /// Something of this zygote cannot be ended: it serves no new call, and stays until its calls are over.
    pub(crate) fn quarantine(&mut self) -> Vec<Happened> {
        self.retired.extend(self.zygote.take());
        self.forget()
    }

    /// Drops an init that died while it waited.
    pub(crate) fn drop_ready(&mut self, index: usize) {
        drop(self.ready.remove(index));
    }

    /// Whether it has nothing to do for long.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let idle = self.zygote.is_some() && self.tools.idle() && self.bulk.idle();
        idle.then(|| self.last_used + IDLE)
    }

    /// A call of this workspace started or ended.
    pub(crate) fn used(&mut self, now: Instant) {
        self.last_used = now;
    }

    /// Ends zygotes that are not needed; `running` calls still depend on them.
    pub(crate) fn rest(&mut self, running: usize, now: Instant) {
        if running > 0 {
            return;
        }
        for zygote in self.retired.drain(..) {
            zygote.kill();
        }
        if self.idle_since().is_some_and(|end| now >= end) {
            self.tools.kill();
            self.bulk.kill();
            drop(self.gone());
        }
    }

    /// The zygote's descriptors: socket and pidfd.
    pub(crate) fn zygote(&self) -> Option<&Zygote> {
        self.zygote.as_ref()
    }
}
