//! `sessions`: look at the conversations that are kept, end and remove them. Needs no toolhost.

use std::path::Path;

use super::agent::session_key;
use crate::agent::runner::now_millis;
use crate::cli::SessionsCommand;
use crate::exit::Exit;
use crate::render::terminal;

use super::fault::Fault;
use crate::repl::{exit_of_error, table};
use crate::store::{Database, Expiry, Session, StoreError};

/// Does what was asked. Blocks.
pub fn run(command: &SessionsCommand, state: &Path, expiry: Expiry) -> Exit {
    match text(command, state, expiry) {
        Ok(text) => match terminal::out(&text) {
            Ok(()) => Exit::Done,
            Err(error) => {
                terminal::complain(&format!("cannot write to standard output: {error}"));
                Exit::Failed
            }
        },
        Err(error) => {
            let (exit, kind, hint) = exit_of_error(&error);
            // A hint that only sends back to the message is for JSON, where there must be one.
            let hint = if hint == "see the message" { "" } else { hint };
            Fault::new(exit, kind, error.to_string()).with_hint(hint).report(false)
        }
    }
}

fn text(command: &SessionsCommand, state: &Path, expiry: Expiry) -> Result<String, StoreError> {
    let mut database = Database::open(state)?;
    match command {
        SessionsCommand::List(args) => {
            let sessions = database.sessions(expiry, now_millis())?;
            Ok(if args.json { table::sessions_json(&sessions) } else { table::sessions(&sessions) })
        }
        SessionsCommand::Show { session, json } => {
            let session = find(&database, session)?;
            let entries = database.entries(session.id)?;
            Ok(if *json {
                table::conversation_json(&session, &entries)
            } else {
                table::conversation(&session, &entries)
            })
        }
        SessionsCommand::Expire => {
            let removed = database.purge(expiry, now_millis())?;
            Ok(format!("{} conversations were over and are removed\n", removed.len()))
        }
        SessionsCommand::Delete { session } => {
            let session = find(&database, session)?;
            database.delete(&session)?;
            Ok(format!("{} (id {}) is removed\n", session.name, session.id))
        }
    }
}

/// By number, by its whole name, or by the name given to `-s`.
fn find(database: &Database, which: &str) -> Result<Session, StoreError> {
    match database.session(which) {
        Err(StoreError::Unknown { .. }) => {
            database.session(&session_key(which)).map_err(|_| StoreError::Unknown { what: which.to_owned() })
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::StatusArgs;
    use crate::model::{Message, Role};
    use crate::store::Entry;

    const NEVER: Expiry = Expiry { idle: None, absolute: None };

    #[test]
    fn conversations_are_listed_shown_and_deleted_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let list = SessionsCommand::List(StatusArgs { json: false });
        assert!(text(&list, &state, NEVER).unwrap().contains("no conversations yet"));
        let id = {
            let mut database = Database::open(&state).unwrap();
            let session = database.open_session("terminal:work", "b", NEVER, now_millis()).unwrap();
            let message = Message::text(Role::User, "hello there");
            let entry = Entry::TurnStarted { message, model: "m".to_owned() };
            database.begin_turn(session.id, &entry, now_millis()).unwrap();
            session.id
        };
        assert!(text(&list, &state, NEVER).unwrap().contains("terminal:work"));
        for which in ["work", "terminal:work", &id.to_string()] {
            let show = SessionsCommand::Show { session: which.to_owned(), json: false };
            assert!(text(&show, &state, NEVER).unwrap().contains("user: hello there"), "{which}");
        }
        let delete = SessionsCommand::Delete { session: "work".to_owned() };
        text(&delete, &state, NEVER).unwrap();
        let error = text(&delete, &state, NEVER).unwrap_err();
        assert_eq!(exit_of_error(&error).0, Exit::Failed);
        assert!(error.to_string().contains("cannot find session work"), "{error}");
    }
}
