//! The price of inscribing: Bitcoin's fee rate, and what a satoshi is worth in wei.

use super::source::Quote;
use crate::bitcoin::SatPerKvb;
use alloy_primitives::U256;
use std::sync::atomic::{AtomicU64, Ordering};

/// Virtual bytes that a transaction is charged for its share of commit, reveal and header. A commit and a
/// reveal alone have about 300; a batch shares them, and who comes first does not know with how many.
const SHARE_VBYTES: u64 = 100;
/// Bytes of witness per virtual byte (BIP 141).
const WITNESS_SCALE: u64 = 4;

/// Limits of what is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    /// Wei asked for one satoshi spent.
    pub wei_per_sat: u64,
    /// Least rate bid, sat per 1,000 vB.
    pub rate_min: u64,
    /// Most ever paid, sat per 1,000 vB; also the limit given to the Bitcoin node.
    pub rate_max: u64,
    /// Rate where the Bitcoin node has no estimate.
    pub rate_fallback: u64,
    /// Blocks within which a batch should confirm.
    pub target_blocks: u16,
}

impl Default for PriceConfig {
    fn default() -> Self {
        Self {
            // One coin of 10^18 wei for one bitcoin of 10^8 satoshis.
            wei_per_sat: 10_000_000_000,
            rate_min: 1_000,
            rate_max: 500_000,
            rate_fallback: 5_000,
            target_blocks: 2,
        }
    }
}

/// The present price; shared by inscriber and mempool.
#[derive(Debug)]
pub struct Pricer {
    config: PriceConfig,
    rate: AtomicU64,
}

impl Pricer {
    /// Begins at the fallback rate.
    pub fn new(config: PriceConfig) -> Self {
        let rate = AtomicU64::new(config.rate_fallback.clamp(config.rate_min, config.rate_max));
        Self { config, rate }
    }

    /// Takes the Bitcoin node's estimate.
    pub fn update(&self, estimate: Option<SatPerKvb>) {
        let rate = estimate.map_or(self.config.rate_fallback, |r| r.0);
        self.rate.store(
            rate.clamp(self.config.rate_min, self.config.rate_max),
            Ordering::Relaxed,
        );
    }

    /// The rate to bid now.
    pub fn rate(&self) -> SatPerKvb {
        SatPerKvb(self.rate.load(Ordering::Relaxed))
    }

    /// The limits.
    pub fn config(&self) -> &PriceConfig {
        &self.config
    }
}

impl Quote for Pricer {
    fn min_priority_fee(&self, raw_len: usize, gas_used: u64) -> U256 {
        let vbytes = (raw_len as u64)
            .div_ceil(WITNESS_SCALE)
            .saturating_add(SHARE_VBYTES);
        let wei = U256::from(self.rate().fee(vbytes)) * U256::from(self.config.wei_per_sat);
        wei.div_ceil(U256::from(gas_used.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quote_covers_the_satoshis() {
        let pricer = Pricer::new(PriceConfig::default());
        pricer.update(Some(SatPerKvb(2_000)));
        let fee = pricer.min_priority_fee(1_000, 50_000);
        // 350 vB at 2 sat/vB are 700 sat.
        assert!(fee * U256::from(50_000) >= U256::from(700u64 * 10_000_000_000));
        assert!(pricer.min_priority_fee(0, 0) > U256::ZERO);
    }

    #[test]
    fn the_rate_stays_within_its_limits() {
        let pricer = Pricer::new(PriceConfig::default());
        pricer.update(Some(SatPerKvb(1)));
        assert_eq!(pricer.rate(), SatPerKvb(1_000));
        pricer.update(Some(SatPerKvb(u64::MAX)));
        assert_eq!(pricer.rate(), SatPerKvb(500_000));
        pricer.update(None);
        assert_eq!(pricer.rate(), SatPerKvb(5_000));
    }
}
