//! What commands do that matters to what runs next: shells and wrappers run other commands, builtins change the state,
//! a few filters have an output that can be known.

use super::options::{Wrapper, positionals};
use super::streams;
use super::value::{is_known, is_pattern, is_unknown};
use super::walk::{Event, Simple, Stream, Walker};

/// Programs that fetch from the network.
pub(super) fn is_fetcher(program: &str) -> bool {
    matches!(
        program,
        "curl"
            | "wget"
            | "fetch"
            | "aria2c"
            | "lwp-request"
            | "GET"
            | "lynx"
            | "http"
            | "https"
            | "xh"
            | "ftp"
            | "tftp"
            | "nc"
            | "ncat"
            | "netcat"
            | "socat"
    )
}

/// Shells, also those that only look like bash.
pub(super) fn is_shell(program: &str) -> bool {
    matches!(
        program,
        "bash" | "sh" | "dash" | "zsh" | "ksh" | "mksh" | "ash" | "rbash" | "fish" | "csh" | "tcsh"
    )
}

/// Programs a pattern in place of a program name is compared with.
const GUESSED: [&str; 24] = [
    "rm",
    "bash",
    "sh",
    "dd",
    "cat",
    "nc",
    "curl",
    "wget",
    "python3",
    "python",
    "perl",
    "ruby",
    "chmod",
    "chown",
    "mv",
    "shred",
    "tee",
    "reboot",
    "shutdown",
    "halt",
    "poweroff",
    "kill",
    "mkfs.ext4",
    "ncat",
];

/// The program's name without its directory. A pattern is taken for the first well-known program it fits.
fn program_of(word: &str) -> String {
    let name = word.rsplit('/').next().unwrap_or(word);
    if name.chars().any(is_pattern) && !name.chars().any(is_unknown) {
        let pattern = super::pattern::Pattern::of_value(name);
        if let Some(guess) = GUESSED.iter().find(|program| pattern.fits(program)) {
            return (*guess).to_owned();
        }
    }
    name.to_owned()
}

impl Walker<'_> {
    /// One command with its words as they will be.
    pub(super) fn run(&mut self, mut call: Simple) -> Stream {
        if !self.step() {
            return Stream::default();
        }
        let Some(first) = call.words.first().cloned() else { return Stream::default() };
        call.program = program_of(&first);
        call.cwd = self.state.cwd.clone();
        let unknown = first.chars().next().is_some_and(is_unknown) && !first.contains('/');
        if unknown {
            call.events.push(Event::Runtime);
            if call.fed.iter().any(|program| is_fetcher(program)) {
                call.events.push(Event::RunsOutput);
            }
        }
        if self.is_download(&first) {
            call.events.push(Event::RunsDownload);
        }
        let index = self.found.len();
        self.found.push(call.clone());
        let output = self.deeper(|walker| walker.effect(call, index));
        let program = self.found.get(index).map(|simple| simple.program.clone()).unwrap_or_default();
        let mut sources = output.sources;
        if !program.is_empty() {
            sources.push(program);
        }
        Stream { text: output.text, sources }
    }

    pub(super) fn is_download(&self, word: &str) -> bool {
        let bare = |path: &str| path.trim_start_matches("./").to_owned();
        !self.state.downloaded.is_empty()
            && self.state.downloaded.iter().any(|path| bare(path) == bare(word) && !word.is_empty())
    }

    /// Adds to what was noted of the command at `index`.
    pub(super) fn note(&mut self, index: usize, event: Event) {
        if let Some(simple) = self.found.get_mut(index) {
            simple.events.push(event);
        }
    }

    fn effect(&mut self, call: Simple, index: usize) -> Stream {
        let arguments = call.words.get(1..).unwrap_or_default().to_vec();
        let program = call.program.as_str();
        let silent = Stream { text: Some(String::new()), sources: Vec::new() };
        if let Some(body) = self.state.functions.get(program).cloned() {
            return self.follow_function(program, &body, Some(arguments), &call.stdin);
        }
        if is_shell(program) {
            return self.shell(&call, &arguments, index);
        }
        if let Some(wrapper) = Wrapper::of(program) {
            return self.wrapped(&call, &arguments, &wrapper, index);
        }
        match program {
            "eval" => {
                let text = arguments.join(" ");
                if text.chars().next().is_some_and(is_unknown) {
                    self.note(index, Event::RunsOutput);
                }
                self.text(&text, &call.stdin)
            }
            "source" | "." => {
                self.run_file(arguments.first(), index, &call);
                Stream::default()
            }
            "trap" | "alias" => {
                for argument in &arguments {
                    let text = match (program, argument.split_once('=')) {
                        ("alias", Some((_, text))) => text,
                        ("alias", None) => continue,
                        _ => argument,
                    };
                    if !text.starts_with('-') {
                        self.text(text, &Stream::default());
                    }
                    if program == "trap" {
                        break;
                    }
                }
                silent
            }
            "cd" | "pushd" => {
                self.change_directory(&arguments);
                silent
            }
            "popd" => {
                self.state.cwd = self.unknown("$OLDPWD");
                silent
            }
            "export" | "declare" | "local" | "readonly" | "typeset" => {
                for argument in &arguments {
                    if let Some((name, value)) = argument.split_once('=') {
                        self.state.set(name.trim_end_matches('+'), Some(value.to_owned()));
                        if let Some(simple) = self.found.get_mut(index) {
                            simple.assigned.push((name.to_owned(), value.to_owned()));
                        }
                    }
                }
                silent
            }
            "unset" => {
                for argument in &arguments {
                    self.state.set(argument, None);
                }
                silent
            }
            "read" | "mapfile" | "readarray" | "getopts" => {
                self.read_into(program, &arguments, call.stdin.text.as_deref());
                silent
            }
            "set" => {
                if let Some(at) = arguments.iter().position(|argument| argument == "--") {
                    self.state.positional = Some(arguments.iter().skip(at + 1).cloned().collect());
                }
                silent
            }
            "shift" => {
                if let Some(values) = &mut self.state.positional
                    && !values.is_empty()
                {
                    values.remove(0);
                }
                silent
            }
            "curl" | "wget" | "aria2c" => {
                self.fetched(program, &arguments);
                Stream { text: None, sources: call.stdin.sources }
            }
            "mv" | "cp" | "ln" | "install" => {
                if let [from, to] = arguments
                    .iter()
                    .filter(|argument| !argument.starts_with('-'))
                    .collect::<Vec<_>>()
                    .as_slice()
                    && self.is_download(from)
                {
                    self.state.downloaded.insert((*to).clone());
                }
                silent
            }
            "pwd" => Stream { text: Some(format!("{}\n", self.state.cwd)), sources: Vec::new() },
            "tee" => {
                for file in arguments.iter().filter(|argument| !argument.starts_with('-')) {
                    self.state.wrote(file, call.stdin.text.as_deref(), false);
                    if call.stdin.sources.iter().any(|source| is_fetcher(source)) {
                        self.state.downloaded.insert(file.clone());
                    }
                }
                call.stdin
            }
            _ => {
                if let Some(output) = self.foreign(&call, &arguments, index) {
                    return output;
                }
                if let Some(output) = self.runs_others(&call, &arguments, index) {
                    return output;
                }
                let text = streams::output(program, &arguments, call.stdin.text.as_deref(), &self.state);
                Stream { text, sources: call.stdin.sources }
            }
        }
    }

    /// `read`: one line into one variable, or its words into several. What the others take is known only at run time.
    fn read_into(&mut self, program: &str, arguments: &[String], text: Option<&str>) {
        let names = positionals(arguments, &["-d", "-n", "-N", "-t", "-p", "-u", "-i"]);
        let line = text.filter(|_| program == "read").and_then(|text| text.split(['\n', '\0']).next());
        let mut rest = line.map(str::trim);
        for (index, name) in names.iter().enumerate() {
            let last = index + 1 == names.len();
            let value = match rest {
                Some(words) if !last => {
                    let (word, others) = words.split_once([' ', '\t']).unwrap_or((words, ""));
                    rest = Some(others.trim_start());
                    Some(word.to_owned())
                }
                Some(words) => Some(words.to_owned()),
                None => None,
            };
            self.state.set(name, value);
        }
    }

    fn change_directory(&mut self, arguments: &[String]) {
        let to = arguments.iter().find(|argument| !argument.starts_with('-') || argument.as_str() == "-");
        self.state.cwd = match to.map(String::as_str) {
            None => super::value::HOME.to_string(),
            Some("-") => self.unknown("$OLDPWD"),
            Some(to) => match super::path::normal(to, &self.state.cwd) {
                Some(normal) => rebased(&normal),
                None => self.unknown("$PWD"),
            },
        };
    }

    /// `bash`, `sh` and others: `-c text`, a file, or standard input.
    fn shell(&mut self, call: &Simple, arguments: &[String], index: usize) -> Stream {
        let mut rest = arguments.iter();
        let mut command = false;
        let mut from_stdin = false;
        let mut operand = None;
        while let Some(argument) = rest.next() {
            if argument == "--" || argument == "-" {
                operand = rest.next();
                break;
            }
            if let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.starts_with('-')) {
                command |= letters.contains('c');
                from_stdin |= letters.contains('s');
                if letters.ends_with(['o', 'O']) {
                    rest.next();
                }
            } else if argument.starts_with("--") || argument.starts_with('+') {
                if matches!(argument.as_str(), "--rcfile" | "--init-file") {
                    rest.next();
                }
            } else {
                operand = Some(argument);
                break;
            }
        }
        let rest: Vec<String> = rest.cloned().collect();
        match (command, operand) {
            (true, Some(text)) => {
                if text.trim_start().chars().next().is_some_and(is_unknown) {
                    self.note(index, Event::RunsOutput);
                }
                if let Some(zero) = rest.first() {
                    self.state.set("0", Some(zero.clone()));
                }
                let arguments = rest.into_iter().skip(1).collect();
                self.script_text(text, Some(arguments), &call.stdin)
            }
            (true, None) => Stream::default(),
            (false, Some(file)) if !from_stdin => {
                self.run_file_with(Some(file), index, call, rest);
                Stream::default()
            }
            (false, _) => {
                self.note(index, Event::RunsInput);
                match &call.stdin.text {
                    Some(text) => {
                        let text = text.clone();
                        if text.trim_start().chars().next().is_some_and(is_unknown) {
                            self.note(index, Event::RunsOutput);
                        }
                        self.script_text(&text, Some(rest), &Stream::default())
                    }
                    None => Stream::default(),
                }
            }
        }
    }

    fn script_text(&mut self, text: &str, arguments: Option<Vec<String>>, stdin: &Stream) -> Stream {
        let before = std::mem::replace(&mut self.state.positional, arguments);
        let cwd = self.state.cwd.clone();
        let output = self.text(text, stdin);
        self.state.positional = before;
        self.state.cwd = cwd;
        output
    }

    fn run_file(&mut self, file: Option<&String>, index: usize, call: &Simple) {
        self.run_file_with(file, index, call, Vec::new());
    }

    /// A file is run. What it holds is known if this script wrote it.
    pub(super) fn run_file_with(
        &mut self,
        file: Option<&String>,
        index: usize,
        call: &Simple,
        arguments: Vec<String>,
    ) {
        let Some(file) = file else { return };
        if self.is_download(file) {
            self.note(index, Event::RunsDownload);
        }
        if file.chars().next().is_some_and(is_unknown) && !file.contains('/') {
            self.note(index, Event::RunsOutput);
        }
        if matches!(file.as_str(), "/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0") {
            self.note(index, Event::RunsInput);
            if let Some(text) = call.stdin.text.clone() {
                if text.trim_start().chars().next().is_some_and(is_unknown) {
                    self.note(index, Event::RunsOutput);
                }
                self.script_text(&text, Some(arguments), &Stream::default());
            }
            return;
        }
        if let Some(text) = self.state.files.get(file).cloned() {
            self.script_text(&text, Some(arguments), &Stream::default());
        }
    }

    fn fetched(&mut self, program: &str, arguments: &[String]) {
        let mut rest = arguments.iter().peekable();
        let mut urls = Vec::new();
        let mut named = false;
        let mut by_url = program != "curl";
        while let Some(argument) = rest.next() {
            let short = argument.strip_prefix('-').filter(|letters| !letters.starts_with('-'));
            let output = match (program, argument.as_str()) {
                ("curl", "-o" | "--output")
                | ("wget", "-O" | "--output-document")
                | ("aria2c", "-o" | "--out") => rest.next().cloned(),
                ("curl", _) if short.is_some_and(|letters| letters.ends_with('o')) => rest.next().cloned(),
                ("wget", _) if short.is_some_and(|letters| letters.ends_with('O')) => rest.next().cloned(),
                (_, long) => ["--output=", "--output-document=", "--out="]
                    .iter()
                    .find_map(|prefix| long.strip_prefix(prefix))
                    .map(str::to_owned),
            };
            if let Some(output) = output {
                named = true;
                if output != "-" && output != "/dev/null" {
                    self.state.downloaded.insert(output);
                }
            } else if program == "curl" && short.is_some_and(|letters| letters.contains('O'))
                || argument == "--remote-name"
            {
                by_url = true;
            } else if !argument.starts_with('-') {
                urls.push(argument.clone());
            }
        }
        if by_url && !named {
            for url in urls {
                let name = url.split(['?', '#']).next().unwrap_or_default().rsplit('/').next();
                if let Some(name) = name.filter(|name| !name.is_empty() && is_known(name)) {
                    self.state.downloaded.insert(name.to_owned());
                }
            }
        }
    }
}

/// A normal form as a value again.
fn rebased(normal: &str) -> String {
    match normal.split_at_checked(1) {
        Some(("~", rest)) => format!("{}{rest}", super::value::HOME),
        Some((".", rest)) if !rest.starts_with('.') => format!("{}{rest}", super::value::WORK),
        Some((".", _)) => format!("{}/{normal}", super::value::WORK),
        Some(_) | None => normal.to_owned(),
    }
}
