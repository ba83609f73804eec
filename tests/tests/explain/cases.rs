//! The corpus: commands as a model writes them, and what the wall refused of each, or that it refused nothing.
//!
//! `{W}` is the workspace. Most commands fail in exactly one way; what they print is left to the real programs.

/// Where a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wall {
    /// Level `full`, the default view.
    Full,
    /// Level `kernel` (or `reduced`, on an older kernel).
    Kernel,
    /// Level `full` with the whole file system in view.
    Whole,
    /// Level `full`, OxiBot's home inside the workspace.
    Covered,
}

use Wall::{Covered, Full, Kernel, Whole};

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Where.
    pub walls: &'static [Wall],
    /// What is run.
    pub command: &'static str,
    /// `(what, path, rule)` that must be said; none: nothing may be said.
    pub expected: Option<(&'static str, &'static str, &'static str)>,
}

const fn refused(
    walls: &'static [Wall],
    command: &'static str,
    what: &'static str,
    path: &'static str,
    rule: &'static str,
) -> Case {
    Case { walls, command, expected: Some((what, path, rule)) }
}

const fn ordinary(walls: &'static [Wall], command: &'static str) -> Case {
    Case { walls, command, expected: None }
}

/// Everything.
pub const CASES: &[Case] = &[
    // Writing outside.
    refused(&[Full, Kernel], "echo x > /etc/hosts", "write", "/etc/hosts", "read-only"),
    refused(&[Full, Kernel], "echo x >> /etc/newfile", "write", "/etc/newfile", "view"),
    refused(&[Full, Kernel], "touch /usr/bin/x", "write", "/usr/bin/x", "read-only"),
    refused(&[Full, Kernel], "touch /opt/x", "write", "/opt/x", "view"),
    refused(&[Full, Kernel], "mkdir /opt/y", "write", "/opt/y", "view"),
    refused(&[Full, Kernel], "cp f /etc/passwd", "write", "/etc/passwd", "read-only"),
    refused(&[Full, Kernel], "cp f /usr/local/bin/", "write", "/usr/local/bin/f", "read-only"),
    refused(&[Full, Kernel], "mv f /etc/f", "write", "/etc/f", "view"),
    refused(&[Full, Kernel], "rm -f /usr/bin/true", "write", "/usr/bin/true", "read-only"),
    refused(&[Full], "chmod 644 /etc/passwd", "change", "/etc/passwd", "read-only"),
    refused(&[Full, Kernel], "tee /etc/motd < f", "write", "/etc/motd", "view"),
    refused(&[Full, Kernel], "dd if=/dev/zero of=/etc/x bs=1 count=1", "write", "/etc/x", "view"),
    refused(&[Full, Kernel], "tar cf /opt/x.tar f", "open", "/opt/x.tar", "view"),
    refused(&[Full, Kernel], "ln -s f /usr/local/bin/f", "write", "/usr/local/bin/f", "read-only"),
    refused(&[Full], "install -m 755 f /usr/local/bin/f", "write", "/usr/local/bin/f", "read-only"),
    refused(&[Full], "cd /usr && touch x", "write", "/usr/x", "read-only"),
    refused(&[Full], "mv {W} {W}2", "write", "{W}", "workspace"),
    // Reading outside.
    refused(&[Full, Kernel], "cat /etc/shadow", "read", "/etc/shadow", "view"),
    refused(&[Full], "cat ~root/.ssh/id_rsa", "read", "/root/.ssh/id_rsa", "view"),
    refused(&[Full, Kernel], "ls /home", "read", "/home", "view"),
    refused(&[Full, Kernel], "ls -l /var/log", "read", "/var/log", "view"),
    refused(&[Full], "cd /root", "read", "/root", "view"),
    refused(&[Full, Kernel], "grep -r x /var/spool", "read", "/var/spool", "view"),
    refused(&[Full, Kernel], "find /root -name x", "read", "/root", "view"),
    refused(&[Full], "head -1 /var/log/syslog", "read", "/var/log/syslog", "view"),
    refused(&[Full], "diff f /root/f", "read", "/root/f", "view"),
    refused(&[Full], "sort < /root/data", "read", "/root/data", "view"),
    refused(&[Full, Kernel], "ls /sys/class/net", "read", "/sys/class/net", "view"),
    refused(&[Kernel], "find / -maxdepth 1", "read", "/", "view"),
    // Programs outside.
    refused(&[Full], "/opt/tool --help", "execute", "/opt/tool", "view"),
    refused(&[Full], "bash /root/x.sh", "execute", "/root/x.sh", "view"),
    refused(&[Full], "printf '#!/opt/python\\n' > s && chmod +x s && ./s", "execute", "/opt/python", "view"),
    // Interpreters.
    refused(&[Full, Kernel], "python3 -c \"open('/etc/shadow')\"", "open", "/etc/shadow", "view"),
    refused(&[Full, Kernel], "python3 -c \"open('/etc/hosts','w')\"", "write", "/etc/hosts", "read-only"),
    refused(&[Full, Kernel], "python3 -c \"import os; os.mkdir('/opt/x')\"", "open", "/opt/x", "view"),
    refused(&[Full], "python3 -c \"import os; os.rename('f','/etc/f')\"", "write", "/etc/f", "view"),
    refused(&[Full, Kernel], "python3 -c \"import os; os.listdir('/root')\"", "open", "/root", "view"),
    refused(
        &[Full, Kernel],
        "python3 -c \"import shutil; shutil.copy('f','/usr/f')\"",
        "write",
        "/usr/f",
        "read-only",
    ),
    refused(
        &[Full, Kernel],
        "perl -e 'open(F,\">/etc/x\") or die \"cannot open /etc/x: $!\"'",
        "any",
        "/etc/x",
        "view",
    ),
    refused(
        &[Full, Kernel],
        "perl -e 'mkdir \"/opt/z\" or die \"mkdir /opt/z failed: $!\\n\"'",
        "write",
        "/opt/z",
        "view",
    ),
    refused(
        &[Full, Kernel],
        "node -e \"require('fs').writeFileSync('/etc/x','a')\"",
        "any",
        "/etc/x",
        "view",
    ),
    refused(
        &[Full, Kernel],
        "node -e \"require('fs').readFileSync('/etc/shadow')\"",
        "open",
        "/etc/shadow",
        "view",
    ),
    refused(&[Full, Kernel], "node -e \"require('fs').mkdirSync('/opt/x')\"", "write", "/opt/x", "view"),
    // Builders and version control.
    refused(&[Full, Kernel], "sed -i s/a/b/ /etc/hosts", "write", "/etc/sed*", "view"),
    refused(&[Full, Kernel], "echo 'int main(){}' | gcc -x c - -o /opt/a", "write", "/opt/a", "view"),
    refused(&[Full], "printf '#include </opt/x.h>\\n' > h.c && gcc -c h.c", "open", "/opt/x.h", "view"),
    refused(&[Full], "make -C /opt/x", "open", "/opt/x", "view"),
    refused(&[Full], "git clone /srv/repo r", "open", "/srv/repo", "view"),
    refused(&[Full, Kernel], "git init /opt/repo", "write", "/opt/repo", "view"),
    refused(&[Full], "git -C /root/x status", "read", "/root/x", "view"),
    refused(&[Full, Kernel], "git config --system user.name x", "write", "*/gitconfig", "*"),
    refused(&[Full, Kernel], "sqlite3 /opt/x.db 'create table t(a)'", "open", "/opt/x.db", "view"),
    // Guarded names.
    refused(&[Full], "echo x > .git/hooks/pre-commit", "write", "{W}/.git/hooks/pre-commit", "protect"),
    refused(&[Full], "cp f .git/hooks/post-commit", "write", "{W}/.git/hooks/post-commit", "protect"),
    refused(&[Full], "cd .git && touch hooks/x", "write", "{W}/.git/hooks/x", "protect"),
    refused(&[Full], "mv .git .git2", "write", "{W}/.git", "protect"),
    refused(&[Full], "rm -rf .vscode", "write", "{W}/.vscode/s.json", "protect"),
    refused(&[Full], "echo {} > .vscode/s.json", "write", "{W}/.vscode/s.json", "protect"),
    refused(&[Full], "mkdir .vscode/n", "write", "{W}/.vscode/n", "protect"),
    refused(&[Full], "python3 -c \"open('.vscode/x','w')\"", "write", "{W}/.vscode/x", "protect"),
    // Our own directories.
    refused(&[Covered], "cat home/config.json", "read", "{W}/home/config.json", "covered"),
    refused(&[Covered], "ls home/audit", "read", "{W}/home/audit", "covered"),
    // Temporary files.
    refused(&[Full, Whole], "cat /tmp/of-an-earlier-call", "read", "/tmp/of-an-earlier-call", "private-tmp"),
    refused(&[Full], "ln f /tmp/f", "write", "/tmp/f", "private-tmp"),
    refused(&[Full], "python3 -c \"import os; os.link('f','/tmp/f')\"", "write", "/tmp/f", "private-tmp"),
    refused(&[Kernel], "echo x > /tmp/x-of-a-test", "write", "/tmp/x-of-a-test", "private-tmp"),
    refused(&[Full, Whole], "head -c 20M /dev/zero > /tmp/big", "write", "/tmp/big", "limits.tmp"),
    refused(&[Full], "dd if=/dev/zero of=/tmp/big bs=1M count=20", "write", "/tmp/big", "limits.tmp"),
    // Devices and kernel directories.
    refused(&[Full], "cat /dev/sda", "read", "/dev/sda", "devices"),
    refused(&[Full, Kernel], "echo x > /dev/tty", "write", "/dev/tty", "devices"),
    refused(&[Full, Kernel], "echo x > /dev/kmsg", "write", "/dev/kmsg", "devices"),
    refused(&[Full, Kernel], "mknod n c 1 3", "make a device", "{W}/n", "devices"),
    refused(
        &[Full, Kernel],
        "echo 1 > /proc/sys/kernel/hostname",
        "write",
        "/proc/sys/kernel/hostname",
        "proc",
    ),
    refused(&[Full, Kernel], "cat /proc/1/environ", "read", "/proc/1/environ", "proc"),
    refused(&[Whole], "ls /run/systemd", "read", "/run/systemd", "view"),
    refused(&[Whole], "touch /opt/x", "write", "/opt/x", "read-only"),
    refused(&[Whole], "echo x > /etc/hosts", "write", "/etc/hosts", "read-only"),
    // The network.
    refused(&[Full, Kernel], "curl -sS http://example.com", "look up", "example.com", "network"),
    refused(&[Full, Kernel], "curl -sS https://192.0.2.1/", "connect", "192.0.2.1", "network"),
    refused(&[Full, Whole], "curl -sS http://127.0.0.1:8080/", "connect", "127.0.0.1", "network"),
    refused(&[Full, Kernel], "curl http://example.com", "look up", "example.com", "network"),
    refused(&[Full, Kernel], "wget --no-config -t1 http://example.com", "look up", "example.com", "network"),
    refused(&[Full, Kernel], "wget --no-config -t1 http://192.0.2.1/", "connect", "192.0.2.1", "network"),
    refused(&[Full, Kernel], "git clone https://example.com/a/b", "look up", "example.com", "network"),
    refused(&[Full, Kernel], "git clone git@example.com:a/b", "look up", "example.com", "network"),
    refused(&[Full], "ssh -o BatchMode=yes 192.0.2.1", "connect", "192.0.2.1", "network"),
    refused(&[Full, Kernel], "exec 3<>/dev/tcp/192.0.2.1/80", "connect", "192.0.2.1", "network"),
    refused(&[Full], "echo > /dev/tcp/127.0.0.1/80", "connect", "127.0.0.1", "network"),
    refused(
        &[Full, Kernel],
        "python3 -c \"import urllib.request as u; u.urlopen('http://example.com')\"",
        "look up",
        "",
        "network",
    ),
    refused(
        &[Full],
        "python3 -c \"import socket; socket.create_connection(('192.0.2.1',80))\"",
        "connect",
        "",
        "network",
    ),
    refused(
        &[Full, Kernel],
        "node -e \"require('net').connect(80,'192.0.2.1')\"",
        "connect",
        "192.0.2.1",
        "network",
    ),
    refused(
        &[Full, Kernel],
        "node -e \"require('http').get('http://example.com')\"",
        "look up",
        "example.com",
        "network",
    ),
    // The kernel.
    refused(
        &[Full, Kernel],
        "python3 -c \"import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\"",
        "any",
        "*",
        "socket*",
    ),
    refused(&[Full, Kernel], "unshare -r id", "any", "", "namespaces*"),
    refused(&[Full, Kernel], "strace true", "any", "", "ptrace*"),
    refused(&[Full, Kernel], "kill -9 1", "signal a process", "", "signals"),
    refused(&[Full, Kernel], "ulimit -n 100000", "raise a limit", "", "limits"),
    refused(&[Full, Kernel], "chroot . /bin/true", "any", "", "mount*"),
    refused(&[Full, Kernel], "dmesg", "any", "", "privileges*"),
    refused(&[Full, Kernel], "chmod u+s f", "any", "*", "set-id*"),
    refused(&[Full, Kernel], "chown 1234:1234 f", "change", "{W}/f", "identity"),
    // Limits.
    refused(&[Full, Kernel], "fallocate -l 10G b", "write", "", "limits.file_size"),
    refused(
        &[Full, Kernel],
        "bash -c 'ulimit -f 1; true'; truncate -s 10T b; echo after",
        "write",
        "",
        "limits.file_size",
    ),
    refused(&[Full, Kernel], "python3 -c \"x='a'*(10**13)\"", "allocate memory", "", "limits.memory"),
    refused(&[Full], "sleep 60", "run on", "", "limits.timeout"),
    refused(
        &[Full],
        "python3 -c \"import os; l=[os.open('f',0) for _ in range(9999)]\"",
        "open a file",
        "",
        "limits.open_files",
    ),
    // Ordinary failures, and successes that look like failures.
    ordinary(&[Full, Kernel, Whole, Covered], "true"),
    ordinary(&[Full, Kernel, Whole], "cat missing.txt"),
    ordinary(&[Full, Kernel], "cat nosuch/dir/x"),
    ordinary(&[Full, Kernel], "ls {W}/not-here"),
    ordinary(&[Full, Kernel], "cat sub"),
    ordinary(&[Full, Kernel], "./f"),
    ordinary(&[Full, Kernel], "cp f g; chmod 000 g; cat g; rm -f g"),
    ordinary(&[Full, Kernel], "mkdir -p closed; chmod 000 closed; ls closed; chmod 700 closed"),
    ordinary(&[Full, Kernel], "mkdir sub"),
    ordinary(&[Full, Kernel], "mkdir -p full/x; rmdir full"),
    ordinary(&[Full, Kernel], "no-such-program --help"),
    ordinary(&[Full, Kernel], "cd nowhere"),
    ordinary(&[Full, Kernel], "cat app.log"),
    ordinary(&[Full, Kernel], "cat build.log"),
    ordinary(&[Full, Kernel], "grep -i denied app.log build.log"),
    ordinary(&[Full, Kernel], "grep 'Permission denied' build.log"),
    ordinary(&[Full, Kernel], "grep -h denied build.log | head -3"),
    ordinary(&[Full, Kernel], "tail -5 build.log; grep nothing-like-it build.log"),
    ordinary(&[Full, Kernel], "echo 'cat: /etc/shadow: Permission denied'"),
    ordinary(&[Full, Kernel], "echo 'cat: /etc/shadow: No such file or directory'; false"),
    ordinary(&[Full, Kernel], "python3 -c \"print('the file /etc/shadow holds password hashes')\""),
    ordinary(&[Full, Kernel], "cat README.md"),
    ordinary(&[Full, Kernel], "printf '#include \"nothing.h\"\\n' > n.c && gcc -c n.c"),
    ordinary(&[Full, Kernel], "echo 'int main(){ return x; }' > e.c && gcc e.c"),
    ordinary(&[Full, Kernel], "make nothing"),
    ordinary(&[Full, Kernel], "python3 -c \"open('missing.json')\""),
    ordinary(&[Full, Kernel], "python3 missing.py"),
    ordinary(&[Full, Kernel], "python3 -c 'import nothing_like_it'"),
    ordinary(&[Full, Kernel], "node missing.js"),
    ordinary(&[Full, Kernel], "perl -e 'open(F,\"<missing\") or die \"cannot open missing: $!\"'"),
    ordinary(&[Full, Kernel], "git log"),
    ordinary(&[Full, Kernel], "git checkout nothing"),
    ordinary(&[Full, Kernel], "tar xf missing.tar"),
    ordinary(&[Full, Kernel], "ls /usr/share/not-here-at-all"),
    ordinary(&[Full, Kernel], "kill 99999"),
    ordinary(&[Full, Kernel], "mv f f"),
    ordinary(&[Full, Kernel], "cp sub sub2"),
    ordinary(&[Full, Kernel], "exit 7"),
    ordinary(&[Full, Kernel], "kill -SEGV $$"),
    ordinary(&[Full, Kernel], "echo text > ${TMPDIR:-/tmp}/x && cat ${TMPDIR:-/tmp}/x"),
    ordinary(
        &[Full],
        "python3 -m http.server 8099 --bind 127.0.0.1 >/dev/null 2>&1 & sleep 1; curl -sS -o /dev/null http://127.0.0.1:8099/",
    ),
    ordinary(&[Full], "ls / /etc /dev > /dev/null"),
    // Missing is missing where everything else is in view.
    ordinary(&[Whole], "cat /opt/not-here"),
    ordinary(&[Kernel], "cat /opt/not-here"),
    ordinary(&[Kernel], "cat /tmp/of-an-earlier-call"),
    ordinary(&[Kernel], "echo x > .vscode/s2.json && rm .vscode/s2.json"),
];
