//! Programs that run other programs: `sudo rm`, `xargs rm`, `find -exec rm`, `git -c alias.x=!rm`.

use super::options::{Wrapper, operands_at, positionals, valued_before_subcommand, values};
use super::run::is_shell;
use super::tree::RedirectKind;
use super::value::{STAR, is_unknown};
use super::walk::{Event, Redirected, Simple, Stream, Walker};

/// Lines of a known input that `xargs` is followed with.
const MAX_LINES: usize = 64;

/// Tests of `find` that choose some of the files.
const CHOOSING: [&str; 27] = [
    "-name",
    "-iname",
    "-path",
    "-ipath",
    "-wholename",
    "-regex",
    "-iregex",
    "-mtime",
    "-mmin",
    "-newer",
    "-size",
    "-empty",
    "-perm",
    "-links",
    "-inum",
    "-atime",
    "-amin",
    "-ctime",
    "-cmin",
    "-newermt",
    "-lname",
    "-samefile",
    "-user",
    "-group",
    "-nouser",
    "-anewer",
    "-cnewer",
];

impl Walker<'_> {
    /// What a wrapper runs.
    pub(super) fn wrapped(
        &mut self,
        call: &Simple,
        arguments: &[String],
        wrapper: &Wrapper,
        index: usize,
    ) -> Stream {
        let program = call.program.as_str();
        if program == "command" && arguments.first().is_some_and(|a| matches!(a.as_str(), "-v" | "-V")) {
            let text = arguments.get(1).filter(|_| arguments.len() == 2).map(|name| format!("{name}\n"));
            return Stream { text, sources: Vec::new() };
        }
        if program == "env" {
            for text in values(arguments, "-S").into_iter().chain(values(arguments, "--split-string")) {
                self.nested(call, text);
            }
        }
        let mut at = operands_at(arguments, wrapper.valued) + wrapper.skip;
        let mut assigned = Vec::new();
        if matches!(program, "env" | "sudo" | "doas") {
            while let Some((name, value)) = arguments.get(at).and_then(|word| word.split_once('=')) {
                if name.is_empty() || name.contains('/') {
                    break;
                }
                assigned.push((name.to_owned(), value.to_owned()));
                at += 1;
            }
        }
        if let Some(simple) = self.found.get_mut(index) {
            simple.assigned.extend(assigned);
        }
        let rest = arguments.get(at..).unwrap_or_default().to_vec();
        if rest.is_empty() {
            // `sudo -s`, `ssh host`: a shell that reads what is piped into it.
            let shell = match program {
                "sudo" | "doas" | "su" => {
                    super::options::has(arguments, "-s") || super::options::has(arguments, "-i")
                }
                "ssh" | "chroot" | "unshare" | "nsenter" | "fakeroot" | "runuser" => true,
                _ => false,
            };
            if shell && (call.stdin.text.is_some() || !call.stdin.sources.is_empty()) {
                self.note(index, Event::RunsInput);
                if let Some(text) = call.stdin.text.clone() {
                    self.nested(call, &text);
                }
            }
            return Stream::default();
        }
        if wrapper.joined {
            return self.nested(call, &rest.join(" "));
        }
        self.inner(call, rest, call.stdin.clone())
    }

    /// Runs a text that a command was given.
    fn nested(&mut self, call: &Simple, text: &str) -> Stream {
        let from = self.found.len();
        let cwd = self.state.cwd.clone();
        let output = self.text(text, &call.stdin);
        self.state.cwd = cwd;
        for simple in self.found.iter_mut().skip(from) {
            simple.via.push(call.program.clone());
        }
        output
    }

    /// Runs words that a command was given.
    pub(super) fn inner(&mut self, call: &Simple, words: Vec<String>, stdin: Stream) -> Stream {
        let mut via = call.via.clone();
        via.push(call.program.clone());
        // `exec`, `nohup` and the like leave the name free to be a function; the others start a program.
        self.run(Simple { words, stdin, via, fed: call.fed.clone(), ..Simple::default() })
    }

    /// Programs that run others in ways of their own. `None`: it is none of these.
    pub(super) fn runs_others(
        &mut self,
        call: &Simple,
        arguments: &[String],
        index: usize,
    ) -> Option<Stream> {
        match call.program.as_str() {
            "xargs" => self.xargs(call, arguments),
            "find" | "fd" | "fdfind" => return Some(self.find(call, arguments)),
            "parallel" => self.parallel(call, arguments),
            "su" => {
                for option in ["-c", "--command"] {
                    for text in values(arguments, option).into_iter().map(str::to_owned).collect::<Vec<_>>() {
                        self.nested(call, &text);
                    }
                }
                if values(arguments, "-c").is_empty() && call.stdin.text.is_some() {
                    self.note(index, Event::RunsInput);
                }
            }
            "script" => {
                for option in ["-c", "--command"] {
                    for text in values(arguments, option).into_iter().map(str::to_owned).collect::<Vec<_>>() {
                        self.nested(call, &text);
                    }
                }
            }
            "flock" => {
                for text in values(arguments, "-c").into_iter().map(str::to_owned).collect::<Vec<_>>() {
                    self.nested(call, &text);
                }
                let at = operands_at(arguments, &["-w", "-E", "--timeout"]) + 1;
                let rest = arguments.get(at..).unwrap_or_default();
                if rest.first().is_some_and(|word| !word.starts_with('-')) {
                    self.inner(call, rest.to_vec(), call.stdin.clone());
                }
            }
            "at" | "batch" => {
                if let Some(text) = call.stdin.text.clone() {
                    self.nested(call, &text);
                }
            }
            "git" => {
                self.git(call, arguments);
                let text = super::streams::output("git", arguments, None, &self.state);
                return Some(Stream { text, sources: call.stdin.sources.clone() });
            }
            "tar" | "bsdtar" | "gtar" => {
                let options = [
                    "--to-command",
                    "--checkpoint-action",
                    "--use-compress-program",
                    "-I",
                    "--rsh-command",
                    "--info-script",
                    "--new-volume-script",
                ];
                for option in options {
                    for text in values(arguments, option).into_iter().map(str::to_owned).collect::<Vec<_>>() {
                        let text = text.strip_prefix("exec=").unwrap_or(&text);
                        self.nested(call, text);
                    }
                }
            }
            "rsync" => {
                for option in ["-e", "--rsh", "--rsync-path"] {
                    for text in values(arguments, option).into_iter().map(str::to_owned).collect::<Vec<_>>() {
                        self.nested(call, &text);
                    }
                }
            }
            "socat" => {
                for address in arguments {
                    for kind in ["EXEC:", "SYSTEM:", "exec:", "system:"] {
                        if let Some((_, text)) = address.split_once(kind) {
                            let text = text
                                .split(',')
                                .next()
                                .unwrap_or_default()
                                .trim_matches(['"', '\''])
                                .to_owned();
                            self.nested(call, &text);
                        }
                    }
                }
            }
            "tmux" | "screen" | "zellij" => {
                let operands: Vec<String> = positionals(arguments, &["-s", "-t", "-n", "-S", "-c", "-L"])
                    .into_iter()
                    .map(str::to_owned)
                    .filter(|word| {
                        !matches!(
                            word.as_str(),
                            "new"
                                | "new-session"
                                | "send-keys"
                                | "send"
                                | "Enter"
                                | "C-m"
                                | "new-window"
                                | "split-window"
                                | "run-shell"
                        )
                    })
                    .collect();
                if let [text] = operands.as_slice() {
                    self.nested(call, text);
                } else if !operands.is_empty() {
                    self.inner(call, operands, Stream::default());
                }
            }
            "vim" | "vi" | "nvim" | "ex" | "ed" | "view" => {
                let commands: Vec<String> = arguments
                    .iter()
                    .flat_map(|argument| argument.split('|'))
                    .filter_map(|argument| {
                        argument.trim_start_matches(['+', ':']).strip_prefix('!').map(str::to_owned)
                    })
                    .collect();
                for text in commands {
                    self.nested(call, &text);
                }
            }
            "pipenv" | "poetry" | "uv" | "bundle" | "rye" | "pdm" | "hatch" | "conda" | "mamba" => {
                if let Some(at) = arguments.iter().position(|word| matches!(word.as_str(), "run" | "exec")) {
                    let rest = arguments.get(at + 1..).unwrap_or_default();
                    let from = operands_at(
                        rest,
                        &["-n", "--name", "-p", "--with", "--python", "--extra", "--group"],
                    );
                    let rest = rest.get(from..).unwrap_or_default().to_vec();
                    if !rest.is_empty() {
                        self.inner(call, rest, call.stdin.clone());
                    }
                }
            }
            "start-stop-daemon" => {
                for program in values(arguments, "--exec").into_iter().map(str::to_owned).collect::<Vec<_>>()
                {
                    let mut words = vec![program];
                    if let Some(at) = arguments.iter().position(|word| word == "--") {
                        words.extend(arguments.iter().skip(at + 1).cloned());
                    }
                    self.inner(call, words, Stream::default());
                }
            }
            "gdb" => {
                for text in values(arguments, "-ex").into_iter().map(str::to_owned).collect::<Vec<_>>() {
                    if let Some(text) = text.strip_prefix("shell ").or_else(|| text.strip_prefix('!')) {
                        self.nested(call, text);
                    }
                }
            }
            "docker" | "podman" | "kubectl" | "nerdctl" => {
                // What runs in a container is not this machine's; only a shell that reads the network is looked at.
                let shell = arguments.iter().any(|word| is_shell(word));
                if shell && !call.stdin.sources.is_empty() && !arguments.iter().any(|word| word == "-c") {
                    self.note(index, Event::RunsInput);
                }
            }
            _ => return None,
        }
        Some(Stream { text: None, sources: call.stdin.sources.clone() })
    }

    fn xargs(&mut self, call: &Simple, arguments: &[String]) {
        let valued = [
            "-I",
            "-n",
            "-P",
            "-L",
            "-d",
            "-a",
            "-s",
            "-E",
            "--max-args",
            "--max-procs",
            "--replace",
            "--delimiter",
            "--arg-file",
            "--max-lines",
            "--max-chars",
        ];
        let replace = values(arguments, "-I").first().map(|value| (*value).to_owned());
        let at = operands_at(arguments, &valued);
        let words = arguments.get(at..).unwrap_or_default().to_vec();
        if words.is_empty() {
            return;
        }
        let items: Vec<String> = match &call.stdin.text {
            Some(text) if replace.is_some() => text.lines().take(MAX_LINES).map(str::to_owned).collect(),
            Some(text) => text
                .split(|letter: char| letter.is_whitespace() || letter == '\0')
                .filter(|item| !item.is_empty())
                .take(MAX_LINES)
                .map(str::to_owned)
                .collect(),
            None => vec![self.unknown("{}")],
        };
        match replace {
            Some(mark) if !mark.is_empty() => {
                for item in items {
                    let words = words.iter().map(|word| word.replace(&mark, &item)).collect();
                    self.inner(call, words, Stream::default());
                }
            }
            Some(_) | None => {
                let words = words.into_iter().chain(items).collect();
                self.inner(call, words, Stream { text: None, sources: call.stdin.sources.clone() });
            }
        }
    }

    /// What `find` does to what it finds, and what it prints: the directories it begins at stand for all below them.
    fn find(&mut self, call: &Simple, arguments: &[String]) -> Stream {
        let at = arguments
            .iter()
            .position(|word| word.starts_with('-') && !matches!(word.as_str(), "-H" | "-L" | "-P"))
            .unwrap_or(arguments.len());
        let mut starts: Vec<String> =
            arguments.iter().take(at).filter(|word| !word.starts_with('-')).cloned().collect();
        if starts.is_empty() {
            starts.push(".".to_owned());
        }
        let mut names = Vec::new();
        for option in ["-name", "-iname"] {
            names.extend(values(arguments, option).into_iter().map(str::to_owned));
        }
        let chosen = arguments.iter().any(|word| CHOOSING.contains(&word.as_str())) || call.program != "find";
        let everything = names.iter().any(|name| matches!(name.as_str(), "*" | "*.*" | ".*"));
        let mut targets = Vec::new();
        for start in &starts {
            if !chosen
                || (everything && !arguments.iter().any(|word| word.ends_with("time") || word == "-size"))
            {
                targets.push(start.clone());
            } else if let Some(name) = names.iter().find(|name| !name.contains(['*', '?', '['])) {
                targets.push(format!("{start}/{name}"));
            } else {
                let unknown = self.unknown("{}");
                targets.push(format!("{}/{unknown}", start.trim_end_matches('/')));
            }
        }
        if arguments.iter().any(|word| word == "-delete") {
            let words = ["rm", "-r"].into_iter().map(str::to_owned).chain(targets.iter().cloned()).collect();
            self.inner(call, words, Stream::default());
        }
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            if !matches!(
                word.as_str(),
                "-exec" | "-execdir" | "-ok" | "-okdir" | "-x" | "--exec" | "-X" | "--exec-batch"
            ) {
                continue;
            }
            let command: Vec<String> =
                rest.by_ref().take_while(|word| !matches!(word.as_str(), ";" | "+")).cloned().collect();
            if command.is_empty() {
                continue;
            }
            for target in &targets {
                let mut words: Vec<String> = command.iter().map(|word| word.replace("{}", target)).collect();
                if words == command && call.program != "find" {
                    words.push(target.clone());
                }
                self.inner(call, words, Stream::default());
            }
        }
        const SILENT: [&str; 8] =
            ["-delete", "-exec", "-execdir", "-ok", "-okdir", "-printf", "-fprint", "-quit"];
        let prints = !arguments.iter().any(|word| SILENT.contains(&word.as_str()));
        // A pattern, so that what takes a part of it is seen to take a part.
        let everything = |target: &String| match target.chars().last() {
            Some(last) if is_unknown(last) => target.clone(),
            Some(_) | None if chosen => target.clone(),
            Some(_) | None => format!("{}/{STAR}", target.trim_end_matches('/')),
        };
        let text = prints.then(|| targets.iter().map(everything).collect::<Vec<_>>().join("\n") + "\n");
        Stream { text, sources: call.stdin.sources.clone() }
    }

    fn parallel(&mut self, call: &Simple, arguments: &[String]) {
        let at = operands_at(arguments, &["-j", "--jobs", "-a", "-n", "-N", "--joblog", "--colsep", "-C"]);
        let rest = arguments.get(at..).unwrap_or_default();
        let end = rest.iter().position(|word| word.starts_with(":::")).unwrap_or(rest.len());
        let template = rest.get(..end).unwrap_or_default().join(" ");
        let listed: Vec<String> =
            rest.get(end..).unwrap_or_default().iter().skip(1).take(16).cloned().collect();
        let items = match (&call.stdin.text, listed.is_empty()) {
            (_, false) => listed,
            (Some(text), true) => text.lines().take(16).map(str::to_owned).collect(),
            (None, true) => vec![self.unknown("{}")],
        };
        for item in items {
            let text = if template.is_empty() {
                item
            } else if template.contains("{}") {
                template.replace("{}", &item)
            } else {
                format!("{template} {item}")
            };
            self.nested(call, &text);
        }
    }

    fn git(&mut self, call: &Simple, arguments: &[String]) {
        let commands = |setting: &str| -> Option<String> {
            let (name, value) = setting.split_once('=')?;
            let name = name.to_ascii_lowercase();
            let shell = value.strip_prefix('!');
            let runs = name.ends_with("sshcommand")
                || name.ends_with("pager")
                || name.ends_with("editor")
                || name.ends_with("fsmonitor")
                || name.ends_with("textconv")
                || name.ends_with("helper") && shell.is_some()
                || name.starts_with("filter.")
                || name.starts_with("pager.");
            match (name.starts_with("alias."), shell) {
                (true, shell) => shell.map(str::to_owned),
                (false, _) if runs => Some(shell.unwrap_or(value).to_owned()),
                (false, _) => None,
            }
        };
        let valued = valued_before_subcommand("git");
        let at = operands_at(arguments, valued);
        let mut texts: Vec<String> =
            values(arguments.get(..at).unwrap_or_default(), "-c").into_iter().filter_map(commands).collect();
        let rest = arguments.get(at..).unwrap_or_default();
        match rest.first().map(String::as_str) {
            Some("config") => {
                let operands = positionals(rest.get(1..).unwrap_or_default(), &["-f", "--file"]);
                if let [name, value] = operands.as_slice()
                    && let Some(text) = commands(&format!("{name}={value}"))
                {
                    texts.push(text);
                }
            }
            Some("submodule") if rest.get(1).is_some_and(|word| word == "foreach") => {
                texts.push(positionals(rest.get(2..).unwrap_or_default(), &[]).join(" "));
            }
            Some("bisect") if rest.get(1).is_some_and(|word| word == "run") => {
                texts.push(rest.get(2..).unwrap_or_default().join(" "));
            }
            Some("rebase") => {
                for option in ["-x", "--exec"] {
                    texts.extend(values(rest, option).into_iter().map(str::to_owned));
                }
            }
            Some("difftool" | "mergetool") => {
                texts.extend(
                    values(rest, "--extcmd").into_iter().chain(values(rest, "-x")).map(str::to_owned),
                );
            }
            Some(_) | None => {}
        }
        for word in arguments {
            if let Some((_, text)) = word.split_once("ext::") {
                texts.push(text.to_owned());
            }
        }
        for text in texts {
            self.nested(call, &text);
        }
    }

    /// As if a command wrote to a file by redirection.
    pub(super) fn as_if_written(&mut self, call: &Simple, target: String) {
        self.found.push(Simple {
            redirects: vec![Redirected { kind: RedirectKind::Write, descriptor: None, target }],
            cwd: self.state.cwd.clone(),
            via: vec![call.program.clone()],
            ..Simple::default()
        });
    }

    /// Whether a word begins with something that is known only at run time.
    pub(super) fn begins_unknown(text: &str) -> bool {
        text.trim_start().chars().next().is_some_and(is_unknown)
    }
}
