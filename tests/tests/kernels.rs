//! The wall under Debian 12's own kernel (6.1, Landlock ABI 2), in qemu: attack and compatibility suites at level `full`,
//! and at level `reduced` once the kernel refuses user namespaces. What is missing then is printed.
//!
//! What runs is chosen by its time, for a processor is emulated at a thirtieth of its speed: `doctor --attack` as root and
//! as an ordinary user, and where a suite runs, one class of it.
//!
//! Left out, with the reason:
//! - Controls: they show that an attack works without a wall, which is no question of this kernel.
//! - The other classes, and the toolhost's own `wall_*`: time, and no complete run of them yet.
//! - `wall_cgroup`: as a plain program of root's it is in a cgroup that systemd has not left to it, and proves nothing. The
//!   steps `delegated/*` ask the same of a unit with a cgroup of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oxibot_tests::fixture::skip;
use oxibot_tests::guest::image::{directory, image};
use oxibot_tests::guest::lacking;
use oxibot_tests::guest::machine::boot;
use oxibot_tests::guest::parcel::{Step, executables, pack, programs};
use oxibot_tests::guest::report::{Ran, Report};
use serde_json::Value;

/// Classes of attacks, each run one by one in a toolhost that stays.
const ATTACKS: [&str; 1] = ["attacks_files"];
/// Classes of ordinary jobs.
const JOBS: [&str; 1] = ["git"];
/// Longest one step may take, in seconds by the guest's clock.
const STEP_SECONDS: u32 = 900;
/// Longest all of it may take, by ours. It takes a sixth of that where a processor is its own.
const PATIENCE: Duration = Duration::from_secs(4_200);

/// An ordinary user of the guest. systemd starts nothing for a user without an account.
const USER: u32 = 48_215;
const ACCOUNT: &str =
    "groupadd --gid 48215 caller && useradd --uid 48215 --gid 48215 --no-create-home caller";
const STATUS: &str = "./debug/oxibot --home $HOME/status sandbox status --json";
const DOCTOR: &str = "./debug/oxibot --home $HOME/doctor doctor --attack --json";
/// Names of our cgroups that are still there.
const LEFT: &str = "find /sys/fs/cgroup -name \"oxibot-*\" -not -name oxibot-suites.service";
const REFUSE_NAMESPACES: &str = "sysctl -w user.max_user_namespaces=0 kernel.unprivileged_userns_clone=0";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// As an ordinary user.
fn as_user(command: &str) -> String {
    format!(
        "install -d -o {USER} -g {USER} /var/tmp/user && \
         TMPDIR=/var/tmp/user HOME=/var/tmp/user setpriv --reuid {USER} --regid {USER} --clear-groups \
         bash -c '{command}'"
    )
}

/// OxiBot as the only program of a unit whose cgroup systemd leaves to it, with little memory for a call.
fn delegated(user: Option<u32>, arguments: &str) -> String {
    let id = user.unwrap_or_default();
    let home = format!("/var/tmp/delegated-{id}");
    let user = user.map(|user| format!("--uid={user} --gid={user}")).unwrap_or_default();
    format!(
        "install -d -m 700 -o {id} -g {id} {home} {home}/w && \
         systemd-run --quiet --pipe --wait --collect {user} -p Delegate=yes -p WorkingDirectory=\"$PWD\" \
         -E PATH -E LANG -E HOME={home} -E OXIBOT_HOME={home}/home -E OXIBOT_LIMITS__MEMORY_MB=64 \
         -E OXIBOT_SANDBOX__REQUIRE=reduced ./debug/oxibot {arguments}"
    )
}

/// Takes that many MiB in a call of that user, and says how many bytes it got.
fn filling(user: Option<u32>, mebibytes: u32) -> String {
    let id = user.unwrap_or_default();
    delegated(
        user,
        &format!(
            "sandbox run --workspace /var/tmp/delegated-{id}/w -- \
             python3 -c \"x = bytearray({mebibytes} << 20); print(len(x))\""
        ),
    )
}

/// How the guest's kernel is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// As Debian ships it.
    Full,
    /// Without user namespaces.
    Reduced,
}

impl Setting {
    /// Test targets it runs.
    fn suites(self) -> Vec<&'static str> {
        match self {
            Self::Full => [&ATTACKS[..], &["compat", "users"]].concat(),
            Self::Reduced => Vec::new(),
        }
    }
}

/// What runs in the guest, in order.
fn plan(setting: Setting) -> Vec<Step> {
    let step = |id: &str, command: String| Step { id: id.to_owned(), command, seconds: STEP_SECONDS };
    let suite = |name: &str, rest: &str| format!("./debug/deps/{name} --test-threads=1 {rest}");
    let mut steps = vec![step("account", ACCOUNT.into())];
    if setting == Setting::Reduced {
        steps.push(step("refuse-namespaces", REFUSE_NAMESPACES.into()));
        steps.push(step("refused/root", STATUS.into()));
        steps.push(step("refused/user", as_user(STATUS)));
    }
    for (name, command) in [("status", STATUS), ("doctor", DOCTOR)] {
        let command = match setting {
            Setting::Full => command.to_owned(),
            Setting::Reduced => format!("export OXIBOT_SANDBOX__REQUIRE=reduced; {command}"),
        };
        steps.push(step(&format!("{name}/root"), command.clone()));
        steps.push(step(&format!("{name}/user"), as_user(&command)));
    }
    for (who, user) in [("root", None), ("user", Some(USER))] {
        steps.push(step(&format!("delegated/{who}/status"), delegated(user, "sandbox status --json")));
        steps.push(step(&format!("delegated/{who}/fits"), filling(user, 20)));
        steps.push(step(&format!("delegated/{who}/exceeds"), filling(user, 200)));
        steps.push(step(&format!("delegated/{who}/left"), LEFT.into()));
    }
    if setting == Setting::Full {
        for name in ATTACKS {
            steps.push(step(&format!("suite/{name}"), suite(name, "--exact tool_call")));
        }
        let jobs: Vec<String> = JOBS.iter().map(|class| format!("{class}_as_user")).collect();
        steps.push(step("suite/compat", suite("compat", &format!("--exact {}", jobs.join(" ")))));
        steps.push(step("suite/users", suite("users", "--skip without_user_namespaces")));
    }
    steps
}

/// Boots a guest and runs everything in it. `None` where this machine cannot.
fn guest(test: &str, setting: Setting) -> Option<Report> {
    let lacking = lacking();
    if !lacking.is_empty() {
        skip(test, &format!("a guest needs {}", lacking.join(", ")));
        return None;
    }
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_path_buf();
    let image = match image(&target) {
        Ok(image) => image,
        Err(error) => {
            skip(test, &format!("no image: {error}"));
            return None;
        }
    };
    let executables = executables(&repository(), &setting.suites()).unwrap_or_else(|error| panic!("{error}"));
    let programs = programs(&repository()).unwrap_or_else(|error| panic!("{error}"));
    let directory = directory(&target).unwrap();
    let disk = pack(directory.path(), &target, &programs, &executables, &plan(setting)).unwrap();
    let logs = target.join("guest").join(test);
    let report =
        boot(&image, &disk, directory.path(), &logs, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    print(&report);
    assert!(report.facts["kernel"].starts_with("6.1."), "{:?}", report.facts);
    assert_eq!(report.facts["cgroup"], "cgroup2fs");
    Some(report)
}

#[test]
fn debian_12_reaches_full() {
    let Some(report) = guest("debian_12_reaches_full", Setting::Full) else { return };
    for who in ["root", "user"] {
        let status = json(&report, &format!("status/{who}"));
        assert_eq!((&status["level"], &status["landlock_abi"]), (&"full".into(), &2.into()), "{status}");
        let degraded = named(&status, "degraded");
        for name in ["landlock-truncate", "landlock-ioctl", "landlock-scopes"] {
            assert!(degraded.contains(name), "{name} is not among {degraded:?}");
        }
        let gaps: BTreeSet<&str> =
            named(&status, "unavailable").into_iter().filter(|n| !n.contains("cgroup")).collect();
        assert!(gaps.is_empty(), "{gaps:?}");
        let skipped = attacked(&report, who, "full", 180);
        print_missing(&report, who, &skipped);
        assert!(skipped.iter().all(|(_, why)| !why.contains("named gap")), "{skipped:?}");
    }
    delegated_cgroups_bound_calls(&report);
    every_suite_passed(&report);
    let ran: usize = report.steps.iter().map(|step| step.tests("ok").len()).sum();
    assert!(ran >= ATTACKS.len() + JOBS.len() + 3, "only {ran} tests ran");
}

#[test]
#[ignore = "issue 3: no complete run has been green yet: run it by name, with --run-ignored all"]
fn debian_12_without_user_namespaces_is_reduced() {
    let Some(report) = guest("debian_12_without_user_namespaces_is_reduced", Setting::Reduced) else {
        return;
    };
    for who in ["root", "user"] {
        reduced_is_refused_unless_accepted(&report, who);
        let status = json(&report, &format!("status/{who}"));
        assert_eq!((&status["level"], &status["landlock_abi"]), (&"reduced".into(), &2.into()), "{status}");
        let missing = named(&status, "unavailable");
        for name in ["user-namespace", "network-namespace", "private-tmp", "guarded-names", "landlock-scopes"]
        {
            assert!(missing.contains(name), "{name} is not among {missing:?}");
        }
        let skipped = attacked(&report, who, "reduced", 120);
        print_missing(&report, who, &skipped);
        for id in ["chmod-outside", "stat-outside"] {
            let why = skipped.get(id).unwrap_or_else(|| panic!("{id} is a gap and not named: {skipped:?}"));
            assert!(why.contains("named gap"), "{id}: {why}");
        }
    }
    delegated_cgroups_bound_calls(&report);
    every_suite_passed(&report);
}

/// What `doctor --attack` came to: nothing got through, at least so many were held. Returns what it did not try, and why.
fn attacked(report: &Report, who: &str, level: &str, least: usize) -> BTreeMap<String, String> {
    let found = json(report, &format!("doctor/{who}"));
    assert_eq!(found["level"], level, "{found}");
    let attacks = found["attacks"].as_array().unwrap();
    let with = |result: &str| attacks.iter().filter(|one| one["result"] == result).collect::<Vec<_>>();
    let (held, skipped) = (with("held"), with("skipped"));
    assert_eq!(held.len() + skipped.len(), attacks.len(), "{who}: {:?}", with("broken"));
    assert!(held.len() >= least, "{who}: only {} were held; skipped: {skipped:?}", held.len());
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    skipped.into_iter().map(|one| (text(one, "id"), text(one, "detail"))).collect()
}

/// Names of the protections in a state.
fn named<'a>(status: &'a Value, state: &str) -> BTreeSet<&'a str> {
    let protections = status["protections"].as_array().unwrap().iter();
    protections.filter(|one| one["state"] == state).map(|one| one["name"].as_str().unwrap()).collect()
}

/// What a machine like this lacks, for whoever reads the log.
fn print_missing(report: &Report, who: &str, skipped: &BTreeMap<String, String>) {
    let status = json(report, &format!("status/{who}"));
    println!("as {who}, level {}:", status["level"].as_str().unwrap_or_default());
    for one in status["protections"].as_array().unwrap().iter().filter(|one| one["state"] != "active") {
        let text = |field: &str| one[field].as_str().unwrap_or_default();
        println!("  {} {}: {} (needs {})", text("state"), text("name"), text("detail"), text("needs"));
    }
    for (id, why) in skipped {
        println!("  not held or not tried: {id}: {why}");
    }
}

/// A line a step for whoever reads the log; the whole output of those that failed.
fn print(report: &Report) {
    for step in &report.steps {
        println!("{} {:?} {} s, {} tests", step.id, step.status, step.seconds, step.tests("ok").len());
        if step.status != Some(0) || step.id.contains("status") {
            println!("{}", step.output);
        }
    }
}

/// The first JSON object of a step, whatever was said on standard error.
fn json(report: &Report, id: &str) -> Value {
    let output = &report.step(id).output;
    let line = output.lines().find(|line| line.starts_with('{'));
    line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{id}: {output}"))
}

fn reduced_is_refused_unless_accepted(report: &Report, who: &str) {
    let step = report.step(&format!("refused/{who}"));
    assert_eq!(step.status, Some(78), "{}", step.output);
    for part in [
        r#"sandbox.require is \"kernel\" and only \"reduced\" is to be had here"#,
        "user-namespace",
        "landlock-scopes",
        "user.max_user_namespaces",
        r#"{\"require\": \"reduced\"}"#,
    ] {
        assert!(step.output.contains(part), "{part} is not in {}", step.output);
    }
}

/// Version 2, as systemd delegates it: less than the limit fits, more ends the call, and nothing of it stays.
fn delegated_cgroups_bound_calls(report: &Report) {
    for who in ["root", "user"] {
        let step = |name: &str| report.step(&format!("delegated/{who}/{name}"));
        let status = json(report, &format!("delegated/{who}/status"));
        let protections = status["protections"].as_array().unwrap();
        let cgroup = protections.iter().find(|one| one["name"] == "cgroup").unwrap();
        assert_eq!(
            (&cgroup["state"], &cgroup["detail"]),
            (&"active".into(), &"v2: memory, pids".into()),
            "{who}"
        );
        let (fits, exceeds) = (step("fits"), step("exceeds"));
        assert_eq!((fits.status, fits.output.lines().next()), (Some(0), Some("20971520")), "{who}: {fits:?}");
        assert_eq!(exceeds.status, Some(137), "{who}: {exceeds:?}");
        assert!(!exceeds.output.contains("209715200"), "{who}: {exceeds:?}");
        assert_eq!(step("left").output, "", "{who}");
    }
}

/// Every step of the plan was reported to have ended well, and every suite had tests in it.
fn every_suite_passed(report: &Report) {
    let expected = |step: &Ran| match step.id.rsplit('/').next() {
        Some("exceeds") => Some(137),
        _ if step.id.starts_with("refused/") => Some(78),
        _ => Some(0),
    };
    let troubles: Vec<String> = report
        .steps
        .iter()
        .filter(|step| step.status != expected(step))
        .map(|step| format!("{} ended with {:?}: {:?}", step.id, step.status, step.tests("FAILED")))
        .collect();
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
    let empty: Vec<&String> = report
        .steps
        .iter()
        .filter(|step| step.id.starts_with("suite/") && step.tests("ok").is_empty())
        .map(|step| &step.id)
        .collect();
    assert!(empty.is_empty(), "no test ran in {empty:?}");
    let skipped: Vec<&str> = report.step("skips").output.lines().collect();
    assert!(skipped.is_empty(), "{}", skipped.join("\n"));
}
