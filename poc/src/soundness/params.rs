//! What the figures depend on, with defaults, and which values are nonsense.

use serde::Serialize;
use thiserror::Error;

use super::{
    chance::Share,
    shapes::{self, Shape},
};

/// Least satoshis that the miner asks for a job: its three default prices (`bitai-miner run --help`), at 10^10 wei each.
pub const ASK: [u64; 3] = [2_000, 6, 60];
/// Most that a rate may be, in satoshis a virtual byte.
const RATE_MAX: u64 = 10_000;

/// Assumptions. Money is in satoshis, time in blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Params {
    /// Honest parties that re-check.
    pub checkers: u64,
    /// Share of all jobs that each of them re-checks.
    pub rechecked: Share,
    /// Cost of a re-check as a share of generating.
    pub recheck_cost: Share,
    /// Log2 of the hashes that an attacker computes.
    pub hash_work: u32,
    /// Share of the validators' stake that is honest.
    pub honest: Share,
    /// Validators drawn a job.
    pub validators: u64,
    /// Validators in all.
    pub all_validators: u64,
    /// Share of jobs that are canaries.
    pub canaries: Share,
    /// Share of re-checks that a lazy validator skips.
    pub lazy: Share,
    /// Jobs over which a lazy validator is followed.
    pub jobs: u64,
    /// Jobs that a validator attests to until a canary among them is unmasked.
    pub in_flight: u64,
    /// What a validator loses for good by attesting to a canary.
    pub slash: u64,
    /// What catching a canary pays.
    pub bounty: u64,
    /// Bitcoin height, which tells the subsidy.
    pub height: u64,
    /// A Bitcoin miner's share of the hash power.
    pub hash_share: Share,
    /// Chance of the draw that this miner wants.
    pub wanted: Share,
    /// Prompt ids of a job.
    pub prompt: u64,
    /// Output ids of a job.
    pub outputs: u64,
    /// What a neuron is paid for a job.
    pub fee: u64,
    /// What a wrong answer is worth to somebody beside the fee.
    pub value: u64,
    /// Collateral of a neuron, a job.
    pub collateral: u64,
    /// Rates of Bitcoin, satoshis a virtual byte.
    pub fee_rates: Vec<u64>,
    /// Base fee of BitAI, wei a gas.
    pub base_fee: u64,
    /// Governed rate that the bond is reckoned at, satoshis a virtual byte.
    pub bond_rate: u64,
    /// Heights on each side's clock.
    pub clock: u64,
    /// Heights of the challenge window.
    pub window: u64,
    /// Models.
    pub shapes: Vec<Shape>,
}

/// Parameters that no chain can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParamError {
    /// Nobody or nothing where at least one is needed.
    #[error("{0} must be 1 or more")]
    None(&'static str),
    /// Too large.
    #[error("{what} is {got}, at most {most} makes sense")]
    Most {
        /// Which.
        what: &'static str,
        /// As given.
        got: u64,
        /// The limit.
        most: u64,
    },
    /// A job that the model does not take.
    #[error(
        "{prompt} prompt ids and {outputs} output ids do not fit the context of {context} of {name}; choose a shorter job or another model"
    )]
    Context {
        /// The model.
        name: &'static str,
        /// Prompt ids.
        prompt: u64,
        /// Output ids.
        outputs: u64,
        /// Its context.
        context: u32,
    },
}

impl Default for Params {
    fn default() -> Self {
        let (prompt, outputs) = (512, 128);
        Self {
            checkers: 10,
            rechecked: share(1, 10),
            recheck_cost: share(1, 3),
            hash_work: 80,
            honest: share(1, 2),
            validators: 8,
            all_validators: 100,
            canaries: share(2, 100),
            lazy: Share::ONE,
            jobs: 1_000,
            in_flight: 144,
            slash: 1_000_000,
            bounty: 10_000,
            height: 900_000,
            hash_share: share(3, 10),
            wanted: share(1, 2),
            prompt,
            outputs,
            fee: fee(prompt, outputs),
            value: 0,
            collateral: 1_000_000,
            fee_rates: vec![1, 10, 50],
            base_fee: 1_000_000,
            bond_rate: 10,
            clock: 144,
            window: 144,
            shapes: shapes::ALL.to_vec(),
        }
    }
}

/// A share of small numbers; where they are none, nothing.
fn share(num: u64, den: u64) -> Share {
    match Share::new(num, den) {
        Ok(share) => share,
        Err(_) => Share::ZERO,
    }
}

/// What a neuron with default prices asks for a job.
pub const fn fee(prompt: u64, outputs: u64) -> u64 {
    ASK[0]
        .saturating_add(prompt.saturating_mul(ASK[1]))
        .saturating_add(outputs.saturating_mul(ASK[2]))
}

impl Params {
    /// Refuses nonsense and names it.
    pub fn check(&self) -> Result<(), ParamError> {
        for (what, n) in [
            ("the number of checkers", self.checkers),
            ("the number of validators drawn", self.validators),
            ("the number of validators", self.all_validators),
            ("the number of jobs", self.jobs),
            ("the prompt", self.prompt),
            ("the output", self.outputs),
            ("the clock", self.clock),
            ("the window", self.window),
            ("the number of fee rates", self.fee_rates.len() as u64),
            ("the number of models", self.shapes.len() as u64),
        ] {
            if n == 0 {
                return Err(ParamError::None(what));
            }
        }
        if self.fee_rates.contains(&0) || self.bond_rate == 0 {
            return Err(ParamError::None("a fee rate in satoshis a virtual byte"));
        }
        // All of Bitcoin's money.
        let coins = 2_100_000_000_000_000;
        let rate = self
            .fee_rates
            .iter()
            .copied()
            .max()
            .unwrap_or(0)
            .max(self.bond_rate);
        for (what, got, most) in [
            ("a fee rate in satoshis a virtual byte", rate, RATE_MAX),
            ("the attacker's work", self.hash_work.into(), 256),
            ("the number of checkers", self.checkers, 1_000_000_000),
            ("the number of validators drawn", self.validators, 1_000_000),
            ("the number of validators", self.all_validators, 1_000_000),
            ("the number of jobs in flight", self.in_flight, 1_000_000_000),
            ("the clock", self.clock, 10_000),
            ("the window", self.window, 1_000_000),
            ("the fee in satoshis", self.fee, coins),
            ("the value in satoshis", self.value, coins),
            ("the collateral in satoshis", self.collateral, coins),
            ("the slash in satoshis", self.slash, coins),
            ("the bounty in satoshis", self.bounty, coins),
            ("the base fee in wei", self.base_fee, 1_000_000_000_000_000),
        ] {
            if got > most {
                return Err(ParamError::Most { what, got, most });
            }
        }
        for shape in &self.shapes {
            if self.prompt.saturating_add(self.outputs) > shape.positions.into() {
                return Err(ParamError::Context {
                    name: shape.name,
                    prompt: self.prompt,
                    outputs: self.outputs,
                    context: shape.positions,
                });
            }
        }
        Ok(())
    }

    /// Satoshis that a re-check costs: its share of what generating costs at most, which is the fee.
    pub const fn recheck_sats(&self) -> u64 {
        self.recheck_cost.of(self.fee)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense() {
        let p = Params::default();
        assert_eq!(p.check(), Ok(()));
        assert_eq!(p.fee, 12_752);
        assert_eq!(p.recheck_sats(), 4_250);
    }

    #[test]
    fn rejects_nonsense_by_name() {
        let refused = |change: fn(&mut Params)| {
            let mut p = Params::default();
            change(&mut p);
            p.check().unwrap_err().to_string()
        };
        assert!(refused(|p| p.validators = 0).contains("validators drawn must be 1"));
        assert!(refused(|p| p.fee_rates = vec![]).contains("fee rates"));
        assert!(refused(|p| p.fee_rates = vec![1, 0]).contains("fee rate"));
        assert!(refused(|p| p.fee_rates = vec![10_001]).contains("at most 10000"));
        assert!(refused(|p| p.hash_work = 300).contains("work is 300"));
        assert!(refused(|p| p.prompt = 9_000).contains("context of 8192 of SmolLM2"));
        assert!(refused(|p| p.outputs = u64::MAX).contains("do not fit"));
        assert!(refused(|p| p.clock = 0).contains("clock"));
        assert!(refused(|p| p.collateral = u64::MAX).contains("collateral"));
        assert!(refused(|p| p.shapes = vec![]).contains("models"));
    }
}
