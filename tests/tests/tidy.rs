//! The invariants of ARCHITECTURE.md that can be read off the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut stack: Vec<PathBuf> =
        ["proto", "oxibot-main", "oxibot-toolhost", "tests"].iter().map(|d| repository().join(d)).collect();
    while let Some(directory) = stack.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                if entry.file_name() != "target" {
                    stack.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "the walk found the sources");
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap().display().to_string()
}

/// The part of a line that is code, as far as this check needs it.
fn code(line: &str) -> &str {
    let line = line.split("//").next().unwrap_or_default();
    if line.trim_start().starts_with("#!") || line.trim_start().starts_with("#[") { "" } else { line }
}

#[test]
fn unsafe_is_in_one_file_of_the_toolhost() {
    let offenders: Vec<String> = rust_files()
        .iter()
        .filter(|path| {
            relative(path) != "oxibot-toolhost/src/sys.rs" && !relative(path).ends_with("tests/tidy.rs")
        })
        .filter(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().any(|line| {
                let line = code(line);
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                    .iter()
                    .any(|word| line.contains(word))
            })
        })
        .map(|path| relative(path))
        .filter(|path| path.contains("/src/"))
        .collect();
    assert_eq!(offenders, Vec::<String>::new());
    for library in ["proto/src/lib.rs", "oxibot-main/src/lib.rs", "oxibot-main/src/main.rs"] {
        let text = std::fs::read_to_string(repository().join(library)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{library} forbids unsafe code");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    let offenders: Vec<String> = rust_files()
        .iter()
        .filter(|path| !std::fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| relative(path))
        .collect();
    assert_eq!(offenders, Vec::<String>::new());
}

#[test]
fn top_level_holds_what_was_agreed_and_nothing_else() {
    let expected: BTreeSet<&str> = [
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "clippy.toml",
        "deny.toml",
        "oxibot-main",
        "oxibot-toolhost",
        "packaging",
        "proto",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "tests",
    ]
    .into();
    let output = Command::new("git").args(["ls-files"]).current_dir(repository()).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let found: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.split('/').next())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(found, expected);
}

fn closure(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", package, "-e", "normal", "--prefix", "none"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(String::from)
        .collect()
}

#[test]
fn toolhost_links_the_reviewed_list_and_nothing_else() {
    let reviewed: BTreeSet<String> = include_str!("toolhost_closure.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .map(String::from)
        .collect();
    let linked = closure("oxibot-toolhost");
    let added: Vec<_> = linked.difference(&reviewed).collect();
    let gone: Vec<_> = reviewed.difference(&linked).collect();
    assert!(added.is_empty(), "not reviewed in tests/tests/toolhost_closure.txt: {added:?}");
    assert!(gone.is_empty(), "no longer linked, remove from tests/tests/toolhost_closure.txt: {gone:?}");
}

#[test]
fn who_may_depend_on_whom() {
    let proto = closure("oxibot-proto");
    assert!(
        !proto.contains("libc") && !proto.contains("nix") && !proto.contains("tokio"),
        "proto does no I/O"
    );
    let toolhost = closure("oxibot-toolhost");
    for absent in ["oxibot-main", "tokio", "reqwest", "hyper", "rustls", "rusqlite", "tracing-subscriber"] {
        assert!(!toolhost.contains(absent), "the toolhost must not link {absent}");
    }
    let main = closure("oxibot-main");
    assert!(
        !main.contains("oxibot-toolhost"),
        "main decides nothing about tools and links none of their code"
    );
    for absent in ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"] {
        assert!(!main.contains(absent), "one TLS stack: {absent}");
    }
}

/// Every promise names a file of tests and, where it names tests, ones that are in it.
#[test]
fn promises_name_tests_that_exist() {
    let text = std::fs::read_to_string(repository().join("SECURITY.md")).unwrap();
    let promises = text.split("## Promises").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = promises.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "the table was found");
    for row in rows {
        assert!(tests_named(row) > 0, "nothing shows this: {row}");
    }
}

/// What the older systems promised: each line has a verdict, and most of them tests.
#[test]
fn older_promises_name_tests_that_exist() {
    let text = std::fs::read_to_string(repository().join("packaging/doc/older-promises.md")).unwrap();
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| its line")).collect();
    assert!(rows.len() > 45, "the tables were found");
    let mut shown = 0;
    for row in &rows {
        let verdict = row.split(" | ").nth(1).unwrap();
        assert!(["kept", "improved", "dropped", "not yet"].contains(&verdict), "{row}");
        shown += tests_named(row).min(1);
    }
    assert!(shown * 4 > rows.len() * 3, "{shown} of {} are shown by a test", rows.len());
}

/// How many files of tests the last column of a row names. Each exists and holds the tests that are named after it.
fn tests_named(row: &str) -> usize {
    let shown = row.trim_end_matches('|').trim_end().rsplit_once(" |").unwrap().1;
    let (mut tests, mut files) = (String::new(), 0);
    for quoted in shown.split('`').skip(1).step_by(2) {
        if quoted.contains('/') {
            tests = std::fs::read_to_string(repository().join(quoted))
                .unwrap_or_else(|error| panic!("{quoted}: {error}"));
            let holds = ["#[test]", "proptest!", "corpus::"].iter().any(|mark| tests.contains(mark));
            assert!(holds, "{quoted} holds no tests");
            files += 1;
        } else {
            assert!(tests.contains(&format!("fn {quoted}(")), "{quoted} is promised and not there: {row}");
        }
    }
    files
}
