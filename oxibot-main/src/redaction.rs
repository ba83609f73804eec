//! What leaves main loses its secrets: what goes to a model, to a terminal, to a log, to a chat.
//!
//! One redactor for the whole process, because a secret must be known everywhere as soon as it was read; the engine is
//! `oxibot_proto::redact`. It knows every secret of the configuration from the moment it is read, also of one that is then
//! refused, and the shapes of keys that are not ours.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{PoisonError, RwLock};

use oxibot_proto::message::{CallResult, Denial, Outcome};
use oxibot_proto::redact::{Redactor, RuleError, Stream};
use secrecy::{ExposeSecret, SecretString};

static REDACTOR: RwLock<Option<Result<Redactor, RuleError>>> = RwLock::new(None);

/// The redactor as it is now.
///
/// # Errors
/// When a rule does not hold: then nothing may be shown.
pub fn current() -> Result<Redactor, RuleError> {
    if let Some(redactor) = &*REDACTOR.read().unwrap_or_else(PoisonError::into_inner) {
        return redactor.clone();
    }
    let mut slot = REDACTOR.write().unwrap_or_else(PoisonError::into_inner);
    slot.get_or_insert_with(Redactor::load).clone()
}

/// From now on this secret is taken out of everything. `name` is its key in the configuration, which is shown instead.
pub fn learn(name: &str, secret: &SecretString) {
    let known = current().map(|redactor| redactor.knowing(name, secret.expose_secret()));
    *REDACTOR.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
}

/// From here on a panic says what it has to say without secrets: its message may quote whatever was being read.
pub fn guard_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        // There may be nobody to tell.
        let _ = writeln!(io::stderr(), "oxibot: {}", of_a_panic(&panic.to_string(), &place));
    }));
}

/// What a panic may say. Not by [`current`], which may wait for who panicked. What cannot be redacted is not said, but
/// where it was.
fn of_a_panic(said: &str, place: &str) -> String {
    let redacted = match REDACTOR.try_read() {
        Ok(slot) => match &*slot {
            Some(Ok(redactor)) => Some(redactor.text(said).into_owned()),
            Some(Err(_)) => None,
            // Nothing secret was read yet.
            None => Some(said.to_owned()),
        },
        Err(_) => None,
    };
    redacted.unwrap_or_else(|| format!("panicked at {place}: [not shown]"))
}

/// A text without secrets.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    match current() {
        Ok(redactor) => redactor.text(text),
        Err(error) => Cow::Owned(withheld(&error)),
    }
}

/// Bytes without secrets.
#[must_use]
pub fn bytes(bytes: &[u8]) -> Cow<'_, [u8]> {
    match current() {
        Ok(redactor) => redactor.bytes(bytes),
        Err(error) => Cow::Owned(withheld(&error).into_bytes()),
    }
}

fn withheld(error: &RuleError) -> String {
    format!("[not shown: {error}]\n")
}

/// What came of a call, before anything in main looks at it. The toolhost took out what has the shape of a key; what main
/// knows it cannot know.
pub fn result(result: &mut CallResult) {
    let output = &mut result.output;
    let held = output.head.len().saturating_add(output.tail.len());
    match current() {
        Ok(redactor) if output.tail.is_empty() => output.head = redactor.bytes(&output.head).into_owned(),
        Ok(redactor) => (output.head, output.tail) = redactor.ends(&output.head, &output.tail),
        Err(error) => {
            output.head = withheld(&error).into_bytes();
            output.tail.clear();
        }
    }
    let left = output.head.len().saturating_add(output.tail.len());
    output.passed_bytes = output.passed_bytes.saturating_sub(held as u64).saturating_add(left as u64);
    for note in &mut result.notes {
        own(note);
    }
    for violation in &mut result.violations {
        own(&mut violation.path);
        own(&mut violation.why);
    }
    outcome(&mut result.outcome);
}

/// How something ended, as [`result`].
pub fn outcome(outcome: &mut Outcome) {
    match outcome {
        Outcome::Denied(denial) | Outcome::NeedsApproval(denial) => {
            let Denial { rule: _, reason, hint } = denial;
            own(reason);
            own(hint);
        }
        Outcome::Failed { message } | Outcome::Internal { message } => own(message),
        Outcome::Completed | Outcome::TimedOut | Outcome::Cancelled | Outcome::Killed { .. } => {}
    }
}

fn own(shown: &mut String) {
    if let Cow::Owned(redacted) = text(shown) {
        *shown = redacted;
    }
}

/// Text that arrives in pieces, such as a model's reply. The last word may wait for its end.
#[derive(Debug, Default)]
pub struct Streaming {
    stream: Option<Stream>,
}

impl Streaming {
    /// What can be shown of the text so far.
    pub fn push(&mut self, piece: &str) -> String {
        self.step(|stream, out| stream.push(piece.as_bytes(), out))
    }

    /// What is left.
    pub fn finish(&mut self) -> String {
        if self.stream.is_none() {
            return String::new();
        }
        let rest = self.step(Stream::finish);
        self.stream = None;
        rest
    }

    fn step(&mut self, act: impl FnOnce(&mut Stream, &mut Vec<u8>)) -> String {
        if self.stream.is_none() {
            match current() {
                Ok(redactor) => self.stream = Some(redactor.stream()),
                Err(error) => return withheld(&error),
            }
        }
        let mut out = Vec::new();
        if let Some(stream) = &mut self.stream {
            act(stream, &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// A log without secrets: each event is one write.
#[derive(Debug)]
pub struct Redacted<W>(pub W);

impl<W: Write> Write for Redacted<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&bytes(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_says_no_secret() {
        learn("providers.test.apiKey", &SecretString::from("pan!c/test+key 77"));
        let said = of_a_panic("panicked at a.rs:1:1:\ncannot parse pan!c/test+key 77", "a.rs:1:1");
        assert!(said.contains("[redacted: providers.test.apiKey]") && !said.contains("pan!c"), "{said}");
        let writing = REDACTOR.write().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(of_a_panic("pan!c/test+key 77", "a.rs:1:1"), "panicked at a.rs:1:1: [not shown]");
        drop(writing);
    }
}
