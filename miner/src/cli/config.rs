//! `config` as typed, and where each of its values was typed.

use std::collections::BTreeMap;

use clap::{ArgMatches, Args, Command, FromArgMatches, error::Error, parser::ValueSource};

use super::{AskPriceArgs, ChainArgs, DeviceArgs, KeyArgs, MiningArgs};

/// `config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Where it all comes from; first, because each of the others takes its arguments out of what was typed.
    #[command(flatten)]
    pub typed: Typed,
    /// Read everything, say what is wrong with it, and print nothing else
    #[arg(long)]
    pub check: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key.
    #[command(flatten)]
    pub key: KeyArgs,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// What to ask.
    #[command(flatten)]
    pub ask: AskPriceArgs,
    /// What to serve.
    #[command(flatten)]
    pub serve: MiningArgs,
}

/// Which arguments were given, and whether on the command line or by the environment; adds none itself.
#[derive(Debug, Clone, Default)]
pub struct Typed(BTreeMap<String, ValueSource>);

impl Typed {
    /// Where the argument of a setting's key was given, if it was.
    pub fn source(&self, key: &str) -> Option<ValueSource> {
        self.0.get(key).copied()
    }
}

impl FromArgMatches for Typed {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let source = |id: &clap::Id| Some((id.to_string(), matches.value_source(id.as_str())?));
        Ok(Self(matches.ids().filter_map(source).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Typed {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}
