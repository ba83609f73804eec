//! HTML becomes text in a process that is made for one page and ends with it.
//!
//! The better converter builds a tree; on pages made for that it overflows its stack or goes on for ever (both were
//! measured). A process that can only compute, with limits on CPU, memory, stack and time, makes that nobody else's
//! trouble: the page is then read by [`crate::markdown`], which has neither fault. Converters are forked by a maker that
//! was forked before the worker held anything, so a converter knows one page and no key.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dom_smoothie::{Config, Readability, TextMode};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use oxibot_toolhost::sys::{self, Cloned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use crate::confine::{self, ConfineError, Wall};
use crate::markdown::{self, MAX_TEXT, MAX_TITLE, Readable};
use crate::page::start;

/// Converters at once.
const MAX_AT_ONCE: usize = 4;
/// Time for one page, as the worker waits for it, as the maker allows it, and of the CPU.
const PATIENCE: Duration = Duration::from_secs(3);
const MAX_LIFE: Duration = Duration::from_secs(6);
const MAX_CPU_S: u64 = 3;
/// Memory a page may cost beside the program itself, and stack. Together with what is touched of the program they stay
/// below 16 MiB.
const MAX_HEAP: u64 = 10 << 20;
const MAX_STACK: u64 = 1 << 20;
/// Pages above these are read in one pass at once: the tree of a longer page does not fit, and depth is stack.
const MAX_TREE_BYTES: usize = 1 << 20;
const MAX_TREE_DEPTH: usize = 256;
const MAX_ELEMENTS: usize = 50_000;
/// Below so many characters the better converter took a page for something else than it is.
const TOO_SHORT: usize = 400;
/// Most bytes read from a converter: a whole text and a title. Its word is not trusted.
const MAX_RESULT: u64 = (MAX_TEXT + MAX_TITLE + 8) as u64;
/// Longest page and address handed over.
const MAX_HTML: u32 = 8 << 20;

/// The way to converters.
#[derive(Debug)]
pub(crate) struct Converters {
    maker: OwnedFd,
    slots: Semaphore,
    /// The maker does not take a page any more.
    gone: Cell<bool>,
}

impl Converters {
    /// Forks the maker. Before anything is read and while there is one thread.
    pub(crate) fn start(wall: Wall) -> Result<Self, ConfineError> {
        let cannot = |step| move |errno: Errno| ConfineError::Step { step, cause: errno.to_string() };
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(cannot("make a socket pair"))?;
        match sys::clone_process(0).map_err(cannot("start the maker of converters"))? {
            Cloned::Child => {
                let status = i32::from(make(&theirs, wall).is_err());
                sys::exit_now(status)
            }
            Cloned::Parent { .. } => {
                Ok(Self { maker: ours, slots: Semaphore::new(MAX_AT_ONCE), gone: Cell::new(false) })
            }
        }
    }

    /// Readable text of a page by `until`, by the better converter if one is free in time and survives.
    pub(crate) async fn convert(&self, html: String, base: &Url, until: Instant) -> Readable {
        let now = Instant::now();
        // Pages made to take long must not hold up others: who does not get a converter soon goes without.
        let soon = (now + PATIENCE).min(until.checked_sub(PATIENCE).unwrap_or(now));
        let converted = match tokio::time::timeout_at(soon, self.slots.acquire()).await {
            Ok(_slot) => tokio::time::timeout(PATIENCE, self.ask(&html, base)).await,
            Err(late) => Err(late),
        };
        match converted {
            Ok(Ok(readable)) => readable,
            Ok(Err(_)) | Err(_) => markdown::convert(&html, Some(base)),
        }
    }

    /// Whether no page will ever get a converter again: the worker should make room for another.
    pub(crate) fn are_gone(&self) -> bool {
        self.gone.get()
    }

    async fn ask(&self, html: &str, base: &Url) -> std::io::Result<Readable> {
        let (ours, theirs) = UnixStream::pair()?;
        let sent = sys::send(self.maker.as_fd(), b"c", &[theirs.as_fd()]);
        self.gone.set(self.gone.get() || matches!(sent, Err(Errno::EPIPE | Errno::ECONNRESET)));
        sent?;
        drop(theirs);
        ours.set_nonblocking(true)?;
        let mut ours = tokio::net::UnixStream::from_std(ours)?;
        for part in [base.as_str(), html] {
            let length = u32::try_from(part.len()).map_err(std::io::Error::other)?;
            ours.write_all(&length.to_be_bytes()).await?;
            ours.write_all(part.as_bytes()).await?;
        }
        let mut result = Vec::new();
        ours.take(MAX_RESULT).read_to_end(&mut result).await?;
        parse(&result).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// Two texts with their lengths before them, and nothing else: half a result is none.
fn parse(mut result: &[u8]) -> Option<Readable> {
    let mut take = || {
        let (length, rest) = result.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        result = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let (title, text) = (take()?, take()?);
    result.is_empty().then_some(Readable { title, text })
}

/// The maker: takes one descriptor after the other and forks a converter for each. Reads nothing else.
fn make(requests: &OwnedFd, wall: Wall) -> Result<(), String> {
    let text = |error: Errno| error.to_string();
    nix::sys::prctl::set_name(c"oxibot-convert").map_err(text)?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(text)?;
    // What a converter complains of is of no use to anybody, and hostile.
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|error| error.to_string())?;
    nix::unistd::dup2_stdin(&null).map_err(text)?;
    nix::unistd::dup2_stdout(&null).map_err(text)?;
    nix::unistd::dup2_stderr(&null).map_err(text)?;
    drop(null);
    sys::place_at_three(requests.as_fd()).map_err(text)?;
    sys::close_from(4).map_err(text)?;
    let requests = sys::take_inherited(3).ok_or("its socket is gone")?;
    sys::ignore_ended_children().map_err(text)?;
    confine::confine_maker(wall).map_err(|error| error.to_string())?;
    let mut running: Vec<(OwnedFd, Instant)> = Vec::new();
    loop {
        let mut watched = vec![PollFd::new(requests.as_fd(), PollFlags::POLLIN)];
        watched.extend(running.iter().map(|(pidfd, _)| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)));
        let timeout = if running.is_empty() { PollTimeout::NONE } else { PollTimeout::from(500_u16) };
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.to_string()),
        }
        let ready: Vec<bool> = watched.iter().map(|one| one.any().unwrap_or(true)).collect();
        let now = Instant::now();
        let mut ended = ready.iter().skip(1);
        running.retain(|(pidfd, until)| {
            let over = ended.next().copied().unwrap_or(false);
            if !over && now >= *until {
                // It ends by this, and is seen to have ended in the next turn.
                let _ = sys::pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL);
            }
            !over
        });
        if ready.first().copied().unwrap_or(false) {
            let (bytes, descriptors) =
                sys::receive(requests.as_fd(), &mut [0], MsgFlags::MSG_DONTWAIT).map_err(text)?;
            if bytes == 0 {
                return Ok(());
            }
            let Some(page) = descriptors.into_iter().next() else { continue };
            match sys::clone_process(0) {
                Ok(Cloned::Child) => {
                    // What other pages come by, and their converters, are nothing to this one.
                    sys::close_in_child(requests.as_fd());
                    running.iter().for_each(|(pidfd, _)| sys::close_in_child(pidfd.as_fd()));
                    let status = i32::from(convert_one(page, wall).is_none());
                    sys::exit_now(status)
                }
                Ok(Cloned::Parent { pidfd, .. }) => running.push((pidfd, now + MAX_LIFE)),
                // No process for this page; there may be one for the next. Its asker sees the end of its socket.
                Err(_) => {}
            }
        }
    }
}

/// A converter: limits, confinement, one page, the end.
fn convert_one(page: OwnedFd, wall: Wall) -> Option<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).ok()?;
    confine::lower(Resource::RLIMIT_CPU, MAX_CPU_S).ok()?;
    confine::lower(Resource::RLIMIT_DATA, MAX_HEAP).ok()?;
    confine::lower(Resource::RLIMIT_STACK, MAX_STACK).ok()?;
    confine::confine_converter(wall).ok()?;
    let mut page = UnixStream::from(page);
    let base = read_part(&mut page)?;
    let html = read_part(&mut page)?;
    let readable = readable(&html, &base);
    for part in [start(&readable.title, MAX_TITLE), start(&readable.text, MAX_TEXT)] {
        page.write_all(&u32::try_from(part.len()).ok()?.to_be_bytes()).ok()?;
        page.write_all(part.as_bytes()).ok()?;
    }
    Some(())
}

fn read_part(page: &mut UnixStream) -> Option<String> {
    let mut length = [0; 4];
    page.read_exact(&mut length).ok()?;
    let length = u32::from_be_bytes(length);
    let mut part = String::new();
    page.take(u64::from(length.min(MAX_HTML))).read_to_string(&mut part).ok()?;
    (part.len() as u64 == u64::from(length)).then_some(part)
}

/// The text of an article where the page is one, everything otherwise.
fn readable(html: &str, base: &str) -> Readable {
    let base_url = Url::parse(base).ok();
    let plain = || markdown::convert(html, base_url.as_ref());
    if html.len() > MAX_TREE_BYTES || markdown::depth(html) > MAX_TREE_DEPTH {
        return plain();
    }
    let config =
        Config { text_mode: TextMode::Markdown, max_elements_to_parse: MAX_ELEMENTS, ..Config::default() };
    let article = Readability::new(html, Some(base), Some(config)).and_then(|mut page| page.parse());
    match article {
        Ok(article) if article.text_content.chars().count() >= TOO_SHORT => {
            Readable { title: article.title.to_string(), text: article.text_content.to_string() }
        }
        Ok(_) | Err(_) => plain(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_result_is_none() {
        let mut whole = vec![0, 0, 0, 1, b't', 0, 0, 0, 2, b'a', b'b'];
        assert_eq!(parse(&whole), Some(Readable { title: "t".into(), text: "ab".into() }));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None);
        }
        whole.push(0);
        assert_eq!(parse(&whole), None);
        assert_eq!(parse(&[0xff; 8]), None);
    }

    #[test]
    fn an_article_is_read_without_what_is_around_it_and_another_page_whole() {
        let paragraph =
            "<p>Sentences of an article, with commas, that go on for a while, as they do, and a <a \
            href='/other'>link to another page</a> in the middle of it.</p>"
                .repeat(12);
        let html = format!(
            "<html><head><title>The title</title></head><body><nav><a href=/x>Menu entry</a></nav><article>{paragraph}\
             </article><footer>Imprint</footer></body></html>"
        );
        let page = readable(&html, "https://example.com/a/");
        assert_eq!(page.title, "The title");
        assert!(
            page.text.contains("https://example.com/other") && !page.text.contains("Menu entry"),
            "{}",
            page.text
        );
        let short = readable("<title>T</title><ul><li><a href=/x>One</a></ul>", "https://example.com/a/");
        assert_eq!(short.text, "- [One](https://example.com/x)");
    }
}
