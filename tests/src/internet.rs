//! An internet of the test's own: a network namespace with public addresses on its loopback, a name server with whatever
//! zone the test wants, and real servers. Nothing in it reaches the machine's network, and nothing of the machine is in it.
//!
//! What runs in it is started through `nsenter`; servers are threads of the test that entered the namespace.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::fixture::skip;

/// Where the namespace's name server is.
const NAME_SERVER: &str = "127.0.0.53";
/// How long a server waits for more of a request. What was sent is there at once.
const QUIET: Duration = Duration::from_millis(400);

/// Names and what they lead to: each question gets the next list, the last one for ever.
pub type Zone = BTreeMap<&'static str, Vec<Vec<IpAddr>>>;

/// A network namespace that is there as long as this is.
pub struct Internet {
    holder: Child,
    _directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What a server was sent, one entry a connection.
#[derive(Clone, Default)]
pub struct Contacts {
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    open: Arc<AtomicUsize>,
}

impl Contacts {
    /// What came, in the order of the connections.
    ///
    /// # Panics
    /// When a server thread panicked.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let contacts = self.sent.lock().expect("contacts");
        contacts.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// Connections that are not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn begin(&self) -> usize {
        self.open.fetch_add(1, Ordering::SeqCst);
        let mut contacts = self.sent.lock().expect("contacts");
        contacts.push(Vec::new());
        contacts.len() - 1
    }

    fn add(&self, number: usize, bytes: &[u8]) {
        if let Some(contact) = self.sent.lock().expect("contacts").get_mut(number) {
            contact.extend_from_slice(bytes);
        }
    }
}

/// How a server answers.
#[derive(Clone, Copy)]
pub enum Answers {
    /// One HTTP answer with this body, then the end.
    Http(&'static str),
    /// Every byte comes back.
    Echo,
    /// It takes the connection and says nothing.
    Silence,
}

impl Internet {
    /// Makes it, with these addresses and names; `None` where this machine cannot, which is said.
    ///
    /// # Panics
    /// When it cannot be made although it should.
    #[must_use]
    pub fn new(test: &str, addresses: &[&str], zone: Zone) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip(test, "needs root to make a network namespace with public addresses");
            return None;
        }
        let directory = tempfile::tempdir().expect("directory");
        let (resolver, hosts) = (directory.path().join("resolv.conf"), directory.path().join("hosts"));
        std::fs::write(&resolver, format!("nameserver {NAME_SERVER}\n")).expect("resolv.conf");
        std::fs::write(&hosts, "127.0.0.1 localhost\n").expect("hosts");
        let mut script = String::from("set -e; ip link set lo up\n");
        for address in addresses {
            let length = if address.contains(':') { 128 } else { 32 };
            script.push_str(&format!("ip addr add {address}/{length} dev lo nodad 2>/dev/null || ip addr add {address}/{length} dev lo\n"));
        }
        script.push_str(&format!(
            "mount --bind {} /etc/resolv.conf\nmount --bind {} /etc/hosts\necho ready\nexec cat\n",
            resolver.display(),
            hosts.display()
        ));
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "--", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "the namespace was not made");
        let internet = Self { holder, _directory: directory, asked: Arc::default() };
        internet.serve_names(zone);
        Some(internet)
    }

    /// Names that were asked for.
    ///
    /// # Panics
    /// When the server panicked.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("asked").clone()
    }

    /// The same command, inside.
    #[must_use]
    pub fn inside(&self, command: &Command) -> Command {
        let own = |kind: &str| {
            format!("--{kind}=/proc/{}/ns/{}", self.holder.id(), if kind == "mount" { "mnt" } else { kind })
        };
        let mut inside = Command::new("nsenter");
        inside.args([own("net"), own("mount")]).arg("--").arg(command.get_program()).args(command.get_args());
        inside.env_clear().stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                inside.env(name, value);
            }
        }
        if let Some(directory) = command.get_current_dir() {
            inside.current_dir(directory);
        }
        inside
    }

    /// A thread inside.
    fn thread(&self, work: impl FnOnce() + Send + 'static) {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder.id())).expect("the namespace");
        std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work();
        });
    }

    /// Runs work inside and answers what came of it.
    fn done_inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = std::sync::mpsc::channel();
        self.thread(move || {
            let _ = tell.send(work());
        });
        told.recv().expect("work inside")
    }

    fn serve_names(&self, zone: Zone) {
        let socket = self.done_inside(|| UdpSocket::bind((NAME_SERVER, 53)).expect("port 53"));
        let asked = Arc::clone(&self.asked);
        let mut zone = zone;
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                let Some(answer) = answer(&buffer[..count], &mut zone, &asked) else { continue };
                let _ = socket.send_to(&answer, from);
            }
        });
    }

    /// A server at an address; what it is sent is recorded.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn listen(&self, address: &str, answers: Answers) -> Contacts {
        let address: SocketAddr = address.parse().expect("an address");
        let listener = self.done_inside(move || TcpListener::bind(address).expect("a free port"));
        let contacts = Contacts::default();
        let recorded = contacts.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let contacts = recorded.clone();
                let number = contacts.begin();
                std::thread::spawn(move || {
                    converse(stream, answers, &contacts, number);
                    contacts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        contacts
    }

    /// Files of a directory over TLS, by Python, at an address. The certificate is for `*.example.org` and
    /// `example.org`; its authority is written to `authority`. Ends with the namespace.
    ///
    /// # Panics
    /// When Python or openssl are not there or fail.
    pub fn serve_files(&mut self, address: &str, files: &Path, authority: &Path) -> Server {
        let keys = tempfile::tempdir().expect("directory");
        let script = include_str!("internet/certificates.sh");
        let made =
            Command::new("sh").args(["-ec", script]).current_dir(keys.path()).output().expect("sh starts");
        assert!(made.status.success(), "{}", crate::fixture::describe(&made));
        std::fs::copy(keys.path().join("authority.pem"), authority).expect("authority");
        let (host, port) = address.rsplit_once(':').expect("address with a port");
        let mut python = Command::new("python3");
        python.args(["-c", include_str!("internet/files.py"), host, port]).arg(files).arg(keys.path());
        python.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")));
        let mut child =
            self.inside(&python).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("python starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "the file server does not serve");
        Server { child, _keys: keys }
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A process that serves until this is dropped.
pub struct Server {
    child: Child,
    _keys: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn converse(mut stream: TcpStream, answers: Answers, contacts: &Contacts, number: usize) {
    let mut buffer = [0; 16 * 1024];
    match answers {
        Answers::Http(body) => {
            let _ = stream.set_read_timeout(Some(QUIET));
            while let Ok(count) = stream.read(&mut buffer)
                && count > 0
            {
                contacts.add(number, &buffer[..count]);
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
        Answers::Echo => {
            while let Ok(count) = stream.read(&mut buffer)
                && count > 0
            {
                contacts.add(number, &buffer[..count]);
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        }
        Answers::Silence => {
            while let Ok(count) = stream.read(&mut buffer)
                && count > 0
            {
                contacts.add(number, &buffer[..count]);
            }
        }
    }
}

/// The answer of an authoritative server to one question.
fn answer(question: &[u8], zone: &mut Zone, asked: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    let name = labels.join(".");
    let kind = u16::from_be_bytes([*question.get(at + 1)?, *question.get(at + 2)?]);
    asked.lock().ok()?.push(name.clone());
    let known = zone.get_mut(name.as_str());
    let code = if known.is_some() { 0 } else { 3 };
    let addresses: Vec<IpAddr> = match known {
        // Questions for IPv4 come with one for IPv6: only the former turns the page.
        Some(lists) if lists.len() > 1 && kind == 1 => lists.remove(0),
        Some(lists) => lists.first().cloned().unwrap_or_default(),
        None => Vec::new(),
    };
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(address), 1) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), 28) => Some(address.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut bytes = question.get(..2)?.to_vec();
    bytes.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).ok()?, 0, 0, 0, 0]);
    bytes.extend(question.get(12..at + 5)?);
    for record in records {
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 1, 0, u8::try_from(record.len()).ok()?]);
        bytes.extend(record);
    }
    Some(bytes)
}
