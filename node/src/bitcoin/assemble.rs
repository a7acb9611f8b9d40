//! Makes regtest blocks: coinbase with witness commitment (BIP 34, BIP 141), header, proof of work. Used by
//! the embedded chain and, through `submit_block`, to fork any regtest node.

use super::{Backend, BackendError};
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, Script, ScriptBuf, Sequence, Transaction,
    TxIn, TxMerkleNode, TxOut, Witness,
};

/// Regtest's target: about every second hash meets it.
const REGTEST_BITS: u32 = 0x207f_ffff;
/// Blocks between halvings on regtest.
const REGTEST_HALVING: u64 = 150;

/// What a block is built on.
#[derive(Debug, Clone, Copy)]
pub struct Parent {
    /// Hash.
    pub hash: BlockHash,
    /// Height.
    pub height: u64,
    /// Median time past of it, unix seconds.
    pub median_time_past: u64,
}

/// New coins of the block at `height` on regtest.
pub fn subsidy(height: u64) -> Amount {
    let halvings = height / REGTEST_HALVING;
    Amount::from_sat(if halvings >= 64 {
        0
    } else {
        (50 * 100_000_000) >> halvings
    })
}

/// The coinbase; `tag` makes two blocks of one height differ.
fn coinbase(height: u64, value: Amount, to: &Script, tag: &[u8; 8]) -> Transaction {
    let height = i64::try_from(height).expect("a height fits 63 bits");
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(height).push_slice(tag).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0u8; 32]]),
        }],
        output: vec![TxOut {
            value,
            script_pubkey: to.to_owned(),
        }],
    }
}

/// Builds and grinds a block of `txs` (in order, parents first) on `parent`, with `fees` satoshis to claim.
pub fn block(parent: Parent, txs: Vec<Transaction>, fees: u64, to: &Script, now: u64, tag: [u8; 8]) -> Block {
    let height = parent.height + 1;
    let value = subsidy(height) + Amount::from_sat(fees);
    let mut txdata = vec![coinbase(height, value, to, &tag)];
    txdata.extend(txs);
    // A block's time is above the median of the eleven before it.
    let time = now.max(parent.median_time_past + 1);
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: parent.hash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: u32::try_from(time).unwrap_or(u32::MAX),
            bits: CompactTarget::from_consensus(REGTEST_BITS),
            nonce: 0,
        },
        txdata,
    };
    let witness_root = block
        .witness_root()
        .expect("a block with a coinbase has a witness root");
    let commitment = Block::compute_witness_commitment(&witness_root, &[0; 32]);
    let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    script.extend_from_slice(commitment.as_byte_array());
    block.txdata[0].output.push(TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(script),
    });
    block.header.merkle_root = block
        .compute_merkle_root()
        .expect("a block with a coinbase has a merkle root");
    let target = block.header.target();
    while block.header.validate_pow(target).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// Mines one block of `txs` on any known block, best chain or not, and offers it: how reorgs are made.
/// Claims no fees. Regtest only.
pub fn mine_on(
    backend: &dyn Backend,
    parent: &BlockHash,
    txs: Vec<Transaction>,
    to: &Script,
    tag: u64,
) -> Result<BlockHash, BackendError> {
    if backend.network() != Network::Regtest {
        return Err(BackendError::NotRegtest(backend.network()));
    }
    let info = backend
        .header(parent)?
        .ok_or_else(|| BackendError::BlockRefused {
            hash: *parent,
            reason: "it is unknown, so nothing can be mined on it".into(),
        })?;
    let parent = Parent {
        hash: *parent,
        height: info.height,
        median_time_past: info.median_time_past,
    };
    let block = block(parent, txs, 0, to, u64::from(info.header.time), tag.to_le_bytes());
    backend.submit_block(&block)?;
    Ok(block.block_hash())
}
