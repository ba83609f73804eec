//! What a call may reach: the list of its names, and the address guard.

use std::net::IpAddr;
use std::str::FromStr;

use oxibot_proto::reach::{Cover, HostPattern, cover};
use oxibot_proto::web::{Exceptions, judge_address};

use super::request::Target;
use crate::wall::Step;
use crate::wire::{EgressOrder, NetRule, WallFault};

/// The terms of one call.
#[derive(Debug)]
pub(super) struct Rules {
    hosts: Vec<HostPattern>,
    exceptions: Exceptions,
}

impl Rules {
    /// From the order, which is made from configuration.
    pub(super) fn new(order: &EgressOrder) -> Result<Self, WallFault> {
        let step = "read the hosts of a call";
        let hosts = order.hosts.iter().map(|text| HostPattern::from_str(text)).collect::<Result<_, _>>();
        let exceptions = Exceptions::parse(&order.private).step(step)?;
        Ok(Self { hosts: hosts.step(step)?, exceptions })
    }

    /// Every port of the list.
    pub(super) fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.hosts.iter().flat_map(|host| host.ports().iter().copied()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether a name may be looked up and reached.
    pub(super) fn judge_name(&self, target: &Target) -> Result<(), NetRule> {
        match cover(&self.hosts, &target.host, target.port) {
            Cover::Yes => Ok(()),
            Cover::OtherPort => Err(NetRule::Port),
            Cover::No => Err(NetRule::Host),
        }
    }

    /// Whether an address its name led to may be connected to. One that may not taints the others: a name that leads
    /// inside and outside at once is somebody's trick.
    pub(super) fn judge_addresses(&self, found: &[IpAddr], port: u16) -> Result<(), NetRule> {
        let public = found.iter().all(|address| judge_address(*address, port, &self.exceptions).is_ok());
        if public { Ok(()) } else { Err(NetRule::Address) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hosts: &[&str], private: &[&str]) -> Rules {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Rules::new(&EgressOrder { hosts: owned(hosts), private: owned(private) }).unwrap()
    }

    #[test]
    fn host_and_port_are_told_apart() {
        let rules = rules(&["a.org", "*.b.org:8443"], &[]);
        let judge = |host: &str, port| rules.judge_name(&Target { host: host.parse().unwrap(), port });
        assert_eq!(judge("a.org", 443), Ok(()));
        assert_eq!(judge("a.org", 22), Err(NetRule::Port));
        assert_eq!(judge("x.b.org", 8443), Ok(()));
        assert_eq!(judge("b.org", 8443), Err(NetRule::Host));
        assert_eq!(rules.ports(), [80, 443, 8443]);
    }

    #[test]
    fn one_address_inside_taints_them_all() {
        let public = "93.184.216.34".parse().unwrap();
        let rules = rules(&["a.org"], &["10.1.0.0/16:443"]);
        assert_eq!(rules.judge_addresses(&[public], 443), Ok(()));
        for inside in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "0.0.0.0"] {
            let found = [public, inside.parse().unwrap()];
            assert_eq!(rules.judge_addresses(&found, 443), Err(NetRule::Address), "{inside}");
        }
        let excepted = ["10.1.2.3".parse().unwrap()];
        assert_eq!(rules.judge_addresses(&excepted, 443), Ok(()), "listed by the configuration");
        assert_eq!(rules.judge_addresses(&excepted, 80), Err(NetRule::Address));
    }

    #[test]
    fn an_order_that_cannot_be_read_is_an_error() {
        for (host, private) in [("*", "10.0.0.0/8"), ("a.org", "ten")] {
            let order = EgressOrder { hosts: vec![host.into()], private: vec![private.into()] };
            assert!(Rules::new(&order).is_err(), "{host} {private}");
        }
    }
}
