//! What Telegram's errors mean for us. The token is in every address, so no address is ever passed on.

use teloxide_core::{ApiError, RequestError};

use crate::channels::{ChannelFault, SendFault};

/// While receiving.
pub(super) fn of_receiving(error: &RequestError) -> ChannelFault {
    match error {
        RequestError::Api(ApiError::InvalidToken) => ChannelFault::Refused("bad token".to_owned()),
        RequestError::Api(ApiError::TerminatedByOtherGetUpdates) => ChannelFault::Lost(
            "another program polls with the same token; end it, or give it a bot of its own".to_owned(),
        ),
        RequestError::Api(ApiError::CantGetUpdates) => {
            ChannelFault::Refused("the bot has a webhook; remove it (deleteWebhook) to poll".to_owned())
        }
        RequestError::Api(_)
        | RequestError::MigrateToChatId(_)
        | RequestError::RetryAfter(_)
        | RequestError::Network(_)
        | RequestError::InvalidJson { .. }
        | RequestError::Io(_) => ChannelFault::Lost(words(error)),
    }
}

/// While sending. Only what Telegram refuses for good is given up.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's list: what is not known to be final may pass"
)]
pub(super) fn of_sending(error: &RequestError) -> SendFault {
    let never = || SendFault::Never { why: words(error) };
    match error {
        RequestError::RetryAfter(seconds) => {
            SendFault::Later { why: "telegram asks to wait".to_owned(), after: Some(seconds.duration()) }
        }
        RequestError::Api(api) => match api {
            ApiError::BotBlocked
            | ApiError::ChatNotFound
            | ApiError::UserNotFound
            | ApiError::GroupDeactivated
            | ApiError::BotKicked
            | ApiError::BotKickedFromSupergroup
            | ApiError::BotKickedFromChannel
            | ApiError::UserDeactivated
            | ApiError::CantInitiateConversation
            | ApiError::CantTalkWithBots
            | ApiError::MessageTextIsEmpty
            | ApiError::MessageIsTooLong
            | ApiError::EditedMessageIsTooLong
            | ApiError::MessageToEditNotFound
            | ApiError::MessageCantBeEdited
            | ApiError::MessageIdInvalid
            | ApiError::CantParseEntities(_)
            | ApiError::NotEnoughRightsToPostMessages
            | ApiError::RequestEntityTooLarge => never(),
            // A word of Telegram's that teloxide does not know: its first words say whether it is about this message.
            ApiError::Unknown(text) if text.starts_with("Forbidden") || text.starts_with("Bad Request") => {
                never()
            }
            _ => SendFault::Later { why: words(error), after: None },
        },
        RequestError::MigrateToChatId(_) => never(),
        RequestError::Network(_) | RequestError::InvalidJson { .. } | RequestError::Io(_) => {
            SendFault::Later { why: words(error), after: None }
        }
    }
}

/// What kind of error it is, for the log.
pub(super) fn kind(error: &RequestError) -> &'static str {
    match error {
        RequestError::Api(_) => "api",
        RequestError::MigrateToChatId(_) => "migrated",
        RequestError::RetryAfter(_) => "retry_after",
        RequestError::Network(_) => "network",
        RequestError::InvalidJson { .. } => "json",
        RequestError::Io(_) => "io",
    }
}

/// In words, without an address and without what came back.
fn words(error: &RequestError) -> String {
    match error {
        RequestError::Api(api) => crate::render::neutral::line(&api.to_string(), 200),
        RequestError::MigrateToChatId(_) => "the group became another one".to_owned(),
        RequestError::RetryAfter(seconds) => format!("telegram asks to wait {} s", seconds.seconds()),
        RequestError::Network(cause) if cause.is_timeout() => "telegram did not answer in time".to_owned(),
        RequestError::Network(cause) if cause.is_connect() => "telegram cannot be reached".to_owned(),
        RequestError::Network(_) => "the connection to telegram broke".to_owned(),
        RequestError::InvalidJson { .. } => "telegram answered something that is not its protocol".to_owned(),
        RequestError::Io(cause) => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use teloxide_core::types::Seconds;

    use super::*;

    #[test]
    fn wait_that_telegram_asks_for_is_kept() {
        let fault = of_sending(&RequestError::RetryAfter(Seconds::from_seconds(7)));
        assert!(
            matches!(fault, SendFault::Later { after: Some(after), .. } if after.as_secs() == 7),
            "{fault:?}"
        );
    }

    #[test]
    fn what_is_refused_for_good_is_told_from_what_may_pass() {
        for api in [ApiError::BotBlocked, ApiError::ChatNotFound, ApiError::Unknown("Bad Request: x".into())]
        {
            assert!(matches!(of_sending(&api.clone().into()), SendFault::Never { .. }), "{api:?}");
        }
        for api in [ApiError::Unknown("Internal Server Error".into()), ApiError::Unknown("Gateway".into())] {
            assert!(matches!(of_sending(&api.clone().into()), SendFault::Later { .. }), "{api:?}");
        }
    }

    #[test]
    fn bad_token_is_no_reason_to_go_on_trying() {
        let fault = of_receiving(&ApiError::InvalidToken.into());
        assert_eq!(fault.to_string(), "refused: bad token");
    }
}
