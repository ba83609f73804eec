//! `oxibot tool call` as others script against it: the JSON object, the exit status, each tool once, each outcome once.

use oxibot_tests::fixture::{Fixture, describe};
use serde_json::{Value, json};

const KEYS: [&str; 14] = [
    "call_id",
    "denial",
    "duration_ms",
    "exit_code",
    "level",
    "outcome",
    "output",
    "proven",
    "signal",
    "tool",
    "truncated",
    "usage",
    "violations",
    "notes",
];

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[test]
fn result_object_has_exactly_the_documented_keys() {
    let fixture = Fixture::new();
    let (result, status) = fixture.tool("bash", &json!({"command": "echo hi"}));
    let mut expected: Vec<&str> = KEYS.into_iter().filter(|key| *key != "notes").collect();
    expected.sort_unstable();
    let mut found = keys(&result);
    found.sort_unstable();
    assert_eq!(found, expected, "{result}");
    assert_eq!(status, Some(0));
    assert_eq!(result["outcome"], "completed");
    assert_eq!(result["exit_code"], 0);
    assert_eq!(result["output"], "hi\n");
    assert_eq!(result["tool"], "bash");
    assert_eq!(result["truncated"], Value::Null);
    assert_eq!(result["denial"], Value::Null);
    assert!(result["usage"]["max_rss_kb"].as_u64().unwrap() > 0, "{result}");
}

#[test]
fn exit_status_of_the_command_does_not_change_ours() {
    let fixture = Fixture::new();
    let (result, status) = fixture.tool("bash", &json!({"command": "exit 7"}));
    assert_eq!((result["outcome"].as_str(), result["exit_code"].as_i64()), (Some("completed"), Some(7)));
    assert_eq!(status, Some(0));
}

#[test]
fn exec_is_an_alias_of_bash() {
    let fixture = Fixture::new();
    let (result, _) = fixture.tool("exec", &json!({"command": "pwd"}));
    assert_eq!(result["tool"], "bash");
    assert_eq!(result["output"], format!("{}\n", fixture.workspace().display()));
}

#[test]
fn both_streams_come_in_the_order_written() {
    let fixture = Fixture::new();
    let (result, _) = fixture.tool("bash", &json!({"command": "echo 1; echo 2 >&2; echo 3; echo 4 >&2"}));
    assert_eq!(result["output"], "1\n2\n3\n4\n");
}

#[test]
fn large_output_is_cut_in_the_middle_and_kept_whole_in_a_file() {
    let fixture = Fixture::new();
    let (result, _) = fixture.tool("bash", &json!({"command": "seq 1 100000"}));
    let output = result["output"].as_str().unwrap();
    assert!(output.len() <= 10_240, "{} bytes", output.len());
    assert!(
        output.starts_with("1\n2\n") && output.ends_with("99999\n100000\n"),
        "first and last part are kept"
    );
    assert_eq!(result["truncated"]["total_bytes"], 588_895);
    let omitted = result["truncated"]["omitted_bytes"].as_u64().unwrap();
    assert!(omitted > 570_000 && omitted < 588_895, "{omitted}");
    let file = result["truncated"]["file"].as_str().unwrap();
    let kept = std::fs::read_to_string(fixture.workspace().join(file)).unwrap();
    assert_eq!(kept.len(), 588_895);
    let ignore = fixture.workspace().join(".oxibot-output/.gitignore");
    assert_eq!(std::fs::read_to_string(ignore).unwrap().trim(), "*");
}

#[test]
fn output_that_is_not_text_becomes_text() {
    let fixture = Fixture::new();
    let (result, _) = fixture.tool("bash", &json!({"command": r"printf 'a\xffb\033[31mred\007\n'"}));
    let output = result["output"].as_str().unwrap();
    assert!(output.contains("a\u{fffd}b"), "{output:?}");
    assert!(!output.contains('\u{1b}') && !output.contains('\u{7}'), "{output:?}");
}

#[test]
fn deadline_ends_everything_and_is_told_apart() {
    let fixture = Fixture::new();
    let (result, status) = fixture.tool(
        "bash",
        &json!({"command": "setsid sleep 97.31 & (sleep 97.31 &) ; sleep 97.31", "timeout_s": 1}),
    );
    assert_eq!(result["outcome"], "timed_out", "{result}");
    assert_eq!(status, Some(4));
    assert!(oxibot_tests::processes::anywhere("sleep 97.31").is_empty(), "nothing outlives its call");
    assert!(result["duration_ms"].as_u64().unwrap() < 5_000, "{result}");
}

#[test]
fn signal_and_limit_are_told_apart_from_exit_codes() {
    let fixture = Fixture::new();
    let (result, status) = fixture.tool("bash", &json!({"command": "kill -KILL $$"}));
    assert_eq!(
        (result["outcome"].as_str(), result["signal"].as_i64()),
        (Some("killed"), Some(9)),
        "{result}"
    );
    assert_eq!(status, Some(5));
    let (result, status) = fixture.tool("bash", &json!({"command": "exit 137"}));
    assert_eq!((result["outcome"].as_str(), result["exit_code"].as_i64()), (Some("completed"), Some(137)));
    assert_eq!(status, Some(0));
}

#[test]
fn background_process_does_not_hold_the_reply() {
    let fixture = Fixture::new();
    let (result, _) = fixture.tool("bash", &json!({"command": "sleep 98.41 & echo done"}));
    assert_eq!(result["outcome"], "completed", "{result}");
    assert!(result["duration_ms"].as_u64().unwrap() < 10_000);
    assert!(oxibot_tests::processes::anywhere("sleep 98.41").is_empty());
}

#[test]
fn file_tools_work_and_write_where_they_say() {
    let fixture = Fixture::new();
    let (result, status) =
        fixture.tool("write_file", &json!({"path": "a/b/notes.txt", "content": "one\ntwo\nthree\n"}));
    assert_eq!((result["outcome"].as_str(), status), (Some("completed"), Some(0)), "{result}");
    let path = fixture.workspace().join("a/b/notes.txt");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");

    let (result, _) = fixture.tool("read_file", &json!({"path": "a/b/notes.txt", "offset": 2, "limit": 1}));
    assert!(result["output"].as_str().unwrap().starts_with("two\n"), "{result}");
    assert!(result["output"].as_str().unwrap().contains("next offset: 3"), "{result}");

    let (result, _) = fixture
        .tool("edit_file", &json!({"path": path.display().to_string(), "old_text": "two", "new_text": "2"}));
    assert_eq!(result["outcome"], "completed", "{result}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n2\nthree\n");

    let (result, status) =
        fixture.tool("edit_file", &json!({"path": "a/b/notes.txt", "old_text": "e", "new_text": "E"}));
    assert_eq!(
        (result["outcome"].as_str(), status),
        (Some("failed"), Some(1)),
        "an ambiguous match is refused"
    );

    let (result, _) = fixture.tool("list_dir", &json!({"path": ".", "depth": 3}));
    assert!(result["output"].as_str().unwrap().contains("notes.txt"), "{result}");
    let (result, _) = fixture.tool("grep", &json!({"pattern": "thr.e"}));
    assert!(result["output"].as_str().unwrap().contains("a/b/notes.txt:3:"), "{result}");
    let (result, _) = fixture.tool("find_files", &json!({"pattern": "*.txt"}));
    assert!(result["output"].as_str().unwrap().contains("a/b/notes.txt"), "{result}");
}

#[test]
fn paths_that_leave_the_workspace_are_denied() {
    let fixture = Fixture::new();
    std::fs::write(fixture.root().join("secret"), "canary-7731").unwrap();
    std::os::unix::fs::symlink("../secret", fixture.workspace().join("link")).unwrap();
    std::fs::create_dir(fixture.workspace().join("x")).unwrap();
    let absolute = fixture.root().join("secret").display().to_string();
    for path in
        ["../secret", "link", "/etc/passwd", absolute.as_str(), "/proc/self/environ", "x/../../secret"]
    {
        let (result, status) = fixture.tool("read_file", &json!({ "path": path }));
        assert_eq!((result["outcome"].as_str(), status), (Some("denied"), Some(3)), "{path}: {result}");
        assert!(result["denial"]["rule"].as_str().unwrap().starts_with("path."), "{result}");
        assert!(!result["denial"]["hint"].as_str().unwrap().is_empty(), "{result}");
        assert!(!result.to_string().contains("canary-7731"));
    }
    let (result, _) = fixture.tool("write_file", &json!({"path": "link", "content": "x"}));
    assert_eq!(result["outcome"], "denied", "{result}");
    assert_eq!(std::fs::read_to_string(fixture.root().join("secret")).unwrap(), "canary-7731");
    // The control: the same content inside is readable.
    std::fs::write(fixture.workspace().join("inside"), "canary-7731").unwrap();
    let (result, _) = fixture.tool("read_file", &json!({"path": "inside"}));
    assert!(result["output"].as_str().unwrap().contains("canary-7731"));
}

#[test]
fn bad_calls_say_what_to_do_and_are_one_object() {
    let fixture = Fixture::new();
    for (name, arguments, needle) in [
        ("bsh", json!({"command": "true"}), "bash"),
        ("bash", json!({}), "command"),
        ("bash", json!({"command": 7}), "command"),
        ("bash", json!({"command": "true", "comand": "x"}), "comand"),
        ("bash", json!({"command": "x".repeat(102_401)}), "write the script to a file"),
        ("read_file", json!({"path": "a\u{0}b"}), "NUL"),
        ("read_file", json!({"path": "a".repeat(5_000)}), "long"),
        ("read_file", json!({"path": "missing"}), "missing"),
        ("read_file", json!({"path": "."}), "director"),
    ] {
        let (result, status) = fixture.tool(name, &arguments);
        assert_eq!((result["outcome"].as_str(), status), (Some("failed"), Some(1)), "{name}: {result}");
        assert!(result["output"].as_str().unwrap().contains(needle), "{name}: {needle}: {result}");
    }
}

#[test]
fn a_command_of_three_megabytes_is_one_clear_error() {
    let fixture = Fixture::new();
    let arguments = json!({"command": "#".repeat(3_000_000)}).to_string();
    let mut child = fixture
        .oxibot()
        .args(["tool", "call", "bash", "-", "--json", "--workspace"])
        .arg(fixture.workspace())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut stdin, arguments.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let result: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    assert_eq!(result["outcome"], "failed", "{result}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn arguments_that_are_not_json_are_one_object_too() {
    let fixture = Fixture::new();
    for text in ["{", "[]", "7", "\"x\"", ""] {
        let output = fixture
            .oxibot()
            .args(["tool", "call", "bash", text, "--json", "--workspace"])
            .arg(fixture.workspace())
            .output()
            .unwrap();
        let result: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
        assert_eq!(result["outcome"], "failed", "{text}: {result}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    }
}

#[test]
fn tool_list_names_every_tool_once() {
    let fixture = Fixture::new();
    let output =
        fixture.oxibot().args(["tool", "list", "--json", "--workspace"]).arg(fixture.workspace()).output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        _ => fixture.oxibot().args(["tool", "list", "--json"]).output().unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in [
        "bash",
        "read_file",
        "write_file",
        "edit_file",
        "list_dir",
        "grep",
        "find_files",
        "web_get",
        "web_search",
    ] {
        assert!(text.contains(&format!("\"{name}\"")), "{}", describe(&output));
    }
}
