//! What a call sees of the file system: an allow-list root on tmpfs, built once by the zygote.
//!
//! Everything is opened first and moved by descriptor; no path is looked up twice, so nothing can be swapped in
//! between. What a call gets for itself alone (`/proc`, `/tmp`, `/dev/shm`) is mounted by its init, see `private`.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchdir, fchownat, pivot_root, symlinkat};

use super::fault::{Step, fault};
use super::grants::{DEVICES, ETC, SYSTEM, path_of};
use super::identity::Identity;
use crate::sys::{self, Reach};
use crate::wire::{Profile, WallFault};

/// Where the new root is assembled, out of sight of the host: the zygote's mount namespace is its own by then.
const ASSEMBLY: &str = "/tmp";
/// Directories that are private in a view of the whole file system.
const PRIVATE: [&str; 4] = ["/run", "/dev", "/sys", "/tmp"];
const CANARY: &str = ".canary";

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const WRITABLE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Something of the host that goes into the view.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    handle: OwnedFd,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link(PathBuf),
}

/// Everything the view is made of, opened before the first mount.
#[derive(Debug)]
struct Sources {
    system: Vec<Source>,
    devices: Vec<Source>,
    read: Vec<Source>,
    write: Vec<Source>,
    workspace: Source,
    proc: Source,
    whole: Option<Source>,
}

impl Sources {
    /// Opens them. A missing workspace, `sandbox.read` or `sandbox.write` path is an error.
    fn open(profile: &Profile) -> Result<Self, WallFault> {
        let mut system = Vec::new();
        if profile.restrict_to_workspace {
            for path in SYSTEM {
                system.extend(optional(Path::new(path))?);
            }
            for name in ETC {
                system.extend(optional(&Path::new("/etc").join(name))?);
            }
        }
        let all = |paths: &[Vec<u8>]| -> Result<Vec<Source>, WallFault> {
            paths.iter().map(|path| required(path_of(path))).collect()
        };
        Ok(Self {
            system,
            devices: DEVICES.iter().map(|path| required(Path::new(path))).collect::<Result<_, _>>()?,
            read: all(&profile.read)?,
            write: all(&profile.write)?,
            workspace: required(path_of(&profile.workspace))?,
            proc: required(Path::new("/proc"))?,
            whole: if profile.restrict_to_workspace { None } else { Some(required(Path::new("/"))?) },
        })
    }
}

fn required(path: &Path) -> Result<Source, WallFault> {
    open_source(path, ResolveFlag::RESOLVE_NO_SYMLINKS).step_on("open", path.display())
}

fn optional(path: &Path) -> Result<Option<Source>, WallFault> {
    match open_source(path, ResolveFlag::RESOLVE_NO_MAGICLINKS) {
        Ok(source) => Ok(Some(source)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(fault(format!("open {}", path.display()), errno)),
    }
}

fn open_source(path: &Path, resolve: ResolveFlag) -> nix::Result<Source> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let here = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let handle = openat2(&here, path, OpenHow::new().flags(flags).resolve(resolve))?;
    let mode = fstat(&handle)?.st_mode & SFlag::S_IFMT.bits();
    let kind = if mode == SFlag::S_IFLNK.bits() {
        Kind::Link(nix::fcntl::readlinkat(&handle, "")?.into())
    } else if mode == SFlag::S_IFDIR.bits() {
        Kind::Directory
    } else {
        Kind::File
    };
    Ok(Source { path: path.to_owned(), handle, kind })
}

/// Builds the view in this process's own mount namespace and makes it the root. `mapping` is the user namespace owners
/// are mapped through, for root's workspaces. Returns the canary: a file no rule grants, which a call whose Landlock
/// rules are in force cannot open.
pub(super) fn build(
    profile: &Profile,
    identity: &Identity,
    mapping: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, WallFault> {
    // Without this every mount below would appear on the host.
    mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)
        .step("make mounts private")?;
    // Only now: mounts can be copied by descriptors that were opened in this mount namespace.
    let sources = &Sources::open(profile)?;
    let root = match &sources.whole {
        None => assemble(sources)?,
        Some(whole) => whole_file_system(whole)?,
    };
    let root = root.as_fd();
    devices(root, sources)?;
    // Init mounts its own on top; below a user namespace the kernel demands that one is visible already.
    attach(root, open_clone(&sources.proc)?.as_fd(), &sources.proc)?;
    let canary = canary(root, identity)?;
    lay_out(root, profile, sources, mapping)?;
    fchdir(root).step("enter the new root")?;
    pivot_root(".", ".").step("make the view the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("let go of the host's file system")?;
    nix::unistd::chdir("/").step("enter the view")?;
    let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).step("open the view")?;
    sys::set_mount(root.as_fd(), READ_ONLY, None, Reach::This).step("make the view read-only")?;
    Ok(canary)
}

/// An empty root with the system in it.
fn assemble(sources: &Sources) -> Result<OwnedFd, WallFault> {
    tmpfs(Path::new(ASSEMBLY), "size=1m,nr_inodes=4096,mode=755").step("mount the new root")?;
    let root = open(ASSEMBLY, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .step("open the new root")?;
    for source in &sources.system {
        match &source.kind {
            Kind::Link(target) => {
                let parent =
                    place(root.as_fd(), source.path.parent().unwrap_or(Path::new("/")), &Kind::Directory)?;
                let name = source.path.file_name().unwrap_or_default();
                symlinkat(target, &parent, name).step_on("make the link", source.path.display())?;
            }
            Kind::Directory | Kind::File => {
                let tree = open_clone(source)?;
                sys::set_mount(tree.as_fd(), READ_ONLY, None, Reach::Below)
                    .step_on("make read-only", source.path.display())?;
                attach(root.as_fd(), tree.as_fd(), source)?;
            }
        }
    }
    for path in ["/run", "/tmp", "/dev", "/proc"] {
        place(root.as_fd(), Path::new(path), &Kind::Directory)?;
    }
    Ok(root)
}

/// The host's file system read-only, with what is live or shared replaced by emptiness.
fn whole_file_system(whole: &Source) -> Result<OwnedFd, WallFault> {
    let tree = open_clone(whole)?;
    sys::set_mount(tree.as_fd(), READ_ONLY, None, Reach::Below).step("make the file system read-only")?;
    let onto = open(ASSEMBLY, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).step("open the new root")?;
    sys::move_mount(tree.as_fd(), onto.as_fd()).step("mount the new root")?;
    for path in PRIVATE {
        if let Some(place) = find(tree.as_fd(), Path::new(path))? {
            tmpfs(&by_descriptor(&place), "size=1m,nr_inodes=1024,mode=755").step_on("empty", path)?;
        }
    }
    Ok(tree)
}

fn devices(root: BorrowedFd<'_>, sources: &Sources) -> Result<(), WallFault> {
    for source in &sources.devices {
        let tree = open_clone(source)?;
        sys::set_mount(tree.as_fd(), libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC, None, Reach::Below)
            .step_on("restrict the mount of", source.path.display())?;
        attach(root, tree.as_fd(), source)?;
    }
    let dev = place(root, Path::new("/dev"), &Kind::Directory)?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlinkat(target, &dev, name).step_on("make the link /dev", name)?;
    }
    place(root, Path::new("/dev/shm"), &Kind::Directory).map(drop)
}

/// A file on a writable mount that belongs to the user of the calls: only a missing Landlock rule keeps it shut.
fn canary(root: BorrowedFd<'_>, identity: &Identity) -> Result<OwnedFd, WallFault> {
    let step = "make the canary file";
    let run = place(root, Path::new("/run"), &Kind::Directory)?;
    tmpfs(&by_descriptor(&run), "size=4k,nr_inodes=8,mode=755").step("mount an empty /run")?;
    let run = place(root, Path::new("/run"), &Kind::Directory)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    drop(openat(&run, CANARY, flags, Mode::S_IRUSR | Mode::S_IWUSR).step(step)?);
    let canary = openat(&run, CANARY, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).step(step)?;
    let (uid, gid) = (Uid::from_raw(identity.outside_uid), Gid::from_raw(identity.outside_gid));
    if nix::unistd::geteuid().is_root() {
        fchownat(&canary, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH).step(step)?;
    }
    nix::unistd::unlinkat(&run, CANARY, nix::unistd::UnlinkatFlags::NoRemoveDir).step(step)?;
    Ok(canary)
}

/// What is put into the view at one path.
enum Layer<'a> {
    Read(&'a Source),
    Write(&'a Source),
    /// Nothing: our own directory.
    Cover,
}

/// Puts granted paths into the view and covers over our own directories, outermost first: a cover hides what a grant
/// around it shows, and a grant inside it shows again.
fn lay_out(
    root: BorrowedFd<'_>,
    profile: &Profile,
    sources: &Sources,
    mapping: Option<BorrowedFd<'_>>,
) -> Result<(), WallFault> {
    let writable = || sources.write.iter().chain([&sources.workspace]);
    let hidden = |path: &Path| profile.covered.iter().any(|covered| path.starts_with(path_of(covered)));
    // What lies in a writable tree is writable with it.
    let inside = |path: &Path| {
        writable().any(|other| path != other.path && path.starts_with(&other.path)) && !hidden(path)
    };
    let mut layers: Vec<(&Path, Layer<'_>)> = Vec::new();
    for source in &sources.read {
        if !inside(&source.path) {
            layers.push((&source.path, Layer::Read(source)));
        }
    }
    layers.extend(writable().map(|source| (source.path.as_path(), Layer::Write(source))));
    layers.extend(profile.covered.iter().map(|path| (path_of(path), Layer::Cover)));
    // Stable: of grants of one path the last, which is the workspace, lies on top.
    layers.sort_by_key(|(path, _)| *path);
    let mut hiding = Vec::new();
    for (path, layer) in &layers {
        match layer {
            Layer::Read(source) => {
                let tree = open_clone(source)?;
                // Where a file system cannot be id-mapped, root's unreadable files stay unreadable: less, never more.
                if sys::set_mount(tree.as_fd(), READ_ONLY, mapping, Reach::Below).is_err() {
                    sys::set_mount(tree.as_fd(), READ_ONLY, None, Reach::Below)
                        .step_on("make read-only", path.display())?;
                }
                attach(root, tree.as_fd(), source)?;
            }
            Layer::Write(source) => {
                let tree = open_clone(source)?;
                let step = if mapping.is_some() { "id-map" } else { "restrict the mount of" };
                sys::set_mount(tree.as_fd(), WRITABLE, mapping, Reach::Below)
                    .step_on(step, path.display())?;
                attach(root, tree.as_fd(), source)?;
            }
            Layer::Cover => hiding.extend(cover(root, profile, path)?.then_some(*path)),
        }
    }
    // Only now: until here places for grants inside them could be made.
    for path in hiding {
        let top = find(root, path)?.ok_or_else(|| fault("cover a directory", "it vanished"))?;
        sys::set_mount(top.as_fd(), READ_ONLY, None, Reach::This).step_on("cover", path.display())?;
    }
    Ok(())
}

/// Hides one of our own directories if it shows.
fn cover(root: BorrowedFd<'_>, profile: &Profile, covered: &Path) -> Result<bool, WallFault> {
    let granted = || [&profile.workspace].into_iter().chain(&profile.read).chain(&profile.write);
    // Who could rename a directory on the way to it would have it uncovered in the next zygote.
    for ancestor in covered.ancestors().skip(1) {
        if granted().any(|path| ancestor != path_of(path) && ancestor.starts_with(path_of(path))) {
            pin(root, ancestor)?;
        }
    }
    let Some(place) = find(root, covered)? else {
        // What cannot be covered now would lie open as soon as it exists, unless another cover hides it.
        let hidden_from = |path: &Path| {
            profile
                .covered
                .iter()
                .map(|other| path_of(other))
                .any(|other| other != covered && covered.starts_with(other) && other.starts_with(path))
        };
        let shows = |path: &Path| covered.starts_with(path) && !hidden_from(path);
        if granted().any(|path| shows(path_of(path))) {
            return Err(fault(format!("cover {}", covered.display()), "it does not exist"));
        }
        return Ok(false);
    };
    let mode = fstat(&place).step_on("look at", covered.display())?.st_mode & SFlag::S_IFMT.bits();
    if mode == SFlag::S_IFDIR.bits() {
        tmpfs(&by_descriptor(&place), "size=4k,nr_inodes=64,mode=755").step_on("cover", covered.display())?;
    } else {
        let null = required(Path::new("/dev/null"))?;
        sys::move_mount(open_clone(&null)?.as_fd(), place.as_fd()).step_on("cover", covered.display())?;
    }
    Ok(true)
}

/// Makes a directory a mount point of itself, so that it cannot be renamed or removed.
fn pin(root: BorrowedFd<'_>, path: &Path) -> Result<(), WallFault> {
    if let Some(place) = find(root, path)? {
        let tree = sys::open_tree_clone(place.as_fd()).step_on("pin", path.display())?;
        sys::move_mount(tree.as_fd(), place.as_fd()).step_on("pin", path.display())?;
    }
    Ok(())
}

fn open_clone(source: &Source) -> Result<OwnedFd, WallFault> {
    sys::open_tree_clone(source.handle.as_fd()).step_on("copy the mount of", source.path.display())
}

fn attach(root: BorrowedFd<'_>, tree: BorrowedFd<'_>, source: &Source) -> Result<(), WallFault> {
    let onto = place(root, &source.path, &source.kind)?;
    sys::move_mount(tree, onto.as_fd()).step_on("mount", source.path.display())
}

/// An existing path in the view, without following links.
fn find(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, WallFault> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    match openat2(root, relative, how) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(fault(format!("find {} in the view", path.display()), errno)),
    }
}

/// A path of the view to mount on, made where it does not exist.
fn place(root: BorrowedFd<'_>, path: &Path, kind: &Kind) -> Result<OwnedFd, WallFault> {
    let step = || format!("make a place for {}", path.display());
    let looking = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = root.try_clone_to_owned().step(&step())?;
    let mut components = path.components().filter(|part| *part != Component::RootDir).peekable();
    while let Some(part) = components.next() {
        let Component::Normal(name) = part else {
            return Err(fault(step(), "not a plain absolute path"));
        };
        let last = components.peek().is_none();
        let next = match openat(&at, name, looking, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT) => {
                if last && *kind == Kind::File {
                    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                    drop(openat(&at, name, flags, Mode::from_bits_truncate(0o644)).step(&step())?);
                } else {
                    mkdirat(&at, name, Mode::from_bits_truncate(0o755)).step(&step())?;
                    // The umask of a zygote is 077.
                    let made = openat(&at, name, OFlag::O_RDONLY | looking & !OFlag::O_PATH, Mode::empty());
                    fs::File::from(made.step(&step())?)
                        .set_permissions(fs::Permissions::from_mode(0o755))
                        .step(&step())?;
                }
                openat(&at, name, looking, Mode::empty()).step(&step())?
            }
            Err(errno) => return Err(fault(step(), errno)),
        };
        let mode = fstat(&next).step(&step())?.st_mode & SFlag::S_IFMT.bits();
        if mode == SFlag::S_IFLNK.bits() {
            return Err(fault(step(), "a link is in the way"));
        }
        at = next;
    }
    Ok(at)
}

/// A directory of the view to mount on, made where it does not exist.
pub(super) fn place_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, WallFault> {
    place(root, path, &Kind::Directory)
}

fn by_descriptor(place: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// Mounts a tmpfs.
pub(super) fn tmpfs(at: &Path, options: &str) -> nix::Result<()> {
    mount(Some("oxibot"), at, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
}
