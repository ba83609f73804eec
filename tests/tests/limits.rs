//! How much one sender may ask for, and the stop by file that ends what runs.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oxibot_proto::message::{
    CallRequest, CallResult, Denial, GetRequest, Origin, Outcome, ToMain, ToToolhost, TransferEnd,
};
use oxibot_tests::fixture::Fixture;
use oxibot_tests::peer::{PATIENCE, Peer};
use serde_json::{Value, json};

fn call_of(peer: &mut Peer, who: &str, channel: &str) -> CallResult {
    let number = peer.number();
    peer.send(&ToToolhost::Call(CallRequest {
        call: number,
        tool: "list_dir".into(),
        arguments: r#"{"path":"."}"#.into(),
        workspace: None,
        timeout_ms: None,
        origin: Origin { who: who.into(), channel: channel.into(), session: "s".into() },
        approval: None,
    }));
    peer.result(number)
}

fn denied(result: &CallResult) -> Option<&Denial> {
    if let Outcome::Denied(denial) = &result.outcome { Some(denial) } else { None }
}

fn limited(fixture: &Fixture, senders: &Value) -> Peer {
    let path = fixture.home().join("config.json");
    std::fs::write(&path, json!({"limits": {"senders": senders}}).to_string()).unwrap();
    Peer::greeted(&fixture.home(), &fixture.workspace(), &["--config", path.to_str().unwrap()]).0
}

fn recorded(home: &Path, event: &str) -> usize {
    let chains = std::fs::read_dir(home.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let logs = chains.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    logs.map(|path| std::fs::read_to_string(path).unwrap().matches(&format!("\"event\":\"{event}\"")).count())
        .sum()
}

#[test]
fn burst_is_granted_then_the_sender_waits_and_others_do_not() {
    let fixture = Fixture::new();
    let mut peer = limited(&fixture, &json!({"callsPerMinute": 1, "callBurst": 3}));
    for _ in 0..3 {
        assert_eq!(call_of(&mut peer, "ada", "telegram").outcome, Outcome::Completed);
    }
    for _ in 0..5 {
        let result = call_of(&mut peer, "ada", "telegram");
        let denial = denied(&result).unwrap();
        assert_eq!(denial.rule, "limits.callsPerMinute");
        assert!(
            denial.reason.contains("1 calls a minute") && denial.hint.contains("try again in"),
            "{denial:?}"
        );
    }
    assert_eq!(recorded(&fixture.home(), "rate_limited"), 1, "told once, not each time");
    assert_eq!(call_of(&mut peer, "bob", "telegram").outcome, Outcome::Completed);
    for _ in 0..10 {
        assert_eq!(
            call_of(&mut peer, "ada", "terminal").outcome,
            Outcome::Completed,
            "the terminal is not limited"
        );
    }
}

fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400
}

#[test]
fn days_budget_survives_a_restart() {
    // Where midnight passes in between the count begins anew, and the day that began is tried.
    let (outcomes, fixture) = loop {
        let (fixture, day) = (Fixture::new(), today());
        let senders = json!({"callsPerMinute": 0, "callsPerDay": 3});
        let mut peer = limited(&fixture, &senders);
        for _ in 0..2 {
            assert_eq!(call_of(&mut peer, "ada", "telegram").outcome, Outcome::Completed);
        }
        drop(peer);
        let mut peer = limited(&fixture, &senders);
        let outcomes: Vec<_> = (0..3).map(|_| call_of(&mut peer, "ada", "telegram")).collect();
        if today() == day {
            break (outcomes, fixture);
        }
    };
    let rules: Vec<Option<&str>> =
        outcomes.iter().map(|result| denied(result).map(|denial| denial.rule.as_str())).collect();
    let used_up = Some("limits.callsPerDay");
    assert_eq!(rules, [None, used_up, used_up], "{outcomes:?}");
    assert_eq!(recorded(&fixture.home(), "rate_limited"), 1);
}

#[test]
fn terminal_is_limited_where_that_is_configured() {
    let fixture = Fixture::new();
    let mut peer = limited(&fixture, &json!({"callsPerMinute": 1, "callBurst": 1, "terminal": true}));
    assert_eq!(call_of(&mut peer, "ada", "terminal").outcome, Outcome::Completed);
    assert!(denied(&call_of(&mut peer, "ada", "terminal")).is_some());
}

#[test]
fn file_in_the_home_ends_what_runs_and_refuses_what_comes() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let running = peer.call("bash", &json!({"command": "sleep 300"}));
    assert!(matches!(peer.receive(), Some(ToMain::Started(_))));
    let stop = fixture.home().join("STOP");
    std::fs::write(&stop, "").unwrap();
    let begun = Instant::now();
    let result = peer.result(running);
    assert_eq!(result.outcome, Outcome::Cancelled, "{result:?}");
    assert!(begun.elapsed() < PATIENCE.min(Duration::from_secs(30)), "it did not wait for the deadline");
    let refused = peer.bash("true");
    let denial = denied(&refused).unwrap();
    assert_eq!(denial.rule, "stop.active");
    assert!(denial.hint.contains("STOP in OxiBot's home"), "{denial:?}");
    std::fs::remove_file(&stop).unwrap();
    assert_eq!(peer.bash("true").outcome, Outcome::Completed);
}

/// Begins to fetch a file larger than the window of a transfer, so that it waits for us, and answers how it ended.
fn end_of_transfer(peer: &mut Peer, between: impl FnOnce()) -> TransferEnd {
    let call = peer.number();
    peer.send(&ToToolhost::Get(GetRequest {
        call,
        workspace: None,
        path: "large".into(),
        max_size: 1 << 24,
    }));
    let mut between = Some(between);
    loop {
        match peer.receive().unwrap() {
            ToMain::GetChunk(_) => {
                if let Some(between) = between.take() {
                    between();
                }
            }
            ToMain::TransferEnd(end) if end.call == call => return end,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn file_in_the_home_ends_a_transfer_although_no_call_runs() {
    let fixture = Fixture::new();
    std::fs::write(fixture.workspace().join("large"), vec![7; 8 << 20]).unwrap();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let (stop, begun) = (fixture.home().join("STOP"), Instant::now());
    let end = end_of_transfer(&mut peer, || std::fs::write(&stop, "").unwrap());
    assert_eq!(end.outcome, Outcome::Cancelled, "{end:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "it did not wait until the transfer was given up");
    let refused = end_of_transfer(&mut peer, || panic!("nothing is sent"));
    assert!(
        matches!(&refused.outcome, Outcome::Denied(denial) if denial.rule == "stop.active"),
        "{refused:?}"
    );
}

#[test]
fn toolhost_that_only_judges_passes_no_file() {
    let fixture = Fixture::new();
    std::fs::write(fixture.workspace().join("large"), "small").unwrap();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &["--judge"]);
    let end = end_of_transfer(&mut peer, || panic!("nothing is sent"));
    assert!(matches!(&end.outcome, Outcome::Denied(denial) if denial.rule == "purpose.judge"), "{end:?}");
    // The control: it is the purpose that refuses.
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    assert_eq!(end_of_transfer(&mut peer, || {}).outcome, Outcome::Completed);
}
