//! A peer that breaks the protocol loses the connection, crashes nobody and costs bounded memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Host, Start, assert_completed, greeting, host};
use oxibot_proto::codec::{self, Decoder, MAX_FRAME};
use oxibot_proto::message::{
    CallNumber, CloseReason, MainHello, Outcome, StdinChunk, StopScope, ToMain, ToToolhost,
};
use serde_json::json;

/// The reason of the goodbye, and that the connection closes and the process ends without a crash after it.
fn goodbye(mut host: Host) -> CloseReason {
    let reason = loop {
        match host.next() {
            ToMain::Bye(reason) => break reason,
            ToMain::Hello(_) | ToMain::Started(_) | ToMain::CallResult(_) | ToMain::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    };
    while let Some(message) = host.try_next() {
        assert!(matches!(message, ToMain::Bye(_) | ToMain::CallResult(_)), "{message:?}");
    }
    let status = host.child.wait().unwrap();
    assert!(status.code().is_some(), "ended by a signal: {status}");
    reason
}

#[test]
fn garbage_closes_with_a_reason() {
    let mut host = host();
    host.stream.write_all(&[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]).unwrap();
    assert!(matches!(goodbye(host), CloseReason::Malformed { .. }));
}

#[test]
fn oversized_header_closes_from_the_header_alone() {
    let mut host = host();
    host.stream.write_all(&u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes()).unwrap();
    assert!(matches!(goodbye(host), CloseReason::Malformed { .. }));
}

#[test]
fn message_before_the_hello_and_second_hello_are_illegal() {
    let mut early = Start::plain().silent();
    early.send(&ToToolhost::Status);
    assert_eq!(goodbye(early), CloseReason::Illegal { message: "Status".into() });
    let mut twice = host();
    twice.send(&greeting());
    assert_eq!(goodbye(twice), CloseReason::Illegal { message: "Hello".into() });
}

#[test]
fn other_version_is_told_ours() {
    let mut host = Start::plain().silent();
    host.send(&ToToolhost::Hello(MainHello { magic: oxibot_proto::MAGIC, version: 999, build: "x".into() }));
    assert_eq!(goodbye(host), CloseReason::VersionMismatch { ours: oxibot_proto::PROTOCOL_VERSION });
}

#[test]
fn number_used_twice_or_never_is_illegal() {
    let mut twice = host();
    let request = twice.request("bash", &json!({"command": "sleep 1"}));
    twice.send(&ToToolhost::Call(request.clone()));
    twice.send(&ToToolhost::Call(request));
    assert_eq!(goodbye(twice), CloseReason::Illegal { message: "Call".into() });
    let mut never = host();
    never.send(&ToToolhost::Cancel(CallNumber(77)));
    assert_eq!(goodbye(never), CloseReason::Illegal { message: "Cancel".into() });
}

#[test]
fn input_for_a_tool_call_is_illegal_and_for_an_ended_one_is_not() {
    let mut host = host();
    let result = host.bash("true");
    host.send(&ToToolhost::Cancel(result.call));
    host.send(&ToToolhost::Taken(result.call));
    assert_completed(&host.bash("true"));
    let call = host.start("bash", &json!({"command": "sleep 5"}));
    host.send(&ToToolhost::Stdin(StdinChunk { call, data: vec![1] }));
    assert_eq!(goodbye(host), CloseReason::Illegal { message: "Stdin".into() });
}

#[test]
fn half_a_frame_hurts_nobody_and_its_end_ends_everything() {
    let mut host = host();
    let frame = codec::frame(&ToToolhost::ListTools).unwrap();
    host.stream.write_all(&frame[..frame.len() - 1]).unwrap();
    assert!(host.finish().success());
}

#[test]
fn frames_byte_by_byte_are_understood() {
    let mut host = host();
    for byte in codec::frame(&ToToolhost::ListTools).unwrap() {
        host.stream.write_all(&[byte]).unwrap();
    }
    match host.next() {
        ToMain::Tools(tools) => assert!(tools.iter().any(|tool| tool.name == "bash")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn too_many_queued_calls_are_an_overload() {
    let mut host = host();
    for _ in 0..200 {
        let request = host.request("bash", &json!({"command": "sleep 20"}));
        // It may have hung up already.
        let _ = host.stream.write_all(&codec::frame(&ToToolhost::Call(request)).unwrap());
    }
    assert_eq!(goodbye(host), CloseReason::Overload);
}

#[test]
fn peer_that_never_reads_costs_bounded_memory() {
    let mut host = host();
    let ask = codec::frame(&ToToolhost::ListTools).unwrap();
    let many: Vec<u8> = ask.iter().copied().cycle().take(ask.len() * 1000).collect();
    host.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let start = Instant::now();
    // Until the supervisor stops taking it, which it must.
    while host.stream.write_all(&many).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "it takes for ever");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(resident < 20_000, "{resident} KiB");
}

#[test]
fn disabled_tools_are_neither_listed_nor_run() {
    let (mut host, _) = Start::config(r#"{"tools":{"disabled":["grep"]}}"#).greeted();
    host.send(&ToToolhost::ListTools);
    match host.next() {
        ToMain::Tools(tools) => assert!(tools.iter().all(|tool| tool.name != "grep")),
        other => panic!("{other:?}"),
    }
    let result = host.call("grep", &json!({"pattern": "x"}));
    assert!(matches!(result.outcome, Outcome::Failed { .. }));
}

struct Control(UnixStream, Decoder<ToMain>);

impl Control {
    fn connect(host: &Host) -> Self {
        let path = host.home().join("run").join(format!("{}.sock", host.child.id()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(stream, Decoder::new())
    }

    fn send(&mut self, message: &ToToolhost) {
        self.0.write_all(&codec::frame(message).unwrap()).unwrap();
    }

    fn next(&mut self) -> ToMain {
        use std::io::Read;
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.1.next_message().unwrap() {
                return message;
            }
            let count = self.0.read(&mut buffer).unwrap();
            assert!(count > 0, "closed");
            self.1.push(&buffer[..count]);
        }
    }
}

#[test]
fn control_socket_answers_status_and_stop_and_nothing_else() {
    let mut host = host();
    host.start("bash", &json!({"command": "sleep 30"}));
    assert!(matches!(host.next(), ToMain::Started(_)));
    let mut control = Control::connect(&host);
    assert!(matches!(control.next(), ToMain::Hello(_)));
    control.send(&greeting());
    control.send(&ToToolhost::Status);
    assert!(matches!(control.next(), ToMain::Status(status) if status.running.len() == 1));
    control.send(&ToToolhost::Stop(StopScope::Running));
    assert!(matches!(control.next(), ToMain::Stopped(stopped) if stopped.ended == 1 && !stopped.refusing));
    assert_eq!(host.result().outcome, Outcome::Cancelled);
    control.send(&ToToolhost::ListTools);
    assert!(matches!(control.next(), ToMain::Bye(CloseReason::Illegal { .. })));
    assert_completed(&host.bash("true"));
    let path = host.home().join("run").join(format!("{}.sock", host.child.id()));
    let keep = host.directory.path().to_owned();
    assert!(keep.exists() && path.exists());
}

#[test]
fn control_socket_is_gone_after_the_end() {
    let mut host = host();
    let run = host.home().join("run");
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), 1);
    host.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(host.child.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0);
}

#[test]
fn signal_to_end_is_obeyed_and_said() {
    let mut host = host();
    host.start("bash", &json!({"command": "sleep 30"}));
    assert!(matches!(host.next(), ToMain::Started(_)));
    assert!(std::process::Command::new("kill").arg(host.child.id().to_string()).status().unwrap().success());
    loop {
        match host.try_next() {
            Some(ToMain::Bye(reason)) => {
                assert_eq!(reason, CloseReason::ShuttingDown);
                break;
            }
            Some(_) => {}
            None => panic!("no goodbye"),
        }
    }
    assert!(host.child.wait().unwrap().success());
    assert_eq!(host.audit().last().unwrap()["event"], "stop");
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_oxibot-toolhost"))
        .args(["serve", "--socket-fd", "0", "--policy", "none"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--policy"));
}

/// Processes below the supervisor whose second argument is `role`.
fn in_role(host: &Host, role: &str) -> Vec<String> {
    let mut all = vec![host.child.id().to_string()];
    let mut index = 0;
    while let Some(parent) = all.get(index).cloned() {
        index += 1;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
            if rest.split(' ').nth(1) == Some(parent.as_str()) {
                all.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    all.retain(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(role.as_bytes())
    });
    all
}

fn kill(pids: &[String]) {
    assert!(!pids.is_empty());
    assert!(std::process::Command::new("kill").arg("-9").args(pids).status().unwrap().success());
}

#[test]
fn zygote_that_dies_fails_its_calls_and_is_replaced() {
    let mut host = host();
    host.start("bash", &json!({"command": "setsid sleep 7341.25 & sleep 7341.25"}));
    assert!(matches!(host.next(), ToMain::Started(_)));
    let start = Instant::now();
    while common::processes_with("sleep 7341.25") < 2 {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Its inits are forks of it and have its command line: the first is the zygote itself.
    kill(&in_role(&host, "zygote")[..1]);
    assert!(matches!(host.result().outcome, Outcome::Internal { .. }));
    assert_eq!(common::processes_with("sleep 7341.25"), 0);
    assert_completed(&host.bash("true"));
}

#[test]
fn supervisor_without_its_nursery_ends_and_says_why() {
    let mut host = host();
    kill(&in_role(&host, "nursery"));
    assert_eq!(host.child.wait().unwrap().code(), Some(70));
}

#[test]
fn several_supervisors_share_a_home_and_one_stop_file() {
    let mut first = host();
    let home = first.home();
    let mut others: Vec<Host> =
        (0..7).map(|_| Start::plain().with("--home").with(home.to_str().unwrap()).greeted().0).collect();
    assert_eq!(std::fs::read_dir(home.join("run")).unwrap().count(), 8);
    for other in &mut others {
        assert_completed(&other.bash("true"));
    }
    first.send(&ToToolhost::Stop(StopScope::All));
    assert!(matches!(first.next(), ToMain::Stopped(_)));
    for other in &mut others {
        assert!(matches!(other.bash("true").outcome, Outcome::Denied(_)));
    }
    assert_eq!(first.chains().len(), 8);
}
