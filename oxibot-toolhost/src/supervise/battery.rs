//! The proof before the first call: the fixed battery of attacks in real calls, under the rules every call gets.
//!
//! It blocks, for a bounded time: at the start nobody waits yet, and a workspace that is first used later is attacked
//! right after its zygote was built, which blocks as well and takes longer. Results are exit statuses; nothing a
//! confined program printed is looked at. Attacks run in few processes, because a call costs more than an attack.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oxibot_proto::message::Level;
use oxibot_proto::settings::Limits;

use crate::wall::attack::{Attack, Targets, Verdict, argv_of_many, fixed};
use crate::wall::{ReadyInit, RunningInit, Zygote, ZygoteEvent};
use crate::wire::{FromInit, Job, Profile, Sockets, ToZygote, WallFault};

/// Calls the attacks are spread over: as many as run at once on a small machine.
const CALLS: usize = 2;
/// Fewest attacks that prove anything.
pub(crate) const FEWEST: usize = 30;
/// Of every call.
const UMASK: u32 = 0o022;
/// Longest it may take. An attack that hangs is no proof.
const PATIENCE: Duration = Duration::from_secs(20);

/// What attacks need besides a zygote.
#[derive(Debug)]
pub(crate) struct Battery {
    pub(crate) targets: Targets,
    /// Standard streams of the attackers.
    pub(crate) null: File,
}

/// A wall that is not proven.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unproven {
    #[error(
        "the wall does not hold: the attack `{id}` got through (protection {protection}; expected to refuse it: \
         {mechanism}; kernel feature: {feature})"
    )]
    GotThrough { id: &'static str, protection: &'static str, mechanism: &'static str, feature: &'static str },
    #[error("cannot prove the wall: the attack `{0}` could not be tried")]
    NotTried(&'static str),
    #[error("cannot prove the wall: only {0} attacks can be tried here, {FEWEST} are needed; {1}")]
    TooFew(usize, String),
    #[error("cannot prove the wall: {0}")]
    Failed(String),
}

impl From<WallFault> for Unproven {
    fn from(fault: WallFault) -> Self {
        Self::Failed(fault.to_string())
    }
}

impl From<Unproven> for WallFault {
    fn from(unproven: Unproven) -> Self {
        Self { step: "confine calls".to_owned(), cause: unproven.to_string() }
    }
}

impl Battery {
    /// Attacks calls of this zygote, and is content only if every attack is held. Answers how many there were.
    pub(crate) fn prove(&self, zygote: &mut Zygote, profile: &Profile) -> Result<usize, Unproven> {
        let until = Instant::now() + PATIENCE;
        let obtained = zygote.obtained();
        let attacks = chosen(obtained.level, obtained.landlock_abi, profile, &self.targets);
        if attacks.len() < FEWEST {
            return Err(Unproven::TooFew(attacks.len(), self.missing()));
        }
        let groups: Vec<&[&Attack]> = attacks.chunks(attacks.len().div_ceil(CALLS)).collect();
        for _ in &groups {
            zygote.ask(ToZygote::MakeInit)?;
        }
        let mut running = Vec::new();
        for group in groups {
            let init = next_init(zygote, until)?;
            running.push((group, self.start(init, group)?));
        }
        for (group, mut call) in running {
            judge(group, end_of(&mut call, until)?)?;
        }
        Ok(attacks.len())
    }

    fn start(&self, init: ReadyInit, group: &[&Attack]) -> Result<RunningInit, Unproven> {
        let job = Job {
            argv: argv_of_many(group, &self.targets),
            environment: Vec::new(),
            directory: Vec::new(),
            // The ordinary ones: configured ones may be too small for this program, and change no rule.
            limits: Limits::default(),
            umask: UMASK,
            // Attackers aim at sockets outside the workspace; looking through it could take longer than all of them.
            sockets: Sockets::none(),
        };
        let null = || -> Result<OwnedFd, Unproven> {
            let copy = self.null.try_clone().map_err(|error| Unproven::Failed(error.to_string()))?;
            Ok(copy.into())
        };
        Ok(init.start(&job, [null()?, null()?, null()?])?)
    }

    /// Targets that could not be made, for people.
    pub(crate) fn missing(&self) -> String {
        let missing: Vec<String> =
            self.targets.missing().iter().map(|(what, why)| format!("no {what} ({why})")).collect();
        if missing.is_empty() { "every target is there".to_owned() } else { missing.join(", ") }
    }
}

/// The attacks of the battery that mean something against this profile at this level.
fn chosen(level: Level, abi: u32, profile: &Profile, targets: &Targets) -> Vec<&'static Attack> {
    fixed()
        .into_iter()
        .filter(|attack| {
            attack.gap(level, abi).is_none()
                && attack.granted(profile, targets).is_none()
                && targets.serve(attack.needs())
        })
        .collect()
}

fn left(until: Instant) -> Result<PollTimeout, Unproven> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Unproven::Failed(format!("the attacks did not end within {} s", PATIENCE.as_secs())));
    }
    Ok(PollTimeout::from(u16::try_from(left.as_millis()).unwrap_or(u16::MAX).max(1)))
}

fn wait_for(fd: std::os::fd::BorrowedFd<'_>, until: Instant) -> Result<(), Unproven> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], left(until)?) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(Unproven::Failed(format!("cannot wait for an attack: {errno}"))),
    }
}

fn next_init(zygote: &mut Zygote, until: Instant) -> Result<ReadyInit, Unproven> {
    loop {
        match zygote.receive()? {
            Some(ZygoteEvent::Init(init)) => return Ok(init),
            Some(ZygoteEvent::CouldNot(fault)) => return Err(fault.into()),
            Some(ZygoteEvent::Gone) => return Err(Unproven::Failed("the zygote ended".to_owned())),
            Some(ZygoteEvent::Files(_) | ZygoteEvent::Swept(_)) => {
                return Err(Unproven::Failed("the zygote answered what was not asked".to_owned()));
            }
            None => wait_for(zygote.socket(), until)?,
        }
    }
}

/// How an attacker's call ended: its exit status, `None` for a signal.
fn end_of(call: &mut RunningInit, until: Instant) -> Result<Option<i32>, Unproven> {
    loop {
        match call.receive()? {
            Some(FromInit::Running | FromInit::Refused(_) | FromInit::Sockets(_)) => {}
            // Nobody serves an attacker's proxy: a connection to it is taken by nobody.
            Some(FromInit::Listening) => drop(call.take_descriptor()?),
            Some(FromInit::Unsafe(denial)) => return Err(Unproven::Failed(denial.reason)),
            Some(FromInit::NotStarted { fault, exec: _ }) => return Err(fault.into()),
            Some(FromInit::BadDirectory(denial)) => return Err(Unproven::Failed(denial.reason)),
            Some(FromInit::Ended(ending)) => return Ok(ending.exit_code),
            None => wait_for(call.socket(), until)?,
        }
    }
}

fn judge(group: &[&'static Attack], status: Option<i32>) -> Result<(), Unproven> {
    let verdict = status.and_then(Verdict::from_status);
    let named = |place: u8| {
        let unknown = || Unproven::Failed("an attacker named an attack it was not given".to_owned());
        group.get(usize::from(place)).copied().ok_or_else(unknown)
    };
    match verdict {
        Some(Verdict::Held) => Ok(()),
        Some(Verdict::Broken(place)) => {
            let Attack { id, protection, mechanism, feature, .. } = *named(place)?;
            Err(Unproven::GotThrough { id, protection, mechanism, feature })
        }
        Some(Verdict::NotTried(place)) => Err(Unproven::NotTried(named(place)?.id)),
        None => Err(Unproven::Failed(format!("an attacker ended with {status:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Vec<&'static Attack> {
        fixed().into_iter().take(3).collect()
    }

    #[test]
    fn one_success_is_named_with_protection_and_mechanism() {
        let group = group();
        assert!(judge(&group, Some(0)).is_ok());
        let text = judge(&group, Some(i32::from(Verdict::Broken(2).status()))).unwrap_err().to_string();
        for part in [group[2].id, group[2].protection, group[2].mechanism, "got through"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn whatever_else_an_attacker_exits_with_is_no_proof() {
        let group = group();
        for status in [None, Some(255), Some(-1), Some(i32::from(Verdict::Broken(3).status()))] {
            assert!(judge(&group, status).is_err(), "{status:?}");
        }
        let not_tried = i32::from(Verdict::NotTried(0).status());
        assert!(matches!(judge(&group, Some(not_tried)), Err(Unproven::NotTried(id)) if id == group[0].id));
    }

    #[test]
    fn enough_is_left_of_the_battery_at_every_level_even_without_a_home() {
        let profile = Profile {
            workspace: b"/root/.oxibot/workspace".to_vec(),
            read: vec![b"/etc".to_vec()],
            write: vec![],
            covered: vec![],
            restrict_to_workspace: false,
            protect: vec![],
            wanted: crate::wire::Wanted::Strongest,
            tmp_mb: 1,
            limits: Limits::default(),
            proxy: false,
        };
        let around = crate::wall::attack::Around { home: None, config: None, log: None, profiles: &[] };
        let mut targets = Targets::prepare(around);
        for level in [Level::Full, Level::Kernel, Level::Reduced] {
            let count = chosen(level, 1, &profile, &targets).len();
            assert!(count >= FEWEST, "{level:?}: {count}");
        }
        targets.keep_for_later();
        let count = chosen(Level::Kernel, 1, &profile, &targets).len();
        assert!(count >= FEWEST, "a profile that is first used later: {count}");
    }
}
