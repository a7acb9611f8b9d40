//! Bytes on Bitcoin of one BitAI transaction that travels alone, as the inscriber writes it: a commit, a reveal, an envelope.
//! Upper bounds: nothing is taken to compress.

/// Virtual bytes of a commit: one taproot input, the reveal's output and change.
pub const COMMIT: u64 = 154;
/// Weight of a reveal without its witness: one input, one taproot output.
const REVEAL_BASE: u64 = 94 * 4;
/// Witness of a reveal beside script and its length: marker and flag, number of items, signature, control block.
const WITNESS: u64 = 2 + 1 + 65 + 34;
/// The leaf script beside the payload's pushes: key and check, FALSE IF, magic, header, ENDIF.
const SCRIPT: u64 = 34 + 2 + 6 + 27 + 1;
/// Most bytes of a push.
const PUSH: u64 = 520;
/// Bytes of a type 2 transaction beside its calldata, with every number as long as it comes.
const RAW: u64 = 135;
/// What RLP, twice, and a zstd frame of raw blocks add to one transaction of up to 128 KiB.
const FRAME: u64 = 4 + 4 + 12;

/// Bytes of a Bitcoin script's push of `len` bytes, its length included.
const fn push(len: u64) -> u64 {
    len + match len {
        0..=75 => 1,
        76..=255 => 2,
        _ => 3,
    }
}

/// Bytes of a compact size.
const fn compact(n: u64) -> u64 {
    match n {
        0..=252 => 1,
        253..=0xffff => 3,
        _ => 5,
    }
}

/// Virtual bytes of the reveal that carries a payload.
pub const fn reveal(payload: u64) -> u64 {
    let whole = payload / PUSH * push(PUSH);
    let rest = payload % PUSH;
    let script = SCRIPT + whole + if rest == 0 { 0 } else { push(rest) };
    (REVEAL_BASE + WITNESS + compact(script) + script).div_ceil(4)
}

/// `len` rounded up to words of the ABI.
pub const fn padded(len: u64) -> u64 {
    len.div_ceil(32) * 32
}

/// Most virtual bytes of a transaction with so much calldata, alone in its envelope.
pub const fn alone(calldata: u64) -> u64 {
    COMMIT + reveal(RAW + calldata + FRAME)
}

/// Calldata of `open` about a claim of so many output ids.
pub const fn open(outputs: u64) -> u64 {
    4 + 32 * 12 + padded(4 * outputs)
}

/// Calldata of `ask`.
pub const fn ask() -> u64 {
    4 + 32 * 3 + padded(52)
}

/// Calldata of `answer`, of so many bytes.
pub const fn answer(bytes: u64) -> u64 {
    4 + 32 * 2 + padded(bytes)
}

/// Calldata of `accuse`, of so many bytes.
pub const fn accuse(bytes: u64) -> u64 {
    4 + 32 * 3 + padded(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soundness::measured;

    #[test]
    fn commit_and_reveal_are_what_the_inscriber_signs() {
        let frames = measured::read().unwrap().overhead.frames;
        assert!(frames.len() > 10);
        for [payload, commit, vbytes] in frames {
            assert_eq!(commit, COMMIT);
            assert_eq!(reveal(payload), vbytes, "{payload}");
        }
    }

    #[test]
    fn a_transaction_alone_is_no_larger_than_the_bound() {
        for t in measured::read().unwrap().overhead.transactions {
            assert!(alone(t.calldata) >= t.alone, "{}", t.name);
            assert!(RAW + t.calldata >= t.raw, "{}", t.name);
            // Nor is the bound far: what compresses of so short a thing are the zeros of its words.
            assert!(alone(t.calldata) <= t.alone * 2, "{}", t.name);
        }
    }

    #[test]
    fn calldata_is_what_a_dispute_on_the_devnet_sent() {
        // benches/results/2026-11-22-disputes.md, move by move: 16 outputs; 52 tokens; a piece of 1 KiB.
        assert_eq!(open(16), 452);
        assert_eq!(ask(), 164);
        assert_eq!(answer(32 + 52 * 32), 1_764);
        assert_eq!(answer(32 + 1_024), 1_124);
    }
}
