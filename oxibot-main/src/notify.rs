//! What systemd is told of main as a service: that it is ready, that it still works, that it is ending (sd_notify(3)).
//!
//! The socket is connected before main confines itself: afterwards it may make no Unix socket. Sending never blocks.
//! Without a service manager nothing is opened and nothing is said.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::config::Environment;

/// The service manager as it is seen from a service.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    every: Option<Duration>,
}

impl Notify {
    /// Takes socket and watchdog from the environment.
    ///
    /// # Errors
    /// When there is a service manager and it cannot be reached: it would end us for our silence.
    pub fn of_service(environment: &Environment) -> io::Result<Self> {
        let socket = environment.get("NOTIFY_SOCKET").map(connect).transpose()?;
        let text = |name| environment.get(name).and_then(OsStr::to_str);
        let every = watchdog(text("WATCHDOG_USEC"), text("WATCHDOG_PID"));
        Ok(Self { every: every.filter(|_| socket.is_some()), socket })
    }

    /// Ready to work; `status` is a line for `systemctl status`.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// On the way out.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// How often the watchdog wants to be fed, if there is one.
    #[must_use]
    pub fn every(&self) -> Option<Duration> {
        self.every
    }

    /// Feeds the watchdog. Only for who has just found out that work is possible.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, what: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(what.as_bytes())
        {
            tracing::debug!(%error, "the service manager does not hear us");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}

/// A third of the time after which silence is taken for death. A watchdog of another process is not ours to feed.
fn watchdog(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let own = pid.is_none_or(|pid| pid == std::process::id().to_string());
    let usec: u64 = usec?.parse().ok()?;
    (own && usec > 0).then(|| Duration::from_micros(usec / 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_manager_hears_and_the_watchdog_is_fed_three_times_in_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "9000000")];
        let notify = Notify::of_service(&Environment::of(&variables)).unwrap();
        assert_eq!(notify.every(), Some(Duration::from_secs(3)));
        notify.ready("up");
        notify.stopping();
        let mut buffer = [0; 64];
        for expected in ["READY=1\nSTATUS=up", "STOPPING=1"] {
            let length = manager.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected.as_bytes());
        }
    }

    #[test]
    fn manager_that_cannot_be_reached_is_an_error_and_none_is_silence() {
        assert!(Notify::of_service(&Environment::of(&[("NOTIFY_SOCKET", "/nonexistent/notify")])).is_err());
        let quiet = Notify::of_service(&Environment::of(&[("WATCHDOG_USEC", "9000000")])).unwrap();
        assert_eq!(quiet.every(), None);
        quiet.alive();
        assert_eq!(watchdog(Some("9"), Some("1")), None);
    }
}
