//! Which paths a call may use, and how: the one list both the view and the Landlock rules are made from.
//!
//! Data only. Nothing is opened here.

use std::path::{Path, PathBuf};

use super::orders::Plan;
use crate::wire::Profile;

/// What a path may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// List names only.
    List,
    /// Read files and list.
    Read,
    /// Read and execute.
    Run,
    /// Read and write an existing device.
    Device,
    /// Everything but making device nodes.
    Write,
}

/// Whether a path may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Absence is an error: the level's promise or the configuration needs it.
    Required,
    /// Absence is normal on some systems; it is skipped on purpose.
    Optional,
}

/// One granted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) path: PathBuf,
    pub(super) allowed: Use,
    pub(super) presence: Presence,
}

/// Programs and libraries. Links among them (`/bin -> usr/bin`) are kept as links.
pub(super) const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What programs need of `/etc`: names, resolver and loader configuration, certificates, shell start-up. Never
/// `shadow`, `ssl/private`, `ssh`, `sudoers` or anything else that may hold a secret.
pub(super) const ETC: [&str; 45] = [
    "passwd",
    "group",
    "nsswitch.conf",
    "hosts",
    "host.conf",
    "gai.conf",
    "networks",
    "services",
    "protocols",
    "rpc",
    "ethertypes",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld-musl-x86_64.path",
    "ssl/certs",
    "ssl/cert.pem",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "pki/tls/cert.pem",
    "pki/tls/openssl.cnf",
    "pki/ca-trust/extracted",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "localtime",
    "timezone",
    "locale.alias",
    "locale.conf",
    "alternatives",
    "profile",
    "profile.d",
    "bash.bashrc",
    "inputrc",
    "shells",
    "terminfo",
    "os-release",
    "debian_version",
    "lsb-release",
    "mime.types",
    "magic",
    "fonts",
    "perl",
    "python3",
    "java-17-openjdk",
];

/// The whole `/dev`: no terminal, no pseudo-terminal, no disk.
pub(super) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Bytes of a profile as a path.
pub(super) fn path_of(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Everything a call of this profile may use. `private` is the directory made for this call where it has no `/tmp`
/// of its own.
pub(super) fn of_call(profile: &Profile, plan: Plan, private: Option<&Path>) -> Vec<Grant> {
    let grant = |path: &Path, allowed, presence| Grant { path: path.to_owned(), allowed, presence };
    let mut grants = Vec::new();
    let namespaces = match plan {
        Plan::Full => true,
        Plan::Bare | Plan::Off => false,
    };
    if namespaces {
        // The view is an allow-list itself, so names in it are no secret; without namespaces "/" stays unlisted.
        let root = if profile.restrict_to_workspace { Use::List } else { Use::Run };
        grants.push(grant(Path::new("/"), root, Presence::Required));
    }
    for path in SYSTEM {
        let presence = if path == "/usr" { Presence::Required } else { Presence::Optional };
        grants.push(grant(Path::new(path), Use::Run, presence));
    }
    for name in ETC {
        grants.push(grant(&Path::new("/etc").join(name), Use::Read, Presence::Optional));
    }
    for path in DEVICES {
        grants.push(grant(Path::new(path), Use::Device, Presence::Required));
    }
    grants.push(grant(Path::new("/proc"), Use::Read, Presence::Required));
    if namespaces {
        grants.push(grant(Path::new("/tmp"), Use::Write, Presence::Required));
        grants.push(grant(Path::new("/dev/shm"), Use::Write, Presence::Required));
    }
    if let Some(private) = private {
        grants.push(grant(private, Use::Write, Presence::Required));
    }
    for path in &profile.read {
        grants.push(grant(path_of(path), Use::Run, Presence::Required));
    }
    for path in &profile.write {
        grants.push(grant(path_of(path), Use::Write, Presence::Required));
    }
    grants.push(grant(path_of(&profile.workspace), Use::Write, Presence::Required));
    grants
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wanted;

    fn profile() -> Profile {
        Profile {
            workspace: b"/srv/w".to_vec(),
            read: vec![],
            write: vec![],
            covered: vec![],
            restrict_to_workspace: true,
            protect: vec![],
            wanted: Wanted::Strongest,
            tmp_mb: 1,
            limits: oxibot_proto::settings::Limits::default(),
            proxy: false,
        }
    }

    #[test]
    fn nothing_secret_of_etc_is_granted() {
        for name in ETC {
            for secret in ["shadow", "gshadow", "private", "ssh", "sudoers", "gitconfig", "npmrc"] {
                assert!(!name.contains(secret), "{name}");
            }
        }
    }

    #[test]
    fn root_directory_is_never_granted_without_namespaces() {
        assert!(!of_call(&profile(), Plan::Bare, None).iter().any(|grant| grant.path == Path::new("/")));
    }

    #[test]
    fn only_tmp_shm_and_workspace_are_writable() {
        let writable: Vec<_> = of_call(&profile(), Plan::Full, None)
            .into_iter()
            .filter(|grant| grant.allowed == Use::Write)
            .map(|grant| grant.path)
            .collect();
        assert_eq!(writable, [Path::new("/tmp"), Path::new("/dev/shm"), Path::new("/srv/w")]);
    }
}
