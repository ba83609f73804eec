//! Entry point of `oxibot`: calls one function.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    oxibot_main::commands::run()
}
