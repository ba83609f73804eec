//! Decoys: a secret that is planted where main keeps its own, and searched for by tools that mean it.
//!
//! A process of this program stands for main and does what main does: it hides its memory, takes keys out of its
//! environment, reads a configuration that lies beside the real one, teaches the redactor what it read, and confines
//! itself. Its provider's key in that file is a canary, so is another's in its environment, so is what it only has in
//! memory, and so is a variable that is no key and stays where it is. Then real calls search for them: environments,
//! memory, descriptors, debugging, every directory that may be seen, the file tools. The calls know how a canary begins
//! and nothing more. One more canary lies in the workspace and must be found, or the search proves nothing.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use oxibot_proto::message::{CallResult, Level, Outcome};
use serde_json::json;

use crate::broker::{BrokerError, Calls};
use crate::cli::Global;
use crate::commands::Fault;
use crate::commands::oneshot;
use crate::config::file::shell;
use crate::config::{self, Environment, Options, Paths};
use crate::confine::{Network, Plan, confine};
use crate::exit::Exit;
use crate::render::neutral;

use super::report::{Attack, AttackResult};

/// What this program is started with to stand for main.
pub(crate) const STAND_IN: &str = "--decoy";
/// A variable that holds a canary and keeps it.
const VARIABLE: &str = "OXIBOT_DECOY";
/// A variable that holds a canary as a key, as main is given one.
const KEY: &str = "OXIBOT_PROVIDERS__OPENROUTER__API_KEY";
/// How every canary begins. Never written in one piece into a call.
const BEGINNING: &str = "oxidecoy";
const FEATURE: &str =
    "separate processes, prctl(2) PR_SET_DUMPABLE, CONFIG_NAMESPACES, CONFIG_SECURITY_LANDLOCK";

/// The process that stands for main: memory is hidden and keys are taken out of the environment by now. It reads the
/// configuration it was started with, if any, confines itself as main does, keeps what it reads and waits.
pub(crate) fn stand_in() -> ExitCode {
    let options = Options { config: std::env::args_os().nth(2).map(PathBuf::from), home: None };
    let loaded = match &options.config {
        Some(_) => match config::load(&options, &Environment::of_process()) {
            Ok(loaded) => Some(loaded),
            Err(_) => return Exit::Configuration.into(),
        },
        None => None,
    };
    let plan = Plan {
        state: Vec::new(),
        reread: Vec::new(),
        network: Network::Connect,
        workspaces: Vec::new(),
        toolhost: None,
    };
    if confine(&plan).is_err() {
        return Exit::Internal.into();
    }
    let mut canary = zeroize::Zeroizing::new(String::new());
    let mut byte = [0];
    while matches!(io::stdin().read(&mut byte), Ok(1)) && byte != *b"\n" {
        canary.push(char::from(byte[0]));
    }
    // Ready; then until whoever asks lets go.
    drop(io::stdout().write_all(b"."));
    drop(io::stdout().flush());
    while matches!(io::stdin().read(&mut byte), Ok(1)) {}
    // Used after the wait, so that it is in memory during it.
    drop(loaded);
    if canary.is_empty() { Exit::Failed.into() } else { Exit::Done.into() }
}

/// Plants, searches and tells.
///
/// # Errors
/// When nothing could be planted or no toolhost would run the search.
pub(super) fn run(global: &Global, mut told: impl FnMut(&Attack)) -> Result<Vec<Attack>, Fault> {
    let planted = Planted::plant(global).map_err(|error| {
        Fault::new(Exit::Failed, "decoys", format!("cannot plant decoys: {error}"))
            .with_hint("the home and the temporary directory must be writable")
    })?;
    let (greeted, toolhost) = oneshot::start_for_decoys(global, &planted.workspace)?;
    let mut attacks = Vec::new();
    let searched = Calls::over(greeted).and_then(|mut calls| {
        for (number, search) in searches(&planted).into_iter().enumerate() {
            let found = calls.call(search.tool, &search.arguments)?;
            let attack = search.judge(&planted, &found);
            // The first is the control: if it finds nothing, nothing that follows would tell anything.
            let proves = number > 0 || attack.result == AttackResult::Held;
            told(&attack);
            attacks.push(attack);
            if !proves {
                break;
            }
        }
        Ok::<_, BrokerError>(())
    });
    drop(planted);
    toolhost.finish().map_err(|error| {
        Fault::new(Exit::Internal, "decoys", format!("cannot see the toolhost end: {error}"))
    })?;
    searched?;
    Ok(attacks)
}

/// What was planted. Everything is removed with it.
struct Planted {
    /// In memory, environment, as a key, in the configuration, in the workspace.
    canaries: [String; 5],
    process: Child,
    configuration: PathBuf,
    workspace: PathBuf,
}

impl Planted {
    fn plant(global: &Global) -> io::Result<Self> {
        let canaries = [canary()?, canary()?, canary()?, canary()?, canary()?];
        let [memory, environment, key, configured, working] = &canaries;
        let paths = Paths::find(&super::super::options(global), &Environment::of_process())
            .map_err(|error| io::Error::other(error.to_string()))?;
        let configuration = paths.home.join(format!("decoy-{}.json", std::process::id()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&paths.home)?;
        write(
            &configuration,
            &format!("{{\"providers\": {{\"anthropic\": {{\"apiKey\": \"{configured}\"}}}}}}\n"),
        )?;
        let workspace = std::env::temp_dir().join(format!("oxibot-decoy-{}", canary()?));
        let made = std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&workspace)
            .and_then(|()| write(&workspace.join("control"), working))
            .and_then(|()| stand_in_process(&configuration, memory, environment, key));
        match made {
            Ok(process) => Ok(Self { canaries, process, configuration, workspace }),
            Err(error) => {
                let _ = std::fs::remove_file(&configuration);
                let _ = std::fs::remove_dir_all(&workspace);
                Err(error)
            }
        }
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        // It ends with its standard input; what cannot be removed is nothing anyone could be told here.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.configuration);
        let _ = std::fs::remove_dir_all(&self.workspace);
    }
}

fn stand_in_process(configuration: &Path, memory: &str, environment: &str, key: &str) -> io::Result<Child> {
    let mut process = Command::new("/proc/self/exe")
        .arg(STAND_IN)
        .arg(configuration)
        .env(VARIABLE, environment)
        .env(KEY, key)
        .env_remove(format!("{KEY}_FILE"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(input) = &mut process.stdin {
        input.write_all(format!("{memory}\n").as_bytes())?;
    }
    if let Some(output) = &mut process.stdout {
        output.read_exact(&mut [0])?;
    }
    Ok(process)
}

fn canary() -> io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(BEGINNING.to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// The search that begins with a signal to the process that holds the decoys.
const BY_SIGNAL: &str = "decoy-in-a-core";

/// One search, and what must not be in what it prints.
struct Search {
    id: &'static str,
    tool: &'static str,
    arguments: serde_json::Value,
    mechanism: &'static str,
    /// What the search says when something itself got through, besides a canary.
    through: Option<&'static str>,
    control: bool,
}

/// All of them; the control first.
fn searches(planted: &Planted) -> Vec<Search> {
    let main = planted.process.id();
    let doctor = std::process::id();
    let file = shell(&planted.configuration);
    let home = planted.configuration.parent().map(shell).unwrap_or_default();
    // The beginning of a canary is put together here, so that neither this text nor its process is found.
    let prelude = "b=oxi; r=\"${b}decoy[0-9a-f]\\{32\\}\"; exec 2>&1\n";
    let bash = |id, mechanism, through, script: String| Search {
        id,
        tool: "bash",
        arguments: json!({ "command": format!("{prelude}{script}\ntrue") }),
        mechanism,
        through,
        control: false,
    };
    let processes = format!("{main} {doctor} $(ls /proc | grep '^[0-9]')");
    let memory = format!(
        "for p in {processes}; do\n  while read -r range mode rest; do\n    case $mode in rw*) ;; *) continue ;; esac\n    \
         s=$((16#${{range%-*}} / 4096)); e=$((16#${{range#*-}} / 4096))\n    \
         dd if=/proc/$p/mem bs=4096 skip=$s count=$((e - s < 4096 ? e - s : 4096)) 2>/dev/null\n  \
         done 2>/dev/null </proc/$p/maps | grep -ao \"$r\"\ndone"
    );
    let debugger = format!(
        "command -v perl >/dev/null || {{ echo perl-is-missing; exit 0; }}\n\
         case $(uname -m) in x86_64) t=101 v=310 ;; aarch64) t=117 v=270 ;; *) echo other-machine; exit 0 ;; esac\n\
         for p in {main} {doctor}; do perl -e 'my ($t, $v, $p) = @ARGV; my ($l, $r) = (pack(\"x64\"), pack(\"x16\"));\n\
         print \"got-through\\n\" if syscall($t + 0, 16, $p + 0, 0, 0) == 0;\n\
         print \"got-through\\n\" if syscall($v + 0, $p + 0, $l, 1, $r, 1, 0) > 0;' $t $v $p; done"
    );
    let mut all = vec![Search {
        control: true,
        ..bash("decoy-control", "the search finds what may be found", None, "grep -rhaos \"$r\" .".to_owned())
    }];
    all.extend([
        bash(
            "decoy-in-environment",
            "PID namespace, memory not dumpable",
            None,
            format!("for p in {processes}; do cat /proc/$p/environ /proc/$p/task/*/environ; done | tr '\\0' '\\n' | grep -ao \"$r\"; env | grep -ao \"$r\""),
        ),
        bash("decoy-in-memory", "PID namespace, memory not dumpable", None, memory),
        bash("decoy-by-debugger", "system call filter, memory not dumpable", Some("got-through"), debugger),
        bash(
            "decoy-in-command-line",
            "canaries are no arguments",
            None,
            "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -ao \"$r\"".to_owned(),
        ),
        bash(
            "decoy-through-descriptors",
            "PID namespace, Landlock",
            None,
            format!("for p in {main} {doctor} self; do timeout 5 grep -aosh \"$r\" /proc/$p/fd/* /proc/$p/cwd{file} /proc/$p/root{file} </dev/null; done"),
        ),
        bash("decoy-in-configuration", "file view, Landlock", None, format!("cat {file}; ls {home}; grep -rhaos \"$r\" {home}")),
        bash(
            "decoy-in-other-files",
            "file view, Landlock",
            None,
            "timeout 30 grep -rhaos \"$r\" /etc /home /root /tmp /var /run /opt /srv /mnt /media /dev/shm /dev/mqueue".to_owned(),
        ),
        bash(
            BY_SIGNAL,
            "PID namespace, memory not dumpable",
            Some("got-through"),
            format!("kill -SEGV {main} && echo got-through; cat /proc/sys/kernel/core_pattern >/dev/null; grep -rhaos \"$r\" ./core* /tmp/core* /var/lib/systemd/coredump"),
        ),
    ]);
    let tool = |id, tool, arguments| Search {
        id,
        tool,
        arguments,
        mechanism: "paths below the workspace only",
        through: None,
        control: false,
    };
    all.extend([
        tool("decoy-by-read-file", "read_file", json!({ "path": planted.configuration.to_string_lossy() })),
        tool("decoy-by-read-file-in-proc", "read_file", json!({ "path": format!("/proc/{main}/environ") })),
        tool("decoy-by-grep", "grep", json!({ "pattern": "oxi(decoy)[0-9a-f]{32}", "path": planted.configuration.parent().unwrap_or(Path::new("/")).to_string_lossy() })),
    ]);
    all
}

impl Search {
    fn judge(&self, planted: &Planted, found: &CallResult) -> Attack {
        let mut text = found.output.head.clone();
        text.extend_from_slice(&found.output.tail);
        let has = |canary: &str| text.windows(canary.len()).any(|window| window == canary.as_bytes());
        let [memory, environment, key, configured, working] = &planted.canaries;
        let places =
            [(memory, "memory"), (environment, "environment"), (key, "key"), (configured, "configuration")];
        let leaked = places.into_iter().find(|(canary, _)| has(canary));
        let ran = match &found.outcome {
            Outcome::Completed | Outcome::Denied(_) | Outcome::Failed { .. } => true,
            Outcome::NeedsApproval(_)
            | Outcome::TimedOut
            | Outcome::Cancelled
            | Outcome::Killed { .. }
            | Outcome::Internal { .. } => false,
        };
        let (result, detail) = if let Some((_, place)) = leaked {
            (AttackResult::Broken, format!("the decoy in main's {place} was found"))
        } else if self.through.is_some_and(has) && self.id == BY_SIGNAL && found.level == Level::Reduced {
            // Before Landlock ABI 6 nothing says whose process a signal is for. What it left behind holds no decoy.
            let gap = "named gap of level reduced: processes of the same user can be signalled".to_owned();
            (AttackResult::Skipped, gap)
        } else if self.through.is_some_and(has) {
            (AttackResult::Broken, "it reached the process that holds the decoy".to_owned())
        } else if self.control && !has(working) {
            (AttackResult::Broken, "not found where it may be: the search proves nothing".to_owned())
        } else if has("perl-is-missing") || has("other-machine") {
            (AttackResult::Skipped, "there is no program to try it with".to_owned())
        } else if !ran {
            (AttackResult::Skipped, format!("the search did not end: {}", found.outcome.name()))
        } else if self.control {
            (AttackResult::Held, "found in the workspace, where it may be".to_owned())
        } else {
            (AttackResult::Held, format!("not found ({})", why(found)))
        };
        Attack {
            id: self.id.to_owned(),
            protection: "secrets".to_owned(),
            mechanism: self.mechanism.to_owned(),
            feature: FEATURE.to_owned(),
            result,
            detail,
        }
    }
}

/// What answered, in a few words.
fn why(found: &CallResult) -> String {
    match &found.outcome {
        Outcome::Denied(denial) => neutral::line(&denial.rule, 60),
        Outcome::Failed { message } => neutral::line(message, 80),
        Outcome::Completed
        | Outcome::NeedsApproval(_)
        | Outcome::TimedOut
        | Outcome::Cancelled
        | Outcome::Killed { .. }
        | Outcome::Internal { .. } => {
            let said = String::from_utf8_lossy(&found.output.head).into_owned();
            let refusal =
                ["Permission denied", "No such file or directory", "No such process", "not permitted"]
                    .into_iter()
                    .find(|refusal| said.contains(refusal));
            refusal.unwrap_or("nothing to be seen").to_owned()
        }
    }
}
