//! The wall under Debian 12's own kernel, in qemu.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oxibot_tests::fixture::skip;
use oxibot_tests::guest::image::image;
use oxibot_tests::guest::lacking;
use oxibot_tests::guest::machine::boot;
use oxibot_tests::guest::parcel::{Step, executables, pack};

/// Test targets that run in the guest, by the beginning of their names.
const SUITES: [&str; 7] =
    ["wall_", "attacks", "compat", "sandbox_run", "tool_call", "users", "without_namespaces"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

#[test]
fn debian_12() {
    let lacking = lacking();
    if !lacking.is_empty() {
        return skip("debian_12", &format!("a guest needs {}", lacking.join(", ")));
    }
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_path_buf();
    let image = image(&target).unwrap_or_else(|error| panic!("{error}"));
    let executables = executables(&repository(), &SUITES).unwrap_or_else(|error| panic!("{error}"));
    let mut steps = Vec::new();
    for one in &executables {
        steps.push(Step {
            id: one.name.clone(),
            command: format!("./debug/deps/{} --test-threads=2", one.name),
            seconds: 900,
        });
    }
    let directory = tempfile::tempdir_in(target.join("guest")).unwrap();
    let suites = pack(directory.path(), &target, &executables, &steps).unwrap();
    let report = boot(&image, &suites, directory.path(), Duration::from_secs(1700))
        .unwrap_or_else(|error| panic!("{error}"));
    for step in &report.steps {
        println!("=== {} {:?} {} s\n{}", step.id, step.status, step.seconds, step.output);
    }
    println!("{:?}", report.facts);
}
