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

/// Most query rows whose keys are split over blocks.
const SPLIT_ROWS: usize = 64;
/// Fewest keys that are worth five launches.
const SPLIT_KEYS: usize = 64;
/// Keys of a piece, at least; what a block takes at once.
const TILE: usize = 64;
/// Blocks that fill a large GPU several times over.
const SPLIT_BLOCKS: usize = 1024;
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
    cache: Arguments,
    rows: &Rows,
    lengths: Lengths,
    q: &Quant,
    out: &Buffer,
) -> Result<(), KernelError> {
    let span = lengths.keys;
    let tile = tile(p).filter(|t| {
        lengths.rows >= TILE_ROWS
            && p.heads / p.kv_heads <= t.rows
            && span <= PIECE_MAX
            && t.shared <= driver.shared_max()
    });
    let split =
        rows.count <= SPLIT_ROWS && span >= SPLIT_KEYS && p.head_dim.is_multiple_of(8) && p.head_dim <= 256;
    let arguments = cache
        .buffer(&rows.slots)
        .buffer(&rows.positions)
        .buffer(&rows.lens)
        .buffer(&q.hi)
        .buffer(&q.scales)
        .buffer(out);
    let words = [
        rows.count as u32,
        p.heads as u32,
        p.kv_heads as u32,
        p.head_dim as u32,
        scale_word(p.scale),
        u32::from(p.p_bits),
        p.window,
        u32::from(p.causal),
        u32::from(p.f_out),
        span as u32,
    ];
    let run_with = |kernel, grid, block, shared, arguments: &Arguments| {
        driver.launch(Launch {
            kernel,
            grid,
            block,
            shared,
            arguments,
            queue: Queue::Work,
        })
    };
    let run = |kernel, grid, block, arguments: &Arguments| run_with(kernel, grid, block, 0, arguments);
    let (n, heads, kv_heads) = (rows.count, p.heads, p.kv_heads);
    if tile.is_some() || !split {
        let arguments = [0; 5]
            .iter()
            .fold(arguments, |a, none| a.word64(*none))
            .words(words);
        if let Some(t) = tile {
            let queries = t.rows / (heads / kv_heads);
            let grid = [n.div_ceil(queries) as u32, kv_heads as u32, 1];
            return run_with(t.kernel, grid, t.threads, t.shared, &arguments);
        }
        let grid = [heads as u32, n.min(GRID_MAX) as u32, 1];
        return run("attention_any", grid, 128, &arguments);
    }
    let scratch = [
        n * kv_heads * 2 * 4,
        n * heads * 4,
        n * heads * span * 4,
        n * heads * 8,
        n * heads * p.head_dim * 8,
    ];
    let scratch: Vec<Buffer> = scratch
        .iter()
        .map(|bytes| pool.take(*bytes))
        .collect::<Result<_, _>>()?;
    let arguments = scratch.iter().fold(arguments, Arguments::buffer).words(words);
    let splits = (SPLIT_BLOCKS / (kv_heads * n))
        .max(span.div_ceil(PIECE_MAX))
        .clamp(1, span.div_ceil(TILE));
    let pieces = [splits as u32, kv_heads as u32, n as u32];
    let cleared = (n * heads * p.head_dim).div_ceil(1024).clamp(1, 256);
    run("attention_init", [cleared as u32, 1, 1], 128, &arguments)?;
    run("attention_units", pieces, 128, &arguments)?;
    run("attention_dots", pieces, 128, &arguments)?;
    run("attention_sums", pieces, 128, &arguments)?;
    run("attention_finish", [heads as u32, n as u32, 1], 128, &arguments)?;
    for buffer in scratch {
        pool.give(buffer);
    }
    Ok(())
}
