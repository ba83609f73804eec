//! Handing a mail to the SMTP server, and what its answer means.
//!
//! A connection for each mail: replies are rare, and an idle connection would be closed by the server anyway. The server
//! is never spoken to without TLS unless it is this machine; STARTTLS is required where it is used, never tried.

use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::{AsyncSmtpTransport, Error as SmtpError};
use lettre::{AsyncTransport as _, Message, Tokio1Executor};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use crate::channels::SendFault;
use crate::render::neutral;

/// Longest wait for one answer of the server.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest for the whole mail.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where mail is handed in, and as whom.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) user: String,
    pub(super) password: SecretString,
}

/// How the connection is kept private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// TLS from the first byte.
    Tls,
    /// TLS after STARTTLS, or nothing.
    StartTls,
    /// Not at all: this machine.
    Loopback,
}

impl Server {
    /// Sends one mail. What comes back is what the server calls it.
    pub(super) async fn send(&self, message: Message) -> Result<String, SendFault> {
        let later = |why: String| SendFault::Later { why, after: None };
        let parameters = || {
            let name = self.host.trim_start_matches('[').trim_end_matches(']').to_owned();
            TlsParameters::builder(name)
                .build_rustls()
                .map_err(|error| later(format!("TLS cannot be used: {error}")))
        };
        let tls = match self.security {
            Security::Tls => Tls::Wrapper(parameters()?),
            Security::StartTls => Tls::Required(parameters()?),
            Security::Loopback => Tls::None,
        };
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(self.port)
            .tls(tls)
            .credentials(Credentials::new(self.user.clone(), self.password.expose_secret().to_owned()))
            .timeout(Some(ANSWER))
            .build();
        match timeout(PATIENCE, transport.send(message)).await {
            Ok(Ok(answer)) => Ok(neutral::line(answer.first_line().unwrap_or_default(), 120)),
            Ok(Err(error)) => Err(fault(&error)),
            Err(_) => Err(later("the SMTP server did not answer in time".to_owned())),
        }
    }
}

fn fault(error: &SmtpError) -> SendFault {
    let code = error.status().map(u16::from);
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    judge(code, &text, error.is_timeout())
}

/// What a refusal means. A mail is given up only where the refusal is about this mail or its recipient; what is about us
/// (password, policy, reputation) may be put right by a person, and the mail waits for that.
fn judge(code: Option<u16>, text: &str, timed_out: bool) -> SendFault {
    let words = neutral::line(text, 200);
    let Some(code) = code else {
        let why = if timed_out {
            "the SMTP server did not answer in time".to_owned()
        } else {
            format!("the SMTP server cannot be reached: {words}")
        };
        return SendFault::Later { why, after: None };
    };
    let why = format!("the SMTP server answered {code}: {words}");
    // RFC 3463: 5.1 addressing, 5.2 mailbox, 5.6 content; 5.7 is policy.
    let about = |class: &str| text.split_whitespace().any(|word| word.starts_with(class));
    match code {
        530 | 534 | 535 | 538 => SendFault::Later {
            why: format!("the SMTP server does not accept user and password ({code})"),
            after: None,
        },
        500..=599 if about("5.1.") || about("5.2.") || about("5.6.") => SendFault::Never { why },
        500..=599 if about("5.7.") => SendFault::Later { why, after: None },
        550..=553 => SendFault::Never { why },
        _ => SendFault::Later { why, after: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_with_this_mail_gives_it_up() {
        for (code, text) in [
            (550, "5.1.1 <x@y>: Recipient address rejected: User unknown"),
            (550, "no such user"),
            (552, "5.2.2 mailbox full"),
            (554, "5.6.0 content rejected"),
            (553, "mailbox name not allowed"),
        ] {
            assert!(matches!(judge(Some(code), text, false), SendFault::Never { .. }), "{code} {text}");
        }
        for (code, text) in [
            (421, "4.3.2 shutting down"),
            (450, "4.2.0 greylisted"),
            (535, "5.7.8 authentication failed"),
            (550, "5.7.1 our policy"),
            (554, "5.7.1 relay access denied"),
            (554, "no SMTP service here"),
            (503, "bad sequence"),
        ] {
            assert!(matches!(judge(Some(code), text, false), SendFault::Later { .. }), "{code} {text}");
        }
        assert!(matches!(judge(None, "refused", false), SendFault::Later { .. }));
        assert!(!judge(Some(535), "5.7.8 user bot", false).to_string().contains("bot"));
    }
}
