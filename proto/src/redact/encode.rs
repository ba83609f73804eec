//! The forms in which a known secret may be printed: as it is, base64 at every offset, hexadecimal, percent-encoded,
//! escaped for JSON.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Every form of a secret, the secret itself first. Forms of the same text are not repeated.
pub(super) fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    for offset in 0..3 {
        let standard = base64_inside(secret, offset);
        let url = standard
            .iter()
            .map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect();
        forms.push(standard);
        forms.push(url);
    }
    forms.push(hex(secret, b"0123456789abcdef", b"", b""));
    forms.push(hex(secret, b"0123456789ABCDEF", b"", b""));
    forms.push(hex(secret, b"0123456789abcdef", b"", b" "));
    forms.push(hex(secret, b"0123456789abcdef", b"", b":"));
    forms.push(hex(secret, b"0123456789abcdef", b"\\x", b""));
    for digits in [b"0123456789ABCDEF", b"0123456789abcdef"] {
        forms.push(percent(secret, digits, |byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)));
        forms.push(percent(secret, digits, |byte| {
            byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte)
        }));
        forms.push(percent(secret, digits, |byte| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte)));
    }
    forms.push(json(secret, false));
    forms.push(json(secret, true));
    forms.push(secret.iter().rev().copied().collect());
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms.dedup();
    forms
}

/// The part of the base64 of any text that a secret at this offset of three decides alone.
fn base64_inside(secret: &[u8], offset: usize) -> Vec<u8> {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(secret);
    let whole = padded.len() / 3 * 3;
    let mut out = Vec::new();
    for three in padded.get(..whole).unwrap_or_default().chunks_exact(3) {
        if let [a, b, c] = three {
            let bits = u32::from(*a) << 16 | u32::from(*b) << 8 | u32::from(*c);
            for shift in [18, 12, 6, 0] {
                out.push(STANDARD.get((bits >> shift & 63) as usize).copied().unwrap_or(b'A'));
            }
        }
    }
    let rest = padded.get(whole..).unwrap_or_default();
    let bits = rest.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    // Of an unfinished group only the characters that no later byte changes.
    match rest.len() {
        1 => out.push(STANDARD.get((bits >> 2 & 63) as usize).copied().unwrap_or(b'A')),
        2 => {
            for shift in [10, 4] {
                out.push(STANDARD.get((bits >> shift & 63) as usize).copied().unwrap_or(b'A'));
            }
        }
        _ => {}
    }
    // The first characters hold bits of what stands before it.
    let foreign = match offset {
        0 => 0,
        1 => 2,
        _ => 3,
    };
    out.split_off(foreign.min(out.len()))
}

fn hex(secret: &[u8], digits: &[u8; 16], before: &[u8], between: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, byte) in secret.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(between);
        }
        out.extend_from_slice(before);
        for half in [byte >> 4, byte & 15] {
            out.extend(digits.get(usize::from(half)));
        }
    }
    out
}

fn percent(secret: &[u8], digits: &[u8; 16], plain: fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in secret {
        if plain(*byte) {
            out.push(*byte);
        } else {
            out.extend(hex(&[*byte], digits, b"%", b""));
        }
    }
    out
}

fn json(secret: &[u8], slashes: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in secret {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b'/' if slashes => out.extend(b"\\/"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            b'<' | b'>' | b'&' | b'\'' if slashes => {
                out.extend(hex(&[*byte], b"0123456789abcdef", b"\\u00", b""))
            }
            other => out.push(*other),
        }
    }
    out
}

/// What base64 text says, if it is whole.
pub(super) fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Vec::new();
    let mut bits = 0_u32;
    let mut held = 0;
    for byte in text {
        let value = STANDARD.iter().position(|known| known == byte)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 255) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_a_secret_is_found_whatever_stands_before_it() {
        // Encoded elsewhere: base64 of "xkey-1234567890" with 0, 1 and 2 bytes before it, and more after it.
        for (offset, encoded) in [
            (0, "a2V5LTEyMzQ1Njc4OTAhIQ=="),
            (1, "eGtleS0xMjM0NTY3ODkwISE="),
            (2, "eHhrZXktMTIzNDU2Nzg5MCEh"),
        ] {
            let inside = String::from_utf8(base64_inside(b"key-1234567890", offset)).unwrap();
            assert!(encoded.contains(&inside) && inside.len() >= 17, "{inside} in {encoded}");
        }
        assert_eq!(base64_decoded(b"dXNlcjpwYXNz").unwrap(), b"user:pass");
        assert_eq!(base64_decoded(b"dTpw!"), None);
    }

    #[test]
    fn forms_are_those_of_other_programs() {
        let forms: Vec<String> =
            forms(b"a/b+\"c").into_iter().map(|form| String::from_utf8(form).unwrap()).collect();
        for wanted in [
            "a/b+\"c",
            "612f622b2263",
            "612F622B2263",
            "a%2Fb%2B%22c",
            "a%2fb%2b%22c",
            "a/b+\\\"c",
            "a\\/b+\\\"c",
        ] {
            assert!(forms.iter().any(|form| form == wanted), "{wanted} in {forms:?}");
        }
    }
}
