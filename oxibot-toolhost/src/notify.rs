//! What systemd is told of a service: that it is ready, that it still works, that it is ending (sd_notify(3)).
//!
//! One datagram says one thing, so this needs no library. The socket is connected before a process shuts itself in; after
//! that only sending is needed. Sending never blocks: who does not hear us must not hold us up. Without a service manager
//! nothing is opened and nothing is said. It decides nothing: when work is possible, its owner knows.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager as it is seen from a service.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    pulse: Option<Pulse>,
}

/// When the watchdog is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pulse {
    every: Duration,
    due: Instant,
}

impl Notify {
    /// Takes socket and watchdog from the environment. Call it before shutting in.
    ///
    /// # Errors
    /// When there is a service manager and it cannot be reached: it would end us for our silence.
    pub fn of_service() -> io::Result<Self> {
        let socket = std::env::var_os("NOTIFY_SOCKET").map(|name| connect(&name)).transpose()?;
        let every = watchdog(std::env::var_os("WATCHDOG_USEC"), std::env::var_os("WATCHDOG_PID"));
        let pulse = every.map(|every| Pulse { every, due: Instant::now() });
        Ok(Self { pulse: pulse.filter(|_| socket.is_some()), socket })
    }

    /// Ready to work; `status` is a line for `systemctl status`.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// On the way out.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// A line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.say(&format!("STATUS={status}"));
    }

    /// When the watchdog is to be fed next, if there is one.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.pulse.map(|pulse| pulse.due)
    }

    /// Feeds the watchdog. Only for who has just found out that work is possible.
    pub fn alive(&mut self, now: Instant) {
        if let Some(pulse) = &mut self.pulse {
            pulse.due = now + pulse.every;
            self.say("WATCHDOG=1");
        }
    }

    /// Looks again later without feeding it: work was not possible. It is soon, so that what recovers is found in time.
    pub fn missed(&mut self, now: Instant) {
        if let Some(pulse) = &mut self.pulse {
            pulse.due = now + pulse.every / 4;
        }
    }

    fn say(&self, what: &str) {
        if let Some(socket) = &self.socket {
            // Whoever does not listen decides for itself what our silence means.
            let _ = socket.send(what.as_bytes());
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => socket.connect_addr(&SocketAddr::from_abstract_name(abstract_name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}

/// A third of the time after which silence is taken for death. A watchdog of another process is not ours to feed.
fn watchdog(usec: Option<OsString>, pid: Option<OsString>) -> Option<Duration> {
    let own = pid.is_none_or(|pid| pid.to_str() == Some(std::process::id().to_string().as_str()));
    let usec: u64 = usec?.to_str()?.parse().ok()?;
    (own && usec > 0).then(|| Duration::from_micros(usec / 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn service_manager_hears_each_word_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let now = Instant::now();
        let pulse = Some(Pulse { every: Duration::from_secs(9), due: now });
        let mut notify = Notify { socket: Some(connect(path.as_os_str()).unwrap()), pulse };
        notify.ready("level full");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=level full");
        notify.alive(now);
        assert_eq!(heard(&manager), "WATCHDOG=1");
        assert_eq!(notify.due(), Some(now + Duration::from_secs(9)));
        notify.missed(now);
        assert_eq!(notify.due(), Some(now + Duration::from_millis(2250)));
        notify.stopping();
        assert_eq!(heard(&manager), "STOPPING=1", "what was missed was not said");
    }

    #[test]
    fn abstract_name_is_reached() {
        let name = format!("oxibot-notify-{}", std::process::id());
        let manager =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        let socket = Some(connect(OsStr::new(&format!("@{name}"))).unwrap());
        Notify { socket, pulse: None }.stopping();
        assert_eq!(heard(&manager), "STOPPING=1");
    }

    #[test]
    fn watchdog_is_fed_three_times_in_its_time_and_only_by_whom_it_watches() {
        let own = || Some(std::process::id().to_string().into());
        assert_eq!(watchdog(Some("30000000".into()), own()), Some(Duration::from_secs(10)));
        assert_eq!(watchdog(Some("30000000".into()), None), Some(Duration::from_secs(10)));
        assert_eq!(watchdog(Some("30000000".into()), Some("1".into())), None);
        assert_eq!(watchdog(Some("0".into()), None), None);
        assert_eq!(watchdog(None, None), None);
    }

    #[test]
    fn without_a_service_manager_nothing_is_said_and_nothing_due() {
        let mut notify = Notify::default();
        notify.ready("x");
        notify.alive(Instant::now());
        assert_eq!(notify.due(), None);
    }
}
