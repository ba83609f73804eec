//! What a typed line means. Pure.

/// A line at the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing.
    Empty,
    /// A message.
    Say(String),
    /// `/help`.
    Help,
    /// `/new`: begin afresh.
    New,
    /// `/model`, or `/model NAME`.
    Model(Option<String>),
    /// `/usage`.
    Usage,
    /// `/status`.
    Status,
    /// `/image PATH`.
    Image(String),
    /// `/retry`.
    Retry,
    /// `/exit` and its like.
    Exit,
    /// A command that lacks what it needs, or none of ours.
    Wrong(String),
}

/// Shown by `/help`.
pub(super) const HELP: &str = "\
/new            begin a new conversation under the same name
/model [NAME]   show the model, or go on with another
/image PATH     attach an image of the workspace to the next message
/retry          send the last message again
/status         session, model, workspace, sandbox level
/usage          tokens and cost of the last 7 days
/help           this list
/exit           leave; so do Ctrl-D, and Ctrl-C twice

Ctrl-C during a turn cancels it. A line that ends with \\ goes on on the next.
Two slashes at the beginning send a message that begins with one.
";

/// Reads a line.
pub(super) fn read(line: &str) -> Line {
    let line = line.trim();
    if line.is_empty() {
        return Line::Empty;
    }
    if matches!(line, "exit" | "quit" | ":q" | "/exit" | "/quit") {
        return Line::Exit;
    }
    if let Some(rest) = line.strip_prefix("//") {
        return Line::Say(format!("/{rest}"));
    }
    let Some(command) = line.strip_prefix('/') else { return Line::Say(line.to_owned()) };
    let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let argument = argument.trim();
    match (name, argument) {
        ("help", "") => Line::Help,
        ("new", "") => Line::New,
        ("model", "") => Line::Model(None),
        ("model", model) => Line::Model(Some(model.to_owned())),
        ("usage", "") => Line::Usage,
        ("status", "") => Line::Status,
        ("retry", "") => Line::Retry,
        ("image", "") => Line::Wrong("/image needs the path of an image in the workspace".to_owned()),
        ("image", path) => Line::Image(path.to_owned()),
        _ => Line::Wrong(format!(
            "there is no command {line}; /help lists them, // begins a message with a slash"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_what_help_says() {
        for (line, meaning) in [
            ("  ", Line::Empty),
            (" hello /new ", Line::Say("hello /new".to_owned())),
            ("//etc is a directory", Line::Say("/etc is a directory".to_owned())),
            ("/help", Line::Help),
            ("/new", Line::New),
            ("/model", Line::Model(None)),
            ("/model  a/b ", Line::Model(Some("a/b".to_owned()))),
            ("/image a b.png", Line::Image("a b.png".to_owned())),
            ("/retry", Line::Retry),
            ("/usage", Line::Usage),
            ("/status", Line::Status),
            ("/exit", Line::Exit),
            (":q", Line::Exit),
            ("quit", Line::Exit),
        ] {
            assert_eq!(read(line), meaning, "{line}");
        }
        for line in ["/", "/newer", "/image", "/new now", "/etc/passwd is what?"] {
            assert!(matches!(read(line), Line::Wrong(_)), "{line}");
        }
    }

    #[test]
    fn each_command_of_the_help_exists() {
        for line in HELP.lines().filter(|line| line.starts_with('/')) {
            let name = line.split_whitespace().next().unwrap();
            let typed = if name == "/image" { "/image x".to_owned() } else { name.to_owned() };
            assert!(!matches!(read(&typed), Line::Wrong(_) | Line::Say(_)), "{name}");
        }
    }
}
