//! The Debian package and its units, on a Debian 12 that was booted with its own systemd: installed with apt, configured,
//! talked to over a channel, attacked, killed, stopped by its watchdog, upgraded, removed, purged, installed again.
//!
//! The kernel is this machine's, in a container, which is laxer than a host in what concerns the kernel and its cgroups.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use oxibot_tests::booted::{Booted, lacking};
use oxibot_tests::fixture::{binary, describe, skip};
use oxibot_tests::model_server::{Answer, ModelServer, Rules};
use oxibot_tests::telegram::Telegram;
use serde_json::{Value, json};

const TOKEN: &str = "123456:test-token-AAAA";
const KEY: &str = "sk-test-8c1f";
const OWNER: i64 = 42;
const PATIENCE: Duration = Duration::from_secs(120);
/// Highest exposure of each unit, as systemd 252 counts it.
const EXPOSURE: [(&str, f64); 3] =
    [("oxibot.service", 1.1), ("oxibot-fetch.service", 1.1), ("oxibot-toolhost.service", 1.7)];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn target() -> PathBuf {
    binary("oxibot").ancestors().nth(2).unwrap().to_path_buf()
}

fn missing(programs: &[&str]) -> Vec<String> {
    let is_there = |program: &&str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        found.is_ok_and(|output| output.status.success())
    };
    programs.iter().filter(|program| !is_there(program)).map(|program| (*program).to_owned()).collect()
}

/// The package, made of the programs of this test run.
fn package(output: &Path) -> PathBuf {
    let built = Command::new(repository().join("packaging/debian/build"))
        .args(["--compress", "gzip", "--binaries"])
        .arg(binary("oxibot").parent().unwrap())
        .arg("--output")
        .arg(output)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", describe(&built));
    PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
}

#[test]
fn units_expose_as_little_as_was_promised() {
    let name = "units_expose_as_little_as_was_promised";
    let lacking = missing(&["systemd-analyze"]);
    if !lacking.is_empty() {
        return skip(name, &format!("{} is missing", lacking.join(", ")));
    }
    let version = Command::new("systemd-analyze").arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with("systemd 252 ") {
        return skip(name, "scores are those of systemd 252");
    }
    for (unit, most) in EXPOSURE {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(repository().join("packaging/systemd").join(unit))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let score = text.split("exposure level for").nth(1).and_then(|rest| rest.split_whitespace().nth(1));
        let score: f64 = score.unwrap_or_else(|| panic!("no score: {text}")).parse().unwrap();
        assert!(score <= most, "{unit} has {score}, {most} is promised\n{text}");
        assert!(score > 0.0, "a unit without any exposure was not read");
    }
}

#[test]
fn package_has_no_fault_that_lintian_knows_and_is_built_the_same_twice() {
    let name = "package_has_no_fault_that_lintian_knows_and_is_built_the_same_twice";
    let lacking = missing(&["dpkg-deb", "dpkg-shlibdeps", "gzip", "lintian", "mandoc", "strip"]);
    if !lacking.is_empty() {
        return skip(name, &format!("{} is missing", lacking.join(", ")));
    }
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = directories.each_ref().map(|directory| package(directory.path()));
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "two builds differ");
    let output = Command::new("lintian")
        .args(["--fail-on", "error,warning", "--allow-root", "--tag-display-limit", "0"])
        .arg(&first)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && !said.contains("W: ") && !said.contains("E: "),
        "{}",
        describe(&output)
    );
    for page in std::fs::read_dir(repository().join("packaging/man")).unwrap() {
        let output =
            Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(page.unwrap().path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", describe(&output));
    }
}

/// Every command and every option of all commands is in the manual.
#[test]
fn manual_names_what_can_be_typed() {
    let page = std::fs::read_to_string(repository().join("packaging/man/oxibot.1")).unwrap();
    let output = Command::new(binary("oxibot")).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let commands = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let commands: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 10, "{help}");
    for command in commands {
        assert!(page.contains(&format!(".It Cm {command}")), "{command} is not in oxibot.1");
    }
    let options = help.split("Everywhere:").nth(1).unwrap();
    for option in options.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
        let option = option.trim_end_matches("...");
        assert!(page.contains(&format!("Fl -{option}")), "--{option} is not in oxibot.1");
    }
}

/// A model that does what it is told: `run COMMAND` is a call of bash, whose output is the answer.
fn obedient() -> ModelServer {
    ModelServer::answering(Rules::with_key(KEY), |request| {
        let messages = request.body["messages"].as_array().cloned().unwrap_or_default();
        let last = messages.last().cloned().unwrap_or_default();
        match (last["role"].as_str(), request.last_said().strip_prefix("run ")) {
            (Some("tool"), _) => Answer::text(&format!("it said: {}", last["content"])),
            (_, Some(command)) => {
                let call = format!("call-{}", messages.len());
                Answer::calls(&[(call.as_str(), "bash", &json!({ "command": command }).to_string())])
            }
            (_, None) => Answer::text(&format!("echo {}", request.last_said())),
        }
    })
}

struct Installed {
    machine: Booted,
    telegram: Telegram,
    _model: ModelServer,
}

impl Installed {
    #[track_caller]
    fn eventually(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(
                begun.elapsed() < PATIENCE,
                "never: {what}\n--- oxibot\n{}\n--- toolhost\n{}\n--- said\n{:?}",
                self.machine.journal("oxibot.service"),
                self.machine.journal("oxibot-toolhost.service"),
                self.telegram.texts(OWNER)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Says something on the channel and waits for an answer with that in it.
    #[track_caller]
    fn talk(&self, text: &str, expected: &str) -> String {
        let before = self.telegram.texts(OWNER).len();
        self.telegram.says(OWNER, text);
        self.eventually(&format!("{expected:?} to {text:?}"), |this| {
            this.telegram.texts(OWNER).iter().skip(before).any(|answer| answer.contains(expected))
        });
        self.telegram.texts(OWNER).last().cloned().unwrap_or_default()
    }

    fn pid(&self, unit: &str) -> String {
        self.machine.property(unit, "MainPID")
    }

    /// A tool call from the command line, as the service's user.
    #[track_caller]
    fn call(&self, tool: &str, arguments: &Value) -> Value {
        let arguments = arguments.to_string();
        for _ in 0..20 {
            let output =
                self.machine.run_as("oxibot", &["oxibot", "tool", "call", tool, &arguments, "--json"]);
            let answer: Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
            // The reader of commands has two seconds, which a machine that does much else may not give it.
            if answer["denial"]["rule"] != "policy.reader" {
                return answer;
            }
        }
        panic!("no command is judged in twenty tries");
    }
}

fn private(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What an administrator does: keys, configuration, start.
fn configure(machine: &Booted, telegram: &Telegram, model: &ModelServer) {
    let keys = machine.root().join("etc/credstore");
    private(&keys.join("oxibot.providers.custom.apiKey"), KEY);
    private(&keys.join("oxibot.channels.telegram.token"), TOKEN);
    let config = json!({
        "agents": {"defaults": {"model": "custom/test-model"}},
        "providers": {"custom": {"apiBase": model.openai_base()}},
        "channels": {"telegram": {"allowedUsers": [OWNER.to_string()], "baseUrl": telegram.url()}},
    });
    // In place: owner and mode are the package's.
    std::fs::write(machine.root().join("etc/oxibot/config.json"), config.to_string()).unwrap();
}

#[track_caller]
fn install(machine: &Booted, package: &Path) {
    std::fs::copy(package, machine.root().join("opt/oxibot.deb")).unwrap();
    let output = machine.run(&["apt-get", "install", "--yes", "--reinstall", "/opt/oxibot.deb"]);
    assert!(output.status.success(), "{}", describe(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("Failed") && !said.contains("cannot"), "{}", describe(&output));
}

/// A machine with the package installed, configured and started.
fn installed(name: &str, package: &Path) -> Installed {
    // From here on this thread is in the network of the machine, and with it what it starts.
    let machine = Booted::start(&target()).unwrap_or_else(|why| panic!("{name}: {why}"));
    let (telegram, model) = (Telegram::start(TOKEN), obedient());
    install(&machine, package);
    let installed = Installed { machine, telegram, _model: model };
    configure(&installed.machine, &installed.telegram, &installed._model);
    let started = installed.machine.run(&["systemctl", "start", "oxibot.service"]);
    assert!(started.status.success(), "{}\n{}", describe(&started), installed.machine.journal("oxibot"));
    installed
}

fn can_boot(name: &str) -> bool {
    let mut lacking = lacking();
    lacking.extend(missing(&["dpkg-shlibdeps", "strip"]));
    if !lacking.is_empty() {
        skip(name, &format!("{} is missing", lacking.join(", ")));
    }
    lacking.is_empty()
}

#[test]
fn service_is_installed_and_talks_behind_its_wall() {
    let name = "service_is_installed_and_talks_behind_its_wall";
    if !can_boot(name) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let installed = installed(name, &package(directory.path()));
    files_belong_to_whom_they_should(&installed.machine);
    conversation_is_held(&installed);
    users_cannot_read_each_other(&installed);
    only_whom_a_socket_is_for_gets_through(&installed);
    wall_holds_inside_the_unit(&installed);
}

fn files_belong_to_whom_they_should(machine: &Booted) {
    for (path, expected) in [
        ("/etc/oxibot/config.json", "640 root oxibot"),
        ("/etc/oxibot/toolhost.json", "640 root oxibot-tools"),
        ("/var/lib/oxibot", "700 oxibot oxibot"),
        ("/var/lib/oxibot-tools", "700 oxibot-tools oxibot-tools"),
        ("/etc/credstore", "700 root root"),
        ("/run/oxibot", "755 root root"),
        ("/run/oxibot/toolhost.sock", "600 oxibot oxibot"),
        ("/run/oxibot/control.sock", "660 root oxibot-admin"),
        ("/run/oxibot/fetch.sock", "600 oxibot-tools oxibot-tools"),
        ("/usr/libexec/oxibot/oxibot-toolhost", "755 root root"),
    ] {
        assert_eq!(machine.said(&["stat", "--format=%a %U %G", path]), expected, "{path}");
    }
    for user in ["oxibot", "oxibot-tools", "oxibot-fetch"] {
        let entry = machine.said(&["getent", "passwd", user]);
        assert!(entry.ends_with("/nologin"), "{entry}");
    }
    assert!(machine.said(&["man", "--path", "oxibot.json"]).contains("/man5/"));
    let conffiles = machine.said(&["dpkg-query", "--show", "--showformat=${Conffiles}", "oxibot"]);
    assert!(conffiles.contains("/etc/oxibot/config.json") && conffiles.contains("/etc/oxibot/toolhost.json"));
}

fn conversation_is_held(installed: &Installed) {
    assert_eq!(installed.talk("hello", "echo hello"), "echo hello");
    installed.talk("run id -un; umask; echo made > made-by-a-call", "oxibot-tools");
    let made = installed.machine.root().join("var/lib/oxibot-tools/workspace/made-by-a-call");
    let metadata = made.metadata().unwrap();
    let tools = installed.machine.said(&["id", "-u", "oxibot-tools"]);
    assert_eq!((metadata.uid().to_string(), metadata.mode() & 0o777), (tools, 0o660));
    let status = installed.machine.property("oxibot-toolhost.service", "StatusText");
    assert_eq!(status, "ready: level full, self-attack held");
    assert!(installed.machine.property("oxibot.service", "StatusText").starts_with("ready"));
    let ready = installed.call("bash", &json!({"command": "true"}));
    assert_eq!((ready["level"].as_str(), ready["proven"].as_str()), (Some("full"), Some("start")), "{ready}");
    // The web's worker is a unit of its own, and answers: the address is refused there and nowhere else.
    let page = installed.call("web_get", &json!({"url": "http://10.0.0.5/"}));
    assert_eq!(page["denial"]["rule"], "web.address.private", "{page}");
    assert_eq!(installed.machine.property("oxibot-fetch.service", "ActiveState"), "active");
    let worker = installed.machine.property("oxibot-fetch.service", "MainPID");
    let owner = installed.machine.said(&["stat", "--format=%U", &format!("/proc/{worker}")]);
    assert_eq!(owner, "oxibot-fetch");
    // What happened is an event of the journal, with nothing of what was said and no key.
    let journal = installed.machine.journal("oxibot.service");
    assert!(journal.contains("incoming_message"), "{journal}");
    assert!(!journal.contains("made-by-a-call") && !journal.contains(KEY) && !journal.contains(TOKEN));
    let heads = installed.machine.said(&[
        "journalctl",
        "--no-pager",
        "--output=verbose",
        "SYSLOG_IDENTIFIER=oxibot-toolhost",
    ]);
    // The journal's own word on who wrote it.
    let user = installed.machine.said(&["id", "-u", "oxibot-tools"]);
    assert!(heads.contains("OXIBOT_AUDIT_MAC=") && heads.contains(&format!("_UID={user}\n")), "{heads}");
    for (unit, most) in EXPOSURE {
        let said = installed.machine.said(&["systemd-analyze", "security", "--no-pager", unit]);
        let score = said.split("exposure level for").nth(1).and_then(|rest| rest.split_whitespace().nth(1));
        let score: f64 = score.unwrap_or_else(|| panic!("no score: {said}")).parse().unwrap();
        assert!(score <= most, "{unit} as loaded has {score}, {most} is promised");
    }
}

fn users_cannot_read_each_other(installed: &Installed) {
    let users = ["oxibot", "oxibot-tools", "oxibot-fetch"];
    for (owner, path) in [
        ("oxibot", "/var/lib/oxibot/state"),
        ("oxibot", "/etc/oxibot/config.json"),
        ("oxibot-tools", "/var/lib/oxibot-tools/audit"),
        ("oxibot-tools", "/etc/oxibot/toolhost.json"),
        ("root", "/etc/credstore/oxibot.providers.custom.apiKey"),
    ] {
        for user in users {
            let readable = installed.machine.run_as(user, &["test", "-r", path]).status.success();
            assert_eq!(readable, user == owner, "{path} for {user}");
        }
    }
    // Keys are nowhere in what the toolhost could give away.
    let environment = installed.pid("oxibot-toolhost.service");
    let environment = installed.machine.said(&["cat", &format!("/proc/{environment}/environ")]);
    assert!(!environment.contains(KEY) && !environment.contains("CREDENTIALS"), "{environment}");
}

fn only_whom_a_socket_is_for_gets_through(installed: &Installed) {
    let machine = &installed.machine;
    let refused = machine.run(&["oxibot", "tool", "list"]);
    assert_eq!(refused.status.code(), Some(70), "{}", describe(&refused));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("sudo -u oxibot"), "{}", describe(&refused));
    assert!(machine.run(&["oxibot", "stop"]).status.success(), "root may stop");
    let _ = machine.run(&["useradd", "--groups", "oxibot-admin", "alice"]);
    let _ = machine.run(&["useradd", "mallory"]);
    let stop = machine.run_as("alice", &["oxibot", "stop"]);
    assert!(String::from_utf8_lossy(&stop.stdout).contains("1 toolhost reached"), "{}", describe(&stop));
    for user in ["mallory", "oxibot", "oxibot-fetch"] {
        let output = machine.run_as(user, &["oxibot", "stop"]);
        assert_eq!(output.status.code(), Some(1), "{user}: {}", describe(&output));
    }
    let verified = machine.run(&["oxibot", "audit", "verify"]);
    assert!(verified.status.success(), "{}", describe(&verified));
    let tail = machine.said(&["oxibot", "audit", "tail", "--tool", "bash"]);
    assert!(tail.contains("made-by-a-call"), "{tail}");
}

/// Every attack of the long form, under the very confinement of the unit: as its user, with all its lines but those that
/// make a service of it.
fn wall_holds_inside_the_unit(installed: &Installed) {
    let machine = &installed.machine;
    let unit =
        std::fs::read_to_string(repository().join("packaging/systemd/oxibot-toolhost.service")).unwrap();
    let kept: Vec<&str> = unit
        .lines()
        .filter(|line| {
            ![
                "Type=",
                "ExecStart=",
                "Sockets=",
                "Requires=",
                "After=",
                "Wants=",
                "Restart",
                "Watchdog",
                "Also=",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        })
        .map(|line| if line.starts_with("ProtectControlGroups") { "" } else { line })
        .collect();
    let attack = "Type=oneshot\nStandardOutput=file:/run/attack.json\nStandardError=journal\n\
        ExecStart=-/usr/bin/oxibot --home /var/lib/oxibot-tools/attack doctor --attack --json";
    let text = kept.join("\n").replace("[Service]", &format!("[Service]\n{attack}"));
    std::fs::write(machine.root().join("etc/systemd/system/attack.service"), text).unwrap();
    let _ = machine.said(&["systemctl", "daemon-reload"]);
    let output = machine.run(&["systemctl", "start", "attack.service"]);
    assert!(output.status.success(), "{}\n{}", describe(&output), machine.journal("attack.service"));
    let report = machine.said(&["cat", "/run/attack.json"]);
    let report: Value = serde_json::from_str(&report)
        .unwrap_or_else(|error| panic!("{error}: {report}\n{}", machine.journal("attack.service")));
    assert_eq!(report["level"], "full");
    let attacks = report["attacks"].as_array().unwrap();
    let with = |result: &str| attacks.iter().filter(|attack| attack["result"] == result).collect::<Vec<_>>();
    assert_eq!(with("broken"), Vec::<&Value>::new());
    assert!(with("held").len() > 150, "{} of {} were held", with("held").len(), attacks.len());
    // What a call is for works in there as well: a loopback, a compiler that compiles as it runs, a child.
    let call = installed.call(
        "bash",
        &json!({"command": "perl -e 'use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0) or die; bind($s, sockaddr_in(0, INADDR_LOOPBACK)) or die $!; listen($s, 1) or die $!; print qq(listens\\n)'; sh -c 'exit 7'; echo $?"}),
    );
    assert_eq!(call["output"], "listens\n7\n", "{call}");
}
