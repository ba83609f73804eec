//! What a call of a profile could see and do, in the words of the wire: facts for explanations, made from the same lists
//! as the view and the Landlock rules.
//!
//! Nothing is opened here and nothing is decided. What does not fit, or is not UTF-8, gives no facts at all: half of
//! them would explain a granted path as a refused one.

use std::path::Path;

use oxibot_proto::message::Level;
use oxibot_proto::settings::Limits;
use oxibot_proto::view::{MAX_VIEW_PATH, MAX_VIEW_PATHS, Network, Rest, Temporary, View};

use super::grants::{DEVICES, ETC, SYSTEM, path_of};
use crate::wire::Profile;

/// Facts about a call that started in `directory` (as the model wrote it, empty for the workspace itself). `None`
/// without a wall.
#[must_use]
pub fn view(profile: &Profile, level: Level, directory: &[u8], limits: Limits) -> Option<Box<View>> {
    let full = match level {
        Level::Full => true,
        Level::Kernel | Level::Reduced => false,
        Level::Off => return None,
    };
    let workspace = text(&profile.workspace)?;
    let start = path_of(&profile.workspace).join(path_of(directory));
    let protect =
        || profile.protect.iter().map(|name| name.trim_matches('/')).filter(|name| !name.is_empty());
    let (mut guarded, mut pinned) = (Vec::new(), Vec::new());
    // Without mounts nothing inside the workspace can be kept from changing.
    if full {
        guarded.extend(protect().map(str::to_owned));
        pinned.push(".git".to_owned());
        for name in protect() {
            pinned.extend(Path::new(name).ancestors().filter_map(Path::to_str).map(str::to_owned));
        }
        pinned.retain(|name| !name.is_empty());
        pinned.sort();
        pinned.dedup();
    }
    let view = View {
        workspace,
        directory: text(std::os::unix::ffi::OsStrExt::as_bytes(start.as_os_str()))?,
        read: texts(&profile.read)?,
        write: texts(&profile.write)?,
        system: SYSTEM
            .iter()
            .map(ToString::to_string)
            .chain(ETC.iter().map(|n| format!("/etc/{n}")))
            .collect(),
        devices: DEVICES.iter().map(ToString::to_string).collect(),
        covered: texts(&profile.covered)?,
        guarded,
        pinned,
        rest: match (full, profile.restrict_to_workspace) {
            (true, true) => Rest::Absent,
            (true, false) => Rest::ReadOnly,
            (false, _) => Rest::Refused,
        },
        temporary: if full { Temporary::Own } else { Temporary::Directory },
        network: match (full, profile.proxy) {
            (true, true) => Network::Proxy,
            (true, false) => Network::Own,
            (false, _) => Network::None,
        },
        limits,
    };
    let lists = [&view.read, &view.write, &view.covered, &view.guarded, &view.pinned];
    lists.iter().all(|list| list.len() <= MAX_VIEW_PATHS).then(|| Box::new(view))
}

fn text(path: &[u8]) -> Option<String> {
    (path.len() <= MAX_VIEW_PATH).then(|| std::str::from_utf8(path).ok().map(str::to_owned)).flatten()
}

fn texts(paths: &[Vec<u8>]) -> Option<Vec<String>> {
    paths.iter().map(|path| text(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wanted;

    fn profile() -> Profile {
        Profile {
            workspace: b"/srv/w".to_vec(),
            read: vec![b"/data".to_vec()],
            write: vec![],
            covered: vec![],
            restrict_to_workspace: true,
            protect: vec![".git/hooks".into(), "/.vscode/".into()],
            wanted: Wanted::Strongest,
            tmp_mb: 1,
            limits: Limits::default(),
            proxy: false,
        }
    }

    #[test]
    fn facts_follow_the_level() {
        let view_at = |level| view(&profile(), level, b"sub", Limits::default());
        let full = view_at(Level::Full).unwrap();
        assert_eq!((full.directory.as_str(), full.rest), ("/srv/w/sub", Rest::Absent));
        assert_eq!(full.guarded, [".git/hooks", ".vscode"]);
        assert_eq!(full.pinned, [".git", ".git/hooks", ".vscode"]);
        let kernel = view_at(Level::Kernel).unwrap();
        assert!(kernel.guarded.is_empty() && kernel.pinned.is_empty(), "no mounts, no guards");
        assert_eq!((kernel.rest, kernel.network), (Rest::Refused, Network::None));
        assert_eq!(view_at(Level::Off), None);
    }

    #[test]
    fn what_does_not_fit_gives_no_facts() {
        let mut many = profile();
        many.read = vec![b"/x".to_vec(); MAX_VIEW_PATHS + 1];
        assert_eq!(view(&many, Level::Full, b"", Limits::default()), None);
        many.read = vec![b"/\xff".to_vec()];
        assert_eq!(view(&many, Level::Full, b"", Limits::default()), None);
    }
}
