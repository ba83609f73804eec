//! Each refusal with its positive control, in a process of its own, because confinement cannot be taken back; and each
//! rule of the filter, run by a small interpreter with arguments that pass and arguments that do not.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Network, Plan, apply, syscalls};

/// Set for the child that is to be confined.
const CASE: &str = "OXIBOT_CONFINE_TEST";

struct Place {
    directory: PathBuf,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn plan(&self, network: Network) -> Plan {
        Plan {
            state: vec![self.path("home/state")],
            reread: vec![self.path("home/config.json"), self.path("secrets/key")],
            network,
            workspaces: vec![self.path("home/workspace")],
            toolhost: None,
        }
    }
}

fn kind<T>(result: std::io::Result<T>) -> std::io::ErrorKind {
    result.err().expect("was not refused").kind()
}

const DENIED: std::io::ErrorKind = std::io::ErrorKind::PermissionDenied;

/// The child's side: one case, confined for ever.
fn case(name: &str, place: &Place) {
    match name {
        "programs" => {
            assert!(Command::new("/bin/true").status().is_ok());
            let _confined = apply(&place.plan(Network::Connect)).unwrap();
            assert_eq!(kind(Command::new("/bin/true").status()), DENIED);
            assert!(nix::unistd::execve::<&std::ffi::CStr, &std::ffi::CStr>(c"/bin/true", &[], &[]).is_err());
            std::thread::spawn(|| assert_eq!(kind(Command::new("/bin/true").status()), DENIED))
                .join()
                .unwrap();
        }
        "files" => {
            File::open(place.path("home/workspace/file")).unwrap();
            File::open("/proc/self/environ").unwrap();
            let _confined = apply(&place.plan(Network::Connect)).unwrap();
            assert_eq!(kind(File::open(place.path("home/workspace/file"))), DENIED);
            assert_eq!(kind(fs::read_dir(place.path("home/workspace"))), DENIED);
            assert_eq!(kind(File::open(place.path("outside"))), DENIED);
            assert_eq!(kind(File::create(place.path("new"))), DENIED);
            assert_eq!(kind(File::create(place.path("secrets/new"))), DENIED);
            assert_eq!(kind(File::options().write(true).open(place.path("home/config.json"))), DENIED);
            assert_eq!(kind(std::os::unix::fs::symlink("/", place.path("home/state/link"))), DENIED);
            assert_eq!(kind(File::open("/proc/self/environ")), DENIED);
            File::open(place.path("home/config.json")).unwrap();
            File::open("/etc/passwd").unwrap();
        }
        "replaced" => {
            let _confined = apply(&place.plan(Network::Connect)).unwrap();
            // The parent renames a new file over the secret and says so.
            println!("confined");
            let mut go = [0];
            std::io::stdin().read_exact(&mut go).unwrap();
            assert_eq!(fs::read_to_string(place.path("secrets/key")).unwrap(), "second");
        }
        "unix" => {
            let path = place.path("socket");
            UnixStream::connect(&path).unwrap();
            let _confined = apply(&place.plan(Network::Connect)).unwrap();
            assert_eq!(kind(UnixStream::connect(&path)), DENIED);
            assert_eq!(kind(UnixListener::bind(place.path("home/state/s"))), DENIED);
            assert_eq!(kind(std::os::unix::net::UnixDatagram::pair()), DENIED);
            UnixStream::pair().unwrap();
        }
        "network" => {
            let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let address = server.local_addr().unwrap();
            let confined = apply(&place.plan(Network::Connect)).unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"x").unwrap();
            server.accept().unwrap();
            UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            if confined.missing().is_empty() {
                assert_eq!(kind(TcpListener::bind(("127.0.0.1", 0))), DENIED);
            }
            use std::net::ToSocketAddrs;
            ("localhost", 1).to_socket_addrs().unwrap();
        }
        "no-network" => {
            let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let address = server.local_addr().unwrap();
            TcpStream::connect(address).unwrap();
            let _confined = apply(&place.plan(Network::None)).unwrap();
            assert_eq!(kind(TcpStream::connect(address)), DENIED);
            assert_eq!(kind(File::open("/etc/passwd")), DENIED);
        }
        "runtime" => {
            let confined = apply(&place.plan(Network::Connect)).unwrap();
            let doubled = confined.runtime().unwrap().block_on(async {
                let handle = tokio::task::spawn_blocking(|| 21 * 2);
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                let _signals = tokio::signal::ctrl_c();
                handle.await.unwrap()
            });
            assert_eq!(doubled, 42);
        }
        "database" => {
            let confined = apply(&place.plan(Network::Connect)).unwrap();
            let database = rusqlite::Connection::open(place.path("home/state/db")).unwrap();
            database.pragma_update(None, "journal_mode", "WAL").unwrap();
            database.execute_batch("create table t(x); insert into t values (1); vacuum;").unwrap();
            drop(database);
            assert!(confined.missing().len() < 3);
        }
        "signals" => {
            let parent = nix::unistd::getppid();
            nix::sys::signal::kill(parent, None).unwrap();
            let _confined = apply(&place.plan(Network::Connect)).unwrap();
            assert_eq!(nix::sys::signal::kill(parent, None), Err(nix::errno::Errno::EPERM));
            nix::sys::signal::kill(nix::unistd::getpid(), None).unwrap();
        }
        "privileges" => {
            let _confined = apply(&place.plan(Network::Connect)).unwrap();
            assert!(!nix::sys::prctl::get_dumpable().unwrap());
            assert!(nix::sys::prctl::get_no_new_privs().unwrap());
            for set in [caps::CapSet::Effective, caps::CapSet::Permitted, caps::CapSet::Inheritable] {
                assert!(caps::read(None, set).unwrap().is_empty());
            }
            assert_eq!(
                nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).unwrap(),
                (0, 0)
            );
        }
        "overlap" => {
            let mut plan = place.plan(Network::Connect);
            plan.workspaces.push(place.path("home/state/workspace"));
            fs::create_dir(place.path("home/state/workspace")).unwrap();
            assert!(matches!(apply(&plan), Err(super::ConfineError::Overlap { .. })));
        }
        other => panic!("no such case: {other}"),
    }
}

/// Not a test by itself: what the child of [`in_a_child`] runs.
#[test]
fn confined_child() {
    if let (Some(name), Some(directory)) = (std::env::var_os(CASE), std::env::var_os("OXIBOT_CONFINE_PLACE"))
    {
        case(name.to_str().unwrap(), &Place { directory: directory.into() });
    }
}

fn place() -> (tempfile::TempDir, Place) {
    let directory = tempfile::tempdir().unwrap();
    let place = Place { directory: directory.path().canonicalize().unwrap() };
    for name in ["home/state", "home/workspace", "secrets"] {
        fs::create_dir_all(place.path(name)).unwrap();
    }
    for name in ["home/config.json", "home/workspace/file", "secrets/key", "outside"] {
        fs::write(place.path(name), "first").unwrap();
    }
    (directory, place)
}

fn child(name: &str, place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "confine::tests::confined_child", "--nocapture", "--test-threads=1"])
        .env(CASE, name)
        .env("OXIBOT_CONFINE_PLACE", place);
    command
}

fn in_a_child(name: &str) {
    let (_directory, place) = place();
    let _listener = UnixListener::bind(place.path("socket")).unwrap();
    let output = child(name, &place.directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{name}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn no_program_can_be_started() {
    in_a_child("programs");
}

#[test]
fn no_file_outside_can_be_opened_and_no_workspace_inside_the_home() {
    in_a_child("files");
}

#[test]
fn no_unix_socket_can_be_made_or_reached() {
    in_a_child("unix");
}

#[test]
fn the_network_can_be_reached_and_not_listened_on() {
    in_a_child("network");
}

#[test]
fn a_command_without_network_has_none() {
    in_a_child("no-network");
}

#[test]
fn the_runtime_runs() {
    in_a_child("runtime");
}

#[test]
fn the_database_works() {
    in_a_child("database");
}

#[test]
fn no_other_process_can_be_signalled() {
    in_a_child("signals");
}

#[test]
fn no_privilege_is_left() {
    in_a_child("privileges");
}

#[test]
fn a_workspace_inside_the_state_directory_is_refused() {
    in_a_child("overlap");
}

#[test]
fn a_secret_file_that_was_replaced_can_be_read_again() {
    let (_directory, place) = place();
    let mut child = child("replaced", &place.directory)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while !said.contains("confined\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("the child ended early");
        said.push(char::from(byte[0]));
    }
    fs::write(place.path("secrets/new"), "second").unwrap();
    fs::rename(place.path("secrets/new"), place.path("secrets/key")).unwrap();
    child.stdin.take().unwrap().write_all(b"g").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{said}{rest}");
}

#[test]
fn a_process_with_threads_is_not_half_confined() {
    // The test runner has threads.
    let (_directory, place) = place();
    std::thread::scope(|scope| {
        let (send, wait) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || wait.recv());
        assert!(super::confine(&place.plan(Network::None)).is_err());
        drop(send);
    });
}

mod filter {
    //! The filter itself, run on made-up calls.

    use seccompiler::sock_filter;

    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;
    #[cfg(target_arch = "x86_64")]
    const ARCH: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const ARCH: u32 = 0xc000_00b7;

    /// Classic BPF as far as our program uses it.
    fn run(program: &[sock_filter], arch: u32, number: i64, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&i32::try_from(number).unwrap().to_le_bytes());
        data.extend_from_slice(&arch.to_le_bytes());
        data.extend_from_slice(&0_u64.to_le_bytes());
        for argument in arguments {
            data.extend_from_slice(&argument.to_le_bytes());
        }
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                0x20 => {
                    let offset = usize::try_from(step.k).unwrap();
                    accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                }
                0x54 => accumulator &= step.k,
                0x05 => at += usize::try_from(step.k).unwrap(),
                0x15 => at += jump(accumulator == step.k),
                0x25 => at += jump(accumulator > step.k),
                0x35 => at += jump(accumulator >= step.k),
                0x06 => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn program(network: Network, toolhost: Option<u32>) -> Vec<sock_filter> {
        let plan = Plan { state: Vec::new(), reread: Vec::new(), network, workspaces: Vec::new(), toolhost };
        syscalls::program(&plan).unwrap()
    }

    #[test]
    fn every_rule_refuses_what_it_names() {
        let program = program(Network::Connect, None);
        for (number, name) in syscalls::refused_names() {
            assert_eq!(run(&program, ARCH, number, [0; 6]), EPERM, "{name}");
            assert_eq!(run(&program, ARCH, number, [u64::MAX; 6]), EPERM, "{name}");
        }
        for number in [libc::SYS_read, libc::SYS_write, libc::SYS_openat, libc::SYS_connect, libc::SYS_futex]
        {
            assert_eq!(run(&program, ARCH, number, [0; 6]), ALLOW);
        }
    }

    #[test]
    fn foreign_architectures_and_unknown_numbers_do_not_pass() {
        let program = program(Network::Connect, None);
        // i386: 11 is execve there and munmap here.
        assert_eq!(run(&program, 0x4000_0003, 11, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(run(&program, ARCH, 0x4000_0000 | libc::SYS_execve, [0; 6]), ENOSYS, "x32");
        assert_eq!(run(&program, ARCH, 470, [0; 6]), ENOSYS);
        assert_eq!(run(&program, ARCH, 469, [0; 6]), ALLOW);
        assert_eq!(run(&program, ARCH, -1, [0; 6]), ENOSYS);
        assert_eq!(run(&program, ARCH, libc::SYS_clone3, [0; 6]), ENOSYS);
    }

    #[test]
    fn threads_may_be_made_and_processes_and_namespaces_not() {
        let program = program(Network::Connect, None);
        let thread = u64::try_from(libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND).unwrap();
        assert_eq!(run(&program, ARCH, libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run(&program, ARCH, libc::SYS_clone, [17, 0, 0, 0, 0, 0]), EPERM);
        for namespace in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID] {
            let flags = thread | u64::try_from(namespace).unwrap();
            assert_eq!(run(&program, ARCH, libc::SYS_clone, [flags, 0, 0, 0, 0, 0]), EPERM);
        }
    }

    #[test]
    fn only_internet_sockets_can_be_made() {
        let filter = program(Network::Connect, None);
        let socket = |domain: i32, kind: i32, protocol: u64| {
            let first = u64::try_from(domain).unwrap();
            run(&filter, ARCH, libc::SYS_socket, [first, u64::try_from(kind).unwrap(), protocol, 0, 0, 0])
        };
        assert_eq!(socket(libc::AF_INET, libc::SOCK_STREAM, 0), ALLOW);
        assert_eq!(socket(libc::AF_INET6, libc::SOCK_DGRAM, 0), ALLOW);
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, 0), ALLOW);
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, 12), EPERM);
        for domain in [libc::AF_UNIX, libc::AF_VSOCK, libc::AF_PACKET, libc::AF_ALG, libc::AF_BLUETOOTH] {
            assert_eq!(socket(domain, libc::SOCK_STREAM, 0), EPERM);
        }
        let filter = program(Network::None, None);
        assert_eq!(run(&filter, ARCH, libc::SYS_socket, [2, 1, 0, 0, 0, 0]), EPERM);
        let pair = |kind: i32| {
            run(&filter, ARCH, libc::SYS_socketpair, [1, u64::try_from(kind).unwrap(), 0, 0, 0, 0])
        };
        assert_eq!(pair(libc::SOCK_STREAM | libc::SOCK_CLOEXEC), ALLOW);
        assert_eq!(pair(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC), EPERM);
        assert_eq!(pair(libc::SOCK_RAW | libc::SOCK_CLOEXEC), EPERM);
    }

    #[test]
    fn signals_reach_ourselves_and_the_toolhost_only() {
        let filter = program(Network::None, Some(4321));
        let kill = |pid: u64| run(&filter, ARCH, libc::SYS_kill, [pid, 9, 0, 0, 0, 0]);
        assert_eq!(kill(u64::from(std::process::id())), ALLOW);
        assert_eq!(kill(4321), ALLOW);
        assert_eq!(kill(1), EPERM);
        assert_eq!(kill(u64::MAX), EPERM);
        assert_eq!(run(&filter, ARCH, libc::SYS_tgkill, [4321, 4321, 9, 0, 0, 0]), EPERM);
    }

    #[test]
    fn nothing_is_typed_into_the_terminal() {
        let filter = program(Network::None, None);
        assert_eq!(run(&filter, ARCH, libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]), EPERM);
        // The upper half of the register is not looked at by the kernel either.
        assert_eq!(run(&filter, ARCH, libc::SYS_ioctl, [0, libc::TIOCSTI | 1 << 40, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&filter, ARCH, libc::SYS_ioctl, [0, libc::TIOCGWINSZ, 0, 0, 0, 0]), ALLOW);
    }
}
