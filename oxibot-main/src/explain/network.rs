//! Complaints of programs that wanted the network: `curl`, `wget`, `git`, `ssh`, shells and run-times. Gives the host
//! they name; whether that is refused is judged elsewhere.

use super::cause::{self, Cause};
use super::complaint::Complaint;

/// Longest host, in bytes (RFC 1035, with room for an address in brackets and a port).
const MAX_HOST: usize = 300;

/// What stands right before a host, and what the line then means. Lower-case, longer ones first.
const LEADS: [(&str, Cause); 12] = [
    ("curl: (6) could not resolve host: ", Cause::Unresolved),
    (": could not resolve host: ", Cause::Unresolved),
    ("ssh: could not resolve hostname ", Cause::Unresolved),
    ("wget: unable to resolve host address ", Cause::Unresolved),
    ("temporary failure resolving ", Cause::Unresolved),
    ("getaddrinfo eai_again ", Cause::Unresolved),
    ("getaddrinfo enotfound ", Cause::Unresolved),
    ("connect enetunreach ", Cause::Unreachable),
    ("connect eperm ", Cause::NotPermitted),
    ("connect econnrefused ", Cause::Refused),
    ("curl: (7) failed to connect to ", Cause::Refused),
    (": failed to connect to ", Cause::Refused),
];

/// Reads one line; `lower` is the same line with ASCII letters made lower-case.
pub(super) fn read(line: &str, lower: &str) -> Option<Complaint> {
    let complaint = |cause, phrase, program: Option<&str>, host: String| Complaint {
        program: program.map(str::to_owned),
        words: "connect".to_owned(),
        cause,
        phrase,
        paths: Vec::new(),
        host: Some(host),
    };
    for (lead, cause) in LEADS {
        if let Some(at) = lower.find(lead)
            && (at == lower.len().saturating_sub(lower.trim_start().len())
                || lead.starts_with(':')
                || lower.contains("rror"))
            && let Some(host) = line.get(at.saturating_add(lead.len())..).and_then(host)
        {
            let program = ["curl", "ssh", "wget"].into_iter().find(|program| lower.starts_with(program));
            let phrase = lead.trim_matches([' ', ':']);
            return Some(complaint(cause, phrase, program, host));
        }
    }
    let found = cause::find(lower)?;
    let cause = match found.cause {
        Cause::Unresolved | Cause::Unreachable | Cause::Refused => found.cause,
        // A refused socket, where the line is about a connection.
        Cause::NotPermitted
            if lower.starts_with("connecting to ")
                || lower.contains("/dev/tcp/")
                || lower.contains("/dev/udp/") =>
        {
            found.cause
        }
        Cause::Missing
        | Cause::ReadOnly
        | Cause::Denied
        | Cause::NotPermitted
        | Cause::CrossDevice
        | Cause::Busy
        | Cause::NoSpace
        | Cause::Invalid
        | Cause::NoMemory
        | Cause::NoProcess
        | Cause::TooManyFiles
        | Cause::TooLarge
        | Cause::CpuTime
        | Cause::BadCall => return None,
    };
    let before = line.get(..found.start)?;
    let after = line.get(found.end..)?.trim_end();
    let perl = after.starts_with(" at ") && after.contains(" line ");
    let relayed = after.starts_with("')");
    if !(matches!(after, "" | "." | ">" | ")" | "\"))") || perl || relayed) {
        return None;
    }
    // wget: `Connecting to 1.1.1.1:80... failed: `.
    if let Some(rest) = before.strip_prefix("Connecting to ") {
        return Some(complaint(cause, found.phrase, Some("wget"), host(rest)?));
    }
    for device in ["/dev/tcp/", "/dev/udp/"] {
        if let Some((_, rest)) = before.split_once(device) {
            return Some(complaint(cause, found.phrase, Some("bash"), host(rest)?));
        }
    }
    // ssh: `connect to host H port P: `; Go: `dial tcp 1.1.1.1:80: connect: `, `lookup H on 127.0.0.1:53: `.
    for lead in ["connect to host ", "dial tcp ", "dial udp ", "lookup "] {
        if let Some((_, rest)) = before.rsplit_once(lead) {
            let program = before.starts_with("ssh: ").then_some("ssh");
            return Some(complaint(cause, found.phrase, program, host(rest)?));
        }
    }
    // Python: `[Errno -3] `, `[Errno 101] `; bash: `/bin/bash: connect: `.
    let python = before.rsplit_once("[Errno ").is_some_and(|(kind, number)| {
        number
            .strip_suffix("] ")
            .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
            && (kind.is_empty() || kind.contains("rror"))
    });
    let connect = before.ends_with(": connect: ");
    (python || connect).then(|| complaint(cause, found.phrase, None, String::new()))
}

/// The host at the beginning of `text`, in quotation marks or not, without a port.
fn host(text: &str) -> Option<String> {
    let text = text.trim_start_matches(['\'', '"', '‘', '`']);
    let end = text.find(|c: char| !(c.is_alphanumeric() || "-._:[]".contains(c))).unwrap_or(text.len());
    let host = text.get(..end)?.trim_end_matches(['.', ':']);
    if host.is_empty() || host.len() > MAX_HOST {
        return None;
    }
    // `1.1.1.1:80` has one colon, an IPv6 address several.
    Some(match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name.to_owned(),
        Some(_) | None => host.to_owned(),
    })
}

/// Whether a host is the call's own loopback.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host == "::1" || host.ends_with(".localhost") || host.starts_with("127.")
}
