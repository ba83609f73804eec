//! The programs people use, through the proxy of a call: `curl`, `git`, `pip`, `npm` and `cargo` against real servers over
//! real TLS with a private authority. And how the proxy stands up to programs that mean it no good.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use oxibot_proto::message::{CallResult, Level, Outcome, ToMain};
use oxibot_tests::fixture::{Fixture, binary, describe, skip};
use oxibot_tests::internet::{Answers, Internet, Server, Zone};
use oxibot_tests::peer::{Peer, hello};
use oxibot_tests::processes;
use serde_json::{Value, json};

/// On the loopback of the test's own network namespace.
const LISTED: &str = "93.184.216.34";
const OTHER: &str = "93.184.216.35";

struct Net {
    peer: Peer,
    internet: Internet,
    fixture: Fixture,
}

impl Net {
    fn new(test: &str, more: &Value) -> Option<Self> {
        let names = ["www", "git", "pypi", "npm", "crates", "files", "slow"];
        let lists = |address: &str| vec![vec![address.parse().unwrap()]];
        let names = names.map(|name| &*Box::leak(format!("{name}.example.org").into_boxed_str()));
        let zone: Zone = names
            .into_iter()
            .map(|name| (name, lists(LISTED)))
            .chain([("other.net", lists(OTHER))])
            .collect();
        let internet = Internet::new(test, &[LISTED, OTHER], zone)?;
        let fixture = Fixture::new();
        let mut configuration = json!({ "tools": { "bash": { "network": ["*.example.org"], "timeout": 300 } },
            "policy": { "overrides": [{ "rule": "*", "verdict": "allow" }] } });
        for (name, section) in more.as_object().into_iter().flatten() {
            configuration[name] = section.clone();
        }
        let file = fixture.home().join("config.json");
        std::fs::write(&file, configuration.to_string()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let command = internet.inside(&Command::new(binary("oxibot-toolhost")));
        let config = file.display().to_string();
        let mut peer = Peer::start_as(command, &fixture.home(), &fixture.workspace(), &["--config", &config]);
        peer.send(&hello());
        match peer.receive() {
            Some(ToMain::Hello(hello)) => assert_eq!(hello.wall.level, Level::Full, "{:?}", hello.wall),
            other => panic!("expected a hello, got {other:?}"),
        }
        // Downloads may take longer than the usual patience of a peer.
        peer.stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        Some(Self { peer, internet, fixture })
    }

    /// Serves a directory at the listed address; the authority's certificate is `ca.pem` in the workspace.
    fn serve(&mut self, files: &Path) -> Server {
        self.internet.serve_files(&format!("{LISTED}:443"), files, &self.fixture.workspace().join("ca.pem"))
    }

    fn bash(&mut self, command: &str) -> (CallResult, String) {
        let result = self.peer.bash(command);
        let text = [result.output.head.clone(), result.output.tail.clone()].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (result, text)
    }

    /// A command that must end well and print `expected`.
    fn works(&mut self, command: &str, expected: &str) {
        let (result, text) = self.bash(command);
        assert_eq!((result.outcome, result.exit_code), (Outcome::Completed, Some(0)), "{command}: {text}");
        assert!(text.contains(expected), "{command}: {text}");
        assert_eq!(result.violations, [], "{command}");
    }

    /// A command that must fail because a host is not listed, which the result says.
    fn is_refused(&mut self, command: &str, host: &str) {
        let (result, text) = self.bash(command);
        assert_ne!(result.exit_code, Some(0), "{command}: {text}");
        let told = result.violations.iter().find(|violation| violation.path.starts_with(host));
        let told = told.unwrap_or_else(|| panic!("{command}: {text}: {:?}", result.violations));
        assert!(told.why.contains(host) && told.why.contains("tools.bash.network"), "{told:?}");
    }
}

/// Runs a script that prepares something; it must end well.
fn prepare(directory: &Path, script: &str) {
    let output = Command::new("bash")
        .args(["-ec", script])
        .current_dir(directory)
        .env("HOME", directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", describe(&output));
}

/// Whether calls have this program, which is else said.
fn has(net: &mut Net, test: &str, program: &str) -> bool {
    let there = net.bash(&format!("{program} >/dev/null 2>&1")).0.exit_code == Some(0);
    if !there {
        skip(test, &format!("`{program}` does not work in a call here"));
    }
    there
}

#[test]
fn curl_and_git_work_over_tls_that_nobody_opens() {
    let test = "curl_and_git_work_over_tls";
    let Some(mut net) = Net::new(test, &json!({})) else { return };
    let files = tempfile::tempdir().unwrap();
    prepare(
        files.path(),
        "echo hello-over-tls > hello.txt; head -c 3000000 /dev/zero | tr '\\0' x > large.txt
         git init -q -b main work; cd work; git config user.name t; git config user.email t@example.org
         echo content-of-the-repository > file; git add file; git commit -qm first; cd ..
         git clone -q --bare work repo.git; cd repo.git; git update-server-info",
    );
    let _server = net.serve(files.path());
    net.works("curl -sS -m 60 --cacert ca.pem https://www.example.org/hello.txt", "hello-over-tls");
    net.works("curl -sS -m 60 --cacert ca.pem https://www.example.org/large.txt | wc -c", "3000000");
    net.works(
        "curl -sS -m 60 --proxy socks5h://127.0.0.1:3128 --cacert ca.pem https://www.example.org/hello.txt",
        "hello-over-tls",
    );
    let (result, text) = net.bash("curl -sS -m 60 https://www.example.org/hello.txt");
    assert_ne!(result.exit_code, Some(0), "whoever does not know the authority must notice: {text}");
    assert!(text.to_lowercase().contains("certificate"), "{text}");
    net.works(
        "git -c http.sslCAInfo=$PWD/ca.pem clone -q https://git.example.org/repo.git here && cat here/file",
        "content-of-the-repository",
    );
    net.is_refused("git clone -q https://other.net/repo.git there", "other.net");
    net.is_refused("curl -sSf -m 60 https://other.net/", "other.net");
}

#[test]
fn pip_installs_through_the_proxy() {
    let test = "pip_installs_through_the_proxy";
    let Some(mut net) = Net::new(test, &json!({})) else { return };
    if !has(&mut net, test, "python3 -m pip --version") {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    prepare(
        files.path(),
        r#"mkdir -p simple/oxitestpkg packages
python3 - <<'END'
import zipfile
info = "oxitestpkg-1.0.dist-info/"
with zipfile.ZipFile("packages/oxitestpkg-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("oxitestpkg.py", "print('installed-by-pip')\n")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: oxitestpkg\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "oxitestpkg.py,,\n" + "".join(info + name + ",,\n" for name in ("METADATA", "WHEEL", "RECORD")))
END
echo '<!DOCTYPE html><html><body><a href="https://files.example.org/packages/oxitestpkg-1.0-py3-none-any.whl">oxitestpkg-1.0-py3-none-any.whl</a></body></html>' > simple/oxitestpkg/index.html"#,
    );
    let _server = net.serve(files.path());
    let pip = "python3 -m pip --disable-pip-version-check install -q --no-cache-dir --retries 0 --timeout 60 --root-user-action ignore";
    net.works(
        &format!("{pip} --cert ca.pem --index-url https://pypi.example.org/simple/ --target t oxitestpkg && PYTHONPATH=t python3 -m oxitestpkg"),
        "installed-by-pip",
    );
    net.is_refused(
        &format!("{pip} --cert ca.pem --index-url https://other.net/simple/ --target u oxitestpkg"),
        "other.net",
    );
}

#[test]
fn npm_installs_through_the_proxy() {
    let test = "npm_installs_through_the_proxy";
    let Some(mut net) = Net::new(test, &json!({})) else { return };
    if !has(&mut net, test, "npm --version") {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    prepare(
        files.path(),
        r#"mkdir package; echo '{"name":"oxi-test-pkg","version":"1.0.0","main":"index.js"}' > package/package.json
echo 'module.exports = "installed-by-npm"' > package/index.js
tar czf oxi-test-pkg-1.0.0.tgz package
sum=$(openssl dgst -sha512 -binary oxi-test-pkg-1.0.0.tgz | base64 -w0)
printf '{"name":"oxi-test-pkg","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"oxi-test-pkg","version":"1.0.0","dist":{"tarball":"https://npm.example.org/oxi-test-pkg-1.0.0.tgz","integrity":"sha512-%s"}}}}' "$sum" > oxi-test-pkg"#,
    );
    let _server = net.serve(files.path());
    let npm =
        "npm install --cafile ca.pem --no-audit --no-fund --no-update-notifier --fetch-retries 0 --prefix p";
    net.works(
        &format!("mkdir p && {npm} --registry https://npm.example.org/ oxi-test-pkg >/dev/null && cd p && node -p 'require(\"oxi-test-pkg\")'"),
        "installed-by-npm",
    );
    net.is_refused(&format!("{npm} --registry https://other.net/ oxi-test-pkg"), "other.net");
}

#[test]
fn cargo_fetches_through_the_proxy() {
    let test = "cargo_fetches_through_the_proxy";
    let root = Command::new("rustc").args(["--print", "sysroot"]).output();
    let Ok(root) = root.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) else {
        return skip(test, "there is no rustc");
    };
    let Some(mut net) = Net::new(test, &json!({ "sandbox": { "read": [root] } })) else { return };
    // By its own path: what is found by name may be a shim of a home that calls do not see.
    let cargo = format!(
        "env HOME=$D CARGO_HOME=$D/c CARGO_HTTP_CAINFO=$D/ca.pem CARGO_NET_RETRY=0 RUSTC={root}/bin/rustc {root}/bin/cargo"
    );
    if !has(&mut net, test, &format!("D=$PWD; {cargo} --version")) {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    prepare(
        files.path(),
        r#"mkdir -p oxitestcrate-0.1.0/src index/ox/it crates/oxitestcrate/0.1.0
printf '[package]\nname = "oxitestcrate"\nversion = "0.1.0"\nedition = "2021"\n' > oxitestcrate-0.1.0/Cargo.toml
echo 'pub fn f() {} // fetched-by-cargo' > oxitestcrate-0.1.0/src/lib.rs
tar czf crates/oxitestcrate/0.1.0/download oxitestcrate-0.1.0
sum=$(sha256sum crates/oxitestcrate/0.1.0/download | cut -d' ' -f1)
echo '{"dl":"https://crates.example.org/crates"}' > index/config.json
printf '{"name":"oxitestcrate","vers":"0.1.0","deps":[],"cksum":"%s","features":{},"yanked":false}\n' "$sum" > index/ox/it/oxitestcrate"#,
    );
    let _server = net.serve(files.path());
    prepare(
        &net.fixture.workspace(),
        r#"for host in crates.example.org other.net; do mkdir -p $host/src $host/.cargo; : > $host/src/lib.rs
printf '[package]\nname = "user"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\noxitestcrate = "0.1"\n' > $host/Cargo.toml
printf '[source.crates-io]\nreplace-with = "own"\n[source.own]\nregistry = "sparse+https://%s/index/"\n' $host > $host/.cargo/config.toml; done"#,
    );
    net.works(
        &format!(
            "D=$PWD; cd crates.example.org && {cargo} fetch 2>&1 && grep -rh fetched-by-cargo $D/c/registry/src"
        ),
        "fetched-by-cargo",
    );
    net.is_refused(&format!("D=$PWD; cd other.net && {cargo} fetch"), "other.net");
}

#[test]
fn a_thousand_connections_hurt_nobody_but_their_call() {
    let Some(mut net) = Net::new("a_thousand_connections", &json!({})) else { return };
    let served = net.internet.listen(&format!("{LISTED}:80"), Answers::Http("served"));
    let pid = i32::try_from(net.peer.child.id()).unwrap();
    // Each a connection of its own, fifty at a time: all are served.
    let (result, text) = net.bash(
        r#"cat > many.py <<'END'
import concurrent.futures, socket
def one(number):
    s = socket.create_connection(("127.0.0.1", 3128), 60)
    s.settimeout(60)
    s.sendall(b"GET http://www.example.org/%d HTTP/1.1\r\n\r\n" % number)
    got = b""
    while True:
        more = s.recv(4096)
        if not more: return got.endswith(b"served")
        got += more
with concurrent.futures.ThreadPoolExecutor(50) as pool:
    print(sum(pool.map(one, range(1000))), "of 1000")
END
python3 many.py"#,
    );
    assert!(text.starts_with("1000 of 1000"), "{result:?} {text}");
    assert_eq!(served.all().len(), 1000);
    // A thousand that say nothing and stay: more than are taken at once. Another call does not notice.
    let hog = net.peer.call(
        "bash",
        &json!({ "timeout_s": 300, "command":
            r#"cat > hog.py <<'END'
import errno, os, socket, time
held = []
for number in range(1000):
    s = socket.socket(); s.setblocking(False)
    if s.connect_ex(("127.0.0.1", 3128)) in (0, errno.EINPROGRESS): held.append(s)
open("held", "w").write(str(len(held)))
while not os.path.exists("enough"): time.sleep(0.05)
for s in held: s.close()
print("held", len(held))
END
ulimit -n 4096; python3 hog.py; curl -sS -m 120 http://www.example.org/after"# }),
    );
    let until = Instant::now() + Duration::from_secs(60);
    while !net.fixture.workspace().join("held").exists() {
        assert!(Instant::now() < until, "the connections were not made");
        std::thread::sleep(Duration::from_millis(20));
    }
    let egress = processes::below(pid, "egress");
    let memory = egress.iter().map(|one| processes::memory(one.pid, "VmRSS")).max();
    assert!(memory.is_some_and(|kib| kib < 64 * 1024), "{memory:?} KiB");
    net.works("curl -sS -m 60 http://www.example.org/beside", "served");
    std::fs::write(net.fixture.workspace().join("enough"), "").unwrap();
    let result = net.peer.result(hog);
    let text = String::from_utf8_lossy(&result.output.head).into_owned();
    assert!(text.starts_with("held 1000") && text.contains("served"), "{text}");
}

#[test]
fn a_slow_or_endless_head_is_given_up() {
    let Some(mut net) = Net::new("a_slow_or_endless_head", &json!({})) else { return };
    let served = net.internet.listen(&format!("{LISTED}:80"), Answers::Http("served"));
    let (_, text) = net.bash(
        r#"cat > slow.py <<'END'
import socket, time
def talk(pieces, pause):
    s = socket.create_connection(("127.0.0.1", 3128), 60)
    start = time.time()
    try:
        for piece in pieces:
            s.sendall(piece)
            s.settimeout(pause)
            try:
                got = s.recv(100)
                return got.split(b"\r\n")[0].decode() or "closed"
            except TimeoutError: pass
            if time.time() - start > 100: return "still open"
    except OSError as error: return "closed"
    return "still open"
def endless(piece):
    while True: yield piece
print("slow:", talk(endless(b"G"), 1))
print("slow header:", talk([b"GET http://www.example.org/ HTTP/1.1\r\n"] + [b"A: b\r\n"] * 200, 1))
print("endless:", talk(endless(b"A" * 4096), 0.001))
END
timeout 280 python3 slow.py; curl -sS -m 60 http://www.example.org/after"#,
    );
    assert!(text.contains("slow: closed\n") && text.contains("slow header: closed\n"), "{text}");
    assert!(text.contains("endless: HTTP/1.1 400") || text.contains("endless: closed"), "{text}");
    assert!(text.ends_with("served"), "{text}");
    assert_eq!(served.all().len(), 1);
}

#[test]
fn a_proxy_that_dies_takes_the_network_of_its_call_and_nothing_else() {
    let Some(mut net) = Net::new("a_proxy_that_dies", &json!({})) else { return };
    let _served = net.internet.listen(&format!("{LISTED}:80"), Answers::Http("served"));
    let pid = i32::try_from(net.peer.child.id()).unwrap();
    let call = net.peer.call(
        "bash",
        &json!({ "command": "curl -sS -m 60 http://www.example.org/ && touch ready; while [ ! -e go ]; do sleep 0.05; done; \
                             curl -sS -m 20 http://www.example.org/ || echo none; echo the call goes on" }),
    );
    let until = Instant::now() + Duration::from_secs(60);
    while !net.fixture.workspace().join("ready").exists() {
        assert!(Instant::now() < until, "the call does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let egress = processes::below(pid, "egress");
    assert_eq!(egress.len(), 1, "{egress:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(egress[0].pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    while !processes::below(pid, "egress").is_empty() {
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::write(net.fixture.workspace().join("go"), "").unwrap();
    let result = net.peer.result(call);
    let text = String::from_utf8_lossy(&result.output.head).into_owned();
    assert!(text.contains("none\nthe call goes on"), "{text}");
    assert!(
        result.notes.iter().any(|note| note.contains("the call had no network any more")),
        "{:?}",
        result.notes
    );
    net.works("curl -sS -m 60 http://www.example.org/", "served");
}
