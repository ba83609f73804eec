//! The real files worker, started as the zygote starts it: descriptor 0 its socket, 3 the workspace.
//!
//! What the zygote adds around it (namespaces, mounts) is not here, so each denial below is the worker's own.

// Helpers may say unwrap as the tests do: a panic is how a test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::wildcard_enum_match_arm
)]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{RenameFlags, renameat2};
use oxibot_proto::codec::{Decoder, frame};
use oxibot_proto::message::MAX_OUTPUT;
use oxibot_toolhost::wire::{FilesAnswer, FilesRequest, FilesResult, FilesWork};

/// Longer than any answer may take on a busy machine; a hang is what it finds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Newest Landlock ABI the worker knows.
const NEWEST_ABI: u8 = 9;

struct Worker {
    child: Child,
    socket: UnixStream,
    answers: Decoder<FilesAnswer>,
    number: u64,
}

impl Worker {
    fn start(workspace: &Path, arguments: &[&str]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        // The shell opens descriptor 3, so that the test needs no unsafe code between fork and exec.
        let child = Command::new("/bin/sh")
            .args(["-c", r#"w=$1; shift; umask 077; exec "$0" files --workspace "$w" "$@" 3<"$w""#])
            .arg(env!("CARGO_BIN_EXE_oxibot-toolhost"))
            .arg(workspace)
            .args(arguments)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, socket: ours, answers: Decoder::new(), number: 0 }
    }

    /// With the strongest Landlock of this kernel, found by starting: the worker refuses what cannot be had.
    fn confined(workspace: &Path) -> Self {
        for abi in (1..=NEWEST_ABI).rev() {
            let mut worker = Self::start(workspace, &["--landlock-abi", &abi.to_string()]);
            if worker.try_ask(FilesWork::SpillClose { name: "probe".into() }).is_some() {
                return worker;
            }
        }
        panic!("the worker cannot be confined here: no Landlock");
    }

    fn send(&mut self, work: FilesWork) -> bool {
        self.number += 1;
        self.socket.write_all(&frame(&FilesRequest { number: self.number, work }).unwrap()).is_ok()
    }

    fn try_ask(&mut self, work: FilesWork) -> Option<FilesResult> {
        if !self.send(work) {
            return None;
        }
        let mut block = [0; 65536];
        loop {
            if let Some(answer) = self.answers.next_message().unwrap() {
                assert_eq!(answer.number, self.number);
                return Some(answer.result);
            }
            match self.socket.read(&mut block) {
                Ok(0) => return None,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Ok(count) => self.answers.push(&block[..count]),
                // A read with a time limit is not restarted by the kernel when the machine is paused.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    fn ask(&mut self, work: FilesWork) -> FilesResult {
        self.try_ask(work).expect("the worker is gone")
    }

    fn text(&mut self, work: FilesWork) -> String {
        match self.ask(work) {
            FilesResult::Text { text, total_bytes } => {
                assert!(text.len() <= MAX_OUTPUT, "{}", text.len());
                assert!(total_bytes >= text.len() as u64);
                text
            }
            other => panic!("{other:?}"),
        }
    }

    fn end(mut self) -> (ExitStatus, String) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }

    /// A line of its `/proc/<pid>/status`.
    fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    }

    fn peak_kb(&self) -> u64 {
        self.status("VmHWM").split(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &str) -> FilesWork {
    FilesWork::Read { path: path.into(), offset: 1, limit: None, numbers: false }
}

fn write(path: &str, content: &str) -> FilesWork {
    FilesWork::Write { path: path.into(), content: content.into() }
}

fn list(path: &str, depth: u32, offset: u64) -> FilesWork {
    FilesWork::List { path: path.into(), depth, offset }
}

fn grep(pattern: &str, path: &str, glob: Option<&str>) -> FilesWork {
    FilesWork::Grep { pattern: pattern.into(), path: path.into(), glob: glob.map(Into::into), offset: 1 }
}

fn find(pattern: &str) -> FilesWork {
    FilesWork::Find { pattern: pattern.into(), path: ".".into(), glob: None, offset: 1 }
}

fn rule(result: FilesResult) -> String {
    match result {
        FilesResult::Denied(denial) => denial.rule,
        other => panic!("{other:?}"),
    }
}

fn failure(result: FilesResult) -> String {
    match result {
        FilesResult::Failed(message) => message,
        other => panic!("{other:?}"),
    }
}

/// A directory with a `workspace` and, beside it, an `outside` with a secret.
fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let workspace = place.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    std::fs::create_dir(place.path().join("outside")).unwrap();
    std::fs::write(place.path().join("outside/secret"), "OUTSIDE\n").unwrap();
    (place, workspace)
}

#[test]
fn worker_is_confined_before_it_answers() {
    let (_place, workspace) = place();
    let worker = Worker::confined(&workspace);
    assert_eq!(worker.status("NoNewPrivs"), "1");
    assert_eq!(worker.status("Seccomp"), "2");
    assert_eq!(worker.status("Threads"), "1");
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(worker.status(set), "0000000000000000", "{set}");
    }
    let (status, said) = worker.end();
    assert!(status.success() && said.is_empty(), "{status} {said}");
}

#[test]
fn worker_that_cannot_be_confined_as_told_refuses() {
    let (_place, workspace) = place();
    let mut held = 0;
    for abi in 1..=NEWEST_ABI {
        let mut worker = Worker::start(&workspace, &["--landlock-abi", &abi.to_string()]);
        if worker.try_ask(list(".", 1, 1)).is_some() {
            assert_eq!(held, abi - 1, "what holds at an ABI holds at each older one");
            held = abi;
        } else {
            let (status, said) = worker.end();
            assert_eq!(status.code(), Some(70), "{said}");
            assert!(said.contains("cannot"), "{said}");
        }
    }
    assert!(held > 0, "no Landlock here");
    for arguments in [&[][..], &["--landlock-abi"], &["--nonsense"]] {
        let mut worker = Worker::start(&workspace, arguments);
        assert!(worker.try_ask(list(".", 1, 1)).is_none());
        assert_eq!(worker.end().0.code(), Some(2));
    }
}

#[test]
fn file_tools_work_while_confined() {
    let (_place, workspace) = place();
    let mut worker = Worker::confined(&workspace);
    let absolute = format!("{}/src/main.rs", workspace.display());
    assert!(worker.text(write(&absolute, "fn main() {\n    old();\n}\n")).contains("new file"));
    let edit = FilesWork::Edit {
        path: "~/src/main.rs".into(),
        old_text: "old".into(),
        new_text: "new".into(),
        replace_all: false,
    };
    assert!(worker.text(edit).contains("at line 2"));
    let mode = |path: &str| std::fs::metadata(workspace.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("src"), mode("src/main.rs")),
        (0o755, 0o644),
        "not the stricter umask of who started it"
    );
    assert_eq!(worker.text(read("src/main.rs")), "fn main() {\n    new();\n}\n");
    worker.text(write(".gitignore", "*.log\n"));
    worker.text(write("src/x.log", "new();\n"));
    symlink("src", workspace.join("link")).unwrap();
    let listing = worker.text(list(".", 2, 1));
    let lines: Vec<&str> = listing.lines().collect();
    assert_eq!(
        lines,
        [
            "file            6 .gitignore",
            "link            - link -> src",
            "dir             - src/",
            "file           25 src/main.rs",
            "file            7 src/x.log",
        ]
    );
    let found = worker.text(grep(r"new\(", ".", None));
    assert_eq!(found, "src/main.rs:2:    new();\n[1 files or directories skipped by .gitignore]\n");
    assert!(worker.text(grep("new", "src/x.log", None)).starts_with("src/x.log:1:new"), "named: searched");
    assert!(worker.text(grep("new", ".", Some("*.c"))).starts_with("(no line matches)"));
    assert!(failure(worker.ask(grep("(", ".", None))).contains("unclosed group"));
    assert!(worker.text(find("*.rs")).starts_with("src/main.rs\n"));
    assert!(worker.text(find("MAIN")).starts_with("src/main.rs\n"));
    assert!(failure(worker.ask(list("src/main.rs", 1, 1))).contains("read_file"));
    assert!(worker.text(list("link", 1, 1)).contains("main.rs"));
    assert!(worker.end().0.success());
}

#[test]
fn nothing_outside_is_read_or_written() {
    for arguments in [None, Some(&["--unconfined"][..])] {
        let (place, workspace) = place();
        symlink("../outside", workspace.join("out")).unwrap();
        symlink(place.path().join("outside"), workspace.join("absolute")).unwrap();
        symlink("/proc/self/root", workspace.join("magic")).unwrap();
        let mut worker = match arguments {
            Some(arguments) => Worker::start(&workspace, arguments),
            None => Worker::confined(&workspace),
        };
        for path in ["../outside/secret", "out/secret", "absolute/secret", "magic/etc/passwd", "/etc/passwd"]
        {
            assert_eq!(rule(worker.ask(read(path))), "path.outside", "{path}");
            assert_eq!(rule(worker.ask(write(path, "x"))), "path.outside", "{path}");
            assert_eq!(rule(worker.ask(grep("x", path, None))), "path.outside", "{path}");
            let get = FilesWork::GetOpen { path: path.into(), max_size: 100 };
            assert_eq!(rule(worker.ask(get)), "path.outside", "{path}");
            let put = FilesWork::PutOpen { path: path.into(), size: 1 };
            assert_eq!(rule(worker.ask(put)), "path.outside", "{path}");
        }
        for path in ["..", "out", "absolute", "magic", "/"] {
            assert_eq!(rule(worker.ask(list(path, 1, 1))), "path.outside", "{path}");
        }
        assert_eq!(worker.text(grep("OUTSIDE", ".", None)), "(no line matches)\n");
        assert_eq!(std::fs::read_dir(place.path().join("outside")).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(place.path().join("outside/secret")).unwrap(), "OUTSIDE\n");
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A program in the workspace swaps a directory for a link to the outside as fast as it can.
#[test]
fn swapped_directory_never_leads_out() {
    for arguments in [None, Some(&["--unconfined"][..])] {
        let (place, workspace) = place();
        std::fs::create_dir(workspace.join("d")).unwrap();
        std::fs::write(workspace.join("d/secret"), "inside\n").unwrap();
        symlink("../outside", workspace.join("link")).unwrap();
        let mut worker = match arguments {
            Some(arguments) => Worker::start(&workspace, arguments),
            None => Worker::confined(&workspace),
        };
        let stop = AtomicBool::new(false);
        let (mut inside, mut denied) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let top: OwnedFd = std::fs::File::open(&workspace).unwrap().into();
                while !stop.load(Ordering::Relaxed) {
                    renameat2(top.as_fd(), "d", top.as_fd(), "link", RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            // Also when an assertion fails: the scope waits for the swapper.
            let _stop = Stop(&stop);
            let until = Instant::now() + PATIENCE;
            let mut round = 0;
            while (round < 300 || inside == 0 || denied == 0) && Instant::now() < until {
                round += 1;
                for work in [
                    read("d/secret"),
                    grep(".", "d", None),
                    grep(".", ".", None),
                    list("d", 2, 1),
                    write("d/secret", "inside\n"),
                    write("d/new/file", "inside\n"),
                    FilesWork::Edit {
                        path: "d/secret".into(),
                        old_text: "inside".into(),
                        new_text: "inside!".into(),
                        replace_all: true,
                    },
                ] {
                    match worker.ask(work) {
                        FilesResult::Text { text, .. } => {
                            assert!(!text.contains("OUTSIDE"), "{text}");
                            inside += 1;
                        }
                        FilesResult::Denied(denial) => {
                            assert_eq!(denial.rule, "path.outside");
                            denied += 1;
                        }
                        FilesResult::Failed(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        });
        assert!(inside > 0 && denied > 0, "the race was run: {inside} inside, {denied} denied");
        let outside = place.path().join("outside");
        assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "OUTSIDE\n");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing was made outside");
    }
}

#[test]
fn special_files_do_not_hang_the_worker() {
    let (_place, workspace) = place();
    nix::unistd::mkfifo(&workspace.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(workspace.join("socket")).unwrap();
    symlink("loop", workspace.join("loop")).unwrap();
    std::fs::write(workspace.join("file"), "text\n").unwrap();
    let mut worker = Worker::confined(&workspace);
    for name in ["pipe", "socket", "loop"] {
        for work in [read(name), write(name, "x"), FilesWork::GetOpen { path: name.into(), max_size: 1 }] {
            assert!(failure(worker.ask(work)).contains("cannot"), "{name}");
        }
    }
    assert_eq!(worker.text(grep("t", ".", None)), "file:1:text\n");
    let listing = worker.text(list(".", 1, 1));
    assert!(
        listing.contains("pipe            - pipe") && listing.contains("socket          - socket"),
        "{listing}"
    );
}

#[test]
fn directory_of_a_hundred_thousand_entries_is_paged_in_bounded_memory() {
    let (_place, workspace) = place();
    let many = workspace.join("many");
    std::fs::create_dir(&many).unwrap();
    std::fs::write(many.join("n000000"), "needle\n").unwrap();
    for number in 1..100_000 {
        std::fs::hard_link(
            many.join(format!("n{:06}", number / 1000 * 1000)),
            many.join(format!("n{number:06}")),
        )
        .or_else(|_| std::fs::write(many.join(format!("n{number:06}")), "needle\n"))
        .unwrap();
    }
    let mut worker = Worker::confined(&workspace);
    let first = worker.text(list("many", 1, 1));
    let next: u64 = first.rsplit_once("next offset: ").unwrap().1.parse().unwrap();
    assert!(first.starts_with("file            7 n000000\n"), "{}", first.lines().next().unwrap());
    let second = worker.text(list("many", 1, next));
    assert!(second.starts_with(&format!("file            7 n{:06}\n", next - 1)));
    assert!(worker.text(list("many", 1, 100_000)).contains("n099999"));
    assert!(failure(worker.ask(list("many", 1, 100_001))).contains("100000 results"));
    assert!(worker.text(grep("needle", ".", None)).contains("next offset: "));
    assert!(worker.text(find("n09999")).lines().count() == 10);
    assert!(worker.peak_kb() < 64 * 1024, "{} kB", worker.peak_kb());
}

#[test]
fn deep_nesting_ends_with_a_note() {
    let (_place, workspace) = place();
    let mut at: OwnedFd = std::fs::File::open(&workspace).unwrap().into();
    for _ in 0..3000 {
        nix::sys::stat::mkdirat(&at, "d", nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
        at = nix::fcntl::openat(&at, "d", flags, nix::sys::stat::Mode::empty()).unwrap();
    }
    let mut worker = Worker::confined(&workspace);
    assert!(worker.text(grep("x", ".", None)).contains("too deep"));
    assert!(worker.text(find("*.rs")).contains("too deep"));
    assert_eq!(worker.text(list(".", 16, 1)).lines().count(), 16);
    assert!(matches!(worker.ask(list(&"d/".repeat(2000), 1, 1)), FilesResult::Text { .. }));
    assert!(failure(worker.ask(list(&"d/".repeat(2100), 1, 1))).contains("too long"));
}

#[test]
fn names_that_are_not_utf8_are_shown_escaped() {
    let (_place, workspace) = place();
    std::fs::write(workspace.join(OsStr::from_bytes(b"caf\xe9\x1b[2J\n")), "needle\n").unwrap();
    std::fs::create_dir(workspace.join(OsStr::from_bytes(b"\xff"))).unwrap();
    let mut worker = Worker::confined(&workspace);
    let listing = worker.text(list(".", 1, 1));
    assert!(listing.contains(r"caf\xe9\x1b[2J\x0a") && listing.contains(r"\xff/"), "{listing}");
    assert!(worker.text(grep("needle", ".", None)).starts_with(r"caf\xe9\x1b[2J\x0a:1:needle"));
}

#[test]
fn large_files_cost_little_memory() {
    let (_place, workspace) = place();
    std::fs::write(workspace.join("ten"), "0123456789abcde\n".repeat(10 << 16)).unwrap();
    std::fs::File::create(workspace.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    let mut worker = Worker::confined(&workspace);
    let before = worker.peak_kb();
    assert!(worker.text(read("ten")).contains("next offset: "));
    let far = FilesWork::Read { path: "ten".into(), offset: 600_000, limit: Some(1), numbers: false };
    assert_eq!(worker.text(far), "0123456789abcde\nnext offset: 600001");
    assert!(worker.text(read("sparse")).contains("not text"));
    assert!(
        failure(worker.ask(FilesWork::GetOpen { path: "sparse".into(), max_size: u64::MAX }))
            .contains("limit")
    );
    assert!(worker.text(grep("x", ".", Some("sparse"))).contains("not everything was searched"));
    let line = format!("near {} far\n", "x".repeat(1 << 20));
    std::fs::write(workspace.join("line"), line).unwrap();
    let found = worker.text(grep("near", ".", Some("line")));
    assert!(found.starts_with("line:1:near xxx") && found.contains("...") && found.len() < 700, "{found}");
    assert!(worker.text(grep("far", "line", None)).contains("searched only so far"));
    assert!(worker.peak_kb() < before + 8192, "{} kB", worker.peak_kb() - before);
}

#[test]
fn transfers_and_spills_are_whole_or_gone() {
    let (_place, workspace) = place();
    let mut worker = Worker::confined(&workspace);
    let data: Vec<u8> = (0..600_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    assert_eq!(worker.ask(FilesWork::PutOpen { path: "in/a.bin".into(), size: 600_000 }), FilesResult::Done);
    let transfer = worker.number;
    for chunk in data.chunks(256 * 1024) {
        let put = FilesWork::PutWrite { transfer, data: chunk.to_vec() };
        assert_eq!(worker.ask(put), FilesResult::Done);
    }
    assert_eq!(worker.ask(FilesWork::PutClose { transfer }), FilesResult::Done);
    assert_eq!(
        worker.ask(FilesWork::GetOpen { path: "in/a.bin".into(), max_size: 1 << 20 }),
        FilesResult::Size(600_000)
    );
    let transfer = worker.number;
    let mut back = Vec::new();
    loop {
        let get = FilesWork::GetRead { transfer, offset: back.len() as u64, length: 256 * 1024 };
        let FilesResult::Bytes(bytes) = worker.ask(get) else { panic!() };
        if bytes.is_empty() {
            break;
        }
        back.extend_from_slice(&bytes);
    }
    assert!(back == data);
    assert_eq!(worker.ask(FilesWork::GetClose { transfer }), FilesResult::Done);

    assert_eq!(worker.ask(FilesWork::SpillOpen { name: "c1".into() }), FilesResult::Done);
    assert_eq!(
        worker.ask(FilesWork::SpillWrite { name: "c1".into(), data: b"all of it\n".to_vec() }),
        FilesResult::Done
    );
    assert_eq!(worker.ask(FilesWork::SpillClose { name: "c1".into() }), FilesResult::Done);
    assert_eq!(worker.text(read(".oxibot-output/c1.txt")), "all of it\n");
    assert!(worker.text(grep("all", ".", None)).starts_with("(no line matches)"), "hidden from searches");
    assert!(
        worker.text(grep("all", ".oxibot-output", None)).contains("c1.txt:1:"),
        "but not from who asks for it"
    );

    assert_eq!(worker.ask(FilesWork::PutOpen { path: "in/b.bin".into(), size: 10 }), FilesResult::Done);
    assert_eq!(std::fs::read_dir(workspace.join("in")).unwrap().count(), 2);
    assert!(worker.end().0.success());
    assert_eq!(std::fs::read_dir(workspace.join("in")).unwrap().count(), 1, "the unfinished file is removed");
}

#[test]
fn git_keys_are_put_back_after_commands_and_file_tools() {
    let (_place, workspace) = place();
    std::fs::create_dir(workspace.join(".git")).unwrap();
    std::fs::write(workspace.join(".git/config"), "[core]\n\tbare = false\n").unwrap();
    let mut worker = Worker::confined(&workspace);
    assert_eq!(worker.ask(FilesWork::GitCheckpoint), FilesResult::Done);
    std::fs::write(workspace.join(".git/config"), "[core]\n\tbare = true\n\tfsmonitor = evil\n").unwrap();
    let FilesResult::Notes(notes) = worker.ask(FilesWork::GitRestore) else { panic!() };
    assert!(notes.len() == 1 && notes[0].contains("core.fsmonitor"), "{notes:?}");
    let FilesResult::Notes(notes) = worker.ask(FilesWork::GitRestore) else { panic!() };
    assert!(notes.len() == 1 && notes[0].starts_with("could not compare"), "nothing was recorded: {notes:?}");
    let text = worker.text(write(".git/config", "[core]\n\tbare = true\n\thooksPath = evil\n"));
    assert!(text.contains("put back core.hookspath"), "{text}");
    let config = std::fs::read_to_string(workspace.join(".git/config")).unwrap();
    assert!(config.contains("bare = true") && !config.contains("evil"), "{config}");
}

#[test]
fn a_confined_worker_can_put_back_what_names_a_repository() {
    let (_place, workspace) = place();
    let top = workspace.join(".git");
    std::fs::create_dir(&top).unwrap();
    let mut worker = Worker::confined(&workspace);
    assert_eq!(worker.ask(FilesWork::GitCheckpoint), FilesResult::Done);
    std::fs::write(top.join("commondir"), "../evil").unwrap();
    let FilesResult::Notes(notes) = worker.ask(FilesWork::GitRestore) else { panic!() };
    assert!(notes.len() == 1 && notes[0].starts_with("removed .git/commondir"), "{notes:?}");
    assert!(!top.join("commondir").exists());

    std::fs::remove_dir(&top).unwrap();
    std::fs::write(&top, "gitdir: ../main\n").unwrap();
    assert_eq!(worker.ask(FilesWork::GitCheckpoint), FilesResult::Done);
    std::fs::remove_file(&top).unwrap();
    symlink("evil", &top).unwrap();
    let FilesResult::Notes(notes) = worker.ask(FilesWork::GitRestore) else { panic!() };
    assert!(notes.len() == 1 && notes[0].starts_with("put back .git"), "{notes:?}");
    assert!(!top.is_symlink());
    assert_eq!(std::fs::read_to_string(&top).unwrap(), "gitdir: ../main\n");
}

#[test]
fn guarded_names_are_told_on_the_command_line() {
    let (_place, workspace) = place();
    std::fs::create_dir(workspace.join(".vscode")).unwrap();
    let mut worker = Worker::start(&workspace, &["--unconfined", "--protect", ".vscode"]);
    assert_eq!(rule(worker.ask(write(".vscode/tasks.json", "{}"))), "path.protected");
    worker.text(write("vscode/tasks.json", "{}"));
}

#[test]
fn broken_requests_end_the_worker_and_nothing_else_does() {
    let (_place, workspace) = place();
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02\xff\xff", b"\0\0\0\0"] {
        let mut worker = Worker::confined(&workspace);
        worker.socket.write_all(bytes).unwrap();
        assert!(worker.try_ask(list(".", 1, 1)).is_none());
        let (status, said) = worker.end();
        assert_eq!(status.code(), Some(70), "{said}");
    }
    let mut worker = Worker::confined(&workspace);
    for name in ["", "..", "a\0"] {
        failure(worker.ask(FilesWork::SpillOpen { name: name.into() }));
        failure(worker.ask(FilesWork::SpillWrite { name: name.into(), data: vec![1] }));
    }
    for path in ["", "a\0b", &"x".repeat(5000), &"x/".repeat(3000)] {
        assert!(failure(worker.ask(read(path))).len() < 500, "a message does not repeat a long path");
        failure(worker.ask(write(path, "x")));
    }
    failure(worker.ask(FilesWork::PutWrite { transfer: 7, data: vec![1] }));
    failure(worker.ask(FilesWork::GetRead { transfer: 7, offset: u64::MAX, length: u32::MAX }));
    failure(worker.ask(grep(&"(".repeat(4096), ".", None)));
    failure(worker.ask(grep("a{1000}{1000}{1000}", ".", None)));
    failure(worker.ask(find(&"{".repeat(4096))));
    failure(worker.ask(find(&"[".repeat(4096))));
    assert_eq!(worker.text(list(".", u32::MAX, 1)), "(empty directory)\n");
    assert!(worker.end().0.success());
}
