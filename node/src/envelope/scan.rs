//! Walks a Bitcoin block: every input of every transaction, the tapscript of every script-path spend.

use super::{Header, Void, payload, script};
use crate::block::{Inscribed, Position};
use alloy_primitives::B256;
use bitcoin::hashes::Hash;
use bitcoin::{Block, Transaction, Witness};
use std::collections::BTreeMap;

/// What a block holds for one BitAI chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Valid envelopes in order of position.
    pub envelopes: Vec<Inscribed>,
    /// Void envelopes by reason.
    pub void: BTreeMap<Void, u64>,
}

/// First byte of a taproot annex (BIP 341).
const ANNEX: u8 = 0x50;
/// Leaf version of a tapscript (BIP 342).
const TAPSCRIPT: u8 = 0xc0;
/// Bytes of a control block without its path, bytes of one path element, most path elements (BIP 341).
const CONTROL: (usize, usize, usize) = (33, 32, 128);

/// The tapscript of a script-path spend, or `None` where the witness has not that shape. The spent output is
/// not looked at: consensus lets no other version 0 or 1 program pass with a witness of this shape.
pub fn tapscript(witness: &Witness) -> Option<&[u8]> {
    let mut items = witness.len();
    let item = |i: usize| witness.nth(i);
    if items >= 2 && item(items - 1)?.first() == Some(&ANNEX) {
        items -= 1;
    }
    if items < 2 {
        return None;
    }
    let control = item(items - 1)?;
    let path = control.len().checked_sub(CONTROL.0)?;
    if path % CONTROL.1 != 0 || path / CONTROL.1 > CONTROL.2 || control[0] & 0xfe != TAPSCRIPT {
        return None;
    }
    item(items - 2)
}

/// Every envelope of `block` that the chain `genesis_id` executes.
pub fn block(block: &Block, genesis_id: [u8; 4]) -> Scan {
    let mut scan = Scan::default();
    for (i, tx) in (0u32..).zip(&block.txdata) {
        transaction(tx, i, genesis_id, &mut scan);
    }
    scan
}

fn transaction(tx: &Transaction, index: u32, genesis_id: [u8; 4], scan: &mut Scan) {
    // Hashing every transaction of a block for nothing would cost more than the scan.
    let mut ids = None;
    for (input, txin) in (0u32..).zip(&tx.input) {
        let Some(script) = tapscript(&txin.witness) else {
            continue;
        };
        for (envelope, found) in (0u32..).zip(script::find(script)) {
            let position = Position {
                tx: index,
                input,
                envelope,
            };
            match read(found, genesis_id) {
                Ok((header, txs, payload_len)) => {
                    let (reveal_txid, reveal_vbytes) = *ids.get_or_insert_with(|| {
                        let vbytes = u32::try_from(tx.vsize()).unwrap_or(u32::MAX);
                        (B256::from(tx.compute_txid().to_byte_array()), vbytes)
                    });
                    scan.envelopes.push(Inscribed {
                        position,
                        reveal_txid,
                        fee_recipient: header.fee_recipient,
                        txs,
                        payload_len,
                        reveal_vbytes,
                    });
                }
                Err(void) => *scan.void.entry(void).or_default() += 1,
            }
        }
    }
}

fn read(
    found: script::Found,
    genesis_id: [u8; 4],
) -> Result<(Header, Vec<alloy_primitives::Bytes>, u32), Void> {
    let (header, body) = found?;
    let header = Header::decode(&header, genesis_id)?;
    let txs = payload::decode(&body)?;
    let len = u32::try_from(body.len()).map_err(|_| Void::PayloadLength)?;
    Ok((header, txs, len))
}
