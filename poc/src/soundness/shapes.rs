//! Models whose disputes are priced: all that decides the length of a game.

use serde::Serialize;

use crate::dispute::{Maxima, inner, rounds_max};

/// The sizes of a decoder that a game's moves depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Layers.
    pub layers: u32,
    /// Layers from one committed residual row to the next.
    pub stride: u32,
    /// Elements of the residual row.
    pub d_model: u32,
    /// Query heads.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Elements inside the gated unit.
    pub d_ff: u32,
    /// Vocabulary.
    pub vocab: u32,
    /// Positions of the longest trace: the context.
    pub positions: u32,
    /// Most sites of a unit.
    pub sites: u32,
}

/// Sites of a layer that has norms, biases, rotary embeddings and a gated unit, and room to spare.
const LLAMA_SITES: u32 = 32;

/// SmolLM2-135M.
pub const SMOLLM2: Shape = Shape {
    name: "SmolLM2-135M",
    layers: 30,
    stride: 16,
    d_model: 576,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    d_ff: 1_536,
    vocab: 49_152,
    positions: 8_192,
    sites: LLAMA_SITES,
};

/// The shape of Llama 3.2 1B.
pub const ONE_B: Shape = Shape {
    name: "1B",
    layers: 16,
    stride: 16,
    d_model: 2_048,
    heads: 32,
    kv_heads: 8,
    head_dim: 64,
    d_ff: 8_192,
    vocab: 128_256,
    positions: 8_192,
    sites: LLAMA_SITES,
};

/// The shape of Llama 3.1 8B.
pub const EIGHT_B: Shape = Shape {
    name: "8B",
    layers: 32,
    stride: 16,
    d_model: 4_096,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    d_ff: 14_336,
    vocab: 128_256,
    positions: 8_192,
    sites: LLAMA_SITES,
};

/// The most that can be disputed: the declared maxima, the most layers and sites, a residual row at every layer.
pub const MAXIMA: Shape = Shape {
    name: "maxima",
    layers: inner::LAYERS_MAX,
    stride: 1,
    d_model: 32_768,
    heads: 128,
    kv_heads: 128,
    head_dim: 256,
    d_ff: 32_768,
    vocab: Maxima::DECLARED.vocab,
    positions: Maxima::DECLARED.positions,
    // 256, as a number of 32 bits.
    #[allow(clippy::cast_possible_truncation)]
    sites: inner::UNIT_SITES_MAX as u32,
};

/// All of them, the smallest first.
pub const ALL: [Shape; 4] = [SMOLLM2, ONE_B, EIGHT_B, MAXIMA];

impl Shape {
    /// Elements of its longest dot product, and of its longest row inside the layers.
    pub fn k(&self) -> u32 {
        self.d_model
            .max(self.d_ff)
            .max(self.heads.saturating_mul(self.head_dim))
    }

    /// Asks of its longest game.
    pub fn rounds_max(&self) -> u32 {
        rounds_max(&Maxima {
            positions: self.positions,
            vocab: self.vocab,
            k: self.k(),
        })
    }

    /// The same model with traces of at most so many positions.
    pub const fn with_positions(self, positions: u32) -> Self {
        Self { positions, ..self }
    }
}

#[cfg(test)]
mod tests {
    use bitai_model::{
        pack::Profile,
        synthetic::{self, Shape as Sizes},
    };

    use super::*;
    use crate::dispute::inner::Units;

    #[test]
    fn the_longest_game_has_eight_rounds() {
        assert_eq!(MAXIMA.rounds_max(), 8);
        assert_eq!(ALL.map(|s| s.rounds_max()), [8, 8, 8, 8]);
        // The devnet's job: 52 positions are one level of the tree.
        assert_eq!(SMOLLM2.with_positions(52).rounds_max(), 7);
    }

    #[test]
    fn real_layers_have_no_more_sites_than_is_reckoned() {
        for profile in [Profile::A, Profile::B] {
            let pack = synthetic::pack(
                &Sizes {
                    profile,
                    ..Sizes::tiny()
                },
                1,
            )
            .unwrap();
            let units = Units::new(&pack.program()).unwrap();
            let most = (0..units.count(true))
                .map(|u| units.sites(u).len())
                .max()
                .unwrap();
            assert!(most <= LLAMA_SITES as usize, "{most}");
            assert!(most > 12, "{most}");
        }
    }
}
