//! Reads a git configuration file the way git does (config.c), to find the keys that make git run a program.
//!
//! Pure and bounded. It is stricter than git: what it cannot read is an error, and the caller treats an error as a
//! change. Values are compared as they are written, not as they are meant.

/// Largest configuration file that is read. Larger ones are not configuration.
pub(super) const MAX_FILE: usize = 1024 * 1024;
/// Most entries.
const MAX_ENTRIES: usize = 20_000;

/// One `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Lower case.
    pub section: String,
    /// As it was meant, quotes removed.
    pub subsection: Option<Vec<u8>>,
    /// Lower case.
    pub key: String,
    /// As it was written; `None` for a key alone, which means true.
    pub value: Option<Vec<u8>>,
    /// Where it is in the file, without its line feed.
    span: (usize, usize),
}

impl Entry {
    /// What it says, wherever it stands.
    fn meaning(&self) -> (&str, Option<&[u8]>, &str, Option<&[u8]>) {
        (&self.section, self.subsection.as_deref(), &self.key, self.value.as_deref())
    }

    /// `section.subsection.key`, safe to show.
    pub(super) fn name(&self) -> String {
        match &self.subsection {
            Some(subsection) => {
                let shown = super::text::name(subsection);
                format!("{}.{}.{}", self.section, super::text::cut(&shown, 60), self.key)
            }
            None => format!("{}.{}", self.section, self.key),
        }
    }

    /// A clone of another repository of this machine, as anybody makes it, in a repository that is new itself.
    pub(super) fn names_a_path(&self) -> bool {
        self.section == "remote"
            && self.key == "url"
            && reached(&meant(self.value.as_deref().unwrap_or_default())) == Reached::Path
    }

    /// What it would come to on the host, for a note.
    pub(super) fn consequence(&self) -> &'static str {
        match (self.section.as_str(), self.key.as_str()) {
            ("url", _) => "git would use other addresses on the host",
            ("remote", "url" | "pushurl" | "pushdefault") | ("branch", "remote" | "pushremote") => {
                "git would run what is at that address on the host"
            }
            (
                "http" | "imap",
                "proxy" | "sslverify" | "sslcainfo" | "sslcapath" | "proxysslcainfo" | "curloptresolve",
            )
            | ("remote", "proxy") => "git on the host would trust somebody else with what it sends",
            ("http", "cookiefile" | "savecookies")
            | ("gc", "repackfilterto")
            | ("format", "outputdirectory")
            | ("gitcvs", "logfile") => "git would write there on the host",
            _ => RUN,
        }
    }
}

/// What most of them come to.
pub(super) const RUN: &str = "git would run it on the host";

/// Keys whose value makes git run something, read more configuration, write where the user did not say, or send the user's
/// secrets elsewhere. An empty key means any; the subsection is not compared. After git's own documentation of its
/// configuration (2.39 to 2.47, and what later versions announce), and that of extensions that are widely used.
const DANGEROUS: &[(&str, &str, When)] = &[
    ("core", "hookspath", When::Always),
    ("core", "fsmonitor", When::Always),
    ("core", "sshcommand", When::Always),
    ("core", "gitproxy", When::Always),
    ("core", "editor", When::Always),
    ("core", "pager", When::Always),
    ("core", "askpass", When::Always),
    ("core", "alternaterefscommand", When::Always),
    // Of Microsoft's git: a hook by another name.
    ("core", "virtualfilesystem", When::Always),
    // Another tree's attributes choose filters and drivers.
    ("core", "attributesfile", When::Always),
    ("core", "worktree", When::Always),
    // A second file with configuration.
    ("extensions", "worktreeconfig", When::Always),
    ("include", "", When::Always),
    ("includeif", "", When::Always),
    // Also without the mark of a shell command: `rebase --exec`, `difftool --extcmd` and others run what they are given.
    ("alias", "", When::Always),
    ("filter", "", When::Always),
    ("diff", "external", When::Always),
    ("diff", "command", When::Always),
    ("diff", "textconv", When::Always),
    ("merge", "driver", When::Always),
    ("difftool", "", When::Always),
    ("mergetool", "", When::Always),
    ("guitool", "", When::Always),
    ("interactive", "difffilter", When::Always),
    ("pager", "", When::Always),
    ("sequence", "editor", When::Always),
    ("gc", "recentobjectshook", When::Always),
    // A directory that objects are written to.
    ("gc", "repackfilterto", When::Always),
    // And files.
    ("format", "outputdirectory", When::Always),
    ("gitcvs", "logfile", When::Always),
    // Of git-lfs: transfer agents and extensions.
    ("lfs", "path", When::Always),
    ("lfs", "clean", When::Always),
    ("lfs", "smudge", When::Always),
    ("lfs", "standalonetransferagent", When::Always),
    ("gpg", "program", When::Always),
    ("gpg", "defaultkeycommand", When::Always),
    ("credential", "helper", When::Always),
    ("protocol", "allow", When::Always),
    ("remote", "uploadpack", When::Always),
    ("remote", "receivepack", When::Always),
    ("remote", "vcs", When::Always),
    ("remote", "url", When::RunsHere),
    ("remote", "pushurl", When::RunsHere),
    ("remote", "pushdefault", When::NoName),
    ("branch", "remote", When::NoName),
    ("branch", "pushremote", When::NoName),
    ("submodule", "url", When::Helper),
    // Turns every address of the user's into another: one of the two kinds above, or somebody else's machine.
    ("url", "", When::Always),
    // Through somebody else's hands, unseen, with the user's passwords. Cookies are written to any file there is.
    ("http", "proxy", When::Always),
    ("http", "sslverify", When::Always),
    ("http", "sslcainfo", When::Always),
    ("http", "sslcapath", When::Always),
    ("http", "proxysslcainfo", When::Always),
    ("http", "curloptresolve", When::Always),
    ("http", "cookiefile", When::Always),
    ("http", "savecookies", When::Always),
    ("remote", "proxy", When::Always),
    ("imap", "sslverify", When::Always),
    ("uploadpack", "packobjectshook", When::Always),
    ("submodule", "update", When::Bang),
    ("tar", "command", When::Always),
    ("trailer", "command", When::Always),
    ("trailer", "cmd", When::Always),
    ("sendemail", "", When::Always),
    ("imap", "tunnel", When::Always),
    ("instaweb", "", When::Always),
    ("browser", "", When::Always),
    ("man", "", When::Always),
    ("help", "browser", When::Always),
    ("web", "browser", When::Always),
    ("hook", "", When::Always),
    ("init", "templatedir", When::Always),
    // A Perl module that `git cvsserver` loads.
    ("gitcvs", "dbdriver", When::Always),
    // Of git-svn, git-annex, StGit, b4, tig, delta and git-secrets.
    ("svn", "authorsprog", When::Always),
    ("svn-remote", "authorsprog", When::Always),
    ("annex", "", When::Always),
    ("stgit", "", When::Always),
    ("b4", "", When::Always),
    ("tig", "", When::Always),
    ("delta", "", When::Always),
    ("secrets", "providers", When::Always),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// With `!` in it, which is how git marks a shell command.
    Bang,
    /// `HELPER::ADDRESS` runs `git-remote-HELPER`; for `ext` a command.
    Helper,
    /// The same, or a path, also as `file://`: another repository of this machine, whose hooks a push runs.
    RunsHere,
    /// Where git expects the name of a remote, and takes an address too: what cannot be a name.
    NoName,
}

/// Whether git may run what this entry says.
fn is_dangerous(entry: &Entry) -> bool {
    let value = || meant(entry.value.as_deref().unwrap_or_default());
    // git-annex has dozens of them, for each remote.
    let annex = entry.section == "remote" && entry.key.starts_with("annex-");
    annex
        || DANGEROUS.iter().any(|(section, key, when)| {
            *section == entry.section
                && (key.is_empty() || *key == entry.key)
                && match when {
                    When::Always => true,
                    When::Bang => value().contains(&b'!'),
                    When::Helper => matches!(reached(&value()), Reached::Helper),
                    When::RunsHere => matches!(reached(&value()), Reached::Helper | Reached::Path),
                    When::NoName => value().iter().any(|byte| matches!(byte, b'/' | b':')),
                }
        })
}

/// What an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Nothing: it is empty.
    Nothing,
    /// A program for addresses of its kind.
    Helper,
    /// This machine.
    Path,
    /// Another machine.
    Host,
}

/// As git decides it: a path has no colon, or a slash before it.
fn reached(address: &[u8]) -> Reached {
    let colon = address.iter().position(|byte| *byte == b':');
    let slash = address.iter().position(|byte| *byte == b'/');
    let Some(colon) = colon.filter(|colon| slash.is_none_or(|slash| *colon < slash)) else {
        return if address.is_empty() { Reached::Nothing } else { Reached::Path };
    };
    let (scheme, rest) = address.split_at(colon);
    if rest.starts_with(b"::") {
        Reached::Helper
    } else if scheme.eq_ignore_ascii_case(b"file") && rest.starts_with(b"://") {
        Reached::Path
    } else {
        Reached::Host
    }
}

/// A value as git takes it: without quotes, what is escaped, comments and white space around it. What this gets wrong it
/// gets wrong alike before and after a call.
fn meant(written: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    let mut quoted = false;
    let mut reader = Reader { bytes: written, at: 0 };
    while let Some(byte) = reader.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'#' | b';' if !quoted => break,
            b'\\' => match reader.next() {
                Some(b'\n') | None => {}
                Some(b't') => value.push(b'\t'),
                Some(b'b') => value.push(0x08),
                Some(b'n') => value.push(b'\n'),
                Some(other) => value.push(other),
            },
            other => value.push(other),
        }
    }
    value.trim_ascii().to_vec()
}

/// The dangerous entries of a file, in order.
pub(super) fn dangerous(bytes: &[u8]) -> Result<Vec<Entry>, Unreadable> {
    Ok(parse(bytes)?.into_iter().filter(is_dangerous).collect())
}

/// Whether two lists say the same.
pub(super) fn same(before: &[Entry], after: &[Entry]) -> bool {
    before.iter().map(Entry::meaning).eq(after.iter().map(Entry::meaning))
}

/// The entries of either list that the other does not have: what was added, removed or altered. When only their
/// order differs, all of them.
pub(super) fn changed<'a>(before: &'a [Entry], after: &'a [Entry]) -> Vec<&'a Entry> {
    let lacks = |list: &[Entry], entry: &Entry| !list.iter().any(|other| other.meaning() == entry.meaning());
    let mut found: Vec<&Entry> = after.iter().filter(|entry| lacks(before, entry)).collect();
    found.extend(before.iter().filter(|entry| lacks(after, entry)));
    if found.is_empty() { after.iter().collect() } else { found }
}

/// The harmless entries of `was` in whose place there are only dangerous ones now: a remote without its address would be
/// taken for a path of that name.
pub(super) fn replaced(was: &[u8], now: &[u8], after: &[Entry]) -> Vec<Entry> {
    let key = |entry: &Entry| (entry.section.clone(), entry.subsection.clone(), entry.key.clone());
    let keys: Vec<_> = after.iter().map(key).collect();
    let harmless = |file| parse(file).unwrap_or_default().into_iter().filter(|entry| !is_dangerous(entry));
    let there: Vec<_> = harmless(now).map(|entry| key(&entry)).collect();
    harmless(was).filter(|entry| keys.contains(&key(entry)) && !there.contains(&key(entry))).collect()
}

/// `now` without its dangerous entries `after`, and with `before` at its end.
pub(super) fn put_back(now: &[u8], after: &[Entry], before: &[Entry]) -> Vec<u8> {
    let mut file = Vec::with_capacity(now.len());
    let mut kept = 0_usize;
    for entry in after {
        let (start, end) = entry.span;
        file.extend_from_slice(now.get(kept..start).unwrap_or_default());
        kept = end;
    }
    file.extend_from_slice(now.get(kept..).unwrap_or_default());
    if !file.is_empty() {
        end_value(&mut file);
    }
    for entry in before {
        file.push(b'[');
        file.extend_from_slice(entry.section.as_bytes());
        if let Some(subsection) = &entry.subsection {
            file.extend_from_slice(b" \"");
            for byte in subsection {
                if matches!(byte, b'"' | b'\\') {
                    file.push(b'\\');
                }
                file.push(*byte);
            }
            file.push(b'"');
        }
        file.extend_from_slice(b"]\n\t");
        file.extend_from_slice(entry.key.as_bytes());
        if let Some(value) = &entry.value {
            file.extend_from_slice(b" =");
            file.extend_from_slice(value);
        }
        end_value(&mut file);
    }
    file
}

/// Ends the last line, and the one it goes on with if it ends in a backslash: what follows must not become part of it.
fn end_value(file: &mut Vec<u8>) {
    if !file.ends_with(b"\n") {
        file.push(b'\n');
    }
    if file.ends_with(b"\\\n") || file.ends_with(b"\\\r\n") {
        file.push(b'\n');
    }
}

/// The file is not one that git would read, or too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot read git configuration: not understood near byte {at}")]
pub(super) struct Unreadable {
    /// Where reading stopped.
    pub at: usize,
}

/// Every entry of a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Unreadable> {
    if bytes.len() > MAX_FILE || bytes.contains(&0) {
        return Err(Unreadable { at: 0 });
    }
    let start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let mut reader = Reader { bytes, at: start };
    let mut section = String::new();
    let mut subsection = None;
    let mut entries = Vec::new();
    while let Some(byte) = reader.peek() {
        match byte {
            b'#' | b';' => reader.skip_line(),
            b'[' => (section, subsection) = reader.header()?,
            _ if is_space(byte) => reader.at = reader.at.saturating_add(1),
            _ if byte.is_ascii_alphabetic() => {
                let start = reader.at;
                let (key, value) = reader.entry()?;
                let span = (start, reader.at);
                if entries.len() >= MAX_ENTRIES {
                    return Err(reader.unreadable());
                }
                let (section, subsection) = (section.clone(), subsection.clone());
                entries.push(Entry { section, subsection, key, value, span });
            }
            _ => return Err(reader.unreadable()),
        }
    }
    Ok(entries)
}

fn is_space(byte: u8) -> bool {
    // As git's isspace: no vertical tab, no form feed.
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte; CRLF is one line feed.
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at = self.at.saturating_add(1);
        if byte == b'\r' && self.peek() == Some(b'\n') {
            self.at = self.at.saturating_add(1);
            return Some(b'\n');
        }
        Some(byte)
    }

    fn unreadable(&self) -> Unreadable {
        Unreadable { at: self.at }
    }

    fn skip_line(&mut self) {
        while !matches!(self.next(), Some(b'\n') | None) {}
    }

    /// `[section]`, `[section.subsection]` or `[section "subsection"]`.
    fn header(&mut self) -> Result<(String, Option<Vec<u8>>), Unreadable> {
        self.next();
        let mut name = String::new();
        loop {
            match self.next() {
                Some(b']') => break,
                Some(byte) if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' => {
                    name.push(char::from(byte.to_ascii_lowercase()));
                }
                Some(byte) if byte != b'\n' && is_space(byte) => {
                    let subsection = self.quoted_subsection()?;
                    // `[a.b "c"]` has the subsection `b.c`; as git, which looks at the first dot of the whole name.
                    return Ok(match name.split_once('.') {
                        Some((section, rest)) => {
                            let mut whole = format!("{rest}.").into_bytes();
                            whole.extend_from_slice(&subsection);
                            (section.to_owned(), Some(whole))
                        }
                        None => (name, Some(subsection)),
                    });
                }
                Some(_) | None => return Err(self.unreadable()),
            }
        }
        Ok(match name.split_once('.') {
            Some((section, rest)) => (section.to_owned(), Some(rest.as_bytes().to_vec())),
            None => (name, None),
        })
    }

    fn quoted_subsection(&mut self) -> Result<Vec<u8>, Unreadable> {
        loop {
            match self.next() {
                Some(b'"') => break,
                Some(byte) if byte != b'\n' && is_space(byte) => {}
                Some(_) | None => return Err(self.unreadable()),
            }
        }
        let mut name = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => break,
                Some(b'\\') => match self.next() {
                    Some(b'\n') | None => return Err(self.unreadable()),
                    Some(byte) => name.push(byte),
                },
                Some(b'\n') | None => return Err(self.unreadable()),
                Some(byte) => name.push(byte),
            }
        }
        if self.next() == Some(b']') { Ok(name) } else { Err(self.unreadable()) }
    }

    /// `key`, or `key = value` with its continuation lines; stops before the line feed that ends it.
    fn entry(&mut self) -> Result<(String, Option<Vec<u8>>), Unreadable> {
        let mut key = String::new();
        while let Some(byte) = self.peek().filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
            key.push(char::from(byte.to_ascii_lowercase()));
            self.at = self.at.saturating_add(1);
        }
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at = self.at.saturating_add(1);
        }
        match self.peek() {
            None | Some(b'\n') => return Ok((key, None)),
            Some(b'\r') if self.bytes.get(self.at.saturating_add(1)) == Some(&b'\n') => {
                return Ok((key, None));
            }
            Some(b'=') => self.at = self.at.saturating_add(1),
            Some(_) => return Err(self.unreadable()),
        }
        let (start, mut end) = (self.at, usize::MAX);
        let (mut quoted, mut comment) = (false, false);
        loop {
            let before = self.at;
            match self.next() {
                None if quoted => return Err(self.unreadable()),
                None => break,
                Some(b'\n') if quoted => return Err(self.unreadable()),
                Some(b'\n') => {
                    self.at = before;
                    break;
                }
                Some(_) if comment => {}
                Some(b'#' | b';') if !quoted => comment = true,
                Some(b'"') => quoted = !quoted,
                Some(b'\\') => match self.next() {
                    Some(b'\n' | b't' | b'b' | b'n' | b'\\' | b'"') => {}
                    // The line would go on, but the file ends: to git it stands for nothing.
                    None => end = before,
                    Some(_) => return Err(self.unreadable()),
                },
                Some(_) => {}
            }
        }
        let mut value = self.bytes.get(start..self.at.min(end)).unwrap_or_default();
        // So does half a line end; with a line feed behind it, it would not be read again.
        while let (None, Some(shorter)) = (self.peek(), value.strip_suffix(b"\r")) {
            value = shorter;
        }
        Ok((key, Some(value.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(file: &str) -> Vec<String> {
        dangerous(file.as_bytes()).unwrap().iter().map(Entry::name).collect()
    }

    #[test]
    fn dangerous_keys_are_found_however_they_are_written() {
        for (file, expected) in [
            ("[core]\n\tfsmonitor = ./x\n", "core.fsmonitor"),
            ("[CORE] FsMonitor=./x", "core.fsmonitor"),
            ("[core]\r\n\thooksPath = x\r\n", "core.hookspath"),
            ("\u{feff}[core]sshCommand = x", "core.sshcommand"),
            ("[filter \"a b\"]\nclean = x", "filter.a b.clean"),
            ("[filter.a]\nclean = x", "filter.a.clean"),
            ("[filter \"q\\\"]\\\\\"]\nclean = x", "filter.q\"]\\.clean"),
            ("[alias]\nx = !sh", "alias.x"),
            ("[alias]\nx = rebase --exec sh", "alias.x"),
            ("[lfs \"customtransfer.x\"]\npath = x", "lfs.customtransfer.x.path"),
            ("[gc]\nrecentObjectsHook = x", "gc.recentobjectshook"),
            ("[alias]\nx = \\\n  \"!sh\"", "alias.x"),
            ("[user] name = a\\\n[core]\\\n b\n[core] pager = x", "core.pager"),
            ("[user] name = a # comment \\\n[core] pager = x", "core.pager"),
            ("[includeIf \"gitdir:~/\"] path = x", "includeif.gitdir:~/.path"),
            ("[credential \"https://x\"]\nhelper = !x", "credential.https://x.helper"),
            ("[core]\nfsmonitor", "core.fsmonitor"),
            ("[diff \"img\"]\ntextconv = x", "diff.img.textconv"),
            ("[core]\nvirtualFilesystem = x", "core.virtualfilesystem"),
            ("[url \"ext::sh -c x \"]\ninsteadOf = https://", "url.ext::sh -c x .insteadof"),
            ("[url \"evil.example\"]\npushInsteadOf = github.com", "url.evil.example.pushinsteadof"),
            ("[remote \"origin\"]\nurl = ext::sh -c x", "remote.origin.url"),
            ("[remote \"origin\"]\nurl = \"e\"xt::sh", "remote.origin.url"),
            ("[remote \"origin\"]\nurl = e\\\nxt::sh", "remote.origin.url"),
            ("[remote \"origin\"]\npushUrl = ../bare", "remote.origin.pushurl"),
            ("[remote \"origin\"]\npushUrl = bare", "remote.origin.pushurl"),
            ("[remote \"origin\"]\npushUrl = ./a:b", "remote.origin.pushurl"),
            ("[remote \"origin\"]\npushUrl = FILE:///w/bare", "remote.origin.pushurl"),
            ("[remote \"origin\"]\nannex-ssh-options = x", "remote.origin.annex-ssh-options"),
            ("[remote]\npushDefault = sub/bare", "remote.pushdefault"),
            ("[branch \"main\"]\nremote = ext::sh", "branch.main.remote"),
            ("[branch \"main\"]\npushRemote = /w/bare", "branch.main.pushremote"),
            ("[remote \"origin\"]\nurl = e\\\r\nxt::sh", "remote.origin.url"),
            ("[submodule \"s\"]\nurl = ext::sh", "submodule.s.url"),
            ("[submodule \"s\"]\nupdate = !sh", "submodule.s.update"),
            ("[http \"https://github.com\"]\nproxy = x", "http.https://github.com.proxy"),
            ("[http]\ncookieFile = /home/u/.bashrc", "http.cookiefile"),
            ("[annex]\nsecure-erase-command = x", "annex.secure-erase-command"),
        ] {
            assert_eq!(names(file), [expected], "{file:?}");
        }
    }

    #[test]
    fn harmless_keys_are_not() {
        let file = "[core]\n\tbare = false\n[user]\n\tname = \"# [core] fsmonitor = x\"\n\
            # [core] pager = x\n; fsmonitor = y\n[remote \"origin\"]\n\turl = git@host:x\n\tfetch = +refs/*\n\
            [remote \"two\"]\n\turl = https://host.example/a::b\n\tpushurl = \"ssh://git@host:22/a\" # x/y\n\
            [remote \"three\"]\n\turl = host:a/b\n\turl =\n[branch \"main\"]\n\tremote = .\n\tmerge = refs/heads/main\n\
            [branch \"x\"]\n\tpushRemote = origin\n[remote]\n\tpushDefault = origin\n\
            [submodule \"s\"]\n\turl = /w/lib\n\tupdate = rebase\n";
        assert_eq!(names(file), Vec::<String>::new());
    }

    /// Git lists the keys it documents. One whose name sounds as if it ran, wrote or sent something is on our list or on
    /// this one; a newer git that brings another fails here.
    #[test]
    fn no_key_that_git_documents_and_that_sounds_dangerous_is_missing() {
        const SOUNDS: [&str; 31] = [
            "command",
            "cmd",
            "program",
            "prog",
            "helper",
            "editor",
            "pager",
            "hook",
            "tool",
            "exec",
            "proxy",
            "driver",
            "filter",
            "browser",
            "path",
            "file",
            "dir",
            "url",
            "remote",
            "insteadof",
            "script",
            "shell",
            "vcs",
            "pack",
            "include",
            "template",
            "ssl",
            "cookie",
            "askpass",
            "monitor",
            "external",
        ];
        // Chooses among what is set elsewhere, names what is only read, or is a number or a switch.
        const HARMLESS: &str = include_str!("gitconfig_harmless.txt");
        let output = std::process::Command::new("git").args(["help", "--config"]).output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        let harmless: Vec<&str> = HARMLESS.lines().collect();
        let mut tried = 0;
        let missing: Vec<&str> = listed
            .lines()
            .filter(|name| name.contains('.') && !name.contains(' '))
            .filter(|name| SOUNDS.iter().any(|sound| name.to_ascii_lowercase().contains(sound)))
            .inspect(|_| tried += 1)
            .filter(|name| {
                !harmless.contains(name) && !name.starts_with("advice.") && !name.starts_with("color.")
            })
            .filter(|name| {
                let (section, rest) = name.split_once('.').unwrap();
                let (subsection, key) = match rest.rsplit_once('.') {
                    Some((subsection, key)) => (format!(" \"{subsection}\""), key),
                    None => (String::new(), rest),
                };
                let key = key.replace(['*', '<', '>'], "x");
                let file = format!("[{section}{subsection}]\n{key} = !ext::x\n");
                // What cannot be read counts as changed.
                dangerous(file.as_bytes()).is_ok_and(|found| found.is_empty())
            })
            .collect();
        assert!(tried > 100, "{listed}");
        assert!(missing.is_empty(), "{missing:#?}");
    }

    #[test]
    fn what_git_would_not_read_is_an_error() {
        for file in [
            "[core",
            "[core]\n= x",
            "[co re]\nx",
            "[a \"b\nc\"]",
            "[a]\nk = \"open",
            "[a]\nk v",
            "k = \\q",
            "[a]\n\0",
        ] {
            assert!(parse(file.as_bytes()).is_err(), "{file:?}");
        }
        assert!(parse(&vec![b'\n'; MAX_FILE + 1]).is_err());
        assert!(parse("[a]\n".repeat(10).as_bytes()).is_ok());
        assert!(parse(format!("[a]\n{}", "k\n".repeat(MAX_ENTRIES + 1)).as_bytes()).is_err());
    }

    #[test]
    fn only_dangerous_keys_are_put_back() {
        let before = "[core]\n\tbare = false\n\tpager = less\n[filter \"l\"]\n\tclean = git lfs\n";
        let after =
            "[core]\n\tbare = true\n\tpager = evil\n\tfsmonitor = evil\n[user] name = me\n[alias] a = !e";
        let wanted = dangerous(before.as_bytes()).unwrap();
        let found = dangerous(after.as_bytes()).unwrap();
        assert!(!same(&wanted, &found));
        let file = put_back(after.as_bytes(), &found, &wanted);
        assert!(same(&wanted, &dangerous(&file).unwrap()), "{}", String::from_utf8_lossy(&file));
        let text = String::from_utf8(file).unwrap();
        assert!(
            text.contains("bare = true")
                && text.contains("name = me")
                && !text.contains('e'.to_string().repeat(9).as_str())
        );
        assert!(!text.contains("evil") && !text.contains("!e"), "{text}");
        let names: Vec<String> = changed(&wanted, &found).into_iter().map(Entry::name).collect();
        assert_eq!(names, ["core.pager", "core.fsmonitor", "alias.a", "core.pager", "filter.l.clean"]);
    }

    #[test]
    fn order_counts_because_the_last_one_wins() {
        let before = dangerous(b"[core]\npager = a\npager = b\n").unwrap();
        let after = dangerous(b"[core]\npager = b\npager = a\n").unwrap();
        assert!(!same(&before, &after) && !changed(&before, &after).is_empty());
    }

    fn any_config() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("[core]"),
            Just("[filter \"x\"]"),
            Just("[a.b]"),
            Just("fsmonitor"),
            Just("pager = "),
            Just("clean=x"),
            Just("\n"),
            Just("\r\n"),
            Just("\r"),
            Just("\\\n"),
            Just("\""),
            Just("\\"),
            Just("#"),
            Just(" "),
            Just("="),
            Just("!"),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
    }

    #[test]
    fn what_is_put_back_is_not_swallowed_by_a_line_that_goes_on() {
        let before = dangerous(b"[core]fsmonitor").unwrap();
        for after in [&b"pager = \\"[..], b"pager = \\\n", b"pager = \\\r\n", b"# x\\", b"pager = x"] {
            let file = put_back(after, &dangerous(after).unwrap_or_default(), &before);
            let read = dangerous(&file).unwrap();
            assert!(same(&before, &read), "{:?} {read:?}", String::from_utf8_lossy(&file));
        }
    }

    #[test]
    fn what_stood_at_the_end_of_a_file_without_a_line_end_reads_the_same_in_the_middle() {
        // As git lists them: `core.pager=`, and `core.pager=a` twice.
        for before in
            [&b"[core]pager = \\"[..], b"[core]pager = a\\", b"[core]pager = a\r", b"[core]pager = a # \\"]
        {
            let wanted = dangerous(before).unwrap();
            assert_eq!(wanted.len(), 1);
            for after in [&b"pager = \"\""[..], b"", b"[core]pager = x", b"[user]name = y\\"] {
                let found = dangerous(after).unwrap();
                let file = put_back(after, &found, &wanted);
                let read = dangerous(&file).unwrap();
                assert!(same(&wanted, &read), "{before:?} {:?} {read:?}", String::from_utf8_lossy(&file));
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_put_back_reads_as_it_was(before in any_config(), after in any_config()) {
            if let (Ok(wanted), Ok(found)) = (dangerous(&before), dangerous(&after)) {
                let file = put_back(&after, &found, &wanted);
                let read = dangerous(&file);
                prop_assert!(read.as_ref().is_ok_and(|read| same(&wanted, read)), "{:?} {:?}", read, String::from_utf8_lossy(&file));
                let again = put_back(&file, &read.unwrap_or_default(), &wanted);
                prop_assert!(dangerous(&again).is_ok_and(|read| same(&wanted, &read)));
            }
        }
    }
}
