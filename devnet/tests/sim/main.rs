//! The property that disputes stand on: every lie is convicted and no honest party loses a coin, whatever the order of
//! messages, restarts, reorgs, puppets and full blocks. The committed contracts on the node's own state transition.

#![allow(clippy::unwrap_used)]

mod case;
mod chain;
mod claims;
mod dice;
mod pool;
mod seats;
mod view;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex},
};

use alloy_primitives::B256;
use bitai_kernels::ReferenceDevice;
use bitai_miner::{
    datadir::{DataDir, make_dir},
    dispute::Shelf,
};
use bitai_model::{
    pack::Profile,
    synthetic::{self, Shape},
};

use world::World;

/// Cases of a test run; `BITAI_SIM_CASES` asks for another number.
const CASES: u64 = 60;

/// Models small enough to run thousands of times, unlike each other in what disputes depend on.
fn shapes() -> Vec<Shape> {
    let tiny = Shape {
        layers: 2,
        context: 64,
        ..Shape::tiny()
    };
    vec![
        tiny.clone(),
        Shape {
            layers: 3,
            heads: 2,
            kv_heads: 1,
            head_dim: 32,
            d_ff: 320,
            vocab: 600,
            tied: false,
            ..tiny.clone()
        },
        Shape {
            profile: Profile::B,
            d_ff: 128,
            ..tiny
        },
        // Deep enough for rows at checkpoints.
        Shape {
            context: 64,
            ..Shape::tiny()
        },
    ]
}

/// A shelf with all models, and a world for each.
fn set_up(dir: &Path) -> (Arc<Shelf>, Vec<World>) {
    let data = DataDir::resolve(Some(dir.to_owned())).unwrap();
    make_dir(&data.models()).unwrap();
    let roots: Vec<B256> = (0u64..)
        .zip(shapes())
        .map(|(seed, shape)| {
            let path = data.models().join(format!("model{seed}.pack"));
            synthetic::write(&path, &shape, seed).unwrap().into()
        })
        .collect();
    let shelf = Arc::new(Shelf::on(data, Arc::new(ReferenceDevice), 1));
    let worlds = roots.iter().map(|root| World::new(&shelf, *root)).collect();
    (shelf, worlds)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[test]
fn every_lie_is_convicted_and_nobody_honest_loses_in_any_course_of_events() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, worlds) = set_up(dir.path());
    let (first, cases) = match number("BITAI_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("BITAI_SIM_CASES").unwrap_or(CASES)),
    };
    let next = Mutex::new(first);
    let sums = Mutex::new([0u64; 6]);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        *next - 1
                    };
                    if seed >= first + cases {
                        break;
                    }
                    let world = &worlds[usize::try_from(seed % worlds.len() as u64).unwrap()];
                    match catch_unwind(AssertUnwindSafe(|| case::play(world, &shelf, seed, cases == 1))) {
                        Ok(done) => {
                            let mut sums = sums.lock().unwrap();
                            let guilty = u64::from(done.guilty);
                            let of = [
                                1,
                                guilty,
                                done.games as u64,
                                done.reorgs.into(),
                                done.restarts.into(),
                                done.blocks,
                            ];
                            for (sum, one) in sums.iter_mut().zip(of) {
                                *sum += one;
                            }
                        }
                        Err(_) => {
                            println!("replay: BITAI_SIM_SEED={seed} cargo test -p bitai-devnet --test sim");
                            failed.lock().unwrap().push(seed);
                        }
                    }
                }
            });
        }
    });
    let [played, guilty, games, reorgs, restarts, blocks] = *sums.lock().unwrap();
    println!(
        "{played} cases: {guilty} convictions, {games} games, {reorgs} reorgs, {restarts} restarts, {blocks} blocks"
    );
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
    assert!(
        cases < 20 || (guilty > 0 && guilty < played),
        "the cases are all of one kind"
    );
}
