//! Attacks on processes and on the life cycle of a call: outliving it, escaping its end, and laying hands on others.

use oxibot_tests::corpus;
use oxibot_tests::corpus::Program::{Bash, Perl, Python};
use oxibot_tests::corpus::Witness::{Harm, Leak, Survivor, Word};
use oxibot_tests::corpus::{Attack, Gap, attack};

corpus!(ATTACKS);

const ATTACKS: &[Attack] = &[
    // Outliving the call.
    attack("survive-background", "a background process ends with its call", Bash("sleep 61.01 & disown; sleep 61.01 >/dev/null 2>&1 &"), Survivor),
    attack("survive-nohup", "nohup does not outlive the call", Bash("nohup sleep 61.02 >/dev/null 2>&1 &"), Survivor),
    attack("survive-setsid", "a session of its own does not outlive the call", Bash("setsid -f sleep 61.03; setsid sleep 61.03 &"), Survivor),
    attack(
        "survive-double-fork",
        "a double fork with a new session does not outlive the call",
        Perl("if (!fork()) { use POSIX; setsid(); if (!fork()) { setsid(); open STDIN, '</dev/null'; open STDOUT, '>/dev/null'; open STDERR, '>/dev/null'; sleep 61; } exit 0; } wait;"),
        Survivor,
    ),
    attack(
        "survive-holding-pipes",
        "an orphan that keeps the output open holds nobody up",
        Bash("(setsid sleep 61.05 &) ; (setsid bash -c 'while :; do echo still; sleep 0.05; done' &)"),
        Survivor,
    ),
    attack("survive-stopped", "stopped processes end with the call", Bash("sleep 61.06 & kill -STOP $!; (setsid sleep 61.06 & kill -STOP $!)"), Survivor),
    attack(
        "survive-ignoring-signals",
        "ignoring every signal does not help",
        Python("for n in range(1, 65):\n    tried(signal.signal, n, signal.SIG_IGN)\nif os.fork() == 0:\n    os.setsid()\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n    time.sleep(61)"),
        Survivor,
    ),
    attack(
        "survive-subreaper",
        "adopting one's own orphans does not help",
        Python(
            r"
libc.prctl(36, 1, 0, 0, 0)
for depth in range(5):
    if os.fork(): break
    os.setsid(); libc.prctl(36, 1, 0, 0, 0)
    if os.fork() == 0:
        os.setsid(); time.sleep(61)
if depth: time.sleep(61)
",
        ),
        Survivor,
    ),
    attack(
        "survive-without-death-signal",
        "taking the parent-death signal back does not help",
        Python("libc.prctl(1, 0, 0, 0, 0)\nif os.fork() == 0:\n    libc.prctl(1, 0, 0, 0, 0); os.setsid(); time.sleep(61)"),
        Survivor,
    ),
    attack(
        "survive-traced",
        "a process stopped by its tracer ends with the call",
        Python(
            r"
child = os.fork()
if child == 0:
    print('traceme', libc.ptrace(0, 0, 0, 0), flush=True); os.kill(os.getpid(), signal.SIGSTOP); time.sleep(61)
tried(os.waitpid, child, os.WUNTRACED)
if os.fork() == 0: os.setsid(); time.sleep(61)
os._exit(0)
",
        ),
        Survivor,
    ),
    attack(
        "survive-blocked-in-vfork",
        "a parent blocked in vfork is no process that cannot be ended",
        Python(
            r"
# vfork with a new session, then exec something that stops: the parent waits uninterruptibly for exec only.
os.posix_spawn('/bin/bash', ['bash', '-c', 'kill -STOP $$'], {}, setsid=True)
class Child: pass
if os.fork() == 0:
    os.setsid()
    # CLONE_VM|CLONE_VFORK: the child never execs and never ends.
    result = libc.syscall(ctypes.c_long(56), ctypes.c_long(0x4000 | 17), None, None, None, None)
    time.sleep(61)
",
        ),
        Survivor,
    ),
    attack(
        "survive-fork-chain",
        "a process that forks and ends faster than anyone can look does not escape",
        Perl("if (!fork()) { use POSIX; setsid(); my $end = time() + 30; while (time() < $end) { my $p = fork(); exit 0 if $p; setsid() if !defined $p; select(undef, undef, undef, 0.03); } exit 0; } select(undef, undef, undef, 0.2);"),
        Survivor,
    ),
    attack(
        "survive-other-group-each",
        "a crowd, each in its own session, ends with the call",
        Bash("for i in $(seq 60); do setsid sleep 61.13 >/dev/null 2>&1 & done"),
        Survivor,
    ),
    attack(
        "survive-deadline",
        "the deadline ends what ignores TERM, stopped or not",
        Bash("trap '' TERM INT HUP QUIT; (trap '' TERM; setsid sleep 61.14 & ); while :; do sleep 61.14; done"),
        Survivor,
    )
    .seconds(2),
    attack("survive-stopping-itself", "a call that stops itself ends at its deadline", Bash("(setsid sleep 61.15 &); kill -STOP $$; sleep 61"), Survivor).seconds(2),
    attack(
        "survive-stopping-everybody",
        "a call that stops all it can ends at its deadline",
        Python("[os.fork() for _ in range(3)]\nos.setsid() if os.getpid() != os.getsid(0) else 0\nfor pid in os.listdir('/proc'):\n    if pid.isdigit() and int(pid) != os.getpid() and os.stat('/proc/' + pid).st_uid == os.getuid() and os.getsid(int(pid)) == os.getsid(0): tried(os.kill, int(pid), signal.SIGSTOP)\nos.kill(os.getpid(), signal.SIGSTOP)"),
        Survivor,
    )
    .seconds(2),
    attack("survive-exec", "a changed name and a deleted program do not hide a survivor", Bash("cp /bin/sleep ./x; setsid -f ./x 61.17; rm x; (exec -a '[kworker/0:0]' setsid -f sleep 61.17)"), Survivor),
    attack(
        "survive-in-memory",
        "a program that exists only in memory ends with the call",
        Python("fd = os.memfd_create('x')\nos.write(fd, open('/bin/sleep', 'rb').read())\nif os.fork() == 0:\n    os.setsid(); os.execve(fd, ['kthreadd', '61'], {})\ntime.sleep(0.1)"),
        Survivor,
    ),
    attack("survive-at-and-cron", "at, batch, cron and systemd start nothing later", Bash("echo 'touch @OUT@/later' | at now 2>/dev/null && echo GOT-THROUGH at; echo '* * * * * touch @OUT@/later' | crontab - 2>/dev/null && echo GOT-THROUGH cron; systemd-run --user touch @OUT@/later 2>/dev/null && echo GOT-THROUGH; for d in /etc/cron.d /var/spool/cron/crontabs /etc/profile.d /etc/init.d; do touch $d/oxibot-@MARK@ && echo GOT-THROUGH $d; done"), Word).root(),
    attack(
        "survive-timer",
        "a timer set in the call fires at nobody afterwards",
        Python("if os.fork() == 0:\n    os.setsid(); signal.signal(signal.SIGALRM, lambda *a: os.system('touch @OUT@/fired')); signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)\n    while True: signal.pause()"),
        Survivor,
    ),
    // Laying hands on others.
    attack("kill-victim", "no process outside can be signalled", Bash("kill -9 @PID@; kill -TERM @PID@; kill -STOP @PID@; pkill -9 -f '^victim'; killall -9 -r victim"), Harm).gap(Gap::Signals),
    attack(
        "kill-by-handle",
        "a process handle signals nobody outside",
        Python("fd = tried(os.pidfd_open, @PID@)\nif fd is not None:\n    tried(signal.pidfd_send_signal, fd, signal.SIGKILL)"),
        Harm,
    ),
    attack(
        "kill-by-thread",
        "thread-directed and queued signals reach nobody outside",
        Python("print(call(234, @PID@, @PID@, 9), call(200, @PID@, 9))\ninfo = struct.pack('iii', 9, 0, -1) + bytes(116)\nprint(call(129, @PID@, 9, info), call(297, @PID@, @PID@, 9, info))"),
        Harm,
    )
    .gap(Gap::Signals),
    attack(
        "kill-everybody",
        "kill -1 reaches nobody outside",
        Python("tried(os.kill, -1, signal.SIGKILL)\nfor group in (0, 1, @PID@, @TEST@):\n    tried(os.killpg, group, 0)"),
        Harm,
    )
    .no_control("without a PID namespace it would end every process of the user: kill-victim shows signals arrive"),
    attack(
        "kill-by-owner",
        "a descriptor's owner signal reaches nobody outside",
        Python(
            r"
a, b = socket.socketpair()
r, w = os.pipe()
for fd, poke in ((a.fileno(), lambda: b.send(b'x')), (r, lambda: os.write(w, b'x'))):
    tried(fcntl.fcntl, fd, fcntl.F_SETOWN, @PID@)
    tried(fcntl.fcntl, fd, 10, signal.SIGKILL)   # F_SETSIG
    tried(fcntl.fcntl, fd, 15, struct.pack('ii', 1, @PID@))   # F_SETOWN_EX
    tried(fcntl.fcntl, fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    tried(fcntl.ioctl, fd, 0x8902, struct.pack('i', @PID@))   # SIOCSPGRP
    poke()
time.sleep(0.1)
",
        ),
        Harm,
    )
    .gap(Gap::Signals),
    attack(
        "kill-by-lease",
        "a lease or directory notice owned by another signals nobody",
        Python(
            r"
fd = os.open('.', os.O_RDONLY)
tried(fcntl.fcntl, fd, 10, signal.SIGKILL)
tried(fcntl.fcntl, fd, 1026, 0x80000000 - 0x100000000 | 0x3f)   # F_NOTIFY, DN_MULTISHOT and everything
tried(fcntl.fcntl, fd, fcntl.F_SETOWN, @PID@)
open('noticed', 'w').close(); os.unlink('noticed'); time.sleep(0.1)
",
        ),
        Harm,
    )
    .gap(Gap::Signals),
    attack("stop-parent", "the processes above the call cannot be stopped or ended", Python("print(os.getppid())\nfor pid in {1, os.getppid()}:\n    status = open(f'/proc/{pid}/status').read() if os.path.exists(f'/proc/{pid}/status') else ''\n    if pid > 1 and pid != @TEST@:\n        if tried(os.kill, pid, 0) is None and 'oxibot' in status + (tried(lambda: open(f'/proc/{pid}/cmdline').read()) or ''): through(pid)\nif tried(os.kill, @TEST@, 0) is None and os.path.exists('/proc/@TEST@'): through('test')"), Word).gap(Gap::ProcessList).no_control("ending the test itself proves little; kill-victim is the same call"),
    attack("signal-probe", "which process numbers are in use outside cannot be learned by signalling", Perl("for my $p (@PID@, @TEST@) { print \"GOT-THROUGH $p\\n\" if kill(0, $p); }"), Word).gap(Gap::Signals),
    attack("slow-down-victim", "no process outside can be slowed down", Python("tried(os.setpriority, os.PRIO_PROCESS, @PID@, 19)\ntried(os.setpriority, os.PRIO_USER, os.getuid(), 19)"), Harm).no_control("PRIO_USER would slow the whole machine; schedule-victim has the control"),
    attack("schedule-victim", "no process outside can be given another priority, scheduler or processor", Python("tried(os.setpriority, os.PRIO_PROCESS, @PID@, 19)\ntried(os.sched_setscheduler, @PID@, os.SCHED_IDLE, os.sched_param(0))\ntried(os.sched_setaffinity, @PID@, {0})\nprint(call(251, 1, @PID@, 3 << 13))\nprint(call(314, @PID@, struct.pack('IIQiIQQQ', 48, 5, 0, 0, 0, 0, 0, 0), 0))"), Harm),
    attack("limit-victim", "no process outside can be limited", Python("import resource\ntried(resource.prlimit, @PID@, resource.RLIMIT_FSIZE, (1, 1))\ntried(resource.prlimit, @PID@, resource.RLIMIT_CPU, (1, 1))"), Harm),
    attack("offer-victim-to-oom", "no process outside can be offered to the kernel's memory killer", Bash("echo 1000 > /proc/@PID@/oom_score_adj; echo 0 > /proc/@PID@/coredump_filter; for p in /proc/[0-9]*; do [ \"${p##*/}\" = @PID@ ] && echo 999 > $p/oom_score_adj; done"), Harm),
    attack("trace-victim", "no process outside can be traced", Python("print(libc.ptrace(16, @PID@, 0, 0), ctypes.get_errno(), libc.ptrace(0x4206, @PID@, 0, 0), ctypes.get_errno())\ntime.sleep(0.1)\nif 'TracerPid:\\t0' not in (tried(lambda: open('/proc/@PID@/status').read()) or 'TracerPid:\\t0'): through()\nos.kill(os.getpid(), 9) if 0 else None"), Word),
    attack(
        "read-victim-memory",
        "no memory outside can be read by system call",
        Python(
            r"
found = tried(lambda: [l for l in open('/proc/@PID@/maps') if '[stack]' in l])
low, high = (int(n, 16) for n in found[0].split()[0].split('-')) if found else (0x7ffc00000000, 0x7ffc00021000)
size = high - low
buffer = ctypes.create_string_buffer(size)
vector = lambda at: struct.pack('PN', at, size)
print(call(310, @PID@, vector(ctypes.addressof(buffer)), 1, vector(low), 1, 0))
os.write(1, buffer.raw.replace(b'\0', b''))
",
        ),
        Leak,
    ),
    attack("write-victim-memory", "no memory outside can be written", Python("found = tried(lambda: [l for l in open('/proc/@PID@/maps') if '[stack]' in l])\nif found:\n    low, high = (int(n, 16) for n in found[0].split()[0].split('-'))\n    text = ctypes.create_string_buffer(bytes(high - low))\n    vector = lambda at: struct.pack('PN', at, high - low)\n    if call(311, @PID@, vector(ctypes.addressof(text)), 1, vector(low), 1, 0)[0] > 0: through()\n    fd = tried(os.open, '/proc/@PID@/mem', os.O_RDWR)\n    if fd is not None: through('mem')"), Word),
    attack("take-victim-descriptor", "no descriptor of a process outside can be taken", Python("fd = call(434, @PID@, 0)[0]\ngot = call(438, fd, 0, 0)\nprint(fd, got)\nif got[0] >= 0: os.lseek(got[0], 0, 0); os.write(1, os.read(got[0], 200))"), Leak),
    attack("enter-victim-namespaces", "no namespace of a process outside can be entered", Python("for kind in ('mnt', 'net', 'pid', 'user', 'ipc', 'uts'):\n    for pid in (@PID@, 1, os.getppid()):\n        fd = tried(os.open, f'/proc/{pid}/ns/{kind}', os.O_RDONLY)\n        if fd is not None and call(308, fd, 0)[0] == 0: through(kind, pid)\nfd = call(434, @PID@, 0)[0]\nif call(308, fd, 0x20000)[0] == 0: through('by handle')"), Word).root(),
    attack("compare-kernel-objects", "kernel objects of processes outside cannot be compared", Python("r = call(312, os.getpid(), @PID@, 2, 0, 0)\nprint(r)\nif r[0] >= 0: through()"), Word),
    attack("advise-victim-memory", "memory outside cannot be paged out or reaped", Python("fd = call(434, @PID@, 0)[0]\nprint(fd, call(448, fd, 0), call(440, fd, struct.pack('PN', 0x400000, 4096), 1, 21, 0))\nif fd >= 0 and call(440, fd, struct.pack('PN', 0x400000, 4096), 1, 21, 0)[1] != 1: through()"), Word).gap(Gap::ProcessList).root(),
    attack("list-processes", "no process outside shows", Bash("ps axww -o pid,args 2>/dev/null; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"), Leak).gap(Gap::ProcessList),
    attack("inspect-victim", "nothing of a process outside can be inspected", Bash("for f in stat status statm io maps smaps auxv cgroup limits mounts mountinfo sched stack wchan syscall personality pagemap root/ cwd/ fd/ map_files/ task/; do cat /proc/@PID@/$f >/dev/null 2>&1 || ls /proc/@PID@/$f/. >/dev/null 2>&1 && echo GOT-THROUGH $f; done"), Word).gap(Gap::ProcessList),
    attack("inspect-victim-secrets", "what could hold secrets of a process outside stays shut, its list entry or not", Bash("for f in environ maps smaps auxv io stack syscall personality pagemap; do head -c 1 /proc/@PID@/$f 2>/dev/null | grep -qa . && echo GOT-THROUGH $f; done; for f in root cwd exe ns/mnt fd/0 fd/1; do readlink /proc/@PID@/$f && echo GOT-THROUGH $f; done; for f in root cwd map_files; do ls -l /proc/@PID@/$f/ 2>/dev/null | grep -q '[a-z]-' && echo GOT-THROUGH $f; done"), Word),
    attack("inspect-init", "the init of the call gives nothing away", Bash("for p in 1 $PPID; do grep -qs oxibot /proc/$p/cmdline || continue; for f in environ maps auxv; do head -c 1 /proc/$p/$f | grep -qa . && echo GOT-THROUGH $p $f; done; for f in root cwd exe fd/0 fd/1 fd/3 fd/4; do readlink /proc/$p/$f && echo GOT-THROUGH $p $f; done; (exec 3<>/proc/$p/mem) && echo GOT-THROUGH mem; done"), Word).no_control("there is no init without the wall; inspect-victim-secrets has the control"),
    attack("signal-init", "the init of the call cannot be ended, stopped or confused", Bash("for s in KILL STOP TERM INT HUP USR1 USR2 CHLD ABRT SEGV; do kill -$s 1; kill -$s $PPID; kill -$s -$PPID; done 2>/dev/null; (setsid sleep 61.40 &); echo through init and on"), Survivor).no_control("there is no init without the wall; survive-setsid has the control"),
    attack("namespace-last-pid", "the next process number cannot be chosen", Bash("echo 4000 > /proc/sys/kernel/ns_last_pid && echo GOT-THROUGH"), Word).root().no_control("it would disturb the machine"),
    attack("set-tid", "the next process number cannot be asked for", Python("tid = ctypes.c_int(31999)\narguments = struct.pack('QQQQQQQQQQQ', 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(tid), 1, 0)\nr = call(435, arguments, 88)\nif r[0] == 0: os._exit(0)\nprint(r)\nif r[0] == 31999: through()"), Word).root(),
];
