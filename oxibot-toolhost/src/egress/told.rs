//! What the supervisor is told: each decision once, and none twice.
//!
//! What was allowed is told before it is done. A call that has reached so many hosts that no more can be told reaches
//! no more; what is refused beyond that stays refused and is not told.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::request::{NoName, Target};
use crate::wall::tell;
use crate::wire::{Decision, FromEgress, NetFailure, NetRule, NetVerdict, WallFault};

/// Most different decisions of each kind that are told. Prevents a call from filling the log.
const MAX_TOLD: usize = 256;

/// The line to the supervisor.
#[derive(Debug)]
pub(super) struct Told {
    socket: OwnedFd,
    allowed: HashSet<(String, u16)>,
    others: HashSet<(String, u16, &'static str)>,
}

impl Told {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, allowed: HashSet::new(), others: HashSet::new() }
    }

    /// The supervisor's socket: readable when it ended.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// That something is about to be connected to. `Err(Limit)` when that cannot be told any more.
    pub(super) fn allowed(
        &mut self,
        target: &Target,
        address: IpAddr,
    ) -> Result<Result<(), NetRule>, WallFault> {
        let key = (target.host.to_string(), target.port);
        if self.allowed.contains(&key) {
            return Ok(Ok(()));
        }
        if self.allowed.len() >= MAX_TOLD {
            return Ok(Err(NetRule::Limit));
        }
        self.say(key.0.clone(), key.1, NetVerdict::Allowed(address))?;
        self.allowed.insert(key);
        Ok(Ok(()))
    }

    pub(super) fn refused(&mut self, host: &str, port: u16, rule: NetRule) -> Result<(), WallFault> {
        self.once(host, port, super::words::id(rule), NetVerdict::Refused(rule))
    }

    pub(super) fn no_name(&mut self, asked: &NoName) -> Result<(), WallFault> {
        self.refused(&asked.shown, asked.port, NetRule::Name)
    }

    pub(super) fn failed(&mut self, target: &Target, failure: NetFailure) -> Result<(), WallFault> {
        self.once(target.host.as_str(), target.port, "failed", NetVerdict::Failed(failure))
    }

    fn once(
        &mut self,
        host: &str,
        port: u16,
        kind: &'static str,
        verdict: NetVerdict,
    ) -> Result<(), WallFault> {
        if self.others.len() >= MAX_TOLD || !self.others.insert((host.to_owned(), port, kind)) {
            return Ok(());
        }
        self.say(host.to_owned(), port, verdict)
    }

    fn say(&mut self, host: String, port: u16, verdict: NetVerdict) -> Result<(), WallFault> {
        tell(self.socket.as_fd(), &FromEgress::Decided(Decision { host, port, verdict }))
    }
}
