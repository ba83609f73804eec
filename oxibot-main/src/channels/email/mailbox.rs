//! One mailbox over IMAP: logging in, what is new, fetching within bounds, waiting.
//!
//! Every command has a deadline and a bound on the answer. The library calls a fetch that was refused, and one whose
//! connection ended, a fetch of nothing; so nothing is taken for gone until the server was asked again. Envelopes and
//! body structures are never asked for: they would bring what strangers wrote into the protocol's own recursive grammar.

use std::time::Duration;

use async_imap::error::Error as ImapError;
use async_imap::extensions::idle::IdleResponse;
use async_imap::imap_proto::{Response, Status};
use async_imap::types::{Fetch, UnsolicitedResponse};
use async_imap::{Client, Session};
use futures_util::TryStreamExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{sleep, timeout};

use super::wire::{Budget, Wire};
use crate::channels::ChannelFault;
use crate::render::neutral;

/// Longest a command may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest the fetching of a mail may take: half a megabyte over a poor line.
const FETCHING: Duration = Duration::from_secs(120);
/// Most bytes an answer may have that carries no mail.
const ANSWER: usize = 256 * 1024;
/// Most bytes of the numbers a search may find: some hundred thousand.
const FOUND: usize = 4 * 1024 * 1024;
/// What an answer may have beside the mail it carries.
const AROUND: usize = 16 * 1024;

/// Where the mailbox is, and who reads it.
pub(super) struct Login<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) tls: bool,
    pub(super) user: &'a str,
    pub(super) password: &'a SecretString,
    pub(super) mailbox: &'a str,
}

/// What the server says of the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Era {
    /// UIDVALIDITY.
    pub(super) number: u32,
    /// UIDNEXT: the number the next mail gets at least.
    pub(super) next: u32,
}

/// The beginning of one mail.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    /// Length of the whole mail.
    pub(super) size: usize,
    /// When the server took it in, in seconds since 1970.
    pub(super) taken_in: Option<i64>,
}

/// Why a mail was not dealt with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It is this mail: the server is there, and does not hand it out, or in no form that can be read.
    #[error("{0}")]
    Mail(String),
    /// It is the connection, or our own store. The mail is not to blame.
    #[error("{0}")]
    Channel(#[from] ChannelFault),
}

/// A mailbox that is open.
pub(super) struct Mailbox {
    session: Session<Wire>,
    budget: Budget,
    name: String,
    idles: bool,
}

impl Mailbox {
    /// Connects and logs in.
    pub(super) async fn open(login: &Login<'_>) -> Result<Self, ChannelFault> {
        let connected = timeout(PATIENCE, Wire::connect(login.host, login.port, login.tls)).await;
        let (wire, budget) = connected.map_err(|_| late())?.map_err(ChannelFault::Lost)?;
        budget.refill(ANSWER);
        let mut client = Client::new(wire);
        let greeting = within(async { client.read_response().await.map_err(ImapError::from) }).await?;
        match greeting.as_ref().map(|greeting| greeting.parsed()) {
            Some(Response::Data { status: Status::Ok, .. }) => {}
            Some(Response::Data { outcome, .. }) => {
                let why = outcome.information.as_deref().unwrap_or("without a word");
                return Err(lost(&format!("the IMAP server turned us away: {why}")));
            }
            Some(_) | None => return Err(lost("that is no IMAP server")),
        }
        let session = timeout(PATIENCE, client.login(login.user, login.password.expose_secret()))
            .await
            .map_err(|_| late())?
            .map_err(|(error, _client)| of_login(&error))?;
        let mut mailbox = Self { session, budget, name: login.mailbox.to_owned(), idles: false };
        mailbox.budget.refill(ANSWER);
        let capabilities = within(mailbox.session.capabilities()).await?;
        mailbox.idles = capabilities.has_str("IDLE");
        Ok(mailbox)
    }

    /// Whether the server tells by itself that something came.
    pub(super) fn idles(&self) -> bool {
        self.idles
    }

    /// Opens the mailbox, anew each time: that is how a new era is noticed.
    pub(super) async fn enter(&mut self) -> Result<Era, ChannelFault> {
        self.budget.refill(ANSWER);
        self.forget_news();
        let opened = timeout(PATIENCE, self.session.select(&self.name)).await.map_err(|_| late())?;
        let opened = opened.map_err(|error| {
            if let ImapError::No(why) = &error {
                return lost(&format!("the mailbox {:?} cannot be opened: {why}", self.name));
            }
            of_talk(&error)
        })?;
        match (opened.uid_validity, opened.uid_next) {
            (Some(number), Some(next)) => Ok(Era { number, next }),
            _ => Err(lost("the IMAP server does not number its mails")),
        }
    }

    /// Numbers of the mails that a search finds.
    pub(super) async fn search(&mut self, query: &str) -> Result<Vec<u32>, ChannelFault> {
        self.budget.refill(FOUND);
        let found = within(self.session.uid_search(query)).await?;
        // A connection that ended looks like a search that found nothing.
        self.alive().await?;
        Ok(found.into_iter().collect())
    }

    /// The header of a mail, or its first `most` bytes. None when there is no such mail any more.
    pub(super) async fn header(&mut self, uid: u32, most: usize) -> Result<Option<Fetched>, Trouble> {
        let items = format!("(UID RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER]<0.{most}>)");
        self.fetch(uid, &items, most, Fetch::header).await
    }

    /// The first `most` bytes of a mail. None when there is no such mail any more.
    pub(super) async fn beginning(&mut self, uid: u32, most: usize) -> Result<Option<Fetched>, Trouble> {
        let items = format!("(UID RFC822.SIZE INTERNALDATE BODY.PEEK[]<0.{most}>)");
        self.fetch(uid, &items, most, Fetch::body).await
    }

    async fn fetch(
        &mut self,
        uid: u32,
        items: &str,
        most: usize,
        bytes: fn(&Fetch) -> Option<&[u8]>,
    ) -> Result<Option<Fetched>, Trouble> {
        self.budget.refill(most + AROUND);
        let asked =
            async { self.session.uid_fetch(uid.to_string(), items).await?.try_collect::<Vec<_>>().await };
        let answers =
            timeout(FETCHING, asked).await.map_err(|_| late())?.map_err(|error| of_fetch(&error))?;
        // Others may tell of their flags meanwhile.
        let found = answers.iter().filter(|answer| answer.uid == Some(uid)).find_map(|answer| {
            Some(Fetched {
                bytes: bytes(answer)?.to_vec(),
                size: answer.size.and_then(|size| usize::try_from(size).ok())?,
                taken_in: answer.internal_date().map(|date| date.timestamp()),
            })
        });
        if found.is_none() {
            let there = self.search(&format!("UID {uid}")).await?;
            if there.contains(&uid) {
                return Err(Trouble::Mail("the IMAP server does not hand it out".to_owned()));
            }
        }
        Ok(found)
    }

    /// Marks a mail as read.
    pub(super) async fn mark_seen(&mut self, uid: u32) -> Result<(), ChannelFault> {
        self.budget.refill(ANSWER);
        let _flags: Vec<Fetch> = within(async {
            self.session.uid_store(uid.to_string(), "+FLAGS.SILENT (\\Seen)").await?.try_collect().await
        })
        .await?;
        Ok(())
    }

    /// Asks whether the server is still there. Not by the library's `noop`, which succeeds on a connection that ended.
    async fn alive(&mut self) -> Result<(), ChannelFault> {
        within(self.session.run_command_and_check_ok("NOOP")).await
    }

    /// Whether something came since [`Mailbox::enter`], as far as the server said so by the way. It does not say it again
    /// to one who waits.
    pub(super) fn has_news(&mut self) -> bool {
        let mut news = false;
        while let Ok(said) = self.session.unsolicited_responses.try_recv() {
            news |= matches!(said, UnsolicitedResponse::Exists(_) | UnsolicitedResponse::Recent(_));
        }
        news
    }

    fn forget_news(&mut self) {
        let _before = self.has_news();
    }

    /// Waits until something comes, at most `most`. A server that does not answer afterwards is gone.
    pub(super) async fn wait(mut self, most: Duration) -> Result<Self, ChannelFault> {
        if !self.idles {
            sleep(most).await;
            return Ok(self);
        }
        self.budget.refill(ANSWER);
        let mut idle = self.session.idle();
        within(idle.init()).await?;
        {
            let (waiting, _interrupt) = idle.wait_with_timeout(most);
            // Bounded by itself as well: a server that says "still here" for ever begins the wait anew each time.
            match timeout(most + PATIENCE, waiting).await {
                Ok(Ok(IdleResponse::NewData(_) | IdleResponse::Timeout)) | Err(_) => {}
                Ok(Ok(IdleResponse::ManualInterrupt)) => {
                    return Err(lost("the IMAP server closed the connection"));
                }
                Ok(Err(error)) => return Err(of_talk(&error)),
            }
        }
        self.session = within(idle.done()).await?;
        Ok(self)
    }

    /// Says goodbye, without insisting.
    pub(super) async fn leave(mut self) {
        drop(timeout(Duration::from_secs(2), self.session.logout()).await);
    }
}

async fn within<T>(asking: impl Future<Output = Result<T, ImapError>>) -> Result<T, ChannelFault> {
    timeout(PATIENCE, asking).await.map_err(|_| late())?.map_err(|error| of_talk(&error))
}

fn late() -> ChannelFault {
    lost("the IMAP server does not answer")
}

fn lost(why: &str) -> ChannelFault {
    ChannelFault::Lost(neutral::line(why, 200))
}

/// What a failed login means. Only what is not about the moment is a refusal.
fn of_login(error: &ImapError) -> ChannelFault {
    let (ImapError::No(why) | ImapError::Bad(why)) = error else { return of_talk(error) };
    let upper = why.to_ascii_uppercase();
    let passing = ["UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "TOO MANY", "TRY AGAIN", "TEMPORAR"];
    if passing.iter().any(|word| upper.contains(word)) {
        lost(&format!("the IMAP server takes no login now: {why}"))
    } else {
        ChannelFault::Refused("bad password".to_owned())
    }
}

/// What an error while fetching means. A line that breaks says nothing about the mail.
fn of_fetch(error: &ImapError) -> Trouble {
    let fault = of_talk(error);
    match (error, &fault) {
        (ImapError::Io(cause), ChannelFault::Lost(why)) if cause.kind() == std::io::ErrorKind::Other => {
            Trouble::Mail(why.clone())
        }
        _ => Trouble::Channel(fault),
    }
}

/// What an error while talking means. The library's own words hold pieces of mails, so only its kind is passed on.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's list, which may grow")]
fn of_talk(error: &ImapError) -> ChannelFault {
    match error {
        ImapError::Io(cause) if cause.to_string().contains("more than was asked for") => {
            lost("the IMAP server sent more than was asked for")
        }
        ImapError::Io(cause) if cause.kind() == std::io::ErrorKind::Other => {
            lost("the IMAP server said something that is not its protocol")
        }
        ImapError::Io(cause) => lost(&format!("the connection to the IMAP server broke: {}", cause.kind())),
        ImapError::ConnectionLost => lost("the IMAP server closed the connection"),
        ImapError::No(why) | ImapError::Bad(why) => lost(&format!("the IMAP server refused: {why}")),
        ImapError::Validate(_) => {
            ChannelFault::Refused("user, password or mailbox has a line break".to_owned())
        }
        _ => lost("the IMAP server said something that is not its protocol"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_password_waits_for_a_person_and_a_busy_server_does_not() {
        let refused = of_login(&ImapError::No("[AUTHENTICATIONFAILED] Authentication failed.".into()));
        assert_eq!(refused.to_string(), "refused: bad password");
        for busy in ["[UNAVAILABLE] Temporary authentication failure.", "[LIMIT] too many connections"] {
            assert!(matches!(of_login(&ImapError::No(busy.into())), ChannelFault::Lost(_)), "{busy}");
        }
    }

    #[test]
    fn what_a_mail_said_is_not_in_an_error() {
        let error = ImapError::Io(std::io::Error::other("parsing of \"secret text\""));
        assert!(!of_talk(&error).to_string().contains("secret"));
    }
}
