//! One `.gitignore` file: gitignore(5) patterns as globs.
//!
//! The `ignore` crate does this too, but opens paths by name, starts threads and brings six crates. Not done: the
//! user's global excludes, `.git/info/exclude`, `.ignore` files. Patterns come from a hostile file: their number and
//! length are bounded, and one that is not a glob is skipped.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Bytes of a `.gitignore` that are read.
pub(super) const MAX_FILE: usize = 64 * 1024;
/// Patterns taken from one file. Each costs memory and time to compile.
const MAX_PATTERNS: usize = 500;
/// Longest pattern.
const MAX_PATTERN: usize = 512;

/// The compiled patterns of one file.
#[derive(Debug)]
pub(super) struct Gitignore {
    globs: GlobSet,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    ignored: bool,
    directories_only: bool,
}

impl Gitignore {
    /// Reads patterns; `None` when there are none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut builder = GlobSetBuilder::new();
        let mut rules = Vec::new();
        for line in String::from_utf8_lossy(bytes).lines() {
            if rules.len() >= MAX_PATTERNS {
                break;
            }
            let Some((pattern, rule)) = translate(line) else { continue };
            let glob = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build();
            if let Ok(glob) = glob {
                builder.add(glob);
                rules.push(rule);
            }
        }
        if rules.is_empty() {
            return None;
        }
        builder.build().ok().map(|globs| Self { globs, rules })
    }

    /// What the last matching pattern says of a path relative to the directory of the file: ignored, taken back
    /// (`!`), or nothing.
    pub(super) fn decides(&self, path: &Path, is_directory: bool) -> Option<bool> {
        self.globs
            .matches(path)
            .into_iter()
            .filter_map(|index| self.rules.get(index))
            .rfind(|rule| is_directory || !rule.directories_only)
            .map(|rule| rule.ignored)
    }
}

/// One line as a glob.
fn translate(line: &str) -> Option<(String, Rule)> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.starts_with('#') || line.len() > MAX_PATTERN {
        return None;
    }
    // Trailing blanks do not count, unless the last is escaped.
    let mut pattern = line.trim_end_matches(' ');
    if pattern.len() < line.len() && pattern.ends_with('\\') && !pattern.ends_with("\\\\") {
        pattern = line.get(..pattern.len().saturating_add(1)).unwrap_or(pattern);
    }
    let (ignored, pattern) = match pattern.strip_prefix('!') {
        Some(rest) => (false, rest),
        None => (true, pattern),
    };
    let (directories_only, pattern) = match pattern.strip_suffix('/') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    if pattern.is_empty() {
        return None;
    }
    let anchored = pattern.contains('/');
    let mut glob = String::from(if anchored { "" } else { "**/" });
    // Braces mean nothing to git.
    let mut escaped = false;
    let mut class = false;
    for c in pattern.strip_prefix('/').unwrap_or(pattern).chars() {
        if matches!(c, '{' | '}') && !escaped && !class {
            glob.push('\\');
        }
        class = !escaped && (c == '[' || class && c != ']');
        escaped = c == '\\' && !escaped;
        glob.push(c);
    }
    Some((glob, Rule { ignored, directories_only }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ignored(file: &str, path: &str) -> Option<bool> {
        let is_directory = path.ends_with('/');
        Gitignore::parse(file.as_bytes())?.decides(Path::new(path.trim_end_matches('/')), is_directory)
    }

    #[test]
    fn patterns_mean_what_gitignore_5_says() {
        for (file, path, expected) in [
            ("*.log", "a.log", Some(true)),
            ("*.log", "deep/er/a.log", Some(true)),
            ("*.log", "a.log.txt", None),
            ("/top", "top", Some(true)),
            ("/top", "sub/top", None),
            ("a/b", "a/b", Some(true)),
            ("a/b", "x/a/b", None),
            ("target/", "target/", Some(true)),
            ("target/", "target", None),
            ("target/", "sub/target/", Some(true)),
            ("*", "anything", Some(true)),
            ("*.log\n!keep.log", "keep.log", Some(false)),
            ("!keep.log\n*.log", "keep.log", Some(true)),
            ("# comment\n\n", "# comment", None),
            ("\\#file", "#file", Some(true)),
            ("\\!file", "!file", Some(true)),
            ("trail  ", "trail", Some(true)),
            ("trail\\ ", "trail ", Some(true)),
            ("a/**/z", "a/z", Some(true)),
            ("a/**/z", "a/b/c/z", Some(true)),
            ("**/foo", "x/foo", Some(true)),
            ("doc/*.txt", "doc/a.txt", Some(true)),
            ("doc/*.txt", "doc/sub/a.txt", None),
            ("{a,b}", "a", None),
            ("{a,b}", "{a,b}", Some(true)),
            ("[ab].c", "a.c", Some(true)),
            ("crlf\r\n", "crlf", Some(true)),
        ] {
            assert_eq!(ignored(file, path), expected, "{file:?} {path:?}");
        }
    }

    #[test]
    fn hostile_file_is_bounded() {
        let many: String = (0..100_000).map(|n| format!("a{n}*b\n")).collect();
        assert_eq!(Gitignore::parse(many.as_bytes()).unwrap().rules.len(), MAX_PATTERNS);
        assert!(Gitignore::parse("*".repeat(MAX_PATTERN + 1).as_bytes()).is_none());
        assert!(Gitignore::parse(b"[\n\\\n[!\n").is_none(), "what is no glob is skipped");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), path in "[a-z/\\[{*]{0,20}") {
            if let Some(file) = Gitignore::parse(&bytes) {
                let _ = file.decides(Path::new(&path), false);
            }
        }
    }
}
