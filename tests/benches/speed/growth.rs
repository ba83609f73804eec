//! What a call costs where there is more of something: files, workspaces, rules.

use std::path::{Path, PathBuf};

use oxibot_tests::fixture::Fixture;

use crate::measure::{effort, in_turn};
use crate::report::{Report, Row};
use crate::sides::Warm;

/// Directories of the large workspace, each with some files.
const DIRECTORIES: usize = 1_000;
/// Workspaces in use at once.
const WORKSPACES: usize = 100;
/// Paths granted beside the workspace.
const GRANTS: usize = 50;

/// Each against a toolhost with one empty workspace.
pub fn growth(report: &mut Report) {
    let small = Warm::start();
    let large = Warm::start();
    fill(&large.fixture.workspace());
    let pair = in_turn(effort(300, 10), || large.bash(":"), || small.bash(":"));
    report.rows.push(Row::times("bash -c :, 10,000 files / none", pair));
    drop(large);

    let fixture = Fixture::new();
    let workspaces: Vec<PathBuf> =
        (0..WORKSPACES).map(|number| fixture.root().join(format!("w{number}"))).collect();
    for workspace in &workspaces {
        std::fs::create_dir(workspace).unwrap();
    }
    let many = Warm::start_with(fixture, &workspaces, "{}");
    for workspace in &workspaces {
        many.bash_in(Some(workspace), ":");
    }
    let pair = in_turn(effort(300, 10), || many.bash_in(Some(&workspaces[0]), ":"), || small.bash(":"));
    report.rows.push(Row::times(format!("bash -c :, {WORKSPACES} workspaces in use / 1"), pair));
    drop(many);

    let fixture = Fixture::new();
    let grants: Vec<PathBuf> = (0..GRANTS).map(|number| fixture.root().join(format!("g{number}"))).collect();
    for grant in &grants {
        std::fs::create_dir(grant).unwrap();
    }
    let configuration = serde_json::json!({"sandbox": {"read": grants}}).to_string();
    let workspace = fixture.workspace();
    let granted = Warm::start_with(fixture, &[workspace], &configuration);
    let pair = in_turn(effort(300, 10), || granted.bash(":"), || small.bash(":"));
    report.rows.push(Row::times(format!("bash -c :, {GRANTS} more paths granted / none"), pair));
}

fn fill(workspace: &Path) {
    for number in 0..DIRECTORIES {
        let directory = workspace.join(format!("d{number}"));
        std::fs::create_dir(&directory).unwrap();
        for file in 0..10 {
            std::fs::write(directory.join(file.to_string()), b"").unwrap();
        }
    }
}
