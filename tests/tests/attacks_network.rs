//! Attacks on the network and on inter-process communication: reaching any listener outside, however it listens.

use oxibot_tests::corpus;
use oxibot_tests::corpus::Program::{Bash, Perl, Python};
use oxibot_tests::corpus::Witness::{Contact, Survivor, Word};
use oxibot_tests::corpus::{Attack, Gap, attack};

corpus!(ATTACKS);

/// The same attacks where calls have a proxy: it changes nothing but itself.
mod with_hosts_listed {
    use oxibot_tests::corpus::judge::judge;
    use oxibot_tests::corpus::run::{LEVEL_VARIABLE, Mode};
    use oxibot_tests::fixture::skip;

    use super::{ATTACKS, Attack};

    const LISTED: &str = r#"{"tools": {"bash": {"network": ["*.example.org", "git.example.net:1"]}}}"#;

    fn hold(test: &str, mode: Mode) {
        if std::env::var(LEVEL_VARIABLE).is_ok_and(|level| level != "full") {
            return skip(test, "hosts can be listed at level full only");
        }
        // All but the one that looks for the variables of a proxy.
        let attacks = ATTACKS.iter().filter(|attack| attack.id != "proxy-variables");
        judge(&attacks.copied().collect::<Vec<Attack>>(), LISTED, mode);
    }

    #[test]
    fn attacks_of_a_call_with_a_proxy() {
        hold("attacks_of_a_call_with_a_proxy", Mode::ToolCall);
    }

    #[test]
    fn attacks_of_a_users_call_with_a_proxy() {
        hold("attacks_of_a_users_call_with_a_proxy", Mode::ToolCallUser);
    }
}

const ATTACKS: &[Attack] = &[
    attack("tcp-connect", "no TCP server of the host can be reached", Bash("exec 3<>/dev/tcp/127.0.0.1/@TCP@ && echo hello >&3"), Contact),
    attack("tcp-connect-6", "no TCP server of the host can be reached over IPv6", Python("s = tried(socket.create_connection, ('::1', @TCP6@), 1)\nif not @TCP6@: print('MISSING: no IPv6 here')"), Contact),
    attack(
        "tcp-other-addresses",
        "no other spelling of the host's address leads to it",
        Python("for host in ('127.1', '127.0.0.2', '0.0.0.0', '0', '::ffff:127.0.0.1', '2130706433', '0x7f.1', socket.gethostname(), 'localhost'):\n    tried(socket.create_connection, (host, @TCP@), 1)"),
        Contact,
    ),
    attack(
        "tcp-fast-open",
        "data in the first packet does not go around the rule for connect",
        Python("s = socket.socket()\ntried(s.sendto, b'hello', 0x20000000, ('127.0.0.1', @TCP@))\ns2 = socket.socket()\ntried(s2.setsockopt, 6, 30, 1)\ntried(s2.connect, ('127.0.0.1', @TCP@)); tried(s2.send, b'x')"),
        Contact,
    ),
    attack(
        "tcp-multipath",
        "a multipath socket does not go around the rules for TCP",
        Python("s = tried(socket.socket, socket.AF_INET, socket.SOCK_STREAM, 262)\nif s is None: print('MISSING: no MPTCP in this kernel')\nelse: tried(s.connect, ('127.0.0.1', @TCP@)); tried(s.send, b'x')"),
        Contact,
    ),
    attack(
        "tcp-nonblocking",
        "a connection begun and given up reaches nobody",
        Perl("use Socket; for (1..5) { socket(my $s, PF_INET, SOCK_STREAM | 2048, 0) or print \"$!\\n\"; connect($s, sockaddr_in(@TCP@, inet_aton('127.0.0.1'))) or print \"$!\\n\"; select(undef, undef, undef, 0.01); }"),
        Contact,
    ),
    attack("udp-send", "no UDP server of the host can be reached", Bash("echo hello > /dev/udp/127.0.0.1/@UDP@"), Contact),
    attack(
        "udp-many-messages",
        "sendmmsg and an unconnected socket reach nobody",
        Python("s = tried(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)\nif s: tried(s.sendmsg, [b'x'], [], 0, ('127.0.0.1', @UDP@)); tried(s.setsockopt, socket.SOL_SOCKET, socket.SO_BROADCAST, 1); tried(s.sendto, b'x', ('255.255.255.255', @UDP@))\nl = tried(socket.socket, socket.AF_INET, socket.SOCK_DGRAM, 136)\nif l: tried(l.sendto, b'x', ('127.0.0.1', @UDP@))"),
        Contact,
    ),
    attack("unix-connect", "no Unix socket outside can be reached", Python("s = tried(socket.socket, socket.AF_UNIX)\nif s: tried(s.connect, '../outside/host.sock'); tried(s.connect, '@OUT@/host.sock')"), Contact),
    attack("unix-datagram", "no Unix datagram socket outside can be reached", Python("s = tried(socket.socket, socket.AF_UNIX, socket.SOCK_DGRAM)\nif s: tried(s.sendto, b'x', '@OUT@/host.dgram')\na, b = tried(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM) or (None, None)\nif a: tried(a.sendto, b'y', '@OUT@/host.dgram')"), Contact),
    attack("unix-through-link", "a link in the workspace is no way to a socket outside", Python("os.symlink('@OUT@/host.sock', 's')\ns = tried(socket.socket, socket.AF_UNIX)\nif s: tried(s.connect, 's')\nfd = tried(os.open, '@OUT@', os.O_PATH)\nif s and fd: tried(s.connect, f'/proc/self/fd/{fd}/host.sock')"), Contact),
    attack("unix-in-workspace", "a stream socket that a host program left in the workspace cannot be reached", Python("for path in ('host.sock', '@WS@/host.sock'):\n    s = tried(socket.socket, socket.AF_UNIX)\n    if s: tried(s.connect, path)"), Contact),
    attack("unix-datagram-in-workspace", "a datagram socket that a host program left in the workspace cannot be reached", Python("s = tried(socket.socket, socket.AF_UNIX, socket.SOCK_DGRAM)\nif s: tried(s.sendto, b'x', 'host.dgram')\na, b = tried(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM) or (None, None)\nif a: tried(a.sendto, b'y', 'host.dgram'); tried(a.connect, 'host.dgram'); tried(a.send, b'z')"), Contact),
    attack(
        "unix-in-workspace-renamed",
        "moving or linking a host's socket in the workspace does not open it",
        Python("tried(os.makedirs, 'deep/er')\ntried(os.link, 'host.sock', 'deep/linked'); tried(os.rename, 'host.sock', 'deep/er/moved'); tried(os.symlink, 'host.sock', 'soft')\nfor path in ('deep/linked', 'deep/er/moved', 'soft', 'host.sock'):\n    s = tried(socket.socket, socket.AF_UNIX)\n    if s: tried(s.connect, path)"),
        Contact,
    ),
    attack("abstract-connect", "no abstract socket of the host can be reached", Python("s = tried(socket.socket, socket.AF_UNIX)\nif s: tried(s.connect, '\\0@ABSTRACT@')\nd = tried(socket.socket, socket.AF_UNIX, socket.SOCK_DGRAM)\nif d: tried(d.sendto, b'x', '\\0@ABSTRACT@-dgram')\na = tried(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)\nif a: tried(a[0].sendto, b'x', '\\0@ABSTRACT@-dgram')"), Contact),
    attack(
        "abstract-pass-descriptor",
        "no descriptor can be handed to a process outside",
        Python("d = tried(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM) or [tried(socket.socket, socket.AF_UNIX, socket.SOCK_DGRAM)]\nfd = os.open('.', os.O_RDONLY)\nfor name in ('\\0@ABSTRACT@-dgram', 'host.dgram', '@OUT@/host.dgram'):\n    tried(d[0].sendmsg, [b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('i', fd))], 0, name)"),
        Contact,
    ),
    attack("vsock", "the hypervisor cannot be spoken to", Python("s = tried(socket.socket, 40, socket.SOCK_STREAM)\nif s:\n    s.settimeout(0.5)\n    for cid in (1, 2, 3):\n        try: s.connect((cid, 1024)); through(cid)\n        except OSError as error:\n            if error.errno in (E.ECONNRESET, E.ETIMEDOUT, E.ECONNREFUSED) or 'timed out' in str(error): through(cid, error)\n            elif error.errno == E.ENODEV: print('MISSING: no vsock device here')\nelif not os.path.exists('/dev/vsock'): print('MISSING: no vsock in this kernel')"), Word),
    attack(
        "odd-families",
        "only Unix, IPv4, IPv6 and route sockets can be made",
        Python("allowed = {1, 2, 10, 16}\nmade = []\nfor family in range(0, 60):\n    if family in allowed: continue\n    for kind in (1, 2, 3, 5, 10):\n        for flags in (0, 0x80000, 0x800):\n            try: socket.socket(family, kind | flags).close(); made.append(family)\n            except (OSError, ValueError): pass\nif made: through(sorted(set(made)))"),
        Word,
    )
    .root(),
    attack("packet", "packets cannot be sniffed or forged", Python("for family, kind, protocol in ((17, 3, 0x300), (17, 2, 0x300), (2, 10, 0x300), (2, 3, 1), (2, 3, 255), (10, 3, 58), (2, 3, 6)):\n    s = tried(socket.socket, family, kind, protocol)\n    if s: through(family, kind, protocol)"), Word).root(),
    attack("ping-socket", "not even an echo request leaves", Python("s = tried(socket.socket, 2, 2, 1)\nif s:\n    s.settimeout(0.5)\n    tried(s.sendto, bytes([8, 0, 0xf7, 0xfd, 0, 1, 0, 1]), ('127.0.0.1', 0))\nr = tried(socket.socket, 2, 3, 1)\nif r: through('raw')\nif tried(socket.create_connection, ('127.0.0.1', @TCP@), 1): through('host')"), Word),
    attack("hash-sockets", "the kernel's cryptography interface is closed", Python("if tried(socket.socket, 38, 5): through('algorithm')\nif call(41, 38, 5, 0)[0] >= 0: through()\nif call(41, 38, 5, 0)[1] in (97,): print('MISSING: no AF_ALG in this kernel')"), Word).no_control("many kernels have no AF_ALG; the rules of the filter are executed by tests of their own"),
    attack(
        "netlink-protocols",
        "netlink gives nothing but the list of interfaces",
        Python("got = []\nfor protocol in range(1, 32):\n    try: socket.socket(16, 3, protocol).close(); got.append(protocol)\n    except OSError: pass\nif got: through(got)"),
        Word,
    ),
    attack(
        "netlink-list-host-sockets",
        "the sockets and interfaces of the host do not show",
        Bash("for f in tcp tcp6 unix udp; do cat /proc/net/$f /proc/self/net/$f; done 2>/dev/null > seen; p=$(printf '%04X' @TCP@); grep -q \":$p \" seen && echo GOT-THROUGH port; grep -q @ABSTRACT@ seen && echo GOT-THROUGH abstract"),
        Word,
    )
    .gap(Gap::MachineLists),
    attack("bind-host-port", "a port of the host cannot be taken", Python("for host in ('127.0.0.1', '0.0.0.0'):\n    s = tried(socket.socket)\n    if not s: continue\n    try: s.bind((host, @TCP@))\n    except OSError as error:\n        if error.errno == E.EADDRINUSE: through('in use: the host port is ours too')"), Word),
    attack("listen-for-host", "the host cannot be made to connect in", Python("s = tried(socket.socket)\nif s:\n    s.bind(('127.0.0.1', 0)); s.listen(); port = s.getsockname()[1]\n    open('port', 'w').write(str(port))\n    child = os.fork()\n    if child == 0:\n        os.setsid(); s.settimeout(3); tried(s.accept); time.sleep(61)"), Survivor),
    attack("configure-network", "no interface, route or address can be made", Python("s = tried(socket.socket, 16, 3, 0)\nif s:\n    message = struct.pack('IHHIIBxHiII', 32, 16, 0x605, 1, 0, 0, 0, 0, 0, 0)\n    attributes = struct.pack('HH', 12, 3) + b'ox@MARK@'[:7] + b'\\0'\n    tried(s.send, struct.pack('IHHII', 16 + 16 + 12, 16, 0x605, 1, 0) + struct.pack('BxHiII', 0, 0, 0, 0, 0) + attributes)\n    answer = s.recv(4096)\n    error = struct.unpack_from('i', answer, 16)[0]\n    print(error)\n    if error != -1: through(error)"), Word).root(),
    attack("proxy-variables", "no proxy, agent or bus of the host is named to the call", Bash("env | grep -iE 'proxy|_SOCK|DBUS|XDG_RUNTIME|DISPLAY|WAYLAND|LD_|SSH_|AWS_|TOKEN|KEY=' | grep -q . && echo GOT-THROUGH"), Word),
    attack("resolver", "no resolver of the host is reachable", Python("tried(socket.getaddrinfo, 'example.com', 80)\nfor path in ('/run/systemd/resolve/io.systemd.Resolve', '/var/run/nscd/socket', '/run/dbus/system_bus_socket', '/run/docker.sock', '/var/run/docker.sock', '/run/systemd/private', '/tmp/.X11-unix/X0', '/run/user/0/bus', '/dev/log', '/run/systemd/journal/socket'):\n    s = socket.socket(socket.AF_UNIX) if tried(socket.socket, socket.AF_UNIX) else None\n    if s and os.path.exists(path): through(path)\nif tried(socket.create_connection, ('127.0.0.1', @TCP@), 1): through('host')"), Word),
    // System V, POSIX queues and shared memory.
    attack("system-v", "no System V object outlives its call", Python("for number in (29, 64, 68):\n    print(call(number, @KEY@, 4096 if number == 29 else (1 if number == 64 else 0o1666), 0o1666))"), Survivor),
    attack(
        "system-v-of-host",
        "a System V segment of the host cannot be read or removed",
        Python(
            r"
identity, error = call(29, @KEY@, 0, 0)
print(identity, error)
libc.shmat.restype = ctypes.c_void_p
if identity >= 0: print(ctypes.string_at(libc.shmat(identity, None, 0o10000)))
",
        ),
        Word,
    )
    .before("python3 -c 'import ctypes; l = ctypes.CDLL(None); l.shmat.restype = ctypes.c_void_p; ctypes.memmove(l.shmat(l.shmget(@KEY@, 4096, 0o1600), None, 0), b\"GOT-THROUGH\", 12)'")
    .after("ipcrm -M @KEY@"),
    attack("list-system-v", "the machine's System V objects do not show", Bash("grep -q @KEY@ /proc/sysvipc/shm && echo GOT-THROUGH"), Word)
        .gap(Gap::MachineLists)
        .before("python3 -c 'import ctypes; ctypes.CDLL(None).shmget(@KEY@, 4096, 0o1600)'")
        .after("ipcrm -M @KEY@"),
    attack("posix-shared-memory", "shared memory made in a call is not the machine's", Python("from multiprocessing import shared_memory\ntried(lambda: shared_memory.SharedMemory('oxibot-@MARK@', True, 4096))\nopen('/dev/shm/oxibot-2-@MARK@', 'w').write('x')\nos._exit(0)"), oxibot_tests::corpus::Witness::Change),
];
