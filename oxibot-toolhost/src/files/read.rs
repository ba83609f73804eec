//! `read_file`: a page of lines of a text file, whatever its size, in bounded memory.
//!
//! The file is never loaded whole. Lines before the page are counted in blocks, the page itself comes from one window.
//! Nothing is decoded but UTF-8; other encodings and binary files are named.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use oxibot_proto::message::MAX_OUTPUT;

use super::fault::Fault;
use super::text;
use super::workspace::{Workspace, size};
use crate::wire::FilesResult;

/// Bytes looked at to tell text from binary.
const SNIFF: usize = 8 * 1024;
/// Bytes of the file a page is made from. A page of [`MAX_OUTPUT`] shows at most about twice as many source bytes
/// (a CRLF becomes one), so it always fits.
const WINDOW: usize = 4 * MAX_OUTPUT;
/// Bytes read at once while counting lines.
const BLOCK: usize = 64 * 1024;
/// Bytes of a file that are searched for a line. A sparse file of a terabyte would otherwise keep the worker busy.
const MAX_SCAN: u64 = 256 << 20;
/// Time for the same.
const MAX_SCAN_TIME: Duration = Duration::from_secs(10);
/// Room for the closing lines of a page.
const FOOTER: usize = 40;
/// Room for the closing lines when a line was cut: they repeat the path.
const LONG_FOOTER: usize = 1200;

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// First line, from 1.
    pub offset: u64,
    /// Most lines.
    pub limit: Option<u64>,
    /// Line numbers in front.
    pub numbers: bool,
}

/// Reads one page.
pub(super) fn read(workspace: &Workspace, path: &str, wanted: Wanted) -> Result<FilesResult, Fault> {
    let at = workspace.locate(path)?;
    let (file, stat) = workspace.open_file(&at, "read")?;
    let shown = at.shown();
    let failed = |error: std::io::Error| Fault::io("read", &shown, &error);
    let head = read_at(&file, 0, SNIFF).map_err(failed)?;
    if let Some(what) = binary(&head) {
        let text = format!("{shown} is not text: {what}, {} bytes; not shown\n", size(&stat));
        return Ok(FilesResult::Text { total_bytes: text.len() as u64, text });
    }
    let offset = wanted.offset.max(1);
    let start = match line_start(&file, offset).map_err(failed)? {
        Position::At(start) => start,
        Position::PastEnd { lines } if lines == 0 && offset == 1 => {
            return Ok(FilesResult::Text { text: String::new(), total_bytes: 0 });
        }
        Position::PastEnd { lines } => {
            return Err(Fault::failed(
                "read",
                &shown,
                &format!("offset {offset} is past its end at line {lines}"),
            ));
        }
        Position::TooFar => {
            let cause = format!("line {offset} is too far into a file of {} bytes; use bash", size(&stat));
            return Err(Fault::failed("read", &shown, &cause));
        }
    };
    let window = read_at(&file, start, WINDOW).map_err(failed)?;
    let wanted = Wanted { offset, ..wanted };
    let mut page = fill(&window, wanted, MAX_OUTPUT);
    if page.next.is_some() && page.text.len() > MAX_OUTPUT.saturating_sub(FOOTER) || page.cut {
        page = fill(&window, wanted, MAX_OUTPUT.saturating_sub(FOOTER));
    }
    if page.lines == 0 {
        return long_line(&file, &window, start, wanted, &shown, size(&stat)).map_err(failed);
    }
    let mut text = page.text;
    let mut total_bytes = text.len() as u64;
    if let Some(next) = page.next {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let _ = write!(text, "next offset: {next}");
        total_bytes = text.len() as u64;
        if page.cut {
            total_bytes = size(&stat).max(total_bytes.saturating_add(1));
        }
    }
    Ok(FilesResult::Text { text, total_bytes })
}

struct Filled {
    text: String,
    lines: u64,
    /// The line to go on with, if there is one.
    next: Option<u64>,
    /// It ended for want of room, not because of the limit.
    cut: bool,
}

/// As many whole lines of the window as fit into `room` bytes.
fn fill(window: &[u8], wanted: Wanted, room: usize) -> Filled {
    let mut filled = Filled { text: String::new(), lines: 0, next: None, cut: false };
    let mut rest = window;
    while !rest.is_empty() {
        let number = wanted.offset.saturating_add(filled.lines);
        if wanted.limit.is_some_and(|limit| filled.lines >= limit) {
            filled.next = Some(number);
            break;
        }
        let (line, ended, after) = split_line(rest);
        let before = filled.text.len();
        if wanted.numbers {
            let _ = write!(filled.text, "{number:>6}\t");
        }
        let free = room.saturating_sub(filled.text.len());
        let used = text::push_safe(&mut filled.text, line, free);
        // A window that ends inside a line is followed by more of it: WINDOW exceeds what fits, so it is cut here.
        let inside = !ended && window.len() >= WINDOW;
        if used < line.len() || filled.text.len().saturating_add(usize::from(ended)) > room || inside {
            filled.text.truncate(before);
            filled.next = Some(number);
            filled.cut = true;
            break;
        }
        if ended {
            filled.text.push('\n');
        }
        filled.lines = filled.lines.saturating_add(1);
        rest = after;
    }
    filled
}

/// The first line without its ending, whether it has one, and what follows it.
fn split_line(bytes: &[u8]) -> (&[u8], bool, &[u8]) {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return (bytes, false, &[]);
    };
    let (line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    (line.strip_suffix(b"\r").unwrap_or(line), true, rest.get(1..).unwrap_or_default())
}

/// The first line of the page does not fit: its beginning, and how to read the rest of it.
fn long_line(
    file: &File,
    window: &[u8],
    start: u64,
    wanted: Wanted,
    shown: &str,
    file_size: u64,
) -> std::io::Result<FilesResult> {
    let (line, _, _) = split_line(window);
    let mut text = String::new();
    if wanted.numbers {
        let _ = write!(text, "{:>6}\t", wanted.offset);
    }
    let room = MAX_OUTPUT.saturating_sub(LONG_FOOTER).saturating_sub(text.len());
    let used = text::push_safe(&mut text, line, room) as u64;
    let (length, next) = match line_start_from(file, start, 2)? {
        Position::At(next) => (format!("{}", next.saturating_sub(start).saturating_sub(1)), true),
        Position::PastEnd { .. } => (format!("{}", file_size.saturating_sub(start)), false),
        Position::TooFar => (format!("more than {MAX_SCAN}"), false),
    };
    let from = start.saturating_add(used).saturating_add(1);
    let quoted = format!("'{}'", text::cut(shown, 800).replace('\'', r"'\''"));
    let _ = write!(
        text,
        "\n[line {} has {length} bytes; these are its first {used}. To read on use bash: tail -c +{from} {quoted} | head -c 8000]",
        wanted.offset
    );
    if next {
        let _ = write!(text, "\nnext offset: {}", wanted.offset.saturating_add(1));
    }
    let total_bytes = file_size.max((text.len() as u64).saturating_add(1));
    Ok(FilesResult::Text { text, total_bytes })
}

enum Position {
    /// Byte at which the line starts.
    At(u64),
    /// There is no such line.
    PastEnd { lines: u64 },
    /// It was not found within the bounds.
    TooFar,
}

fn line_start(file: &File, number: u64) -> std::io::Result<Position> {
    line_start_from(file, 0, number)
}

/// Where the `number`th line starts, counted from 1 at byte `start`.
fn line_start_from(file: &File, start: u64, number: u64) -> std::io::Result<Position> {
    let began = Instant::now();
    let mut at = start;
    let mut line = 1_u64;
    let mut last = b'\n';
    let mut block = vec![0; BLOCK];
    loop {
        if line == number && at == start {
            // The first line exists unless the file is empty.
            let mut byte = [0];
            let empty = file.read_at(&mut byte, at)? == 0;
            return Ok(if empty { Position::PastEnd { lines: 0 } } else { Position::At(at) });
        }
        let count = file.read_at(&mut block, at)?;
        let bytes = block.get(..count).unwrap_or_default();
        let Some(end) = bytes.last() else {
            let lines = line.saturating_sub(u64::from(last == b'\n'));
            return Ok(Position::PastEnd { lines });
        };
        last = *end;
        for newline in memchr::memchr_iter(b'\n', bytes) {
            line = line.saturating_add(1);
            if line == number {
                let found = at.saturating_add(newline as u64).saturating_add(1);
                let mut byte = [0];
                let ended = file.read_at(&mut byte, found)? == 0;
                return Ok(if ended {
                    Position::PastEnd { lines: line.saturating_sub(1) }
                } else {
                    Position::At(found)
                });
            }
        }
        at = at.saturating_add(count as u64);
        if at.saturating_sub(start) > MAX_SCAN || began.elapsed() > MAX_SCAN_TIME {
            return Ok(Position::TooFar);
        }
    }
}

/// Up to `most` bytes from `at`, fewer only at the end of the file.
pub(super) fn read_at(file: &File, at: u64, most: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut filled = 0_usize;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match file.read_at(free, at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Beginnings of common binary formats.
const MAGIC: &[(&[u8], &str)] = &[
    (b"\x89PNG\r\n\x1a\n", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"%PDF-", "PDF document"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\xfd7zXZ\0", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"BZh", "bzip2 data"),
    (b"\x7fELF", "ELF program"),
    (b"SQLite format 3\0", "SQLite database"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
];

/// What a binary file is; `None` for text.
pub(super) fn binary(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some("WebP image");
    }
    MAGIC
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|(_, what)| *what)
        .or_else(|| memchr::memchr(0, head).map(|_| "binary data"))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    fn page(content: &[u8], offset: u64, limit: Option<u64>, numbers: bool) -> Result<(String, u64), String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), content).unwrap();
        let workspace =
            Workspace::new(File::open(dir.path()).unwrap().into(), dir.path().to_path_buf(), Vec::new());
        match read(&workspace, "f", Wanted { offset, limit, numbers }) {
            Ok(FilesResult::Text { text, total_bytes }) => {
                assert!(text.len() <= MAX_OUTPUT, "{}", text.len());
                Ok((text, total_bytes))
            }
            Ok(other) => panic!("{other:?}"),
            Err(Fault::Failed(message)) => Err(message),
            Err(Fault::Denied(denial)) => panic!("{denial:?}"),
        }
    }

    fn shown(content: &[u8]) -> String {
        page(content, 1, None, false).unwrap().0
    }

    #[test]
    fn small_file_is_shown_as_it_is() {
        assert_eq!(page(b"a\nb\n", 1, None, false).unwrap(), ("a\nb\n".into(), 4));
        assert_eq!(shown(b"a\nb"), "a\nb");
        assert_eq!(shown(b""), "");
        assert_eq!(shown(b"\n\n"), "\n\n");
        assert_eq!(shown(b"a\r\nb\r\n"), "a\nb\n");
    }

    #[test]
    fn file_of_exactly_the_limit_is_whole_and_one_more_byte_is_cut() {
        let mut content = b"x".repeat(99);
        content.push(b'\n');
        let mut content = content.repeat(102);
        content.extend_from_slice(&b"y".repeat(40));
        assert_eq!(content.len(), MAX_OUTPUT);
        assert_eq!(shown(&content).as_bytes(), content);
        content.push(b'z');
        let (text, total) = page(&content, 1, None, false).unwrap();
        assert!(text.ends_with("\nnext offset: 103"));
        assert_eq!(total, content.len() as u64);
    }

    #[test]
    fn pages_join_to_the_whole_file() {
        let content: String = (1..=3000).map(|n| format!("line {n} ü {}\n", "=".repeat(n % 90))).collect();
        let (mut offset, mut joined) = (1, String::new());
        loop {
            let (text, _) = page(content.as_bytes(), offset, None, false).unwrap();
            match text.rsplit_once("next offset: ") {
                Some((lines, next)) => {
                    joined.push_str(lines);
                    offset = next.parse().unwrap();
                }
                None => {
                    joined.push_str(&text);
                    break;
                }
            }
        }
        assert!(joined == content);
    }

    #[test]
    fn limit_offset_and_numbers() {
        let (text, total) = page(b"a\nb\nc\nd\n", 2, Some(2), true).unwrap();
        assert_eq!(text, "     2\tb\n     3\tc\nnext offset: 4");
        assert_eq!(total, text.len() as u64, "nothing was left out against the caller's will");
        assert_eq!(page(b"a\nb\n", 2, Some(9), false).unwrap().0, "b\n");
        assert!(page(b"a\nb\n", 3, None, false).unwrap_err().contains("past its end at line 2"));
        assert!(page(b"a\nb", 9, None, false).unwrap_err().contains("line 2"));
        assert!(page(b"", 2, None, false).is_err());
    }

    #[test]
    fn huge_line_is_cut_with_a_way_to_read_on() {
        let mut content = b"first\n".to_vec();
        content.extend_from_slice("ü".repeat(3_000_000).as_bytes());
        content.extend_from_slice(b"\nlast\n");
        let (text, _) = page(&content, 1, None, false).unwrap();
        assert_eq!(text, "first\nnext offset: 2");
        let (text, total) = page(&content, 2, None, true).unwrap();
        assert!(text.contains("line 2 has 6000000 bytes") && text.ends_with("\nnext offset: 3"));
        assert_eq!(total, content.len() as u64);
        let from: usize = text.split("tail -c +").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let used: usize =
            text.split("its first ").nth(1).unwrap().split('.').next().unwrap().parse().unwrap();
        assert_eq!(from, 6 + used + 1);
        assert_eq!(page(&content, 3, None, false).unwrap().0, "last\n");
    }

    #[test]
    fn line_of_control_characters_does_not_stop_the_reader() {
        let mut content = b"\x1b".repeat(MAX_OUTPUT);
        content.extend_from_slice(b"\nend\n");
        let (text, _) = page(&content, 1, None, false).unwrap();
        assert!(text.starts_with("\\x1b") && !text.contains('\x1b') && text.ends_with("next offset: 2"));
    }

    #[test]
    fn binary_is_named_and_invalid_utf8_replaced() {
        assert!(shown(b"\x89PNG\r\n\x1a\n123").contains("PNG image, 11 bytes"));
        assert!(shown(b"abc\0def").contains("binary data"));
        assert!(shown(b"\xff\xfeh\0").contains("UTF-16"));
        assert_eq!(shown(b"caf\xe9\n"), "caf\u{fffd}\n");
    }

    #[test]
    fn sparse_terabyte_is_answered_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join("f")).unwrap();
        file.write_all(&b"x".repeat(SNIFF)).unwrap();
        file.set_len(1 << 40).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let workspace =
            Workspace::new(File::open(dir.path()).unwrap().into(), dir.path().to_path_buf(), Vec::new());
        let wanted = Wanted { offset: 1, limit: None, numbers: false };
        let Ok(FilesResult::Text { text, total_bytes }) = read(&workspace, "f", wanted) else { panic!() };
        assert!(text.contains("more than") && text.len() <= MAX_OUTPUT);
        assert_eq!(total_bytes, 1 << 40);
        let far = read(&workspace, "f", Wanted { offset: 5, ..wanted });
        assert!(matches!(far, Err(Fault::Failed(text)) if text.contains("too far")));
    }
}
