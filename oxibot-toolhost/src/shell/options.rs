//! Options of programs: which take a value, where the operands begin, which flags a command line holds.

/// A program that runs the command in its arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wrapper {
    /// Options that take a value.
    pub(super) valued: &'static [&'static str],
    /// Operands before the command.
    pub(super) skip: usize,
    /// What follows is joined and read as a script.
    pub(super) joined: bool,
}

impl Wrapper {
    /// How a wrapper's command is found, if the program is one.
    pub(super) fn of(program: &str) -> Option<Self> {
        let plain = |valued| Self { valued, skip: 0, joined: false };
        let after = |skip, valued| Self { valued, skip, joined: false };
        let text = |skip, valued| Self { valued, skip, joined: true };
        let wrapper = match program {
            "sudo" => plain(&[
                "-u",
                "-g",
                "-h",
                "-p",
                "-C",
                "-r",
                "-t",
                "-T",
                "-U",
                "-D",
                "-R",
                "--user",
                "--group",
                "--host",
                "--prompt",
                "--chdir",
                "--chroot",
                "--close-from",
                "--role",
                "--type",
                "--other-user",
                "--command-timeout",
            ]),
            "doas" => plain(&["-u", "-C"]),
            "pkexec" => plain(&["--user"]),
            "env" => plain(&["-u", "-C", "--unset", "--chdir"]),
            "nohup" | "setsid" | "builtin" | "unbuffer" | "busybox" | "toybox" | "fakeroot" | "eatmydata"
            | "dbus-run-session" | "caffeinate" | "noglob" | "nocorrect" | "coproc" | "torsocks"
            | "proxychains" | "proxychains4" => plain(&[]),
            "command" => plain(&[]),
            "exec" => plain(&["-a"]),
            "time" => plain(&["-o", "-f", "--output", "--format"]),
            "nice" => plain(&["-n", "--adjustment"]),
            "ionice" => plain(&["-c", "-n", "-p", "-P", "-u", "--class", "--classdata"]),
            "timeout" | "gtimeout" => after(1, &["-s", "-k", "--signal", "--kill-after"]),
            "stdbuf" => plain(&["-i", "-o", "-e", "--input", "--output", "--error"]),
            "chrt" | "taskset" | "cpulimit" => after(1, &["-p", "-l", "--limit"]),
            "numactl" | "prlimit" | "setarch" | "linux64" | "setpriv" | "systemd-inhibit" | "xvfb-run" => {
                plain(&["-n", "-s", "--who", "--what", "--why"])
            }
            "strace" | "ltrace" | "perf" | "valgrind" => plain(&["-o", "-e", "-p", "-s", "-E", "-P"]),
            "chroot" => after(1, &["--userspec", "--groups"]),
            "unshare" | "nsenter" => {
                plain(&["-t", "-S", "-G", "--target", "--setuid", "--setgid", "--wd", "--root"])
            }
            "systemd-run" => {
                plain(&["-p", "-u", "-t", "--unit", "--property", "--uid", "--gid", "--on-active", "--slice"])
            }
            "runuser" => plain(&["-u", "-g", "-G", "-s", "--user", "--group", "--shell"]),
            "firejail" | "proot" | "catchsegv" => plain(&["-r", "-b", "-w"]),
            "ssh" => text(
                1,
                &[
                    "-b", "-c", "-D", "-E", "-e", "-F", "-I", "-i", "-J", "-L", "-l", "-m", "-O", "-o", "-p",
                    "-Q", "-R", "-S", "-W", "-w",
                ],
            ),
            "watch" => text(0, &["-n", "--interval"]),
            "hyperfine" => text(
                0,
                &["-w", "-r", "-m", "-M", "--warmup", "--runs", "-n", "--export-json", "--export-markdown"],
            ),
            "npx" | "bunx" | "pnpx" | "uvx" => plain(&["-p", "--package"]),
            _ => return None,
        };
        Some(wrapper)
    }
}

/// The index of the first operand among arguments.
pub(super) fn operands_at(arguments: &[String], valued: &[&str]) -> usize {
    let mut at = 0;
    while let Some(argument) = arguments.get(at) {
        if argument == "--" {
            return at + 1;
        }
        if argument.len() < 2 || !argument.starts_with('-') {
            return at;
        }
        at += 1;
        if valued.contains(&argument.as_str()) {
            at += 1;
        } else if !argument.starts_with("--") && argument.len() > 2 {
            // `-Eu root`: the last letter of a bundle may take a value.
            let mut letters = argument.chars();
            letters.next();
            let last = letters.next_back();
            let plain = !letters.any(|letter| valued.iter().any(|option| **option == format!("-{letter}")));
            if plain
                && last.is_some_and(|letter| valued.iter().any(|option| **option == format!("-{letter}")))
            {
                at += 1;
            }
        }
    }
    at
}

/// Options before the subcommand that take a value, of programs with subcommands.
pub(super) fn valued_before_subcommand(program: &str) -> &'static [&'static str] {
    match program {
        "git" => &["-C", "-c", "--git-dir", "--work-tree", "--namespace", "--exec-path", "--config-env"],
        "docker" | "podman" | "nerdctl" => {
            &["-H", "--host", "-c", "--context", "-l", "--log-level", "--config"]
        }
        "kubectl" | "oc" | "helm" => &[
            "-n",
            "--namespace",
            "--context",
            "--kubeconfig",
            "--cluster",
            "--user",
            "-s",
            "--server",
            "--kube-context",
        ],
        "systemctl" | "loginctl" | "machinectl" => &["-H", "-M", "-t", "--host", "--machine", "--type"],
        "npm" | "pnpm" | "yarn" => &["--prefix", "-C", "--dir", "-w", "--workspace", "--cwd", "--filter"],
        "aws" => &["--profile", "--region", "--output", "--endpoint-url", "--query"],
        "gcloud" | "gsutil" | "bq" => &["--project", "--account", "--format", "-o"],
        "az" => &["--subscription", "-o", "--output"],
        "cargo" => &["-Z", "--config", "-C", "--color"],
        "redis-cli" => &["-h", "-p", "-a", "-n", "-u", "-s", "--user", "--pass"],
        "zfs" | "zpool" | "lvm" | "ip" | "nft" | "ufw" => &[],
        "apt" | "apt-get" | "dpkg" => &["-o", "-t", "-c"],
        "pip" | "pip3" | "uv" => &["--python", "--cache-dir", "--proxy"],
        _ => &[],
    }
}

/// The words that are no options, after `--` all.
pub(super) fn positionals<'w>(arguments: &'w [String], valued: &[&str]) -> Vec<&'w str> {
    let mut found = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            found.extend(rest.map(String::as_str));
            break;
        }
        if valued.contains(&argument.as_str()) {
            rest.next();
        } else if argument.len() < 2 || !argument.starts_with('-') {
            found.push(argument);
        }
    }
    found
}

/// Whether an option is among the arguments: `-r` also inside a bundle, `--recursive` also abbreviated or with a value,
/// longer ones with one dash (`-delete`) and words without a dash as they are.
pub(super) fn has(arguments: &[String], option: &str) -> bool {
    for argument in arguments {
        if argument == "--" {
            return false;
        }
        if argument == option {
            return true;
        }
        if option.starts_with("--") {
            let name = argument.split('=').next().unwrap_or_default();
            let whole = name == option;
            let shortened = name.len() >= 5 && option.starts_with(name);
            if whole || shortened {
                return true;
            }
        } else if let (Some(letters), Some(wanted)) = (argument.strip_prefix('-'), option.strip_prefix('-')) {
            let one = wanted.chars().count() == 1;
            if one && !letters.starts_with('-') && letters.contains(wanted) {
                return true;
            }
        }
    }
    false
}

/// The values of an option: `-o v`, `-ov`, `--output v`, `--output=v`.
pub(super) fn values<'w>(arguments: &'w [String], option: &str) -> Vec<&'w str> {
    let mut found = Vec::new();
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            break;
        }
        if argument == option {
            if let Some(value) = rest.peek() {
                found.push(value.as_str());
            }
        } else if option.starts_with("--") {
            if let Some(value) = argument.strip_prefix(option).and_then(|rest| rest.strip_prefix('=')) {
                found.push(value);
            }
        } else if option.len() == 2 && !argument.starts_with("--") {
            if let Some(value) = argument.strip_prefix(option) {
                found.push(value);
            } else if argument.starts_with('-')
                && option.chars().nth(1).is_some_and(|letter| argument.ends_with(letter))
                && let Some(value) = rest.peek()
            {
                found.push(value.as_str());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_are_found_in_every_spelling() {
        for (arguments, option, found) in [
            ("-rf x", "-r", true),
            ("-f -R x", "-R", true),
            ("--recursive x", "--recursive", true),
            ("--recurs x", "--recursive", true),
            ("--r x", "--recursive", false),
            ("--force-with-lease", "--force", false),
            ("-- -r", "-r", false),
            ("--rf", "-r", false),
            (". -delete", "-delete", true),
            ("--depth=1", "--depth", true),
        ] {
            assert_eq!(has(&words(arguments), option), found, "{arguments} {option}");
        }
    }

    #[test]
    fn operands_begin_after_options_and_their_values() {
        let sudo = Wrapper::of("sudo").unwrap().valued;
        assert_eq!(operands_at(&words("-u root -n rm x"), sudo), 3);
        assert_eq!(operands_at(&words("-Eu root rm x"), sudo), 2);
        assert_eq!(operands_at(&words("--user=root rm"), sudo), 1);
        assert_eq!(operands_at(&words("-- rm"), sudo), 1);
        assert_eq!(positionals(&words("-C dir push -f origin"), &["-C"]), ["push", "origin"]);
    }

    #[test]
    fn values_of_options_are_found() {
        assert_eq!(values(&words("-o a -ob --output=c --output d"), "-o"), ["a", "b"]);
        assert_eq!(values(&words("--output=c --output d"), "--output"), ["c", "d"]);
        assert_eq!(values(&words("-sd @x"), "-d"), ["@x"]);
    }
}
