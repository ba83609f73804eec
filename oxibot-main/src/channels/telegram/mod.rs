//! Telegram, by long polling of the Bot API.
//!
//! An update is confirmed (by asking for the next one) only after it was kept. Telegram has no key by which it would
//! recognise a repeated message, so a crash between its answer and our note of it can repeat one message. Markup that
//! Telegram cannot parse is refused by it whole, and only then the same text is sent plain.

mod convert;
mod fault;

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use teloxide_core::Bot;
use teloxide_core::payloads::{
    EditMessageTextSetters, GetUpdatesSetters, SendChatActionSetters, SendMessageSetters,
};
use teloxide_core::requests::Requester;
use teloxide_core::types::{
    AllowedUpdate, CallbackQueryId, ChatAction, ChatId, InlineKeyboardButton, InlineKeyboardMarkup,
    LinkPreviewOptions, MessageId, ParseMode, ReplyParameters, ThreadId, UpdateKind,
};
use teloxide_core::{ApiError, RequestError};
use tokio::sync::OnceCell;

use super::split::{Limit, Unit};
use super::{Channel, ChannelFault, Intake, Letter, Reference, SendFault, Target};
use crate::agent::hands::BoxFuture;
use convert::Own;

/// Seconds Telegram holds a request for updates open.
const POLL: u32 = 25;
/// Longest any request may take: the poll, and time for its answer.
const PATIENCE: Duration = Duration::from_secs(45);
/// Longest that a button may be told that it was felt.
const NOTICE: Duration = Duration::from_secs(5);
/// Updates asked for at once; each is kept before the next request confirms it.
const BATCH: u8 = 50;
/// Telegram's bound is 4096; what markup adds is not counted, but a fence or a list mark may be.
const MOST: usize = 4000;

/// One bot.
pub struct Telegram {
    bot: Bot,
    own: OnceCell<Own>,
}

impl std::fmt::Debug for Telegram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bot's own form shows its token.
        f.debug_struct("Telegram").finish_non_exhaustive()
    }
}

/// What is needed to speak to Telegram.
#[derive(Debug)]
pub struct Settings<'a> {
    /// The bot's token.
    pub token: &'a SecretString,
    /// Address of the Bot API, where it is not Telegram's own.
    pub base_url: Option<&'a str>,
    /// Proxy to reach it by.
    pub proxy: Option<&'a SecretString>,
}

impl Telegram {
    /// Makes a client. Connects nowhere.
    ///
    /// # Errors
    /// An address that is no URL, or one in plain text that is not on this machine.
    pub fn new(settings: &Settings<'_>) -> Result<Self, String> {
        // Never a proxy from the environment: it would see the token.
        let mut client = teloxide_core::net::default_reqwest_settings().no_proxy().timeout(PATIENCE);
        if let Some(proxy) = settings.proxy {
            let proxy = telegram_reqwest::Proxy::all(proxy.expose_secret())
                .map_err(|_| "cannot use channels.telegram.proxy: it is no address of a proxy".to_owned())?;
            client = client.proxy(proxy);
        }
        let client = client
            .build()
            .map_err(|error| format!("cannot make a client for telegram: {}", error.without_url()))?;
        let mut bot = Bot::with_client(settings.token.expose_secret(), client);
        if let Some(base) = settings.base_url {
            let url = super::address::judge(base)
                .map_err(|why| format!("cannot use channels.telegram.baseUrl: it {why}"))?;
            bot = bot.set_api_url(url);
        }
        Ok(Self { bot, own: OnceCell::new() })
    }

    /// Who we are, asked once.
    async fn own(&self) -> Result<&Own, RequestError> {
        self.own
            .get_or_try_init(|| async {
                let me = self.bot.get_me().await?;
                Ok(Own { id: me.user.id, name: me.user.username.clone().unwrap_or_default() })
            })
            .await
    }

    async fn poll(&self, intake: &dyn Intake) -> ChannelFault {
        let own = match self.own().await {
            Ok(own) => own,
            Err(error) => return fault::of_receiving(&error),
        };
        intake.up();
        let mut offset = None;
        loop {
            let mut request = self.bot.get_updates().timeout(POLL).limit(BATCH);
            request = request.allowed_updates([AllowedUpdate::Message, AllowedUpdate::CallbackQuery]);
            if let Some(offset) = offset {
                request = request.offset(offset);
            }
            let updates = match request.await {
                Ok(updates) => updates,
                Err(error) => return fault::of_receiving(&error),
            };
            intake.up();
            for update in updates {
                let number = update.id.0;
                #[expect(
                    clippy::wildcard_enum_match_arm,
                    reason = "the library's list: others were not asked for"
                )]
                let (inbound, pressed) = match update.kind {
                    UpdateKind::Message(message) => (convert::message(number, &message, own), None),
                    UpdateKind::CallbackQuery(query) => (convert::pressed(number, &query), Some(query.id)),
                    _ => (None, None),
                };
                if let Some(inbound) = inbound {
                    match intake.accept(inbound).await {
                        Ok(true) => self.felt(pressed).await,
                        // A stranger pressed it: they see nothing.
                        Ok(false) => {}
                        // Not confirmed: Telegram delivers it again.
                        Err(error) => {
                            return ChannelFault::Lost(format!("cannot keep what came in: {error}"));
                        }
                    }
                }
                offset = Some(i32::try_from(u64::from(number) + 1).unwrap_or(i32::MAX));
            }
        }
    }

    /// A pressed button shows that it waits until it is told that it was felt.
    async fn felt(&self, pressed: Option<CallbackQueryId>) {
        let Some(id) = pressed else { return };
        let told = tokio::time::timeout(NOTICE, async { self.bot.answer_callback_query(id).await });
        if let Ok(Err(error)) = told.await {
            tracing::debug!(target: "oxibot_channels", channel = "telegram", kind = fault::kind(&error), "a button was not answered");
        }
    }

    async fn post(
        &self,
        letter: &Letter,
        buttons: Option<InlineKeyboardMarkup>,
    ) -> Result<Reference, SendFault> {
        let (chat, thread, reply) = place(&letter.target)?;
        let request = |text: String| {
            let mut request = self.bot.send_message(chat, text).link_preview_options(no_preview());
            if let Some(thread) = thread {
                request = request.message_thread_id(thread);
            }
            if let Some(buttons) = &buttons {
                request = request.reply_markup(buttons.clone());
            }
            if let Some(reply) = reply {
                // The message may have been deleted meanwhile: the answer is sent all the same.
                request = request.reply_parameters(ReplyParameters::new(reply).allow_sending_without_reply());
            }
            request
        };
        let markup = super::markup::html(&letter.text);
        let sent = match request(markup).parse_mode(ParseMode::Html).await {
            Err(RequestError::Api(ApiError::CantParseEntities(_) | ApiError::MessageTextIsEmpty)) => {
                request(letter.text.clone()).await
            }
            other => other,
        };
        sent.map(|message| message.id.0.to_string()).map_err(|error| fault::of_sending(&error))
    }

    async fn change(&self, letter: &Letter, reference: &str) -> Result<(), SendFault> {
        let (chat, _, _) = place(&letter.target)?;
        let id = reference.parse().map(MessageId).map_err(|_| never("it is no message of ours"))?;
        let request = self
            .bot
            .edit_message_text(chat, id, super::markup::html(&letter.text))
            .parse_mode(ParseMode::Html)
            .link_preview_options(no_preview());
        match request.await {
            Ok(_) | Err(RequestError::Api(ApiError::MessageNotModified)) => Ok(()),
            Err(error) => Err(fault::of_sending(&error)),
        }
    }

    async fn show_typing(&self, target: &Target) {
        let Ok((chat, thread, _)) = place(target) else { return };
        let mut request = self.bot.send_chat_action(chat, ChatAction::Typing);
        if let Some(thread) = thread {
            request = request.message_thread_id(thread);
        }
        if let Err(error) = request.await {
            tracing::debug!(target: "oxibot_channels", channel = "telegram", kind = fault::kind(&error), "typing was not shown");
        }
    }
}

impl Channel for Telegram {
    fn name(&self) -> &'static str {
        "telegram"
    }

    fn limit(&self) -> Limit {
        Limit { most: MOST, unit: Unit::Utf16 }
    }

    fn receive<'a>(&'a self, intake: &'a dyn Intake) -> BoxFuture<'a, ChannelFault> {
        Box::pin(self.poll(intake))
    }

    fn send<'a>(&'a self, letter: &'a Letter, _key: &'a str) -> BoxFuture<'a, Result<Reference, SendFault>> {
        Box::pin(self.post(letter, None))
    }

    fn ask<'a>(&'a self, letter: &'a Letter, id: &'a str) -> BoxFuture<'a, Result<Reference, SendFault>> {
        Box::pin(self.post(letter, Some(buttons(id))))
    }

    fn edit<'a>(&'a self, letter: &'a Letter, reference: &'a str) -> BoxFuture<'a, Result<(), SendFault>> {
        Box::pin(self.change(letter, reference))
    }

    fn typing<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, ()> {
        Box::pin(self.show_typing(target))
    }
}

/// Yes and no to a call; see [`convert::pressed`].
fn buttons(id: &str) -> InlineKeyboardMarkup {
    let button = |text, data| InlineKeyboardButton::callback(text, format!("{data}:{id}"));
    InlineKeyboardMarkup::new([[button("Approve once", convert::APPROVE), button("Deny", convert::DENY)]])
}

/// An address in a reply is not looked at by Telegram's servers on our behalf.
fn no_preview() -> LinkPreviewOptions {
    LinkPreviewOptions {
        is_disabled: true,
        url: None,
        prefer_small_media: false,
        prefer_large_media: false,
        show_above_text: false,
    }
}

type Place = (ChatId, Option<ThreadId>, Option<MessageId>);

fn place(target: &Target) -> Result<Place, SendFault> {
    let number = |text: &str| text.parse::<i32>().map(MessageId).map_err(|_| never("it has no such place"));
    let chat = target.chat.parse().map(ChatId).map_err(|_| never("it has no such chat"))?;
    let thread = target.thread.as_deref().map(number).transpose()?.map(ThreadId);
    let reply = target.reply_to.as_deref().map(number).transpose()?;
    Ok((chat, thread, reply))
}

fn never(why: &str) -> SendFault {
    SendFault::Never { why: why.to_owned() }
}
