//! Where in a JSON text each key and value begins, and which keys are there twice.
//!
//! serde_json forgets places and lets the last of two equal keys win in silence. This scanner runs only over text that
//! serde_json has accepted, so that depth is bounded and grammar needs no second judge; on anything else it stops early
//! and loses places, nothing worse.

use std::collections::BTreeMap;

use super::shape::join;

/// Line and column, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// The places of a text.
#[derive(Debug, Default)]
pub(crate) struct Places {
    keys: BTreeMap<String, Place>,
    values: BTreeMap<String, Place>,
    /// Paths of keys that are there a second time, and where.
    pub(crate) repeated: Vec<(String, Place)>,
}

impl Places {
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut scanner = Scanner { text, at: 0, line: 1, line_start: 0, places: Self::default() };
        scanner.value("");
        scanner.places
    }

    /// Place of the key, where it has one (list items have not), else of the value.
    pub(crate) fn key(&self, path: &str) -> Option<Place> {
        self.keys.get(path).copied().or_else(|| self.value(path))
    }

    pub(crate) fn value(&self, path: &str) -> Option<Place> {
        self.values.get(path).copied()
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    line_start: usize,
    places: Places,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_blank(&mut self) {
        while let Some(byte) = self.peek().filter(u8::is_ascii_whitespace) {
            self.at += 1;
            if byte == b'\n' {
                self.line += 1;
                self.line_start = self.at;
            }
        }
    }

    fn place(&self) -> Place {
        let before = self.text.get(self.line_start..self.at).unwrap_or_default();
        // Continuation bytes of UTF-8 are no characters of their own.
        let column = before.iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
        Place { line: self.line, column }
    }

    /// Reads one value; `None` when the text is not what it should be.
    fn value(&mut self, path: &str) -> Option<()> {
        self.skip_blank();
        self.places.values.insert(path.to_owned(), self.place());
        match self.peek()? {
            b'{' => self.object(path),
            b'[' => self.list(path),
            b'"' => self.string().map(|_| ()),
            _ => {
                while self.peek().is_some_and(|byte| !byte.is_ascii_whitespace() && !b",]}".contains(&byte)) {
                    self.at += 1;
                }
                Some(())
            }
        }
    }

    fn object(&mut self, path: &str) -> Option<()> {
        self.at += 1;
        loop {
            self.skip_blank();
            match self.peek()? {
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                b',' => self.at += 1,
                b'"' => {
                    let place = self.place();
                    let name = join(path, &self.string()?);
                    if self.places.keys.insert(name.clone(), place).is_some() {
                        self.places.repeated.push((name.clone(), place));
                    }
                    self.skip_blank();
                    if self.peek()? != b':' {
                        return None;
                    }
                    self.at += 1;
                    self.value(&name)?;
                }
                _ => return None,
            }
        }
    }

    fn list(&mut self, path: &str) -> Option<()> {
        self.at += 1;
        let mut index = 0_usize;
        loop {
            self.skip_blank();
            match self.peek()? {
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                b',' => self.at += 1,
                _ => {
                    self.value(&format!("{path}[{index}]"))?;
                    index += 1;
                }
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        serde_json::from_slice(self.text.get(start..self.at)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_line_and_column() {
        let text = "{\n  \"a\": {\"bä\": [1, \"x\\\"\",\n    true]},\n  \"c\" : null\n}";
        let places = Places::of(text.as_bytes());
        assert_eq!(places.key("a"), Some(Place { line: 2, column: 3 }));
        assert_eq!(places.value("a"), Some(Place { line: 2, column: 8 }));
        assert_eq!(places.value("a.bä"), Some(Place { line: 2, column: 15 }));
        assert_eq!(places.value("a.bä[1]"), Some(Place { line: 2, column: 19 }));
        assert_eq!(places.value("a.bä[2]"), Some(Place { line: 3, column: 5 }));
        assert_eq!(places.key("c"), Some(Place { line: 4, column: 3 }));
        assert_eq!(places.key("d"), None);
    }

    #[test]
    fn a_key_said_twice_is_found_also_when_escaped() {
        let places = Places::of(br#"{"a": {"b": 1, "\u0062": 2}, "b": 3}"#);
        assert_eq!(places.repeated, [("a.b".to_owned(), Place { line: 1, column: 16 })]);
    }

    #[test]
    fn text_that_is_no_json_ends_the_scan() {
        for text in ["", "{", "{\"a", "{\"a\" 1}", "[1, {]", "{\"a\":\"\\", "{x}"] {
            let _ = Places::of(text.as_bytes());
        }
    }
}
