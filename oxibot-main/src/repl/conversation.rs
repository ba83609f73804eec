//! The prompt's loop: read a line, do what it says, until the person leaves.

use std::io::IsTerminal;
use std::path::PathBuf;

use super::command::{self, Line};
use super::desk::{Desk, Interrupts, exit_of_agent_error};
use super::prompt::{Ask, Editing, Prompt, Typed};
use super::table;
use crate::agent::hands::Known;
use crate::agent::runner::{AgentError, now_millis};
use crate::exit::Exit;
use crate::model::Part;
use crate::store::Session;

/// Days shown by `/usage`.
const USAGE_DAYS: u32 = 7;
/// Columns of a line.
const COLUMNS: usize = 80;

/// Converses until the person leaves. `history` is the file of typed lines.
pub async fn converse(mut desk: Desk, history: Option<PathBuf>) -> Exit {
    let mut prompt = match Prompt::start(history, editing(&desk)) {
        Ok(prompt) => prompt,
        Err(error) => {
            desk.screen.remark(&format!("oxibot: cannot read from the terminal: {error}"));
            return Exit::Internal;
        }
    };
    match run(&mut desk, &mut prompt).await {
        Ok(exit) => exit,
        Err(error) => {
            desk.screen.remark(&format!("oxibot: {error}"));
            exit_of_agent_error(&error).0
        }
    }
}

async fn run(desk: &mut Desk, prompt: &mut dyn Ask) -> Result<Exit, AgentError> {
    // A terminal that is being edited gives Ctrl-C as a character; anything else as a signal.
    let edited = editing(desk) == Editing::Full;
    let mut interrupts = Interrupts::listen().map_err(AgentError::Random)?;
    let mut session = desk.agent.session(&desk.session).await?;
    greet(desk, &session);
    let mut images: Vec<Part> = Vec::new();
    let mut warned = false;
    loop {
        let typed = tokio::select! {
            typed = prompt.line("> ") => Some(typed),
            () = interrupts.next(), if !edited => None,
        };
        let Some(typed) = typed else {
            prompt.abandon();
            return Ok(Exit::Cancelled);
        };
        let line = match typed {
            Typed::Line(line) => line,
            Typed::Interrupted if warned => return Ok(Exit::Done),
            Typed::Interrupted => {
                warned = true;
                desk.screen.remark("[Ctrl-C again leaves]");
                continue;
            }
            Typed::End => return Ok(Exit::Done),
            Typed::Broken(error) => {
                desk.screen.remark(&format!("oxibot: cannot read from the terminal: {error}"));
                return Ok(Exit::Failed);
            }
        };
        warned = false;
        match command::read(&line) {
            Line::Empty => {}
            Line::Exit => return Ok(Exit::Done),
            Line::Help => desk.screen.print(command::HELP),
            Line::Wrong(why) => desk.screen.remark(&why),
            Line::Model(None) => desk.screen.print(&format!("{}\n", desk.terms.model)),
            Line::Model(Some(model)) => change_model(desk, &model).await,
            Line::Status => desk.screen.print(&status(desk, &session)),
            Line::Usage => {
                let rows = desk.agent.store.run(|d| d.usage(USAGE_DAYS, now_millis())).await?;
                desk.screen.print(&table::usage(&rows, USAGE_DAYS));
            }
            Line::New => {
                let old = session.clone();
                desk.agent.store.run(move |d| d.expire(&old, now_millis())).await?;
                session = desk.agent.session(&desk.session).await?;
                images.clear();
                desk.screen.remark("[a new conversation; the old one is kept, see `oxibot sessions list`]");
            }
            Line::Image(path) => match desk.image(&path).await {
                Ok(part) => {
                    images.push(part);
                    desk.screen.remark(&format!("[{path} goes with the next message]"));
                }
                Err(fault) => desk.screen.remark(&fault.to_string()),
            },
            Line::Retry => match retry(desk, &session, &mut interrupts).await {
                Ok(()) => {}
                Err(error) => survive(desk, error)?,
            },
            Line::Say(text) => {
                // Expiry is judged with each message: a prompt may stay open for weeks.
                session = desk.agent.session(&desk.session).await?;
                let message = desk.message(&text, std::mem::take(&mut images)).await;
                match desk.turn(&session, message, &mut interrupts).await {
                    Ok(finished) => {
                        desk.screen.finish(&finished.reply);
                        desk.explain(&finished);
                    }
                    Err(error) => survive(desk, error)?,
                }
            }
        }
    }
}

fn editing(desk: &Desk) -> Editing {
    if desk.screen.is_fancy() && std::io::stdin().is_terminal() { Editing::Full } else { Editing::Plain }
}

/// A busy conversation is a remark; a journal that cannot be kept is the end.
fn survive(desk: &Desk, error: AgentError) -> Result<(), AgentError> {
    if exit_of_agent_error(&error).0 == Exit::TryAgain {
        desk.screen.remark(&format!("oxibot: {error}"));
        return Ok(());
    }
    Err(error)
}

async fn retry(desk: &Desk, session: &Session, interrupts: &mut Interrupts) -> Result<(), AgentError> {
    let Some(message) = desk.agent.retry(session).await? else {
        desk.screen.remark("[there is no message to send again]");
        return Ok(());
    };
    let finished = desk.turn(session, message, interrupts).await?;
    desk.screen.finish(&finished.reply);
    desk.explain(&finished);
    Ok(())
}

/// Another model, if there is one of that name: a slip is better found now than by the next message.
async fn change_model(desk: &mut Desk, model: &str) {
    let opened = match (desk.open_mind)(model) {
        Ok(mind) => match mind.known().await {
            Known::Listed | Known::Unsaid => Ok(mind),
            Known::Unlisted(why) => Err(why),
        },
        Err(error) => Err(error),
    };
    match opened {
        Ok(mind) => {
            desk.agent.mind = mind;
            desk.terms.model = model.to_owned();
            desk.screen.remark(&format!("[going on with {model}]"));
        }
        Err(error) => desk.screen.remark(&format!("oxibot: {error}; still {}", desk.terms.model)),
    }
}

fn greet(desk: &Desk, session: &Session) {
    if !std::io::stdin().is_terminal() {
        return;
    }
    let turns = if session.turns > 0 { format!(", {} turns so far", session.turns) } else { String::new() };
    let words = format!(
        "oxibot, model {}, sandbox {}, session {}{turns}",
        desk.terms.model, desk.agent.level, session.name
    );
    for line in lines(&words) {
        desk.screen.remark(&line);
    }
    desk.screen.remark("/help lists commands.");
}

/// Words on lines of at most 80 columns; one that is longer than a line is left whole, so that it can be copied.
fn lines(words: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn status(desk: &Desk, session: &Session) -> String {
    format!(
        "session    {} (id {})\nmodel      {}\nworkspace  {}\nsandbox    {}\ntools      {}\n",
        session.name,
        session.id,
        desk.terms.model,
        desk.agent.workspace,
        desk.agent.level,
        desk.agent.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>().join(" ")
    )
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
