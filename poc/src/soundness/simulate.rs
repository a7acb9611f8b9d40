//! Chances compared with what happens: draws, canaries, withheld blocks and clocks, played with a seeded integer generator.
//! The seeds are fixed, so that a bound which holds once holds always; each is at least four standard deviations wide.

use super::{
    attest, beacon, censor,
    chance::{Chance, Share},
    recheck,
};

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`: n is far below 2^64, so that the bias does not show.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn happens(&mut self, share: Share) -> bool {
        let (num, den) = share.parts();
        self.below(den) < num
    }
}

const RUNS: u64 = 200_000;

fn share(text: &str) -> Share {
    text.parse().unwrap()
}

/// How often of [`RUNS`] times `event` happened is what `chance` says, within `off` runs.
fn agrees(chance: Chance, off: u64, mut event: impl FnMut() -> bool) {
    let got = (0..RUNS).filter(|_| event()).count() as u64;
    let expected = (chance.parts() * u128::from(RUNS)) >> 64;
    assert!(
        u128::from(got).abs_diff(expected) <= off.into(),
        "{got} of {RUNS}, {expected} expected"
    );
}

/// Draws `drawn` validators by stake, without putting any back; tells whether none of the first `honest` is among them.
fn draws_none_honest(r: &mut Random, stakes: &[u64], honest: usize, drawn: u64) -> bool {
    let mut left = stakes.to_vec();
    for _ in 0..drawn.min(stakes.len() as u64) {
        let mut ticket = r.below(left.iter().sum());
        let who = left.iter().position(|stake| {
            let here = ticket < *stake;
            ticket = ticket.saturating_sub(*stake);
            here
        });
        let who = who.unwrap();
        if who < honest {
            return false;
        }
        left[who] = 0;
    }
    true
}

#[test]
fn draws_of_equal_stakes_miss_the_honest_as_often_as_reckoned() {
    let mut r = Random(1);
    for (all, honest, drawn) in [(10u64, 3u64, 4u64), (20, 10, 3), (8, 2, 8), (12, 1, 6)] {
        let stakes = vec![5; all as usize];
        let chance = attest::none_honest_of(all, honest, drawn);
        // A standard deviation is at most 224.
        agrees(chance, 900, || {
            draws_none_honest(&mut r, &stakes, honest as usize, drawn)
        });
    }
}

#[test]
fn draws_of_uneven_stakes_stay_below_the_bound_and_many_small_liars_reach_it() {
    let mut r = Random(2);
    let bound = attest::none_honest(share("0.5"), 4);
    let most = (bound.parts() * u128::from(RUNS)) >> 64;
    let mut misses = |honest: usize, stakes: &[u64]| {
        let n = (0..RUNS)
            .filter(|_| draws_none_honest(&mut r, stakes, honest, 4))
            .count();
        n as u128
    };
    // Two honest with half of the stake against few and unequal liars.
    assert!(misses(2, &[30, 20, 25, 13, 7, 5]) < most / 2);
    assert!(misses(1, &[50, 40, 4, 3, 3]) < most / 2);
    // Against two hundred small ones: within 500 runs of the bound, which is 12,500.
    let mut many = vec![200];
    many.extend([1; 200]);
    let got = misses(1, &many);
    assert!(got <= most + 500 && got + 1_000 >= most, "{got} of {most}");
}

#[test]
fn checkers_leave_a_job_out_as_often_as_reckoned() {
    let mut r = Random(3);
    for (q, k) in [("0.1", 10), ("0.5", 3), ("0.01", 100)] {
        agrees(recheck::unseen(share(q), k), 900, || {
            (0..k).all(|_| !r.happens(share(q)))
        });
    }
}

#[test]
fn the_lazy_meet_canaries_as_often_as_reckoned() {
    let mut r = Random(4);
    for (canaries, lazy, jobs) in [("0.01", "1", 100), ("0.05", "0.5", 40), ("0.2", "0.1", 30)] {
        let (c, l) = (share(canaries), share(lazy));
        let unnoticed = attest::unnoticed(c, l, jobs);
        // A job is skipped without a look at whether it is a canary: it does not show.
        agrees(unnoticed, 900, || {
            (0..jobs).all(|_| !(r.happens(c) && r.happens(l)))
        });
    }
}

#[test]
fn laziness_loses_above_the_least_share_of_canaries_and_gains_below_it() {
    let stakes = attest::Stakes {
        recheck: 10,
        slash: 900,
        bounty: 100,
        in_flight: 20,
    };
    let least = attest::canaries_min(&stakes).unwrap();
    let mut r = Random(5);
    let mut gain = |canaries: Share| {
        let mut sum = 0i64;
        for _ in 0..20_000 {
            // Lazy until the first canary is unmasked, `in_flight` jobs after it was attested to.
            let mut jobs = 1;
            while !r.happens(canaries) {
                jobs += 1;
            }
            sum += (jobs + stakes.in_flight as i64) * stakes.recheck as i64;
            sum -= (stakes.slash + stakes.bounty) as i64;
        }
        sum
    };
    let (num, den) = (least.num as u64, least.den as u64);
    assert!(gain(Share::new(num * 11, den * 10).unwrap()) < 0);
    assert!(gain(Share::new(num * 9, den * 10).unwrap()) > 0);
}

#[test]
fn a_miner_biases_a_draw_as_much_as_reckoned() {
    let mut r = Random(6);
    for (p, e) in [("0.3", "0.5"), ("0.1", "0.9"), ("0.6", "0.05")] {
        let (p, e) = (share(p), share(e));
        let once = beacon::bias_once(p, e);
        let fair = e.chance().or(Chance::ratio(once.num, once.den));
        agrees(fair, 900, || {
            let (own, pleases) = (r.happens(p), r.happens(e));
            pleases || (own && r.happens(e))
        });
        let all = beacon::with_all(p, e);
        agrees(Chance::ratio(all.num, all.den), 900, || {
            loop {
                let (own, pleases) = (r.happens(p), r.happens(e));
                if pleases || !own {
                    break pleases;
                }
            }
        });
    }
}

#[test]
fn clocks_run_out_as_often_as_reckoned() {
    let mut r = Random(7);
    for (censors, moves, blocks) in [("0.5", 9, 16), ("0.9", 9, 72), ("0.3", 3, 5)] {
        let share = share(censors);
        agrees(censor::shut_out(share, moves, blocks), 900, || {
            let mut done = 0;
            for _ in 0..blocks {
                done += u64::from(!r.happens(share));
            }
            done < moves
        });
    }
}
