//! The second disk: the programs and test executables of this run, at the paths they have here, and what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::run;

/// One thing to run in the guest.
#[derive(Debug, Clone)]
pub struct Step {
    /// Name in the report. No white space.
    pub id: String,
    /// For bash, in the target directory; test executables are named by `./debug/deps/NAME`.
    pub command: String,
    /// Seconds after which it is ended.
    pub seconds: u32,
}

/// What the test executables run.
const PROGRAMS: [&str; 3] = ["oxibot", "oxibot-toolhost", "sabotage"];

/// A test executable, or a program.
#[derive(Debug, Clone)]
pub struct Executable {
    /// Name of the target, for example `wall_full`.
    pub name: String,
    /// Where cargo put it.
    pub path: PathBuf,
}

/// The test executables whose target names begin with one of these, built if they are not.
///
/// # Errors
/// What cargo said.
pub fn executables(repository: &Path, prefixes: &[&str]) -> Result<Vec<Executable>, String> {
    let mut names = Vec::new();
    for directory in ["oxibot-toolhost/tests", "tests/tests"] {
        let listing = fs::read_dir(repository.join(directory))
            .map_err(|error| format!("cannot list {directory}: {error}"))?;
        for entry in listing.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".rs")
                && prefixes.iter().any(|prefix| name.starts_with(prefix))
            {
                names.push(name.to_owned());
            }
        }
    }
    names.sort();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut cargo = cargo();
    // The whole workspace: a part of it would be built with other features, and so again.
    cargo.current_dir(repository).args([
        "test",
        "--workspace",
        "--locked",
        "--no-run",
        "--message-format=json",
    ]);
    for name in &names {
        cargo.args(["--test", name]);
    }
    let mut found = built(&mut cargo)?;
    found.retain(|one| names.contains(&one.name));
    if found.len() == names.len() { Ok(found) } else { Err(format!("cargo built {found:?} of {names:?}")) }
}

/// The programs as they are released, built if they are not: without optimisation each call takes twice as long there.
///
/// # Errors
/// What cargo said.
pub fn programs(repository: &Path) -> Result<Vec<Executable>, String> {
    let found = built(cargo().current_dir(repository).args([
        "build",
        "--locked",
        "--release",
        "--bins",
        "--message-format=json",
    ]))?;
    let missing: Vec<&str> =
        PROGRAMS.into_iter().filter(|name| found.iter().all(|one| one.name != *name)).collect();
    if missing.is_empty() { Ok(found) } else { Err(format!("cargo built {found:?} without {missing:?}")) }
}

/// What is built already for this very run must not be built again: build scripts look at what a runner tells tests of
/// their own package (`CARGO_PKG_NAME` and the like), and would run again, and all that depends on them.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_TARGET_TMPDIR",
            "NEXTEST",
            "OUT_DIR",
        ]
        .iter()
        .any(|start| told.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// What cargo built, by its own word.
fn built(cargo: &mut Command) -> Result<Vec<Executable>, String> {
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let mut found = Vec::new();
    for line in said.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            found.push(Executable { name: name.to_owned(), path: path.into() });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Packs executables, programs and steps into a disk in `directory`. Returns its path.
///
/// # Errors
/// When something cannot be copied or packed.
pub fn pack(
    directory: &Path,
    target: &Path,
    programs: &[Executable],
    executables: &[Executable],
    steps: &[Step],
) -> Result<PathBuf, String> {
    let parcel = directory.join("parcel");
    let debug = parcel.join("target/debug");
    let broken = |what: &str, error: std::io::Error| format!("cannot pack {what}: {error}");
    fs::create_dir_all(debug.join("deps")).map_err(|error| broken("the programs", error))?;
    let pairs = programs
        .iter()
        // Where test executables look for them.
        .map(|one| (one.path.clone(), debug.join(&one.name)))
        .chain(executables.iter().map(|one| (one.path.clone(), debug.join("deps").join(&one.name))));
    for (from, to) in pairs {
        // Without what debuggers need it is a fifth of the size, and a disk is read slowly there.
        run(Command::new("strip").args(["--strip-debug", "-o"]).arg(&to).arg(&from))?;
    }
    let plan: String =
        steps.iter().map(|step| format!("{}\t{}\t{}\n", step.id, step.seconds, step.command)).collect();
    for (name, text) in [
        ("plan", plan.as_str()),
        ("run", include_str!("../../guest/run")),
        ("where", &format!("TARGET='{}'\n", target.display())),
    ] {
        fs::write(parcel.join(name), text).map_err(|error| broken(name, error))?;
    }
    let disk = directory.join("suites");
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-L", "suites", "-d"])
        .arg(&parcel)
        .arg(&disk)
        .arg("1G"))?;
    Ok(disk)
}
