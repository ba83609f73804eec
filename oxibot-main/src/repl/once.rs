//! `agent -m`: one message, its answer, an exit status.

use serde::Serialize;

use super::desk::{Desk, Interrupts, exit_of, exit_of_agent_error};
use crate::agent::runner::AgentError;
use crate::agent::turn::Finished;
use crate::exit::Exit;
use crate::model::TokenUsage;
use crate::render::report::error_object;

/// The object of `agent -m --json`, one line. Scripts depend on it.
#[derive(Debug, Serialize)]
struct Report<'a> {
    session: &'a str,
    reply: Option<&'a str>,
    tool_calls: Vec<ReportedCall<'a>>,
    usage: ReportedUsage,
    stop: &'static str,
    error: Option<ReportedError<'a>>,
}

#[derive(Debug, Serialize)]
struct ReportedCall<'a> {
    call_id: Option<&'a str>,
    tool: &'a str,
    arguments: &'a str,
    outcome: &'a str,
    exit_code: Option<i32>,
}

#[derive(Debug, Serialize)]
struct ReportedUsage {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    cost_microusd: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ReportedError<'a> {
    kind: &'a str,
    message: &'a str,
    hint: &'a str,
}

/// Holds one turn and says how it went.
pub async fn once(desk: &Desk, text: &str, json: bool) -> Exit {
    match hold(desk, text).await {
        Ok(finished) => {
            desk.screen.finish(&finished.reply);
            if json {
                desk.screen.print(&format!("{}\n", report(&desk.session, &finished)));
            } else {
                desk.explain(&finished);
            }
            exit_of(&finished)
        }
        Err(error) => {
            let (exit, kind, hint) = exit_of_agent_error(&error);
            if json {
                desk.screen.print(&format!("{}\n", error_object(kind, &error.to_string(), hint)));
            } else {
                desk.screen.remark(&format!("oxibot: {error}"));
            }
            exit
        }
    }
}

async fn hold(desk: &Desk, text: &str) -> Result<Finished, AgentError> {
    // Without a handler Ctrl-C ends the program, which the journal survives.
    let mut interrupts = Interrupts::listen().map_err(AgentError::Random)?;
    let session = desk.agent.session(&desk.session).await?;
    let message = desk.message(text, Vec::new()).await;
    desk.turn(&session, message, &mut interrupts).await
}

fn report(session: &str, finished: &Finished) -> String {
    let TokenUsage { input, output, cache_read, cache_write, cost_microusd } = finished.usage;
    let report = Report {
        session,
        reply: (!finished.reply.is_empty()).then_some(finished.reply.as_str()),
        tool_calls: finished
            .calls
            .iter()
            .map(|call| ReportedCall {
                call_id: call.call_id.as_deref(),
                tool: &call.name,
                arguments: &call.arguments,
                outcome: &call.outcome,
                exit_code: call.exit_code,
            })
            .collect(),
        usage: ReportedUsage { input, output, cache_read, cache_write, cost_microusd },
        stop: finished.ending.name(),
        error: finished.fault.as_ref().map(|fault| ReportedError {
            kind: &fault.kind,
            message: &fault.message,
            hint: &fault.remedy,
        }),
    };
    serde_json::to_string(&report)
        .unwrap_or_else(|error| error_object("internal", &error.to_string(), "report this"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::hands::{FaultClass, MindFault};
    use crate::agent::turn::CallRecord;
    use crate::store::Ending;

    #[test]
    fn object_is_frozen() {
        let mut finished = Finished {
            ending: Ending::Answered,
            reply: "done\u{1b}".to_owned(),
            usage: TokenUsage { input: 10, output: 2, cost_microusd: Some(31), ..TokenUsage::default() },
            calls: vec![CallRecord {
                name: "bash".to_owned(),
                arguments: "{}".to_owned(),
                outcome: "completed".to_owned(),
                call_id: Some("c1".to_owned()),
                exit_code: Some(0),
            }],
            fault: None,
        };
        assert_eq!(
            report("terminal:default", &finished),
            r#"{"session":"terminal:default","reply":"done\u001b","tool_calls":[{"call_id":"c1","tool":"bash","arguments":"{}","outcome":"completed","exit_code":0}],"usage":{"input":10,"output":2,"cache_read":0,"cache_write":0,"cost_microusd":31},"stop":"answered","error":null}"#
        );
        finished.ending = Ending::ProviderFailed;
        finished.reply = String::new();
        finished.calls.clear();
        finished.usage = TokenUsage::default();
        finished.fault = Some(MindFault {
            kind: "rate_limited".to_owned(),
            message: "m".to_owned(),
            remedy: "wait".to_owned(),
            class: FaultClass::TryAgain,
        });
        assert_eq!(
            report("terminal:default", &finished),
            r#"{"session":"terminal:default","reply":null,"tool_calls":[],"usage":{"input":0,"output":0,"cache_read":0,"cache_write":0,"cost_microusd":null},"stop":"provider_failed","error":{"kind":"rate_limited","message":"m","hint":"wait"}}"#
        );
    }

    #[test]
    fn each_ending_has_its_exit_status() {
        let finished = |ending, class: Option<FaultClass>| Finished {
            ending,
            reply: String::new(),
            usage: TokenUsage::default(),
            calls: Vec::new(),
            fault: class.map(|class| MindFault {
                kind: String::new(),
                message: String::new(),
                remedy: String::new(),
                class,
            }),
        };
        for (ending, class, code) in [
            (Ending::Answered, None, 0),
            (Ending::CutShort, None, 0),
            (Ending::Refused, None, 1),
            (Ending::Empty, None, 1),
            (Ending::Iterations, None, 1),
            (Ending::Tokens, None, 1),
            (Ending::Stuck, None, 1),
            (Ending::Time, None, 4),
            (Ending::Cancelled, None, 130),
            (Ending::ProviderFailed, Some(FaultClass::TryAgain), 75),
            (Ending::ProviderFailed, Some(FaultClass::Configuration), 78),
            (Ending::ProviderFailed, Some(FaultClass::TimedOut), 4),
            (Ending::ProviderFailed, Some(FaultClass::TooLong), 1),
            (Ending::ProviderFailed, Some(FaultClass::Failed), 1),
        ] {
            assert_eq!(exit_of(&finished(ending, class)).code(), code, "{ending:?} {class:?}");
        }
    }
}
