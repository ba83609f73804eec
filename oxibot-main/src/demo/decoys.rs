//! What the recording is aimed at: made for one run, worthless, recognisable.
//!
//! The decoy SSH key and the decoy configuration lie outside the workspace and belong to the user who runs the tour, so
//! that without the wall they could be read. The decoy provider key is in the environment of this very process. The
//! files are made before main confines itself and removed by the launcher, because main may not.

use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Name of the environment variable that holds the decoy provider key.
pub const KEY_VARIABLE: &str = "DEMO_DECOY_API_KEY";

/// The decoys of one run.
#[derive(Debug, Clone)]
pub struct Decoys {
    /// Directory that stands for the user's home.
    pub outside: PathBuf,
    /// Random text in the SSH key.
    pub ssh_canary: String,
    /// Random text that is the provider key.
    pub key_canary: String,
    /// Process id of the supervisor.
    pub supervisor: u32,
}

impl Decoys {
    /// Makes the directory below the system's temporary directory, with a workspace and a home for OxiBot inside.
    ///
    /// # Errors
    /// Whatever the file system said.
    pub fn plant() -> io::Result<Self> {
        let ssh_canary = random()?;
        let key_canary = format!("sk-decoy-{}", random()?);
        let outside =
            std::env::temp_dir().join(format!("oxibot-demo-{}", random()?.get(..8).unwrap_or_default()));
        let directories = ["", ".ssh", ".oxibot", "workspace"];
        for name in directories {
            std::fs::DirBuilder::new().mode(0o700).create(outside.join(name))?;
        }
        let key = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\ndecoy {ssh_canary}\n-----END OPENSSH PRIVATE KEY-----\n"
        );
        write(&outside.join(".ssh/id_ed25519"), &key)?;
        // The tour plays at the highest level to be had, whatever that is, and says which.
        let configuration = format!(
            "{{ \"sandbox\": {{ \"require\": \"reduced\" }},\n  \
             \"providers\": {{ \"openai\": {{ \"apiKey\": \"{key_canary}\" }} }} }}\n"
        );
        write(&outside.join(".oxibot/config.json"), &configuration)?;
        Ok(Self { outside, ssh_canary, key_canary, supervisor: 0 })
    }

    /// The decoys another process of ours planted.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn found(outside: &Path, supervisor: u32) -> io::Result<Self> {
        let key = std::fs::read_to_string(outside.join(".ssh/id_ed25519"))?;
        let ssh_canary =
            key.split_whitespace().skip_while(|word| *word != "decoy").nth(1).unwrap_or_default();
        let configuration = std::fs::read_to_string(outside.join(".oxibot/config.json"))?;
        let key_canary =
            configuration.split('"').find(|word| word.starts_with("sk-decoy-")).unwrap_or_default();
        if ssh_canary.is_empty() || key_canary.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the decoys are not those that were planted",
            ));
        }
        Ok(Self {
            outside: outside.into(),
            ssh_canary: ssh_canary.into(),
            key_canary: key_canary.into(),
            supervisor,
        })
    }

    /// Workspace of the tour.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.outside.join("workspace")
    }

    /// OxiBot's home during the tour.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.outside.join(".oxibot")
    }

    /// Removes everything. For the launcher: main has shut itself out.
    ///
    /// # Errors
    /// Whatever the file system said.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.outside)
    }

    /// Fills the recording's placeholders.
    #[must_use]
    pub fn fill(&self, recording: &str, port: u16) -> String {
        recording
            .replace("{{outside}}", &self.outside.display().to_string())
            .replace("{{port}}", &port.to_string())
            .replace("{{supervisor}}", &self.supervisor.to_string())
            .replace("{{main}}", &std::process::id().to_string())
    }

    /// Opens the port of the server that stands for the attacker's. Before main confines itself: afterwards it may not.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn open_port() -> io::Result<std::net::TcpListener> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Serves that port, counting who connects.
    ///
    /// # Errors
    /// When the runtime does not take it.
    pub fn listen(listener: std::net::TcpListener) -> io::Result<Server> {
        let listener = TcpListener::from_std(listener)?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(AtomicU32::new(0));
        let (stop, mut stopped) = oneshot::channel::<()>();
        let count = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        if accepted.is_ok() {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    _ = &mut stopped => break,
                }
            }
        });
        Ok(Server { port, seen, stop, task })
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self { outside: "/tmp/outside".into(), ssh_canary: "a".into(), key_canary: "b".into(), supervisor: 7 }
    }
}

/// The decoy server.
#[derive(Debug)]
pub struct Server {
    port: u16,
    seen: Arc<AtomicU32>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it; how many connections arrived.
    pub async fn close(self) -> u32 {
        // Both fail only when the task is gone already.
        let _ = self.stop.send(());
        let _ = self.task.await;
        self.seen.load(Ordering::Relaxed)
    }
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 12];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planted_is_found_and_removed() {
        let planted = Decoys::plant().unwrap();
        let found = Decoys::found(&planted.outside, 7).unwrap();
        assert_eq!(
            (found.ssh_canary, found.key_canary),
            (planted.ssh_canary.clone(), planted.key_canary.clone())
        );
        planted.remove().unwrap();
        assert!(!planted.outside.exists());
    }

    #[tokio::test]
    async fn a_connection_is_counted() {
        let server = Decoys::listen(Decoys::open_port().unwrap()).unwrap();
        let address = ("127.0.0.1", server.port());
        drop(tokio::net::TcpStream::connect(address).await.unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(server.close().await, 1);
    }
}
