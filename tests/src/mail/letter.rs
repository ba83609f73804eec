//! A mail in a mailbox, read by hand: another reader than the one under test.

use std::path::Path;

/// One mail.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its header, unfolded.
    pub fields: Vec<(String, String)>,
    /// Everything below the header, with quoted-printable undone.
    pub text: String,
    /// Whether it is marked as read.
    pub seen: bool,
}

impl Letter {
    /// Reads a file of a Maildir. None when it was renamed meanwhile.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let raw = std::fs::read(path).ok()?;
        let raw = String::from_utf8_lossy(&raw).replace("\r\n", "\n");
        let (head, body) = raw.split_once("\n\n").unwrap_or((&raw, ""));
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in head.lines() {
            match (line.starts_with([' ', '\t']), fields.last_mut()) {
                (true, Some((_, value))) => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                _ => {
                    let (name, value) = line.split_once(':').unwrap_or((line, ""));
                    fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
            }
        }
        let flags =
            path.to_string_lossy().rsplit_once(":2,").map_or(String::new(), |(_, flags)| flags.to_owned());
        Some(Self { fields, text: unquoted(body), seen: flags.contains('S') })
    }

    /// The first field of a name, or nothing.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        let name = name.to_ascii_lowercase();
        self.fields.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value)
    }
}

fn unquoted(text: &str) -> String {
    let text = text.replace("=\n", "");
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let ahead: Vec<u8> = rest.clone().take(2).collect();
        let number = std::str::from_utf8(&ahead).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, number) {
            (b'=', Some(number)) if ahead.len() == 2 => {
                bytes.push(number);
                rest.nth(1);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
