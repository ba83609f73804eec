//! Who may read and write what is ours: home, configuration, secrets, state, audit, programs, and every directory above.
//!
//! Whoever may write one of them decides what OxiBot does; whoever may read one of them has what was said or a key. The
//! rules are those by which the toolhost's program is trusted before it is started.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, geteuid};

use crate::config::file::shell;
use crate::config::{Loaded, Paths};
use crate::trust::is_private_group;

use super::report::{Check, State};

/// Most entries of a directory that are looked at.
const MOST: usize = 1000;

/// What was found of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileFacts {
    /// Our effective user.
    pub(super) us: u32,
    /// Its name, for `chown`.
    pub(super) name: String,
    /// Why there is no home, or what is in it.
    pub(super) places: Result<Places, String>,
    /// The program that runs, with everything above it; the toolhost's is checked when it is started.
    pub(super) program: Option<Seen>,
    /// Directories above home, configuration and program, each once.
    pub(super) above: Vec<Seen>,
}

/// What is in the home, and around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) home: Seen,
    pub(super) config: Seen,
    pub(super) state: Seen,
    pub(super) audit: Seen,
    pub(super) run: Seen,
    pub(super) workspace: Seen,
    /// Files that variables name.
    pub(super) secrets: Vec<Seen>,
}

/// One path as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    pub(super) what: What,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing.
    Absent,
    /// Something that cannot be looked at.
    Hidden(String),
    /// This.
    There {
        /// Its owner.
        uid: u32,
        /// The owner's name, looked up while that is possible.
        owner: String,
        /// Permission bits, sticky and set-ID included.
        mode: u32,
        /// Its group is its owner's own, as Debian gives each user one.
        private_group: bool,
        /// Names below it that somebody else may read or write.
        loose: Vec<String>,
    },
}

impl Seen {
    fn at(path: &Path) -> Self {
        Self::of(path, Vec::new())
    }

    /// As [`Seen::at`], with the files directly below.
    fn deep(path: &Path) -> Self {
        let loose = std::fs::read_dir(path).map_or_else(
            |_| Vec::new(),
            |entries| {
                entries
                    .take(MOST)
                    .filter_map(|entry| {
                        let entry = entry.ok()?;
                        let about = entry.metadata().ok()?;
                        let open = others(about.mode(), private(&about)) != 0 && !about.is_symlink();
                        open.then(|| entry.file_name().to_string_lossy().into_owned())
                    })
                    .collect()
            },
        );
        Self::of(path, loose)
    }

    fn of(path: &Path, loose: Vec<String>) -> Self {
        let what = match path.metadata() {
            Ok(about) => What::There {
                uid: about.uid(),
                owner: name_of(about.uid()),
                mode: about.mode() & 0o7777,
                private_group: private(&about),
                loose,
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => What::Absent,
            Err(error) => What::Hidden(error.to_string()),
        };
        Self { path: path.to_path_buf(), what }
    }
}

fn private(about: &Metadata) -> bool {
    about.mode() & 0o070 == 0 || is_private_group(about.uid(), about.gid())
}

/// The bits that let somebody else in.
fn others(mode: u32, private_group: bool) -> u32 {
    mode & if private_group { 0o007 } else { 0o077 }
}

impl FileFacts {
    /// Looks at everything; opens nothing.
    pub(super) fn gather(paths: Result<&Paths, &str>, loaded: Option<&Loaded>) -> Self {
        let us = geteuid();
        let name = match User::from_uid(us) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => us.to_string(),
        };
        let program = std::fs::read_link("/proc/self/exe").ok();
        let workspace = |paths: &Paths| loaded.map_or(paths, |loaded| &loaded.paths).workspace.clone();
        let places = paths.map_err(str::to_owned).map(|paths| Places {
            home: Seen::at(&paths.home),
            config: Seen::at(&paths.config_file),
            state: Seen::deep(&paths.state),
            audit: Seen::deep(&paths.home.join("audit")),
            run: Seen::at(&paths.home.join("run")),
            workspace: Seen::at(&workspace(paths)),
            secrets: loaded
                .map_or(&[][..], |loaded| &loaded.secret_files)
                .iter()
                .map(|path| Seen::at(path))
                .collect(),
        });
        let starts =
            paths.ok().into_iter().flat_map(|paths| [&paths.home, &paths.config_file]).chain(&program);
        let mut above: Vec<PathBuf> = starts
            .map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()))
            .flat_map(|path| path.ancestors().skip(1).map(Path::to_path_buf).collect::<Vec<_>>())
            // The home is looked at by itself, with more to say.
            .filter(|path| paths.map_or(true, |paths| *path != paths.home))
            .collect();
        above.sort();
        above.dedup();
        Self {
            us: us.as_raw(),
            name,
            places,
            program: program.as_deref().map(Seen::at),
            above: above.iter().map(|path| Seen::at(path)).collect(),
        }
    }

    fn trusted(&self, uid: u32) -> bool {
        uid == 0 || uid == self.us
    }

    /// A stranger's file: root may use it and obeys that stranger, for anybody else something is wrong.
    fn stranger(&self) -> State {
        if self.us == 0 { State::Warn } else { State::Fail }
    }
}

/// The home.
pub(super) fn home(facts: &FileFacts) -> Vec<Check> {
    match &facts.places {
        Ok(places) => {
            vec![directory("files.home", &places.home, facts, "whoever may write here decides what runs")]
        }
        Err(why) => {
            vec![Check::fail("files.home", why, "nothing can be kept", "set OXIBOT_HOME or give --home DIR")]
        }
    }
}

/// The configuration file.
pub(super) fn config(facts: &FileFacts) -> Vec<Check> {
    let Ok(places) = &facts.places else { return Vec::new() };
    let id = "files.config";
    let seen = &places.config;
    if let Some(check) = foreign(id, seen, facts) {
        return vec![check];
    }
    vec![match &seen.what {
        What::There { mode, private_group, .. } if others(*mode, *private_group) & 0o022 != 0 => Check::fail(
            id,
            stands(seen),
            "others may decide what tools may do and where messages go",
            format!("chmod 600 {}", shell(&seen.path)),
        ),
        What::There { mode, private_group, .. } if others(*mode, *private_group) != 0 => Check::info(
            id,
            stands(seen),
            "others may read it: no key can be put into it as it is",
            format!("chmod 600 {}", shell(&seen.path)),
        ),
        What::There { .. } => Check::ok(id, stands(seen)),
        What::Absent => Check::info(id, stands(seen), "defaults hold", "oxibot onboard"),
        What::Hidden(_) => Check::fail(id, stands(seen), "nothing starts", give(seen, facts)),
    }]
}

/// Files with secrets that variables name.
pub(super) fn secrets(facts: &FileFacts) -> Vec<Check> {
    let Ok(places) = &facts.places else { return Vec::new() };
    let id = "files.secrets";
    let bad: Vec<&Seen> = places
        .secrets
        .iter()
        .filter(|seen| match &seen.what {
            What::There { uid, mode, private_group, .. } => {
                !facts.trusted(*uid) || others(*mode, *private_group) != 0
            }
            What::Absent | What::Hidden(_) => false,
        })
        .collect();
    if bad.is_empty() {
        return vec![Check::ok(
            id,
            match places.secrets.len() {
                0 => "no secret is read from a file of its own".to_owned(),
                1 => "1 file, closed to others".to_owned(),
                many => format!("{many} files, closed to others"),
            },
        )];
    }
    let commands: Vec<String> = bad.iter().map(|seen| format!("chmod 600 {}", shell(&seen.path))).collect();
    vec![Check::warn(
        id,
        bad.iter().map(|seen| stands(seen)).collect::<Vec<_>>().join("; "),
        "others of this machine have that key, unless a mount or a container keeps them out",
        commands.join(" && "),
    )]
}

/// Conversations.
pub(super) fn state(facts: &FileFacts) -> Vec<Check> {
    facts
        .places
        .iter()
        .map(|places| directory("files.state", &places.state, facts, "conversations are kept here"))
        .collect()
}

/// What was done.
pub(super) fn audit(facts: &FileFacts) -> Vec<Check> {
    facts
        .places
        .iter()
        .map(|places| directory("files.audit", &places.audit, facts, "what tools did is recorded here"))
        .collect()
}

/// Sockets of running toolhosts and the emergency stop.
pub(super) fn run(facts: &FileFacts) -> Vec<Check> {
    facts
        .places
        .iter()
        .map(|places| directory("files.run", &places.run, facts, "running calls are stopped from here"))
        .collect()
}

/// The default workspace. What is inside is nobody's business here.
pub(super) fn workspace(facts: &FileFacts) -> Vec<Check> {
    let Ok(places) = &facts.places else { return Vec::new() };
    let id = "files.workspace";
    let seen = &places.workspace;
    vec![match &seen.what {
        What::There { mode, private_group, .. }
            if others(*mode, *private_group) & 0o022 != 0 && mode & 0o1000 == 0 =>
        {
            Check::warn(
                id,
                stands(seen),
                "others of this machine may put instructions and programs where the assistant works",
                format!("chmod go-w {}", shell(&seen.path)),
            )
        }
        What::There { .. } => Check::ok(id, stands(seen)),
        What::Absent => Check::info(id, stands(seen), "it is made when it is first used", ""),
        What::Hidden(_) => Check::warn(id, stands(seen), "tools cannot use it either", give(seen, facts)),
    }]
}

/// The running program.
pub(super) fn program(facts: &FileFacts) -> Vec<Check> {
    let id = "files.program";
    let Some(seen) = &facts.program else {
        return vec![Check::warn(
            id,
            "/proc/self/exe cannot be read",
            "which program runs is not known",
            "as root: mount -t proc proc /proc",
        )];
    };
    if let Some(check) = foreign(id, seen, facts) {
        return vec![check];
    }
    vec![match &seen.what {
        What::There { mode, private_group, .. } if others(*mode, *private_group) & 0o022 != 0 => Check::fail(
            id,
            stands(seen),
            "others may replace it, and with it everything it does",
            format!("chmod go-w {}", shell(&seen.path)),
        ),
        What::There { mode, .. } if mode & 0o6000 != 0 => Check::fail(
            id,
            stands(seen),
            "it changes its user or group when it starts, which it is not made for",
            format!("chmod ug-s {}", shell(&seen.path)),
        ),
        What::There { .. } => Check::ok(id, stands(seen)),
        What::Absent | What::Hidden(_) => {
            Check::warn(id, stands(seen), "it was replaced or removed while it runs", "start it again")
        }
    }]
}

/// Every directory above: who may rename what we trust.
pub(super) fn above(facts: &FileFacts) -> Vec<Check> {
    let id = "files.above";
    let mut state = State::Ok;
    let (mut found, mut commands) = (Vec::new(), Vec::new());
    for seen in &facts.above {
        let What::There { uid, mode, private_group, .. } = &seen.what else { continue };
        let (worse, command) = if !facts.trusted(*uid) {
            (facts.stranger(), give(seen, facts))
        } else if others(*mode, *private_group) & 0o022 != 0 && mode & 0o1000 == 0 {
            (State::Fail, format!("chmod go-w {}", shell(&seen.path)))
        } else {
            continue;
        };
        if worse == State::Fail || state == State::Ok {
            state = worse;
        }
        found.push(stands(seen));
        commands.push(command);
    }
    vec![if found.is_empty() {
        Check::ok(id, "every directory above home, configuration and program belongs to root or to you")
    } else {
        Check::new(
            id,
            state,
            found.join("; "),
            "whoever may write there can put another program or configuration in place of ours",
            commands.join(" && "),
        )
    }]
}

/// A directory of our own, 0700.
fn directory(id: &str, seen: &Seen, facts: &FileFacts, why: &str) -> Check {
    if let Some(check) = foreign(id, seen, facts) {
        return check;
    }
    match &seen.what {
        What::There { mode, private_group, .. } if others(*mode, *private_group) & 0o022 != 0 => Check::fail(
            id,
            stands(seen),
            format!("others may write it: {why}"),
            format!("chmod 700 {}", shell(&seen.path)),
        ),
        What::There { mode, private_group, .. } if others(*mode, *private_group) != 0 => Check::warn(
            id,
            stands(seen),
            format!("others of this machine may look into it: {why}"),
            format!("chmod 700 {}", shell(&seen.path)),
        ),
        What::There { loose, .. } if !loose.is_empty() => Check::info(
            id,
            format!("{}; closed, but open to others below: {}", stands(seen), few(loose)),
            "whoever gets past the directory may read them",
            format!("chmod -R go= {}", shell(&seen.path)),
        ),
        What::There { .. } => Check::ok(id, stands(seen)),
        What::Absent => Check::info(id, stands(seen), "it is made when it is first used", ""),
        What::Hidden(_) => Check::fail(id, stands(seen), "OxiBot cannot use it", give(seen, facts)),
    }
}

/// A check that says whose it is, where it is a stranger's.
fn foreign(id: &str, seen: &Seen, facts: &FileFacts) -> Option<Check> {
    let What::There { uid, .. } = &seen.what else { return None };
    if facts.trusted(*uid) {
        return None;
    }
    let consequence = "its owner can change it, and so what OxiBot does with your rights";
    Some(Check::new(id, facts.stranger(), stands(seen), consequence, give(seen, facts)))
}

fn give(seen: &Seen, facts: &FileFacts) -> String {
    format!("as root: chown {} {}", facts.name, shell(&seen.path))
}

/// Path, owner and mode.
fn stands(seen: &Seen) -> String {
    let path = seen.path.display();
    match &seen.what {
        What::There { owner, mode, .. } => format!("{path} is {owner}'s, mode {mode:04o}"),
        What::Absent => format!("{path} is not there"),
        What::Hidden(why) => format!("{path}: {why}"),
    }
}

fn name_of(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("user {uid}"),
    }
}

fn few(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    match names.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u32 = 48_213;
    const STRANGER: u32 = 48_214;

    fn seen(path: &str, uid: u32, mode: u32) -> Seen {
        Seen {
            path: path.into(),
            what: What::There { uid, owner: "o".into(), mode, private_group: false, loose: Vec::new() },
        }
    }

    fn good() -> FileFacts {
        FileFacts {
            us: US,
            name: "me".into(),
            places: Ok(Places {
                home: seen("/h", US, 0o700),
                config: seen("/h/config.json", US, 0o600),
                state: seen("/h/state", US, 0o700),
                audit: seen("/h/audit", US, 0o700),
                run: seen("/h/run", US, 0o700),
                workspace: seen("/h/workspace", US, 0o755),
                secrets: vec![seen("/h/key", US, 0o600)],
            }),
            program: Some(seen("/usr/bin/oxibot", 0, 0o755)),
            above: vec![seen("/", 0, 0o755), seen("/tmp", 0, 0o1777)],
        }
    }

    /// A table entry, and how to reach what it looks at.
    type Entry = (fn(&FileFacts) -> Vec<Check>, fn(&mut Places) -> &mut Seen);

    fn with(change: impl FnOnce(&mut Places)) -> FileFacts {
        let mut facts = good();
        change(facts.places.as_mut().unwrap());
        facts
    }

    fn one(checks: Vec<Check>) -> Check {
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    fn set(seen: &mut Seen, owner: u32, bits: u32) {
        seen.what = What::There {
            uid: owner,
            owner: "o".into(),
            mode: bits,
            private_group: false,
            loose: Vec::new(),
        };
    }

    #[test]
    fn everything_closed_is_ok() {
        for check in [home, config, secrets, state, audit, run, workspace, program, above] {
            let check = one(check(&good()));
            assert_eq!(check.state, State::Ok, "{check:?}");
        }
    }

    #[test]
    fn our_directories_are_for_nobody_else() {
        let entries: [Entry; 4] = [
            (home, |places| &mut places.home),
            (state, |places| &mut places.state),
            (audit, |places| &mut places.audit),
            (run, |places| &mut places.run),
        ];
        for (check, place) in entries {
            let at = |uid, mode| one(check(&with(|places| set(place(places), uid, mode))));
            assert_eq!(at(US, 0o700).state, State::Ok);
            assert_eq!(at(0, 0o700).state, State::Ok);
            assert_eq!(at(US, 0o755).state, State::Warn);
            assert!(at(US, 0o755).remedy.starts_with("chmod 700 /h"));
            assert_eq!(at(US, 0o770).state, State::Fail);
            assert_eq!(at(US, 0o707).state, State::Fail);
            let foreign = at(STRANGER, 0o700);
            assert_eq!(foreign.state, State::Fail);
            assert!(foreign.remedy.starts_with("as root: chown me /h"), "{foreign:?}");
            let absent = one(check(&with(|places| place(places).what = What::Absent)));
            assert_eq!(absent.state, State::Info);
        }
        let none = FileFacts { places: Err("HOME is not set".into()), ..good() };
        assert_eq!(one(home(&none)).state, State::Fail);
    }

    #[test]
    fn a_private_group_is_no_stranger() {
        let facts = with(|places| {
            places.home.what = What::There {
                uid: US,
                owner: "o".into(),
                mode: 0o770,
                private_group: true,
                loose: Vec::new(),
            };
        });
        assert_eq!(one(home(&facts)).state, State::Ok);
    }

    #[test]
    fn open_files_in_a_closed_directory_are_worth_knowing() {
        let facts = with(|places| {
            let loose = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
            places.state.what =
                What::There { uid: US, owner: "o".into(), mode: 0o700, private_group: false, loose };
        });
        let check = one(state(&facts));
        assert_eq!(check.state, State::Info);
        assert!(check.found.ends_with("a, b, c and 1 more"), "{check:?}");
    }

    #[test]
    fn root_is_warned_of_a_strangers_home_and_a_user_stopped() {
        let facts = with(|places| set(&mut places.home, STRANGER, 0o700));
        assert_eq!(one(home(&facts)).state, State::Fail);
        assert_eq!(one(home(&FileFacts { us: 0, ..facts })).state, State::Warn);
    }

    #[test]
    fn configuration_others_may_write_fails() {
        let at = |uid, mode| one(config(&with(|places| set(&mut places.config, uid, mode)))).state;
        assert_eq!(at(US, 0o600), State::Ok);
        assert_eq!(at(US, 0o644), State::Info, "a secret in it is refused when it is read");
        assert_eq!(at(US, 0o660), State::Fail);
        assert_eq!(at(STRANGER, 0o600), State::Fail);
        assert_eq!(one(config(&with(|places| places.config.what = What::Absent))).state, State::Info);
    }

    #[test]
    fn secrets_and_workspace_open_to_others_are_doubtful() {
        let check = one(secrets(&with(|places| set(&mut places.secrets[0], US, 0o644))));
        assert_eq!((check.state, check.remedy.as_str()), (State::Warn, "chmod 600 /h/key"));
        let at = |mode| one(workspace(&with(|places| set(&mut places.workspace, US, mode)))).state;
        assert_eq!((at(0o755), at(0o777), at(0o1777)), (State::Ok, State::Warn, State::Ok));
    }

    #[test]
    fn a_program_others_may_replace_fails() {
        let at =
            |uid, mode| one(program(&FileFacts { program: Some(seen("/p", uid, mode)), ..good() })).state;
        assert_eq!(at(0, 0o755), State::Ok);
        assert_eq!(at(0, 0o775), State::Fail);
        assert_eq!(at(0, 0o4755), State::Fail);
        assert_eq!(at(STRANGER, 0o755), State::Fail);
        assert_eq!(one(program(&FileFacts { program: None, ..good() })).state, State::Warn);
    }

    #[test]
    fn a_directory_above_that_others_may_write_fails() {
        let at = |uid, mode| one(above(&FileFacts { above: vec![seen("/d", uid, mode)], ..good() }));
        assert_eq!(at(0, 0o1777).state, State::Ok, "sticky: what is ours cannot be renamed");
        let open = at(0, 0o777);
        assert_eq!((open.state, open.remedy.as_str()), (State::Fail, "chmod go-w /d"));
        assert_eq!(at(STRANGER, 0o755).state, State::Fail);
    }
}
