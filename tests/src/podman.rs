//! A real container: podman's, with a profile that refuses what Docker's default profile refuses.
//!
//! Its system is this machine's own `/usr`, read only, and a few files of `/etc`: nothing is fetched. No service is
//! started and nothing is kept: storage, and with the process namespace around it everything that runs, ends with the
//! command.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the engine's profile refuses, with Docker's answers.
const PROFILE: &str = include_str!("../tools/container_seccomp.json");
/// Of `/etc`, what programs need.
const ETC: [&str; 5] = ["alternatives", "group", "ld.so.cache", "nsswitch.conf", "passwd"];
/// For bash: podman knows no machine that has both versions of cgroups mounted.
const ARRANGE: &str =
    "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; exec \"$@\"";

/// What this machine lacks for it. Empty where nothing is.
#[must_use]
pub fn lacking() -> Vec<String> {
    let mut lacking = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        lacking.push("root".to_owned());
    }
    for program in ["podman", "crun", "conmon", "unshare", "mountpoint"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            lacking.push(program.to_owned());
        }
    }
    lacking
}

/// The beginning of a command that runs in a container, as that user (its group has the same number) or as its root.
/// What follows is the program and its arguments, which the container finds where they are here if they lie in `/usr`
/// or in `shared`; everything else of it is kept in `directory`.
///
/// # Errors
/// When something cannot be made.
pub fn container(directory: &Path, shared: &Path, user: Option<u32>) -> std::io::Result<Command> {
    let root = system(directory)?;
    let profile = directory.join("profile.json");
    fs::File::create(&profile)?.write_all(PROFILE.as_bytes())?;
    let at = |name: &str| directory.join(name);
    let user = user.unwrap_or_default();
    let shared = shared.display();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-c", ARRANGE, "arrange", "podman", "--log-level", "error"])
        .arg("--root")
        .arg(at("storage"))
        .arg("--runroot")
        .arg(at("run"))
        .arg("--tmpdir")
        .arg(at("tmp"))
        .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"])
        .args(["--runtime", "crun", "run", "--rm", "--network", "none", "--log-driver", "none"])
        // Its own would need a capability that this machine may not have.
        .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"])
        .arg(format!("--security-opt=seccomp={}", profile.display()))
        .arg(format!("--user={user}:{user}"))
        .arg("--volume=/usr:/usr:ro")
        .arg(format!("--volume={shared}:{shared}"))
        .arg("--rootfs")
        .arg(root)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", directory)
        .stdin(Stdio::null());
    Ok(command)
}

/// A root directory around `/usr`.
fn system(directory: &Path) -> std::io::Result<PathBuf> {
    let root = directory.join("root");
    for name in ["dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "var/tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o1777))?;
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(Path::new("usr").join(name), root.join(name))?;
    }
    let status = Command::new("cp")
        .arg("-a")
        .args(ETC.map(|name| Path::new("/etc").join(name)))
        .arg(root.join("etc"))
        .status()?;
    if status.success() { Ok(root) } else { Err(std::io::Error::other(format!("cp: {status}"))) }
}
