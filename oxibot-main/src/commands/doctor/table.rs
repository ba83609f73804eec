//! The table of checks: what is looked at, in which group, in which order. Every check is a pure function of facts that
//! were gathered before.

use super::report::Check;
use super::{
    cgroups, channels, clock, configuration, disk, files, gateway, journal, kernel, namespaces, sockets,
    wall, web,
};
use crate::confine::Locked;

/// Everything that was gathered.
pub(super) struct Facts {
    pub(super) kernel: kernel::KernelFacts,
    pub(super) namespaces: namespaces::NamespaceFacts,
    pub(super) cgroups: cgroups::CgroupFacts,
    pub(super) wall: wall::WallFacts,
    pub(super) files: files::FileFacts,
    pub(super) configuration: configuration::ConfigurationFacts,
    /// None when there is no configuration to say which.
    pub(super) gateway: Option<gateway::GatewayFacts>,
    pub(super) clock: clock::ClockFacts,
    pub(super) journal: journal::JournalFacts,
    /// None when there is no home.
    pub(super) disk: Option<disk::DiskFacts>,
    /// None when there is no workspace.
    pub(super) sockets: Option<sockets::SocketFacts>,
    pub(super) web: web::WebFacts,
    /// None when main could not be confined.
    pub(super) locked: Option<Locked>,
}

/// One row of the table.
pub(super) struct Row {
    /// First part of the ids of its checks.
    pub(super) group: &'static str,
    /// The check.
    pub(super) judge: fn(&Facts) -> Vec<Check>,
}

const fn row(group: &'static str, judge: fn(&Facts) -> Vec<Check>) -> Row {
    Row { group, judge }
}

/// Groups that say something about the wall: all that `--attack` shows.
const OF_THE_WALL: [&str; 4] = ["kernel", "namespaces", "cgroup", "sandbox"];

/// The table. Rows of a group stand together.
pub(super) const TABLE: [Row; 41] = [
    row("kernel", |facts| kernel::version(&facts.kernel)),
    row("kernel", |facts| kernel::landlock(&facts.kernel, facts.wall.level())),
    row("kernel", |facts| kernel::seccomp(&facts.kernel)),
    row("kernel", |facts| kernel::yama(&facts.kernel)),
    row("namespaces", |facts| namespaces::tried(&facts.namespaces)),
    row("namespaces", |facts| namespaces::limit(&facts.namespaces)),
    row("namespaces", |facts| namespaces::unprivileged(&facts.namespaces)),
    row("namespaces", |facts| namespaces::apparmor(&facts.namespaces)),
    row("cgroup", |facts| cgroups::version(&facts.cgroups)),
    row("cgroup", |facts| cgroups::delegation(&facts.cgroups)),
    row("cgroup", |facts| cgroups::release(&facts.cgroups)),
    row("sandbox", |facts| wall::programs(&facts.wall)),
    row("sandbox", |facts| wall::toolhost(&facts.wall)),
    row("sandbox", |facts| wall::level(&facts.wall)),
    row("sandbox", |facts| wall::require(&facts.wall)),
    row("sandbox", |facts| wall::protections(&facts.wall)),
    row("sandbox", |facts| wall::main(&facts.wall)),
    row("sandbox", |facts| wall::stop(&facts.wall)),
    row("sandbox", |facts| facts.sockets.as_ref().map(sockets::sockets).unwrap_or_default()),
    row("files", |facts| files::home(&facts.files)),
    row("files", |facts| files::config(&facts.files)),
    row("files", |facts| files::secrets(&facts.files)),
    row("files", |facts| files::state(&facts.files)),
    row("files", |facts| files::audit(&facts.files)),
    row("files", |facts| files::run(&facts.files)),
    row("files", |facts| files::workspace(&facts.files)),
    row("files", |facts| files::program(&facts.files)),
    row("files", |facts| files::above(&facts.files)),
    row("audit", |facts| journal::anchor(facts.journal)),
    row("configuration", |facts| configuration::file(&facts.configuration)),
    row("configuration", |facts| configuration::doubts(&facts.configuration)),
    row("configuration", |facts| configuration::model(&facts.configuration)),
    row("configuration", |facts| configuration::workspace(&facts.configuration)),
    row("channels", |facts| match &facts.configuration.loaded {
        Ok(loaded) => channels::admitted(&loaded.config.channels),
        Err(_) => Vec::new(),
    }),
    row("gateway", |facts| facts.gateway.as_ref().map(gateway::port).unwrap_or_default()),
    row("gateway", |facts| facts.gateway.as_ref().map(gateway::host).unwrap_or_default()),
    row("web", |facts| web::web(&facts.web)),
    row("clock", |facts| clock::date(&facts.clock)),
    row("clock", |facts| clock::synchronised(&facts.clock)),
    row("disk", |facts| {
        let Some(disk) = &facts.disk else { return Vec::new() };
        [disk::home, disk::workspace, disk::tmp, disk::swap].iter().flat_map(|check| check(disk)).collect()
    }),
    row("disk", |facts| facts.locked.as_ref().map(disk::locked).unwrap_or_default()),
];

/// Which part of the table is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Everything,
    /// What concerns the wall.
    Wall,
}

/// Judges the facts, row by row. No two checks have the same id.
pub(super) fn judge(facts: &Facts, extent: Extent) -> Vec<Check> {
    let rows = TABLE.iter().filter(|row| match extent {
        Extent::Everything => true,
        Extent::Wall => OF_THE_WALL.contains(&row.group),
    });
    let mut checks: Vec<Check> = Vec::new();
    for mut check in rows.flat_map(|row| (row.judge)(facts)) {
        let same = checks.iter().filter(|known| base(&known.id) == check.id).count();
        if same > 0 {
            check.id = format!("{}#{}", check.id, same.saturating_add(1));
        }
        checks.push(check);
    }
    checks
}

fn base(id: &str) -> &str {
    id.split('#').next().unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_group_stand_together() {
        let mut groups: Vec<&str> = TABLE.iter().map(|row| row.group).collect();
        groups.dedup();
        let mut once = groups.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), groups.len(), "{groups:?}");
        assert!(OF_THE_WALL.iter().all(|group| groups.contains(group)));
    }
}
