//! Expands words as bash would, as far as the values are known: braces, `~`, parameters, substitutions whose output is
//! known, splitting, patterns.

use super::pattern::Pattern;
use super::tree::{Operation, Part, Word};
use super::value::{ANY, HOME, OPEN, STAR, WORK, is_known, is_pattern, is_unknown};
use super::walk::Walker;

/// Words one word may become by its braces.
const MAX_BRACES: usize = 256;
/// Longest value that is followed, in characters. Longer ones are unknown.
pub(super) const MAX_VALUE: usize = 64 * 1024;

/// How a character came to be where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Written without quotes.
    Plain,
    /// Quoted: means itself.
    Quoted,
    /// From a value, unquoted: is split and may be a pattern.
    Expanded,
    /// Between positional parameters: always splits.
    Between,
}

type Letters = Vec<(char, Kind)>;

impl Walker<'_> {
    /// All fields a list of words becomes.
    pub(super) fn all_fields(&mut self, words: &[Word]) -> Vec<String> {
        words.iter().flat_map(|word| self.fields(word)).collect()
    }

    /// The fields a word becomes, none included.
    pub(super) fn fields(&mut self, word: &Word) -> Vec<String> {
        // Most words are one plain text.
        if let [Part::Text { text, quoted: false }] = word.as_slice()
            && !text.contains(['*', '?', '[', '{', '~'])
        {
            return vec![text.clone()];
        }
        let letters = self.letters(word);
        let forced = word.iter().any(|part| matches!(part, Part::Text { quoted: true, .. }));
        let mut fields = Vec::new();
        for letters in braces(letters) {
            split(&tilde(letters), forced, &mut fields);
        }
        fields
    }

    /// The one value of a word, as in an assignment or after a redirection.
    pub(super) fn single(&mut self, word: &Word) -> String {
        let letters = tilde(self.letters(word));
        letters.into_iter().map(|(letter, _)| letter).collect()
    }

    /// As [`Walker::single`], with patterns marked.
    pub(super) fn target(&mut self, word: &Word) -> String {
        let mut fields = Vec::new();
        let letters = tilde(self.letters(word));
        split(
            &letters.into_iter().map(|(l, k)| (l, if l == ' ' { Kind::Quoted } else { k })).collect(),
            true,
            &mut fields,
        );
        fields.into_iter().next().unwrap_or_default()
    }

    fn letters(&mut self, word: &Word) -> Letters {
        let mut all = Letters::new();
        for part in word {
            match part {
                Part::Text { text, quoted } => {
                    let kind = if *quoted { Kind::Quoted } else { Kind::Plain };
                    all.extend(text.chars().map(|letter| (letter, kind)));
                }
                Part::Variable { name, operation: Operation::Plain, quoted }
                    if matches!(name.as_str(), "@" | "*") =>
                {
                    self.positional_letters(*quoted, &mut all);
                }
                Part::Variable { name, operation: Operation::Plain, quoted } if name.ends_with("[@]") => {
                    let name = name.trim_end_matches("[@]");
                    match self.state.arrays.get(name).cloned() {
                        Some(values) => several(&values, *quoted, &mut all),
                        None => {
                            let unknown = self.unknown(&format!("${{{name}[@]}}"));
                            all.extend(unknown.chars().map(|letter| (letter, Kind::Quoted)));
                        }
                    }
                }
                Part::Variable { name, operation, quoted } => {
                    let value = self.parameter(name, operation);
                    let kind = if *quoted { Kind::Quoted } else { Kind::Expanded };
                    all.extend(value.chars().map(|letter| (letter, kind)));
                }
                Part::Substitution { script, quoted } => {
                    let value = self.substitution(script);
                    let kind = if *quoted { Kind::Quoted } else { Kind::Expanded };
                    all.extend(value.chars().map(|letter| (letter, kind)));
                }
                Part::Arithmetic { text } => {
                    let text = self.single(text);
                    let value = match calculate(&text, self) {
                        Some(number) => number.to_string(),
                        None => self.unknown("$((…))"),
                    };
                    all.extend(value.chars().map(|letter| (letter, Kind::Quoted)));
                }
                Part::Process { script } => {
                    let value = self.process_substitution(script);
                    all.extend(value.chars().map(|letter| (letter, Kind::Quoted)));
                }
            }
            if all.len() > MAX_VALUE {
                let unknown = self.unknown("$…");
                return unknown.chars().map(|letter| (letter, Kind::Quoted)).collect();
            }
        }
        all
    }

    fn positional_letters(&mut self, quoted: bool, all: &mut Letters) {
        match self.state.positional.clone() {
            None => {
                let unknown = self.unknown("$@");
                all.extend(unknown.chars().map(|letter| (letter, Kind::Quoted)));
            }
            Some(values) => several(&values, quoted, all),
        }
    }

    fn parameter(&mut self, name: &str, operation: &Operation) -> String {
        let value = self.state.get(name);
        let unknown = |walker: &mut Self| {
            let shown = match operation {
                Operation::Plain => format!("${name}"),
                Operation::Default(_)
                | Operation::Alternative(_)
                | Operation::Substring(_)
                | Operation::Remove { .. }
                | Operation::Replace { .. }
                | Operation::Case { .. }
                | Operation::Other(_) => format!("${{{name}…}}"),
            };
            walker.unknown(&shown)
        };
        match operation {
            Operation::Plain => value.unwrap_or_else(|| unknown(self)),
            Operation::Default(word) => match value {
                Some(value) if !value.is_empty() => value,
                // Nothing here set it, and a call's environment is small: what is given instead is what it will be.
                Some(_) | None => {
                    let value = self.single(word);
                    if !name.is_empty() {
                        self.state.variables.entry(name.to_owned()).or_insert_with(|| value.clone());
                    }
                    value
                }
            },
            Operation::Alternative(word) => {
                let other = self.single(word);
                match value {
                    Some(value) if value.is_empty() => String::new(),
                    Some(_) => other,
                    None => unknown(self),
                }
            }
            Operation::Substring(word) => {
                let range = self.single(word);
                let from_root = matches!(name, "PATH" | "SHELL" | "BASH" | "OLDPWD")
                    || value.as_deref().is_some_and(|v| v.starts_with([HOME, WORK]));
                match (value, range.trim()) {
                    (_, "0:1" | ":1" | ": 1") if from_root => "/".to_owned(),
                    (Some(value), range) if is_known(&value) && !value.starts_with([HOME, WORK]) => {
                        substring(&value, range).unwrap_or_else(|| unknown(self))
                    }
                    _ => unknown(self),
                }
            }
            Operation::Remove { suffix, greedy, pattern } => {
                let pattern = self.single(pattern);
                let from_root =
                    name == "PATH" || value.as_deref().is_some_and(|v| v.starts_with([HOME, WORK]));
                match value {
                    _ if from_root && *suffix && *greedy && matches!(pattern.as_str(), "[!/]*" | "[^/]*") => {
                        "/".to_owned()
                    }
                    Some(value) if value.starts_with([HOME, WORK]) && *suffix && pattern == "/*" => {
                        format!("{value}/..")
                    }
                    Some(value) if is_known(&value) && value.chars().count() <= 512 => {
                        remove(&value, &Pattern::of_rule(&pattern), *suffix, *greedy)
                    }
                    _ => unknown(self),
                }
            }
            Operation::Replace { all, pattern, with } => {
                let (pattern, with) = (self.single(pattern), self.single(with));
                match value {
                    Some(value)
                        if is_known(&value)
                            && !pattern.contains(['*', '?', '[', '#', '%'])
                            && !pattern.is_empty() =>
                    {
                        if *all {
                            value.replace(&pattern, &with)
                        } else {
                            value.replacen(&pattern, &with, 1)
                        }
                    }
                    _ => unknown(self),
                }
            }
            Operation::Case { upper, all } => match value {
                Some(value) => {
                    let change = |letter: char| {
                        if is_pattern(letter) || is_unknown(letter) {
                            letter
                        } else if *upper {
                            letter.to_ascii_uppercase()
                        } else {
                            letter.to_ascii_lowercase()
                        }
                    };
                    value
                        .chars()
                        .enumerate()
                        .map(|(index, letter)| if *all || index == 0 { change(letter) } else { letter })
                        .collect()
                }
                None => unknown(self),
            },
            Operation::Other(word) => {
                // What stands inside runs all the same.
                let _ = self.single(word);
                unknown(self)
            }
        }
    }
}

/// Values side by side: fields of their own even in quotes.
fn several(values: &[String], quoted: bool, all: &mut Letters) {
    let kind = if quoted { Kind::Quoted } else { Kind::Expanded };
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            all.push((' ', Kind::Between));
        }
        all.extend(value.chars().map(|letter| (letter, kind)));
    }
}

fn substring(value: &str, range: &str) -> Option<String> {
    let (from, length) = match range.split_once(':') {
        Some((from, length)) => (from.trim(), Some(length.trim().parse::<usize>().ok()?)),
        None => (range.trim(), None),
    };
    let count = value.chars().count();
    let from = match from.strip_prefix('-') {
        Some(back) => count.checked_sub(back.parse().ok()?)?,
        None if from.is_empty() => 0,
        None => from.parse().ok()?,
    };
    Some(value.chars().skip(from).take(length.unwrap_or(count)).collect())
}

fn remove(value: &str, pattern: &Pattern, suffix: bool, greedy: bool) -> String {
    let letters: Vec<char> = value.chars().collect();
    let text = |range: &[char]| range.iter().collect::<String>();
    let cuts: Vec<usize> = (0..=letters.len()).collect();
    // For a suffix the longest begins first, for a prefix the longest ends last.
    let ordered: Box<dyn Iterator<Item = usize>> =
        if suffix == greedy { Box::new(cuts.into_iter()) } else { Box::new(cuts.into_iter().rev()) };
    for cut in ordered {
        let (before, after) = letters.split_at(cut);
        let (gone, kept) = if suffix { (after, before) } else { (before, after) };
        if pattern.fits(&text(gone)) {
            return text(kept);
        }
    }
    value.to_owned()
}

/// Puts the home directory where a `~` means it: at the beginning, and behind `name=`, also in an argument.
fn tilde(mut letters: Letters) -> Letters {
    let begin = match letters.iter().position(|letter| *letter == ('=', Kind::Plain)) {
        Some(equals) if is_name(letters.get(..equals).unwrap_or_default()) => equals + 1,
        Some(_) | None => 0,
    };
    // `x=a:~/b` and `--dir=~/b` are rare; the first is not followed, and the second bash does not expand.
    let begin = if letters.first() == Some(&('~', Kind::Plain)) { 0 } else { begin };
    if letters.get(begin) != Some(&('~', Kind::Plain)) {
        return letters;
    }
    let rest = letters.get(begin..).unwrap_or_default();
    let length = rest.iter().position(|(letter, _)| *letter == '/').unwrap_or(rest.len());
    let prefix = rest.get(..length).unwrap_or_default();
    let name: String = prefix.iter().skip(1).map(|(letter, _)| *letter).collect();
    let plain = prefix.iter().all(|(_, kind)| *kind == Kind::Plain);
    let mark = match name.as_str() {
        "" => HOME,
        "+" => WORK,
        name if name.chars().all(|l| l.is_ascii_alphanumeric() || matches!(l, '_' | '-')) && name != "-" => {
            HOME
        }
        _ => return letters,
    };
    if plain {
        letters.splice(begin..begin + length, [(mark, Kind::Quoted)]);
    }
    letters
}

/// Whether these letters, unquoted, are the name of a variable.
fn is_name(letters: &[(char, Kind)]) -> bool {
    letters.first().is_some_and(|(letter, _)| !letter.is_ascii_digit())
        && letters
            .iter()
            .all(|(letter, kind)| *kind == Kind::Plain && (*letter == '_' || letter.is_ascii_alphanumeric()))
}

fn braces(letters: Letters) -> Vec<Letters> {
    let mut done = Vec::new();
    let mut waiting = vec![letters];
    while let Some(letters) = waiting.pop() {
        if done.len().saturating_add(waiting.len()) > MAX_BRACES {
            done.push(letters);
            continue;
        }
        match brace(&letters) {
            Some(alternatives) => waiting.extend(alternatives.into_iter().rev()),
            None => done.push(letters),
        }
    }
    done
}

/// Expands the first brace expression, if there is one.
fn brace(letters: &Letters) -> Option<Vec<Letters>> {
    for (start, found) in letters.iter().enumerate() {
        if *found != ('{', Kind::Plain) {
            continue;
        }
        let mut open = 0_usize;
        let mut commas = Vec::new();
        let mut end = None;
        for (index, found) in letters.iter().enumerate().skip(start) {
            match found {
                ('{', Kind::Plain) => open += 1,
                ('}', Kind::Plain) => {
                    open -= 1;
                    if open == 0 {
                        end = Some(index);
                        break;
                    }
                }
                (',', Kind::Plain) if open == 1 => commas.push(index),
                _ => {}
            }
        }
        let Some(end) = end else { continue };
        let before = letters.get(..start)?;
        let after = letters.get(end + 1..)?;
        let joined = |middle: &[(char, Kind)]| [before, middle, after].concat();
        if commas.is_empty() {
            let inside: String = letters.get(start + 1..end)?.iter().map(|(letter, _)| *letter).collect();
            match sequence(&inside) {
                Some(values) => {
                    return Some(
                        values
                            .iter()
                            .map(|value| joined(&value.chars().map(|l| (l, Kind::Plain)).collect::<Vec<_>>()))
                            .collect(),
                    );
                }
                None => continue,
            }
        }
        let mut alternatives = Vec::new();
        let mut from = start + 1;
        for to in commas.into_iter().chain([end]) {
            alternatives.push(joined(letters.get(from..to)?));
            from = to + 1;
        }
        return Some(alternatives);
    }
    None
}

fn sequence(inside: &str) -> Option<Vec<String>> {
    let (from, rest) = inside.split_once("..")?;
    let (to, step) = rest.split_once("..").unwrap_or((rest, "1"));
    if let (Ok(from), Ok(to), Ok(step)) = (from.parse::<i64>(), to.parse::<i64>(), step.parse::<i64>()) {
        let step = step.unsigned_abs().max(1);
        let count = from.abs_diff(to) / step;
        let values = (0..=count.min(MAX_BRACES as u64)).map(|index| {
            let by = i64::try_from(index.saturating_mul(step)).unwrap_or(0);
            if from <= to { from.saturating_add(by) } else { from.saturating_sub(by) }.to_string()
        });
        return Some(values.collect());
    }
    let mut ends = from.chars().chain(to.chars());
    match (ends.next(), ends.next(), ends.next()) {
        (Some(from), Some(to), None) if from.is_ascii_alphabetic() && to.is_ascii_alphabetic() => {
            let values: Vec<String> = if from <= to {
                (from..=to).map(String::from).collect()
            } else {
                (to..=from).rev().map(String::from).collect()
            };
            Some(values)
        }
        _ => None,
    }
}

/// Splits at the blanks that came out of values and marks patterns.
fn split(letters: &Letters, forced: bool, fields: &mut Vec<String>) {
    let mut field = String::new();
    let mut there = forced;
    for (index, (letter, kind)) in letters.iter().enumerate() {
        match (letter, kind) {
            (_, Kind::Between) | (' ' | '\t' | '\n', Kind::Expanded) => {
                if !field.is_empty() || (there && *kind == Kind::Between) {
                    fields.push(std::mem::take(&mut field));
                }
                there = false;
            }
            ('*', Kind::Plain | Kind::Expanded) => field.push(STAR),
            ('?', Kind::Plain | Kind::Expanded) => field.push(ANY),
            ('[', Kind::Plain | Kind::Expanded) if letters.iter().skip(index + 2).any(|(l, _)| *l == ']') => {
                field.push(OPEN);
            }
            (letter, _) => field.push(*letter),
        }
    }
    if !field.is_empty() || there {
        fields.push(field);
    }
}

/// The value of an arithmetic expression of whole numbers, if it is constant.
fn calculate(text: &str, walker: &Walker<'_>) -> Option<i64> {
    let letters: Vec<char> = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    if letters.len() > 256 {
        return None;
    }
    let mut sum = Sum { letters: &letters, at: 0, walker, depth: 0 };
    let value = sum.sum()?;
    (sum.at == letters.len()).then_some(value)
}

struct Sum<'a> {
    letters: &'a [char],
    at: usize,
    walker: &'a Walker<'a>,
    depth: u8,
}

impl Sum<'_> {
    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn sum(&mut self) -> Option<i64> {
        self.depth = self.depth.checked_add(1).filter(|depth| *depth < 32)?;
        let mut value = self.product()?;
        while let Some(sign @ ('+' | '-')) = self.peek() {
            self.at += 1;
            let other = self.product()?;
            value = if sign == '+' { value.checked_add(other)? } else { value.checked_sub(other)? };
        }
        self.depth -= 1;
        Some(value)
    }

    fn product(&mut self) -> Option<i64> {
        let mut value = self.factor()?;
        while let Some(sign @ ('*' | '/' | '%')) = self.peek() {
            self.at += 1;
            let other = self.factor()?;
            value = match sign {
                '*' => value.checked_mul(other)?,
                '/' => value.checked_div(other)?,
                _ => value.checked_rem(other)?,
            };
        }
        Some(value)
    }

    fn factor(&mut self) -> Option<i64> {
        let mut negative = false;
        while self.peek() == Some('-') {
            negative = !negative;
            self.at += 1;
        }
        let value = if self.peek() == Some('(') {
            self.at += 1;
            let value = self.sum()?;
            if self.peek() != Some(')') {
                return None;
            }
            self.at += 1;
            value
        } else {
            let word: String = self
                .letters
                .iter()
                .skip(self.at)
                .take_while(|l| l.is_ascii_alphanumeric() || **l == '_')
                .collect();
            self.at += word.chars().count();
            match word.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16).ok()?,
                None if word.len() > 1 && word.starts_with('0') => i64::from_str_radix(&word, 8).ok()?,
                None => match word.parse() {
                    Ok(number) => number,
                    Err(_) => self.walker.state.get(&word)?.parse().ok()?,
                },
            }
        };
        if negative { value.checked_neg() } else { Some(value) }
    }
}
