//! Bitcoin miners who leave moves out: the chance that an honest player cannot get its moves in before its clock runs out.

use super::chance::{Chance, Share};

/// The chance that fewer than `moves` of `blocks` blocks come from miners who take them in, where a share `censors` of the hash
/// power does not: the lower tail of a binomial. A clock runs only while its owner is to move, so that `blocks` is the clock and
/// every block of an honest miner takes one move in.
pub fn shut_out(censors: Share, moves: u64, blocks: u64) -> Chance {
    if moves > blocks {
        return Chance::ONE;
    }
    let (good, bad) = (censors.rest().chance(), censors.chance());
    let mut tail = Chance::ZERO;
    // C(blocks, i), exact as long as it fits and an upper bound above that.
    let mut ways: u128 = 1;
    for i in 0..moves {
        let term = good.pow(i).and(bad.pow(blocks - i));
        tail = tail.or(term.times(ways));
        ways = ways.saturating_mul((blocks - i).into()) / u128::from(i + 1);
        if ways > u128::MAX / u128::from(blocks.max(1)) {
            return Chance::ONE;
        }
    }
    tail
}

/// How many blocks in a row a player can be kept out of and still make all its moves.
pub const fn slack(moves: u64, blocks: u64) -> u64 {
    blocks.saturating_sub(moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    #[test]
    fn the_ends_are_exact() {
        assert_eq!(shut_out(Share::ZERO, 9, 144), Chance::ZERO);
        assert_eq!(shut_out(Share::ONE, 1, 144), Chance::ONE);
        assert_eq!(shut_out(Share::ONE, 0, 144), Chance::ZERO);
        assert_eq!(shut_out(share("0.5"), 1, 144), Chance::half_to(144));
        assert_eq!(shut_out(share("0.5"), 10, 9), Chance::ONE);
        // 1 + 3 of the 8 ways in which three blocks can fall.
        assert_eq!(shut_out(share("0.5"), 2, 3), Chance::half_to(1));
        // All but the one in which each is honest.
        assert_eq!(shut_out(share("0.5"), 3, 3).parts().div_ceil(1 << 61), 7);
    }

    #[test]
    fn more_censors_and_more_moves_are_worse_a_longer_clock_is_better() {
        for (p, moves, blocks) in [("0.5", 9, 144), ("0.9", 9, 144), ("0.7", 9, 40)] {
            let here = shut_out(share(p), moves, blocks);
            assert!(shut_out(share("0.95"), moves, blocks) > here);
            assert!(shut_out(share(p), moves + 1, blocks) > here);
            assert!(shut_out(share(p), moves, blocks + 1) < here);
        }
    }
}
