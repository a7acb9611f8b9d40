//! The list of methods: name, parameters, and what answers.

use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::rpc::types::TransactionRequest;
use alloy::rpc::types::state::StateOverride;
use alloy_primitives::{B256, Bytes, U64, U256, keccak256};
use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::params::ParamsSequence;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::budget::Budget;
use super::error::{Answer, invalid, refused};
use super::subscribe;

/// A number as clients send it: hex string or plain.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(untagged)]
enum Number {
    Hex(U64),
    Plain(u64),
}

impl Number {
    fn get(self) -> u64 {
        match self {
            Number::Hex(n) => n.to(),
            Number::Plain(n) => n,
        }
    }
}

/// Registers methods that may block: they read the disk and run the EVM.
struct Registrar(RpcModule<Context>);

impl Registrar {
    fn add<T: Serialize>(
        &mut self,
        name: &'static str,
        answer: impl Fn(&Context, &mut ParamsSequence<'_>) -> Answer<T> + Clone + Send + Sync + 'static,
    ) -> Result<(), RegisterMethodError> {
        self.add_metered(name, move |context, params, _| answer(context, params))
    }

    /// One that executes contracts, within what its request may.
    fn add_metered<T: Serialize>(
        &mut self,
        name: &'static str,
        answer: impl Fn(&Context, &mut ParamsSequence<'_>, &Budget) -> Answer<T> + Clone + Send + Sync + 'static,
    ) -> Result<(), RegisterMethodError> {
        self.0
            .register_blocking_method(name, move |params, context, extensions| -> Answer<Value> {
                let budget = extensions.get::<Budget>().cloned().unwrap_or_default();
                let value = answer(&context, &mut params.sequence(), &budget)?;
                serde_json::to_value(value).map_err(|e| invalid(e.to_string()))
            })?;
        Ok(())
    }
}

/// All methods.
pub(crate) fn module(context: Context) -> Result<RpcModule<Context>, RegisterMethodError> {
    let mut r = Registrar(RpcModule::new(context));
    node(&mut r)?;
    accounts(&mut r)?;
    blocks(&mut r)?;
    execution(&mut r)?;
    filters(&mut r)?;
    bitai(&mut r)?;
    subscribe::register(&mut r.0)?;
    Ok(r.0)
}

fn node(r: &mut Registrar) -> Result<(), RegisterMethodError> {
    r.add("web3_clientVersion", |_, _| {
        Ok(concat!("bitai-node/v", env!("CARGO_PKG_VERSION")))
    })?;
    r.add("web3_sha3", |_, p| Ok(keccak256(p.next::<Bytes>()?)))?;
    r.add("net_version", |c, _| Ok(c.chain.genesis().chain_id().to_string()))?;
    r.add("net_listening", |_, _| Ok(true))?;
    r.add("net_peerCount", |_, _| Ok(U256::ZERO))?;
    r.add("eth_chainId", |c, _| Ok(U256::from(c.chain.genesis().chain_id())))?;
    r.add("eth_protocolVersion", |_, _| Ok(U256::from(68)))?;
    r.add("eth_syncing", |c, _| Ok(c.syncing()))?;
    r.add("eth_accounts", |_, _| Ok(Vec::<Value>::new()))?;
    r.add("eth_mining", |_, _| Ok(false))?;
    r.add("eth_coinbase", |c, _| Ok(c.fee_recipient()))?;
    r.add("eth_gasPrice", |c, _| Ok(c.gas_price()))?;
    r.add("eth_maxPriorityFeePerGas", |c, _| Ok(c.priority_fee()))?;
    r.add("eth_blobBaseFee", |_, _| Ok(U256::from(1)))?;
    r.add("eth_feeHistory", |c, p| {
        let (count, newest) = (p.next::<Number>()?.get(), p.next::<BlockNumberOrTag>()?);
        c.fee_history(count, newest, p.optional_next::<Vec<f64>>()?)
    })?;
    r.add("txpool_status", |c, _| {
        let (ready, queued) = c.mempool.counts();
        Ok(serde_json::json!({ "pending": U256::from(ready), "queued": U256::from(queued) }))
    })
}

fn accounts(r: &mut Registrar) -> Result<(), RegisterMethodError> {
    r.add("eth_getBalance", |c, p| c.balance(p.next()?, p.optional_next()?))?;
    r.add("eth_getTransactionCount", |c, p| {
        c.nonce(p.next()?, p.optional_next()?)
    })?;
    r.add("eth_getCode", |c, p| c.code(p.next()?, p.optional_next()?))?;
    r.add("eth_getStorageAt", |c, p| {
        c.storage_at(p.next()?, p.next()?, p.optional_next()?)
    })?;
    r.add("eth_getProof", |c, p| {
        c.proof(p.next()?, p.next()?, p.optional_next()?)
    })
}

fn blocks(r: &mut Registrar) -> Result<(), RegisterMethodError> {
    fn number(p: &mut ParamsSequence<'_>) -> Answer<BlockId> {
        Ok(BlockId::Number(p.next::<BlockNumberOrTag>()?))
    }
    fn hash(p: &mut ParamsSequence<'_>) -> Answer<BlockId> {
        Ok(BlockId::from(p.next::<B256>()?))
    }
    r.add("eth_blockNumber", |c, _| Ok(U256::from(c.chain.head().1.number)))?;
    r.add("eth_getBlockByNumber", |c, p| {
        c.block(number(p)?, p.optional_next::<bool>()?.unwrap_or_default())
    })?;
    r.add("eth_getBlockByHash", |c, p| {
        c.block(hash(p)?, p.optional_next::<bool>()?.unwrap_or_default())
    })?;
    r.add("eth_getBlockReceipts", |c, p| {
        c.receipts(p.optional_next::<BlockId>()?.unwrap_or(Context::LATEST))
    })?;
    r.add("eth_getBlockTransactionCountByNumber", |c, p| c.count(number(p)?))?;
    r.add("eth_getBlockTransactionCountByHash", |c, p| c.count(hash(p)?))?;
    r.add("eth_getTransactionByBlockNumberAndIndex", |c, p| {
        c.transaction_at(number(p)?, p.next::<U256>()?)
    })?;
    r.add("eth_getTransactionByBlockHashAndIndex", |c, p| {
        c.transaction_at(hash(p)?, p.next::<U256>()?)
    })?;
    r.add("eth_getUncleCountByBlockNumber", |_, _| Ok(U256::ZERO))?;
    r.add("eth_getUncleCountByBlockHash", |_, _| Ok(U256::ZERO))?;
    r.add("eth_getTransactionByHash", |c, p| c.transaction(p.next()?))?;
    r.add("eth_getTransactionReceipt", |c, p| c.receipt(p.next()?))
}

fn execution(r: &mut Registrar) -> Result<(), RegisterMethodError> {
    r.add_metered("eth_call", |c, p, budget| {
        let request = p.next::<TransactionRequest>()?;
        let (block, overrides) = (p.optional_next()?, p.optional_next::<StateOverride>()?);
        c.call(request, block, overrides, budget)
    })?;
    r.add_metered("eth_estimateGas", |c, p, budget| {
        let request = p.next::<TransactionRequest>()?;
        let (block, overrides) = (p.optional_next()?, p.optional_next::<StateOverride>()?);
        Ok(U256::from(c.estimate(request, block, overrides, budget)?))
    })?;
    r.add_metered("debug_traceTransaction", |c, p, budget| {
        c.trace(p.next()?, p.optional_next()?, budget)
    })?;
    r.add("eth_sendRawTransaction", |c, p| {
        c.mempool.submit(&p.next::<Bytes>()?).map_err(refused)
    })
}

fn filters(r: &mut Registrar) -> Result<(), RegisterMethodError> {
    r.add("eth_getLogs", |c, p| c.logs(&p.next()?))?;
    r.add("eth_newFilter", |c, p| c.new_filter(p.next()?))?;
    r.add("eth_newBlockFilter", |c, _| c.new_block_filter())?;
    r.add("eth_newPendingTransactionFilter", |c, _| c.new_pending_filter())?;
    r.add("eth_uninstallFilter", |c, p| Ok(c.uninstall_filter(p.next()?)))?;
    r.add("eth_getFilterChanges", |c, p| c.filter_changes(p.next()?))?;
    r.add("eth_getFilterLogs", |c, p| c.filter_logs(p.next()?))
}

fn bitai(r: &mut Registrar) -> Result<(), RegisterMethodError> {
    r.add("bitai_status", |c, _| c.status())?;
    r.add("bitai_getInscription", |c, p| c.inscription(p.next()?))?;
    r.add("bitai_sendTransactions", |c, p| c.send_all(p.next()?))
}
