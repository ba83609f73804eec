//! Compares the git configuration of the workspace before and after a call, and puts back what would make git run a
//! program on the host.
//!
//! A program may change `.git/config` freely but for those keys; a repository that a call makes itself is left alone
//! and reported. Only the repository at the top of the workspace is looked at, with its submodules and worktrees. The
//! worker may neither make symbolic links nor rename directories: what would need that is reported, not put back.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::fault::Fault;
use super::gitconfig::{self, Entry};
use super::gitfiles::{COMMON, Config, Plain, Repository, look_at};
use super::text;
use super::workspace::{Workspace, look, open_name};
use super::write::{replace, target_in};

/// Notes of one call.
const MAX_NOTES: usize = 20;
/// What `git worktree add` writes into the `commondir` of a linked worktree.
const USUAL_COMMON: &[u8] = b"../..";

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
            self.before = Some(look_at(workspace, None).0);
        }
        self.open = self.open.saturating_add(1);
    }

    /// Compares, puts back, and says what was done.
    pub(super) fn restore(&mut self, workspace: &Workspace) -> Vec<String> {
        let Some(before) = self.before.take() else { return Vec::new() };
        let (now, directory) = look_at(workspace, Some(&before));
        let mut notes = Vec::new();
        compare(&before, &now, workspace, directory.as_ref(), &mut notes);
        notes.truncate(MAX_NOTES);
        self.open = self.open.saturating_sub(1);
        if self.open > 0 {
            // What was created has been reported; what was changed has been put back.
            self.before = Some(if notes.is_empty() { before } else { look_at(workspace, None).0 });
        }
        notes
    }
}

fn compare(
    before: &Repository,
    now: &Repository,
    workspace: &Workspace,
    directory: Option<&OwnedFd>,
    notes: &mut Vec<String>,
) {
    match (before, now) {
        (
            Repository::Here { files: old, plain: old_plain, hooks: old_hooks },
            Repository::Here { files, plain, hooks },
        ) => {
            for (file, new) in files {
                match old.get(file) {
                    Some(old) => put_back(file, old, new, directory, notes),
                    // A submodule or worktree of the call's own making.
                    None => note_created(file, new, notes),
                }
            }
            for (file, new) in plain {
                match old_plain.get(file) {
                    Some(old) => put_back_plain(file, old, new, directory, notes),
                    None => note_created_plain(file, new, notes),
                }
            }
            note_hooks(old_hooks, hooks, notes);
        }
        (Repository::Absent | Repository::Odd, Repository::Here { files, plain, hooks }) => {
            for (file, config) in files {
                note_created(file, config, notes);
            }
            for (file, content) in plain {
                note_created_plain(file, content, notes);
            }
            note_hooks(&BTreeSet::new(), hooks, notes);
        }
        (Repository::Absent | Repository::Odd | Repository::Here { .. }, Repository::Absent) => {}
        (Repository::Odd, Repository::Odd) => {}
        (
            Repository::Absent | Repository::Odd,
            Repository::File(_) | Repository::Link(_) | Repository::Odd,
        ) => {
            notes.push("created_executable_config: .git now names a repository elsewhere".into());
        }
        (Repository::Here { .. }, Repository::File(_) | Repository::Link(_) | Repository::Odd) => {
            notes.push(format!(
                "could not put back .git: it was a directory and is {} now; git would use another repository on the \
                 host. Do not run git here before you have looked at it",
                now.what()
            ));
        }
        (Repository::File(_) | Repository::Link(_), _) if before == now => {}
        (Repository::File(bytes), _) => put_back_top(bytes, before, now, workspace, notes),
        (Repository::Link(target), _) => {
            // To git a file that names the directory is the same as a link to it.
            let mut bytes = b"gitdir: ".to_vec();
            bytes.extend_from_slice(target);
            bytes.push(b'\n');
            put_back_top(&bytes, before, now, workspace, notes);
        }
    }
}

/// Puts the file `.git` back.
fn put_back_top(
    bytes: &[u8],
    before: &Repository,
    now: &Repository,
    workspace: &Workspace,
    notes: &mut Vec<String>,
) {
    let written = match now {
        // A directory would have to be removed or renamed.
        Repository::Here { .. } => Err(Fault::errno("write", ".git", Errno::EISDIR)),
        Repository::Absent | Repository::File(_) | Repository::Link(_) | Repository::Odd => workspace
            .handle()
            .try_clone_to_owned()
            .map_err(|error| Fault::io("write", ".git", &error))
            .and_then(|fd| replace(&target_in(fd, ".git", ".git"), bytes)),
    };
    let shown = text::name(bytes.trim_ascii());
    let (was, shown) = (before.what(), text::cut(&shown, 200));
    notes.push(match written {
        Ok(_) => format!("put back .git ({shown}): it was {was}, and git would use another repository on the host"),
        Err(_) => format!(
            "could not put back .git: it was {was} ({shown}) and is {} now; git would use another repository on the \
             host. Do not run git here before you have looked at it",
            now.what()
        ),
    });
}

fn note_created(file: &str, config: &Config, notes: &mut Vec<String>) {
    match config {
        Config::Absent => {}
        Config::Odd => {
            notes.push(format!("created_executable_config: .git/{} cannot be understood", shown(file)));
        }
        Config::Read { dangerous, .. } => notes.extend(
            dangerous
                .iter()
                .map(|entry| format!("created_executable_config: {} in .git/{}", entry.name(), shown(file))),
        ),
    }
}

fn note_created_plain(file: &str, content: &Plain, notes: &mut Vec<String>) {
    match content {
        Plain::Absent => {}
        Plain::Read(bytes) if file != COMMON && bytes.trim_ascii() == USUAL_COMMON => {}
        Plain::Read(_) | Plain::Odd => {
            notes.push(format!("created_executable_config: .git/{} names other configuration", shown(file)));
        }
    }
}

fn note_hooks(before: &BTreeSet<String>, now: &BTreeSet<String>, notes: &mut Vec<String>) {
    notes.extend(now.difference(before).map(|hook| format!("created_executable_config: .git/hooks/{hook}")));
}

/// A path below `.git`, safe to show.
fn shown(file: &str) -> String {
    let name = text::name(file.as_bytes());
    text::cut(&name, 200).to_owned()
}

/// The directory of a file below `.git`, and its name there. `None` when the directory is gone, and the file with it.
fn parent<'a>(
    directory: Option<&OwnedFd>,
    file: &'a str,
    shown: &str,
) -> Result<Option<(OwnedFd, &'a str)>, Fault> {
    let fd = directory.ok_or_else(|| Fault::errno("write", shown, Errno::ENOENT))?;
    let Some((above, name)) = file.rsplit_once('/') else {
        return Ok(Some((fd.try_clone().map_err(|error| Fault::io("write", shown, &error))?, file)));
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    match open_name(fd.as_fd(), Path::new(above), flags, Mode::empty()) {
        Ok(fd) => Ok(Some((fd, name))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Fault::errno("write", shown, errno)),
    }
}

/// As [`put_back`], for a file that is one path: `commondir` makes git read the configuration of that directory.
fn put_back_plain(
    file: &str,
    old: &Plain,
    new: &Plain,
    directory: Option<&OwnedFd>,
    notes: &mut Vec<String>,
) {
    if old == new {
        return;
    }
    let shown = format!(".git/{}", shown(file));
    let done = match (parent(directory, file, &shown), old) {
        (Ok(None), _) => return,
        // It was not understood before the call either, but it is another one or gone.
        (Ok(Some(_)), Plain::Odd) => Err(Fault::errno("write", &shown, Errno::EINVAL)),
        (Ok(Some((fd, name))), Plain::Read(bytes)) => replace(&target_in(fd, name, &shown), bytes).map(drop),
        (Ok(Some((fd, name))), Plain::Absent) => match unlinkat(&fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(()),
            Err(_) if look(fd.as_fd(), Path::new(name)) == Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Fault::errno("remove", &shown, errno)),
        },
        (Err(fault), _) => Err(fault),
    };
    let verb = match (done.is_ok(), old) {
        (true, Plain::Absent) => "removed",
        (true, Plain::Read(_) | Plain::Odd) => "put back",
        (false, _) => "could not put back",
    };
    notes.push(format!("{verb} {shown}: git would read configuration from elsewhere on the host"));
}

fn put_back(file: &str, old: &Config, new: &Config, directory: Option<&OwnedFd>, notes: &mut Vec<String>) {
    let nothing = Vec::new();
    let (wanted, whole) = match old {
        Config::Absent => (&nothing, None),
        // It was not understood before the call either: nothing to compare with.
        Config::Odd => return,
        Config::Read { bytes, dangerous } => (dangerous, Some(bytes)),
    };
    let shown = format!(".git/{}", shown(file));
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
    let written = match parent(directory, file, &shown) {
        // A submodule or worktree was removed as a whole.
        Ok(None) => return,
        Ok(Some((fd, name))) => replace(&target_in(fd, name, &shown), &content),
        Err(fault) => Err(fault),
    };
    let verb = if written.is_ok() { "put back" } else { "could not put back" };
    // A set, because an altered key is found twice: as it was and as it is.
    let names: BTreeSet<String> = names;
    notes.extend(names.iter().map(|name| format!("{verb} {name} in {shown}: git would run it on the host")));
}

#[cfg(test)]
mod tests {
    use std::fs::File;
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

    fn put(repo: &Repo, name: &str, content: &str) {
        let path = repo.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn get(repo: &Repo, name: &str) -> Option<String> {
        std::fs::read_to_string(repo.0.path().join(name)).ok()
    }

    #[test]
    fn commondir_is_put_back_or_removed() {
        let repo = Repo::with(PLAIN);
        let notes = repo.after(|repo| put(repo, ".git/commondir", "../evil\n"));
        assert!(notes.len() == 1 && notes[0].starts_with("removed .git/commondir"), "{notes:?}");
        assert_eq!(get(&repo, ".git/commondir"), None);
        let notes = repo.after(|repo| symlink("../evil", repo.0.path().join(".git/commondir")).unwrap());
        assert!(notes.len() == 1 && !repo.0.path().join(".git/commondir").is_symlink(), "{notes:?}");
        let notes = repo.after(|repo| std::fs::create_dir(repo.0.path().join(".git/commondir")).unwrap());
        assert!(notes.len() == 1 && notes[0].starts_with("could not put back"), "{notes:?}");
        std::fs::remove_dir(repo.0.path().join(".git/commondir")).unwrap();

        put(&repo, ".git/commondir", "../main\n");
        for content in [Some("../evil\n"), None] {
            let notes = repo.after(|repo| match content {
                Some(content) => put(repo, ".git/commondir", content),
                None => std::fs::remove_file(repo.0.path().join(".git/commondir")).unwrap(),
            });
            assert!(notes.len() == 1 && notes[0].starts_with("put back .git/commondir"), "{notes:?}");
            assert_eq!(get(&repo, ".git/commondir").unwrap(), "../main\n");
        }
    }

    #[test]
    fn submodules_and_worktrees_are_compared_too() {
        let repo = Repo::with(PLAIN);
        for name in ["modules/a", "modules/b/c", "modules/a/modules/d"] {
            put(&repo, &format!(".git/{name}/config"), PLAIN);
            put(&repo, &format!(".git/{name}/HEAD"), "ref: refs/heads/main\n");
        }
        put(&repo, ".git/worktrees/w/commondir", "../..\n");
        let evil = format!("{PLAIN}\tfsmonitor = evil\n[user]\n\tname = me\n");
        let files = [
            "config.worktree",
            "modules/a/config",
            "modules/a/config.worktree",
            "modules/b/c/config",
            "modules/a/modules/d/config",
            "worktrees/w/config.worktree",
        ];
        let notes = repo.after(|repo| {
            for file in files {
                put(repo, &format!(".git/{file}"), &evil);
            }
            put(repo, ".git/worktrees/w/commondir", "../../../evil\n");
            put(repo, ".git/modules/a/commondir", "../../../evil\n");
        });
        for file in files {
            let line = format!("put back core.fsmonitor in .git/{file}: git would run it on the host");
            assert!(notes.contains(&line), "{file} {notes:?}");
            let config = get(&repo, &format!(".git/{file}")).unwrap();
            assert!(config.contains("name = me") && !config.contains("evil"), "{config}");
        }
        assert_eq!(get(&repo, ".git/worktrees/w/commondir").unwrap(), "../..\n");
        assert_eq!(get(&repo, ".git/modules/a/commondir"), None);

        let notes = repo.after(|repo| {
            std::fs::remove_dir_all(repo.0.path().join(".git/modules/a")).unwrap();
            put(repo, ".git/worktrees/new/commondir", "../..\n");
            put(repo, ".git/modules/new/config", "[core]\n\tworktree = ../../../new\n");
        });
        assert_eq!(notes, ["created_executable_config: core.worktree in .git/modules/new/config"]);
        assert!(
            get(&repo, ".git/modules/new/config").unwrap().contains("worktree"),
            "submodules can be added"
        );
    }

    #[test]
    fn what_a_call_adds_does_not_hide_what_was_recorded() {
        let repo = Repo::with(PLAIN);
        put(&repo, ".git/modules/z/config", PLAIN);
        let notes = repo.after(|repo| {
            for number in 0..1000 {
                put(repo, &format!(".git/modules/a{number}/config"), "");
            }
            put(repo, ".git/modules/z/config", "[core]\n\tfsmonitor = evil\n\tpager = less\n");
        });
        assert!(notes.iter().any(|note| note.contains("put back core.fsmonitor")), "{notes:?}");
    }

    #[test]
    fn files_and_links_in_place_of_the_directory_are_put_back() {
        let top = |repo: &Repo| repo.0.path().join(".git");
        let repo = Repo::new();
        put(&repo, ".git", "gitdir: ../main/.git/worktrees/w\n");
        assert!(repo.after(|_| {}).is_empty());
        let changes: [&dyn Fn(&Repo); 3] = [
            &|repo| put(repo, ".git", "gitdir: evil\n"),
            &|repo| std::fs::remove_file(top(repo)).unwrap(),
            &|repo| {
                std::fs::remove_file(top(repo)).unwrap();
                symlink("evil", top(repo)).unwrap();
            },
        ];
        for change in changes {
            let notes = repo.after(change);
            assert!(notes.len() == 1 && notes[0].starts_with("put back .git (gitdir: ../main"), "{notes:?}");
            assert!(!top(&repo).is_symlink());
            assert_eq!(get(&repo, ".git").unwrap(), "gitdir: ../main/.git/worktrees/w\n");
        }
        let notes = repo.after(|repo| {
            std::fs::remove_file(top(repo)).unwrap();
            std::fs::create_dir(top(repo)).unwrap();
        });
        assert!(notes.len() == 1 && notes[0].starts_with("could not put back .git"), "{notes:?}");

        let repo = Repo::new();
        symlink("../real", top(&repo)).unwrap();
        assert!(repo.after(|_| {}).is_empty());
        let notes = repo.after(|repo| {
            std::fs::remove_file(top(repo)).unwrap();
            symlink("evil", top(repo)).unwrap();
        });
        assert!(notes.len() == 1 && notes[0].starts_with("put back .git"), "{notes:?}");
        assert_eq!(get(&repo, ".git").unwrap(), "gitdir: ../real\n");
    }

    #[test]
    fn a_directory_replaced_is_reported_clearly() {
        for link in [false, true] {
            let repo = Repo::with(PLAIN);
            let notes = repo.after(|repo| {
                let top = repo.0.path().join(".git");
                std::fs::rename(&top, repo.0.path().join("moved")).unwrap();
                if link {
                    symlink("moved", top).unwrap()
                } else {
                    std::fs::write(top, "gitdir: moved").unwrap()
                }
            });
            assert!(notes.len() == 1 && notes[0].starts_with("could not put back .git"), "{notes:?}");
            assert!(notes[0].contains(if link { "a symbolic link now" } else { "a file now" }), "{notes:?}");
        }
    }
}
