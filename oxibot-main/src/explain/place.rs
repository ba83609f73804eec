//! Where a path lies in a call's view, by its letters alone: nothing is opened, links are not followed.

use oxibot_proto::view::{Rest, View};

/// What a path is to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The workspace itself.
    Workspace,
    /// Below the workspace, nothing special.
    Inside,
    /// A guarded name below the workspace, or below one.
    Guarded,
    /// A name on the way to a guarded one: it can be written, not moved.
    Pinned,
    /// `sandbox.write`.
    Writable,
    /// The system, or `sandbox.read`.
    Readable,
    /// Our own directories.
    Covered,
    /// `/tmp` and `/dev/shm`.
    Temporary,
    /// Processes and kernel settings.
    Proc,
    /// `/dev`: a device that is granted.
    Device,
    /// `/dev`: any other.
    OtherDevice,
    /// `/sys` and `/run`.
    Kernel,
    /// A directory that leads to something granted.
    Above,
    /// Nothing of the above.
    Outside,
}

/// Whether `path` is `root` or below it.
pub(super) fn within(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The absolute path that `written` means in `directory`, with `.` and `..` taken out by letters.
pub(super) fn resolve(written: &str, directory: &str) -> String {
    let joined = if written.starts_with('/') { written.to_owned() } else { format!("{directory}/{written}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Where an absolute, resolved path lies.
pub(super) fn of(path: &str, view: &View) -> Place {
    let any = |roots: &[String]| roots.iter().any(|root| within(path, root));
    if any(&view.covered) && !within(path, &view.workspace) {
        return Place::Covered;
    }
    if within(path, &view.workspace) {
        if any(&view.covered) {
            return Place::Covered;
        }
        let below = path.strip_prefix(view.workspace.as_str()).unwrap_or_default().trim_start_matches('/');
        return if below.is_empty() {
            Place::Workspace
        } else if view.guarded.iter().any(|name| within(below, name)) {
            Place::Guarded
        } else if view.pinned.iter().any(|name| name == below) {
            Place::Pinned
        } else {
            Place::Inside
        };
    }
    if any(&view.write) {
        return Place::Writable;
    }
    if any(&view.read) {
        return Place::Readable;
    }
    if any(&view.devices)
        || ["/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"].iter().any(|d| within(path, d))
    {
        return Place::Device;
    }
    if ["/tmp", "/dev/shm"].iter().any(|root| within(path, root)) {
        return Place::Temporary;
    }
    if within(path, "/proc") {
        return Place::Proc;
    }
    if within(path, "/dev") {
        return Place::OtherDevice;
    }
    if within(path, "/sys") || within(path, "/run") {
        return Place::Kernel;
    }
    if any(&view.system) || view.rest == Rest::ReadOnly {
        return Place::Readable;
    }
    let granted = [&view.workspace].into_iter().chain(&view.write).chain(&view.read).chain(&view.system);
    if granted.into_iter().any(|root| path == "/" || within(root, path)) {
        return Place::Above;
    }
    Place::Outside
}

#[cfg(test)]
pub(super) fn example() -> View {
    use oxibot_proto::settings::Limits;
    use oxibot_proto::view::{Network, Temporary};
    let list = |paths: &[&str]| paths.iter().map(ToString::to_string).collect();
    View {
        workspace: "/srv/w".into(),
        directory: "/srv/w/sub".into(),
        read: list(&["/data"]),
        write: list(&["/out"]),
        system: list(&["/usr", "/bin", "/lib", "/etc/passwd", "/etc/hosts"]),
        devices: list(&["/dev/null"]),
        covered: list(&["/srv/w/.oxibot"]),
        guarded: list(&[".git/hooks", ".vscode"]),
        pinned: list(&[".git", ".git/hooks", ".vscode"]),
        rest: Rest::Absent,
        temporary: Temporary::Own,
        network: Network::Own,
        limits: Limits::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_resolved_by_their_letters() {
        for (written, resolved) in [
            ("x", "/srv/w/sub/x"),
            ("../.git/hooks/x", "/srv/w/.git/hooks/x"),
            ("../../../../etc//./passwd", "/etc/passwd"),
            ("/a/../b", "/b"),
            ("/..", "/"),
        ] {
            assert_eq!(resolve(written, "/srv/w/sub"), resolved);
        }
    }

    #[test]
    fn every_path_has_one_place() {
        let view = example();
        for (path, place) in [
            ("/srv/w", Place::Workspace),
            ("/srv/w/a", Place::Inside),
            ("/srv/wx", Place::Outside),
            ("/srv", Place::Above),
            ("/", Place::Above),
            ("/etc", Place::Above),
            ("/etc/passwd", Place::Readable),
            ("/etc/shadow", Place::Outside),
            ("/srv/w/.git", Place::Pinned),
            ("/srv/w/.git/hooks/pre-commit", Place::Guarded),
            ("/srv/w/.git/config", Place::Inside),
            ("/srv/w/.oxibot/config.json", Place::Covered),
            ("/data/x", Place::Readable),
            ("/out/x", Place::Writable),
            ("/dev/null", Place::Device),
            ("/dev/sda", Place::OtherDevice),
            ("/dev/shm/x", Place::Temporary),
            ("/tmp/x", Place::Temporary),
            ("/proc/1/environ", Place::Proc),
            ("/run/docker.sock", Place::Kernel),
            ("/home/u/.ssh/id_rsa", Place::Outside),
        ] {
            assert_eq!(of(path, &view), place, "{path}");
        }
        let whole = View { rest: Rest::ReadOnly, ..view };
        assert_eq!(of("/home/u/x", &whole), Place::Readable);
        assert_eq!(of("/run/x", &whole), Place::Kernel);
    }
}
