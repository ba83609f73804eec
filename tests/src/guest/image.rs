//! The disk of the guest: Debian 12 from its packages, made once and kept below `target/guest`.
//!
//! The name holds a digest of all that decides what is in it. Nothing is mounted on the host: debootstrap works in a
//! mount namespace that ends with it, and the file system is filled without being mounted.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// Where the suite of [`SUITE`] comes from instead, for machines that have their own.
const MIRROR_VARIABLE: &str = "OXIBOT_TESTS_DEBIAN_MIRROR";
/// Large enough for the packages and what the tests write; the file itself is sparse.
const SIZE: &str = "3G";
/// Beginning of the names of finished images.
const NAME: &str = "debian-12-";
/// Beginning of the names of directories that live as long as the process whose id follows.
const LEFT: &str = "of-";
/// The kernel, a full init, and what the suites run inside calls.
const PACKAGES: [&str; 33] = [
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "systemd-sysv",
    "udev",
    "dbus",
    "bash",
    "bc",
    "bsdextrautils",
    "bzip2",
    "ca-certificates",
    "file",
    "g++",
    "git",
    "iproute2",
    "jq",
    "kmod",
    "less",
    "libc6-dev",
    "locales",
    "make",
    "netcat-openbsd",
    "nodejs",
    "patch",
    "perl",
    "procps",
    "psmisc",
    "python3",
    "sqlite3",
    "strace",
    "unzip",
    "util-linux",
    "xz-utils",
    "zip",
];
const HOSTS: &str = "127.0.0.1 localhost\n127.0.1.1 guest\n::1 localhost ip6-localhost\n";
const SERVICE: &str = include_str!("../../guest/oxibot-suites.service");

/// A finished disk with the kernel to start it with.
#[derive(Debug, Clone)]
pub struct Image {
    /// A raw ext4 file system. Started from with writes thrown away.
    pub disk: PathBuf,
    /// Debian's own kernel.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initrd: PathBuf,
}

/// The image in `target`, made if it is not there. Takes a minute or two and needs the mirror when it is made; several
/// test processes may ask at once.
///
/// # Errors
/// What debootstrap or mke2fs said.
pub fn image(target: &Path) -> Result<Image, String> {
    let mirror = std::env::var(MIRROR_VARIABLE).unwrap_or_else(|_| MIRROR.to_owned());
    let mut digest = DefaultHasher::new();
    (SUITE, SIZE, PACKAGES, SERVICE, HOSTS).hash(&mut digest);
    let guests = target.join("guest");
    fs::create_dir_all(&guests).map_err(|error| format!("cannot make {}: {error}", guests.display()))?;
    let finished = guests.join(format!("{NAME}{:016x}", digest.finish()));
    // Held until this function returns; the kernel lets go of it should we be killed.
    let lock = File::create(guests.join("lock")).map_err(|error| format!("cannot lock: {error}"))?;
    let _lock =
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| format!("cannot lock: {errno}"))?;
    let image = Image {
        disk: finished.join("disk"),
        kernel: finished.join("vmlinuz"),
        initrd: finished.join("initrd.img"),
    };
    if finished.is_dir() {
        return Ok(image);
    }
    sweep(&guests);
    // Dropped, and so removed; what a killed run left, the next one removes.
    let building = tempfile::Builder::new()
        .prefix(&format!("{LEFT}{}-", std::process::id()))
        .tempdir_in(&guests)
        .map_err(|error| format!("cannot make a directory: {error}"))?;
    let root = building.path().join("root");
    let made = building.path().join("made");
    bootstrap(&root, &mirror)?;
    prepare(&root, &made).map_err(|error| format!("cannot prepare the guest: {error}"))?;
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-L", "oxibot", "-d"])
        .arg(&root)
        .arg(made.join("disk"))
        .arg(SIZE))?;
    // Those of other packages are of no more use; a machine that runs from one keeps it open.
    for entry in fs::read_dir(&guests).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(NAME) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    fs::rename(&made, &finished).map_err(|error| format!("cannot keep the guest: {error}"))?;
    Ok(image)
}

/// A directory of this run beside the image, removed with what it returns.
///
/// # Errors
/// When it cannot be made.
pub fn directory(target: &Path) -> std::io::Result<tempfile::TempDir> {
    let guests = target.join("guest");
    sweep(&guests);
    tempfile::Builder::new().prefix(&format!("{LEFT}{}-", std::process::id())).tempdir_in(guests)
}

/// Removes directories of processes that are no more.
fn sweep(guests: &Path) {
    for entry in fs::read_dir(guests).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(LEFT).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn bootstrap(root: &Path, mirror: &str) -> Result<(), String> {
    // Nothing of it is worth waiting for a disk: what a crash spoils is made again.
    let hurried = root.join("etc/dpkg/dpkg.cfg.d");
    fs::create_dir_all(&hurried)
        .and_then(|()| fs::write(hurried.join("hurried"), "force-unsafe-io\n"))
        .map_err(|error| format!("cannot make {}: {error}", hurried.display()))?;
    run(Command::new("unshare")
        .args(["--mount", "--propagation", "private", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(SUITE)
        .arg(root)
        .arg(mirror))
}

/// The service that runs the suites, and nothing that starts by the clock.
fn prepare(root: &Path, made: &Path) -> std::io::Result<()> {
    let units = root.join("etc/systemd/system");
    fs::write(units.join("oxibot-suites.service"), SERVICE)?;
    let wanted = units.join("multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    symlink("../oxibot-suites.service", wanted.join("oxibot-suites.service"))?;
    for unit in ["apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "serial-getty@ttyS0.service"] {
        symlink("/dev/null", units.join(unit))?;
    }
    fs::write(root.join("etc/hostname"), "guest\n")?;
    fs::write(root.join("etc/hosts"), HOSTS)?;
    let _ = fs::remove_dir_all(root.join("var/cache/apt/archives"));
    fs::create_dir(made)?;
    for (start, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd.img")] {
        let boot = root.join("boot");
        let found = fs::read_dir(&boot)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(start)))
            .ok_or_else(|| std::io::Error::other(format!("no {name} in {}", boot.display())))?;
        fs::copy(found, made.join(name))?;
    }
    Ok(())
}

/// Runs a program to its end; what it said last is the error.
pub(super) fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let last: Vec<&str> = said.lines().rev().take(12).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(format!("{name}: {}: {}", output.status, last.join("\n")))
}
