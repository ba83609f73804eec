//! Reads bash: characters become a [`Script`]. A recursive descent over the grammar of bash(1), without aliases.
//!
//! It accepts a little more than bash does, never less on purpose: what bash refuses does not run, what we refuse is
//! asked about. Nothing is expanded here. Depth is counted before each recursion; a script that goes deeper, and one
//! that ends in the middle, is an error beside what was read until then, because bash runs each line as it reads it.

use std::cell::OnceCell;
use std::rc::Rc;

use super::tree::{Assignment, Command, Item, Kind, Pipeline, Redirect, RedirectKind, Script, Word};

/// Constructs inside each other. Each level costs a few hundred bytes of stack in several functions; 8 MiB hold some
/// thousand, and nobody writes twenty.
pub(crate) const MAX_DEPTH: u16 = 100;

/// Why a script cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not bash.
    #[error("it is not bash: {0}")]
    Syntax(&'static str),
    /// Nested deeper than is followed.
    #[error("it is nested too deeply")]
    TooDeep,
    /// Longer than is read.
    #[error("it is longer than 100 KiB")]
    TooLong,
    /// More commands, values or texts than are followed.
    #[error("it takes too many steps to follow")]
    TooMuch,
}

pub(crate) type Read<T> = Result<T, Fault>;

/// A here-document whose body has not come yet.
#[derive(Debug)]
struct Pending {
    delimiter: String,
    quoted: bool,
    strip: bool,
    body: Rc<OnceCell<Word>>,
}

/// Where we are in a text.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) text: Rc<[char]>,
    pub(super) at: usize,
    pub(super) depth: u16,
    pending: Vec<Pending>,
}

/// Reads a whole script. What could be read before an error is returned beside it.
pub(crate) fn script(text: &str, depth: u16) -> (Script, Option<Fault>) {
    let mut reader = Reader::new(text.chars().collect(), depth);
    let mut script = Script::default();
    let fault = reader.items(&mut script, true).err();
    (script, fault)
}

/// Words that end a list.
const CLOSING: [&str; 9] = ["then", "do", "done", "elif", "else", "fi", "esac", "}", "in"];

impl Reader {
    pub(super) fn new(text: Rc<[char]>, depth: u16) -> Self {
        Self { text, at: 0, depth, pending: Vec::new() }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    pub(super) fn ahead(&self, by: usize) -> Option<char> {
        self.text.get(self.at.saturating_add(by)).copied()
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += 1;
        Some(letter)
    }

    pub(super) fn sees(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(by, letter)| self.ahead(by) == Some(letter))
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let seen = self.sees(text);
        if seen {
            self.at += text.chars().count();
        }
        seen
    }

    fn need(&mut self, text: &str, what: &'static str) -> Read<()> {
        self.blanks();
        if self.eat(text) { Ok(()) } else { Err(Fault::Syntax(what)) }
    }

    /// Runs one level deeper.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Spaces, tabs, joined lines and a comment.
    pub(super) fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('\\') if self.ahead(1) == Some('\n') => self.at += 2,
                Some('#') => {
                    // Only ever called between words, where `#` begins a comment.
                    while self.peek().is_some_and(|letter| letter != '\n') {
                        self.at += 1;
                    }
                }
                Some(_) | None => return,
            }
        }
    }

    /// As [`Reader::blanks`], and ends of lines with the here-documents that follow them.
    pub(super) fn lines(&mut self) -> Read<()> {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return Ok(());
            }
            self.at += 1;
            self.here_documents()?;
        }
    }

    fn here_documents(&mut self) -> Read<()> {
        for Pending { delimiter, quoted, strip, body } in std::mem::take(&mut self.pending) {
            let mut text = String::new();
            while self.peek().is_some() {
                let mut line = String::new();
                while let Some(letter) = self.bump() {
                    if letter == '\n' {
                        break;
                    }
                    line.push(letter);
                }
                let kept = if strip { line.trim_start_matches('\t') } else { &line };
                if kept == delimiter {
                    break;
                }
                text.push_str(kept);
                text.push('\n');
            }
            let word = if quoted {
                vec![super::tree::Part::Text { text, quoted: true }]
            } else {
                let letters = text.chars().collect();
                let mut inner = Reader::new(letters, self.depth);
                self.deeper(|_| inner.text_with_expansions())?
            };
            // Each cell is made with its redirection and filled here, once.
            let _ = body.set(word);
        }
        Ok(())
    }

    /// A nested list up to its closing word or bracket, which is left unread.
    pub(super) fn list(&mut self) -> Read<Script> {
        self.deeper(|reader| {
            // Here-documents of the line around are not this list's.
            let outer = std::mem::take(&mut reader.pending);
            let mut script = Script::default();
            let result = reader.items(&mut script, false);
            reader.pending.splice(0..0, outer);
            result.map(|()| script)
        })
    }

    fn items(&mut self, script: &mut Script, whole: bool) -> Read<()> {
        loop {
            self.lines()?;
            match self.peek() {
                None => return self.here_documents(),
                Some(')') if !whole => return Ok(()),
                Some(';') if !whole && matches!(self.ahead(1), Some(';' | '&')) => return Ok(()),
                Some(')') => return Err(Fault::Syntax("a `)` without its `(`")),
                Some(';' | '|') => return Err(Fault::Syntax("an operator without a command")),
                Some('&') if self.ahead(1) != Some('>') => {
                    return Err(Fault::Syntax("an operator without a command"));
                }
                Some(_) => {}
            }
            if self.reserved().is_some_and(|word| CLOSING.contains(&word.as_str()) && word != "in") {
                return if whole { Err(Fault::Syntax("a closing word without its command")) } else { Ok(()) };
            }
            let mut pipelines = vec![self.pipeline()?];
            loop {
                self.blanks();
                if self.eat("&&") || self.eat("||") {
                    self.lines()?;
                    pipelines.push(self.pipeline()?);
                } else {
                    break;
                }
            }
            let background = self.peek() == Some('&');
            script.items.push(Item { pipelines, background });
            match self.peek() {
                Some('&') => self.at += 1,
                Some(';') if !matches!(self.ahead(1), Some(';' | '&')) => self.at += 1,
                Some('\n' | ';' | ')') | None => {}
                Some(_) => return Err(Fault::Syntax("something after the end of a command")),
            }
        }
    }

    /// The unquoted word that begins here, if it could be a reserved one.
    pub(super) fn reserved(&self) -> Option<String> {
        let mut word = String::new();
        for by in 0..12 {
            match self.ahead(by) {
                Some(letter) if letter.is_ascii_lowercase() || matches!(letter, '{' | '}' | '!' | '[') => {
                    word.push(letter);
                }
                None | Some(' ' | '\t' | '\n' | '\r' | ';' | '&' | '|' | '<' | '>' | '(' | ')') => {
                    return (!word.is_empty()).then_some(word);
                }
                Some(_) => return None,
            }
        }
        None
    }

    fn eat_reserved(&mut self, word: &str) -> bool {
        let seen = self.reserved().is_some_and(|found| found == word);
        if seen {
            self.at += word.len();
        }
        seen
    }

    fn need_reserved(&mut self, word: &'static str) -> Read<()> {
        self.lines()?;
        if self.eat_reserved(word) { Ok(()) } else { Err(Fault::Syntax("a compound command does not end")) }
    }

    fn pipeline(&mut self) -> Read<Pipeline> {
        self.blanks();
        loop {
            if self.eat_reserved("!") {
                self.blanks();
            } else if self.eat_reserved("time") {
                self.blanks();
                if self.sees("-p ") {
                    self.at += 2;
                    self.blanks();
                }
                if matches!(self.peek(), None | Some('\n' | ';' | '&' | '|' | ')')) {
                    return Ok(Pipeline { stages: Vec::new() });
                }
            } else {
                break;
            }
        }
        let mut stages = vec![self.command()?];
        loop {
            self.blanks();
            if self.peek() == Some('|') && self.ahead(1) != Some('|') {
                self.at += 1;
                let both = self.eat("&");
                self.lines()?;
                let next = self.command()?;
                if both && let Some(last) = stages.last_mut() {
                    last.redirects.push(Redirect {
                        descriptor: Some(2),
                        kind: RedirectKind::Duplicate,
                        target: Vec::new(),
                        here: None,
                    });
                }
                stages.push(next);
            } else {
                return Ok(Pipeline { stages });
            }
        }
    }

    fn command(&mut self) -> Read<Command> {
        self.blanks();
        let kind = self.deeper(Self::compound)?;
        match kind {
            Some(kind @ Kind::Function { .. }) => Ok(Command { kind, redirects: Vec::new() }),
            Some(kind) => {
                let redirects = self.redirects()?;
                Ok(Command { kind, redirects })
            }
            None => self.deeper(Self::simple),
        }
    }

    fn compound(&mut self) -> Read<Option<Kind>> {
        if self.peek() == Some('(') {
            if self.ahead(1) == Some('(')
                && let Some(inside) = self.arithmetic_body(2)
            {
                return Ok(Some(Kind::Arithmetic(self.inner_text(inside)?)));
            }
            self.at += 1;
            let script = self.list()?;
            self.lines()?;
            self.need(")", "a `(` without its `)`")?;
            return Ok(Some(Kind::Subshell(script)));
        }
        let Some(word) = self.reserved() else { return Ok(None) };
        let kind = match word.as_str() {
            "{" => {
                self.at += 1;
                let script = self.list()?;
                self.need_reserved("}")?;
                Kind::Group(script)
            }
            "if" => self.conditional()?,
            "while" | "until" => {
                self.at += word.len();
                let condition = self.list()?;
                Kind::Loop { condition, body: self.do_done()? }
            }
            "for" | "select" => self.counted_or_listed(word.len())?,
            "case" => self.case()?,
            "function" => {
                self.at += word.len();
                self.blanks();
                let name = self.name_of_function();
                self.blanks();
                if self.eat("(") {
                    self.need(")", "a function without its `)`")?;
                }
                self.lines()?;
                Kind::Function { name, body: Rc::new(self.command()?) }
            }
            "coproc" => {
                self.at += word.len();
                self.blanks();
                let before = self.at;
                let named = !self.name_of_function().is_empty() && {
                    self.blanks();
                    matches!(self.peek(), Some('{' | '('))
                };
                if !named {
                    self.at = before;
                }
                Kind::Group(Script {
                    items: vec![Item { pipelines: vec![self.pipeline()?], background: true }],
                })
            }
            "[[" => {
                self.at += 2;
                Kind::Test(self.test()?)
            }
            word if CLOSING.contains(&word) && word != "in" => {
                return Err(Fault::Syntax("a closing word without its command"));
            }
            _ => return Ok(None),
        };
        Ok(Some(kind))
    }

    fn name_of_function(&mut self) -> String {
        let mut name = String::new();
        while let Some(letter) = self.peek() {
            if letter.is_whitespace() || matches!(letter, '(' | ')' | ';' | '&' | '|' | '<' | '>') {
                break;
            }
            name.push(letter);
            self.at += 1;
        }
        name
    }

    fn conditional(&mut self) -> Read<Kind> {
        self.at += 2;
        let mut branches = vec![self.list()?];
        loop {
            self.lines()?;
            if self.eat_reserved("then") || self.eat_reserved("elif") || self.eat_reserved("else") {
                branches.push(self.list()?);
            } else if self.eat_reserved("fi") {
                return Ok(Kind::If(branches));
            } else {
                return Err(Fault::Syntax("an `if` without its `fi`"));
            }
        }
    }

    fn do_done(&mut self) -> Read<Script> {
        self.lines()?;
        if self.eat(";") {
            self.lines()?;
        }
        if self.eat_reserved("{") {
            let body = self.list()?;
            self.need_reserved("}")?;
            return Ok(body);
        }
        self.need_reserved("do")?;
        let body = self.list()?;
        self.need_reserved("done")?;
        Ok(body)
    }

    fn counted_or_listed(&mut self, length: usize) -> Read<Kind> {
        self.at += length;
        self.blanks();
        if self.sees("((") {
            let inside = self.arithmetic_body(2).ok_or(Fault::Syntax("a `for ((` without its `))`"))?;
            let header = self.inner_text(inside)?;
            self.blanks();
            return Ok(Kind::Counted { header, body: self.do_done()? });
        }
        let name = self.name_of_function();
        if name.is_empty() {
            return Err(Fault::Syntax("a `for` without a name"));
        }
        self.lines()?;
        let mut words = None;
        if self.eat_reserved("in") {
            let mut listed = Vec::new();
            loop {
                self.blanks();
                match self.peek() {
                    None | Some('\n' | ';' | '&' | '|' | ')') => break,
                    Some('<' | '>') if self.ahead(1) != Some('(') => {
                        return Err(Fault::Syntax("a redirection in a list of words"));
                    }
                    Some('(') => return Err(Fault::Syntax("a `(` in a list of words")),
                    Some(_) => listed.push(self.word()?),
                }
            }
            words = Some(listed);
        }
        Ok(Kind::For { name, words, body: self.do_done()? })
    }

    fn case(&mut self) -> Read<Kind> {
        self.at += 4;
        self.blanks();
        let word = self.word()?;
        self.need_reserved("in")?;
        let mut arms = Vec::new();
        loop {
            self.lines()?;
            if self.eat_reserved("esac") {
                return Ok(Kind::Case { word, arms });
            }
            self.eat("(");
            let mut patterns = Vec::new();
            loop {
                self.lines()?;
                patterns.push(self.word()?);
                self.blanks();
                if !self.eat("|") {
                    break;
                }
            }
            self.need(")", "a pattern of `case` without its `)`")?;
            let body = self.list()?;
            arms.push((patterns, body));
            self.lines()?;
            if !(self.eat(";;&") || self.eat(";;") || self.eat(";&")) {
                self.need_reserved("esac")?;
                return Ok(Kind::Case { word, arms });
            }
        }
    }

    /// Inside `[[ … ]]`: operators are passed over, words kept.
    fn test(&mut self) -> Read<Vec<Word>> {
        let mut words = Vec::new();
        loop {
            self.lines()?;
            if self.sees("]]") && self.ahead(2).is_none_or(|next| !next.is_alphanumeric()) {
                self.at += 2;
                return Ok(words);
            }
            match self.peek() {
                None => return Err(Fault::Syntax("a `[[` without its `]]`")),
                Some('<' | '>') if self.ahead(1) == Some('(') => words.push(self.word()?),
                Some('<' | '>' | '(' | ')' | '&' | '|' | ';') => self.at += 1,
                Some('#') => {
                    // `blanks` took a comment; a `#` that is left cannot be.
                    self.at += 1;
                }
                Some(_) => words.push(self.word()?),
            }
        }
    }

    fn simple(&mut self) -> Read<Command> {
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

    fn function(&mut self, name: &Word) -> Read<Command> {
        let name = super::words::literal(name).ok_or(Fault::Syntax("a function without a plain name"))?;
        self.need("(", "a function without its `(`")?;
        self.need(")", "a function without its `)`")?;
        self.lines()?;
        let body = Rc::new(self.command()?);
        Ok(Command { kind: Kind::Function { name, body }, redirects: Vec::new() })
    }

    fn assignment(&mut self) -> Read<Option<Assignment>> {
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

    fn redirects(&mut self) -> Read<Vec<Redirect>> {
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
