//! From a judged name to addresses: the system's name servers, asked by UDP, and by TCP where an answer is too long.
//!
//! Servers and `/etc/hosts` are read once, at the start. Search domains are not used: a name is what it says.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use oxibot_proto::web::HostName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dns::{self, Answer, Kind};

const PORT: u16 = 53;
/// Time for one server to answer once, and how often all are asked.
const PATIENCE: Duration = Duration::from_secs(3);
const ROUNDS: usize = 2;
const MAX_SERVERS: usize = 3;
/// Longest answer by UDP without extensions, with room for servers that send more.
const MAX_PACKET: usize = 4096;
/// Strays tolerated while waiting for an answer; who sends more is guessing our number.
const MAX_STRAYS: usize = 16;
/// Largest `/etc/hosts` and `/etc/resolv.conf` looked at.
const MAX_FILE: usize = 256 * 1024;

/// A name could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("there is no such name")]
    Unknown,
    #[error("the name has no address")]
    Addressless,
    #[error("no name server answers: {0}")]
    Unanswered(String),
}

/// What is known of the system's name service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
    hosts: Vec<(String, IpAddr)>,
}

impl Resolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`. Without the former it asks this machine, as libc does.
    pub(crate) fn from_system() -> Self {
        Self { servers: servers(&read("/etc/resolv.conf")), hosts: hosts(&read("/etc/hosts")) }
    }

    /// All addresses of a name, IPv4 first, never empty.
    pub(crate) async fn resolve(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        if name.is_localhost() {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let known: Vec<IpAddr> =
            self.hosts.iter().filter(|(host, _)| host == name.as_str()).map(|(_, at)| *at).collect();
        if !known.is_empty() {
            return Ok(known);
        }
        let (v4, v6) = tokio::join!(self.ask(name.as_str(), Kind::A), self.ask(name.as_str(), Kind::Aaaa));
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => {
                let addresses: Vec<IpAddr> = [v4, v6].into_iter().flatten().flatten().collect();
                if addresses.is_empty() { Err(ResolveError::Addressless) } else { Ok(addresses) }
            }
        }
    }

    async fn ask(&self, name: &str, kind: Kind) -> Result<Vec<IpAddr>, ResolveError> {
        let mut why = "none is configured".to_owned();
        for _ in 0..ROUNDS {
            for server in &self.servers {
                let answered = timeout(PATIENCE, ask_server(*server, name, kind)).await;
                match answered {
                    Ok(Ok(Answer::Addresses(addresses))) => return Ok(addresses),
                    Ok(Ok(Answer::NoSuchName)) => return Err(ResolveError::Unknown),
                    Ok(Ok(Answer::Refused(code))) => {
                        why = format!("{} answers with code {code}", server.ip())
                    }
                    Ok(Ok(Answer::Truncated)) => why = format!("{} gives no whole answer", server.ip()),
                    Ok(Err(error)) => why = format!("{}: {error}", server.ip()),
                    Err(_) => why = format!("{} does not answer", server.ip()),
                }
            }
        }
        Err(ResolveError::Unanswered(why))
    }
}

async fn ask_server(server: SocketAddr, name: &str, kind: Kind) -> std::io::Result<Answer> {
    let id = unpredictable();
    let question = dns::question(id, name, kind)
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "the name is too long"))?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected: answers of others do not arrive.
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; MAX_PACKET];
    for _ in 0..MAX_STRAYS {
        let length = socket.recv(&mut buffer).await?;
        match dns::answer(buffer.get(..length).unwrap_or_default(), id, name, kind) {
            Ok(Answer::Truncated) => return ask_by_tcp(server, id, &question, name, kind).await,
            Ok(answer) => return Ok(answer),
            Err(dns::Stray) => {}
        }
    }
    Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "it sends answers to other questions"))
}

async fn ask_by_tcp(
    server: SocketAddr,
    id: u16,
    question: &[u8],
    name: &str,
    kind: Kind,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    dns::answer(&answer, id, name, kind)
        .map_err(|stray| std::io::Error::new(std::io::ErrorKind::InvalidData, stray.to_string()))
}

/// A number nobody outside can guess: a keyed hash whose key std takes from the kernel.
fn unpredictable() -> u16 {
    let hash = RandomState::new().hash_one(std::time::Instant::now());
    (hash >> 24 & 0xffff) as u16
}

fn read(path: &str) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(..MAX_FILE).unwrap_or(&bytes)).into_owned()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(['#', ';']).next().unwrap_or_default().split_whitespace()
}

fn servers(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = words(line);
            let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
            Some(SocketAddr::new(address.parse().ok()?, PORT))
        })
        .take(MAX_SERVERS)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    servers
}

fn hosts(text: &str) -> Vec<(String, IpAddr)> {
    text.lines()
        .filter_map(|line| {
            let mut words = words(line);
            let address: IpAddr = words.next()?.parse().ok()?;
            Some(words.map(|name| (name.to_ascii_lowercase(), address)).collect::<Vec<_>>())
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_files_are_read_as_libc_reads_them() {
        let text = "# x\nnameserver 10.0.0.1\nsearch example.com\n nameserver ::1 # y\nnameserver nonsense\nnameserver 1.1.1.1\nnameserver 9.9.9.9\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:53", "[::1]:53", "1.1.1.1:53"]);
        assert_eq!(servers("")[0].to_string(), "127.0.0.1:53");
        let found = hosts("127.0.0.1 localhost\n10.0.0.2\tWiki.corp wiki # z\nbad line\n");
        assert_eq!(found[1], ("wiki.corp".to_owned(), "10.0.0.2".parse().unwrap()));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn question_numbers_differ() {
        let numbers: std::collections::BTreeSet<u16> = (0..100).map(|_| unpredictable()).collect();
        assert!(numbers.len() > 90, "{numbers:?}");
    }
}
