//! The web tools against real servers in a network namespace of their own: hostile pages, hostile redirects, a name
//! server that changes its mind, and listeners on private addresses that nobody may reach.
//!
//! Each test is a process of its own (nextest), enters fresh network and mount namespaces with one thread, gives the
//! loopback interface public and private addresses, and starts its servers there. Nothing leaves the machine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen,
    recv, send, sendmsg, socket, socketpair,
};
use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{CallNumber, Outcome, ToMain};
use oxibot_proto::settings::SearchProvider;
use oxibot_proto::web::SearchService;
use oxibot_tests::fixture::{Fixture, binary, describe, skip};
use oxibot_tests::peer::Peer;
use oxibot_tests::processes::{below, memory, tree};
use oxibot_toolhost::fetcher::unit;
use oxibot_toolhost::sys;
use oxibot_toolhost::wire::{FetchAnswer, FetchRequest, FetchResult, FetchWork};
use serde_json::json;

/// Public, because no registry says otherwise; here, because the namespace has it on `lo`.
const PUBLIC: &str = "93.184.216.34";
const PRIVATE: [&str; 6] =
    ["10.0.0.5", "169.254.169.254", "192.168.1.1", "100.64.0.1", "172.16.0.1", "198.18.0.1"];
const PRIVATE_V6: [&str; 2] = ["fd00::5", "2001:db8::5"];

/// A namespace with addresses and a name server. `false`, said loudly, where that is not to be had.
fn enter(test: &str) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skip(test, "network namespaces with addresses of choice need root");
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program} {arguments:?}: {}", describe(&output));
    };
    run("mount", &["--make-rprivate", "/"]);
    run("ip", &["link", "set", "lo", "up"]);
    for address in [PUBLIC].iter().chain(&PRIVATE) {
        run("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    for address in PRIVATE_V6 {
        run("ip", &["-6", "address", "add", &format!("{address}/128"), "dev", "lo", "nodad"]);
    }
    let directory = tempfile::tempdir().unwrap().keep();
    let conf = directory.join("resolv.conf");
    std::fs::write(&conf, "nameserver 127.0.0.53\n").unwrap();
    run("mount", &["--bind", conf.to_str().unwrap(), "/etc/resolv.conf"]);
    name_server();
    true
}

/// Answers what the tests need; everything else does not exist. `rebind` is public once and private ever after, and
/// `long` is too long for a packet, so it is answered by TCP.
fn name_server() {
    let socket = UdpSocket::bind("127.0.0.53:53").unwrap();
    let listener = TcpListener::bind("127.0.0.53:53").unwrap();
    std::thread::spawn(move || {
        let asked = AtomicUsize::new(0);
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // Whoever asks for a name below `dead` waits.
            if !buffer[..length].windows(5).any(|label| label == b"\x04dead") {
                let _ = socket.send_to(&dns_answer(&buffer[..length], &asked, false), from);
            }
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut length) = (stream.unwrap(), [0; 2]);
            stream.read_exact(&mut length).unwrap();
            let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut packet).unwrap();
            let answer = dns_answer(&packet, &AtomicUsize::new(0), true);
            stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
}

fn dns_answer(packet: &[u8], asked: &AtomicUsize, by_tcp: bool) -> Vec<u8> {
    let mut name = Vec::new();
    let mut at = 12;
    while packet[at] != 0 {
        let label = usize::from(packet[at]);
        name.push(String::from_utf8_lossy(&packet[at + 1..at + 1 + label]).into_owned());
        at += label + 1;
    }
    let question = &packet[12..at + 5];
    let kind = packet[at + 2];
    let v4: Vec<[u8; 4]> = match (name.join(".").as_str(), kind) {
        ("page.example" | "other.example", 1) => vec![[93, 184, 216, 34]],
        (name, 1) if name.ends_with(".slow.example") => vec![[93, 184, 216, 34]],
        ("long.example", 1) if by_tcp => vec![[93, 184, 216, 34]; 200],
        ("private.example", 1) => vec![[10, 0, 0, 5]],
        ("mixed.example", 1) => vec![[93, 184, 216, 34], [10, 0, 0, 5]],
        ("loopback.example", 1) => vec![[127, 0, 0, 1]],
        ("metadata.example", 1) => vec![[169, 254, 169, 254]],
        ("rebind.example", 1) => {
            let public = asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            vec![if public { [93, 184, 216, 34] } else { [10, 0, 0, 5] }]
        }
        _ => vec![],
    };
    let v6: Vec<[u8; 16]> = match (name.join(".").as_str(), kind) {
        ("mapped.example", 28) => vec!["::ffff:10.0.0.5".parse::<std::net::Ipv6Addr>().unwrap().octets()],
        ("ula.example", 28) => vec!["fd00::5".parse::<std::net::Ipv6Addr>().unwrap().octets()],
        _ => vec![],
    };
    let known = name.last().is_some_and(|last| last == "example") && name[0] != "nowhere";
    let truncated = name[0] == "long" && !by_tcp;
    let flags = [if truncated { 0x83 } else { 0x81 }, if known { 0x80 } else { 0x83 }];
    let mut answer = packet[..2].to_vec();
    answer.extend(flags);
    answer.extend([0, 1, 0, (v4.len() + v6.len()) as u8, 0, 0, 0, 0]);
    answer.extend(question);
    let addresses = v4.iter().map(|a| a.to_vec()).chain(v6.iter().map(|a| a.to_vec()));
    for address in addresses {
        answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, address.len() as u8]);
        answer.extend(address);
    }
    answer
}

/// Serves each connection by `page`, which gets the path and writes whatever it likes.
fn server(address: &str, page: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let (count, page) = (Arc::new(AtomicUsize::new(0)), Arc::new(page));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            counted.fetch_add(1, Ordering::SeqCst);
            let page = page.clone();
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(count) => request.extend(&buffer[..count]),
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
                let full = if request.to_lowercase().contains("if-none-match: \"v1\"") {
                    format!("{path}#unchanged")
                } else {
                    path
                };
                page(&full, &mut stream);
            });
        }
    });
    count
}

fn answer(stream: &mut TcpStream, head: &str, body: &[u8]) {
    let _ = stream.write_all(
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).as_bytes(),
    );
    let _ = stream.write_all(body);
}

/// Listeners on every private address, on the ports a web server or a metadata service has.
fn traps() -> Vec<(String, Arc<AtomicUsize>)> {
    let mut traps = Vec::new();
    let hosts = PRIVATE.iter().map(|a| (*a).to_owned()).chain(PRIVATE_V6.iter().map(|a| format!("[{a}]")));
    for host in hosts.chain(["127.0.0.1".to_owned(), "127.0.0.2".to_owned(), "[::1]".to_owned()]) {
        for port in [80, 8080] {
            let address = format!("{host}:{port}");
            let count =
                server(&address, |_, stream| answer(stream, "200 OK\r\nContent-Type: text/plain", b"INSIDE"));
            traps.push((address, count));
        }
    }
    traps
}

/// Every way in which an environment names a proxy: it would choose where to connect. A trap, where one is set.
fn proxies() -> impl Iterator<Item = (String, &'static str)> {
    ["http_proxy", "https_proxy", "all_proxy"]
        .into_iter()
        .flat_map(|name| [name.to_owned(), name.to_uppercase()])
        .map(|name| (name, "http://127.0.0.1:8080"))
}

/// A listener on port 9080 of the public address that answers everything alike and tells what it was asked.
fn recorder(head: &'static str, body: Vec<u8>) -> std::sync::mpsc::Receiver<String> {
    let (told, requests) = std::sync::mpsc::channel();
    let listener = TcpListener::bind(format!("{PUBLIC}:9080")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = vec![0; 8192];
            let length = stream.read(&mut buffer).unwrap();
            answer(&mut stream, head, &body);
            let _ = told.send(String::from_utf8_lossy(&buffer[..length]).to_lowercase());
        }
    });
    requests
}

/// A fetch worker of one's own, spoken to as the supervisor does.
struct Worker {
    child: Child,
    socket: OwnedFd,
    next: u64,
}

impl Worker {
    fn start() -> Self {
        Self::start_by(Command::new(binary("oxibot-fetch")))
    }

    /// By a command that becomes the worker.
    fn start_by(mut command: Command) -> Self {
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let child = command
            .args(["--socket-fd", "0"])
            .env_clear()
            .envs(proxies())
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        Self { child, socket, next: 0 }
    }

    fn send(&mut self, work: FetchWork) -> u64 {
        self.next += 1;
        let frame = codec::frame(&FetchRequest { number: self.next, work }).unwrap();
        send(self.socket.as_raw_fd(), &frame, MsgFlags::empty()).unwrap();
        self.next
    }

    fn receive(&self) -> FetchAnswer {
        let mut buffer = vec![0; 64 * 1024];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        assert!(length > 0, "the worker ended");
        let mut decoder = Decoder::<FetchAnswer>::new();
        decoder.push(&buffer[..length]);
        decoder.next_message().unwrap().unwrap()
    }

    fn get(&mut self, url: &str) -> FetchResult {
        self.get_from(url, 0, &[])
    }

    fn get_from(&mut self, url: &str, offset: u64, allow: &[&str]) -> FetchResult {
        let allow = allow.iter().map(|entry| (*entry).to_owned()).collect();
        let number = self.send(FetchWork::Get { url: url.into(), offset, conversation: "c".into(), allow });
        let answer = self.receive();
        assert_eq!(answer.number, number);
        answer.result
    }

    fn text(&mut self, url: &str) -> String {
        match self.get(url) {
            FetchResult::Text { text, .. } => text,
            other => panic!("{url}: {other:?}"),
        }
    }

    /// Asks for a page of `page.example` and waits for nothing.
    fn begin(&mut self, path: &str) -> u64 {
        let url = format!("http://page.example/{path}");
        self.send(FetchWork::Get { url, offset: 0, conversation: "c".into(), allow: vec![] })
    }

    /// Begins to measure the worker's largest resident size anew, and answers what it has now, in KiB.
    fn forget_peak(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        self.peak()
    }

    /// Largest resident size since then, in KiB.
    fn peak(&self) -> u64 {
        let peak = memory(i32::try_from(self.child.id()).unwrap(), "VmHWM");
        assert!(peak > 0, "the worker has a size");
        peak
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn no_request_reaches_an_address_that_is_not_public() {
    if !enter("no_request_reaches_an_address_that_is_not_public") {
        return;
    }
    let traps = traps();
    let reached = server(&format!("{PUBLIC}:80"), |path, stream| match path.strip_prefix("/to/") {
        Some(target) => {
            answer(stream, &format!("302 Found\r\nLocation: {}", target.replace("%2F", "/")), b"")
        }
        None => answer(stream, "200 OK\r\nContent-Type: text/plain", b"OUTSIDE"),
    });
    let mut worker = Worker::start();
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0177.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "127。0。0。1",
        "１２７.0.0.1",
        "0",
        "0.0.0.0",
        "127.0.0.2",
        "10.0.0.5",
        "0xa000005",
        "167772165",
        "012.0.0.5",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "192.168.1.1",
        "100.64.0.1",
        "172.16.0.1",
        "198.18.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a00:5]",
        "[::10.0.0.5]",
        "[64:ff9b::a00:5]",
        "[2002:a00:5::]",
        "[fd00::5]",
        "[2001:db8::5]",
        "[fe80::1]",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "metadata.google.internal",
        "private.example",
        "mixed.example",
        "loopback.example",
        "metadata.example",
        "mapped.example",
        "ula.example",
        "user@10.0.0.5",
        "page.example@10.0.0.5",
        "10.0.0.5\\@page.example",
        "10.0.0.5\t",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    ];
    let mut urls = Vec::new();
    for host in hosts {
        for port in ["", ":8080"] {
            urls.push(format!("http://{host}{port}/"));
        }
        urls.push(format!("http://page.example/to/http:%2F%2F{host}%2F"));
        urls.push(format!("http://page.example/to/%2F%2F{host}:8080%2Fx"));
    }
    urls.extend((0..40).map(|number| format!("http://rebind.example/{number}")));
    let mut refused = 0;
    for url in &urls {
        match worker.get(url) {
            FetchResult::Denied(denial) => {
                assert!(denial.rule.starts_with("web."), "{url}: {denial:?}");
                refused += 1;
            }
            FetchResult::Text { text, .. } => {
                assert!(text.contains("OUTSIDE") && !text.contains("INSIDE"), "{url}: {text}")
            }
            FetchResult::Failed(_) => {}
            other => panic!("{url}: {other:?}"),
        }
    }
    for (address, count) in &traps {
        assert_eq!(count.load(Ordering::SeqCst), 0, "{address} was reached");
    }
    assert!(refused > 150, "{refused} of {}", urls.len());
    // The controls: the outside is reached, the traps work, and an exception opens exactly what it names.
    assert!(worker.text("http://page.example/").contains("OUTSIDE") && reached.load(Ordering::SeqCst) > 0);
    let allowed = worker.get_from("http://10.0.0.5:8080/", 0, &["10.0.0.0/8:8080"]);
    assert!(matches!(&allowed, FetchResult::Text { text, .. } if text.contains("INSIDE")), "{allowed:?}");
    assert!(matches!(worker.get_from("http://10.0.0.5/", 0, &["10.0.0.0/8:8080"]), FetchResult::Denied(_)));
    let local = worker.get_from("http://localhost:8080/", 0, &["127.0.0.1:8080"]);
    assert!(matches!(&local, FetchResult::Text { text, .. } if text.contains("INSIDE")), "{local:?}");
}

#[test]
fn hostile_servers_cost_bounded_memory_and_time_and_nobody_else() {
    if !enter("hostile_servers_cost_bounded_memory_and_time_and_nobody_else") {
        return;
    }
    let bomb = {
        let output = Command::new("bash").args(["-c", "head -c 200M /dev/zero | gzip -9"]).output().unwrap();
        output.stdout
    };
    let euros = vec![0x80; 2 << 20];
    let title = [b"<title>".to_vec(), b"a ".repeat(1 << 20)].concat();
    let alt = [b"<img alt='".to_vec(), b"a ".repeat(1 << 20)].concat();
    let bold = b"<b>\x80\x80\x80".repeat(200_000);
    server(&format!("{PUBLIC}:80"), move |path, stream| match path {
        "/bomb" => answer(stream, "200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip", &bomb),
        "/endless" => {
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            while stream.write_all(b"8\r\n<p>word \r\n").is_ok() {}
        }
        "/headers" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(format!("X-{}: y\r\n", "x".repeat(1000)).as_bytes()).is_ok() {}
        }
        "/informational" => {
            let many = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
            while stream.write_all(&many).is_ok() {}
        }
        "/title-words" => answer(stream, "200 OK\r\nContent-Type: text/html", &title),
        "/alt-words" => answer(stream, "200 OK\r\nContent-Type: text/html", &alt),
        "/drip" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        "/loop" => answer(stream, "302 Found\r\nLocation: /loop", b""),
        "/deep" => {
            answer(stream, "200 OK\r\nContent-Type: text/html", "<div><b><i>".repeat(60_000).as_bytes())
        }
        "/tables" => {
            answer(stream, "200 OK\r\nContent-Type: text/html", "<table><tr><td>".repeat(5000).as_bytes())
        }
        "/wide" => answer(
            stream,
            "200 OK\r\nContent-Type: text/html",
            "<p>a, b<a href=x>y</a></p>".repeat(36_000).as_bytes(),
        ),
        // One byte of the old character set is three of ours.
        "/euros" => answer(stream, "200 OK\r\nContent-Type: text/html; charset=windows-1252", &euros),
        "/bold-euros" => answer(stream, "200 OK\r\nContent-Type: text/html; charset=windows-1252", &bold),
        "/script" => answer(stream, "200 OK\r\nContent-Type: text/html", b"<script>"),
        "/pdf" => answer(stream, "200 OK\r\nContent-Type: application/pdf", &vec![7; 1 << 20]),
        "/brotli" => answer(stream, "200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: br", b"x"),
        _ => answer(stream, "200 OK\r\nContent-Type: text/plain", b"fine"),
    });
    let mut worker = Worker::start();
    assert!(worker.text("http://page.example/").contains("fine"));
    let (mut seen, mut apart) = (0, false);
    // The slow one runs beside everything else.
    let slow = worker.begin("drip");
    let begun = Instant::now();
    let mut late = None;
    for (path, expected) in [
        ("bomb", "only the first 2048 KiB"),
        ("endless", "only the first 2048 KiB"),
        ("headers", "cannot get an answer"),
        ("informational", "it sends too much"),
        ("title-words", "title: a a a"),
        ("alt-words", "[image: a a a"),
        ("loop", "more than 5 redirects"),
        ("deep", "no readable text"),
        ("tables", "status: 200"),
        ("wide", "next offset:"),
        ("euros", "only the first 2048 KiB of its text"),
        ("bold-euros", "next offset:"),
        ("script", "no readable text"),
        ("pdf", "Not text and not shown: application/pdf"),
        ("brotli", "packed as `br`"),
        ("", "fine"),
    ] {
        let before = worker.forget_peak();
        let converters = Sampler::of_children(i32::try_from(worker.child.id()).unwrap());
        let number = worker.begin(path);
        let answer = loop {
            let answer = worker.receive();
            if answer.number == number {
                break answer;
            }
            assert_eq!(answer.number, slow);
            late = Some(answer);
        };
        let said = match answer.result {
            FetchResult::Text { text, .. } | FetchResult::Failed(text) => text,
            other => panic!("{path}: {other:?}"),
        };
        assert!(said.contains(expected), "{path}: {said}");
        let (grown, (processes, converted, alone)) = (worker.peak() - before, converters.end());
        apart |= alone;
        seen = processes.max(seen);
        println!("{path}: {grown} KiB in the worker, {converted} KiB in a converter");
        assert!(grown + converted < 16 * 1024, "{path}: {grown} KiB more, {converted} KiB in a converter");
    }
    let late = late.unwrap_or_else(|| worker.receive());
    assert!(matches!(&late.result, FetchResult::Failed(why) if why.contains("30 s")), "{late:?}");
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_secs(29) && taken < Duration::from_secs(60), "{taken:?}");
    assert!(seen > 1, "the maker and a converter were seen at work: {seen}");
    assert!(apart, "a converter has its page and not the socket by which others come");
    assert!(worker.text("http://page.example/after").contains("fine"));
}

#[test]
fn a_page_is_read_on_kept_within_its_conversation_and_asked_for_again_only_if_it_changed() {
    if !enter("a_page_is_read_on_kept_within_its_conversation_and_asked_for_again_only_if_it_changed") {
        return;
    }
    let count = server(&format!("{PUBLIC}:80"), |path, stream| {
        if path.ends_with("#unchanged") {
            return answer(stream, "304 Not Modified\r\nETag: \"v1\"", b"");
        }
        let text: String = (0..3000).map(|number| format!("line {number}\n")).collect();
        answer(stream, "200 OK\r\nContent-Type: text/plain\r\nETag: \"v1\"", text.as_bytes());
    });
    let mut worker = Worker::start();
    let first = worker.text("http://page.example/long");
    assert!(first.len() <= 10_240 && first.contains("line 0\n") && first.starts_with("[External content"));
    let next: u64 = first.rsplit_once("next offset: ").unwrap().1.trim().parse().unwrap();
    let FetchResult::Text { text: second, .. } = worker.get_from("http://page.example/long", next, &[])
    else {
        panic!()
    };
    assert!(second.contains("line 1500\n") && !second.contains("line 1\n"));
    assert_eq!(count.load(Ordering::SeqCst), 1, "reading on asks nobody");
    assert_eq!(worker.text("http://page.example/long"), first);
    assert_eq!(count.load(Ordering::SeqCst), 2, "asked whether it changed");
    let work = FetchWork::Get {
        url: "http://page.example/long".into(),
        offset: 9,
        conversation: "d".into(),
        allow: vec![],
    };
    worker.send(work);
    worker.receive();
    assert_eq!(count.load(Ordering::SeqCst), 3, "another conversation has nothing of it");
}

#[test]
fn a_hundred_pages_at_once_complete_and_hold_up_nothing() {
    if !enter("a_hundred_pages_at_once_complete_and_hold_up_nothing") {
        return;
    }
    let page = Arc::new("x".repeat(1 << 20).into_bytes());
    for port in 81..86 {
        let page = page.clone();
        server(&format!("{PUBLIC}:{port}"), move |_, stream| {
            answer(stream, "200 OK\r\nContent-Type: text/plain", &page)
        });
    }
    let mut worker = Worker::start();
    let begun = Instant::now();
    let mut waiting: std::collections::BTreeSet<u64> = (0..100)
        .map(|number| {
            worker.send(FetchWork::Get {
                url: format!("http://page.example:{}/{number}", 81 + number % 5),
                offset: 0,
                conversation: "c".into(),
                allow: vec![],
            })
        })
        .collect();
    let judged = worker.send(FetchWork::Judge { url: "http://127.1/".into(), allow: vec![] });
    let mut before_judgement = None;
    while !waiting.is_empty() {
        let answer = worker.receive();
        if answer.number == judged {
            assert!(matches!(answer.result, FetchResult::Denied(_)));
            before_judgement = Some(100 - waiting.len());
            continue;
        }
        assert!(matches!(&answer.result, FetchResult::Text { .. }), "{answer:?}");
        assert!(waiting.remove(&answer.number));
    }
    assert!(
        before_judgement.is_some_and(|answered| answered < 50),
        "a small request waited for {before_judgement:?} large ones"
    );
    // Twenty at once, then ten a second: they are one host, whatever its ports.
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_secs(7), "a host was asked a hundred times within {taken:?}");
}

/// The same through the supervisor: a shell command neither waits for the pages nor fails beside them.
#[test]
fn a_command_does_not_wait_for_a_hundred_pages() {
    if !enter("a_command_does_not_wait_for_a_hundred_pages") {
        return;
    }
    let page = "x".repeat(1 << 20).into_bytes();
    server(&format!("{PUBLIC}:80"), move |_, stream| {
        answer(stream, "200 OK\r\nContent-Type: text/plain", &page)
    });
    let fixture = Fixture::new();
    let worker = Worker::start();
    let ours = worker.socket.try_clone().unwrap();
    let mut peer = Peer::with_web(&fixture.home(), &fixture.workspace(), ours);
    let mut waiting: std::collections::BTreeSet<CallNumber> = (0..100)
        .map(|number| peer.call("web_get", &json!({ "url": format!("http://page.example/{number}") })))
        .collect();
    let command = peer.call("bash", &json!({ "command": "echo here" }));
    let mut before_command = None;
    while !(waiting.is_empty() && before_command.is_some()) {
        let Some(message) = peer.receive() else { panic!("the toolhost ended") };
        let ToMain::CallResult(result) = message else { continue };
        assert_eq!(result.outcome, Outcome::Completed, "{result:?}");
        if result.call == command {
            assert_eq!(result.output.head, b"here\n");
            before_command = Some(100 - waiting.len());
        } else {
            assert!(waiting.remove(&result.call));
        }
    }
    assert!(
        before_command.is_some_and(|answered| answered < 50),
        "a command waited for {before_command:?} pages"
    );
}

/// Whatever the worker does: a call ends, and the worker is told that nobody waits.
#[test]
fn a_call_of_the_web_ends_after_35_seconds_although_the_worker_is_silent() {
    let fixture = Fixture::new();
    let (silent, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let mut peer = Peer::with_web(&fixture.home(), &fixture.workspace(), theirs);
    let begun = Instant::now();
    let call = peer.call("web_get", &json!({ "url": "http://example.com/" }));
    let result = peer.result(call);
    let taken = begun.elapsed();
    assert_eq!(result.outcome, Outcome::TimedOut, "{result:?}");
    assert!(taken >= Duration::from_secs(34), "{taken:?}");
    let asked = |work: &FetchWork| matches!(work, FetchWork::Get { url, .. } if url == "http://example.com/");
    assert!(asked(&request(&silent).work));
    assert_eq!(request(&silent).work, FetchWork::Cancel);
}

/// What the supervisor asks a worker.
fn request(worker: &OwnedFd) -> FetchRequest {
    let mut buffer = vec![0; 64 * 1024];
    let length = recv(worker.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
    let mut decoder = Decoder::<FetchRequest>::new();
    decoder.push(&buffer[..length]);
    decoder.next_message().unwrap().unwrap()
}

#[test]
fn a_server_that_lets_nobody_in_costs_ten_seconds() {
    if !enter("a_server_that_lets_nobody_in_costs_ten_seconds") {
        return;
    }
    // Its queue is full: further connections are neither taken nor refused.
    let full = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    let address = nix::sys::socket::SockaddrIn::new(93, 184, 216, 34, 80);
    bind(full.as_raw_fd(), &address).unwrap();
    listen(&full, Backlog::new(1).unwrap()).unwrap();
    let waiting: Vec<OwnedFd> = (0..8)
        .map(|_| {
            let client =
                socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
            let _ = connect(client.as_raw_fd(), &address);
            client
        })
        .collect();
    let mut worker = Worker::start();
    let begun = Instant::now();
    let failed = worker.get("http://page.example/");
    let taken = begun.elapsed();
    assert!(
        matches!(&failed, FetchResult::Failed(why) if why.contains("it takes too long")),
        "{taken:?}: {failed:?}"
    );
    assert!(taken >= Duration::from_secs(9), "{taken:?}");
    drop(waiting);
}

/// Servers and name servers that answer slowly, however many, hold up who asks them and nobody else.
#[test]
fn slow_servers_do_not_hold_up_pages_of_others() {
    if !enter("slow_servers_do_not_hold_up_pages_of_others") {
        return;
    }
    server(&format!("{PUBLIC}:80"), |path, stream| match path {
        "/drip" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        // Informational answers for as long as they are taken, slowly enough never to reach a limit of bytes soon.
        "/informational" => {
            while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        _ => answer(stream, "200 OK\r\nContent-Type: text/plain", b"fine"),
    });
    let mut worker = Worker::start();
    let ask = |worker: &mut Worker, host: &str, path: &str, conversation: &str| {
        let url = format!("http://{host}/{path}");
        worker.send(FetchWork::Get { url, offset: 0, conversation: conversation.into(), allow: vec![] })
    };
    let begun = Instant::now();
    let mut slow: Vec<u64> = (0..40).map(|_| ask(&mut worker, "drip.slow.example", "drip", "one")).collect();
    slow.extend((0..20).map(|_| ask(&mut worker, "other.slow.example", "informational", "one")));
    slow.extend((0..40).map(|number| ask(&mut worker, &format!("{number}.dead.example"), "", "one")));
    let same = ask(&mut worker, "page.example", "", "one");
    // A conversation may fill its own share with different hosts, and no other's.
    slow.extend((0..40).map(|number| ask(&mut worker, &format!("{number}.slow.example"), "drip", "two")));
    let other = ask(&mut worker, "other.example", "", "three");
    let mut waiting = vec![same, other];
    while !waiting.is_empty() {
        let answer = worker.receive();
        if let Some(at) = waiting.iter().position(|number| *number == answer.number) {
            waiting.remove(at);
            assert!(
                matches!(&answer.result, FetchResult::Text { text, .. } if text.contains("fine")),
                "{answer:?}"
            );
        } else {
            assert!(slow.contains(&answer.number), "{answer:?}");
        }
    }
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(20), "they waited {taken:?}");
}

/// Says who asks, and tells a server nothing else; a name whose answer is too long for a packet is found all the same.
#[test]
fn a_request_says_who_asks_and_a_long_answer_of_a_name_server_is_read_by_tcp() {
    if !enter("a_request_says_who_asks_and_a_long_answer_of_a_name_server_is_read_by_tcp") {
        return;
    }
    let requests =
        recorder("302 Found\r\nSet-Cookie: a=b\r\nLocation: /again\u{202e}?ignore=all", Vec::new());
    let mut worker = Worker::start();
    let looped = worker.get("http://long.example:9080/secret-path");
    let FetchResult::Failed(why) = looped else { panic!("{looped:?}") };
    assert!(why.contains("more than 5 redirects") && !why.contains('\u{202e}'), "{why}");
    let requests: Vec<String> = requests.try_iter().collect();
    assert_eq!(requests.len(), 6, "the first and five redirects");
    for request in &requests {
        assert!(request.contains("\r\nuser-agent: oxibot/") && request.contains("(+https://"), "{request}");
        assert!(!request.contains("cookie") && !request.contains("referer"), "{request}");
    }
}

/// A search service is the operator's own choice, and still costs no more than a page.
#[test]
fn an_answer_of_a_search_service_costs_bounded_memory() {
    if !enter("an_answer_of_a_search_service_costs_bounded_memory") {
        return;
    }
    let (many, words) = ("0,".repeat(300_000), "a ".repeat(600_000));
    let result = format!(r#"{{"url":"http://a.example/","title":"t","description":"{words}"}}"#);
    let body = format!(r#"{{"x":[{many}0],"web":{{"results":[{result}]}}}}"#);
    assert!(body.len() < 2 << 20, "{}", body.len());
    let _requests = recorder("200 OK\r\nContent-Type: application/json", body.into_bytes());
    let (mut fetcher, _door) = fetcher();
    fetcher.send(judge("http://10.0.0.5/"));
    refused(fetcher.receive().result);
    let before = memory(running(&fetcher), "VmHWM");
    assert!(before > 0);
    fetcher.send(FetchWork::Search { query: "q".into(), count: None });
    let found = fetcher.receive().result;
    assert!(matches!(&found, FetchResult::Text { text, .. } if text.contains("1. t\n")), "{found:?}");
    let grown = memory(running(&fetcher), "VmHWM") - before;
    assert!(grown < 16 * 1024, "{grown} KiB");
}

/// From the command line through all processes, over TLS with an authority of our own.
#[test]
fn tool_call_gets_a_page_over_tls_and_refuses_one_without_a_known_authority() {
    if !enter("tool_call_gets_a_page_over_tls_and_refuses_one_without_a_known_authority") {
        return;
    }
    let fixture = Fixture::new();
    let directory = fixture.root().to_path_buf();
    let script = "set -e; cd \"$1\"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem \
          -addext basicConstraints=critical,CA:TRUE
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=page.example -keyout s.key -out s.csr
        printf 'subjectAltName=DNS:page.example\\nbasicConstraints=CA:FALSE\\n' > s.ext
        openssl x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile s.ext -out s.pem
        cat s.key >> s.pem";
    let made = Command::new("bash").args(["-c", script, "-"]).arg(&directory).output().unwrap();
    assert!(made.status.success(), "{}", describe(&made));
    let server = "import http.server, ssl, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(s):
        if s.path == '/down':
            s.send_response(302); s.send_header('Location', 'http://page.example/'); s.send_header('Content-Length', '0'); s.end_headers(); return
        b = b'{\"hello\": 1}'
        s.send_response(200); s.send_header('Content-Type', 'application/json'); s.send_header('Content-Length', str(len(b))); s.end_headers(); s.wfile.write(b)
    def log_message(s, *a): pass
h = http.server.ThreadingHTTPServer(('93.184.216.34', 443), H)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain(sys.argv[1])
h.socket = c.wrap_socket(h.socket, server_side=True); print('up', flush=True); h.serve_forever()";
    let mut server = Command::new("python3")
        .args(["-c", server])
        .arg(directory.join("s.pem"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    server.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    let call = |url: &str, authority: Option<&str>, more: &[&str]| {
        let mut command = fixture.oxibot();
        if let Some(authority) = authority {
            command.env("SSL_CERT_FILE", directory.join(authority));
        }
        // A proxy of the environment would choose where to connect.
        command.envs(proxies());
        let output = command
            .args(["tool", "call", "web_fetch", &json!({ "url": url }).to_string(), "--json", "--workspace"])
            .arg(fixture.workspace())
            .args(more)
            .output()
            .unwrap();
        let value: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
        (value, output.status.code())
    };
    let (page, code) = call("https://page.example/x", Some("ca.pem"), &[]);
    assert_eq!((page["outcome"].as_str(), code), (Some("completed"), Some(0)), "{page}");
    let text = page["output"].as_str().unwrap();
    assert!(text.ends_with("{\"hello\": 1}") && text.contains("url: https://page.example/x\n"), "{text}");
    assert_eq!(page["tool"], "web_get");
    let (page, code) = call("https://page.example/x", None, &[]);
    assert_eq!((page["outcome"].as_str(), code), (Some("failed"), Some(1)), "{page}");
    let (page, _) = call("https://other.example/x", Some("ca.pem"), &[]);
    assert_eq!(page["outcome"], "failed", "the certificate is for another name: {page}");
    let (page, code) = call("https://10.0.0.5/", None, &[]);
    assert_eq!((page["denial"]["rule"].as_str(), code), (Some("web.address.private"), Some(3)), "{page}");
    let (page, code) = call("https://page.example/down", Some("ca.pem"), &[]);
    assert_eq!((page["denial"]["rule"].as_str(), code), (Some("web.url.downgrade"), Some(3)), "{page}");
    let (judged, code) = call("https://[::ffff:127.0.0.1]/", None, &["--dry-run"]);
    assert_eq!((judged["verdict"].as_str(), code), (Some("block"), Some(3)), "{judged}");
    let (judged, code) = call("https://page.example/", None, &["--dry-run"]);
    assert_eq!((judged["verdict"].as_str(), code), (Some("allow"), Some(0)), "{judged}");
    let _ = server.kill();
    let _ = server.wait();
}

/// The key goes to the configured address, in a header, and nowhere else; each way it can fail is told apart.
#[test]
fn searches_go_to_the_configured_service_with_its_key() {
    if !enter("searches_go_to_the_configured_service_with_its_key") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:9080").unwrap();
    let (sender, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = vec![0; 8192];
            let length = stream.read(&mut buffer).unwrap();
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let body = json!({"web": {"results": [{"title": "A <b>title</b>", "url": "https://example.com/", "description": "d"}]},
                "results": [{"title": "Own", "url": "https://example.org/", "content": "c"}]});
            match request.split(' ').nth(1).unwrap_or_default() {
                path if path.contains("quota") => {
                    answer(&mut stream, "429 Too Many Requests\r\nRetry-After: 7", b"")
                }
                path if path.contains("outage") => answer(&mut stream, "503 Service Unavailable", b""),
                path if path.contains("refused") => answer(&mut stream, "401 Unauthorized", b""),
                _ => answer(
                    &mut stream,
                    "200 OK\r\nContent-Type: application/json",
                    body.to_string().as_bytes(),
                ),
            }
            let _ = sender.send(request);
        }
    });
    let fixture = Fixture::new();
    let search = |query: &str, provider: &str, key: Option<&str>| {
        let mut command = fixture.oxibot();
        command.env("OXIBOT_TOOLS__WEB__SEARCH__PROVIDER", provider);
        command.env("OXIBOT_TOOLS__WEB__SEARCH__BASE_URL", "http://127.0.0.1:9080");
        command.env("OXIBOT_TOOLS__WEB__SEARCH__MAX_RESULTS", "3");
        if let Some(key) = key {
            command.env("OXIBOT_TOOLS__WEB__SEARCH__API_KEY", key);
        }
        let output = command
            .args([
                "tool",
                "call",
                "web_search",
                &json!({ "query": query }).to_string(),
                "--json",
                "--workspace",
            ])
            .arg(fixture.workspace())
            .output()
            .unwrap();
        let value: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
        assert!(!describe(&output).contains("sk-secret"), "the key is not shown");
        value
    };
    let found = search("two words", "brave", Some("sk-secret"));
    assert_eq!(found["outcome"], "completed", "{found}");
    assert!(
        found["output"].as_str().unwrap().contains("1. A title\n   https://example.com/\n   d\n"),
        "{found}"
    );
    let request = requests.recv().unwrap();
    assert!(request.starts_with("GET /res/v1/web/search?q=two+words&count=3 "), "{request}");
    assert!(request.to_lowercase().contains("x-subscription-token: sk-secret"), "{request}");
    for (query, said) in [("quota", "try again in 7 s"), ("outage", "out of order"), ("refused", "apiKey")] {
        let failed = search(query, "brave", Some("sk-secret"));
        assert_eq!(failed["outcome"], "failed");
        assert!(failed["output"].as_str().unwrap().contains(said), "{failed}");
    }
    let _ = requests.try_iter().count();
    assert!(search("q", "brave", None)["output"].as_str().unwrap().contains("has no key"));
    assert_eq!(requests.try_iter().count(), 0, "without a key nobody is asked");
    let own = search("q", "searxng", Some("sk-secret"));
    assert!(own["output"].as_str().unwrap().contains("1. Own\n"), "{own}");
    let request = requests.recv().unwrap();
    assert!(
        request.starts_with("GET /search?q=q&format=json ") && !request.contains("sk-secret"),
        "{request}"
    );
}

/// `web.allowPrivate` from the configuration file, and `tools.disabled`, through all processes.
#[test]
fn exceptions_of_the_configuration_open_what_they_name() {
    if !enter("exceptions_of_the_configuration_open_what_they_name") {
        return;
    }
    let _traps = traps();
    let fixture = Fixture::new();
    let config = fixture.home().join("config.json");
    std::fs::write(&config, json!({"web": {"allowPrivate": ["10.0.0.0/8:8080"]}}).to_string()).unwrap();
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let outcome = |url: &str| fixture.tool("web_get", &json!({ "url": url })).0["outcome"].clone();
    assert_eq!(outcome("http://10.0.0.5:8080/"), "completed");
    assert_eq!(outcome("http://10.0.0.5/"), "denied");
    assert_eq!(outcome("http://192.168.1.1:8080/"), "denied");
    std::fs::write(&config, json!({"tools": {"disabled": ["web_get"]}}).to_string()).unwrap();
    assert_eq!(outcome("http://10.0.0.5:8080/"), "failed");
}

/// What starts workers, spoken to as main and the supervisor do, with a search service left for them.
fn fetcher() -> (Worker, OwnedFd) {
    let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let ((socket, requests), (door, key)) = (pair(), pair());
    let child = Command::new(binary("oxibot-toolhost"))
        .arg("fetcher")
        .env_clear()
        .stdin(Stdio::from(requests))
        .stdout(Stdio::from(key))
        .spawn()
        .unwrap();
    let program = std::fs::File::open(binary("oxibot-fetch")).unwrap();
    let rights = [ControlMessage::ScmRights(&[program.as_raw_fd()])];
    sendmsg::<()>(door.as_raw_fd(), &[IoSlice::new(b"p")], &rights, MsgFlags::empty(), None).unwrap();
    let service = SearchService {
        provider: SearchProvider::Brave,
        base_url: Some(format!("http://{PUBLIC}:9080")),
        key: Some("left-once".to_owned()),
        max_results: 3,
    };
    send(door.as_raw_fd(), &codec::frame(&service).unwrap(), MsgFlags::empty()).unwrap();
    (Worker { child, socket, next: 0 }, door)
}

/// Watches what a process starts: how many, the most memory of its own that one of them had, in KiB, and whether a
/// grandchild was seen with a socket of its own and without those of its parent.
struct Sampler {
    stop: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<(usize, u64, bool)>,
}

impl Sampler {
    fn of_children(root: i32) -> Self {
        let stop = Arc::new(AtomicUsize::new(0));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut most, mut apart) = (std::collections::BTreeMap::new(), false);
            while stopped.load(Ordering::SeqCst) == 0 {
                for process in tree(root).into_iter().skip(1) {
                    let own = most.entry(process.pid).or_insert(0);
                    *own = memory(process.pid, "RssAnon").max(*own);
                    let (own, parents) = (sockets(process.pid), sockets(process.parent));
                    apart |= process.parent != root && !own.is_empty() && own.is_disjoint(&parents);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            (most.len(), most.values().copied().max().unwrap_or(0), apart)
        });
        Self { stop, thread }
    }

    fn end(self) -> (usize, u64, bool) {
        self.stop.store(1, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Sockets that a process holds.
fn sockets(pid: i32) -> std::collections::BTreeSet<std::path::PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).collect()
}

/// The worker that runs now.
fn running(fetcher: &Worker) -> i32 {
    let root = i32::try_from(fetcher.child.id()).unwrap();
    let workers = below(root, "oxibot-fetch --socket-fd");
    let worker = workers.iter().find(|process| process.parent == root);
    worker.unwrap_or_else(|| panic!("no worker: {:?}", tree(root))).pid
}

fn end(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn refused(result: FetchResult) {
    assert!(
        matches!(&result, FetchResult::Denied(denial) if denial.rule == "web.address.private"),
        "{result:?}"
    );
}

fn judge(url: &str) -> FetchWork {
    FetchWork::Judge { url: url.into(), allow: Vec::new() }
}

#[test]
fn a_worker_that_dies_is_replaced_with_the_key_and_not_for_ever() {
    if !enter("a_worker_that_dies_is_replaced_with_the_key_and_not_for_ever") {
        return;
    }
    let requests =
        recorder("200 OK\r\nContent-Type: application/json", br#"{"web":{"results":[]}}"#.to_vec());
    let (mut fetcher, _door) = fetcher();
    let root = i32::try_from(fetcher.child.id()).unwrap();
    assert_eq!(below(root, "oxibot-fetch").len(), 0, "nothing runs before it is asked for");
    for death in 0..5 {
        let number = fetcher.send(FetchWork::Search { query: "q".into(), count: None });
        let answer = fetcher.receive();
        assert_eq!(answer.number, number, "death {death}: {:?}", answer.result);
        let request = requests.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(request.contains("left-once"), "the key is there, death {death}");
        end(running(&fetcher));
        let lost = fetcher.receive();
        assert!(
            matches!(&lost.result, FetchResult::Lost(why) if why.contains("SIGKILL")),
            "{:?}",
            lost.result
        );
    }
    fetcher.send(judge("http://10.0.0.5/"));
    let refused = fetcher.receive().result;
    assert!(matches!(&refused, FetchResult::Lost(why) if why.contains("ended too often")), "{refused:?}");
    assert_eq!(below(root, "oxibot-fetch").len(), 0, "a sixth is not started");
}

#[test]
fn a_worker_is_replaced_after_a_thousand_requests_and_nobody_notices() {
    if !enter("a_worker_is_replaced_after_a_thousand_requests_and_nobody_notices") {
        return;
    }
    let (mut fetcher, _door) = fetcher();
    let ask = |fetcher: &mut Worker| {
        let number = fetcher.send(judge("http://10.0.0.5/"));
        let answer = fetcher.receive();
        assert_eq!(answer.number, number);
        refused(answer.result);
    };
    ask(&mut fetcher);
    let first = running(&fetcher);
    for _ in 0..998 {
        ask(&mut fetcher);
    }
    // It looks every five seconds.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(running(&fetcher), first, "not before its time");
    ask(&mut fetcher);
    let until = Instant::now() + Duration::from_secs(60);
    let root = i32::try_from(fetcher.child.id()).unwrap();
    while tree(root).iter().any(|process| process.pid == first) {
        assert!(Instant::now() < until, "it goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    ask(&mut fetcher);
    assert_ne!(running(&fetcher), first);
}

/// What only looks as if it were in force is found out, by the worker and by what converts for it.
#[test]
fn a_worker_without_one_of_its_walls_serves_nobody() {
    for mechanism in ["seccomp", "pretend-seccomp", "pretend-landlock", "pretend-capset", "pretend-rlimits"] {
        let mut command = Command::new(binary("sabotage"));
        command.args([mechanism, "--"]).arg(binary("oxibot-fetch"));
        let mut worker = Worker::start_by(command);
        let status = worker.child.wait().unwrap();
        assert!(!status.success(), "{mechanism}: {status}");
        let mut buffer = [0; 64];
        let said = recv(worker.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
        assert!(!matches!(said, Ok(1..)), "{mechanism}: it answers {said:?}");
    }
    let mut whole = Worker::start();
    assert!(matches!(whole.get("http://10.0.0.5/"), FetchResult::Denied(_)), "the control");
}

/// As a unit of its own: a socket that listens, the key as a credential.
#[test]
fn a_service_takes_its_socket_and_its_key_from_the_service_manager() {
    if !enter("a_service_takes_its_socket_and_its_key_from_the_service_manager") {
        return;
    }
    let requests =
        recorder("200 OK\r\nContent-Type: application/json", br#"{"web":{"results":[]}}"#.to_vec());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tools.web.search.apiKey"), "from-the-unit\n").unwrap();
    let path = directory.path().join("fetch.sock");
    let kind = (AddressFamily::Unix, SockType::SeqPacket);
    let listening = socket(kind.0, kind.1, SockFlag::empty(), None).unwrap();
    let address = UnixAddr::new(&path).unwrap();
    bind(listening.as_raw_fd(), &address).unwrap();
    listen(&listening, Backlog::new(8).unwrap()).unwrap();
    // LISTEN_PID is the worker's own number: the shell becomes it.
    let child = Command::new("sh")
        .args(["-c", r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0""#])
        .arg(binary("oxibot-fetch"))
        .env_clear()
        .env("CREDENTIALS_DIRECTORY", directory.path())
        .env("OXIBOT_TOOLS__WEB__SEARCH__BASE_URL", format!("http://{PUBLIC}:9080"))
        .stdin(Stdio::from(listening))
        .spawn()
        .unwrap();
    let mut worker =
        Worker { child, socket: socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, None).unwrap(), next: 0 };
    for _ in 0..2 {
        // A peer that comes again finds the same service. What it wants served it hands over.
        let connection = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(connection.as_raw_fd(), &address).unwrap();
        let (ours, theirs) = socketpair(kind.0, kind.1, None, SockFlag::SOCK_CLOEXEC).unwrap();
        sys::send(connection.as_fd(), &[unit::SERVE], &[theirs.as_fd()]).unwrap();
        worker.socket = ours;
        let number = worker.send(FetchWork::Search { query: "q".into(), count: None });
        let answer = worker.receive();
        assert_eq!(answer.number, number, "{:?}", answer.result);
        let request = requests.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(request.contains("x-subscription-token: from-the-unit\r\n"), "the credential is the key");
        assert!(matches!(worker.get("http://10.0.0.5/"), FetchResult::Denied(_)));
    }
}

/// `--no-sandbox` takes the wall away and not the process: addresses are judged all the same.
#[test]
fn without_a_sandbox_addresses_are_judged_all_the_same() {
    if !enter("without_a_sandbox_addresses_are_judged_all_the_same") {
        return;
    }
    let traps = traps();
    let _public = server(&format!("{PUBLIC}:80"), |_, stream| answer(stream, "200 OK", b"public"));
    let fixture = Fixture::new();
    let outcome = |url: &str| -> String {
        let output = fixture
            .oxibot()
            .args(["--no-sandbox", "--no-sandbox", "tool", "call", "web_get"])
            .args([&json!({ "url": url }).to_string(), "--json", "--workspace"])
            .arg(fixture.workspace())
            .output()
            .unwrap();
        let value: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
        value["outcome"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(outcome("http://page.example/"), "completed");
    for url in ["http://10.0.0.5/", "http://private.example/", "http://169.254.169.254/latest/meta-data/"] {
        assert_eq!(outcome(url), "denied", "{url}");
    }
    for (address, count) in &traps {
        assert_eq!(count.load(Ordering::SeqCst), 0, "{address} was reached");
    }
}
