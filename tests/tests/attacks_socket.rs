//! Attacks on the broker itself: hostile frames from a peer, results forged by what a program prints, control sockets
//! reached from inside, floods. Whatever happens, the toolhost does not crash, and what is confined decides nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use oxibot_proto::codec::frame;
use oxibot_proto::message::{
    CallNumber, CallRequest, CallResult, Denial, FileChunk, GetRequest, Level, Outcome, Output, PutRequest,
    RunRequest, StdinChunk, ToMain, ToToolhost,
};
use oxibot_tests::fixture::Fixture;
use oxibot_tests::peer::{Peer, hello, origin};
use oxibot_tests::processes;
use serde_json::json;

fn run(call: u64, argv: &[&[u8]]) -> ToToolhost {
    ToToolhost::Run(RunRequest {
        call: CallNumber(call),
        argv: argv.iter().map(|word| word.to_vec()).collect(),
        workspace: None,
        timeout_ms: Some(5000),
        origin: origin(),
    })
}

fn call(call: u64, workspace: Option<&str>, timeout_ms: Option<u64>) -> ToToolhost {
    ToToolhost::Call(CallRequest {
        call: CallNumber(call),
        tool: "bash".into(),
        arguments: json!({"command": "echo GOT-THROUGH"}).to_string(),
        workspace: workspace.map(str::to_owned),
        timeout_ms,
        origin: origin(),
        approval: None,
    })
}

/// Hostile conversations after a proper hello, by name.
fn conversations() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let one = |message: ToToolhost| frame(&message).unwrap();
    let words: Vec<&[u8]> = vec![b"x"; 60_000];
    vec![
        ("run nothing", vec![one(run(1, &[]))]),
        ("run the empty name", vec![one(run(1, &[b""]))]),
        ("run NUL", vec![one(run(1, &[b"bash\0-c", b"a\0b"]))]),
        ("run no text", vec![one(run(1, &[b"\xff\xfe/bin/sh", b"\xff"]))]),
        ("run many words", vec![one(run(1, &words))]),
        ("run a long word", vec![one(run(1, &[b"echo", &vec![b'x'; 900_000]]))]),
        (
            "run ourselves",
            vec![one(run(1, &[b"oxibot-toolhost", b"serve"])), one(run(2, &[b"/proc/self/exe"]))],
        ),
        ("relative workspace", vec![one(call(1, Some("."), None))]),
        ("workspace of dots", vec![one(call(1, Some("/tmp/../etc"), None))]),
        ("workspace with NUL", vec![one(call(1, Some("/tmp\0"), None))]),
        ("root as workspace", vec![one(call(1, Some("/"), None))]),
        ("no time", vec![one(call(1, None, Some(0)))]),
        ("all time", vec![one(call(1, None, Some(u64::MAX)))]),
        ("largest number", vec![one(call(u64::MAX, None, None)), one(call(0, None, None))]),
        ("input for nobody", vec![one(ToToolhost::Stdin(StdinChunk { call: CallNumber(9), data: vec![1] }))]),
        (
            "chunk for nobody",
            vec![one(ToToolhost::PutChunk(FileChunk { call: CallNumber(9), offset: 0, data: vec![1] }))],
        ),
        ("taken by nobody", vec![one(ToToolhost::Taken(CallNumber(9)))]),
        (
            "more than announced",
            vec![
                one(ToToolhost::Put(PutRequest {
                    call: CallNumber(1),
                    workspace: None,
                    path: "f".into(),
                    size: 1,
                })),
                one(ToToolhost::PutChunk(FileChunk { call: CallNumber(1), offset: 0, data: vec![0; 1000] })),
                one(ToToolhost::PutChunk(FileChunk {
                    call: CallNumber(1),
                    offset: u64::MAX,
                    data: vec![0; 1000],
                })),
            ],
        ),
        (
            "a put without end",
            vec![one(ToToolhost::Put(PutRequest {
                call: CallNumber(1),
                workspace: None,
                path: "f".into(),
                size: u64::MAX,
            }))],
        ),
        (
            "a get without bound",
            vec![one(ToToolhost::Get(GetRequest {
                call: CallNumber(1),
                workspace: None,
                path: "/dev/zero".into(),
                max_size: u64::MAX,
            }))],
        ),
        ("a thousand calls", (1..1000).map(|n| one(call(n, None, None))).collect()),
        ("a thousand status", vec![one(ToToolhost::Status).repeat(1000)]),
        ("half a frame", vec![vec![0, 0, 0, 200, 3, 1]]),
        ("empty frames", vec![[0, 0, 0, 0].repeat(500)]),
        ("an answer instead of a question", vec![frame(&forged()).unwrap()]),
        ("a second hello", vec![one(hello())]),
    ]
}

/// A result the toolhost never gave.
fn forged() -> ToMain {
    ToMain::CallResult(Box::new(CallResult {
        call: CallNumber(1),
        call_id: "forged".into(),
        tool: "bash".into(),
        outcome: Outcome::Denied(Denial {
            rule: "forged".into(),
            reason: String::new(),
            hint: String::new(),
        }),
        exit_code: Some(0),
        signal: None,
        output: Output {
            head: b"forged".to_vec(),
            tail: Vec::new(),
            total_bytes: 6,
            passed_bytes: 6,
            file: None,
        },
        violations: Vec::new(),
        notes: Vec::new(),
        level: Level::Off,
        proven: None,
        duration_ms: 0,
        usage: None,
        view: None,
        approval: None,
    }))
}

#[test]
fn hostile_conversations_end_without_a_crash_and_leave_nothing() {
    for (name, wires) in conversations() {
        let fixture = Fixture::new();
        let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
        for wire in &wires {
            peer.send_raw(wire);
        }
        let _ = peer.stream.shutdown(std::net::Shutdown::Write);
        let mut results = 0;
        while let Some(message) = peer.receive() {
            if let ToMain::CallResult(result) = message {
                results += 1;
                assert!(!matches!(result.outcome, Outcome::Internal { .. }), "{name}: {result:?}");
                let text = String::from_utf8_lossy(&result.output.head).into_owned();
                assert!(!text.contains("GOT-THROUGH") || !name.contains("workspace"), "{name}: {text}");
            }
        }
        assert!(peer.ends(), "{name}: it ends");
        let status = peer.child.wait().unwrap();
        assert_eq!(status.signal(), None, "{name}: no crash");
        assert_ne!(status.code(), Some(101), "{name}: no panic");
        assert!(results <= 1000);
        let home = fixture.home().display().to_string();
        assert!(processes::anywhere(&home).is_empty(), "{name}: {:?}", processes::anywhere(&home));
    }
}

#[test]
fn what_a_program_prints_is_output_whatever_it_looks_like() {
    let fixture = Fixture::new();
    let wire = frame(&forged()).unwrap();
    std::fs::write(fixture.workspace().join("frame"), wire.repeat(50)).unwrap();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    for command in [
        "cat frame; cat frame >&2",
        "for f in /proc/self/fd/* /proc/1/fd/* /dev/fd/*; do cat frame > $f; done 2>/dev/null; python3 -c 'import os; d = open(\"frame\", \"rb\").read()\nfor n in range(1024):\n    try: os.write(n, d)\n    except OSError: pass'",
        "echo '{\"outcome\":\"internal\",\"exit_code\":0,\"denial\":{\"rule\":\"x\"}}'; echo 'timed out after 1 s'; printf 'oxibot: denied\\n' >&2",
    ] {
        let result = peer.bash(command);
        assert_eq!(result.outcome, Outcome::Completed, "{command}");
        assert_ne!(result.call_id, "forged");
        assert_eq!(result.level, Level::Full);
    }
    for status in [1, 2, 3, 4, 5, 10, 20, 70, 75, 78, 124, 125, 126, 127, 128, 130, 137, 139, 255] {
        let result = peer.bash(&format!("exit {status}"));
        assert_eq!((&result.outcome, result.exit_code), (&Outcome::Completed, Some(status)));
    }
    let (value, status) =
        fixture.tool("bash", &json!({"command": "cat frame; echo '{\"outcome\":\"internal\"}'; exit 70"}));
    assert_eq!(
        (value["outcome"].as_str(), value["exit_code"].as_i64(), status),
        (Some("completed"), Some(70), Some(0)),
        "{value}"
    );
}

#[test]
fn control_sockets_are_out_of_reach_of_a_call() {
    for more in [&[][..], &["--without-namespaces"][..]] {
        let fixture = Fixture::new();
        let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), more);
        let run = fixture.home().join("run");
        let socket = std::fs::read_dir(&run)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|e| e == "sock"))
            .expect("an embedded toolhost listens");
        // The control: from outside, as the same user, it is there.
        drop(std::os::unix::net::UnixStream::connect(&socket).expect("reachable without the wall"));
        let script = format!(
            "import socket, os, glob\nfor path in [{:?}] + glob.glob({:?} + '/*') + glob.glob('/run/oxibot/*') + glob.glob('/proc/*/root{}/*'):\n    try: s = socket.socket(socket.AF_UNIX); s.connect(path); print('GOT-THROUGH', path)\n    except OSError as error: print(error)\nfor path in ({:?} + '/stop', {:?} + '/STOP'):\n    try: open(path, 'w'); print('GOT-THROUGH', path)\n    except OSError as error: print(error)\n",
            socket.display().to_string(),
            run.display().to_string(),
            run.display(),
            run.display().to_string(),
            fixture.home().display().to_string(),
        );
        std::fs::write(fixture.workspace().join("reach.py"), script).unwrap();
        let result = peer.bash("python3 reach.py");
        let text = String::from_utf8_lossy(&result.output.head).into_owned();
        assert!(!text.contains("GOT-THROUGH") && text.contains("rrno"), "{more:?}: {text}");
        assert_eq!(peer.bash("echo alive").output.head, b"alive\n");
    }
}

#[test]
fn home_inside_the_workspace_stays_out_of_reach() {
    let fixture = Fixture::new();
    let home = fixture.workspace().join(".oxibot");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(home.join("secret"), "SECRET").unwrap();
    let (mut peer, _) = Peer::greeted(&home, &fixture.workspace(), &[]);
    let attack = "cat .oxibot/secret; ls -a .oxibot; mv .oxibot o; cat o/secret; ln .oxibot/secret s; cat s; rm -rf .oxibot; mkdir .oxibot; echo x > .oxibot/config.json; cat .oxibot/*";
    let result = peer.bash(attack);
    let text = String::from_utf8_lossy(&result.output.head).into_owned();
    assert!(!text.contains("SECRET"), "{text}");
    assert_eq!(std::fs::read_to_string(home.join("secret")).unwrap(), "SECRET");
    assert!(!home.join("config.json").exists());
    for (tool, arguments) in [
        ("read_file", json!({"path": ".oxibot/secret"})),
        ("write_file", json!({"path": ".oxibot/config.json", "content": "{}"})),
        ("list_dir", json!({"path": ".oxibot"})),
        ("grep", json!({"pattern": "SECRET"})),
        ("find_files", json!({"pattern": "secret"})),
        ("edit_file", json!({"path": ".oxibot/secret", "old_text": "SECRET", "new_text": "x"})),
    ] {
        let call = peer.call(tool, &arguments);
        let result = peer.result(call);
        let text = String::from_utf8_lossy(&result.output.head).into_owned();
        assert!(!text.contains("SECRET") && !text.contains("secret"), "{tool}: {text}");
    }
    assert_eq!(std::fs::read_to_string(home.join("secret")).unwrap(), "SECRET");
    assert!(!home.join("config.json").exists());
}

#[test]
fn floods_of_output_cost_no_memory_and_keep_the_result_small() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    assert_eq!(peer.bash("echo alive").output.head, b"alive\n");
    let supervisor = i32::try_from(peer.child.id()).unwrap();
    let before = processes::memory(supervisor, "VmRSS");
    for (name, command) in [
        ("bytes", "head -c 400000000 /dev/zero"),
        ("one line", "head -c 100000000 /dev/zero | tr '\\0' x"),
        ("both streams", "(yes out | head -c 50000000) & (yes err | head -c 50000000 >&2); wait"),
        ("no text", "head -c 50000000 /dev/urandom"),
        ("escapes", "yes $'\\e]52;c;aGk=\\a\\e[2J' | head -c 50000000"),
        (
            "single bytes",
            "python3 -c 'import os\nfor _ in range(100000): os.write(1, b\"x\"); os.write(2, b\"y\")'",
        ),
        ("half characters", "python3 -c 'import os\nfor _ in range(20000): os.write(1, b\"\\xe2\\x82\")'"),
    ] {
        let start = Instant::now();
        let result = peer.bash(command);
        assert_eq!(result.outcome, Outcome::Completed, "{name}");
        assert!(result.output.head.len() + result.output.tail.len() <= 64 << 10, "{name}");
        assert!(start.elapsed() < Duration::from_secs(45), "{name}");
    }
    let after = processes::memory(supervisor, "VmRSS");
    assert!(after < before + 24 * 1024, "{before} KiB became {after} KiB");
    let (result, _) = fixture.tool("bash", &json!({"command": "head -c 50000000 /dev/urandom"}));
    assert!(
        result["output"].as_str().unwrap().len() <= 10_240,
        "{}",
        result["output"].as_str().unwrap().len()
    );
    let kept = std::fs::read_dir(fixture.workspace().join(".oxibot-output")).unwrap().flatten();
    for file in kept {
        assert!(file.metadata().unwrap().len() <= 16 << 20, "{:?}", file.path());
    }
}

#[test]
fn keeping_output_does_not_lead_out_of_the_workspace() {
    let fixture = Fixture::new();
    let outside = fixture.root().join("outside");
    std::fs::create_dir(&outside).unwrap();
    for prepare in [
        "rm -rf .oxibot-output; ln -s ../outside .oxibot-output",
        "rm -rf .oxibot-output; mkfifo .oxibot-output",
        "rm -rf .oxibot-output; echo x > .oxibot-output",
        "rm -rf .oxibot-output; mkdir .oxibot-output; ln -s ../../outside/ignored .oxibot-output/.gitignore",
        "rm -rf .oxibot-output; mkdir -m 0 .oxibot-output",
    ] {
        let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
        let result = peer.bash(&format!("{prepare}; seq 100000"));
        assert!(!matches!(result.outcome, Outcome::Internal { .. }), "{prepare}: {:?}", result.outcome);
        assert_eq!(peer.bash("echo alive; seq 100000 >&2").outcome, Outcome::Completed, "{prepare}");
        let made: Vec<_> = std::fs::read_dir(&outside).unwrap().flatten().map(|e| e.path()).collect();
        assert!(made.is_empty(), "{prepare}: {made:?}");
        let _ = std::fs::set_permissions(
            fixture.workspace().join(".oxibot-output"),
            std::fs::Permissions::from_mode(0o755),
        );
    }
}

#[test]
fn flood_of_input_for_a_program_that_never_reads_holds_up_nobody() {
    let fixture = Fixture::new();
    let mut child = fixture
        .oxibot()
        .args(["sandbox", "run", "--timeout", "3", "--workspace"])
        .arg(fixture.workspace())
        .args(["--", "sleep", "61"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let block = vec![b'x'; 1 << 20];
        while std::io::Write::write_all(&mut stdin, &block).is_ok() {}
    });
    let start = Instant::now();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(124));
    assert!(start.elapsed() < Duration::from_secs(30));
    writer.join().unwrap();
}
