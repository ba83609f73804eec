//! The report for people: 80 columns, grouped, nothing said by colour or symbol alone.

use crate::render::neutral;

use super::super::tool::wrapped;
use super::report::Report;

/// The report as text.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let found = neutral::text(&check.found);
        let mut lines = found.lines();
        text.push_str(&format!(
            "{:<5} {}: {}\n",
            check.state.name(),
            check.id,
            lines.next().unwrap_or_default()
        ));
        for line in lines {
            text.push_str(&format!("      {line}\n"));
        }
        for (label, value) in [("means", &check.consequence), ("do", &check.remedy)] {
            for (at, line) in wrapped(&neutral::line(value, 1024), 66).iter().enumerate() {
                let label = if at == 0 { format!("{label}:") } else { String::new() };
                text.push_str(&format!("      {label:<7}{line}\n"));
            }
        }
    }
    text.push_str(&match report.level {
        Some(level) => format!("level: {}\n", level.name()),
        None => "level: none, the toolhost does not start\n".to_owned(),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::{Check, State};
    use super::*;

    #[test]
    fn people_see_state_meaning_and_remedy() {
        let report = Report {
            level: None,
            checks: vec![Check::new("home", State::Warn, "mode 0755", "others may look", "chmod 700 x")],
            attacks: Vec::new(),
        };
        assert_eq!(
            text(&report),
            "warn  home: mode 0755\n      means: others may look\n      do:    chmod 700 x\n\
             level: none, the toolhost does not start\n"
        );
    }
}
