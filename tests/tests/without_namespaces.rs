//! In something like a default container of Docker: level `kernel` on a current kernel (`reduced` on an old one), what is
//! then missing is named, what was promised holds, and `full` is refused with what to do.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use oxibot_tests::docker::container;
use oxibot_tests::fixture::{
    ACCEPT_REDUCED, Fixture, describe, landlock_abi, level_without_namespaces, skip,
};
use oxibot_tests::podman;
use serde_json::{Value, json};

/// An id no package uses.
const USER: u32 = 48_216;

/// Missing without namespaces on every kernel, as `sandbox status` names it.
const MISSING: [&str; 10] = [
    "user-namespace",
    "mount-namespace",
    "pid-namespace",
    "network-namespace",
    "ipc-namespace",
    "uts-namespace",
    "cgroup-namespace",
    "private-tmp",
    "private-proc",
    "guarded-names",
];

/// Claims an older Landlock; see there.
const LANDLOCK_ABI: &str = include_str!("../tools/landlock_abi.py");

struct Contained {
    fixture: Fixture,
    programs: PathBuf,
    user: Option<u32>,
    /// The Landlock ABI the kernel is made to claim, if not its own.
    claimed: Option<u32>,
}

impl Contained {
    fn new(test: &str, user: Option<u32>) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip(test, "needs root to make a container");
            return None;
        }
        let fixture = Fixture::new();
        let programs = fixture.programs_for_anyone();
        for directory in [fixture.home(), fixture.workspace()] {
            nix::unistd::chown(&directory, user.map(Into::into), user.map(Into::into)).unwrap();
        }
        Some(Self { fixture, programs, user, claimed: None })
    }

    fn oxibot(&self, require: &str, arguments: &[&str]) -> Output {
        let mut command: Command = container(&self.programs, self.user);
        if let Some(abi) = self.claimed {
            command.arg("python3").args(["-c", LANDLOCK_ABI, &abi.to_string()]);
        }
        command
            .arg(self.programs.join("oxibot"))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.fixture.root())
            .env("OXIBOT_HOME", self.fixture.home())
            .env(ACCEPT_REDUCED.0, require)
            // What is tried must reach the wall, whatever a policy thinks of it.
            .env("OXIBOT_POLICY__OVERRIDES", r#"[{"rule":"*","verdict":"allow"}]"#)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn status(&self) -> Value {
        let output = self.oxibot("reduced", &["sandbox", "status", "--json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
    }

    fn bash(&self, script: &str) -> Value {
        let workspace = self.fixture.workspace().display().to_string();
        let arguments = json!({ "command": script }).to_string();
        let output = self
            .oxibot("reduced", &["tool", "call", "bash", &arguments, "--json", "--workspace", &workspace]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
    }

    /// A file of the same user outside the workspace.
    fn outside(&self) -> PathBuf {
        let path = self.fixture.root().join("outside");
        std::fs::write(&path, "precious").unwrap();
        nix::unistd::chown(&path, self.user.map(Into::into), self.user.map(Into::into)).unwrap();
        path
    }
}

/// Names of the protections in a state.
fn named<'a>(status: &'a Value, state: &str) -> Vec<&'a str> {
    let protections = status["protections"].as_array().unwrap().iter();
    protections
        .filter(|protection| protection["state"] == state)
        .map(|protection| protection["name"].as_str().unwrap())
        // Whether there is one depends on the machine.
        .filter(|name| !name.contains("cgroup") || *name == "cgroup-namespace")
        .collect()
}

#[test]
fn ordinary_user_in_a_container_gets_kernel_and_is_told_what_is_missing() {
    let Some(inside) = Contained::new("ordinary_user_in_a_container", Some(USER)) else { return };
    let status = inside.status();
    assert_eq!(status["level"], level_without_namespaces(), "{status}");
    let scopes = (landlock_abi() < 6).then_some("landlock-scopes");
    let mut missing: Vec<&str> = MISSING.into_iter().chain(scopes).collect();
    let mut found = named(&status, "unavailable");
    missing.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, missing, "{status}");
}

/// Attacks that are among the named gaps of level `kernel` as an ordinary user, in every container.
const GAPS: [&str; 3] = ["chmod-outside", "stat-outside", "touch-outside"];

/// Nothing gets through that is not a named gap, and those are named.
fn attacked(report: &Value) {
    assert_eq!(report["level"], level_without_namespaces(), "{report}");
    let attacks = report["attacks"].as_array().unwrap();
    let with = |result: &str| attacks.iter().filter(|one| one["result"] == result).collect::<Vec<_>>();
    let (held, skipped) = (with("held"), with("skipped"));
    assert_eq!(held.len() + skipped.len(), attacks.len(), "{:?}", with("broken"));
    assert!(held.len() >= 120, "only {} were held; skipped: {skipped:?}", held.len());
    for id in GAPS {
        let gap = skipped.iter().find(|one| one["id"] == id);
        let gap = gap.unwrap_or_else(|| panic!("{id} is a gap and not named: {skipped:?}"));
        assert!(gap["detail"].as_str().unwrap().contains("named gap"), "{gap}");
    }
}

#[test]
fn every_attack_on_an_ordinary_user_in_a_container_is_held_or_a_named_gap() {
    let Some(inside) = Contained::new("every_attack_in_a_container", Some(USER)) else { return };
    let output = inside.oxibot("reduced", &["doctor", "--attack", "--json"]);
    attacked(
        &serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", describe(&output))),
    );
}

/// Podman with a profile that refuses what Docker's does.
#[test]
fn real_container_gives_an_ordinary_user_kernel_and_every_attack_is_held_or_a_named_gap() {
    let lacking = podman::lacking();
    if !lacking.is_empty() {
        let reason = format!("a container needs {}", lacking.join(", "));
        return skip("real_container_gives_an_ordinary_user_kernel", &reason);
    }
    let (fixture, engine) = (Fixture::new(), tempfile::tempdir().unwrap());
    let programs = fixture.programs_for_anyone();
    nix::unistd::chown(&fixture.home(), Some(USER.into()), Some(USER.into())).unwrap();
    let script = r#"grep -E '^(CapEff|Seccomp):' /proc/self/status | tr -d '[:space:]'; echo
unshare --user true; echo "unshare $?"
"$1/oxibot" sandbox status --json; "$1/oxibot" doctor --attack --json"#;
    let output = podman::container(engine.path(), fixture.root(), Some(USER))
        .unwrap()
        .arg("env")
        .arg(format!("HOME={}", fixture.root().display()))
        .arg(format!("OXIBOT_HOME={}", fixture.home().display()))
        .arg(format!("{}={}", ACCEPT_REDUCED.0, ACCEPT_REDUCED.1))
        .args(["bash", "-c", script, "inside"])
        .arg(&programs)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    // The control: it is one.
    let [about, unshare, status, attacks] = lines.as_slice() else { panic!("{}", describe(&output)) };
    assert_eq!(
        (*about, *unshare),
        ("CapEff:0000000000000000Seccomp:2", "unshare 1"),
        "{}",
        describe(&output)
    );
    let status: Value = serde_json::from_str(status).unwrap();
    assert_eq!(status["level"], level_without_namespaces(), "{status}");
    let missing = named(&status, "unavailable");
    for name in MISSING {
        assert!(missing.contains(&name), "{name} is not among {missing:?}");
    }
    attacked(&serde_json::from_str(attacks).unwrap());
}

/// Docker's root writes no cgroup, and its processes are counted by nobody: that is not `kernel`.
#[test]
fn root_in_a_container_is_told_who_does_not_count_its_processes() {
    let Some(inside) = Contained::new("root_in_a_container", None) else { return };
    let status = inside.status();
    assert_ne!(status["level"], "full", "{status}");
    let counted = named(&status, "active").contains(&"rlimits");
    let level = if counted { level_without_namespaces() } else { "reduced" };
    assert_eq!(status["level"], level, "{status}");
}

#[test]
fn full_is_refused_in_a_container_with_what_to_do() {
    for user in [None, Some(USER)] {
        let Some(inside) = Contained::new("full_is_refused_in_a_container", user) else { return };
        let output = inside.oxibot("full", &["sandbox", "status"]);
        assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        for part in ["sandbox.require is \"full\"", "user-namespace", "--security-opt seccomp=unconfined"] {
            assert!(said.contains(part), "{part}: {}", describe(&output));
        }
        assert!(!said.contains("sysctl"), "no setting of the kernel refuses it: {}", describe(&output));
    }
}

#[test]
fn nothing_outside_the_workspace_can_be_emptied_or_changed() {
    for (user, claimed) in [(None, None), (Some(USER), None), (None, Some(2)), (Some(USER), Some(2))] {
        let Some(mut inside) = Contained::new("nothing_outside_can_be_emptied", user) else { return };
        inside.claimed = claimed;
        let outside = inside.outside();
        let path = outside.display();
        let script = format!(
            "python3 - <<'END'
import os
def tried(name, call):
    try: call(); print('through', name)
    except OSError: pass
tried('truncate', lambda: os.truncate('{path}', 0))
tried('read-truncate', lambda: os.open('{path}', os.O_RDONLY | os.O_TRUNC))
tried('neither-truncate', lambda: os.open('{path}', 3 | os.O_TRUNC))
tried('write', lambda: os.open('{path}', os.O_WRONLY))
tried('path', lambda: os.truncate(os.open('{path}', os.O_PATH), 0))
tried('remove', lambda: os.unlink('{path}'))
tried('rename', lambda: os.rename('{path}', 'mine'))
tried('link', lambda: os.link('{path}', 'linked'))
print('done')
END
echo kept > own; truncate -s 2 own; python3 -c \"open('own', 'r+').truncate(1)\"; wc -c < own"
        );
        let result = inside.bash(&script);
        assert_eq!(result["output"], "done\n1\n", "{claimed:?}: {result}");
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "precious");
    }
}

#[test]
fn sockets_processes_and_secrets_outside_are_out_of_reach() {
    for user in [None, Some(USER)] {
        let Some(inside) = Contained::new("sockets_processes_and_secrets", user) else { return };
        let outside = inside.outside();
        let script = format!(
            "cat {path} /etc/shadow /root/.bashrc /proc/1/environ 2>/dev/null
python3 - <<'END'
import os, socket, ctypes
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, 40):
    try: socket.socket(family, socket.SOCK_DGRAM); print('socket', family)
    except OSError: pass
for pid in (1, -1):
    try: os.kill(pid, 0); print('signalled', pid)
    except OSError: pass
libc = ctypes.CDLL(None, use_errno=True)
for name, number, arguments in (
    ('ptrace', 101, (16, 1, 0, 0)), ('unshare', 272, (0x10000000,)), ('mount', 165, (b'x', b'/tmp', b'tmpfs', 0, 0)),
    ('keyctl', 250, (0, -3, 1)), ('bpf', 321, (5, 0, 0)), ('setns', 308, (0, 0)), ('chroot', 161, (b'.',)),
):
    if libc.syscall(number, *arguments) >= 0: print('through', name)
END
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '[:space:]'",
            path = outside.display()
        );
        let result = inside.bash(&script);
        let text = result["output"].as_str().unwrap();
        let expected = ["CapEff:0000000000000000", "NoNewPrivs:1", "Seccomp:2"];
        assert!(expected.iter().all(|part| text.contains(part)) && text.starts_with("CapEff"), "{result}");
    }
}

/// From ABI 6 on Landlock does it; before, it is the gap `landlock-scopes`, and named.
#[test]
fn process_of_the_same_user_lives_or_the_gap_is_named() {
    let Some(inside) = Contained::new("process_of_the_same_user", Some(USER)) else { return };
    // In the same container, beside OxiBot: the script starts it and then OxiBot.
    let workspace = inside.fixture.workspace();
    let arguments = json!({"command": "kill -9 $(cat victim); echo tried"}).to_string();
    let script = "sleep 300 & echo $! > \"$1/victim\"; \"$2\" tool call bash \"$3\" --json --workspace \"$1\" >/dev/null
         kill -0 $! 2>/dev/null && echo lives; kill -9 $! 2>/dev/null; true";
    let output = container(&inside.programs, inside.user)
        .args(["bash", "-c", script, "outside"])
        .arg(&workspace)
        .arg(inside.programs.join("oxibot"))
        .arg(&arguments)
        .env("OXIBOT_HOME", inside.fixture.home())
        .env(ACCEPT_REDUCED.0, ACCEPT_REDUCED.1)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let lives = String::from_utf8_lossy(&output.stdout).contains("lives");
    let gap = named(&inside.status(), "unavailable").contains(&"landlock-scopes");
    assert!(lives != gap, "lives {lives}, gap named {gap}: {}", describe(&output));
}
