//! What lies around the sandbox while an attack runs: secrets, files, servers and a victim, all owned by the test.
//!
//! Everything is made anew for each attack and belongs to the user the call is made by, so that only the wall and not
//! file permissions keep the program from it.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Witness;
use super::listeners::Listeners;
use super::run::Ran;
use crate::fixture::Fixture;
use crate::processes;

/// Directories a secret is put below, in turn: none of them is in a call's view.
const FAR: [&str; 5] = ["/var/tmp", "/srv", "/opt", "/root", "/home"];
/// The inherited descriptor that has the secret open: a program that can read it got what it should not have.
pub const LEAKED_DESCRIPTOR: u32 = 37;

/// The surroundings of one attack.
pub struct Stage {
    /// In every name an attack makes, so that leftovers are found.
    pub mark: String,
    /// Content of every secret file, of the victim's environment and memory, and of a variable in our own environment.
    pub secret: String,
    /// On the victim's command line, and in a file's name beside the workspace.
    pub whisper: String,
    /// Beside the workspace.
    pub outside: PathBuf,
    /// Servers.
    pub listeners: Listeners,
    /// Its standard input is the open secret, its environment holds it, its directory is `outside`.
    pub victim: Child,
    far: tempfile::TempDir,
    workspace: PathBuf,
    home: PathBuf,
    other: PathBuf,
    key: u32,
    before: BTreeMap<PathBuf, String>,
    healthy: String,
}

fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

impl Stage {
    /// Sets it up for calls made by `owner` (a user id; its group has the same number). `turn` varies the places.
    ///
    /// # Panics
    /// When the machine refuses a file, a socket or a process.
    #[must_use]
    pub fn new(fixture: &Fixture, owner: u32, turn: usize) -> Self {
        let secret = format!("secret{:016x}{:016x}", random(), random());
        let whisper = format!("whisper{:016x}", random());
        let mark = format!("mark{:012x}", random() & 0xffff_ffff_ffff);
        let outside = fixture.root().join("outside");
        let _ = fs::remove_dir_all(&outside);
        let other = fixture.root().join("other");
        let far = FAR
            .iter()
            .cycle()
            .skip(turn % FAR.len())
            .take(FAR.len())
            // An ordinary user cannot enter /root, wall or no wall.
            .filter(|parent| owner == 0 || **parent != "/root")
            .find_map(|parent| tempfile::Builder::new().prefix("oxibot-far-").tempdir_in(parent).ok())
            .expect("a far directory");
        for directory in [&outside, &other] {
            fs::create_dir_all(directory).expect("directory");
        }
        let directories = [outside.as_path(), far.path(), other.as_path()];
        for directory in directories {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("mode");
            fs::write(directory.join("secret"), format!("{secret}\n")).expect("secret");
            fs::set_permissions(directory.join("secret"), fs::Permissions::from_mode(0o600)).expect("mode");
            fs::write(directory.join("file"), "unchanged\n").expect("file");
            fs::create_dir_all(directory.join("directory/below")).expect("directory");
            let _ = fs::remove_file(directory.join("link"));
            symlink("secret", directory.join("link")).expect("link");
            fs::copy("/bin/true", directory.join("program")).expect("program");
        }
        fs::write(outside.join(format!("name-{whisper}")), "").expect("file");
        fs::write(fixture.home().join("secret"), &secret).expect("secret");
        let listeners = Listeners::start(&format!("oxibot-{mark}"), &outside, &fixture.workspace());
        for directory in directories {
            own(directory, owner);
        }
        own(&fixture.home(), owner);
        own(&fixture.workspace(), owner);
        let victim = Command::new("/usr/bin/sleep")
            .arg0(format!("victim-{whisper}"))
            .arg("300")
            .env_clear()
            .env("VICTIM_SECRET", &secret)
            .current_dir(&outside)
            .uid(owner)
            .gid(owner)
            .stdin(Stdio::from(fs::File::open(outside.join("secret")).expect("secret")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("victim");
        let mut stage = Self {
            key: u32::try_from(random() & 0x3fff_ffff).unwrap_or_default() | 0x4000_0000,
            mark,
            secret,
            whisper,
            outside,
            listeners,
            victim,
            far,
            workspace: fixture.workspace(),
            home: fixture.home(),
            other,
            before: BTreeMap::new(),
            healthy: String::new(),
        };
        stage.before = stage.picture();
        stage.healthy = stage.health();
        stage
    }

    /// Takes the surroundings as they are now for what they should stay: a test has prepared more of them.
    pub fn look_again(&mut self) {
        self.before = self.picture();
    }

    /// Puts what is around into a program: `@OUT@` beside the workspace, `@FAR@` elsewhere, `@OTHER@` another workspace,
    /// `@HOME@` the OxiBot home, `@WS@` the workspace (each but the last with `secret`, `file`, `link`, `program` and
    /// `directory`); `@PID@` the victim, `@TEST@` this process; `@TCP@ @TCP6@ @UDP@` ports; `@ABSTRACT@` a name (and
    /// with `-dgram` behind it); `@MARK@` for names, `@KEY@` for System V objects; `@FD@` the inherited descriptor.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for (name, value) in [
            ("@OUT@", self.outside.display().to_string()),
            ("@FAR@", self.far.path().display().to_string()),
            ("@OTHER@", self.other.display().to_string()),
            ("@HOME@", self.home.display().to_string()),
            ("@WS@", self.workspace.display().to_string()),
            ("@PID@", self.victim.id().to_string()),
            ("@TEST@", std::process::id().to_string()),
            ("@TCP@", self.listeners.tcp.to_string()),
            ("@TCP6@", self.listeners.tcp6.to_string()),
            ("@UDP@", self.listeners.udp.to_string()),
            ("@ABSTRACT@", format!("oxibot-{}", self.mark)),
            ("@MARK@", self.mark.clone()),
            ("@KEY@", self.key.to_string()),
            ("@FD@", LEAKED_DESCRIPTOR.to_string()),
        ] {
            filled = filled.replace(name, &value);
        }
        filled
    }

    /// Everything that shows from outside, with what it was seen by.
    ///
    /// # Panics
    /// When the victim cannot be asked.
    #[must_use]
    pub fn witnesses(&mut self, ran: &Ran) -> Vec<(Witness, String)> {
        let mut seen = Vec::new();
        let output = String::from_utf8_lossy(&ran.output);
        if output.contains(&self.secret) {
            seen.push((Witness::Leak, "a secret is in the output".into()));
        }
        if output.contains(&self.whisper) {
            seen.push((Witness::Leak, "a name that only listing shows is in the output".into()));
        }
        if let Some(line) = output.lines().find(|line| line.contains(super::THROUGH)) {
            seen.push((Witness::Word, line.chars().take(200).collect()));
        }
        let after = self.picture();
        for (path, was) in &self.before {
            match after.get(path) {
                None => seen.push((Witness::Change, format!("{} is gone", path.display()))),
                Some(is) if is != was => {
                    seen.push((Witness::Change, format!("{} was {was}, is {is}", path.display())));
                }
                Some(_) => {}
            }
        }
        for path in after.keys().filter(|path| !self.before.contains_key(*path)) {
            seen.push((Witness::Change, format!("{} appeared", path.display())));
        }
        for place in super::remains::names(&self.mark) {
            seen.push((Witness::Change, format!("{} was made outside", place.display())));
        }
        for reached in self.listeners.reached() {
            seen.push((Witness::Contact, reached));
        }
        let health = match self.victim.try_wait().expect("victim") {
            Some(status) => format!("ended: {status}"),
            None => self.health(),
        };
        if health != self.healthy {
            seen.push((Witness::Harm, format!("victim was {}, is {health}", self.healthy)));
        }
        for left in super::remains::system_v(self.key) {
            seen.push((Witness::Survivor, left));
        }
        seen
    }

    /// Takes away what a control left.
    pub fn remove_system_v(&self) {
        if !super::remains::system_v(self.key).is_empty() {
            let key = self.key.to_string();
            let _ = Command::new("ipcrm")
                .args(["-M", &key, "-S", &key, "-Q", &key])
                .stderr(Stdio::null())
                .status();
        }
    }

    /// How the victim does: what others could have changed about it.
    fn health(&self) -> String {
        let pid = i32::try_from(self.victim.id()).unwrap_or_default();
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let stopped =
            processes::one(pid).is_none_or(|process| matches!(process.state, 'T' | 't' | 'Z' | 'X'));
        let status = read("status");
        let of_status = |key: &str| {
            status.lines().find(|line| line.starts_with(key)).map(str::to_owned).unwrap_or_default()
        };
        let scheduling = read("stat").rsplit_once(')').map(|(_, rest)| {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            // priority, nice, rt_priority, policy
            [15, 16, 37, 38].map(|n| fields.get(n).copied().unwrap_or_default()).join("/")
        });
        let mut limits = std::hash::DefaultHasher::new();
        limits.write(read("limits").as_bytes());
        format!(
            "stopped={stopped} {} {} scheduling={scheduling:?} oom={} limits={:x} coredump={}",
            of_status("TracerPid"),
            of_status("Cpus_allowed_list"),
            read("oom_score_adj").trim(),
            limits.finish(),
            read("coredump_filter").trim()
        )
    }

    fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut stack = vec![self.outside.clone(), self.far.path().to_owned(), self.other.clone()];
        found.extend(["secret", "config.json"].map(|name| self.home.join(name)).map(described));
        while let Some(path) = stack.pop() {
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                stack.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
            let (path, description) = described(path);
            found.insert(path, description);
        }
        found
    }
}

fn described(path: PathBuf) -> (PathBuf, String) {
    let Ok(metadata) = path.symlink_metadata() else { return (path, "absent".into()) };
    let mut content = std::hash::DefaultHasher::new();
    if metadata.is_file() {
        content.write(&fs::read(&path).unwrap_or_default());
    }
    let description = format!(
        "mode {:o} owner {}:{} size {} links {} mtime {}.{} ctime {}.{} content {:x}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.size(),
        metadata.nlink(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
        content.finish()
    );
    (path, description)
}

/// Gives a tree to a user, links themselves included.
///
/// # Panics
/// When it may not.
pub fn own(path: &Path, owner: u32) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::lchown(path, Some(owner), Some(owner)).expect("owner");
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        for entry in fs::read_dir(path).expect("directory").flatten() {
            own(&entry.path(), owner);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}
