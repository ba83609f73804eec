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
    allowed: HashSet<(String, u16, IpAddr)>,
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

    /// That this address is about to be connected to. `Err(Limit)` when that cannot be told any more.
    pub(super) fn allowed(
        &mut self,
        target: &Target,
        address: IpAddr,
    ) -> Result<Result<(), NetRule>, WallFault> {
        let key = (target.host.to_string(), target.port, address);
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};

    use super::*;

    fn packets(peer: &OwnedFd) -> usize {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| recv(peer.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()).count()
    }

    #[test]
    fn each_address_of_a_host_is_told_once() {
        let kind = SockType::SeqPacket;
        let (ours, peer) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let mut told = Told::new(ours);
        let target = Target { host: "a.org".parse().unwrap(), port: 443 };
        for address in ["203.0.113.1", "203.0.113.2", "203.0.113.1", "2001:db8::1"] {
            assert_eq!(told.allowed(&target, address.parse().unwrap()).unwrap(), Ok(()));
        }
        assert_eq!(packets(&peer), 3);
        for low in 0..=u8::MAX {
            let _ = told.allowed(&target, IpAddr::from([198, 51, 100, low])).unwrap();
        }
        let next = told.allowed(&target, "192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!((packets(&peer), next), (MAX_TOLD - 3, Err(NetRule::Limit)));
    }
}
