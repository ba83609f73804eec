//! What a person sees while a call takes long: one line on standard error, redrawn where the terminal can.

use std::io::Write;
use std::time::Duration;

use oxibot_proto::message::Progress;

/// A call shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// Without cursor movement a line appears this often.
const PLAIN_EVERY: u64 = 10_000;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One line that is redrawn.
    Redrawn,
    /// Plain lines, seldom.
    Plain,
    /// Nothing.
    Silent,
}

/// The line, and whether it is on the screen.
#[derive(Debug)]
pub(super) struct ProgressLine {
    style: Style,
    drawn: bool,
    next_plain: u64,
}

impl ProgressLine {
    pub(super) fn new(style: Style) -> Self {
        Self { style, drawn: false, next_plain: PLAIN_EVERY }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        if Duration::from_millis(progress.elapsed_ms) < PATIENCE {
            return;
        }
        let text = line(progress);
        match self.style {
            Style::Redrawn => {
                write(&format!("\r{text}\x1b[K"));
                self.drawn = true;
            }
            Style::Plain if progress.elapsed_ms >= self.next_plain => {
                write(&format!("{text}\n"));
                self.next_plain = progress.elapsed_ms.saturating_add(PLAIN_EVERY);
            }
            Style::Plain | Style::Silent => {}
        }
    }

    /// Takes the line off the screen.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            write("\r\x1b[K");
        }
    }
}

fn line(progress: &Progress) -> String {
    format!(
        "running for {} s, {} of output; Ctrl-C cancels",
        progress.elapsed_ms / 1000,
        size(progress.output_bytes)
    )
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Progress that cannot be shown is no matter.
    drop(stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()));
}

#[cfg(test)]
mod tests {
    use oxibot_proto::message::CallNumber;

    use super::*;

    #[test]
    fn line_says_how_long_how_much_and_what_to_do() {
        let progress = Progress { call: CallNumber(1), elapsed_ms: 12_900, output_bytes: 5_000 };
        assert_eq!(line(&progress), "running for 12 s, 4 KiB of output; Ctrl-C cancels");
    }
}
