//! `parse_mode=HTML` as Telegram reads it: its tags, balanced, and the few entities it knows.

/// Tags of the documentation.
const TAGS: [&str; 16] = [
    "b",
    "strong",
    "i",
    "em",
    "u",
    "ins",
    "s",
    "strike",
    "del",
    "code",
    "pre",
    "a",
    "blockquote",
    "tg-spoiler",
    "span",
    "tg-emoji",
];

/// The text without its markup, or what Telegram answers.
pub(super) fn plain(html: &str) -> Result<String, String> {
    let bad = |what: String| Err(format!("Bad Request: can't parse entities: {what}"));
    let mut out = String::new();
    let mut open: Vec<String> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(behind) = from.strip_prefix('&') {
            let known = [("&lt;", '<'), ("&gt;", '>'), ("&amp;", '&'), ("&quot;", '"')];
            match known.iter().find(|(name, _)| from.starts_with(name)) {
                Some((name, character)) => {
                    out.push(*character);
                    rest = &from[name.len()..];
                }
                None => {
                    out.push('&');
                    rest = behind;
                }
            }
            continue;
        }
        let Some(end) = from.find('>') else { return bad("Unclosed start tag".to_owned()) };
        let tag = &from[1..end];
        rest = &from[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            match open.pop() {
                Some(last) if last == name => {}
                _ => return bad(format!("Unmatched end tag, expected something, found \"</{name}>\"")),
            }
            continue;
        }
        let name = tag.split(' ').next().unwrap_or_default();
        if !TAGS.contains(&name) {
            return bad(format!("Unsupported start tag \"{name}\""));
        }
        if name == "blockquote" && open.iter().any(|tag| tag == "blockquote") {
            return bad("Nested blockquote".to_owned());
        }
        open.push(name.to_owned());
    }
    if let Some(last) = open.last() {
        return bad(format!("Can't find end tag corresponding to start tag \"{last}\""));
    }
    out.push_str(rest);
    Ok(out)
}
