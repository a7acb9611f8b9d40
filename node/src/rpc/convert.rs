//! Stored blocks and transactions in the shapes of Ethereum's JSON-RPC.

use alloy::consensus::transaction::Recovered;
use alloy::consensus::{Header, Transaction as _, TxEnvelope};
use alloy::rpc::types::{
    Block, BlockTransactions, Header as RpcHeader, Log, Transaction, TransactionReceipt,
};
use alloy_primitives::{B256, U256};
use alloy_rlp::Encodable;

use crate::state::StoredBlock;
use crate::transition::{ExecutedTx, SignedTx, header};

/// A transaction of a block.
pub(crate) fn transaction(hash: B256, header: &Header, index: usize, tx: &ExecutedTx) -> Transaction {
    Transaction {
        inner: Recovered::new_unchecked(tx.tx.clone(), tx.sender),
        block_hash: Some(hash),
        block_number: Some(header.number),
        transaction_index: Some(index as u64),
        effective_gas_price: Some(tx.gas_price),
        block_timestamp: Some(header.timestamp),
    }
}

/// A transaction of the mempool.
pub(crate) fn pooled(tx: &SignedTx) -> Transaction {
    Transaction {
        inner: Recovered::new_unchecked(tx.tx.clone(), tx.sender),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        effective_gas_price: Some(tx.tx.max_fee_per_gas()),
        block_timestamp: None,
    }
}

/// Logs of one transaction of a block; `first` is the number of logs before it.
pub(crate) fn logs(hash: B256, header: &Header, index: usize, tx: &ExecutedTx, first: usize) -> Vec<Log> {
    let place = |(at, log): (usize, &alloy_primitives::Log)| Log {
        inner: log.clone(),
        block_hash: Some(hash),
        block_number: Some(header.number),
        block_timestamp: Some(header.timestamp),
        transaction_hash: Some(*tx.tx.tx_hash()),
        transaction_index: Some(index as u64),
        log_index: Some((first + at) as u64),
        removed: false,
    };
    tx.logs.iter().enumerate().map(place).collect()
}

/// All logs of a block, in order.
pub(crate) fn block_logs(hash: B256, header: &Header, txs: &[ExecutedTx]) -> Vec<Log> {
    let mut all = Vec::new();
    for (index, tx) in txs.iter().enumerate() {
        all.extend(logs(hash, header, index, tx, all.len()));
    }
    all
}

/// Receipt of the transaction at `index`.
pub(crate) fn receipt(block: &StoredBlock, index: usize) -> Option<TransactionReceipt> {
    let tx = block.txs.get(index)?;
    let first = block.txs[..index].iter().map(|t| t.logs.len()).sum();
    let rpc_logs = logs(block.hash, &block.header, index, tx, first);
    let mut rpc_logs = rpc_logs.into_iter();
    let inner = header::receipt(
        tx.tx.tx_type(),
        tx.success,
        tx.cumulative_gas_used,
        tx.logs.clone(),
    )
    // The same logs, in the same order, with their places.
    .map_logs(|log| {
        rpc_logs.next().unwrap_or(Log {
            inner: log,
            ..Default::default()
        })
    });
    Some(TransactionReceipt {
        inner,
        transaction_hash: *tx.tx.tx_hash(),
        transaction_index: Some(index as u64),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        gas_used: tx.gas_used,
        effective_gas_price: tx.gas_price,
        blob_gas_used: None,
        blob_gas_price: None,
        from: tx.sender,
        to: tx.tx.to(),
        contract_address: tx.contract,
    })
}

/// A header with its hash.
pub(crate) fn rpc_header(hash: B256, header: Header, size: usize) -> RpcHeader {
    RpcHeader {
        hash,
        inner: header,
        total_difficulty: Some(U256::ZERO),
        size: Some(U256::from(size)),
    }
}

/// A block with full transactions or their hashes.
pub(crate) fn block(block: StoredBlock, full: bool) -> Block {
    let transactions = if full {
        let txs = block.txs.iter().enumerate();
        BlockTransactions::Full(
            txs.map(|(i, tx)| transaction(block.hash, &block.header, i, tx))
                .collect(),
        )
    } else {
        BlockTransactions::Hashes(block.txs.iter().map(|tx| *tx.tx.tx_hash()).collect())
    };
    let size = block.header.length() + block.txs.iter().map(|tx| rlp_len(&tx.tx)).sum::<usize>();
    Block {
        header: rpc_header(block.hash, block.header, size),
        uncles: Vec::new(),
        transactions,
        withdrawals: Some(Default::default()),
    }
}

fn rlp_len(tx: &TxEnvelope) -> usize {
    tx.length()
}
