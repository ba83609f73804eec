//! What attacks are aimed at: planted by whoever asks, shown to be reachable without a wall, and removed afterwards.
//!
//! Each target is tried by its maker first. A target that cannot be reached even so is left out and named, and attacks
//! that need it are not tried: a wall must not be praised for what was never there. What is planted is open to
//! everybody, so that it is the wall that refuses it and not the permissions of a file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Result;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::{Bound, processes};
use crate::sys::Segment;
use crate::wire::Profile;

/// Content of the planted file.
const SECRET: &str = "planted\n";

/// One thing attacks can be aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named as they are")]
pub enum Target {
    /// A file outside every grant that anybody may read and write.
    Secret,
    /// A program there.
    Program,
    /// The directory they are in.
    Outside,
    /// A name in it that is not taken.
    Unused,
    /// Another workspace's file.
    OtherWorkspace,
    /// A TCP port of the host's loopback.
    Port,
    DatagramPort,
    Abstract,
    AbstractDatagram,
    /// Sockets in the planted directory.
    Socket,
    DatagramSocket,
    /// A process outside: its number and its start.
    Process,
    /// A System V segment.
    Segment,
    /// The toolhost's own.
    Home,
    Config,
    State,
    AuditLog,
    AuditKey,
    RunDirectory,
    ControlSocket,
    StopFile,
    /// A name beside the toolhost's programs that is not taken.
    BesidePrograms,
    /// Limits to be exceeded.
    Processes,
    OpenFiles,
    FileSizeMb,
    MemoryMb,
    /// Size of the private `/tmp`, the largest of all profiles.
    TmpMb,
}

macro_rules! names {
    ($($target:ident = $name:literal,)*) => {
        impl Target {
            /// As a word of an attacker's argument vector.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$target => $name,)* }
            }

            fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$target),)* _ => None }
            }

            /// As a list of its own.
            pub(super) const fn alone(self) -> &'static [Target] {
                match self { $(Self::$target => &[Self::$target],)* }
            }
        }
    };
}

names! {
    Secret = "secret",
    Program = "program",
    Outside = "outside",
    Unused = "unused",
    OtherWorkspace = "other-workspace",
    Port = "port",
    DatagramPort = "datagram-port",
    Abstract = "abstract",
    AbstractDatagram = "abstract-datagram",
    Socket = "socket",
    DatagramSocket = "datagram-socket",
    Process = "process",
    Segment = "segment",
    Home = "home",
    Config = "config",
    State = "state",
    AuditLog = "audit-log",
    AuditKey = "audit-key",
    RunDirectory = "run-directory",
    ControlSocket = "control-socket",
    StopFile = "stop-file",
    BesidePrograms = "beside-programs",
    Processes = "processes",
    OpenFiles = "open-files",
    FileSizeMb = "file-size-mb",
    MemoryMb = "memory-mb",
    TmpMb = "tmp-mb",
}

/// Targets and, on their maker's side, what keeps them there.
#[derive(Debug, Default)]
pub struct Targets {
    values: BTreeMap<Target, String>,
    missing: Vec<(&'static str, String)>,
    planted: Option<PathBuf>,
    streams: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    listeners: Vec<UnixListener>,
    receivers: Vec<UnixDatagram>,
    segment: Option<Segment>,
}

/// Where to look for targets that are there already.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// OxiBot's home.
    pub home: Option<&'a Path>,
    /// The configuration file.
    pub config: Option<&'a Path>,
    /// The audit log of this supervisor.
    pub log: Option<&'a Path>,
    /// Every profile that may be attacked with these targets.
    pub profiles: &'a [&'a Profile],
}

impl Targets {
    pub(super) fn get(&self, target: Target) -> Option<&str> {
        self.values.get(&target).map(String::as_str)
    }

    /// Those that could not be made or reached, and why.
    #[must_use]
    pub fn missing(&self) -> &[(&'static str, String)] {
        &self.missing
    }

    /// Whether everything an attack needs is there.
    #[must_use]
    pub fn serve(&self, needs: &[Target]) -> bool {
        needs.iter().all(|target| self.values.contains_key(target))
    }

    pub(super) fn words(&self, needs: &[Target]) -> Vec<String> {
        let mut needs = needs.to_vec();
        needs.sort_unstable();
        needs.dedup();
        needs
            .into_iter()
            .filter_map(|target| Some(format!("{}={}", target.name(), self.get(target)?)))
            .collect()
    }

    pub(super) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let values = words
            .filter_map(|word| word.split_once('='))
            .filter_map(|(name, value)| Some((Target::named(name)?, value.to_owned())))
            .collect();
        let mut targets = Self::default();
        targets.values = values;
        targets
    }

    /// Makes them. What cannot be made is missing, which is not an error here.
    #[must_use]
    pub fn prepare(around: Around<'_>) -> Self {
        let mut targets = Self::default();
        for bound in [Bound::Processes, Bound::OpenFiles, Bound::FileSize, Bound::Memory] {
            targets.values.insert(bound.target(), bound.value().to_string());
        }
        if let Some(most) = around.profiles.iter().map(|profile| profile.tmp_mb).max() {
            targets.values.insert(Target::TmpMb, most.to_string());
        }
        let own = std::process::id().to_string();
        match processes::start_of(&own) {
            Some(start) => drop(targets.values.insert(Target::Process, format!("{own}:{start}"))),
            None => targets.missing.push(("a process", "/proc cannot be read".to_owned())),
        }
        targets.try_to_make("planted files", |targets| targets.plant(around.profiles));
        targets.try_to_make("a TCP port", Self::listen);
        targets.try_to_make("a UDP port", Self::receive);
        targets.try_to_make("abstract sockets", Self::offer_abstract);
        targets.try_to_make("a System V segment", |targets| {
            let segment = Segment::new()?;
            targets.values.insert(Target::Segment, segment.id().to_string());
            targets.segment = Some(segment);
            Ok(())
        });
        targets.find(around);
        targets
    }

    fn try_to_make(&mut self, what: &'static str, make: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = make(self) {
            self.missing.push((what, error.to_string()));
        }
    }

    /// A directory that no profile grants, with a file, a program and sockets in it.
    fn plant(&mut self, profiles: &[&Profile]) -> Result<()> {
        let place = place(profiles).ok_or_else(|| {
            std::io::Error::other("/tmp, /dev/shm and /run are all granted to calls or not writable")
        })?;
        self.planted = Some(place.clone());
        open_to_all(&place, 0o777)?;
        let text = |name: &str| place.join(name).to_string_lossy().into_owned();
        let (secret, program) = (place.join("secret"), place.join("program"));
        fs::write(&secret, SECRET)?;
        open_to_all(&secret, 0o666)?;
        fs::write(&program, "#!/bin/sh\n")?;
        open_to_all(&program, 0o755)?;
        fs::create_dir(place.join("workspace"))?;
        open_to_all(&place.join("workspace"), 0o777)?;
        let other = place.join("workspace/file");
        fs::write(&other, SECRET)?;
        open_to_all(&other, 0o666)?;
        // The control: without a wall they can be read.
        if fs::read_to_string(&secret)? != SECRET || fs::read_to_string(&other)? != SECRET {
            return Err(std::io::Error::other("what was planted is not there"));
        }
        let stream = UnixListener::bind(place.join("stream"))?;
        let datagram = UnixDatagram::bind(place.join("datagram"))?;
        open_to_all(&place.join("stream"), 0o666)?;
        open_to_all(&place.join("datagram"), 0o666)?;
        UnixStream::connect(place.join("stream")).map(drop)?;
        stream.accept().map(drop)?;
        for (target, name) in [
            (Target::Outside, ""),
            (Target::Secret, "secret"),
            (Target::Program, "program"),
            (Target::Unused, "unused"),
            (Target::OtherWorkspace, "workspace/file"),
            (Target::Socket, "stream"),
            (Target::DatagramSocket, "datagram"),
        ] {
            self.values.insert(target, text(name).trim_end_matches('/').to_owned());
        }
        self.listeners.push(stream);
        self.receivers.push(datagram);
        Ok(())
    }

    fn listen(&mut self) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        TcpStream::connect(address).map(drop)?;
        listener.accept().map(drop)?;
        self.values.insert(Target::Port, address.port().to_string());
        self.streams.push(listener);
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = receiver.local_addr()?;
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(b"x", address)?;
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
        receiver.recv(&mut [0; 1])?;
        self.values.insert(Target::DatagramPort, address.port().to_string());
        self.datagrams.push(receiver);
        Ok(())
    }

    fn offer_abstract(&mut self) -> Result<()> {
        let name = format!("oxibot-attack-{}-{}", std::process::id(), random_word()?);
        let address = SocketAddr::from_abstract_name(&name)?;
        let listener = UnixListener::bind_addr(&address)?;
        UnixStream::connect_addr(&address).map(drop)?;
        listener.accept().map(drop)?;
        let for_datagrams = format!("{name}-datagram");
        let receiver = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&for_datagrams)?)?;
        self.values.insert(Target::Abstract, name);
        self.values.insert(Target::AbstractDatagram, for_datagrams);
        self.listeners.push(listener);
        self.receivers.push(receiver);
        Ok(())
    }

    /// What is there already. Absent files are no targets.
    fn find(&mut self, around: Around<'_>) {
        let mut known = vec![
            (Target::Config, around.config.map(Path::to_owned)),
            (Target::AuditLog, around.log.map(Path::to_owned)),
        ];
        if let Some(home) = around.home {
            let socket = format!("run/{}.sock", std::process::id());
            let below = |name: &str| Some(home.join(name));
            known.extend([
                (Target::Home, Some(home.to_owned())),
                (Target::State, below("state")),
                (Target::AuditKey, below("audit/key")),
                (Target::RunDirectory, below("run")),
                (Target::ControlSocket, below(&socket)),
            ]);
            if home.join("run").is_dir() {
                self.values.insert(Target::StopFile, home.join("run/stop-attack").display().to_string());
            }
        }
        let program = fs::read_link("/proc/self/exe").ok();
        if let Some(beside) = program.as_deref().and_then(Path::parent).and_then(Path::to_str) {
            self.values.insert(Target::BesidePrograms, format!("{beside}/oxibot-attack"));
        }
        for (target, path) in known {
            // A path that is not text could not be passed on.
            if let Some(path) = path.filter(|path| path.symlink_metadata().is_ok())
                && let Some(text) = path.to_str()
            {
                self.values.insert(target, text.to_owned());
            }
        }
    }

    /// Takes away what must not stay: planted files, ports, the segment. Sockets without a name in the file system
    /// and the toolhost's own files are left for profiles that are first used later.
    pub fn keep_for_later(&mut self) {
        if let Some(planted) = self.planted.take() {
            let _ = fs::remove_dir_all(&planted);
        }
        self.streams.clear();
        self.datagrams.clear();
        self.segment = None;
        for target in [
            Target::Outside,
            Target::Secret,
            Target::Program,
            Target::Unused,
            Target::OtherWorkspace,
            Target::Socket,
            Target::DatagramSocket,
            Target::Port,
            Target::DatagramPort,
            Target::Segment,
        ] {
            self.values.remove(&target);
        }
    }

    /// Where files were planted.
    #[must_use]
    pub fn planted(&self) -> Option<&Path> {
        self.planted.as_deref()
    }
}

/// Where files can be planted: calls have their own there, or no rule.
const PLACES: [&str; 3] = ["/tmp", "/dev/shm", "/run"];

fn prefix(supervisor: u32) -> String {
    format!("oxibot-attack-{supervisor}-")
}

/// Removes what a supervisor planted and could not remove, because it had shut itself in. Links are removed, never
/// followed.
pub(in crate::wall) fn remove_planted(supervisor: u32) {
    let prefix = prefix(supervisor);
    for entry in PLACES.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            // Fails for what another user planted under such a name: that is theirs.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        if let Some(planted) = &self.planted {
            // A supervisor that has shut itself in cannot; then their keeper does.
            let _ = fs::remove_dir_all(planted);
        }
    }
}

fn open_to_all(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A fresh directory where calls have a file system of their own, or no rule: outside of every grant.
fn place(profiles: &[&Profile]) -> Option<PathBuf> {
    let of = super::super::grants::path_of;
    let granted = |directory: &Path| {
        profiles.iter().any(|profile| {
            [&profile.workspace]
                .into_iter()
                .chain(&profile.write)
                .chain(&profile.read)
                .any(|path| directory.starts_with(of(path)))
        })
    };
    let name = prefix(std::process::id());
    PLACES
        .into_iter()
        .filter(|directory| !granted(Path::new(directory)))
        .find_map(|directory| nix::unistd::mkdtemp(format!("{directory}/{name}XXXXXX").as_str()).ok())
}

fn random_word() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_made_reached_passed_on_and_removed() {
        let targets = Targets::prepare(Around { home: None, config: None, log: None, profiles: &[] });
        assert_eq!(targets.missing(), []);
        let planted = targets.planted().unwrap().to_owned();
        assert!(planted.join("secret").is_file());
        let needs = [Target::Secret, Target::Port, Target::Process, Target::Processes];
        assert!(targets.serve(&needs));
        let words = targets.words(&needs);
        let parsed = Targets::parse(words.iter().map(String::as_str));
        for target in needs {
            assert_eq!(parsed.get(target), targets.get(target), "{target:?}");
        }
        assert!(parsed.planted().is_none(), "an attacker owns none of them");
        drop(targets);
        assert!(!planted.exists());
    }

    #[test]
    fn planted_where_no_profile_grants() {
        let mut profile = Profile {
            workspace: b"/srv/w".to_vec(),
            read: vec![b"/tmp".to_vec()],
            write: vec![],
            covered: vec![],
            restrict_to_workspace: true,
            protect: vec![],
            wanted: crate::wire::Wanted::Strongest,
            tmp_mb: 1,
            limits: oxibot_proto::settings::Limits::default(),
            proxy: false,
        };
        let made = place(&[&profile]).unwrap();
        assert!(!made.starts_with("/tmp"), "{made:?}");
        fs::remove_dir(made).unwrap();
        profile.write.extend([b"/dev/shm".to_vec(), b"/run".to_vec()]);
        assert_eq!(place(&[&profile]), None);
    }
}
