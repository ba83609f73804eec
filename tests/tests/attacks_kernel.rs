//! Attacks on the kernel's surface and on privilege: namespaces, mounts, capabilities, other entries, what the filter must
//! refuse whatever the kernel would have said.

use oxibot_tests::corpus;
use oxibot_tests::corpus::Program::{Bash, Python};
use oxibot_tests::corpus::Witness::{Harm, Leak, Word};
use oxibot_tests::corpus::{Attack, attack};

corpus!(ATTACKS);

/// Asks for system calls by number and says which were answered by anything but the wall.
macro_rules! refused {
    ($($calls:literal),* $(,)?) => {
        Python(concat!(
            "for number, *arguments in (", $($calls, ",",)* "):\n",
            "    result, error = call(number, *arguments)\n",
            "    if error not in (1, 13): through('system call', number, 'answered', result, error)\n",
        ))
    };
}

const ATTACKS: &[Attack] = &[
    // Namespaces and mounts.
    attack(
        "userns-mount",
        "no user namespace gives mounts",
        Bash("unshare -Urm bash -c 'mount -t tmpfs x /mnt && echo GOT-THROUGH; mount --bind @OUT@ /mnt && cat /mnt/secret'"),
        Word,
    ),
    attack("userns-root", "no user namespace gives capabilities", Bash("unshare -U -r grep -q 'CapEff:.*[1-9a-f]' /proc/self/status && echo GOT-THROUGH"), Word),
    attack(
        "userns-each-way",
        "no namespace can be made by unshare, clone or clone3",
        Python(
            r"
for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
    child = os.fork()
    if child == 0:
        if call(272, flag)[0] == 0 or call(272, flag | 0x10000000)[0] == 0: through('unshare', hex(flag))
        os._exit(0)
    os.waitpid(child, 0)
    for number, arguments in ((56, (flag | 0x10000000 | 17, 0, 0, 0, 0)), (435, (struct.pack('QQQQQQQQ', flag | 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64))):
        result, error = call(number, *arguments)
        if result == 0: os._exit(0)
        if result > 0: through('clone', number, hex(flag)); os.waitpid(result, 0)
",
        ),
        Word,
    ),
    attack("userns-high-bits", "flags in the upper half of a register are not overlooked", Python("child = os.fork()\nif child == 0:\n    if call(272, 0x10000000 | (0xdead << 32))[0] == 0: through()\n    os._exit(0)\nos.waitpid(child, 0)\nr = call(56, (1 << 32) | 0x10000000 | 17, 0, 0, 0, 0)\nif r[0] == 0: os._exit(0)\nif r[0] > 0: through('clone')"), Word),
    attack(
        "mount-old-interface",
        "nothing can be mounted, moved or unmounted",
        Python("open('a', 'w').close()\nos.makedirs('d')\nfor arguments in ((b'tmpfs', b'd', b'tmpfs', 0, None), (b'@OUT@', b'd', None, 4096, None), (b'proc', b'd', b'proc', 0, None), (b'none', b'/', None, 0x44000, None), (b'overlay', b'd', b'overlay', 0, b'lowerdir=/'), (None, b'/', None, 0x1020, None)):\n    if call(165, *arguments)[0] == 0: through(arguments); call(166, arguments[1], 2) if arguments[1] == b'd' else 0\nif call(166, b'@WS@', 2)[0] == 0: through('umount')"),
        Word,
    )
    .root()
    .no_control("it would change the machine's root mount; mount-new-interface has the control"),
    attack(
        "mount-new-interface",
        "the new mount interface is as closed as the old",
        Python(
            r"
os.makedirs('d', exist_ok=True)
context, error = call(430, b'tmpfs', 0)
print(context, error)
if context >= 0:
    through('fsopen'); print(call(431, context, 6, None, None, 0)); mount = call(432, context, 0, 0)[0]
tree, error = call(428, -100, b'@OUT@', 1)
print(tree, error)
if tree >= 0: through('open_tree'); os.write(1, os.read(os.open('secret', os.O_RDONLY, dir_fd=tree), 99))
for number, arguments in ((433, (-100, b'/', 0)), (442, (-100, b'@WS@', 0x8000, struct.pack('QQQQ', 1, 0, 0, 0), 32)), (467, (-100, b'@OUT@', 1, None, 0))):
    result = call(number, *arguments)
    print(number, result)
    if number != 442 and result[0] >= 0: through(number)
",
        ),
        Word,
    )
    .root(),
    attack(
        "mount-list-by-number",
        "mounts cannot be listed around the view",
        refused!("(457, struct.pack('IIQQ', 24, 0, 1, 0), ctypes.create_string_buffer(512), 512, 0)", "(458, struct.pack('IIQQ', 24, 0, 0xffffffffffffffff, 0), ctypes.create_string_buffer(512), 64, 0)"),
        Word,
    ),
    attack(
        "pivot-root",
        "the root cannot be exchanged",
        refused!("(155, b'.', b'.')"),
        Word,
    )
    .root(),
    attack("fuse", "no file system of one's own can be mounted", Bash("fusermount -V >/dev/null 2>&1; (exec 3<>/dev/fuse) 2>/dev/null && echo GOT-THROUGH; fusermount3 /tmp 2>/dev/null && echo GOT-THROUGH"), Word).root(),
    // Privilege.
    attack("set-user-id-program", "set-user-ID programs give nothing", Python("found = [p for p in ('/usr/bin/su', '/usr/bin/passwd', '/usr/bin/mount', '/usr/bin/newgrp', '/usr/bin/chsh', '/usr/bin/sudo', '/usr/bin/pkexec') if os.path.exists(p) and os.stat(p).st_mode & 0o4000]\nif not found: print('MISSING: no set-user-ID program here')\nfor path in found[:2]:\n    child = os.fork()\n    if child == 0:\n        null = os.open('/dev/null', os.O_RDWR); os.dup2(null, 0); os.execv('/bin/bash', ['bash', '-c', f'exec {path} --version'])\n    os.waitpid(child, 0)\nif 'NoNewPrivs:\\t0' in open('/proc/self/status').read(): through('set-user-ID programs work')"), Word),
    attack("capabilities", "no set holds a capability and none can be had", Python("status = open('/proc/self/status').read()\nfor name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb'):\n    value = [l.split()[1] for l in status.splitlines() if l.startswith('Cap' + name)][0]\n    if int(value, 16) and (name != 'Bnd' or os.getuid() == 0): through(name, value)\nprint(call(126, struct.pack('Ii', 0x20080522, 0), struct.pack('IIIIII', *[0xffffffff] * 6)))"), Word).root(),
    attack("securebits", "the capability switches are locked", Python("if os.getuid() == 0 and call(157, 28, 0, 0, 0, 0)[0] == 0 and call(157, 27)[0] == 0: through()\nif os.getuid() == 0 and call(157, 8, 1)[0] == 0 and call(157, 7)[0] == 1: through('keep capabilities')"), Word).root(),
    attack("become-another", "no other user or group can be become", Python("for who in (0, 1, 1000, 65534, 48213, 12345):\n    if who in (os.getuid(), os.geteuid()): continue\n    for change in (os.setuid, os.setgid, os.seteuid, os.setegid):\n        if tried(change, who) is None and who in (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) and who != os.getgid(): through(change.__name__, who)\n    child = os.fork()\n    if child == 0:\n        try: os.setresuid(who, who, who); through('setresuid', who)\n        except OSError: pass\n        try: os.setgroups([who]); through('setgroups', who)\n        except OSError: pass\n        os._exit(0)\n    os.waitpid(child, 0)"), Word).root(),
    attack("supplementary-groups", "no group of whoever called us is kept", Bash("id -G | tr ' ' '\\n' | grep -qvE \"^($(id -g)|65534)$\" && echo GOT-THROUGH $(id -G)"), Word).root().no_control("the test drops them itself before it starts anything"),
    attack("dumpable-core", "a crash leaves no core anywhere", Python("import resource\nprint(tried(resource.setrlimit, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)))\nif resource.getrlimit(resource.RLIMIT_CORE)[1] > 1: through('cores allowed')\nchild = os.fork()\nif child == 0: os.abort()\nprint(os.waitpid(child, 0))"), Word).after("ls | grep -i '^core' | sed 's/^/GOT-THROUGH /'"),
    attack("raise-limits", "no limit can be raised", Python("import resource\nfor name in ('NPROC', 'NOFILE', 'FSIZE', 'AS', 'CPU', 'MEMLOCK'):\n    number = getattr(resource, 'RLIMIT_' + name)\n    soft, hard = resource.getrlimit(number)\n    try: resource.setrlimit(number, (resource.RLIM_INFINITY if number != resource.RLIMIT_NOFILE else hard * 2,) * 2)\n    except (OSError, ValueError): continue\n    if hard != resource.RLIM_INFINITY and resource.getrlimit(number)[1] != hard: through(name)"), Word).root().no_control("it takes CAP_SYS_RESOURCE, which root lacks in many containers"),
    attack("real-time", "no real-time priority can be had", Python("for policy in (1, 2, 6):\n    if call(144, 0, policy, struct.pack('i', 1))[0] == 0: through(policy)\nif tried(os.setpriority, os.PRIO_PROCESS, 0, -5) is None and os.getpriority(os.PRIO_PROCESS, 0) == -5: through('nice')"), Word).root(),
    attack("lower-own-oom-score", "no process can protect itself from the memory killer", Bash("echo -1000 > /proc/self/oom_score_adj && echo GOT-THROUGH"), Word).root().no_control("it takes CAP_SYS_RESOURCE, which root lacks in many containers"),
    // Other entries.
    attack(
        "entry-32-bit",
        "the 32-bit entry is closed",
        Python(
            r"
import mmap
code = mmap.mmap(-1, 4096, prot=7)
# mov eax, 20 (getpid of the 32-bit table); int 0x80; ret
code.write(bytes.fromhex('b814000000cd80c3'))
child = os.fork()
if child == 0:
    got = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    through(got) if got == os.getpid() else print('MISSING: no 32-bit entry in this kernel')
    os._exit(0)
status = os.waitpid(child, 0)[1]
if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV: print('MISSING: no 32-bit entry in this kernel')
",
        ),
        Word,
    ),
    attack(
        "entry-32-bit-dangerous",
        "no 32-bit program runs and no namespace comes of one",
        Python(
            r"
import mmap
code = mmap.mmap(-1, 4096, prot=7)
# mov ebx, CLONE_NEWUSER; mov eax, 310 (unshare of the 32-bit table); int 0x80; ret
code.write(bytes.fromhex('53bb00000010b836010000cd805bc3'))
child = os.fork()
if child == 0:
    got = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    through('user namespace') if got == 0 else print('MISSING: refused by the kernel', got)
    os._exit(0)
status = os.waitpid(child, 0)[1]
if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV: print('MISSING: no 32-bit entry in this kernel')
# An ELF program for the 32-bit table that would say so.
open('small', 'wb').write(b'\x7fELF\1\1\1' + bytes(9) + struct.pack('<HHIIIIIHHHHHH', 2, 3, 1, 0x10054, 52, 0, 0, 52, 32, 1, 0, 0, 0) + struct.pack('<IIIIIIII', 1, 0, 0x10000, 0x10000, 118, 118, 5, 4096) + bytes.fromhex('b804000000bb01000000b96d000100ba09000000cd80') + b'')
",
        ),
        Word,
    ),
    attack("entry-x32", "the x32 numbers are closed", Python("got = call(0x40000000 + 39)\nprint(got)\nif got[0] == os.getpid(): through()\nelif got[1] == 38: print('MISSING: no x32 in this kernel')"), Word).no_control("few kernels have x32; the filter's own tests ask it for every such number"),
    attack("unknown-numbers", "system calls newer than the wall answer as if they were not there", Python("bad = [n for n in list(range(470, 520)) + [600, 1000, 4096, 0x3fffffff] if call(n, 0, 0, 0, 0, 0, 0)[1] != 38]\nif bad: through(bad)"), Word).no_control("the machine's kernel does not have them either"),
    // What no call needs.
    attack("io-uring", "no ring does what the filter cannot see", refused!("(425, 8, ctypes.create_string_buffer(120))", "(426, 0, 0, 0, 0, None, 0)", "(427, 0, 0, None, 0)"), Word),
    attack("keyrings", "keyrings are closed", refused!("(248, b'user', b'oxibot', b'x', 1, -3)", "(249, b'user', b'oxibot', None, -3)", "(250, 0, -3, 1)", "(250, 18)", "(250, 1, b'oxibot')"), Word),
    attack("bpf", "no program can be loaded into the kernel", refused!("(321, 5, ctypes.create_string_buffer(128), 128)", "(321, 0, ctypes.create_string_buffer(128), 128)"), Word).root(),
    attack("perf", "nothing can be measured into", Python("print(call(298, struct.pack('IIQ', 1, 120, 0) + bytes(104), 0, -1, -1, 0))\nr = call(298, struct.pack('IIQ', 1, 120, 1) + bytes(24) + struct.pack('Q', 0x60) + bytes(72), 0, -1, -1, 0)\nif r[1] not in (1, 13): through(r)"), Word),
    attack("userfaultfd", "no fault can be held up", refused!("(323, 1)", "(323, 0)", "(323, 0x80801)"), Word),
    attack("fanotify", "no file system can be watched whole", refused!("(300, 0, 0)", "(300, 0x200, 0)", "(301, -1, 1, 1, -100, None)"), Word),
    attack("modules-and-kernels", "no kernel code or kernel can be loaded", refused!("(175, None, 0, None)", "(313, -1, b'', 0)", "(176, b'x', 0)", "(246, 0, 0, None, 0)", "(320, -1, -1, 0, None, 0)"), Word).root(),
    attack("machine-switches", "the machine cannot be stopped, renamed or given swap", refused!("(169, 0, 0, 0, None)", "(167, b'/nonexistent', 0)", "(168, b'/nonexistent')", "(163, b'/nonexistent')", "(170, b'x', -1)", "(171, b'x', -1)", "(179, 0x800001 << 8, None, 0, None)"), Word).root(),
    attack("clock", "the clock cannot be set", refused!("(164, struct.pack('qq', 1, 9999999), None)", "(227, 77, struct.pack('qq', 0, 0))", "(305, 77, ctypes.create_string_buffer(208))", "(159, struct.pack('IIqq', 0x80000000, 0, 0, 0) + bytes(180))"), Word).root(),
    attack("kernel-log", "the kernel's log is closed", refused!("(103, 3, ctypes.create_string_buffer(64), 64)", "(103, 10, None, 0)"), Word).root(),
    attack("ports", "no input or output port can be had", refused!("(172, 3)", "(173, 0x378, 8, 1)"), Word).root(),
    attack("segments", "no 16-bit or other descriptor table entry can be made", refused!("(154, 0, ctypes.create_string_buffer(64), 64)", "(154, 17, struct.pack('IIII', 0, 0, 0, 0), 16)"), Word),
    attack("personality", "no weaker memory layout can be had", Python("old = call(135, 0xffffffff)[0]\nfor bits in (0x0400000, 0x0100000, 0x8, 0x0200000):\n    if call(135, bits)[0] >= 0: through(hex(bits)); call(135, old)"), Word),
    attack("filter-listener", "no listener can answer system calls for others", Python("program = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))\ncall(157, 38, 1, 0, 0, 0)\nr = call(317, 1, 8, struct.pack('HxxxxxxN', 1, ctypes.addressof(program)))\nprint(r)\nif r[0] >= 0: through()"), Word),
    attack("filter-undone", "a filter of one's own undoes nothing", Python("program = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))\ncall(157, 38, 1, 0, 0, 0)\nprint(call(317, 1, 0, struct.pack('HxxxxxxN', 1, ctypes.addressof(program))), call(157, 22, 0, 0, 0, 0), call(157, 38, 0, 0, 0, 0))\nif tried(lambda: os.write(1, open('@OUT@/secret', 'rb').read())) : through()\nif call(425, 8, ctypes.create_string_buffer(120))[1] != 1: through('ring')"), Leak),
    attack("landlock-undone", "rules of one's own undo nothing", Python("fd, error = call(444, struct.pack('QQQ', 0x1fff, 0, 0), 8, 0)\nroot = os.open('/', os.O_PATH)\nprint(fd, error, call(445, fd, 1, struct.pack('<Qi', 0x1fff, root), 0), call(446, fd, 0))\nos.write(1, tried(lambda: open('@OUT@/secret', 'rb').read()) or b'')\nos.write(1, tried(lambda: open('@FAR@/secret', 'rb').read()) or b'')"), Leak),
    attack("landlock-layers", "sixteen layers of rules end in a refusal, not in none", Python("call(157, 38, 1, 0, 0, 0)\nfor _ in range(20):\n    fd, error = call(444, struct.pack('QQQ', 1 << 13, 0, 0), 8, 0)\n    print(fd, error, call(446, fd, 0))\nos.write(1, tried(lambda: open('@OUT@/secret', 'rb').read()) or b'')"), Leak),
    attack("secret-memory", "no memory the kernel cannot look into", Python("r = call(447, 0)\nif r[0] >= 0: through()\nelif r[1] == 38: print('MISSING: no secret memory in this kernel')"), Word),
    attack("move-memory", "pages of others cannot be moved", Python("print(call(256, @PID@, 64, b'\\1' + bytes(7), b'\\1' + bytes(7)), call(279, @PID@, 0, None, None, None, 0))\nif call(279, @PID@, 0, None, None, None, 0)[1] not in (1, 3, 13): through()"), Word),
    attack("set-memory-layout", "the map of a process cannot be rewritten", Python("r = call(157, 35, 4, 0x10000, 0, 0)\nif r[1] not in (1,): through(r)"), Word).root().no_control("it takes CAP_SYS_RESOURCE, which root lacks in many containers"),
    attack("ioprio-victim", "no process outside loses its disk priority", Python("r = call(251, 1, @PID@, 3 << 13)\nif r[0] == 0 and call(252, 1, @PID@)[0] == 3 << 13: through()"), Word),
    attack("quota-and-accounting", "quotas are closed", refused!("(443, -1, 0, 0, None)", "(212, 0, None, 0)"), Word).root(),
    attack("type-into-terminal", "nothing can be typed into a terminal", Python("import pty\nm, s = tried(os.openpty) or (0, 0)\nfor fd in {0, 1, 2, m, s, tried(os.open, '/dev/tty', os.O_RDWR) or 0, tried(os.open, '/dev/ptmx', os.O_RDWR) or 0}:\n    for request in (0x5412, 0x5412 | 0xdead00000000, 0x541c, 0x5423):\n        ctypes.set_errno(0)\n        r = libc.ioctl(fd, ctypes.c_ulong(request), ctypes.create_string_buffer(b'\\x02x'))\n        if r == 0 or (ctypes.get_errno() not in (1, 13)): through(fd, hex(request), ctypes.get_errno())"), Word),
    attack("loader-tricks", "running a program through the loader, memory or a script gives nothing more", Bash("cp /bin/cat c; chmod -x c; /lib64/ld-linux-x86-64.so.2 ./c @OUT@/secret; python3 -c 'import os; fd = os.memfd_create(\"x\"); os.write(fd, open(\"/bin/cat\", \"rb\").read()); os.execve(fd, [\"cat\", \"@OUT@/secret\"], {})'; LD_PRELOAD=./x.so cat @FAR@/secret; /proc/self/root/bin/cat @OUT@/secret; busybox cat @OUT@/secret"), Leak),
    attack("write-through-program", "no running program outside can be overwritten", Bash("for p in 1 $PPID @PID@; do cp /bin/true /proc/$p/exe 2>/dev/null; (exec 3>>/proc/$p/exe) 2>/dev/null && echo GOT-THROUGH; done; for f in @OUT@/program; do (exec 3>>$f) 2>/dev/null && echo GOT-THROUGH; done; echo x >> /proc/@PID@/comm; echo x >> /proc/@PID@/timerslack_ns"), Word),
    attack("trace-child-out", "a tracer of one's own children changes nothing", Python("child = os.fork()\nif child == 0:\n    libc.ptrace(0, 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP); os._exit(0)\nos.waitpid(child, os.WUNTRACED)\nif libc.ptrace(24, child, 0, 0) == 0: through('system calls of a child can be changed after the filter'); \nos.kill(child, 9)"), Word),
    attack("suspend-filter", "the filter cannot be suspended", Python("child = os.fork()\nif child == 0:\n    time.sleep(5); os._exit(0)\nr = libc.ptrace(0x4206, child, 0, ctypes.c_long(1 << 21))\nprint(r, ctypes.get_errno())\nif r == 0: through()\nos.kill(child, 9)"), Word).root().no_control("it needs a kernel built for checkpoints; trace-child-out shows tracing"),
    attack("hang-victim-terminal", "no terminal can be hung up", refused!("(153,)"), Word).root().no_control("vhangup would hang up the terminal of whoever runs the tests"),
    attack("crash-victim", "no process outside is ended by resource tricks", Python("call(302, @PID@, 0, struct.pack('QQ', 1, 1), None)\ncall(302, @PID@, 2, struct.pack('QQ', 1, 1), None)"), Harm),
];
