//! `doctor --attack`: the wall attacked inside real calls, each attack with what answered it.
//!
//! The attacks run in a toolhost that is started for nothing else; here they are asked for and shown. It runs before
//! this process confines itself, which the checks after it do: what it reads was written by the toolhost alone. After
//! them tools search for decoys, see `decoys`.

use oxibot_proto::message::{AttackResult as Result_, Attacked};

use crate::broker::Attacks;
use crate::cli::{Global, ReportFormat};
use crate::render::neutral;
use crate::render::terminal::{self, Terminal};

use super::super::fault::Fault;
use super::super::oneshot;
use super::decoys;
use super::report::{Attack, AttackResult};

/// Columns of a line.
const COLUMNS: usize = 80;
/// Where the answer begins, if it fits on the line.
const ANSWER: usize = 42;
/// Where it begins on a line of its own.
const INDENT: usize = 10;
/// Longest text of one field, in bytes.
const MOST: usize = 240;

/// Runs the long form, and for people shows each attack as it ends.
///
/// # Errors
/// When it cannot be run: then nothing is known about the wall.
pub(super) fn run(global: &Global, format: ReportFormat) -> Result<Vec<Attack>, Fault> {
    let (greeted, toolhost) = oneshot::start_for_attack(global)?;
    let mut table = Table::new(global, format);
    let tried = try_all(greeted, &mut table);
    // The connection is closed by now, upon which it ends.
    if let Err(error) = toolhost.finish() {
        terminal::complain(&format!("cannot see the toolhost end: {error}"));
    }
    let mut tried = tried?;
    let broken = tried.iter().any(|attack| attack.result == AttackResult::Broken);
    match decoys::run(global, |attack| table.row(attack)) {
        Ok(searched) => tried.extend(searched),
        // A toolhost whose wall does not hold refuses to start: that is what was found, and not the search's fault.
        Err(_) if broken => {
            terminal::complain(
                "decoys were not searched for: no toolhost starts behind a wall that does not hold",
            );
        }
        Err(fault) => {
            table.end(&tried);
            return Err(fault);
        }
    }
    table.end(&tried);
    Ok(tried)
}

fn try_all(greeted: crate::broker::Greeted, table: &mut Table) -> Result<Vec<Attack>, Fault> {
    let mut attacks = Attacks::begin(greeted)?;
    let mut tried = Vec::new();
    loop {
        match attacks.following() {
            Ok(Some(told)) => {
                let attack = taken(&told);
                table.row(&attack);
                tried.push(attack);
            }
            Ok(None) => return Ok(tried),
            Err(error) => {
                table.end(&tried);
                return Err(error.into());
            }
        }
    }
}

/// As reported: bounded, and nothing in it that steers a terminal.
fn taken(told: &Attacked) -> Attack {
    let field = |text: &str| neutral::line(text, MOST);
    Attack {
        id: field(&told.id),
        protection: field(&told.protection),
        mechanism: field(&told.mechanism),
        feature: field(&told.feature),
        result: match told.result {
            Result_::Held => AttackResult::Held,
            Result_::Broken => AttackResult::Broken,
            Result_::Skipped => AttackResult::Skipped,
        },
        detail: field(&told.detail),
    }
}

/// The table for people, line by line.
struct Table {
    shown: bool,
    /// A last line that counts, and is written over.
    moving: bool,
    group: String,
    count: usize,
    broken: usize,
}

impl Table {
    fn new(global: &Global, format: ReportFormat) -> Self {
        let shown = format == ReportFormat::Text;
        let moving = shown && Terminal::detect(global.plain).fancy;
        Self { shown, moving, group: String::new(), count: 0, broken: 0 }
    }

    fn row(&mut self, attack: &Attack) {
        self.count = self.count.saturating_add(1);
        if attack.result == AttackResult::Broken {
            self.broken = self.broken.saturating_add(1);
        }
        if !self.shown {
            return;
        }
        let group = format!("{} ({})", attack.protection, attack.feature);
        let mut text = if self.moving { "\r\u{1b}[K".to_owned() } else { String::new() };
        if group != self.group {
            text.push_str(&format!("{group}\n"));
            self.group = group;
        }
        text.push_str(&lines(attack));
        if self.moving {
            text.push_str(&format!("{} tried, {} broken", self.count, self.broken));
        }
        // The report that follows finds out, and says, when nobody can be written to.
        drop(terminal::out(&text));
    }

    fn end(&self, attacks: &[Attack]) {
        if !self.shown {
            return;
        }
        let count = |result| attacks.iter().filter(|attack| attack.result == result).count();
        let front = if self.moving { "\r\u{1b}[K" } else { "" };
        drop(terminal::out(&format!(
            "{front}{} attacks: {} held, {} broken, {} skipped\n",
            attacks.len(),
            count(AttackResult::Held),
            count(AttackResult::Broken),
            count(AttackResult::Skipped)
        )));
    }
}

/// One attack: what came of it, its name, what answered.
fn lines(attack: &Attack) -> String {
    let front = format!("  {:<7} {}", attack.result.name(), attack.id);
    let answer = format!("{}: {}", attack.mechanism, attack.detail);
    let used = front.chars().count();
    if used < ANSWER && ANSWER.saturating_add(answer.chars().count()) <= COLUMNS {
        return format!("{front:<ANSWER$}{answer}\n");
    }
    let mut text = format!("{front}\n");
    let mut line = " ".repeat(INDENT);
    let mut empty = true;
    for word in answer.split_whitespace() {
        if !empty && line.chars().count().saturating_add(word.chars().count()) >= COLUMNS {
            text.push_str(&format!("{line}\n"));
            line = " ".repeat(INDENT);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    text.push_str(&format!("{line}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attack(id: &str, mechanism: &str, detail: &str) -> Attack {
        Attack {
            id: id.into(),
            protection: "landlock".into(),
            mechanism: mechanism.into(),
            feature: "f".into(),
            result: AttackResult::Held,
            detail: detail.into(),
        }
    }

    #[test]
    fn short_answer_is_on_the_line_and_a_long_one_below_it() {
        assert_eq!(
            lines(&attack("read-shadow", "view", "ENOENT: not in the view")),
            "  held    read-shadow                     view: ENOENT: not in the view\n"
        );
        let long = lines(&attack("a", "allow-list of the view, Landlock", &"reason ".repeat(20)));
        assert!(long.lines().count() > 2);
        assert!(long.lines().all(|line| line.chars().count() <= COLUMNS), "{long}");
        assert!(long.starts_with("  held    a\n          allow-list"), "{long}");
    }

    #[test]
    fn what_a_toolhost_says_cannot_steer_the_terminal() {
        let told = Attacked {
            id: "x\u{1b}[2J".into(),
            protection: "p".into(),
            mechanism: "m".into(),
            feature: "f".into(),
            result: Result_::Broken,
            detail: "d".repeat(10_000),
        };
        let attack = taken(&told);
        assert!(!attack.id.contains('\u{1b}'));
        assert!(attack.detail.len() <= MOST);
    }
}
