//! The `eth_*` reads: accounts, blocks, transactions, receipts, proofs.

use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::rpc::types::{
    Block, BlockTransactions, EIP1186AccountProofResponse, EIP1186StorageProof, Transaction,
    TransactionReceipt,
};
use alloy::serde::JsonStorageKey;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use serde_json::{Value, json};

use super::Context;
use super::convert;
use super::error::{Answer, internal, invalid};
use crate::state::StoredBlock;

/// Most slots in one `eth_getProof`.
const MAX_PROOF_SLOTS: usize = 1_024;

impl Context {
    pub(crate) fn balance(&self, address: Address, block: Option<BlockId>) -> Answer<U256> {
        let mut ground = self.ground(block)?;
        Ok(ground.overlay.nonce_and_balance(address).map_err(internal)?.1)
    }

    pub(crate) fn nonce(&self, address: Address, block: Option<BlockId>) -> Answer<U256> {
        if block.is_some_and(|id| id.is_pending()) {
            return Ok(U256::from(self.mempool.pending_nonce(address).map_err(internal)?));
        }
        let account = self.view(block)?.account(address).map_err(internal)?;
        Ok(U256::from(account.map_or(0, |a| a.nonce)))
    }

    pub(crate) fn code(&self, address: Address, block: Option<BlockId>) -> Answer<Bytes> {
        use revm::database_interface::Database;
        let mut ground = self.ground(block)?;
        let Some(info) = ground.overlay.basic(address).map_err(internal)? else {
            return Ok(Bytes::new());
        };
        Ok(ground
            .overlay
            .code_by_hash(info.code_hash)
            .map_err(internal)?
            .original_bytes())
    }

    pub(crate) fn storage_at(
        &self,
        address: Address,
        slot: JsonStorageKey,
        block: Option<BlockId>,
    ) -> Answer<B256> {
        use revm::database_interface::Database;
        let mut ground = self.ground(block)?;
        let value = ground
            .overlay
            .storage(address, slot.as_b256().into())
            .map_err(internal)?;
        Ok(value.into())
    }

    pub(crate) fn proof(
        &self,
        address: Address,
        keys: Vec<JsonStorageKey>,
        block: Option<BlockId>,
    ) -> Answer<EIP1186AccountProofResponse> {
        if keys.len() > MAX_PROOF_SLOTS {
            return Err(invalid(format!(
                "{} storage keys; at most {MAX_PROOF_SLOTS} a call",
                keys.len()
            )));
        }
        let slots: Vec<U256> = keys.iter().map(|key| key.as_b256().into()).collect();
        let proof = self.view(block)?.prove(address, &slots).map_err(internal)?;
        let account = proof.account;
        let storage_proof = keys
            .into_iter()
            .zip(proof.slots)
            .map(|(key, (_, value, proof))| EIP1186StorageProof { key, value, proof })
            .collect();
        Ok(EIP1186AccountProofResponse {
            address,
            balance: account.map_or(U256::ZERO, |a| a.balance),
            code_hash: account.map_or(keccak256([]), |a| a.code_hash),
            nonce: account.map_or(0, |a| a.nonce),
            storage_hash: account.map_or(alloy_trie::EMPTY_ROOT_HASH, |a| a.storage_root),
            account_proof: proof.nodes,
            storage_proof,
        })
    }

    /// A stored block; `None` where there is none.
    pub(crate) fn stored(&self, id: BlockId) -> Answer<Option<StoredBlock>> {
        let view = self.chain.view().map_err(internal)?;
        let height = match id {
            BlockId::Number(tag) => self.height(tag),
            BlockId::Hash(hash) => view.height_of(hash.block_hash).map_err(internal)?,
        };
        match height {
            Some(height) => view.block(height).map_err(internal),
            None => Ok(None),
        }
    }

    pub(crate) fn block(&self, id: BlockId, full: bool) -> Answer<Option<Block>> {
        if id.is_pending() {
            return Ok(Some(self.pending_block(full)));
        }
        Ok(self.stored(id)?.map(|block| convert::block(block, full)))
    }

    /// The block that would come next if Bitcoin had what the mempool holds; it has no hash yet.
    fn pending_block(&self, full: bool) -> Block {
        let (hash, parent) = self.chain.head();
        let (_, sight) = self.mempool.pending();
        let txs: Vec<_> = self.mempool.content().into_iter().filter(|tx| tx.ready).collect();
        let mut header = parent;
        header.parent_hash = hash;
        header.number = sight.number;
        header.timestamp = sight.timestamp;
        header.base_fee_per_gas = Some(sight.base_fee);
        header.gas_used = 0;
        let transactions = if full {
            BlockTransactions::Full(txs.iter().map(|tx| convert::pooled(&tx.tx)).collect())
        } else {
            BlockTransactions::Hashes(txs.iter().map(|tx| tx.tx.hash).collect())
        };
        Block {
            header: convert::rpc_header(B256::ZERO, header, 0),
            uncles: Vec::new(),
            transactions,
            withdrawals: Some(Default::default()),
        }
    }

    pub(crate) fn transaction(&self, hash: B256) -> Answer<Option<Transaction>> {
        let view = self.chain.view().map_err(internal)?;
        if let Some((height, index)) = view.tx_place(hash).map_err(internal)? {
            let block = view.block(height).map_err(internal)?;
            return Ok(block.and_then(|b| {
                let index = index as usize;
                b.txs
                    .get(index)
                    .map(|tx| convert::transaction(b.hash, &b.header, index, tx))
            }));
        }
        Ok(self.mempool.get(hash).map(|tx| convert::pooled(&tx.tx)))
    }

    pub(crate) fn transaction_at(&self, id: BlockId, index: U256) -> Answer<Option<Transaction>> {
        let Some(block) = self.stored(id)? else {
            return Ok(None);
        };
        let Ok(index) = usize::try_from(index) else {
            return Ok(None);
        };
        Ok(block
            .txs
            .get(index)
            .map(|tx| convert::transaction(block.hash, &block.header, index, tx)))
    }

    pub(crate) fn receipt(&self, hash: B256) -> Answer<Option<TransactionReceipt>> {
        let view = self.chain.view().map_err(internal)?;
        let Some((height, index)) = view.tx_place(hash).map_err(internal)? else {
            return Ok(None);
        };
        let block = view.block(height).map_err(internal)?;
        Ok(block.and_then(|b| convert::receipt(&b, index as usize)))
    }

    pub(crate) fn receipts(&self, id: BlockId) -> Answer<Option<Vec<TransactionReceipt>>> {
        let Some(block) = self.stored(id)? else {
            return Ok(None);
        };
        Ok(Some(
            (0..block.txs.len())
                .filter_map(|i| convert::receipt(&block, i))
                .collect(),
        ))
    }

    pub(crate) fn syncing(&self) -> Value {
        let (_, header) = self.chain.head();
        let executed = self.chain.bitcoin_height(header.number);
        match (self.bitcoin_tip)() {
            // One block behind is how every block starts.
            Some(tip) if tip > executed + 1 => json!({
                "startingBlock": U256::ZERO,
                "currentBlock": U256::from(header.number),
                "highestBlock": U256::from(tip - self.chain.genesis().start_height),
            }),
            _ => Value::Bool(false),
        }
    }

    /// Number of transactions in a block.
    pub(crate) fn count(&self, id: BlockId) -> Answer<Option<U256>> {
        if id.is_pending() {
            return Ok(Some(U256::from(self.mempool.counts().0)));
        }
        Ok(self.stored(id)?.map(|block| U256::from(block.txs.len())))
    }

    /// Latest where a request leaves the block out.
    pub(crate) const LATEST: BlockId = BlockId::Number(BlockNumberOrTag::Latest);
}
