//! Questions and answers, on a terminal or from a pipe.
//!
//! A secret is read with the echo off and without leaving a copy behind. It knows nothing of what is asked.

use std::io::{self, BufRead, Write};
use std::os::fd::BorrowedFd;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// Longest answer: a file piped in by mistake must not fill the memory.
const MAX_ANSWER: usize = 16 * 1024;

const INTERRUPT: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Ctrl-C, Ctrl-D or the end of the input.
    #[error("cancelled")]
    Cancelled,
    /// Reading or writing failed.
    #[error("cannot use the terminal: {0}")]
    Io(#[from] io::Error),
}

/// Where questions go to and answers come from.
pub struct Console<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
    /// The terminal whose echo is switched off for secrets; none for a pipe.
    terminal: Option<BorrowedFd<'a>>,
}

impl<'a> Console<'a> {
    /// `terminal` is the descriptor of `input` if that is a terminal.
    pub fn new(
        input: &'a mut dyn BufRead,
        output: &'a mut dyn Write,
        terminal: Option<BorrowedFd<'a>>,
    ) -> Self {
        Self { input, output, terminal }
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Those of the output.
    pub fn say(&mut self, line: &str) -> Result<(), NoAnswer> {
        writeln!(self.output, "{line}").map_err(NoAnswer::Io)
    }

    /// Asks, and returns the answer without blanks around it; possibly empty.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn ask(&mut self, question: &str) -> Result<String, NoAnswer> {
        self.prompt(question)?;
        let line = self.line(Line::Visible)?;
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }

    /// Asks for a secret; nothing of the answer appears. `None` when it is empty.
    ///
    /// # Errors
    /// At the end of the input, or when the echo cannot be switched off.
    pub fn ask_hidden(&mut self, question: &str) -> Result<Option<SecretString>, NoAnswer> {
        let line = match self.terminal {
            Some(terminal) => {
                // Before the question: whoever answers it at once is not shown either.
                let _quiet = Quiet::begin(terminal)?;
                self.prompt(question)?;
                let line = self.line(Line::Hidden);
                writeln!(self.output)?;
                line?
            }
            None => {
                self.prompt(question)?;
                self.line(Line::Visible)?
            }
        };
        let text =
            std::str::from_utf8(&line).map_err(|_| io::Error::other("the answer is not UTF-8"))?.trim();
        Ok((!text.is_empty()).then(|| SecretString::from(text)))
    }

    /// Asks until the answer is yes or no; empty is `default`.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn confirm(&mut self, question: &str, default: bool) -> Result<bool, NoAnswer> {
        let choices = if default { "[Y/n]" } else { "[y/N]" };
        loop {
            match self.ask(&format!("{question} {choices} "))?.to_lowercase().as_str() {
                "" => return Ok(default),
                "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => self.say("Please answer yes or no.")?,
            }
        }
    }

    fn prompt(&mut self, question: &str) -> Result<(), NoAnswer> {
        write!(self.output, "{question}")?;
        self.output.flush().map_err(NoAnswer::Io)
    }

    /// One line, byte by byte; the capacity is fixed, so that growing leaves no copy of a secret behind.
    fn line(&mut self, kind: Line) -> Result<Zeroizing<Vec<u8>>, NoAnswer> {
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
        loop {
            let byte = match self.input.fill_buf() {
                Ok(buffer) => buffer.first().copied(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(NoAnswer::Io(error)),
            };
            let Some(byte) = byte else {
                return if line.is_empty() { Err(NoAnswer::Cancelled) } else { Ok(line) };
            };
            self.input.consume(1);
            match byte {
                b'\n' => return Ok(line),
                b'\r' if kind == Line::Hidden => return Ok(line),
                INTERRUPT => return Err(NoAnswer::Cancelled),
                END_OF_INPUT if kind == Line::Hidden && line.is_empty() => return Err(NoAnswer::Cancelled),
                byte if kind == Line::Hidden && BACKSPACE.contains(&byte) => {
                    line.pop();
                }
                _ if line.len() == MAX_ANSWER => {
                    return Err(NoAnswer::Io(io::Error::other(format!(
                        "the answer is longer than {MAX_ANSWER} bytes"
                    ))));
                }
                byte => line.push(byte),
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The terminal edits the line.
    Visible,
    /// We get every key.
    Hidden,
}

/// Echo off until dropped. Signals from keys are off as well: Ctrl-C would end the process with the echo still off.
struct Quiet<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn begin(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Drain, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing better can be done with a terminal that does not take its own settings back.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::os::fd::AsFd;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use secrecy::ExposeSecret;

    use super::*;

    fn from(input: &str, act: impl FnOnce(&mut Console<'_>)) -> String {
        let mut input = input.as_bytes();
        let mut output = Vec::new();
        act(&mut Console::new(&mut input, &mut output, None));
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn answers_come_line_by_line_until_the_end() {
        let said = from(" one \n\ntwo", |console| {
            assert_eq!(console.ask("a? ").unwrap(), "one");
            assert_eq!(console.ask("b? ").unwrap(), "");
            assert_eq!(console.ask("c? ").unwrap(), "two");
            assert!(matches!(console.ask("d? "), Err(NoAnswer::Cancelled)));
        });
        assert_eq!(said, "a? b? c? d? ");
    }

    #[test]
    fn yes_and_no_are_insisted_on() {
        from("maybe\nY\n\nno\n", |console| {
            assert!(console.confirm("?", false).unwrap());
            assert!(console.confirm("?", true).unwrap());
            assert!(!console.confirm("?", true).unwrap());
        });
    }

    #[test]
    fn an_answer_without_end_is_refused() {
        from(&"x".repeat(MAX_ANSWER + 1), |console| {
            assert!(matches!(console.ask("?"), Err(NoAnswer::Io(_))));
        });
    }

    /// A person at a terminal, who types once asked. Returns the modes before and after, and what they saw.
    fn on_a_terminal(typed: &[u8], act: impl FnOnce(&mut Console<'_>)) -> (Termios, Termios, String) {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let terminal =
            std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let mut seen = Vec::new();
        let mut see_until = |end: &[u8]| {
            let mut chunk = [0; 256];
            while !seen.ends_with(end) {
                let count = rustix::io::read(&person, &mut chunk).unwrap();
                seen.extend_from_slice(&chunk[..count]);
            }
        };
        let mut input = BufReader::new(terminal.try_clone().unwrap());
        let mut output = terminal.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                see_until(b"key: ");
                rustix::io::write(&person, typed).unwrap();
                see_until(b"end\r\n");
            });
            let mut console = Console::new(&mut input, &mut output, Some(terminal.as_fd()));
            act(&mut console);
            console.say("end").unwrap();
        });
        (before, tcgetattr(&terminal).unwrap(), String::from_utf8(seen).unwrap())
    }

    #[test]
    fn a_secret_is_not_shown_and_the_terminal_is_put_back() {
        let (before, after, seen) = on_a_terminal(b"sk-x\x7f4711\r", |console| {
            let secret = console.ask_hidden("key: ").unwrap().unwrap();
            assert_eq!(secret.expose_secret(), "sk-4711");
        });
        assert!(before.local_modes.contains(LocalModes::ECHO));
        assert_eq!(before.local_modes, after.local_modes);
        assert_eq!(seen, "key: \r\nend\r\n");
    }

    #[test]
    fn an_answer_that_is_no_secret_is_shown() {
        let (_, _, seen) = on_a_terminal(b"abc\n", |console| {
            assert_eq!(console.ask("key: ").unwrap(), "abc");
        });
        assert_eq!(seen, "key: abc\r\nend\r\n");
    }

    #[test]
    fn an_interrupt_while_hidden_puts_the_terminal_back() {
        let (before, after, _) = on_a_terminal(b"sk\x03", |console| {
            assert!(matches!(console.ask_hidden("key: "), Err(NoAnswer::Cancelled)));
        });
        assert_eq!(before.local_modes, after.local_modes);
    }
}
