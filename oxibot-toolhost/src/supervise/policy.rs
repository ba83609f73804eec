//! A stand-in for the policy: a handful of catastrophic commands, found by splitting words.
//!
//! It is a guard-rail for mistakes and easily evaded; the sandbox is the boundary. It does not understand expansions,
//! here-documents or functions. A later issue replaces it by a reader of the real bash grammar with rules as data;
//! until then it stays this small.

use oxibot_proto::message::{JudgedRule, Verdict};

use crate::tools::ToolRequest;

/// `bash -c` inside `bash -c` is followed this deep.
const MAX_DEPTH: u8 = 3;
/// The one rule that asks instead of refusing.
const ASKED: &str = "git.force-push";
/// Commands reported by a dry run.
const MAX_REPORTED: usize = 64;

/// What the policy says of a request.
#[derive(Debug)]
#[must_use]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) rules: Vec<JudgedRule>,
    /// The simple commands found, for `bash`.
    pub(crate) commands: Vec<String>,
}

/// Judges one request. File tools are judged by the worker, which resolves the path beneath the workspace.
pub(crate) fn judge(request: &ToolRequest) -> Judged {
    match request {
        ToolRequest::Bash { command, .. } => judge_command(command),
        ToolRequest::Files(_) => Judged { verdict: Verdict::Allow, rules: Vec::new(), commands: Vec::new() },
    }
}

fn judge_command(command: &str) -> Judged {
    let mut rules = Vec::new();
    let mut commands = Vec::new();
    if command.split_whitespace().collect::<String>().contains(":(){:|:&};:") {
        rules.push(rule("shell.fork-bomb", "a fork bomb", "start a fixed number of processes"));
    }
    judge_text(command, 0, &mut rules, &mut commands);
    rules.dedup();
    let verdict = match rules.iter().all(|rule| rule.id == ASKED) {
        true if rules.is_empty() => Verdict::Allow,
        true => Verdict::Ask,
        false => Verdict::Block,
    };
    Judged { verdict, rules, commands }
}

fn judge_text(text: &str, depth: u8, rules: &mut Vec<JudgedRule>, commands: &mut Vec<String>) {
    for words in simple_commands(text) {
        if commands.len() < MAX_REPORTED {
            commands.push(words.join(" "));
        }
        rules.extend(judge_words(&words));
        let mut rest = words.iter().skip_while(|word| !is_shell(word));
        if rest.next().is_some() && depth < MAX_DEPTH {
            let mut after = rest.skip_while(|word| *word != "-c");
            after.next();
            if let Some(inner) = after.next() {
                judge_text(inner, depth + 1, rules, commands);
            }
        }
    }
}

fn is_shell(word: &str) -> bool {
    matches!(base_name(word), "bash" | "sh" | "dash" | "zsh" | "eval")
}

fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn rule(id: &str, reason: &str, alternative: &str) -> JudgedRule {
    JudgedRule { id: id.to_owned(), reason: reason.to_owned(), alternative: alternative.to_owned() }
}

fn judge_words(words: &[String]) -> Option<JudgedRule> {
    let device = |path: &str| {
        ["/dev/sd", "/dev/nvme", "/dev/vd", "/dev/hd", "/dev/mmcblk"].iter().any(|d| path.starts_with(d))
    };
    // A redirection is split off as a word of its own, its target follows.
    if words.windows(2).any(|pair| matches!(pair, [arrow, to] if arrow == ">" && device(to))) {
        return Some(rule("shell.device-write", "it overwrites a disk", "write to a file of the workspace"));
    }
    let mut rest = words.iter().map(String::as_str).skip_while(|word| {
        word.contains('=')
            || matches!(
                base_name(word),
                "sudo" | "env" | "nohup" | "command" | "exec" | "time" | "nice" | "-"
            )
    });
    let program = base_name(rest.next()?);
    let arguments: Vec<&str> = rest.collect();
    match program {
        "rm" if removes_everything(&arguments) => Some(rule(
            "shell.rm-root",
            "it removes the root or home directory",
            "name the files of the workspace to remove",
        )),
        "shutdown" | "reboot" | "poweroff" | "halt" => {
            Some(rule("shell.power", "it stops the machine", "leave the machine running"))
        }
        "init" | "telinit" if arguments.iter().any(|a| matches!(*a, "0" | "6")) => {
            Some(rule("shell.power", "it stops the machine", "leave the machine running"))
        }
        "systemctl" if arguments.iter().any(|a| matches!(*a, "poweroff" | "reboot" | "halt")) => {
            Some(rule("shell.power", "it stops the machine", "leave the machine running"))
        }
        "dd" if arguments.iter().any(|a| {
            a.strip_prefix("of=").is_some_and(|to| {
                to.starts_with("/dev/")
                    && !matches!(to, "/dev/null" | "/dev/zero" | "/dev/stdout" | "/dev/stderr")
            })
        }) =>
        {
            Some(rule("shell.dd-device", "it overwrites a device", "write to a file of the workspace"))
        }
        "git"
            if arguments.first() == Some(&"push")
                && arguments.iter().any(|a| matches!(*a, "--force" | "-f")) =>
        {
            Some(rule(ASKED, "it overwrites what others pushed", "push with --force-with-lease"))
        }
        name if name == "mkfs" || name.starts_with("mkfs.") => Some(rule(
            "shell.mkfs",
            "it formats a file system",
            "make the image with a tool that needs no device",
        )),
        _ => None,
    }
}

fn removes_everything(arguments: &[&str]) -> bool {
    let recursive = arguments.iter().any(|a| {
        matches!(*a, "--recursive" | "--no-preserve-root")
            || (a.starts_with('-') && !a.starts_with("--") && a.contains(['r', 'R']))
    });
    let everything = arguments.iter().any(|a| {
        !a.starts_with('-')
            && (matches!(a.trim_end_matches(['/', '*', '.']), "~" | "$HOME" | "${HOME}")
                || (a.starts_with('/') && a.trim_end_matches(['/', '*', '.']).is_empty()))
    });
    recursive && everything
}

/// Splits a script into simple commands and their words. Quotes keep words together; nothing is expanded.
fn simple_commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), close) if open == close => quote = None,
            (Some('\''), other) => word.get_or_insert_default().push(other),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(_) | None, '\\') => {
                if let Some(escaped) = letters.next().filter(|escaped| *escaped != '\n') {
                    word.get_or_insert_default().push(escaped);
                }
            }
            (Some(_), other) => word.get_or_insert_default().push(other),
            (None, '>' | '<') => {
                words.extend(word.take());
                if words.last().is_none_or(|last| last != ">") {
                    words.push(letter.to_string());
                }
            }
            (None, ';' | '&' | '|' | '\n' | '(' | ')' | '{' | '}' | '`') => {
                words.extend(word.take());
                if !words.is_empty() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (None, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    if !words.is_empty() {
        commands.push(words);
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(command: &str) -> Vec<String> {
        judge_command(command).rules.into_iter().map(|rule| rule.id).collect()
    }

    #[test]
    fn catastrophic_commands_are_blocked() {
        for (command, id) in [
            ("rm -rf /", "shell.rm-root"),
            ("rm -fr -- /*", "shell.rm-root"),
            ("sudo rm -r -f //", "shell.rm-root"),
            ("cd /tmp && /bin/rm --recursive --force ~/", "shell.rm-root"),
            ("bash -c 'rm -rf /'", "shell.rm-root"),
            ("rm -rf \"$HOME\"", "shell.rm-root"),
            ("mkfs.ext4 /dev/sda1", "shell.mkfs"),
            ("dd if=/dev/zero of=/dev/sda bs=1M", "shell.dd-device"),
            ("echo x > /dev/sda", "shell.device-write"),
            ("cat x >>/dev/nvme0n1", "shell.device-write"),
            ("shutdown -h now", "shell.power"),
            ("git push --force", "git.force-push"),
            ("true; systemctl reboot", "shell.power"),
            (":(){ :|:& };:", "shell.fork-bomb"),
        ] {
            assert!(rules(command).contains(&id.to_owned()), "{command}: {:?}", rules(command));
        }
    }

    #[test]
    fn ordinary_commands_are_allowed() {
        for command in [
            "rm -rf ./build",
            "rm -rf /tmp/x /data/target/*",
            "echo 'rm -rf /'",
            "grep -r shutdown .",
            "dd if=a of=b; dd if=a of=/dev/null",
            "echo hi > /dev/null 2>&1",
            "git log --format=%s -- init",
            "",
        ] {
            assert_eq!(rules(command), Vec::<String>::new(), "{command}");
        }
    }

    #[test]
    fn deep_nesting_ends() {
        let mut command = "rm -rf /".to_owned();
        for _ in 0..20 {
            command = format!("bash -c {command:?}");
        }
        let _ = judge_command(&command);
        assert_eq!(judge_command(&"a;".repeat(10_000)).commands.len(), MAX_REPORTED);
    }
}
