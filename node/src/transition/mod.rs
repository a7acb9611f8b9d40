//! The pure state transition: a Bitcoin block and a state in, a BitAI block and the changed state out.
//! No clock, no network, no float, no storage of its own.

pub mod evm;
pub mod header;
pub mod order;
pub mod overlay;
pub mod precompiles;
pub mod tx;

use alloy::consensus::proofs::{calculate_receipt_root, calculate_transaction_root};
use alloy::consensus::{Header, Transaction, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, Log, U256, keccak256};
use bitai_types::chain::HEADER_HASHES;
use revm::context::result::{EVMError, ExecutionResult};
use revm::database_interface::DatabaseRef;

use crate::block::{BlockInput, Inscribed};
use crate::genesis::Genesis;
use evm::{BlockSight, RunError};
use order::{Candidate, Order};
use overlay::{Overlay, StateChanges};
pub use tx::{SignedTx, TxError};

/// Times that transactions which lacked funds or an earlier nonce are tried again after others ran: money
/// may reach a sender in the same block, though its own transaction pays more.
pub const RETRY_PASSES: u32 = 4;

/// A transaction that ran, successful or reverted, and what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutedTx {
    /// The transaction.
    pub tx: TxEnvelope,
    /// Who signed it.
    pub sender: Address,
    /// Whether it did not revert or halt.
    pub success: bool,
    /// Gas it used.
    pub gas_used: u64,
    /// Gas of the block up to and with it.
    pub cumulative_gas_used: u64,
    /// Wei per gas that it paid.
    pub gas_price: u128,
    /// Logs of a successful run.
    pub logs: Vec<Log>,
    /// Address of the contract that it created, if it is a creation.
    pub contract: Option<Address>,
    /// Its COINBASE: who got the priority fee.
    pub fee_recipient: Address,
    /// Txid of the reveal that carried it, internal byte order.
    pub reveal_txid: B256,
}

/// A transaction that a block carried and that did not run; it paid nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTx {
    /// keccak256 of its raw bytes.
    pub hash: B256,
    /// Txid of the reveal that carried it, internal byte order.
    pub reveal_txid: B256,
    /// Why.
    pub reason: TxError,
}

/// A block that ran. Its header lacks only the state root.
#[derive(Debug, Clone)]
pub struct BlockOutcome {
    /// The header; its state root is not set yet.
    pub header: Header,
    /// What ran, in order.
    pub txs: Vec<ExecutedTx>,
    /// What did not.
    pub dropped: Vec<DroppedTx>,
    /// The state afterwards, as changes.
    pub changes: StateChanges,
}

/// What transactions see of the block after `parent`.
pub fn next_sight(
    genesis: &Genesis,
    parent: &Header,
    bitcoin_hash: B256,
    median_time_past: u64,
) -> BlockSight {
    BlockSight {
        number: parent.number + 1,
        timestamp: median_time_past.max(parent.timestamp.saturating_add(1)),
        gas_limit: genesis.block_gas_limit(),
        base_fee: header::next_base_fee(
            &genesis.fee_rule,
            parent
                .base_fee_per_gas
                .unwrap_or(genesis.fee_rule.initial_base_fee),
            parent.gas_used,
        ),
        prevrandao: header::prevrandao(bitcoin_hash),
    }
}

/// Executes the Bitcoin block after `parent` (whose hash is given) on `state`. Fails only when the state
/// cannot be read; what a block contains is never an error.
pub fn execute<S: DatabaseRef>(
    genesis: &Genesis,
    parent: &Header,
    parent_hash: B256,
    state: S,
    input: &BlockInput,
) -> Result<BlockOutcome, EVMError<S::Error>> {
    let sight = next_sight(genesis, parent, input.hash, input.median_time_past);
    let mut overlay = Overlay::new(state);
    overlay.set_storage(HEADER_HASHES, U256::from(sight.number), input.hash.into());

    let mut dropped = Vec::new();
    let mut waiting = Vec::new();
    for envelope in &input.envelopes {
        admit(genesis, envelope, sight.base_fee, &mut waiting, &mut dropped);
    }

    let mut evm = evm::build(overlay, evm::cfg(genesis), sight.env(Address::ZERO));
    let mut txs: Vec<ExecutedTx> = Vec::new();
    let mut gas_used = 0;
    for pass in 0..=RETRY_PASSES {
        let ran_before = txs.len();
        let mut order = Order::new(std::mem::take(&mut waiting));
        let mut parked = Vec::new();
        while let Some(candidate) = order.take() {
            evm.ctx.block.beneficiary = candidate.fee_recipient;
            match evm::run(&mut evm, candidate.tx.env(), sight.base_fee) {
                Ok(result) => {
                    let done = executed(candidate, result, sight.base_fee, gas_used);
                    gas_used = done.cumulative_gas_used;
                    txs.push(done);
                }
                Err(RunError::Fatal(error)) => return Err(error),
                Err(RunError::Refused(reason)) => parked.push((candidate, reason)),
            }
        }
        let again = txs.len() > ran_before && pass < RETRY_PASSES;
        for (candidate, reason) in parked {
            let may_change = matches!(reason, TxError::Funds { .. } | TxError::NonceTooHigh { .. });
            if again && may_change {
                waiting.push(candidate);
            } else {
                dropped.push(DroppedTx {
                    hash: candidate.tx.hash,
                    reveal_txid: candidate.reveal_txid,
                    reason,
                });
            }
        }
        if waiting.is_empty() {
            break;
        }
    }

    let receipts: Vec<_> = txs.iter().map(ExecutedTx::receipt).collect();
    let envelopes: Vec<_> = txs.iter().map(|t| &t.tx).collect();
    let mut bloom = alloy_primitives::Bloom::ZERO;
    for receipt in &receipts {
        bloom.accrue_bloom(receipt.logs_bloom());
    }
    let header = Header {
        parent_hash,
        transactions_root: calculate_transaction_root(&envelopes),
        receipts_root: calculate_receipt_root(&receipts),
        logs_bloom: bloom,
        number: sight.number,
        gas_limit: sight.gas_limit,
        gas_used,
        timestamp: sight.timestamp,
        base_fee_per_gas: Some(sight.base_fee),
        ..header::blank(input.hash)
    };
    let changes = evm.ctx.journaled_state.database.into_changes();
    Ok(BlockOutcome {
        header,
        txs,
        dropped,
        changes,
    })
}

/// Decodes an envelope's transactions and applies the rules that need no state: the gas of each is bounded
/// by its own bytes, the gas of all together by the envelope's bytes as inscribed, so that compression
/// buys no computing.
fn admit(
    genesis: &Genesis,
    envelope: &Inscribed,
    base_fee: u64,
    waiting: &mut Vec<Candidate>,
    dropped: &mut Vec<DroppedTx>,
) {
    let mut left = u64::from(envelope.payload_len).saturating_mul(genesis.gas_per_byte);
    for (index, raw) in (0u32..).zip(&envelope.txs) {
        let reveal_txid = envelope.reveal_txid;
        let mut check = || {
            let tx = SignedTx::decode(raw, genesis)?;
            let gas_limit = tx.tx.gas_limit();
            let Some(rest) = left.checked_sub(gas_limit) else {
                return Err(TxError::EnvelopeGas { gas_limit, left });
            };
            let max_fee = tx.tx.max_fee_per_gas();
            let priority_fee = tx
                .priority_fee(base_fee)
                .ok_or(TxError::FeeBelowBase { max_fee, base_fee })?;
            left = rest;
            Ok(Candidate {
                tx,
                priority_fee,
                position: envelope.position,
                index,
                fee_recipient: envelope.fee_recipient,
                reveal_txid,
            })
        };
        match check() {
            Ok(candidate) => waiting.push(candidate),
            Err(reason) => dropped.push(DroppedTx {
                hash: keccak256(raw),
                reveal_txid,
                reason,
            }),
        }
    }
}

/// Shapes what revm says of a transaction that ran.
fn executed(candidate: Candidate, result: ExecutionResult, base_fee: u64, gas_before: u64) -> ExecutedTx {
    let gas_used = result.gas().tx_gas_used();
    let SignedTx { tx, sender, .. } = candidate.tx;
    ExecutedTx {
        success: result.is_success(),
        gas_used,
        cumulative_gas_used: gas_before + gas_used,
        gas_price: u128::from(base_fee) + candidate.priority_fee,
        contract: tx.is_create().then(|| sender.create(tx.nonce())),
        // Only a successful run leaves logs; revm also hands out those before a revert.
        logs: if result.is_success() {
            result.into_logs()
        } else {
            Vec::new()
        },
        tx,
        sender,
        fee_recipient: candidate.fee_recipient,
        reveal_txid: candidate.reveal_txid,
    }
}

impl ExecutedTx {
    /// The receipt, as the receipts root commits to it.
    pub fn receipt(&self) -> alloy::consensus::ReceiptEnvelope {
        header::receipt(
            self.tx.tx_type(),
            self.success,
            self.cumulative_gas_used,
            self.logs.clone(),
        )
    }
}

/// What a reverted run says: `Error(string)`, `Panic(code)`, or the custom error's bytes as hex.
pub fn revert_reason(output: &Bytes) -> String {
    use alloy::sol_types::{Panic, Revert, SolError};
    if output.is_empty() {
        return "execution reverted".into();
    }
    if let Ok(revert) = Revert::abi_decode(output) {
        return format!("execution reverted: {}", revert.reason);
    }
    if let Ok(panic) = Panic::abi_decode(output) {
        return format!("execution reverted: {panic}");
    }
    format!("execution reverted: custom error {output}")
}
