//! `edit_file`: replaces text that is there exactly once.
//!
//! Works on bytes, so that a file with some invalid UTF-8 keeps it. There is no fuzzy matching: a near miss is shown to
//! the model, never applied. Files above [`MAX_FILE`] are left to bash.

use super::fault::Fault;
use super::read::{binary, read_at};
use super::text;
use super::workspace::{Workspace, size};
use super::write::{Target, find_target, replace};

/// Largest file that is edited. It is held in memory twice.
pub(super) const MAX_FILE: u64 = 8 * 1024 * 1024;
/// Largest file an edit may make, so that `replace_all` cannot multiply one past memory.
const MAX_RESULT: usize = 16 * 1024 * 1024;
/// Line numbers listed in a message.
const MAX_LINES: usize = 8;

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    /// What is there.
    pub old: &'a str,
    /// What is to be there.
    pub new: &'a str,
    /// Every occurrence.
    pub all: bool,
}

/// `edit_file`. Returns text for the model.
pub(super) fn edit(workspace: &Workspace, path: &str, change: Change<'_>) -> Result<String, Fault> {
    if change.old.is_empty() {
        return Err(Fault::Failed("old_text is empty: give the text to replace, or use write_file".into()));
    }
    if change.old == change.new {
        return Err(Fault::Failed("old_text and new_text are the same: there is nothing to change".into()));
    }
    // Resolved for reading first: a path that does not exist must not leave new directories behind.
    drop(workspace.open_file(&workspace.locate(path)?, "edit")?);
    let target = find_target(workspace, path)?;
    let content = load(&target)?;
    let (edited, lines) =
        apply(&content, change).map_err(|why| Fault::failed("edit", target.shown(), &why))?;
    if !target.is_unchanged() {
        return Err(target.changed());
    }
    let notes = replace(&target, &edited)?;
    let times = if lines.len() == 1 { "1 occurrence".into() } else { format!("{} occurrences", lines.len()) };
    let mut text = format!("replaced {times} in {} at {}\n", target.shown(), show_lines(&lines));
    for note in notes {
        text.push_str(&note);
        text.push('\n');
    }
    Ok(text)
}

fn load(target: &Target) -> Result<Vec<u8>, Fault> {
    let shown = target.shown();
    let Some(existing) = target.existing() else {
        return Err(Fault::errno("edit", shown, nix::errno::Errno::ENOENT));
    };
    let too_large = || {
        Fault::failed(
            "edit",
            shown,
            &format!("it has more than {MAX_FILE} bytes; use sed or a script with bash"),
        )
    };
    if size(existing) > MAX_FILE {
        return Err(too_large());
    }
    let file = target.open()?;
    let most = usize::try_from(size(existing)).unwrap_or(usize::MAX).saturating_add(1);
    let content = read_at(&file, 0, most).map_err(|error| Fault::io("edit", shown, &error))?;
    if content.len() as u64 > MAX_FILE {
        return Err(too_large());
    }
    if let Some(what) = binary(content.get(..content.len().min(8192)).unwrap_or_default()) {
        return Err(Fault::failed("edit", shown, &format!("it is not text: {what}")));
    }
    Ok(content)
}

/// The edited content, and the line of each replacement.
fn apply(content: &[u8], change: Change<'_>) -> Result<(Vec<u8>, Vec<usize>), String> {
    let windows = content.windows(2).any(|pair| pair == b"\r\n");
    // read_file shows CRLF as a plain line end, so that is what comes back.
    let (old, new) = if windows && !change.old.contains('\r') {
        let to_windows = |text: &str| text.replace("\r\n", "\n").replace('\n', "\r\n");
        let old = to_windows(change.old);
        let only = !content.split(|b| *b == b'\n').rev().skip(1).any(|line| !line.ends_with(b"\r"));
        if memchr::memmem::find(content, old.as_bytes()).is_some() && (only || change.old.contains('\n')) {
            (old, to_windows(change.new))
        } else {
            (change.old.to_owned(), change.new.to_owned())
        }
    } else {
        (change.old.to_owned(), change.new.to_owned())
    };
    let found: Vec<usize> = memchr::memmem::find_iter(content, old.as_bytes()).collect();
    match found.len() {
        0 => return Err(no_match(content, change.old)),
        1 => {}
        count if !change.all => {
            return Err(format!(
                "old_text is there {count} times, at {}; give more lines around the one you mean, or set replace_all",
                show_lines(&lines_of(content, &found))
            ));
        }
        _ => {}
    }
    let grown = found.len().saturating_mul(new.len()).saturating_add(content.len());
    if grown.saturating_sub(found.len().saturating_mul(old.len())) > MAX_RESULT {
        return Err(format!("the file would grow beyond {MAX_RESULT} bytes"));
    }
    let mut edited = Vec::with_capacity(content.len().saturating_add(new.len()));
    let mut kept = 0_usize;
    for start in &found {
        edited.extend_from_slice(content.get(kept..*start).unwrap_or_default());
        edited.extend_from_slice(new.as_bytes());
        kept = start.saturating_add(old.len());
    }
    edited.extend_from_slice(content.get(kept..).unwrap_or_default());
    Ok((edited, lines_of(content, &found)))
}

/// Line numbers, from 1, of ascending positions.
fn lines_of(content: &[u8], positions: &[usize]) -> Vec<usize> {
    let mut line = 1_usize;
    let mut from = 0_usize;
    positions
        .iter()
        .map(|at| {
            let between = content.get(from..*at).unwrap_or_default();
            line = line.saturating_add(memchr::memchr_iter(b'\n', between).count());
            from = *at;
            line
        })
        .collect()
}

fn show_lines(lines: &[usize]) -> String {
    let mut shown: Vec<String> = lines.iter().take(MAX_LINES).map(usize::to_string).collect();
    if lines.len() > MAX_LINES {
        shown.push("...".into());
    }
    format!("line{} {}", if lines.len() == 1 { "" } else { "s" }, shown.join(", "))
}

/// Why nothing matched, as far as one look at the file tells.
fn no_match(content: &[u8], old: &str) -> String {
    let mut why = String::from("old_text is not there");
    let Some(first) = old.lines().find(|line| !line.trim().is_empty()) else {
        return why + "; it must match exactly";
    };
    let bare = first.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = bare.len() < first.trim_start().len() && bare.starts_with('\t');
    let same = |line: &[u8]| line.trim_ascii() == first.trim().as_bytes();
    if let Some(at) = content.split(|byte| *byte == b'\n').position(same) {
        why.push_str("; its first line is at line ");
        why.push_str(&at.saturating_add(1).to_string());
        why.push_str(", so indentation or a later line differs");
    } else if numbered {
        why.push_str("; leave out the line numbers that read_file put in front");
    } else {
        let mut shown = String::new();
        text::push_safe(&mut shown, first.trim().as_bytes(), 80);
        why.push_str("; no line reads `");
        why.push_str(&shown);
        why.push('`');
    }
    why + "; read the file again and copy the text exactly"
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn once<'a>(old: &'a str, new: &'a str) -> Change<'a> {
        Change { old, new, all: false }
    }

    fn edited(content: &str, change: Change<'_>) -> Result<String, String> {
        apply(content.as_bytes(), change).map(|(bytes, _)| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn only_match_is_replaced() {
        assert_eq!(edited("a\nb\nc\n", once("b\n", "B\nb\n")).unwrap(), "a\nB\nb\nc\n");
        assert_eq!(edited("abc", once("b", "")).unwrap(), "ac");
    }

    #[test]
    fn ambiguous_match_is_refused_and_counted() {
        let why = edited("x\ny\nx\n", once("x", "z")).unwrap_err();
        assert!(
            why.contains("2 times") && why.contains("lines 1, 3") && why.contains("replace_all"),
            "{why}"
        );
        assert_eq!(edited("x\ny\nx\n", Change { old: "x", new: "z", all: true }).unwrap(), "z\ny\nz\n");
    }

    #[test]
    fn no_match_says_why() {
        let why = |content: &str, old| edited(content, once(old, "new")).unwrap_err();
        assert!(why("    indented\n", "\tindented").contains("line 1, so indentation"));
        assert!(why("text\n", "     1\tother").contains("line numbers"));
        assert!(why("text\n", "other\u{1b}[2J").contains("no line reads `other\\x1b[2J`"));
        assert!(why("text", "\n\n\n").contains("exactly"));
    }

    #[test]
    fn crlf_file_keeps_its_line_ends() {
        assert_eq!(edited("a\r\nb\r\nc\r\n", once("a\nb", "1\n2\n3")).unwrap(), "1\r\n2\r\n3\r\nc\r\n");
        assert_eq!(edited("a\r\nb\r\n", once("b", "1\n2")).unwrap(), "a\r\n1\r\n2\r\n");
        assert_eq!(edited("a\nb\r\nc\n", once("a\nb", "1\n2")).unwrap(), "1\n2\r\nc\n", "mixed: as it is");
        assert_eq!(edited("a\r\nb\r\n", once("a\r\nb", "x\ny")).unwrap(), "x\ny\r\n", "explicit: as it is");
    }

    #[test]
    fn invalid_utf8_elsewhere_is_kept() {
        let (bytes, lines) = apply(b"\xff\nold\n\xfe", once("old", "new")).unwrap();
        assert_eq!((bytes.as_slice(), lines.as_slice()), (b"\xff\nnew\n\xfe".as_slice(), [2].as_slice()));
    }

    #[test]
    fn growth_is_bounded() {
        let content = "x".repeat(1 << 20);
        let new = "y".repeat(1 << 10);
        assert!(edited(&content, Change { old: "x", new: &new, all: true }).unwrap_err().contains("grow"));
    }

    #[test]
    fn file_is_edited_in_place_of_itself() {
        let dir = tempfile::tempdir().unwrap();
        let workspace =
            Workspace::new(File::open(dir.path()).unwrap().into(), dir.path().to_path_buf(), Vec::new());
        std::fs::write(dir.path().join("f"), "one\ntwo\n").unwrap();
        let text = edit(&workspace, "f", once("two", "2")).unwrap();
        assert_eq!(text, "replaced 1 occurrence in f at line 2\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("f")).unwrap(), "one\n2\n");
        assert!(edit(&workspace, "none/f", once("a", "b")).is_err());
        assert!(!dir.path().join("none").exists(), "a failed edit makes no directory");
        assert!(edit(&workspace, "f", once("", "b")).is_err());
        assert!(edit(&workspace, "f", once("one", "one")).is_err());
        File::create(dir.path().join("big")).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(
            matches!(edit(&workspace, "big", once("a", "b")), Err(Fault::Failed(text)) if text.contains("bash"))
        );
    }
}
