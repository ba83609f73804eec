//! Level `full`: a payload runs confined and verified, and its files are its owner's.

mod wall_support;

use std::os::unix::fs::MetadataExt;

use oxibot_proto::message::Level;
use wall_support::Wall;

#[test]
fn payload_runs_at_level_full_and_its_files_are_the_owners() {
    let mut wall = Wall::new();
    assert_eq!(wall.zygote.obtained().level, Level::Full, "{:?}", wall.zygote.obtained());
    let ran = wall.bash("echo hello; pwd; touch made; id -u; cat /proc/self/uid_map");
    let lines: Vec<&str> = ran.ok().lines().collect();
    assert_eq!(lines[0], "hello");
    assert_eq!(lines[1], wall.workspace.path().to_str().unwrap());
    assert_ne!(lines[3].split_whitespace().nth(1), Some("0"), "never the kernel's root: {ran:?}");
    let made = std::fs::metadata(wall.workspace.path().join("made")).unwrap();
    assert_eq!(made.uid(), nix::unistd::geteuid().as_raw());
    assert_eq!(made.mode() & 0o777, 0o644);
}
