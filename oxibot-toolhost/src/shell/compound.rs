//! Commands with words of their own: groups, conditions, loops, `case`, `[[ … ]]`. Only the outermost are named by
//! [`Reader::command`]; every one reads the lists inside of it.

use std::rc::Rc;

use super::read::{CLOSING, Fault, Read, Reader};
use super::tree::{Item, Kind, Script, Word};

impl Reader {
    pub(super) fn compound(&mut self) -> Read<Option<Kind>> {
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
    pub(super) fn test(&mut self) -> Read<Vec<Word>> {
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
}
