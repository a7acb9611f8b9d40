//! Attention's launches: tiles of queries where a sequence has many rows (prefill), keys split over blocks where it has
//! few (decode), and one kernel for every other case.

use super::{
    blocks::{Pool, Quant},
    driver::{Arguments, Buffer, Driver, Launch, Queue},
    linear::GRID_MAX,
    ops::Rows,
    weights::scale_word,
};
use crate::{KernelError, ops::AttentionParams};

/// Query rows whose keys are split over blocks in one go.
const SPLIT_ROWS: usize = 64;
/// Fewest keys that are worth five launches.
const SPLIT_KEYS: usize = 64;
/// Keys of a piece, at least; what a block takes at once.
const TILE: usize = 64;
/// Blocks that fill a large GPU several times over.
const SPLIT_BLOCKS: usize = 1024;
/// Keys by which scratch grows.
const SPAN_STEP: usize = 1024;
/// Keys that the int32 sums of one plane hold.
const PIECE_MAX: usize = 65_536;

/// Fewest rows of a sequence that are worth a tile.
const TILE_ROWS: usize = 16;

/// A kernel for tiles of queries (`attention_tile.cu`): rows a block, threads, bytes of shared memory.
struct Tile {
    kernel: &'static str,
    rows: usize,
    threads: u32,
    shared: u32,
}

fn tile(p: AttentionParams) -> Option<Tile> {
    let (kernel, rows, threads, shared) = match (p.head_dim, p.p_bits) {
        (64, 15) => ("attention_tile_64_p15", 128, 512, 51_776),
        (64, 23) => ("attention_tile_64_p23", 96, 384, 49_856),
        (96, 15) => ("attention_tile_96_p15", 64, 384, 63_808),
        (96, 23) => ("attention_tile_96_p23", 64, 384, 69_952),
        (128, 15) => ("attention_tile_128_p15", 64, 512, 100_160),
        (128, 23) => ("attention_tile_128_p23", 48, 384, 99_200),
        _ => return None,
    };
    Some(Tile {
        kernel,
        rows,
        threads,
        shared,
    })
}

/// How long the sequences of some rows are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    /// Most keys that a row sees.
    pub(crate) keys: usize,
    /// Most rows that one sequence has here.
    pub(crate) rows: usize,
}

/// Attention of `rows` over the cache; `cache` are its fields for the layer.
pub(crate) fn attention(
    driver: &dyn Driver,
    pool: &mut Pool,
    p: AttentionParams,
    cache: &Arguments,
    rows: &Rows,
    lengths: Lengths,
    q: &Quant,
    out: &Buffer,
) -> Result<(), KernelError> {
    let site = Site {
        driver,
        p,
        cache,
        rows,
        keys: lengths.keys,
        q,
        out,
    };
    let tile = tile(p).filter(|t| {
        lengths.rows >= TILE_ROWS
            && p.heads / p.kv_heads <= t.rows
            && lengths.keys <= PIECE_MAX
            && t.shared <= driver.shared_max()
    });
    if let Some(tile) = tile {
        return site.tiles(&tile);
    }
    if lengths.keys < SPLIT_KEYS || !p.head_dim.is_multiple_of(8) || p.head_dim > 256 {
        return site.any();
    }
    for first in (0..rows.count).step_by(SPLIT_ROWS) {
        site.split(pool, first, SPLIT_ROWS.min(rows.count - first))?;
    }
    Ok(())
}

/// One attention site for the rows at hand.
struct Site<'a> {
    driver: &'a dyn Driver,
    p: AttentionParams,
    cache: &'a Arguments,
    rows: &'a Rows,
    /// Most keys that a row sees.
    keys: usize,
    q: &'a Quant,
    out: &'a Buffer,
}

impl Site<'_> {
    /// The fields before the scratch, for the rows from `first` on.
    fn arguments(&self, first: usize) -> Arguments {
        let heads = first * self.p.heads;
        let elements = heads * self.p.head_dim;
        self.cache
            .clone()
            .buffer_at(&self.rows.slots, first * 4)
            .buffer_at(&self.rows.positions, first * 4)
            .buffer_at(&self.rows.lens, first * 4)
            .buffer_at(&self.q.hi, elements)
            .buffer_at(&self.q.scales, heads * 4)
            .buffer_at(self.out, elements * 4)
    }

    /// The fields behind the scratch; `span` keys have room in it.
    fn words(&self, count: usize, span: usize) -> [u32; 10] {
        let p = self.p;
        [
            count as u32,
            p.heads as u32,
            p.kv_heads as u32,
            p.head_dim as u32,
            scale_word(p.scale),
            u32::from(p.p_bits),
            p.window,
            u32::from(p.causal),
            u32::from(p.f_out),
            span as u32,
        ]
    }

    fn run(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        (block, shared): (u32, u32),
        arguments: &Arguments,
    ) -> Result<(), KernelError> {
        self.driver.launch(Launch {
            kernel,
            grid,
            block,
            shared,
            arguments,
            queue: Queue::Work,
        })
    }

    /// All rows at once, without scratch.
    fn whole(&self) -> Arguments {
        [0; 5]
            .iter()
            .fold(self.arguments(0), |a, none| a.word64(*none))
            .words(self.words(self.rows.count, 0))
    }

    fn tiles(&self, t: &Tile) -> Result<(), KernelError> {
        let queries = t.rows / (self.p.heads / self.p.kv_heads);
        let grid = [
            self.rows.count.div_ceil(queries) as u32,
            self.p.kv_heads as u32,
            1,
        ];
        self.run(t.kernel, grid, (t.threads, t.shared), &self.whole())
    }

    fn any(&self) -> Result<(), KernelError> {
        let grid = [self.p.heads as u32, self.rows.count.min(GRID_MAX) as u32, 1];
        self.run("attention_any", grid, (128, 0), &self.whole())
    }

    /// `n` rows from `first` on, their keys split over blocks.
    fn split(&self, pool: &mut Pool, first: usize, n: usize) -> Result<(), KernelError> {
        let p = self.p;
        // Room in steps, so that a sequence that grows does not ask for memory with every token.
        let span = self.keys.next_multiple_of(SPAN_STEP);
        let scratch = [
            n * p.kv_heads * 2 * 4,
            n * p.heads * 4,
            n * p.heads * span * 4,
            n * p.heads * 8,
            n * p.heads * p.head_dim * 8,
        ];
        let scratch: Vec<Buffer> = scratch
            .iter()
            .map(|bytes| pool.take(*bytes))
            .collect::<Result<_, _>>()?;
        let arguments = scratch
            .iter()
            .fold(self.arguments(first), Arguments::buffer)
            .words(self.words(n, span));
        let splits = (SPLIT_BLOCKS / (p.kv_heads * n))
            .max(self.keys.div_ceil(PIECE_MAX))
            .clamp(1, self.keys.div_ceil(TILE));
        let pieces = [splits as u32, p.kv_heads as u32, n as u32];
        let cleared = (n * p.heads * p.head_dim).div_ceil(1024).clamp(1, 256);
        self.run("attention_init", [cleared as u32, 1, 1], (128, 0), &arguments)?;
        for kernel in ["attention_units", "attention_dots", "attention_sums"] {
            self.run(kernel, pieces, (128, 0), &arguments)?;
        }
        self.run(
            "attention_finish",
            [p.heads as u32, n as u32, 1],
            (128, 0),
            &arguments,
        )?;
        for buffer in scratch {
            pool.give(buffer);
        }
        Ok(())
    }
}
