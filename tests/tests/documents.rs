//! The documents are true: every configuration sample is read, every command is one the program takes, every variable
//! names a key, and every link leads somewhere.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use clap::error::ErrorKind;
use oxibot_main::cli::Cli;
use oxibot_main::config;
use oxibot_tests::fixture::{Fixture, describe};
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every document with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let root = repository();
    let mut found = Vec::new();
    for directory in [root.clone(), root.join("packaging"), root.join("packaging/doc")] {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 8, "the documents are where they were");
    found
}

/// Fenced blocks: where, in which language, what.
fn blocks(text: &str) -> Vec<(usize, String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((number, language.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, _, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

#[test]
fn every_configuration_sample_is_one_the_program_reads() {
    let mut read = 0;
    for (path, text) in documents() {
        for (line, language, block) in blocks(&text) {
            if language != "json" {
                continue;
            }
            let at = format!("{}:{line}", path.display());
            let parsed = config::parse(block.as_bytes(), Path::new(&at));
            assert!(parsed.is_ok(), "{at}: {}", parsed.unwrap_err());
            read += 1;
        }
    }
    assert!(read >= 5, "{read} samples were found");
}

/// Words as a shell makes them of the part of a line that is a command of ours; `None`: there is none.
fn command(line: &str) -> Option<Vec<String>> {
    let part = line.trim().split(" | ").flat_map(|part| part.split(" && ")).find(|part| {
        let mut words = part.split_whitespace().skip_while(|word| {
            *word == "$"
                || *word == "sudo"
                || word
                    .split_once('=')
                    .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        });
        words.next().is_some_and(|word| word == "oxibot" || word.ends_with("/oxibot"))
    })?;
    let script = format!("set -f; args() {{ printf '%s\\0' \"$@\"; }}; args {part}");
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", describe(&output));
    let words = String::from_utf8(output.stdout).unwrap();
    let words =
        words.split_terminator('\0').skip_while(|word| *word != "oxibot" && !word.ends_with("/oxibot"));
    Some(words.map(str::to_owned).collect())
}

/// Commands in backticks within a text.
fn inline(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect::<Vec<_>>().join(" ").replace('\n', " ");
    let quoted = prose.split('`').skip(1).step_by(2);
    quoted.filter(|quoted| quoted.starts_with("oxibot ")).map(str::to_owned).collect()
}

#[test]
fn every_command_is_one_that_the_program_takes() {
    let mut taken = 0;
    for (path, text) in documents() {
        let in_blocks = blocks(&text).into_iter().filter(|(_, language, _)| language.is_empty()).flat_map(
            |(_, _, block)| block.lines().filter_map(command).map(|words| (words, true)).collect::<Vec<_>>(),
        );
        let in_text = inline(&text).into_iter().filter_map(|quoted| Some((command(&quoted)?, false)));
        for (words, whole) in in_blocks.chain(in_text) {
            match Cli::try_parse_from(&words) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {}
                // In a sentence a command may be named without what it needs.
                Err(error)
                    if !whole
                        && matches!(
                            error.kind(),
                            ErrorKind::MissingRequiredArgument
                                | ErrorKind::MissingSubcommand
                                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                        ) => {}
                Err(error) => panic!("{}: {words:?}: {error}", path.display()),
            }
            taken += 1;
        }
    }
    assert!(taken >= 30, "{taken} commands were found");
}

/// Dotted names of the schema's keys; `*` stands for a name of the user's choice.
fn keys(schema: &Value, at: &Value, path: &str, found: &mut BTreeSet<String>) {
    let at = match at.get("$ref").and_then(Value::as_str) {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => at,
    };
    if !path.is_empty() {
        found.insert(path.to_owned());
    }
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, below) in at.get("properties").and_then(Value::as_object).into_iter().flatten() {
        keys(schema, below, &join(name), found);
    }
    if let Some(any) = at.get("additionalProperties").filter(|any| any.is_object()) {
        keys(schema, any, &join("*"), found);
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        for below in at.get(choice).and_then(Value::as_array).into_iter().flatten() {
            keys(schema, below, path, found);
        }
    }
}

#[test]
fn every_key_and_variable_that_is_named_exists() {
    let output = Fixture::new().oxibot().args(["config", "schema"]).output().unwrap();
    assert!(output.status.success(), "{}", describe(&output));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut known = BTreeSet::new();
    keys(&schema, &schema, "", &mut known);
    let sections: BTreeSet<String> = known.iter().filter(|key| !key.contains('.')).cloned().collect();
    assert!(sections.len() > 8 && known.len() > 60, "{sections:?}");
    let variables: BTreeSet<String> =
        known.iter().filter(|key| !key.contains('*')).map(|key| config::variable_of(key)).collect();
    let matches = |key: &str| {
        known.iter().any(|known| {
            let (mut ours, mut theirs) = (key.split('.'), known.split('.'));
            loop {
                match (ours.next(), theirs.next()) {
                    (None, None) => return true,
                    (Some(ours), Some(theirs)) if ours == theirs || theirs == "*" || ours == "NAME" => {}
                    _ => return false,
                }
            }
        })
    };
    let mut seen = 0;
    for (path, text) in documents() {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.starts_with("OXIBOT_") && word.contains("__")) {
            let name = word.strip_suffix("_FILE").unwrap_or(word).trim_end_matches('_');
            let of_a_provider = name.starts_with("OXIBOT_PROVIDERS__");
            assert!(of_a_provider || variables.contains(name), "{}: {word}", path.display());
            seen += 1;
        }
        let prose: String = text.split("```").step_by(2).collect::<Vec<_>>().join(" ");
        for quoted in prose.split('`').skip(1).step_by(2) {
            let key = quoted.split(':').next().unwrap_or_default().trim();
            let dotted = key.contains('.') && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
            let section = key.split('.').next().unwrap_or_default();
            let file = ["md", "json", "rs", "toml", "jsonl", "txt", "sock", "db", "service", "socket"];
            let of_a_file = key.rsplit('.').next().is_some_and(|last| file.contains(&last));
            if !dotted || of_a_file || !sections.contains(section) {
                continue;
            }
            // Ids of checks and rules look alike; what is meant is a key if its section has the next word.
            let short = key.split('.').take(2).collect::<Vec<_>>().join(".");
            assert!(matches(key) || !matches(&short), "{}: `{key}` is no key", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 40, "{seen} keys and variables were found");
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for (path, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let file = path.parent().unwrap().join(target);
            assert!(file.exists(), "{}: {link}", path.display());
            followed += 1;
        }
    }
    assert!(followed >= 8, "{followed} links were found");
}
