//! `completions`, `man` and `reference`: what an owner's shell and manual are told.

use std::path::PathBuf;

use clap::Args;

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Whose completions
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where the pages are written
    pub dir: PathBuf,
}
