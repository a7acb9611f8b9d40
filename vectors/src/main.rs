//! `bitai-vectors generate | check`: writes the golden vectors, or compares them with the reference.

use std::process::ExitCode;

fn main() -> ExitCode {
    let dir = bitai_vectors::directory();
    let done = match std::env::args().nth(1).as_deref() {
        Some("generate") => bitai_vectors::generate(&dir).and_then(|()| bitai_vectors::check(&dir)),
        Some("check") => bitai_vectors::check(&dir),
        _ => {
            eprintln!("usage: bitai-vectors generate | check");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(cases) => {
            println!("{cases} cases agree with the reference");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
