//! A mail host on loopback: Dovecot for mailboxes, Postfix for what comes in and goes out, both from Debian, with TLS of
//! an authority of its own.
//!
//! Nothing of the machine's own mail is touched: configuration, queue, sockets and mailboxes lie in a directory of the
//! test, ports are free ones, and both servers are children that end with it. Mail from outside comes in at
//! [`MailHost::from_outside`], where Postfix writes what it found out about the sender into `Authentication-Results`, as a
//! provider does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a server that cannot go on fails its test by panicking"
)]

mod letter;
mod servers;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub use letter::Letter;

/// The bot's address, and its password at both servers.
pub const BOT: &str = "bot@example.net";
/// Its password.
pub const PASSWORD: &str = "pw-5d3f-mail";
/// Name of the server in `Authentication-Results`.
pub const AUTHSERV: &str = "mx.example.net";
/// How long a server may take to start, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both servers.
pub struct MailHost {
    directory: tempfile::TempDir,
    dovecot: Option<Child>,
    postfix: Option<Child>,
    ports: Ports,
    idle: bool,
}

/// Where they listen.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// IMAP, TLS from the first byte.
    pub imaps: u16,
    /// Delivery to mailboxes.
    pub lmtp: u16,
    /// Handing in, with STARTTLS.
    pub submission: u16,
    /// Handing in, TLS from the first byte.
    pub submissions: u16,
    /// From outside.
    pub mx: u16,
}

/// What the machine lacks to run one, if anything.
#[must_use]
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("Dovecot and Postfix give each of their parts a user, which takes root".to_owned());
    }
    let programs = ["/usr/sbin/dovecot", "/usr/lib/dovecot/lmtp", "/usr/sbin/postfix", "/usr/bin/openssl"];
    let absent: Vec<&str> = programs.into_iter().filter(|path| !Path::new(path).exists()).collect();
    (!absent.is_empty()).then(|| {
        format!("{} missing: install dovecot-imapd, dovecot-lmtpd, postfix and openssl", absent.join(", "))
    })
}

impl MailHost {
    /// Starts both servers. `idle`: the IMAP server tells by itself that something came.
    ///
    /// # Panics
    /// When they do not start.
    #[must_use]
    pub fn start(idle: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("oxibot-mail-").tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let ports = Ports {
            imaps: free_port(),
            lmtp: free_port(),
            submission: free_port(),
            submissions: free_port(),
            mx: free_port(),
        };
        servers::certificates(directory.path());
        let mut host = Self { directory, dovecot: None, postfix: None, ports, idle };
        host.start_imap();
        host.start_smtp();
        host
    }

    /// Where they listen.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// The authority that signed their certificates.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("tls/ca.pem")
    }

    /// Starts the IMAP server, again if need be.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_imap(&mut self) {
        self.dovecot = Some(servers::dovecot(self.directory.path(), self.ports, self.idle));
        self.listening(self.ports.imaps);
        self.listening(self.ports.lmtp);
    }

    /// Ends the IMAP server and every connection of it.
    pub fn stop_imap(&mut self) {
        end(&mut self.dovecot);
    }

    /// Starts the SMTP server, again if need be.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_smtp(&mut self) {
        self.postfix = Some(servers::postfix(self.directory.path(), self.ports));
        self.listening(self.ports.submission);
        self.listening(self.ports.mx);
    }

    /// Ends the SMTP server.
    pub fn stop_smtp(&mut self) {
        end(&mut self.postfix);
    }

    /// Processes that serve IMAP connections of people who are logged in.
    #[must_use]
    pub fn imap_processes(&self) -> Vec<i32> {
        let root = self.dovecot.as_ref().map_or(0, |child| i32::try_from(child.id()).unwrap());
        crate::processes::tree(root)
            .into_iter()
            .filter(|process| {
                process.command.starts_with("dovecot/imap") && !process.command.contains("login")
            })
            .map(|process| process.pid)
            .collect()
    }

    /// Throws the numbering of a mailbox away, as a server does that was moved. The IMAP server must be stopped.
    ///
    /// # Panics
    /// When it runs, or the mailbox cannot be changed.
    pub fn renumber(&self, address: &str) {
        assert!(self.dovecot.is_none(), "the server runs");
        let mailbox = self.mailbox(address);
        for entry in std::fs::read_dir(&mailbox).unwrap().map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with("dovecot") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Hands a mail to the server as the rest of the world does. `envelope` is who the transport says it is from.
    ///
    /// # Panics
    /// When it is not taken.
    pub fn from_outside(&self, envelope: &str, text: &str) {
        self.transact(self.ports.mx, "EHLO outside.example", envelope, BOT, text);
    }

    /// Puts a mail into the bot's mailbox as it is, past everything that would look at it.
    ///
    /// # Panics
    /// When it is not taken.
    pub fn put(&self, envelope: &str, text: &str) {
        self.transact(self.ports.lmtp, "LHLO test.example", envelope, BOT, text);
    }

    fn transact(&self, port: u16, hello: &str, from: &str, to: &str, text: &str) {
        let stream =
            TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut expect = |code: char, said: &str| loop {
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            assert!(line.starts_with(code), "{said}: {line:?} {}", self.log());
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        };
        expect('2', "greeting");
        let mut say = |line: &str, code: char| {
            write!(&stream, "{line}\r\n").unwrap();
            expect(code, line);
        };
        say(hello, '2');
        say(&format!("MAIL FROM:<{from}>"), '2');
        say(&format!("RCPT TO:<{to}>"), '2');
        say("DATA", '3');
        let text = text.replace("\r\n", "\n").replace('\n', "\r\n").replace("\r\n.", "\r\n..");
        say(&format!("{text}\r\n."), '2');
        say("QUIT", '2');
    }

    /// Mails in somebody's mailbox, in the order they were delivered.
    ///
    /// # Panics
    /// When a mail cannot be read.
    #[must_use]
    pub fn mails(&self, address: &str) -> Vec<Letter> {
        let mut files: Vec<PathBuf> = ["new", "cur"]
            .iter()
            .filter_map(|part| std::fs::read_dir(self.mailbox(address).join(part)).ok())
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        // Named by when they were delivered; a mail that was read meanwhile has another name and is read again.
        files.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
        files.iter().filter_map(|path| Letter::read(path)).collect()
    }

    fn mailbox(&self, address: &str) -> PathBuf {
        self.directory.path().join("mail").join(address)
    }

    /// What both servers wrote into their logs.
    #[must_use]
    pub fn log(&self) -> String {
        ["dovecot.log", "postfix.log"]
            .iter()
            .map(|name| std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default())
            .collect()
    }

    fn listening(&self, port: u16) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "port {port} never listens: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for MailHost {
    fn drop(&mut self) {
        self.stop_smtp();
        self.stop_imap();
    }
}

/// Ends a server and waits for it and everything below it.
fn end(server: &mut Option<Child>) {
    let Some(mut child) = server.take() else { return };
    let pid = i32::try_from(child.id()).unwrap();
    let all: Vec<i32> = crate::processes::tree(pid).into_iter().map(|process| process.pid).collect();
    let signal = |pid: i32, signal| {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    };
    signal(pid, nix::sys::signal::Signal::SIGTERM);
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    for pid in all {
        // What was stopped, or belongs to a session of its own, does not hear the first one.
        signal(pid, nix::sys::signal::Signal::SIGKILL);
    }
    let _ = child.wait();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a program that must succeed.
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", crate::fixture::describe(&output));
}
