//! The broker as the loop's hands.
//!
//! It puts a call's result into words for the model: what we know of it apart from what a program printed, which is
//! untrusted. It judges nothing and repeats nothing: a call whose answer was lost stays lost.

use std::sync::Arc;
use std::time::Duration;

use oxibot_proto::message::{ApprovalOutcome, Asks, CallResult, Origin, Outcome, PendingApproval};
use tokio::sync::watch;

use super::consent::{Approver, Consent};
use super::hands::{BoxFuture, CallEnding, CallProgress, FetchFault, Hands};
use crate::broker::{Broker, BrokerError, CallEvent, CallOptions};
use crate::explain;
use crate::model::ToolCall;
use crate::render::report::CallReport;

/// The broker, on behalf of one conversation.
#[derive(Clone)]
pub struct Acting {
    broker: Broker,
    origin: Origin,
    workspace: Option<String>,
    /// Whom to ask about calls that need a yes. Nobody: such a call ends as it is.
    approver: Option<Arc<dyn Approver>>,
}

impl std::fmt::Debug for Acting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acting").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Acting {
    /// Calls in the name of `origin`, in a workspace or the default one.
    #[must_use]
    pub fn new(broker: Broker, origin: Origin, workspace: Option<String>) -> Self {
        Self { broker, origin, workspace, approver: None }
    }

    /// With somebody to ask about calls that need a yes.
    #[must_use]
    pub fn asking(self, approver: Arc<dyn Approver>) -> Self {
        Self { approver: Some(approver), ..self }
    }

    async fn run(
        &self,
        call: &ToolCall,
        progress: &(dyn Fn(CallProgress) + Send + Sync),
        mut stop: watch::Receiver<bool>,
    ) -> CallEnding {
        let options =
            CallOptions { workspace: self.workspace.clone(), ..CallOptions::new(self.origin.clone()) };
        // Some vendors send nothing at all for a tool without arguments.
        let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        let result = match self.once(call, arguments, options.clone(), progress, &mut stop).await {
            Ok(result) => result,
            Err(error) => return not_asked(&error),
        };
        let (Some(pending), Some(approver)) = (&result.approval, &self.approver) else {
            return ending(&result, explain::command(&call.name, arguments));
        };
        let answered = tokio::select! {
            answered = self.consent(pending, approver.as_ref()) => answered,
            () = asked_to_stop(&mut stop) => Err("the turn was cancelled before anybody answered".to_owned()),
        };
        match answered {
            Ok(()) => {
                let approval = Some(pending.id.clone());
                let options = CallOptions { approval, ..options };
                match self.once(call, arguments, options, progress, &mut stop).await {
                    Ok(result) => ending(&result, explain::command(&call.name, arguments)),
                    Err(error) => not_asked(&error),
                }
            }
            Err(why) => refused(&result, &why),
        }
    }

    /// Has the call approved. The error says why it is not, for the model.
    async fn consent(&self, pending: &PendingApproval, approver: &dyn Approver) -> Result<(), String> {
        let outcome = match pending.asks {
            Asks::Administrator => {
                approver.waits(pending).await;
                let wait = Duration::from_millis(pending.expires_ms);
                match tokio::time::timeout(wait, self.broker.approval(&pending.id)).await {
                    Ok(outcome) => outcome,
                    Err(_) => return Err("nobody answered in time".to_owned()),
                }
            }
            Asks::Main => match approver.ask(pending).await {
                Consent::Yes(by) => self.broker.approve(&pending.id, true, &by).await,
                Consent::No(by) => self.broker.approve(&pending.id, false, &by).await,
                Consent::Nobody => return Err("there is nobody to ask".to_owned()),
                Consent::NotAsked(why) => return Err(why),
            },
        };
        match outcome {
            Ok(ApprovalOutcome::Granted) => Ok(()),
            Ok(ApprovalOutcome::Refused) => Err("a person was asked and said no".to_owned()),
            Ok(ApprovalOutcome::Void { reason }) => Err(reason),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes the call and waits for its result.
    async fn once(
        &self,
        call: &ToolCall,
        arguments: &str,
        options: CallOptions,
        progress: &(dyn Fn(CallProgress) + Send + Sync),
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Box<CallResult>, BrokerError> {
        let mut pending = self.broker.start_call(&call.name, arguments, options).await?;
        let mut deadline = None;
        let mut stopping = false;
        loop {
            let event = tokio::select! {
                event = pending.next() => event,
                () = asked_to_stop(stop), if !stopping => {
                    stopping = true;
                    if let Err(error) = self.broker.cancel(pending.number).await {
                        tracing::debug!(%error, "a call could not be cancelled");
                    }
                    continue;
                }
            };
            match event {
                CallEvent::Started(started) => deadline = Some(Duration::from_millis(started.deadline_ms)),
                CallEvent::Progress(alive) => progress(CallProgress {
                    elapsed: Duration::from_millis(alive.elapsed_ms),
                    deadline,
                    output_bytes: alive.output_bytes,
                }),
                CallEvent::Output(_) => {}
                CallEvent::Result(result) => return Ok(result),
            }
        }
    }
}

impl Hands for Acting {
    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        progress: &'a (dyn Fn(CallProgress) + Send + Sync),
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'a, CallEnding> {
        Box::pin(self.run(call, progress, stop))
    }

    fn fetch<'a>(&'a self, path: &'a str, limit: u64) -> BoxFuture<'a, Result<Vec<u8>, FetchFault>> {
        Box::pin(async move {
            self.broker.get_file(self.workspace.clone(), path, limit).await.map_err(|error| fault(&error))
        })
    }
}

/// Also when the sender is gone: the turn is then, and nobody wants the call.
async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

fn fault(error: &BrokerError) -> FetchFault {
    match error {
        BrokerError::Transfer { cause, .. } if cause.contains("no such file") => FetchFault::Absent,
        BrokerError::Transfer { cause, .. } => FetchFault::Refused(cause.clone()),
        BrokerError::Gone(_)
        | BrokerError::Bye(_)
        | BrokerError::Greeting(_)
        | BrokerError::Version { .. }
        | BrokerError::TooLarge(_) => FetchFault::Refused(error.to_string()),
    }
}

fn not_asked(error: &BrokerError) -> CallEnding {
    CallEnding {
        outcome: "internal".to_owned(),
        summary: format!("outcome: internal, the call did not reach the toolhost: {error}"),
        output: String::new(),
        wall: String::new(),
        call_id: None,
        exit_code: None,
        duration: Duration::ZERO,
    }
}

/// A call that nobody approved: what the rule says, and what a person said.
fn refused(result: &CallResult, why: &str) -> CallEnding {
    let mut ending = ending(result, None);
    ending.outcome = "denied".to_owned();
    ending.summary =
        ending.summary.replacen("outcome: needs_approval", &format!("outcome: denied, {why}"), 1);
    ending
}

/// A result in words. What a confined program had a part in stays in `output`.
fn ending(result: &CallResult, command: Option<String>) -> CallEnding {
    let report = CallReport::of(result, command.as_deref());
    let mut summary = format!("outcome: {}", report.outcome);
    if let Some(code) = report.exit_code {
        summary.push_str(&format!(", exit code {code}"));
    }
    if let Some(signal) = report.signal {
        summary.push_str(&format!(", signal {signal}"));
    }
    match &result.outcome {
        Outcome::Killed { limit: Some(limit) } => summary.push_str(&format!(", limit reached: {limit}")),
        Outcome::TimedOut => summary.push_str(", the deadline passed and all its processes were ended"),
        // The connection may have broken while the call ran: nobody can say what it did.
        Outcome::Internal { .. } => summary.push_str(", it may have taken effect in part"),
        Outcome::Killed { limit: None }
        | Outcome::Completed
        | Outcome::Denied(_)
        | Outcome::NeedsApproval(_)
        | Outcome::Failed { .. }
        | Outcome::Cancelled => {}
    }
    if let Some(denial) = &report.denial {
        summary.push_str(&format!("\nrule {}: {}\ninstead: {}", denial.rule, denial.reason, denial.hint));
    }
    CallEnding {
        outcome: report.outcome.to_owned(),
        summary,
        output: explain::quote_forged(&report.output.unwrap_or_default()),
        wall: report.wall,
        call_id: report.call_id,
        exit_code: report.exit_code,
        duration: Duration::from_millis(report.duration_ms),
    }
}

#[cfg(test)]
mod tests {
    use oxibot_proto::message::{Denial, ToMain, ToToolhost, TransferEnd};

    use super::*;
    use crate::broker::fake::{self, Fake};
    use crate::broker::greet;

    async fn with_fake(
        script: impl FnOnce(&mut Fake) + Send + 'static,
    ) -> (Acting, crate::broker::Connection, std::thread::JoinHandle<()>) {
        let (stream, thread) = fake::start(script);
        let greeted = tokio::task::spawn_blocking(move || greet(stream)).await.unwrap().unwrap();
        let (broker, connection) = Broker::start(greeted).unwrap();
        let origin = Origin { who: "u".into(), channel: "terminal".into(), session: "terminal:t".into() };
        (Acting::new(broker, origin, None), connection, thread)
    }

    fn call() -> ToolCall {
        ToolCall { id: "a".to_owned(), name: "bash".to_owned(), arguments: String::new() }
    }

    fn next_call(fake: &mut Fake) -> oxibot_proto::message::CallRequest {
        loop {
            if let Some(ToToolhost::Call(request)) = fake.receive() {
                return request;
            }
        }
    }

    #[tokio::test]
    async fn result_is_worded_with_the_programs_output_apart() {
        let (acting, _connection, thread) = with_fake(|fake| {
            let request = next_call(fake);
            assert_eq!((request.arguments.as_str(), request.origin.session.as_str()), ("{}", "terminal:t"));
            fake.started(request.call);
            let denial = Denial { rule: "r".into(), reason: "why".into(), hint: "do this".into() };
            fake.result(request.call, Outcome::Denied(denial), b"printed");
        })
        .await;
        let (_stop, stopped) = watch::channel(false);
        let ending = acting.call(&call(), &|_| {}, stopped).await;
        assert_eq!(ending.outcome, "denied");
        assert_eq!(ending.summary, "outcome: denied, exit code 0\nrule r: why\ninstead: do this");
        assert_eq!(ending.output, "printed");
        drop(acting);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn stop_cancels_and_the_ending_still_comes() {
        let (acting, _connection, thread) = with_fake(|fake| {
            let request = next_call(fake);
            fake.started(request.call);
            while !matches!(fake.receive(), Some(ToToolhost::Cancel(number)) if number == request.call) {}
            fake.result(request.call, Outcome::Cancelled, b"");
        })
        .await;
        let (stop, stopped) = watch::channel(false);
        let call = call();
        let (ending, _) = tokio::join!(acting.call(&call, &|_| {}, stopped), async { stop.send(true) });
        assert_eq!(ending.outcome, "cancelled");
        drop(acting);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn toolhost_that_dies_leaves_an_internal_outcome_that_warns() {
        let (acting, _connection, thread) = with_fake(|fake| {
            let request = next_call(fake);
            fake.started(request.call);
        })
        .await;
        let (_stop, stopped) = watch::channel(false);
        let ending = acting.call(&call(), &|_| {}, stopped).await;
        assert_eq!(ending.outcome, "internal");
        assert!(ending.summary.contains("may have taken effect"), "{}", ending.summary);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn missing_file_is_absent_and_other_refusals_are_named() {
        let (acting, _connection, thread) = with_fake(|fake| {
            for message in ["cannot open AGENTS.md: no such file or directory", "it is a directory"] {
                let call = loop {
                    if let Some(ToToolhost::Get(get)) = fake.receive() {
                        break get.call;
                    }
                };
                let outcome = Outcome::Failed { message: message.to_owned() };
                fake.send(&ToMain::TransferEnd(TransferEnd { call, outcome, size: 0 }));
            }
        })
        .await;
        assert_eq!(acting.fetch("AGENTS.md", 9).await, Err(FetchFault::Absent));
        let refused = acting.fetch("x", 9).await;
        assert!(
            matches!(&refused, Err(FetchFault::Refused(why)) if why.contains("directory")),
            "{refused:?}"
        );
        drop(acting);
        thread.join().unwrap();
    }
}
