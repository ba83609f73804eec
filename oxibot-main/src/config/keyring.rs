//! Secrets from the desktop's keyring (freedesktop.org Secret Service), over D-Bus. Behind the feature `keyring`.
//!
//! Items whose attribute `service` is `oxibot` are read, and their attribute `key` says which secret each is. Once, before
//! main confines itself: a confined main makes no socket, and what was read then serves later reloads too. The little of
//! D-Bus that this takes is written out here, synchronous and without a thread; the libraries for it start threads, and
//! confinement is for a process that has one. It never unlocks, changes or asks for anything.

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::OnceLock;
use std::time::Duration;

use super::environment::Environment;

/// Where the desktop's bus is.
const ADDRESS: &str = "DBUS_SESSION_BUS_ADDRESS";
const SERVICE: &str = "org.freedesktop.secrets";
/// Largest message taken. Prevents whoever answers from filling our memory.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Most items read.
const MAX_ITEMS: usize = 64;
/// How long the bus may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the keyring could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyringError {
    #[error("cannot reach the bus: {0}")]
    Unreachable(String),
    /// What it said is no D-Bus, or not what was asked for.
    #[error("cannot understand the bus: {0}")]
    Nonsense(&'static str),
    /// It answered with an error.
    #[error("the keyring refused: {0}")]
    Refused(String),
    #[error("the keyring is locked")]
    Locked,
}

/// Key of the configuration and its secret.
pub(crate) type Entry = (String, String);

static FOUND: OnceLock<Result<Vec<Entry>, KeyringError>> = OnceLock::new();

/// What the keyring holds for us. Nothing where there is no desktop. Reads once; later calls answer the same.
pub(crate) fn entries(environment: &Environment) -> Result<Vec<Entry>, KeyringError> {
    let address = environment.get(ADDRESS).and_then(|address| address.to_str());
    FOUND.get_or_init(|| address.map_or(Ok(Vec::new()), |address| Bus::open(address)?.entries())).clone()
}

/// A connection to the bus.
struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    fn open(address: &str) -> Result<Self, KeyringError> {
        let unreachable = |error: std::io::Error| KeyringError::Unreachable(error.to_string());
        let stream = connect(address).map_err(unreachable)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(unreachable)?;
        let mut bus = Self { stream, serial: 0 };
        let uid: String =
            nix::unistd::getuid().to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes()).map_err(unreachable)?;
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") && line.len() < 512 {
            bus.stream.read_exact(&mut byte).map_err(unreachable)?;
            line.extend_from_slice(&byte);
        }
        if !line.starts_with(b"OK") {
            return Err(KeyringError::Unreachable("it does not accept us".to_owned()));
        }
        bus.stream.write_all(b"BEGIN\r\n").map_err(unreachable)?;
        let bus_itself = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");
        bus.call(bus_itself, "Hello", "", &Body::default())?;
        Ok(bus)
    }

    fn entries(mut self) -> Result<Vec<Entry>, KeyringError> {
        let service = (SERVICE, "/org/freedesktop/secrets", "org.freedesktop.Secret.Service");
        let mut wanted = Body::default();
        wanted.dictionary(&[("service", "oxibot")]);
        let found = match self.call(service, "SearchItems", "a{ss}", &wanted) {
            // No keyring runs on this desktop, and none can be started.
            Err(KeyringError::Refused(why)) if why.ends_with("ServiceUnknown") => return Ok(Vec::new()),
            found => found?,
        };
        let mut reader = Reader::new(&found);
        let (open, locked) = (reader.paths()?, reader.paths()?);
        if !locked.is_empty() {
            return Err(KeyringError::Locked);
        }
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let mut plain = Body::default();
        plain.string("plain");
        plain.signature("s");
        plain.string("");
        let session = self.call(service, "OpenSession", "sv", &plain)?;
        let mut reader = Reader::new(&session);
        if reader.signature()? != "s" {
            return Err(KeyringError::Nonsense("the session"));
        }
        reader.string()?;
        let session = reader.string()?;
        let mut entries = Vec::new();
        for item in open.iter().take(MAX_ITEMS) {
            let mut property = Body::default();
            property.string("org.freedesktop.Secret.Item");
            property.string("Attributes");
            let at = (SERVICE, item.as_str(), "org.freedesktop.DBus.Properties");
            let attributes = self.call(at, "Get", "ss", &property)?;
            let mut reader = Reader::new(&attributes);
            if reader.signature()? != "a{ss}" {
                return Err(KeyringError::Nonsense("the attributes of an item"));
            }
            let Some((_, key)) = reader.dictionary()?.into_iter().find(|(name, _)| name == "key") else {
                continue;
            };
            let mut in_session = Body::default();
            in_session.string(&session);
            let at = (SERVICE, item.as_str(), "org.freedesktop.Secret.Item");
            let secret = self.call(at, "GetSecret", "o", &in_session)?;
            let mut reader = Reader::new(&secret);
            reader.align(8)?;
            reader.string()?;
            reader.bytes()?;
            let value = reader.bytes()?.to_vec();
            let value =
                String::from_utf8(value).map_err(|_| KeyringError::Nonsense("a secret that is no text"))?;
            entries.push((key, value.trim_end_matches(['\r', '\n']).to_owned()));
        }
        Ok(entries)
    }

    /// Asks, and waits for the answer to that.
    fn call(
        &mut self,
        (destination, path, interface): (&str, &str, &str),
        member: &str,
        signature: &str,
        body: &Body,
    ) -> Result<Vec<u8>, KeyringError> {
        self.serial += 1;
        let mut fields = Body::default();
        for (code, kind, text) in [
            (1, "o", path),
            (2, "s", interface),
            (3, "s", member),
            (6, "s", destination),
            (8, "g", signature),
        ] {
            if kind == "g" && text.is_empty() {
                continue;
            }
            fields.pad(8);
            fields.0.push(code);
            fields.signature(kind);
            if kind == "g" { fields.signature(text) } else { fields.string(text) }
        }
        let mut message = Body(vec![b'l', 1, 0, 1]);
        message.number(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
        message.number(self.serial);
        message.number(u32::try_from(fields.0.len()).unwrap_or(u32::MAX));
        message.0.extend_from_slice(&fields.0);
        message.pad(8);
        message.0.extend_from_slice(&body.0);
        let unreachable = |error: std::io::Error| KeyringError::Unreachable(error.to_string());
        self.stream.write_all(&message.0).map_err(unreachable)?;
        loop {
            let answer = read_message(&mut self.stream)?;
            if answer.in_reply_to != Some(self.serial) {
                // A signal, or a call somebody makes to us.
                continue;
            }
            return match (answer.kind, answer.error) {
                (2, _) => Ok(answer.body),
                (_, Some(name)) => Err(KeyringError::Refused(name)),
                (_, None) => Err(KeyringError::Nonsense("an answer that is none")),
            };
        }
    }
}

fn connect(address: &str) -> std::io::Result<UnixStream> {
    for one in address.split(';') {
        let Some(rest) = one.strip_prefix("unix:") else { continue };
        for part in rest.split(',') {
            match part.split_once('=') {
                Some(("path", path)) if !path.contains('%') => return UnixStream::connect(path),
                Some(("abstract", name)) if !name.contains('%') => {
                    return UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?);
                }
                Some(_) | None => {}
            }
        }
    }
    Err(std::io::Error::other(format!("{ADDRESS} names no Unix socket")))
}

struct Message {
    kind: u8,
    in_reply_to: Option<u32>,
    error: Option<String>,
    body: Vec<u8>,
}

fn read_message(stream: &mut impl std::io::Read) -> Result<Message, KeyringError> {
    let unreachable = |error: std::io::Error| KeyringError::Unreachable(error.to_string());
    let mut head = [0; 16];
    stream.read_exact(&mut head).map_err(unreachable)?;
    let [order, kind, _, version, lengths @ ..] = head;
    let mut reader = Reader::new(&lengths);
    let (body, _serial, fields) = (reader.number()?, reader.number()?, reader.number()?);
    let size = |length: u32| usize::try_from(length).unwrap_or(usize::MAX);
    let (body, fields) = (size(body), size(fields));
    // Lengths before allocation.
    if order != b'l' || version != 1 || body > MAX_MESSAGE || fields > MAX_MESSAGE {
        return Err(KeyringError::Nonsense("a message"));
    }
    let mut rest = vec![0; fields.next_multiple_of(8) + body];
    stream.read_exact(&mut rest).map_err(unreachable)?;
    let (header, tail) = rest.split_at(fields.next_multiple_of(8));
    let mut message = Message { kind, in_reply_to: None, error: None, body: tail.to_vec() };
    let mut reader = Reader::new(header.get(..fields).unwrap_or_default());
    while !reader.is_over() {
        reader.align(8)?;
        let code = reader.byte()?;
        match (code, reader.signature()?.as_str()) {
            (5, "u") => message.in_reply_to = Some(reader.number()?),
            (4, "s") => message.error = Some(reader.string()?),
            (_, "s" | "o") => drop(reader.string()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.number()?),
            _ => return Err(KeyringError::Nonsense("a field of a header")),
        }
    }
    Ok(message)
}

/// Values as they go out, little-endian, each at its alignment.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.pad(4);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn dictionary(&mut self, pairs: &[(&str, &str)]) {
        let mut inside = Self::default();
        for (name, value) in pairs {
            inside.pad(8);
            inside.string(name);
            inside.string(value);
        }
        self.number(u32::try_from(inside.0.len()).unwrap_or(u32::MAX));
        self.pad(8);
        self.0.extend_from_slice(&inside.0);
    }
}

/// Values as they come in. Whatever does not fit is an error.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn align(&mut self, to: usize) -> Result<(), KeyringError> {
        let skipped = self.at.next_multiple_of(to) - self.at;
        self.take(skipped).map(drop)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], KeyringError> {
        let end = self.at.checked_add(count).ok_or(KeyringError::Nonsense("a length"))?;
        let taken = self.bytes.get(self.at..end).ok_or(KeyringError::Nonsense("a length"))?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, KeyringError> {
        self.take(1)?.first().copied().ok_or(KeyringError::Nonsense("a length"))
    }

    fn number(&mut self) -> Result<u32, KeyringError> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().map_err(|_| KeyringError::Nonsense("a number"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn bytes(&mut self) -> Result<&'a [u8], KeyringError> {
        let count = usize::try_from(self.number()?).map_err(|_| KeyringError::Nonsense("a length"))?;
        self.take(count)
    }

    fn string(&mut self) -> Result<String, KeyringError> {
        let text = self.bytes()?.to_vec();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| KeyringError::Nonsense("a text"))
    }

    fn signature(&mut self) -> Result<String, KeyringError> {
        let count = usize::from(self.byte()?);
        let text = self.take(count)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| KeyringError::Nonsense("a signature"))
    }

    fn paths(&mut self) -> Result<Vec<String>, KeyringError> {
        let end = usize::try_from(self.number()?).unwrap_or(usize::MAX).saturating_add(self.at);
        let mut paths = Vec::new();
        while self.at < end.min(self.bytes.len()) {
            paths.push(self.string()?);
        }
        Ok(paths)
    }

    fn dictionary(&mut self) -> Result<Vec<(String, String)>, KeyringError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        self.align(8)?;
        let end = length.saturating_add(self.at);
        let mut pairs = Vec::new();
        while self.at < end.min(self.bytes.len()) {
            self.align(8)?;
            pairs.push((self.string()?, self.string()?));
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut body = Body::default();
        body.dictionary(&[("service", "oxibot"), ("key", "providers.a.apiKey")]);
        body.string("plain");
        body.number(7);
        let mut reader = Reader::new(&body.0);
        let pairs = reader.dictionary().unwrap();
        assert_eq!(pairs[1], ("key".to_owned(), "providers.a.apiKey".to_owned()));
        assert_eq!((reader.string().unwrap().as_str(), reader.number().unwrap()), ("plain", 7));
        assert!(reader.is_over());
    }

    #[test]
    fn message_that_promises_too_much_is_refused_before_it_is_read() {
        let mut head = vec![b'l', 2, 0, 1];
        for number in [u32::MAX, 1, 8] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        assert_eq!(read_message(&mut head.as_slice()).err(), Some(KeyringError::Nonsense("a message")));
    }

    /// Ends what it started.
    struct Ended(Vec<std::process::Child>);

    impl Drop for Ended {
        fn drop(&mut self) {
            for child in &mut self.0 {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// A real bus and a real keyring of its own. The feature's tests need the packages dbus, gnome-keyring and
    /// libsecret-tools.
    #[test]
    fn real_keyring_gives_what_was_stored_for_us_and_nothing_else() {
        use std::process::{Command, Stdio};

        let directory = tempfile::tempdir().unwrap();
        let bus = directory.path().join("bus");
        let address = format!("unix:path={}", bus.display());
        let command = |program: &str| {
            let mut command = Command::new(program);
            command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory.path());
            for variable in ["XDG_DATA_HOME", "XDG_RUNTIME_DIR"] {
                command.env(variable, directory.path());
            }
            command.env(ADDRESS, &address).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let said = |child: &mut std::process::Child, text: &str| {
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        };
        let daemon = command("dbus-daemon")
            .args(["--session", "--nofork", &format!("--address={address}")])
            .spawn()
            .expect("the package dbus");
        let mut ended = Ended(vec![daemon]);
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while !bus.exists() {
            assert!(std::time::Instant::now() < until, "the bus comes up");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Before anybody asks for it: the bus would start one that is locked.
        let mut keyring = command("gnome-keyring-daemon")
            .args(["--foreground", "--components=secrets", "--unlock"])
            .spawn()
            .expect("the package gnome-keyring");
        said(&mut keyring, "password");
        ended.0.push(keyring);
        for (service, key, secret) in [
            ("oxibot", "providers.openrouter.apiKey", "sk-from the keyring"),
            ("oxibot", "no.such.key", "x"),
            ("other", "providers.openai.apiKey", "not ours"),
        ] {
            loop {
                let mut store = command("secret-tool")
                    .args(["store", "--label=test", "service", service, "key", key])
                    .spawn()
                    .expect("the package libsecret-tools");
                said(&mut store, secret);
                if store.wait().unwrap().success() {
                    break;
                }
                assert!(std::time::Instant::now() < until, "the keyring comes up");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let mut found = Bus::open(&address).unwrap().entries().unwrap();
        found.sort();
        let ours = ("providers.openrouter.apiKey".to_owned(), "sk-from the keyring".to_owned());
        assert_eq!(found, [("no.such.key".to_owned(), "x".to_owned()), ours]);
        // As the configuration sees it: one is read, one is a mistake.
        let environment =
            Environment::of(&[(ADDRESS, &address), ("HOME", directory.path().to_str().unwrap())]);
        let options = crate::config::Options { config: None, home: Some(directory.path().join("home")) };
        let error = crate::config::load(&options, &environment).unwrap_err().to_string();
        assert!(error.contains("the keyring") && error.contains("no.such.key"), "{error}");
        assert!(!error.contains("sk-from"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_message(&mut bytes.as_slice());
            let mut reader = Reader::new(&bytes);
            let _ = (reader.paths(), reader.dictionary(), reader.string());
        }
    }
}
