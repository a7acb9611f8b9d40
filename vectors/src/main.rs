//! `bitai-vectors generate | check`: writes the golden vectors, or compares them with the reference.

use std::process::ExitCode;

use bitai_vectors::{compare, directory, files, write};

fn main() -> ExitCode {
    let dir = directory();
    let done = match std::env::args().nth(1).as_deref() {
        Some("generate") => files().and_then(|f| write(&f, &dir).and_then(|()| compare(&f, &dir))),
        Some("check") => files().and_then(|f| compare(&f, &dir)),
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
