//! Entry point: one binary, one role a process. Parses the role and calls one function.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    oxibot_toolhost::roles::run()
}
