//! A main that does not speak as it should: the toolhost says why, closes, and crashes for nobody.

use oxibot_proto::codec::{Decoder, frame};
use oxibot_proto::message::{CallNumber, CloseReason, MainHello, Outcome, ToMain, ToToolhost};
use oxibot_proto::{MAGIC, PROTOCOL_VERSION};
use oxibot_tests::fixture::Fixture;
use oxibot_tests::peer::{Peer, hello};
use serde_json::json;

/// Sends bytes first thing and returns the toolhost's parting reason.
fn parting(bytes: &[u8]) -> Option<CloseReason> {
    let fixture = Fixture::new();
    let mut peer = Peer::start(&fixture.home(), &fixture.workspace(), &[]);
    peer.send_raw(bytes);
    let mut reason = None;
    while let Some(message) = peer.receive() {
        match message {
            ToMain::Bye(why) => reason = Some(why),
            ToMain::Hello(_) => {}
            other => panic!("nothing else may be said: {other:?}"),
        }
    }
    assert!(peer.ends(), "it ends");
    let status = peer.child.wait().unwrap();
    assert!(std::os::unix::process::ExitStatusExt::signal(&status).is_none(), "no crash: {status}");
    reason
}

#[test]
fn announced_gigabyte_is_refused_from_its_header() {
    assert!(matches!(parting(&[0x40, 0, 0, 0, 1]), Some(CloseReason::Malformed { .. })));
}

#[test]
fn garbage_in_a_frame_is_refused() {
    assert!(matches!(parting(&[0, 0, 0, 3, 0xff, 0xff, 0xff]), Some(CloseReason::Malformed { .. })));
}

#[test]
fn length_bomb_inside_a_frame_is_refused() {
    let mut body = frame(&ToToolhost::ListTools).unwrap();
    body.truncate(4);
    let mut bomb = vec![2, 1, 253];
    bomb.extend_from_slice(&(1_u64 << 50).to_le_bytes());
    let mut wire = u32::try_from(bomb.len()).unwrap().to_be_bytes().to_vec();
    wire.extend_from_slice(&bomb);
    assert!(matches!(parting(&wire), Some(CloseReason::Malformed { .. })));
}

#[test]
fn work_before_hello_is_illegal() {
    let reason = parting(&frame(&ToToolhost::ListTools).unwrap());
    assert_eq!(reason, Some(CloseReason::Illegal { message: "ListTools".into() }));
}

#[test]
fn another_version_is_refused_and_told_ours() {
    let reason = parting(
        &frame(&ToToolhost::Hello(MainHello {
            magic: MAGIC,
            version: PROTOCOL_VERSION + 1,
            build: String::new(),
        }))
        .unwrap(),
    );
    assert_eq!(reason, Some(CloseReason::VersionMismatch { ours: PROTOCOL_VERSION }));
}

#[test]
fn second_hello_is_illegal() {
    let mut wire = frame(&hello()).unwrap();
    wire.extend(frame(&hello()).unwrap());
    assert_eq!(parting(&wire), Some(CloseReason::Illegal { message: "Hello".into() }));
}

#[test]
fn half_a_frame_and_silence_hold_up_nobody() {
    let fixture = Fixture::new();
    let mut peer = Peer::start(&fixture.home(), &fixture.workspace(), &[]);
    peer.send_raw(&[0, 0, 1]);
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(peer.ends());
}

#[test]
fn number_used_twice_is_illegal() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.call("bash", &json!({"command": "sleep 30"}));
    let again = ToToolhost::Call(oxibot_proto::message::CallRequest {
        call,
        tool: "bash".into(),
        arguments: json!({"command": "echo hi"}).to_string(),
        workspace: None,
        timeout_ms: None,
        origin: oxibot_tests::peer::origin(),
        approval: None,
    });
    peer.send(&again);
    let mut bye = None;
    while let Some(message) = peer.receive() {
        if let ToMain::Bye(reason) = message {
            bye = Some(reason);
        }
    }
    assert!(matches!(bye, Some(CloseReason::Illegal { .. })), "{bye:?}");
}

#[test]
fn cancel_of_a_call_that_ended_is_harmless_and_of_one_that_never_began_is_illegal() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.call("bash", &json!({"command": ":"}));
    assert_eq!(peer.result(call).outcome, Outcome::Completed);
    peer.send(&ToToolhost::Cancel(call));
    assert_eq!(peer.bash("echo alive").output.head, b"alive\n");
    peer.send(&ToToolhost::Cancel(CallNumber(4711)));
    assert_eq!(peer.receive(), Some(ToMain::Bye(CloseReason::Illegal { message: "Cancel".into() })));
}

#[test]
fn peer_that_never_reads_does_not_grow_the_toolhost() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    peer.stream.set_write_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let supervisor = i32::try_from(peer.child.id()).unwrap();
    let before = oxibot_tests::processes::memory(supervisor, "VmRSS");
    let wire = frame(&ToToolhost::ListTools).unwrap().repeat(1000);
    for _ in 0..50 {
        peer.send_raw(&wire);
    }
    let after = oxibot_tests::processes::memory(supervisor, "VmRSS");
    assert!(after < before + 16 * 1024, "{before} KiB became {after} KiB");
}

#[test]
fn unlisted_workspace_is_denied() {
    let fixture = Fixture::new();
    let other = fixture.root().join("other");
    std::fs::create_dir(&other).unwrap();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.number();
    peer.send(&ToToolhost::Call(oxibot_proto::message::CallRequest {
        call,
        tool: "bash".into(),
        arguments: json!({"command": "pwd"}).to_string(),
        workspace: Some(other.display().to_string()),
        timeout_ms: None,
        origin: oxibot_tests::peer::origin(),
        approval: Some("guessed".into()),
    }));
    let result = peer.result(call);
    assert!(matches!(result.outcome, Outcome::Denied(_)), "{result:?}");
}

#[test]
fn arbitrary_bytes_after_hello_crash_nobody() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..8 {
        let mut wire = frame(&hello()).unwrap();
        for _ in 0..2000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            wire.push(seed.to_le_bytes()[3]);
        }
        let reason = parting(&wire);
        assert!(reason.is_some(), "it says why it closes");
        let mut decoder = Decoder::<ToToolhost>::new();
        decoder.push(&wire);
        while let Ok(Some(_)) = decoder.next_message() {}
    }
}
