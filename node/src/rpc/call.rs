//! Execution without consequence: `eth_call` and `eth_estimateGas`.

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::rpc::types::TransactionRequest;
use alloy::rpc::types::state::StateOverride;
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256, keccak256};
use revm::ExecuteEvm;
use revm::bytecode::Bytecode;
use revm::context::result::{EVMError, ExecutionResult};
use revm::context::{CfgEnv, TxEnv};
use revm::context_interface::either::Either;
use revm::database_interface::Database;

use super::Context;
use super::budget::Budget;
use super::error::{Answer, SERVER_ERROR, error, internal, invalid, reverted};
use super::ground::Ground;
use crate::state::StateError;
use crate::transition::{evm, revert_reason};

/// Most gas that one call may use, so that a request cannot occupy the node for long.
pub(crate) const CALL_GAS_CAP: u64 = 1_000_000_000;
/// Gas prices above this are refused: gas times price must fit 128 bits.
const MAX_GAS_PRICE: u128 = 1 << 80;

impl Context {
    /// Rules of a call: Osaka's, without a nonce, a signature or a block that it must fit.
    fn call_cfg(&self, free: bool) -> CfgEnv {
        let mut cfg = evm::cfg(self.chain.genesis());
        cfg.disable_nonce_check = true;
        cfg.disable_eip3607 = true;
        cfg.disable_block_gas_limit = true;
        cfg.disable_base_fee = free;
        cfg.tx_chain_id_check = false;
        cfg
    }

    /// `eth_call`.
    pub(crate) fn call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        overrides: Option<StateOverride>,
        budget: &Budget,
    ) -> Answer<Bytes> {
        let mut ground = self.ground(block)?;
        apply_overrides(&mut ground, overrides)?;
        let gas = request.gas.unwrap_or(CALL_GAS_CAP).min(CALL_GAS_CAP);
        match self.execute(&mut ground, &request, gas, budget)? {
            ExecutionResult::Success { output, .. } => Ok(output.into_data()),
            ExecutionResult::Revert { output, .. } => Err(reverted(revert_reason(&output), &output)),
            ExecutionResult::Halt { reason, .. } => {
                Err(error(SERVER_ERROR, format!("execution failed: {reason:?}")))
            }
        }
    }

    /// `eth_estimateGas`: the least gas limit that succeeds, to about one part in 64, and never more than
    /// the transaction's own bytes may use (PROTOCOL 16).
    pub(crate) fn estimate(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        overrides: Option<StateOverride>,
        budget: &Budget,
    ) -> Answer<u64> {
        let block = block.unwrap_or(BlockId::Number(BlockNumberOrTag::Pending));
        let mut ground = self.ground(Some(block))?;
        apply_overrides(&mut ground, overrides)?;
        let raw_len = raw_len(&request);
        let by_bytes = (raw_len as u64)
            .saturating_mul(self.chain.genesis().gas_per_byte)
            .min(CALL_GAS_CAP);
        let mut high = request.gas.unwrap_or(u64::MAX).min(by_bytes);
        let price = price_of(&request)?.0;
        if price > 0 {
            let from = request.from.unwrap_or_default();
            let (_, balance) = ground.overlay.nonce_and_balance(from).map_err(internal)?;
            let left = balance.saturating_sub(request.value.unwrap_or_default());
            high = high.min((left / U256::from(price)).saturating_to());
        }
        let used = match self.execute(&mut ground, &request, high, budget)? {
            ExecutionResult::Success { gas, .. } => gas.tx_gas_used(),
            ExecutionResult::Revert { output, .. } => return Err(reverted(revert_reason(&output), &output)),
            ExecutionResult::Halt { reason, .. } => {
                return Err(error(
                    SERVER_ERROR,
                    format!(
                        "execution failed with {high} gas: {reason:?}; a transaction of {raw_len} bytes may use \
                         {by_bytes} (append calldata for more)"
                    ),
                ));
            }
        };
        // Less than it used cannot do, except for what a refund gave back at the end.
        let mut low = used.saturating_sub(1);
        while low + 1 < high {
            // First a guess that is right for most calls: each call keeps a 64th back.
            let guess = if low + 1 == used {
                used + used / 63 + 2_300
            } else {
                low + (high - low) / 2
            };
            let middle = guess.clamp(low + 1, high - 1);
            if budget.left() < middle {
                // What is known to suffice is an answer, too.
                break;
            }
            match self.execute(&mut ground, &request, middle, budget) {
                Ok(ExecutionResult::Success { .. }) => high = middle,
                _ => low = middle,
            }
            if high - low <= high / 64 {
                break;
            }
        }
        Ok(high)
    }

    /// Runs a request on a state that keeps nothing of it, and takes what it used from the budget. An error
    /// where the budget had too little for it.
    fn execute(
        &self,
        ground: &mut Ground,
        request: &TransactionRequest,
        gas: u64,
        budget: &Budget,
    ) -> Answer<ExecutionResult> {
        let granted = gas.min(budget.left());
        if granted == 0 && gas > 0 {
            return Err(Budget::exceeded());
        }
        let tx = self.env(request, granted)?;
        let (max_fee, base_fee) = (tx.gas_price, ground.sight.base_fee);
        let coinbase = self.fee_recipient();
        let mut evm = evm::build(
            &mut ground.overlay,
            self.call_cfg(max_fee == 0),
            ground.sight.env(coinbase),
        );
        match evm.transact(tx) {
            Ok(done) => {
                let (used, halted) = match &done.result {
                    ExecutionResult::Success { gas, .. } | ExecutionResult::Revert { gas, .. } => {
                        (gas.total_gas_spent(), false)
                    }
                    ExecutionResult::Halt { .. } => (granted, true),
                };
                budget.spend(used);
                if halted && granted < gas {
                    return Err(Budget::exceeded());
                }
                Ok(done.result)
            }
            Err(EVMError::Transaction(_)) if granted < gas => Err(Budget::exceeded()),
            Err(EVMError::Transaction(why)) => Err(error(
                SERVER_ERROR,
                evm::refusal(why, max_fee, base_fee).to_string(),
            )),
            Err(EVMError::Database(e)) => Err(internal(e)),
            Err(other) => Err(internal(StateError::Engine(other.to_string()))),
        }
    }

    fn env(&self, request: &TransactionRequest, gas: u64) -> Answer<TxEnv> {
        let want = self.chain.genesis().chain_id();
        if let Some(got) = request.chain_id.filter(|got| *got != want) {
            return Err(invalid(format!(
                "invalid chain id: request names {got}, this chain is {want}"
            )));
        }
        let (price, tip) = price_of(request)?;
        let tx_type = if request.authorization_list.is_some() {
            4
        } else if tip.is_some() {
            2
        } else {
            u8::from(request.access_list.is_some())
        };
        Ok(TxEnv {
            tx_type,
            caller: request.from.unwrap_or_default(),
            gas_limit: gas,
            gas_price: price,
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data: request.input.input().cloned().unwrap_or_default(),
            nonce: request.nonce.unwrap_or_default(),
            chain_id: Some(want),
            access_list: request.access_list.clone().unwrap_or_default(),
            gas_priority_fee: tip,
            blob_hashes: Vec::new(),
            max_fee_per_blob_gas: 0,
            authorization_list: request
                .authorization_list
                .iter()
                .flatten()
                .cloned()
                .map(Either::Left)
                .collect(),
        })
    }

    /// COINBASE of calls.
    pub(crate) fn fee_recipient(&self) -> Address {
        self.inscriber
            .as_ref()
            .map_or(Address::ZERO, |i| i.fee_recipient())
    }
}

/// Price (the maximum where there are two) and priority fee of a request; zero where it names none.
fn price_of(request: &TransactionRequest) -> Answer<(u128, Option<u128>)> {
    let price = request.gas_price.or(request.max_fee_per_gas).unwrap_or_default();
    if price > MAX_GAS_PRICE {
        return Err(invalid(format!("gas price {price} is above {MAX_GAS_PRICE} wei")));
    }
    let dynamic = request.gas_price.is_none() && request.max_fee_per_gas.is_some();
    Ok((
        price,
        dynamic.then(|| request.max_priority_fee_per_gas.unwrap_or_default().min(price)),
    ))
}

/// Bytes that the request has as a signed transaction, on the safe side: small fees, no access list.
fn raw_len(request: &TransactionRequest) -> usize {
    let tx = TxEip1559 {
        // Not of this chain only: every BitAI chain id has two bytes.
        chain_id: 22_213,
        nonce: request.nonce.unwrap_or_default(),
        gas_limit: 21_000,
        max_fee_per_gas: request.max_fee_per_gas.unwrap_or(1 << 20),
        max_priority_fee_per_gas: request.max_priority_fee_per_gas.unwrap_or(1),
        to: request.to.unwrap_or(TxKind::Create),
        value: request.value.unwrap_or_default(),
        access_list: request.access_list.clone().unwrap_or_default(),
        input: request.input.input().cloned().unwrap_or_default(),
    };
    // r and s of 30 bytes: shorter ones come once in 60,000 signatures.
    let part = U256::MAX >> 16;
    let signature = Signature::new(part, part, false);
    TxEnvelope::from(tx.into_signed(signature)).encode_2718_len()
}

/// Changes the state as the request asks (geth's third parameter of `eth_call`).
fn apply_overrides(ground: &mut Ground, overrides: Option<StateOverride>) -> Answer<()> {
    for (address, change) in overrides.unwrap_or_default() {
        if change.move_precompile_to.is_some() {
            return Err(invalid("movePrecompileToAddress is not supported"));
        }
        let mut info = ground
            .overlay
            .basic(address)
            .map_err(internal)?
            .unwrap_or_default();
        if let Some(balance) = change.balance {
            info.balance = balance;
        }
        if let Some(nonce) = change.nonce {
            info.nonce = nonce;
        }
        if let Some(code) = change.code {
            info.code_hash = keccak256(&code);
            info.code = Some(Bytecode::new_raw_checked(code).map_err(|e| invalid(format!("code: {e}")))?);
        }
        ground.overlay.set_account(address, info);
        let whole = change.state.inspect(|_| ground.overlay.wipe_storage(address));
        for (slot, value) in whole
            .into_iter()
            .flatten()
            .chain(change.state_diff.into_iter().flatten())
        {
            ground.overlay.set_storage(address, slot.into(), value.into());
        }
    }
    Ok(())
}
