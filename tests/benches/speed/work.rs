//! Calls one after the other: the empty one, the file tools, ordinary work, and the same in other sandboxes.

use std::path::Path;

use crate::measure::{alone, effort, in_turn, sides_in_turn};
use crate::report::{Figure, Report, Row};
use crate::rivals;
use crate::sides::{Echo, Warm};

/// Warm calls against the same command line without a wall.
pub fn shell(report: &mut Report) {
    let warm = Warm::start();
    let pair = in_turn(effort(2000, 40), || warm.bash(":"), || warm.bare(":"));
    report
        .rows
        .push(Row::times("bash -c : / bare", pair).at_most(Figure::P50, 1.10).at_most(Figure::P99, 1.30));
    let pair = in_turn(effort(400, 10), || warm.bash("/bin/true"), || warm.bare("/bin/true"));
    report.rows.push(Row::times("bash -c /bin/true / bare", pair));
}

/// Tools that never exec.
pub fn files(report: &mut Report) {
    let warm = Warm::start();
    let workspace = warm.fixture.workspace();
    std::fs::write(workspace.join("small"), vec![b'x'; 1024]).unwrap();
    std::fs::write(workspace.join("large"), "line of text\n".repeat(800_000)).unwrap();
    let many = workspace.join("many");
    std::fs::create_dir(&many).unwrap();
    for number in 0..10_000 {
        std::fs::write(many.join(number.to_string()), b"").unwrap();
    }
    let completed = |tool: &str, arguments: &str| {
        let result = warm.call(tool, arguments);
        assert_eq!(result.outcome.name(), "completed", "{tool}: {result:?}");
    };
    let mut echo = Echo::start();
    let bytes = vec![b'x'; 1024];
    let pair =
        in_turn(effort(5000, 15), || completed("read_file", r#"{"path":"small"}"#), || echo.round(&bytes));
    report.rows.push(Row::times("read_file 1 KB / echo between processes", pair).at_most(Figure::P50, 2.0));
    let pair = in_turn(
        effort(100, 10),
        || completed("read_file", r#"{"path":"large","offset":400000}"#),
        || drop(std::fs::read(workspace.join("large")).unwrap()),
    );
    report.rows.push(Row::times("read_file in 10 MB / read(2)", pair));
    let pair = in_turn(
        effort(200, 10),
        || completed("write_file", r#"{"path":"written","content":"x"}"#),
        || std::fs::write(workspace.join("bare"), b"x").unwrap(),
    );
    report.rows.push(Row::times("write_file / write(2)", pair));
    let pair = in_turn(
        effort(50, 10),
        || completed("list_dir", r#"{"path":"many"}"#),
        || assert_eq!(std::fs::read_dir(&many).unwrap().count(), 10_000),
    );
    report.rows.push(Row::times("list_dir of 10,000 / readdir(3)", pair));
}

/// Name, command line, rounds, seconds, bar.
type Task = (&'static str, &'static str, usize, u64, f64);

const TASKS: [Task; 6] = [
    ("git status, 1,000 files", "git -C repository status --short > /dev/null", 100, 10, 1.05),
    ("python one-liner", "/usr/bin/python3 -c 'print(sum(range(1000)))' > /dev/null", 100, 10, 1.05),
    ("gcc hello world", "gcc hello.c -o hello", 40, 12, 1.05),
    ("grep over 100 MB", "grep -c needle hay > /dev/null || true", 30, 12, 1.05),
    (
        "10,000 small files",
        "rm -rf d && mkdir d && cd d && for i in {1..10000}; do : > $i; done",
        20,
        25,
        1.15,
    ),
    ("output of 100 MB", "head -c 100000000 /dev/zero | tr '\\0' x", 15, 20, f64::NAN),
];

/// Ordinary work inside and outside.
pub fn ordinary(report: &mut Report) {
    let warm = Warm::start();
    prepare(&warm, &warm.fixture.workspace());
    for (name, command, rounds, seconds, bar) in TASKS {
        let pair = in_turn(effort(rounds, seconds), || warm.bash(command), || warm.bare(command));
        let row = Row::times(format!("{name} / bare"), pair);
        report.rows.push(if bar.is_nan() { row } else { row.at_most(Figure::P50, bar) });
    }
}

fn prepare(warm: &Warm, workspace: &Path) {
    std::fs::write(workspace.join("hello.c"), "#include <stdio.h>\nint main(void){puts(\"hi\");}\n").unwrap();
    let line = "a line without anything in it, of fifty bytes or so\n";
    std::fs::write(workspace.join("hay"), line.repeat(100_000_000 / line.len())).unwrap();
    warm.bash(
        "mkdir repository && cd repository && git init -q . && for i in {1..1000}; do echo $i > f$i; done && git add . && \
         git commit -qm all",
    );
}

/// The same empty command line elsewhere.
pub fn rivals(report: &mut Report) {
    let warm = Warm::start();
    let (rivals, remarks) = rivals::all(&warm.fixture.workspace());
    report.remarks.extend(remarks);
    for mut rival in rivals {
        let name = rival.name;
        let slow = alone(effort(3, 10), || rival.run(":").unwrap()).quantile(0.5) > 100_000.0;
        let effort = if slow { effort(15, 12) } else { effort(300, 12) };
        let mut times =
            sides_in_turn(effort, &mut [Box::new(|| warm.bash(":")), Box::new(|| rival.run(":").unwrap())]);
        let theirs = times.pop().unwrap();
        let row = Row::times(format!("bash -c : / {name}"), (times.pop().unwrap(), theirs));
        report.rows.push(if name == "bubblewrap" { row.at_most(Figure::P50, 0.25) } else { row });
    }
}
