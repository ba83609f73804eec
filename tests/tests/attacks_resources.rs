//! Attacks on resources: more processes, memory, disk, descriptors, time than a call is given. Limits are set low, so that
//! the same programs are harmless where nothing stops them.

use oxibot_tests::corpus;
use oxibot_tests::corpus::Program::{Bash, Perl, Python};
use oxibot_tests::corpus::Witness::{Excess, Word};
use oxibot_tests::corpus::{Attack, Gap, Taken, attack};

corpus!(
    ATTACKS,
    r#"{"limits": {"processes": 100, "memoryMb": 512, "tmpMb": 16, "fileSizeMb": 16, "openFiles": 128, "cpuSeconds": 1}}"#
);

/// Processes allowed and, generously, what runs above a call.
fn crowd(taken: &Taken) -> bool {
    taken.tasks > 100 + 60
}

/// Memory allowed and, generously, what runs above a call.
fn fat(taken: &Taken) -> bool {
    taken.resident_mb > 512 + 150
}

fn disk(taken: &Taken) -> bool {
    taken.workspace_mb > 20
}

const ATTACKS: &[Attack] = &[
    attack("fork-bomb", "processes are bounded", Bash("mkdir n; f() { : > n/$BASHPID; [ $1 -gt 0 ] && { f $(($1 - 1)) & f $(($1 - 1)) & }; sleep 30; }; f 8 2>/dev/null & for i in 1 2 3 4 5 6 7 8; do sleep 0.6; c=$(ls n | wc -l); [ \"$c\" = \"$l\" ] && break; l=$c; done"), Excess).bound(crowd),
    attack("fork-flat", "one parent of many is bounded", Perl("for (1..400) { my $p = fork(); last unless defined $p; if (!$p) { sleep 30; exit 0 } } select(undef, undef, undef, 0.8);"), Excess).bound(crowd),
    attack("fork-zombies", "children nobody waits for count", Perl("for (1..400) { my $p = fork(); last unless defined $p; if (!$p) { exit 0 } } select(undef, undef, undef, 0.8);"), Excess).bound(crowd),
    attack("fork-orphans", "orphans in sessions of their own count", Perl("use POSIX; for (1..400) { my $p = fork(); last unless defined $p; if (!$p) { setsid(); if (!fork()) { setsid(); sleep 30; } exit 0 } } select(undef, undef, undef, 0.8);"), Excess).bound(crowd),
    attack("thread-bomb", "threads count as processes", Python("import threading\nthreading.stack_size(65536)\ntry:\n    for _ in range(400): threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\nexcept (RuntimeError, MemoryError) as error: print(error)\ntime.sleep(0.8)\nos._exit(0)"), Excess).bound(crowd),
    attack("clone-without-exit-signal", "processes without an exit signal count", Python("for _ in range(400):\n    r = call(56, 0, 0, 0, 0, 0)\n    if r[0] == 0: time.sleep(30); os._exit(0)\n    if r[0] < 0: break\ntime.sleep(0.8)"), Excess).bound(crowd),
    attack("memory", "memory of a process is bounded", Python("tried(lambda: len([bytearray(b'x') * (1 << 20) * 800, time.sleep(0.8)]))"), Excess).bound(fat),
    attack("memory-crowd", "memory of all processes together is bounded", Python("os.mkdir('n')\nfor n in range(8):\n    if os.fork() == 0:\n        tried(lambda: len([bytearray(b'x') * (1 << 20) * 150, open(f'n/{n}', 'w'), time.sleep(30)])); os._exit(0)\nend = time.time() + 6\nwhile time.time() < end and len(os.listdir('n')) < 8: time.sleep(0.05)\ntime.sleep(0.5)"), Excess).bound(fat).gap(Gap::NoCgroup),
    attack("memory-shared", "shared memory counts", Python("import mmap\nmaps = []\nfor _ in range(12):\n    m = tried(mmap.mmap, -1, 64 << 20)\n    if m is None: break\n    if tried(m.write, b'x' * (64 << 20)) is None: break\n    maps.append(m)\nprint(len(maps))\nif len(maps) == 12: through()"), Word),
    attack("memory-files", "files that exist only in memory are bounded", Python("total = 0\nfor n in range(12):\n    fd = tried(os.memfd_create, f'm{n}')\n    if fd is None: break\n    for _ in range(64):\n        if tried(os.write, fd, b'x' * (1 << 20)) != 1 << 20: break\n        total += 1\nprint(total)\nif total > 600: through(total)"), Word).gap(Gap::NoCgroup),
    attack("memory-locked", "memory that cannot be paged out is bounded", Python("import mmap\nm = mmap.mmap(-1, 80 << 20)\naddress = ctypes.addressof(ctypes.c_char.from_buffer(m))\nif libc.mlock(ctypes.c_void_p(address), 80 << 20) == 0: through()"), Word).root(),
    attack("tmp-flood", "the private /tmp is bounded", Bash("d=$TMPDIR/flood-@MARK@; mkdir -p $d; for i in 1 2 3 4 5 6; do head -c 12000000 /dev/zero > $d/$i || break; done; [ $(du -sm $d | cut -f1) -gt 40 ] && echo GOT-THROUGH; rm -rf $d"), Word).gap(Gap::NoPrivateTmp),
    attack("tmp-inodes", "the number of files in /tmp is bounded", Python("d = os.environ.get('TMPDIR', '/tmp') + '/many-@MARK@'\nos.mkdir(d)\ndef flood():\n    for n in range(20000): os.close(os.open(f'{d}/{n}', os.O_CREAT | os.O_WRONLY))\n    through()\ntried(flood)\nimport shutil; shutil.rmtree(d)"), Word).gap(Gap::NoPrivateTmp),
    attack("shm-flood", "/dev/shm is bounded", Bash("for i in 1 2 3 4 5 6 7 8 9 10; do head -c 15000000 /dev/zero > /dev/shm/flood-@MARK@-$i || break; done; [ $(du -cm /dev/shm/flood-@MARK@-* 2>/dev/null | tail -1 | cut -f1) -gt 100 ] && echo GOT-THROUGH; rm -f /dev/shm/flood-@MARK@-*"), Word),
    attack("file-size", "one file is bounded", Bash("head -c 64000000 /dev/zero > big"), Excess).bound(disk),
    attack("file-sparse", "a file of a terabyte cannot be made, holes or not", Bash("truncate -s 1T huge; dd if=/dev/zero of=huge2 bs=1 count=1 seek=1T 2>/dev/null; fallocate -l 100M huge3"), Word).after("find . -size +20M | sed 's/^/GOT-THROUGH /'"),
    attack("file-by-map", "writing past the end through a map is bounded", Python("import mmap\nfd = os.open('mapped', os.O_CREAT | os.O_RDWR)\ntried(os.ftruncate, fd, 100 << 20)\nif os.fstat(fd).st_size > 20 << 20: through()"), Word),
    attack("file-by-splice", "copying inside the kernel is bounded", Python("fd = os.open('copied', os.O_CREAT | os.O_RDWR)\nsource = os.open('source', os.O_CREAT | os.O_RDWR)\nos.write(source, b'x' * (8 << 20))\nfor _ in range(6): tried(os.copy_file_range, source, fd, 8 << 20, 0, os.lseek(fd, 0, 2)); tried(os.sendfile, fd, source, 0, 8 << 20)\nif os.fstat(fd).st_size > 20 << 20: through()"), Word),
    attack("descriptors", "open files are bounded", Python("fds = []\ndef flood():\n    for n in range(600): fds.append(os.open('/dev/null', os.O_RDONLY))\n    through()\ntried(flood)\nprint(len(fds))"), Word),
    attack("descriptors-in-flight", "descriptors cannot be parked in sockets", Python("parked = 0\npairs = []\ntry:\n    for _ in range(30):\n        a, b = socket.socketpair()\n        for _ in range(10):\n            fds = [os.open('/dev/null', 0) for _ in range(10)]\n            a.setblocking(False)\n            a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('10i', *fds))])\n            parked += 10\n            for fd in fds: os.close(fd)\n        pairs.append((a, b))\nexcept OSError as error: print(error)\nprint(parked)\nif parked >= 2000: through(parked)"), Word),
    attack("pipes", "kernel memory in pipes is bounded", Python("total = 0\nkeep = []\ndef flood():\n    global total\n    for _ in range(150):\n        r, w = os.pipe(); keep.append((r, w)); os.set_blocking(w, False)\n        try: fcntl.fcntl(w, 1031, 1 << 20)\n        except OSError: pass\n        try:\n            while True: total += os.write(w, b'x' * 65536)\n        except BlockingIOError: pass\ntried(flood)\nprint(total)\nif total > 80 << 20 or len(keep) == 150: through(total)"), Word),
    attack("queued-signals", "queued signals are bounded", Python("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN + 1])\nlibc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]\nn = 0\nwhile n < 12000 and libc.sigqueue(os.getpid(), signal.SIGRTMIN + 1, None) == 0: n += 1\nprint(n)\nif n == 12000: through()"), Word),
    attack("timers", "kernel timers are bounded", Python("n = 0\ntimer = ctypes.c_int()\nevent = bytes(8) + struct.pack('ii', 0, 1) + bytes(48)\nwhile n < 12000 and call(222, 1, event, ctypes.byref(timer))[0] == 0: n += 1\nprint(n)\nif n == 12000: through()"), Word),
    attack("processor-time", "processor time is bounded, SIGXCPU ignored or not", Python("signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile time.process_time() < 3.6: pass\nthrough()"), Word).seconds(60),
    attack("deep-directories", "a directory deeper than any path hurts nobody afterwards", Python("for _ in range(1500):\n    os.mkdir('d'); os.chdir('d')\nif tried(lambda: open('@OUT@/secret').read()): through()"), Word),
    attack("rename-storm", "a call that renames without end ends at its deadline", Bash("mkdir a; while :; do mv a b; mv b a; done; "), oxibot_tests::corpus::Witness::Survivor).seconds(3).before("mkdir -p x/y/z").no_control("without the wall nothing has a deadline; survive-deadline has the control"),
];
