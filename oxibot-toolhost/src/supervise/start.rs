//! The start of the supervisor, in one fixed order: clean up, nursery, settings, workspaces, first zygote, required
//! level, open what is needed, prove the wall by attack, shut in, serve. Read from top to bottom it is the argument why nothing a peer sends is
//! read by a process that could do harm.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::geteuid;
use oxibot_proto::codec;
use oxibot_proto::message::{CloseReason, Level, ProtectionState, Proven, ToMain, Wall};
use oxibot_proto::redact::Redactor;
use oxibot_proto::settings::{Audit as AuditSettings, ToolhostSettings};

use super::approvals::Approvals;
use super::arguments::{self, ArgumentsError, Purpose, Serve};
use super::audit::{Audit, SelfAttack, Unwritable};
use super::battery::Unproven;
use super::broker::{Broker, Fatal, Fixed, Parts};
use super::confine::{self, Kept, Unconfined};
use super::control::{self, ControlSocket, StopSwitch};
use super::environment::Machine;
use super::people::People;
use super::place::Place;
use super::prove::Proof;
use super::reader::Reader;
use super::recorded::digest_of_parts;
use super::senders::Senders;
use super::settings::{self, SettingsError};
use super::sockets::Listing;
use super::web::Web;
use super::workspace::{self, MAX_WORKSPACES, Refused, Surroundings, Workspace};
use super::{log, process, prove};
use crate::wall::{Nursery, SCOPES_ABI};
use crate::wire::{Obtained, WallFault, Wanted};
use crate::{shell, sys};

/// Exit status for a configuration that cannot be served.
const CONFIGURATION: u8 = 78;

/// Why the supervisor did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Workspace(#[from] Refused),
    #[error("cannot use {0} workspaces: the limit is {MAX_WORKSPACES}")]
    TooManyWorkspaces(usize),
    #[error("cannot run without a sandbox as root: give --no-sandbox twice if that is what you want")]
    RootWithoutSandbox,
    #[error(transparent)]
    Wall(#[from] WallFault),
    #[error("{0}")]
    BelowRequired(String),
    #[error(
        "cannot start: tools.bash.network lists hosts, which needs a network namespace for each call, and --no-sandbox \
         gives every call the whole network; give one of the two up"
    )]
    NetworkWithoutSandbox,
    #[error("cannot {what}: {cause}")]
    Prepare { what: &'static str, cause: String },
    #[error(transparent)]
    Unconfined(#[from] Unconfined),
    #[error(transparent)]
    Audit(#[from] Unwritable),
    #[error(transparent)]
    Unproven(#[from] Unproven),
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl StartError {
    /// Exit status: 2 usage, 78 configuration, 70 ours.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Arguments(_) => 2,
            Self::Settings(_)
            | Self::Workspace(_)
            | Self::TooManyWorkspaces(_)
            | Self::RootWithoutSandbox
            | Self::BelowRequired(_)
            | Self::NetworkWithoutSandbox
            | Self::Audit(_)
            | Self::Prepare { .. } => CONFIGURATION,
            Self::Wall(_) | Self::Unconfined(_) | Self::Unproven(_) | Self::Fatal(_) => 70,
        }
    }
}

fn prepare<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> StartError {
    move |cause| StartError::Prepare { what, cause: cause.to_string() }
}

/// Why serving ended, and whether main was told of it. Then main says it, where it is seen, and nobody says it twice.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: StartError,
    pub(crate) told: bool,
}

impl<E: Into<StartError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), told: false }
    }
}

/// Everything from the first instruction to the end of main's connection.
pub(crate) fn serve(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failed> {
    let arguments = arguments::serve(arguments)?;
    let (main, web) = take_descriptors(arguments.web)?;
    let telling = main.try_clone().map_err(prepare("keep main's socket"))?;
    let broker =
        begin(arguments, main, web).map_err(|error| Failed { told: tell(telling, &error), error })?;
    Ok(broker.serve()?)
}

/// Tells main why it is not served. `false` when it is gone: then standard error has to do.
fn tell(main: OwnedFd, error: &StartError) -> bool {
    let reason = CloseReason::CannotStart {
        reason: error.to_string(),
        configuration: error.status() == CONFIGURATION,
    };
    codec::frame(&ToMain::Bye(reason))
        .is_ok_and(|bytes| std::os::unix::net::UnixStream::from(main).write_all(&bytes).is_ok())
}

/// Everything before the first message.
fn begin(arguments: Serve, main: OwnedFd, web: Option<OwnedFd>) -> Result<Broker, StartError> {
    // Started by descriptor, so the kernel has no better name than its number.
    let _ = nix::sys::prctl::set_name(c"oxibot-toolhost");
    // Ctrl-C in main's terminal cancels a call; it must not end the broker. EPERM: already a session of its own.
    let _ = nix::unistd::setsid();
    let wanted = wanted(&arguments)?;

    // The nursery first, so that it never holds anything that follows.
    let mut nursery = Nursery::start()?;
    // Where a command comes at once, a reader is made beside everything else; a conversation may wait for long before its
    // first, and a reader that waits costs megabytes. Without one commands are blocked, each saying why.
    let reader = match arguments.purpose {
        Purpose::OneShot | Purpose::Judge => {
            nursery.reader().inspect_err(|fault| log::always(&fault.to_string())).ok()
        }
        Purpose::LongLived | Purpose::Attack => None,
    };
    let settings = settings::read(arguments.config.as_deref())?;
    let reader = Reader::new(reader, &settings.policy);
    // Before anything is looked up: a home that comes into being later would lie uncovered in a workspace around it.
    if let Some(home) = &arguments.home {
        workspace::create(home).map_err(prepare("make the home directory"))?;
    }
    let around = Surroundings::look(arguments.home.as_deref(), arguments.config.as_deref());
    let workspaces = workspaces(&arguments, &settings, &around)?;

    // Only there is a network namespace for each call, in which nothing but its proxy leads out.
    let listed = settings.tools.exec.network.is_on();
    let require = match wanted {
        Wanted::Off if listed => return Err(StartError::NetworkWithoutSandbox),
        Wanted::Off => Level::Off,
        Wanted::Strongest | Wanted::WithoutNamespaces if listed => Level::Full,
        Wanted::Strongest | Wanted::WithoutNamespaces => settings.sandbox.require,
    };
    let now = Instant::now();
    let mut places: Vec<Place> = workspaces
        .into_iter()
        .map(|workspace| {
            let profile = workspace.profile(&settings, &around, wanted)?;
            Ok(Place::new(workspace, profile, require, now))
        })
        .collect::<Result<_, Refused>>()?;
    // Only what stays speaks for more than the person who started it.
    let people = match arguments.purpose {
        Purpose::LongLived => People::granted(&settings, &around, wanted)?,
        Purpose::OneShot | Purpose::Judge | Purpose::Attack => None,
    };
    let only_judges = arguments.purpose == Purpose::Judge;
    let mut wall = if only_judges {
        // Nothing will run, so nothing has to hold; and a machine without a wall is told what would be refused.
        Wall { level: Level::Off, landlock_abi: 0, protections: Vec::new(), proven: None }
    } else {
        first_wall(&mut places, &mut nursery, require, &settings)?
    };

    // What is still needed is opened now; afterwards there is no way to open anything.
    let name = start_name();
    let signals = signals()?;
    let mut open = Opened::at(around.home.as_deref(), &name, &settings.audit)?;
    let redactor = Redactor::load().map_err(prepare("use the shapes of keys"))?;
    open.audit.redact_with(&redactor);
    // The attackers' targets are among what was opened, and some have to be made: not possible once shut in.
    let proof = prove::prove(&arguments, &around, &settings, &mut places, &name);
    wall.proven = places.first().and_then(Place::proven);
    told_of(&proof, &wall, &mut open)?;
    let proof = proof?;
    let policy = number(&settings).map_err(prepare("number the policy"))?;
    let approvals = Approvals::new(settings.approvals.mode, policy);
    let random = File::open("/dev/urandom").map_err(prepare("open /dev/urandom"))?;
    let senders = Senders::open(around.home.as_deref(), settings.limits.senders)
        .map_err(prepare("open the count of calls"))?;
    let fixed = Fixed {
        people,
        machine: Machine::look(),
        redactor,
        null: process::null().map_err(prepare("open /dev/null"))?,
        battery: proof.battery,
        only_judges,
        settings,
        require,
        id_prefix: name,
        wall,
    };
    let listing = Listing::open();
    let (run, rotated) = (open.run.as_ref(), open.audit.rotated());
    confine::confine(&Kept { run, rotated, counts: senders.directory() })?;
    open.audit.start(fixed.wall.level, fixed.wall.proven, &fixed.wall.protections)?;

    Ok(Broker::new(Parts {
        fixed,
        nursery,
        reader,
        places,
        main,
        web: Web::new(web),
        audit: open.audit,
        stop: StopSwitch::new(open.run, open.home),
        control: open.control,
        range: proof.range,
        signals,
        listing,
        approvals,
        senders,
        random,
    }))
}

/// Number of the policy an approval is bound to: of everything configured, and of the rules that come with this version.
fn number(settings: &ToolhostSettings) -> serde_json::Result<String> {
    Ok(digest_of_parts(&[shell::STANDARD.as_bytes(), &serde_json::to_vec(settings)?]))
}

/// Records what the attacks at this start came to. Where one got through, it is the last record.
fn told_of(proof: &Result<Proof, Unproven>, wall: &Wall, open: &mut Opened) -> Result<(), StartError> {
    let level = wall.level;
    match (proof, wall.proven) {
        (Err(unproven), _) => {
            if let Some(control) = &open.control {
                control.remove();
            }
            let detail = unproven.to_string();
            let attack = SelfAttack { result: "broken", level, detail: Some(&detail) };
            open.audit.self_attack(attack).and_then(|()| open.audit.stop())?;
        }
        (Ok(_), Some(Proven::Start)) => {
            open.audit.self_attack(SelfAttack { result: "held", level, detail: None })?;
        }
        (Ok(_), Some(Proven::Recorded)) => {
            open.audit.self_attack(SelfAttack { result: "recorded", level, detail: None })?;
        }
        (Ok(_), None) => {}
    }
    Ok(())
}

/// Main's socket and the one for requests of the web, with nothing left but them and standard error.
fn take_descriptors(web: bool) -> Result<(OwnedFd, Option<OwnedFd>), StartError> {
    let what = "clean up the descriptors";
    sys::close_from(3).map_err(prepare(what))?;
    let main = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().map_err(prepare(what))?;
    let web = web
        .then(|| std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned())
        .transpose()
        .map_err(prepare(what))?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(prepare(what))?;
    nix::unistd::dup2_stdin(&null).map_err(prepare(what))?;
    nix::unistd::dup2_stdout(&null).map_err(prepare(what))?;
    let is_socket =
        |fd: &OwnedFd| nix::sys::socket::getsockopt(fd, nix::sys::socket::sockopt::SockType).is_ok();
    if !is_socket(&main) {
        return Err(StartError::Arguments(ArgumentsError::NoSocket));
    }
    if web.as_ref().is_some_and(|web| !is_socket(web)) {
        return Err(StartError::Arguments(ArgumentsError::FetchSocket));
    }
    Ok((main, web))
}

fn wanted(arguments: &Serve) -> Result<Wanted, StartError> {
    match (arguments.no_sandbox, arguments.without_namespaces) {
        (0, false) => Ok(Wanted::Strongest),
        (0, true) => Ok(Wanted::WithoutNamespaces),
        (1, _) if geteuid().is_root() => Err(StartError::RootWithoutSandbox),
        (1.., _) => {
            log::always("********************************************************************");
            log::always("* NO SANDBOX: programs the model starts can do whatever you can do *");
            log::always("********************************************************************");
            Ok(Wanted::Off)
        }
    }
}

/// Named on the command line first, then configured; the first is the default.
fn workspaces(
    arguments: &Serve,
    settings: &ToolhostSettings,
    around: &Surroundings,
) -> Result<Vec<Workspace>, StartError> {
    let mut admitted: Vec<Workspace> = Vec::new();
    for named in &arguments.workspaces {
        let workspace = workspace::admit(named, around)?;
        if !admitted.iter().any(|known| known.path == workspace.path) {
            admitted.push(workspace);
        }
    }
    let configured: Vec<PathBuf> =
        match (settings.workspaces.is_empty(), &around.home, workspace::user_home()) {
            (false, _, home) => {
                settings.workspaces.iter().map(|w| workspace::expand(w, home.as_deref())).collect()
            }
            (true, Some(home), _) => vec![home.join("workspace")],
            (true, None, Some(home)) => vec![home.join(".oxibot/workspace")],
            (true, None, None) => Vec::new(),
        };
    for path in &configured {
        // A person named another one: the configured one is not made for the occasion, and not an error either.
        let spare = !arguments.workspaces.is_empty();
        if !spare {
            workspace::create(path).map_err(|error| Refused::Unreachable {
                path: path.display().to_string(),
                cause: error.to_string(),
            })?;
        }
        match workspace::admit(path, around) {
            Ok(workspace) if !admitted.iter().any(|known| known.path == workspace.path) => {
                admitted.push(workspace)
            }
            Ok(_) => {}
            Err(_) if spare => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    match admitted.len() {
        0 => Err(StartError::Prepare {
            what: "find a workspace",
            cause: "none is configured; set agents.defaults.workspace or give --workspace".to_owned(),
        }),
        many if many > MAX_WORKSPACES => Err(StartError::TooManyWorkspaces(many)),
        _ => Ok(admitted),
    }
}

/// Starts the default workspace's zygote and reports what holds there; below `require` nothing starts.
fn first_wall(
    places: &mut [Place],
    nursery: &mut Nursery,
    require: Level,
    settings: &ToolhostSettings,
) -> Result<Wall, StartError> {
    let Some(place) = places.first_mut() else {
        return Err(StartError::Prepare { what: "find a workspace", cause: "there is none".to_owned() });
    };
    // Accepted at any level here, so that a refusal can say what is missing.
    let obtained = place.ensure(nursery, Level::Off, None)?.obtained().clone();
    if obtained.level < require {
        return Err(StartError::BelowRequired(below_required(&obtained, require, settings)));
    }
    let Obtained { level, landlock_abi, protections, remedy: _ } = obtained;
    Ok(Wall { level, landlock_abi, protections, proven: None })
}

/// What is missing, the one command that gives it, and the setting that accepts less.
fn below_required(obtained: &Obtained, require: Level, settings: &ToolhostSettings) -> String {
    // Asked for by the list of hosts and not by `sandbox.require`.
    let by_network = settings.sandbox.require < require;
    let asks = match by_network {
        true => format!("tools.bash.network lists hosts, which needs level \"{}\",", require.name()),
        false => format!("sandbox.require is \"{}\"", require.name()),
    };
    let mut text = format!("cannot start: {asks} and only \"{}\" is to be had here", obtained.level.name());
    // Namespaces are missing together, for one reason.
    let mut missing: Vec<(&str, Vec<&str>)> = Vec::new();
    for protection in obtained.protections.iter().filter(|p| p.state != ProtectionState::Active) {
        match missing.iter_mut().find(|(detail, _)| *detail == protection.detail) {
            Some((_, names)) => names.push(&protection.name),
            None => missing.push((&protection.detail, vec![&protection.name])),
        }
    }
    for (detail, names) in missing {
        text.push_str(&format!("\n  missing: {}: {detail}", names.join(", ")));
    }
    // Namespaces give every level; a newer kernel gives `kernel` without them.
    if !obtained.remedy.is_empty() {
        text.push_str(&format!("\n  to get it: {}", obtained.remedy));
    }
    let newer = obtained.level == Level::Reduced && obtained.landlock_abi < SCOPES_ABI;
    match require {
        Level::Kernel if newer => {
            text.push_str(
                "\n  or, without namespaces: a kernel of version 6.12 or newer with lsm=landlock,...",
            );
        }
        Level::Full | Level::Kernel | Level::Reduced | Level::Off => {}
    }
    if by_network {
        text.push_str("\n  to do without: oxibot config, \"tools\": {\"bash\": {\"network\": \"none\"}}");
    }
    if obtained.level < settings.sandbox.require || !by_network {
        text.push_str(&format!(
            "\n  to accept less: oxibot config, \"sandbox\": {{\"require\": \"{}\"}}",
            obtained.level.name()
        ));
    }
    text
}

/// Start time and process id in hex: begins call ids and names the audit file.
fn start_name() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{seconds:08x}-{:x}", std::process::id())
}

/// Signals that ask us to end are read from a descriptor. Blocked only now: the nursery inherited a clean mask.
fn signals() -> Result<SignalFd, StartError> {
    let what = "take signals";
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        set.add(signal);
    }
    set.thread_block().map_err(prepare(what))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(prepare(what))
}

/// What of the home stays open.
struct Opened {
    audit: Audit,
    run: Option<File>,
    home: Option<File>,
    control: Option<ControlSocket>,
}

impl Opened {
    fn at(home: Option<&Path>, name: &str, audit: &AuditSettings) -> Result<Self, StartError> {
        let Some(home) = home else {
            return Ok(Self { audit: Audit::none(), run: None, home: None, control: None });
        };
        let audit = Audit::open(home, name, audit).map_err(prepare("open the audit log"))?;
        let (run, path) = control::open_run(home).map_err(prepare("open the run directory"))?;
        // Without it one stop reaches us late, by the file; that is no reason not to serve.
        let control = ControlSocket::bind(&run, &path)
            .inspect_err(|error| log::always(&format!("cannot offer {}: {error}", path.display())))
            .ok();
        let directory = File::open(home).map_err(prepare("open the home directory"))?;
        Ok(Self { audit, run: Some(run), home: Some(directory), control })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxibot_proto::message::Protection;

    #[test]
    fn every_setting_is_part_of_the_policys_number() {
        let of = |text: &str| number(&serde_json::from_str(text).unwrap()).unwrap();
        let texts = [
            "{}",
            r#"{"policy": {"unknown": {"runtime": "ask"}}}"#,
            r#"{"policy": {"overrides": [{"rule": "git.discard", "verdict": "block"}]}}"#,
            r#"{"limits": {"processes": 100}}"#,
            r#"{"approvals": {"mode": "out-of-band"}}"#,
        ];
        let numbers: std::collections::BTreeSet<String> = texts.iter().map(|text| of(text)).collect();
        assert_eq!(numbers.len(), texts.len());
        assert_eq!(of("{}"), of("{ }"), "the control");
    }

    #[test]
    fn refusal_says_what_is_missing_how_to_get_it_and_how_to_do_without() {
        let obtained = Obtained {
            level: Level::Kernel,
            landlock_abi: 6,
            protections: ["user-namespace", "mount-namespace"]
                .map(|name| Protection {
                    name: name.into(),
                    state: ProtectionState::Unavailable,
                    detail: "refused by the kernel".into(),
                })
                .to_vec(),
            remedy: "sudo sysctl -w x=1".into(),
        };
        let mut required = ToolhostSettings::default();
        required.sandbox.require = Level::Full;
        let text = below_required(&obtained, Level::Full, &required);
        for part in [
            "\"full\"",
            "user-namespace, mount-namespace: refused",
            "to get it: sudo sysctl -w x=1",
            "\"require\": \"kernel\"",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_list_of_hosts_that_asks_for_the_level_is_named_with_how_to_do_without() {
        let (protections, remedy) = (Vec::new(), String::new());
        let obtained = Obtained { level: Level::Kernel, landlock_abi: 6, protections, remedy };
        let text = below_required(&obtained, Level::Full, &ToolhostSettings::default());
        for part in
            ["tools.bash.network lists hosts", "level \"full\"", "only \"kernel\"", "\"network\": \"none\""]
        {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("sandbox.require is") && !text.contains("to accept less"), "{text}");
    }

    #[test]
    fn root_must_say_it_twice() {
        let arguments = |no_sandbox| Serve {
            config: None,
            home: None,
            workspaces: Vec::new(),
            no_sandbox,
            purpose: Purpose::LongLived,
            web: false,
            without_namespaces: false,
        };
        assert_eq!(wanted(&arguments(1)).is_err(), geteuid().is_root());
        assert_eq!(wanted(&arguments(2)).unwrap(), Wanted::Off);
        assert_eq!(wanted(&arguments(0)).unwrap(), Wanted::Strongest);
    }
}
