//! The files of the system: Debian 12 from its packages, made once and kept below `target/booted`.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// Where the suite comes from instead, for machines that have their own.
const MIRROR_VARIABLE: &str = "OXIBOT_TESTS_DEBIAN_MIRROR";
/// What a small server has, and what the tests look with.
const PACKAGES: [&str; 7] =
    ["ca-certificates", "dbus", "libgcc-s1", "man-db", "procps", "sudo", "systemd-sysv"];
/// What would start by the clock, and what waits for a terminal.
const MASKED: [&str; 4] =
    ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "console-getty.service"];

/// The tree, made if it is not there; that takes a minute or two and the mirror. Several processes may ask at once.
pub(super) fn tree(target: &Path) -> Result<PathBuf, String> {
    let mirror = std::env::var(MIRROR_VARIABLE).unwrap_or_else(|_| MIRROR.to_owned());
    let mut digest = DefaultHasher::new();
    (SUITE, PACKAGES, MASKED).hash(&mut digest);
    let kept = target.join("booted");
    let text = |error: std::io::Error| format!("cannot make {}: {error}", kept.display());
    fs::create_dir_all(&kept).map_err(text)?;
    let lock = File::create(kept.join("lock")).map_err(text)?;
    let _lock =
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| format!("cannot lock: {errno}"))?;
    let finished = kept.join(format!("debian-12-{:016x}", digest.finish()));
    if finished.is_dir() {
        return Ok(finished);
    }
    // What a killed run left: nobody else builds here while we hold the lock.
    let building = kept.join("building");
    let _ = fs::remove_dir_all(&building);
    fs::create_dir_all(building.join("etc/dpkg/dpkg.cfg.d"))
        .and_then(|()| fs::write(building.join("etc/dpkg/dpkg.cfg.d/hurried"), "force-unsafe-io\n"))
        .map_err(text)?;
    run(Command::new("unshare")
        .args(["--mount", "--propagation", "private", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(SUITE)
        .arg(&building)
        .arg(mirror))?;
    let units = building.join("etc/systemd/system");
    for unit in MASKED {
        let _ = fs::remove_file(units.join(unit));
        std::os::unix::fs::symlink("/dev/null", units.join(unit)).map_err(text)?;
    }
    let _ = fs::remove_dir_all(building.join("var/cache/apt/archives"));
    fs::rename(&building, &finished).map_err(text)?;
    Ok(finished)
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
    let mut last: Vec<&str> = said.lines().rev().take(12).collect();
    last.reverse();
    Err(format!("{name}: {}: {}", output.status, last.join("\n")))
}
