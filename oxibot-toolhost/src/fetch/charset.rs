//! From bytes to text by the character set a page says it has: byte order mark, header, `<meta>`, and what it looks like.

use encoding_rs::{CoderResult, Encoding, UTF_8, WINDOWS_1252};

/// How far into a page a `<meta>` is looked for, as browsers do.
const PRESCAN: usize = 1024;

/// The text, at most `most` bytes of it, and whether that left something out. What cannot be read is replaced, never
/// dropped and never an error. One byte of an old character set may become three.
pub(crate) fn decode(bytes: &[u8], content_type: &str, html: bool, most: usize) -> (String, bool) {
    let (encoding, bytes) = match Encoding::for_bom(bytes) {
        Some((encoding, mark)) => (encoding, bytes.get(mark..).unwrap_or_default()),
        None => (encoding(bytes, content_type, html), bytes),
    };
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let needed = decoder.max_utf8_buffer_length(bytes.len()).unwrap_or(most);
    // It writes into what is there and does not grow it.
    let mut text = String::with_capacity(needed.min(most));
    let (result, _, _) = decoder.decode_to_string(bytes, &mut text, true);
    (text, result == CoderResult::OutputFull)
}

fn encoding(bytes: &[u8], content_type: &str, html: bool) -> &'static Encoding {
    let named = parameter(content_type, "charset").and_then(|label| Encoding::for_label(label.as_bytes()));
    let said = named.or_else(|| html.then(|| from_meta(bytes)).flatten());
    said.unwrap_or_else(|| match std::str::from_utf8(bytes) {
        // Cut in the middle of a character it is UTF-8 all the same.
        Err(error) if html && error.error_len().is_some() => WINDOWS_1252,
        Ok(_) | Err(_) => UTF_8,
    })
}

/// A parameter of a content type, unquoted.
pub(crate) fn parameter<'a>(content_type: &'a str, name: &str) -> Option<&'a str> {
    content_type.split(';').skip(1).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches(['"', '\'']))
    })
}

/// `<meta charset=x>` or `<meta http-equiv=content-type content="text/html; charset=x">`: either way the label follows
/// the first `charset=` after a `<meta`.
fn from_meta(bytes: &[u8]) -> Option<&'static Encoding> {
    let start: String =
        bytes.iter().take(PRESCAN).map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    let label = start.split("<meta").skip(1).find_map(|tag| {
        let tag = tag.split('>').next().unwrap_or_default();
        let (_, after) = tag.split_once("charset")?;
        let value = after.trim_start().strip_prefix('=')?.trim_start().trim_start_matches(['"', '\'']);
        value.split(['"', '\'', ';', ' ', '/']).next()
    })?;
    let encoding = Encoding::for_label(label.as_bytes())?;
    // A page in UTF-16 could not have said so in ASCII.
    let wide = [encoding_rs::UTF_16LE, encoding_rs::UTF_16BE].contains(&encoding);
    Some(if wide { UTF_8 } else { encoding })
}

#[cfg(test)]
mod tests {
    fn decode(bytes: &[u8], content_type: &str, html: bool) -> String {
        let (text, cut) = super::decode(bytes, content_type, html, 1000);
        assert!(!cut);
        text
    }

    #[test]
    fn text_is_cut_where_it_would_be_longer_than_it_may() {
        let euros = [0x80; 1000];
        let (text, cut) = super::decode(&euros, "text/plain; charset=windows-1252", false, 1000);
        assert!(
            cut && text.len() <= 1000 && text.len() > 990 && text.chars().all(|c| c == '\u{20ac}'),
            "{}",
            text.len()
        );
        assert!(text.capacity() < 1100, "it never held more: {}", text.capacity());
        assert_eq!(super::decode(b"abc", "", false, 3), ("abc".to_owned(), false));
    }

    #[test]
    fn character_set_is_taken_from_mark_then_header_then_meta() {
        assert_eq!(decode(b"\xff\xfeh\0\xe4\0", "text/html; charset=utf-8", true), "h\u{e4}");
        assert_eq!(decode(b"\xef\xbb\xbfh\xc3\xa4", "text/plain; charset=latin1", false), "h\u{e4}");
        assert_eq!(decode(b"h\xe4", "text/html; charset=\"ISO-8859-1\"", true), "h\u{e4}");
        assert_eq!(
            decode(b"<meta charset='koi8-r'>\xd4", "text/html", true),
            "<meta charset='koi8-r'>\u{442}"
        );
        let equiv =
            b"<META http-equiv=Content-Type content='text/html; CHARSET=shift_jis'>\x83\x65".as_slice();
        assert!(decode(equiv, "text/html", true).ends_with('\u{30c6}'));
        assert_eq!(decode(b"<meta charset=utf-16>h\xc3\xa4", "", true), "<meta charset=utf-16>h\u{e4}");
    }

    #[test]
    fn without_a_word_it_is_utf_8_or_what_old_pages_are() {
        assert_eq!(decode("h\u{e4}".as_bytes(), "text/plain", false), "h\u{e4}");
        assert_eq!(decode(b"h\xe4h", "text/html", true), "h\u{e4}h");
        assert_eq!(decode(b"h\xe4h", "text/plain", false), "h\u{fffd}h");
        assert_eq!(decode(b"h\xc3\xa4\xc3", "text/html", true), "h\u{e4}\u{fffd}");
        assert_eq!(decode(b"x", "text/html; charset=nonsense", true), "x");
    }
}
