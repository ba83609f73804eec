//! Servers outside the wall that write down who reached them. They answer nothing.

use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The servers of one attack.
pub struct Listeners {
    /// Port on 127.0.0.1.
    pub tcp: u16,
    /// Port on ::1, 0 where there is no IPv6.
    pub tcp6: u16,
    /// Port on 127.0.0.1.
    pub udp: u16,
    log: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    /// How often all servers were looked at.
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

struct Sockets {
    streams: Vec<(String, UnixListener)>,
    datagrams: Vec<(String, UnixDatagram)>,
    tcp: Vec<(String, TcpListener)>,
    udp: UdpSocket,
}

impl Listeners {
    /// Listens on the network, on `abstract_name` (and with `-dgram` behind it), on `outside/host.sock`,
    /// `outside/host.dgram` and, left there by a careless host program, `workspace/host.sock` and
    /// `workspace/host.dgram`.
    ///
    /// # Panics
    /// When the machine refuses one of them.
    #[must_use]
    pub fn start(abstract_name: &str, outside: &Path, workspace: &Path) -> Self {
        let anyone = std::fs::Permissions::from_mode(0o777);
        let mut sockets = Sockets {
            streams: Vec::new(),
            datagrams: Vec::new(),
            tcp: Vec::new(),
            udp: UdpSocket::bind("127.0.0.1:0").expect("udp"),
        };
        for (place, directory) in [("outside", outside), ("workspace", workspace)] {
            let path = directory.join("host.sock");
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).expect("unix listener");
            std::fs::set_permissions(&path, anyone.clone()).expect("mode");
            sockets.streams.push((format!("unix stream in the {place}"), listener));
            let path = directory.join("host.dgram");
            let _ = std::fs::remove_file(&path);
            let socket = UnixDatagram::bind(&path).expect("unix datagram");
            std::fs::set_permissions(&path, anyone.clone()).expect("mode");
            sockets.datagrams.push((format!("unix datagram in the {place}"), socket));
        }
        let address = SocketAddr::from_abstract_name(abstract_name).expect("name");
        sockets
            .streams
            .push(("abstract stream".into(), UnixListener::bind_addr(&address).expect("abstract")));
        let address = SocketAddr::from_abstract_name(format!("{abstract_name}-dgram")).expect("name");
        sockets
            .datagrams
            .push(("abstract datagram".into(), UnixDatagram::bind_addr(&address).expect("abstract")));
        let four = TcpListener::bind("127.0.0.1:0").expect("tcp");
        let tcp = four.local_addr().expect("address").port();
        sockets.tcp.push(("tcp".into(), four));
        let mut tcp6 = 0;
        if let Ok(six) = TcpListener::bind("[::1]:0") {
            tcp6 = six.local_addr().expect("address").port();
            sockets.tcp.push(("tcp6".into(), six));
        }
        let udp = sockets.udp.local_addr().expect("address").port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU64::new(0));
        let thread = {
            let (log, stop, rounds) = (Arc::clone(&log), Arc::clone(&stop), Arc::clone(&rounds));
            std::thread::spawn(move || sockets.serve(&log, &stop, &rounds))
        };
        Self { tcp, tcp6, udp, log, stop, rounds, thread: Some(thread) }
    }

    /// Who was reached so far, after every server was looked at once more: what was sent has arrived by then.
    ///
    /// # Panics
    /// When the server thread did, or looks no more.
    #[must_use]
    pub fn reached(&self) -> Vec<String> {
        let begun = self.rounds.load(Ordering::Acquire);
        let start = Instant::now();
        // The round that is under way may have passed a server already; the next one has not.
        while self.rounds.load(Ordering::Acquire) < begun + 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "the servers look no more");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.log.lock().expect("log").clone()
    }
}

impl Sockets {
    fn serve(&self, log: &Mutex<Vec<String>>, stop: &AtomicBool, rounds: &AtomicU64) {
        for (_, socket) in &self.streams {
            socket.set_nonblocking(true).expect("nonblocking");
        }
        for (_, socket) in &self.datagrams {
            socket.set_nonblocking(true).expect("nonblocking");
        }
        for (_, socket) in &self.tcp {
            socket.set_nonblocking(true).expect("nonblocking");
        }
        self.udp.set_nonblocking(true).expect("nonblocking");
        let mut bytes = [0; 256];
        while !stop.load(Ordering::Relaxed) {
            let note = |name: &str, got: &[u8]| {
                log.lock().expect("log").push(format!("{name}: {:?}", String::from_utf8_lossy(got)));
            };
            for (name, socket) in &self.streams {
                if let Ok((mut peer, _)) = socket.accept() {
                    let _ = peer.set_read_timeout(Some(Duration::from_millis(20)));
                    let n = peer.read(&mut bytes).unwrap_or(0);
                    note(name, bytes.get(..n).unwrap_or_default());
                }
            }
            for (name, socket) in &self.tcp {
                if let Ok((mut peer, _)) = socket.accept() {
                    let _ = peer.set_read_timeout(Some(Duration::from_millis(20)));
                    let n = peer.read(&mut bytes).unwrap_or(0);
                    note(name, bytes.get(..n).unwrap_or_default());
                }
            }
            for (name, socket) in &self.datagrams {
                if let Ok(n) = socket.recv(&mut bytes) {
                    note(name, bytes.get(..n).unwrap_or_default());
                }
            }
            if let Ok(n) = self.udp.recv(&mut bytes) {
                note("udp", bytes.get(..n).unwrap_or_default());
            }
            rounds.fetch_add(1, Ordering::Release);
            std::thread::sleep(Duration::from_millis(4));
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
