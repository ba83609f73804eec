//! What the machine says about names: which servers to ask, and names it knows itself. Read once, before confinement.
//!
//! The machine's owner wrote these files. What they lead to is judged like any other address.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use oxibot_proto::reach::HostName;

/// Most bytes read of a file. A hosts file may be long; a device would be endless.
const MAX_FILE: u64 = 1 << 20;
/// Most servers asked, as the C library has it.
const MAX_SERVERS: usize = 3;
const DNS_PORT: u16 = 53;

/// Servers and names of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) servers: Vec<SocketAddr>,
    hosts: Vec<(String, IpAddr)>,
}

impl Local {
    /// From `/etc`. What cannot be read is as good as empty.
    pub(super) fn look() -> Self {
        Self::parse(&text(Path::new("/etc/resolv.conf")), &text(Path::new("/etc/hosts")))
    }

    fn parse(resolver: &str, hosts: &str) -> Self {
        let words = |line: &str| -> Vec<String> {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect()
        };
        let mut servers: Vec<SocketAddr> = resolver
            .lines()
            .filter_map(|line| match words(line).as_slice() {
                [word, address, ..] if word == "nameserver" => address.parse::<IpAddr>().ok(),
                _ => None,
            })
            .take(MAX_SERVERS)
            .map(|address| SocketAddr::new(address, DNS_PORT))
            .collect();
        if servers.is_empty() {
            servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
        }
        let mut known = Vec::new();
        for line in hosts.lines() {
            if let [address, names @ ..] = words(line).as_slice()
                && let Ok(address) = address.parse::<IpAddr>()
            {
                known.extend(names.iter().map(|name| (name.to_ascii_lowercase(), address)));
            }
        }
        Self { servers, hosts: known }
    }

    /// The addresses of a name the machine knows itself.
    pub(super) fn addresses(&self, name: &HostName) -> Vec<IpAddr> {
        self.hosts.iter().filter(|(own, _)| own == name.as_str()).map(|(_, address)| *address).collect()
    }
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_names_are_read() {
        let local = Local::parse(
            "# made by x\nsearch lan\nnameserver 9.9.9.9 # first\nnameserver fe80::1%eth0\nnameserver ::1\noptions x\n",
            "127.0.0.1 localhost\n203.0.113.7 A.org alias # b.org\nnonsense c.org\n",
        );
        assert_eq!(local.servers, ["9.9.9.9:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        let known = |name: &str| local.addresses(&name.parse().unwrap());
        assert_eq!(known("a.org"), ["203.0.113.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(known("alias"), known("a.org"));
        assert!(known("b.org").is_empty() && known("c.org").is_empty());
    }

    #[test]
    fn without_a_file_the_machine_itself_is_asked() {
        assert_eq!(Local::parse("", "").servers, ["127.0.0.1:53".parse().unwrap()]);
    }
}
