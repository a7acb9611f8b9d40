//! Append-only log of the blocks that the embedded chain accepted, fsynced one by one. The consensus library
//! writes its own index lazily; after a kill this log is what makes no block get lost.

use bitcoin::Block;
use bitcoin::consensus::encode;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Bytes before a record's block: length (u32 little-endian) and the first 4 bytes of its BLAKE3.
const HEAD: usize = 8;
/// No block is longer.
const BLOCK_MAX: usize = 4_000_000;

/// The open log.
#[derive(Debug)]
pub(super) struct BlockLog {
    file: File,
}

impl BlockLog {
    /// Opens the log and returns every whole block in it; a torn record at the end is cut off.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Block>)> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (blocks, good) = read(&bytes);
        if good < bytes.len() {
            tracing::warn!(
                cut = bytes.len() - good,
                "the block log ends in a torn record; it is cut off"
            );
            file.set_len(good as u64)?;
            file.sync_all()?;
        }
        Ok((Self { file }, blocks))
    }

    /// Appends a block; durable when it returns.
    pub(super) fn append(&mut self, block: &Block) -> io::Result<()> {
        let bytes = encode::serialize(block);
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut record = Vec::with_capacity(HEAD + bytes.len());
        record.extend_from_slice(&len.to_le_bytes());
        record.extend_from_slice(&blake3::hash(&bytes).as_bytes()[..4]);
        record.extend_from_slice(&bytes);
        self.file.write_all(&record)?;
        self.file.sync_data()
    }
}

/// The whole records of `bytes` and how many bytes they take.
fn read(bytes: &[u8]) -> (Vec<Block>, usize) {
    let mut blocks = Vec::new();
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + HEAD) {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(body) = bytes.get(at + HEAD..at + HEAD + len.min(BLOCK_MAX + 1)) else {
            break;
        };
        if len > BLOCK_MAX || blake3::hash(body).as_bytes()[..4] != head[4..] {
            break;
        }
        let Ok(block) = encode::deserialize(body) else {
            break;
        };
        blocks.push(block);
        at += HEAD + len;
    }
    (blocks, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks.log");
        let block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let (mut log, blocks) = BlockLog::open(&path).unwrap();
        assert!(blocks.is_empty());
        log.append(&block).unwrap();
        log.append(&block).unwrap();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..whole.len() / 2 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut log, blocks) = BlockLog::open(&path).unwrap();
            assert_eq!(blocks.len(), 1, "{cut}");
            log.append(&block).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole, "{cut}");
        }
    }
}
