//! What a few small programs print, so that `echo cm0gLXJmIC8= | base64 -d | sh` is read for what it is.

use super::options::positionals;
use super::state::State;
use super::value::{STAR, WORK, is_known, is_pattern};
use super::words::unescaped;

/// The output of a command, if it can be known.
pub(super) fn output(
    program: &str,
    arguments: &[String],
    stdin: Option<&str>,
    state: &State,
) -> Option<String> {
    let flag = |option: &str| super::options::has(arguments, option);
    match program {
        "true" | ":" | "test" | "[" => Some(String::new()),
        "echo" => Some(echo(arguments)),
        "printf" => printf(arguments),
        // Every file of the working directory, by a pattern that means just that.
        "ls" if positionals(arguments, &["-I", "-w"]).iter().all(|operand| *operand == ".") => {
            Some(format!("{STAR}\n"))
        }
        "git" => git(arguments),
        "which" => arguments.last().map(|name| format!("{name}\n")),
        "cat" => {
            let files: Vec<&String> = arguments
                .iter()
                .filter(|argument| !argument.starts_with('-') && *argument != "/dev/null")
                .collect();
            if files.is_empty() {
                return if flag("/dev/null") { Some(String::new()) } else { stdin.map(str::to_owned) };
            }
            let mut all = String::new();
            for file in files {
                all.push_str(state.files.get(file.as_str())?);
            }
            Some(all)
        }
        "base64" if flag("-d") || flag("-D") || flag("--decode") => base64(stdin?),
        "openssl" if flag("-d") && arguments.iter().any(|word| word.contains("base64") || word == "-a") => {
            base64(stdin?)
        }
        "xxd" if flag("-r") => unhex(stdin?),
        "rev" => Some(stdin?.lines().map(|line| line.chars().rev().collect::<String>() + "\n").collect()),
        "tr" => translate(arguments, stdin?),
        "sort" | "uniq" | "tac" if stdin.is_some_and(|text| text.lines().count() <= 1) => {
            stdin.map(str::to_owned)
        }
        // Of a pattern they take a part, and which is not known.
        "head" | "tail"
            if stdin.is_some_and(|text| text.lines().count() <= 1 && !text.chars().any(is_pattern)) =>
        {
            stdin.map(str::to_owned)
        }
        _ => None,
    }
}

/// `git ls-files` without anything that chooses, and where the repository is.
fn git(arguments: &[String]) -> Option<String> {
    let mut rest = arguments.iter().map(String::as_str);
    match (rest.next()?, rest.next()) {
        ("rev-parse", Some("--show-toplevel")) => Some(format!("{WORK}\n")),
        ("rev-parse", Some("--git-dir" | "--absolute-git-dir" | "--git-common-dir")) => {
            Some(format!("{WORK}/.git\n"))
        }
        ("ls-files", option) => {
            let plain =
                |word: &str| matches!(word, "-z" | "-c" | "--cached" | "--full-name" | "--" | "." | ":/");
            option.into_iter().chain(rest).all(plain).then(|| format!("{STAR}\n"))
        }
        _ => None,
    }
}

fn echo(arguments: &[String]) -> String {
    let mut escapes = false;
    let mut newline = true;
    let mut rest = arguments.iter().peekable();
    while let Some(word) = rest.peek() {
        match word.strip_prefix('-') {
            Some(letters)
                if !letters.is_empty() && letters.chars().all(|letter| matches!(letter, 'n' | 'e' | 'E')) =>
            {
                escapes |= letters.contains('e');
                newline &= !letters.contains('n');
                rest.next();
            }
            Some(_) | None => break,
        }
    }
    let mut text = rest.cloned().collect::<Vec<_>>().join(" ");
    if escapes {
        text = unescaped(&text);
    }
    if newline {
        text.push('\n');
    }
    text
}

fn printf(arguments: &[String]) -> Option<String> {
    let at = usize::from(arguments.first().is_some_and(|word| word == "--"));
    if arguments.first().is_some_and(|word| word == "-v") {
        return Some(String::new());
    }
    let format = unescaped(arguments.get(at)?);
    let mut values = arguments.iter().skip(at + 1);
    let mut out = String::new();
    let wanted = format.matches('%').count() - 2 * format.matches("%%").count();
    let rounds = if wanted == 0 { 1 } else { values.len().div_ceil(wanted).max(1) };
    for _ in 0..rounds.min(256) {
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                out.push(letter);
                continue;
            }
            match letters
                .by_ref()
                .find(|letter| !matches!(letter, '-' | '+' | ' ' | '0'..='9' | '.' | '#'))?
            {
                '%' => out.push('%'),
                's' | 'd' | 'i' | 'u' | 'q' => out.push_str(values.next().map_or("", String::as_str)),
                'b' => out.push_str(&unescaped(values.next().map_or("", String::as_str))),
                'c' => out.extend(values.next().and_then(|value| value.chars().next())),
                _ => return None,
            }
        }
    }
    Some(out)
}

/// Only what decodes to text; anything else is unknown.
fn base64(text: &str) -> Option<String> {
    if !is_known(text) {
        return None;
    }
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0_u32, 0_u32);
    for letter in text.chars() {
        let value = match letter {
            'A'..='Z' => u32::from(letter) - u32::from('A'),
            'a'..='z' => u32::from(letter) - u32::from('a') + 26,
            '0'..='9' => u32::from(letter) - u32::from('0') + 52,
            '+' | '-' => 62,
            '/' | '_' => 63,
            '=' => break,
            letter if letter.is_whitespace() => continue,
            _ => return None,
        };
        held = (held << 6 | value) & 0xFF_FFFF;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xFF).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

fn unhex(text: &str) -> Option<String> {
    let digits: Vec<u32> = text
        .replace("\\x", "")
        .chars()
        .filter(|l| !l.is_whitespace())
        .map(|l| l.to_digit(16))
        .collect::<Option<_>>()?;
    let bytes = digits
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(high * 16 + low).ok(),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>()?;
    String::from_utf8(bytes).ok()
}

fn translate(arguments: &[String], text: &str) -> Option<String> {
    let set = |word: &String| -> Option<Vec<char>> {
        if word.contains("[:") || word.chars().any(is_pattern) {
            return None;
        }
        let letters: Vec<char> = unescaped(word).chars().collect();
        let mut all = Vec::new();
        let mut at = 0;
        while let Some(letter) = letters.get(at) {
            match (letters.get(at + 1), letters.get(at + 2)) {
                (Some('-'), Some(end)) if letter <= end => {
                    all.extend(*letter..=*end);
                    at += 3;
                }
                _ => {
                    all.push(*letter);
                    at += 1;
                }
            }
        }
        Some(all)
    };
    match arguments {
        [option, gone] if option == "-d" => {
            let gone = set(gone)?;
            Some(text.chars().filter(|letter| !gone.contains(letter)).collect())
        }
        [from, to] if !from.starts_with('-') => {
            let (from, to) = (set(from)?, set(to)?);
            let last = *to.last()?;
            Some(
                text.chars()
                    .map(|letter| match from.iter().position(|known| *known == letter) {
                        Some(at) => to.get(at).copied().unwrap_or(last),
                        None => letter,
                    })
                    .collect(),
            )
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str, stdin: Option<&str>) -> Option<String> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        output(&words[0], &words[1..], stdin, &State::new())
    }

    #[test]
    fn outputs_that_can_be_known() {
        assert_eq!(of("echo -n a b", None).as_deref(), Some("a b"));
        assert_eq!(of(r"echo -e \x72m", None).as_deref(), Some("rm\n"));
        assert_eq!(of(r"printf \x72\155", None).as_deref(), Some("rm"));
        assert_eq!(of("printf %s-%s r m", None).as_deref(), Some("r-m"));
        assert_eq!(of("base64 -d", Some("cm0gLXJmIC8=\n")).as_deref(), Some("rm -rf /"));
        assert_eq!(of("xxd -r -p", Some("726d")).as_deref(), Some("rm"));
        assert_eq!(of("rev", Some("/ fr- mr\n")).as_deref(), Some("rm -rf /\n"));
        assert_eq!(of("tr a-z b-za", Some("ql")).as_deref(), Some("rm"));
        assert_eq!(of("base64 -d", Some("!!")), None);
        assert_eq!(of("sort x", None), None);
    }
}
