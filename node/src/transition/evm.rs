//! The EVM as BitAI configures it: revm pinned to Osaka, larger code, gas bounded by bytes, our precompiles.

use alloy_primitives::{Address, B256, U256};
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use revm::context::{BlockEnv, CfgEnv, Context, TxEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::database_interface::{Database, DatabaseCommit};
use revm::handler::{EthPrecompiles, MainnetContext, MainnetEvm};
use revm::primitives::hardfork::SpecId;
use revm::{ExecuteEvm, MainBuilder, MainContext};

use super::precompiles;
use super::tx::TxError;
use crate::genesis::Genesis;

/// Ethereum's rules as of this fork, and none that come later unless a new genesis says so.
pub const SPEC: SpecId = SpecId::OSAKA;

/// Largest runtime code, bytes (Ethereum: 24,576). Init code may be twice that.
pub const MAX_CODE_BYTES: usize = 131_072;

/// An EVM over a database.
pub type Evm<DB> = MainnetEvm<MainnetContext<DB>>;

/// What a block's transactions can see of it, apart from COINBASE, which each has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSight {
    /// BitAI height.
    pub number: u64,
    /// Unix seconds.
    pub timestamp: u64,
    /// Gas limit of the block.
    pub gas_limit: u64,
    /// Base fee per gas, wei.
    pub base_fee: u64,
    /// PROTOCOL 17.
    pub prevrandao: B256,
}

impl BlockSight {
    /// revm's form, with this coinbase.
    pub fn env(&self, coinbase: Address) -> BlockEnv {
        BlockEnv {
            number: U256::from(self.number),
            beneficiary: coinbase,
            timestamp: U256::from(self.timestamp),
            gas_limit: self.gas_limit,
            basefee: self.base_fee,
            difficulty: U256::ZERO,
            prevrandao: Some(self.prevrandao),
            // No blobs: the price is the least there is.
            blob_excess_gas_and_price: Some(BlobExcessGasAndPrice {
                excess_blob_gas: 0,
                blob_gasprice: 1,
            }),
            slot_num: 0,
        }
    }
}

/// The configuration of every consensus execution.
pub fn cfg(genesis: &Genesis) -> CfgEnv {
    let mut cfg = CfgEnv::new_with_spec(SPEC).with_chain_id(genesis.chain_id());
    cfg.limit_contract_code_size = Some(MAX_CODE_BYTES);
    cfg.limit_contract_initcode_size = Some(2 * MAX_CODE_BYTES);
    // EIP-7825's cap would make a long dispute step impossible; the rule of bytes bounds gas instead.
    cfg.tx_gas_limit_cap = Some(genesis.block_gas_limit());
    cfg
}

/// Builds an EVM.
pub fn build<DB: Database>(db: DB, cfg: CfgEnv, block: BlockEnv) -> Evm<DB> {
    Context::mainnet()
        .with_db(db)
        .with_cfg(cfg)
        .with_block(block)
        .build_mainnet()
        .with_precompiles(EthPrecompiles {
            precompiles: precompiles::all(),
            spec: SPEC,
        })
}

/// Why a transaction did not run.
#[derive(Debug)]
pub enum RunError<E> {
    /// The transaction is at fault; the state is as before.
    Refused(TxError),
    /// The database is at fault (or revm, with a text).
    Fatal(EVMError<E>),
}

/// Runs one transaction and keeps what it did in the EVM's database.
pub fn run<DB: Database + DatabaseCommit>(
    evm: &mut Evm<DB>,
    tx: TxEnv,
    base_fee: u64,
) -> Result<ExecutionResult, RunError<DB::Error>> {
    let max_fee = tx.gas_price;
    match evm.transact(tx) {
        Ok(done) => {
            evm.ctx.journaled_state.database.commit(done.state);
            Ok(done.result)
        }
        Err(EVMError::Transaction(why)) => Err(RunError::Refused(refusal(why, max_fee, base_fee))),
        Err(other) => Err(RunError::Fatal(other)),
    }
}

/// revm's refusal in our words.
pub fn refusal(why: InvalidTransaction, max_fee: u128, base_fee: u64) -> TxError {
    match why {
        InvalidTransaction::NonceTooLow { tx, state } => TxError::NonceTooLow { next: state, got: tx },
        InvalidTransaction::NonceTooHigh { tx, state } => TxError::NonceTooHigh { next: state, got: tx },
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => TxError::Funds {
            have: *balance,
            want: *fee,
        },
        InvalidTransaction::GasPriceLessThanBasefee => TxError::FeeBelowBase { max_fee, base_fee },
        InvalidTransaction::CallGasCostMoreThanGasLimit {
            initial_gas,
            gas_limit,
        } => TxError::Invalid(format!(
            "intrinsic gas too low: have {gas_limit}, want {initial_gas}"
        )),
        InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => TxError::Invalid(format!(
            "insufficient gas for floor data gas cost: have {gas_limit}, want {gas_floor}"
        )),
        InvalidTransaction::CreateInitCodeSizeLimit => TxError::Invalid(format!(
            "max initcode size exceeded: at most {} bytes",
            2 * MAX_CODE_BYTES
        )),
        InvalidTransaction::RejectCallerWithCode => {
            TxError::Invalid("sender not an EOA: it has contract code (EIP-3607)".into())
        }
        other => TxError::Invalid(other.to_string()),
    }
}
