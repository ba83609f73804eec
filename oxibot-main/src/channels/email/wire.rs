//! The connection to a mail server: TCP, TLS, and a bound on what the server may send.
//!
//! TLS is the process's rustls with ring and the system's authorities, as for every other service. A connection without
//! TLS is made to this machine only, judged by the address that was reached and not by a name.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How many more bytes the server may send. The library keeps a response whole, up to half a gigabyte.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// From now on, so many.
    pub(super) fn refill(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// A connection that reads no more than its budget.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    budget: Budget,
    literals: Literals,
}

/// Follows what is announced: `{N}` at the end of a line says that N bytes follow. The library makes room for all of them
/// when it reads that, so that twelve bytes would cost half a gigabyte. What stands in such bytes announces nothing.
#[derive(Debug, Default)]
struct Literals {
    skip: usize,
    number: Option<usize>,
    closed: bool,
}

impl Literals {
    /// Reads on. `false`: more was announced than `most`.
    fn follow(&mut self, mut bytes: &[u8], most: usize) -> bool {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else { return true };
            bytes = rest;
            match (*byte, self.number) {
                (b'{', _) => (self.number, self.closed) = (Some(0), false),
                (digit @ b'0'..=b'9', Some(number)) if !self.closed => {
                    self.number = Some(number.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
                }
                (b'}', Some(_)) if !self.closed => self.closed = true,
                (b'\r', Some(_)) if self.closed => {}
                (b'\n', Some(number)) if self.closed => {
                    if number > most {
                        return false;
                    }
                    (self.skip, self.number, self.closed) = (number, None, false);
                }
                _ => (self.number, self.closed) = (None, false),
            }
        }
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    /// Connects. `tls` is false only for a server on this machine.
    pub(super) async fn connect(host: &str, port: u16, tls: bool) -> Result<(Self, Budget), String> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((bare, port)).await.map_err(|error| {
            format!(
                "{bare}:{port} cannot be reached: {}",
                crate::render::neutral::line(&error.to_string(), 120)
            )
        })?;
        // The library writes a command in pieces; each would wait for the answer to the one before.
        drop(tcp.set_nodelay(true));
        let stream: Box<dyn Stream> = if tls {
            let name = ServerName::try_from(bare.to_owned())
                .map_err(|_| format!("{bare} is no name of a server"))?;
            let connector = TlsConnector::from(Arc::new(config()?));
            let stream = connector.connect(name, tcp).await.map_err(|error| {
                format!(
                    "no TLS with {bare}:{port}: {}",
                    crate::render::neutral::line(&error.to_string(), 200)
                )
            })?;
            Box::new(stream)
        } else {
            let reached = tcp.peer_addr().map_err(|error| error.to_string())?;
            if !reached.ip().is_loopback() {
                return Err(format!(
                    "{bare} is not this machine, and the password would cross the network readable"
                ));
            }
            Box::new(tcp)
        };
        let budget = Budget(Arc::new(AtomicUsize::new(64 * 1024)));
        Ok((Self { stream, budget: budget.clone(), literals: Literals::default() }, budget))
    }
}

/// Made for each connection and gone with it: a mailbox is connected once in days, and the authorities take memory.
fn config() -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let no_tls = |error: rustls::Error| {
        format!("TLS cannot be used: {error}; are CA certificates installed (package ca-certificates)?")
    };
    let verifier = Verifier::new(Arc::clone(&provider)).map_err(no_tls)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(no_tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        let (read, left) = (new.len(), self.budget.0.load(Ordering::Relaxed));
        if read > left || !self.literals.follow(new, left) {
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::other("the server sent more than was asked for")));
        }
        self.budget.0.store(left - read, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn server_that_sends_without_end_is_cut_off() {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(cut_off());
    }

    #[test]
    fn announcement_of_more_than_was_asked_for_is_refused_and_text_announces_nothing() {
        let judge = |text: &str, most| {
            // Whole, and byte by byte as a network may deliver it.
            let whole = Literals::default().follow(text.as_bytes(), most);
            let mut pieces = Literals::default();
            let each = text.bytes().all(|byte| pieces.follow(&[byte], most));
            assert_eq!(whole, each, "{text:?}");
            whole
        };
        assert!(!judge("* 1 FETCH (BODY[] {500000000}\r\n", 1000));
        assert!(!judge("* 1 FETCH (BODY[] {99999999999999999999999999}\r\n", 1000));
        assert!(judge("* 1 FETCH (BODY[] {18}\r\n{500000000}\r\n12345)\r\n", 1000));
        assert!(!judge("* 1 FETCH (BODY[] {2}\r\nab {500000000}\r\n", 1000));
        assert!(judge("* OK {x} {12 {} }\r\n* OK {5000}x\r\n", 1000));
    }

    async fn cut_off() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let (mut wire, budget) = Wire::connect("127.0.0.1", port, false).await.unwrap();
        budget.refill(100_000);
        let mut all = Vec::new();
        let error = wire.read_to_end(&mut all).await.unwrap_err().to_string();
        assert!(error.contains("more than was asked for") && all.len() <= 100_000, "{error} {}", all.len());
        drop(wire);
        server.await.unwrap();
    }
}
