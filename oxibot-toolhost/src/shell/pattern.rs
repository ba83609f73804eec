//! Patterns as the shell has them, of two kinds: those in rules, written with `*` and `?`, and those in commands, where
//! only the unquoted ones mean something.

use super::value::{ANY, OPEN, STAR, is_unknown};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Any,
    Star,
    Set { negated: bool, ranges: Vec<(char, char)> },
    Letter(char),
}

/// A pattern ready to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    /// From a rule: `*`, `?` and `[…]` mean something, `\` takes that away.
    pub(super) fn of_rule(text: &str) -> Self {
        Self::parse(text, '*', '?', '[')
    }

    /// From a command: only marks mean something. Unknown parts may be anything.
    pub(super) fn of_value(value: &str) -> Self {
        Self::parse(value, STAR, ANY, OPEN)
    }

    fn parse(text: &str, star: char, any: char, open: char) -> Self {
        let letters: Vec<char> = text.chars().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(letter) = letters.get(at).copied() {
            at += 1;
            if letter == star || is_unknown(letter) {
                if tokens.last() != Some(&Token::Star) {
                    tokens.push(Token::Star);
                }
            } else if letter == any {
                tokens.push(Token::Any);
            } else if letter == '\\' && star == '*' {
                tokens.push(Token::Letter(letters.get(at).copied().unwrap_or('\\')));
                at += 1;
            } else if letter == open {
                match set(letters.get(at..).unwrap_or_default()) {
                    Some((token, used)) => {
                        tokens.push(token);
                        at += used;
                    }
                    None => tokens.push(Token::Letter('[')),
                }
            } else {
                tokens.push(Token::Letter(letter));
            }
        }
        Self(tokens)
    }

    /// Whether the whole text fits. Linear in pattern times text.
    pub(super) fn fits(&self, text: &str) -> bool {
        let letters: Vec<char> = text.chars().collect();
        let (mut token, mut letter) = (0, 0);
        // Where the last `*` was, and what it has taken.
        let mut back: Option<(usize, usize)> = None;
        loop {
            let here = letters.get(letter).copied();
            let matched = match (self.0.get(token), here) {
                (None, None) => return true,
                (Some(Token::Star), _) => {
                    back = Some((token, letter));
                    token += 1;
                    continue;
                }
                (Some(Token::Any), Some(_)) => true,
                (Some(Token::Letter(wanted)), Some(found)) => *wanted == found,
                (Some(Token::Set { negated, ranges }), Some(found)) => {
                    ranges.iter().any(|(from, to)| *from <= found && found <= *to) != *negated
                }
                (None, Some(_)) | (Some(_), None) => false,
            };
            if matched {
                token += 1;
                letter += 1;
            } else if let Some((star, taken)) = back
                && taken < letters.len()
            {
                token = star + 1;
                letter = taken + 1;
                back = Some((star, letter));
            } else {
                return false;
            }
        }
    }

    /// Whether it takes everything, or everything but hidden names: `*`, `.*`, `*.*`, `.[!.]*`.
    pub(super) fn takes_all(&self) -> bool {
        self.0.contains(&Token::Star)
            && self.0.iter().all(|token| match token {
                Token::Star | Token::Any | Token::Letter('.') => true,
                Token::Set { negated, .. } => *negated,
                Token::Letter(_) => false,
            })
    }
}

fn set(letters: &[char]) -> Option<(Token, usize)> {
    let mut at = 0;
    let negated = matches!(letters.first(), Some('!' | '^'));
    if negated {
        at += 1;
    }
    let mut ranges = Vec::new();
    let mut first = true;
    loop {
        let letter = *letters.get(at)?;
        at += 1;
        if letter == ']' && !first {
            return Some((Token::Set { negated, ranges }, at));
        }
        first = false;
        if letters.get(at) == Some(&'-') && letters.get(at + 1).is_some_and(|end| *end != ']') {
            ranges.push((letter, *letters.get(at + 1)?));
            at += 2;
        } else {
            ranges.push((letter, letter));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_patterns_fit_as_in_the_shell() {
        for (pattern, text, fits) in [
            ("mkfs*", "mkfs.ext4", true),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("?", "é", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("[", "[", true),
        ] {
            assert_eq!(Pattern::of_rule(pattern).fits(text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn only_marks_of_a_command_are_a_pattern() {
        assert!(!Pattern::of_value("e*").fits("etc"));
        assert!(Pattern::of_value(&format!("e{STAR}")).fits("etc"));
        assert!(Pattern::of_value(&format!(".{OPEN}!.]{STAR}")).takes_all());
        assert!(!Pattern::of_value(&format!("{STAR}.o")).takes_all());
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = Pattern::of_rule(&"a*".repeat(2000));
        assert!(!pattern.fits(&format!("{}b", "a".repeat(1000))));
    }
}
