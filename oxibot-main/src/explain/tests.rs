//! What must hold for every output and every view, and the forms of complaints one by one.

use oxibot_proto::message::{CallNumber, Level, Outcome, Output};
use oxibot_proto::view::{Network, Rest, Temporary};
use proptest::prelude::*;

use super::cause::Cause;
use super::*;

fn result(output: &[u8], exit_code: i32, view: Option<View>) -> CallResult {
    CallResult {
        call: CallNumber(1),
        call_id: "c".into(),
        tool: "bash".into(),
        outcome: Outcome::Completed,
        exit_code: Some(exit_code),
        signal: None,
        output: Output {
            head: output.to_vec(),
            tail: Vec::new(),
            total_bytes: 0,
            passed_bytes: 0,
            file: None,
        },
        violations: Vec::new(),
        notes: Vec::new(),
        level: Level::Full,
        proven: None,
        duration_ms: 1,
        usage: None,
        view: view.map(Box::new),
        approval: None,
    }
}

fn said(output: &str, view: &View) -> Vec<(String, String, String)> {
    violations(&result(output.as_bytes(), 1, Some(view.clone())), None)
        .into_iter()
        .map(|violation| {
            let rule = violation.why.split_once("(rule ").unwrap().1.split_once(')').unwrap().0.to_owned();
            (violation.what, violation.path, rule)
        })
        .collect()
}

fn kernel_view() -> View {
    View {
        rest: Rest::Refused,
        temporary: Temporary::Directory,
        network: Network::None,
        guarded: Vec::new(),
        pinned: Vec::new(),
        covered: Vec::new(),
        ..place::example()
    }
}

#[test]
fn forms_of_complaints_are_read() {
    for (line, cause, paths) in [
        ("cat: /etc/shadow: No such file or directory", Cause::Missing, &["/etc/shadow"][..]),
        ("/bin/bash: line 3: /etc/x: Read-only file system", Cause::ReadOnly, &["/etc/x"]),
        ("mkdir: cannot create directory ‘/opt/y’: Permission denied", Cause::Denied, &["/opt/y"]),
        (
            "ln: failed to create hard link '/tmp/f' => 'f': Invalid cross-device link",
            Cause::CrossDevice,
            &["/tmp/f", "f"],
        ),
        (
            "sed: couldn't open temporary file /etc/sedX: Read-only file system",
            Cause::ReadOnly,
            &["/etc/sedX"],
        ),
        ("make: *** /opt/x: No such file or directory.  Stop.", Cause::Missing, &["/opt/x"]),
        ("tar: /opt/x.tar: Cannot open: No such file or directory", Cause::Missing, &["/opt/x.tar"]),
        ("cannot open /etc/x: Read-only file system at -e line 1.", Cause::ReadOnly, &["/etc/x"]),
        ("OSError: [Errno 30] Read-only file system: '/etc/hosts'", Cause::ReadOnly, &["/etc/hosts"]),
        ("[Errno 13] Permission denied: 'a' -> '/etc/b'", Cause::Denied, &["a", "/etc/b"]),
        ("Error: EROFS: read-only file system, open '/etc/x'", Cause::ReadOnly, &["/etc/x"]),
        ("npm ERR! Error: EACCES: permission denied, mkdir '/usr/lib/x'", Cause::Denied, &["/usr/lib/x"]),
        ("x.c:1:10: fatal error: /opt/x.h: No such file or directory", Cause::Missing, &["/opt/x.h"]),
        ("java.io.FileNotFoundException: /etc/x (Permission denied)", Cause::Denied, &["/etc/x"]),
        ("W: Unable to read /etc/apt/x - open (13: Permission denied)", Cause::Denied, &["/etc/apt/x"]),
        ("open /etc/x: permission denied", Cause::Denied, &["/etc/x"]),
        (
            "error: failed to create directory `/opt/x`: Permission denied (os error 13)",
            Cause::Denied,
            &["/opt/x"],
        ),
        ("bash: fork: retry: Resource temporarily unavailable", Cause::NoProcess, &["retry"]),
    ] {
        let complaint = Complaint::read(line, &mut complaint::Context::default());
        let complaint = complaint.unwrap_or_else(|| panic!("not read: {line}"));
        assert_eq!(
            (complaint.cause, complaint.paths.as_slice()),
            (cause, paths.map_to_strings().as_slice()),
            "{line}"
        );
    }
}

trait Strings {
    fn map_to_strings(&self) -> Vec<String>;
}

impl Strings for &[&str] {
    fn map_to_strings(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn text_about_complaints_is_none() {
    for line in [
        "2026-01-01 12:00:00 ERROR cp: cannot create /etc/hosts: Permission denied",
        "app.log:12:cp: cannot create '/etc/hosts': Permission denied",
        "Jan  1 12:00:00 host sshd[1]: Permission denied",
        "If you see `Permission denied`, use another path.",
        "> cat: /etc/shadow: Permission denied",
        "    cat: /etc/shadow: Permission denied",
        "the file /etc/shadow holds password hashes",
        "Permission denied",
        "",
    ] {
        let read = Complaint::read(line, &mut complaint::Context::default());
        assert!(read.as_ref().is_none_or(|read| read.paths.is_empty()), "{line}: {read:?}");
    }
}

#[test]
fn same_complaint_means_what_the_view_makes_of_it() {
    let (full, kernel) = (place::example(), kernel_view());
    let whole = View { rest: Rest::ReadOnly, covered: Vec::new(), ..full.clone() };
    let missing = "cat: /opt/x: No such file or directory";
    assert_eq!(said(missing, &full), [("read".into(), "/opt/x".into(), "view".into())]);
    assert_eq!(said(missing, &kernel), []);
    assert_eq!(said(missing, &whole), []);
    let guarded = "rm: cannot remove '../.vscode/x': Read-only file system";
    assert_eq!(said(guarded, &full), [("write".into(), "/srv/w/.vscode/x".into(), "protect".into())]);
    assert_eq!(said(guarded, &kernel), []);
    let ours = "cat: ../.oxibot/config.json: No such file or directory";
    assert_eq!(said(ours, &full), [("read".into(), "/srv/w/.oxibot/config.json".into(), "covered".into())]);
    assert_eq!(said("cat: /data/x: No such file or directory", &full), []);
    assert_eq!(
        said("touch: cannot touch '/data/x': Read-only file system", &full),
        [("write".into(), "/data/x".into(), "read-only".into())]
    );
    assert_eq!(said("cat: /out/x: Permission denied", &kernel), []);
}

#[test]
fn ten_thousand_complaints_are_three_and_all_are_twenty_at_most() {
    let many: String =
        (0..10_000).map(|n| format!("rm: cannot remove '/usr/{n}': Read-only file system\n")).collect();
    assert_eq!(said(&many, &place::example()).len(), MAX_ALIKE);
    let mut result = result(many.as_bytes(), 1, Some(place::example()));
    result.violations = (0..40)
        .map(|n| Violation {
            what: "socket".into(),
            path: n.to_string(),
            why: "x".into(),
            certainty: if n % 2 == 0 { Certainty::Observed } else { Certainty::Kernel },
        })
        .collect();
    let all = violations(&result, None);
    assert_eq!(all.len(), MAX_VIOLATIONS);
    assert!(all.iter().all(|violation| violation.certainty == Certainty::Kernel), "most certain first");
}

#[test]
fn what_is_certain_is_not_guessed_again() {
    let mut result = result(b"MemoryError\n", 1, Some(place::example()));
    assert_eq!(violations(&result, None).len(), 1);
    result.violations.push(Violation {
        what: "allocate memory".into(),
        path: String::new(),
        why: "the call may use 1 MiB (rule limits.memoryMb); use less".into(),
        certainty: Certainty::Kernel,
    });
    assert_eq!(violations(&result, None), result.violations);
}

#[test]
fn without_facts_nothing_is_guessed() {
    assert_eq!(violations(&result(b"cat: /etc/shadow: Permission denied\n", 1, None), None), []);
}

fn any_view() -> impl Strategy<Value = View> {
    let rest = prop_oneof![Just(Rest::Absent), Just(Rest::Refused), Just(Rest::ReadOnly)];
    let network = prop_oneof![Just(Network::Own), Just(Network::None), Just(Network::Proxy)];
    (rest, any::<bool>(), network, any::<bool>(), any::<bool>()).prop_map(
        |(rest, own_tmp, network, guards, covers)| {
            let example = place::example();
            View {
                rest,
                temporary: if own_tmp { Temporary::Own } else { Temporary::Directory },
                network,
                guarded: if guards { example.guarded.clone() } else { Vec::new() },
                pinned: if guards { example.pinned.clone() } else { Vec::new() },
                covered: if covers { example.covered.clone() } else { Vec::new() },
                ..example
            }
        },
    )
}

/// Lines made of what complaints are made of.
fn any_line() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("cat: ".to_owned()),
        Just("/bin/bash: line 1: ".to_owned()),
        Just("[wall] write /etc/x: allowed (rule view); go on (kernel)".to_owned()),
        Just("touch: cannot touch '".to_owned()),
        Just("': ".to_owned()),
        Just(": ".to_owned()),
        Just("/etc/hosts".to_owned()),
        Just("/srv/w/.git/hooks/x".to_owned()),
        Just("/srv/w/.oxibot/x".to_owned()),
        Just("/srv/w/.git".to_owned()),
        Just("/tmp/x".to_owned()),
        Just("/proc/1/mem".to_owned()),
        Just("/home/u".to_owned()),
        Just("curl: (7) Failed to connect to 127.0.0.1 port 80".to_owned()),
        Just("connect ECONNREFUSED 127.0.0.1:80".to_owned()),
        Just("Permission denied".to_owned()),
        Just("Read-only file system".to_owned()),
        Just("No such file or directory".to_owned()),
        Just("Device or resource busy".to_owned()),
        Just("Invalid cross-device link".to_owned()),
        Just("No space left on device".to_owned()),
        Just("Operation not permitted".to_owned()),
        Just("OSError: [Errno 30] ".to_owned()),
        Just("Error: EROFS: read-only file system, open '".to_owned()),
        ".{0,12}",
    ];
    prop::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_output_names_a_rule_that_is_not_in_force_or_forges_certainty(
        lines in prop::collection::vec(any_line(), 0..30),
        view in any_view(),
        command in prop::option::of(".{0,40}"),
    ) {
        let output = lines.join("\n");
        let said = violations(&result(output.as_bytes(), 1, Some(view.clone())), command.as_deref());
        prop_assert!(said.len() <= MAX_VIOLATIONS);
        for violation in &said {
            prop_assert_eq!(violation.certainty, Certainty::Guessed);
            prop_assert!(violation.path.len() <= MAX_PATH && !violation.path.chars().any(char::is_control));
            // What is not in force, by the facts alone.
            let mounts = view.temporary == Temporary::Own;
            for (rule, in_force) in [
                ("(rule protect)", !view.guarded.is_empty()),
                ("(rule covered)", !view.covered.is_empty()),
                ("(rule workspace)", mounts),
                ("(rule limits.tmpMb)", mounts),
                ("127.0.0.1 is the call's own", view.network != Network::None),
                ("a call has no network", view.network != Network::Proxy),
                ("through its proxy", view.network == Network::Proxy),
            ] {
                prop_assert!(in_force || !violation.why.contains(rule), "{:?}", violation);
            }
            // The words are the table's: nothing of the output is in them.
            prop_assert!(!violation.why.contains("[wall]") && violation.why.matches("(rule ").count() == 1);
        }
        for line in section(&said).lines() {
            prop_assert!(line.starts_with("[wall] "), "{}", line);
            prop_assert!(line.ends_with("(guessed from the output)"), "{}", line);
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(output in prop::collection::vec(any::<u8>(), 0..3000), view in any_view()) {
        let _ = violations(&result(&output, 1, Some(view)), Some("x"));
    }
}
