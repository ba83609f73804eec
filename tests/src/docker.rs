//! What Docker's default profile leaves a container: the complement of moby's `profiles/seccomp/default.json` on x86_64,
//! for a container without added capabilities, and the capabilities it keeps.
//!
//! A container's own root file system is not here, and AppArmor's profile, which refuses mounts once more. Newer system
//! calls than the profile knows are not listed: the engine answers ENOSYS to them, as a kernel without them does.

use std::path::Path;
use std::process::Command;

/// Refused whatever their arguments (EPERM): not in the profile, or only for capabilities a default container lacks.
pub const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_get_mempolicy,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_uselib,
    libc::SYS_userfaultfd,
    libc::SYS_ustat,
    libc::SYS_vhangup,
];

/// `CLONE_NEW*` bits that `clone` may not have.
pub const NAMESPACES: u64 = 0x7e02_0000;

/// The values of `personality` that are let through.
pub const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// What the bounding set keeps, as `setpriv` writes it.
pub const CAPABILITIES: &str = "-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,\
     +net_bind_service,+sys_chroot,+kill,+audit_write";

/// For bash as root in fresh mount and PID namespaces: what a container sees of `/sys` and `/proc`. Then becomes its
/// arguments.
const ARRANGE: &str = r#"set -e
for point in $(findmnt -rno TARGET | grep '^/sys') /proc/sys /proc/bus /proc/fs /proc/irq /proc/sysrq-trigger; do
  [ -e "$point" ] || continue
  mountpoint -q "$point" || mount --bind "$point" "$point"
  mount -o remount,bind,ro "$point"
done
for file in /proc/kcore /proc/keys /proc/timer_list; do
  if [ -e "$file" ]; then mount --bind /dev/null "$file"; fi
done
for directory in /proc/acpi /proc/scsi /sys/firmware; do
  if [ -d "$directory" ]; then mount -t tmpfs -o ro,size=0 none "$directory"; fi
done
exec "$@""#;

/// The beginning of a command that runs in something like a default container of Docker, on this machine's own files:
/// namespaces, masked `/proc` and `/sys`, no writable cgroup tree, Docker's capabilities and filter. Needs root. What
/// follows is the program and its arguments. `programs`: where `sabotage` is; `user`: as whom it runs.
#[must_use]
pub fn container(programs: &Path, user: Option<u32>) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "--cgroup", "--mount-proc"])
        .args(["--propagation", "private", "bash", "-c", ARRANGE, "container"]);
    if let Some(user) = user {
        let user = user.to_string();
        command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
    }
    command.arg(programs.join("sabotage")).args(["docker", "--"]);
    command
}
