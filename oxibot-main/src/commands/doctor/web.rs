//! The web tools: whether there is a program to start for them, and what of the inside they may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use oxibot_proto::web::Exceptions;

use super::report::Check;
use super::wall::Trouble;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebFacts {
    /// The path of `oxibot-fetch`, opened and checked, or why it is not started.
    pub(super) worker: Result<std::path::PathBuf, Trouble>,
    /// A key for `web_search` is configured.
    pub(super) key: bool,
    /// `web.allowPrivate`.
    pub(super) private: Vec<String>,
}

/// Where clouds tell any program on the machine its credentials.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

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
    vec![worker, search, private(&facts.private)]
}

fn private(entries: &[String]) -> Check {
    const ID: &str = "web.private";
    let exceptions = Exceptions::parse(entries).unwrap_or_default();
    if entries.is_empty() {
        Check::ok(ID, "only public addresses can be reached")
    } else if METADATA.iter().any(|address| exceptions.cover(*address, 80)) {
        Check::warn(
            ID,
            format!("web.allowPrivate opens the metadata service of clouds: {}", entries.join(", ")),
            "a page that says so can make the model read this machine's credentials there",
            "list only the addresses and ports that are meant, for example 10.1.2.3:443",
        )
    } else {
        Check::info(
            ID,
            format!("web.allowPrivate opens {}", entries.join(", ")),
            "whoever can make the model read a page can make it read these too",
            "remove what is no longer needed",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn missing_worker_is_a_warning_and_a_missing_key_information() {
        let trouble = Trouble { what: "cannot find oxibot-fetch".to_owned(), hint: "install it".to_owned() };
        let states = |worker, key| -> Vec<State> {
            web(&WebFacts { worker, key, private: Vec::new() }).into_iter().map(|check| check.state).collect()
        };
        assert_eq!(states(Err(trouble), false), [State::Warn, State::Info, State::Ok]);
        assert_eq!(states(Ok("/usr/libexec/oxibot/oxibot-fetch".into()), true), [State::Ok; 3]);
    }

    #[test]
    fn what_is_opened_is_told_and_the_metadata_service_is_warned_of() {
        let state = |entry: &str| private(&[entry.to_owned()]).state;
        for entry in ["0.0.0.0/0", "169.254.0.0/16:80", "::/0", "fd00::/8"] {
            assert_eq!(state(entry), State::Warn, "{entry}");
        }
        for entry in ["10.0.0.0/8", "169.254.0.0/16:443", "[fd00::1]:80"] {
            assert_eq!(state(entry), State::Info, "{entry}");
        }
    }
}
