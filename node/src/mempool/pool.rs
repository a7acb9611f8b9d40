//! Transactions by sender and nonce: what is here, in what order it may go, what replaces what.

use alloy::consensus::Transaction;
use alloy_primitives::map::HashMap;
use alloy_primitives::{Address, B256, Bytes};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::error::PoolError;
use super::store::Record;
use crate::transition::SignedTx;

/// On its way to Bitcoin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    /// The reveal, internal byte order.
    pub(super) reveal_txid: B256,
    /// BitAI height when it was inscribed.
    pub(super) since: u64,
}

/// A transaction here.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) tx: SignedTx,
    pub(super) raw: Bytes,
    /// Order of arrival.
    pub(super) seq: u64,
    pub(super) flight: Option<Flight>,
    /// Gas it used on the pending state; `None` while it waits for an earlier nonce or a lower base fee.
    pub(super) gas_used: Option<u64>,
}

impl Entry {
    pub(super) fn nonce(&self) -> u64 {
        self.tx.tx.nonce()
    }

    pub(super) fn record(&self) -> Record {
        Record {
            seq: self.seq,
            raw: self.raw.clone(),
            reveal_txid: self.flight.map_or(B256::ZERO, |f| f.reveal_txid),
            since: self.flight.map_or(0, |f| f.since),
        }
    }
}

/// Whether it can run, and what it pays a gas.
pub(super) type Worth = (bool, u128);

/// All transactions here.
#[derive(Debug, Default)]
pub(super) struct Pool {
    senders: BTreeMap<Address, BTreeMap<u64, Entry>>,
    hashes: HashMap<B256, (Address, u64)>,
    bytes: usize,
    next_seq: u64,
}

impl Pool {
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    pub(super) fn of(&self, sender: Address) -> Option<&BTreeMap<u64, Entry>> {
        self.senders.get(&sender)
    }

    pub(super) fn at(&self, sender: Address, nonce: u64) -> Option<&Entry> {
        self.senders.get(&sender)?.get(&nonce)
    }

    pub(super) fn at_mut(&mut self, sender: Address, nonce: u64) -> Option<&mut Entry> {
        self.senders.get_mut(&sender)?.get_mut(&nonce)
    }

    pub(super) fn get(&self, hash: B256) -> Option<&Entry> {
        let (sender, nonce) = self.hashes.get(&hash)?;
        self.at(*sender, *nonce)
    }

    pub(super) fn get_mut(&mut self, hash: B256) -> Option<&mut Entry> {
        let (sender, nonce) = *self.hashes.get(&hash)?;
        self.at_mut(sender, nonce)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.senders.values().flat_map(BTreeMap::values)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.senders.values_mut().flat_map(BTreeMap::values_mut)
    }

    /// Adds; what held the sender's nonce before is returned.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<Entry> {
        self.next_seq = self.next_seq.max(entry.seq);
        let old = self.remove_at(entry.tx.sender, entry.nonce());
        self.bytes += entry.raw.len();
        self.hashes
            .insert(entry.tx.hash, (entry.tx.sender, entry.nonce()));
        self.senders
            .entry(entry.tx.sender)
            .or_default()
            .insert(entry.nonce(), entry);
        old
    }

    fn remove_at(&mut self, sender: Address, nonce: u64) -> Option<Entry> {
        let queue = self.senders.get_mut(&sender)?;
        let entry = queue.remove(&nonce)?;
        if queue.is_empty() {
            self.senders.remove(&sender);
        }
        self.hashes.remove(&entry.tx.hash);
        self.bytes -= entry.raw.len();
        Some(entry)
    }

    pub(super) fn remove(&mut self, hash: B256) -> Option<Entry> {
        let (sender, nonce) = *self.hashes.get(&hash)?;
        self.remove_at(sender, nonce)
    }

    /// Senders with transactions here.
    pub(super) fn senders(&self) -> Vec<Address> {
        self.senders.keys().copied().collect()
    }

    /// Sender and nonce of everything, each sender's in sequence, else in order of arrival.
    pub(super) fn by_arrival(&self) -> Vec<(Address, u64)> {
        let mut heap: BinaryHeap<Reverse<(u64, Address, u64)>> = self
            .senders
            .iter()
            .filter_map(|(sender, queue)| {
                queue
                    .values()
                    .next()
                    .map(|first| Reverse((first.seq, *sender, first.nonce())))
            })
            .collect();
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse((_, sender, nonce))) = heap.pop() {
            order.push((sender, nonce));
            let next = self
                .senders
                .get(&sender)
                .and_then(|queue| queue.range(nonce + 1..).next());
            if let Some((next_nonce, entry)) = next {
                heap.push(Reverse((entry.seq, sender, *next_nonce)));
            }
        }
        order
    }

    /// What may be inscribed now, the dearest first, each sender's in sequence, at most `max_bytes`
    /// together. `pays` says whether an entry pays for its satoshis.
    pub(super) fn best(
        &self,
        base_fee: u64,
        max_bytes: usize,
        pays: impl Fn(&Entry) -> bool,
    ) -> Vec<(B256, Bytes)> {
        let fit = |entry: &Entry| entry.gas_used.is_some() && pays(entry);
        let next_of = |sender: Address, from: u64| {
            let queue = self.senders.get(&sender)?;
            // What is in flight is as good as executed; the first that is not decides.
            let entry = queue.range(from..).map(|(_, e)| e).find(|e| e.flight.is_none())?;
            fit(entry).then(|| {
                (
                    entry.tx.priority_fee(base_fee),
                    Reverse(entry.seq),
                    sender,
                    entry.nonce(),
                )
            })
        };
        let mut heap: BinaryHeap<_> = self.senders.keys().filter_map(|s| next_of(*s, 0)).collect();
        let (mut out, mut left) = (Vec::new(), max_bytes);
        while let Some((_, _, sender, nonce)) = heap.pop() {
            let Some(entry) = self.at(sender, nonce) else {
                continue;
            };
            let Some(rest) = left.checked_sub(entry.raw.len()) else {
                continue;
            };
            left = rest;
            out.push((entry.tx.hash, entry.raw.clone()));
            heap.extend(next_of(sender, nonce + 1));
        }
        out
    }

    /// What a transaction is worth here: what cannot run yet is worth less than anything that can, and no
    /// transaction more than the ones that must run before it.
    fn worth(entry: &Entry, base_fee: u64) -> Worth {
        match (entry.flight, entry.tx.priority_fee(base_fee)) {
            (Some(_), _) => (true, u128::MAX),
            (None, Some(tip)) => (entry.gas_used.is_some(), tip),
            (None, None) => (false, 0),
        }
    }

    /// What must go so that there are at most `txs` transactions and `bytes` raw bytes: the cheapest first, of
    /// a sender the last nonce first, of equals the newest. `None` where that would take something worth as
    /// much as a newcomer of `sender` that is worth `new` by itself, or something on its way.
    pub(super) fn make_room(
        &self,
        txs: usize,
        bytes: usize,
        base_fee: u64,
        (sender, nonce): (Address, u64),
        mut new: Worth,
    ) -> Option<Vec<B256>> {
        if self.len() <= txs && self.bytes <= bytes {
            return Some(Vec::new());
        }
        // Each sender's queue as a stack: its last nonce is on top, and worth the least.
        let mut stacks: Vec<Vec<(Worth, &Entry)>> = Vec::new();
        for (owner, queue) in &self.senders {
            let mut least = (true, u128::MAX);
            let mut stack = Vec::with_capacity(queue.len());
            for entry in queue.values() {
                if entry.flight.is_some() {
                    // Nothing below it may go either.
                    stack.clear();
                    continue;
                }
                least = least.min(Self::worth(entry, base_fee));
                stack.push((least, entry));
                if *owner == sender && entry.nonce() < nonce {
                    new = new.min(least);
                }
            }
            stacks.push(stack);
        }
        let top = |stacks: &[Vec<(Worth, &Entry)>], i: usize| {
            let (worth, entry) = stacks[i].last()?;
            Some(Reverse((*worth, Reverse(entry.seq), i)))
        };
        let mut heap: BinaryHeap<_> = (0..stacks.len()).filter_map(|i| top(&stacks, i)).collect();
        let (mut gone, mut left_txs, mut left_bytes) = (Vec::new(), self.len(), self.bytes);
        while left_txs > txs || left_bytes > bytes {
            let Reverse((worth, _, i)) = heap.pop()?;
            if worth >= new {
                return None;
            }
            let (_, entry) = stacks[i].pop()?;
            gone.push(entry.tx.hash);
            left_txs -= 1;
            left_bytes -= entry.raw.len();
            heap.extend(top(&stacks, i));
        }
        Some(gone)
    }

    /// Whether `new` pays enough more to take `old`'s place: a tenth on both fees.
    pub(super) fn check_replacement(old: &Entry, new: &SignedTx) -> Result<(), PoolError> {
        if old.flight.is_some() {
            return Err(PoolError::InFlight {
                nonce: old.nonce(),
                hash: old.tx.hash,
            });
        }
        let bumped = |fee: u128| fee.saturating_add(fee.div_ceil(10)).max(fee.saturating_add(1));
        let tip = |tx: &SignedTx| {
            tx.tx
                .max_priority_fee_per_gas()
                .unwrap_or(tx.tx.max_fee_per_gas())
        };
        let max_fee = bumped(old.tx.tx.max_fee_per_gas());
        let priority_fee = bumped(tip(&old.tx));
        if new.tx.max_fee_per_gas() < max_fee || tip(new) < priority_fee {
            return Err(PoolError::ReplacementUnderpriced {
                max_fee,
                priority_fee,
            });
        }
        Ok(())
    }
}
