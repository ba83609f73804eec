//! Attacks on the terminal of whoever watches: typing into it, and control sequences in what a program prints.
//!
//! Everything runs on a real pseudo-terminal made by `script(1)`; the control runs the same program there without a wall.

use std::process::{Command, Stdio};

use oxibot_tests::fixture::{Fixture, binary, skip};
use serde_json::json;

/// Runs a shell line on a terminal of its own; what came out of the terminal.
fn on_terminal(fixture: &Fixture, line: &str) -> Vec<u8> {
    let mut child = Command::new("script")
        .args(["-qec", line, "/dev/null"])
        .current_dir(fixture.workspace())
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "C.UTF-8")
        .env("TERM", "xterm-256color")
        .env("HOME", fixture.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    output.stdout
}

fn walled(fixture: &Fixture, program: &str) -> String {
    format!(
        "{} --home {} sandbox run --workspace {} -- {program}",
        binary("oxibot").display(),
        fixture.home().display(),
        fixture.workspace().display()
    )
}

/// Sequences that do something to a terminal or its user, and the bytes that must not reach it.
const SEQUENCES: &[(&str, &str, &[u8])] = &[
    ("clipboard", r"\033]52;c;Y3VybCBldmlsfHNo\007", b"\x1b]52"),
    ("clipboard-long-end", r"\033]52;c;Y3VybCBldmlsfHNo\033\134", b"\x1b]52"),
    ("title", r"\033]0;pwned\007", b"\x1b]0"),
    ("hyperlink", r"\033]8;;http://evil\007click\033]8;;\007", b"\x1b]8"),
    ("report-device", r"\033[c\033[>c\033[6n\033[5n", b"\x1b[6n"),
    ("report-title", r"\033[21t", b"\x1b[21t"),
    ("device-control", r"\033P+q544e\033\134", b"\x1bP"),
    ("request-setting", r"\033P\044q\042p\033\134", b"\x1bP"),
    ("application-command", r"\033_Gf=100;AAAA\033\134", b"\x1b_"),
    ("privacy-message", r"\033^x\033\134", b"\x1b^"),
    ("alternate-screen", r"\033[?1049h\033[2J\033[H", b"\x1b[?1049h"),
    ("mouse-reporting", r"\033[?1003h\033[?2004h", b"\x1b[?1003h"),
    ("clear", r"\033[2J\033[3J\033c", b"\x1bc"),
    ("conceal", r"\033[8mhidden\033[0m", b"\x1b[8m"),
    ("eight-bit-control", r"\233\062\112", b"\x9b2J"),
    ("eight-bit-command", r"\23552;c;eA==\234", b"\x9d52"),
    ("unicode-control", r"\302\23352;c;eA==", b"\xc2\x9b"),
    ("character-set", r"\033(0\016lqk", b"\x1b(0"),
    ("enquiry", r"\005", b"\x05"),
    ("split-sequence", r"\033]5\033]52;c;eA==\007", b"\x1b]52"),
];

#[test]
fn sequences_do_not_reach_the_terminal() {
    let fixture = Fixture::new();
    for (name, sequence, forbidden) in SEQUENCES {
        let program = format!("bash -c 'printf \"before{sequence}after\"'");
        let plain = on_terminal(&fixture, &program);
        assert!(contains(&plain, forbidden), "{name}: the attack is broken: {}", plain.escape_ascii());
        let seen = on_terminal(&fixture, &walled(&fixture, &program));
        assert!(contains(&seen, b"before") && contains(&seen, b"after"), "{name}: {}", seen.escape_ascii());
        assert!(!contains(&seen, forbidden), "{name}: {}", seen.escape_ascii());
        assert!(!contains(&seen, b"\x1b"), "{name}: an escape got through: {}", seen.escape_ascii());
    }
}

#[test]
fn sequences_on_standard_error_or_byte_by_byte_do_not_reach_the_terminal() {
    let fixture = Fixture::new();
    for program in [
        r#"bash -c 'printf "\033]52;c;eA==\007" >&2'"#,
        r#"bash -c 'for c in "\033" "]" 5 2 ";" c ";" "\007"; do printf "$c"; sleep 0.02; done'"#,
        r#"bash -c 'printf "\033"; sleep 0.1; printf "]52;c;eA==" >&2'"#,
        r#"bash -c 'printf "\302"; sleep 0.1; printf "\233"'"#,
    ] {
        let seen = on_terminal(&fixture, &walled(&fixture, program));
        assert!(
            !contains(&seen, b"\x1b") && !contains(&seen, b"\xc2\x9b"),
            "{program}: {}",
            seen.escape_ascii()
        );
    }
}

#[test]
fn tool_results_carry_no_sequences_wherever_they_go() {
    let fixture = Fixture::new();
    for (name, sequence, _) in SEQUENCES {
        let command = format!("printf 'before{}after'", sequence);
        let (result, _) = fixture.tool("bash", &json!({ "command": command }));
        let output = result["output"].as_str().unwrap();
        assert!(output.contains("before") && output.contains("after"), "{name}: {result}");
        let control = output.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        assert_eq!(control, None, "{name}: {output:?}");
    }
    // Files and names too, on a terminal.
    std::fs::write(fixture.workspace().join("file"), b"before\x1b]52;c;eA==\x07after").unwrap();
    std::fs::write(fixture.workspace().join("na\x1b]0;x\x07me"), "x").unwrap();
    for (tool, arguments) in [
        ("read_file", json!({"path": "file"})),
        ("list_dir", json!({"path": "."})),
        ("grep", json!({"pattern": "before"})),
        ("find_files", json!({"pattern": "*"})),
        ("read_file", json!({"path": "none\u{1b}]52;c;eA==\u{7}"})),
        ("no\u{1b}]52;c;eA==\u{7}tool", json!({})),
    ] {
        let line = format!(
            "{} --home {} tool call '{tool}' '{arguments}' --workspace {}",
            binary("oxibot").display(),
            fixture.home().display(),
            fixture.workspace().display()
        );
        let seen = on_terminal(&fixture, &line);
        assert!(!contains(&seen, b"\x1b]"), "{tool} {arguments}: {}", seen.escape_ascii());
        assert!(!contains(&seen, b"\x07"), "{tool} {arguments}: {}", seen.escape_ascii());
    }
}

/// Types a line into every terminal it can find.
const TYPE: &str = r#"
import fcntl, os
fds = [0, 1, 2]
for name in ("/dev/tty", "/dev/pts/ptmx", "/proc/self/fd/0", os.readlink("/proc/self/fd/0"), os.readlink("/proc/self/fd/1")):
    try: fds.append(os.open(name, os.O_RDWR | os.O_NOCTTY))
    except OSError as error: print(name, error)
for fd in fds:
    for request in (0x5412, 0x5412 | 1 << 40):
        try:
            for c in b"TYPED\n": fcntl.ioctl(fd, request & 0xffffffff if request < 1 << 32 else 0x5412, bytes([c]))
            raise SystemExit
        except OSError as error: print(fd, error)
"#;

#[test]
fn nothing_is_typed_into_the_terminal() {
    let fixture = Fixture::new();
    std::fs::write(fixture.workspace().join("type.py"), TYPE).unwrap();
    let reading = |program: &str| format!("bash -c '{program}; read -t 1 line; echo \"READ=$line.\"'");
    let plain = on_terminal(&fixture, &reading("/usr/bin/python3 type.py"));
    if !contains(&plain, b"READ=TYPED") {
        return skip("nothing_is_typed_into_the_terminal", "this kernel lets nobody type into a terminal");
    }
    let seen = on_terminal(&fixture, &reading(&walled(&fixture, "/usr/bin/python3 type.py")));
    assert!(contains(&seen, b"READ="), "{}", seen.escape_ascii());
    assert!(!contains(&seen, b"READ=TYPED"), "IT WORKED: {}", seen.escape_ascii());
}

#[test]
fn a_call_on_a_terminal_has_none_and_cannot_change_it() {
    let fixture = Fixture::new();
    let probe = r"import os, termios, sys
for fd in (0, 1, 2):
    if os.isatty(fd): print('GOT-THROUGH', fd)
    try: termios.tcgetattr(fd); print('GOT-THROUGH', fd)
    except termios.error: pass
try: os.open('/dev/tty', os.O_RDWR); print('GOT-THROUGH tty')
except OSError: pass
print('probed')
";
    std::fs::write(fixture.workspace().join("probe.py"), probe).unwrap();
    let plain = on_terminal(&fixture, "/usr/bin/python3 probe.py");
    assert!(contains(&plain, b"GOT-THROUGH"), "the attack is broken: {}", plain.escape_ascii());
    let seen = on_terminal(&fixture, &walled(&fixture, "/usr/bin/python3 probe.py"));
    assert!(contains(&seen, b"probed") && !contains(&seen, b"GOT-THROUGH"), "{}", seen.escape_ascii());
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
