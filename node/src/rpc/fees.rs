//! What gas costs: `eth_gasPrice`, `eth_maxPriorityFeePerGas`, `eth_feeHistory`.

use alloy::eips::BlockNumberOrTag;
use alloy::rpc::types::FeeHistory;
use alloy_primitives::U256;

use super::Context;
use super::error::{Answer, NOT_FOUND, error, internal, invalid};
use crate::transition::ExecutedTx;
use crate::transition::header::next_base_fee;

/// Most blocks of history in one answer.
const MAX_HISTORY: u64 = 1_024;
/// Most percentiles in one request.
const MAX_PERCENTILES: usize = 100;

impl Context {
    /// Base fee of the next block.
    fn next_base_fee(&self) -> u64 {
        let (_, header) = self.chain.head();
        next_base_fee(
            &self.chain.genesis().fee_rule,
            header.base_fee_per_gas.unwrap_or_default(),
            header.gas_used,
        )
    }

    /// Priority fee that gets a transaction inscribed: what the inscriber's satoshis cost.
    pub(crate) fn priority_fee(&self) -> U256 {
        self.mempool.suggested_priority_fee()
    }

    /// Price for legacy transactions: the next base fee with two blocks of rise to spare, and the above.
    pub(crate) fn gas_price(&self) -> U256 {
        let base_fee = U256::from(self.next_base_fee());
        base_fee + base_fee / U256::from(4) + self.priority_fee()
    }

    /// `eth_feeHistory`. Rewards are never below what inscribing costs now: wallets take them as advice,
    /// and on an empty chain zero would be bad advice.
    pub(crate) fn fee_history(
        &self,
        count: u64,
        newest: BlockNumberOrTag,
        percentiles: Option<Vec<f64>>,
    ) -> Answer<FeeHistory> {
        let view = self.chain.view().map_err(internal)?;
        let newest = self.height(newest).unwrap_or(view.height());
        if newest > view.height() {
            return Err(error(NOT_FOUND, format!("block {newest} not found")));
        }
        let percentiles = percentiles.unwrap_or_default();
        let ordered = percentiles.windows(2).all(|w| w[0] <= w[1]);
        if percentiles.len() > MAX_PERCENTILES
            || !ordered
            || percentiles.iter().any(|p| !(0.0..=100.0).contains(p))
        {
            return Err(invalid(
                "reward percentiles must rise from 0 to 100, at most 100 of them",
            ));
        }
        let count = count.min(MAX_HISTORY).min(newest + 1);
        let oldest = newest + 1 - count;
        let floor: u128 = self.priority_fee().saturating_to();
        let mut history = FeeHistory {
            oldest_block: oldest,
            ..Default::default()
        };
        let mut rewards = Vec::new();
        for height in oldest..=newest {
            let Some((_, header)) = view.header(height).map_err(internal)? else {
                break;
            };
            let base_fee = header.base_fee_per_gas.unwrap_or_default();
            history.base_fee_per_gas.push(base_fee.into());
            // For display only: JSON-RPC defines it as a fraction.
            history
                .gas_used_ratio
                .push(header.gas_used as f64 / header.gas_limit as f64);
            history.base_fee_per_blob_gas.push(1);
            history.blob_gas_used_ratio.push(0.0);
            if !percentiles.is_empty() {
                let txs = view.body(height).map_err(internal)?;
                rewards.push(block_rewards(
                    &txs,
                    header.gas_used,
                    base_fee,
                    &percentiles,
                    floor,
                ));
            }
            if height == newest {
                let rule = &self.chain.genesis().fee_rule;
                history
                    .base_fee_per_gas
                    .push(next_base_fee(rule, base_fee, header.gas_used).into());
                history.base_fee_per_blob_gas.push(1);
            }
        }
        history.reward = (!percentiles.is_empty()).then_some(rewards);
        Ok(history)
    }
}

/// Priority fees at these percentiles of a block's gas.
fn block_rewards(
    txs: &[ExecutedTx],
    gas_used: u64,
    base_fee: u64,
    percentiles: &[f64],
    floor: u128,
) -> Vec<u128> {
    let mut fees: Vec<(u128, u64)> = txs
        .iter()
        .map(|tx| (tx.gas_price.saturating_sub(u128::from(base_fee)), tx.gas_used))
        .collect();
    fees.sort_unstable();
    percentiles
        .iter()
        .map(|percentile| {
            let threshold = (gas_used as f64 * percentile / 100.0) as u64;
            let mut sum = 0;
            let at = fees.iter().find(|(_, gas)| {
                sum += gas;
                sum >= threshold
            });
            at.map_or(floor, |(fee, _)| (*fee).max(floor))
        })
        .collect()
}
