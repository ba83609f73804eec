//! Rule files into rules. Strict: an unknown word, a missing comment, a field twice are errors that name file and line.
//!
//! The files are compiled in, so an error is found by the tests of this module and never by a user. The form is described
//! at the head of `entry.rules`.

use std::collections::BTreeSet;

use super::names::{self, Numbers};
use super::rule::{ARGUMENTS, Action, Architecture, Condition, Pattern, Place, Rule, Selector, Table, Value};

/// Shortest comment that can name who needs a call or what it would allow.
const LEAST_COMMENT: usize = 30;

/// A rule file that says what cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub(super) struct ParseError {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) what: String,
}

/// A file that was compiled in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

/// Reads all files, in this order, for one architecture.
pub(super) fn table(
    sources: &[Source],
    number_table: Source,
    architecture: Architecture,
) -> Result<Table, ParseError> {
    let numbers = names::numbers(number_table.text, architecture).map_err(|(line, what)| ParseError {
        file: number_table.name.into(),
        line,
        what,
    })?;
    let mut rules: Vec<Rule> = Vec::new();
    for source in sources {
        for block in blocks(source)? {
            let rule = block.rule(&numbers)?;
            if rules.iter().any(|other| other.id == rule.id) {
                return Err(block.error(block.line, format!("there is another rule {}", rule.id)));
            }
            rules.push(rule);
        }
    }
    Ok(Table { architecture, rules })
}

/// One field, with the lines that go on with it.
#[derive(Debug)]
struct Field {
    line: usize,
    name: &'static str,
    text: String,
}

#[derive(Debug)]
struct Block {
    file: &'static str,
    line: usize,
    id: &'static str,
    fields: Vec<Field>,
}

fn blocks(source: &Source) -> Result<Vec<Block>, ParseError> {
    let mut blocks: Vec<Block> = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let at = index.saturating_add(1);
        let error =
            |what: &str| Err(ParseError { file: source.name.into(), line: at, what: what.to_owned() });
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let block = blocks.last_mut();
        if line.starts_with(' ') {
            let Some(field) = block.and_then(|block| block.fields.last_mut()) else {
                return error("nothing goes on here");
            };
            field.text.push(' ');
            field.text.push_str(line.trim());
            continue;
        }
        let (name, text) = line.split_once(' ').unwrap_or((line, ""));
        let text = text.trim();
        if text.is_empty() {
            return error("a field without a value");
        }
        match (name, block) {
            ("rule", _) => {
                blocks.push(Block { file: source.name, line: at, id: text, fields: Vec::new() });
            }
            (_, None) => return error("a field before the first rule"),
            (_, Some(block)) => block.fields.push(Field { line: at, name, text: text.to_owned() }),
        }
    }
    Ok(blocks)
}

impl Block {
    fn error(&self, line: usize, what: impl Into<String>) -> ParseError {
        ParseError { file: self.file.into(), line, what: what.into() }
    }

    fn rule(&self, numbers: &Numbers) -> Result<Rule, ParseError> {
        let known = ["call", "filter", "action", "comment", "what", "why", "instead"];
        for field in &self.fields {
            if !known.contains(&field.name) {
                return Err(self.error(field.line, format!("there is no field {}", field.name)));
            }
        }
        if !self.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-') {
            return Err(self.error(self.line, "an id is lower case, with dots and hyphens"));
        }
        let patterns = self.patterns(numbers)?;
        let comment = self.text("comment")?;
        if comment.len() < LEAST_COMMENT {
            return Err(
                self.error(self.line, "the comment says neither who needs it nor what it would allow")
            );
        }
        Ok(Rule {
            id: self.id.into(),
            place: self.place()?,
            action: self.action()?,
            patterns,
            comment,
            what: self.text("what")?,
            why: self.text("why")?,
            instead: self.text("instead")?,
        })
    }

    fn one(&self, name: &str) -> Result<&Field, ParseError> {
        let mut found = self.fields.iter().filter(|field| field.name == name);
        match (found.next(), found.next()) {
            (Some(field), None) => Ok(field),
            (None, _) => Err(self.error(self.line, format!("rule {} has no {name}", self.id))),
            (Some(_), Some(second)) => Err(self.error(second.line, format!("a second {name}"))),
        }
    }

    fn text(&self, name: &str) -> Result<String, ParseError> {
        self.one(name).map(|field| field.text.clone())
    }

    fn place(&self) -> Result<Place, ParseError> {
        let field = self.one("filter")?;
        match field.text.as_str() {
            "zygote" => Ok(Place::Zygote),
            "payload" => Ok(Place::Payload),
            "payload-full" => Ok(Place::PayloadFull),
            "payload-bare" => Ok(Place::PayloadBare),
            other => Err(self.error(field.line, format!("there is no filter {other}"))),
        }
    }

    fn action(&self) -> Result<Action, ParseError> {
        let field = self.one("action")?;
        let words: Vec<&str> = field.text.split_whitespace().collect();
        let errno = |word| {
            names::errno(word).ok_or_else(|| self.error(field.line, format!("{word} is no errno for a rule")))
        };
        match words.as_slice() {
            ["allow"] => Ok(Action::Allow),
            ["kill"] => Ok(Action::Kill),
            ["errno", name] => errno(name).map(Action::Errno),
            ["notify", name] => errno(name).map(Action::Notify),
            _ => Err(self.error(field.line, "an action is allow, kill, errno NAME or notify NAME")),
        }
    }

    fn argument(&self, line: usize, word: &str) -> Result<u8, ParseError> {
        word.strip_prefix("arg")
            .and_then(|number| number.parse::<u8>().ok())
            .filter(|number| usize::from(*number) < ARGUMENTS)
            .ok_or_else(|| self.error(line, format!("{word} is no argument (arg0 to arg5)")))
    }

    fn patterns(&self, numbers: &Numbers) -> Result<Vec<Pattern>, ParseError> {
        let lines: Vec<&Field> = self.fields.iter().filter(|field| field.name == "call").collect();
        if lines.is_empty() {
            return Err(self.error(self.line, format!("rule {} has no call", self.id)));
        }
        lines.into_iter().map(|field| self.pattern(field, numbers)).collect()
    }

    fn pattern(&self, field: &Field, numbers: &Numbers) -> Result<Pattern, ParseError> {
        let (calls, conditions) = field.text.split_once(" if ").unwrap_or((&field.text, ""));
        let (calls, shown) = calls.split_once(" show ").unwrap_or((calls, ""));
        let words: Vec<&str> = calls.split_whitespace().collect();
        let selectors = match words.as_slice() {
            ["foreign-architecture"] => vec![Selector::Foreign],
            ["x32"] => vec![Selector::X32],
            ["newer-than", last] => match last.parse() {
                Ok(last) => vec![Selector::Newer(last)],
                Err(_) => return Err(self.error(field.line, format!("{last} is not a number"))),
            },
            words => {
                let mut selectors = Vec::new();
                for word in words {
                    match numbers.get(word) {
                        Some(Some(number)) => selectors.push(Selector::Number(*number)),
                        // This architecture has no such call.
                        Some(None) => {}
                        None => return Err(self.error(field.line, format!("{word} has no number"))),
                    }
                }
                selectors
            }
        };
        let conditions: Vec<Condition> = if conditions.is_empty() {
            Vec::new()
        } else {
            conditions
                .split(" and ")
                .map(|condition| self.condition(field.line, condition))
                .collect::<Result<_, _>>()?
        };
        if !conditions.is_empty() && selectors.iter().any(|one| !matches!(one, Selector::Number(_))) {
            return Err(self.error(field.line, "only numbered calls have arguments"));
        }
        let compared = conditions.iter().map(|condition| Ok(condition.argument));
        let shown = shown.split_whitespace().map(|word| self.argument(field.line, word));
        let shown = compared.chain(shown).collect::<Result<BTreeSet<u8>, ParseError>>()?;
        Ok(Pattern { selectors, conditions, shown })
    }

    fn condition(&self, line: usize, text: &str) -> Result<Condition, ParseError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (argument, mask, negated, values) = match words.as_slice() {
            [argument, "has", bits] => {
                let mask = self.bits(line, bits)?;
                return Ok(Condition {
                    argument: self.argument(line, argument)?,
                    mask,
                    values: vec![Value::Fixed(0)],
                    negated: true,
                });
            }
            [argument, "&", mask, operator @ ("in" | "not-in"), values @ ..] => {
                (argument, self.bits(line, mask)?, *operator == "not-in", values)
            }
            [argument, operator @ ("in" | "not-in"), values @ ..] => {
                (argument, u32::MAX, *operator == "not-in", values)
            }
            _ => return Err(self.error(line, format!("{text} is no condition"))),
        };
        if values.is_empty() {
            return Err(self.error(line, "a condition without values"));
        }
        let values = values
            .iter()
            .map(|word| match *word {
                "@above" => Ok(Value::Above),
                "@above-groups" => Ok(Value::AboveGroups),
                word => {
                    let value = self.bits(line, word)?;
                    if value & !mask == 0 {
                        Ok(Value::Fixed(value))
                    } else {
                        Err(self.error(line, format!("{word} has bits the mask removes: it never matches")))
                    }
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Condition { argument: self.argument(line, argument)?, mask, values, negated })
    }

    /// Constants joined by `+`.
    fn bits(&self, line: usize, word: &str) -> Result<u32, ParseError> {
        word.split('+').try_fold(0, |all, name| {
            let value = names::constant(name)
                .ok_or_else(|| self.error(line, format!("{name} is no constant that is known here")))?;
            Ok(all | value)
        })
    }
}
