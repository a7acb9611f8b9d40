//! Transactions that wait for a block, and who decides which of them get in: the scheduler is the adversary, but for what
//! is forced.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::Bytes;
use bitai_contracts::explain_revert;
use bitai_miner::chain::send::Call;
use bitai_types::chain::GAS_PER_BYTE;

use crate::{
    chain::{Chain, Fate},
    dice::Dice,
    world::{FURNACE, seal, sign, signer},
};

/// Bytes that a block holds: a tenth of Bitcoin's, as the world's gas target is a tenth of the product's.
const BLOCK_BYTES: usize = 400_000;
/// Bytes of a transaction that burns as much gas as they may.
const SPAM_BYTES: usize = 95_000;

/// A signed transaction that is in no block.
#[derive(Debug, Clone)]
struct Waiting {
    who: &'static str,
    /// What its sender calls it, until it forgets.
    name: String,
    nonce: u64,
    raw: Bytes,
    call: Call,
    tip: u128,
    /// Highest base fee at which it can run.
    bears: u64,
    /// Height from which the scheduler lets it in.
    hold: u64,
}

/// All of them, and those in blocks that may be taken back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    waiting: Vec<Waiting>,
    /// What each height took.
    taken: BTreeMap<u64, Vec<Waiting>>,
}

impl Pool {
    /// Sends a move, unless one of this name waits; gives the reason where it would revert now and is not sent. `hold`
    /// heights go by before the scheduler takes it by itself.
    pub(crate) fn push(
        &mut self,
        chain: &Chain,
        who: &'static str,
        name: &str,
        call: &Call,
        (tip, hold): (u128, u64),
    ) -> Result<(), String> {
        if self.waiting.iter().any(|w| w.who == who && w.name == name) {
            return Ok(());
        }
        let key = signer(who);
        let first = chain.nonce(key.address());
        let used: BTreeSet<u64> = self
            .waiting
            .iter()
            .filter(|w| w.who == who)
            .map(|w| w.nonce)
            .collect();
        let nonce = (first..).find(|n| !used.contains(n)).unwrap();
        let raw = sign(chain, &key, call, nonce, tip)
            .map_err(|data| explain_revert(&data).unwrap_or_else(|| data.to_string()))?;
        self.waiting.push(Waiting {
            who,
            name: name.to_owned(),
            nonce,
            raw,
            call: call.clone(),
            tip,
            bears: chain.base_fee() * 2,
            hold: chain.height() + 1 + hold,
        });
        Ok(())
    }

    /// The sender starts again and knows nothing of what it sent.
    pub(crate) fn forget(&mut self, who: &str) {
        for w in self.waiting.iter_mut().filter(|w| w.who == who) {
            w.name.clear();
        }
    }

    /// Senders pay more where the base fee has risen above what they bear.
    pub(crate) fn reprice(&mut self, chain: &Chain) {
        let base = chain.base_fee();
        for w in self.waiting.iter_mut().filter(|w| w.bears < base) {
            // The gas is what it was when the call was made, and more than enough now that it may revert.
            let gas = w.raw.len() as u64 * GAS_PER_BYTE / 2;
            let what = (w.call.to, w.call.data.clone(), w.call.value);
            w.raw = seal(chain, &signer(w.who), what, w.nonce, w.tip, gas.max(400_000));
            w.bears = base * 2;
        }
    }

    /// What waits, for who plays a case again.
    pub(crate) fn tell(&self) -> String {
        let one = |w: &Waiting| format!("{} {} nonce {} from {}", w.who, w.name, w.nonce, w.hold);
        self.waiting.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Makes a block: everything of the senders in `forced`, then whatever the dice let in, then `spam` burnt gas.
    pub(crate) fn block(&mut self, chain: &mut Chain, dice: &mut Dice, forced: &BTreeSet<&str>, spam: usize) {
        let height = chain.height() + 1;
        let base = chain.base_fee();
        let mut order: Vec<usize> = (0..self.waiting.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, dice.index(i + 1));
        }
        order.sort_by_key(|i| !forced.contains(self.waiting[*i].who));
        let mut next: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut chosen, mut bytes): (Vec<usize>, usize) = (Vec::new(), 0);
        loop {
            let before = chosen.len();
            for &i in &order {
                let w = &self.waiting[i];
                let nonce = next
                    .entry(w.who)
                    .or_insert_with(|| chain.nonce(signer(w.who).address()));
                let is_let_in = forced.contains(w.who) || w.hold <= height;
                let fits = bytes + w.raw.len() <= BLOCK_BYTES;
                if w.nonce == *nonce && is_let_in && fits && w.bears >= base && !chosen.contains(&i) {
                    *nonce += 1;
                    bytes += w.raw.len();
                    chosen.push(i);
                }
            }
            if chosen.len() == before {
                break;
            }
        }
        let mut raws: Vec<Bytes> = chosen.iter().map(|i| self.waiting[*i].raw.clone()).collect();
        let spammer = signer("spammer");
        let first = chain.nonce(spammer.address());
        for nonce in (first..).take(spam) {
            if bytes + SPAM_BYTES > BLOCK_BYTES {
                break;
            }
            bytes += SPAM_BYTES;
            let gas = SPAM_BYTES as u64 * GAS_PER_BYTE - 1_000_000;
            let what = (FURNACE.into(), Bytes::new(), Default::default());
            raws.push(seal(chain, &spammer, what, nonce, 1, gas));
        }
        let fates = chain.make(&raws);
        let mut taken = Vec::new();
        let mut gone = BTreeSet::new();
        for (i, fate) in chosen.iter().zip(&fates) {
            // What was dropped for want of a pass waits on.
            if !matches!(fate, Fate::Dropped(_)) {
                gone.insert(*i);
                taken.push(self.waiting[*i].clone());
            }
        }
        let mut i = 0;
        self.waiting.retain(|_| {
            i += 1;
            !gone.contains(&(i - 1))
        });
        self.taken.insert(height, taken);
    }

    /// Takes blocks back: what they held waits again, as the dice say how long.
    pub(crate) fn take_back(&mut self, chain: &mut Chain, dice: &mut Dice, count: u64) {
        let above = chain.height() - count;
        chain.take_back(usize::try_from(count).unwrap());
        for (_, taken) in self.taken.split_off(&(above + 1)) {
            for mut w in taken {
                w.hold = above + 1 + dice.below(count + 2);
                self.waiting.push(w);
            }
        }
    }
}
