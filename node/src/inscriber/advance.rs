//! A batch's way after it is signed: offered until it confirms, paid for again where it lingers, given up
//! where a reorg took what it spends. Everything is on disk before it is broadcast.

use super::batch::{Batch, Stage, Version};
use super::build::{Coin, Lingering, RELAY_STEP};
use super::fate::Fate;
use super::{Inscriber, InscriberError, Point, SETTLED_DEPTH, total_fee};
use crate::bitcoin::{BackendError, BlockRef, CLUSTER_VBYTES_MAX, Refusal, SatPerKvb, Submitted};
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::BTreeSet;

/// Blocks without confirmation after which more is paid.
const BUMP_AFTER: u64 = 3;

/// What the pool said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    /// It, or a block, has the transaction.
    Taken,
    /// Not now.
    Refused(Refusal),
}

/// What pushing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Everything that may be in the pool is.
    InPool,
    /// The pool asks more than any version's commit pays: none is there.
    CommitTooCheap,
    /// The same of a reveal.
    RevealTooCheap,
    /// Refused for another reason; the next tip tries again.
    Waiting,
    /// No version's commit finds its coins.
    Orphaned,
}

/// Whether the reveal of this version may be in the pool beside its unconfirmed commit.
fn travels_together(version: &Version) -> bool {
    version.reveals().len() == 1 && version.vbytes() <= CLUSTER_VBYTES_MAX
}

impl Inscriber {
    /// Settles batch `id` of `live`, pushes it, pays more, or gives it up. Whether the batch changed.
    pub(super) fn advance(&self, id: u64, live: &[Batch], tip: BlockRef) -> Result<bool, InscriberError> {
        let Some(batch) = live.iter().find(|b| b.id == id) else {
            return Ok(false);
        };
        let fate = self.store.fate(batch)?;
        if let Some(since) = fate.revealed_since() {
            let deep = tip.height >= since + SETTLED_DEPTH;
            if deep {
                self.store.put(&Batch {
                    stage: Stage::Settled,
                    ..batch.clone()
                })?;
            }
            return Ok(deep);
        }
        let pushed = self.push(&fate)?;
        let waited = tip.height.saturating_sub(fate.current().signed_at);
        match pushed {
            Pushed::Waiting => Ok(false),
            Pushed::Orphaned => self.bury(&fate, live),
            Pushed::InPool if waited < BUMP_AFTER => Ok(false),
            // What the pool does not even keep need not wait to see whether a block takes it.
            Pushed::CommitTooCheap | Pushed::RevealTooCheap if waited == 0 => Ok(false),
            _ => self.pay_more(&fate, live, pushed, tip),
        }
    }

    /// Offers commit and reveals of the version that can still go; idempotent.
    pub(super) fn push(&self, fate: &Fate<'_>) -> Result<Pushed, InscriberError> {
        let limit = self.pricer.config().rate_max.saturating_mul(2);
        let possible = fate.possible();
        let mut version = fate.current();
        let commit_mined = fate.mined_at(version.commit()).is_some();
        if !commit_mined {
            // The newest first; where an older one is in the pool and pays more, that one.
            let mut refusals = Vec::new();
            let mut taken = None;
            for v in possible.iter().rev() {
                match self.offer(v.commit(), SatPerKvb(limit))? {
                    Offered::Taken => {
                        taken = Some(*v);
                        break;
                    }
                    Offered::Refused(refusal) => refusals.push(refusal),
                }
            }
            match taken {
                Some(v) => version = v,
                None if refusals.iter().all(|r| *r == Refusal::MissingInputs) => return Ok(Pushed::Orphaned),
                None if refusals.contains(&Refusal::FeeTooLow) => return Ok(Pushed::CommitTooCheap),
                None => return Ok(Pushed::Waiting),
            }
        }
        self.reached(Point::CommitSent)?;
        if !commit_mined && !travels_together(version) {
            return Ok(Pushed::InPool);
        }
        let commit = version.commit().compute_txid();
        let siblings: Vec<&Version> = possible
            .into_iter()
            .rev()
            .filter(|v| v.commit().compute_txid() == commit)
            .collect();
        let mut pushed = Pushed::InPool;
        for part in fate.open_parts() {
            match self.push_reveal(part, &siblings, limit)? {
                Offered::Taken => {}
                Offered::Refused(Refusal::FeeTooLow) if pushed == Pushed::InPool => {
                    pushed = Pushed::RevealTooCheap;
                }
                Offered::Refused(Refusal::FeeTooLow) => {}
                Offered::Refused(_) => pushed = Pushed::Waiting,
            }
            self.reached(Point::RevealSent)?;
        }
        Ok(pushed)
    }

    /// Offers the newest reveal of a part, and where the pool does not take it (a coin that it adds is gone,
    /// or an older one is there and pays more) the ones before it. The newest's refusal counts.
    fn push_reveal(&self, part: usize, siblings: &[&Version], limit: u64) -> Result<Offered, InscriberError> {
        let (mut first, mut last) = (None, None);
        for version in siblings {
            let reveal = &version.reveals()[part];
            let txid = reveal.compute_txid();
            if last == Some(txid) {
                continue;
            }
            last = Some(txid);
            // It may pay for its commit, too.
            let (own, commit) = (reveal.vsize() as u64, version.commit().vsize() as u64);
            let max = SatPerKvb::of(SatPerKvb(limit).fee(own + commit), own);
            match self.offer(reveal, max)? {
                Offered::Taken => return Ok(Offered::Taken),
                refused => first = first.or(Some(refused)),
            }
        }
        Ok(first.unwrap_or(Offered::Taken))
    }

    /// Offers one transaction to the pool.
    fn offer(&self, tx: &Transaction, max: SatPerKvb) -> Result<Offered, InscriberError> {
        match self.backend.submit(tx, max) {
            Ok(Submitted::Accepted) => {
                tracing::info!(txid = %tx.compute_txid(), vbytes = tx.vsize(), "broadcast");
                Ok(Offered::Taken)
            }
            Ok(_) => Ok(Offered::Taken),
            Err(BackendError::TxRefused {
                txid,
                refusal,
                reason,
            }) => {
                tracing::warn!(%txid, reason, "Bitcoin does not take it now");
                Ok(Offered::Refused(refusal))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Signs a dearer version: at the present quote, and where the funds do not reach at the least step.
    fn pay_more(
        &self,
        fate: &Fate<'_>,
        live: &[Batch],
        pushed: Pushed,
        tip: BlockRef,
    ) -> Result<bool, InscriberError> {
        let old = fate.current().rate;
        let rate_max = self.pricer.config().rate_max;
        let least = (old + (old / 4).max(RELAY_STEP.0)).min(rate_max);
        let quote = self.pricer.rate().0.clamp(least, rate_max);
        let mut done = self.bump(fate, live, pushed, SatPerKvb(quote), tip);
        if quote > least && matches!(done, Err(InscriberError::Build(_))) {
            done = self.bump(fate, live, pushed, SatPerKvb(least), tip);
        }
        done.or_else(|error| match error {
            InscriberError::Build(error) => {
                tracing::warn!(batch = fate.batch.id, %error, "cannot pay more for a batch that lingers");
                Ok(false)
            }
            error => Err(error),
        })
    }

    /// Replaces the newest version by one at `rate`, or at what of it can be paid. Whether it did.
    pub(super) fn bump(
        &self,
        fate: &Fate<'_>,
        live: &[Batch],
        pushed: Pushed,
        rate: SatPerKvb,
        tip: BlockRef,
    ) -> Result<bool, InscriberError> {
        let old = fate.current();
        if rate.0 <= old.rate {
            return Ok(false);
        }
        let builder = self.builder(&fate.batch.parts);
        let commit = old.commit().compute_txid();
        let commit_mined = fate.commit_mined();
        let in_pool = pushed != Pushed::CommitTooCheap;
        // A commit whose reveal is in the pool could only be replaced for more than both pay together, so the
        // reveal is replaced and pays for both; a commit that is alone, or nowhere, is replaced itself.
        let version = if commit_mined || (in_pool && travels_together(old)) {
            let coins = self.free_coins(live, Some(commit))?;
            let known = self.store.coins()?;
            let lost = |at: &OutPoint| at.txid != commit && !known.contains_key(at);
            let lingering = Lingering {
                old,
                open: fate.open_parts(),
                commit_mined,
                lost: old.added.iter().map(|(at, _)| *at).filter(lost).collect(),
            };
            builder.with_dearer_reveals(&lingering, &coins, rate, tip.height)?
        } else {
            // In the pool, what another batch builds on the change would fall with it; that batch's fee helps
            // this one. What is nowhere helps nobody: what was built on it is given up when this confirms.
            if in_pool && self.leaned_on(fate, live)? {
                return Ok(false);
            }
            builder.with_dearer_commit(old, &self.free_coins(live, None)?, rate, tip.height)?
        };
        tracing::info!(
            batch = fate.batch.id,
            commit = %version.commit().compute_txid(),
            fee_sats = total_fee(&version),
            rate_sat_per_kvb = version.rate,
            wanted_sat_per_kvb = rate.0,
            "paying more for a batch that lingers"
        );
        let mut batch = fate.batch.clone();
        batch.versions.push(version);
        self.reached(Point::Signed)?;
        self.store.put(&batch)?;
        self.reached(Point::Persisted)?;
        let fate = self.store.fate(&batch)?;
        self.tell(&fate);
        self.reached(Point::Told)?;
        self.push(&fate).map(|_| true)
    }

    /// Coins that a replacement may add: confirmed ones (BIP 125 rule 2), and the change of `commit`, on
    /// which the replaced reveal hangs anyway. The largest first.
    fn free_coins(&self, live: &[Batch], commit: Option<Txid>) -> Result<Vec<Coin>, InscriberError> {
        let mut coins: Vec<Coin> = self
            .store
            .spendable(live)?
            .into_iter()
            .filter(|(at, (_, confirmed))| *confirmed || Some(at.txid) == commit)
            .map(|(at, (out, _))| (at, out))
            .collect();
        coins.sort_by_key(|(at, out)| (std::cmp::Reverse(out.value), *at));
        Ok(coins)
    }

    /// Whether another batch spends what a commit of this one makes.
    fn leaned_on(&self, fate: &Fate<'_>, live: &[Batch]) -> Result<bool, InscriberError> {
        let ours: BTreeSet<Txid> = fate
            .possible()
            .iter()
            .map(|v| v.commit().compute_txid())
            .collect();
        for other in live.iter().filter(|b| b.id != fate.batch.id) {
            let other = self.store.fate(other)?;
            let mut inputs = other.pending().into_iter().flat_map(|tx| &tx.input);
            if inputs.any(|i| ours.contains(&i.previous_output.txid)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives a batch up if what it spends is gone for good as far as this chain goes. The mempool hears first:
    /// a kill in between leaves the batch live, and the next start comes here again.
    fn bury(&self, fate: &Fate<'_>, live: &[Batch]) -> Result<bool, InscriberError> {
        // Outputs of other live batches that may still confirm will be there again.
        let mut coming: BTreeSet<OutPoint> = BTreeSet::new();
        for other in live.iter().filter(|b| b.id != fate.batch.id) {
            for tx in self.store.fate(other)?.pending() {
                let txid = tx.compute_txid();
                coming.extend((0u32..).zip(&tx.output).map(|(vout, _)| OutPoint { txid, vout }));
            }
        }
        let coins = self.store.coins()?;
        let gone = |v: &Version| {
            v.spent
                .iter()
                .any(|(at, _)| !coins.contains_key(at) && !coming.contains(at))
        };
        if !fate.unseen() || !fate.batch.versions.iter().all(gone) {
            return Ok(false);
        }
        tracing::error!(
            batch = fate.batch.id,
            "what this batch spends is gone; its transactions are inscribed anew"
        );
        for part in &fate.batch.parts {
            self.source.released(&part.hashes);
        }
        self.reached(Point::Released)?;
        self.store.put(&Batch {
            stage: Stage::Dead,
            ..fate.batch.clone()
        })?;
        Ok(true)
    }
}
