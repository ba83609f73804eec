//! Which directories may be a workspace. Decides on canonical paths and a description of the machine; the lookup of
//! both is kept apart so that the rules are tested without root.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oxibot_proto::settings::ToolhostSettings;

use crate::wire::{Profile, Wanted};

/// Directories that are never a workspace, nor anything below them.
const SYSTEM: [&str; 13] = [
    "/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/boot", "/dev", "/proc", "/sys",
    "/run",
];
/// Directories that hold other people's directories: not a workspace themselves, what is below them may be.
const SHARED: [&str; 11] =
    ["/", "/home", "/root", "/var", "/tmp", "/var/tmp", "/opt", "/srv", "/mnt", "/media", "/var/lib"];
/// Directories of OxiBot's home that nobody else is ever shown.
const KEPT: [&str; 3] = ["audit", "run", "state"];
/// Workspaces of one toolhost, and with them zygotes.
pub(crate) const MAX_WORKSPACES: usize = 256;

/// A directory cannot be a workspace.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("cannot use {path} as a workspace: {cause}")]
    Unreachable { path: String, cause: String },
    #[error(
        "cannot use {path} as a workspace: it is {what}; name a directory of its own, for example {path}/work"
    )]
    NotOwn { path: String, what: &'static str },
    #[error("cannot use {path} as a workspace: it is {what}; choose a directory below your home")]
    System { path: String, what: &'static str },
    #[error("cannot use {path} as a workspace: it holds {what}, which cannot be hidden there")]
    HoldsOurs { path: String, what: &'static str },
    #[error(
        "cannot grant {path} by sandbox.read or sandbox.write: it holds {what}; name what calls need of it"
    )]
    Grants { path: String, what: &'static str },
}

/// What of this machine is ours and must stay out of reach.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Home directory of the user we run as.
    pub(crate) user_home: Option<PathBuf>,
    /// OxiBot's home: state, audit, run.
    pub(crate) home: Option<PathBuf>,
    /// Configuration file.
    pub(crate) config: Option<PathBuf>,
    /// Directory of our programs.
    pub(crate) programs: Option<PathBuf>,
}

/// A directory that may be a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workspace {
    /// Canonical path: what the wall opens.
    pub(crate) path: PathBuf,
    /// As it was configured, so that a request may use either spelling.
    pub(crate) spelling: PathBuf,
    /// What of ours lies inside and has to be covered there.
    pub(crate) covered: Vec<PathBuf>,
}

impl Surroundings {
    /// Looks everything up. Paths that do not exist yet are kept as they are.
    pub(crate) fn look(home: Option<&Path>, config: Option<&Path>) -> Self {
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Self {
            user_home: user_home().map(|home| canonical(&home)),
            home: home.map(canonical),
            config: config.map(canonical),
            programs: std::fs::read_link("/proc/self/exe")
                .ok()
                .and_then(|exe| exe.parent().map(Path::to_owned)),
        }
    }
}

/// Home directory of the user we run as, from the password database: the environment is not believed.
pub(crate) fn user_home() -> Option<PathBuf> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir)
}

/// The configured workspace as a path: `~` is the user's home.
pub(crate) fn expand(text: &str, user_home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix('~'), user_home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        (Some(_) | None, _) => PathBuf::from(text),
    }
}

/// Makes the directory, private, if it is missing.
pub(crate) fn create(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Admits one directory, which must exist.
pub(crate) fn admit(spelling: &Path, around: &Surroundings) -> Result<Workspace, Refused> {
    let shown = || spelling.display().to_string();
    let unreachable = |cause: String| Refused::Unreachable { path: shown(), cause };
    if !spelling.is_absolute() {
        return Err(unreachable("it is not absolute".to_owned()));
    }
    let path = spelling.canonicalize().map_err(|error| unreachable(error.to_string()))?;
    if !path.is_dir() {
        return Err(unreachable("it is not a directory".to_owned()));
    }
    let covered = judge(&path, around)?;
    Ok(Workspace { path, spelling: spelling.to_owned(), covered })
}

/// The rules, on canonical paths. Answers what has to be covered.
pub(super) fn judge(path: &Path, around: &Surroundings) -> Result<Vec<PathBuf>, Refused> {
    let shown = || path.display().to_string();
    if path == Path::new("/") {
        return Err(Refused::System { path: shown(), what: "the root directory" });
    }
    if SYSTEM.iter().any(|system| path.starts_with(system)) {
        return Err(Refused::System { path: shown(), what: "a system directory" });
    }
    let is_home = around.user_home.as_deref() == Some(path)
        || path == Path::new("/root")
        || path.parent() == Some(Path::new("/home"));
    if is_home {
        return Err(Refused::NotOwn { path: shown(), what: "a home directory" });
    }
    if SHARED.iter().any(|shared| path == Path::new(shared)) {
        return Err(Refused::NotOwn { path: shown(), what: "a directory that others share" });
    }
    if around.user_home.as_deref().is_some_and(|home| home.starts_with(path)) {
        return Err(Refused::NotOwn { path: shown(), what: "a directory above your home" });
    }
    let mut covered = Vec::new();
    if let Some(home) = &around.home {
        // A workspace inside the home is ordinary (~/.oxibot/workspace), but not inside what the home keeps for us.
        let ours = KEPT.iter().any(|name| path.starts_with(home.join(name)));
        if path == home.as_path() || ours {
            return Err(Refused::HoldsOurs { path: shown(), what: "OxiBot's own state" });
        }
        if home.starts_with(path) {
            covered.push(home.clone());
        }
    }
    if let Some(config) = &around.config
        && config.starts_with(path)
        && !covered.iter().any(|cover| config.starts_with(cover))
    {
        match config.parent() {
            Some(directory) if directory != path => covered.push(directory.to_owned()),
            Some(_) | None => {
                return Err(Refused::HoldsOurs { path: shown(), what: "the configuration file" });
            }
        }
    }
    if let Some(programs) = &around.programs
        && programs.starts_with(path)
        && !covered.iter().any(|cover| programs.starts_with(cover))
    {
        if programs.as_path() == path {
            return Err(Refused::HoldsOurs { path: shown(), what: "OxiBot's programs" });
        }
        covered.push(programs.clone());
    }
    Ok(covered)
}

impl Workspace {
    /// Whether a request means this workspace.
    pub(crate) fn answers_to(&self, asked: &str) -> bool {
        let asked = Path::new(asked);
        asked == self.path || asked == self.spelling
    }

    /// What the zygote of this workspace builds.
    pub(crate) fn profile(
        &self,
        settings: &ToolhostSettings,
        around: &Surroundings,
        wanted: Wanted,
    ) -> Result<Profile, Refused> {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let listed = |paths: &[String]| -> Vec<PathBuf> {
            paths.iter().map(|path| expand(path, around.user_home.as_deref())).collect()
        };
        let (read, write) = (listed(&settings.sandbox.read), listed(&settings.sandbox.write));
        let mut covered = self.covered.clone();
        for ours in ours_within(&read, &write, around)? {
            if !covered.iter().any(|cover| ours.starts_with(cover)) {
                covered.push(ours);
            }
        }
        // With the rest of the file system in view, ours has to be covered wherever it lies.
        if !settings.tools.restrict_to_workspace {
            let config_dir = around.config.as_deref().and_then(Path::parent).map(Path::to_owned);
            for ours in [around.home.clone(), config_dir].into_iter().flatten() {
                if !covered.contains(&ours) && !ours.starts_with(&self.path) {
                    covered.push(ours);
                }
            }
        }
        let all = |paths: &[PathBuf]| paths.iter().map(|path| bytes(path)).collect();
        Ok(Profile {
            workspace: bytes(&self.path),
            read: all(&read),
            write: all(&write),
            covered: covered.iter().map(|path| bytes(path)).collect(),
            restrict_to_workspace: settings.tools.restrict_to_workspace,
            protect: settings.sandbox.protect.clone(),
            wanted,
            tmp_mb: settings.limits.tmp_mb,
            limits: settings.limits,
            proxy: settings.tools.exec.network.is_on(),
        })
    }

    /// Path as a string of bytes, for environment and audit.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        OsString::from(&self.path).into_vec()
    }
}

/// What of ours `sandbox.read` and `sandbox.write` would show and has to be covered there. A path that is ours, or would
/// show the configuration file beside it, is refused.
fn ours_within(read: &[PathBuf], write: &[PathBuf], around: &Surroundings) -> Result<Vec<PathBuf>, Refused> {
    let mut covered = Vec::new();
    for (path, writable) in read.iter().map(|path| (path, false)).chain(write.iter().map(|path| (path, true)))
    {
        let shown = path.display().to_string();
        // As the wall will see it: a link on the way is refused there.
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let holds = |what| Err(Refused::Grants { path: shown.clone(), what });
        if let Some(home) = &around.home {
            let ours = KEPT.iter().any(|name| path.starts_with(home.join(name)));
            if path == *home || ours {
                return holds("OxiBot's own state");
            }
            if home.starts_with(&path) {
                covered.push(home.clone());
            }
        }
        if let Some(config) = &around.config
            && config.starts_with(&path)
            && !covered.iter().any(|cover| config.starts_with(cover))
        {
            match config.parent() {
                Some(directory) if directory != path => covered.push(directory.to_owned()),
                Some(_) | None => return holds("the configuration file"),
            }
        }
        if let Some(programs) = &around.programs
            && writable
            && programs.starts_with(&path)
        {
            if *programs == path {
                return holds("OxiBot's programs");
            }
            covered.push(programs.clone());
        }
    }
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Surroundings {
        Surroundings {
            user_home: Some("/home/u".into()),
            home: Some("/home/u/.oxibot".into()),
            config: Some("/home/u/.oxibot/config.json".into()),
            programs: Some("/usr/bin".into()),
        }
    }

    #[test]
    fn system_and_home_directories_are_refused() {
        for path in [
            "/",
            "/usr",
            "/usr/share/x",
            "/etc",
            "/proc/1",
            "/home",
            "/home/u",
            "/home/other",
            "/root",
            "/var",
            "/tmp",
            "/run/user/1000",
            "/home/u/.oxibot",
            "/home/u/.oxibot/audit",
            "/home/u/.oxibot/run/x",
        ] {
            assert!(judge(Path::new(path), &around()).is_err(), "{path}");
        }
    }

    #[test]
    fn ordinary_directories_are_admitted_with_nothing_to_cover() {
        for path in
            ["/home/u/work", "/home/u/.oxibot/workspace", "/tmp/x", "/var/lib/oxibot/work", "/usrlocal"]
        {
            assert_eq!(judge(Path::new(path), &around()), Ok(Vec::new()), "{path}");
        }
    }

    #[test]
    fn what_is_ours_inside_is_covered_or_the_workspace_refused() {
        let mut around = around();
        around.home = Some("/w/.oxibot".into());
        around.config = Some("/w/.oxibot/config.json".into());
        around.programs = Some("/w/target/debug".into());
        assert_eq!(
            judge(Path::new("/w"), &around),
            Ok(vec![PathBuf::from("/w/.oxibot"), PathBuf::from("/w/target/debug")])
        );
        assert!(matches!(
            judge(Path::new("/w/target/debug"), &around),
            Err(Refused::HoldsOurs { what: "OxiBot's programs", .. })
        ));
        around.config = Some("/w/config.json".into());
        assert!(matches!(judge(Path::new("/w"), &around), Err(Refused::HoldsOurs { .. })));
    }

    #[test]
    fn directory_above_the_home_is_refused() {
        let mut around = around();
        around.user_home = Some("/data/homes/u".into());
        assert!(judge(Path::new("/data"), &around).is_err());
    }

    #[test]
    fn missing_relative_and_plain_files_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [Path::new("work"), Path::new("/no/such"), file.path()] {
            assert!(matches!(admit(path, &around()), Err(Refused::Unreachable { .. })), "{path:?}");
        }
    }

    #[test]
    fn tilde_is_the_home_of_the_user_only() {
        let home = Some(Path::new("/home/u"));
        assert_eq!(expand("~/w", home), Path::new("/home/u/w"));
        assert_eq!(expand("~", home), Path::new("/home/u/"));
        assert_eq!(expand("~other/w", home), Path::new("~other/w"));
        assert_eq!(expand("/a~", home), Path::new("/a~"));
    }

    #[test]
    fn what_is_ours_in_other_granted_paths_is_covered_or_the_path_refused() {
        let around = around();
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let within = |read: &[&str], write: &[&str]| ours_within(&paths(read), &paths(write), &around);
        let home = PathBuf::from("/home/u/.oxibot");
        assert_eq!(within(&["/home/u"], &[]), Ok(vec![home.clone()]));
        assert_eq!(within(&[], &["/home"]), Ok(vec![home]));
        assert_eq!(within(&["/opt", "/home/u/.cargo", "/home/u/.oxibot/skills"], &["/srv"]), Ok(vec![]));
        assert_eq!(within(&["/usr/bin"], &[]), Ok(vec![]), "programs may be read");
        for ours in ["/home/u/.oxibot", "/home/u/.oxibot/audit", "/home/u/.oxibot/run/x"] {
            assert!(matches!(within(&[ours], &[]), Err(Refused::Grants { .. })), "{ours}");
            assert!(matches!(within(&[], &[ours]), Err(Refused::Grants { .. })), "{ours}");
        }
        assert!(matches!(within(&[], &["/usr/bin"]), Err(Refused::Grants { what: "OxiBot's programs", .. })));
        let elsewhere = Surroundings { config: Some("/etc/oxi/config.json".into()), ..around };
        assert_eq!(ours_within(&paths(&["/etc"]), &[], &elsewhere), Ok(vec!["/etc/oxi".into()]));
        assert!(ours_within(&paths(&["/etc/oxi"]), &[], &elsewhere).is_err());
    }
}
