//! Shell completions, manual pages and the reference page, all made from the one definition of the flags.

use std::{
    fmt::Write as _,
    fs,
    io::{ErrorKind, Write as _},
};

use clap::{Command, CommandFactory};

use crate::{
    cli::{Cli, CompletionsArgs, ManArgs},
    exit::Failure,
};

/// The definition without what the environment happens to hold, which help would show.
fn definition() -> Command {
    fn quiet(command: Command) -> Command {
        command
            .mut_args(|arg| arg.hide_env_values(true))
            .mut_subcommands(quiet)
    }
    let mut command = quiet(Cli::command().disable_help_subcommand(true));
    command.build();
    command
}

/// Writes to standard output; a reader that went away is no failure.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::disk("standard output", e)),
        _ => Ok(()),
    }
}

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bitai-miner", &mut out);
    print(&out)
}

/// Writes a manual page for the program and one for each command.
pub fn man(args: &ManArgs) -> Result<(), Failure> {
    fs::create_dir_all(&args.dir).map_err(|e| Failure::disk(&args.dir, e))?;
    clap_mangen::generate_to(definition(), &args.dir).map_err(|e| Failure::disk(&args.dir, e))
}

/// The commands below one that help tells of.
fn told(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|c| !c.is_hide_set() && c.get_name() != "help")
}

/// Prints the reference page, `docs/operator/cli.md`.
pub fn reference() -> Result<(), Failure> {
    print(reference_page().as_bytes())
}

/// The reference page as Markdown.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Commands of `bitai-miner`\n\nMade by `bitai-miner reference` from the definition that parses the arguments; a test compares them.\n\
         Global options stand with the program and hold for every command.\n",
    );
    section(&definition(), "bitai-miner", &mut page);
    page
}

fn section(command: &Command, name: &str, page: &mut String) {
    // Options of the whole program are told once, at the top.
    let own = command.clone().mut_args(|arg| {
        let global = arg.is_global_set() && name.contains(' ');
        arg.hide(global)
    });
    let help = own.clone().term_width(0).render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "\n## `{name}`\n\n```text\n{}\n```\n",
        lines.join("\n").trim_end()
    );
    for below in told(command) {
        section(below, &format!("{name} {}", below.get_name()), page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds() {
        definition().debug_assert();
    }

    #[test]
    fn the_reference_names_every_command_once_and_no_value_of_the_environment() {
        let page = reference_page();
        for name in [
            "bitai-miner run",
            "bitai-miner models import",
            "bitai-miner wallet new",
        ] {
            assert_eq!(page.matches(&format!("## `{name}`\n")).count(), 1, "{name}");
        }
        assert!(page.contains("[env: BITAI_NODE]"), "{page}");
        assert!(!page.contains("[env: BITAI_NODE="));
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let dir = tempfile::tempdir().unwrap();
        man(&ManArgs {
            dir: dir.path().join("man"),
        })
        .unwrap();
        let page = fs::read_to_string(dir.path().join("man/bitai-miner-models-import.1")).unwrap();
        assert!(
            page.contains(".TH BITAI\\-MINER\\-MODELS\\-IMPORT 1") || page.contains(".TH"),
            "{page}"
        );
        let count = fs::read_dir(dir.path().join("man")).unwrap().count();
        assert_eq!(count, reference_page().matches("\n## `").count());
    }
}
