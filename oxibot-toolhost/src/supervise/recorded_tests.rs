//! Every way a recorded pass can be wrong: forged, foreign, old, open to others. Each has the right one as its control.

use super::*;
use std::os::unix::fs::PermissionsExt;

struct Scene {
    home: tempfile::TempDir,
    recorded: Recorded,
}

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn later(seconds: u64) -> SystemTime {
    now() + Duration::from_secs(seconds)
}

fn conditions() -> Conditions {
    Conditions {
        boot: "b".into(),
        user: 7,
        kernel: "6.18".into(),
        level: Level::Full,
        landlock_abi: 7,
        configuration: "c".into(),
    }
}

fn scene() -> Scene {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("audit")).unwrap();
    let program = home.path().join("program");
    std::fs::write(&program, "one").unwrap();
    let recorded = Recorded { program, ..Recorded::new(home.path(), AuditKey::of([7; 32])) };
    assert_eq!(recorded.find(&conditions(), now()), Err(NotUsed::None));
    recorded.keep(conditions(), 40, now()).unwrap();
    assert_eq!(recorded.find(&conditions(), now()), Ok(()), "the control");
    Scene { home, recorded }
}

impl Scene {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.recorded.path).unwrap()
    }

    fn put(&self, text: &str) {
        std::fs::write(&self.recorded.path, text).unwrap();
    }

    fn is_ignored(&self, what: &str) {
        let found = self.recorded.find(&conditions(), now());
        assert!(matches!(found, Err(NotUsed::Ignored(_))), "{what}: {found:?}");
    }
}

#[test]
fn pass_of_other_conditions_is_ignored() {
    let scene = scene();
    for (what, other) in [
        ("boot", Conditions { boot: "x".into(), ..conditions() }),
        ("user", Conditions { user: 8, ..conditions() }),
        ("kernel", Conditions { kernel: "6.19".into(), ..conditions() }),
        ("level", Conditions { level: Level::Kernel, ..conditions() }),
        ("level", Conditions { landlock_abi: 8, ..conditions() }),
    ] {
        let Err(NotUsed::Ignored(why)) = scene.recorded.find(&other, now()) else { panic!("{what}") };
        assert!(why.contains(what), "{why}");
    }
    let other = Conditions { configuration: "d".into(), ..conditions() };
    assert_eq!(scene.recorded.find(&other, now()), Err(NotUsed::None), "never attacked, which is no fault");
}

#[test]
fn pass_counts_for_a_day_and_not_before_it_was_made() {
    let scene = scene();
    assert_eq!(scene.recorded.find(&conditions(), later(24 * 3600)), Ok(()));
    assert!(matches!(scene.recorded.find(&conditions(), later(24 * 3600 + 1)), Err(NotUsed::Ignored(_))));
    let before = UNIX_EPOCH + Duration::from_secs(NOW - 1);
    assert!(matches!(scene.recorded.find(&conditions(), before), Err(NotUsed::Ignored(_))));
}

#[test]
fn every_changed_byte_is_noticed() {
    let scene = scene();
    let text = scene.text();
    for at in 0..text.trim_end().len() {
        let mut bytes = text.clone().into_bytes();
        // Another printable character at each place.
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        if let Ok(changed) = String::from_utf8(bytes) {
            scene.put(&changed);
            assert!(scene.recorded.find(&conditions(), now()).is_err(), "byte {at}");
        }
    }
    scene.put(&text);
    assert_eq!(scene.recorded.find(&conditions(), now()), Ok(()), "the control");
}

#[test]
fn lines_of_others_and_no_lines_are_ignored() {
    let scene = scene();
    let text = scene.text();
    let foreign = Recorded {
        key: AuditKey::of([8; 32]),
        program: scene.recorded.program.clone(),
        path: scene.recorded.path.clone(),
    };
    foreign.keep(conditions(), 40, now()).unwrap();
    scene.is_ignored("another key");
    let json = text.split_once(' ').unwrap().1;
    scene.put(&format!(" {json}"));
    scene.is_ignored("no code");
    scene.put(json);
    scene.is_ignored("no code and no place for it");
    scene.put(&format!("zz {json}"));
    scene.is_ignored("a code that is none");
    scene.put("garbage\n");
    scene.is_ignored("garbage");
    scene.put(&format!("garbage\n{text}"));
    scene.is_ignored("garbage before the right line");
    scene.put(&"x".repeat(1 << 20));
    scene.is_ignored("a huge file");
    std::fs::write(&scene.recorded.path, [0xff, 0xfe]).unwrap();
    scene.is_ignored("no text");
}

#[test]
fn file_that_others_could_have_written_is_ignored() {
    let scene = scene();
    for mode in [0o602, 0o620, 0o640, 0o604] {
        std::fs::set_permissions(&scene.recorded.path, std::fs::Permissions::from_mode(mode)).unwrap();
        scene.is_ignored(&format!("mode {mode:o}"));
    }
    std::fs::set_permissions(&scene.recorded.path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(scene.recorded.find(&conditions(), now()), Ok(()), "the control");
    let moved = scene.home.path().join("moved");
    std::fs::rename(&scene.recorded.path, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &scene.recorded.path).unwrap();
    scene.is_ignored("a link");
    if nix::unistd::geteuid().is_root() {
        std::fs::remove_file(&scene.recorded.path).unwrap();
        std::fs::rename(&moved, &scene.recorded.path).unwrap();
        std::os::unix::fs::chown(&scene.recorded.path, Some(12_345), None).unwrap();
        scene.is_ignored("another user's file");
    }
}

#[test]
fn another_toolhost_is_noticed_and_the_same_one_copied_is_not() {
    let scene = scene();
    let program = &scene.recorded.program;
    std::fs::remove_file(program).unwrap();
    std::fs::write(program, "one").unwrap();
    assert_eq!(scene.recorded.find(&conditions(), now()), Ok(()), "the same bytes in a new file");
    std::fs::write(program, "two").unwrap();
    scene.is_ignored("other bytes");
}

#[test]
fn passes_of_several_configurations_are_kept_and_bounded() {
    let scene = scene();
    for number in 0..2 * MOST_LINES {
        let other = Conditions { configuration: number.to_string(), ..conditions() };
        scene.recorded.keep(other.clone(), 40, now()).unwrap();
        assert_eq!(scene.recorded.find(&other, now()), Ok(()));
    }
    assert_eq!(scene.text().lines().count(), MOST_LINES);
    assert_eq!(scene.recorded.path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let names: Vec<_> = std::fs::read_dir(scene.home.path().join("audit")).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "nothing temporary is left: {names:?}");
}
