//! Ordinary work that must go on inside the wall: at least 60 jobs, as root and as an ordinary user, with namespaces
//! and without.
//!
//! Each job ends with a line it had to compute; nothing else of its output is looked at. What cannot work at level
//! `kernel` is named in the table with the reason, and it is a failure if it starts to work unnoticed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use oxibot_tests::fixture::{ACCEPT_REDUCED, Fixture, binary, describe, level_without_namespaces, skip};
use oxibot_tests::{corpus, podman};
use serde_json::{Value, json};

/// An id no package uses.
const USER: u32 = 48_214;

/// Whether a job can work at level `kernel`.
#[derive(Clone, Copy)]
enum AtKernel {
    Works,
    /// Why not.
    Cannot(&'static str),
}
use AtKernel::{Cannot, Works};

const NO_SOCKETS: &str = "no sockets without a network namespace";
const NO_SEMAPHORES: &str = "POSIX semaphores live in /dev/shm, which is shared without a mount namespace";

/// Name, programs it needs, script, last line of its output, and whether it works without namespaces.
type Job = (&'static str, &'static [&'static str], &'static str, &'static str, AtKernel);

const SHELL: &[Job] = &[
    ("here-document", &[], "cat <<EOF\nsum $((6*7))\nEOF", "sum 42", Works),
    ("here-string", &[], "read -r a b <<< 'one two'; echo \"$b\"", "two", Works),
    (
        "process-substitution",
        &[],
        "diff <(seq 3) <(seq 3) && comm -12 <(seq 5) <(seq 4 9) | tail -1",
        "5",
        Works,
    ),
    ("pipeline", &[], "seq 1000 | grep 7 | sort -rn | head -1", "997", Works),
    ("pipefail", &[], "set -o pipefail; false | true; echo $?", "1", Works),
    (
        "background-jobs",
        &[],
        "for i in 1 2 3; do (sleep 0.1; echo $i > job.$i) & done; wait; cat job.* | paste -sd+",
        "1+2+3",
        Works,
    ),
    ("job-in-background-killed", &[], "sleep 300 & kill $!; wait $!; echo $?", "143", Works),
    ("timeout", &["timeout"], "timeout 0.2 sleep 30; echo $?", "124", Works),
    ("trap-on-exit", &[], "bash -c 'trap \"echo cleaned\" EXIT; exit 3'; true", "cleaned", Works),
    (
        "mktemp",
        &[],
        "f=$(mktemp); d=$(mktemp -d); echo in > $f; cp $f $d/; cat $d/*; case $f in $TMPDIR/*|/tmp/*) ;; *) echo elsewhere;; esac",
        "in",
        Works,
    ),
    ("named-pipe", &[], "mkfifo p; (echo through > p) & cat p; wait", "through", Works),
    (
        "coprocess",
        &[],
        "coproc C { while read -r l; do echo \"<$l>\"; done; }; echo hi >&${C[1]}; read -r r <&${C[0]}; echo $r",
        "<hi>",
        Works,
    ),
    (
        "locale",
        &[],
        "printf 'ä\\nb\\n' | LC_ALL=C.UTF-8 awk '{print length($0)}' | head -1; LC_ALL=C.UTF-8 bash -c 's=äöü; echo ${#s}'",
        "3",
        Works,
    ),
    ("arithmetic-loop", &[], "s=0; for ((i=1;i<=1000;i++)); do ((s+=i)); done; echo $s", "500500", Works),
    ("dev-fd", &[], "cat /dev/fd/3 3<<< deep; echo x > /dev/null; head -c 4 /dev/zero | wc -c", "4", Works),
    ("random-device", &[], "head -c 32 /dev/urandom | wc -c", "32", Works),
    (
        "script-with-shebang",
        &[],
        "printf '#!/bin/sh\\necho ran $1\\n' > s.sh; chmod +x s.sh; ./s.sh well",
        "ran well",
        Works,
    ),
    (
        "env-shebang",
        &["python3"],
        "printf '#!/usr/bin/env python3\\nprint(6*7)\\n' > s.py; chmod 755 s.py; ./s.py",
        "42",
        Works,
    ),
    (
        "xargs-parallel",
        &["xargs"],
        "seq 20 | xargs -P4 -I{} sh -c 'echo {}' | sort -n | tail -1",
        "20",
        Works,
    ),
    (
        "nested-shells",
        &[],
        "bash -c 'sh -c \"bash -c \\\"echo \\$\\$ > pid; echo nested\\\"\"'",
        "nested",
        Works,
    ),
    ("ulimit", &[], "ulimit -n 64; ulimit -n", "64", Works),
    ("nice", &[], "b=$(nice); n=$(nice -n 5 nice); echo $((n - b))", "5", Works),
    ("own-process-list", &["ps"], "sleep 30 & ps -o comm= -p $! ; kill $!", "sleep", Works),
    ("whoami-id", &[], "test \"$(id -u)\" = \"$(stat -c %u .)\" && echo mine", "mine", Works),
    ("date-and-zones", &[], "TZ=Europe/Berlin date -d @0 +%H:%M", "01:00", Works),
    (
        "uname-nproc-free",
        &["free"],
        "uname -s >/dev/null; nproc | grep -q '^[0-9]' && free | grep -c Mem",
        "1",
        Works,
    ),
];

const FILES: &[Job] = &[
    (
        "tar-gz",
        &["tar", "gzip"],
        "mkdir t; seq 100 > t/a; ln -s a t/l; tar czf t.tgz t; rm -r t; tar xzf t.tgz; readlink t/l",
        "a",
        Works,
    ),
    (
        "tar-xz",
        &["tar", "xz"],
        "mkdir t; seq 1000 > t/a; tar cJf t.txz t; rm -r t; tar xJf t.txz; tail -1 t/a",
        "1000",
        Works,
    ),
    ("zip", &["zip", "unzip"], "seq 50 > z; zip -q z.zip z; rm z; unzip -q z.zip; tail -1 z", "50", Works),
    (
        "find",
        &["find"],
        "mkdir -p d/{a,b,c}; touch d/{a,b,c}/{1,2}.txt; find d -name '*.txt' -newermt 2001-01-01 -exec basename {} \\; | sort -u | wc -l",
        "2",
        Works,
    ),
    (
        "grep-recursive",
        &[],
        "mkdir -p g/x; for i in $(seq 200); do echo line $i > g/x/$i; done; grep -rl 'line 19' g | wc -l",
        "11",
        Works,
    ),
    ("sed-in-place", &[], "seq 3 > s; sed -i 's/2/two/' s; sed -n 2p s", "two", Works),
    ("awk", &[], "seq 10 | awk '{s+=$1} END {print s}'", "55", Works),
    ("sort-large", &[], "seq 300000 | shuf | sort -n -S 10M | tail -1", "300000", Works),
    (
        "patch",
        &["patch", "diff"],
        "seq 5 > o; sed 's/3/drei/' o > n; diff -u o n > p; patch -s o < p; sed -n 3p o",
        "drei",
        Works,
    ),
    (
        "rsync-like-copy",
        &[],
        "mkdir -p c/d; echo x > c/d/f; chmod 640 c/d/f; cp -a c e; stat -c %a e/d/f",
        "640",
        Works,
    ),
    ("hard-link", &[], "echo x > h1; ln h1 h2; stat -c %h h1", "2", Works),
    ("symbolic-link", &[], "mkdir -p y/z; echo deep > y/z/f; ln -s y/z/f link; cat link", "deep", Works),
    (
        "chmod-and-times",
        &[],
        "touch f; chmod 600 f; touch -d 2001-02-03 f; stat -c '%a %y' f | cut -c1-14",
        "600 2001-02-03",
        Works,
    ),
    ("rename-over", &[], "echo a > r1; echo b > r2; mv -f r2 r1; cat r1", "b", Works),
    ("rename-between-directories", &[], "mkdir -p m1 m2; echo a > m1/f; mv m1/f m2/g; cat m2/g", "a", Works),
    ("from-tmp-to-workspace", &[], "f=$(mktemp); echo moved > $f; mv $f here; cat here", "moved", Works),
    ("file-locks", &["flock"], "flock lock -c 'flock -n lock -c true || echo held'", "held", Works),
    ("large-file", &[], "head -c 200M /dev/zero > big; stat -c %s big; rm big", "209715200", Works),
    ("sparse-file", &[], "truncate -s 500M sp; stat -c %s sp", "524288000", Works),
    (
        "ten-thousand-files",
        &[],
        "mkdir many; cd many; for i in $(seq 10000); do : > f$i; done; ls | wc -l; cd ..; rm -rf many; test ! -e many && echo 10000",
        "10000",
        Works,
    ),
    (
        "deep-tree",
        &[],
        "p=$(printf 'd/%.0s' $(seq 100)); mkdir -p $p; echo far > ${p}f; cat ${p}f",
        "far",
        Works,
    ),
    ("strange-names", &[], "touch -- '-rf' $'new\\nline' 'sp ace' 'ü'; ls -1q | wc -l", "4", Works),
    (
        "inotify-free-tail",
        &["tail"],
        "(sleep 0.2; echo late >> log) & : > log; timeout 5 tail -n +1 -f log | head -1",
        "late",
        Works,
    ),
    (
        "sqlite",
        &["sqlite3"],
        "sqlite3 a.db 'create table t(n); insert into t values(40),(2); select sum(n) from t'",
        "42",
        Works,
    ),
    (
        "sqlite-wal",
        &["sqlite3"],
        "sqlite3 w.db 'pragma journal_mode=wal; create table t(n); insert into t values(7); select n from t'",
        "7",
        Works,
    ),
    (
        "checksums",
        &["sha256sum"],
        "echo x > k; sha256sum k > sums; sha256sum -c --status sums && echo good",
        "good",
        Works,
    ),
    (
        "split-and-join",
        &[],
        "seq 1000 > w; split -l 100 w part.; cat part.* | cmp - w && ls part.* | wc -l",
        "10",
        Works,
    ),
    ("jq", &["jq"], "echo '{\"a\":[1,2,39]}' | jq '.a|add'", "42", Works),
];

const LANGUAGES: &[Job] = &[
    (
        "python-script",
        &["python3"],
        "python3 -c 'import json,hashlib,re,subprocess;print(subprocess.check_output([\"echo\",\"sub\"]).decode().strip())'",
        "sub",
        Works,
    ),
    (
        "python-threads",
        &["python3"],
        "python3 -c 'from concurrent.futures import ThreadPoolExecutor as T\nwith T(8) as t: print(sum(t.map(lambda n:n*n, range(100))))'",
        "328350",
        Works,
    ),
    (
        "python-multiprocessing-pool",
        &["python3"],
        "cat > m.py <<'E'\nimport multiprocessing as m\ndef f(n): return n*n\nif __name__=='__main__':\n    with m.Pool(3) as p: print(sum(p.map(f, range(10))))\nE\npython3 m.py",
        "285",
        Cannot(NO_SEMAPHORES),
    ),
    (
        "python-multiprocessing-manager",
        &["python3"],
        "cat > m.py <<'E'\nimport multiprocessing as m\ndef f(d,n): d[n]=n*2\nif __name__=='__main__':\n    with m.Manager() as g:\n        d=g.dict(); p=m.Process(target=f,args=(d,21)); p.start(); p.join(); print(d[21])\nE\npython3 m.py",
        "42",
        Cannot(NO_SOCKETS),
    ),
    (
        "python-subprocess-pipes",
        &["python3"],
        "python3 -c 'import subprocess as s;p=s.Popen([\"tr\",\"a-z\",\"A-Z\"],stdin=s.PIPE,stdout=s.PIPE);print(p.communicate(b\"loud\")[0].decode())'",
        "LOUD",
        Works,
    ),
    (
        "python-asyncio",
        &["python3"],
        "python3 -c 'import asyncio\nasync def f():\n p=await asyncio.create_subprocess_exec(\"echo\",\"aio\",stdout=-1);print((await p.communicate())[0].decode().strip())\nasyncio.run(f())'",
        "aio",
        Works,
    ),
    (
        "python-tempfile",
        &["python3"],
        "python3 -c 'import tempfile,os\nwith tempfile.TemporaryDirectory() as d:\n open(d+\"/x\",\"w\").write(\"t\");print(len(os.listdir(d)))'",
        "1",
        Works,
    ),
    (
        "python-sqlite",
        &["python3"],
        "python3 -c 'import sqlite3;c=sqlite3.connect(\"p.db\");c.execute(\"create table t(n)\");c.execute(\"insert into t values(5)\");c.commit();print(c.execute(\"select n from t\").fetchone()[0])'",
        "5",
        Works,
    ),
    (
        "python-shared-memory",
        &["python3"],
        "python3 -c 'from multiprocessing import shared_memory as s\nm=s.SharedMemory(create=True,size=16);m.buf[0]=42;print(m.buf[0]);m.close();m.unlink()' 2>&1 | tail -1",
        "42",
        Cannot(NO_SEMAPHORES),
    ),
    (
        "python-bytecode",
        &["python3"],
        "mkdir pkg; echo 'x=9' > pkg/__init__.py; python3 -m compileall -q pkg; python3 -c 'import pkg;print(pkg.x)'",
        "9",
        Works,
    ),
    (
        "perl",
        &["perl"],
        "perl -e 'my %h=map{$_=>$_**2}1..5;print join(\"+\",map{$h{$_}}sort keys %h),\"\\n\"'",
        "1+4+9+16+25",
        Works,
    ),
    (
        "perl-fork-and-pipe",
        &["perl"],
        "perl -e 'pipe(R,W);if(!fork){print W \"child\\n\";exit}close W;print <R>;wait'",
        "child",
        Works,
    ),
    ("node", &["node"], "node -e 'console.log([1,2,3].reduce((a,b)=>a+b))'", "6", Works),
    (
        "node-worker-and-child",
        &["node"],
        "cat > w.js <<'E'\nconst {Worker}=require('worker_threads');const {execSync}=require('child_process');\nnew Worker(\"require('worker_threads').parentPort.postMessage(6*7)\",{eval:true}).on('message',m=>console.log(m+execSync('echo !').toString().trim()));\nE\nnode w.js",
        "42!",
        Works,
    ),
    (
        "awk-program",
        &["awk"],
        "printf 'b 2\\na 1\\n' | awk '{v[$1]=$2} END {print v[\"a\"] v[\"b\"]}'",
        "12",
        Works,
    ),
    ("bc", &["bc"], "echo '2^64' | bc", "18446744073709551616", Works),
];

const BUILDS: &[Job] = &[
    (
        "gcc",
        &["gcc"],
        "echo '#include <stdio.h>\nint main(void){printf(\"%d\\n\",6*7);}' > a.c; gcc -O1 a.c -o a && ./a",
        "42",
        Works,
    ),
    (
        "gcc-shared-library",
        &["gcc"],
        "echo 'int f(void){return 7;}' > l.c; echo '#include <stdio.h>\nint f(void);int main(void){printf(\"%d\\n\",f());}' > m.c; gcc -shared -fPIC l.c -o libl.so && gcc m.c -L. -ll -o m && LD_LIBRARY_PATH=. ./m",
        "7",
        Works,
    ),
    (
        "c-threads-and-signals",
        &["gcc"],
        "cat > t.c <<'E'\n#include <pthread.h>\n#include <signal.h>\n#include <stdio.h>\nstatic volatile int n; static void*r(void*a){__sync_fetch_and_add(&n,1);return a;} static void h(int s){n+=100;(void)s;}\nint main(void){pthread_t t[8];signal(SIGUSR1,h);for(int i=0;i<8;i++)pthread_create(t+i,0,r,0);for(int i=0;i<8;i++)pthread_join(t[i],0);raise(SIGUSR1);printf(\"%d\\n\",n);}\nE\ngcc -pthread t.c -o t && ./t",
        "108",
        Works,
    ),
    (
        "make-parallel",
        &["make", "gcc"],
        "for i in 1 2 3 4; do echo \"int f$i(void){return $i;}\" > f$i.c; done; echo '#include <stdio.h>\nint f1(void),f2(void),f3(void),f4(void);int main(void){printf(\"%d\\n\",f1()+f2()+f3()+f4());}' > main.c; printf 'prog: f1.o f2.o f3.o f4.o main.o\\n\\tcc -o $@ $^\\n' > Makefile; make -s -j4 && ./prog",
        "10",
        Works,
    ),
    (
        "c-plus-plus",
        &["g++"],
        "echo '#include <iostream>\n#include <vector>\nint main(){std::vector<int> v{1,2,3};int s=0;for(int i:v)s+=i;std::cout<<s<<std::endl;}' > a.cc; g++ a.cc -o app && ./app",
        "6",
        Works,
    ),
    (
        "static-library",
        &["gcc", "ar"],
        "echo 'int f(void){return 5;}' > l.c; gcc -c l.c && ar rcs libq.a l.o && echo '#include <stdio.h>\nint f(void);int main(void){printf(\"%d\\n\",f());}' > m.c && gcc m.c libq.a -o q && ./q",
        "5",
        Works,
    ),
    (
        "mmap-and-fork",
        &["gcc"],
        "cat > f.c <<'E'\n#include <stdio.h>\n#include <sys/mman.h>\n#include <sys/wait.h>\n#include <unistd.h>\nint main(void){int*p=mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0);if(!fork()){*p=42;_exit(0);}wait(0);printf(\"%d\\n\",*p);}\nE\ngcc f.c -o f && ./f",
        "42",
        Works,
    ),
];

const GIT: &[Job] = &[
    (
        "git-init-commit-log",
        &["git"],
        "git init -q . && echo a > a && git add . && git commit -qm first && git log --format=%s | head -1",
        "first",
        Works,
    ),
    (
        "git-diff-and-stash",
        &["git"],
        "git init -q . && echo a > a && git add . && git commit -qm x && echo b > a && git diff --stat | tail -1 | grep -c insertion && git stash -q && cat a",
        "a",
        Works,
    ),
    (
        "git-branch-merge",
        &["git"],
        "git init -q -b main . && echo a > a && git add . && git commit -qm a && git checkout -qb t && echo b > b && git add . && git commit -qm b && git checkout -q main && git merge -q t && ls b",
        "b",
        Works,
    ),
    (
        "git-rebase",
        &["git"],
        "git init -q -b main . && echo 0 > f && git add . && git commit -qm 0 && git checkout -qb t && echo t > t && git add . && git commit -qm t && git checkout -q main && echo m > m && git add . && git commit -qm m && git checkout -q t && git rebase -q main && git log --format=%s | paste -sd,",
        "t,m,0",
        Works,
    ),
    (
        "git-clone-local",
        &["git"],
        "git init -q o && cd o && echo a > a && git add . && git commit -qm a && cd .. && git clone -q o c && cat c/a",
        "a",
        Works,
    ),
    (
        "git-worktree-tag-archive",
        &["git"],
        "git init -q . && echo a > a && git add . && git commit -qm a && git tag v1 && git worktree add -q ../w$$ 2>/dev/null; git worktree add -q wt && cat wt/a && git archive v1 | tar t",
        "a",
        Works,
    ),
    (
        "git-config-and-remote",
        &["git"],
        "git init -q . && git config user.name Somebody && git remote add origin https://example.invalid/x.git && git remote get-url origin | cut -c1-8",
        "https://",
        Works,
    ),
    (
        "git-gc-fsck-blame",
        &["git"],
        "git init -q . && for i in 1 2 3; do echo $i >> a; git add .; git commit -qm $i; done; git gc -q && git fsck 2>/dev/null && git blame -s a | wc -l",
        "3",
        Works,
    ),
];

const NETWORK: &[Job] = &[
    (
        "server-on-loopback",
        &["python3"],
        "python3 -m http.server 8099 --bind 127.0.0.1 >/dev/null 2>&1 & while kill -0 $! 2>/dev/null; do python3 -c 'import urllib.request as u;print(u.urlopen(\"http://127.0.0.1:8099/\").status)' 2>/dev/null && break; sleep 0.1; done; kill $!",
        "200",
        Cannot(NO_SOCKETS),
    ),
    (
        "loopback-ipv6",
        &["python3"],
        "python3 -c 'import socket\ns=socket.create_server((\"::1\",0),family=socket.AF_INET6)\nc=socket.create_connection(s.getsockname()[:2]);a,_=s.accept();c.send(b\"six\");print(a.recv(9).decode())'",
        "six",
        Cannot(NO_SOCKETS),
    ),
    (
        "udp-on-loopback",
        &["python3"],
        "python3 -c 'import socket\na=socket.socket(2,2);a.bind((\"127.0.0.1\",0));b=socket.socket(2,2);b.sendto(b\"dgram\",a.getsockname());print(a.recv(9).decode())'",
        "dgram",
        Cannot(NO_SOCKETS),
    ),
    (
        "unix-socket-in-workspace",
        &["python3"],
        "python3 -c 'import socket\ns=socket.socket(1);s.bind(\"u.sock\");s.listen();c=socket.socket(1);c.connect(\"u.sock\");a,_=s.accept();c.send(b\"unix\");print(a.recv(9).decode())'",
        "unix",
        Cannot(NO_SOCKETS),
    ),
    (
        "unix-socket-in-tmp",
        &["python3"],
        "python3 -c 'import socket,tempfile\np=tempfile.mkdtemp()+\"/s\"\ns=socket.socket(1);s.bind(p);s.listen();c=socket.socket(1);c.connect(p);a,_=s.accept();c.send(b\"tmp\");print(a.recv(9).decode())'",
        "tmp",
        Cannot(NO_SOCKETS),
    ),
    (
        "socket-pair",
        &["python3"],
        "python3 -c 'import socket\na,b=socket.socketpair();a.send(b\"pair\");print(b.recv(9).decode())'",
        "pair",
        Works,
    ),
    (
        "bash-dev-tcp",
        &["python3"],
        "python3 -c 'import socket\ns=socket.create_server((\"127.0.0.1\",8098))\na,_=s.accept();a.send(b\"tcp\\n\")' & while kill -0 $! 2>/dev/null; do { read -r l < /dev/tcp/127.0.0.1/8098; } 2>/dev/null && break; sleep 0.1; done; echo $l",
        "tcp",
        Cannot(NO_SOCKETS),
    ),
    (
        "interfaces",
        &["python3"],
        "python3 -c 'import socket;print([n for _,n in socket.if_nameindex()][0])'",
        "lo",
        Cannot(NO_SOCKETS),
    ),
    (
        "name-of-localhost",
        &["python3"],
        "python3 -c 'import socket;print(socket.getaddrinfo(\"localhost\",80,socket.AF_INET)[0][4][0])'",
        "127.0.0.1",
        Works,
    ),
    (
        "node-http",
        &["node"],
        "node -e 'const h=require(\"http\");const s=h.createServer((q,r)=>r.end(\"served\")).listen(0,\"127.0.0.1\",()=>h.get({port:s.address().port,host:\"127.0.0.1\"},r=>r.on(\"data\",d=>{console.log(d.toString());s.close()})))'",
        "served",
        Cannot(NO_SOCKETS),
    ),
];

#[derive(Clone, Copy)]
enum Mode {
    Root,
    User,
    /// As an ordinary user in a container that refuses namespaces.
    Kernel,
}

impl Mode {
    fn level(self) -> &'static str {
        match self {
            Self::Root | Self::User => "full",
            Self::Kernel => level_without_namespaces(),
        }
    }
}

/// The machine's own commands, each with an environment of nothing.
fn command(fixture: &Fixture, programs: Option<&Path>, mode: Mode, workspace: &Path, script: &str) -> Output {
    let mut command = match (mode, programs) {
        (Mode::Root, _) | (_, None) => Command::new(binary("oxibot")),
        (Mode::User | Mode::Kernel, Some(programs)) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"]);
            if matches!(mode, Mode::Kernel) {
                command.arg(programs.join("sabotage")).args(["container", "--"]);
            }
            command.arg(programs.join("oxibot"));
            command
        }
    };
    command.env_clear();
    if matches!(mode, Mode::Kernel) {
        command.env(ACCEPT_REDUCED.0, ACCEPT_REDUCED.1);
    }
    command
        .args(["tool", "call", "bash", &json!({ "command": script }).to_string(), "--json", "--workspace"])
        .arg(workspace)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", fixture.root())
        .env("OXIBOT_HOME", fixture.home())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Where a program is for a call, whose `PATH` is the system's.
fn installed(program: &str) -> bool {
    ["/usr/local/bin", "/usr/bin", "/bin"].iter().any(|directory| Path::new(directory).join(program).exists())
}

/// What went wrong with one job.
fn trouble(fixture: &Fixture, programs: Option<&Path>, mode: Mode, job: &Job) -> Option<String> {
    let (name, _, script, _, _) = job;
    let workspace: PathBuf = fixture.workspace().join(name);
    std::fs::create_dir(&workspace).unwrap();
    if programs.is_some() {
        nix::unistd::chown(&workspace, Some(USER.into()), Some(USER.into())).unwrap();
    }
    judge(job, mode, &command(fixture, programs, mode, &workspace, script))
}

/// What is wrong with the answer to a job.
fn judge((name, _, _, expected, at_kernel): &Job, mode: Mode, output: &Output) -> Option<String> {
    let result: Value = match serde_json::from_slice(&output.stdout) {
        Ok(result) => result,
        Err(error) => return Some(format!("{name}: {error}: {}", describe(output))),
    };
    if result["level"] != mode.level() {
        return Some(format!("{name}: not at level {}: {result}", mode.level()));
    }
    let text = result["output"].as_str().unwrap_or_default();
    // A remark of ours about processes that were ended may follow.
    let said = text.lines().any(|line| line == *expected);
    match (mode, at_kernel, said) {
        (Mode::Kernel, Cannot(reason), true) => Some(format!("{name}: works at kernel, though \"{reason}\"")),
        (Mode::Kernel, Cannot(_), false) | (_, _, true) => None,
        (_, _, false) => Some(format!("{name}: no line {expected:?}: {result}")),
    }
}

fn run(class: &str, jobs: &[Job], mode: Mode) {
    if !nix::unistd::geteuid().is_root() && !matches!(mode, Mode::Root) {
        return skip(class, "needs root to become another user");
    }
    let fixture = Fixture::new();
    let programs = match mode {
        Mode::Root => None,
        Mode::User | Mode::Kernel => {
            for directory in [fixture.home(), fixture.workspace()] {
                nix::unistd::chown(&directory, Some(USER.into()), Some(USER.into())).unwrap();
            }
            Some(fixture.programs_for_anyone())
        }
    };
    let mut troubles = Vec::new();
    for job in jobs {
        match job.1.iter().find(|program| !installed(program)) {
            Some(program) => skip(&format!("{class}/{}", job.0), &format!("{program} is not installed")),
            None => troubles.extend(trouble(&fixture, programs.as_deref(), mode, job)),
        }
    }
    assert!(troubles.is_empty(), "{} of {} jobs fail:\n{}", troubles.len(), jobs.len(), troubles.join("\n"));
}

/// Runs each job of a directory and keeps what came of it beside it.
const EACH: &str = r#"cd "$SHARED/jobs" && for job in *.json; do
  name=${job%.json}
  "$OXIBOT" tool call bash "$(cat "$job")" --json --workspace "$SHARED/workspace/$name" >"$name.out" 2>"$name.err"
  echo $? >"$name.status"
done"#;

/// As an ordinary user in a container of podman's, one for all of them; what is expected is that of [`Mode::Kernel`].
fn run_in_a_container(class: &str, jobs: &[Job]) {
    let lacking = podman::lacking();
    if !lacking.is_empty() {
        return skip(class, &format!("a container needs {}", lacking.join(", ")));
    }
    let (fixture, engine) = (Fixture::new(), tempfile::tempdir().unwrap());
    let oxibot = fixture.programs_for_anyone().join("oxibot");
    let directory = fixture.root().join("jobs");
    std::fs::create_dir(&directory).unwrap();
    for (name, _, script, _, _) in jobs {
        std::fs::create_dir(fixture.workspace().join(name)).unwrap();
        let text = json!({ "command": script }).to_string();
        std::fs::write(directory.join(name).with_extension("json"), text).unwrap();
    }
    for directory in [fixture.home(), fixture.workspace(), directory.clone()] {
        corpus::stage::own(&directory, USER);
    }
    let (require, level) = ACCEPT_REDUCED;
    let ran = podman::container(engine.path(), fixture.root(), Some(USER))
        .unwrap()
        .arg("env")
        .arg(format!("SHARED={}", fixture.root().display()))
        .arg(format!("OXIBOT={}", oxibot.display()))
        .arg(format!("HOME={}", fixture.root().display()))
        .arg(format!("OXIBOT_HOME={}", fixture.home().display()))
        .arg(format!("{require}={level}"))
        .args(["bash", "-c", EACH])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", describe(&ran));
    let mut troubles = Vec::new();
    for job in jobs {
        if let Some(program) = job.1.iter().find(|program| !installed(program)) {
            skip(&format!("{class}/{}", job.0), &format!("{program} is not installed"));
            continue;
        }
        let read = |end| std::fs::read(directory.join(job.0).with_extension(end)).unwrap();
        let status: i32 = String::from_utf8(read("status")).unwrap().trim().parse().unwrap();
        let output = Output {
            status: std::os::unix::process::ExitStatusExt::from_raw(status << 8),
            stdout: read("out"),
            stderr: read("err"),
        };
        troubles.extend(judge(job, Mode::Kernel, &output));
    }
    assert!(troubles.is_empty(), "{} of {} jobs fail:\n{}", troubles.len(), jobs.len(), troubles.join("\n"));
}

macro_rules! suites {
    ($($name:ident: $jobs:expr, $mode:expr;)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $jobs, $mode);
        })*
    };
}

macro_rules! contained {
    ($($name:ident: $jobs:expr;)*) => {
        $(#[test]
        fn $name() {
            run_in_a_container(stringify!($name), $jobs);
        })*
    };
}

contained! {
    shell_in_a_real_container: SHELL;
    files_in_a_real_container: FILES;
    languages_in_a_real_container: LANGUAGES;
    builds_in_a_real_container: BUILDS;
    git_in_a_real_container: GIT;
    network_in_a_real_container: NETWORK;
}

suites! {
    shell_as_root: SHELL, Mode::Root;
    shell_as_user: SHELL, Mode::User;
    shell_at_kernel: SHELL, Mode::Kernel;
    files_as_root: FILES, Mode::Root;
    files_as_user: FILES, Mode::User;
    files_at_kernel: FILES, Mode::Kernel;
    languages_as_root: LANGUAGES, Mode::Root;
    languages_as_user: LANGUAGES, Mode::User;
    languages_at_kernel: LANGUAGES, Mode::Kernel;
    builds_as_root: BUILDS, Mode::Root;
    builds_as_user: BUILDS, Mode::User;
    builds_at_kernel: BUILDS, Mode::Kernel;
    git_as_root: GIT, Mode::Root;
    git_as_user: GIT, Mode::User;
    git_at_kernel: GIT, Mode::Kernel;
    network_as_root: NETWORK, Mode::Root;
    network_as_user: NETWORK, Mode::User;
    network_at_kernel: NETWORK, Mode::Kernel;
}

#[test]
fn there_are_enough_jobs_with_names_of_their_own() {
    let all: Vec<&Job> = [SHELL, FILES, LANGUAGES, BUILDS, GIT, NETWORK].concat().leak().iter().collect();
    let names: std::collections::BTreeSet<&str> = all.iter().map(|job| job.0).collect();
    assert_eq!(names.len(), all.len());
    assert!(all.len() >= 60, "{}", all.len());
}

/// A crate without dependencies, with the toolchain made visible by `sandbox.read`.
#[test]
fn cargo_builds_offline() {
    let Ok(found) = Command::new("rustc").args(["--print", "sysroot"]).output() else {
        return skip("cargo_builds_offline", "rustc is not installed");
    };
    let toolchain = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    let fixture = Fixture::new();
    std::fs::write(
        fixture.home().join("config.json"),
        json!({"sandbox": {"read": [toolchain], "env": {"PATH": format!("{toolchain}/bin:/usr/bin:/bin")}}})
            .to_string(),
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(fixture.home().join("config.json"), mode).unwrap();
    let script = "cargo new -q --vcs none small && cd small && echo 'fn main(){println!(\"{}\", 6*7)}' > src/main.rs && \
                  cargo build -q --offline && ./target/debug/small";
    let (result, _) = fixture.tool("bash", &json!({"command": script, "timeout_s": 120}));
    assert_eq!(result["output"], "42\n", "{result}");
    assert_eq!(result["level"], "full", "{result}");
}
