//! What `audit verify` says. Pure.

use std::path::Path;

use serde::Deserialize;

use crate::render::neutral;

/// Names printed of a list; the rest is counted.
const SHOWN: usize = 5;

/// The toolhost's report.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Report {
    chains: u64,
    records: u64,
    torn: Vec<String>,
    unfinished: Vec<String>,
    unchained: Vec<String>,
    anchors: u64,
    pub(super) bad: Option<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Finding {
    file: String,
    line: Option<u64>,
    why: String,
}

impl Report {
    /// For people.
    pub(super) fn human(&self, home: &Path) -> String {
        let directory = home.join("audit");
        let mut text = match &self.bad {
            Some(bad) => {
                let line = bad.line.map(|line| format!(", record {line} of the file")).unwrap_or_default();
                format!(
                    "NOT WHOLE: {}{line}\n  {}\n  {} records before it are as they were written\n",
                    bad.file, bad.why, self.records
                )
            }
            None => format!(
                "whole: {} records in {} chains of {}\n",
                self.records,
                self.chains,
                directory.display()
            ),
        };
        let mut list = |names: &[String], what: &str| {
            if names.is_empty() {
                return;
            }
            let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = names.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            text.push_str(&format!("  {what}: {shown}{more}\n"));
        };
        list(&self.torn, "last line torn off when its writer was killed");
        list(&self.unfinished, "no record `stop`: still written, or its supervisor was killed");
        list(&self.unchained, "written before there was a chain, not verified");
        if self.anchors > 0 {
            text.push_str(&format!("  {} heads in the journal agree\n", self.anchors));
        } else {
            text.push_str(&format!(
                "This finds damage. It cannot find a log written anew by somebody who may read\n{}; for that, compare with the journal:\n  \
                 journalctl -o json SYSLOG_IDENTIFIER=oxibot-toolhost | oxibot audit verify --anchors -\n",
                directory.join("key").display()
            ));
        }
        neutral::text(&text)
    }
}

/// The anchors in the output of `journalctl -o json`, one `CHAIN SEQ MAC` a line. Entries of others are passed over.
pub(super) fn anchors(journal: &str) -> String {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "OXIBOT_AUDIT_CHAIN")]
        chain: String,
        #[serde(rename = "OXIBOT_AUDIT_SEQ")]
        seq: String,
        #[serde(rename = "OXIBOT_AUDIT_MAC")]
        mac: String,
    }
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    journal
        .lines()
        .filter_map(|line| serde_json::from_str::<Entry>(line).ok())
        .filter(|entry| word(&entry.chain) && word(&entry.mac) && entry.seq.parse::<u64>().is_ok())
        .map(|entry| format!("{} {} {}\n", entry.chain, entry.seq, entry.mac))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn whole_log_says_what_that_is_worth() {
        let text = report(
            r#"{"chains":2,"records":9,"torn":["a.jsonl"],"unfinished":["1","2","3","4","5","6","7"],"unchained":[],"anchors":0,"bad":null}"#,
        )
        .human(Path::new("/h"));
        assert!(text.starts_with("whole: 9 records in 2 chains of /h/audit\n"), "{text}");
        assert!(text.contains("torn off") && text.contains("1, 2, 3, 4, 5 and 2 more"), "{text}");
        assert!(text.contains("cannot find a log written anew"), "{text}");
    }

    #[test]
    fn bad_record_is_named() {
        let text = report(
            r#"{"chains":0,"records":3,"torn":[],"unfinished":[],"unchained":[],"anchors":1,
                "bad":{"file":"a.jsonl","line":4,"why":"w"}}"#,
        )
        .human(Path::new("/h"));
        assert!(text.starts_with("NOT WHOLE: a.jsonl, record 4 of the file\n  w\n"), "{text}");
        assert!(text.contains("1 heads in the journal agree"), "{text}");
    }

    #[test]
    fn anchors_are_taken_out_of_the_journal() {
        let journal = concat!(
            r#"{"MESSAGE":"x","OXIBOT_AUDIT_CHAIN":"a-1","OXIBOT_AUDIT_SEQ":"7","OXIBOT_AUDIT_MAC":"00ff"}"#,
            "\n{\"MESSAGE\":\"other\"}\nnot json\n",
            r#"{"OXIBOT_AUDIT_CHAIN":"a 1","OXIBOT_AUDIT_SEQ":"7","OXIBOT_AUDIT_MAC":"00"}"#,
        );
        assert_eq!(anchors(journal), "a-1 7 00ff\n");
    }
}
