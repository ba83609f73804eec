//! The argument vector of `serve` and `settings`. It is written by the launcher, not by a person, so it is strict.

use std::ffi::OsString;
use std::path::PathBuf;

use super::service::Names;

/// Arguments of `oxibot-toolhost serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serve {
    /// Configuration file, if there is one.
    pub(crate) config: Option<PathBuf>,
    /// OxiBot's home, for audit, stop file and control socket.
    pub(crate) home: Option<PathBuf>,
    /// Workspaces a person named on the command line; the first becomes the default.
    pub(crate) workspaces: Vec<PathBuf>,
    /// How often `--no-sandbox` was given. Root must give it twice.
    pub(crate) no_sandbox: u8,
    /// What is served, which decides how the wall is proven.
    pub(crate) purpose: Purpose,
    /// The web's requests go to standard output, which is a socket to whoever starts the fetch worker.
    pub(crate) web: bool,
    /// Build the wall as if the kernel refused namespaces. Lowers what is reported with what is enforced.
    pub(crate) without_namespaces: bool,
    /// A unit of its own: sockets are handed over by systemd, and this is who may connect.
    pub(crate) service: Option<Service>,
}

/// What only a service is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// Who may connect.
    pub(crate) names: Names,
    /// Socket of the fetch worker's unit, if there is to be a web.
    pub(crate) fetch: Option<PathBuf>,
}

/// What a toolhost is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A conversation, a gateway, an editor: the wall is attacked before it is ready.
    LongLived,
    /// A command that does one thing: a pass that was recorded may count.
    OneShot,
    /// `doctor --attack`: every attack, and no call.
    Attack,
    /// `tool call --dry-run`: no wall and no call.
    Judge,
}

/// The arguments are not ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentsError {
    #[error("cannot accept argument {0:?}: not known")]
    Unknown(OsString),
    #[error("cannot accept {0}: its value is missing")]
    Missing(&'static str),
    #[error("cannot serve: --socket-fd 0 is required")]
    NoSocket,
    #[error("cannot serve: --fetch-fd must be 1, and a socket")]
    FetchSocket,
    #[error("cannot serve: {0} is not possible in a service")]
    NotInService(&'static str),
    #[error("cannot serve: {0} is only possible with --service")]
    OnlyInService(&'static str),
}

/// Parses what follows `serve`.
pub(crate) fn serve(arguments: impl IntoIterator<Item = OsString>) -> Result<Serve, ArgumentsError> {
    let mut parsed = Serve {
        config: None,
        home: None,
        workspaces: Vec::new(),
        no_sandbox: 0,
        purpose: Purpose::LongLived,
        web: false,
        without_namespaces: false,
        service: None,
    };
    let mut socket = false;
    let (mut service, mut main, mut administrators, mut fetch) = (false, None, None, None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut path =
            |name: &'static str| arguments.next().map(PathBuf::from).ok_or(ArgumentsError::Missing(name));
        match argument.to_str() {
            Some("--socket-fd") => {
                socket = path("--socket-fd")?.as_os_str() == "0";
                if !socket {
                    return Err(ArgumentsError::NoSocket);
                }
            }
            Some("--fetch-fd") => {
                parsed.web = path("--fetch-fd")?.as_os_str() == "1";
                if !parsed.web {
                    return Err(ArgumentsError::FetchSocket);
                }
            }
            Some("--config") => parsed.config = Some(path("--config")?),
            Some("--home") => parsed.home = Some(path("--home")?),
            Some("--workspace") => parsed.workspaces.push(path("--workspace")?),
            Some("--no-sandbox") => parsed.no_sandbox = parsed.no_sandbox.saturating_add(1),
            Some("--one-shot") => parsed.purpose = Purpose::OneShot,
            Some("--attack") => parsed.purpose = Purpose::Attack,
            Some("--judge") => parsed.purpose = Purpose::Judge,
            Some("--without-namespaces") => parsed.without_namespaces = true,
            Some("--service") => service = true,
            Some("--main-user") => main = Some(name(path("--main-user")?)?),
            Some("--admin-group") => administrators = Some(name(path("--admin-group")?)?),
            Some("--fetch") => fetch = Some(path("--fetch")?),
            Some(_) | None => return Err(ArgumentsError::Unknown(argument)),
        }
    }
    if service {
        let forbidden = [
            (socket, "--socket-fd"),
            (parsed.web, "--fetch-fd"),
            // A machine's service without its wall would be one edit of a unit away.
            (parsed.no_sandbox > 0, "--no-sandbox"),
            (parsed.purpose != Purpose::LongLived, "another purpose than to serve"),
        ];
        if let Some((_, what)) = forbidden.into_iter().find(|(given, _)| *given) {
            return Err(ArgumentsError::NotInService(what));
        }
        let main = main.ok_or(ArgumentsError::Missing("--main-user"))?;
        let administrators = administrators.ok_or(ArgumentsError::Missing("--admin-group"))?;
        parsed.service = Some(Service { names: Names { main, administrators }, fetch });
        return Ok(parsed);
    }
    let alone = [
        (main.is_some(), "--main-user"),
        (administrators.is_some(), "--admin-group"),
        (fetch.is_some(), "--fetch"),
    ];
    if let Some((_, what)) = alone.into_iter().find(|(given, _)| *given) {
        return Err(ArgumentsError::OnlyInService(what));
    }
    if socket { Ok(parsed) } else { Err(ArgumentsError::NoSocket) }
}

fn name(value: PathBuf) -> Result<String, ArgumentsError> {
    value.into_os_string().into_string().map_err(ArgumentsError::Unknown)
}

/// Parses what follows `settings`: the file to read, if any.
pub(crate) fn settings(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Option<PathBuf>, ArgumentsError> {
    let mut arguments = arguments.into_iter();
    let mut file = None;
    while let Some(argument) = arguments.next() {
        if argument != "--file" {
            return Err(ArgumentsError::Unknown(argument));
        }
        file = Some(PathBuf::from(arguments.next().ok_or(ArgumentsError::Missing("--file"))?));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn whole_command_line_is_understood() {
        let parsed = serve(words(
            "--socket-fd 0 --config /c --home /h --workspace /a --workspace /b --no-sandbox --no-sandbox",
        ))
        .unwrap();
        assert_eq!(parsed.workspaces, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!((parsed.no_sandbox, parsed.home), (2, Some(PathBuf::from("/h"))));
    }

    #[test]
    fn wall_is_attacked_at_the_start_unless_the_launcher_says_what_else_it_is_for() {
        for (text, purpose) in
            [("", Purpose::LongLived), ("--one-shot", Purpose::OneShot), ("--attack", Purpose::Attack)]
        {
            assert_eq!(serve(words(&format!("--socket-fd 0 {text}"))).unwrap().purpose, purpose);
        }
    }

    #[test]
    fn service_says_who_may_connect_and_never_goes_without_its_wall() {
        let whole = "--service --main-user a --admin-group b --fetch /f --config /c --home /h";
        let service = serve(words(whole)).unwrap().service.unwrap();
        assert_eq!(service.names, Names { main: "a".into(), administrators: "b".into() });
        assert_eq!(service.fetch, Some(PathBuf::from("/f")));
        for (more, why) in [
            ("--no-sandbox", ArgumentsError::NotInService("--no-sandbox")),
            ("--socket-fd 0", ArgumentsError::NotInService("--socket-fd")),
            ("--attack", ArgumentsError::NotInService("another purpose than to serve")),
        ] {
            assert_eq!(serve(words(&format!("{whole} {more}"))), Err(why));
        }
        assert_eq!(serve(words("--service --admin-group b")), Err(ArgumentsError::Missing("--main-user")));
        assert_eq!(serve(words("--socket-fd 0 --fetch /f")), Err(ArgumentsError::OnlyInService("--fetch")));
    }

    #[test]
    fn unknown_and_incomplete_arguments_are_refused() {
        assert_eq!(serve(words("--socket-fd 0 --policy x")), Err(ArgumentsError::Unknown("--policy".into())));
        assert_eq!(serve(words("--socket-fd 0 --home")), Err(ArgumentsError::Missing("--home")));
        assert!(serve(words("--socket-fd 0 --fetch-fd 1")).unwrap().web);
        assert_eq!(serve(words("--socket-fd 0 --fetch-fd 3")), Err(ArgumentsError::FetchSocket));
        assert_eq!(serve(words("--home /h")), Err(ArgumentsError::NoSocket));
        assert_eq!(serve(words("--socket-fd 5")), Err(ArgumentsError::NoSocket));
    }
}
