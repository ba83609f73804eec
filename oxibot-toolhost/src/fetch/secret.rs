//! The search service and its key, as main left them on a socket of their own.
//!
//! Read with MSG_PEEK: the message stays in the kernel, so that the next worker finds it as well and nobody else has to
//! keep it. In a service the key is a credential of the unit instead. Address and key come together, from the one process that knows the key: no request can send it elsewhere.

use std::io::{ErrorKind, IoSliceMut, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recvmsg};
use oxibot_proto::codec::Decoder;
use oxibot_proto::settings::{SearchProvider, WebSearch};
use oxibot_proto::web::SearchService;

/// Longest message of main: an address, a key, numbers.
const MAX_MESSAGE: usize = 32 * 1024;

/// What main said of `web_search`. Its `Debug` shows no key.
#[derive(Clone)]
pub(crate) struct Search(pub(crate) SearchService);

impl std::fmt::Debug for Search {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Search").field("base_url", &self.0.base_url).finish_non_exhaustive()
    }
}

/// Where systemd puts the credential, by the key's name in the configuration.
const CREDENTIAL: &str = "tools.web.search.apiKey";
/// Longest key.
const MAX_KEY: u64 = 4096;

impl Search {
    /// As a unit of its own has it: the key as a credential, the rest as variables of the same names as everywhere.
    ///
    /// # Errors
    /// A credential that cannot be read or is no key, a variable that says nothing.
    pub(crate) fn of_service() -> Result<Option<Self>, String> {
        let variable = |name: &str| std::env::var(format!("OXIBOT_TOOLS__WEB__SEARCH__{name}")).ok();
        let key = match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(directory) => credential(&Path::new(&directory).join(CREDENTIAL))?,
            None => None,
        };
        let usual = WebSearch::default();
        let provider = match variable("PROVIDER").as_deref() {
            None => usual.provider,
            Some("brave") => SearchProvider::Brave,
            Some("searxng") => SearchProvider::Searxng,
            Some(_) => return Err("OXIBOT_TOOLS__WEB__SEARCH__PROVIDER must be brave or searxng".to_owned()),
        };
        let max_results = match variable("MAX_RESULTS").map(|number| number.parse()) {
            None => usual.max_results,
            Some(Ok(number)) => number,
            Some(Err(_)) => return Err("OXIBOT_TOOLS__WEB__SEARCH__MAX_RESULTS must be a number".to_owned()),
        };
        if key.is_none() && provider == SearchProvider::Brave {
            return Ok(None);
        }
        Ok(Some(Self(SearchService { provider, base_url: variable("BASE_URL"), key, max_results })))
    }

    /// What main left, `None` when it left nothing.
    pub(crate) fn peek(socket: &OwnedFd) -> Result<Option<Self>, String> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            match recvmsg::<()>(socket.as_raw_fd(), &mut slices, None, flags) {
                Ok(message) => break message.bytes,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break 0,
                Err(errno) => return Err(format!("cannot read what main left: {errno}")),
            }
        };
        if received == 0 {
            return Ok(None);
        }
        let mut decoder = Decoder::<SearchService>::new();
        decoder.push(buffer.get(..received).ok_or("cannot read what main left: it is too long")?);
        match decoder.next_message() {
            Ok(Some(service)) => Ok(Some(Self(service))),
            Ok(None) | Err(_) => Err("cannot read what main left: it is no message".to_owned()),
        }
    }
}

/// One line of a file that may be absent.
fn credential(path: &Path) -> Result<Option<String>, String> {
    let cannot = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(&error)),
    };
    let mut text = String::new();
    file.take(MAX_KEY + 1).read_to_string(&mut text).map_err(|error| cannot(&error))?;
    let key = text.trim_end_matches(['\r', '\n']);
    if key.is_empty() || text.len() as u64 > MAX_KEY || key.chars().any(char::is_control) {
        return Err(cannot(&"it is no key: one line of at most 4096 bytes"));
    }
    Ok(Some(key.to_owned()))
}
