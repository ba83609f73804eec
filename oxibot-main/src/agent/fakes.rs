//! Stand-ins for the toolhost and the provider in tests. Scripted; what they were asked is kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use super::hands::{BoxFuture, CallEnding, CallProgress, FetchFault, Hands, Mind, MindFault};
use crate::model::{ModelReply, ModelRequest, Part, StopReason, StreamEvent, TokenUsage, ToolCall};

/// How a scripted call behaves.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers at once.
    Print(String),
    /// Runs until it is cancelled.
    Hang,
    /// Runs for ever and does not listen.
    Deaf,
}

#[derive(Debug, Default)]
pub(crate) struct FakeHands {
    files: BTreeMap<String, Result<Vec<u8>, FetchFault>>,
    acts: BTreeMap<String, Act>,
    pub(crate) ran: Mutex<Vec<ToolCall>>,
}

impl FakeHands {
    pub(crate) fn with_files(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), Ok(bytes.to_vec()))).collect();
        Self { files, ..Self::default() }
    }

    pub(crate) fn refuse(&mut self, path: &str, why: &str) {
        self.files.insert(path.to_owned(), Err(FetchFault::Refused(why.to_owned())));
    }

    /// What a call with these arguments does; others print their arguments.
    pub(crate) fn act(mut self, arguments: &str, act: Act) -> Self {
        self.acts.insert(arguments.to_owned(), act);
        self
    }
}

impl Hands for FakeHands {
    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        progress: &'a (dyn Fn(CallProgress) + Send + Sync),
        mut stop: watch::Receiver<bool>,
    ) -> BoxFuture<'a, CallEnding> {
        self.ran.lock().unwrap().push(call.clone());
        let act =
            self.acts.get(&call.arguments).cloned().unwrap_or_else(|| Act::Print(call.arguments.clone()));
        Box::pin(async move {
            progress(CallProgress { elapsed: Duration::from_secs(2), deadline: None, output_bytes: 0 });
            let (outcome, output) = match act {
                Act::Print(text) => ("completed", text),
                Act::Hang => {
                    let _ = stop.wait_for(|stop| *stop).await;
                    ("cancelled", String::new())
                }
                Act::Deaf => std::future::pending().await,
            };
            CallEnding {
                outcome: outcome.to_owned(),
                summary: format!("outcome: {outcome}"),
                output,
                wall: String::new(),
                call_id: Some("c1".to_owned()),
                exit_code: None,
                duration: Duration::ZERO,
            }
        })
    }

    fn fetch<'a>(&'a self, path: &'a str, limit: u64) -> BoxFuture<'a, Result<Vec<u8>, FetchFault>> {
        let found = self.files.get(path).cloned().unwrap_or(Err(FetchFault::Absent));
        let found = found.and_then(|bytes| {
            if bytes.len() as u64 > limit { Err(FetchFault::TooLarge { limit }) } else { Ok(bytes) }
        });
        Box::pin(std::future::ready(found))
    }
}

/// What a scripted model does next.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    Say(&'static str),
    Call(&'static [(&'static str, &'static str)]),
    Fail(MindFault),
    Hang,
}

#[derive(Debug, Default)]
pub(crate) struct FakeMind {
    lines: Mutex<VecDeque<Line>>,
    pub(crate) asked: Mutex<Vec<ModelRequest>>,
}

impl FakeMind {
    pub(crate) fn new(lines: impl IntoIterator<Item = Line>) -> Self {
        Self { lines: Mutex::new(lines.into_iter().collect()), asked: Mutex::default() }
    }
}

impl Mind for FakeMind {
    fn complete<'a>(
        &'a self,
        request: &'a ModelRequest,
        sink: &'a mut (dyn FnMut(StreamEvent) + Send),
    ) -> BoxFuture<'a, Result<ModelReply, MindFault>> {
        self.asked.lock().unwrap().push(request.clone());
        let line = self.lines.lock().unwrap().pop_front().expect("the script is longer");
        Box::pin(async move {
            let usage = TokenUsage { input: 100, output: 10, ..TokenUsage::default() };
            match line {
                Line::Say(text) => {
                    sink(StreamEvent::Text(text.to_owned()));
                    let parts = vec![Part::Text { text: text.to_owned() }];
                    Ok(ModelReply { parts, stop: StopReason::EndTurn, usage })
                }
                Line::Call(calls) => {
                    let parts = calls
                        .iter()
                        .enumerate()
                        .map(|(index, (name, arguments))| {
                            Part::ToolCall(ToolCall {
                                id: format!("v{index}"),
                                name: (*name).to_owned(),
                                arguments: (*arguments).to_owned(),
                            })
                        })
                        .collect();
                    Ok(ModelReply { parts, stop: StopReason::ToolUse, usage })
                }
                Line::Fail(fault) => Err(fault),
                Line::Hang => std::future::pending().await,
            }
        })
    }
}
