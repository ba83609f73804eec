//! What the release binaries weigh, on disk and in memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use oxibot_tests::conversation::Conversation;
use oxibot_tests::fixture::{Fixture, skip};
use oxibot_tests::processes::{memory, tree};
use serde_json::json;

fn release(test: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target"),
        PathBuf::from,
    );
    let directory = target.join("release");
    if directory.join("oxibot").is_file() && directory.join("oxibot-toolhost").is_file() {
        return Some(directory);
    }
    skip(test, "needs the release binaries: cargo build --release --bins");
    None
}

#[test]
fn release_binaries_are_stripped() {
    let Some(directory) = release("release_binaries_are_stripped") else { return };
    for name in ["oxibot", "oxibot-toolhost"] {
        let bytes = std::fs::read(directory.join(name)).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b".symtab"), "{name} has a symbol table");
    }
}

/// A conversation that waits for its next line, and its whole tree of processes but one: what would start the web's
/// worker waits beside the toolhost, and is held to a limit of its own.
#[test]
fn idle_main_and_toolhost_fit_in_sixteen_megabytes_alone() {
    let Some(directory) = release("idle_main_and_toolhost_fit_in_sixteen_megabytes_alone") else { return };
    let fixture = Fixture::new();
    let conversation = Conversation::start(&directory, &fixture, 2);
    let root = conversation.root();
    std::thread::sleep(Duration::from_secs(2));
    let parts: Vec<(String, u64)> =
        tree(root).iter().map(|process| (process.command.clone(), memory(process.pid, "Pss"))).collect();
    let (fetcher, parts): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|(command, _)| command.contains("toolhost fetcher"));
    let sum: u64 = parts.iter().map(|(_, kb)| kb).sum();
    conversation.end();
    assert!(parts.len() >= 5, "main and the toolhost's processes are counted: {parts:?}");
    assert!(sum <= 16 * 1024, "{sum} KiB: {parts:#?}");
    assert!(fetcher.len() == 1 && fetcher.iter().all(|(_, kb)| *kb <= 1024), "{fetcher:?}");
    println!("idle: {sum} KiB proportional set size\n{parts:#?}");
}

#[test]
fn two_gigabytes_of_output_cost_main_no_memory_alone() {
    let Some(directory) = release("two_gigabytes_of_output_cost_main_no_memory_alone") else { return };
    let peak = |command: &str| {
        let fixture = Fixture::new();
        let mut child = Command::new(directory.join("oxibot"))
            .arg("--home")
            .arg(fixture.home())
            .args(["tool", "call", "bash", &json!({"command": command, "timeout_s": 300}).to_string()])
            .arg("--json")
            .arg("--workspace")
            .arg(fixture.workspace())
            .env_clear()
            .env("HOME", fixture.root())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let root = i32::try_from(child.id()).unwrap();
        let mut most = 0;
        while child.try_wait().unwrap().is_none() {
            let supervisor =
                tree(root).into_iter().find(|process| process.command.contains("toolhost serve"));
            most = most
                .max(memory(root, "VmHWM") + supervisor.map_or(0, |process| memory(process.pid, "VmHWM")));
            std::thread::sleep(Duration::from_millis(5));
        }
        most
    };
    let small = peak("seq 1 10000; sleep 1");
    let large = peak("head -c 2147483648 /dev/zero; sleep 1");
    assert!(small > 0 && large < small + 4 * 1024, "{small} KiB became {large} KiB");
}
