//! Markdown for a mail: as text, and as a page that loads nothing.
//!
//! A mail program may load what a page names. Pictures lose their address in both forms; a model's own tags are words;
//! links keep their address, which a person sees before following it.

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

fn options() -> Options {
    Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS
}

/// As text: the Markdown itself, which was made to be read, with pictures named only.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's list: everything but pictures stays as it is"
)]
#[must_use]
pub fn plain(markdown: &str) -> String {
    let mut out = String::with_capacity(markdown.len());
    let mut written = 0;
    let mut inside = 0_usize;
    let mut name = String::new();
    for (event, range) in Parser::new_ext(markdown, options()).into_offset_iter() {
        match event {
            Event::Start(Tag::Image { .. }) => {
                if inside == 0 {
                    out.push_str(markdown.get(written..range.start).unwrap_or_default());
                    name.clear();
                }
                inside += 1;
            }
            Event::End(TagEnd::Image) => {
                inside = inside.saturating_sub(1);
                if inside == 0 {
                    out.push_str(&format!("[picture: {name}]"));
                    written = range.end;
                }
            }
            Event::Text(text) | Event::Code(text) if inside > 0 => name.push_str(&text),
            _ => {}
        }
    }
    out.push_str(markdown.get(written..).unwrap_or_default());
    out
}

/// As a page.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's list: everything else is rendered by the library"
)]
#[must_use]
pub fn page(markdown: &str) -> String {
    let mut safe = Vec::new();
    let mut pictures = 0_usize;
    let mut links = Vec::new();
    for event in Parser::new_ext(markdown, options()) {
        match event {
            Event::Html(text) | Event::InlineHtml(text) => safe.push(Event::Text(text)),
            Event::Start(Tag::Image { .. }) => {
                pictures += 1;
                safe.push(Event::Text(CowStr::Borrowed("[picture: ")));
            }
            Event::End(TagEnd::Image) => {
                pictures = pictures.saturating_sub(1);
                safe.push(Event::Text(CowStr::Borrowed("]")));
            }
            Event::Start(Tag::Link { dest_url, title, link_type, id }) => {
                let followed = pictures == 0 && is_followed(&dest_url);
                links.push(followed);
                if followed {
                    safe.push(Event::Start(Tag::Link { dest_url, title, link_type, id }));
                }
            }
            Event::End(TagEnd::Link) => {
                if links.pop() == Some(true) {
                    safe.push(Event::End(TagEnd::Link));
                }
            }
            other => safe.push(other),
        }
    }
    let mut body = String::new();
    pulldown_cmark::html::push_html(&mut body, safe.into_iter());
    format!("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body>\n{body}</body></html>\n")
}

fn is_followed(address: &str) -> bool {
    let address = address.to_ascii_lowercase();
    ["https://", "http://", "mailto:"].iter().any(|scheme| address.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn page_renders_and_loads_nothing() {
        let out = page(
            "# T\n\n**b** <img src=https://e/x> ![a](https://e/y?k=s) [l](https://ok/) [j](javascript:x) \
             ![![b](https://e/1)](https://e/2) [![c](https://e/3)](https://ok/2)",
        );
        assert!(out.contains("<h1>T</h1>") && out.contains("<strong>b</strong>"), "{out}");
        assert!(out.contains("<a href=\"https://ok/\">l</a>"), "{out}");
        assert!(
            !out.contains("<img") && !out.contains("https://e/y") && !out.contains("javascript"),
            "{out}"
        );
        assert!(out.contains("[picture: a]"), "{out}");
    }

    #[test]
    fn text_names_pictures_and_keeps_the_rest_as_it_is() {
        assert_eq!(plain("a ![b `c`](https://e/?k=s) *d*\n"), "a [picture: b c] *d*\n");
        assert_eq!(plain("![r][x]\n\n[x]: https://e/\n").split('\n').next(), Some("[picture: r]"));
        assert_eq!(plain("```\n![a](b)\n```"), "```\n![a](b)\n```");
    }

    proptest! {
        #[test]
        fn no_tag_but_ours_whatever_was_written(text in "[a-z<>&\"'*_~`#>\\-|!\\[\\]()\n 1.:/]{0,300}") {
            let out = page(&text);
            for piece in out.split('<').skip(1) {
                let name: String = piece.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
                prop_assert!(
                    ["", "html", "head", "meta", "body", "p", "h1", "h2", "h3", "h4", "h5", "h6", "em", "strong", "del",
                     "code", "pre", "a", "blockquote", "ul", "ol", "li", "hr", "br", "table", "thead", "tbody", "tr",
                     "th", "td", "input"].contains(&name.as_str()),
                    "{piece}"
                );
            }
            let _never_panics = plain(&text);
        }
    }
}
