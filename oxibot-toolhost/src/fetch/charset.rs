//! From bytes to text by the character set a page says it has: byte order mark, header, `<meta>`, and what it looks like.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// How far into a page a `<meta>` is looked for, as browsers do.
const PRESCAN: usize = 1024;

/// The text. What cannot be read is replaced, never dropped and never an error.
pub(crate) fn decode(bytes: &[u8], content_type: &str, html: bool) -> String {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        let (text, _) = encoding.decode_without_bom_handling(bytes.get(mark..).unwrap_or_default());
        return text.into_owned();
    }
    let named = parameter(content_type, "charset").and_then(|label| Encoding::for_label(label.as_bytes()));
    let said = named.or_else(|| html.then(|| from_meta(bytes)).flatten());
    match said {
        Some(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
        None => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            // Cut in the middle of a character it is UTF-8 all the same.
            Err(error) if error.error_len().is_none() => {
                UTF_8.decode_without_bom_handling(bytes).0.into_owned()
            }
            Err(_) if html => WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
            Err(_) => UTF_8.decode_without_bom_handling(bytes).0.into_owned(),
        },
    }
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
    use super::*;

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
