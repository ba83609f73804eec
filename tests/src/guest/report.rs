//! What the guest told: facts, and for each step its status, its output and the tests in it.

use std::collections::{BTreeMap, BTreeSet};

/// Everything of one boot.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Name and value, from the guest's own `/proc` and `/sys`.
    pub facts: BTreeMap<String, String>,
    /// In the order they ran.
    pub steps: Vec<Ran>,
}

/// One step that was begun.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// Its name in the plan.
    pub id: String,
    /// Exit status; `None` if the guest ended before.
    pub status: Option<i32>,
    /// How long it took.
    pub seconds: u64,
    /// Both streams.
    pub output: String,
}

impl Report {
    /// Reads what `tests/guest/run` writes.
    #[must_use]
    pub fn read(told: &str) -> Self {
        let mut report = Self::default();
        for line in told.lines() {
            if let (Some(text), Some(step)) = (line.strip_prefix("| "), report.steps.last_mut()) {
                step.output.push_str(text);
                step.output.push('\n');
                continue;
            }
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            match (words.as_slice(), report.steps.last_mut()) {
                (["fact", name, value], _) => {
                    report.facts.insert((*name).to_owned(), (*value).to_owned());
                }
                (["begin", id], _) => report.steps.push(Ran { id: (*id).to_owned(), ..Ran::default() }),
                (["end", id, rest], Some(step)) if step.id == *id => {
                    let mut numbers = rest.split(' ');
                    step.status = numbers.next().and_then(|status| status.parse().ok());
                    step.seconds = numbers.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        report
    }

    /// A step by its name.
    ///
    /// # Panics
    /// When it was not begun.
    #[must_use]
    pub fn step(&self, id: &str) -> &Ran {
        let found = self.steps.iter().find(|step| step.id == id);
        found.unwrap_or_else(|| {
            panic!("{id} did not run: {:?}", self.steps.iter().map(|s| &s.id).collect::<Vec<_>>())
        })
    }
}

impl Ran {
    /// Names of the tests that ended with this word (`ok`, `FAILED`, `ignored`).
    #[must_use]
    pub fn tests(&self, word: &str) -> BTreeSet<&str> {
        self.output
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "))
            .filter(|(_, ended)| ended.split(' ').next() == Some(word))
            .map(|(name, _)| name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_cannot_pass_for_something_else() {
        let report = Report::read(
            "fact kernel 6.1.0 x\nbegin a\n| end a 0 1\n| test t ... ok\n| test u ... FAILED\nend a 101 7\nbegin b\n",
        );
        assert_eq!(report.facts["kernel"], "6.1.0 x");
        let step = report.step("a");
        assert_eq!((step.status, step.seconds), (Some(101), 7));
        assert_eq!((step.tests("ok"), step.tests("FAILED")), (["t"].into(), ["u"].into()));
        assert_eq!(report.step("b").status, None);
    }
}
