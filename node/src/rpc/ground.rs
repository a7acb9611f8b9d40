//! From a block tag to the state and the block environment that a request is about.

use alloy::consensus::Header;
use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::B256;

use super::Context;
use super::error::{Answer, NOT_FOUND, SERVER_ERROR, error, internal};
use crate::state::{UNDO_BLOCKS, View};
use crate::transition::evm::BlockSight;
use crate::transition::overlay::Overlay;

/// Confirmations after which a block counts as `safe`.
pub(crate) const SAFE_DEPTH: u64 = 2;
/// Confirmations after which a block counts as `finalized`, as Bitcoin's users do.
pub(crate) const FINAL_DEPTH: u64 = 6;

/// A state to execute on.
pub(crate) struct Ground {
    pub(crate) overlay: Overlay<View>,
    pub(crate) sight: BlockSight,
}

/// What a header's transactions saw.
pub(crate) fn sight_of(header: &Header) -> BlockSight {
    BlockSight {
        number: header.number,
        timestamp: header.timestamp,
        gas_limit: header.gas_limit,
        base_fee: header.base_fee_per_gas.unwrap_or_default(),
        prevrandao: header.mix_hash,
    }
}

impl Context {
    /// Height of a tag; `None` for pending.
    pub(crate) fn height(&self, tag: BlockNumberOrTag) -> Option<u64> {
        let tip = self.chain.head().1.number;
        match tag {
            BlockNumberOrTag::Pending => None,
            BlockNumberOrTag::Latest => Some(tip),
            BlockNumberOrTag::Safe => Some(tip.saturating_sub(SAFE_DEPTH)),
            BlockNumberOrTag::Finalized => Some(tip.saturating_sub(FINAL_DEPTH)),
            BlockNumberOrTag::Earliest => Some(0),
            BlockNumberOrTag::Number(number) => Some(number),
        }
    }

    /// Height of a block id; `None` for pending.
    pub(crate) fn height_of(&self, id: BlockId) -> Answer<Option<u64>> {
        match id {
            BlockId::Number(tag) => Ok(self.height(tag)),
            BlockId::Hash(hash) => self.height_of_hash(hash.block_hash).map(Some),
        }
    }

    fn height_of_hash(&self, hash: B256) -> Answer<u64> {
        let height = self
            .chain
            .view()
            .and_then(|view| view.height_of(hash))
            .map_err(internal)?;
        height.ok_or_else(|| error(NOT_FOUND, format!("block {hash} not found")))
    }

    /// A snapshot of the state at a block (latest where none is named). Pending has no snapshot: the
    /// newest stands for it.
    pub(crate) fn view(&self, id: Option<BlockId>) -> Answer<View> {
        let height = self.height_of(id.unwrap_or_default())?;
        let tip = self.chain.head().1.number;
        match height {
            None => self.chain.view().map_err(internal),
            Some(height) if height > tip => Err(error(
                NOT_FOUND,
                format!("block {height} not found: the newest is {tip}"),
            )),
            Some(height) => self.chain.view_at(height).map_err(internal)?.ok_or_else(|| {
                error(
                    SERVER_ERROR,
                    format!("state of block {height} is pruned: this node keeps the last {UNDO_BLOCKS}"),
                )
            }),
        }
    }

    /// State and environment to execute a call in.
    pub(crate) fn ground(&self, id: Option<BlockId>) -> Answer<Ground> {
        if self.height_of(id.unwrap_or_default())?.is_none() {
            let (overlay, sight) = self.mempool.pending();
            return Ok(Ground { overlay, sight });
        }
        let view = self.view(id)?;
        let (_, header) = view
            .header(view.height())
            .map_err(internal)?
            .ok_or_else(|| error(NOT_FOUND, "header not found"))?;
        Ok(Ground {
            overlay: Overlay::new(view),
            sight: sight_of(&header),
        })
    }
}
