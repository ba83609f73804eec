//! Walks the tree of a script and notes each simple command with its words as they will be, and what the command
//! reads. Every branch is taken: what may run is judged, whatever a condition will say.

use std::rc::Rc;

use super::read::{self, Fault};
use super::state::State;
use super::tree::{Assignment, Command, Item, Kind, Part, Pipeline, Redirect, RedirectKind, Script, Word};
use super::value::{Names, as_script, is_known, is_pattern};

/// Commands that are followed. Bounds loops over lists, functions that call functions, and texts made of texts.
const MAX_STEPS: usize = 4000;
/// Texts inside texts: `bash -c "bash -c …"`.
const MAX_TEXTS: u16 = 24;
/// Commands inside commands: `sudo env sudo …`, functions, groups, texts. Each level costs some KiB of stack.
const MAX_NESTED: u16 = 60;
/// Values of a loop that are followed one by one.
const MAX_ROUNDS: usize = 16;

/// What flows into a command.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Stream {
    /// The bytes, if they are known.
    pub(super) text: Option<String>,
    /// Programs they came through.
    pub(super) sources: Vec<String>,
}

/// Something about a command that its words do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// It executes what it reads on standard input.
    RunsInput,
    /// It executes the output of a substitution.
    RunsOutput,
    /// It executes a file that the same script fetched.
    RunsDownload,
    /// A function or script that multiplies itself.
    ForkBomb,
    /// A loop without an end that starts processes in the background.
    EndlessSpawn,
    /// It empties every file that a pattern fits.
    EmptiesMany,
    /// Which program it is will be known only at run time.
    Runtime,
}

/// A redirection with its target expanded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Redirected {
    pub(super) kind: RedirectKind,
    pub(super) descriptor: Option<u32>,
    pub(super) target: String,
}

/// One simple command as it is judged.
#[derive(Debug, Clone, Default)]
pub(super) struct Simple {
    /// Without its directory; empty for a bare redirection or assignment.
    pub(super) program: String,
    pub(super) words: Vec<String>,
    pub(super) assigned: Vec<(String, String)>,
    pub(super) redirects: Vec<Redirected>,
    pub(super) cwd: String,
    pub(super) stdin: Stream,
    /// Programs whose output became part of its words.
    pub(super) fed: Vec<String>,
    /// Commands that run it: `sudo`, `xargs`, `ssh`.
    pub(super) via: Vec<String>,
    /// Program text in another language.
    pub(super) code: Option<String>,
    pub(super) events: Vec<Event>,
}

/// Follows a script.
#[derive(Debug)]
pub(super) struct Walker<'a> {
    pub(super) state: State,
    pub(super) names: Names,
    pub(super) found: Vec<Simple>,
    /// The first thing that could not be read.
    pub(super) fault: Option<Fault>,
    /// Programs that ran in substitutions of the command being expanded.
    fed: Vec<String>,
    steps: usize,
    nested: u16,
    pub(super) texts: u16,
    /// Functions being followed; one that calls itself is not followed again.
    calling: Vec<String>,
    pub(super) languages: &'a super::foreign::Languages,
}

impl<'a> Walker<'a> {
    pub(super) fn new(languages: &'a super::foreign::Languages) -> Self {
        Self {
            state: State::new(),
            names: Names::default(),
            found: Vec::new(),
            fault: None,
            fed: Vec::new(),
            steps: 0,
            nested: 0,
            texts: 0,
            calling: Vec::new(),
            languages,
        }
    }

    /// Reads and follows a text that is run as a script.
    pub(super) fn text(&mut self, value: &str, stdin: &Stream) -> Stream {
        if self.texts >= MAX_TEXTS {
            self.fault = self.fault.or(Some(Fault::TooDeep));
            return Stream::default();
        }
        let (script, fault) = if is_known(value) {
            read::script(&as_script(value), 0)
        } else {
            let (script, fault) = read::script(&as_script(value), 0);
            // What is not known yet may be what makes it whole.
            (script, fault.filter(|fault| *fault == Fault::TooDeep))
        };
        self.fault = self.fault.or(fault);
        self.texts += 1;
        let stream = self.script(&script, stdin);
        self.texts -= 1;
        stream
    }

    pub(super) fn step(&mut self) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            self.fault = self.fault.or(Some(Fault::TooMuch));
        }
        self.steps <= MAX_STEPS
    }

    /// A value that is known only at run time.
    pub(super) fn unknown(&mut self, shown: &str) -> String {
        self.names.unknown(shown.to_owned()).to_string()
    }

    /// Follows a script. Its output is known when that of every command in it is.
    pub(super) fn script(&mut self, script: &Script, stdin: &Stream) -> Stream {
        let mut text = Some(String::new());
        let mut sources = Vec::new();
        for item in &script.items {
            for pipeline in &item.pipelines {
                let output = self.pipeline(pipeline, stdin, item.background);
                text = text.zip(output.text).map(|(all, more)| all + &more);
                sources.extend(output.sources);
            }
        }
        sources.dedup();
        Stream { text: text.filter(|text| text.len() <= super::expand::MAX_VALUE), sources }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, stdin: &Stream, background: bool) -> Stream {
        let own = pipeline.stages.iter().filter(|stage| starts_itself(stage)).count();
        if own > 1 || (own == 1 && background) {
            self.event(Event::ForkBomb);
        }
        let mut stream = stdin.clone();
        for stage in &pipeline.stages {
            stream = self.command(stage, stream);
        }
        stream
    }

    /// Notes something that no single command says.
    fn event(&mut self, event: Event) {
        self.found.push(Simple { events: vec![event], cwd: self.state.cwd.clone(), ..Simple::default() });
    }

    /// Goes one level deeper, unless that is too deep.
    pub(super) fn deeper(&mut self, follow: impl FnOnce(&mut Self) -> Stream) -> Stream {
        if self.nested >= MAX_NESTED {
            self.fault = self.fault.or(Some(Fault::TooDeep));
            return Stream::default();
        }
        self.nested += 1;
        let stream = follow(self);
        self.nested -= 1;
        stream
    }

    fn command(&mut self, command: &Command, stdin: Stream) -> Stream {
        if self.step() { self.deeper(|walker| walker.one_command(command, stdin)) } else { Stream::default() }
    }

    fn one_command(&mut self, command: &Command, stdin: Stream) -> Stream {
        let Command { kind, redirects } = command;
        if let Kind::Simple { assignments, words } = kind {
            return self.simple(assignments, words, redirects, stdin);
        }
        let (redirected, stdin) = self.redirected(redirects, stdin);
        let output = match kind {
            Kind::Simple { .. } => Stream::default(),
            Kind::Group(script) => self.script(script, &stdin),
            Kind::Subshell(script) => {
                let cwd = self.state.cwd.clone();
                let output = self.script(script, &stdin);
                self.state.cwd = cwd;
                output
            }
            Kind::If(branches) => {
                let mut sources = Vec::new();
                for branch in branches {
                    sources.extend(self.script(branch, &stdin).sources);
                }
                Stream { text: None, sources }
            }
            Kind::Loop { condition, body } => {
                if always_true(condition) && spawns(body) {
                    self.event(Event::EndlessSpawn);
                }
                self.repeated(condition, body, stdin)
            }
            Kind::For { name, words, body } => self.listed(name, words.as_deref(), body, &stdin),
            Kind::Counted { header, body } => {
                let _ = self.single(header);
                if super::words::unquoted(header)
                    .is_some_and(|text| text.chars().all(|l| l == ';' || l == ' '))
                    && spawns(body)
                {
                    self.event(Event::EndlessSpawn);
                }
                Stream { text: None, sources: self.script(body, &stdin).sources }
            }
            Kind::Case { word, arms } => {
                let _ = self.single(word);
                let mut sources = Vec::new();
                for (patterns, body) in arms {
                    for pattern in patterns {
                        let _ = self.single(pattern);
                    }
                    sources.extend(self.script(body, &stdin).sources);
                }
                Stream { text: None, sources }
            }
            Kind::Function { name, body } => {
                self.define(name, body);
                Stream { text: Some(String::new()), sources: Vec::new() }
            }
            Kind::Arithmetic(text) => {
                let _ = self.single(text);
                Stream { text: Some(String::new()), sources: Vec::new() }
            }
            Kind::Test(words) => {
                for word in words {
                    let _ = self.single(word);
                }
                Stream { text: Some(String::new()), sources: Vec::new() }
            }
        };
        self.keep_output(&redirected, &output);
        if !redirected.is_empty() {
            self.found.push(Simple {
                redirects: redirected,
                cwd: self.state.cwd.clone(),
                stdin: output.clone(),
                ..Simple::default()
            });
        }
        output
    }

    /// A loop with a condition. One that reads what is known is followed line by line; everything else once, with what
    /// it reads known only at run time.
    fn repeated(&mut self, condition: &Script, body: &Script, stdin: Stream) -> Stream {
        let Stream { text, sources } = stdin;
        let reads = first_words(condition).any(|word| word == "read");
        if let Some(text) = text.filter(|_| reads) {
            for line in text.split(['\n', '\0']).filter(|line| !line.is_empty()).take(MAX_ROUNDS) {
                let line = Stream { text: Some(line.to_owned()), sources: sources.clone() };
                self.script(condition, &line);
                self.script(body, &Stream { text: None, sources: sources.clone() });
            }
        }
        self.script(condition, &Stream { text: None, sources: sources.clone() });
        let output = self.script(body, &Stream { text: None, sources });
        Stream { text: None, sources: output.sources }
    }

    fn listed(&mut self, name: &str, words: Option<&[Word]>, body: &Script, stdin: &Stream) -> Stream {
        let values = match words {
            Some(words) => Some(self.all_fields(words)),
            None => self.state.positional.clone(),
        };
        let mut sources = Vec::new();
        match values {
            Some(values) if values.len() <= MAX_ROUNDS => {
                for value in values {
                    self.state.set(name, Some(value));
                    sources = self.script(body, stdin).sources;
                }
            }
            Some(values) => {
                // Each value by itself would take too long: the first few, then any.
                for value in values.into_iter().take(4) {
                    self.state.set(name, Some(value));
                    self.script(body, stdin);
                }
                self.state.set(name, None);
                sources = self.script(body, stdin).sources;
            }
            None => {
                self.state.set(name, None);
                sources = self.script(body, stdin).sources;
            }
        }
        Stream { text: None, sources }
    }

    fn define(&mut self, name: &str, body: &Rc<Command>) {
        if multiplies(body, name) {
            self.event(Event::ForkBomb);
        }
        self.state.functions.insert(name.to_owned(), Rc::clone(body));
        self.follow_function(name, body, None, &Stream::default());
    }

    /// Follows a function's body with its arguments, unless it is being followed already.
    pub(super) fn follow_function(
        &mut self,
        name: &str,
        body: &Rc<Command>,
        arguments: Option<Vec<String>>,
        stdin: &Stream,
    ) -> Stream {
        if self.calling.len() > 16 || self.calling.iter().any(|calling| calling == name) {
            return Stream::default();
        }
        self.calling.push(name.to_owned());
        let (before, cwd) =
            (std::mem::replace(&mut self.state.positional, arguments), self.state.cwd.clone());
        let output = self.command(body, stdin.clone());
        self.state.positional = before;
        self.state.cwd = cwd;
        self.calling.pop();
        output
    }

    /// A substitution's output without the line ends at its end.
    pub(super) fn substitution(&mut self, script: &Script) -> String {
        let output = self.inside(script);
        match output.text {
            Some(text) => text.trim_end_matches('\n').to_owned(),
            None => {
                let shown = match self.found.last() {
                    Some(last) if !last.program.is_empty() => format!("$({} …)", last.program),
                    Some(_) | None => "$(…)".to_owned(),
                };
                self.unknown(&shown)
            }
        }
    }

    /// The name of a pipe.
    pub(super) fn process_substitution(&mut self, script: &Script) -> String {
        let _ = self.inside(script);
        self.unknown("<(…)")
    }

    fn inside(&mut self, script: &Script) -> Stream {
        let start = self.found.len();
        let outer = std::mem::take(&mut self.fed);
        let cwd = self.state.cwd.clone();
        let output = self.script(script, &Stream::default());
        self.state.cwd = cwd;
        self.fed = outer;
        let programs = self.found.iter().skip(start).map(|simple| simple.program.clone());
        self.fed.extend(programs.filter(|program| !program.is_empty()));
        output
    }

    fn simple(
        &mut self,
        assignments: &[Assignment],
        words: &[Word],
        redirects: &[Redirect],
        stdin: Stream,
    ) -> Stream {
        let outer = std::mem::take(&mut self.fed);
        let mut assigned = Vec::new();
        for Assignment { name, append, array, value } in assignments {
            if *array && words.is_empty() {
                let elements =
                    value.split(|part| *part == Part::Text { text: " ".to_owned(), quoted: false });
                let elements = elements.flat_map(|word| self.fields(&word.to_vec())).collect();
                self.state.set_array(name, elements, *append);
                assigned.push((name.clone(), self.single(value)));
                continue;
            }
            let value = self.single(value);
            let whole = if *append {
                self.state.get(name).map(|before| before + &value)
            } else {
                Some(value.clone())
            };
            if words.is_empty() {
                self.state.set(name, whole.filter(|_| !*array));
            }
            assigned.push((name.clone(), value));
        }
        let fields = self.all_fields(words);
        let (redirected, stdin) = self.redirected(redirects, stdin);
        let fed = std::mem::replace(&mut self.fed, outer);
        if fields.is_empty() {
            let empty = Stream { text: Some(String::new()), sources: Vec::new() };
            self.keep_output(&redirected, &empty);
            if !assigned.is_empty() || !redirected.is_empty() {
                self.found.push(Simple {
                    assigned,
                    redirects: redirected,
                    cwd: self.state.cwd.clone(),
                    fed,
                    ..Simple::default()
                });
            }
            return empty;
        }
        let kept = redirected.clone();
        let call = Simple { words: fields, assigned, redirects: redirected, stdin, fed, ..Simple::default() };
        let output = self.run(call);
        self.keep_output(&kept, &output);
        if kept.iter().any(|redirect| {
            matches!(redirect.kind, RedirectKind::Write | RedirectKind::Append)
                && redirect.descriptor.is_none_or(|descriptor| descriptor == 1)
        }) {
            return Stream { text: Some(String::new()), sources: output.sources };
        }
        output
    }

    /// Remembers what goes into a file, so that running the file is judged.
    fn keep_output(&mut self, redirected: &[Redirected], output: &Stream) {
        for redirect in redirected {
            let append = match redirect.kind {
                RedirectKind::Write => false,
                RedirectKind::Append => true,
                RedirectKind::Read
                | RedirectKind::Both
                | RedirectKind::Duplicate
                | RedirectKind::Here
                | RedirectKind::HereString => continue,
            };
            if redirect.descriptor.is_none_or(|descriptor| descriptor == 1) {
                // `for f in *; do > "$f"`: the value of a loop over a pattern is the pattern.
                if !append && output.text.as_deref() == Some("") && redirect.target.chars().any(is_pattern) {
                    self.event(Event::EmptiesMany);
                }
                self.state.wrote(&redirect.target, output.text.as_deref(), append);
                if output.sources.iter().any(|source| super::run::is_fetcher(source)) {
                    self.state.downloaded.insert(redirect.target.clone());
                }
            }
        }
    }

    fn redirected(&mut self, redirects: &[Redirect], mut stdin: Stream) -> (Vec<Redirected>, Stream) {
        let mut all = Vec::new();
        for Redirect { descriptor, kind, target, here } in redirects {
            match kind {
                RedirectKind::Here | RedirectKind::HereString => {
                    let body = here.as_ref().and_then(|cell| cell.get());
                    let (text, newline) = match body {
                        Some(body) => (self.single(&body.clone()), ""),
                        None => (self.single(target), "\n"),
                    };
                    stdin = Stream { text: Some(text + newline), sources: self.fed.clone() };
                }
                RedirectKind::Read | RedirectKind::Both => {
                    if let [Part::Process { script }] = target.as_slice() {
                        stdin = self.inside(script);
                        continue;
                    }
                    let target = self.target(target);
                    let text = self.state.files.get(&target).cloned();
                    stdin = Stream { text, sources: self.fed.clone() };
                    all.push(Redirected { kind: *kind, descriptor: *descriptor, target });
                }
                RedirectKind::Write | RedirectKind::Append => {
                    let target = self.target(target);
                    all.push(Redirected { kind: *kind, descriptor: *descriptor, target });
                }
                RedirectKind::Duplicate => {
                    let target = self.target(target);
                    all.push(Redirected { kind: *kind, descriptor: *descriptor, target });
                }
            }
        }
        (all, stdin)
    }
}

/// Whether the command is this very script again.
fn starts_itself(command: &Command) -> bool {
    let Kind::Simple { words, .. } = &command.kind else { return false };
    words.iter().take(2).any(|word| {
        word.iter()
            .any(|part| matches!(part, Part::Variable { name, .. } if name == "0" || name == "BASH_SOURCE"))
    }) && !matches!(
        words.first().and_then(super::words::literal).as_deref(),
        Some("dirname" | "basename" | "echo" | "grep" | "sed" | "cat" | "readlink" | "realpath" | "printf")
    )
}

/// Whether a function starts itself more than once, or beside itself.
fn multiplies(body: &Command, name: &str) -> bool {
    let mut nested: Vec<&Script> = Vec::new();
    match &body.kind {
        Kind::Group(script) | Kind::Subshell(script) => nested.push(script),
        Kind::If(branches) => nested.extend(branches),
        Kind::Loop { condition, body } => nested.extend([condition, body]),
        Kind::For { body, .. } | Kind::Counted { body, .. } => nested.push(body),
        Kind::Case { arms, .. } => nested.extend(arms.iter().map(|(_, script)| script)),
        Kind::Simple { .. } | Kind::Function { .. } | Kind::Arithmetic(_) | Kind::Test(_) => {}
    }
    let is_own = |command: &Command| first_word(command).is_some_and(|word| word == name);
    nested.iter().any(|script| {
        script.items.iter().any(|Item { pipelines, background }| {
            pipelines.iter().any(|pipeline| {
                let own = pipeline.stages.iter().filter(|stage| is_own(stage)).count();
                own > 1
                    || (own == 1 && *background)
                    || pipeline.stages.iter().any(|stage| multiplies(stage, name))
            })
        })
    })
}

fn first_words(script: &Script) -> impl Iterator<Item = String> {
    let pipelines = script.items.iter().flat_map(|item| &item.pipelines);
    pipelines.flat_map(|pipeline| &pipeline.stages).filter_map(first_word)
}

/// The program of a simple command, if it is written plainly.
fn first_word(command: &Command) -> Option<String> {
    let Kind::Simple { words, .. } = &command.kind else { return None };
    words.first().and_then(super::words::unquoted)
}

fn always_true(condition: &Script) -> bool {
    let [item] = condition.items.as_slice() else { return false };
    let [pipeline] = item.pipelines.as_slice() else { return false };
    let [stage] = pipeline.stages.as_slice() else { return false };
    if let Kind::Arithmetic(text) = &stage.kind {
        return super::words::unquoted(text).is_some_and(|text| text.trim() == "1");
    }
    let Kind::Simple { words, .. } = &stage.kind else { return false };
    let words: Vec<String> = words.iter().filter_map(super::words::unquoted).collect();
    matches!(
        words.iter().map(String::as_str).collect::<Vec<_>>().as_slice(),
        ["true" | ":"] | ["[" | "test", "1", "]"] | ["test", "1"]
    )
}

/// Whether each round leaves a process behind and nothing slows it down.
fn spawns(body: &Script) -> bool {
    let waits = |pipelines: &[Pipeline]| {
        let stages = pipelines.iter().flat_map(|pipeline| &pipeline.stages);
        stages.filter_map(first_word).any(|word| matches!(word.as_str(), "sleep" | "wait" | "read" | "break"))
    };
    body.items.iter().any(|item| item.background)
        && !body.items.iter().any(|item| !item.background && waits(&item.pipelines))
}
