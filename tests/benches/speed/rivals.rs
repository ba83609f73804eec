//! Other sandboxes, as far as they are installed (`tests/tools/install-rivals`). What is missing, or does not work here,
//! is named. Each runs the same command line with the same environment; all of them hold less than level `full` does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::sides::{environment, installed};

/// Runs a command line to its end, or says what it printed when it failed.
type Run = Box<dyn FnMut(&str) -> Result<(), String>>;

/// Another way to run a command line.
pub struct Rival {
    pub name: &'static str,
    run: Run,
}

impl Rival {
    /// Runs a command line to its end.
    ///
    /// # Errors
    /// What it printed when it failed.
    pub fn run(&mut self, command: &str) -> Result<(), String> {
        (self.run)(command)
    }
}

/// Where `install-rivals` puts what no distribution has.
fn rivals_directory() -> PathBuf {
    std::env::var_os("OXIBOT_BENCH_RIVALS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/rivals"),
        PathBuf::from,
    )
}

/// Those that run here, and remarks on the others.
pub fn all(workspace: &Path) -> (Vec<Rival>, Vec<String>) {
    let mut rivals = Vec::new();
    let mut remarks = Vec::new();
    let npm = |name: &str| rivals_directory().join("npm/node_modules/.bin").join(name);
    let one_shot: [(&'static str, Option<Command>); 5] = [
        ("bubblewrap", installed("bwrap").then(|| bubblewrap(workspace))),
        ("firejail", installed("firejail").then(|| firejail(workspace))),
        ("systemd-run", Path::new("/run/systemd/system").exists().then(systemd_run)),
        ("sandbox-runtime (npm)", npm("srt").exists().then(|| Command::new(npm("srt")))),
        ("codex sandbox (npm)", npm("codex").exists().then(|| codex(&npm("codex")))),
    ];
    for (name, command) in one_shot {
        match command {
            Some(command) => rivals.push(one_process_a_call(name, command, workspace.to_owned())),
            None => remarks.push(format!("not measured: {name} is not installed or not running here")),
        }
    }
    let python = rivals_directory().join("py/bin/python");
    for (name, sandbox) in [("nanobot exec (PyPI)", ""), ("nanobot exec, bubblewrap (PyPI)", "bwrap")] {
        match python.exists().then(|| nanobot(name, &python, workspace, sandbox)) {
            Some(Ok(rival)) => rivals.push(rival),
            Some(Err(cause)) => remarks.push(format!("not measured: {name}: {cause}")),
            None => remarks.push(format!("not measured: {name} is not installed")),
        }
    }
    rivals.retain_mut(|rival| match rival.run(":") {
        Ok(()) => true,
        Err(cause) => {
            let cause: String =
                cause.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
            remarks.push(format!("not measured: {} does not run here: {cause}", rival.name));
            false
        }
    });
    (rivals, remarks)
}

/// With an allow-list root and every namespace, as somebody would use it for an agent.
pub fn bubblewrap(workspace: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session"]);
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
    for path in ["/usr", "/bin", "/lib", "/lib64"].iter().filter(|path| Path::new(path).exists()) {
        command.args(["--ro-bind", path, path]);
    }
    command.arg("--bind").arg(workspace).arg(workspace).arg("--chdir").arg(workspace);
    command
}

fn firejail(workspace: &Path) -> Command {
    let mut command = Command::new("firejail");
    command.args(["--quiet", "--noprofile", "--net=none", "--seccomp", "--caps.drop=all"]);
    command.arg(format!("--whitelist={}", workspace.display())).arg("--");
    command
}

fn systemd_run() -> Command {
    let mut command = Command::new("systemd-run");
    command.args([
        "--quiet",
        "--wait",
        "--pipe",
        "--collect",
        "-p",
        "PrivateNetwork=yes",
        "-p",
        "PrivateTmp=yes",
    ]);
    command.args(["-p", "NoNewPrivileges=yes", "-p", "ProtectSystem=strict"]);
    command
}

fn codex(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["sandbox", "--"]);
    command
}

fn one_process_a_call(name: &'static str, command: Command, workspace: PathBuf) -> Rival {
    let program = command.get_program().to_owned();
    let before: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let run = move |line: &str| {
        let mut command = Command::new(&program);
        command.args(&before).args(["/bin/bash", "--norc", "--noprofile", "-c", line]);
        environment(&mut command, &workspace);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
    };
    Rival { name, run: Box::new(run) }
}

/// A warm interpreter that runs its exec tool for each line it reads, as the agent does.
const NANOBOT: &str = r#"
import asyncio, inspect, json, sys
from nanobot.agent.tools.shell import ExecTool
given = {"working_dir": sys.argv[1], "timeout": 60}
if sys.argv[2]:
    given["sandbox"] = sys.argv[2]
if "sandbox" in given and "sandbox" not in inspect.signature(ExecTool.__init__).parameters:
    sys.exit("this version has no such option")
tool = ExecTool(**given)
async def main():
    print("ready", flush=True)
    for line in sys.stdin:
        answer = await tool.execute(command=json.loads(line), working_dir=sys.argv[1])
        text = str(answer)
        print("ok" if "Error" not in text and ("Exit code: 0" in text or "Exit code" not in text) else json.dumps(text),
              flush=True)
asyncio.run(main())
"#;

/// Ends with the benchmark.
struct Interpreter {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Interpreter {
    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err("it ended".to_owned()),
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nanobot(name: &'static str, python: &Path, workspace: &Path, sandbox: &str) -> Result<Rival, String> {
    let mut command = Command::new(python);
    command.args(["-c", NANOBOT]).arg(workspace).arg(sandbox);
    environment(&mut command, workspace);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("it has no pipes".to_owned());
    };
    let mut interpreter = Interpreter { child, input, output: BufReader::new(output) };
    // What it logs while it starts comes first.
    while interpreter.line()? != "ready" {}
    let run = move |line: &str| {
        let command = serde_json::Value::from(line).to_string();
        writeln!(interpreter.input, "{command}").map_err(|error| error.to_string())?;
        match interpreter.line()?.as_str() {
            "ok" => Ok(()),
            other => Err(other.to_owned()),
        }
    };
    Ok(Rival { name, run: Box::new(run) })
}
