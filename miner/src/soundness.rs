//! `soundness`: what each tier of verification catches, with what chance and at what cost; needs no chain, wallet or model.

use bitai_poc::soundness::{Params, Report, ReportError, Shape, Share, ShareError, params, report, shapes};
use clap::{Args, ValueEnum};

use crate::exit::Failure;

/// A model whose disputes are priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// SmolLM2-135M
    #[value(name = "135m")]
    Small,
    /// A billion weights, the shape of Llama 3.2 1B
    #[value(name = "1b")]
    One,
    /// Eight billion weights, the shape of Llama 3.1 8B
    #[value(name = "8b")]
    Eight,
    /// The largest that can be disputed
    Maxima,
}

impl Model {
    const fn shape(self) -> Shape {
        match self {
            Self::Small => shapes::SMOLLM2,
            Self::One => shapes::ONE_B,
            Self::Eight => shapes::EIGHT_B,
            Self::Maxima => shapes::MAXIMA,
        }
    }
}

/// `soundness`
#[derive(Debug, Clone, Args)]
pub struct SoundnessArgs {
    /// Models whose disputes are priced [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub model: Vec<Model>,
    /// Rates of Bitcoin, satoshis a virtual byte [default: 1,10,50]
    #[arg(long, value_delimiter = ',', value_name = "SATS")]
    pub fee_rate: Vec<u64>,
    /// Honest parties that re-check [default: 10]
    #[arg(long, value_name = "N")]
    pub checkers: Option<u64>,
    /// Share of all jobs that each of them re-checks [default: 0.1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub rechecked: Option<Share>,
    /// Cost of a re-check as a share of generating [default: a third]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub recheck_cost: Option<Share>,
    /// Log2 of the hashes that an attacker computes [default: 80]
    #[arg(long, value_name = "BITS")]
    pub hash_work: Option<u32>,
    /// Share of the validators' stake that is honest [default: 0.5]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub honest: Option<Share>,
    /// Validators drawn a job [default: 8]
    #[arg(long, value_name = "N")]
    pub validators: Option<u64>,
    /// Validators in all, for the row of equal stakes [default: 100]
    #[arg(long, value_name = "N")]
    pub all_validators: Option<u64>,
    /// Share of jobs that are canaries [default: 0.02]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub canaries: Option<Share>,
    /// Share of its re-checks that a lazy validator skips [default: 1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub lazy: Option<Share>,
    /// Jobs over which a lazy validator is followed [default: 1000]
    #[arg(long, value_name = "N")]
    pub jobs: Option<u64>,
    /// Jobs that a validator attests to until a canary among them is unmasked [default: 144]
    #[arg(long, value_name = "N")]
    pub in_flight: Option<u64>,
    /// Satoshis that a validator loses for good by attesting to a canary [default: 1000000]
    #[arg(long, value_name = "SATS")]
    pub slash: Option<u64>,
    /// Satoshis for catching a canary [default: 10000]
    #[arg(long, value_name = "SATS")]
    pub bounty: Option<u64>,
    /// Bitcoin height, which tells the subsidy [default: 900000]
    #[arg(long, value_name = "HEIGHT")]
    pub height: Option<u64>,
    /// A Bitcoin miner's share of the hash power [default: 0.3]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub hash_share: Option<Share>,
    /// Chance of the draw that this miner wants [default: 0.5]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub wanted: Option<Share>,
    /// Prompt ids of a job [default: 512]
    #[arg(long, value_name = "IDS")]
    pub prompt: Option<u64>,
    /// Output ids of a job [default: 128]
    #[arg(long, value_name = "IDS")]
    pub outputs: Option<u64>,
    /// Satoshis that a neuron gets for a job [default: what `run` asks by itself]
    #[arg(long, value_name = "SATS")]
    pub fee: Option<u64>,
    /// Satoshis that a wrong answer is worth to somebody beside the fee [default: 0]
    #[arg(long, value_name = "SATS")]
    pub value: Option<u64>,
    /// Satoshis of a neuron's collateral a job [default: 1000000]
    #[arg(long, value_name = "SATS")]
    pub collateral: Option<u64>,
    /// BitAI's base fee, wei a gas [default: 1000000, the least]
    #[arg(long, value_name = "WEI")]
    pub base_fee: Option<u64>,
    /// Governed rate of the bond, satoshis a virtual byte [default: 10]
    #[arg(long, value_name = "SATS")]
    pub bond_rate: Option<u64>,
    /// Heights on each side's clock [default: 144]
    #[arg(long, value_name = "BLOCKS")]
    pub clock: Option<u64>,
    /// Heights of the challenge window [default: 144]
    #[arg(long, value_name = "BLOCKS")]
    pub window: Option<u64>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

fn share(text: &str) -> Result<Share, ShareError> {
    text.parse()
}

/// Puts what was typed in the place of a default.
fn set<T: Copy>(to: &mut T, typed: Option<T>) {
    if let Some(typed) = typed {
        *to = typed;
    }
}

impl SoundnessArgs {
    /// The parameters meant.
    pub fn params(&self) -> Params {
        let mut p = Params::default();
        set(&mut p.checkers, self.checkers);
        set(&mut p.rechecked, self.rechecked);
        set(&mut p.recheck_cost, self.recheck_cost);
        set(&mut p.hash_work, self.hash_work);
        set(&mut p.honest, self.honest);
        set(&mut p.validators, self.validators);
        set(&mut p.all_validators, self.all_validators);
        set(&mut p.canaries, self.canaries);
        set(&mut p.lazy, self.lazy);
        set(&mut p.jobs, self.jobs);
        set(&mut p.in_flight, self.in_flight);
        set(&mut p.slash, self.slash);
        set(&mut p.bounty, self.bounty);
        set(&mut p.height, self.height);
        set(&mut p.hash_share, self.hash_share);
        set(&mut p.wanted, self.wanted);
        set(&mut p.prompt, self.prompt);
        set(&mut p.outputs, self.outputs);
        p.fee = self.fee.unwrap_or_else(|| params::fee(p.prompt, p.outputs));
        set(&mut p.value, self.value);
        set(&mut p.collateral, self.collateral);
        set(&mut p.base_fee, self.base_fee);
        set(&mut p.bond_rate, self.bond_rate);
        set(&mut p.clock, self.clock);
        set(&mut p.window, self.window);
        if !self.fee_rate.is_empty() {
            p.fee_rates.clone_from(&self.fee_rate);
        }
        if !self.model.is_empty() {
            p.shapes = self.model.iter().map(|m| m.shape()).collect();
        }
        p
    }
}

/// Reckons.
fn made(args: &SoundnessArgs) -> Result<Report, Failure> {
    report(&args.params()).map_err(|e| match e {
        ReportError::Param(e) => Failure::Usage(format!("soundness: {e}")),
        ReportError::Measured(e) => Failure::Internal(anyhow::Error::new(e).context("a file of this build")),
    })
}

/// Runs the command.
pub fn run(args: &SoundnessArgs) -> Result<(), Failure> {
    let report = made(args)?;
    if args.json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("printing JSON")))?;
        println!("{text}");
    } else {
        print!("{report}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;

    use super::*;
    use crate::config::Ask;

    #[test]
    fn the_default_fee_is_what_a_neuron_asks_by_itself() {
        let asked = Ask::default();
        let wei = asked.per_job + U256::from(512 * asked.per_input + 128 * asked.per_output);
        let sats = wei.div_ceil(U256::from(bitai_poc::soundness::money::WEI_PER_SAT));
        assert_eq!(U256::from(Params::default().fee), sats);
    }
}
