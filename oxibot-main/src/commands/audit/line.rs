//! One record as one line for people. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::render::neutral;

/// A record, parsed leniently: it is shown, not trusted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// UTC, RFC 3339: sorts as text.
    pub(super) time: String,
    event: String,
    fields: Map<String, Value>,
}

/// Which records are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) tool: Option<String>,
    pub(super) event: Option<String>,
    pub(super) since: Option<SystemTime>,
}

impl Wanted {
    pub(super) fn fits(&self, record: &Record) -> bool {
        let tool = self.tool.as_deref().is_none_or(|tool| record.text("tool") == tool);
        let event = self.event.as_deref().is_none_or(|event| {
            // `tool_call` means every `tool_call: bash` too.
            record.event == event || record.event.strip_prefix(event).is_some_and(|rest| rest.starts_with(':'))
        });
        tool && event && self.since.is_none_or(|since| instant(&record.time).is_some_and(|time| time >= since))
    }
}

impl Record {
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let mut fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
        let mut take = |key: &str| fields.remove(key).and_then(|value| value.as_str().map(str::to_owned));
        let (time, event) = (take("time")?, take("event")?);
        Some(Self { time, event, fields })
    }

    fn text(&self, key: &str) -> &str {
        self.fields.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.fields.get(key).and_then(Value::as_u64)
    }

    /// One line, made harmless.
    pub(super) fn shown(&self) -> String {
        let time = self.time.replacen('T', " ", 1);
        let time = time.split('.').next().unwrap_or_default().trim_end_matches('Z');
        let line = format!("{time}Z  {}  {}", self.event, self.about());
        let mut line = neutral::text(line.trim_end()).replace('\n', "\u{240a}").replace('\t', " ");
        line.push('\n');
        line
    }

    fn about(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        if self.event.starts_with("tool_call") {
            words.push(self.who());
            words.push(match (self.text("verdict"), self.text("rule")) {
                (verdict, "") => verdict.to_owned(),
                (verdict, rule) => format!("{verdict} ({rule})"),
            });
            if !self.text("approval").is_empty() {
                words.push(format!("approved as {}", self.text("approval")));
            }
            words.push(match (self.text("detail"), self.text("detail_sha256")) {
                ("", digest) if !digest.is_empty() => format!("sha256:{digest}"),
                (detail, _) => detail.to_owned(),
            });
            words.extend(self.number("size").map(|size| format!("({size} bytes)")));
        } else if self.event == "tool_result" {
            words.push(self.text("tool").to_owned());
            words.push(self.text("outcome").to_owned());
            if !self.text("rule").is_empty() {
                words.push(format!("({})", self.text("rule")));
            }
            words.extend(self.fields.get("exit_code").and_then(Value::as_i64).map(|code| format!("exit {code}")));
            words.extend(self.fields.get("signal").and_then(Value::as_i64).map(|signal| format!("signal {signal}")));
            words.extend(self.number("duration_ms").map(|ms| format!("{ms} ms")));
            words.extend(self.number("output_bytes").map(|bytes| format!("{bytes} bytes")));
            words.push(self.text("call_id").to_owned());
        } else {
            for (key, value) in &self.fields {
                // Of the chain itself, and lists nobody reads in a line.
                if matches!(key.as_str(), "v" | "chain" | "seq" | "mac" | "protections" | "heads" | "text") {
                    continue;
                }
                words.push(match value {
                    Value::Null => continue,
                    Value::String(text) => format!("{key}={text}"),
                    Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                        format!("{key}={value}")
                    }
                });
            }
        }
        words.retain(|word| !word.is_empty());
        words.join("  ")
    }

    fn who(&self) -> String {
        match (self.text("who"), self.text("channel")) {
            ("", "") => String::new(),
            (who, channel) => format!("{who}@{channel}"),
        }
    }
}

/// What `--since` means: a while ago, or a time.
pub(super) fn since(text: &str, now: SystemTime) -> Option<SystemTime> {
    match super::duration(text) {
        Some(ago) => Some(now.checked_sub(ago).map_or(UNIX_EPOCH, |time| time.max(UNIX_EPOCH))),
        None => instant(text),
    }
}

/// A time as `2026-11-30`, `2026-11-30T16:00`, `2026-11-30T16:00:00.123Z`; always UTC.
fn instant(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    if date.next().is_some() || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day)
    {
        return None;
    }
    let time = time.strip_suffix('Z').unwrap_or(time);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = clock.split(':').map(str::parse::<u64>);
    let (hour, minute) = (clock.next()?.ok()?, clock.next()?.ok()?);
    let second = clock.next().map_or(Some(0), Result::ok)?;
    if clock.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    // Days from a civil date, after Howard Hinnant, "chrono-compatible low-level date algorithms".
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = u64::try_from(era * 146_097 + day_of_era - 719_468).ok()?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_millis(seconds * 1000 + millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        Record::parse(text.as_bytes()).unwrap()
    }

    const CALL: &str = r#"{"v":1,"chain":"c","seq":2,"time":"2026-11-30T16:00:01.250Z","event":"tool_call: bash",
        "call_id":"c-1","tool":"bash","who":"ada","channel":"telegram","session":"s","workspace":"/w",
        "detail":"echo \u001b[31m\nls","verdict":"allow","rule":null,"level":"full","mac":"00"}"#;

    #[test]
    fn call_is_one_harmless_line_that_says_who_and_what() {
        assert_eq!(
            record(CALL).shown(),
            "2026-11-30 16:00:01Z  tool_call: bash  ada@telegram  allow  echo ␛[31m␊ls\n"
        );
    }

    #[test]
    fn result_says_how_it_ended() {
        let line = record(
            r#"{"time":"2026-11-30T16:00:02.000Z","event":"tool_result","call_id":"c-1","tool":"bash",
               "outcome":"denied","rule":"shell.mkfs","exit_code":null,"duration_ms":3,"output_bytes":0}"#,
        );
        assert_eq!(
            line.shown(),
            "2026-11-30 16:00:02Z  tool_result  bash  denied  (shell.mkfs)  3 ms  0 bytes  c-1\n"
        );
    }

    #[test]
    fn others_show_their_fields_and_not_the_chain() {
        let line = record(
            r#"{"v":1,"chain":"c","seq":0,"time":"2026-11-30T16:00:00.000Z","event":"open","pid":7,"heads":[],"mac":"0"}"#,
        );
        assert_eq!(line.shown(), "2026-11-30 16:00:00Z  open  pid=7\n");
    }

    #[test]
    fn filters_are_by_tool_event_and_time() {
        let call = record(CALL);
        let fits = |tool: Option<&str>, event: Option<&str>, since: Option<&str>| {
            let since = since.map(|text| instant(text).unwrap());
            Wanted { tool: tool.map(Into::into), event: event.map(Into::into), since }.fits(&call)
        };
        assert!(fits(None, None, None) && fits(Some("bash"), Some("tool_call"), Some("2026-11-30T16:00:01Z")));
        assert!(fits(None, Some("tool_call: bash"), None));
        assert!(!fits(Some("read_file"), None, None));
        assert!(!fits(None, Some("tool_result"), None) && !fits(None, Some("tool"), None));
        assert!(!fits(None, None, Some("2026-11-30T16:00:02Z")));
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let seconds = |text: &str| Some(instant(text)?.duration_since(UNIX_EPOCH).ok()?.as_secs());
        assert_eq!(seconds("1970-01-01"), Some(0));
        assert_eq!(seconds("2000-02-29T00:00:00.000Z"), Some(951_782_400));
        assert_eq!(seconds("2026-11-21T23:46:40Z"), Some(1_795_304_800));
        assert_eq!(seconds("2026-11-21 23:46"), Some(1_795_304_760));
        for bad in ["", "x", "2026-13-01", "2026-11-21T25:00", "2026-11-21T1:1:1:1", "1969-01-01", "99999999-1-1"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(since("1h", now), Some(now - Duration::from_secs(3600)));
        assert_eq!(since("99999999w", now), Some(UNIX_EPOCH));
        assert_eq!(since("1", now), None);
        assert_eq!(since("18446744073709551615w", now), None);
    }
}
