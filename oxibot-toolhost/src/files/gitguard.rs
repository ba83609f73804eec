//! Compares the git configuration of the workspace before and after a call, and puts back what would make git run a
//! program on the host.
//!
//! A program may change `.git/config` freely but for those keys; a repository that a call makes itself is left alone
//! and reported. Only the repository at the top of the workspace is looked at.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};

use super::fault::Fault;
use super::gitconfig::{self, Entry};
use super::read::read_at;
use super::text;
use super::workspace::{Kind, Workspace, kind, look, open_name};
use super::write::{replace, target_in};

/// Files of `.git` that hold configuration. The second counts when `extensions.worktreeConfig` is set.
const FILES: [&str; 2] = ["config", "config.worktree"];
/// Notes of one call.
const MAX_NOTES: usize = 20;
/// Hooks looked at.
const MAX_HOOKS: usize = 200;

#[derive(Debug)]
enum Config {
    Absent,
    /// Not a plain file, too large, or not what git reads.
    Odd,
    Read {
        bytes: Vec<u8>,
        dangerous: Vec<Entry>,
    },
}

#[derive(Debug)]
enum Repository {
    Absent,
    /// `.git` is a file or a link: the repository is elsewhere.
    Elsewhere,
    Here {
        files: Vec<Config>,
        hooks: BTreeSet<String>,
    },
}

/// What was recorded. Calls may overlap: the first checkpoint of an overlapping group counts.
#[derive(Debug, Default)]
pub(super) struct GitGuard {
    before: Option<Repository>,
    open: u32,
}

impl GitGuard {
    /// Records the state before a call.
    pub(super) fn checkpoint(&mut self, workspace: &Workspace) {
        if self.before.is_none() {
            self.before = Some(look_at(workspace).0);
        }
        self.open = self.open.saturating_add(1);
    }

    /// Compares, puts back, and says what was done.
    pub(super) fn restore(&mut self, workspace: &Workspace) -> Vec<String> {
        let Some(before) = self.before.take() else { return Vec::new() };
        let (now, directory) = look_at(workspace);
        let mut notes = Vec::new();
        compare(&before, &now, directory.as_ref(), &mut notes);
        notes.truncate(MAX_NOTES);
        self.open = self.open.saturating_sub(1);
        if self.open > 0 {
            // What was created has been reported; what was changed has been put back.
            self.before = Some(if notes.is_empty() { before } else { look_at(workspace).0 });
        }
        notes
    }
}

fn compare(before: &Repository, now: &Repository, directory: Option<&OwnedFd>, notes: &mut Vec<String>) {
    match (before, now) {
        (_, Repository::Absent) | (Repository::Elsewhere, Repository::Elsewhere) => {}
        (Repository::Absent | Repository::Here { .. }, Repository::Elsewhere) => {
            notes.push("created_executable_config: .git now names a repository elsewhere".into());
        }
        (Repository::Absent | Repository::Elsewhere, Repository::Here { files, hooks }) => {
            for (file, config) in FILES.iter().zip(files) {
                match config {
                    Config::Absent => {}
                    Config::Odd => {
                        notes.push(format!("created_executable_config: .git/{file} cannot be understood"));
                    }
                    Config::Read { dangerous, .. } => {
                        notes.extend(dangerous.iter().map(|entry| {
                            format!("created_executable_config: {} in .git/{file}", entry.name())
                        }))
                    }
                }
            }
            note_hooks(&BTreeSet::new(), hooks, notes);
        }
        (Repository::Here { files: old, hooks: old_hooks }, Repository::Here { files, hooks }) => {
            for ((file, old), new) in FILES.iter().zip(old).zip(files) {
                put_back(file, old, new, directory, notes);
            }
            note_hooks(old_hooks, hooks, notes);
        }
    }
}

fn note_hooks(before: &BTreeSet<String>, now: &BTreeSet<String>, notes: &mut Vec<String>) {
    notes.extend(now.difference(before).map(|hook| format!("created_executable_config: .git/hooks/{hook}")));
}

fn put_back(file: &str, old: &Config, new: &Config, directory: Option<&OwnedFd>, notes: &mut Vec<String>) {
    let nothing = Vec::new();
    let (wanted, whole) = match old {
        Config::Absent => (&nothing, None),
        // It was not understood before the call either: nothing to compare with.
        Config::Odd => return,
        Config::Read { bytes, dangerous } => (dangerous, Some(bytes)),
    };
    let shown = format!(".git/{file}");
    let (content, names) = match (new, whole) {
        (Config::Absent, _) if wanted.is_empty() => return,
        (Config::Absent, _) => {
            (gitconfig::put_back(&[], &[], wanted), wanted.iter().map(Entry::name).collect())
        }
        (Config::Read { dangerous, .. }, _) if gitconfig::same(wanted, dangerous) => return,
        (Config::Read { bytes, dangerous }, _) => {
            let names = gitconfig::changed(wanted, dangerous).into_iter().map(Entry::name).collect();
            (gitconfig::put_back(bytes, dangerous, wanted), names)
        }
        (Config::Odd, Some(bytes)) => (bytes.clone(), BTreeSet::from(["all of it".to_owned()])),
        (Config::Odd, None) => {
            notes.push(format!("created_executable_config: {shown} cannot be understood"));
            return;
        }
    };
    let written = directory
        .ok_or_else(|| Fault::errno("write", &shown, Errno::ENOENT))
        .and_then(|fd| fd.try_clone().map_err(|error| Fault::io("write", &shown, &error)))
        .and_then(|fd| replace(&target_in(fd, file, &shown), &content));
    let verb = if written.is_ok() { "put back" } else { "could not put back" };
    // A set, because an altered key is found twice: as it was and as it is.
    let names: BTreeSet<String> = names;
    notes.extend(names.iter().map(|name| format!("{verb} {name} in {shown}: git would run it on the host")));
}

fn look_at(workspace: &Workspace) -> (Repository, Option<OwnedFd>) {
    let path = Path::new(".git");
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let directory = match open_name(workspace.handle(), path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(_) if look(workspace.handle(), path).is_ok() => return (Repository::Elsewhere, None),
        Err(_) => return (Repository::Absent, None),
    };
    let files = FILES.iter().map(|file| read_config(&directory, file)).collect();
    let hooks = hooks(&directory);
    (Repository::Here { files, hooks }, Some(directory))
}

fn read_config(directory: &OwnedFd, file: &str) -> Config {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let fd = match open_name(directory.as_fd(), Path::new(file), flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Config::Absent,
        Err(_) => return Config::Odd,
    };
    if fstat(&fd).map(|stat| kind(&stat)) != Ok(Kind::File) {
        return Config::Odd;
    }
    let Ok(bytes) = read_at(&File::from(fd), 0, gitconfig::MAX_FILE.saturating_add(1)) else {
        return Config::Odd;
    };
    match gitconfig::dangerous(&bytes) {
        Ok(dangerous) => Config::Read { bytes, dangerous },
        Err(_) => Config::Odd,
    }
}

/// Names of hooks git would run.
fn hooks(directory: &OwnedFd) -> BTreeSet<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let opened = open_name(directory.as_fd(), Path::new("hooks"), flags, Mode::empty());
    let Some(mut hooks) = opened.ok().and_then(|fd| Dir::from_fd(fd).ok()) else {
        return BTreeSet::new();
    };
    hooks
        .iter()
        .take(MAX_HOOKS)
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_bytes().to_vec())
        .filter(|name| name != b"." && name != b".." && !name.ends_with(b".sample"))
        .map(|name| text::name(&name))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Repo(tempfile::TempDir, Workspace);

    impl Repo {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let workspace =
                Workspace::new(File::open(dir.path()).unwrap().into(), dir.path().to_path_buf(), Vec::new());
            Self(dir, workspace)
        }

        fn with(config: &str) -> Self {
            let repo = Self::new();
            std::fs::create_dir_all(repo.0.path().join(".git/hooks")).unwrap();
            repo.write(config);
            repo
        }

        fn write(&self, config: &str) {
            std::fs::write(self.0.path().join(".git/config"), config).unwrap();
        }

        fn read(&self) -> String {
            std::fs::read_to_string(self.0.path().join(".git/config")).unwrap()
        }

        fn after(&self, act: impl FnOnce(&Self)) -> Vec<String> {
            let mut guard = GitGuard::default();
            guard.checkpoint(&self.1);
            act(self);
            guard.restore(&self.1)
        }
    }

    const PLAIN: &str = "[core]\n\tbare = false\n\tpager = less\n";

    #[test]
    fn harmless_changes_stay() {
        let repo = Repo::with(PLAIN);
        let config = "[core]\n\tbare = false\n\tpager = less\n[user]\n\tname = me\n";
        assert!(repo.after(|repo| repo.write(config)).is_empty());
        assert_eq!(repo.read(), config);
        assert!(repo.after(|_| {}).is_empty());
    }

    #[test]
    fn dangerous_changes_are_put_back_and_named() {
        let repo = Repo::with(PLAIN);
        let notes = repo.after(|repo| {
            repo.write("[core]\n\tbare = false\n\tpager = evil\n\tfsmonitor = evil\n[user]\n\tname = me\n");
        });
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("put back core.fsmonitor")));
        let config = repo.read();
        assert!(config.contains("name = me") && config.contains("pager = less") && !config.contains("evil"));
        assert!(repo.after(|_| {}).is_empty(), "stable from then on");
    }

    #[test]
    fn unreadable_replacements_are_put_back_whole() {
        let repo = Repo::with(PLAIN);
        assert!(
            repo.after(|repo| repo.write("[core\nfsmonitor = x"))
                .iter()
                .any(|note| note.contains("all of it"))
        );
        assert_eq!(repo.read(), PLAIN);
        let config = repo.0.path().join(".git/config");
        repo.after(|repo| {
            std::fs::write(repo.0.path().join("evil"), "[core]\nfsmonitor = x").unwrap();
            std::fs::remove_file(&config).unwrap();
            symlink("../evil", &config).unwrap();
        });
        assert!(!config.is_symlink() && repo.read() == PLAIN);
        repo.after(|_| std::fs::remove_file(&config).unwrap());
        assert_eq!(repo.read(), "[core]\n\tpager = less\n");
    }

    #[test]
    fn what_a_call_creates_is_left_and_reported() {
        let repo = Repo::new();
        let notes = repo.after(|repo| {
            std::fs::create_dir_all(repo.0.path().join(".git/hooks")).unwrap();
            std::fs::write(repo.0.path().join(".git/hooks/pre-commit"), "x").unwrap();
            std::fs::write(repo.0.path().join(".git/hooks/update.sample"), "x").unwrap();
            repo.write("[core]\n\tfsmonitor = x\n");
        });
        assert_eq!(
            notes,
            [
                "created_executable_config: core.fsmonitor in .git/config",
                "created_executable_config: .git/hooks/pre-commit"
            ]
        );
        assert!(repo.read().contains("fsmonitor"));
        assert!(repo.after(|repo| std::fs::remove_dir_all(repo.0.path().join(".git")).unwrap()).is_empty());
        let notes = repo.after(|repo| std::fs::write(repo.0.path().join(".git"), "gitdir: evil").unwrap());
        assert!(notes.iter().any(|note| note.contains("elsewhere")), "{notes:?}");
    }

    #[test]
    fn overlapping_calls_are_compared_with_the_first_state() {
        let repo = Repo::with(PLAIN);
        let mut guard = GitGuard::default();
        guard.checkpoint(&repo.1);
        repo.write("[core]\n\tfsmonitor = evil\n\tpager = less\n");
        guard.checkpoint(&repo.1);
        assert_eq!(guard.restore(&repo.1).len(), 1);
        repo.write("[core]\n\tfsmonitor = again\n\tpager = less\n");
        assert_eq!(guard.restore(&repo.1).len(), 1);
        assert!(!repo.read().contains("fsmonitor"));
        assert!(guard.restore(&repo.1).is_empty(), "nothing recorded, nothing done");
    }
}
