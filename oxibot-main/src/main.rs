//! Entry point of `oxibot`: parses arguments and calls one function.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
