//! What OxiBot may leave outside its own processes: cgroups, directories in `/tmp`, mounts.
//!
//! Names of other runs on this machine are nobody's business here: only what a keeper below this test made counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::peer::PATIENCE;

/// What was there before.
pub struct Leftovers {
    before: BTreeSet<String>,
}

impl Leftovers {
    /// Remembers what is there.
    #[must_use]
    pub fn look() -> Self {
        Self { before: all() }
    }

    /// What is there and was not, of runs whose keeper is gone.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        all().difference(&self.before).filter(|name| is_dead(name)).cloned().collect()
    }

    /// Waits until nothing is there that was not there before.
    ///
    /// # Panics
    /// When something stays.
    pub fn nothing_since(&self) {
        let start = Instant::now();
        loop {
            // Of others that run beside this test something may always be there, but not for long the same.
            let left: Vec<String> =
                all().difference(&self.before).filter(|name| is_dead(name)).cloned().collect();
            if left.is_empty() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "left behind: {left:#?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Whether the process that answers for a name is gone.
fn is_dead(name: &str) -> bool {
    let ours = name.split('/').rfind(|part| part.starts_with("oxibot-")).unwrap_or_default();
    let fields: Vec<&str> = ours.split('-').collect();
    // oxibot, PID namespace, keeper, its start, number
    let [_, _, keeper, _, _, ..] = fields.as_slice() else { return false };
    !Path::new("/proc").join(keeper).exists()
}

fn all() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = next.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if entry.file_name().to_string_lossy().starts_with("oxibot-") {
                    found.insert(path.display().to_string());
                } else {
                    next.push(path);
                }
            }
        }
    }
    for entry in std::fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Not the fixtures of these tests.
        if name.starts_with("oxibot-") && !name.starts_with("oxibot-test-") {
            found.insert(entry.path().display().to_string());
        }
    }
    for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        if line.contains("oxibot-") {
            found.insert(line.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The control: what the tests wait for to vanish would be seen.
    #[test]
    fn what_is_left_is_seen() {
        let before = Leftovers::look();
        // No process has an id above the kernel's limit of 2^22.
        let name = format!("/tmp/oxibot-1-5000000-1-{}-x", std::process::id());
        std::fs::create_dir(&name).expect("directory");
        let left = before.left();
        std::fs::remove_dir(&name).expect("removed");
        assert!(left.contains(&name), "{left:?}");
        assert!(!before.left().contains(&name));
    }
}
