//! The broker against a fake toolhost that speaks the real wire, honest and hostile.

use std::time::Duration;

use oxibot_proto::message::{
    ApprovalOutcome, Approved, CHUNK_WINDOW, CallNumber, CloseReason, FileChunk, Judgement, Level,
    MAX_APPROVALS, Origin, Outcome, OutputChunk, Progress, StopScope, Stopped, Stream, ToMain, ToToolhost,
    ToolSpec, ToolhostStatus, TransferEnd, Verdict,
};

use super::fake::{self, Fake};
use super::{Broker, BrokerError, CallEvent, CallOptions, Connection, greet, greet_within};

fn options() -> CallOptions {
    CallOptions::new(Origin { who: "me".into(), channel: "terminal".into(), session: "s".into() })
}

fn connect(
    script: impl FnOnce(&mut Fake) + Send + 'static,
) -> (Broker, Connection, std::thread::JoinHandle<()>) {
    let (stream, thread) = fake::start(script);
    let (broker, connection) = Broker::start(greet(stream).unwrap()).unwrap();
    (broker, connection, thread)
}

fn number(message: Option<ToToolhost>) -> CallNumber {
    match message {
        Some(ToToolhost::Call(request)) => request.call,
        Some(ToToolhost::Run(request)) => request.call,
        Some(ToToolhost::Get(request)) => request.call,
        Some(ToToolhost::Put(request)) => request.call,
        other => panic!("not a call: {other:?}"),
    }
}

#[tokio::test]
async fn a_call_starts_progresses_and_ends() {
    let (broker, connection, thread) = connect(|fake| {
        let call = number(fake.receive());
        fake.started(call);
        fake.send(&ToMain::Progress(Progress { call, elapsed_ms: 1000, output_bytes: 5 }));
        fake.result(call, Outcome::Completed, b"hello");
        assert_eq!(fake.receive(), None);
    });
    let mut call = broker.start_call("bash", "{}", options()).await.unwrap();
    assert!(matches!(call.next().await, CallEvent::Started(_)));
    assert!(matches!(call.next().await, CallEvent::Progress(_)));
    let CallEvent::Result(result) = call.next().await else { panic!("no result") };
    assert_eq!((result.outcome, result.output.head.as_slice()), (Outcome::Completed, b"hello".as_slice()));
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn results_come_in_any_order() {
    let (broker, connection, thread) = connect(|fake| {
        let calls: Vec<_> = (0..10).map(|_| number(fake.receive())).collect();
        for call in calls.into_iter().rev() {
            fake.result(call, Outcome::Completed, call.0.to_string().as_bytes());
        }
        fake.receive();
    });
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(broker.start_call("bash", "{}", options()).await.unwrap());
    }
    for call in calls {
        let number = call.number.0.to_string();
        assert_eq!(call.result().await.output.head, number.as_bytes());
    }
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn questions_are_answered() {
    let (broker, connection, thread) = connect(|fake| {
        assert_eq!(fake.receive(), Some(ToToolhost::ListTools));
        fake.send(&ToMain::Tools(vec![ToolSpec {
            name: "bash".into(),
            aliases: vec!["exec".into()],
            description: "d".into(),
            parameters: "{}".into(),
        }]));
        assert_eq!(fake.receive(), Some(ToToolhost::Status));
        fake.send(&ToMain::Status(ToolhostStatus {
            wall: fake::hello().wall,
            running: Vec::new(),
            zygotes: 1,
            stopped: false,
        }));
        assert_eq!(fake.receive(), Some(ToToolhost::Stop(StopScope::All)));
        fake.send(&ToMain::Stopped(Stopped { ended: 2, refusing: true }));
        let Some(ToToolhost::Judge(request)) = fake.receive() else { panic!("no judge") };
        fake.send(&ToMain::Judgement(Judgement {
            call: request.call,
            verdict: Verdict::Allow,
            rules: Vec::new(),
            commands: Vec::new(),
        }));
        let Some(ToToolhost::Judge(request)) = fake.receive() else { panic!("no judge") };
        fake.result(request.call, Outcome::Failed { message: "unknown tool".into() }, b"");
        fake.receive();
    });
    assert_eq!(broker.tools().await.unwrap()[0].name, "bash");
    assert_eq!(broker.status().await.unwrap().zygotes, 1);
    assert_eq!(broker.stop(StopScope::All).await.unwrap().ended, 2);
    assert_eq!(broker.judge("bash", "{}", options()).await.unwrap().unwrap().verdict, Verdict::Allow);
    assert!(broker.judge("bsh", "{}", options()).await.unwrap().is_err());
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn toolhost_that_dies_answers_running_calls_internal() {
    let (broker, mut connection, thread) = connect(|fake| {
        let call = number(fake.receive());
        fake.started(call);
        fake.receive();
    });
    let mut call = broker.start_call("bash", "{}", options()).await.unwrap();
    assert!(matches!(call.next().await, CallEvent::Started(_)));
    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.tools().await }
    });
    let CallEvent::Result(result) = call.next().await else { panic!("no result") };
    assert!(matches!(result.outcome, Outcome::Internal { .. }), "{:?}", result.outcome);
    assert_eq!(result.call_id, "c-1");
    assert!(waiting.await.unwrap().is_err());
    assert!(matches!(connection.ended().await, BrokerError::Gone(_)));
    assert!(broker.start_call("bash", "{}", options()).await.is_err());
    thread.join().unwrap();
}

/// Everything a hostile toolhost may send; each must lose the connection and answer the call `internal`.
#[tokio::test]
async fn breaking_the_protocol_closes_the_connection_and_hangs_nobody() {
    type Attack = fn(&mut Fake, CallNumber);
    let attacks: &[(&str, Attack)] = &[
        ("garbage", |fake, _| fake.send_raw(&[0, 0, 0, 4, 255, 255, 255, 255])),
        ("oversized frame", |fake, _| fake.send_raw(&[255; 8])),
        ("second hello", |fake, _| fake.send(&ToMain::Hello(fake::hello()))),
        ("result of a call never made", |fake, _| fake.result(CallNumber(999), Outcome::Completed, b"")),
        ("started twice", |fake, call| {
            fake.started(call);
            fake.started(call);
        }),
        ("tools unasked", |fake, _| fake.send(&ToMain::Tools(Vec::new()))),
        ("output of a call", |fake, call| {
            fake.send(&ToMain::Output(OutputChunk { call, stream: Stream::Stdout, data: vec![1] }));
        }),
        ("transfer never begun", |fake, call| {
            fake.send(&ToMain::GetChunk(FileChunk { call, offset: 0, data: Vec::new() }));
        }),
        ("credit never asked", |fake, call| fake.send(&ToMain::PutProgress(call))),
        ("stdin taken of a call", |fake, call| fake.send(&ToMain::StdinTaken(call))),
        ("judgement of a call", |fake, call| {
            fake.send(&ToMain::Judgement(Judgement {
                call,
                verdict: Verdict::Allow,
                rules: Vec::new(),
                commands: Vec::new(),
            }));
        }),
    ];
    for (name, attack) in attacks {
        let (broker, mut connection, thread) = connect(move |fake| {
            let call = number(fake.receive());
            attack(fake, call);
            while fake.receive().is_some() {}
        });
        let call = broker.start_call("bash", "{}", options()).await.unwrap();
        let result = tokio::time::timeout(Duration::from_secs(20), call.result()).await.expect(name);
        let Outcome::Internal { message } = result.outcome else { panic!("{name}: {:?}", result.outcome) };
        assert!(message.contains("broke the protocol"), "{name}: {message}");
        assert!(matches!(connection.ended().await, BrokerError::Gone(_)), "{name}");
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn output_beyond_the_window_closes_and_within_it_waits_for_the_reader() {
    let (broker, connection, thread) = connect(|fake| {
        let call = number(fake.receive());
        let chunk = |byte| ToMain::Output(OutputChunk { call, stream: Stream::Stdout, data: vec![byte] });
        for byte in 0..u8::try_from(CHUNK_WINDOW).unwrap() {
            fake.send(&chunk(byte));
        }
        // The reader takes one, then another place is free.
        assert_eq!(fake.receive(), Some(ToToolhost::Taken(call)));
        fake.send(&chunk(9));
        for _ in 0..=CHUNK_WINDOW {
            fake.send(&chunk(10));
        }
        while fake.receive().is_some() {}
    });
    let (mut run, _input) = broker.run(vec![b"x".to_vec()], options()).await.unwrap();
    assert!(matches!(run.next().await, CallEvent::Output(_)));
    let result = run.result().await;
    assert!(matches!(result.outcome, Outcome::Internal { .. }));
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn input_waits_for_the_program_and_ends_with_the_call() {
    let (broker, connection, thread) = connect(|fake| {
        let call = number(fake.receive());
        for _ in 0..CHUNK_WINDOW {
            assert!(matches!(fake.receive(), Some(ToToolhost::Stdin(_))));
        }
        fake.send(&ToMain::StdinTaken(call));
        assert!(matches!(fake.receive(), Some(ToToolhost::Stdin(_))));
        fake.result(call, Outcome::Completed, b"");
        assert_eq!(fake.receive(), None, "input of a call that is over was sent");
    });
    let (run, input) = broker.run(vec![b"cat".to_vec()], options()).await.unwrap();
    let writer = async {
        for _ in 0..20 {
            input.write(b"x").await.unwrap();
        }
        input.end().await.unwrap();
    };
    let (result, ()) = tokio::join!(run.result(), writer);
    assert_eq!(result.outcome, Outcome::Completed);
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn dropping_a_call_cancels_it() {
    let (broker, connection, thread) = connect(|fake| {
        let call = number(fake.receive());
        fake.started(call);
        assert_eq!(fake.receive(), Some(ToToolhost::Cancel(call)));
        fake.result(call, Outcome::Cancelled, b"");
        assert_eq!(fake.receive(), Some(ToToolhost::ListTools), "the connection goes on");
        fake.send(&ToMain::Tools(Vec::new()));
        fake.receive();
    });
    let mut call = broker.start_call("bash", "{}", options()).await.unwrap();
    assert!(matches!(call.next().await, CallEvent::Started(_)));
    drop(call);
    tokio::task::yield_now().await;
    assert!(broker.tools().await.unwrap().is_empty());
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn a_call_dropped_before_it_was_sent_is_not_sent() {
    let (broker, connection, thread) = connect(|fake| {
        assert_eq!(fake.receive(), Some(ToToolhost::ListTools));
        fake.send(&ToMain::Tools(Vec::new()));
        assert_eq!(fake.receive(), None);
    });
    // On this runtime the connection's task has had no turn yet.
    drop(broker.start_call("bash", "{}", options()).await.unwrap());
    assert!(broker.tools().await.unwrap().is_empty());
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn progress_nobody_reads_is_dropped_and_the_result_is_not() {
    let (broker, connection, thread) = connect(|fake| {
        let call = number(fake.receive());
        fake.started(call);
        for elapsed_ms in 0..1000 {
            fake.send(&ToMain::Progress(Progress { call, elapsed_ms, output_bytes: 0 }));
        }
        fake.result(call, Outcome::Completed, b"done");
        fake.receive();
    });
    let call = broker.start_call("bash", "{}", options()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(call.result().await.output.head, b"done");
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn files_cross_whole_and_a_liar_is_refused() {
    let (broker, connection, thread) = connect(|fake| {
        let call = number(fake.receive());
        for (offset, piece) in [(0, b"ab".to_vec()), (2, b"cd".to_vec())] {
            fake.send(&ToMain::GetChunk(FileChunk { call, offset, data: piece }));
        }
        fake.send(&ToMain::TransferEnd(TransferEnd { call, outcome: Outcome::Completed, size: 4 }));
        let call = loop {
            match fake.receive() {
                Some(ToToolhost::Get(request)) => break request.call,
                Some(ToToolhost::Taken(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        fake.send(&ToMain::GetChunk(FileChunk { call, offset: 7, data: b"x".to_vec() }));
        let call = loop {
            match fake.receive() {
                Some(ToToolhost::Put(request)) => break request.call,
                Some(ToToolhost::Taken(_) | ToToolhost::Cancel(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        let mut held = Vec::new();
        while held.len() < 1_000_000 {
            if let Some(ToToolhost::PutChunk(chunk)) = fake.receive() {
                held.extend_from_slice(&chunk.data);
                fake.send(&ToMain::PutProgress(call));
            }
        }
        let size = u64::try_from(held.len()).unwrap();
        fake.send(&ToMain::TransferEnd(TransferEnd { call, outcome: Outcome::Completed, size }));
        fake.receive();
    });
    assert_eq!(broker.get_file(None, "a.txt", 100).await.unwrap(), b"abcd");
    assert!(matches!(broker.get_file(None, "a.txt", 100).await, Err(BrokerError::Transfer { .. })));
    broker.put_file(None, "b.bin", &vec![7; 1_000_000]).await.unwrap();
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn another_toolhost_takes_over() {
    let (broker, mut connection, thread) = connect(|_| {});
    assert!(matches!(connection.ended().await, BrokerError::Gone(_)));
    thread.join().unwrap();
    let (stream, thread) = fake::start(|fake| {
        let call = number(fake.receive());
        fake.result(call, Outcome::Completed, b"");
        fake.receive();
    });
    let connection = broker.replace(greet(stream).unwrap()).unwrap();
    let call = broker.start_call("bash", "{}", options()).await.unwrap();
    assert_eq!(call.result().await.outcome, Outcome::Completed);
    connection.close().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn arguments_above_the_limit_never_reach_the_wire() {
    let (broker, connection, thread) = connect(|fake| assert_eq!(fake.receive(), None));
    let huge = "x".repeat(3_000_000);
    assert!(matches!(broker.start_call("bash", &huge, options()).await, Err(BrokerError::TooLarge(_))));
    connection.close().await;
    thread.join().unwrap();
}

#[test]
fn greeting_has_a_deadline_and_refuses_strangers() {
    let (stream, thread) = fake::start_raw(|fake| while fake.receive().is_some() {});
    assert!(matches!(greet_within(stream, Duration::from_millis(50)), Err(BrokerError::Greeting(_))));
    thread.join().unwrap();

    let (stream, thread) = fake::start_raw(|_| {});
    assert!(matches!(greet(stream), Err(BrokerError::Greeting(_))));
    thread.join().unwrap();

    let (stream, thread) = fake::start_raw(|fake| {
        fake.send(&ToMain::Hello(oxibot_proto::message::ToolhostHello { version: 999, ..fake::hello() }));
    });
    assert!(matches!(greet(stream), Err(BrokerError::Version { theirs: 999, .. })));
    thread.join().unwrap();

    let (stream, thread) = fake::start_raw(|fake| fake.send(&ToMain::Bye(CloseReason::Overload)));
    assert_eq!(greet(stream).unwrap_err(), BrokerError::Bye(CloseReason::Overload));
    thread.join().unwrap();

    let (stream, thread) = fake::start_raw(|fake| fake.send(&ToMain::Tools(Vec::new())));
    assert!(matches!(greet(stream), Err(BrokerError::Greeting(_))));
    thread.join().unwrap();
    assert_eq!(fake::hello().wall.level, Level::Full);
}

/// Long runs collect answers that came when the turn that asked was over: none of them may end the connection.
#[tokio::test]
async fn answers_of_an_administrator_that_nobody_waits_for_any_more_are_forgotten() {
    let (broker, connection, thread) = connect(|fake| {
        assert_eq!(fake.receive(), Some(ToToolhost::ListTools));
        for number in 0..3 * MAX_APPROVALS {
            let outcome = ApprovalOutcome::Granted;
            fake.send(&ToMain::Approved(Approved { id: number.to_string(), outcome }));
        }
        fake.send(&ToMain::Tools(Vec::new()));
        fake.receive();
    });
    assert_eq!(broker.tools().await, Ok(Vec::new()));
    let last = (3 * MAX_APPROVALS - 1).to_string();
    assert_eq!(broker.approval(&last).await, Ok(ApprovalOutcome::Granted), "the newest are remembered");
    let first = tokio::time::timeout(Duration::from_millis(50), broker.approval("0"));
    assert!(first.await.is_err(), "the oldest are not");
    connection.close().await;
    thread.join().unwrap();
}
