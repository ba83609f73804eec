//! Which files main reaches: Landlock.
//!
//! Rules name directories, because a rule on a file dies when the file is replaced. The exception is a directory that
//! holds a workspace (as the default home does): a rule there would open the workspace to main, so only the file itself
//! is named, and reading it again after it was replaced needs a new start. The same for a file directly below `/`.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::{ConfineError, Network, Plan};

/// ABI whose rights we ask for: 3 truncate, 4 TCP, 5 device ioctl, 6 scopes. What an older kernel lacks is named.
const WANTED: ABI = ABI::V6;

/// Read when there is a network to talk to: resolver, certificates, time zones, libraries the resolver loads late.
const NETWORK_DIRECTORIES: [&str; 14] = [
    "/etc",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/pki",
    "/usr/share/zoneinfo",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/usr/local/lib",
];

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landlock {
    /// Everything we asked for.
    Whole,
    /// What this older ABI knows.
    Partial(ABI),
    /// The kernel has none.
    Absent,
}

impl Landlock {
    pub(super) fn in_force(self) -> bool {
        match self {
            Self::Whole | Self::Partial(_) => true,
            Self::Absent => false,
        }
    }

    pub(super) fn missing(self) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Partial(abi) => {
                // What ABI 5 and 6 add (device ioctls, abstract sockets) the system call filter refuses anyway.
                let empties = (abi < ABI::V3).then_some("empty files of yours (not read them)");
                let listens = (abi < ABI::V4).then_some("listen on a port");
                let could: Vec<&str> = empties.into_iter().chain(listens).collect();
                if could.is_empty() {
                    return None;
                }
                Some(format!(
                    "this kernel has Landlock ABI {}: if main were taken over, it could {}; Linux 6.7 closes that",
                    format!("{abi:?}").trim_start_matches('V'),
                    could.join(" and ")
                ))
            }
            Self::Absent => Some(
                "this kernel has no Landlock: main could read your files if it were taken over; use a kernel from \
                 5.13 on with landlock in its `lsm=` list"
                    .to_owned(),
            ),
        }
    }
}

/// Builds the rules and puts them into force.
pub(super) fn restrict(plan: &Plan) -> Result<Landlock, ConfineError> {
    let step = "restrict files";
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::BindTcp))
        .and_then(|ruleset| ruleset.scope(Scope::AbstractUnixSocket))
        .and_then(Ruleset::create)
        .map_err(ConfineError::step(step))?;
    let status = rules(plan)?
        .into_iter()
        .try_fold(ruleset, Rule::add)?
        .restrict_self()
        .map_err(ConfineError::step(step))?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => Ok(Landlock::Whole),
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. })
            if effective_abi < WANTED =>
        {
            Ok(Landlock::Partial(effective_abi))
        }
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => {
            Ok(Landlock::Absent)
        }
        (status, landlock) => {
            Err(ConfineError::Step { step, cause: format!("{status:?} although it is {landlock:?}") })
        }
    }
}

/// One rule: a path that was opened, and what may be done below it.
struct Rule {
    path: PathFd,
    access: BitFlags<AccessFs>,
}

impl Rule {
    fn add(ruleset: RulesetCreated, rule: Self) -> Result<RulesetCreated, ConfineError> {
        ruleset
            .add_rule(PathBeneath::new(rule.path, rule.access))
            .map_err(ConfineError::step("add a rule for files"))
    }
}

fn rules(plan: &Plan) -> Result<Vec<Rule>, ConfineError> {
    let workspaces: Vec<PathBuf> = plan.workspaces.iter().map(|path| canonical(path)).collect();
    let mut rules = Vec::new();
    for state in &plan.state {
        let directory = canonical(state);
        if let Some(workspace) = workspaces.iter().find(|workspace| workspace.starts_with(&directory)) {
            return Err(ConfineError::Overlap { workspace: workspace.clone(), state: directory });
        }
        let path = PathFd::new(&directory).map_err(ConfineError::step("open the state directory"))?;
        rules.push(Rule { path, access: own() });
    }
    for file in &plan.reread {
        rules.extend(reread(file, &workspaces));
    }
    match plan.network {
        Network::None => {}
        Network::Connect => {
            let named = ["SSL_CERT_DIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
            for directory in NETWORK_DIRECTORIES.iter().map(PathBuf::from).chain(named) {
                rules.extend(existing(&directory, read_below(), &workspaces));
            }
            if let Some(bundle) = std::env::var_os("SSL_CERT_FILE") {
                rules.extend(reread(Path::new(&bundle), &workspaces));
            }
        }
    }
    Ok(rules)
}

/// The directory of a file, or where that holds a workspace the file alone. Links are followed one by one, because each
/// may be replaced (Kubernetes swaps the link, not the file).
fn reread(file: &Path, workspaces: &[PathBuf]) -> Vec<Rule> {
    let mut places = vec![file.to_path_buf(), canonical(file)];
    places.dedup();
    places
        .iter()
        .filter_map(|place| {
            let parent = canonical(place.parent()?);
            // The root directory is no place of ours: a rule there would open the whole file system.
            let own =
                parent.parent().is_some().then(|| existing(&parent, read_below(), workspaces)).flatten();
            own.or_else(|| existing(&canonical(place), AccessFs::ReadFile.into(), &[]))
        })
        .collect()
}

/// A rule for what exists and holds no workspace. What does not exist needs none.
fn existing(path: &Path, access: BitFlags<AccessFs>, workspaces: &[PathBuf]) -> Option<Rule> {
    let path = canonical(path);
    if workspaces.iter().any(|workspace| workspace.starts_with(&path)) {
        return None;
    }
    PathFd::new(&path).ok().map(|path| Rule { path, access })
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

fn read_below() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// Our own directory: files and directories, nothing that runs, links, or speaks.
fn own() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}
