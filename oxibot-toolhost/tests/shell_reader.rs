//! The shell filter: its policy and corpora, its grammar beside bash's own, hostile texts, and the worker it runs in.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::{Host, Start, assert_completed, host};
use oxibot_proto::message::{Outcome, Verdict};
use oxibot_proto::settings;
use oxibot_toolhost::shell::{MAX_COMMANDS, Policy, judge, read_only};
use proptest::prelude::*;
use serde_json::json;

/// Lines `class: command` of a corpus. `⏎` is a line end.
fn corpus(text: &str) -> Vec<(&str, String)> {
    text.lines()
        .filter(|line| !line.starts_with("# ") && !line.trim().is_empty())
        .map(|line| line.split_once(": ").unwrap())
        .map(|(class, command)| (class, command.replace('⏎', "\n")))
        .collect()
}

fn dangerous() -> Vec<(&'static str, String)> {
    corpus(include_str!("shell_corpus/dangerous.txt"))
}

fn ordinary() -> Vec<(&'static str, String)> {
    corpus(include_str!("shell_corpus/ordinary.txt"))
}

fn heldout() -> [Vec<(&'static str, String)>; 2] {
    let dangerous = corpus(include_str!("shell_corpus/heldout_dangerous.txt"));
    [dangerous, corpus(include_str!("shell_corpus/heldout_ordinary.txt"))]
}

/// Another hand's, tried once before the rules were changed for them.
fn fresh() -> [Vec<(&'static str, String)>; 2] {
    let dangerous = corpus(include_str!("shell_corpus/fresh_dangerous.txt"));
    [dangerous, corpus(include_str!("shell_corpus/fresh_ordinary.txt"))]
}

fn standard() -> Policy {
    Policy::standard().unwrap()
}

/// Prints how many were not allowed, and returns which.
fn refused<'c>(name: &str, policy: &Policy, cases: &'c [(&str, String)]) -> Vec<&'c str> {
    let refused: Vec<&str> = cases
        .iter()
        .filter(|(_, command)| judge(policy, command).verdict != Verdict::Allow)
        .map(|(_, command)| command.as_str())
        .collect();
    let share = refused.len() as f64 * 100.0 / cases.len() as f64;
    println!("{name}: {} of {} blocked or asked about ({share:.2} %)", refused.len(), cases.len());
    refused
}

#[test]
fn every_example_of_the_policy_holds() {
    let failed = standard().failing_examples();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_rule_says_why_and_what_to_do_instead() {
    for rule in standard().rules() {
        assert!(!rule.reason.is_empty() && !rule.alternative.is_empty(), "{}", rule.id);
        assert!(rule.matches.len() > 1 && rule.not_match.len() > 1, "{}", rule.id);
    }
}

#[test]
fn dangerous_commands_are_refused_and_ordinary_ones_are_not() {
    let policy = standard();
    let [heldout_dangerous, heldout_ordinary] = heldout();
    let [fresh_dangerous, fresh_ordinary] = fresh();
    for (name, cases) in [
        ("dangerous", dangerous()),
        ("dangerous, held out", heldout_dangerous),
        ("dangerous, another hand's", fresh_dangerous),
    ] {
        let refused = refused(name, &policy, &cases);
        assert!(refused.len() * 100 >= cases.len() * 98, "{name}: {}", refused.len());
    }
    for (name, cases) in [
        ("ordinary", ordinary()),
        ("ordinary, held out", heldout_ordinary),
        ("ordinary, another hand's", fresh_ordinary),
    ] {
        let refused = refused(name, &policy, &cases);
        assert!(refused.len() * 100 <= cases.len(), "{name}: {refused:?}");
    }
}

#[test]
fn a_verdict_lists_the_strictest_rule_first_and_the_commands_as_they_will_be() {
    let judged = judge(&standard(), "x=/; git reset --hard && sudo rm -rf \"$x\"");
    assert_eq!(judged.verdict, Verdict::Block);
    assert_eq!(judged.rules[0].id, "files.remove-root");
    assert!(judged.rules.iter().any(|rule| rule.id == "git.discard"));
    assert_eq!(judged.commands, ["x=/", "git reset --hard", "sudo rm -rf /", "rm -rf /"]);
}

#[test]
fn what_cannot_be_known_follows_the_settings() {
    for (section, unreadable, runtime) in [
        (json!({}), Verdict::Ask, Verdict::Allow),
        (json!({"unknown": {"unreadable": "block", "runtime": "ask"}}), Verdict::Block, Verdict::Ask),
    ] {
        let section: settings::Policy = serde_json::from_value(section).unwrap();
        let policy = Policy::load(&section).unwrap();
        let judged = judge(&policy, "echo 'unfinished");
        assert_eq!((judged.verdict, judged.rules[0].id.as_str()), (unreadable, "policy.unreadable"));
        let judged = judge(&policy, "$SOMETHING x");
        assert_eq!((judged.verdict, judged.rules[0].id.as_str()), (runtime, "policy.runtime"));
    }
    // What stands before the fault runs, so it is judged.
    assert_eq!(judge(&standard(), "rm -rf /\necho 'unfinished").verdict, Verdict::Block);
}

fn load(section: serde_json::Value) -> Result<Policy, String> {
    Policy::load(&serde_json::from_value(section).unwrap()).map_err(|error| error.to_string())
}

fn own_rule(id: &str, when: serde_json::Value) -> serde_json::Value {
    json!({"id": id, "verdict": "block", "reason": "r", "alternative": "a", "when": [when],
        "match": ["deploy --prod"], "not_match": ["deploy --test"]})
}

#[test]
fn users_add_rules_and_change_verdicts() {
    let policy = load(json!({
        "places": {"data": ["/srv/data/**"]},
        "rules": [
            own_rule("own.deploy", json!({"program": "deploy", "flags": ["--prod"]})),
            {"id": "own.data", "verdict": "ask", "reason": "r", "alternative": "a",
             "when": [{"program": "rm", "path": "data"}], "match": ["rm /srv/data/x"], "not_match": ["rm x"]}
        ],
        "overrides": [
            {"rule": "git.discard", "verdict": "block"},
            {"rule": "git.force-push", "verdict": "allow", "commands": ["git push --force origin my-*"]}
        ]
    }))
    .unwrap();
    for (command, verdict) in [
        ("deploy --prod", Verdict::Block),
        ("rm /srv/data/a/b", Verdict::Ask),
        ("git reset --hard", Verdict::Block),
        ("git push --force origin my-branch", Verdict::Allow),
        ("git push --force origin main", Verdict::Ask),
    ] {
        assert_eq!(judge(&policy, command).verdict, verdict, "{command}");
    }
    let policy = load(json!({"overrides": [{"rule": "*", "verdict": "allow"}]})).unwrap();
    assert_eq!(judge(&policy, "rm -rf /").verdict, Verdict::Allow);
}

#[test]
fn sections_that_make_no_sense_are_refused_with_what_to_do() {
    let rule = |id: &str| own_rule(id, json!({"program": "deploy", "flags": ["--prod"]}));
    for (section, text) in [
        (json!({"rules": [rule("git.discard")]}), "choose another id"),
        (json!({"rules": [rule("a"), rule("a")]}), "another rule has the same id"),
        (json!({"rules": [rule("policy.x")]}), "choose another"),
        (
            json!({"rules": [own_rule("a", json!({"program": "deploy"}))]}),
            "`deploy --test`; correct the rule",
        ),
        (json!({"rules": [own_rule("a", json!({"program": "other"}))]}), "does not match its example"),
        (json!({"rules": [own_rule("a", json!({}))]}), "would match everything"),
        (json!({"rules": [own_rule("a", json!({"text": "("}))]}), "no regular expression"),
        (json!({"rules": [own_rule("a", json!({"path": "nowhere"}))]}), "there is no place `nowhere`"),
        (json!({"rules": [own_rule("a", json!({"event": "x"}))]}), "there is no event `x`"),
        (
            json!({"overrides": [{"rule": "git.force-pusch", "verdict": "allow"}]}),
            "did you mean `git.force-push`",
        ),
        (json!({"overrides": [{"rule": "git.discard", "verdict": "ask"}]}), "remove the override"),
        (
            json!({"overrides": [{"rule": "git.discard", "verdict": "allow", "commands": ["git status"]}]}),
            "does not match `git status`",
        ),
        (
            json!({"overrides": [{"rule": "git.discard", "verdict": "allow"}, {"rule": "git.discard", "verdict": "block"}]}),
            "keep one of them",
        ),
        (
            json!({"overrides": [{"rule": "*", "verdict": "allow"}, {"rule": "git.discard", "verdict": "block"}]}),
            "must be the only override",
        ),
        (
            json!({"rules": [rule("own")], "overrides": [{"rule": "own", "verdict": "allow"}]}),
            "your own rule",
        ),
    ] {
        let error = load(section.clone()).unwrap_err();
        assert!(error.contains(text), "{section}: {error}");
    }
}

/// Real bash is asked whether it would read a script; what it reads has to be readable here.
#[test]
fn what_bash_reads_is_read() {
    let [heldout_dangerous, heldout_ordinary] = heldout();
    let more = [
        "a=(1 2 [5]=x); a+=(y); echo \"${a[@]/1/2}\" ${#a[*]} ${!a[@]}",
        "case x in (a|b) echo;& c) ;; *) esac",
        "for i; do :; done; for ((;;)) { break; }",
        "f () ( echo ) 2>&1; function g () { :; } >x",
        "cat <<A <<'B' && echo x\na $(echo b\n)\nA\n$c\nB\n",
        "echo $(( (1+2) * 3 )) $((x?1:2)) $[1+1]; (( a = b ** 2 , c )) || :",
        "echo ((a)) || :",
        "(( (a) )); ((echo); (echo))",
        "[[ a =~ ^(b|c)+$ && ( -f x || ! -d y ) ]] && echo $'a\\'b' $\"c\"",
        "echo \"a $(echo \"b $(echo 'c)')\")\" `echo \\`echo d\\``",
        "{ echo a; } 2>/dev/null | while read -r x; do echo; done <<< y &",
        "coproc X { cat; }; select a in b c; do break; done; time -p ! true",
        "if a; then b; elif c; then d; else e; fi >f 2>&1 <g",
        "echo ${x:-${y:=\"z }\"}} ${a##*/} ${b%%.*} ${c//\\//_} ${d^^} ${e:1:2} ${f@Q}",
        "exec {fd}>x 3<>y 4>&1 5<&- &>>z; echo {a,b{1..3}} ~/x ~+",
        "#c\n\n  # d\necho a#b # e\n",
        "a=b c=d e; x= ; y='' z",
        "until [ x ]; do :; done; while :; do break; done",
        "echo a\\\nb \\; 'c\nd'",
        "let x=1+2; declare -A m=([a b]=c); test -n \"$x\" -a -z y",
    ];
    let all: Vec<String> = [dangerous(), ordinary(), heldout_dangerous, heldout_ordinary]
        .into_iter()
        .flatten()
        .map(|(_, command)| command)
        .chain(more.map(String::from))
        .collect();
    let mut differ = Vec::new();
    let mut agreed = 0;
    for command in &all {
        let Err(fault) = read_only(command) else { continue };
        let mut bash = Command::new("bash")
            .args(["--norc", "--noprofile", "-n"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        bash.stdin.take().unwrap().write_all(command.as_bytes()).unwrap();
        if bash.wait().unwrap().success() {
            differ.push(format!("{command:?}: {fault}"));
        } else {
            agreed += 1;
        }
    }
    println!("{} scripts, {agreed} refused by both", all.len());
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn what_bash_refuses_is_refused() {
    for broken in [
        "(",
        ")",
        "echo 'x",
        "echo \"x",
        "echo `x",
        "$(",
        "${x",
        "if a",
        "for",
        "case x in",
        "a ||",
        "| a",
        "a;;",
        "{ a",
        "<",
        "done",
        "f() {",
    ] {
        assert!(read_only(broken).is_err(), "{broken}");
        assert!(judge(&standard(), broken).verdict >= Verdict::Ask, "{broken}");
    }
}

#[test]
fn hostile_texts_end_with_a_verdict() {
    let policy = standard();
    for text in [
        "{".repeat(50_000),
        "(".repeat(50_000),
        "$(".repeat(30_000),
        "`".repeat(50_000),
        "${x:-".repeat(10_000),
        "((".repeat(30_000),
        "if ".repeat(30_000),
        "f() { ".repeat(10_000),
        "bash -c ".repeat(10_000),
        "sudo ".repeat(20_000) + "rm -rf /",
        "a".repeat(100_000),
        "'".repeat(99_999),
        "a|".repeat(40_000) + "a",
        "a;".repeat(50_000),
        "<<A ".repeat(20_000),
        "{a,b}".repeat(2000),
        format!("echo {}", "{1..9}".repeat(200)),
        "x=$x$x;".repeat(10_000),
        "x=aaaaaaaaaaaaaaaa;".to_owned() + &"x=$x$x;".repeat(100),
        "*".repeat(50_000) + " rm",
        "for i in {1..100}; do ".repeat(100) + "a" + &"; done".repeat(100),
        "\0".to_owned(),
        "\u{F0000}\u{100000}rm -rf /".to_owned(),
        "[[ ".repeat(20_000),
        "case x in ".repeat(5000),
        "python3 -c '".to_owned() + &"system(\"".repeat(5000) + "'",
    ] {
        let shown: String = text.chars().take(20).collect();
        let judged = judge(&policy, &text);
        assert!(judged.commands.len() <= MAX_COMMANDS, "{shown}");
    }
    assert_eq!(judge(&policy, &"a".repeat(101 * 1024)).rules[0].id, "policy.unreadable");
    assert_eq!(judge(&policy, &format!("{}rm -rf /", "true; ".repeat(100))).verdict, Verdict::Block);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_gets_a_verdict(text in "\\PC{0,200}") {
        let judged = judge(standard_once(), &text);
        prop_assert!(judged.verdict == Verdict::Allow || !judged.rules.is_empty());
    }

    #[test]
    fn any_mixture_of_bash_gets_a_verdict(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("rm -rf /"), Just("$("), Just(")"), Just("`"), Just("'"), Just("\""), Just("${x:-"), Just("}"), Just("{"),
                Just("((" ), Just("))"), Just("[["), Just("]]"), Just(" "), Just("\n"), Just(";"), Just("&"), Just("|"), Just("<<E\n"),
                Just("E\n"), Just("if"), Just("then"), Just("fi"), Just("for x in"), Just("do"), Just("done"), Just("case x in"),
                Just("esac"), Just("f()"), Just("=("), Just("\\"), Just("$'"), Just("<("), Just(">"), Just("eval"), Just("bash -c"),
                Just("xargs"), Just("find . -exec"), Just("{a,b}"), Just("*"), Just("~"), Just("python3 -c"), Just("#"),
            ],
            0..40,
        )
    ) {
        let text = pieces.concat();
        let judged = judge(standard_once(), &text);
        prop_assert!(judged.verdict == Verdict::Allow || !judged.rules.is_empty());
    }
}

/// Loading the policy for each case would be most of the time.
fn standard_once() -> &'static Policy {
    static POLICY: std::sync::OnceLock<Policy> = std::sync::OnceLock::new();
    POLICY.get_or_init(standard)
}

/// The reader below a toolhost.
fn reader_of(host: &Host) -> i32 {
    let name = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let host = i32::try_from(host.child.id()).unwrap();
    let below = |mut pid: i32| {
        while let Some(above) = parent(pid).filter(|above| *above > 1) {
            if above == host {
                return true;
            }
            pid = above;
        }
        false
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| name(*pid).ends_with(b"\0shell\0") && below(*pid))
        .expect("the reader runs")
}

#[test]
fn reader_is_confined() {
    let mut host = host();
    assert_completed(&host.bash("true"));
    let pid = reader_of(&host);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "Threads:\t1",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert!(host.finish().success());
}

#[test]
fn reader_that_dies_or_hangs_blocks_and_the_next_command_gets_another() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let mut host = host();
    assert_completed(&host.bash("true"));
    for signal in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTERM] {
        let pid = reader_of(&host);
        kill(Pid::from_raw(pid), signal).unwrap();
        let result = host.bash("echo hi");
        assert!(
            matches!(&result.outcome, Outcome::Denied(denial) if denial.rule == "policy.reader"),
            "{signal}: {:?}",
            result.outcome
        );
        assert_completed(&host.bash("echo again"));
        assert_ne!(reader_of(&host), pid, "{signal}");
    }
    assert!(host.finish().success());
}

#[test]
fn configuration_with_a_bad_rule_does_not_start() {
    let section = json!({"policy": {"overrides": [{"rule": "git.discart", "verdict": "allow"}]}});
    let (status, said) = Start::config(&section.to_string()).refused();
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("did you mean `git.discard`"), "{said}");
}

#[test]
fn override_of_the_configuration_is_obeyed() {
    let section = json!({"policy": {"overrides": [{"rule": "git.discard", "verdict": "block"}]}});
    let (mut host, _) = Start::config(&section.to_string()).greeted();
    let result = host.bash("git reset --hard");
    assert!(
        matches!(&result.outcome, Outcome::Denied(denial) if denial.rule == "git.discard"),
        "{:?}",
        result.outcome
    );
}
