//! Secrets stay home: not in a core, not in another process's sight, not in a log, not in what a tool or a model says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use oxibot_tests::conversation::Conversation;
use oxibot_tests::fixture::{Fixture, binary, describe, skip};
use oxibot_tests::model_server::{Answer, ModelServer, Rules};
use oxibot_tests::processes::{memory, tree};
use serde_json::{Value, json};

/// Made for these tests.
const KEY: &str = "ox!bot/test+key 0f \"these\" tests";
const VARIABLE: &str = "OXIBOT_PROVIDERS__OPENROUTER__API_KEY";
/// An id no package uses.
const USER: u32 = 48_231;

fn call(fixture: &Fixture, tool: &str, arguments: &Value) -> Value {
    let output = fixture
        .oxibot()
        .env(VARIABLE, KEY)
        .args(["tool", "call", tool, &arguments.to_string(), "--json", "--workspace"])
        .arg(fixture.workspace())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
}

#[test]
fn a_key_in_tool_output_is_taken_out_although_it_is_printed_in_pieces() {
    let fixture = Fixture::new();
    let command = "printf 'before gh'; sleep 0.2; printf p_16C7e42F292c; sleep 0.2; echo 6912E7710c838347Ae178B4a after";
    let result = call(&fixture, "bash", &json!({ "command": command }));
    assert_eq!(result["output"], "before [redacted: github-token] after\n");
    assert_eq!(result["truncated"], Value::Null, "{result}");
}

#[test]
fn mains_own_key_is_taken_out_in_every_form() {
    let fixture = Fixture::new();
    std::fs::write(fixture.workspace().join("f"), KEY).unwrap();
    let command = "cat f; echo; base64 -w0 f; echo; (printf xy; cat f) | base64 -w0; echo; od -An -v -tx1 f | tr -d ' \\n'; echo";
    let result = call(&fixture, "bash", &json!({ "command": command }));
    let output = result["output"].as_str().unwrap();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 4, "{output}");
    for line in lines {
        assert!(line.contains("[redacted: providers.openrouter.apiKey]") && line.len() < 60, "{output}");
    }
    for tool in ["read_file", "grep"] {
        let arguments = if tool == "grep" { json!({ "pattern": "test" }) } else { json!({ "path": "f" }) };
        let result = call(&fixture, tool, &arguments);
        let output = result["output"].as_str().unwrap();
        assert!(
            output.contains("[redacted: providers.openrouter.apiKey]") && !output.contains("ox!bot"),
            "{output}"
        );
    }
}

#[test]
fn what_reading_tools_return_and_the_kept_output_hold_no_key() {
    let fixture = Fixture::new();
    let key = concat!("AKIA", "Q3EGRZZZ4KLMN2PQ");
    std::fs::write(fixture.workspace().join("f"), format!("aws {key}\n")).unwrap();
    for (tool, arguments) in [("read_file", json!({ "path": "f" })), ("grep", json!({ "pattern": "aws" }))] {
        let result = call(&fixture, tool, &arguments);
        let output = result["output"].as_str().unwrap();
        assert!(output.contains("aws [redacted: aws-access-key]") && !output.contains(key), "{output}");
    }
    let result = call(&fixture, "bash", &json!({ "command": "for i in $(seq 2000); do cat f; done" }));
    assert_eq!(
        result["truncated"]["total_bytes"],
        2000 * 25,
        "as the program printed: {}",
        result["truncated"]
    );
    let kept = fixture.workspace().join(result["truncated"]["file"].as_str().unwrap());
    let kept = std::fs::read_to_string(kept).unwrap();
    assert_eq!(kept.matches("[redacted: aws-access-key]").count(), 2000);
    assert!(!kept.contains(key));
}

#[test]
fn ordinary_output_passes_byte_for_byte() {
    let fixture = Fixture::new();
    let text = "commit 4f2b9c01d7e83a65bf10ce92a7d4583e4f2b9c01\nintegrity sha512-q8Zt3Lm0Xv7Rk2Bw9Yc5q8Zt3Lm0Xv7Rk2Bw9Yc5q8Zt3Lm0Xv7Rk2Bw9Yc5q8Zt3Lm0Xv7Rk2Bw9Yc5==\napi_key = os.environ[\"API_KEY\"]\nends without a line feed: token";
    std::fs::write(fixture.workspace().join("f"), text).unwrap();
    assert_eq!(call(&fixture, "bash", &json!({ "command": "cat f" }))["output"], text);
    assert_eq!(call(&fixture, "bash", &json!({ "command": "true" }))["output"], "");
}

#[test]
fn no_log_and_no_message_holds_a_key_whatever_goes_wrong() {
    let fixture = Fixture::new();
    // A server that answers with the key it was sent, in a refusal and in a redirect that leads nowhere.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while request.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let status = if number % 2 == 0 { "401 Unauthorized" } else { "500 Internal Server Error" };
            let body = format!("{{\"error\":{{\"message\":\"Incorrect API key provided: {SPOKEN}\"}}}}");
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nx-echo: {SPOKEN}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let log = fixture.root().join("log");
    let base = format!("http://127.0.0.1:{port}/v1");
    // An address that holds a key is refused, and must not be shown either.
    let with_key = format!("{base}?also={SPOKEN}");
    let hello = &["agent", "-m", "hello"][..];
    for (arguments, base) in [
        (hello, &with_key),
        (hello, &base),
        (&["doctor"], &base),
        (&["config", "show"], &base),
        (&["status"], &base),
    ] {
        let output = fixture
            .oxibot()
            .env("RUST_LOG", "trace")
            .env("OXIBOT_AGENTS__DEFAULTS__MODEL", "openai/any")
            .env("OXIBOT_PROVIDERS__OPENAI__API_KEY", SPOKEN)
            .env("OXIBOT_PROVIDERS__OPENAI__API_BASE", base)
            .arg("--log-file")
            .arg(&log)
            .args(arguments)
            .output()
            .unwrap();
        let said = describe(&output);
        assert!(!said.contains(SPOKEN), "{arguments:?}: {said}");
    }
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains(" TRACE "), "a log at trace was written: {log}");
    assert!(!log.contains(SPOKEN), "{}", log.lines().find(|line| line.contains(SPOKEN)).unwrap_or_default());
    let audit = std::fs::read_dir(fixture.home().join("audit")).unwrap().flatten();
    for file in audit.filter(|file| file.path().extension().is_some_and(|end| end == "jsonl")) {
        assert!(!std::fs::read_to_string(file.path()).unwrap().contains(SPOKEN));
    }
}

/// A key without a shape, that can stand in a header.
const SPOKEN: &str = "this-tests-own.provider_key";

/// A process of ours that holds a key in its environment and stays: main of `agent`, asking for a line.
fn waiting(fixture: &Fixture, programs: &std::path::Path, user: Option<u32>) -> Child {
    let mut command = Command::new(programs.join("oxibot"));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", fixture.root())
        .env("OXIBOT_AGENTS__DEFAULTS__MODEL", "openai/any")
        .env("OXIBOT_PROVIDERS__OPENAI__API_KEY", SPOKEN)
        .arg("--home")
        .arg(fixture.home())
        .args(["sandbox", "run", "--workspace"])
        .arg(fixture.workspace())
        .args(["--", "sh", "-c", "echo ready; cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.current_dir(fixture.root());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if line != "ready\n" {
        let mut said = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut said);
        panic!("{line:?}: {said}");
    }
    child
}

#[test]
fn a_process_that_crashes_leaves_no_core() {
    let fixture = Fixture::new();
    let programs = fixture.programs_for_anyone();
    // The limit is what a careless machine would have.
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 1 << 30, 1 << 30).unwrap();
    // The control: an ordinary program here dumps, or says that it would.
    // A core lies where its process was.
    let mut ordinary = Command::new("sleep").arg("100").current_dir(fixture.root()).spawn().unwrap();
    let pid = |child: &Child| nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid(&ordinary), nix::sys::signal::Signal::SIGABRT).unwrap();
    let dumps = ordinary.wait().unwrap().core_dumped();
    let mut main = waiting(&fixture, &programs, None);
    nix::sys::signal::kill(pid(&main), nix::sys::signal::Signal::SIGABRT).unwrap();
    let status = main.wait().unwrap();
    assert_eq!(status.signal(), Some(6), "{status}");
    assert!(!status.core_dumped(), "a core of a process with a key in it");
    if !dumps {
        skip(
            "secrets::a_process_that_crashes_leaves_no_core",
            "this machine writes no core of an ordinary program either",
        );
    }
}

#[test]
fn nobody_of_the_same_user_reads_memory_or_environment() {
    if !nix::unistd::geteuid().is_root() {
        return skip(
            "secrets::nobody_of_the_same_user_reads_memory_or_environment",
            "root is needed to be another user",
        );
    }
    let fixture = Fixture::new();
    let programs = fixture.programs_for_anyone();
    for directory in [fixture.home(), fixture.workspace()] {
        nix::unistd::chown(&directory, Some(USER.into()), Some(USER.into())).unwrap();
    }
    let main = waiting(&fixture, &programs, Some(USER));
    let read = |path: &str, user: u32| {
        Command::new("cat").arg(path).uid(user).gid(user).stderr(Stdio::null()).output().unwrap()
    };
    // The control: of an ordinary process of the same user everything can be read.
    let mut ordinary =
        Command::new("sleep").arg("100").env(VARIABLE, SPOKEN).uid(USER).gid(USER).spawn().unwrap();
    let seen = read(&format!("/proc/{}/environ", ordinary.id()), USER);
    assert!(String::from_utf8_lossy(&seen.stdout).contains(SPOKEN), "the control");
    for name in ["environ", "mem", "maps", "auxv", "syscall"] {
        let seen = read(&format!("/proc/{}/{name}", main.id()), USER);
        assert!(!seen.status.success() && seen.stdout.is_empty(), "{name}: {}", describe(&seen));
    }
    ordinary.kill().unwrap();
    ordinary.wait().unwrap();
    let mut main = main;
    drop(main.stdin.take());
    main.wait().unwrap();
}

/// What a process of ours was started with, as root sees it.
fn environment_of(pid: i32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ")).unwrap()).into_owned()
}

#[test]
fn key_of_the_environment_reaches_the_provider_and_stays_in_nobodys_environment() {
    if !nix::unistd::geteuid().is_root() {
        return skip(
            "secrets::key_of_the_environment_reaches_the_provider_and_stays_in_nobodys_environment",
            "root is needed to see the environment of a process that hides it",
        );
    }
    let server =
        ModelServer::start(Rules::with_key(SPOKEN), vec![Answer::text("One."), Answer::text("Two.")]);
    let fixture = Fixture::new();
    let text = json!({
        "agents": {"defaults": {"model": "custom/test-model", "workspace": fixture.workspace()}},
        "providers": {"custom": {"apiBase": server.openai_base()}},
    });
    let path = fixture.home().join("config.json");
    std::fs::write(&path, text.to_string()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let variable = "OXIBOT_PROVIDERS__CUSTOM__API_KEY";
    // The control: a process that does nothing about it shows it.
    let mut ordinary = Command::new("sleep").arg("100").env(variable, SPOKEN).spawn().unwrap();
    assert!(environment_of(i32::try_from(ordinary.id()).unwrap()).contains(SPOKEN), "the control");
    ordinary.kill().unwrap();
    ordinary.wait().unwrap();

    let once = fixture.oxibot().env(variable, SPOKEN).args(["agent", "-m", "go"]).output().unwrap();
    assert!(String::from_utf8_lossy(&once.stdout).contains("One."), "{}", describe(&once));

    let mut talk = fixture.oxibot();
    talk.env(variable, SPOKEN).arg("agent").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut talk = talk.stderr(Stdio::null()).spawn().unwrap();
    talk.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut said = BufReader::new(talk.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("Two.") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it answers: the key reached it");
    }
    let all = tree(i32::try_from(talk.id()).unwrap());
    assert!(all.len() >= 5, "launcher, main and the toolhost: {all:?}");
    for process in &all {
        assert!(!environment_of(process.pid).contains(SPOKEN), "{process:?}");
        for entry in std::fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            assert!(!target.to_string_lossy().contains("oxibot-held"), "{process:?}");
        }
    }
    drop(talk.stdin.take());
    talk.wait().unwrap();
}

#[test]
fn memory_is_locked_or_doctor_says_that_it_is_not() {
    let fixture = Fixture::new();
    let output = fixture.oxibot().args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == "disk.locked").unwrap();
    let conversation = Conversation::start(binary("oxibot").parent().unwrap(), &fixture, 2);
    // Main is the one that was launched.
    let main =
        tree(conversation.root()).into_iter().find(|process| process.command.contains("--launched")).unwrap();
    // It reads its configuration beside the toolhost's start, and locks when it has.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let expected = check["state"] == "ok";
    while expected && memory(main.pid, "VmLck") == 0 && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let locked = memory(main.pid, "VmLck");
    conversation.end();
    assert_eq!(expected, locked > 0, "{check} {locked} kB");
}

#[test]
fn decoys_in_mains_place_are_found_by_no_tool() {
    let fixture = Fixture::new();
    let before = listing(&fixture);
    let output = fixture.oxibot().args(["doctor", "--attack", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let decoys: Vec<&Value> = report["attacks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|attack| attack["id"].as_str().unwrap().starts_with("decoy-"))
        .collect();
    assert!(decoys.len() >= 12, "{decoys:?}");
    for decoy in &decoys {
        assert_eq!(decoy["result"], "held", "{decoy}");
        assert_eq!(decoy["protection"], "secrets");
    }
    assert_eq!(decoys[0]["id"], "decoy-control");
    let after = listing(&fixture);
    assert!(!after.iter().any(|name| name.contains("decoy")), "{before:?} {after:?}");
}

fn listing(fixture: &Fixture) -> Vec<String> {
    let entries = std::fs::read_dir(fixture.home()).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What the searches are worth: with the memory readable and no wall they would find what they look for.
#[test]
fn control_a_decoy_is_found_where_nothing_hides_it() {
    let fixture = Fixture::new();
    let mut decoy = Command::new(binary("oxibot"))
        .arg("--decoy")
        .env("OXIBOT_DECOY", "oxidecoy00112233445566778899aabbccddeeff")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    decoy.stdin.as_mut().unwrap().write_all(b"oxidecoyffeeddccbbaa99887766554433221100\n").unwrap();
    decoy.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    if nix::unistd::geteuid().is_root() {
        // Root reads every process: the canary is where the searches look.
        let environment = std::fs::read(format!("/proc/{}/environ", decoy.id())).unwrap();
        assert!(String::from_utf8_lossy(&environment).contains("oxidecoy0011"));
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", decoy.id())).unwrap();
        let memory = std::fs::File::open(format!("/proc/{}/mem", decoy.id())).unwrap();
        let canary = b"oxidecoyffeeddcc";
        let found = maps.lines().filter(|line| line.contains(" rw")).any(|line| {
            let (range, _) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap().min(16 << 20)];
            let read = std::os::unix::fs::FileExt::read_at(&memory, &mut bytes, from).unwrap_or(0);
            bytes[..read].windows(canary.len()).any(|window| window == canary)
        });
        assert!(found, "the canary is in memory");
    }
    drop(decoy.stdin.take());
    assert!(decoy.wait().unwrap().success());
    drop(fixture);
}
