//! What the wall costs, as ratios: two sides in turn in the same run, on whatever machine this is.
//!
//! `cargo build --release --bins && cargo bench -p oxibot-tests --bench speed [-- PART...]`
//!
//! Measures the programs of `target/release`. Prints one table; writes it as JSON, as the page and as a chart below
//! `packaging/doc/` when all parts were run, else below `target/bench/`. A part that fails is a remark, not an end. Ends
//! within about thirteen minutes: every measurement has a limit of time. `OXIBOT_BENCH_QUICK=1` takes a fifth of the rounds,
//! `OXIBOT_BENCH_STRICT=1` fails when a bar is missed. Not a test: on a busy machine the figures say little, which is what
//! the spread is for.

mod growth;
mod guard;
mod load;
mod measure;
mod report;
mod resting;
mod rivals;
mod sides;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use report::Report;

/// Measures one thing and adds its rows.
type Part = fn(&mut Report);

/// In the order of the table. The quick ones and those with bars come first.
const PARTS: [(&str, Part); 14] = [
    ("shell", work::shell),
    ("files", work::files),
    ("verdicts", guard::verdicts),
    ("redactor", guard::redactor),
    ("start", resting::start),
    ("work", work::ordinary),
    ("throughput", load::throughput),
    ("neighbour", load::neighbour),
    ("rivals", work::rivals),
    ("growth", growth::growth),
    ("flood", guard::flood),
    ("audit", guard::audit),
    ("idle", resting::idle),
    ("memory", resting::after_many_calls),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.iter().any(|argument| argument == "--echo") {
        return sides::echo();
    }
    let mut report = Report { machine: machine(), ..Report::default() };
    for (name, part) in PARTS {
        if !arguments.is_empty() && !arguments.iter().any(|wanted| wanted == name) {
            continue;
        }
        let begun = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| part(&mut report))) {
            let cause = panic.downcast_ref::<String>().map(String::as_str);
            let cause = cause.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            let cause: String = cause.chars().take(300).collect();
            report.remarks.push(format!("part {name} was cut short: {cause}"));
        }
        eprintln!("{name}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    report.machine = format!("{}, load {} at the end", report.machine, load());
    println!("{}", report.table());
    let directory = results(arguments.is_empty() && !quick());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("speed.json"), report.json()).unwrap();
    std::fs::write(directory.join("speed.svg"), report.chart()).unwrap();
    write_page(&directory, &report);
    println!("written to {}", directory.display());
    let missed = report.missed();
    if missed > 0 {
        eprintln!("{missed} bars missed");
        if std::env::var_os("OXIBOT_BENCH_STRICT").is_some_and(|strict| strict == "1") {
            std::process::exit(1);
        }
    }
}

/// A fifth of the rounds, to see whether it works.
fn quick() -> bool {
    std::env::var_os("OXIBOT_BENCH_QUICK").is_some_and(|quick| quick == "1")
}

fn results(whole: bool) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join(if whole { "packaging/doc" } else { "target/bench" })
}

/// The page keeps its words; what lies between the two marks is replaced.
fn write_page(directory: &Path, report: &Report) {
    const BEGIN: &str = "<!-- table: begin -->\n";
    const END: &str = "<!-- table: end -->";
    let page = directory.join("speed.md");
    let text = std::fs::read_to_string(&page).unwrap_or_else(|_| format!("# Speed\n\n{BEGIN}{END}\n"));
    let parts = text.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let Some((head, tail)) = parts else {
        eprintln!("{} has lost the marks of its table and is left alone", page.display());
        return;
    };
    std::fs::write(&page, format!("{head}{BEGIN}{}{END}{tail}", report.markdown())).unwrap();
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let day = std::process::Command::new("date").arg("-I").output();
    let day = day.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!(
        "{model}, {processors} processors, Linux {}, level full, release build, {day}, load {} at the start",
        kernel.trim(),
        load()
    )
}
