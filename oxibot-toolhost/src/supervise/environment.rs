//! The environment of a call, built from nothing. Nothing of our own environment is passed on.

use std::path::Path;

use oxibot_proto::settings::Sandbox;

/// Where programs are looked up.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is the same for every call of this process; read once, before confinement.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Login name of the user we run as.
    pub(crate) user: String,
    /// Name of the time zone.
    pub(crate) zone: String,
}

impl Machine {
    /// Looks the values up.
    pub(crate) fn look() -> Self {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .ok()
            .flatten()
            .map_or_else(|| "user".to_owned(), |user| user.name);
        Self { user, zone: zone_of(std::fs::read_link("/etc/localtime").ok().as_deref()) }
    }
}

fn zone_of(link: Option<&Path>) -> String {
    link.and_then(Path::to_str)
        .and_then(|target| target.split_once("zoneinfo/"))
        .map_or("UTC", |(_, zone)| zone)
        .to_owned()
}

/// `NAME=value` entries for a call in `workspace`; `proxy` are those of its proxy. Configured variables come last and win.
pub(crate) fn build(
    workspace: &[u8],
    machine: &Machine,
    sandbox: &Sandbox,
    proxy: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let mut home = b"HOME=".to_vec();
    home.extend_from_slice(workspace);
    let git = &sandbox.git;
    let mut entries = vec![
        format!("PATH={SEARCH}").into_bytes(),
        home,
        b"LANG=C.UTF-8".to_vec(),
        b"TERM=dumb".to_vec(),
        b"TMPDIR=/tmp".to_vec(),
        format!("USER={}", machine.user).into_bytes(),
        b"SHELL=/bin/bash".to_vec(),
        format!("TZ={}", machine.zone).into_bytes(),
        b"XDG_CACHE_HOME=/tmp/.cache".to_vec(),
        format!("GIT_AUTHOR_NAME={}", git.name).into_bytes(),
        format!("GIT_AUTHOR_EMAIL={}", git.email).into_bytes(),
        format!("GIT_COMMITTER_NAME={}", git.name).into_bytes(),
        format!("GIT_COMMITTER_EMAIL={}", git.email).into_bytes(),
    ];
    entries.extend_from_slice(proxy);
    for (name, value) in &sandbox.env {
        let prefix = format!("{name}=").into_bytes();
        entries.retain(|entry| !entry.starts_with(&prefix));
        entries.push(format!("{name}={value}").into_bytes());
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exactly_the_documented_ones() {
        let mut sandbox = Sandbox::default();
        sandbox.env.insert("EXTRA".into(), "1".into());
        sandbox.env.insert("LANG".into(), "de_DE.UTF-8".into());
        let machine = Machine { user: "u".into(), zone: "UTC".into() };
        let entries = build(b"/w\xff", &machine, &sandbox, &[]);
        let mut names: Vec<String> = entries
            .iter()
            .map(|e| String::from_utf8_lossy(e.split(|b| *b == b'=').next().unwrap()).into_owned())
            .collect();
        names.sort();
        let expected = "EXTRA GIT_AUTHOR_EMAIL GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL GIT_COMMITTER_NAME HOME LANG \
                        PATH SHELL TERM TMPDIR TZ USER XDG_CACHE_HOME";
        assert_eq!(names.join(" "), expected);
        assert!(entries.contains(&b"HOME=/w\xff".to_vec()));
        assert!(entries.contains(&b"LANG=de_DE.UTF-8".to_vec()));
    }

    #[test]
    fn time_zone_comes_from_the_link() {
        assert_eq!(zone_of(Some(Path::new("../usr/share/zoneinfo/Europe/Berlin"))), "Europe/Berlin");
        assert_eq!(zone_of(None), "UTC");
    }
}
