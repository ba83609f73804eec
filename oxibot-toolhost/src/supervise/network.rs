//! The way out of a call, if `tools.bash.network` lists hosts: started when its init listens, recorded while it decides,
//! ended with the call.
//!
//! The supervisor has no network and gets none: it hands a listening socket from one process to another and reads what
//! was decided. What an egress says is bounded and printed as data; it can forge nothing but decisions of its own call.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use oxibot_proto::message::{Certainty, Violation};
use oxibot_proto::reach::Network;
use oxibot_proto::settings::ToolhostSettings;
use serde::Serialize;

use super::audit::{Sync, capped};
use super::broker::Broker;
use super::calls::Call;
use super::explain::MAX_VIOLATIONS;
use crate::egress::words;
use crate::wall::{Outlet, PROXY_PORT};
use crate::wire::{Decision, EgressOrder, FromEgress, NetVerdict};

/// Most decisions of one call that are recorded. An egress tells fewer; one that was taken over might not.
const MAX_DECISIONS: usize = 1024;
/// Most failures that a result tells.
const MAX_FAILURES: usize = 5;
/// Most hosts the model is told.
const MAX_NAMED: usize = 32;
/// Longest host that is recorded.
const MAX_HOST: usize = 256;

/// A connection a call asked its proxy for, and what became of it, for the audit log.
#[derive(Debug, Serialize)]
struct Connection<'a> {
    call_id: &'a str,
    host: &'a str,
    port: u16,
    verdict: &'a str,
    rule: Option<&'a str>,
    address: Option<&'a str>,
}

/// The way out of one call.
#[derive(Debug, Default)]
pub(crate) struct Way {
    outlet: Option<Outlet>,
    ready: bool,
    decided: usize,
    violations: Vec<Violation>,
    notes: Vec<String>,
}

impl Way {
    /// To poll for POLLIN.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.outlet.as_ref().map(Outlet::socket)
    }

    /// What was refused, for the result.
    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What went wrong, for the result.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Ends it, and with it every connection.
    fn close(&mut self) {
        self.outlet = None;
    }

    fn broken(&mut self, why: &str) {
        self.close();
        self.notes.push(format!("the call had no network any more: {why}"));
    }

    /// What was said, if it may be said now: once that it is ready, and so many decisions as can be recorded. One that
    /// never stops talking would keep the supervisor.
    fn hear(&mut self, said: FromEgress) -> Result<Option<Decision>, String> {
        match said {
            FromEgress::Ready if self.ready => Err("it said twice that it is ready".to_owned()),
            FromEgress::Ready => {
                self.ready = true;
                Ok(None)
            }
            FromEgress::CouldNot(fault) => Err(fault.to_string()),
            FromEgress::Decided(_) if self.decided >= MAX_DECISIONS => {
                Err("it decided on more connections than can be recorded".to_owned())
            }
            FromEgress::Decided(decision) => {
                self.decided += 1;
                Ok(Some(decision))
            }
        }
    }

    /// Keeps what a result tells of a decision.
    fn keep(&mut self, host: &str, port: u16, verdict: &NetVerdict) {
        match verdict {
            NetVerdict::Allowed(_) => {}
            NetVerdict::Refused(rule) => {
                if self.violations.len() < MAX_VIOLATIONS {
                    let path = if host.is_empty() { String::new() } else { format!("{host}:{port}") };
                    self.violations.push(Violation {
                        what: "connect".to_owned(),
                        path,
                        why: words::refused(*rule, host, port),
                        certainty: Certainty::Observed,
                    });
                }
            }
            NetVerdict::Failed(failure) => {
                if self.notes.len() < MAX_FAILURES {
                    self.notes.push(format!("network: {}", words::failed(*failure, host, port)));
                }
            }
        }
    }
}

/// Variables that lead programs to the proxy, for a call that has one. `ALL_PROXY` names it as an HTTP proxy too: it
/// speaks SOCKS5 at the same port, but libraries that know no SOCKS refuse to start where they are told of it.
pub(crate) fn variables() -> Vec<Vec<u8>> {
    let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
    let names = ["http_proxy", "https_proxy", "all_proxy"];
    let lead = names.iter().map(|name| (*name, proxy.as_str()));
    lead.chain([("no_proxy", "localhost,127.0.0.1,::1")])
        .flat_map(|(name, value)| {
            [format!("{name}={value}"), format!("{}={value}", name.to_ascii_uppercase())]
        })
        .map(String::into_bytes)
        .collect()
}

/// What the model is told of the network, in the description of `bash`.
pub(crate) fn described(description: &str, network: &Network) -> String {
    let hosts: Vec<String> = network.hosts().iter().take(MAX_NAMED).map(ToString::to_string).collect();
    if hosts.is_empty() {
        return description.to_owned();
    }
    let more = if network.hosts().len() > MAX_NAMED { " and others" } else { "" };
    let to = format!(
        "whose network reaches these hosts by name, over the proxy its environment names, and no others: {}{more}",
        hosts.join(", ")
    );
    description.replace("without network", &to)
}

fn order(settings: &ToolhostSettings) -> EgressOrder {
    EgressOrder {
        hosts: settings.tools.exec.network.hosts().iter().map(ToString::to_string).collect(),
        private: settings.web.allow_private.clone(),
    }
}

/// Printable and cut: an egress that was taken over may say anything.
fn printable(host: &str) -> String {
    let kept: String = host.chars().filter(char::is_ascii_graphic).take(MAX_HOST).collect();
    capped(&kept, MAX_HOST)
}

impl Broker {
    /// The proxy of a call listens: give it a process that serves it.
    pub(crate) fn open_way(&mut self, key: u64, listener: OwnedFd) {
        let started = self.nursery.egress(&order(&self.fixed.settings), listener);
        let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) else { return };
        match started {
            Ok(outlet) => process.way.outlet = Some(outlet),
            Err(fault) => process.way.broken(&fault.to_string()),
        }
    }

    /// An egress said something, or is gone.
    pub(crate) fn way_talks(&mut self, key: u64, now: Instant) {
        loop {
            let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) else { return };
            let Some(outlet) = &mut process.way.outlet else { return };
            let heard = match outlet.receive() {
                Ok(None) => return,
                Ok(Some(said)) => process.way.hear(said),
                Err(fault) => Err(fault.to_string()),
            };
            match heard {
                Ok(None) => {}
                Ok(Some(decision)) => self.decided(key, decision, now),
                Err(why) => {
                    process.way.broken(&why);
                    self.log.line(&why, now);
                    return;
                }
            }
        }
    }

    /// Nothing of the call runs any more. What was decided last is still in the socket.
    pub(crate) fn close_way(&mut self, key: u64, now: Instant) {
        self.way_talks(key, now);
        if let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) {
            process.way.close();
        }
    }

    fn decided(&mut self, key: u64, decision: Decision, now: Instant) {
        let Decision { host, port, verdict } = decision;
        let host = printable(&host);
        let Some(call) = self.calls.get_mut(&key) else { return };
        let call_id = call.subject.call_id.clone();
        let Some(process) = call.process_mut() else { return };
        process.way.keep(&host, port, &verdict);
        let (said, rule, address) = match &verdict {
            NetVerdict::Allowed(address) => ("allowed", None, Some(address.to_string())),
            NetVerdict::Refused(rule) => ("refused", Some(words::id(*rule)), None),
            NetVerdict::Failed(_) => ("failed", None, None),
        };
        let connection = Connection {
            call_id: &call_id,
            host: &host,
            port,
            verdict: said,
            rule,
            address: address.as_deref(),
        };
        if let Err(error) = self.audit.told("connection", connection, Sync::Soon) {
            // What cannot be recorded is not done.
            self.log.line(&error.to_string(), now);
            if let Some(process) = self.calls.get_mut(&key).and_then(Call::process_mut) {
                process.way.broken(&error.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{NetFailure, NetRule};

    #[test]
    fn variables_are_set_in_both_cases_and_spare_the_calls_own_servers() {
        let text: Vec<String> =
            variables().into_iter().map(|pair| String::from_utf8(pair).unwrap()).collect();
        for expected in [
            "http_proxy=http://127.0.0.1:3128",
            "HTTPS_PROXY=http://127.0.0.1:3128",
            "all_proxy=http://127.0.0.1:3128",
            "ALL_PROXY=http://127.0.0.1:3128",
            "no_proxy=localhost,127.0.0.1,::1",
            "NO_PROXY=localhost,127.0.0.1,::1",
        ] {
            assert!(text.iter().any(|pair| pair == expected), "{expected}: {text:?}");
        }
        assert_eq!(text.len(), 8);
    }

    #[test]
    fn refusals_name_host_and_setting_and_are_bounded() {
        let mut way = Way::default();
        way.keep("evil.org", 443, &NetVerdict::Refused(NetRule::Host));
        way.keep("", 0, &NetVerdict::Refused(NetRule::Request));
        way.keep("a.org", 443, &NetVerdict::Failed(NetFailure::NoSuchName));
        let [first, second] = way.violations() else { panic!("{way:?}") };
        assert_eq!((first.what.as_str(), first.path.as_str()), ("connect", "evil.org:443"));
        for part in ["evil.org", "tools.bash.network", "(rule net.host)"] {
            assert!(first.why.contains(part), "{first:?}");
        }
        assert_eq!(second.path, "");
        assert_eq!(way.notes(), ["network: there is no host a.org"]);
        for number in 0..100 {
            way.keep(&format!("{number}.org"), 1, &NetVerdict::Refused(NetRule::Host));
            way.keep(&format!("{number}.org"), 1, &NetVerdict::Failed(NetFailure::Silent));
        }
        assert_eq!((way.violations().len(), way.notes().len()), (MAX_VIOLATIONS, MAX_FAILURES));
    }

    #[test]
    fn model_is_told_which_hosts_there_are() {
        let bash = crate::tools::specs().into_iter().find(|tool| tool.name == "bash").unwrap();
        assert_eq!(described(&bash.description, &Network::None), bash.description);
        let network = Network::Hosts(vec!["*.a.org".parse().unwrap(), "b.org:22".parse().unwrap()]);
        let text = described(&bash.description, &network);
        assert!(
            text.contains("no others: *.a.org, b.org:22.") && !text.contains("without network"),
            "{text}"
        );
    }

    #[test]
    fn egress_that_never_stops_talking_is_ended() {
        let mut way = Way::default();
        assert_eq!(way.hear(FromEgress::Ready), Ok(None));
        assert!(way.hear(FromEgress::Ready).is_err(), "ready is said once");
        let decision = || {
            let verdict = NetVerdict::Refused(NetRule::Host);
            FromEgress::Decided(Decision { host: "a.org".into(), port: 443, verdict })
        };
        let heard = (0..MAX_DECISIONS).filter(|_| way.hear(decision()).is_ok()).count();
        assert_eq!(heard, MAX_DECISIONS);
        assert!(way.hear(decision()).is_err());
    }

    #[test]
    fn what_an_egress_says_is_data() {
        assert_eq!(printable("a\n\x1b[31mb\u{202e}.org"), "a[31mb.org");
        assert_eq!(printable(&"x".repeat(5000)).len(), MAX_HOST);
    }
}
