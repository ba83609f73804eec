//! What the wall costs, as ratios: two sides in turn in the same run, on whatever machine this is.
//!
//! `cargo build --release --bins && cargo bench -p oxibot-tests --bench speed [-- PART OF A NAME]`
//!
//! Prints one table, writes it as JSON and as a chart to `target/bench/`, and fails when a bound is missed and
//! `OXIBOT_BENCH_STRICT=1`. Not a test: on a busy machine the figures say little, which is what the spread is for.

mod measure;
mod report;
mod sides;

use std::path::Path;
use std::time::{Duration, Instant};

use measure::{Times, in_turn};
use report::{Bound, Figure, Line};
use sides::{Echo, Warm, call, cold, installed};

/// Measures one thing and adds its lines.
type Part = fn(&mut Vec<Line>);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.iter().any(|argument| argument == "--echo") {
        return sides::echo();
    }
    let wanted =
        |name: &str| arguments.is_empty() || arguments.iter().any(|part| name.contains(part.as_str()));
    let parts: [(&str, Part); 7] = [
        ("shell", shell),
        ("cold", cold_start),
        ("files", files),
        ("work", work),
        ("throughput", throughput),
        ("neighbour", neighbour),
        ("memory", memory),
    ];
    let mut lines = Vec::new();
    for (name, part) in parts {
        if wanted(name) {
            part(&mut lines);
        }
    }
    let machine = machine();
    let table = report::table(&machine, &lines);
    println!("{table}");
    let directory = sides::programs().parent().unwrap().join("bench");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("speed.json"), report::json(&machine, &lines)).unwrap();
    std::fs::write(directory.join("speed.svg"), report::chart(&machine, &lines)).unwrap();
    println!("written to {}", directory.display());
    let missed = lines.iter().filter(|line| line.kept() == Some(false)).count();
    if missed > 0 && std::env::var_os("OXIBOT_BENCH_STRICT").is_some_and(|strict| strict == "1") {
        eprintln!("{missed} bounds missed");
        std::process::exit(1);
    }
}

fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!("Linux {}, {processors} processors, load {load}, level full", kernel.trim())
}

fn both(lines: &mut Vec<Line>, what: &str, pair: &(Times, Times), bounds: (Option<f64>, Option<f64>)) {
    lines.push(Line::times(what, Figure::Median, pair, bounds.0));
    lines.push(Line::times(what, Figure::P99, pair, bounds.1));
}

/// Warm calls against the same command line without a wall, and in bubblewrap.
fn shell(lines: &mut Vec<Line>) {
    let warm = Warm::start();
    let pair = in_turn(1000, || warm.bash(":"), || warm.bare(":"));
    both(lines, "bash -c : / bare", &pair, (Some(1.10), Some(1.30)));
    let pair = in_turn(300, || warm.bash("/bin/true"), || warm.bare("/bin/true"));
    both(lines, "bash -c /bin/true / bare", &pair, (None, None));
    if installed("bwrap") {
        let pair = in_turn(200, || warm.bash(":"), || warm.bubblewrap(":"));
        both(lines, "bash -c : / bubblewrap", &pair, (Some(0.25), None));
    }
}

/// A whole process, with a recorded pass of the self-attack.
fn cold_start(lines: &mut Vec<Line>) {
    let warm = Warm::start();
    let programs = sides::programs();
    let begun = Instant::now();
    cold(&warm.fixture, &programs, ":");
    let first = begun.elapsed();
    if installed("bwrap") {
        let pair = in_turn(60, || cold(&warm.fixture, &programs, ":"), || warm.bubblewrap(":"));
        both(lines, "oxibot tool call bash / bubblewrap", &pair, (Some(3.0), None));
    }
    lines.push(Line {
        what: "first oxibot tool call ever / 60 ms".to_owned(),
        figure: "once",
        ours: first.as_secs_f64() * 1e6,
        theirs: 60_000.0,
        unit: "us",
        bound: Some(Bound::AtMost(1.0)),
        spread: None,
    });
    let ready: Vec<Duration> = (0..10)
        .map(|_| {
            let begun = Instant::now();
            drop(Warm::start());
            begun.elapsed()
        })
        .collect();
    lines.push(Line {
        what: "exec to ready, self-attack included / 60 ms".to_owned(),
        figure: "p50",
        ours: Times::new(&ready).median(),
        theirs: 60_000.0,
        unit: "us",
        bound: Some(Bound::AtMost(1.0)),
        spread: None,
    });
}

/// Tools that never exec.
fn files(lines: &mut Vec<Line>) {
    let warm = Warm::start();
    let workspace = warm.fixture.workspace();
    std::fs::write(workspace.join("small"), vec![b'x'; 1024]).unwrap();
    std::fs::write(workspace.join("large"), "line of text\n".repeat(800_000)).unwrap();
    let many = workspace.join("many");
    std::fs::create_dir(&many).unwrap();
    for number in 0..10_000 {
        std::fs::write(many.join(number.to_string()), b"").unwrap();
    }
    let mut echo = Echo::start();
    let bytes = vec![b'x'; 1024];
    let completed = |tool: &str, arguments: &str| {
        let result = warm.call(tool, arguments);
        assert_eq!(result.outcome.name(), "completed", "{tool}: {result:?}");
    };
    let pair = in_turn(1000, || completed("read_file", r#"{"path":"small"}"#), || echo.round(&bytes));
    both(lines, "read_file 1 KB / echo between processes", &pair, (Some(2.0), None));
    let pair = in_turn(
        100,
        || completed("read_file", r#"{"path":"large","offset":400000}"#),
        || drop(std::fs::read(workspace.join("large")).unwrap()),
    );
    both(lines, "read_file in 10 MB / read(2)", &pair, (None, None));
    let pair = in_turn(
        200,
        || completed("write_file", r#"{"path":"written","content":"x"}"#),
        || std::fs::write(workspace.join("bare"), b"x").unwrap(),
    );
    both(lines, "write_file / write(2)", &pair, (None, None));
    let pair = in_turn(
        50,
        || completed("list_dir", r#"{"path":"many"}"#),
        || assert_eq!(std::fs::read_dir(&many).unwrap().count(), 10_000),
    );
    both(lines, "list_dir of 10,000 / readdir(3)", &pair, (None, None));
}

/// Ordinary work inside and outside.
fn work(lines: &mut Vec<Line>) {
    let warm = Warm::start();
    let workspace = warm.fixture.workspace();
    prepare_work(&warm, &workspace);
    let tasks: [(&str, &str, usize, f64); 6] = [
        ("git status, 1,000 files", "git -C repository status --short > /dev/null", 60, 1.05),
        ("python one-liner", "/usr/bin/python3 -c 'print(sum(range(1000)))' > /dev/null", 60, 1.05),
        ("gcc hello world", "gcc hello.c -o hello", 30, 1.05),
        ("grep over 100 MB", "grep -c needle hay > /dev/null", 15, 1.05),
        (
            "10,000 small files",
            "rm -rf d && mkdir d && cd d && for i in {1..10000}; do : > $i; done",
            8,
            1.15,
        ),
        ("output of 100 MB", "head -c 100000000 /dev/zero | tr '\\0' x", 8, 1.05),
    ];
    for (name, command, rounds, bound) in tasks {
        let pair = in_turn(rounds, || warm.bash(command), || warm.bare(command));
        lines.push(Line::times(&format!("{name} / bare"), Figure::Median, &pair, Some(bound)));
    }
}

fn prepare_work(warm: &Warm, workspace: &Path) {
    std::fs::write(workspace.join("hello.c"), "#include <stdio.h>\nint main(void){puts(\"hi\");}\n").unwrap();
    std::fs::write(
        workspace.join("hay"),
        "a line without anything in it, of a hundred bytes\n".repeat(2_000_000),
    )
    .unwrap();
    warm.bash(
        "mkdir repository && cd repository && git init -q . && for i in {1..1000}; do echo $i > f$i; done && git add . && \
         git commit -qm all",
    );
}

/// Calls a second with more callers.
fn throughput(lines: &mut Vec<Line>) {
    let warm = Warm::start();
    let rate = |callers: usize| {
        let span = Duration::from_secs(3);
        let count: usize = warm.runtime.block_on(async {
            let tasks: Vec<_> = (0..callers)
                .map(|_| {
                    let broker = warm.broker.clone();
                    tokio::spawn(async move {
                        let until = Instant::now() + span;
                        let mut count = 0_usize;
                        while Instant::now() < until {
                            let result = call(&broker, "bash", r#"{"command":":"}"#).await;
                            assert_eq!(result.exit_code, Some(0), "{result:?}");
                            count += 1;
                        }
                        count
                    })
                })
                .collect();
            let mut count = 0;
            for task in tasks {
                count += task.await.unwrap();
            }
            count
        });
        count as f64 / span.as_secs_f64()
    };
    let one = rate(1);
    for (callers, bound) in [(2, None), (8, Some(1.7)), (64, None)] {
        lines.push(Line {
            what: format!("calls a second, {callers} callers / 1"),
            figure: "rate",
            ours: rate(callers),
            theirs: one,
            unit: "/s",
            bound: bound.map(Bound::AtLeast),
            spread: None,
        });
    }
}

/// How much one workspace suffers from another one.
fn neighbour(lines: &mut Vec<Line>) {
    let quiet_side = Warm::start();
    let noisy = Warm::start();
    let latencies = |rounds: usize| {
        let times: Vec<Duration> = (0..rounds)
            .map(|_| {
                let begun = Instant::now();
                quiet_side.bash(":");
                begun.elapsed()
            })
            .collect();
        Times::new(&times)
    };
    latencies(50);
    let quiet = latencies(500);
    let troubles = [
        ("fork bomb", "f() { f | f & }; f; sleep 20"),
        ("flood of output", "yes | head -c 2000000000; sleep 20"),
        ("two busy loops", "(while :; do :; done) & while :; do :; done"),
    ];
    for (name, command) in troubles {
        let arguments = serde_json::json!({"command": command, "timeout_s": 8}).to_string();
        let broker = noisy.broker.clone();
        let task = noisy.runtime.spawn(async move { call(&broker, "bash", &arguments).await });
        std::thread::sleep(Duration::from_millis(500));
        let loud = latencies(300);
        assert!(!task.is_finished(), "{name}: the neighbour was quiet before the measurement ended");
        noisy.runtime.block_on(task).unwrap();
        lines.push(Line::times(
            &format!("with a neighbour's {name} / quiet"),
            Figure::P99,
            &(loud, quiet.clone()),
            Some(3.0),
        ));
    }
}

/// Memory of all our processes when nothing goes on.
fn memory(lines: &mut Vec<Line>) {
    let warm = Warm::start();
    warm.bash(":");
    std::thread::sleep(Duration::from_secs(3));
    let line = |what: &str, kib: u64| Line {
        what: what.to_owned(),
        figure: "pss",
        ours: kib as f64,
        theirs: 8192.0,
        unit: "kB",
        bound: Some(Bound::AtMost(1.0)),
        spread: None,
    };
    lines.push(line("toolhost, idle / 8 MB", warm.memory_kib()));
    for _ in 0..10_000 {
        warm.bash(":");
    }
    std::thread::sleep(Duration::from_secs(3));
    lines.push(line("toolhost, after 10,000 calls / 8 MB", warm.memory_kib()));
}
