//! The `bitai-miner` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    bitai_miner::commands::main(std::env::args_os())
}
