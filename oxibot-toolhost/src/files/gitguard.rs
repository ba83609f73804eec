//! Compares the git repositories of the workspace before and after a call, and puts back what would make git run a
//! program on the host.
//!
//! A program may change a repository's configuration freely but for those keys, and its hooks not at all; a repository
//! that a call makes itself is left alone and reported. Repositories below the top of the workspace are looked at as far
//! as [`Walk`] finds them, each with its submodules and worktrees. The worker may not make symbolic links everywhere, nor
//! move anything to another directory: what would need that is reported, not put back.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::fault::Fault;
use super::gitconfig::{self, Entry};
use super::gitfiles::{COMMON, Config, OLD_REMOTES, Plain, Repository, look_at};
use super::githooks;
use super::gitimpostor;
use super::gitnested::Walk;
use super::text;
use super::workspace::{Workspace, look, open_name};
use super::write::{replace, target_in};

/// Notes of one call.
const MAX_NOTES: usize = 20;
/// What `git worktree add` writes into the `commondir` of a linked worktree.
const USUAL_COMMON: &[u8] = b"../..";

/// Bytes of hooks that are kept from before a call, of all repositories together.
const MAX_KEPT: u64 = 8 * 1024 * 1024;
/// Repositories below the top are looked for after each call; before one only if that is so long ago.
const FRESH: Duration = Duration::from_secs(60);

/// What was recorded. Calls may overlap: the first checkpoint of an overlapping group counts.
#[derive(Debug, Default)]
pub(super) struct GitGuard {
    /// By the directory that holds it, relative to the workspace.
    before: Option<BTreeMap<PathBuf, Repository>>,
    open: u32,
}

/// Where repositories are, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Repositories {
    walk: Walk,
    found: Vec<PathBuf>,
    at: Option<Instant>,
}

impl Repositories {
    fn look(&mut self, workspace: &Workspace) {
        self.found = self.walk.repositories(workspace);
        self.at = Some(Instant::now());
    }

    fn look_if_old(&mut self, workspace: &Workspace) {
        if self.at.is_none_or(|at| at.elapsed() >= FRESH) {
            self.look(workspace);
        }
    }
}

impl GitGuard {
    /// Records the state before a call.
    pub(super) fn checkpoint(&mut self, workspace: &Workspace, repositories: &mut Repositories) {
        if self.before.is_none() {
            repositories.look_if_old(workspace);
            self.before = Some(record(workspace, &repositories.found));
        }
        self.open = self.open.saturating_add(1);
    }

    /// Whether a call was recorded and not compared yet.
    pub(super) fn is_open(&self) -> bool {
        self.before.is_some()
    }

    /// Compares, puts back, and says what was done.
    pub(super) fn restore(&mut self, workspace: &Workspace, repositories: &mut Repositories) -> Vec<String> {
        let Some(before) = self.before.take() else {
            // The worker that recorded it has died.
            return vec![
                "could not compare the git repositories of the workspace: what they were before this call is not \
                 known. Look at .git/config and .git/hooks before you run git here"
                    .to_owned(),
            ];
        };
        repositories.look(workspace);
        let mut notes = Vec::new();
        let paths: BTreeSet<&Path> = before
            .keys()
            .map(PathBuf::as_path)
            .chain(repositories.found.iter().map(PathBuf::as_path))
            .collect();
        let mut room = MAX_KEPT;
        for path in paths {
            let Ok(root) = directory(workspace, path) else { continue };
            let old = before.get(path).unwrap_or(&Repository::Absent);
            let prefix = prefix(path);
            gitimpostor::replace(&root, old, &prefix, &mut notes);
            let (now, directory) = look_at(root.as_fd(), Some(old), &mut room);
            let place = Place { root, directory, prefix };
            compare(old, &now, &place, &mut notes);
        }
        let notes = most_important(notes);
        self.open = self.open.saturating_sub(1);
        if self.open > 0 {
            // What was created has been reported; what was changed has been put back.
            let now = notes.is_empty().then_some(before);
            self.before = Some(now.unwrap_or_else(|| record(workspace, &repositories.found)));
        }
        notes
    }
}

/// What was done before what was found: a call decides how much there is of the latter.
fn most_important(mut notes: Vec<String>) -> Vec<String> {
    notes.sort_by_key(|note| note.starts_with("created_executable_config"));
    let more = notes.len().saturating_sub(MAX_NOTES);
    if more > 0 {
        notes.truncate(MAX_NOTES);
        notes.push(format!("{more} more remarks about git repositories were left out"));
    }
    notes
}

fn record(workspace: &Workspace, found: &[PathBuf]) -> BTreeMap<PathBuf, Repository> {
    let mut room = MAX_KEPT;
    [PathBuf::from(".")]
        .iter()
        .chain(found)
        .filter_map(|path| {
            let root = directory(workspace, path).ok()?;
            Some((path.clone(), look_at(root.as_fd(), None, &mut room).0))
        })
        .collect()
}

fn directory(workspace: &Workspace, path: &Path) -> nix::Result<OwnedFd> {
    open_name(workspace.handle(), path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
}

/// A directory of the workspace before the name of something in it, safe to show; nothing for the workspace itself.
fn prefix(path: &Path) -> String {
    let path = path.strip_prefix(".").unwrap_or(path);
    if path.as_os_str().is_empty() {
        return String::new();
    }
    format!("{}/", text::cut(&text::name(path.as_os_str().as_bytes()), 200))
}

/// The directory that holds a repository.
struct Place {
    root: OwnedFd,
    /// `.git` in it, when that is a directory.
    directory: Option<OwnedFd>,
    prefix: String,
}

impl Place {
    /// A path below `.git`, safe to show.
    fn shown(&self, file: &str) -> String {
        let name = text::name(file.as_bytes());
        format!("{}.git/{}", self.prefix, text::cut(&name, 200))
    }

    /// `.git` itself.
    fn top(&self) -> String {
        format!("{}.git", self.prefix)
    }
}

fn compare(before: &Repository, now: &Repository, place: &Place, notes: &mut Vec<String>) {
    match (before, now) {
        (
            Repository::Here {
                identity: _,
                files: old,
                plain: old_plain,
                hooks: old_hooks,
                waiting: old_waiting,
            },
            Repository::Here { identity: _, files, plain, hooks, waiting },
        ) => {
            for (file, new) in files {
                match old.get(file) {
                    Some(old) => put_back(file, old, new, place, notes),
                    // A submodule or worktree of the call's own making.
                    None => note_created(file, new, place, notes),
                }
            }
            for (file, new) in plain {
                match old_plain.get(file) {
                    Some(old) => put_back_plain(file, old, new, place, notes),
                    None if is_old_remote(file) => put_back_plain(file, &Plain::Absent, new, place, notes),
                    None => note_created_plain(file, new, place, notes),
                }
            }
            for (at, new) in hooks {
                let old = old_hooks.get(at).unwrap_or(&None);
                githooks::put_back(place.directory.as_ref(), at, &place.shown(at), old, new, notes);
            }
            note_waiting(old_waiting, waiting, place, notes);
        }
        (
            Repository::Absent | Repository::Odd,
            Repository::Here { identity: _, files, plain, hooks, waiting },
        ) => {
            note_waiting(&[], waiting, place, notes);
            for (file, config) in files {
                note_created(file, config, place, notes);
            }
            for (file, content) in plain {
                note_created_plain(file, content, place, notes);
            }
            for (at, new) in hooks {
                githooks::note_created(&place.shown(at), new, notes);
            }
        }
        (Repository::Absent | Repository::Odd | Repository::Here { .. }, Repository::Absent) => {}
        (Repository::Odd, Repository::Odd) => {}
        (Repository::Absent | Repository::Odd, Repository::File(bytes))
            if !place.prefix.is_empty() && is_inner(bytes) => {}
        (
            Repository::Absent | Repository::Odd,
            Repository::File(_) | Repository::Link(_) | Repository::Odd,
        ) => {
            notes
                .push(format!("created_executable_config: {} now names a repository elsewhere", place.top()));
        }
        (Repository::Here { .. }, Repository::File(_) | Repository::Link(_) | Repository::Odd) => {
            notes.push(format!(
                "could not put back {}: it was a directory and is {} now; git would use another repository on the \
                 host. Do not run git here before you have looked at it",
                place.top(),
                now.what()
            ));
        }
        (Repository::File(_) | Repository::Link(_), _) if before == now => {}
        (Repository::File(bytes), _) => put_back_top(bytes, before, now, place, notes),
        (Repository::Link(target), _) => {
            // To git a file that names the directory is the same as a link to it.
            let mut bytes = b"gitdir: ".to_vec();
            bytes.extend_from_slice(target);
            bytes.push(b'\n');
            put_back_top(&bytes, before, now, place, notes);
        }
    }
}

/// Nobody makes these any more.
fn is_old_remote(file: &str) -> bool {
    file.split_once('/').is_some_and(|(directory, _)| OLD_REMOTES.contains(&directory))
}

/// A rebase that a call began and did not finish is its own; that it would go on to run something is told.
fn note_waiting(old: &[String], new: &[String], place: &Place, notes: &mut Vec<String>) {
    let added = new.iter().filter(|command| !old.contains(command));
    notes.extend(added.map(|command| {
        let command = text::name(command.as_bytes());
        format!(
            "created_executable_config: git rebase --continue in {} would run: {}",
            place.top(),
            text::cut(&command, 200)
        )
    }));
}

/// Puts the file `.git` back.
fn put_back_top(bytes: &[u8], before: &Repository, now: &Repository, place: &Place, notes: &mut Vec<String>) {
    let top = place.top();
    let written = match now {
        // A directory would have to be removed or renamed.
        Repository::Here { .. } => Err(Fault::errno("write", &top, Errno::EISDIR)),
        Repository::Absent | Repository::File(_) | Repository::Link(_) | Repository::Odd => place
            .root
            .try_clone()
            .map_err(|error| Fault::io("write", &top, &error))
            .and_then(|fd| replace(&target_in(fd, ".git", &top), bytes)),
    };
    let shown = text::name(bytes.trim_ascii());
    let (was, shown) = (before.what(), text::cut(&shown, 200));
    notes.push(match written {
        Ok(_) => format!("put back {top} ({shown}): it was {was}, and git would use another repository on the host"),
        Err(_) => format!(
            "could not put back {top}: it was {was} ({shown}) and is {} now; git would use another repository on the \
             host. Do not run git here before you have looked at it",
            now.what()
        ),
    });
}

fn note_created(file: &str, config: &Config, place: &Place, notes: &mut Vec<String>) {
    match config {
        Config::Absent => {}
        Config::Odd => {
            notes.push(format!("created_executable_config: {} cannot be understood", place.shown(file)));
        }
        Config::Read { dangerous, .. } => notes.extend(
            dangerous
                .iter()
                .filter(|entry| !entry.names_a_path())
                .map(|entry| format!("created_executable_config: {} in {}", entry.name(), place.shown(file))),
        ),
    }
}

fn note_created_plain(file: &str, content: &Plain, place: &Place, notes: &mut Vec<String>) {
    match content {
        Plain::Absent => {}
        Plain::Read(bytes) if file != COMMON && bytes.trim_ascii() == USUAL_COMMON => {}
        Plain::Read(_) | Plain::Odd => {
            notes.push(format!("created_executable_config: {} names other configuration", place.shown(file)));
        }
    }
}

/// Whether a file `.git` is what git makes for a submodule or a linked worktree: it names a place inside a repository that
/// is looked at itself.
pub(super) fn is_inner(bytes: &[u8]) -> bool {
    let named = std::str::from_utf8(bytes).ok().and_then(|text| text.trim().strip_prefix("gitdir: "));
    let inner = named.and_then(|path| {
        ["/.git/modules/", "/.git/worktrees/"].iter().find_map(|inside| path.split_once(inside))
    });
    inner.is_some_and(|(_, below)| !below.is_empty() && !below.split('/').any(|part| part == ".."))
}

/// The directory of a file below `.git`, and its name there. `None` when the directory is gone, and the file with it.
fn parent<'a>(
    directory: Option<&OwnedFd>,
    file: &'a str,
    shown: &str,
) -> Result<Option<(OwnedFd, &'a str)>, Fault> {
    let fd = directory.ok_or_else(|| Fault::errno("write", shown, Errno::ENOENT))?;
    let Some((above, name)) = file.rsplit_once('/') else {
        unlock(fd);
        return Ok(Some((fd.try_clone().map_err(|error| Fault::io("write", shown, &error))?, file)));
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    match open_name(fd.as_fd(), Path::new(above), flags, Mode::empty()) {
        Ok(fd) => {
            unlock(&fd);
            Ok(Some((fd, name)))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Fault::errno("write", shown, errno)),
    }
}

/// Lets its owner write into a directory again: a call that forbids it would keep what it changed.
fn unlock(directory: &OwnedFd) {
    let Ok(stat) = fstat(directory) else { return };
    let mode = Mode::from_bits_truncate(stat.st_mode);
    if !mode.contains(Mode::S_IRWXU) {
        // Should it fail, so does the writing, which is told.
        let _ = fchmod(directory, mode | Mode::S_IRWXU);
    }
}

/// As [`put_back`], for a file that is one path: `commondir` makes git read the configuration of that directory.
fn put_back_plain(file: &str, old: &Plain, new: &Plain, place: &Place, notes: &mut Vec<String>) {
    if old == new {
        return;
    }
    let shown = place.shown(file);
    let done = match (parent(place.directory.as_ref(), file, &shown), old) {
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

fn put_back(file: &str, old: &Config, new: &Config, place: &Place, notes: &mut Vec<String>) {
    let nothing = Vec::new();
    let (wanted, whole) = match old {
        Config::Absent => (&nothing, None),
        // It was not understood before the call either: nothing to compare with.
        Config::Odd => return,
        Config::Read { bytes, dangerous } => (dangerous, Some(bytes)),
    };
    let shown = place.shown(file);
    let named = |entry: &Entry| (entry.name(), entry.consequence());
    let (content, names) = match (new, whole) {
        (Config::Absent, _) if wanted.is_empty() => return,
        (Config::Absent, _) => (gitconfig::put_back(&[], &[], wanted), wanted.iter().map(named).collect()),
        (Config::Read { dangerous, .. }, _) if gitconfig::same(wanted, dangerous) => return,
        (Config::Read { bytes, dangerous }, _) => {
            let names = gitconfig::changed(wanted, dangerous).into_iter().map(named).collect();
            let mut wanted = wanted.clone();
            wanted.extend(whole.map(|was| gitconfig::replaced(was, bytes, dangerous)).unwrap_or_default());
            (gitconfig::put_back(bytes, dangerous, &wanted), names)
        }
        (Config::Odd, Some(bytes)) => {
            (bytes.clone(), BTreeSet::from([("all of it".to_owned(), gitconfig::RUN)]))
        }
        (Config::Odd, None) => {
            notes.push(format!("created_executable_config: {shown} cannot be understood"));
            return;
        }
    };
    let written = match parent(place.directory.as_ref(), file, &shown) {
        // A submodule or worktree was removed as a whole.
        Ok(None) => return,
        Ok(Some((fd, name))) => replace(&target_in(fd, name, &shown), &content),
        Err(fault) => Err(fault),
    };
    let verb = if written.is_ok() { "put back" } else { "could not put back" };
    // A set, because an altered key is found twice: as it was and as it is.
    let names: BTreeSet<(String, &str)> = names;
    notes.extend(names.iter().map(|(name, why)| format!("{verb} {name} in {shown}: {why}")));
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
            let (mut guard, mut repositories) = (GitGuard::default(), Repositories::default());
            guard.checkpoint(&self.1, &mut repositories);
            act(self);
            guard.restore(&self.1, &mut repositories)
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
    fn remotes_in_files_of_their_own_are_put_back() {
        let repo = Repo::with(PLAIN);
        let file = |name: &str| repo.0.path().join(".git").join(name);
        std::fs::create_dir(file("branches")).unwrap();
        std::fs::write(file("branches/old"), "https://host.example/a\n").unwrap();
        let notes = repo.after(|_| {
            std::fs::create_dir(file("remotes")).unwrap();
            std::fs::write(file("remotes/origin"), "URL: ext::sh -c x\n").unwrap();
            std::fs::write(file("branches/old"), "../evil\n").unwrap();
        });
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(!file("remotes/origin").exists());
        assert_eq!(std::fs::read_to_string(file("branches/old")).unwrap(), "https://host.example/a\n");
    }

    #[test]
    fn address_that_was_replaced_by_a_path_is_there_again() {
        let config = "[remote \"origin\"]\n\turl = https://host.example/a\n\tfetch = +refs/*\n";
        let repo = Repo::with(config);
        let notes = repo.after(|repo| {
            repo.write(
                "[remote \"origin\"]\n\turl = ../evil\n\tfetch = +refs/*\n[remote \"b\"]\nurl = host:b\n",
            );
        });
        assert!(notes.len() == 1 && notes[0].contains("put back remote.origin.url"), "{notes:?}");
        let found = repo.read();
        assert!(found.contains("https://host.example/a") && found.contains("host:b"), "{found}");
        assert!(!found.contains("evil"), "{found}");
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
        let (mut guard, mut repositories) = (GitGuard::default(), Repositories::default());
        guard.checkpoint(&repo.1, &mut repositories);
        repo.write("[core]\n\tfsmonitor = evil\n\tpager = less\n");
        guard.checkpoint(&repo.1, &mut repositories);
        assert_eq!(guard.restore(&repo.1, &mut repositories).len(), 1);
        repo.write("[core]\n\tfsmonitor = again\n\tpager = less\n");
        assert_eq!(guard.restore(&repo.1, &mut repositories).len(), 1);
        assert!(!repo.read().contains("fsmonitor"));
        let notes = guard.restore(&repo.1, &mut repositories);
        assert!(notes.len() == 1 && notes[0].starts_with("could not compare"), "nothing recorded: {notes:?}");
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
    fn a_directory_replaced_is_put_back_where_it_is_found() {
        for (link, aside) in [(false, true), (true, true), (false, false), (true, false)] {
            let repo = Repo::with(PLAIN);
            std::fs::create_dir(repo.0.path().join("deep")).unwrap();
            let top = repo.0.path().join(".git");
            let moved = if aside { "moved" } else { "deep/moved" };
            let notes = repo.after(|repo| {
                std::fs::rename(&top, repo.0.path().join(moved)).unwrap();
                let config = format!("{PLAIN}\tfsmonitor = evil\n");
                std::fs::write(repo.0.path().join(moved).join("config"), config).unwrap();
                if link {
                    symlink(moved, &top).unwrap()
                } else {
                    std::fs::write(&top, format!("gitdir: {moved}")).unwrap()
                }
            });
            let what = if link { "a symbolic link" } else { "a file" };
            assert!(notes.iter().any(|note| note.contains(what)), "{notes:?}");
            if aside {
                assert!(notes.iter().any(|note| note.starts_with("put back .git: ")), "{notes:?}");
                assert!(notes.iter().any(|note| note.starts_with("put back core.fsmonitor")), "{notes:?}");
                assert!(top.is_dir() && !top.is_symlink() && !repo.read().contains("evil"));
            } else {
                assert!(notes.len() == 1 && notes[0].starts_with("removed .git: "), "{notes:?}");
                assert!(top.symlink_metadata().is_err(), "no impostor is left");
            }
        }
    }

    #[test]
    fn repositories_below_the_top_are_compared_too() {
        let repo = Repo::new();
        put(&repo, "sub/one/.git/config", PLAIN);
        put(&repo, "two/.git", "gitdir: ../main/.git/worktrees/two\n");
        let notes = repo.after(|repo| {
            put(repo, "sub/one/.git/config", "[core]\n\tfsmonitor = evil\n\tpager = less\n");
            put(repo, "two/.git", "gitdir: ../evil\n");
        });
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes.iter().any(|note| note.starts_with("put back core.fsmonitor in sub/one/.git/config:")));
        assert!(notes.iter().any(|note| note.starts_with("put back two/.git (gitdir: ../main")));
        assert!(!get(&repo, "sub/one/.git/config").unwrap().contains("evil"));
        assert!(!get(&repo, "two/.git").unwrap().contains("evil"));
        let notes = repo.after(|repo| {
            put(repo, "three/.git/config", "[core]\n\tfsmonitor = x\n");
            put(repo, "three/.git/hooks/pre-commit", "x");
            put(repo, "four/.git", "gitdir: ../three/.git/worktrees/four\n");
            put(repo, "five/.git", "gitdir: ../three/.git/worktrees/../../../plain\n");
            put(repo, "six/.git/config", "[core]\n\tbare = false\n");
        });
        assert_eq!(
            notes,
            [
                "created_executable_config: five/.git now names a repository elsewhere",
                "created_executable_config: core.fsmonitor in three/.git/config",
                "created_executable_config: three/.git/hooks/pre-commit",
            ]
        );
        assert!(get(&repo, "three/.git/config").unwrap().contains("fsmonitor"), "its own: left alone");
        assert!(repo.after(|repo| std::fs::remove_dir_all(repo.0.path().join("sub")).unwrap()).is_empty());
    }

    #[test]
    fn hooks_are_put_back_with_their_modes_and_new_ones_removed() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |repo: &Repo, name: &str| {
            std::fs::metadata(repo.0.path().join(name)).unwrap().permissions().mode() & 0o777
        };
        let chmod = |repo: &Repo, name: &str, mode| {
            std::fs::set_permissions(repo.0.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        for at in [".git/hooks", "sub/.git/hooks", ".git/modules/m/hooks", "sub/.git/modules/a/b/hooks"] {
            let repo = Repo::new();
            put(&repo, &format!("{at}/../HEAD"), "ref: refs/heads/main\n");
            for name in ["changed", "removed", "enabled", "linked", "update.sample"] {
                put(&repo, &format!("{at}/{name}"), "good");
                chmod(&repo, &format!("{at}/{name}"), if name == "enabled" { 0o644 } else { 0o755 });
            }
            let large = "x".repeat(100 * 1024);
            put(&repo, &format!("{at}/large"), &large);
            let notes = repo.after(|repo| {
                put(repo, &format!("{at}/changed"), "evil");
                std::fs::remove_file(repo.0.path().join(format!("{at}/removed"))).unwrap();
                chmod(repo, &format!("{at}/enabled"), 0o755);
                std::fs::remove_file(repo.0.path().join(format!("{at}/linked"))).unwrap();
                symlink("changed", repo.0.path().join(format!("{at}/linked"))).unwrap();
                put(repo, &format!("{at}/added"), "evil");
                symlink("x", repo.0.path().join(format!("{at}/post-commit"))).unwrap();
                put(repo, &format!("{at}/update.sample"), "anything");
                put(repo, &format!("{at}/large"), &large.replace('x', "y"));
            });
            for (name, verb) in [
                ("changed", "put back"),
                ("removed", "put back"),
                ("enabled", "put back"),
                ("linked", "put back"),
                ("added", "removed"),
                ("post-commit", "removed"),
                ("large", "could not put back"),
            ] {
                let line = format!("{verb} {at}/{name}: git would run it on the host");
                assert!(notes.contains(&line), "{line}: {notes:?}");
            }
            assert_eq!(notes.len(), 7, "{notes:?}");
            for (name, wanted) in
                [("changed", 0o755), ("removed", 0o755), ("enabled", 0o644), ("linked", 0o755)]
            {
                let name = format!("{at}/{name}");
                assert_eq!(
                    (get(&repo, &name).as_deref(), mode(&repo, &name)),
                    (Some("good"), wanted),
                    "{name}"
                );
                assert!(!repo.0.path().join(&name).is_symlink());
            }
            for name in ["added", "post-commit", "large"] {
                assert!(repo.0.path().join(at).join(name).symlink_metadata().is_err(), "{name} does not run");
            }
        }
    }

    #[test]
    fn a_directory_of_hooks_and_a_link_to_one_cannot_take_each_others_place() {
        for at in [".git/hooks", ".git/modules/m/hooks"] {
            let repo = Repo::new();
            put(&repo, &format!("{at}/../HEAD"), "ref: refs/heads/main\n");
            put(&repo, &format!("{at}/pre-commit"), "good");
            put(&repo, "evil/pre-commit", "evil");
            let path = |repo: &Repo| repo.0.path().join(at);
            let notes = repo.after(|repo| {
                std::fs::rename(path(repo), repo.0.path().join("away")).unwrap();
                symlink(repo.0.path().join("evil"), path(repo)).unwrap();
            });
            assert!(notes.iter().any(|note| note.starts_with(&format!("put back {at}: "))), "{notes:?}");
            assert!(!path(&repo).is_symlink());
            assert_eq!(get(&repo, &format!("{at}/pre-commit")).as_deref(), Some("good"));
            assert_eq!(
                get(&repo, "evil/pre-commit").as_deref(),
                Some("evil"),
                "what it led to is not written"
            );

            std::fs::remove_dir_all(path(&repo)).unwrap();
            symlink("scripts", path(&repo)).unwrap();
            assert!(repo.after(|_| {}).is_empty());
            let notes = repo.after(|repo| {
                std::fs::remove_file(path(repo)).unwrap();
                put(repo, &format!("{at}/pre-commit"), "evil");
            });
            assert!(
                notes.iter().any(|note| note.starts_with(&format!("could not put back {at}: "))),
                "{notes:?}"
            );
            assert_eq!(get(&repo, &format!("{at}/pre-commit")), None, "it does not run");
        }
    }

    #[test]
    fn a_directory_made_unwritable_keeps_nothing() {
        let repo = Repo::with(PLAIN);
        let notes = repo.after(|repo| {
            repo.write(&format!("{PLAIN}[core]\n\tfsmonitor = evil\n"));
            for (name, mode) in [(".git/config", 0o000), (".git", 0o555)] {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                std::fs::set_permissions(repo.0.path().join(name), mode).unwrap();
            }
        });
        assert!(notes.iter().all(|note| note.starts_with("put back")) && !notes.is_empty(), "{notes:?}");
        assert!(!repo.read().contains("evil"), "{}", repo.read());
    }

    #[test]
    fn a_hook_is_found_among_thousands_of_files() {
        let repo = Repo::with(PLAIN);
        put(&repo, ".git/hooks/zz", "mine");
        let notes = repo.after(|repo| {
            for number in 0..2000 {
                put(repo, &format!(".git/hooks/a{number}"), "");
            }
            put(repo, ".git/hooks/zz", "evil");
            put(repo, ".git/hooks/pre-commit", "evil");
        });
        assert_eq!(get(&repo, ".git/hooks/zz").as_deref(), Some("mine"));
        assert_eq!(get(&repo, ".git/hooks/pre-commit"), None);
        assert!(notes.len() <= MAX_NOTES + 1 && notes.last().unwrap().contains("more remarks"), "{notes:?}");
    }

    #[test]
    fn what_was_put_back_is_told_before_what_was_created() {
        let repo = Repo::with(PLAIN);
        let notes = repo.after(|repo| {
            for number in 0..30 {
                put(repo, &format!("a{number}/.git/hooks/pre-commit"), "");
            }
            repo.write("[core]\n\tfsmonitor = evil\n\tpager = less\n");
        });
        assert!(notes[0].starts_with("put back core.fsmonitor"), "{notes:?}");
    }

    #[test]
    fn commands_of_an_interrupted_rebase_are_told() {
        let repo = Repo::with(PLAIN);
        put(&repo, ".git/rebase-merge/git-rebase-todo", "exec mine\n");
        let todo = "pick 123 x\nexec mine\n  x ./evil -now\nexecute 5\n# exec no\n";
        let notes = repo.after(|repo| put(repo, ".git/rebase-merge/git-rebase-todo", todo));
        assert_eq!(
            notes,
            ["created_executable_config: git rebase --continue in .git would run: ./evil -now"]
        );
    }
}
