//! The ledger on disk: executes Bitcoin blocks one by one, durably, and undoes them in a reorg.
//!
//! One redb write transaction a block: after a crash at any point the file holds either all of a block or
//! nothing of it.

mod error;
mod records;
mod root;
mod tables;
mod trie;
mod view;

use alloy::consensus::Header;
use alloy::eips::eip2718::Encodable2718;
use alloy_primitives::{B256, Bytes};
use redb::{Database, ReadableTable, WriteTransaction};
use revm::primitives::KECCAK_EMPTY;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use crate::block::{BlockInput, Tip};
use crate::genesis::Genesis;
use crate::indexer::{Ledger, LedgerError};
use crate::transition::overlay::{AccountFields, StateChanges};
use crate::transition::{self, BlockOutcome, ExecutedTx};
pub use error::StateError;
pub use records::{Account, DroppedRecord};
use tables::{Batch, META, Table, UNDO};
use trie::EMPTY_ROOT;
pub use view::{AccountProof, StoredBlock, View};

/// Blocks that can be undone one by one; a deeper reorg starts again from genesis.
pub const UNDO_BLOCKS: u64 = 256;

/// Key of the genesis hash in the meta table.
const GENESIS_KEY: &[u8] = b"genesis";

/// A block that was executed and is durable.
#[derive(Debug, Clone)]
pub struct AppliedBlock {
    /// Its hash.
    pub hash: B256,
    /// Its header.
    pub header: Header,
    /// Its transactions with what they did.
    pub txs: Vec<ExecutedTx>,
    /// Hashes of the transactions that it carried and did not run, with the reason.
    pub dropped: Vec<transition::DroppedTx>,
}

/// Who wants to know of blocks and reorgs. Called in order, after the change is durable, while no other
/// change can start: an observer must not call [`Ledger::apply`] or [`Ledger::rewind`].
pub trait ChainObserver: Send + Sync {
    /// A block became the tip.
    fn block_applied(&self, block: &Arc<AppliedBlock>);
    /// Blocks were undone, newest first; they are no longer part of the chain.
    fn rewound(&self, removed: &[StoredBlock]);
}

/// The chain: state, blocks, and the rules to add to them.
pub struct Chain {
    db: Database,
    genesis: Genesis,
    tip: RwLock<(B256, Header)>,
    /// Held while a block is applied or undone, and while observers are told.
    writer: Mutex<()>,
    observers: Mutex<Vec<Weak<dyn ChainObserver>>>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain")
            .field("tip", &self.head().1.number)
            .finish_non_exhaustive()
    }
}

/// A lock whose holder cannot have left half a change: every change is one database transaction.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chain {
    /// Opens the ledger in this file, or starts it there. Refuses a file of another genesis.
    pub fn open(path: impl AsRef<Path>, genesis: Genesis) -> Result<Arc<Self>, StateError> {
        genesis.check()?;
        let db = Database::create(path)?;
        let wanted = genesis.hash();
        let txn = db.begin_write()?;
        let found = txn
            .open_table(META)?
            .get(GENESIS_KEY)?
            .map(|guard| guard.value().to_vec());
        match found {
            None => {
                plant(&txn, &genesis)?;
                txn.commit()?;
            }
            Some(found) if found == wanted.as_slice() => txn.abort()?,
            Some(found) => {
                let found =
                    B256::try_from(found.as_slice()).map_err(|_| StateError::corrupt("genesis hash"))?;
                return Err(StateError::OtherGenesis { found, wanted });
            }
        }
        let tip = View::newest(&db)?.tip()?;
        Ok(Arc::new(Chain {
            db,
            genesis,
            tip: RwLock::new(tip),
            writer: Mutex::new(()),
            observers: Mutex::new(Vec::new()),
        }))
    }

    /// The genesis.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Hash and header of the newest block (genesis at first).
    pub fn head(&self) -> (B256, Header) {
        self.tip.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bitcoin height of a BitAI height.
    pub fn bitcoin_height(&self, height: u64) -> u64 {
        self.genesis.start_height + height
    }

    /// A snapshot of the newest state.
    pub fn view(&self) -> Result<View, StateError> {
        View::newest(&self.db)
    }

    /// A snapshot of the state after the block at `height`; `None` where undo data do not reach.
    pub fn view_at(&self, height: u64) -> Result<Option<View>, StateError> {
        View::at(&self.db, height)
    }

    /// Tells this observer of every later block and reorg, as long as it lives.
    pub fn observe(&self, observer: Weak<dyn ChainObserver>) {
        locked(&self.observers).push(observer);
    }

    fn tell(&self, what: impl Fn(&dyn ChainObserver)) {
        let observers: Vec<_> = {
            let mut list = locked(&self.observers);
            list.retain(|weak| weak.strong_count() > 0);
            list.iter().filter_map(Weak::upgrade).collect()
        };
        for observer in observers {
            what(observer.as_ref());
        }
    }

    fn tip_of(&self, header: &Header) -> Tip {
        Tip {
            height: header.number,
            bitcoin_height: self.bitcoin_height(header.number),
            bitcoin_hash: bitcoin_hash(header),
            state_root: header.state_root,
        }
    }

    /// Executes the block after the tip, durably.
    pub fn apply_block(&self, input: &BlockInput) -> Result<Arc<AppliedBlock>, LedgerError> {
        let _writing = locked(&self.writer);
        let (parent_hash, parent) = self.head();
        let tip = self.tip_of(&parent);
        if input.bitcoin_height != tip.bitcoin_height + 1 {
            return Err(LedgerError::NotNext {
                expected: tip.bitcoin_height + 1,
                got: input.bitcoin_height,
            });
        }
        if input.prev != tip.bitcoin_hash {
            return Err(LedgerError::WrongParent {
                bitcoin_height: input.bitcoin_height,
                expected: tip.bitcoin_hash,
                got: input.prev,
            });
        }
        let view = self.view().map_err(storage)?;
        let outcome = transition::execute(&self.genesis, &parent, parent_hash, view.clone(), input)
            .map_err(|e| storage(StateError::Engine(e.to_string())))?;
        let block = self.store(&view, parent.state_root, outcome).map_err(storage)?;
        *self.tip.write().unwrap_or_else(PoisonError::into_inner) = (block.hash, block.header.clone());
        let block = Arc::new(block);
        self.tell(|observer| observer.block_applied(&block));
        Ok(block)
    }

    /// Writes a block and the values it replaced, in one transaction.
    fn store(
        &self,
        view: &View,
        parent_root: B256,
        outcome: BlockOutcome,
    ) -> Result<AppliedBlock, StateError> {
        let BlockOutcome {
            mut header,
            txs,
            dropped,
            changes,
        } = outcome;
        let mut batch = Batch::new();
        header.state_root = root::advance(view, parent_root, &changes, &mut batch)?;
        let hash = header.hash_slow();
        put_header(&mut batch, hash, &header);
        let height = header.number.to_be_bytes();
        if !txs.is_empty() {
            batch.insert((Table::Bodies, height.to_vec()), Some(records::encode_body(&txs)));
        }
        for (index, tx) in (0u32..).zip(&txs) {
            let mut place = height.to_vec();
            place.extend_from_slice(&index.to_be_bytes());
            batch.insert((Table::TxIndex, tx.tx.tx_hash().to_vec()), Some(place));
        }
        for drop in &dropped {
            let record = DroppedRecord {
                height: header.number,
                reveal_txid: drop.reveal_txid,
                reason: drop.reason.to_string(),
            };
            batch.insert(
                (Table::Dropped, drop.hash.to_vec()),
                Some(alloy_rlp::encode(record)),
            );
        }
        let txn = self.db.begin_write()?;
        let undo = tables::apply(&txn, &batch)?;
        {
            let mut table = txn.open_table(UNDO)?;
            table.insert(height.as_slice(), tables::encode(&undo).as_slice())?;
            if let Some(old) = header.number.checked_sub(UNDO_BLOCKS) {
                table.remove(old.to_be_bytes().as_slice())?;
            }
        }
        txn.commit()?;
        Ok(AppliedBlock {
            hash,
            header,
            txs,
            dropped,
        })
    }

    /// Undoes blocks until the tip's Bitcoin height is this or less, in one transaction. Where undo data do
    /// not reach, the ledger starts again from genesis, and the blocks are executed anew.
    pub fn rewind_to(&self, to_bitcoin_height: u64) -> Result<Tip, LedgerError> {
        let _writing = locked(&self.writer);
        let removed = self.undo(to_bitcoin_height).map_err(storage)?;
        let tip = self.view().and_then(|view| view.tip()).map_err(storage)?;
        *self.tip.write().unwrap_or_else(PoisonError::into_inner) = tip.clone();
        if !removed.is_empty() {
            self.tell(|observer| observer.rewound(&removed));
        }
        Ok(self.tip_of(&tip.1))
    }

    fn undo(&self, to_bitcoin_height: u64) -> Result<Vec<StoredBlock>, StateError> {
        let view = self.view()?;
        let target = to_bitcoin_height.saturating_sub(self.genesis.start_height);
        let mut removed = Vec::new();
        let txn = self.db.begin_write()?;
        for height in (target + 1..=view.height()).rev() {
            let record = txn
                .open_table(UNDO)?
                .remove(height.to_be_bytes().as_slice())?
                .map(|guard| guard.value().to_vec());
            let Some(record) = record else {
                tracing::warn!(
                    height,
                    "the reorg is deeper than undo data reach: starting again from genesis"
                );
                plant(&txn, &self.genesis)?;
                break;
            };
            removed.extend(view.block(height)?);
            tables::apply(&txn, &tables::decode(&record)?)?;
        }
        txn.commit()?;
        Ok(removed)
    }
}

/// Empties every table and writes genesis.
fn plant(txn: &WriteTransaction, genesis: &Genesis) -> Result<(), StateError> {
    for table in Table::ALL.map(Table::definition).into_iter().chain([UNDO]) {
        txn.delete_table(table)?;
        txn.open_table(table)?;
    }
    let mut changes = StateChanges::default();
    for (address, account) in genesis.accounts() {
        let code_hash = if account.code.is_empty() {
            KECCAK_EMPTY
        } else {
            alloy_primitives::keccak256(&account.code)
        };
        changes.accounts.insert(
            address,
            Some(AccountFields {
                nonce: account.nonce,
                balance: account.balance,
                code_hash,
            }),
        );
        if !account.code.is_empty() {
            changes.codes.insert(code_hash, account.code);
        }
        for (slot, value) in account.storage {
            changes.storage.insert((address, slot.into()), value.into());
        }
    }
    let mut batch = Batch::new();
    let state_root = root::advance(&root::Nothing, EMPTY_ROOT, &changes, &mut batch)?;
    let header = genesis.header(state_root);
    put_header(&mut batch, header.hash_slow(), &header);
    tables::apply(txn, &batch)?;
    let mut meta = txn.open_table(META)?;
    meta.insert(GENESIS_KEY, genesis.hash().as_slice())?;
    Ok(())
}

fn put_header(batch: &mut Batch, hash: B256, header: &Header) {
    let height = header.number.to_be_bytes().to_vec();
    batch.insert(
        (Table::Headers, height.clone()),
        Some(records::encode_header(hash, header)),
    );
    batch.insert((Table::Hashes, hash.to_vec()), Some(height));
}

/// The Bitcoin hash that a header carries, internal byte order.
pub fn bitcoin_hash(header: &Header) -> B256 {
    B256::try_from(header.extra_data.as_ref()).unwrap_or_default()
}

fn storage(error: StateError) -> LedgerError {
    LedgerError::Storage(error.to_string())
}

impl Ledger for Chain {
    fn start_height(&self) -> u64 {
        self.genesis.start_height
    }

    fn tip(&self) -> Option<Tip> {
        let (_, header) = self.head();
        (header.number > 0).then(|| self.tip_of(&header))
    }

    fn bitcoin_hash_at(&self, bitcoin_height: u64) -> Option<B256> {
        let height = bitcoin_height
            .checked_sub(self.genesis.start_height)
            .filter(|h| *h > 0)?;
        let (_, header) = self.view().and_then(|view| view.header(height)).ok().flatten()?;
        Some(bitcoin_hash(&header))
    }

    fn apply(&self, input: &BlockInput) -> Result<Vec<B256>, LedgerError> {
        let block = self.apply_block(input)?;
        Ok(block.txs.iter().map(|tx| *tx.tx.tx_hash()).collect())
    }

    fn rewind(&self, to_bitcoin_height: u64) -> Result<Option<Tip>, LedgerError> {
        let tip = self.rewind_to(to_bitcoin_height)?;
        Ok((tip.height > 0).then_some(tip))
    }
}

/// Raw bytes of a block's transactions, for those who want to offer them again.
pub fn raw_txs(block: &StoredBlock) -> Vec<Bytes> {
    block.txs.iter().map(|tx| tx.tx.encoded_2718().into()).collect()
}
