//! Markdown as the HTML that Telegram's `parse_mode=HTML` knows: `b i u s code pre a blockquote`, and nothing else.
//!
//! Everything a model wrote is escaped; tags are ours alone, and balanced whatever the Markdown was.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// Turns Markdown into HTML for Telegram.
#[must_use]
pub fn html(markdown: &str) -> String {
    let options = Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS;
    let mut page = Page::default();
    for event in Parser::new_ext(markdown, options) {
        page.take(event);
    }
    page.end()
}

#[derive(Default)]
struct Page {
    out: String,
    /// Numbers of the ordered lists that are open; bullets have none.
    lists: Vec<Option<u64>>,
    /// A quotation inside a quotation is refused by Telegram.
    quotes: usize,
    /// Whether each open link has a tag.
    links: Vec<bool>,
    /// Text of a picture, while inside one.
    picture: usize,
    /// Cells of the row that is open, and whether a table is.
    table: Option<Vec<String>>,
    heading: bool,
    code_block: bool,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.finish(tag),
            Event::Text(text) => self.text(&text),
            Event::Code(text) => {
                if self.table.is_some() || self.heading {
                    self.text(&text);
                } else {
                    self.raw(&format!("<code>{}</code>", escape(&text)));
                }
            }
            // A model's own tags are words.
            Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::SoftBreak | Event::HardBreak => self.text("\n"),
            Event::Rule => {
                self.apart();
                self.raw("———\n");
            }
            Event::TaskListMarker(done) => self.text(if done { "[x] " } else { "[ ] " }),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.text(&text),
            Event::FootnoteReference(name) => self.text(&format!("[{name}]")),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => {
                if self.lists.is_empty() {
                    self.apart();
                }
            }
            Tag::Heading { .. } => {
                self.apart();
                self.raw("<b>");
                self.heading = true;
            }
            Tag::BlockQuote(_) => {
                self.apart();
                if self.quotes == 0 {
                    self.raw("<blockquote>");
                }
                self.quotes += 1;
            }
            Tag::CodeBlock(kind) => {
                self.apart();
                self.code_block = true;
                let language = match &kind {
                    CodeBlockKind::Fenced(info) => info.split_whitespace().next().unwrap_or_default(),
                    CodeBlockKind::Indented => "",
                };
                let plain: String =
                    language.chars().filter(|c| c.is_ascii_alphanumeric() || "+-#_".contains(*c)).collect();
                if plain.is_empty() {
                    self.raw("<pre><code>");
                } else {
                    self.raw(&format!("<pre><code class=\"language-{plain}\">"));
                }
            }
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.apart();
                } else {
                    self.line();
                }
                self.lists.push(first);
            }
            Tag::Item => {
                self.line();
                let depth = self.lists.len().saturating_sub(1);
                self.raw(&"  ".repeat(depth));
                match self.lists.last_mut() {
                    Some(Some(number)) => {
                        let text = format!("{number}. ");
                        *number += 1;
                        self.raw(&text);
                    }
                    Some(None) | None => self.raw("• "),
                }
            }
            Tag::Emphasis => self.style("<i>"),
            Tag::Strong => self.style("<b>"),
            Tag::Strikethrough => self.style("<s>"),
            Tag::Link { dest_url, .. } => {
                let followed = ["https://", "http://", "mailto:", "tg://"]
                    .iter()
                    .any(|scheme| dest_url.to_ascii_lowercase().starts_with(scheme));
                let tagged = followed && self.table.is_none() && self.links.is_empty();
                if tagged {
                    self.raw(&format!("<a href=\"{}\">", escape(&dest_url)));
                }
                self.links.push(tagged);
            }
            Tag::Image { .. } => {
                self.text("[picture: ");
                self.picture += 1;
            }
            Tag::Table(_) => {
                self.apart();
                self.raw("<pre>");
                self.table = Some(Vec::new());
            }
            Tag::TableHead | Tag::TableRow => {}
            Tag::TableCell => {
                if let Some(cells) = &mut self.table {
                    cells.push(String::new());
                }
            }
            Tag::FootnoteDefinition(name) => {
                self.apart();
                self.text(&format!("[{name}] "));
            }
            Tag::HtmlBlock
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::Superscript
            | Tag::Subscript
            | Tag::MetadataBlock(_) => {}
        }
    }

    fn finish(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.heading = false;
                self.raw("</b>\n");
            }
            TagEnd::BlockQuote(_) => {
                self.quotes = self.quotes.saturating_sub(1);
                if self.quotes == 0 {
                    self.trim();
                    self.raw("</blockquote>\n");
                }
            }
            TagEnd::CodeBlock => {
                self.trim();
                self.code_block = false;
                self.raw("</code></pre>\n");
            }
            TagEnd::List(_) => {
                self.lists.pop();
                if self.lists.is_empty() {
                    self.line();
                }
            }
            TagEnd::Item => self.line(),
            TagEnd::Paragraph => self.line(),
            TagEnd::Emphasis => self.style("</i>"),
            TagEnd::Strong => self.style("</b>"),
            TagEnd::Strikethrough => self.style("</s>"),
            TagEnd::Link => {
                if self.links.pop() == Some(true) {
                    self.raw("</a>");
                }
            }
            TagEnd::Image => {
                self.picture = self.picture.saturating_sub(1);
                self.text("]");
            }
            TagEnd::TableHead | TagEnd::TableRow => {
                if let Some(cells) = self.table.as_mut().map(std::mem::take) {
                    self.table = Some(Vec::new());
                    let row = cells.iter().map(|cell| cell.trim()).collect::<Vec<_>>().join(" | ");
                    self.raw(&format!("{}\n", escape(&row)));
                }
            }
            TagEnd::Table => {
                self.table = None;
                self.trim();
                self.raw("</pre>\n");
            }
            TagEnd::TableCell
            | TagEnd::FootnoteDefinition
            | TagEnd::HtmlBlock
            | TagEnd::DefinitionList
            | TagEnd::DefinitionListTitle
            | TagEnd::DefinitionListDefinition
            | TagEnd::Superscript
            | TagEnd::Subscript
            | TagEnd::MetadataBlock(_) => {}
        }
    }

    /// A cell of a table and a heading have no styles: both are a style already.
    fn style(&mut self, tag: &str) {
        if self.table.is_none() && !self.heading {
            self.raw(tag);
        }
    }

    fn text(&mut self, text: &str) {
        match self.table.as_mut().and_then(|cells| cells.last_mut()) {
            Some(cell) => cell.push_str(text),
            None => {
                let escaped = escape(text);
                self.out.push_str(&escaped);
            }
        }
    }

    fn raw(&mut self, tag: &str) {
        self.out.push_str(tag);
    }

    fn trim(&mut self) {
        let end = self.out.trim_end().len();
        self.out.truncate(end);
    }

    /// A new line, unless one begins here.
    fn line(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    /// An empty line before the next block.
    fn apart(&mut self) {
        if self.out.is_empty() || self.out.ends_with("<blockquote>") {
            return;
        }
        self.line();
        if self.lists.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn end(self) -> String {
        self.out.trim().to_owned()
    }
}

/// The five characters that mean something in HTML, as words.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markdown_becomes_what_telegram_renders() {
        for (markdown, expected) in [
            ("plain", "plain"),
            ("**b** _i_ ~~s~~ `c<d`", "<b>b</b> <i>i</i> <s>s</s> <code>c&lt;d</code>"),
            ("# Title\n\ntext", "<b>Title</b>\n\ntext"),
            ("# A `code` **title**", "<b>A code title</b>"),
            ("one\n\ntwo", "one\n\ntwo"),
            ("- a\n- b\n  - c", "• a\n• b\n  • c"),
            ("3. a\n4. b", "3. a\n4. b"),
            (
                "```rust\nlet a = 1 < 2;\n```",
                "<pre><code class=\"language-rust\">let a = 1 &lt; 2;</code></pre>",
            ),
            ("> said\n> so", "<blockquote>said\nso</blockquote>"),
            ("[x](https://a.org/?b=1&c=2)", "<a href=\"https://a.org/?b=1&amp;c=2\">x</a>"),
            ("[x](javascript:alert(1))", "x"),
            ("| a | b |\n|---|---|\n| 1 | 2 |", "<pre>a | b\n1 | 2</pre>"),
            ("<b onclick=x>hi</b>", "&lt;b onclick=x&gt;hi&lt;/b&gt;"),
            ("a & b \"c\"", "a &amp; b &quot;c&quot;"),
        ] {
            assert_eq!(html(markdown), expected, "{markdown:?}");
        }
    }

    #[test]
    fn address_of_a_picture_is_not_passed_on() {
        let out = html("![a chart](https://evil.example/?key=secret)");
        assert_eq!(out, "[picture: a chart]");
    }

    proptest! {
        #[test]
        fn tags_are_balanced_and_ours_whatever_was_written(text in "[a-z<>&\"'*_~`#>\\-|!\\[\\]()\n 1.]{0,300}") {
            let out = html(&text);
            let mut open: Vec<String> = Vec::new();
            for piece in out.split('<').skip(1) {
                let tag = piece.split('>').next().unwrap();
                let name = tag.trim_start_matches('/').split(' ').next().unwrap().to_owned();
                prop_assert!(["b", "i", "s", "code", "pre", "a", "blockquote"].contains(&name.as_str()), "{tag}");
                if tag.starts_with('/') {
                    prop_assert_eq!(open.pop(), Some(name));
                } else {
                    open.push(name);
                }
            }
            prop_assert_eq!(open, Vec::<String>::new());
        }
    }
}
