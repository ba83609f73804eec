//! The report in Prometheus' text format (version 0.0.4), for a node exporter's textfile directory or a pushgateway.
//!
//! Every series is there in each report with the same labels, so that an alert neither flaps nor goes stale: what
//! changes is the value. Text that varies (what was found, what to do) is not a label.

use oxibot_proto::message::Level;

use super::report::{AttackResult, Report, State};

/// The report as an exposition; ends with a line feed.
pub(super) fn exposition(report: &Report) -> String {
    let mut out = Exposition::default();
    out.metric(
        "oxibot_sandbox_level",
        "Level calls run under: 1 for the one obtained, all 0 when none would start.",
    );
    for level in [Level::Full, Level::Kernel, Level::Reduced, Level::Off] {
        out.sample(&[("level", level.name())], u64::from(report.level == Some(level)));
    }
    out.metric("oxibot_doctor_check_state", "Each check of oxibot doctor: 0 ok, 1 info, 2 warn, 3 fail.");
    for check in &report.checks {
        out.sample(&[("id", &check.id)], severity(check.state));
    }
    out.metric("oxibot_doctor_checks", "Checks of oxibot doctor by state.");
    for state in [State::Ok, State::Info, State::Warn, State::Fail] {
        let count = report.checks.iter().filter(|check| check.state == state).count();
        out.sample(&[("state", state.name())], u64::try_from(count).unwrap_or(u64::MAX));
    }
    if !report.attacks.is_empty() {
        out.metric("oxibot_attack_result", "Each attack on the wall: 0 held, 1 broken, 2 skipped.");
        for attack in &report.attacks {
            let labels = [
                ("id", attack.id.as_str()),
                ("protection", &attack.protection),
                ("mechanism", &attack.mechanism),
                ("feature", &attack.feature),
            ];
            out.sample(&labels, outcome(attack.result));
        }
        out.metric("oxibot_attacks", "Attacks on the wall by result.");
        for result in [AttackResult::Held, AttackResult::Broken, AttackResult::Skipped] {
            let count = report.attacks.iter().filter(|attack| attack.result == result).count();
            out.sample(&[("result", result.name())], u64::try_from(count).unwrap_or(u64::MAX));
        }
    }
    out.text
}

fn severity(state: State) -> u64 {
    match state {
        State::Ok => 0,
        State::Info => 1,
        State::Warn => 2,
        State::Fail => 3,
    }
}

fn outcome(result: AttackResult) -> u64 {
    match result {
        AttackResult::Held => 0,
        AttackResult::Broken => 1,
        AttackResult::Skipped => 2,
    }
}

/// Text under construction: a metric is announced once, then its samples follow.
#[derive(Default)]
struct Exposition {
    text: String,
    metric: &'static str,
}

impl Exposition {
    fn metric(&mut self, name: &'static str, help: &str) {
        self.metric = name;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        self.text.push_str(&format!("{}{{{}}} {value}\n", self.metric, labels.join(",")));
    }
}

/// A label's value: backslash, quote and line feed are escaped; what steers a terminal was made visible before.
fn escaped(value: &str) -> String {
    let shown = crate::render::neutral::text(value);
    shown.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::report::{Attack, Check};
    use super::*;

    /// A sample: metric, labels, value.
    type Sample = (String, BTreeMap<String, String>, f64);

    /// Reads an exposition as strictly as the format is written: HELP and TYPE once and before the samples of a metric,
    /// samples of a metric together, names of the right letters, labels escaped, no series twice, a line feed at the end.
    fn parse(text: &str) -> Result<Vec<Sample>, String> {
        if !text.ends_with('\n') {
            return Err("no line feed at the end".into());
        }
        let name_is_good = |name: &str, colon: bool| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':'))
        };
        let (mut helped, mut typed, mut over) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut current = String::new();
        let (mut samples, mut series) = (Vec::new(), BTreeSet::new());
        for line in text.trim_end_matches('\n').split('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or("HELP without text")?;
                if !name_is_good(name, true) || help.is_empty() || !helped.insert(name.to_owned()) {
                    return Err(format!("bad HELP: {line}"));
                }
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or("TYPE without kind")?;
                if !["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind)
                    || !helped.contains(name)
                    || !typed.insert(name.to_owned())
                {
                    return Err(format!("bad TYPE: {line}"));
                }
            } else {
                let (name, rest) = line.split_once('{').ok_or_else(|| format!("no labels: {line}"))?;
                if !name_is_good(name, true) || !typed.contains(name) {
                    return Err(format!("a sample without TYPE: {line}"));
                }
                if name != current {
                    if !over.insert(name.to_owned()) {
                        return Err(format!("samples of {name} are not together"));
                    }
                    name.clone_into(&mut current);
                }
                let (labels, rest) = labels(rest)?;
                if labels.keys().any(|label| !name_is_good(label, false)) {
                    return Err(format!("bad label: {line}"));
                }
                let value = rest.strip_prefix(' ').ok_or_else(|| format!("no value: {line}"))?;
                let value = value.parse::<f64>().map_err(|error| format!("{error}: {line}"))?;
                if !series.insert((name.to_owned(), labels.clone())) {
                    return Err(format!("a series twice: {line}"));
                }
                samples.push((name.to_owned(), labels, value));
            }
        }
        Ok(samples)
    }

    /// Labels up to the closing brace, unescaped, and what follows it.
    fn labels(text: &str) -> Result<(BTreeMap<String, String>, &str), String> {
        let mut found = BTreeMap::new();
        let mut rest = text;
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                return Ok((found, after));
            }
            let (name, quoted) = rest.split_once("=\"").ok_or("a label without value")?;
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next().ok_or("a value without end")? {
                    (at, '"') => break at,
                    (_, '\\') => match characters.next().ok_or("a backslash at the end")?.1 {
                        '\\' => value.push('\\'),
                        '"' => value.push('"'),
                        'n' => value.push('\n'),
                        other => return Err(format!("unknown escape {other:?}")),
                    },
                    (_, '\n') => return Err("a line feed in a value".into()),
                    (_, plain) => value.push(plain),
                }
            };
            if found.insert(name.to_owned(), value).is_some() {
                return Err(format!("label {name} twice"));
            }
            rest = quoted.split_at(end + 1).1;
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }

    fn report(id: &str, protection: &str) -> Report {
        Report {
            level: Some(Level::Full),
            checks: vec![Check::ok("kernel.version", "Linux"), Check::new(id, State::Fail, "f\n", "c", "r")],
            attacks: vec![Attack {
                id: "a".into(),
                protection: protection.into(),
                mechanism: "m".into(),
                feature: "f".into(),
                result: AttackResult::Skipped,
                detail: "d".into(),
            }],
        }
    }

    #[test]
    fn every_series_is_there_and_readable() {
        let samples = parse(&exposition(&report("files.home", "a\\b\"c\nd"))).unwrap();
        let value = |metric: &str, label: &str, value: &str| {
            let hits: Vec<f64> = samples
                .iter()
                .filter(|(name, labels, _)| name == metric && labels.get(label).is_some_and(|v| v == value))
                .map(|(_, _, value)| *value)
                .collect();
            assert_eq!(hits.len(), 1, "{metric} {label}={value:?}");
            hits[0]
        };
        assert_eq!(value("oxibot_sandbox_level", "level", "full"), 1.0);
        assert_eq!(value("oxibot_sandbox_level", "level", "off"), 0.0);
        assert_eq!(value("oxibot_doctor_check_state", "id", "files.home"), 3.0);
        assert_eq!(value("oxibot_doctor_check_state", "id", "kernel.version"), 0.0);
        assert_eq!(value("oxibot_doctor_checks", "state", "fail"), 1.0);
        assert_eq!(value("oxibot_doctor_checks", "state", "warn"), 0.0);
        assert_eq!(value("oxibot_attack_result", "protection", "a\\b\"c\nd"), 2.0);
        assert_eq!(value("oxibot_attacks", "result", "skipped"), 1.0);
    }

    #[test]
    fn the_form_is_frozen() {
        let report = Report { level: None, checks: vec![Check::ok("a.b", "x")], attacks: Vec::new() };
        assert_eq!(
            exposition(&report),
            "# HELP oxibot_sandbox_level Level calls run under: 1 for the one obtained, all 0 when none would start.\n\
             # TYPE oxibot_sandbox_level gauge\n\
             oxibot_sandbox_level{level=\"full\"} 0\n\
             oxibot_sandbox_level{level=\"kernel\"} 0\n\
             oxibot_sandbox_level{level=\"reduced\"} 0\n\
             oxibot_sandbox_level{level=\"off\"} 0\n\
             # HELP oxibot_doctor_check_state Each check of oxibot doctor: 0 ok, 1 info, 2 warn, 3 fail.\n\
             # TYPE oxibot_doctor_check_state gauge\n\
             oxibot_doctor_check_state{id=\"a.b\"} 0\n\
             # HELP oxibot_doctor_checks Checks of oxibot doctor by state.\n\
             # TYPE oxibot_doctor_checks gauge\n\
             oxibot_doctor_checks{state=\"ok\"} 1\n\
             oxibot_doctor_checks{state=\"info\"} 0\n\
             oxibot_doctor_checks{state=\"warn\"} 0\n\
             oxibot_doctor_checks{state=\"fail\"} 0\n"
        );
    }

    #[test]
    fn the_reader_of_these_tests_is_strict() {
        let good = "# HELP m h\n# TYPE m gauge\nm{a=\"b\"} 1\n";
        assert!(parse(good).is_ok());
        for bad in [
            "m{a=\"b\"} 1\n",
            "# TYPE m gauge\nm{a=\"b\"} 1\n",
            "# HELP m h\n# TYPE m number\nm{a=\"b\"} 1\n",
            "# HELP m h\n# TYPE m gauge\nm{a=\"b\"} 1\nm{a=\"b\"} 2\n",
            "# HELP m h\n# TYPE m gauge\nm{a=\"\\x\"} 1\n",
            "# HELP m h\n# TYPE m gauge\nm{a=\"b} 1\n",
            "# HELP m h\n# TYPE m gauge\nm{1a=\"b\"} 1\n",
            "# HELP m h\n# TYPE m gauge\nm{a=\"b\"} one\n",
            "# HELP m h\n# TYPE m gauge\nm{a=\"b\"} 1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_makes_a_readable_report(id in "\\PC{0,40}|[\\x00-\\x9f]{0,40}", protection in "[\\\\\"\n{}, a]{0,20}") {
            let samples = parse(&exposition(&report(&id, &protection))).unwrap();
            let found = samples.iter().any(|(_, labels, _)| labels.get("protection") == Some(&protection));
            prop_assert!(found);
        }
    }
}
