//! Reads the words of bash: quotes, expansions, substitutions, and what may stand inside them.

use std::rc::Rc;

use super::read::{Fault, Read, Reader};
use super::tree::{Operation, Part, Script, Word};

/// The text of a word that is plain: no quotes, no expansions.
pub(super) fn literal(word: &Word) -> Option<String> {
    match word.as_slice() {
        [Part::Text { text, quoted: false }] => Some(text.clone()),
        _ => None,
    }
}

/// The text of a word without its quotes, if nothing in it is expanded.
pub(super) fn unquoted(word: &Word) -> Option<String> {
    let mut all = String::new();
    for part in word {
        match part {
            Part::Text { text, .. } => all.push_str(text),
            Part::Variable { .. }
            | Part::Substitution { .. }
            | Part::Arithmetic { .. }
            | Part::Process { .. } => return None,
        }
    }
    Some(all)
}

fn push(word: &mut Word, letter: char, quoted: bool) {
    match word.last_mut() {
        Some(Part::Text { text, quoted: last }) if *last == quoted => text.push(letter),
        _ => word.push(Part::Text { text: letter.to_string(), quoted }),
    }
}

/// Where a word ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// At a blank or an operator.
    Command,
    /// At an unquoted `}`; inside double quotes single quotes mean nothing.
    Brace { in_quotes: bool },
    /// At the end of the text, as inside double quotes.
    Text,
}

impl Reader {
    /// One word, which must be there.
    pub(super) fn word(&mut self) -> Read<Word> {
        let before = self.at;
        let word = self.word_or_nothing()?;
        if self.at == before { Err(Fault::Syntax("a word is missing")) } else { Ok(word) }
    }

    /// A word that may be empty, as after `x=`.
    pub(super) fn word_or_nothing(&mut self) -> Read<Word> {
        self.parts(Ends::Command)
    }

    /// The rest of the text with its expansions, as inside double quotes.
    pub(super) fn text_with_expansions(&mut self) -> Read<Word> {
        self.parts(Ends::Text)
    }

    fn parts(&mut self, ends: Ends) -> Read<Word> {
        let mut word = Word::new();
        while let Some(letter) = self.peek() {
            match letter {
                '\\' => self.escape(&mut word, ends),
                '$' => {
                    self.dollar(&mut word, ends != Ends::Command && ends != Ends::Brace { in_quotes: false })?
                }
                '`' => {
                    let quoted = ends != Ends::Command;
                    let script = self.backquoted(quoted)?;
                    word.push(Part::Substitution { script, quoted });
                }
                '"' if ends == Ends::Text => {
                    self.at += 1;
                    push(&mut word, '"', true);
                }
                '"' => self.double_quoted(&mut word)?,
                '\'' if matches!(ends, Ends::Command | Ends::Brace { in_quotes: false }) => {
                    self.at += 1;
                    word.push(Part::Text { text: self.until_quote()?, quoted: true });
                }
                '}' if matches!(ends, Ends::Brace { .. }) => return Ok(word),
                '<' | '>' if ends == Ends::Command && self.ahead(1) == Some('(') => {
                    self.at += 2;
                    let script = self.list()?;
                    self.close_substitution()?;
                    word.push(Part::Process { script });
                }
                ' ' | '\t' | '\n' | '\r' | ';' | '&' | '|' | '<' | '>' | ')' if ends == Ends::Command => {
                    return Ok(word);
                }
                '(' if ends == Ends::Command => {
                    let last = match word.last() {
                        Some(Part::Text { text, quoted: false }) => text.chars().last(),
                        _ => None,
                    };
                    match last {
                        Some('?' | '*' | '+' | '@' | '!') => self.pattern_list(&mut word)?,
                        Some('=') => {
                            let inside = self.deeper(Self::array)?;
                            word.push(Part::Text { text: "(".to_owned(), quoted: true });
                            word.extend(inside);
                            word.push(Part::Text { text: ")".to_owned(), quoted: true });
                        }
                        Some(_) | None => return Ok(word),
                    }
                }
                other => {
                    self.at += 1;
                    push(&mut word, other, matches!(ends, Ends::Text | Ends::Brace { in_quotes: true }));
                }
            }
        }
        match ends {
            Ends::Command | Ends::Text => Ok(word),
            Ends::Brace { .. } => Err(Fault::Syntax("a `${` without its `}`")),
        }
    }

    fn escape(&mut self, word: &mut Word, ends: Ends) {
        self.at += 1;
        match (self.bump(), ends) {
            (Some('\n'), _) => {}
            (Some(letter), Ends::Command | Ends::Brace { in_quotes: false }) => push(word, letter, true),
            (Some(letter @ ('$' | '`' | '\\' | '}')), Ends::Text | Ends::Brace { in_quotes: true }) => {
                push(word, letter, true);
            }
            (Some(letter), Ends::Text | Ends::Brace { in_quotes: true }) => {
                push(word, '\\', true);
                push(word, letter, true);
            }
            (None, _) => push(word, '\\', true),
        }
    }

    fn pattern_list(&mut self, word: &mut Word) -> Read<()> {
        let mut open = 0_u32;
        while let Some(letter) = self.peek() {
            match letter {
                '(' => open += 1,
                ')' => open = open.saturating_sub(1),
                '\n' => return Err(Fault::Syntax("a pattern without its `)`")),
                _ => {}
            }
            self.at += 1;
            push(word, letter, false);
            if open == 0 {
                return Ok(());
            }
        }
        Err(Fault::Syntax("a pattern without its `)`"))
    }

    fn until_quote(&mut self) -> Read<String> {
        let mut text = String::new();
        while let Some(letter) = self.bump() {
            if letter == '\'' {
                return Ok(text);
            }
            text.push(letter);
        }
        Err(Fault::Syntax("a quote is not closed"))
    }

    fn double_quoted(&mut self, word: &mut Word) -> Read<()> {
        self.at += 1;
        // Even an empty pair makes a word.
        word.push(Part::Text { text: String::new(), quoted: true });
        while let Some(letter) = self.peek() {
            match letter {
                '"' => {
                    self.at += 1;
                    return Ok(());
                }
                '\\' => {
                    self.at += 1;
                    match self.bump() {
                        Some('\n') => {}
                        Some(letter @ ('$' | '`' | '"' | '\\')) => push(word, letter, true),
                        Some(letter) => {
                            push(word, '\\', true);
                            push(word, letter, true);
                        }
                        None => break,
                    }
                }
                '$' => self.dollar(word, true)?,
                '`' => {
                    let script = self.backquoted(true)?;
                    word.push(Part::Substitution { script, quoted: true });
                }
                other => {
                    self.at += 1;
                    push(word, other, true);
                }
            }
        }
        Err(Fault::Syntax("a quote is not closed"))
    }

    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Read<()> {
        self.at += 1;
        match self.peek() {
            Some('\'') if !quoted => {
                self.at += 1;
                let text = self.ansi_quoted()?;
                word.push(Part::Text { text, quoted: true });
            }
            Some('"') if !quoted => self.double_quoted(word)?,
            Some('(') => {
                if self.ahead(1) == Some('(')
                    && let Some(inside) = self.arithmetic_body(2)
                {
                    word.push(Part::Arithmetic { text: self.inner_text(inside)? });
                    return Ok(());
                }
                self.at += 1;
                let script = self.list()?;
                self.close_substitution()?;
                word.push(Part::Substitution { script, quoted });
            }
            Some('{') => {
                self.at += 1;
                let part = self.deeper(|reader| reader.parameter(quoted))?;
                word.push(part);
            }
            Some('[') => {
                let mut open = 0_u32;
                let mut inside = String::new();
                while let Some(letter) = self.bump() {
                    match letter {
                        '[' => open += 1,
                        ']' => open = open.saturating_sub(1),
                        _ => {}
                    }
                    if open == 0 {
                        break;
                    }
                    if !(inside.is_empty() && letter == '[') {
                        inside.push(letter);
                    }
                }
                word.push(Part::Arithmetic { text: self.inner_text(inside.chars().collect())? });
            }
            Some(letter) if letter == '_' || letter.is_ascii_alphabetic() => {
                let name = self.name();
                word.push(Part::Variable { name, operation: Operation::Plain, quoted });
            }
            Some(letter @ ('0'..='9' | '@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.at += 1;
                let name = letter.to_string();
                word.push(Part::Variable { name, operation: Operation::Plain, quoted });
            }
            Some(_) | None => push(word, '$', quoted),
        }
        Ok(())
    }

    fn close_substitution(&mut self) -> Read<()> {
        self.lines()?;
        if self.eat(")") { Ok(()) } else { Err(Fault::Syntax("a substitution without its `)`")) }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(letter) = self.peek().filter(|l| *l == '_' || l.is_ascii_alphanumeric()) {
            name.push(letter);
            self.at += 1;
        }
        name
    }

    /// What follows `${`.
    fn parameter(&mut self, quoted: bool) -> Read<Part> {
        let argument = |reader: &mut Self| reader.parts(Ends::Brace { in_quotes: quoted });
        let variable = |name: String, operation| Part::Variable { name, operation, quoted };
        let length = self.peek() == Some('#') && self.ahead(1).is_some_and(|next| next != '}');
        let indirect = self.peek() == Some('!') && self.ahead(1).is_some_and(|next| next != '}');
        if length || indirect {
            self.at += 1;
        }
        let name = match self.peek() {
            Some(letter) if letter == '_' || letter.is_ascii_alphanumeric() => self.name(),
            Some(letter @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.at += 1;
                letter.to_string()
            }
            Some(_) | None => String::new(),
        };
        let mut index = None;
        if self.eat("[") {
            let mut inside = String::new();
            let mut open = 1_u32;
            while let Some(letter) = self.bump() {
                match letter {
                    '[' => open += 1,
                    ']' => open = open.saturating_sub(1),
                    _ => {}
                }
                if open == 0 {
                    break;
                }
                inside.push(letter);
            }
            index = Some(self.inner_text(inside.chars().collect())?);
        }
        let colon = self.peek() == Some(':') && matches!(self.ahead(1), Some('-' | '=' | '+' | '?'));
        if colon {
            self.at += 1;
        }
        let operation = match self.peek() {
            Some('}') => Operation::Plain,
            Some('-' | '=' | '?') => {
                self.at += 1;
                Operation::Default(argument(self)?)
            }
            Some('+') => {
                self.at += 1;
                Operation::Alternative(argument(self)?)
            }
            Some(':') => {
                self.at += 1;
                Operation::Substring(argument(self)?)
            }
            Some(mark @ ('#' | '%')) => {
                self.at += 1;
                let greedy = self.peek() == Some(mark);
                if greedy {
                    self.at += 1;
                }
                Operation::Remove { suffix: mark == '%', greedy, pattern: argument(self)? }
            }
            Some('/') => {
                self.at += 1;
                let all = self.eat("/");
                let (pattern, with) = split_at_slash(argument(self)?);
                Operation::Replace { all, pattern, with }
            }
            Some(mark @ ('^' | ',')) => {
                self.at += 1;
                let all = self.peek() == Some(mark);
                let rest = argument(self)?;
                let plain = rest.is_empty() || literal(&rest).is_some_and(|text| text == mark.to_string());
                if plain { Operation::Case { upper: mark == '^', all } } else { Operation::Other(rest) }
            }
            Some(_) => Operation::Other(argument(self)?),
            None => return Err(Fault::Syntax("a `${` without its `}`")),
        };
        if !self.eat("}") {
            return Err(Fault::Syntax("a `${` without its `}`"));
        }
        let operation = match (index, length || indirect) {
            (Some(index), false)
                if operation == Operation::Plain
                    && matches!(unquoted(&index).as_deref(), Some("@" | "*")) =>
            {
                return Ok(variable(format!("{name}[@]"), Operation::Plain));
            }
            (Some(index), _) => Operation::Other(index),
            (None, true) => Operation::Other(Word::new()),
            (None, false) => operation,
        };
        Ok(variable(name, operation))
    }

    /// `$'…'`.
    fn ansi_quoted(&mut self) -> Read<String> {
        let mut text = String::new();
        loop {
            match self.bump() {
                None => return Err(Fault::Syntax("a quote is not closed")),
                Some('\'') => return Ok(text),
                Some('\\') => {
                    let rest: String = self.text.iter().skip(self.at).take(10).collect();
                    let (letter, used) = ansi_escape(&rest);
                    self.at += used;
                    text.extend(letter);
                }
                Some(letter) => text.push(letter),
            }
        }
    }

    fn backquoted(&mut self, quoted: bool) -> Read<Script> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.bump() {
                None => return Err(Fault::Syntax("a backquote is not closed")),
                Some('`') => break,
                Some('\\') => match self.bump() {
                    Some(letter @ ('`' | '\\' | '$')) => text.push(letter),
                    Some('"') if quoted => text.push('"'),
                    Some(letter) => {
                        text.push('\\');
                        text.push(letter);
                    }
                    None => return Err(Fault::Syntax("a backquote is not closed")),
                },
                Some(letter) => text.push(letter),
            }
        }
        self.deeper(|reader| match super::read::script(&text, reader.depth) {
            (script, None) => Ok(script),
            (_, Some(fault)) => Err(fault),
        })
    }

    /// The inside of `((…))` when what follows is one, read past; `skip` brackets are its opening.
    pub(super) fn arithmetic_body(&mut self, skip: usize) -> Option<Rc<[char]>> {
        let start = self.at + skip;
        let mut at = start;
        let mut open = 2_u32;
        while let Some(letter) = self.text.get(at).copied() {
            match letter {
                '(' => open += 1,
                ')' => {
                    open -= 1;
                    if open == 1 {
                        if self.text.get(at + 1) != Some(&')') {
                            return None;
                        }
                        let inside = self.text.get(start..at)?;
                        self.at = at + 2;
                        return Some(inside.into());
                    }
                }
                _ => {}
            }
            at += 1;
        }
        None
    }

    /// A text with its expansions, one level deeper.
    pub(super) fn inner_text(&mut self, letters: Rc<[char]>) -> Read<Word> {
        self.deeper(|reader| Reader::new(letters, reader.depth).text_with_expansions())
    }
}

fn split_at_slash(word: Word) -> (Word, Word) {
    let mut pattern = Word::new();
    let mut parts = word.into_iter();
    while let Some(part) = parts.next() {
        match part {
            Part::Text { text, quoted: false } if text.contains('/') => {
                let (before, after) = text.split_once('/').unwrap_or((&text, ""));
                pattern.push(Part::Text { text: before.to_owned(), quoted: false });
                let mut with = vec![Part::Text { text: after.to_owned(), quoted: false }];
                with.extend(parts);
                return (pattern, with);
            }
            part @ (Part::Text { .. }
            | Part::Variable { .. }
            | Part::Substitution { .. }
            | Part::Arithmetic { .. }
            | Part::Process { .. }) => pattern.push(part),
        }
    }
    (pattern, Word::new())
}

/// Text without its escapes, as `$'…'`, `printf` and most languages write them.
pub(super) fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        let rest: String = letters.clone().take(10).collect();
        let (letter, used) = ansi_escape(&rest);
        out.extend(letter);
        for _ in 0..used {
            letters.next();
        }
    }
    out
}

/// The character an escape of `$'…'`, `echo -e` or `printf` stands for, and how many characters it takes after `\`.
fn ansi_escape(rest: &str) -> (Option<char>, usize) {
    let mut letters = rest.chars();
    let Some(first) = letters.next() else { return (Some('\\'), 0) };
    let number = |skip: usize, most: usize, radix: u32| {
        let digits: String = rest.chars().skip(skip).take(most).take_while(|l| l.is_digit(radix)).collect();
        let value = u32::from_str_radix(&digits, radix).ok().and_then(char::from_u32);
        (value, skip + digits.len())
    };
    match first {
        'a' => (Some('\u{7}'), 1),
        'b' => (Some('\u{8}'), 1),
        'e' | 'E' => (Some('\u{1b}'), 1),
        'f' => (Some('\u{c}'), 1),
        'n' => (Some('\n'), 1),
        'r' => (Some('\r'), 1),
        't' => (Some('\t'), 1),
        'v' => (Some('\u{b}'), 1),
        'x' => number(1, 2, 16),
        'u' => number(1, 4, 16),
        'U' => number(1, 8, 16),
        '0'..='7' => number(0, if first == '0' { 4 } else { 3 }, 8),
        'c' => (None, 2),
        '\\' | '\'' | '"' | '?' => (Some(first), 1),
        _ => (Some('\\'), 0),
    }
}
