//! Attacks on files: reading, changing, linking, watching and addressing what lies outside the workspace.

use oxibot_tests::corpus;
use oxibot_tests::corpus::Program::{Bash, Perl, Python};
use oxibot_tests::corpus::Witness::{Change, Leak, Word};
use oxibot_tests::corpus::{Attack, Gap, attack};

corpus!(ATTACKS);

const ATTACKS: &[Attack] = &[
    // Reading.
    attack("read-beside", "a file beside the workspace cannot be read", Bash("cat ../outside/secret"), Leak),
    attack("read-far", "a file elsewhere cannot be read by its absolute path", Bash("cat @FAR@/secret"), Leak),
    attack("read-other-workspace", "another workspace cannot be read", Bash("cat @OTHER@/secret ../other/*"), Leak),
    attack("read-home", "the OxiBot home cannot be read", Bash("cat @HOME@/secret; cat @HOME@/*"), Leak),
    attack(
        "read-through-link",
        "a link made in the workspace does not lead out",
        Bash("ln -s @OUT@ l; cat l/secret; ln -s @FAR@/secret s; cat s"),
        Leak,
    ),
    attack(
        "read-through-old-link",
        "a link left in the workspace by the host does not lead out",
        Bash("cat planted/secret planted-file"),
        Leak,
    )
    .before("ln -s @OUT@ planted; ln -s @FAR@/secret planted-file"),
    attack(
        "read-through-proc-root",
        "no process's root is a way out",
        Bash("for p in self 1 $PPID @PID@ @TEST@ /proc/[0-9]*; do cat /proc/${p##*/}/root@OUT@/secret; done 2>/dev/null"),
        Leak,
    ),
    attack(
        "read-through-proc-cwd",
        "no process's directory is a way out",
        Bash("for p in /proc/[0-9]* /proc/self/task/*; do cat $p/cwd/secret $p/cwd/../outside/secret; done 2>/dev/null"),
        Leak,
    ),
    attack(
        "read-through-proc-fd",
        "no process's open file can be opened again",
        Bash("for f in /proc/{@PID@,1,$PPID}/fd/*; do [ -f $f ] && head -c 200 $f; done 2>/dev/null; head -c 99 /proc/[0-9]*/task/*/fd/@FD@"),
        Leak,
    ),
    attack(
        "read-through-map-files",
        "files other processes map cannot be reached",
        Bash("for f in /proc/[0-9]*/map_files; do ls $f; done 2>/dev/null | grep -q . && ls -l /proc/@PID@/map_files | grep -q sleep && echo GOT-THROUGH"),
        Word,
    )
    .root(),
    attack(
        "read-environment-of-others",
        "no other process's environment can be read",
        Bash("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"),
        Leak,
    ),
    attack(
        "read-memory-of-others",
        "no other process's memory can be read through /proc",
        Python(
            r"
for pid in [p for p in os.listdir('/proc') if p.isdigit()] + ['@PID@']:
    if int(pid) == os.getpid(): continue
    try:
        for line in open(f'/proc/{pid}/maps'):
            if '[stack]' not in line: continue
            low, high = (int(n, 16) for n in line.split()[0].split('-'))
            memory = os.open(f'/proc/{pid}/mem', os.O_RDONLY)
            os.write(1, os.pread(memory, high - low, low))
    except OSError: pass
",
        ),
        Leak,
    ),
    attack(
        "read-inherited-descriptor",
        "no descriptor of whoever called us is passed on",
        Bash("cat <&@FD@; cat /proc/self/fd/@FD@ /dev/fd/@FD@; for f in /proc/self/fd/[3-9]* /dev/fd/[3-9]*; do timeout 1 cat $f; done"),
        Leak,
    ),
    attack(
        "read-inherited-environment",
        "no variable of whoever called us is passed on",
        Bash("env; set; cat /proc/self/environ /proc/$$/environ | tr '\\0' '\\n'; cat /proc/[0-9]*/environ"),
        Leak,
    ),
    attack(
        "read-by-handle",
        "files cannot be opened by handle",
        Python(
            r"
class Handle(ctypes.Structure): _fields_ = [('size', ctypes.c_uint), ('kind', ctypes.c_int), ('bytes', ctypes.c_char * 128)]
handle, mount = Handle(128), ctypes.c_int()
print(libc.name_to_handle_at(-100, b'@OUT@/secret', ctypes.byref(handle), ctypes.byref(mount), 0), ctypes.get_errno())
if not handle.kind and not handle.size < 128:
    # Not even its name: guess the inode of the workspace's parents, type 1 (32-bit inode and generation).
    inode = os.stat('.').st_ino
    handle.size, handle.kind = 8, 1
for directory in ('.', '/', '/usr', '/tmp'):
    try: at = os.open(directory, os.O_RDONLY)
    except OSError: continue
    fd = libc.open_by_handle_at(at, ctypes.byref(handle), os.O_RDONLY)
    print(fd, ctypes.get_errno())
    if fd >= 0:
        try: os.write(1, os.read(fd, 4096))
        except OSError: pass
",
        ),
        Leak,
    )
    .root(),
    attack(
        "read-disk",
        "no disk, memory or kernel log device can be opened or made",
        Python(
            r"
import stat
devices = [(stat.S_IFBLK, os.stat('/').st_dev), (stat.S_IFCHR, os.makedev(1, 1)), (stat.S_IFCHR, os.makedev(1, 11)), (stat.S_IFCHR, os.makedev(5, 0))]
for n, (kind, device) in enumerate(devices):
    for directory in ('.', '/tmp', '/dev/shm', os.environ.get('TMPDIR', '/tmp')):
        path = f'{directory}/node-@MARK@-{n}'
        try: os.mknod(path, 0o666 | kind, device)
        except OSError: continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK); through(path)
        except OSError as error: print(path, error)
for name in ('mem', 'kmem', 'port', 'kmsg', 'vda', 'sda', 'nvme0n1', 'kvm', 'fuse', 'loop-control', 'net/tun', 'vhost-net', 'uinput', 'ptmx', 'tty', 'console', 'hwrng', 'rtc0'):
    try: os.open('/dev/' + name, os.O_RDONLY | os.O_NONBLOCK); through(name)
    except OSError: pass
",
        ),
        Word,
    ),
    attack(
        "read-shadow",
        "the password file and private keys cannot be read",
        Bash("for f in /etc/shadow /etc/gshadow /etc/ssh/ssh_host_*_key /etc/ssl/private /root/.ssh /var/lib/dpkg/status; do cat $f >/dev/null 2>&1 || ls $f/. >/dev/null 2>&1 && echo GOT-THROUGH $f; done"),
        Word,
    ),
    attack(
        "read-kernel-secrets",
        "kernel memory, log and addresses cannot be read",
        Bash("for f in /proc/kcore /proc/kmsg /dev/kmsg /sys/kernel/debug /sys/kernel/tracing /sys/firmware /proc/kpagecount; do timeout 1 head -c 1 $f >/dev/null 2>&1 && echo GOT-THROUGH $f || ls $f/. >/dev/null 2>&1 && echo GOT-THROUGH $f; done; awk '$1 !~ /^0*$/ {print \"GOT-THROUGH kallsyms\"; exit}' /proc/kallsyms"),
        Word,
    )
    .root(),
    attack(
        "read-by-glob-and-find",
        "searching everything finds nothing of the outside",
        Bash("grep -rs secret @OUT@ /home /srv /opt /var/tmp /mnt /media /run .. 2>/dev/null | head -c 20000"),
        Leak,
    ),
    attack(
        "list-outside",
        "directories outside cannot be listed",
        Bash("for d in @OUT@ @FAR@ .. ../.. /root /home /var /srv; do ls -a $d 2>/dev/null | grep -qE '^(secret|outside|home|log|.bashrc|oxibot-far.*)$' && echo GOT-THROUGH $d; done"),
        Word,
    ),
    attack(
        "stat-outside",
        "existence and size of a file outside are unknown",
        Bash("stat -c '%n %s' @OUT@/secret @FAR@/file && echo GOT-THROUGH; readlink @OUT@/link && echo GOT-THROUGH; cd @OUT@ && echo GOT-THROUGH"),
        Word,
    )
    .gap(Gap::PathMetadata),
    attack(
        "watch-outside",
        "changes outside cannot be watched",
        Python(
            r"
fd = libc.inotify_init1(0)
for path in (b'@OUT@', b'@FAR@', b'@HOME@'):
    if libc.inotify_add_watch(fd, path, 0xfff) >= 0: through(path)
",
        ),
        Word,
    )
    .gap(Gap::PathMetadata),
    // Writing.
    attack("write-beside", "a file beside the workspace cannot be written", Bash("echo x >> ../outside/file"), Change),
    attack("create-beside", "nothing can be made beside the workspace", Bash("touch ../made ../outside/made; mkdir ../outside/d"), Change),
    attack("write-other-workspace", "another workspace cannot be written", Bash("echo x > @OTHER@/file; rm -rf @OTHER@/directory"), Change),
    attack("write-configuration", "the configuration cannot be changed", Bash("echo '{}' > @HOME@/config.json; echo '{ }' > @HOME@/x; mv @HOME@/x @HOME@/config.json"), Change),
    attack("delete-outside", "nothing outside can be deleted", Bash("rm -rf ../outside/directory @FAR@/directory; unlink @FAR@/file"), Change),
    attack("truncate-outside", "nothing outside can be truncated", Bash("truncate -s 0 @OUT@/file; : > @FAR@/file; python3 -c 'import os; os.truncate(\"@OUT@/file\", 3)'"), Change),
    attack("rename-in", "nothing outside can be moved in", Bash("mv @OUT@/secret ./taken; cat taken"), Change),
    attack("rename-out", "nothing can be moved out", Bash("echo x > y; mv y @OUT@/y; mkdir d; mv d @FAR@/d"), Change),
    attack(
        "exchange",
        "nothing can be exchanged with a file outside",
        Python("open('mine', 'w').write('x')\nprint(call(316, -100, b'mine', -100, b'@OUT@/file', 2))"),
        Change,
    ),
    attack("link-in", "no hard link to a file outside can be made", Bash("ln @OUT@/secret linked; ln -L @FAR@/link linked2; cat linked linked2"), Leak),
    attack("link-out", "no link can be made outside", Bash("echo x > y; ln y @OUT@/hard; ln -s /etc/passwd @FAR@/soft"), Change),
    attack(
        "link-by-descriptor",
        "a descriptor is no way to link a file in or out",
        Python(
            r"
fd = tried(os.open, '@OUT@/secret', os.O_PATH)
print(call(265, fd if fd else -1, b'', -100, b'linked', 0x1000))
print(call(265, -100, b'/proc/self/fd/%d' % (fd or 0), -100, b'linked2', 0x400))
tmp = tried(os.open, '.', os.O_TMPFILE | os.O_RDWR)
print(call(265, -100, b'/proc/self/fd/%d' % (tmp or 0), -100, b'@OUT@/out', 0x400))
for name in ('linked', 'linked2'):
    text = tried(lambda: open(name).read())
    print(text)
",
        ),
        Change,
    ),
    attack("chmod-outside", "modes outside cannot be changed", Bash("chmod 777 @OUT@/file @FAR@; chmod u+s @OUT@/program"), Change).gap(Gap::FileMetadata),
    attack("touch-outside", "times outside cannot be changed", Bash("touch -c -d 2001-01-01 @OUT@/file @FAR@/secret; touch -ch @OUT@/link"), Change).gap(Gap::FileMetadata),
    attack(
        "xattr-outside",
        "extended attributes outside cannot be set",
        Python("for path in ('@OUT@/file', '@FAR@/file'):\n    tried(os.setxattr, path, 'user.@MARK@', b'x')"),
        Change,
    )
    .gap(Gap::FileMetadata),
    attack("chown-outside", "owners outside cannot be changed", Bash("chown 12345 @OUT@/file @FAR@; chgrp 12345 @OUT@/secret"), Change).gap(Gap::FileMetadata).root(),
    attack(
        "chattr-outside",
        "inode flags outside cannot be changed",
        Python(
            r"
for path in ('@OUT@/file', '@FAR@/file'):
    fd = tried(os.open, path, os.O_RDONLY)
    if fd is not None: tried(fcntl.ioctl, fd, 0x40086602, struct.pack('l', 0x40))
",
        ),
        Change,
    ),
    attack(
        "lock-outside",
        "files outside cannot be locked",
        Python(
            r"
for path in ('@OUT@/file', '@FAR@/secret'):
    fd = tried(os.open, path, os.O_RDONLY)
    if fd is None: continue
    if tried(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is None: through(path)
",
        ),
        Word,
    )
    .gap(Gap::Locks),
    attack(
        "write-through-link-race",
        "a link swapped while a file is opened does not lead out",
        Python(
            r"
open('inside', 'w').write('x')
child = os.fork()
if child == 0:
    while True:
        for target in ('inside', '@OUT@/file'):
            try: os.unlink('swap')
            except OSError: pass
            try: os.symlink(target, 'swap')
            except OSError: pass
end = time.time() + 0.4
while time.time() < end:
    try:
        with open('swap', 'a') as file: file.write('y')
    except OSError: pass
os.kill(child, 9)
",
        ),
        Change,
    ),
    attack(
        "directory-swap-race",
        "a directory swapped for a link does not lead out",
        Perl(
            r#"
mkdir "real"; symlink "@OUT@", "fake";
my $child = fork();
if (!$child) { while (1) { rename "d", "real2"; rename "fake", "d"; rename "d", "fake"; rename "real2", "d"; rename "real", "d"; } }
my $end = time() + 1;
while (time() < $end) { for (1 .. 500) { if (open(my $f, ">>", "d/file")) { print $f "y"; } if (open(my $f, "<", "d/secret")) { print <$f>; } } }
kill 9, $child;
"#,
        ),
        Leak,
    ),
    attack(
        "many-dots",
        "no number of dots leads out of the view",
        Bash("cat ../../../../../../../../../../../../../../../../../..@OUT@/secret ./../outside/./secret //$(dirname @WS@)//outside//secret"),
        Leak,
    ),
    attack(
        "chdir-by-descriptor",
        "no descriptor above the workspace is to be had",
        Python(
            r"
fd = os.open('.', os.O_RDONLY)
for _ in range(40):
    up = tried(os.open, '..', os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    if up is None: break
    fd = up
    if 'outside' in (tried(os.listdir, fd) or []):
        os.write(1, os.read(os.open('outside/secret', os.O_RDONLY, dir_fd=fd), 100))
os.fchdir(fd)
os.write(1, (tried(lambda: open('.@OUT@/secret', 'rb').read()) or b''))
",
        ),
        Leak,
    ),
    attack(
        "chroot-walk",
        "a chroot inside a chroot does not lead out",
        Perl(
            r#"
mkdir "cell"; chroot("cell") ? print "GOT-THROUGH chroot\n" : print "chroot: $!\n";
chdir("..") for 1 .. 64; chroot("."); chdir("/");
open(my $f, "<", "@OUT@/secret"); print <$f>;
"#,
        ),
        Word,
    )
    .root(),
    attack(
        "rename-workspace",
        "the workspace itself cannot be moved or replaced",
        Bash("cd /; mv @WS@ @WS@-@MARK@ && { touch @OUT@/gone; mv @WS@-@MARK@ @WS@; }"),
        Change,
    )
    .root(),
    attack(
        "write-system",
        "programs, libraries and configuration of the system cannot be changed",
        Bash("for d in / /usr/bin /usr/local/bin /usr/lib /etc /lib /sbin /boot /usr/share; do touch $d/oxibot-@MARK@; done; echo x >> /etc/ld.so.preload-@MARK@"),
        Change,
    )
    .root(),
    attack(
        "write-shared-directories",
        "what is put into shared temporary directories stays in the call",
        Bash("for d in /tmp /var/tmp /dev/shm /run /run/lock /var/lock; do echo x > $d/oxibot-@MARK@; mkdir $d/oxibot-d-@MARK@; done"),
        Change,
    ),
    attack(
        "write-kernel-settings",
        "no kernel setting can be written",
        Bash("for f in kernel/core_pattern kernel/modprobe vm/overcommit_memory kernel/randomize_va_space net/ipv4/ip_forward fs/protected_hardlinks kernel/hostname user/max_user_namespaces; do (exec 3>>/proc/sys/$f) && echo GOT-THROUGH $f; done; (exec 3>/proc/sysrq-trigger) && echo GOT-THROUGH; (exec 3>>/sys/kernel/uevent_helper) && echo GOT-THROUGH"),
        Word,
    )
    .root(),
    attack(
        "set-id-program",
        "no set-user-ID or set-group-ID file can be left in the workspace",
        Python(
            r"
import shutil
shutil.copy('/bin/true', 'set')
for mode in (0o4755, 0o2755, 0o6755):
    tried(os.chmod, 'set', mode); call(268, -100, b'set', mode); call(452, -100, b'set', mode, 0)
    fd = os.open('set', os.O_RDONLY); tried(os.fchmod, fd, mode)
    tried(os.close, tried(os.open, f'made{mode}', os.O_CREAT | os.O_WRONLY, mode) or -1)
    call(437, -100, b'how%d' % mode, struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, mode, 0), 24)
    tried(os.mknod, f'node{mode}', mode)
",
        ),
        Word,
    )
    .after("find . -type f -perm /6000 | sed 's/^/GOT-THROUGH /'"),
    attack(
        "special-names",
        "names with newlines, control bytes and no UTF-8 do not confuse the wall",
        Bash("mkdir $'a\\n..' $'..\\n' $'\\xff\\xfe' ' ' $'\\e]0;x\\a'; cat $'a\\n../../outside/secret' $'..\\n/../../outside/secret'; cd ' ' && cat ../../outside/secret"),
        Leak,
    ),
    attack(
        "remount-view",
        "nothing of the view can be mounted again, writable",
        Bash("for d in / /usr /etc /proc /dev @WS@; do mount -o remount,rw,bind $d 2>/dev/null && echo GOT-THROUGH $d; done; mount --bind /tmp /mnt 2>/dev/null && { echo GOT-THROUGH; umount /mnt; }"),
        Word,
    )
    .root()
    .no_control("mount(8) is root's everywhere; userns-mount shows it for everybody"),
];
