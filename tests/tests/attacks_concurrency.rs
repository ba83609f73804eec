//! Attacks of one running call on another: two calls of one workspace share its files and nothing else, and two workspaces
//! share nothing.
//!
//! One call offers everything it can be reached by and waits; the other tries. The control runs both without a wall.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use oxibot_proto::message::{CallNumber, CallRequest, CallResult, Outcome, ToMain, ToToolhost};
use oxibot_tests::corpus::{PRELUDE, remains};
use oxibot_tests::fixture::{ACCEPT_REDUCED, Fixture, skip};
use oxibot_tests::peer::{Peer, origin};
use serde_json::json;

/// What the first call does: offers itself by every way there is, says so by a file, waits until it is told to stop or two
/// attempts at its life have passed.
const OFFER: &str = r"
import threading
secret = b'SECRET-OF-THE-OTHER'
def serve(s):
    while True:
        try: peer, _ = s.accept(); peer.send(secret); peer.close()
        except OSError: return
def tcp():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('127.0.0.1', @PORT@)); s.listen(); threading.Thread(target=serve, args=(s,), daemon=True).start()
def abstract():
    s = socket.socket(socket.AF_UNIX); s.bind('\0@MARK@'); s.listen(); threading.Thread(target=serve, args=(s,), daemon=True).start()
def path():
    s = socket.socket(socket.AF_UNIX); s.bind('other.sock'); s.listen(); os.chmod('other.sock', 0o777); threading.Thread(target=serve, args=(s,), daemon=True).start()
def shm():
    i = call(29, @KEY@, 4096, 0o1666)[0]; libc.shmat.restype = ctypes.c_void_p; ctypes.memmove(libc.shmat(i, None, 0), secret, len(secret)) if i >= 0 else 0
def queue():
    fd = libc.mq_open(b'/@MARK@', 0o102, 0o666, None); print('queue', fd, ctypes.get_errno(), flush=True); libc.mq_send(fd, secret, len(secret), 0)
def files():
    for d in ('/tmp', '/dev/shm', '/var/tmp', os.environ.get('TMPDIR', '/tmp')):
        tried(lambda: open(f'{d}/@MARK@', 'wb').write(secret)); tried(os.chmod, f'{d}/@MARK@', 0o666)
held = tried(lambda: open('/tmp/@MARK@-held', 'w+b')) or open(os.environ.get('TMPDIR', '.') + '/@MARK@-held', 'w+b')
held.write(secret); held.flush()
os.environ['OTHER'] = secret.decode()
for offer in (tcp, abstract, path, shm, queue, files): tried(offer)
child = subprocess.Popen(['sleep', '30', ], env={'OTHER': secret.decode()}, executable='/bin/sleep')
open('ready', 'w').write(f'{os.getpid()} {child.pid} ' + os.environ.get('TMPDIR', '/tmp'))
end = time.time() + 25
while not os.path.exists('stop') and time.time() < end: time.sleep(0.02)
print('child', child.poll(), 'terminal', os.getpriority(0, 0), flush=True)
child.kill()
print('OTHER-IS-WELL', flush=True)
os._exit(0)
";

/// Each way in, tried by the second call: the name, then what it does; it prints the secret or raises.
const WAYS: &[(&str, &str)] = &[
    ("tcp", "s = socket.create_connection(('127.0.0.1', @PORT@), 1); print(s.recv(99))"),
    (
        "tcp-fast-open",
        "s = socket.socket(); s.sendto(b'x', 0x20000000, ('127.0.0.1', @PORT@)); print(s.recv(99))",
    ),
    ("abstract-socket", "s = socket.socket(socket.AF_UNIX); s.connect('\\0@MARK@'); print(s.recv(99))"),
    (
        "socket-in-the-workspace",
        "s = socket.socket(socket.AF_UNIX); s.connect('other.sock'); print(s.recv(99))",
    ),
    (
        "system-v",
        "i, e = call(29, @KEY@, 4096, 0o666); assert i >= 0, e; libc.shmat.restype = ctypes.c_void_p; print(ctypes.string_at(libc.shmat(i, None, 0)))",
    ),
    (
        "message-queue",
        "fd = libc.mq_open(b'/@MARK@', 0o4000); assert fd >= 0, ctypes.get_errno(); b = ctypes.create_string_buffer(8192); libc.mq_receive(fd, b, 8192, None); print(b.value)",
    ),
    ("tmp", "print(open('/tmp/@MARK@').read())"),
    ("their-private-directory", "print(open(THEIR_TMP + '/@MARK@').read())"),
    ("shared-memory", "print(open('/dev/shm/@MARK@').read())"),
    ("environment", "[print(open(f'/proc/{p}/environ').read()) for p in pids]"),
    ("root", "[print(open(f'/proc/{p}/root/tmp/@MARK@').read()) for p in pids]"),
    (
        "open-file",
        "[print(open(f'/proc/{p}/fd/{n}').read()) for p in pids for n in range(3, 20) if os.path.exists(f'/proc/{p}/fd/{n}')]; assert False",
    ),
    ("memory", "fd = os.open(f'/proc/{pids[0]}/mem', os.O_RDONLY); print('SECRET-OF-THE-OTHER')"),
    (
        "memory-by-call",
        "b = ctypes.create_string_buffer(4096); v = struct.pack('PN', ctypes.addressof(b), 1); r = struct.pack('PN', int(open(f'/proc/{pids[0]}/maps').read().split('-')[0], 16), 1); assert call(310, pids[0], v, 1, r, 1, 0)[0] == 1; print('SECRET-OF-THE-OTHER')",
    ),
    (
        "trace",
        "assert libc.ptrace(16, pids[1], 0, 0) == 0; os.waitpid(pids[1], 0); libc.ptrace(17, pids[1], 0, 0); print('SECRET-OF-THE-OTHER')",
    ),
    (
        "descriptor",
        "p = os.pidfd_open(pids[0]); assert call(438, p, 3, 0)[0] >= 0; print('SECRET-OF-THE-OTHER')",
    ),
    ("signal-0", "os.kill(pids[0], 0); print('SECRET-OF-THE-OTHER')"),
    ("signal-group", "os.killpg(os.getpgid(pids[0]), 0); print('SECRET-OF-THE-OTHER')"),
    ("priority", "os.setpriority(os.PRIO_PROCESS, pids[1], 7); print('SECRET-OF-THE-OTHER')"),
    ("kill", "os.kill(pids[1], 9); print('SECRET-OF-THE-OTHER')"),
];

/// Without namespaces the other's numbers are known (the process list is a named gap); with them these are somebody else's or
/// nobody's, and what is done to them proves nothing: they are tried all the same.
fn attempts(mark: &str, port: u16, key: u32) -> String {
    let mut text = format!(
        "{PRELUDE}\npids = [int(n) for n in open('ready').read().split()[:2]]\nTHEIR_TMP = open('ready').read().split()[2]\nprint('pids', pids, os.getpid())\n"
    );
    // A number that is our own here is not theirs.
    text.push_str("ours = [int(p) for p in os.listdir('/proc') if p.isdigit()] if not os.path.exists('/proc/@TEST@') else []\npids = [p + 10000000 if p in ours else p for p in pids]\n");
    for (name, body) in WAYS {
        text.push_str(&format!(
            "print('way {name}:', flush=True)\ndef way():\n    {body}\nchild = os.fork()\nif child == 0:\n    tried(way); sys.stdout.flush(); os._exit(0)\nos.waitpid(child, 0)\nsys.stdout.flush()\n"
        ));
    }
    fill(&text, mark, port, key)
}

fn fill(text: &str, mark: &str, port: u16, key: u32) -> String {
    text.replace("@MARK@", mark)
        .replace("@PORT@", &port.to_string())
        .replace("@KEY@", &key.to_string())
        .replace("@TEST@", &std::process::id().to_string())
}

struct Offered {
    mark: String,
    port: u16,
    key: u32,
}

impl Offered {
    fn new() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let unique = std::process::id();
        Self {
            mark: format!("mark-concurrent-{unique}-{port}"),
            port,
            key: 0x5000_0000 | (unique & 0xff_ffff),
        }
    }

    fn clean(&self) {
        for directory in ["/tmp", "/dev/shm", "/var/tmp"] {
            for name in [self.mark.clone(), format!("{}-held", self.mark)] {
                let _ = std::fs::remove_file(format!("{directory}/{name}"));
            }
        }
        let key = self.key.to_string();
        let _ = Command::new("ipcrm").args(["-M", &key]).stderr(Stdio::null()).status();
        let script = format!("import ctypes; ctypes.CDLL(None).mq_unlink(b'/{}')", self.mark);
        let _ = Command::new("/usr/bin/python3").args(["-c", &script]).status();
    }
}

fn write_scripts(fixture: &Fixture, offered: &Offered) {
    let offer = fill(&format!("{PRELUDE}{OFFER}"), &offered.mark, offered.port, offered.key);
    std::fs::write(fixture.workspace().join("offer.py"), offer).unwrap();
    let attempts = attempts(&offered.mark, offered.port, offered.key);
    std::fs::write(fixture.workspace().join("attempts.py"), attempts).unwrap();
}

fn wait_ready(fixture: &Fixture) {
    let start = Instant::now();
    while !std::fs::read_to_string(fixture.workspace().join("ready"))
        .is_ok_and(|text| text.split(' ').count() == 3)
    {
        assert!(start.elapsed() < Duration::from_secs(60), "the first call never offered itself");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stop(fixture: &Fixture) {
    std::fs::write(fixture.workspace().join("stop"), "").unwrap();
}

/// Ways of which the text says that they led to the other call.
fn led(text: &str) -> Vec<String> {
    let mut way = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("way ") {
            way = name.trim_end_matches(':').to_owned();
        } else if line.contains("SECRET-OF-THE-OTHER") && found.last() != Some(&way) {
            found.push(way.clone());
        }
    }
    found
}

fn direct(fixture: &Fixture, script: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(script)
        .current_dir(fixture.workspace())
        .env("TMPDIR", "/tmp")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

#[test]
fn every_way_works_without_a_wall() {
    remains::adopt_orphans();
    let fixture = Fixture::new();
    let offered = Offered::new();
    write_scripts(&fixture, &offered);
    let first = direct(&fixture, "offer.py").spawn().unwrap();
    wait_ready(&fixture);
    let second = direct(&fixture, "attempts.py").output().unwrap();
    stop(&fixture);
    let _ = first.wait_with_output().unwrap();
    offered.clean();
    remains::clear(0);
    let text = String::from_utf8_lossy(&second.stdout).into_owned();
    let led = led(&text);
    let broken: Vec<&str> =
        WAYS.iter().map(|(name, _)| *name).filter(|name| !led.contains(&(*name).to_owned())).collect();
    assert!(broken.is_empty(), "these ways are broken: {broken:?}\n{text}");
}

fn two_runs(fixture: &Fixture, sabotage: bool) -> (Output, Output) {
    let command = |script: &str| {
        let mut plain = fixture.oxibot();
        plain.args(["sandbox", "run", "--workspace"]).arg(fixture.workspace());
        plain.args(["--", "/usr/bin/python3", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        if !sabotage {
            return plain;
        }
        let mut command = Command::new(oxibot_tests::fixture::binary("sabotage"));
        command.args(["user-namespace", "--"]).arg(plain.get_program()).args(plain.get_args());
        command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env(ACCEPT_REDUCED.0, ACCEPT_REDUCED.1);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let first = command("offer.py").spawn().unwrap();
    wait_ready(fixture);
    let second = command("attempts.py").output().unwrap();
    stop(fixture);
    (first.wait_with_output().unwrap(), second)
}

fn judged(first: &str, second: &str) {
    assert!(second.contains("way kill:"), "the second call did not try everything: {second}");
    let led = led(second);
    assert!(led.is_empty(), "IT WORKED: {led:?}\n{second}\n{first}");
    assert!(
        first.contains("OTHER-IS-WELL") && first.contains("child None"),
        "the first call was harmed: {first}\n{second}"
    );
}

#[test]
fn two_runs_of_one_workspace_at_full() {
    let fixture = Fixture::new();
    let offered = Offered::new();
    write_scripts(&fixture, &offered);
    let (first, second) = two_runs(&fixture, false);
    judged(&String::from_utf8_lossy(&first.stdout), &String::from_utf8_lossy(&second.stdout));
    assert!(remains::names(&offered.mark).is_empty());
}

#[test]
fn two_runs_of_one_workspace_without_namespaces() {
    let fixture = Fixture::new();
    let offered = Offered::new();
    write_scripts(&fixture, &offered);
    let (first, second) = two_runs(&fixture, true);
    offered.clean();
    judged(&String::from_utf8_lossy(&first.stdout), &String::from_utf8_lossy(&second.stdout));
}

/// The results of calls that may end in any order, in theirs.
fn results(peer: &mut Peer, calls: &[CallNumber]) -> Vec<CallResult> {
    let mut found: Vec<CallResult> = Vec::new();
    while found.len() < calls.len() {
        if let ToMain::CallResult(result) = peer.receive().expect("a result before the end") {
            found.push(*result);
        }
    }
    found.sort_by_key(|result| calls.iter().position(|call| *call == result.call));
    found
}

fn two_calls(more: &[&str]) {
    let fixture = Fixture::new();
    let offered = Offered::new();
    write_scripts(&fixture, &offered);
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), more);
    let first = peer.call("bash", &json!({"command": "python3 offer.py"}));
    wait_ready(&fixture);
    let second = peer.call("bash", &json!({"command": "python3 attempts.py"}));
    let second = peer.result(second);
    stop(&fixture);
    let first = peer.result(first);
    offered.clean();
    let text = |head: &[u8], tail: &[u8]| String::from_utf8_lossy(&[head, tail].concat()).into_owned();
    assert_eq!(first.outcome, Outcome::Completed);
    judged(&text(&first.output.head, &first.output.tail), &text(&second.output.head, &second.output.tail));
    // Twice: a network namespace or System V object used before must not come back.
    let _ = std::fs::remove_file(fixture.workspace().join("stop"));
    let again = peer.bash("python3 attempts.py");
    let led = led(&text(&again.output.head, &again.output.tail));
    assert!(led.is_empty(), "what the first call left is there for the next: {led:?}");
}

#[test]
fn two_calls_of_one_toolhost_at_full() {
    two_calls(&[]);
}

#[test]
fn two_calls_of_one_toolhost_without_namespaces() {
    two_calls(&["--without-namespaces"]);
}

#[test]
fn two_workspaces_of_one_toolhost_do_not_see_each_other() {
    for more in [&[][..], &["--without-namespaces"][..]] {
        let fixture = Fixture::new();
        let other = fixture.root().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("secret"), "SECRET-OF-THE-OTHER").unwrap();
        let path = other.display().to_string();
        let mut arguments = vec!["--workspace", &path];
        arguments.extend(more);
        let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &arguments);
        let ask = |peer: &mut Peer, workspace: Option<String>, command: &str| {
            let call = peer.number();
            peer.send(&ToToolhost::Call(CallRequest {
                call,
                tool: "bash".into(),
                arguments: json!({"command": command}).to_string(),
                workspace,
                timeout_ms: None,
                origin: origin(),
                approval: None,
            }));
            call
        };
        // The control: asked for as its own workspace it is there.
        let call = ask(&mut peer, Some(path.clone()), "cat secret; echo mine > /tmp/mine; sleep 1.5");
        let intruder = format!(
            "sleep 0.3; cat {path}/secret ../other/secret /proc/[0-9]*/cwd/secret /proc/[0-9]*/root{path}/secret /tmp/mine; echo x > {path}/written; ls {path}"
        );
        let intruding = ask(&mut peer, None, &intruder);
        let both = results(&mut peer, &[call, intruding]);
        let intruded = &both[1];
        let text = String::from_utf8_lossy(&intruded.output.head).into_owned();
        assert!(!text.contains("SECRET-OF-THE-OTHER") && !text.contains("mine\n"), "IT WORKED: {text}");
        assert!(!other.join("written").exists());
        assert!(both[0].output.head.starts_with(b"SECRET-OF-THE-OTHER"), "{:?}", both[0]);
    }
}

#[test]
fn sixteen_calls_at_once_all_end_and_leave_nothing() {
    if !nix::unistd::geteuid().is_root() {
        return skip(
            "sixteen_calls_at_once_all_end_and_leave_nothing",
            "attribution of leftovers needs root",
        );
    }
    remains::adopt_orphans();
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let calls: Vec<_> = (0..16)
        .map(|n| peer.call("bash", &json!({"command": format!("(setsid sleep 71 &); sleep 71 & echo {n} > /tmp/x; cat /tmp/x; kill -9 -1 2>/dev/null; echo {n}")})))
        .collect();
    let _ = results(&mut peer, &calls);
    let left = remains::lasting(0, true, Duration::from_secs(5));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(peer.bash("echo alive").output.head, b"alive\n");
}
