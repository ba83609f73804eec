//! Who may write to the assistant, channel by channel.
//!
//! In the older systems an empty list admitted everyone. Here it admits nobody: who comes from there must not believe
//! otherwise, in either direction.

use crate::config::{ChannelOverview, ChannelState, Channels};

use super::report::Check;

/// Each channel that is mentioned.
pub(super) fn admitted(channels: &Channels) -> Vec<Check> {
    let mentioned: Vec<Check> = channels
        .overview()
        .iter()
        .filter_map(|channel| judge(channel, &format!("channels.{}", channel.name)))
        .collect();
    if mentioned.is_empty() {
        return vec![Check::info(
            "channels.none",
            "none is configured",
            "the assistant is reached from this terminal only",
            "oxibot onboard",
        )];
    }
    mentioned
}

fn judge(channel: &ChannelOverview<'_>, id: &str) -> Option<Check> {
    let key = format!("{id}.allowedUsers");
    Some(match &channel.state {
        ChannelState::Absent => return None,
        ChannelState::Disabled => {
            Check::info(id, "switched off", "it does not start", format!("set {id}.enabled to true"))
        }
        ChannelState::NotConfigured { why } => Check::info(
            id,
            format!("not configured: {why}"),
            "it does not start",
            format!("add what is missing to {id}"),
        ),
        ChannelState::Configured if channel.allowed_users.is_empty() => Check::warn(
            id,
            format!("{key} is empty"),
            "nobody is admitted (in older OxiBot and nanobot an empty list admitted everyone)",
            format!("put your own id into {key}; [\"*\"] admits everyone"),
        ),
        ChannelState::Configured if channel.allowed_users.iter().any(|user| user == "*") => Check::warn(
            id,
            format!("{key} holds \"*\""),
            "everyone who finds the bot may have tools run on this machine, within the sandbox",
            format!("list the ids of the people you mean in {key}"),
        ),
        ChannelState::Configured => Check::ok(id, format!("admits {}", channel.admits())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    fn check(text: &str) -> Check {
        let checks = admitted(&serde_json::from_str(text).unwrap());
        assert_eq!(checks.len(), 1, "{checks:?}");
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn people_who_are_named_are_ok() {
        let named = check(r#"{"telegram":{"token":"t","allowedUsers":["1","2"]}}"#);
        assert_eq!(
            (named.state, named.id.as_str(), named.found.as_str()),
            (State::Ok, "channels.telegram", "admits 2 people")
        );
    }

    #[test]
    fn empty_and_everyone_are_doubtful_and_the_old_meaning_is_said() {
        let empty = check(r#"{"telegram":{"token":"t"}}"#);
        assert_eq!(empty.state, State::Warn);
        assert!(empty.consequence.contains("nobody") && empty.consequence.contains("older"), "{empty:?}");
        let everyone = check(r#"{"telegram":{"token":"t","allowedUsers":["*"]}}"#);
        assert_eq!(everyone.state, State::Warn);
        assert!(everyone.consequence.contains("everyone"), "{everyone:?}");
    }

    #[test]
    fn what_is_off_or_missing_is_information() {
        assert_eq!(check("{}").id, "channels.none");
        assert_eq!(check("{}").state, State::Info);
        assert_eq!(check(r#"{"telegram":{"enabled":false,"token":"t"}}"#).state, State::Info);
        assert_eq!(check(r#"{"discord":{"allowedUsers":["1"]}}"#).state, State::Info);
    }
}
