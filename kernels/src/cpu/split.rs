//! How work is cut for the thread pool: by rows and by columns of rows, never inside a sum, so that no cut
//! can change a result.

use rayon::prelude::*;

/// Work below this many multiply-adds stays on one thread: waking another costs more. Unit tests cut much
/// finer, so that small shapes go through every kind of split.
pub(super) const SERIAL_WORK: usize = if cfg!(test) { 64 } else { 1 << 17 };

/// Threads that work is cut for.
pub(super) fn threads() -> usize {
    rayon::current_num_threads()
}

/// Rows a block when `rows` rows of `work` operations each go to `threads` threads: a few blocks a thread
/// for balance, none smaller than [`SERIAL_WORK`].
pub(super) fn rows_a_block(rows: usize, work: usize, threads: usize) -> usize {
    let least = SERIAL_WORK.div_ceil(work.max(1));
    rows.div_ceil(threads.max(1) * 4).max(least).clamp(1, rows.max(1))
}

/// Runs `f(first row, block)` over blocks of whole rows of `out`.
pub(super) fn by_rows<T: Send>(
    out: &mut [T],
    cols: usize,
    work: usize,
    f: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    let rows = out.len().checked_div(cols).unwrap_or(0);
    let block = rows_a_block(rows, work, rayon::current_num_threads());
    if rows <= block {
        f(0, out);
    } else {
        out.par_chunks_mut(block * cols)
            .enumerate()
            .for_each(|(i, part)| f(i * block, part));
    }
}

/// Runs `f(first column, pieces)` over blocks of `block` columns of the `[rows, cols]` array `out`;
/// `pieces[i]` is row i's part.
pub(super) fn by_columns<T: Send>(
    out: &mut [T],
    cols: usize,
    block: usize,
    f: impl Fn(usize, &mut [&mut [T]]) + Send + Sync,
) {
    if cols == 0 {
        return;
    }
    let rows = out.len() / cols;
    if cols <= block {
        let mut pieces: Vec<&mut [T]> = out.chunks_mut(cols).collect();
        return f(0, &mut pieces);
    }
    if rows == 1 {
        let parts = out.par_chunks_mut(block).enumerate();
        return parts.for_each(|(i, part)| f(i * block, &mut [part]));
    }
    let mut parts: Vec<Vec<&mut [T]>> = (0..cols.div_ceil(block))
        .map(|_| Vec::with_capacity(rows))
        .collect();
    for row in out.chunks_mut(cols) {
        for (part, piece) in parts.iter_mut().zip(row.chunks_mut(block)) {
            part.push(piece);
        }
    }
    parts
        .into_par_iter()
        .enumerate()
        .for_each(|(i, mut part)| f(i * block, &mut part));
}
