//! The bounds of a game against the engine, the spec, the contract and disputes that a devnet ended.

use super::*;
use crate::soundness::{
    measured,
    shapes::{ALL, MAXIMA, SMOLLM2},
};

#[test]
fn the_longest_way_has_the_rounds_that_the_engine_counts() {
    for shape in ALL {
        let ways = Sizes(&shape).ways(512, 128);
        let longest = ways.iter().map(|w| w.rounds).max().unwrap();
        assert_eq!(longest, u64::from(shape.rounds_max()), "{}", shape.name);
        assert_eq!(
            ways.iter().find(|w| w.rounds == longest).unwrap().about,
            "attention"
        );
    }
}

#[test]
fn answers_are_as_long_as_the_spec_says() {
    let bytes = |what: &str| {
        let nodes = Sizes(&MAXIMA).nodes();
        nodes
            .iter()
            .filter(|n| n.what == what)
            .map(|n| n.bytes - 32)
            .collect::<Vec<_>>()
    };
    assert_eq!(bytes("tokens"), [4_096, 8_192]);
    // 103 with the 64 of two more units.
    assert_eq!(bytes("token"), [97 * 256 + 103]);
    assert_eq!(bytes("unit"), [256 * 65]);
    assert_eq!(bytes("row"), [8_192]);
    assert_eq!(bytes("piece"), [4_096]);
    assert_eq!(bytes("sum"), [1_024]);
    assert_eq!(bytes("keys"), [4_118]);
    assert_eq!(bytes("key part"), [1_152]);
    assert_eq!(bytes("group"), [16]);
    assert_eq!(bytes("norm"), [2_062]);
    assert_eq!(bytes("draw"), [8_220]);
    assert_eq!(bytes("draw part"), [8_192]);
}

#[test]
fn the_bond_is_the_contracts() {
    let sol = include_str!("../../../../contracts/src/PocVerifier.sol");
    for line in [
        "ANSWER_BYTES = 8192 + 8192 + 64 + 256 * 65 + 8192 + 8220 + 8192;",
        "MOVE_BYTES = uint256(ASKS_MAX) * 300;",
        "ASKS_MAX = 9;",
        "uint256 token = 103 + 97 * uint256(m.layers);",
        "(ANSWER_BYTES + Slices.pieceLength(row) + MOVE_BYTES + token) * weiPerByte;",
    ] {
        assert!(
            sol.contains(line),
            "PocVerifier.sol has no `{line}`: the bond here is another"
        );
    }
    // Pieces of 1 KiB up to 65,536 elements a row, 30 layers.
    assert_eq!(
        Sizes(&SMOLLM2).bond_bytes(),
        57_692 + 1_024 + 2_700 + 103 + 97 * 30
    );
}

#[test]
fn a_game_on_the_devnet_took_no_more_than_the_bound() {
    let shape = SMOLLM2.with_positions(52);
    let ways = Sizes(&shape).ways(37, 16);
    let of = |about: &str| ways.iter().find(|w| w.about == about).unwrap();
    let measured = measured::read().unwrap().disputes;
    for (lie, about) in [
        ("linear", "linear"),
        ("attention", "attention"),
        ("quant", "quantisation"),
        ("norm", "norm"),
        ("glu", "sum, unit, pair"),
        ("kv", "cached row"),
        ("embed", "embedding of the prompt"),
        ("token", "greedy token"),
    ] {
        let d = measured.iter().find(|d| d.lie == lie).unwrap();
        let w = of(about);
        assert!(d.vbytes <= w.vbytes(), "{lie}: {} of {}", d.vbytes, w.vbytes());
        assert!(d.rounds <= w.rounds, "{lie}");
        // And within three times of it: the bound is of the longest rows.
        assert!(
            w.vbytes() <= 3 * d.vbytes,
            "{lie}: {} of {}",
            d.vbytes,
            w.vbytes()
        );
    }
}

#[test]
fn the_worst_asks_are_at_least_the_worst_way() {
    for shape in ALL {
        let sizes = Sizes(&shape);
        let g = sizes.griefing(128);
        let ways = sizes.ways(512, 128);
        assert!(g.neuron_vbytes >= ways.iter().map(|w| w.neuron_vbytes).max().unwrap());
        assert!(g.bytes <= u64::from(ASKS_MAX) * sizes.nodes().iter().map(|n| n.bytes).max().unwrap());
    }
}
