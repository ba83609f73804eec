//! HTML to readable text in one pass: no tree, no recursion, memory and time in proportion to the page. Links stay.
//!
//! This is what is left when the better converter dies of a page, and what long or deeply nested pages get at once. It
//! follows browsers where that is cheap (raw text elements, attribute quotes, entities of everyday use) and shows the
//! text where it is not.

use url::Url;

use crate::page::start;

/// Most bytes of text made of a page. A base address of 8 KiB before each of many links would multiply.
pub(crate) const MAX_TEXT: usize = 2 * 1024 * 1024;
/// Most bytes of a title, and of what stands for a picture.
pub(crate) const MAX_TITLE: usize = 4096;
/// Longest address of a link that is shown.
const MAX_LINK: usize = 1024;
/// Elements whose content is no text.
const RAW: [&str; 8] = ["script", "style", "noscript", "template", "svg", "iframe", "textarea", "math"];

/// Title and text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Readable {
    pub(crate) title: String,
    pub(crate) text: String,
}

/// Converts a page. `base` is where it was, for relative links.
pub(crate) fn convert(html: &str, base: Option<&Url>) -> Readable {
    let mut writer = Writer { base, ..Writer::default() };
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        writer.text(rest.get(..at).unwrap_or_default());
        let from = rest.get(at..).unwrap_or_default();
        rest = match markup(from) {
            Markup::Text => {
                writer.text("<");
                from.get(1..).unwrap_or_default()
            }
            Markup::Skipped(after) => after,
            Markup::Tag(tag, after) => match writer.tag(&tag) {
                Then::Go => after,
                Then::SkipTo(name) => skip_raw(after, name),
                Then::Title => {
                    let end = find_close(after, "title").unwrap_or(after.len());
                    if writer.title.is_empty() {
                        writer.title = short(after.get(..end).unwrap_or_default());
                    }
                    after.get(end..).unwrap_or_default()
                }
            },
        };
        if writer.out.len() > MAX_TEXT {
            break;
        }
    }
    if writer.out.len() <= MAX_TEXT {
        writer.text(rest);
    }
    writer.finish()
}

/// How deep tags nest, as far as can be told without a tree. Elements that need no end do not count.
pub(crate) fn depth(html: &str) -> usize {
    const FLAT: [&str; 22] = [
        "br", "img", "hr", "input", "meta", "link", "p", "li", "td", "th", "tr", "dt", "dd", "option",
        "source", "col", "wbr", "area", "base", "embed", "track", "tbody",
    ];
    let (mut deep, mut deepest, mut rest) = (0_usize, 0, html);
    while let Some(at) = rest.find('<') {
        let from = rest.get(at..).unwrap_or_default();
        rest = match markup(from) {
            Markup::Text => from.get(1..).unwrap_or_default(),
            Markup::Skipped(after) => after,
            Markup::Tag(tag, after) => {
                if RAW.contains(&tag.name.as_str()) && !tag.closing {
                    skip_raw(after, raw_name(&tag.name))
                } else {
                    if tag.closing {
                        deep = deep.saturating_sub(1);
                    } else if !FLAT.contains(&tag.name.as_str()) {
                        deep += 1;
                        deepest = deepest.max(deep);
                    }
                    after
                }
            }
        };
    }
    deepest
}

struct Tag<'a> {
    name: String,
    closing: bool,
    attributes: &'a str,
}

enum Markup<'a> {
    /// A `<` that begins nothing.
    Text,
    /// A comment or declaration, and what follows it.
    Skipped(&'a str),
    Tag(Tag<'a>, &'a str),
}

fn markup(from: &str) -> Markup<'_> {
    let inner = from.get(1..).unwrap_or_default();
    if let Some(comment) = inner.strip_prefix("!--") {
        let end = comment.find("-->").map_or(comment.len(), |at| at + 3);
        return Markup::Skipped(comment.get(end..).unwrap_or_default());
    }
    if inner.starts_with(['!', '?']) {
        let end = inner.find('>').map_or(inner.len(), |at| at + 1);
        return Markup::Skipped(inner.get(end..).unwrap_or_default());
    }
    let (closing, inner) = inner.strip_prefix('/').map_or((false, inner), |inner| (true, inner));
    if !inner.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Markup::Text;
    }
    let name_end =
        inner.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>').unwrap_or(inner.len());
    // No element has a longer name; what does is not looked at further.
    let name = inner.get(..name_end.min(16)).unwrap_or_default().to_ascii_lowercase();
    let after_name = inner.get(name_end..).unwrap_or_default();
    let end = tag_end(after_name);
    let attributes = after_name.get(..end).unwrap_or_default();
    Markup::Tag(Tag { name, closing, attributes }, after_name.get(end + 1..).unwrap_or_default())
}

/// Where a tag ends: the first `>` outside quotes that begin a value.
fn tag_end(text: &str) -> usize {
    let (mut quote, mut before) = (None, ' ');
    for (at, character) in text.char_indices() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if character == '>' => return at,
            None if matches!(character, '"' | '\'') && before == '=' => quote = Some(character),
            None => {}
        }
        if !character.is_ascii_whitespace() {
            before = character;
        }
    }
    text.len()
}

fn attribute<'a>(attributes: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = attributes;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '=' || c == '/').unwrap_or(rest.len());
        let name = rest.get(..end)?;
        let after = rest.get(end..)?.trim_start();
        let (value, next) = match after.strip_prefix('=') {
            None => ("", after),
            Some(value) => {
                let value = value.trim_start();
                let first = value.chars().next();
                match first.filter(|first| matches!(first, '"' | '\'')) {
                    Some(quote) => {
                        let inner = value.get(1..)?;
                        let close = inner.find(quote).unwrap_or(inner.len());
                        (inner.get(..close)?, inner.get(close + 1..).unwrap_or_default())
                    }
                    None => {
                        let close = value.find(|c: char| c.is_ascii_whitespace()).unwrap_or(value.len());
                        (value.get(..close)?, value.get(close..)?)
                    }
                }
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        if next.is_empty() || (name.is_empty() && next.len() == rest.len()) {
            return None;
        }
        rest = next;
    }
}

fn raw_name(name: &str) -> &'static str {
    RAW.into_iter().find(|raw| *raw == name).unwrap_or("script")
}

fn skip_raw<'a>(after: &'a str, name: &str) -> &'a str {
    // Without an end the rest of the page is inside, as in a browser.
    find_close(after, name).and_then(|at| after.get(at..)).unwrap_or_default()
}

/// Where `</name` stands.
fn find_close(text: &str, name: &str) -> Option<usize> {
    text.match_indices("</").map(|(at, _)| at).find(|at| {
        text.get(at + 2..at + 2 + name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name))
    })
}

enum Then {
    Go,
    SkipTo(&'static str),
    Title,
}

#[derive(Default)]
struct Writer<'a> {
    base: Option<&'a Url>,
    out: String,
    title: String,
    /// Line ends owed before the next text, at most two.
    owed: usize,
    /// A space is owed.
    space: bool,
    /// Depth of `<pre>`.
    pre: usize,
    /// The link that is open: where its text begins, and where it leads.
    link: Option<(usize, String)>,
}

impl Writer<'_> {
    fn text(&mut self, raw: &str) {
        let raw = start(raw, (MAX_TEXT + 1).saturating_sub(self.out.len()));
        if raw.is_empty() {
            return;
        }
        let text = entities(raw);
        if self.pre > 0 {
            self.pay();
            self.out.push_str(&text);
            return;
        }
        self.space |= text.starts_with(|c: char| c.is_whitespace());
        let mut first = true;
        for word in text.split_whitespace() {
            self.space |= !first;
            first = false;
            self.pay();
            self.out.push_str(word);
        }
        self.space |= text.ends_with(|c: char| c.is_whitespace());
    }

    /// Writes what is owed before something else.
    fn pay(&mut self) {
        if self.out.is_empty() {
            self.owed = 0;
        }
        if self.owed > 0 {
            self.out.truncate(self.out.trim_end_matches(' ').len());
            for _ in 0..self.owed {
                self.out.push('\n');
            }
            self.owed = 0;
        } else if self.space && !self.out.is_empty() && !self.out.ends_with(['\n', ' ']) {
            self.out.push(' ');
        }
        self.space = false;
    }

    fn break_lines(&mut self, lines: usize) {
        self.close_link();
        self.owed = self.owed.max(lines);
    }

    fn mark(&mut self, mark: &str) {
        self.pay();
        self.out.push_str(mark);
    }

    fn tag(&mut self, tag: &Tag<'_>) -> Then {
        let name = tag.name.as_str();
        if RAW.contains(&name) && !tag.closing {
            return Then::SkipTo(raw_name(name));
        }
        match name {
            "title" if !tag.closing => return Then::Title,
            "a" => {
                self.close_link();
                if !tag.closing {
                    self.open_link(tag.attributes);
                }
            }
            "br" => self.owed = (self.owed + 1).min(2),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.break_lines(2);
                if !tag.closing {
                    let level = name.get(1..).and_then(|digit| digit.parse().ok()).unwrap_or(1);
                    self.mark(&format!("{} ", "#".repeat(level)));
                }
            }
            "li" if !tag.closing => {
                self.break_lines(1);
                self.mark("- ");
            }
            "pre" => {
                self.break_lines(2);
                self.pre = if tag.closing { self.pre.saturating_sub(1) } else { self.pre + 1 };
            }
            "td" | "th" if !tag.closing => {
                self.close_link();
                if self.owed == 0 && !self.out.is_empty() {
                    self.mark(" | ");
                }
            }
            "img" => {
                if let Some(alt) = attribute(tag.attributes, "alt").filter(|alt| !alt.trim().is_empty()) {
                    let alt = short(alt);
                    self.space = true;
                    self.mark(&format!("[image: {alt}]"));
                    self.space = true;
                }
            }
            "tr" | "ul" | "ol" | "dl" | "dt" | "dd" | "option" | "figcaption" | "label" | "button" | "li" => {
                self.break_lines(1);
            }
            "p" | "div" | "section" | "article" | "header" | "footer" | "main" | "nav" | "aside"
            | "table" | "form" | "blockquote" | "figure" | "hr" | "address" | "body" | "head"
            | "fieldset" | "details" | "summary" => {
                self.break_lines(2);
            }
            _ => {}
        }
        Then::Go
    }

    fn open_link(&mut self, attributes: &str) {
        let Some(href) = attribute(attributes, "href") else { return };
        let href = entities(href);
        let href = href.trim();
        let target = match self.base {
            Some(base) => base.join(href).ok(),
            None => Url::parse(href).ok(),
        };
        let Some(target) = target.filter(|target| matches!(target.scheme(), "http" | "https")) else {
            return;
        };
        // To another place of the same page.
        if href.starts_with('#') || target.as_str().len() > MAX_LINK {
            return;
        }
        self.pay();
        self.link = Some((self.out.len(), String::from(target)));
    }

    fn close_link(&mut self) {
        let Some((start, target)) = self.link.take() else { return };
        if self.out.get(start..).is_some_and(|text| !text.trim().is_empty()) {
            self.out.insert(start, '[');
            self.out.push_str(&format!("]({target})"));
        }
    }

    fn finish(mut self) -> Readable {
        self.close_link();
        self.out.truncate(start(&self.out, MAX_TEXT).len());
        Readable { title: self.title, text: self.out }
    }
}

/// A title or the like: its start, on one line.
fn short(raw: &str) -> String {
    collapse(&entities(start(raw, MAX_TITLE)))
}

/// Words with single spaces between.
pub(crate) fn collapse(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// Entities of everyday use; others stay as they are written.
pub(crate) fn entities(text: &str) -> String {
    const LONGEST: usize = 10;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let after = rest.get(at + 1..).unwrap_or_default();
        let end = after.bytes().take(LONGEST).position(|byte| byte == b';');
        match end.and_then(|end| Some((entity(after.get(..end)?)?, after.get(end + 1..)?))) {
            Some((character, next)) => {
                out.push(character);
                rest = next;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code).filter(|character| !character.is_control() || *character == '\n');
    }
    let character = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "mdash" => '\u{2014}',
        "ndash" => '\u{2013}',
        "hellip" => '\u{2026}',
        "lsquo" => '\u{2018}',
        "rsquo" => '\u{2019}',
        "ldquo" => '\u{201c}',
        "rdquo" => '\u{201d}',
        "laquo" => '\u{ab}',
        "raquo" => '\u{bb}',
        "copy" => '\u{a9}',
        "reg" => '\u{ae}',
        "trade" => '\u{2122}',
        "deg" => '\u{b0}',
        "middot" => '\u{b7}',
        "bull" => '\u{2022}',
        "times" => '\u{d7}',
        "euro" => '\u{20ac}',
        "pound" => '\u{a3}',
        "sect" => '\u{a7}',
        "rarr" => '\u{2192}',
        "larr" => '\u{2190}',
        "auml" => '\u{e4}',
        "ouml" => '\u{f6}',
        "uuml" => '\u{fc}',
        "Auml" => '\u{c4}',
        "Ouml" => '\u{d6}',
        "Uuml" => '\u{dc}',
        "szlig" => '\u{df}',
        "eacute" => '\u{e9}',
        "egrave" => '\u{e8}',
        "agrave" => '\u{e0}',
        "aacute" => '\u{e1}',
        "ccedil" => '\u{e7}',
        "ntilde" => '\u{f1}',
        _ => return None,
    };
    Some(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(html: &str) -> String {
        convert(html, Url::parse("https://example.com/a/b").ok().as_ref()).text
    }

    #[test]
    fn an_article_reads_as_markdown_with_its_links() {
        let html = "<!doctype html><html><head><title>On &amp; off</title><style>p{}</style></head><body>\
            <script>var x = '<p>no</p>';</script><h1>Title</h1><p>First <b>bold</b>\n words, <a href=\"../c?x=1&amp;y=2\">a \
            link</a>.</p><ul><li>one<li>two</ul><pre>  keep\n   this</pre><!-- <p>no</p> --><table><tr><td>a<td>b</tr></table>\
            <p>5 < 6 &euro; &#x41;&unknown;<br>next<img src=x alt='A cat'></p><a href='javascript:alert(1)'>js</a></body>";
        let page = convert(html, Url::parse("https://example.com/a/b").ok().as_ref());
        assert_eq!(page.title, "On & off");
        assert_eq!(
            page.text,
            "# Title\n\nFirst bold words, [a link](https://example.com/c?x=1&y=2).\n\n- one\n- two\n\n  keep\n   this\n\n\
             a | b\n\n5 < 6 \u{20ac} A&unknown;\nnext [image: A cat]\n\njs"
        );
    }

    #[test]
    fn broken_markup_ends() {
        for html in [
            "<",
            "<a",
            "<a href",
            "<a href=",
            "<a href='x",
            "<!--",
            "<!",
            "</",
            "</a",
            "<script>x",
            "a<b",
            "<title>",
            "<a/=/=/>",
            "<a href=x href=y =z>t",
            "&",
            "&#;",
            "&#x110000;",
            "&#xd800;",
            "<p \u{e4}=\u{e4}>\u{e4}",
        ] {
            let _ = text(html);
            let _ = depth(html);
        }
        assert_eq!(text("x<script>a</scriptb>c</script>d"), "xc</script>d".replace("</script>", ""));
    }

    #[test]
    fn nesting_costs_no_stack_and_links_do_not_multiply() {
        let deep = "<div><b><i>".repeat(100_000);
        assert_eq!(text(&format!("{deep}end")), "end");
        assert_eq!(depth(&deep), 300_000);
        assert!(depth("<p>a<p>b<br><ul><li>x<li>y</ul>") < 3);
        let base = Url::parse(&format!("https://example.com/{}/", "a".repeat(900))).unwrap();
        let links = "<a href=x>y</a>".repeat(100_000);
        assert!(convert(&links, Some(&base)).text.len() <= MAX_TEXT);
    }

    proptest! {
        #[test]
        fn any_page_is_converted(html in "[<>/a-z='\"!&;# -]{0,200}") {
            let _ = text(&html);
            let _ = depth(&html);
        }
    }

    #[test]
    fn hostile_pages_take_time_in_proportion() {
        for unit in
            ["<a href='", "<!--", "<script>", "</", "<", "&", "<a ", "<a b='>", "</script", "&#x", "<title>"]
        {
            let html = unit.repeat(2_000_000 / unit.len());
            let start = std::time::Instant::now();
            let _ = text(&html);
            let _ = depth(&html);
            assert!(start.elapsed() < std::time::Duration::from_secs(20), "{unit}: {:?}", start.elapsed());
        }
    }
}
