//! Draws realistic texts: a fixed sequence of numbers, alphabets, checksums. No key in here was ever one.

use std::fmt::Write as _;

pub const DIGITS: &str = "0123456789";
pub const HEX: &str = "0123456789abcdef";
pub const BASE32: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
pub const BASE58: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
pub const BECH32: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
pub const BASE62: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
pub const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
pub const URL64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
pub const LOWER36: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
pub const UPPER36: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
pub const WORD: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";

/// A sequence that is the same in every run (xorshift64*, Vigna 2016).
pub struct Draw(u64);

impl Draw {
    pub fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.number() >> 33).unwrap() % most
    }

    pub fn of_alphabet(&mut self, alphabet: &str, length: usize) -> String {
        let letters = alphabet.as_bytes();
        loop {
            let text: String = (0..length).map(|_| char::from(letters[self.below(letters.len())])).collect();
            // What ends in a separator would end a word earlier than it is.
            if text.ends_with(|last: char| last.is_ascii_alphanumeric()) || !alphabet.contains('a') {
                return text;
            }
        }
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number().to_le_bytes()[3]).collect()
    }

    pub fn hex(&mut self, length: usize) -> String {
        self.of_alphabet(HEX, length)
    }

    pub fn uuid(&mut self) -> String {
        let h = self.hex(32);
        format!("{}-{}-4{}-a{}-{}", &h[..8], &h[8..12], &h[13..16], &h[17..20], &h[20..])
    }

    pub fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    pub fn word(&mut self) -> &'static str {
        self.one(&[
            "build",
            "server",
            "update",
            "parser",
            "worker",
            "index",
            "cache",
            "handler",
            "config",
            "release",
            "module",
            "service",
            "session",
            "client",
            "report",
            "invoice",
            "image",
            "vector",
            "channel",
            "widget",
            "account",
            "history",
            "token",
            "tokenizer",
            "keyboard",
            "author",
            "secretary",
            "passage",
            "credential",
            "bearer",
        ])
    }

    pub fn words(&mut self, count: usize) -> String {
        (0..count).map(|_| self.word()).collect::<Vec<_>>().join(" ")
    }
}

pub fn base64(bytes: &[u8]) -> String {
    encode(bytes, BASE64, true)
}

pub fn url64(bytes: &[u8]) -> String {
    encode(bytes, URL64, false)
}

fn encode(bytes: &[u8], alphabet: &str, padded: bool) -> String {
    let letters = alphabet.as_bytes();
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(char::from(letters[(bits >> (18 - 6 * place) & 63) as usize]));
            } else if padded {
                out.push('=');
            }
        }
    }
    out
}

/// Lines of a width.
pub fn wrapped(text: &str, width: usize) -> String {
    text.as_bytes().chunks(width).map(|line| format!("{}\n", std::str::from_utf8(line).unwrap())).collect()
}

/// The check sum at the end of tokens of GitHub and npm: CRC-32 in six characters of base 62.
pub fn with_crc(prefix: &str, body: &str) -> String {
    let mut crc = !0_u32;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let mut rest = !crc;
    let mut digits = Vec::new();
    for _ in 0..6 {
        digits.push(char::from(BASE62.as_bytes()[(rest % 62) as usize]));
        rest /= 62;
    }
    let check: String = digits.into_iter().rev().collect();
    format!("{prefix}{body}{check}")
}

/// As `xxd` prints.
pub fn hexdump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        write!(out, "{:08x}: ", line * 16).unwrap();
        for pair in chunk.chunks(2) {
            for byte in pair {
                write!(out, "{byte:02x}").unwrap();
            }
            out.push(' ');
        }
        out.push(' ');
        out.extend(chunk.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }));
        out.push('\n');
    }
    out
}
