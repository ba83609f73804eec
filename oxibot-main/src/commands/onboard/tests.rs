//! Tests of the set-up as a person, a script and an importer meet it.

use std::collections::VecDeque;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use secrecy::ExposeSecret;

use super::*;

/// A provider of strings: answers as told, and notes the keys it was given.
#[derive(Default)]
struct Fake {
    ollama: Option<Vec<String>>,
    answers: VecDeque<Result<Vec<String>, ProbeError>>,
    keys: Vec<Option<String>>,
}

impl ProviderProbe for Fake {
    fn list_models(&mut self, _: &str, provider: &ProviderConfig) -> Result<Vec<String>, ProbeError> {
        self.keys.push(provider.api_key.as_ref().map(|key| key.expose_secret().to_owned()));
        self.answers.pop_front().unwrap_or_else(|| Err(ProbeError::Failed("asked too often".into())))
    }

    fn local_ollama(&mut self) -> Option<Vec<String>> {
        self.ollama.clone()
    }
}

struct Home(tempfile::TempDir);

struct Walk {
    result: Result<Onboarded, OnboardError>,
    said: String,
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("home/config.json")
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn walk(
        &self,
        fake: &mut Fake,
        typed: &str,
        import: Option<&Path>,
        variables: &[(&str, &str)],
        yes: bool,
    ) -> Walk {
        let options = Options { home: Some(self.0.path().join("home")), config: None };
        let environment = Environment::of(variables);
        let request = Request { options: &options, environment: &environment, import, yes };
        let (mut input, mut output) = (typed.as_bytes(), Vec::new());
        let result = run(&request, fake, &mut Console::new(&mut input, &mut output, None));
        Walk { result, said: String::from_utf8(output).unwrap() }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.config()).unwrap()).unwrap()
    }
}

fn models(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_person_chooses_provider_key_and_model() {
    let home = Home::new();
    let refused = ProbeError::KeyRefused("401".into());
    let many: Vec<String> = (0..50).map(|n| format!("vendor/model-{n}")).collect();
    let mut fake = Fake { answers: [Err(refused), Ok(many)].into(), ..Fake::default() };
    let walk = home.walk(&mut fake, "nonsense\nopenrouter\nsk-wrong\n\nsk-right\n", None, &[], false);
    // An empty key costs a try; the list is long, and the input ends before a model is named.
    assert!(matches!(walk.result, Err(OnboardError::Cancelled)), "{}", walk.said);
    assert!(!home.config().exists(), "nothing was written");

    let refused = ProbeError::KeyRefused("401".into());
    let many: Vec<String> = (0..50).map(|n| format!("vendor/model-{n}")).collect();
    let mut fake = Fake { answers: [Err(refused), Ok(many)].into(), ..Fake::default() };
    let walk = home.walk(&mut fake, "openrouter\nsk-wrong\nsk-right\nmodel-4\n2\n", None, &[], false);
    let done = walk.result.unwrap_or_else(|error| panic!("{error}\n{}", walk.said));
    assert_eq!(fake.keys, [Some("sk-wrong".to_owned()), Some("sk-right".to_owned())]);
    assert!(
        walk.said.contains("the key was refused: 401") && walk.said.contains("50 models"),
        "{}",
        walk.said
    );
    assert!(!walk.said.contains("sk-"), "{}", walk.said);
    assert!(done.written);
    assert_eq!(done.loaded.config.agents.defaults.model.as_deref(), Some("openrouter/vendor/model-40"));
    let key = done.loaded.config.providers.get("openrouter").unwrap().api_key.as_ref().unwrap();
    assert_eq!(key.expose_secret(), "sk-right");
    assert_eq!(std::fs::metadata(home.config()).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(home.config().parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        done.templates.iter().map(|t| t.path).collect::<Vec<_>>(),
        ["AGENTS.md", "SOUL.md", "USER.md", "memory/MEMORY.md"]
    );
}

#[test]
fn an_ollama_that_runs_is_offered_first_and_wants_no_key() {
    let home = Home::new();
    let mut fake = Fake { ollama: Some(models(&["llama3.2:latest", "qwen3:4b"])), ..Fake::default() };
    let walk = home.walk(&mut fake, "\n2\n", None, &[], false);
    walk.result.unwrap();
    assert!(walk.said.contains(" 1  ollama (runs on this machine, 2 models)"), "{}", walk.said);
    assert_eq!(
        home.json(),
        serde_json::json!({"agents":{"defaults":{"model":"ollama/qwen3:4b"}},"providers":{"ollama":{}}})
    );
}

#[test]
fn without_network_the_settings_can_be_kept_and_the_model_typed() {
    let home = Home::new();
    let mut fake = Fake { answers: [Err(ProbeError::Failed("no route".into()))].into(), ..Fake::default() };
    let walk = home.walk(&mut fake, "anthropic\nsk-1\ny\nclaude-x\n", None, &[], false);
    walk.result.unwrap();
    assert_eq!(home.json()["agents"]["defaults"]["model"], "anthropic/claude-x");
    assert_eq!(home.json()["providers"]["anthropic"]["apiKey"], "sk-1");
}

#[test]
fn a_service_of_ones_own_is_asked_for_its_address() {
    let home = Home::new();
    let mut fake = Fake { answers: [Ok(models(&["m"]))].into(), ..Fake::default() };
    let walk =
        home.walk(&mut fake, "custom\nnot an address\nhttps://llm.example/v1\n\nm\n", None, &[], false);
    walk.result.unwrap_or_else(|error| panic!("{error}\n{}", walk.said));
    assert!(walk.said.contains("That cannot be used: give an address"), "{}", walk.said);
    assert_eq!(home.json()["providers"]["custom"], serde_json::json!({"apiBase":"https://llm.example/v1"}));
    assert_eq!(fake.keys, [None]);
}

#[test]
fn a_key_goes_into_no_file_when_the_environment_has_it() {
    let home = Home::new();
    let variables = [("OXIBOT_PROVIDERS__XAI__API_KEY", "sk-env")];
    let mut fake = Fake { answers: [Ok(models(&["grok"]))].into(), ..Fake::default() };
    let walk = home.walk(&mut fake, "", None, &variables, true);
    walk.result.unwrap_or_else(|error| panic!("{error}\n{}", walk.said));
    assert_eq!(fake.keys, [Some("sk-env".to_owned())]);
    assert_eq!(
        home.json(),
        serde_json::json!({"agents":{"defaults":{"model":"xai/grok"}},"providers":{"xai":{}}})
    );
}

#[test]
fn yes_asks_nothing_and_says_what_it_lacks() {
    let undecided = |fake: &mut Fake, variables: &[(&str, &str)]| {
        let home = Home::new();
        let error = home.walk(fake, "", None, variables, true).result.unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(!home.config().exists());
        error.hint()
    };
    let hint = undecided(&mut Fake::default(), &[]);
    assert!(hint.contains("OXIBOT_PROVIDERS__OPENROUTER__API_KEY_FILE") && hint.contains("ollama"), "{hint}");
    let keys = [("OXIBOT_PROVIDERS__XAI__API_KEY", "a"), ("OXIBOT_PROVIDERS__GROQ__API_KEY", "b")];
    let hint = undecided(&mut Fake::default(), &keys);
    assert!(
        hint.contains("OXIBOT_AGENTS__DEFAULTS__MODEL") && hint.contains("groq/MODEL, xai/MODEL"),
        "{hint}"
    );
    let mut fake = Fake { answers: [Ok(models(&["a", "b"]))].into(), ..Fake::default() };
    assert!(undecided(&mut fake, &keys[..1]).contains("for example to xai/a"));
    let mut fake = Fake { ollama: Some(vec![]), ..Fake::default() };
    assert!(undecided(&mut fake, &[]).contains("ollama pull"));

    let home = Home::new();
    let mut fake = Fake { ollama: Some(models(&["newest", "older"])), ..Fake::default() };
    home.walk(&mut fake, "", None, &[], true).result.unwrap();
    assert_eq!(home.json()["agents"]["defaults"]["model"], "ollama/newest");

    let home = Home::new();
    let mut fake = Fake { answers: [Err(ProbeError::KeyRefused("401".into()))].into(), ..Fake::default() };
    let error = home.walk(&mut fake, "", None, &keys[..1], true).result.unwrap_err();
    assert_eq!(
        (error.exit_code(), error.to_string().as_str()),
        (1, "cannot use xai: the key was refused: 401")
    );
}

#[test]
fn what_is_there_is_completed_and_never_overwritten() {
    let home = Home::new();
    let text = r#"{"gateway":{"port":9000},"providers":{"ollama":{"apiBase":"http://127.0.0.1:11434/v1"}}}"#;
    let path = home.write("home/config.json", text, 0o600);
    let mut fake = Fake { answers: [Ok(models(&["m"]))].into(), ..Fake::default() };
    let done = home.walk(&mut fake, "", None, &[], true).result.unwrap();
    assert!(done.written);
    let wanted = serde_json::json!({
        "gateway":{"port":9000}, "providers":{"ollama":{"apiBase":"http://127.0.0.1:11434/v1"}},
        "agents":{"defaults":{"model":"ollama/m"}}
    });
    assert_eq!(home.json(), wanted);
    let copy = path.with_file_name("config.json.before-onboard");
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), text);
    assert_eq!(std::fs::metadata(&copy).unwrap().mode() & 0o777, 0o600);

    let before = std::fs::metadata(&path).unwrap().ino();
    let again = home.walk(&mut Fake::default(), "", None, &[], false);
    assert!(!again.result.unwrap().written);
    assert!(again.said.contains("Nothing to change"), "{}", again.said);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
}

#[test]
fn a_bad_file_is_not_completed() {
    let home = Home::new();
    home.write("home/config.json", r#"{"tolls":{}}"#, 0o600);
    let error = home.walk(&mut Fake::default(), "", None, &[], true).result.unwrap_err();
    assert!(matches!(error, OnboardError::Config(_)) && error.exit_code() == 78);
}

#[test]
fn an_older_file_is_imported_and_its_meanings_named() {
    let home = Home::new();
    let old = home.write(
        "old.json",
        r#"{"agents":{"defaults":{"model":"openrouter/x"}},"providers":{"openrouter":{"apiKey":"sk-1"}},
            "channels":{"telegram":{"enabled":true,"token":"t","allowFrom":[]},"qq":{"enabled":true,"appId":"1"}}}"#,
        0o644,
    );
    let walk = home.walk(&mut Fake::default(), "", Some(&old), &[], true);
    let done = walk.result.unwrap_or_else(|error| panic!("{error}\n{}", walk.said));
    for piece in [
        "channels.telegram.allowedUsers: is empty, which admitted everyone before and admits nobody now",
        "channels.qq: dropped",
        "Others may read the old file: chmod 600",
    ] {
        assert!(walk.said.contains(piece), "{piece}: {}", walk.said);
    }
    assert!(!walk.said.contains("sk-1"));
    assert_eq!(done.loaded.config.agents.defaults.model.as_deref(), Some("openrouter/x"));
    assert_eq!(std::fs::metadata(home.config()).unwrap().mode() & 0o777, 0o600);
    assert!(old.exists());

    let again = home.walk(&mut Fake::default(), "", Some(&old), &[], true).result.unwrap_err();
    assert!(
        matches!(again, OnboardError::AlreadyThere { .. })
            && again.hint().starts_with("move it away first: mv")
    );
    let absent = Home::new().walk(&mut Fake::default(), "", Some(Path::new("/nonexistent.json")), &[], true);
    assert!(absent.result.unwrap_err().to_string().contains("there is no such file"));
}

#[test]
fn an_import_without_a_model_goes_on_with_the_questions() {
    let home = Home::new();
    let old = home.write("old.json", r#"{"providers":{"xai":{"apiKey":"sk-1"}}}"#, 0o600);
    let mut fake = Fake { answers: [Ok(models(&["grok"]))].into(), ..Fake::default() };
    let walk = home.walk(&mut fake, "1\n1\n", Some(&old), &[], false);
    walk.result.unwrap_or_else(|error| panic!("{error}\n{}", walk.said));
    assert!(walk.said.contains(" 1  xai (key found)"), "{}", walk.said);
    assert_eq!(home.json()["agents"]["defaults"]["model"], "xai/grok");
    assert_eq!(home.json()["providers"]["xai"]["apiKey"], "sk-1");
}
