//! Runs a table in a mode and says everything that is wrong with it at once.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::run::{Mode, Ran, Setting};
use super::stage::Stage;
use super::{Attack, BEGUN, Caller, Witness, remains};
use crate::fixture::skip;

/// How long what a call started may take to be gone after it.
const GRACE: Duration = Duration::from_secs(5);
/// What a control prints where this kernel lacks what it attacks, followed by the reason.
const MISSING: &str = "MISSING:";

/// Runs all of them. `OXIBOT_ATTACK=ID[,ID...]` runs only these, and prints what each printed.
///
/// # Panics
/// With a list of everything that went wrong.
pub fn judge(table: &[Attack], configuration: &str, mode: Mode) {
    remains::adopt_orphans();
    let Some(mut setting) = Setting::new(mode, configuration) else { return };
    let cgroups = remains::Cgroups::enter();
    let only = std::env::var("OXIBOT_ATTACK").ok();
    let mut wrong = Vec::new();
    let mut ran = 0;
    for (turn, attack) in table.iter().enumerate() {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|id| id == attack.id)) {
            continue;
        }
        if mode.control() && (attack.no_control.is_some() || (attack.root && mode.user())) {
            continue;
        }
        ran += 1;
        let start = Instant::now();
        let faults = one(&mut setting, attack, turn, only.is_some());
        for fault in &faults {
            let proves = attack.proves;
            let id = attack.id;
            wrong.push(format!("{id} ({proves}): {fault}"));
        }
        if start.elapsed() > Duration::from_millis(1500) || only.is_some() {
            eprintln!("{}: {} ms", attack.id, start.elapsed().as_millis());
        }
    }
    if !mode.control() {
        // A toolhost that stays has taken its cgroups down only once it ends.
        drop(setting);
        let left = settle(|| cgroups.left());
        if !left.is_empty() {
            wrong.push(format!("cgroups were left behind: {left:?}"));
        }
    }
    let mut text = String::new();
    for line in &wrong {
        let _ = writeln!(text, "- {line}");
    }
    assert!(wrong.is_empty(), "{mode:?}: {} faults in {ran} attacks\n{text}", wrong.len());
}

/// What `look` finds and goes on finding.
fn settle<T>(look: impl Fn() -> Vec<T>) -> Vec<T> {
    let start = Instant::now();
    loop {
        let left = look();
        if left.is_empty() || start.elapsed() > GRACE {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn one(setting: &mut Setting, attack: &Attack, turn: usize, loud: bool) -> Vec<String> {
    let mode = setting.mode;
    let mut stage = Stage::new(&setting.fixture, setting.owner, turn);
    let ran = setting.run(attack, &stage);
    if loud {
        eprintln!("--- {} {}\n{}", attack.id, ran.ended, excerpt(&ran.output));
    }
    let patience = if mode.control() { Duration::ZERO } else { GRACE };
    let left = remains::lasting(stage.victim.id(), mode.stays(), patience);
    let mut seen = stage.witnesses(&ran);
    for process in &left {
        seen.push((Witness::Survivor, format!("{} {}", process.pid, process.command)));
    }
    if attack.bound.is_some_and(|too_much| too_much(&ran.taken)) {
        seen.push((Witness::Excess, format!("{:?}", ran.taken)));
    }
    if mode.control() || !left.is_empty() {
        // Nothing of a toolhost that stays: its programs were spared above.
        if !mode.stays() {
            remains::clear(stage.victim.id());
        }
    }
    let faults = if mode.control() {
        control(attack, &ran, &seen)
    } else {
        walled(setting, attack, &ran, seen, &stage)
    };
    // What controls made in shared places is theirs to take away.
    stage.remove_system_v();
    for path in remains::names(&stage.mark) {
        let _ = std::fs::remove_dir_all(&path);
        let _ = std::fs::remove_file(&path);
    }
    drop(stage);
    setting.clear_workspace();
    faults
}

fn control(attack: &Attack, ran: &Ran, seen: &[(Witness, String)]) -> Vec<String> {
    let output = String::from_utf8_lossy(&ran.output);
    if let Some(reason) = output.lines().find_map(|line| line.strip_prefix(MISSING)) {
        skip(attack.id, reason.trim());
        return Vec::new();
    }
    if seen.iter().any(|(witness, _)| *witness == attack.witness) {
        return Vec::new();
    }
    vec![format!(
        "the attack is broken: without the wall it shows no {:?} but {seen:?}; it {} and took {:?}; it printed {}",
        attack.witness,
        ran.ended,
        ran.taken,
        excerpt(&ran.output)
    )]
}

fn walled(
    setting: &mut Setting,
    attack: &Attack,
    ran: &Ran,
    seen: Vec<(Witness, String)>,
    stage: &Stage,
) -> Vec<String> {
    let mut faults = Vec::new();
    let caller = if setting.mode.user() { Caller::Ordinary } else { Caller::Root };
    let tolerated = attack.gap.is_some_and(|gap| gap.open(caller, setting.level));
    if !seen.is_empty() && !tolerated {
        let what: Vec<String> = seen.iter().map(|(witness, what)| format!("{witness:?}: {what}")).collect();
        faults.push(format!(
            "IT WORKED: {}; it {} and printed {}",
            what.join("; "),
            ran.ended,
            excerpt(&ran.output)
        ));
    }
    if !String::from_utf8_lossy(&ran.output).contains(BEGUN) {
        faults.push(format!("it never began: {} {}", ran.ended, excerpt(&ran.output)));
    }
    if ran.hung {
        faults.push(format!("the call was not ended at its deadline; it printed {}", excerpt(&ran.output)));
    }
    for mount in settle(|| remains::mounts(&setting.fixture.root().display().to_string())) {
        faults.push(format!("a mount was left behind: {mount}"));
    }
    for mount in remains::mounts(&stage.mark) {
        faults.push(format!("a mount was left behind: {mount}"));
    }
    if let Err(answer) = setting.answers() {
        faults.push(answer);
    }
    faults
}

fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut short: String = text.chars().take(600).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    format!("{short:?}")
}
