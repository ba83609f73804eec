//! A Debian 12 with a systemd of its own, for one test: in a container (systemd-nspawn) on this machine's kernel.
//!
//! [`tree`] makes its files once and keeps them below `target/booted`; [`Booted`] is a copy of them that was started. It
//! has a network namespace with nothing but a loopback, which it shares with the thread that starts it, and a PID
//! namespace that ends with it. No host service is started. What a container is laxer about than a machine (its kernel, its
//! cgroups) is not to be learnt here.

mod tree;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, unshare};

use crate::processes;

/// How long booting may take on a machine that does much else.
const BOOT: Duration = Duration::from_secs(180);
/// What nspawn's own filter refuses, and a machine's systemd would not.
const CALLS: &str = "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self";
/// Programs this needs.
const PROGRAMS: [&str; 7] = ["cp", "debootstrap", "dpkg-deb", "ip", "nsenter", "systemd-nspawn", "unshare"];

/// What this machine lacks for it. Empty where nothing is.
#[must_use]
pub fn lacking() -> Vec<String> {
    let mut lacking = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        lacking.push("root".to_owned());
    }
    for program in PROGRAMS {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            lacking.push(program.to_owned());
        }
    }
    lacking
}

/// A running system.
#[derive(Debug)]
pub struct Booted {
    nspawn: Child,
    leader: i32,
    root: PathBuf,
    // In this order: the files go when nobody runs on them any more, the lock last.
    _files: tempfile::TempDir,
    _alone: Flock<std::fs::File>,
}

impl Booted {
    /// Moves this thread into a network namespace of its own and boots a copy of the tree in it. Blocks until systemd says
    /// that it runs. One at a time on a machine: all of them would use one cgroup.
    ///
    /// # Errors
    /// What did not work, in words.
    pub fn start(target: &Path) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let made = tree::tree(target)?;
        let kept = made.parent().ok_or("the tree has no place")?;
        let lock = std::fs::File::create(kept.join("lock-boot")).map_err(text)?;
        let alone = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno.to_string())?;
        let files = tempfile::Builder::new().prefix("boot-").tempdir_in(kept).map_err(text)?;
        let root = files.path().join("root");
        tree::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&made).arg(&root))?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("cannot make a network: {errno}"))?;
        tree::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        let nspawn = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"])
            .args(["--link-journal=no", "--resolv-conf=off", "--timezone=off"])
            .arg(format!("--system-call-filter={CALLS}"))
            .arg("--directory")
            .arg(&root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(text)?;
        let mut booted = Self { nspawn, leader: 0, root, _files: files, _alone: alone };
        let begun = Instant::now();
        loop {
            booted.leader = booted.find_leader().unwrap_or_default();
            if booted.leader > 0 {
                let said = booted.run(&["systemctl", "is-system-running"]);
                let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
                if said == "running" || said == "degraded" {
                    return Ok(booted);
                }
            }
            if let Ok(Some(status)) = booted.nspawn.try_wait() {
                return Err(format!("systemd-nspawn ended: {status}"));
            }
            if begun.elapsed() > BOOT {
                return Err("it does not boot".to_owned());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn find_leader(&self) -> Option<i32> {
        let ours = i32::try_from(self.nspawn.id()).ok()?;
        let all = processes::tree(ours);
        let container = all.iter().find(|process| process.command.starts_with("systemd-nspawn"))?.pid;
        all.iter().find(|process| process.parent == container).map(|process| process.pid)
    }

    /// Its files, as they are seen from here.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A command inside, as its root.
    #[must_use]
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader.to_string()])
            .args([
                "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--", "env",
                "-i",
            ])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"])
            .arg("DEBIAN_FRONTEND=noninteractive")
            .args(argv)
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, argv: &[&str]) -> Output {
        self.command(argv).output().expect("nsenter starts")
    }

    /// As [`Self::run`], as another user.
    ///
    /// # Panics
    /// As [`Self::run`].
    #[must_use]
    pub fn run_as(&self, user: &str, argv: &[&str]) -> Output {
        let prefix = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"];
        self.run(&[&prefix[..], argv].concat())
    }

    /// Standard output of what must succeed, without the white space around it.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn said(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        assert!(output.status.success(), "{argv:?}: {}", crate::fixture::describe(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// One property of a unit.
    ///
    /// # Panics
    /// When systemctl fails.
    #[must_use]
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.said(&["systemctl", "show", unit, "--property", name, "--value"])
    }

    /// The journal of a unit.
    ///
    /// # Panics
    /// When journalctl fails.
    #[must_use]
    #[track_caller]
    pub fn journal(&self, unit: &str) -> String {
        self.said(&["journalctl", "--no-pager", "--output=cat", "--unit", unit])
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // The kernel ends the namespace with its first process.
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
        let gone = Instant::now();
        while Path::new("/proc").join(self.leader.to_string()).exists() && gone.elapsed() < BOOT {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
