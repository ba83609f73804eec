//! Workspaces of people: a directory for each, below one directory of the home, made when it is first needed.
//!
//! Who has which is main's word, like who asked. What the configuration grants is that a directory below `people` of the
//! home is a workspace, nothing else: one name, no links, nothing that was there before. The supervisor makes none; the
//! nursery does, before it starts the zygote that opens it.

use std::path::{Path, PathBuf};

use oxibot_proto::message::PEOPLE;
use oxibot_proto::settings::ToolhostSettings;

use super::workspace::{Refused, Surroundings, Workspace, judge};
use crate::wire::{Profile, Wanted};

/// Longest name of a person's directory. What main makes of an id is far below.
const MAX_NAME: usize = 200;

/// What any of these workspaces is like.
#[derive(Debug)]
pub(crate) struct People {
    base: PathBuf,
    pattern: Workspace,
    profile: Profile,
}

impl People {
    /// Where the configuration grants them. They lie in the home; without one there are none.
    pub(crate) fn granted(
        settings: &ToolhostSettings,
        around: &Surroundings,
        wanted: Wanted,
    ) -> Result<Option<Self>, Refused> {
        let Some(home) = around.home.as_ref().filter(|_| settings.people) else { return Ok(None) };
        let base = home.join(PEOPLE);
        let path = base.join("_");
        // Only what lies above a directory decides, so that one name stands for all.
        let covered = judge(&path, around)?;
        let pattern = Workspace { spelling: path.clone(), path, covered };
        let profile = pattern.profile(settings, around, wanted)?;
        Ok(Some(Self { base, pattern, profile }))
    }

    /// The workspace a request means, if it means one of these.
    pub(crate) fn workspace(&self, asked: &str) -> Option<(Workspace, Profile)> {
        let path = Path::new(asked);
        let name = path.file_name()?.to_str().filter(|name| is_name(name))?;
        let path = self.base.join(name);
        if path.as_os_str() != asked {
            return None;
        }
        let workspace = Workspace { path: path.clone(), spelling: path, ..self.pattern.clone() };
        let profile = Profile { workspace: workspace.bytes(), ..self.profile.clone() };
        Some((workspace, profile))
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(granted: bool) -> Option<People> {
        let around = Surroundings {
            user_home: None,
            home: Some("/h/.oxibot".into()),
            config: Some("/h/.oxibot/config.json".into()),
            programs: None,
        };
        let settings = ToolhostSettings { people: granted, ..ToolhostSettings::default() };
        People::granted(&settings, &around, Wanted::Strongest).unwrap()
    }

    #[test]
    fn only_a_plain_name_directly_below_is_a_workspace() {
        let people = people(true).unwrap();
        let (workspace, profile) = people.workspace("/h/.oxibot/people/telegram-42").unwrap();
        assert_eq!(workspace.path, Path::new("/h/.oxibot/people/telegram-42"));
        assert_eq!(profile.workspace, b"/h/.oxibot/people/telegram-42");
        for other in [
            "/h/.oxibot/people",
            "/h/.oxibot/people/",
            "/h/.oxibot/people/a/b",
            "/h/.oxibot/people/../state",
            "/h/.oxibot/people/a/../b",
            "/h/.oxibot/people//a",
            "/h/.oxibot/people/a/",
            "/h/.oxibot/people/.",
            "/h/.oxibot/people/..",
            "/h/.oxibot/people/A",
            "/h/.oxibot/state",
            "people/a",
            "",
        ] {
            assert!(people.workspace(other).is_none(), "{other}");
        }
        assert!(people.workspace(&format!("/h/.oxibot/people/{}", "a".repeat(201))).is_none());
    }

    #[test]
    fn where_one_workspace_is_shared_there_are_none() {
        assert!(people(false).is_none());
    }
}
