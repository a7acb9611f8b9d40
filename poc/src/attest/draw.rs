//! Who is drawn for a job, and which chunks of its rows a validator has to hash: functions of a Bitcoin header, the job's
//! number and the validator's address. Integers as Solidity's `abi.encode` has them (docs/spec/validators.md, 2 and 3).

use alloy_primitives::{Address, B256, U256, keccak256};
use bitai_kernels::Hash;

const DRAW_TAG: &[u8; 16] = b"bitai/draw/v0\0\0\0";
const KEY_TAG: &[u8; 16] = b"bitai/key/v0\0\0\0\0";

/// Chunks that an entry hashes.
pub const PICKS: usize = 4;

/// A validator before a job and the header that decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Chain of the contract.
    pub chain_id: u64,
    /// `Attestations`.
    pub contract: Address,
    /// The validator.
    pub validator: Address,
    /// The job's number on the hub.
    pub job_id: U256,
    /// Hash of the header that draws (internal byte order).
    pub header: B256,
}

/// A chunk of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pick {
    /// Position of the token.
    pub token: u32,
    /// Layer.
    pub layer: u32,
    /// 1 KiB chunk of the KV row.
    pub chunk: u32,
}

impl Draw {
    /// Whether it is drawn: `weight` of `total` staked for the job's model, `seats` drawn on average.
    pub fn is_drawn(&self, weight: u128, total: u128, seats: u8) -> bool {
        if weight == 0 {
            return false;
        }
        let job = B256::from(self.job_id);
        let beacon = keccak256([tag(DRAW_TAG), self.header, job].concat());
        let ticket = U256::from_be_bytes(keccak256([beacon, word(self.validator)].concat()).0) >> 128;
        // Weights have 96 bits on the chain, so neither side passes 256.
        let low = |x: u128| U256::from(x) & ((U256::ONE << 96) - U256::ONE);
        ticket * low(total) < (low(weight) * U256::from(seats)) << 128
    }

    /// The key of this validator's hashes of this job.
    pub fn key(&self) -> B256 {
        keccak256(
            [
                tag(KEY_TAG),
                B256::from(U256::from(self.chain_id)),
                word(self.contract),
                word(self.validator),
                B256::from(self.job_id),
                self.header,
            ]
            .concat(),
        )
    }

    /// The chunks to hash of a trace of `positions` tokens and `layers` layers whose KV rows have `row` bytes.
    /// `None` where one of these is 0.
    pub fn picks(&self, positions: u32, layers: u32, row: u64) -> Option<[Pick; PICKS]> {
        let chunks = row.div_ceil(crate::slice::CHUNK);
        if positions == 0 || layers == 0 || chunks == 0 {
            return None;
        }
        let key = self.key();
        let mut index = 0u64;
        let picks = [(); PICKS].map(|()| {
            let x = keccak256([key, B256::from(U256::from(index))].concat());
            let part = |from: usize| {
                let mut eight = [0; 8];
                eight.copy_from_slice(&x[from..from + 8]);
                u64::from_be_bytes(eight)
            };
            // The first lies at the end of everything, so that nearly everything has to be computed.
            let last = index == 0;
            index += 1;
            // Each remainder is below a 32-bit number, but for the chunks of a row, which are fewer still.
            Pick {
                token: if last {
                    positions - 1
                } else {
                    (part(0) % u64::from(positions)) as u32
                },
                layer: if last {
                    layers - 1
                } else {
                    (part(8) % u64::from(layers)) as u32
                },
                chunk: u32::try_from(part(16) % chunks).unwrap_or(u32::MAX),
            }
        });
        Some(picks)
    }

    /// The keyed hash of a chunk's bytes.
    pub fn keyed(&self, chunk: &[u8]) -> Hash {
        *blake3::keyed_hash(&self.key().0, chunk).as_bytes()
    }
}

/// Sixteen bytes on the left of a word.
fn tag(tag: &[u8; 16]) -> B256 {
    let mut word = [0; 32];
    word[..16].copy_from_slice(tag);
    B256::from(word)
}

/// An address as a word.
fn word(address: Address) -> B256 {
    address.into_word()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(job: u64, validator: u8) -> Draw {
        Draw {
            chain_id: 22213,
            contract: Address::repeat_byte(1),
            validator: Address::repeat_byte(validator),
            job_id: U256::from(job),
            header: B256::repeat_byte(3),
        }
    }

    #[test]
    fn the_whole_stake_is_always_drawn_and_none_never() {
        for job in 0..200 {
            assert!(draw(job, 1).is_drawn(1, 1, 1));
            assert!(!draw(job, 1).is_drawn(0, 1, 255));
        }
        let most = (1u128 << 96) - 1;
        assert!(draw(1, 1).is_drawn(most, most, 255));
    }

    #[test]
    fn a_stake_is_drawn_in_proportion_and_its_halves_as_often_together() {
        let drawn = |validator, weight| {
            (0..4000)
                .filter(|&job| draw(job, validator).is_drawn(weight, 1000, 2))
                .count()
        };
        // 2 * 0.1: 800 of 4,000, give or take five standard deviations of 25.
        let whole = drawn(7, 100);
        assert!((675..925).contains(&whole), "{whole}");
        let halves = drawn(8, 50) + drawn(9, 50);
        assert!((675..925).contains(&halves), "{halves}");
    }

    #[test]
    fn picks_lie_inside_and_every_field_moves_them() {
        let base = draw(5, 2);
        let picks = base.picks(40, 12, 2600).unwrap();
        assert_eq!((picks[0].token, picks[0].layer), (39, 11));
        for p in picks {
            assert!(p.token < 40 && p.layer < 12 && p.chunk < 3);
        }
        for other in [
            Draw { chain_id: 1, ..base },
            Draw {
                contract: Address::ZERO,
                ..base
            },
            Draw {
                validator: Address::ZERO,
                ..base
            },
            Draw {
                job_id: U256::from(6),
                ..base
            },
            Draw {
                header: B256::ZERO,
                ..base
            },
        ] {
            assert_ne!(other.key(), base.key());
            assert_ne!(other.picks(4000, 120, 26000), base.picks(4000, 120, 26000));
            assert_ne!(other.keyed(b"chunk"), base.keyed(b"chunk"));
        }
        assert_eq!(base.picks(0, 12, 2600), None);
        assert_eq!(base.picks(40, 0, 2600), None);
        assert_eq!(base.picks(40, 12, 0), None);
    }
}
