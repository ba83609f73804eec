//! Sets of ASCII characters, as the shapes name them.

/// A set of ASCII characters. Bytes above 127 are in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u128);

const DIGIT: u128 = range(b'0', b'9');
const LOWER: u128 = range(b'a', b'z');
const UPPER: u128 = range(b'A', b'Z');
const ALNUM: u128 = DIGIT | LOWER | UPPER;

impl Class {
    /// Letters and digits.
    pub(super) const ALNUM: Self = Self(ALNUM);
    /// What names of variables, keys and options consist of.
    pub(super) const NAME: Self = Self(ALNUM | of(b"_-."));
    /// What a value consists of that is given to a name: everything printable but what ends one.
    pub(super) const VALUE: Self = Self(range(b'!', b'~') & !of(b"\"'`<>(){}[],;\\"));
    /// What user information in a URL consists of.
    pub(super) const USERINFO: Self = Self(range(b'!', b'~') & !of(b"\"'`<>(){}[],;\\/@#?|:"));
    /// Standard base64.
    pub(super) const BASE64: Self = Self(ALNUM | of(b"+/="));
    /// All that any lookback may cross: see `stream.rs`.
    pub(super) const TOKEN: Self = Self(ALNUM | of(b"_-.~+/=|:$%"));

    /// The set a letter stands for in the rules.
    pub(super) fn named(letter: char) -> Option<Self> {
        Some(Self(match letter {
            'd' => DIGIT,
            'h' => DIGIT | range(b'a', b'f'),
            'x' => DIGIT | range(b'a', b'f') | range(b'A', b'F'),
            'l' => LOWER,
            'u' => UPPER,
            'L' => LOWER | DIGIT,
            'U' => UPPER | DIGIT,
            'a' => ALNUM,
            'w' => ALNUM | of(b"_"),
            'b' => ALNUM | of(b"_-"),
            'p' => ALNUM | of(b"_-."),
            'B' => ALNUM | of(b"+/="),
            't' => ALNUM | of(b"_-.~+/="),
            'z' => ALNUM | of(b"_.~-"),
            'c' => ALNUM | of(b"_-.~+/=%"),
            _ => return None,
        }))
    }

    /// A set of single characters.
    pub(super) const fn single(bytes: &[u8]) -> Self {
        Self(of(bytes))
    }

    /// With those of another.
    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a byte is in it.
    pub(super) fn has(self, byte: u8) -> bool {
        byte < 128 && self.0 >> (byte & 127) & 1 == 1
    }

    /// Whether it holds nothing that is not in another.
    pub(super) fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Its characters.
    pub(super) fn bytes(self) -> impl Iterator<Item = u8> {
        (0_u8..128).filter(move |byte| self.has(*byte))
    }
}

const fn range(first: u8, last: u8) -> u128 {
    let mut set = 0;
    let mut byte = first;
    while byte <= last {
        set |= 1 << byte;
        byte += 1;
    }
    set
}

const fn of(bytes: &[u8]) -> u128 {
    let mut set = 0;
    let mut rest = bytes;
    while let [byte, more @ ..] = rest {
        set |= 1 << (*byte & 127);
        rest = more;
    }
    set
}
