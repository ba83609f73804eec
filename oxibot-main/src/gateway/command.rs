//! What a person types to the gateway instead of to the model. Pure.

/// A message, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// For the model.
    Message,
    /// `/help`, `/start`.
    Help,
    /// `/new`: begin afresh.
    New,
    /// `/stop`: end the turn that runs.
    Stop,
    /// `/stop all`: end every turn and every call, and take no new ones.
    StopAll,
    /// `/restart`.
    Restart,
    /// `/approve ID`, or `/deny ID`.
    Answer {
        /// Yes or no.
        yes: bool,
        /// To which call.
        id: String,
    },
    /// `/status`.
    Status,
    /// `/whoami`.
    WhoAmI,
    /// `/usage`.
    Usage,
    /// `/retry`.
    Retry,
    /// `/model`, or `/model NAME`.
    Model(Option<String>),
    /// A command that does not exist.
    Unknown(String),
}

impl Said {
    /// Whether it is answered at once, also while a turn runs.
    pub(super) fn at_once(&self) -> bool {
        match self {
            Self::StopAll | Self::Restart | Self::Answer { .. } => true,
            Self::Help | Self::Stop | Self::Status | Self::WhoAmI | Self::Usage | Self::Unknown(_) => true,
            Self::Message | Self::New | Self::Retry | Self::Model(_) => false,
        }
    }
}

/// Shown by `/help`.
pub(super) const HELP: &str = "\
Write what you want done. Commands:

/new - begin a new conversation
/stop - end what is running
/approve, /deny - answer a call that needs a yes: /approve ID
/retry - send your last message again
/status - model, sandbox, what runs
/whoami - how I know you
/model - the model, or another: /model NAME
/usage - tokens of the last 7 days
/help - this list

For administrators: /stop all, /restart";

/// Reads a message. Two slashes begin one that starts with a slash.
pub(super) fn read(text: &str) -> Said {
    let text = text.trim();
    let Some(command) = text.strip_prefix('/').filter(|rest| !rest.starts_with('/')) else {
        return Said::Message;
    };
    let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let argument = argument.trim();
    match (name.to_ascii_lowercase().as_str(), argument) {
        ("help" | "start", _) => Said::Help,
        ("new" | "reset", _) => Said::New,
        ("stop" | "cancel", "all") => Said::StopAll,
        ("stop" | "cancel", _) => Said::Stop,
        ("restart", _) => Said::Restart,
        ("approve", id) => Said::Answer { yes: true, id: id.to_owned() },
        ("deny", id) => Said::Answer { yes: false, id: id.to_owned() },
        ("status", _) => Said::Status,
        ("whoami", _) => Said::WhoAmI,
        ("usage", _) => Said::Usage,
        ("retry", _) => Said::Retry,
        ("model", "") => Said::Model(None),
        ("model", name) => Said::Model(Some(name.to_owned())),
        // A path is no command: what has another slash is meant for the model.
        (name, _) if name.contains('/') || name.is_empty() => Said::Message,
        (name, _) => Said::Unknown(name.to_owned()),
    }
}

/// What goes to the model.
pub(super) fn for_the_model(text: &str) -> &str {
    text.trim().strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_messages() {
        for (text, meaning) in [
            ("hello", Said::Message),
            ("  /help", Said::Help),
            ("/start", Said::Help),
            ("/NEW", Said::New),
            ("/stop now please", Said::Stop),
            ("/stop all", Said::StopAll),
            ("/restart", Said::Restart),
            ("/approve  0a1b ", Said::Answer { yes: true, id: "0a1b".into() }),
            ("/deny 0a1b", Said::Answer { yes: false, id: "0a1b".into() }),
            ("/model", Said::Model(None)),
            ("/model a/b", Said::Model(Some("a/b".into()))),
            ("/etc/hosts is what?", Said::Message),
            ("//help", Said::Message),
            ("/", Said::Message),
            ("/newer", Said::Unknown("newer".into())),
        ] {
            assert_eq!(read(text), meaning, "{text}");
        }
        assert_eq!(for_the_model("//help"), "/help");
        assert_eq!(for_the_model("/etc/hosts"), "/etc/hosts");
    }

    #[test]
    fn each_command_of_the_help_exists() {
        for line in HELP.lines().filter(|line| line.starts_with('/')) {
            let name = line.split([' ', ',']).next().unwrap();
            assert!(!matches!(read(name), Said::Message | Said::Unknown(_)), "{name}");
        }
    }
}
