//! Programs in other languages on a command line: `python -c`, `perl -e`, `awk`, `psql -c`. Their text is kept for rules,
//! and what they obviously run, remove, write or read is judged as if the shell did it. No other language is parsed:
//! whoever wants to hide something in Python can, and the sandbox is what stops them.

use std::sync::OnceLock;

use regex::Regex;

use super::options::positionals;
use super::value::HOME;
use super::walk::{Event, Simple, Stream, Walker};
use super::words::unescaped;

/// One string in double or single quotes, as three languages write it.
const STRING: &str = r#"(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')"#;
/// As [`STRING`], without groups.
const ANY_STRING: &str = r#"(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"#;

/// The expressions that find calls, each made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Languages {
    shell: OnceLock<Option<Regex>>,
    list: OnceLock<Option<Regex>>,
    quoted: OnceLock<Option<Regex>>,
    pipes: OnceLock<Option<Regex>>,
    removes: OnceLock<Option<Regex>>,
    opens: OnceLock<Option<Regex>>,
    string: OnceLock<Option<Regex>>,
}

fn made<'r>(cell: &'r OnceLock<Option<Regex>>, text: &str) -> Option<&'r Regex> {
    cell.get_or_init(|| Regex::new(text).ok()).as_ref()
}

impl Languages {
    fn shell(&self) -> Option<&Regex> {
        made(
            &self.shell,
            &format!(
                r"\b(?:system|popen|exec\w*|spawn\w*|run|call|check_output|check_call|Popen|shell_exec|passthru|getoutput|getstatusoutput|proc_open)\s*\(?\s*[rfub]?{STRING}((?:\s*,\s*{ANY_STRING})*)"
            ),
        )
    }

    fn list(&self) -> Option<&Regex> {
        made(
            &self.list,
            &format!(
                r"\b(?:system|exec\w*|spawn\w*|run|call|check_output|check_call|Popen)\s*\(\s*({ANY_STRING}\s*,\s*)?\[\s*({ANY_STRING}(?:\s*,\s*{ANY_STRING})*)"
            ),
        )
    }

    fn quoted(&self) -> Option<&Regex> {
        made(&self.quoted, r"`([^`]+)`|%x[\(\{\[]([^\)\}\]]*)[\)\}\]]|\bqx\s*[/\(\{]([^/\)\}]*)[/\)\}]")
    }

    fn pipes(&self) -> Option<&Regex> {
        made(&self.pipes, r#"\|&?\s*"([^"]+)"|"([^"]+)"\s*\|&?\s*getline"#)
    }

    fn removes(&self) -> Option<&Regex> {
        made(
            &self.removes,
            r"\b(rmtree|rimraf(?:\.sync)?|rmSync|rmdirSync|rm_rf|rm_r|remove_tree|remove_dir_all|removeSync|emptyDirSync|remove_entry_secure|unlink|unlinkSync|os\.remove|fs\.rm|promises\.rm)\b\s*\(?\s*([^;\n]{0,200})",
        )
    }

    fn opens(&self) -> Option<&Regex> {
        made(
            &self.opens,
            &format!(
                r#"\b(open|fopen|readFileSync|readFile|file_get_contents|readlines|File\.read|read_text|Path|writeFileSync|writeFile|appendFileSync|file_put_contents|File\.write)\s*\(\s*(?:[\w.$]+\()?\s*{STRING}\)?(?:\s*,\s*["']([rwab+tx]+)["'])?(?:\)\.(\w+))?"#
            ),
        )
    }

    fn string(&self) -> Option<&Regex> {
        made(&self.string, STRING)
    }
}

/// How a language takes its program on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// After an option that ends a bundle with this letter, or one of the long names; else a file; else standard input.
    Option(char, &'static [&'static str]),
    /// The first operand, unless these options give it.
    Operand(&'static [&'static str]),
    /// Statements: these options, operands and standard input.
    Statements,
}

fn language(program: &str) -> Option<Takes> {
    let bare = program.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    Some(match bare {
        "python" | "pypy" | "ipython" => Takes::Option('c', &[]),
        "perl" => Takes::Option('e', &["-E"]),
        "ruby" | "jruby" | "lua" | "luajit" | "osascript" | "Rscript" | "julia" | "elixir" | "irb" => {
            Takes::Option('e', &["--eval"])
        }
        "node" | "nodejs" | "bun" | "deno" => Takes::Option('e', &["--eval", "-p", "--print", "eval", "-pe"]),
        "php" => Takes::Option('r', &[]),
        "awk" | "gawk" | "mawk" | "nawk" => Takes::Operand(&["-f", "--file", "-F", "-v", "-i"]),
        "sed" | "gsed" => Takes::Operand(&["-f", "--file"]),
        "psql" | "mysql" | "mariadb" | "sqlite" | "mongo" | "mongosh" | "cqlsh" | "sqlcmd"
        | "clickhouse-client" | "clickhouse" | "influx" | "mysqladmin" | "duckdb" | "usql" => {
            Takes::Statements
        }
        _ => return None,
    })
}

impl Walker<'_> {
    /// If the command is a program in another language: keeps its text and judges what it obviously does.
    pub(super) fn foreign(&mut self, call: &Simple, arguments: &[String], index: usize) -> Option<Stream> {
        let takes = language(&call.program)?;
        let code = match takes {
            Takes::Option(letter, long) => self.option_code(call, arguments, index, letter, long),
            Takes::Operand(valued) => {
                let mut code: Vec<&str> = super::options::values(arguments, "-e");
                code.extend(super::options::values(arguments, "--expression"));
                if code.is_empty() {
                    code.extend(positionals(arguments, valued).first());
                }
                code.join("\n")
            }
            Takes::Statements => {
                let mut code = arguments.join(" ");
                if let Some(text) = &call.stdin.text {
                    code.push('\n');
                    code.push_str(text);
                }
                without_strings(&code)
            }
        };
        if Self::begins_unknown(&code) {
            self.note(index, Event::RunsOutput);
        }
        if let Some(simple) = self.found.get_mut(index) {
            simple.code = Some(code.clone());
        }
        if !matches!(takes, Takes::Statements) && code.len() <= 32 * 1024 {
            // What another language holds is no bash: that it cannot be read means nothing.
            let fault = self.fault;
            self.calls_in(call, &code);
            self.fault = fault.or(self.fault.filter(|found| *found == super::read::Fault::TooMuch));
        }
        Some(Stream { text: None, sources: call.stdin.sources.clone() })
    }

    fn option_code(
        &mut self,
        call: &Simple,
        arguments: &[String],
        index: usize,
        letter: char,
        long: &[&str],
    ) -> String {
        let mut code = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let bundle =
                argument.strip_prefix('-').filter(|letters| !letters.starts_with('-') && letters.len() <= 6);
            if long.contains(&argument.as_str()) || bundle.is_some_and(|letters| letters.ends_with(letter)) {
                code.extend(rest.next().cloned());
                if letter == 'c' {
                    break;
                }
            } else if let Some((name, value)) = argument.split_once('=')
                && long.contains(&name)
            {
                code.push(value.to_owned());
            } else if argument == "-m"
                || matches!(argument.as_str(), "-I" | "-W" | "-X" | "-d") && letter != 'r'
            {
                if argument == "-m" && letter == 'c' {
                    return String::new();
                }
                rest.next();
            } else if argument == "-" || argument == "/dev/stdin" {
                break;
            } else if !argument.starts_with('-') && code.is_empty() {
                if self.is_download(argument) {
                    self.note(index, Event::RunsDownload);
                }
                if Self::begins_unknown(argument) && !argument.contains('/') {
                    self.note(index, Event::RunsOutput);
                }
                return self.state.files.get(argument).cloned().unwrap_or_default();
            }
        }
        if code.is_empty() {
            self.note(index, Event::RunsInput);
            return call.stdin.text.clone().unwrap_or_default();
        }
        code.join("\n")
    }

    fn calls_in(&mut self, call: &Simple, code: &str) {
        let languages = self.languages;
        let quiet = Stream::default();
        for found in languages.shell().into_iter().flat_map(|regex| regex.captures_iter(code)).take(32) {
            let first = found.get(1).or_else(|| found.get(2)).map_or("", |text| text.as_str());
            let more = found.get(3).map_or("", |text| text.as_str());
            let mut words = vec![unescaped(first)];
            words.extend(self.strings(more));
            if words.len() == 1 {
                self.text(&words.concat(), &quiet);
            } else {
                self.inner(call, words, quiet.clone());
            }
        }
        for found in languages.list().into_iter().flat_map(|regex| regex.captures_iter(code)).take(32) {
            let mut words = self.strings(found.get(1).map_or("", |text| text.as_str()));
            words.extend(self.strings(found.get(2).map_or("", |text| text.as_str())));
            self.inner(call, words, quiet.clone());
        }
        if matches!(call.program.as_str(), "perl" | "ruby" | "php" | "irb") {
            for found in languages.quoted().into_iter().flat_map(|regex| regex.captures_iter(code)).take(32) {
                if let Some(text) = found.iter().skip(1).flatten().next() {
                    self.text(&unescaped(text.as_str()), &quiet);
                }
            }
        }
        if call.program.ends_with("awk") {
            for found in languages.pipes().into_iter().flat_map(|regex| regex.captures_iter(code)).take(32) {
                if let Some(text) = found.iter().skip(1).flatten().next() {
                    self.text(&unescaped(text.as_str()), &quiet);
                }
            }
        }
        for found in languages.removes().into_iter().flat_map(|regex| regex.captures_iter(code)).take(32) {
            let recursive = found
                .get(1)
                .is_some_and(|name| !matches!(name.as_str(), "unlink" | "unlinkSync" | "os.remove"));
            let argument = found.get(2).map_or("", |text| text.as_str());
            if let Some(path) = self.path_in(argument) {
                let words = ["rm", if recursive { "-rf" } else { "-f" }];
                let words = words.into_iter().map(str::to_owned).chain([path]).collect();
                self.inner(call, words, quiet.clone());
            }
        }
        for found in languages.opens().into_iter().flat_map(|regex| regex.captures_iter(code)).take(32) {
            let name = found.get(1).map_or("", |text| text.as_str());
            let path = found.get(2).or_else(|| found.get(3)).map_or("", |text| text.as_str());
            let mode = found.get(4).map_or("r", |text| text.as_str());
            let method = found.get(5).map_or("", |text| text.as_str());
            let writes = name.contains("rite")
                || name.contains("put")
                || name.contains("append")
                || mode.contains(['w', 'a', 'x', '+'])
                || method.starts_with("write");
            let path = home_marked(&unescaped(path));
            if writes {
                self.as_if_written(call, path);
            } else if name != "Path" || method.starts_with("read") {
                self.inner(call, vec!["cat".to_owned(), path], quiet.clone());
            }
        }
    }

    fn strings(&self, text: &str) -> Vec<String> {
        self.languages
            .string()
            .into_iter()
            .flat_map(|regex| regex.captures_iter(text))
            .filter_map(|found| found.get(1).or_else(|| found.get(2)).map(|text| unescaped(text.as_str())))
            .collect()
    }

    /// The one path an argument names, if it names it plainly.
    fn path_in(&self, argument: &str) -> Option<String> {
        let home = [
            "home()",
            "homedir()",
            "Dir.home",
            "environ['HOME']",
            "environ[\"HOME\"]",
            "ENV['HOME']",
            "ENV[\"HOME\"]",
            "env.HOME",
            "getenv('HOME')",
            "getenv(\"HOME\")",
            "$ENV{HOME}",
            "environ.get('HOME')",
        ];
        let strings = self.strings(argument.split("rue").next().unwrap_or(argument));
        let at_home = home.iter().any(|text| argument.contains(text));
        match (at_home, strings.as_slice()) {
            (true, [] | [_]) if strings.iter().all(|text| text == "HOME") => Some(HOME.to_string()),
            (false, [path, ..]) => Some(home_marked(path)),
            _ => None,
        }
    }
}

/// Statements without what stands in single quotes: that is data, whatever it says.
fn without_strings(code: &str) -> String {
    let pieces: Vec<&str> = code.split('\'').collect();
    if pieces.len().is_multiple_of(2) {
        return code.to_owned();
    }
    pieces.into_iter().step_by(2).collect::<Vec<_>>().join("''")
}

fn home_marked(path: &str) -> String {
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{HOME}{rest}"),
        Some(_) | None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_ones() {
        let languages = Languages::default();
        for regex in [
            languages.shell(),
            languages.list(),
            languages.quoted(),
            languages.pipes(),
            languages.removes(),
            languages.opens(),
            languages.string(),
        ] {
            assert!(regex.is_some());
        }
    }
}
