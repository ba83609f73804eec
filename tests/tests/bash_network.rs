//! The network of a call: hosts by name, through a proxy of its own, and nothing else. Everything runs in an internet made by
//! the test, with public addresses, a name server and real servers that record who came.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use oxibot_proto::message::{CallResult, Certainty, Level, Outcome, ToMain};
use oxibot_tests::fixture::{Fixture, binary, describe};
use oxibot_tests::internet::{Answers, Contacts, Internet, Zone};
use oxibot_tests::peer::{Peer, hello};
use oxibot_tests::processes;

/// Public addresses, as nobody's on the machine: they are on the loopback of the test's own network namespace.
const LISTED: &str = "93.184.216.34";
const OTHER: &str = "93.184.216.35";
const PUBLIC_6: &str = "2606:2800:220:1:248:1893:25c8:1946";
/// What no call may reach, whatever leads there.
const INSIDE: [&str; 4] = ["10.1.2.3", "192.168.7.7", "169.254.169.254", "100.64.0.9"];

/// Says what the proxy answers to raw bytes: `ask 'CONNECT a.org:443 HTTP/1.1\r\n\r\n'`.
const ASK: &str =
    r#"ask() { exec 3<>/dev/tcp/127.0.0.1/3128; printf "$1" >&3; timeout 30 cat <&3; exec 3>&-; }; "#;

fn zone() -> Zone {
    let list =
        |addresses: &[&str]| addresses.iter().map(|one| one.parse::<IpAddr>().unwrap()).collect::<Vec<_>>();
    [
        ("web.example.org", list(&[LISTED])),
        ("deep.web.example.org", list(&[LISTED])),
        ("six.example.org", list(&[PUBLIC_6])),
        ("example.org", list(&[LISTED])),
        ("evilexample.org", list(&[OTHER])),
        ("web.example.org.evil.net", list(&[OTHER])),
        ("other.net", list(&[OTHER])),
        ("loop.example.org", list(&["127.0.0.1"])),
        ("loop6.example.org", list(&["::1"])),
        ("mapped.example.org", list(&["::ffff:10.1.2.3"])),
        ("zero.example.org", list(&["0.0.0.0"])),
        ("private.example.org", list(&[INSIDE[0]])),
        ("home.example.org", list(&[INSIDE[1]])),
        ("metadata.example.org", list(&[INSIDE[2]])),
        ("shared.example.org", list(&[INSIDE[3]])),
        ("mixed.example.org", list(&[LISTED, INSIDE[0]])),
        ("empty.example.org", list(&[])),
    ]
    .into_iter()
    .map(|(name, addresses)| (name, vec![addresses]))
    .chain([("rebind.example.org", vec![list(&[LISTED]), list(&["127.0.0.1"])])])
    .collect()
}

/// An internet, a toolhost in it, and the servers.
struct Net {
    internet: Internet,
    fixture: Fixture,
    peer: Peer,
    listed: Contacts,
    other: Contacts,
    inside: Vec<Contacts>,
}

const EXAMPLE: &str = r#"["*.example.org", "echo.example.org:7777"]"#;

impl Net {
    /// `None` where this machine cannot.
    fn new(test: &str, network: &str) -> Option<Self> {
        let addresses: Vec<&str> = [LISTED, OTHER, PUBLIC_6].into_iter().chain(INSIDE).collect();
        let mut zone = zone();
        zone.insert("echo.example.org", vec![vec![LISTED.parse().unwrap()]]);
        let internet = Internet::new(test, &addresses, zone)?;
        let fixture = Fixture::new();
        // What is tried must reach the wall, whatever a policy thinks of it.
        let policy = r#"{"overrides": [{"rule": "*", "verdict": "allow"}]}"#;
        configure(
            &fixture,
            &format!(r#"{{"tools": {{"bash": {{"network": {network}}}}}, "policy": {policy}}}"#),
        );
        let listed = internet.listen(&format!("{LISTED}:80"), Answers::Http("the listed host"));
        let other = internet.listen(&format!("{OTHER}:80"), Answers::Http("the other host"));
        let inside = INSIDE.iter().chain(&["127.0.0.1"]);
        let inside: Vec<Contacts> =
            inside.map(|host| internet.listen(&format!("{host}:80"), Answers::Http("inside"))).collect();
        let peer = start(&internet, &fixture);
        Some(Self { internet, fixture, peer, listed, other, inside })
    }

    fn bash(&mut self, command: &str) -> (CallResult, String) {
        let result = self.peer.bash(command);
        let text =
            String::from_utf8_lossy(&[result.output.head.clone(), result.output.tail.clone()].concat())
                .into_owned();
        (result, text)
    }

    /// Records of the audit log with this event.
    fn audit(&self, event: &str) -> Vec<serde_json::Value> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(self.fixture.home().join("audit")).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "jsonl") {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                records.extend(
                    text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()),
                );
            }
        }
        records.retain(|record| record["event"] == event);
        records
    }

    fn nobody_inside_was_reached(&self) {
        for (host, contacts) in INSIDE.iter().chain(&["127.0.0.1"]).zip(&self.inside) {
            assert_eq!(contacts.all(), Vec::<String>::new(), "{host} was reached");
        }
        assert_eq!(self.other.all(), Vec::<String>::new(), "{OTHER} was reached");
    }
}

fn configure(fixture: &Fixture, text: &str) {
    let file = fixture.home().join("config.json");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn start(internet: &Internet, fixture: &Fixture) -> Peer {
    start_as(internet.inside(&Command::new(binary("oxibot-toolhost"))), fixture)
}

/// As [`start`], by a command that becomes the toolhost.
fn start_as(command: Command, fixture: &Fixture) -> Peer {
    let config = fixture.home().join("config.json").display().to_string();
    let mut peer = Peer::start_as(command, &fixture.home(), &fixture.workspace(), &["--config", &config]);
    peer.send(&hello());
    match peer.receive() {
        Some(ToMain::Hello(hello)) => assert_eq!(hello.wall.level, Level::Full, "{:?}", hello.wall),
        other => panic!("expected a hello, got {other:?}"),
    }
    peer
}

/// What was refused, as (path, rule).
fn refused(result: &CallResult) -> Vec<(String, String)> {
    let mut refused = Vec::new();
    for violation in &result.violations {
        if violation.what == "connect" && violation.certainty == Certainty::Observed {
            let rule = violation.why.split("(rule ").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
            refused.push((violation.path.clone(), rule.to_owned()));
        }
    }
    refused.sort();
    refused
}

#[test]
fn listed_hosts_are_reached_by_every_way_the_proxy_speaks() {
    let Some(mut net) = Net::new("listed_hosts_are_reached", EXAMPLE) else { return };
    let echo = net.internet.listen(&format!("{LISTED}:7777"), Answers::Echo);
    let six = net.internet.listen(&format!("[{PUBLIC_6}]:80"), Answers::Http("by IPv6"));
    let (result, text) = net.bash(
        "for address in http://web.example.org/a?b http://deep.web.example.org/ http://six.example.org/; do \
         curl -sS -m 30 $address; echo; done; \
         curl -sS -m 30 -p http://web.example.org/; echo; \
         curl -sS -m 30 --proxy socks5h://127.0.0.1:3128 http://web.example.org/; echo; \
         curl -sS -m 30 -d hello=world http://web.example.org/form; echo; \
         curl -sS -m 30 -H 'Transfer-Encoding: chunked' -d chunked=body http://web.example.org/form; echo",
    );
    assert_eq!(result.outcome, Outcome::Completed);
    assert_eq!(text.matches("the listed host").count(), 6, "{text}");
    assert_eq!(text.matches("by IPv6").count(), 1, "{text}");
    assert_eq!(refused(&result), []);
    let sent = net.listed.all();
    assert!(sent[0].starts_with("GET /a?b HTTP/1.1\r\nHost: web.example.org\r\n"), "{sent:?}");
    assert!(
        sent[0].to_lowercase().contains("connection: close\r\n") && !sent[0].contains("roxy"),
        "{sent:?}"
    );
    assert!(sent[4].ends_with("\r\n\r\nhello=world"), "{sent:?}");
    assert!(sent[5].contains("\r\n\r\nc\r\nchunked=body\r\n0\r\n\r\n"), "{sent:?}");
    assert_eq!(six.all().len(), 1);
    let (_, text) = net.bash(&format!(
        "{ASK} ask 'CONNECT echo.example.org:7777 HTTP/1.1\\r\\n\\r\\nearly ' & sleep 1; kill %1 2>/dev/null; wait"
    ));
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("early "), "{text}");
    assert_eq!(echo.all(), ["early "]);
    let allowed = net.audit("connection");
    let hosts: Vec<_> =
        allowed.iter().map(|one| (one["host"].as_str().unwrap(), one["port"].as_u64().unwrap())).collect();
    assert_eq!(
        hosts,
        [
            ("web.example.org", 80),
            ("deep.web.example.org", 80),
            ("six.example.org", 80),
            ("echo.example.org", 7777)
        ],
        "each once a call"
    );
    assert!(allowed.iter().all(|one| one["verdict"] == "allowed" && one["rule"].is_null()), "{allowed:?}");
    assert_eq!(
        (allowed[0]["address"].as_str(), allowed[2]["address"].as_str()),
        (Some(LISTED), Some(PUBLIC_6))
    );
    assert_eq!(allowed[0]["call_id"].as_str(), Some(result.call_id.as_str()));
    net.nobody_inside_was_reached();
}

#[test]
fn an_ordinary_users_calls_have_the_same_network() {
    const USER: u32 = 48_219;
    let Some(internet) = Internet::new("an_ordinary_users_calls", &[LISTED, INSIDE[0]], zone()) else {
        return;
    };
    let fixture = Fixture::new();
    configure(&fixture, &format!(r#"{{"tools": {{"bash": {{"network": {EXAMPLE}}}}}}}"#));
    let programs = fixture.programs_for_anyone();
    for path in [fixture.home(), fixture.workspace(), fixture.home().join("config.json")] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    let listed = internet.listen(&format!("{LISTED}:80"), Answers::Http("the listed host"));
    let inside = internet.listen(&format!("{}:80", INSIDE[0]), Answers::Http("inside"));
    let mut toolhost = Command::new("setpriv");
    let user = USER.to_string();
    toolhost.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
    toolhost
        .arg(programs.join("oxibot-toolhost"))
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    let mut peer = start_as(internet.inside(&toolhost), &fixture);
    let result = peer.bash(
        "curl -sS -m 30 http://web.example.org/; curl -sS -m 30 http://private.example.org/; \
         curl -sS -m 30 http://other.net/; curl -sS -m 5 --noproxy '*' http://93.184.216.34/",
    );
    let text = String::from_utf8_lossy(&result.output.head);
    assert!(text.starts_with("the listed host") && !text.contains("inside\n"), "{text}");
    let rules = [("other.net:80", "net.host"), ("private.example.org:80", "net.address")];
    assert_eq!(refused(&result), rules.map(|(path, rule)| (path.to_owned(), rule.to_owned())));
    assert_eq!((listed.all().len(), inside.all().len()), (1, 0));
}

#[test]
fn hosts_that_are_not_listed_are_refused_with_host_and_setting() {
    let Some(mut net) = Net::new("hosts_that_are_not_listed", EXAMPLE) else { return };
    let hosts = ["other.net", "example.org", "evilexample.org", "web.example.org.evil.net"];
    let (result, text) = net.bash(&format!(
        "for host in {}; do curl -sS -m 30 http://$host/; curl -sS -m 30 https://$host/; done; \
         curl -sS -m 30 http://web.example.org:22/; curl -sS -m 30 http://echo.example.org:7778/; true",
        hosts.join(" ")
    ));
    assert_eq!(text.matches("tools.bash.network").count(), hosts.len() + 2, "{text}");
    assert_eq!(text.matches("CONNECT tunnel failed, response 403").count(), hosts.len(), "{text}");
    let mut expected: Vec<(String, String)> = hosts
        .iter()
        .flat_map(|host| [80, 443].map(|port| (format!("{host}:{port}"), "net.host".to_owned())))
        .chain([
            ("web.example.org:22".into(), "net.port".into()),
            ("echo.example.org:7778".into(), "net.port".into()),
        ])
        .collect();
    expected.sort();
    assert_eq!(refused(&result), expected);
    for violation in &result.violations {
        let host = violation.path.split(':').next().unwrap();
        assert!(
            violation.why.contains(host) && violation.why.contains("tools.bash.network"),
            "{violation:?}"
        );
    }
    for host in hosts {
        assert!(!net.internet.asked().contains(&host.to_owned()), "{host} was looked up");
    }
    assert!(net.audit("connection").iter().all(|record| record["verdict"] == "refused"));
    assert_eq!(net.audit("connection").len(), expected.len());
    assert_eq!(net.listed.all(), Vec::<String>::new());
    net.nobody_inside_was_reached();
}

#[test]
fn names_that_lead_inside_are_refused() {
    let Some(mut net) = Net::new("names_that_lead_inside", EXAMPLE) else { return };
    let names = ["loop", "loop6", "mapped", "zero", "private", "home", "metadata", "shared", "mixed"];
    let (result, text) = net.bash(&format!(
        "for name in {}; do curl -sS -m 30 http://$name.example.org/; \
         curl -sS -m 30 -p http://$name.example.org/; \
         curl -sS -m 30 --proxy socks5h://127.0.0.1:3128 http://$name.example.org/; done; true",
        names.join(" ")
    ));
    assert!(!text.contains("inside\n") && !text.contains("the listed host"), "{text}");
    let mut expected: Vec<(String, String)> =
        names.iter().map(|name| (format!("{name}.example.org:80"), "net.address".to_owned())).collect();
    expected.sort();
    assert_eq!(refused(&result), expected);
    let (result, text) =
        net.bash("curl -sS -m 30 http://empty.example.org/; curl -sS -m 30 http://nosuch.example.org/");
    assert!(
        text.contains("empty.example.org has no address") && text.contains("there is no host nosuch"),
        "{text}"
    );
    assert_eq!(refused(&result), [], "a failure is no refusal");
    net.nobody_inside_was_reached();
    assert_eq!(net.listed.all(), Vec::<String>::new());
}

#[test]
fn a_name_that_changes_its_mind_is_judged_at_each_connection() {
    let Some(mut net) = Net::new("a_name_that_changes_its_mind", EXAMPLE) else { return };
    let (result, text) = net
        .bash("curl -sS -m 30 http://rebind.example.org/; echo; curl -sS -m 30 http://rebind.example.org/");
    assert!(text.starts_with("the listed host\n"), "{text}");
    assert_eq!(refused(&result), [("rebind.example.org:80".to_owned(), "net.address".to_owned())]);
    net.nobody_inside_was_reached();
}

#[test]
fn addresses_in_any_spelling_are_refused() {
    let Some(mut net) = Net::new("addresses_in_any_spelling", EXAMPLE) else { return };
    let spellings = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "017700000001",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::]",
        "[fe80::1%25lo]",
        "[64:ff9b::7f00:1]",
        "10.1.2.3",
        "169.254.169.254",
        LISTED,
        "web.example.org.",
        "web.example.org%00.evil.net",
        "u@web.example.org",
        "u:p@web.example.org",
        "localhost",
        "a.localhost",
        "web..example.org",
        ".example.org",
        "web.example.org\\x00",
        "w\\xc3\\xa9b.example.org",
        "web.example.org\\x01",
        "web\\xe3\\x80\\x82example.org",
    ];
    let mut script = ASK.to_owned();
    for spelling in spellings {
        // In a format string a percent sign is written twice.
        let spelling = spelling.replace('%', "%%");
        script.push_str(&format!(
            "ask 'CONNECT {spelling}:80 HTTP/1.1\\r\\n\\r\\n' | head -n1 | tr '\\r' ' '; \
             ask 'GET http://{spelling}:80/ HTTP/1.1\\r\\n\\r\\n' | head -n1 | tr '\\r' ' '\n"
        ));
    }
    // SOCKS5: addresses of both kinds, an address as a name, a name with a NUL; then BIND, UDP and SOCKS4.
    for request in [
        "\\x05\\x01\\x00\\x01\\x7f\\x00\\x00\\x01\\x00\\x50",
        "\\x05\\x01\\x00\\x04\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\x01\\x00\\x50",
        "\\x05\\x01\\x00\\x03\\x09127.0.0.1\\x00\\x50",
        "\\x05\\x01\\x00\\x03\\x10web.example.org\\x00\\x00\\x50",
        "\\x05\\x02\\x00\\x03\\x0fweb.example.org\\x00\\x50",
        "\\x05\\x03\\x00\\x03\\x0fweb.example.org\\x00\\x50",
    ] {
        script.push_str(&format!("ask '\\x05\\x01\\x00{request}' | od -An -tx1 | head -n1\n"));
    }
    script.push_str("ask '\\x04\\x01\\x00\\x50\\x7f\\x00\\x00\\x01\\x00' | od -An -tx1 | head -n1\n");
    let (result, text) = net.bash(&script);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with("[note")).collect();
    let (http, socks) = lines.split_at(2 * spellings.len());
    for (line, spelling) in http.iter().zip(spellings.iter().flat_map(|one| [one, one])) {
        assert!(line.starts_with("HTTP/1.1 403 ") || line.starts_with("HTTP/1.1 400 "), "{spelling}: {line}");
    }
    let replies: Vec<String> =
        socks.iter().map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        replies,
        [
            "05 00 05 02",
            "05 00 05 02",
            "05 00 05 02",
            "05 00 05 02",
            "05 00 05 07",
            "05 00 05 07",
            "00 5b 00 00"
        ],
        "{text}"
    );
    assert!(!refused(&result).is_empty());
    assert_eq!(net.internet.asked(), Vec::<String>::new(), "nothing of this is looked up");
    assert_eq!(net.listed.all(), Vec::<String>::new());
    net.nobody_inside_was_reached();
}

#[test]
fn one_request_goes_to_one_host_and_nothing_is_smuggled_behind_it() {
    let Some(mut net) = Net::new("one_request_goes_to_one_host", EXAMPLE) else { return };
    let hidden = "GET /hidden HTTP/1.1\\r\\nHost: other.net\\r\\n\\r\\n";
    let good = [
        // Another host in a header, behind a body, behind a chunked body, in a pipeline.
        format!(
            "GET http://web.example.org/1 HTTP/1.1\\r\\nHost: other.net\\r\\nX-Forwarded-Host: a\\r\\n\\r\\n{hidden}"
        ),
        format!("POST http://web.example.org/2 HTTP/1.1\\r\\nContent-Length: 3\\r\\n\\r\\nabc{hidden}"),
        format!(
            "POST http://web.example.org/3 HTTP/1.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n3\\r\\nabc\\r\\n0\\r\\n\\r\\n{hidden}"
        ),
    ];
    let bad = [
        format!(
            "POST http://web.example.org/4 HTTP/1.1\\r\\nContent-Length: 0\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n{hidden}"
        ),
        format!(
            "POST http://web.example.org/5 HTTP/1.1\\r\\nContent-Length: 5\\r\\nContent-Length: 0\\r\\n\\r\\n{hidden}"
        ),
        format!(
            "POST http://web.example.org/6 HTTP/1.1\\r\\nTransfer-Encoding : chunked\\r\\n\\r\\n0\\r\\n\\r\\n{hidden}"
        ),
        format!(
            "POST http://web.example.org/7 HTTP/1.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0;x\\r\\n\\r\\n{hidden}"
        ),
        format!("GET http://web.example.org/8 HTTP/1.1\\nHost: other.net\\r\\n\\r\\n{hidden}"),
        format!("GET http://web.example.org/9 HTTP/1.1\\r\\nX: y\\r\\n z: {hidden}"),
    ];
    let mut script = ASK.to_owned();
    for request in good.iter().chain(&bad) {
        script.push_str(&format!("ask '{request}' | head -n1\n"));
    }
    let (_, text) = net.bash(&script);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), good.len() + bad.len(), "{text}");
    assert!(lines[..good.len()].iter().all(|line| line.starts_with("HTTP/1.1 200")), "{text}");
    assert!(
        lines[good.len()..good.len() + bad.len()].iter().all(|line| line.starts_with("HTTP/1.1 400")),
        "{text}"
    );
    let sent = net.listed.all();
    // A head whose body turns out bad when it comes may have been passed on; nothing that comes behind it is.
    let (late, whole): (Vec<_>, Vec<_>) = sent.iter().partition(|one| one.starts_with("POST /7 "));
    assert_eq!(whole.len(), good.len(), "{sent:?}");
    assert!(
        late.len() <= 1 && late.iter().all(|one| one.ends_with("\r\n\r\n") && one.lines().count() <= 5),
        "{late:?}"
    );
    for one in &sent {
        assert!(!one.contains("hidden") && !one.contains("other.net"), "{one}");
        assert_eq!(one.matches("Host: web.example.org\r\n").count(), 1, "{one}");
    }
    net.nobody_inside_was_reached();
}

#[test]
fn nothing_leads_around_the_proxy() {
    let Some(mut net) = Net::new("nothing_leads_around_the_proxy", EXAMPLE) else { return };
    let asked_before = net.internet.asked().len();
    let (result, text) = net.bash(&format!(
        "unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY no_proxy NO_PROXY\n\
         for host in {LISTED} {OTHER} 10.1.2.3 169.254.169.254 127.0.0.1 '[{PUBLIC_6}]' web.example.org; do \
         curl -s -m 5 http://$host/ && echo REACHED $host; done\n\
         echo hello > /dev/tcp/{LISTED}/80 && echo REACHED tcp\n\
         for server in 127.0.0.53 {LISTED} 8.8.8.8; do echo hello > /dev/udp/$server/53 && echo sent $server; done\n\
         getent hosts web.example.org && echo REACHED dns\n\
         python3 -c 'import socket; print(socket.getaddrinfo(\"web.example.org\", 80))' 2>/dev/null && echo REACHED getaddrinfo\n\
         tail -n +3 /proc/net/dev | cut -d: -f1; cat /proc/net/route | wc -l; wc -l < /proc/net/tcp\n\
         true"
    ));
    assert_eq!(result.outcome, Outcome::Completed);
    assert!(!text.contains("REACHED"), "{text}");
    let interfaces: Vec<&str> = text.lines().filter(|line| line.trim() == "lo").collect();
    assert_eq!(interfaces.len(), 1, "{text}");
    assert!(!text.contains("eth") && !text.contains("dummy"), "{text}");
    assert_eq!(net.internet.asked().len(), asked_before, "{:?}", net.internet.asked());
    assert_eq!(net.listed.all(), Vec::<String>::new());
    net.nobody_inside_was_reached();
    // The control: with the variables as they were the same call gets through.
    assert_eq!(net.bash("curl -sS -m 30 http://web.example.org/").1, "the listed host");
}

#[test]
fn without_a_list_there_is_no_proxy_no_process_and_no_variable() {
    for network in ["\"none\"", "[]"] {
        let Some(mut net) = Net::new("without_a_list", network) else { return };
        let (result, text) = net.bash(
            "env | grep -i proxy; exec 3<>/dev/tcp/127.0.0.1/3128 && echo REACHED; wc -l < /proc/net/tcp; sleep 1",
        );
        assert!(matches!(result.outcome, Outcome::Completed), "{result:?}");
        assert!(text.contains("Connection refused") && !text.contains("REACHED"), "{text}");
        assert!(text.lines().all(|line| !line.to_lowercase().starts_with("http_proxy")), "{text}");
        assert!(text.lines().any(|line| line == "1"), "nobody listens: {text}");
        let pid = i32::try_from(net.peer.child.id()).unwrap();
        assert_eq!(processes::below(pid, "egress").len(), 0);
        net.nobody_inside_was_reached();
    }
}

#[test]
fn each_call_has_a_proxy_of_its_own() {
    let Some(mut net) = Net::new("each_call_has_a_proxy_of_its_own", EXAMPLE) else { return };
    let echo = net.internet.listen(&format!("{LISTED}:7777"), Answers::Echo);
    let pid = i32::try_from(net.peer.child.id()).unwrap();
    let command = |name: &str| {
        serde_json::json!({ "command": format!(
            "{ASK} (ask 'CONNECT echo.example.org:7777 HTTP/1.1\\r\\n\\r\\n{name}' > {name}.txt &); sleep 3; \
             tail -n +2 /proc/net/tcp | wc -l; cat {name}.txt"
        ) })
    };
    let (one, two) = (net.peer.call("bash", &command("one")), net.peer.call("bash", &command("two")));
    let until = Instant::now() + Duration::from_secs(30);
    while echo.all().len() < 2 || echo.all().iter().any(String::is_empty) {
        assert!(Instant::now() < until, "{:?}", echo.all());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(processes::below(pid, "egress").len(), 2, "{:?}", processes::tree(pid));
    let mut results = Vec::new();
    while results.len() < 2 {
        if let ToMain::CallResult(result) = net.peer.receive().unwrap() {
            assert!(result.call == one || result.call == two);
            results.push(*result);
        }
    }
    results.sort_by_key(|result| result.call);
    for (result, (own, others)) in results.iter().zip([("one", "two"), ("two", "one")]) {
        let text = String::from_utf8_lossy(&result.output.head);
        assert!(text.contains(own) && !text.contains(others), "{text}");
    }
    let mut sent = echo.all();
    sent.sort();
    assert_eq!(sent, ["one", "two"]);
    // Each connection is recorded for its call, and ends with it although its program held on to it.
    let mut recorded: Vec<String> =
        net.audit("connection").iter().map(|record| record["call_id"].as_str().unwrap().to_owned()).collect();
    recorded.sort();
    let mut calls: Vec<String> = results.into_iter().map(|result| result.call_id).collect();
    calls.sort();
    assert_eq!(recorded, calls);
    let until = Instant::now() + Duration::from_secs(30);
    while echo.open() > 0 || !processes::below(pid, "egress").is_empty() {
        assert!(Instant::now() < until, "{} open, {:?}", echo.open(), processes::tree(pid));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_list_needs_level_full_and_says_so() {
    let fixture = Fixture::new();
    let network = ("OXIBOT_TOOLS__BASH__NETWORK", r#"["example.org"]"#);
    let call = ["tool", "call", "bash", r#"{"command":":"}"#, "--json", "--workspace"];
    let output = fixture
        .oxibot()
        .env(network.0, network.1)
        .args(["--no-sandbox", "--no-sandbox"])
        .args(call)
        .arg(fixture.workspace())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("tools.bash.network") && text.contains("--no-sandbox"), "{text}");
    let oxibot = fixture.oxibot();
    let mut without = Command::new(binary("sabotage"));
    without
        .args(["user-namespace", "--"])
        .arg(oxibot.get_program())
        .args(oxibot.get_args())
        .args(call)
        .arg(fixture.workspace());
    without.env_clear().env("HOME", fixture.root()).env("PATH", "/usr/bin:/bin").env(network.0, network.1);
    without.env("OXIBOT_SANDBOX__REQUIRE", "reduced");
    let output = without.output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["tools.bash.network lists hosts", "full", "none"] {
        assert!(text.contains(part), "{text}");
    }
    let control = without.env(network.0, "none").output().unwrap();
    assert_eq!(control.status.code(), Some(0), "{}", describe(&control));
}

#[test]
fn a_list_that_is_none_is_refused_with_its_place() {
    let fixture = Fixture::new();
    for (network, part) in [
        (r#"["*"]"#, "`*` is no host"),
        (r#"["10.0.0.1"]"#, "it is an address"),
        (r#"["https://example.org"]"#, "no port"),
        (r#"["example.org."]"#, "ends with a dot"),
        (r#""all""#, "none"),
        ("true", "none"),
    ] {
        configure(&fixture, &format!(r#"{{"tools": {{"bash": {{"network": {network}}}}}}}"#));
        let output = fixture.oxibot().args(["config", "check"]).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{network}: {}", describe(&output));
        let said = describe(&output);
        assert!(said.contains(part) && said.contains("network"), "{network}: {said}");
    }
    configure(&fixture, r#"{"tools": {"bash": {"network": ["*.Example.org", "git.example.net:8443"]}}}"#);
    let output = fixture.oxibot().args(["config", "show"]).output().unwrap();
    let shown = describe(&output);
    assert!(shown.contains("*.example.org") || shown.contains("*.Example.org"), "{shown}");
}
