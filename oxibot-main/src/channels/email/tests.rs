//! The channel against a server that says what a test wants: what a real one does only when it is broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::store::StoreError;

const ANN: &str = "ann@example.org";

/// What the server does when mail 1 is asked for.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Fine,
    RefusedAlways,
    Nonsense,
    TooMuch,
    /// The connection breaks, as often as this.
    Breaks(usize),
}

/// Takes what comes, and remembers it.
#[derive(Default)]
struct Tray {
    keys: Mutex<Vec<String>>,
    place: Mutex<Option<String>>,
}

impl Intake for Tray {
    fn up(&self) {}

    fn admits(&self, sender: &Sender) -> bool {
        sender.id == ANN
    }

    fn reject(&self, sender: &Sender, why: &str) {
        panic!("{}: {why}", sender.id);
    }

    fn place(&self) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        Box::pin(async { Ok(self.place.lock().unwrap().clone()) })
    }

    fn keep_place(&self, place: String) -> BoxFuture<'_, Result<(), StoreError>> {
        *self.place.lock().unwrap() = Some(place);
        Box::pin(async { Ok(()) })
    }

    fn accept(&self, message: Inbound) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.keys.lock().unwrap().push(message.text);
        Box::pin(async { Ok(true) })
    }
}

async fn serve(stream: TcpStream, first: First, broken: Arc<AtomicUsize>) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"* OK ready\r\n").await.ok()?;
    while let Ok(Some(line)) = lines.next_line().await {
        let (tag, command) = line.split_once(' ')?;
        let answer = if command.starts_with("CAPABILITY") {
            "* CAPABILITY IMAP4rev1\r\n".to_owned()
        } else if command.starts_with("SELECT") {
            "* 2 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 3] x\r\n".to_owned()
        } else if command.starts_with("UID SEARCH UID 1") {
            "* SEARCH 1\r\n".to_owned()
        } else if command.starts_with("UID SEARCH") {
            "* SEARCH 1 2\r\n".to_owned()
        } else if command.starts_with("UID FETCH") {
            let uid = command.split_whitespace().nth(2)?;
            match first {
                First::RefusedAlways if uid == "1" => {
                    write.write_all(format!("{tag} NO not now\r\n").as_bytes()).await.ok()?;
                    continue;
                }
                First::Nonsense if uid == "1" => "* \u{1} nonsense\r\n".to_owned(),
                First::TooMuch if uid == "1" => {
                    format!("* 1 FETCH (BODY[] {{999999999}}\r\n{}", "x".repeat(2_000_000))
                }
                First::Breaks(times) if uid == "1" && broken.fetch_add(1, Ordering::Relaxed) < times => {
                    return None;
                }
                First::Fine | First::RefusedAlways | First::Nonsense | First::TooMuch | First::Breaks(_) => {
                    let mail = format!("From: {ANN}\r\nMessage-ID: <{uid}@x>\r\n\r\nmail {uid}");
                    let section = if command.contains("HEADER") { "BODY[HEADER]<0>" } else { "BODY[]<0>" };
                    let size = mail.len();
                    format!(
                        "* {uid} FETCH (UID {uid} RFC822.SIZE {size} INTERNALDATE \"30-Nov-2026 10:00:00 +0000\" \
                         {section} {{{size}}}\r\n{mail})\r\n"
                    )
                }
            }
        } else {
            String::new()
        };
        write.write_all(format!("{answer}{tag} OK done\r\n").as_bytes()).await.ok()?;
    }
    Some(())
}

/// Connects again and again, as the gateway does. Gives back what was taken and how often it was connected.
fn taken(first: First, most: usize) -> (Vec<String>, usize) {
    crate::provider::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broken = Arc::new(AtomicUsize::new(0));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                drop(tokio::spawn(serve(stream, first, Arc::clone(&broken))));
            }
        });
        let email = Email::new(&config::Email {
            imap_host: "127.0.0.1".into(),
            imap_port: port,
            imap_use_ssl: false,
            imap_username: "bot@example.org".into(),
            imap_password: Some("p".to_owned().into()),
            smtp_host: "127.0.0.1".into(),
            smtp_password: Some("p".to_owned().into()),
            require_authentication: false,
            ..config::Email::default()
        })
        .unwrap();
        let tray = Tray::default();
        let mut connected = 0;
        while connected < most {
            connected += 1;
            // A look that succeeds goes on to wait: there is nothing more to see.
            let looked = timeout(Duration::from_secs(20), async {
                tokio::select! {
                    fault = email.receive(&tray) => Some(fault),
                    () = async {
                        while tray.keys.lock().unwrap().last().is_none_or(|text| text != "mail 2") {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    } => None,
                }
            })
            .await
            .unwrap();
            if looked.is_none() {
                break;
            }
        }
        server.abort();
        let keys = tray.keys.lock().unwrap().clone();
        (keys, connected)
    })
}

#[test]
fn ordinary_mails_are_taken_at_the_first_look() {
    assert_eq!(taken(First::Fine, 1), (vec!["mail 1".to_owned(), "mail 2".to_owned()], 1));
}

#[test]
fn broken_mail_does_not_hide_later_ones() {
    for first in [First::RefusedAlways, First::Nonsense, First::TooMuch] {
        let (texts, connected) = taken(first, 10);
        assert_eq!(texts, ["mail 2"]);
        assert!(connected >= 3, "it was tried again: {connected}");
    }
}

#[test]
fn connection_that_breaks_loses_no_mail_however_often() {
    let (texts, connected) = taken(First::Breaks(7), 10);
    assert_eq!((texts, connected), (vec!["mail 1".to_owned(), "mail 2".to_owned()], 8));
}
