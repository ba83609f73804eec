//! A person's place: the agent, the terms, the conversation, and how a turn is held for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::Screen;
use crate::agent::allowance::{Admission, Allowance, Sender};
use crate::agent::hands::{FaultClass, Mind, MindFault};
use crate::agent::image;
use crate::agent::runner::{Agent, AgentError, Input, Terms, now_millis};
use crate::agent::turn::Finished;
use crate::exit::Exit;
use crate::model::{Message, Part, Role, TokenUsage};
use crate::store::{Ending, Session, StoreError};

/// Makes another model ready: the error is for the person.
pub type OpenMind = Box<dyn Fn(&str) -> Result<Arc<dyn Mind>, String> + Send + Sync>;

/// Everything a conversation at the terminal needs.
pub struct Desk {
    /// The agent.
    pub agent: Agent,
    /// Model and budgets.
    pub terms: Terms,
    /// Key of the conversation, for example `terminal:default`.
    pub session: String,
    /// For `/model`.
    pub open_mind: OpenMind,
    /// Whether the model sees, when the person said so; otherwise it is known by name.
    pub vision: Option<bool>,
    /// What is shown.
    pub screen: Arc<Screen>,
    /// What the person may ask for.
    pub allowance: Allowance,
    /// Who the person is.
    pub sender: Sender,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("session", &self.session)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

/// Ctrl-C, as events instead of the end of the program.
#[derive(Debug)]
pub(super) struct Interrupts(Signal);

impl Interrupts {
    pub(super) fn listen() -> std::io::Result<Self> {
        signal(SignalKind::interrupt()).map(Self)
    }

    /// The next one; never when no more can come.
    pub(super) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Desk {
    pub(super) fn sees(&self) -> bool {
        self.vision.unwrap_or_else(|| image::known_to_see(&self.terms.model))
    }

    /// A message with its images: those given, and those its text names. What cannot be attached is remarked.
    pub(super) async fn message(&self, text: &str, images: Vec<Part>) -> Message {
        let mut parts = vec![Part::Text { text: text.to_owned() }];
        parts.extend(images);
        for path in image::mentioned(text) {
            if parts.len() > image::MAX_IMAGES {
                self.screen.remark(&image::ImageFault::TooMany { path }.to_string());
                break;
            }
            match self.image(&path).await {
                Ok(part) => parts.push(part),
                Err(fault) => self.screen.remark(&fault.to_string()),
            }
        }
        Message { role: Role::User, parts }
    }

    pub(super) async fn image(&self, path: &str) -> Result<Part, image::ImageFault> {
        image::attach(self.agent.hands.as_ref(), path, &self.terms.model, self.sees()).await
    }

    /// Holds a turn; Ctrl-C cancels it.
    pub(super) async fn turn(
        &self,
        session: &Session,
        message: Message,
        interrupts: &mut Interrupts,
    ) -> Result<Finished, AgentError> {
        let admitted = self.allowance.message(&self.sender, Instant::now(), now_millis()).await?;
        if let Admission::Limited { limit, retry, reply: _ } = admitted {
            return Ok(limited(limit, retry));
        }
        let finished = self.hold(session, message, interrupts).await?;
        self.allowance.spent(&self.sender, finished.usage, now_millis()).await?;
        Ok(finished)
    }

    async fn hold(
        &self,
        session: &Session,
        message: Message,
        interrupts: &mut Interrupts,
    ) -> Result<Finished, AgentError> {
        // One that came at the prompt was meant for the prompt.
        while interrupts.next().now_or_never().is_some() {}
        let (cancel, mut inbox) = mpsc::channel(4);
        let turn = self.agent.turn(session, &self.terms, message, self.screen.as_ref(), &mut inbox);
        tokio::pin!(turn);
        loop {
            tokio::select! {
                finished = &mut turn => return finished,
                () = interrupts.next() => {
                    self.screen.remark("[cancelling; once more does not wait for what runs]");
                    // Full means that two are already on their way.
                    drop(cancel.try_send(Input::Cancel));
                }
            }
        }
    }

    /// Says how a turn ended where the reply alone does not.
    pub(super) fn explain(&self, finished: &Finished) {
        if let Some(fault) = &finished.fault {
            self.screen.remark(&format!("oxibot: {}", fault.message));
            if !fault.remedy.is_empty() {
                self.screen.remark(&format!("  {}", fault.remedy));
            }
            return;
        }
        let remark = match finished.ending {
            Ending::Answered => return,
            Ending::CutShort => "the answer was cut at agents.defaults.maxTokens",
            Ending::Refused => "the provider refused to answer this",
            Ending::Empty => "the model answered with nothing; /retry asks again",
            Ending::Iterations => "the turn ended: agents.defaults.maxToolIterations is used up",
            Ending::Tokens => "the turn ended: agents.defaults.turnTokenBudget is used up",
            Ending::Time => "the turn ended: agents.defaults.turnTimeoutSeconds is over",
            Ending::Stuck => "the turn ended: the model kept repeating a call that fails",
            Ending::Cancelled => "cancelled",
            Ending::ProviderFailed => "the provider failed",
            Ending::Interrupted => "interrupted",
        };
        self.screen.remark(&format!("[{remark}]"));
    }
}

/// A turn that was not held, because the person asked for too much.
fn limited(limit: &str, retry: Duration) -> Finished {
    Finished {
        ending: Ending::ProviderFailed,
        reply: String::new(),
        usage: TokenUsage::default(),
        calls: Vec::new(),
        fault: Some(MindFault {
            kind: "rate_limited".to_owned(),
            message: format!("{limit} is used up"),
            remedy: format!("try again in {} s", retry.as_secs().max(1)),
            class: FaultClass::TryAgain,
        }),
    }
}

/// The exit status of a turn.
pub fn exit_of(finished: &Finished) -> Exit {
    match finished.ending {
        Ending::Answered | Ending::CutShort => Exit::Done,
        Ending::Time => Exit::TimedOut,
        Ending::Cancelled => Exit::Cancelled,
        Ending::ProviderFailed => match finished.fault.as_ref().map(|fault| fault.class) {
            Some(FaultClass::TryAgain) => Exit::TryAgain,
            Some(FaultClass::Configuration) => Exit::Configuration,
            Some(FaultClass::TimedOut) => Exit::TimedOut,
            Some(FaultClass::TooLong | FaultClass::Failed) | None => Exit::Failed,
        },
        Ending::Refused
        | Ending::Empty
        | Ending::Iterations
        | Ending::Tokens
        | Ending::Stuck
        | Ending::Interrupted => Exit::Failed,
    }
}

/// The exit status of a turn that could not be held, its kind, and what to do.
pub fn exit_of_error(error: &StoreError) -> (Exit, &'static str, &'static str) {
    const DAMAGED: &str =
        "move conversations.db and its -wal and -shm away; `sqlite3 FILE .recover` may save what is in it";
    match error {
        StoreError::Damaged { .. } => (Exit::Configuration, "store", DAMAGED),
        StoreError::Sqlite(_) if error.damage().is_some() => (Exit::Configuration, "store", DAMAGED),
        StoreError::Busy { .. } | StoreError::OpeningBusy { .. } => {
            (Exit::TryAgain, "busy", "try again, or use -s with another name")
        }
        StoreError::Public { .. } | StoreError::Newer { .. } | StoreError::NotAFile { .. } => {
            (Exit::Configuration, "store", "see the message")
        }
        StoreError::SecondGateway { .. } => {
            (Exit::TryAgain, "busy", "end that one first, or give another --home")
        }
        StoreError::BadName { .. } => (Exit::Usage, "usage", "give -s a short plain name"),
        StoreError::Unknown { .. } => (Exit::Failed, "unknown_session", "see `oxibot sessions list`"),
        StoreError::File { .. }
        | StoreError::TooManyCopies { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Encode(_)
        | StoreError::Sqlite(_)
        | StoreError::Gone => (Exit::Internal, "store", "check the disk and `oxibot doctor`"),
    }
}

/// As [`exit_of_error`], for errors of the agent.
pub(super) fn exit_of_agent_error(error: &AgentError) -> (Exit, &'static str, &'static str) {
    match error {
        AgentError::Store(error) => exit_of_error(error),
        AgentError::Random(_) => (Exit::Internal, "random", "check the kernel's random numbers"),
    }
}
