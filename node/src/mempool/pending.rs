//! The pending state: the newest state with the mempool's transactions executed on it in order of arrival.

use alloy_primitives::{Address, U256};
use revm::ExecuteEvm;
use revm::context::result::{EVMError, ExecutionResult};
use revm::database_interface::DatabaseCommit;
use revm::state::EvmState;

use super::error::PoolError;
use crate::genesis::Genesis;
use crate::state::{StateError, View, bitcoin_hash};
use crate::transition::evm::{self, BlockSight};
use crate::transition::overlay::Overlay;
use crate::transition::{SignedTx, next_sight, revert_reason};

/// State after everything that is ready, and the block that it would run in.
#[derive(Debug)]
pub(super) struct Pending {
    overlay: Overlay<View>,
    sight: BlockSight,
    coinbase: Address,
}

impl Pending {
    /// The newest state, nothing executed yet. The next block's time and randomness are not known: the
    /// parent's serve.
    pub(super) fn new(genesis: &Genesis, view: View, coinbase: Address) -> Result<Self, StateError> {
        let (_, header) = view.tip()?;
        let sight = next_sight(genesis, &header, bitcoin_hash(&header), header.timestamp);
        Ok(Pending {
            overlay: Overlay::new(view),
            sight,
            coinbase,
        })
    }

    /// The block that transactions would run in.
    pub(super) fn sight(&self) -> BlockSight {
        self.sight
    }

    /// The state, to look at.
    pub(super) fn overlay(&self) -> Overlay<View> {
        self.overlay.clone()
    }

    /// Nonce and balance after everything that is ready.
    pub(super) fn nonce_and_balance(&mut self, address: Address) -> Result<(u64, U256), StateError> {
        self.overlay.nonce_and_balance(address)
    }

    /// Executes and keeps a transaction that is not on its way yet, if it succeeds and `accept` likes the
    /// gas it used; else nothing changes.
    pub(super) fn run(
        &mut self,
        genesis: &Genesis,
        tx: &SignedTx,
        accept: impl FnOnce(u64) -> Result<(), PoolError>,
    ) -> Result<u64, PoolError> {
        let (outcome, state) = self.simulate(genesis, tx)?;
        let gas_used = outcome?;
        accept(gas_used)?;
        self.overlay.commit(state);
        Ok(gas_used)
    }

    /// Executes and keeps a transaction that Bitcoin has or will have: it happens even if it fails.
    pub(super) fn run_inscribed(&mut self, genesis: &Genesis, tx: &SignedTx) -> Result<u64, PoolError> {
        let (outcome, state) = self.simulate(genesis, tx)?;
        self.overlay.commit(state);
        outcome
    }

    /// What a transaction would do: gas used or why it fails, and the state that it leaves. An error where
    /// no block could hold it.
    fn simulate(
        &mut self,
        genesis: &Genesis,
        tx: &SignedTx,
    ) -> Result<(Result<u64, PoolError>, EvmState), PoolError> {
        let mut evm = evm::build(
            &mut self.overlay,
            evm::cfg(genesis),
            self.sight.env(self.coinbase),
        );
        let done = evm.transact(tx.env()).map_err(|error| match error {
            EVMError::Transaction(why) => {
                PoolError::Tx(evm::refusal(why, tx.env().gas_price, self.sight.base_fee))
            }
            EVMError::Database(error) => PoolError::State(error),
            other => PoolError::State(StateError::Engine(other.to_string())),
        })?;
        let outcome = match &done.result {
            ExecutionResult::Success { gas, .. } => Ok(gas.tx_gas_used()),
            ExecutionResult::Revert { output, .. } => Err(PoolError::Reverted {
                reason: revert_reason(output),
                data: output.clone(),
            }),
            ExecutionResult::Halt { reason, .. } => Err(PoolError::Halted(format!("{reason:?}"))),
        };
        Ok((outcome, done.state))
    }
}
