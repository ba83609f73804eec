//! The health endpoint: whether its port is free, and who could reach it.
//!
//! The port is tried by listening on it for a moment. One that is taken is a doubt, as the gateway runs without it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use nix::errno::Errno;

use crate::config::Gateway;

use super::facts::text;
use super::report::Check;

/// What became of listening there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listened {
    /// It can.
    Free,
    /// Somebody else does: the user, where it can be seen.
    Taken(Option<u32>),
    /// It may not.
    Denied,
    /// The address is none of this machine.
    NotOurs,
    /// Something else.
    Failed(String),
}

/// The settings, and what became of trying; none when the endpoint is switched off.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GatewayFacts {
    pub(super) gateway: Gateway,
    pub(super) listened: Option<Listened>,
}

impl GatewayFacts {
    /// Tries to listen.
    pub(super) fn gather(gateway: Gateway) -> Self {
        let listened = gateway.health.then(|| match TcpListener::bind((address(&gateway), gateway.port)) {
            Ok(_listening) => Listened::Free,
            Err(error) => judge(&error, gateway.port),
        });
        Self { gateway, listened }
    }
}

fn address(gateway: &Gateway) -> IpAddr {
    // Anything else was refused when the configuration was read, or is `localhost`.
    gateway.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn judge(error: &io::Error, port: u16) -> Listened {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => {
            let tables = ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(text).collect::<String>();
            Listened::Taken(listener(&tables, port))
        }
        Some(Errno::EACCES | Errno::EPERM) => Listened::Denied,
        Some(Errno::EADDRNOTAVAIL) => Listened::NotOurs,
        Some(_) | None => Listened::Failed(error.to_string()),
    }
}

/// User of the program that listens on a port, from the kernel's tables: state 0A is listening.
fn listener(tables: &str, port: u16) -> Option<u32> {
    tables.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let taken = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (taken == port && *fields.get(3)? == "0A").then(|| fields.get(7)?.parse().ok())?
    })
}

/// The port.
pub(super) fn port(facts: &GatewayFacts) -> Vec<Check> {
    let id = "gateway.port";
    let port = facts.gateway.port;
    let place = format!("{} port {port}", facts.gateway.host);
    let without = "the gateway runs without /health and /ready there";
    vec![match &facts.listened {
        None => Check::info(id, "gateway.health is false", "nobody can ask whether the gateway runs", ""),
        Some(Listened::Free) => Check::ok(id, format!("{place} is free")),
        Some(Listened::Taken(owner)) => {
            let by = match owner {
                Some(uid) if *uid == nix::unistd::geteuid().as_raw() => " by a program of yours",
                Some(0) => " by a program of root's",
                Some(_) => " by a program of another user",
                None => "",
            };
            Check::warn(
                id,
                format!("{place} is taken{by}"),
                format!("if that is not your own gateway: {without}"),
                format!("see who: ss -ltnp 'sport = :{port}'; or set gateway.port to another number"),
            )
        }
        Some(Listened::Denied) => Check::warn(
            id,
            format!("{place} is refused to this user"),
            without,
            "set gateway.port to 1024 or more",
        ),
        Some(Listened::NotOurs) => Check::warn(
            id,
            format!("{} is no address of this machine", facts.gateway.host),
            without,
            "set gateway.host to 127.0.0.1",
        ),
        Some(Listened::Failed(why)) => {
            Check::warn(id, format!("{place}: {why}"), without, "set gateway.host to 127.0.0.1")
        }
    }]
}

/// Who could reach it.
pub(super) fn host(facts: &GatewayFacts) -> Vec<Check> {
    let id = "gateway.host";
    let host = &facts.gateway.host;
    vec![if address(&facts.gateway).is_loopback() || !facts.gateway.health {
        Check::ok(id, format!("{host} is reached from this machine only"))
    } else {
        Check::warn(
            id,
            format!("{host} is reached from the network"),
            "whoever reaches it learns that OxiBot runs here and how",
            "set gateway.host to 127.0.0.1, unless this is a container whose port is published on purpose",
        )
    }]
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn facts(host: &str, listened: Option<Listened>) -> GatewayFacts {
        let health = listened.is_some();
        GatewayFacts { gateway: Gateway { host: host.into(), health, ..Gateway::default() }, listened }
    }

    fn one(checks: Vec<Check>) -> Check {
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn a_port_is_free_or_taken_as_the_kernel_says() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let gateway = Gateway { port, ..Gateway::default() };
        let found = GatewayFacts::gather(gateway.clone());
        assert_eq!(found.listened, Some(Listened::Taken(Some(nix::unistd::geteuid().as_raw()))));
        let check = one(super::port(&found));
        assert_eq!(check.state, State::Warn);
        assert!(check.remedy.contains(&format!("ss -ltnp 'sport = :{port}'")), "{check:?}");
        drop(taken);
        assert_eq!(one(super::port(&GatewayFacts::gather(gateway))).state, State::Ok);
        let foreign = GatewayFacts::gather(Gateway { host: "192.0.2.1".into(), ..Gateway::default() });
        assert_eq!(foreign.listened, Some(Listened::NotOurs));
    }

    #[test]
    fn every_answer_has_its_state() {
        let state = |listened| one(port(&facts("127.0.0.1", listened))).state;
        assert_eq!(state(Some(Listened::Free)), State::Ok);
        assert_eq!(state(None), State::Info);
        for bad in [Listened::Taken(None), Listened::Denied, Listened::NotOurs, Listened::Failed("x".into())]
        {
            assert_eq!(state(Some(bad)), State::Warn);
        }
    }

    #[test]
    fn an_address_of_the_network_is_doubtful() {
        let state = |host, listened| one(super::host(&facts(host, listened))).state;
        for loopback in ["127.0.0.1", "::1", "localhost"] {
            assert_eq!(state(loopback, Some(Listened::Free)), State::Ok);
        }
        assert_eq!(state("0.0.0.0", Some(Listened::Free)), State::Warn);
        assert_eq!(state("0.0.0.0", None), State::Ok, "nothing listens");
    }

    #[test]
    fn listener_is_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 0100007F:1082 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 8\n\
                     1: 0100007F:4966 0100007F:1082 01 00000000:00000000 00:00000000 00000000     7  0 9\n";
        assert_eq!(listener(table, 0x1082), Some(1000));
        assert_eq!(listener(table, 0x4966), None, "connected, not listening");
        assert_eq!(listener("", 1), None);
    }
}
