//! Why a connection was refused, in words: for the program that asked, and for the result of its call.

use crate::wire::{NetFailure, NetRule};

/// The id of a rule, as it stands in results and in the audit log.
pub(crate) fn id(rule: NetRule) -> &'static str {
    match rule {
        NetRule::Name => "net.name",
        NetRule::Host => "net.host",
        NetRule::Port => "net.port",
        NetRule::Address => "net.address",
        NetRule::Request => "net.request",
        NetRule::Limit => "net.limit",
    }
}

/// Reason, rule, and what to do instead. `host` is printable.
pub(crate) fn refused(rule: NetRule, host: &str, port: u16) -> String {
    let (why, instead) = match rule {
        NetRule::Name => (
            format!("`{host}` is not the plain name of a host; addresses, in any spelling, are not reached"),
            "give the name of a host that tools.bash.network lists".to_owned(),
        ),
        NetRule::Host => (
            format!("{host} is not among the hosts of tools.bash.network"),
            "do without it, or ask the user to add it there".to_owned(),
        ),
        NetRule::Port => (
            format!("tools.bash.network lists {host}, but not its port {port}"),
            format!("use a port it lists, or ask the user to add {host}:{port} there"),
        ),
        NetRule::Address => (
            format!("{host}, which tools.bash.network lists, leads to an address that is not public"),
            "only public addresses are reached; ask the user".to_owned(),
        ),
        NetRule::Request => (
            "the proxy of tools.bash.network does not understand the request, or could in two ways"
                .to_owned(),
            "speak HTTP/1.1 with an http:// address, CONNECT, or SOCKS5 with a host's name".to_owned(),
        ),
        NetRule::Limit => (
            "this call has used up what it may transfer or how many hosts it may reach by tools.bash.network"
                .to_owned(),
            "continue in another call".to_owned(),
        ),
    };
    format!("{why} (rule {}); {instead}", id(rule))
}

/// Why a host that may be reached was not.
pub(crate) fn failed(failure: NetFailure, host: &str, port: u16) -> String {
    match failure {
        NetFailure::NoSuchName => format!("there is no host {host}"),
        NetFailure::NoAddress => format!("{host} has no address"),
        NetFailure::Lookup => format!("no name server told the address of {host}"),
        NetFailure::Connect => format!("{host} does not accept connections on port {port}"),
        NetFailure::Silent => format!("{host} did not answer on port {port} in time"),
    }
}
