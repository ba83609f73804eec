//! Every way a log can differ from what was written, and what a killed process leaves, which is none of them.

use std::io::Write;

use super::*;

struct Scene {
    home: tempfile::TempDir,
    key: AuditKey,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = AuditKey::open(home.path()).unwrap();
        std::fs::create_dir(home.path().join("audit/rotated")).unwrap();
        Self { home, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("audit").join(name)
    }

    /// Writes a chain as a supervisor does, in as many parts as there are lists of events.
    fn chain(&self, name: &str, parts: &[&[&str]]) {
        let (heads, trouble) = heads::name_earlier(self.home.path(), &self.key, name);
        assert_eq!(trouble, None);
        let mut chain = Chain::begin(&self.key, name);
        for (index, events) in parts.iter().enumerate() {
            let file = if index == 0 {
                format!("{name}.jsonl")
            } else {
                format!("rotated/{name}.{}.jsonl", index + 1)
            };
            let mut file = File::create(self.path(&file)).unwrap();
            for event in *events {
                let body =
                    serde_json::json!({ "heads": if *event == "open" { heads.clone() } else { Vec::new() } });
                file.write_all(&chain.seal("t".into(), event, body).unwrap()).unwrap();
            }
        }
    }

    fn verify(&self) -> Report {
        verify(self.home.path(), &self.key, &[]).unwrap()
    }

    fn bad(&self) -> String {
        let finding = self.verify().bad.unwrap();
        format!("{}:{}: {}", finding.file, finding.line.unwrap_or(0), finding.why)
    }
}

const WHOLE: &[&str] = &["open", "a", "b", "stop"];

#[test]
fn whole_log_is_whole() {
    let scene = Scene::new();
    scene.chain("a", &[WHOLE]);
    scene.chain("b", &[&["open", "x", "rotate"], &["y", "rotate"], &["stop"]]);
    let report = scene.verify();
    assert_eq!(report, Report { chains: 2, records: 10, ..Report::default() });
}

#[test]
fn cut_at_every_byte_it_is_torn_or_short_and_never_bad() {
    let scene = Scene::new();
    scene.chain("a", &[WHOLE]);
    let whole = std::fs::read(scene.path("a.jsonl")).unwrap();
    for length in 0..whole.len() {
        std::fs::write(scene.path("a.jsonl"), &whole[..length]).unwrap();
        let report = scene.verify();
        assert_eq!(report.bad, None, "{length}");
        let at_end_of_line = length == 0 || whole[length - 1] == b'\n';
        assert_eq!(report.torn.is_empty(), at_end_of_line, "{length}");
        assert_eq!(report.unfinished, ["a"], "{length}");
        let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(report.records, lines, "{length}: every whole record counts");
    }
}

#[test]
fn cut_after_it_was_named_is_found_at_every_byte() {
    let scene = Scene::new();
    scene.chain("a", &[WHOLE]);
    scene.chain("b", &[WHOLE]);
    let whole = std::fs::read(scene.path("a.jsonl")).unwrap();
    for length in 0..whole.len() - 1 {
        std::fs::write(scene.path("a.jsonl"), &whole[..length]).unwrap();
        assert!(scene.bad().contains("its end was cut off"), "{length}: {}", scene.bad());
    }
    std::fs::remove_file(scene.path("a.jsonl")).unwrap();
    assert_eq!(scene.bad(), "a.jsonl:0: it is missing, and the chain b names it");
}

#[test]
fn every_changed_byte_is_found_and_its_record_named() {
    let scene = Scene::new();
    scene.chain("a", &[WHOLE]);
    let whole = std::fs::read(scene.path("a.jsonl")).unwrap();
    let begin = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let length = whole[begin..].iter().position(|byte| *byte == b'\n').unwrap();
    for at in begin..begin + length {
        let mut changed = whole.clone();
        changed[at] ^= 0x01;
        std::fs::write(scene.path("a.jsonl"), &changed).unwrap();
        let bad = scene.bad();
        assert!(bad.starts_with("a.jsonl:2: "), "byte {at}: {bad}");
    }
}

#[test]
fn tail_cut_off_before_a_rotation_is_found() {
    let scene = Scene::new();
    scene.chain("a", &[&["open", "x", "rotate"], &["y", "stop"]]);
    let whole = std::fs::read_to_string(scene.path("a.jsonl")).unwrap();
    let short: String = whole.split_inclusive('\n').take(2).collect();
    std::fs::write(scene.path("a.jsonl"), &short).unwrap();
    assert!(scene.bad().starts_with("a.2.jsonl:1: "), "{}", scene.bad());
    std::fs::write(scene.path("a.jsonl"), &whole.as_bytes()[..whole.len() - 5]).unwrap();
    assert!(scene.bad().contains("a.jsonl:3: the line is torn, and the chain goes on"), "{}", scene.bad());
    std::fs::write(scene.path("a.jsonl"), &whole).unwrap();
    assert_eq!(scene.verify().bad, None, "the control");
}

#[test]
fn kill_between_a_new_file_and_its_announcement_is_no_fault() {
    let scene = Scene::new();
    scene.chain("a", &[&["open", "x"], &[]]);
    let report = scene.verify();
    assert_eq!((report.bad, report.records), (None, 2));
}

#[test]
fn chain_that_was_never_named_and_is_gone_is_missed() {
    let scene = Scene::new();
    scene.chain("a", &[WHOLE]);
    std::fs::remove_file(scene.path("a.jsonl")).unwrap();
    scene.chain("b", &[WHOLE]);
    assert_eq!(scene.bad(), "a.jsonl:0: it is missing, and the list of open chains names it");
}

#[test]
fn journal_tells_a_log_that_was_cut_or_written_anew() {
    let scene = Scene::new();
    scene.chain("a", &[WHOLE]);
    let tail = place::tail(&place::chains(&scene.path("")).unwrap()[0]).unwrap();
    let anchor = |seq, mac: &str| Anchor { chain: "a".into(), seq, mac: mac.into() };
    let verify = |anchor| verify(scene.home.path(), &scene.key, &[anchor]).unwrap();
    let report = verify(anchor(tail.seq, &tail.mac));
    assert_eq!((report.bad, report.anchors), (None, 1), "the control");
    let cut = verify(anchor(tail.seq + 1, &tail.mac));
    assert!(cut.bad.unwrap().why.contains("cut off") && cut.anchors == 0, "what is missing does not agree");
    assert!(verify(anchor(tail.seq, &"00".repeat(32))).bad.unwrap().why.contains("written anew"));
    let other = Anchor { chain: "elsewhere".into(), seq: 1, mac: "00".into() };
    assert_eq!(verify(other).bad, None, "it is of another home");
}

#[test]
fn file_of_before_there_was_a_chain_is_told_and_no_fault() {
    let scene = Scene::new();
    std::fs::write(scene.path("0.jsonl"), "{\"time\":\"t\",\"event\":\"start\"}\n").unwrap();
    scene.chain("a", &[WHOLE]);
    let report = scene.verify();
    assert_eq!((report.bad, report.unchained), (None, vec!["0.jsonl".to_owned()]));
}

#[test]
fn another_key_verifies_nothing() {
    let scene = Scene::new();
    scene.chain("a", &[WHOLE]);
    let other = AuditKey::of([9; 32]);
    let finding = verify(scene.home.path(), &other, &[]).unwrap().bad.unwrap();
    assert_eq!(finding.line, Some(1));
}
