//! Mail: IMAP in, SMTP out.
//!
//! A mail is read in steps, and each may end it: its header is fetched; what a machine sent is left alone; who wrote it
//! must be proven by the own mail server, then admitted; only then is its text fetched, kept, and the mail marked as
//! read. How far the mailbox was read is kept after each mail, so that a crash between any two steps makes one mail be
//! looked at again, which the inbox recognises.
//!
//! `place`, `guard`, `authentic`, `message`, `quoted` and `compose` are pure; `wire`, `mailbox` and `outbound` speak to
//! servers. A conversation is one thread of mails with one sender. It opens no attachment and follows no address.

mod authentic;
mod compose;
mod guard;
mod mailbox;
mod message;
mod outbound;
mod place;
mod quoted;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lettre::message::Mailbox as Address;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::split::{Limit, Unit};
use super::{Channel, ChannelFault, Inbound, Intake, Letter, Reference, SendFault, Sender, Target};
use crate::agent::hands::BoxFuture;
use crate::agent::runner::now_millis;
use crate::config;
use authentic::Proof;
use compose::Answered;
use guard::Rate;
use mailbox::{Fetched, Login, Mailbox, Trouble};
use message::{Body, Head};
use outbound::{Security, Server};
use place::Place;

/// Most bytes of a header that are fetched. A longer one is no person's.
const HEADER: usize = 64 * 1024;
/// Bytes of a mail that are fetched beside its text: header, the other form of the text, the beginning of an attachment.
const BESIDE_TEXT: usize = 192 * 1024;
/// Most bytes of a mail that are ever fetched. Bounds the memory for one mail, and how deep parts may lie in each other.
const MOST_BYTES: usize = 512 * 1024;
/// The parser drops nested mails by recursion: this holds for [`MOST_BYTES`] of nothing else (a test says so). Only what
/// is touched of it is memory.
const STACK: usize = 64 * 1024 * 1024;
/// A mail that could not be read so often is passed over: one broken mail must not hide all later ones. A connection
/// that breaks is not counted, however often.
const TRIES: u32 = 3;
/// Longest reply in one mail, in characters.
const MOST: usize = 200_000;
/// Longest wait before the server is asked again, whatever it says by itself: a connection may be dead without knowing.
const LONGEST_WAIT: Duration = Duration::from_secs(240);

/// One mailbox, and the way out of it.
pub struct Email {
    imap: Imap,
    server: Server,
    from: Address,
    own: Vec<String>,
    rules: Rules,
    rate: Mutex<Rate>,
    stuck: Mutex<Option<(u32, u32)>>,
}

struct Imap {
    host: String,
    port: u16,
    tls: bool,
    user: String,
    password: SecretString,
    mailbox: String,
    interval: Duration,
}

impl Imap {
    /// Which mailbox this is, whatever it holds.
    fn identity(&self) -> String {
        format!("{}@{}/{}", self.user, self.host, self.mailbox)
    }
}

/// How far a mailbox was read, and which one.
#[derive(Serialize, Deserialize)]
struct Kept {
    mailbox: String,
    place: Place,
}

struct Rules {
    authserv_id: Option<String>,
    mark_seen: bool,
    replies: bool,
    most_characters: usize,
    most_an_hour: usize,
    prefix: String,
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Email").finish_non_exhaustive()
    }
}

impl Email {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// A sentence that names the key at fault.
    pub fn new(settings: &config::Email) -> Result<Self, String> {
        let missing = |key: &str| format!("cannot use channels.email: {key} is missing");
        let imap_password = settings.imap_password.clone().ok_or_else(|| missing("imapPassword"))?;
        let smtp_password = settings.smtp_password.clone().ok_or_else(|| missing("smtpPassword"))?;
        let or = |one: &str, other: &str| if one.is_empty() { other.to_owned() } else { one.to_owned() };
        let smtp_user = or(&settings.smtp_username, &settings.imap_username);
        let from = or(&settings.from_address, &smtp_user);
        let from: Address =
            from.parse().map_err(|_| "cannot use channels.email.fromAddress: it is no address".to_owned())?;
        let mut own: Vec<String> =
            [from.email.to_string(), smtp_user.clone(), settings.imap_username.clone()]
                .iter()
                .filter_map(|text| message::plain_address(text))
                .collect();
        own.sort();
        own.dedup();
        let security = match (settings.smtp_use_ssl, settings.starttls()) {
            (true, _) => Security::Tls,
            (false, true) => Security::StartTls,
            (false, false) => Security::Loopback,
        };
        if !settings.require_authentication {
            tracing::warn!(
                target: "oxibot_channels", channel = "email",
                "channels.email.requireAuthentication is false: whoever writes an admitted address into From is admitted"
            );
        }
        Ok(Self {
            imap: Imap {
                host: settings.imap_host.clone(),
                port: settings.imap_port,
                tls: settings.imap_use_ssl,
                user: settings.imap_username.clone(),
                password: imap_password,
                mailbox: settings.imap_mailbox.clone(),
                interval: Duration::from_secs(u64::from(settings.poll_interval_seconds.max(5))),
            },
            server: Server {
                host: settings.smtp_host.clone(),
                port: settings.smtp_port,
                security,
                user: smtp_user,
                password: smtp_password,
            },
            from,
            own,
            rules: Rules {
                authserv_id: settings.require_authentication.then(|| settings.authserv_id.clone()),
                mark_seen: settings.mark_seen,
                replies: settings.auto_reply_enabled,
                most_characters: usize::try_from(settings.max_body_chars).unwrap_or(usize::MAX),
                most_an_hour: usize::try_from(settings.max_mails_per_hour).unwrap_or(usize::MAX),
                prefix: settings.subject_prefix.clone(),
            },
            rate: Mutex::new(Rate::default()),
            stuck: Mutex::new(None),
        })
    }

    async fn run(&self, intake: &dyn Intake) -> ChannelFault {
        let login = Login {
            host: &self.imap.host,
            port: self.imap.port,
            tls: self.imap.tls,
            user: &self.imap.user,
            password: &self.imap.password,
            mailbox: &self.imap.mailbox,
        };
        let mut mailbox = match Mailbox::open(&login).await {
            Ok(mailbox) => mailbox,
            Err(fault) => return fault,
        };
        loop {
            if let Err(fault) = self.look(&mut mailbox, intake).await {
                mailbox.leave().await;
                return fault;
            }
            if mailbox.has_news() {
                continue;
            }
            let most = if mailbox.idles() {
                self.imap.interval.saturating_mul(8).min(LONGEST_WAIT)
            } else {
                self.imap.interval
            };
            mailbox = match mailbox.wait(most).await {
                Ok(mailbox) => mailbox,
                Err(fault) => return fault,
            };
        }
    }

    /// Deals with everything that is new.
    async fn look(&self, mailbox: &mut Mailbox, intake: &dyn Intake) -> Result<(), ChannelFault> {
        let era = mailbox.enter().await?;
        intake.up();
        let kept = self.kept_place(intake).await?;
        let mut place = Place::entering(kept, era.number, era.next);
        if kept.is_some_and(|kept| kept.era != place.era || kept.last > place.last) {
            tracing::warn!(
                target: "oxibot_channels", channel = "email",
                "the mailbox has new numbers; its recent mails are looked at again, and those known are recognised"
            );
        }
        loop {
            let looking_back = place.before.is_some();
            let found = mailbox.search(&place.query(now_millis() / 1000)).await?;
            for uid in place.new_of(found) {
                let mail = Mail { email: self, intake, uid, era: era.number, looking_back };
                match mail.deal_with(mailbox).await {
                    Ok(()) => {}
                    Err(Trouble::Channel(fault)) => return Err(fault),
                    Err(Trouble::Mail(why)) if self.passes_over(uid) => {
                        tracing::error!(
                            target: "oxibot_channels", channel = "email", uid, why = %why,
                            "a mail cannot be read and is passed over"
                        );
                    }
                    Err(Trouble::Mail(why)) => {
                        return Err(ChannelFault::Lost(format!("mail {uid} cannot be read: {why}")));
                    }
                }
                place = place.after(uid);
                self.keep_place(intake, place).await?;
            }
            if !looking_back {
                return Ok(());
            }
            // What came while we looked back is next.
            place = place.all_read();
            self.keep_place(intake, place).await?;
        }
    }

    /// How far this mailbox was read. What was kept of another one says nothing of it.
    async fn kept_place(&self, intake: &dyn Intake) -> Result<Option<Place>, ChannelFault> {
        let text = intake.place().await.map_err(unkept)?;
        let kept: Option<Kept> = text.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Ok(kept.filter(|kept| kept.mailbox == self.imap.identity()).map(|kept| kept.place))
    }

    async fn keep_place(&self, intake: &dyn Intake, place: Place) -> Result<(), ChannelFault> {
        let kept = Kept { mailbox: self.imap.identity(), place };
        let text = serde_json::to_string(&kept).unwrap_or_default();
        intake.keep_place(text).await.map_err(unkept)
    }

    /// Counts a failure; whether it is one too many.
    fn passes_over(&self, uid: u32) -> bool {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        let tries = stuck.filter(|(other, _)| *other == uid).map_or(1, |(_, tries)| tries + 1);
        *stuck = Some((uid, tries));
        tries >= TRIES
    }

    async fn post(&self, letter: &Letter, key: &str) -> Result<Reference, SendFault> {
        if !self.rules.replies {
            tracing::info!(
                target: "oxibot_channels", channel = "email", "not sent: channels.email.autoReplyEnabled is false"
            );
            return Ok("not sent".to_owned());
        }
        let message = compose::compose(&self.from, letter, key, &self.rules.prefix)
            .map_err(|why| SendFault::Never { why })?;
        self.server.send(message).await
    }
}

/// One mail on its way in.
struct Mail<'a> {
    email: &'a Email,
    intake: &'a dyn Intake,
    uid: u32,
    era: u32,
    /// It was there before we came.
    looking_back: bool,
}

impl Mail<'_> {
    async fn deal_with(&self, mailbox: &mut Mailbox) -> Result<(), Trouble> {
        let Some(header) = mailbox.header(self.uid, HEADER).await? else { return Ok(()) };
        let Fetched { bytes, taken_in, .. } = header;
        let own = self.email.own.clone();
        let too_long = bytes.len() >= HEADER;
        let head = on_own_stack(move || Head::read(&bytes, &own)).await?;
        let Some(head) = head.filter(|_| !too_long) else {
            self.ignored("its header cannot be read");
            return Ok(());
        };
        if let Some(why) = head.machine {
            self.ignored(why);
            return Ok(());
        }
        let sender = Sender {
            id: head.from.clone().unwrap_or_default(),
            handle: None,
            name: if head.name.is_empty() {
                head.from.clone().unwrap_or_default()
            } else {
                head.name.clone()
            },
        };
        if sender.id.is_empty() {
            self.intake.reject(&sender, "its From is not one plain address");
            return Ok(());
        }
        if let Some(authserv_id) = &self.email.rules.authserv_id {
            let results = head.results.iter().map(String::as_str);
            match authentic::judge(results, authserv_id, &sender.id) {
                Proof::Given(_) => {}
                Proof::Missing(why) => {
                    self.intake.reject(&sender, why);
                    return Ok(());
                }
            }
        }
        if !self.intake.admits(&sender) {
            // Told without a word of what they wrote, which is not even fetched.
            let nothing = Body { text: String::new(), left_out: Vec::new() };
            let _no = self.hand_in(&head, sender, nothing).await?;
            return Ok(());
        }
        if !self.within_rate(&sender.id, taken_in) {
            tracing::warn!(
                target: "oxibot_channels", event = "rate_limited", channel = "email", sender = %sender.id,
                limit = self.email.rules.most_an_hour, "rate_limited: channels.email.maxMailsPerHour; left unread"
            );
            return Ok(());
        }
        let most_characters = self.email.rules.most_characters;
        let most = BESIDE_TEXT.saturating_add(most_characters.saturating_mul(6)).min(MOST_BYTES);
        let Some(fetched) = mailbox.beginning(self.uid, most).await? else { return Ok(()) };
        let body = on_own_stack(move || {
            Body::read(&fetched.bytes, fetched.size <= fetched.bytes.len(), most_characters)
        })
        .await?;
        let taken = self.hand_in(&head, sender, body).await?;
        if taken && self.email.rules.mark_seen {
            mailbox.mark_seen(self.uid).await?;
        }
        Ok(())
    }

    async fn hand_in(&self, head: &Head, sender: Sender, body: Body) -> Result<bool, ChannelFault> {
        let text = if head.subject.is_empty() || !head.references.is_empty() || body.text.starts_with('/') {
            body.text
        } else {
            format!("Subject: {}\n\n{}", head.subject, body.text)
        };
        let answered = serde_json::to_string(&Answered::of(head)).unwrap_or_default();
        let inbound = Inbound {
            key: head.key(&text, self.era, self.uid),
            target: Target { chat: sender.id.clone(), thread: Some(head.thread()), reply_to: Some(answered) },
            sender,
            direct: true,
            addressed: true,
            text,
            left_out: body.left_out,
        };
        self.intake.accept(inbound).await.map_err(unkept)
    }

    /// A mail without a date of its own counts as one of now.
    fn within_rate(&self, sender: &str, taken_in: Option<i64>) -> bool {
        let at = taken_in.unwrap_or_else(|| now_millis() / 1000);
        self.looking_back
            || self.email.rate.lock().unwrap_or_else(PoisonError::into_inner).admits(
                sender,
                at,
                self.email.rules.most_an_hour,
            )
    }

    fn ignored(&self, why: &'static str) {
        tracing::info!(target: "oxibot_channels", channel = "email", uid = self.uid, why, "a mail is not answered");
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is the argument of map_err")]
fn unkept(error: crate::store::StoreError) -> ChannelFault {
    ChannelFault::Lost(format!("cannot keep what came in: {error}"))
}

/// Starts work on a stack that hostile nesting does not exhaust.
fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name("mail".to_owned()).stack_size(STACK).spawn(work)
}

/// The same, awaited. What panics is a mail that cannot be read.
async fn on_own_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let started = apart(move || drop(tell.send(work())));
    let _running =
        started.map_err(|error| ChannelFault::Lost(format!("there is no thread to read a mail: {error}")))?;
    told.await.map_err(|_| Trouble::Mail("it cannot be parsed".to_owned()))
}

impl Channel for Email {
    fn name(&self) -> &'static str {
        "email"
    }

    fn limit(&self) -> Limit {
        Limit { most: MOST, unit: Unit::Characters }
    }

    fn stands_alone(&self) -> bool {
        true
    }

    fn receive<'a>(&'a self, intake: &'a dyn Intake) -> BoxFuture<'a, ChannelFault> {
        Box::pin(self.run(intake))
    }

    fn send<'a>(&'a self, letter: &'a Letter, key: &'a str) -> BoxFuture<'a, Result<Reference, SendFault>> {
        Box::pin(self.post(letter, key))
    }

    fn edit<'a>(&'a self, _letter: &'a Letter, _reference: &'a str) -> BoxFuture<'a, Result<(), SendFault>> {
        Box::pin(async { Err(SendFault::Never { why: "a mail that was sent is not changed".to_owned() }) })
    }

    fn typing<'a>(&'a self, _target: &'a Target) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}
