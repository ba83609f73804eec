//! A simple command: assignments, words, redirections, and the definition of a function, which begins like one.

use std::cell::OnceCell;
use std::rc::Rc;

use super::read::{Fault, Pending, Read, Reader};
use super::tree::{Assignment, Command, Kind, Redirect, RedirectKind, Word};

impl Reader {
    pub(super) fn simple(&mut self) -> Read<Command> {
        let mut assignments = Vec::new();
        let mut words: Vec<Word> = Vec::new();
        let mut redirects = Vec::new();
        loop {
            self.blanks();
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            match self.peek() {
                None | Some('\n' | ';' | '&' | '|' | ')') => break,
                Some('(') => {
                    return match (words.pop(), words.is_empty() && assignments.is_empty()) {
                        (Some(first), true) => self.function(&first),
                        _ => Err(Fault::Syntax("a `(` where none can be")),
                    };
                }
                Some(_) => {}
            }
            if words.is_empty()
                && let Some(assignment) = self.assignment()?
            {
                assignments.push(assignment);
                continue;
            }
            words.push(self.word()?);
        }
        if assignments.is_empty() && words.is_empty() && redirects.is_empty() {
            return Err(Fault::Syntax("a command is missing"));
        }
        Ok(Command { kind: Kind::Simple { assignments, words }, redirects })
    }

    pub(super) fn function(&mut self, name: &Word) -> Read<Command> {
        let name = super::words::literal(name).ok_or(Fault::Syntax("a function without a plain name"))?;
        self.need("(", "a function without its `(`")?;
        self.need(")", "a function without its `)`")?;
        self.lines()?;
        let body = Rc::new(self.command()?);
        Ok(Command { kind: Kind::Function { name, body }, redirects: Vec::new() })
    }

    pub(super) fn assignment(&mut self) -> Read<Option<Assignment>> {
        let mut name = String::new();
        let mut by = 0;
        while let Some(letter) = self.ahead(by) {
            let fits = letter == '_' || letter.is_ascii_alphabetic() || (by > 0 && letter.is_ascii_digit());
            if !fits {
                break;
            }
            name.push(letter);
            by += 1;
        }
        if name.is_empty() {
            return Ok(None);
        }
        let mut array = false;
        if self.ahead(by) == Some('[') {
            let mut open = 0_u32;
            while let Some(letter) = self.ahead(by) {
                by += 1;
                match letter {
                    '[' => open += 1,
                    ']' => open = open.saturating_sub(1),
                    '\n' | ';' | '|' | '&' => return Ok(None),
                    _ => {}
                }
                if open == 0 {
                    break;
                }
            }
            array = true;
        }
        let append = self.ahead(by) == Some('+') && self.ahead(by + 1) == Some('=');
        if append {
            by += 1;
        }
        if self.ahead(by) != Some('=') {
            return Ok(None);
        }
        self.at += by + 1;
        if self.peek() == Some('(') {
            let value = self.array()?;
            return Ok(Some(Assignment { name, append, array: true, value }));
        }
        let value = self.word_or_nothing()?;
        Ok(Some(Assignment { name, append, array, value }))
    }

    /// `(a b c)` after a `=`, as one word with blanks.
    pub(super) fn array(&mut self) -> Read<Word> {
        self.at += 1;
        let mut all = Word::new();
        loop {
            self.lines()?;
            match self.peek() {
                None => return Err(Fault::Syntax("an array without its `)`")),
                Some(')') => {
                    self.at += 1;
                    return Ok(all);
                }
                Some('<' | '>') if self.ahead(1) == Some('(') => {}
                Some('<' | '>' | ';' | '&' | '|' | '(') => {
                    return Err(Fault::Syntax("an operator in an array"));
                }
                Some(_) => {}
            }
            if !all.is_empty() {
                all.push(super::tree::Part::Text { text: " ".to_owned(), quoted: false });
            }
            all.extend(self.deeper(Self::word)?);
        }
    }

    pub(super) fn redirects(&mut self) -> Read<Vec<Redirect>> {
        let mut found = Vec::new();
        loop {
            self.blanks();
            match self.redirect()? {
                Some(redirect) => found.push(redirect),
                None => return Ok(found),
            }
        }
    }

    fn redirect(&mut self) -> Read<Option<Redirect>> {
        let start = self.at;
        let mut descriptor = None;
        if self.peek() == Some('{') {
            // `{name}>file`.
            let mut by = 1;
            while self.ahead(by).is_some_and(|letter| letter == '_' || letter.is_ascii_alphanumeric()) {
                by += 1;
            }
            if by > 1 && self.ahead(by) == Some('}') && matches!(self.ahead(by + 1), Some('<' | '>')) {
                self.at += by + 1;
                descriptor = Some(10);
            } else {
                return Ok(None);
            }
        }
        let mut digits = String::new();
        while let Some(digit) = self.peek().filter(char::is_ascii_digit) {
            digits.push(digit);
            self.at += 1;
        }
        if let Ok(number) = digits.parse() {
            descriptor = Some(number);
        }
        let process = self.ahead(1) == Some('(');
        let kind = match self.peek() {
            Some('<' | '>') if process => None,
            Some('&') if digits.is_empty() && self.ahead(1) == Some('>') => {
                self.at += 1;
                if self.eat(">>") {
                    Some(RedirectKind::Append)
                } else {
                    self.at += 1;
                    Some(RedirectKind::Write)
                }
            }
            Some('<') if self.eat("<<<") => Some(RedirectKind::HereString),
            Some('<') if self.sees("<<") => return self.here(descriptor).map(Some),
            Some('<') if self.eat("<>") => Some(RedirectKind::Both),
            Some('<') if self.eat("<&") => Some(RedirectKind::Duplicate),
            Some('<') => {
                self.at += 1;
                Some(RedirectKind::Read)
            }
            Some('>') if self.eat(">>") => Some(RedirectKind::Append),
            Some('>') if self.eat(">|") => Some(RedirectKind::Write),
            Some('>') if self.eat(">&") => Some(RedirectKind::Duplicate),
            Some('>') => {
                self.at += 1;
                Some(RedirectKind::Write)
            }
            Some(_) | None => None,
        };
        let Some(mut kind) = kind else {
            self.at = start;
            return Ok(None);
        };
        self.blanks();
        if matches!(self.peek(), None | Some('\n' | ';' | '&' | '|' | ')' | '(')) {
            return Err(Fault::Syntax("a redirection without its target"));
        }
        let target = self.word()?;
        if kind == RedirectKind::Duplicate {
            // `>&file` writes a file; `>&2` and `>&-` do not.
            let known = super::words::literal(&target);
            let number = known.is_none_or(|text| {
                !text.is_empty() && text.trim_end_matches('-').chars().all(|l| l.is_ascii_digit())
            });
            if !number {
                kind = RedirectKind::Write;
            }
        }
        Ok(Some(Redirect { descriptor, kind, target, here: None }))
    }

    fn here(&mut self, descriptor: Option<u32>) -> Read<Redirect> {
        self.at += 2;
        let strip = self.eat("-");
        self.blanks();
        if matches!(self.peek(), None | Some('\n' | ';' | '&' | '|' | ')' | '(' | '<' | '>')) {
            return Err(Fault::Syntax("a here-document without its delimiter"));
        }
        let before = self.at;
        let word = self.word()?;
        let raw = self.text.get(before..self.at).unwrap_or_default();
        let quoted = raw.iter().any(|letter| matches!(letter, '\'' | '"' | '\\'));
        let delimiter = match super::words::unquoted(&word) {
            Some(plain) => plain,
            // `<<$x` is taken literally.
            None => raw.iter().collect(),
        };
        let body = Rc::new(OnceCell::new());
        self.pending.push(Pending { delimiter, quoted, strip, body: Rc::clone(&body) });
        Ok(Redirect { descriptor, kind: RedirectKind::Here, target: Word::new(), here: Some(body) })
    }
}
