//! The wall under Debian 12's own kernel (6.1, Landlock ABI 2), in qemu: the same suites at level `full`, and what is
//! left of them at level `reduced` once the kernel refuses user namespaces.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oxibot_tests::fixture::skip;
use oxibot_tests::guest::image::{directory, image};
use oxibot_tests::guest::lacking;
use oxibot_tests::guest::machine::boot;
use oxibot_tests::guest::parcel::{Executable, Step, executables, pack};
use oxibot_tests::guest::report::Report;
use serde_json::Value;

/// Test targets that run in the guest, by the beginnings of their names.
const SUITES: [&str; 8] = [
    "wall_full",
    "wall_attacks",
    "wall_cgroup",
    "attacks_kernel",
    "attacks_network",
    "compat",
    "sandbox_run",
    "users",
];
/// Tests of them that are about level `kernel`: they run once the kernel itself refuses namespaces.
const BELOW_FULL: [&str; 4] = ["at_kernel", "kernel_as", "level_kernel", "without_namespaces"];
/// Tests that measure this program and not the kernel, run the whole suite again (which the plan does itself), or would
/// take more time there than everything else together: attacks without a wall, those at `full` through a process each
/// (`tool_call` sends the same ones through one toolhost), those of root below it, and ordinary work as root beside the same
/// as a user.
const NOT_THERE: [&str; 6] = [
    "all_of_this_holds_for_an_ordinary_user",
    "a_thousand_calls_leave_nothing_behind",
    "control_as_",
    "control_every_attack",
    "full_as_",
    "_as_root",
];
/// Suites that run once more in a unit whose cgroup systemd leaves to us.
const DELEGATED: &str = "wall_cgroup";
/// What the guest may lack, as skipped tests say it.
const MAY_BE_SKIPPED: [&str; 1] = ["rustc is not installed"];

/// Longest one suite may take there, in seconds. It takes a minute or two where the machine has nothing else to do.
const SUITE_SECONDS: u32 = 900;
/// Longest all of it may take.
const PATIENCE: Duration = Duration::from_secs(1_500);

const STATUS: &str = "./debug/oxibot --home /var/tmp/status-$(id -u) sandbox status --json";
const REFUSE_NAMESPACES: &str = "sysctl -w user.max_user_namespaces=0 kernel.unprivileged_userns_clone=0";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// As an ordinary user without an account.
fn as_user(command: &str) -> String {
    format!(
        "install -d -o 48215 -g 48215 /var/tmp/user && \
         TMPDIR=/var/tmp/user HOME=/var/tmp/user setpriv --reuid 48215 --regid 48215 --clear-groups \
         bash -c '{command}'"
    )
}

/// In a unit of its own with a delegated cgroup, as root or as the ordinary user.
fn delegated(user: Option<&str>, command: &str) -> String {
    let user = user.map(|user| format!("--uid={user} --gid={user}")).unwrap_or_default();
    format!(
        "install -d -m 1777 /var/tmp/delegated && \
         systemd-run --quiet --pipe --wait --collect {user} -p Delegate=yes -p TasksMax=infinity \
         -p WorkingDirectory=\"$PWD\" -E PATH -E LANG -E OXIBOT_TESTS_SKIPS \
         -E TMPDIR=/var/tmp/delegated -E HOME=/var/tmp/delegated {command}"
    )
}

fn words(option: &str, names: &[&str]) -> String {
    names.iter().map(|name| format!(" {option}{name}")).collect()
}

/// As what the guest's kernel is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// As Debian ships it.
    Full,
    /// Without user namespaces.
    Reduced,
}

/// What runs in the guest, in order.
fn plan(setting: Setting, executables: &[Executable]) -> Vec<Step> {
    let step = |id: String, command: String| Step { id, command, seconds: SUITE_SECONDS };
    let mut steps = Vec::new();
    if setting == Setting::Reduced {
        steps.push(step("refuse-namespaces".into(), REFUSE_NAMESPACES.into()));
        steps.push(step("refused/root".into(), STATUS.into()));
        steps.push(step("refused/user".into(), as_user(STATUS)));
    }
    let accepting = format!("export OXIBOT_SANDBOX__REQUIRE=reduced; {STATUS}");
    steps.push(step("status/root".into(), accepting.clone()));
    steps.push(step("status/user".into(), as_user(&accepting)));
    let filter = match setting {
        Setting::Full => words("--skip ", &BELOW_FULL),
        Setting::Reduced => words("", &BELOW_FULL),
    };
    for one in executables {
        let run =
            format!("./debug/deps/{} --test-threads=1{}{filter}", one.name, words("--skip ", &NOT_THERE));
        steps.push(step(format!("suite/{}/root", one.name), run.clone()));
        // The wall's own suites run as whoever runs them; the others become another user themselves.
        if one.name.starts_with("wall_") {
            steps.push(step(format!("suite/{}/user", one.name), as_user(&run)));
        }
        if one.name.starts_with(DELEGATED) {
            for (who, user) in [("root", None), ("user", Some("48215"))] {
                steps.push(step(format!("suite/{}/delegated-{who}", one.name), delegated(user, &run)));
            }
        }
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
    let executables = executables(&repository(), &SUITES).unwrap_or_else(|error| panic!("{error}"));
    let directory = directory(&target).unwrap();
    let disk = pack(directory.path(), &target, &executables, &plan(setting, &executables)).unwrap();
    let report = boot(&image, &disk, directory.path(), PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    print(&report);
    assert!(report.facts["kernel"].starts_with("6.1."), "{:?}", report.facts);
    assert_eq!(report.facts["cgroup"], "cgroup2fs");
    Some(report)
}

#[test]
#[ignore = "no complete run has been green yet: run it by name, with --run-ignored all"]
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
    }
    every_suite_passed(&report, 60);
}

#[test]
#[ignore = "no complete run has been green yet: run it by name, with --run-ignored all"]
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
    }
    every_suite_passed(&report, 15);
}

/// Names of the protections in a state.
fn named<'a>(status: &'a Value, state: &str) -> BTreeSet<&'a str> {
    let protections = status["protections"].as_array().unwrap().iter();
    protections.filter(|one| one["state"] == state).map(|one| one["name"].as_str().unwrap()).collect()
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

fn every_suite_passed(report: &Report, least: usize) {
    let suites: Vec<_> = report.steps.iter().filter(|step| step.id.starts_with("suite/")).collect();
    let troubles: Vec<String> = suites
        .iter()
        .filter(|step| step.status != Some(0))
        .map(|step| format!("{} ended with {:?}: {:?}", step.id, step.status, step.tests("FAILED")))
        .collect();
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
    let passed: usize = suites.iter().map(|step| step.tests("ok").len()).sum();
    assert!(passed >= least, "only {passed} tests ran");
    let skipped: Vec<&str> = report
        .step("skips")
        .output
        .lines()
        .filter(|line| !MAY_BE_SKIPPED.iter().any(|reason| line.contains(reason)))
        .collect();
    assert!(skipped.is_empty(), "{}", skipped.join("\n"));
}
