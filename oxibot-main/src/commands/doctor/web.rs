//! The web tools: whether there is a program to start for them.

use super::report::Check;
use super::wall::Trouble;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebFacts {
    /// The path of `oxibot-fetch`, opened and checked, or why it is not started.
    pub(super) worker: Result<std::path::PathBuf, Trouble>,
    /// A key for `web_search` is configured.
    pub(super) key: bool,
}

/// Whether `web_get` and `web_search` can work.
pub(super) fn web(facts: &WebFacts) -> Vec<Check> {
    let worker = match &facts.worker {
        Ok(path) => Check::ok("web.worker", format!("{}", path.display())),
        Err(trouble) => Check::warn(
            "web.worker",
            trouble.what.clone(),
            "web_get and web_search fail and say so; everything else works",
            trouble.hint.clone(),
        ),
    };
    let search = if facts.key {
        Check::ok("web.search", "a key is configured; it goes to the search service and nowhere else")
    } else {
        Check::info(
            "web.search",
            "no key is configured",
            "web_search fails with the Brave Search API",
            "set OXIBOT_TOOLS__WEB__SEARCH__API_KEY_FILE, or tools.web.search.provider to searxng with your own baseUrl",
        )
    };
    vec![worker, search]
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn missing_worker_is_a_warning_and_a_missing_key_information() {
        let trouble = Trouble { what: "cannot find oxibot-fetch".to_owned(), hint: "install it".to_owned() };
        let states = |worker, key| -> Vec<State> {
            web(&WebFacts { worker, key }).into_iter().map(|check| check.state).collect()
        };
        assert_eq!(states(Err(trouble), false), [State::Warn, State::Info]);
        assert_eq!(states(Ok("/usr/libexec/oxibot/oxibot-fetch".into()), true), [State::Ok, State::Ok]);
    }
}
