//! Sockets of others among the files of a call: nobody answers there at level `full`; the call's own ones work.
//! Each test runs as root and as a user.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a panic is how a test fails"
)]

mod wall_support;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use oxibot_proto::message::Level;
use oxibot_toolhost::wire::{FromInit, Movers, Sockets, Wanted};
use wall_support::{Wall, again_as_a_user, job};

/// Talks to each path in every way there is. Prints `REACHED path kind` for each that worked.
const CLIENT: &str = r#"
import socket, sys
for path in sys.argv[1:]:
    for kind in ("SOCK_STREAM", "SOCK_SEQPACKET", "SOCK_DGRAM"):
        s = socket.socket(socket.AF_UNIX, getattr(socket, kind))
        try:
            s.connect(path)
            print("REACHED", path, kind)
        except OSError as error:
            print("refused", path, kind, error.strerror)
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        s.sendto(b"x", path)
        print("REACHED", path, "sendto")
    except OSError as error:
        print("refused", path, "sendto", error.strerror)
"#;

fn client(paths: &[&str]) -> String {
    let quoted: Vec<String> = paths.iter().map(|path| format!("'{path}'")).collect();
    format!("python3 - {} <<'END'\n{CLIENT}\nEND", quoted.join(" "))
}

/// Sockets held by this test, and their paths.
struct Hosts {
    _held: (UnixListener, UnixDatagram, OwnedFd),
}

fn seqpacket(path: &Path) -> OwnedFd {
    let made = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(made.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&made, Backlog::new(5).unwrap()).unwrap();
    made
}

/// A stream, a datagram and a seqpacket socket in a directory, open to everybody.
fn hosts(directory: &Path) -> Hosts {
    let held = (
        UnixListener::bind(directory.join("stream")).unwrap(),
        UnixDatagram::bind(directory.join("datagram")).unwrap(),
        seqpacket(&directory.join("seqpacket")),
    );
    for name in ["stream", "datagram", "seqpacket"] {
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    Hosts { _held: held }
}

fn at_off(workspace: &Path, command: &str) -> String {
    let inner = tempfile::tempdir().unwrap();
    let path = workspace.to_path_buf();
    let mut wall = Wall::at(inner, |profile| {
        profile.wanted = Wanted::Off;
        profile.workspace = path.to_str().unwrap().into();
    });
    wall.bash(command).output
}

fn reached(output: &str) -> Vec<&str> {
    output.lines().filter(|line| line.starts_with("REACHED")).collect()
}

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    again_as_a_user();
}

#[test]
fn sockets_of_the_host_in_the_workspace_are_not_reached() {
    let workspace = tempfile::tempdir().unwrap();
    let path = workspace.path().canonicalize().unwrap();
    let deep = path.join("a/b/c/d/e/f/g/h");
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(path.join("moved")).unwrap();
    let _top = hosts(&path);
    let _deep = hosts(&deep);
    // Renamed after it was bound, hard-linked, and linked to by name.
    let _moved = UnixListener::bind(path.join("before")).unwrap();
    fs::rename(path.join("before"), path.join("moved/after")).unwrap();
    fs::hard_link(path.join("stream"), path.join("moved/hard")).unwrap();
    symlink(deep.join("stream"), path.join("soft")).unwrap();
    // Bound by a relative name.
    let _relative = {
        let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let place = fs::File::open(path.join("moved")).unwrap();
        let name = format!("/proc/self/fd/{}/relative", place.as_raw_fd());
        bind(made.as_raw_fd(), &UnixAddr::new(name.as_str()).unwrap()).unwrap();
        listen(&made, Backlog::new(5).unwrap()).unwrap();
        made
    };
    // Bound, not listening yet.
    let silent = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(silent.as_raw_fd(), &UnixAddr::new(&path.join("silent")).unwrap()).unwrap();

    let d = "a/b/c/d/e/f/g/h";
    let (one, two, three) = (format!("{d}/stream"), format!("{d}/datagram"), format!("{d}/seqpacket"));
    let names = [
        "stream",
        "datagram",
        "seqpacket",
        &one,
        &two,
        &three,
        "moved/after",
        "moved/hard",
        "soft",
        "moved/relative",
        "silent",
    ];
    let control = at_off(&path, &client(&names));
    for (name, kind) in [
        ("stream", "SOCK_STREAM"),
        ("datagram", "SOCK_DGRAM"),
        ("datagram", "sendto"),
        ("seqpacket", "SOCK_SEQPACKET"),
        ("moved/after", "SOCK_STREAM"),
        ("moved/hard", "SOCK_STREAM"),
        ("soft", "SOCK_STREAM"),
        ("moved/relative", "SOCK_STREAM"),
        (&one, "SOCK_STREAM"),
    ] {
        assert!(control.contains(&format!("REACHED {name} {kind}")), "{name} {kind}: {control}");
    }

    let mut wall = Wall::at(workspace, |_| {});
    assert_eq!(wall.zygote.obtained().level, Level::Full);
    let mut call = wall.start(&job(&format!("sleep 0.3; {}", client(&names))));
    assert_eq!(call.word(), FromInit::Running);
    listen(&silent, Backlog::new(5).unwrap()).unwrap();
    let ran = Ran { output: read(&call) };
    assert_eq!(reached(&ran.output), Vec::<&str>::new(), "{}", ran.output);
    assert!(ran.output.contains("refused silent"), "{}", ran.output);
    // They can be neither removed, moved nor moved with their directory, and are the host's as before.
    let ran = wall.bash(
        "rm -f stream 2>/dev/null && echo removed; mv a z 2>/dev/null && echo moved
         mv moved/after x 2>/dev/null && echo renamed; ln stream y 2>/dev/null && echo linked; true",
    );
    assert_eq!(ran.ok(), "", "{ran:?}");
    assert!(fs::metadata(path.join("stream")).unwrap().file_type().is_socket());
}

struct Ran {
    output: String,
}

fn read(call: &wall_support::Call) -> String {
    use std::io::Read;
    let mut output = String::new();
    fs::File::from(call.output.try_clone().unwrap()).read_to_string(&mut output).unwrap();
    output
}

#[test]
fn sockets_of_the_host_in_other_granted_paths_are_not_reached() {
    let readable = tempfile::tempdir().unwrap();
    let writable = tempfile::tempdir_in("/var/tmp").unwrap();
    let (r, w) = (readable.path().canonicalize().unwrap(), writable.path().canonicalize().unwrap());
    fs::create_dir(r.join("in")).unwrap();
    let _held = (hosts(&r.join("in")), hosts(&w));
    let names: Vec<PathBuf> = ["stream", "datagram", "seqpacket"]
        .iter()
        .flat_map(|name| [r.join("in").join(name), w.join(name)])
        .collect();
    let names: Vec<&str> = names.iter().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(reached(&at_off(&w, &client(&names))).len(), 8, "the control");
    let bytes = |path: &Path| path.to_str().unwrap().as_bytes().to_vec();
    let mut wall = Wall::with(|profile| {
        profile.read = vec![bytes(&r)];
        profile.write = vec![bytes(&w)];
    });
    assert_eq!(wall.zygote.obtained().level, Level::Full);
    let ran = wall.bash(&client(&names));
    assert_eq!(reached(ran.ok()), Vec::<&str>::new(), "{ran:?}");
    assert_eq!(ran.output.lines().count(), 24, "{ran:?}");
}

#[test]
fn sockets_of_the_host_named_by_the_supervisor_are_not_reached_in_a_view_of_everything() {
    let elsewhere = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = elsewhere.path().canonicalize().unwrap();
    let _held = hosts(&path);
    // Bound through a link: the name that the kernel knows has it in it.
    let link = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(link.path(), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(&path, link.path().join("link")).unwrap();
    let _linked = UnixListener::bind(link.path().join("link/linked")).unwrap();
    fs::set_permissions(path.join("linked"), fs::Permissions::from_mode(0o777)).unwrap();
    let names: Vec<PathBuf> =
        ["stream", "datagram", "seqpacket", "linked"].map(|name| path.join(name)).into();
    let names: Vec<&str> = names.iter().map(|name| name.to_str().unwrap()).collect();
    let mut wall = Wall::with(|profile| profile.restrict_to_workspace = false);
    let mut job = job(&client(&names));
    assert!(!reached(wall.run(&job).ok()).is_empty(), "the control: nobody named them");
    job.sockets.named = ["stream", "datagram", "seqpacket"]
        .map(|name| path.join(name))
        .into_iter()
        .chain([link.path().join("link/linked")])
        .map(|name| name.to_str().unwrap().into())
        .collect();
    let ran = wall.run(&job);
    assert_eq!(reached(ran.ok()), Vec::<&str>::new(), "{ran:?}");
}

#[test]
fn a_search_tells_what_it_found_and_a_known_one_is_covered_without_it() {
    let workspace = tempfile::tempdir().unwrap();
    let path = workspace.path().canonicalize().unwrap();
    let held = UnixListener::bind(path.join("s")).unwrap();
    let name: Vec<u8> = path.join("s").to_str().unwrap().into();
    let mut wall = Wall::at(workspace, |_| {});
    let mut told = |sockets: Sockets| {
        let mut asked = job(&client(&["s", "other"]));
        asked.sockets = sockets;
        let call = wall.start(&asked);
        let ran = call.finish();
        (ran.sockets, reached(&ran.output).len())
    };
    let (found, through) = told(Sockets::search());
    let found = found.unwrap();
    assert_eq!((found.paths.as_slice(), found.whole, through), ([name.clone()].as_slice(), true, 0));
    let known = |paths| Sockets { known: paths, ..Sockets::none() };
    assert_eq!(told(known(vec![])), (None, 1), "the control: not searched, not covered");
    assert_eq!(told(known(vec![name.clone()])), (None, 0));
    // Moved since it was found: the init looks for itself.
    fs::rename(path.join("s"), path.join("other")).unwrap();
    let (found, through) = told(known(vec![name.clone()]));
    assert_eq!((found.unwrap().paths, through), (vec![path.join("other").to_str().unwrap().into()], 0));
    drop(held);
    let (found, _) = told(known(vec![name]));
    assert!(found.unwrap().paths.is_empty(), "nobody holds it any more");
}

#[test]
fn sockets_of_a_call_work_and_what_it_leaves_of_them_is_in_nobodys_way() {
    let mut wall = Wall::new();
    let own = "
import os, socket, threading
for path in ('own', '/tmp/own', 'deep/er/own'):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    try: os.unlink(path)
    except FileNotFoundError: pass
    server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
    client = socket.socket(socket.AF_UNIX); client.connect(path)
    server.accept()[0].send(b'hi'); assert client.recv(2) == b'hi'
    try: os.unlink(path + '.d')
    except FileNotFoundError: pass
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); receiver.bind(path + '.d')
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', path + '.d'); assert receiver.recv(1) == b'x'
print('ok')";
    let script = wall.workspace.path().join("own.py");
    fs::write(&script, own).unwrap();
    // The second call finds the files of the first, whose servers are gone: it replaces them, the third removes them.
    assert_eq!(wall.bash("python3 own.py").ok(), "ok");
    assert!(fs::metadata(wall.workspace.path().join("own")).unwrap().file_type().is_socket());
    assert_eq!(wall.bash("python3 own.py").ok(), "ok");
    assert_eq!(wall.bash("rm -r own own.d deep && ls").ok(), "own.py");
    let manager = "
from multiprocessing import Manager
if __name__ == '__main__':
    with Manager() as manager:
        shared = manager.dict(); shared['a'] = 1; print(dict(shared))";
    fs::write(wall.workspace.path().join("manager.py"), manager).unwrap();
    assert_eq!(wall.bash("python3 manager.py").ok(), "{'a': 1}");
}

#[test]
fn sockets_of_another_call_that_runs_are_not_reached() {
    let mut wall = Wall::new();
    let server = "
import socket, time
server = socket.socket(socket.AF_UNIX); server.bind('own'); server.listen()
print('up', flush=True); time.sleep(60)";
    fs::write(wall.workspace.path().join("server.py"), server).unwrap();
    let mut first = wall.start(&job("exec python3 server.py"));
    assert_eq!(first.word(), FromInit::Running);
    let until = std::time::Instant::now() + wall_support::PATIENCE;
    while !wall.workspace.path().join("own").exists() {
        assert!(std::time::Instant::now() < until, "no server");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    let ran = wall.bash(&client(&["own"]));
    assert_eq!(reached(ran.ok()), Vec::<&str>::new(), "{ran:?}");
    first.running.kill();
}

#[test]
fn more_sockets_than_can_be_covered_refuse_the_call() {
    let workspace = tempfile::tempdir().unwrap();
    let held: Vec<_> = (0..200)
        .map(|number| UnixListener::bind(workspace.path().join(format!("{number}"))).unwrap())
        .collect();
    let mut wall = Wall::at(workspace, |_| {});
    match wall.bash("echo ran").first {
        FromInit::Unsafe(denial) => assert_eq!(denial.rule, "sockets.others"),
        other => panic!("{other:?}"),
    }
    drop(held);
    assert_eq!(wall.bash("echo ran").ok(), "ran");
}

#[test]
fn what_calls_leave_does_not_hold_up_the_next_ones() {
    let workspace = tempfile::tempdir().unwrap();
    let mut deep = fs::File::open(workspace.path()).unwrap();
    for _ in 0..40 {
        let name = "d".repeat(200);
        nix::sys::stat::mkdirat(&deep, name.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_DIRECTORY;
        deep = nix::fcntl::openat(&deep, name.as_str(), flags, nix::sys::stat::Mode::empty()).unwrap().into();
    }
    let mut wall = Wall::at(workspace, |_| {});
    let made = wall.bash(
        "python3 -c \"
import socket, os
os.makedirs('many')
for n in range(3000):
    s = socket.socket(socket.AF_UNIX); s.bind(f'many/{n}'); s.close()
for n in range(3000): os.mkdir(f'many/d{n}')\"",
    );
    assert_eq!(made.code(), 0, "{made:?}");
    let ran = wall.bash("echo ran");
    assert_eq!(ran.ok(), "ran");
    assert!(!ran.sockets.unwrap().whole, "what is deeper than a path can say was not looked at");
}

/// Moves a directory with a socket in it, and the socket, as long as there is no file `stop`.
const MOVER: &str =
    "while [ ! -e stop ]; do mv a b; mv b/s b/t; mv b a; mv a/t a/s; sleep 0.005; done 2>/dev/null; echo end";

/// Low half of the number of a file that is at one of these places at any moment.
fn number(places: &[PathBuf]) -> u32 {
    let until = std::time::Instant::now() + wall_support::PATIENCE;
    loop {
        if let Some(status) = places.iter().find_map(|place| fs::metadata(place).ok()) {
            return (status.ino() & u64::from(u32::MAX)).try_into().unwrap();
        }
        assert!(std::time::Instant::now() < until, "it is nowhere");
    }
}

fn bind_where_it_is(path: &Path) -> UnixListener {
    let until = std::time::Instant::now() + wall_support::PATIENCE;
    loop {
        if let Some(held) = ["a/s", "b/s"].iter().find_map(|name| UnixListener::bind(path.join(name)).ok()) {
            return held;
        }
        assert!(std::time::Instant::now() < until, "no place for a socket");
    }
}

/// A call that is older than a socket is not kept from it, but what it does must not show it to younger calls.
#[test]
fn sockets_that_are_moved_while_calls_start_are_not_reached() {
    let mut wall = Wall::new();
    let path = wall.workspace.path().canonicalize().unwrap();
    fs::create_dir(path.join("a")).unwrap();
    let mut mover = wall.start(&job(MOVER));
    assert_eq!(mover.word(), FromInit::Running);
    let _held = bind_where_it_is(&path);
    let names = ["a/s", "a/t", "b/s", "b/t"];
    let places = names.map(|name| path.join(name));
    // What the supervisor knows from the kernel's list; else it says that it does not know.
    for expected in [Some(vec![number(&places)]), None] {
        let mut ran_at_all = 0;
        for _ in 0..6 {
            let mut job = job(&client(&names));
            job.sockets = Sockets { expected: expected.clone(), movers: Movers::Calls, ..Sockets::search() };
            let ran = wall.run(&job);
            assert_eq!(reached(&ran.output), Vec::<&str>::new(), "{ran:?}");
            if let FromInit::Unsafe(denial) = &ran.first {
                assert_eq!(denial.rule, "sockets.others");
            }
            ran_at_all += usize::from(ran.ending.is_some());
        }
        assert!(ran_at_all > 0 || expected.is_none(), "each was refused");
    }
    fs::write(path.join("stop"), "").unwrap();
}

/// Calls that write all the time make no other wait: nothing is expected that was not found.
#[test]
fn calls_that_are_busy_do_not_keep_others_from_starting() {
    let mut wall = Wall::new();
    let busy = "n=0; while [ ! -e stop ]; do n=$((n+1)); mkdir -p d/$((n%7)); : >d/$((n%7))/f; rm -r d; done; echo end";
    let mut first = wall.start(&job(busy));
    assert_eq!(first.word(), FromInit::Running);
    for _ in 0..5 {
        let mut job = job("echo ran");
        job.sockets = Sockets { expected: Some(vec![]), movers: Movers::Calls, ..Sockets::search() };
        assert_eq!(wall.run(&job).ok(), "ran");
    }
    fs::write(wall.workspace.path().join("stop"), "").unwrap();
    let ran = first.finish();
    assert!(ran.output.contains("end"), "{ran:?}");
}
