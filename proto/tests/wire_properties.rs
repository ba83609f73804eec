//! Properties of the wire that must hold for every input, not only for the examples we thought of.

use oxibot_proto::codec::{Decoder, frame};
use oxibot_proto::message::{
    ApprovalAnswer, ApprovalOutcome, Approved, Asks, AttackDone, AttackResult, Attacked, CallNumber,
    CallRequest, CallResult, Denial, Level, Origin, Outcome, Output, PendingApproval, RunRequest, StdinChunk,
    ToMain, ToToolhost, Usage,
};
use oxibot_proto::settings::Limits;
use oxibot_proto::view::{Network, Rest, Temporary, View};
use proptest::prelude::*;

fn origin() -> impl Strategy<Value = Origin> {
    (".{0,20}", ".{0,20}", ".{0,20}").prop_map(|(who, channel, session)| Origin { who, channel, session })
}

fn to_toolhost() -> impl Strategy<Value = ToToolhost> {
    prop_oneof![
        Just(ToToolhost::ListTools),
        Just(ToToolhost::Status),
        Just(ToToolhost::Attack),
        Just(ToToolhost::ListApprovals),
        (".{0,20}", any::<bool>(), ".{0,20}").prop_map(|(id, yes, by)| ToToolhost::Approve(ApprovalAnswer {
            id,
            yes,
            by
        })),
        any::<u64>().prop_map(|n| ToToolhost::Cancel(CallNumber(n))),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..2000))
            .prop_map(|(n, data)| ToToolhost::Stdin(StdinChunk { call: CallNumber(n), data })),
        (any::<u64>(), ".{0,30}", ".{0,300}", any::<Option<u64>>(), origin(), prop::option::of(".{0,20}"))
            .prop_map(|(n, tool, arguments, timeout_ms, origin, approval)| {
                ToToolhost::Call(CallRequest {
                    call: CallNumber(n),
                    tool,
                    arguments,
                    workspace: None,
                    timeout_ms,
                    origin,
                    approval,
                })
            }),
        (any::<u64>(), prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10), origin())
            .prop_map(|(n, argv, origin)| {
                ToToolhost::Run(RunRequest {
                    call: CallNumber(n),
                    argv,
                    workspace: Some("/w".into()),
                    timeout_ms: None,
                    origin,
                })
            }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Completed),
        Just(Outcome::TimedOut),
        Just(Outcome::Cancelled),
        (".{0,20}", ".{0,20}", ".{0,20}").prop_map(|(rule, reason, hint)| Outcome::Denied(Denial {
            rule,
            reason,
            hint
        })),
        prop::option::of(".{0,10}").prop_map(|limit| Outcome::Killed { limit }),
    ]
}

fn to_main() -> impl Strategy<Value = ToMain> {
    prop_oneof![
        result(),
        attacked(),
        prop::option::of(".{0,40}").prop_map(done),
        (".{0,20}", approval_outcome()).prop_map(|(id, outcome)| ToMain::Approved(Approved { id, outcome })),
        prop::collection::vec(pending(), 0..3).prop_map(ToMain::Approvals),
    ]
}

fn approval_outcome() -> impl Strategy<Value = ApprovalOutcome> {
    prop_oneof![
        Just(ApprovalOutcome::Granted),
        Just(ApprovalOutcome::Refused),
        ".{0,40}".prop_map(|reason| ApprovalOutcome::Void { reason }),
    ]
}

fn pending() -> impl Strategy<Value = PendingApproval> {
    let asks = prop_oneof![Just(Asks::Main), Just(Asks::Administrator)];
    (".{0,20}", ".{0,20}", ".{0,300}", ".{0,20}", origin(), any::<u64>(), asks).prop_map(
        |(id, tool, text, rule, origin, expires_ms, asks)| PendingApproval {
            id,
            tool,
            text,
            rule,
            reason: "r".into(),
            workspace: "/w".into(),
            origin,
            expires_ms,
            asks,
        },
    )
}

fn done(refused: Option<String>) -> ToMain {
    ToMain::AttackDone(AttackDone { refused })
}

fn attacked() -> impl Strategy<Value = ToMain> {
    let result =
        prop_oneof![Just(AttackResult::Held), Just(AttackResult::Broken), Just(AttackResult::Skipped)];
    (".{0,20}", ".{0,20}", ".{0,20}", ".{0,20}", result, ".{0,60}").prop_map(
        |(id, protection, mechanism, feature, result, detail)| {
            ToMain::Attacked(Box::new(Attacked { id, protection, mechanism, feature, result, detail }))
        },
    )
}

fn result() -> impl Strategy<Value = ToMain> {
    let head = prop::collection::vec(any::<u8>(), 0..2000);
    (any::<u64>(), outcome(), any::<Option<i32>>(), head, any::<u64>(), view()).prop_map(
        |(n, outcome, exit_code, head, total_bytes, view)| {
            ToMain::CallResult(Box::new(CallResult {
                call: CallNumber(n),
                call_id: "c".into(),
                tool: "bash".into(),
                outcome,
                exit_code,
                signal: None,
                output: Output { head, tail: Vec::new(), total_bytes, passed_bytes: total_bytes, file: None },
                violations: Vec::new(),
                notes: Vec::new(),
                level: Level::Full,
                proven: None,
                duration_ms: 1,
                usage: Some(Usage { cpu_ms: 1, max_rss_kb: 2 }),
                view,
                approval: None,
            }))
        },
    )
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(".{0,20}", 0..4)
}

fn view() -> impl Strategy<Value = Option<Box<View>>> {
    let rest = prop_oneof![Just(Rest::Absent), Just(Rest::Refused), Just(Rest::ReadOnly)];
    let temporary = prop_oneof![Just(Temporary::Own), Just(Temporary::Directory)];
    let network = prop_oneof![Just(Network::Own), Just(Network::None)];
    let view = (".{0,20}", paths(), paths(), paths(), paths(), rest, temporary, network).prop_map(
        |(workspace, read, write, covered, guarded, rest, temporary, network)| {
            Box::new(View {
                directory: workspace.clone(),
                workspace,
                read,
                write,
                system: vec!["/usr".into()],
                devices: Vec::new(),
                covered,
                pinned: guarded.clone(),
                guarded,
                rest,
                temporary,
                network,
                limits: Limits::default(),
            })
        },
    );
    prop::option::of(view)
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_messages(
        messages in prop::collection::vec(to_toolhost(), 1..8),
        cuts in prop::collection::vec(1_usize..700, 0..200),
    ) {
        let wire: Vec<u8> = messages.iter().flat_map(|m| frame(m).unwrap()).collect();
        let mut decoder = Decoder::<ToToolhost>::new();
        let mut seen = Vec::new();
        let mut rest = wire.as_slice();
        let mut cuts = cuts.into_iter().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            decoder.push(now);
            while let Some(message) = decoder.next_message().unwrap() {
                seen.push(message);
            }
            rest = later;
        }
        prop_assert_eq!(seen, messages);
        prop_assert_eq!(decoder.pending(), 0);
    }

    #[test]
    fn results_survive_the_wire(message in to_main()) {
        let mut decoder = Decoder::<ToMain>::new();
        decoder.push(&frame(&message).unwrap());
        prop_assert_eq!(decoder.next_message().unwrap(), Some(message));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_grow_beyond_what_was_pushed(
        bytes in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let mut to_toolhost = Decoder::<ToToolhost>::new();
        to_toolhost.push(&bytes);
        while let Ok(Some(_)) = to_toolhost.next_message() {}
        prop_assert!(to_toolhost.pending() <= bytes.len());
        let mut to_main = Decoder::<ToMain>::new();
        to_main.push(&bytes);
        while let Ok(Some(_)) = to_main.next_message() {}
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = oxibot_proto::codec::decode_body::<ToToolhost>(&body);
        let _ = oxibot_proto::codec::decode_body::<ToMain>(&body);
    }
}
