//! A home, a workspace and the real binaries, for one test.
//!
//! Nothing here decides what is right: tests assert. What a machine lacks is skipped loudly by [`skip`], never quietly.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A temporary home with a workspace inside, and commands that use them.
pub struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    /// A fresh home and workspace below a directory any user may enter.
    ///
    /// # Panics
    /// When the machine refuses to make a directory.
    #[must_use]
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("oxibot-test-").tempdir().expect("temporary directory");
        for name in ["home", "workspace"] {
            let path = root.path().join(name);
            std::fs::create_dir(&path).expect("directory");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("mode");
        }
        Self { root }
    }

    /// The directory that holds everything of this test.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// `$OXIBOT_HOME` of this test.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// The workspace of this test.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.root.path().join("workspace")
    }

    /// The programs in a directory that any user may enter.
    ///
    /// # Panics
    /// When they cannot be copied.
    #[must_use]
    pub fn programs_for_anyone(&self) -> PathBuf {
        let programs = self.root().join("bin");
        std::fs::create_dir(&programs).expect("directory");
        for name in ["oxibot", "oxibot-toolhost", "oxibot-fetch", "sabotage"] {
            // A link where that can be: they are large.
            if std::fs::hard_link(binary(name), programs.join(name)).is_err() {
                std::fs::copy(binary(name), programs.join(name)).expect("copy");
            }
        }
        for directory in [self.root(), &programs] {
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("mode");
        }
        programs
    }

    /// `oxibot --home HOME`, with an environment made from nothing.
    #[must_use]
    pub fn oxibot(&self) -> Command {
        let mut command = Command::new(binary("oxibot"));
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .env("HOME", self.root())
            .arg("--home")
            .arg(self.home())
            .stdin(Stdio::null());
        command
    }

    /// `oxibot tool call NAME ARGUMENTS --json --workspace W`, parsed.
    ///
    /// # Panics
    /// When it prints anything but one JSON object.
    #[must_use]
    pub fn tool(&self, name: &str, arguments: &serde_json::Value) -> (serde_json::Value, Option<i32>) {
        let output = self
            .oxibot()
            .args(["tool", "call", name, &arguments.to_string(), "--json", "--workspace"])
            .arg(self.workspace())
            .output()
            .expect("oxibot starts");
        let value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("not one JSON object: {error}: {}", describe(&output)));
        (value, output.status.code())
    }

    /// `oxibot sandbox run --workspace W -- ARGV`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn sandboxed<S: AsRef<OsStr>>(&self, argv: &[S]) -> Output {
        self.oxibot()
            .args(["sandbox", "run", "--workspace"])
            .arg(self.workspace())
            .arg("--")
            .args(argv)
            .output()
            .expect("oxibot starts")
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

/// The level this kernel gives where namespaces are refused: `kernel` from Linux 6.12 on (Landlock ABI 6), else `reduced`.
/// Give [`ACCEPT_REDUCED`] to what is to start there.
///
/// # Panics
/// When `oxibot sandbox status` does not say which Landlock there is.
#[must_use]
pub fn level_without_namespaces() -> &'static str {
    static LEVEL: std::sync::OnceLock<&str> = std::sync::OnceLock::new();
    LEVEL.get_or_init(|| if landlock_abi() >= 6 { "kernel" } else { "reduced" })
}

/// As environment: `sandbox.require` of a machine whose kernel is old.
pub const ACCEPT_REDUCED: (&str, &str) = ("OXIBOT_SANDBOX__REQUIRE", "reduced");

/// What the toolhost found out about the running kernel.
///
/// # Panics
/// As [`level_without_namespaces`].
#[must_use]
pub fn landlock_abi() -> u64 {
    let fixture = Fixture::new();
    let (name, value) = ACCEPT_REDUCED;
    let output = fixture
        .oxibot()
        .env(name, value)
        .args(["sandbox", "status", "--json"])
        .output()
        .expect("oxibot starts");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["landlock_abi"].as_u64().unwrap_or_else(|| panic!("no status: {}", describe(&output)))
}

/// Path of a binary of this workspace, built by the same test run.
///
/// # Panics
/// When it is missing.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let directory = test.parent().and_then(Path::parent).expect("target directory");
    let path = directory.join(name);
    assert!(path.is_file(), "{} is missing: run cargo build --bins first", path.display());
    path
}

/// Both streams of a finished program, for failure messages.
#[must_use]
pub fn describe(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Says loudly that a test cannot run here, and why; a failure where everything is required.
///
/// # Panics
/// When `OXIBOT_TESTS_REQUIRE_ALL=1`.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {reason}\n");
    assert!(std::env::var_os("OXIBOT_TESTS_REQUIRE_ALL").is_none_or(|value| value != "1"), "{line}");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("OXIBOT_TESTS_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
