//! Pages kept within a conversation: to read on without fetching again, and to ask the server only whether it changed.
//!
//! One conversation never sees what another fetched: a private page of the one would be in the answer to the other.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Most pages and most bytes kept.
const MAX_PAGES: usize = 32;
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long reading on shows the page as it was, without asking the server.
pub(crate) const FRESH: Duration = Duration::from_secs(300);

/// A page as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Where it was in the end.
    pub(crate) url: String,
    /// Status line.
    pub(crate) status: String,
    /// What the server said it is.
    pub(crate) kind: String,
    /// When it was last changed, or sent, if the server says so.
    pub(crate) date: String,
    /// Title of an HTML page.
    pub(crate) title: String,
    /// Readable text.
    pub(crate) text: String,
    /// Remarks, for example that it was cut.
    pub(crate) notes: Vec<String>,
    /// What to send along to be told that nothing changed.
    pub(crate) validators: Validators,
}

/// `ETag` and `Last-Modified` as the server wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Validators {
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
}

impl Page {
    /// What it costs to keep.
    fn bytes(&self) -> usize {
        let fields = [&self.url, &self.status, &self.kind, &self.date, &self.title, &self.text];
        let more = [&self.validators.etag, &self.validators.modified].into_iter().flatten();
        fields.into_iter().chain(&self.notes).chain(more).map(String::len).sum()
    }
}

impl Validators {
    pub(crate) fn any(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }
}

struct Kept {
    conversation: String,
    url: String,
    page: Rc<Page>,
    at: Instant,
}

/// The pages, newest last.
#[derive(Default)]
pub(crate) struct Cache {
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Cache {
    /// What is kept of a URL in a conversation, and whether it is fresh.
    pub(crate) fn find(&self, conversation: &str, url: &str, now: Instant) -> Option<(Rc<Page>, bool)> {
        self.kept
            .iter()
            .rev()
            .find(|kept| kept.conversation == conversation && kept.url == url)
            .map(|kept| (kept.page.clone(), now.saturating_duration_since(kept.at) < FRESH))
    }

    /// Keeps a page, and lets the oldest go.
    pub(crate) fn keep(&mut self, conversation: &str, url: &str, page: Rc<Page>, now: Instant) {
        self.kept.retain(|kept| {
            let same = kept.conversation == conversation && kept.url == url;
            if same {
                self.bytes -= kept.page.bytes();
            }
            !same
        });
        if page.bytes() > MAX_BYTES {
            return;
        }
        self.bytes += page.bytes();
        self.kept.push_back(Kept {
            conversation: conversation.to_owned(),
            url: url.to_owned(),
            page,
            at: now,
        });
        while self.kept.len() > MAX_PAGES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.page.bytes();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn page(text: &str) -> Page {
        Page {
            url: "https://example.com/".into(),
            status: "200 OK".into(),
            kind: "text/plain".into(),
            date: String::new(),
            title: String::new(),
            text: text.into(),
            notes: Vec::new(),
            validators: Validators::default(),
        }
    }

    #[test]
    fn pages_belong_to_one_conversation_and_age() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.keep("one", "u", Rc::new(page("first")), now);
        assert!(cache.find("two", "u", now).is_none());
        assert!(cache.find("one", "u", now).unwrap().1);
        assert!(!cache.find("one", "u", now + FRESH).unwrap().1);
        cache.keep("one", "u", Rc::new(page("second")), now + FRESH);
        assert_eq!(cache.find("one", "u", now + FRESH).unwrap().0.text, "second");
        assert_eq!(cache.kept.len(), 1);
    }

    #[test]
    fn number_and_size_are_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..100 {
            cache.keep("one", &number.to_string(), Rc::new(page("x")), now);
        }
        assert_eq!(cache.kept.len(), MAX_PAGES);
        assert!(cache.find("one", "0", now).is_none() && cache.find("one", "99", now).is_some());
        let large = "x".repeat(MAX_BYTES / 3);
        for number in 0..10 {
            cache.keep("one", &number.to_string(), Rc::new(page(&large)), now);
            assert!(cache.bytes <= MAX_BYTES);
        }
        let titled = Page { title: large.clone(), ..page("x") };
        for number in 0..10 {
            cache.keep("two", &number.to_string(), Rc::new(titled.clone()), now);
        }
        assert!(cache.kept.len() < 4, "a title counts: {}", cache.kept.len());
        cache.keep("one", "huge", Rc::new(page(&"x".repeat(MAX_BYTES + 1))), now);
        assert!(cache.find("one", "huge", now).is_none());
    }
}
