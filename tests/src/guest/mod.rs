//! A whole other machine, for one test: Debian 12 with its own kernel, in qemu, without hardware virtualisation.
//!
//! [`image`] makes its disk once, [`parcel`] packs what shall run into a second one, [`machine`] boots both and hears
//! what came of it, [`report`] reads that. Nothing of the host is mounted in the guest, nothing of the guest is written
//! to a disk, and no host service is started. What the guest runs is the very executables of this test run; nothing here
//! says what is right.

pub mod image;
pub mod machine;
pub mod parcel;
pub mod report;

use std::process::Command;

/// What this machine lacks for a guest. Empty where nothing is.
#[must_use]
pub fn lacking() -> Vec<String> {
    let mut lacking = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        lacking.push("root (debootstrap makes the owners of the guest's files)".to_owned());
    }
    for program in ["debootstrap", "qemu-system-x86_64", "mke2fs", "setpriv", "unshare", "strip"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            lacking.push(program.to_owned());
        }
    }
    lacking
}
