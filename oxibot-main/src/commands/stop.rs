//! `stop`: the emergency stop. Reaches every toolhost of the home by its socket, and keeps them stopped by a file.
//!
//! The file is written first: a toolhost that starts in this moment, or whose socket does not answer, reads it before
//! its next call. Needs neither configuration nor toolhost of its own, and so works when both are broken.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use oxibot_proto::message::{StopScope, ToMain, ToToolhost};

use crate::cli::{Global, StopArgs};
use crate::config::{Environment, Paths};
use crate::exit::Exit;
use crate::render::terminal;

use super::control;
use super::fault::Fault;

/// The machine's stop, which is its administrator's to remove.
const MACHINE_STOP: &str = "/run/oxibot/STOP";

/// Stops, or accepts calls again.
pub(super) fn run(global: &Global, args: &StopArgs) -> Exit {
    let scope = match (args.all, args.clear) {
        (true, _) => StopScope::All,
        (false, true) => StopScope::Clear,
        (false, false) => StopScope::Running,
    };
    let home = match Paths::find(&super::options(global), &Environment::of_process()) {
        Ok(paths) => paths.home,
        Err(error) => return Fault::from(error).report(false),
    };
    // A service's toolhost keeps its own mark, in a home that only it may write to.
    let marked = if global.toolhost.is_some() { Ok(()) } else { mark(&home, scope) };
    if let Err(error) = &marked {
        let path = home.join("run/stop");
        terminal::complain(&format!("cannot change {}: {error}", path.display()));
    }
    let (mut reached, mut ended, mut failed) = (0_u32, 0_u32, 0_u32);
    for socket in control::sockets(global, &home) {
        match control::ask(&socket, &ToToolhost::Stop(scope), ToMain::into_stopped) {
            Ok(Some(stopped)) => {
                reached = reached.saturating_add(1);
                ended = ended.saturating_add(stopped.ended);
            }
            Ok(None) => {}
            Err(error) => {
                failed = failed.saturating_add(1);
                terminal::complain(&format!("cannot reach {}: {error}", socket.display()));
            }
        }
    }
    if marked.is_err() {
        // Nothing may be claimed about new calls.
        let _failed_anyway = super::print(&said(StopScope::Running, reached, ended, &home));
        return Exit::Failed;
    }
    let printed = super::print(&said(scope, reached, ended, &home));
    if failed > 0 { Exit::Failed } else { printed }
}

fn said(scope: StopScope, reached: u32, ended: u32, home: &Path) -> String {
    let calls = if ended == 1 { "call" } else { "calls" };
    let hosts = if reached == 1 { "toolhost" } else { "toolhosts" };
    let done = format!("{ended} {calls} ended, {reached} {hosts} reached\n");
    match scope {
        StopScope::Running => done,
        StopScope::All => format!("{done}new calls are refused until `oxibot stop --clear`\n"),
        StopScope::Clear if home.join("STOP").symlink_metadata().is_ok() => format!(
            "new calls are still refused: remove {} to accept them again\n",
            home.join("STOP").display()
        ),
        StopScope::Clear if Path::new(MACHINE_STOP).symlink_metadata().is_ok() => {
            format!("new calls are still refused: the machine's administrator has to remove {MACHINE_STOP}\n")
        }
        StopScope::Clear => "calls are accepted again\n".to_owned(),
    }
}

/// Writes or removes `run/stop`.
fn mark(home: &Path, scope: StopScope) -> io::Result<()> {
    let run = home.join("run");
    let file = run.join("stop");
    match scope {
        StopScope::Running => Ok(()),
        StopScope::All => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&run)?;
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&file)?
                .sync_all()
        }
        StopScope::Clear => match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use oxibot_proto::message::Stopped;

    use super::*;
    use crate::broker::fake;

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("run")).unwrap();
        home
    }

    fn args(all: bool, clear: bool) -> StopArgs {
        StopArgs { all, clear }
    }

    fn global(home: &Path) -> Global {
        Global {
            config: None,
            home: Some(home.to_path_buf()),
            no_sandbox: 0,
            embedded: false,
            toolhost: None,
            plain: true,
            log_file: None,
            verbose: 0,
            quiet: false,
            launched: false,
        }
    }

    #[test]
    fn a_running_toolhost_is_told() {
        let home = home();
        let listener = UnixListener::bind(home.path().join("run/1.sock")).unwrap();
        let host = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            fake::serve(stream, |fake| {
                assert!(matches!(fake.receive(), Some(ToToolhost::Hello(_))));
                fake.send(&ToMain::Hello(fake::hello()));
                assert_eq!(fake.receive(), Some(ToToolhost::Stop(StopScope::All)));
                fake.send(&ToMain::Stopped(Stopped { ended: 3, refusing: true }));
            });
        });
        assert_eq!(run(&global(home.path()), &args(true, false)), Exit::Done);
        host.join().unwrap();
        let mode = fs::metadata(home.path().join("run/stop")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_file_comes_and_goes_without_any_toolhost() {
        let home = home();
        drop(UnixListener::bind(home.path().join("run/9.sock")).unwrap());
        assert_eq!(run(&global(home.path()), &args(true, false)), Exit::Done);
        assert!(home.path().join("run/stop").exists());
        assert_eq!(run(&global(home.path()), &args(false, true)), Exit::Done);
        assert!(!home.path().join("run/stop").exists());
        assert_eq!(run(&global(home.path()), &args(false, true)), Exit::Done);
    }

    #[test]
    fn a_toolhost_that_does_not_answer_is_reported() {
        let home = home();
        let listener = UnixListener::bind(home.path().join("run/1.sock")).unwrap();
        let host = std::thread::spawn(move || drop(listener.accept().unwrap()));
        assert_eq!(run(&global(home.path()), &args(false, false)), Exit::Failed);
        host.join().unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_file_is_not_followed() {
        let home = home();
        let target = home.path().join("target");
        std::os::unix::fs::symlink(&target, home.path().join("run/stop")).unwrap();
        assert_eq!(run(&global(home.path()), &args(true, false)), Exit::Failed);
        assert!(!target.exists());
    }
}
