//! What was read: the syntax tree of a script. Words keep what was quoted and what was not, because that decides
//! whether a `*` or a `~` means something.

use std::cell::OnceCell;
use std::rc::Rc;

/// Commands one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Script {
    pub(crate) items: Vec<Item>,
}

/// Pipelines joined by `&&` and `||`; which of the two does not matter, because either may run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    pub(crate) pipelines: Vec<Pipeline>,
    /// Ends with `&`.
    pub(crate) background: bool,
}

/// Commands joined by `|`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pipeline {
    pub(crate) stages: Vec<Command>,
}

/// One command with its redirections.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Command {
    pub(crate) kind: Kind,
    pub(crate) redirects: Vec<Redirect>,
}

/// The forms a command can take.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Simple {
        assignments: Vec<Assignment>,
        words: Vec<Word>,
    },
    /// `{ … }`.
    Group(Script),
    /// `( … )`.
    Subshell(Script),
    /// Conditions and branches in their order.
    If(Vec<Script>),
    /// `while` and `until`.
    Loop {
        condition: Script,
        body: Script,
    },
    /// `for` and `select`. No words: the positional parameters.
    For {
        name: String,
        words: Option<Vec<Word>>,
        body: Script,
    },
    /// `for ((…))`.
    Counted {
        header: Word,
        body: Script,
    },
    Case {
        word: Word,
        arms: Vec<(Vec<Word>, Script)>,
    },
    Function {
        name: String,
        body: Rc<Command>,
    },
    /// `((…))`.
    Arithmetic(Word),
    /// `[[ … ]]`.
    Test(Vec<Word>),
}

/// `name=value`, `name+=value`, `name[i]=value`, `name=(…)`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    pub(crate) append: bool,
    /// An element or a whole array: which value the plain name has is not followed.
    pub(crate) array: bool,
    pub(crate) value: Word,
}

/// A redirection and what it names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Redirect {
    /// `{name}>` counts as a number of its own.
    pub(crate) descriptor: Option<u32>,
    pub(crate) kind: RedirectKind,
    /// File, descriptor, or the text of a here-string.
    pub(crate) target: Word,
    /// Filled when the line ends.
    pub(crate) here: Option<Rc<OnceCell<Word>>>,
}

/// The operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedirectKind {
    /// `<`
    Read,
    /// `>`, `>|`, `&>`, `>&file`
    Write,
    /// `>>`, `&>>`
    Append,
    /// `<>`
    Both,
    /// `<&n`, `>&n`
    Duplicate,
    /// `<<`, `<<-`
    Here,
    /// `<<<`
    HereString,
}

/// Parts that stand together without a blank.
pub(crate) type Word = Vec<Part>;

/// A part of a word.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Text { text: String, quoted: bool },
    Variable { name: String, operation: Operation, quoted: bool },
    Substitution { script: Script, quoted: bool },
    Arithmetic { text: Word },
    Process { script: Script },
}

/// What a parameter expansion does to the value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operation {
    Plain,
    /// `${x:-w}`, `${x-w}`, `${x:=w}`, `${x=w}`, `${x:?w}`.
    Default(Word),
    /// `${x:+w}`.
    Alternative(Word),
    /// `${x:offset:length}`.
    Substring(Word),
    /// `${x#p}`, `${x##p}`, `${x%p}`, `${x%%p}`: suffix?, greedy?, pattern.
    Remove {
        suffix: bool,
        greedy: bool,
        pattern: Word,
    },
    /// `${x/p/r}`, `${x//p/r}`.
    Replace {
        all: bool,
        pattern: Word,
        with: Word,
    },
    /// `${x^^}`, `${x,,}`: upper or lower, all or the first.
    Case {
        upper: bool,
        all: bool,
    },
    /// Everything else: the value is not followed, but what stands inside runs.
    Other(Word),
}
