//! Following Bitcoin's best chain one step at a time: find the fork, undo, connect. The ledger and the
//! inscriber's coins both follow this way, each at its own place and in its own thread.

use crate::bitcoin::{Backend, BackendError, BlockRef, HeaderInfo};
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash};

/// Something that has a chain of its own to keep in step with Bitcoin's.
pub trait Follower {
    /// Its own trouble.
    type Error: From<BackendError>;

    /// Height below its first block.
    fn start_height(&self) -> u64;
    /// Its newest block; `None` before the first.
    fn place(&self) -> Result<Option<BlockRef>, Self::Error>;
    /// Hash of its block at a height; `None` where it has none or has forgotten it.
    fn own_hash_at(&self, height: u64) -> Result<Option<BlockHash>, Self::Error>;
    /// Undoes blocks above `height`; it may land lower.
    fn undo_to(&mut self, height: u64) -> Result<(), Self::Error>;
    /// Takes the next block.
    fn connect(&mut self, info: &HeaderInfo, block: &Block) -> Result<(), Self::Error>;
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Took a block.
    Connected(BlockRef),
    /// Undid down to this height, or lower.
    Undone {
        /// Where it stood.
        from: u64,
        /// The last height that both chains share.
        to: u64,
    },
    /// Nothing to do.
    AtTip,
}

/// One step towards the best chain.
pub fn step<F: Follower>(backend: &dyn Backend, follower: &mut F) -> Result<Step, F::Error> {
    let start = follower.start_height();
    let place = follower.place()?;
    let from = place.map_or(start, |p| p.height);
    let mut at = from;
    while at > start {
        let ours = follower.own_hash_at(at)?;
        if ours.is_some() && backend.hash_at(at)? == ours {
            break;
        }
        at -= 1;
    }
    if at < from {
        follower.undo_to(at)?;
        return Ok(Step::Undone { from, to: at });
    }
    let Some(hash) = backend.hash_at(from + 1)? else {
        return Ok(Step::AtTip);
    };
    let (Some(info), Some(block)) = (backend.header(&hash)?, backend.block(&hash)?) else {
        // Reorganised away between two calls, or pruned: the next step sees which.
        return Ok(Step::AtTip);
    };
    let parent = place.map(|p| p.hash);
    if info.height != from + 1 || parent.is_some_and(|p| p != block.header.prev_blockhash) {
        return Ok(Step::AtTip);
    }
    follower.connect(&info, &block)?;
    Ok(Step::Connected(BlockRef {
        height: info.height,
        hash,
    }))
}

/// A hash of the BitAI side as Bitcoin's.
pub fn block_hash(hash: alloy_primitives::B256) -> BlockHash {
    BlockHash::from_byte_array(hash.0)
}
