//! Hashing on the device: `out` rows wait in a store, KV rows in their pages; only roots come back.

use std::sync::Arc;

use super::{
    blocks::Pool,
    cache::{Cache, Place},
    driver::{Arguments, Buffer, Driver, Launch, Mark, Queue},
};
use crate::{KernelError, Program, rows::Hash};

/// Threads of a hashing block: few, since a chunk's chain is long and registers are many.
const BLOCK: u32 = 64;
/// Leaves that hash in one go: bounds the scratch.
const LEAVES_MAX: usize = 1 << 16;

/// The `out` rows of positions that wait, checkpoint by checkpoint.
pub(crate) struct Outs {
    /// One `[capacity, d_model]` a checkpoint.
    rows: Vec<Buffer>,
    row_bytes: usize,
    capacity: usize,
    next: usize,
}

impl Outs {
    pub(crate) fn new(
        driver: &Arc<dyn Driver>,
        program: &Program,
        capacity: usize,
    ) -> Result<Self, KernelError> {
        let row_bytes = program.d_model as usize * 4;
        let rows = program
            .checkpoints()
            .iter()
            .map(|_| Buffer::new(driver, capacity * row_bytes))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            rows,
            row_bytes,
            capacity,
            next: 0,
        })
    }

    /// Whether `count` more rows fit.
    pub(crate) fn fits(&self, count: usize) -> bool {
        self.next + count <= self.capacity
    }

    /// Rows that fit in all.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes `count` places.
    pub(crate) fn reserve(&mut self, count: usize) -> usize {
        let first = self.next;
        self.next += count;
        first
    }

    /// Forgets all rows: they are hashed.
    pub(crate) fn clear(&mut self) {
        self.next = 0;
    }

    /// Copies a block of rows to the places from `first`.
    pub(crate) fn store(
        &mut self,
        checkpoint: usize,
        first: usize,
        rows: &Buffer,
        count: usize,
    ) -> Result<(), KernelError> {
        self.rows[checkpoint].copy_from(first * self.row_bytes, rows, count * self.row_bytes)
    }
}

/// Positions of a sequence that are computed and not hashed: `count` from `pos`, `out` rows from `place`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) pos: u32,
    pub(crate) count: u32,
    pub(crate) place: usize,
}

/// Roots under way.
pub(crate) struct Roots {
    /// First position that they are of.
    first: u32,
    hashes: Buffer,
    count: usize,
    mark: Mark,
    /// What the kernels still read.
    held: Vec<Buffer>,
}

impl Roots {
    /// The roots, if they are done (or `wait`); what they used goes back to the pool.
    pub(crate) fn take(
        self,
        driver: &dyn Driver,
        pool: &mut Pool,
        wait: bool,
    ) -> Result<Result<Vec<Hash>, Self>, KernelError> {
        if !driver.reached(self.mark, wait)? {
            return Ok(Err(self));
        }
        let mut hashes = vec![[0u8; 32]; self.count];
        self.hashes.read(0, hashes.as_flattened_mut(), Queue::Hash)?;
        for buffer in self.held {
            pool.give(buffer);
        }
        pool.give(self.hashes);
        Ok(Ok(hashes))
    }

    /// The first position that they are of.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// Nobody wants them any more.
    pub(crate) fn forget(self, driver: &dyn Driver) {
        driver.forget(self.mark);
    }
}

/// What hashing works on.
pub(crate) struct Hasher<'a> {
    pub(crate) driver: &'a dyn Driver,
    pub(crate) pool: &'a mut Pool,
    pub(crate) program: &'a Program,
    pub(crate) checkpoints: &'a [u32],
    pub(crate) cache: &'a Cache,
    pub(crate) outs: &'a Outs,
    pub(crate) bidirectional: bool,
}

/// The lists that the kernels read, before they are uploaded.
#[derive(Default)]
struct Lists {
    /// Address, length of every byte row.
    rows: Vec<u64>,
    positions: Vec<u32>,
    layers: Vec<u32>,
    kv: Vec<u32>,
    outs: Vec<u32>,
}

impl Hasher<'_> {
    /// Starts hashing the waiting positions of a sequence: a root a position, or a root a layer. Several lots of roots
    /// where there are many.
    pub(crate) fn start(&mut self, place: &Place, waiting: &[Waiting]) -> Result<Vec<Roots>, KernelError> {
        let at: Vec<(u32, usize)> = waiting
            .iter()
            .flat_map(|w| (0..w.count).map(|i| (w.pos + i, w.place + i as usize)))
            .collect();
        if at.is_empty() {
            return Ok(vec![]);
        }
        let layers = self.program.layers as usize;
        if self.bidirectional {
            // A root a layer needs all positions of the layer together.
            let each = (LEAVES_MAX / at.len()).max(1);
            let all: Vec<usize> = (0..layers).collect();
            return all
                .chunks(each)
                .map(|some| {
                    let pairs = some.iter().flat_map(|l| at.iter().map(|p| (*p, *l)));
                    let lists = self.lists(place, pairs);
                    self.launch(at[0].0, &lists, some.len(), at.len())
                })
                .collect();
        }
        let each = (LEAVES_MAX / layers).max(1);
        at.chunks(each)
            .map(|some| {
                let pairs = some.iter().flat_map(|p| (0..layers).map(|l| (*p, l)));
                let lists = self.lists(place, pairs);
                self.launch(some[0].0, &lists, some.len(), layers)
            })
            .collect()
    }

    fn lists(&self, place: &Place, pairs: impl Iterator<Item = ((u32, usize), usize)>) -> Lists {
        let mut lists = Lists::default();
        let add = |rows: &mut Vec<u64>, address: u64, len: usize| {
            rows.extend([address, len as u64]);
            (rows.len() / 2 - 1) as u32
        };
        for ((pos, out), layer) in pairs {
            let (address, len) = match self.cache.row(place, layer, pos) {
                Some(address) => (address, self.cache.row_len()),
                // A layer that caches nothing has the empty row; any address serves.
                None => (0, 0),
            };
            lists.kv.push(add(&mut lists.rows, address, len));
            let checkpoint = self.checkpoints.iter().position(|l| *l as usize == layer);
            lists.outs.push(match checkpoint {
                Some(c) => {
                    let address = self.outs.rows[c].address(out * self.outs.row_bytes);
                    add(&mut lists.rows, address, self.outs.row_bytes)
                }
                None => u32::MAX,
            });
            lists.positions.push(pos);
            lists.layers.push(layer as u32);
        }
        lists
    }

    /// Rows, leaves, trees: three steps on the hash queue, after the work that made the rows.
    fn launch(
        &mut self,
        first: u32,
        lists: &Lists,
        trees: usize,
        leaves_each: usize,
    ) -> Result<Roots, KernelError> {
        let count = lists.rows.len() / 2;
        let longest = lists.rows.chunks_exact(2).map(|r| r[1]).max().unwrap_or(0);
        let chunks = longest.div_ceil(1024).max(1) as usize;
        let mut rows = self.pool.take(count * 16)?;
        rows.write(0, bytemuck::cast_slice(&lists.rows))?;
        let cvs = self.pool.take(count * chunks * 32)?;
        let hashes = self.pool.take(count * 32)?;
        let leaves = self.pool.take(lists.kv.len() * 32)?;
        let roots = self.pool.take(trees * 32)?;
        let [positions, layers, kv, outs] = [&lists.positions, &lists.layers, &lists.kv, &lists.outs];
        let positions = self.pool.words(positions)?;
        let layers = self.pool.words(layers)?;
        let kv = self.pool.words(kv)?;
        let outs = self.pool.words(outs)?;

        self.driver.follow(Queue::Hash, Queue::Work)?;
        let shape = [count as u32, chunks as u32];
        let of_rows = || {
            Arguments::new()
                .buffer(&rows)
                .buffer(&cvs)
                .buffer(&hashes)
                .words(shape)
        };
        self.run("hash_chunks", count * chunks, &of_rows())?;
        // A warp a row.
        self.run("hash_parents", count * 32, &of_rows())?;
        let n = lists.kv.len();
        let of_leaves = Arguments::new()
            .buffer(&hashes)
            .buffer(&positions)
            .buffer(&layers)
            .buffer(&kv)
            .buffer(&outs)
            .buffer(&leaves)
            .words([n as u32, 0]);
        self.run("hash_leaves", n, &of_leaves)?;
        let of_trees = Arguments::new()
            .buffer(&leaves)
            .buffer(&roots)
            .words([trees as u32, leaves_each as u32]);
        self.driver.launch(Launch {
            kernel: "hash_trees",
            grid: [trees as u32, 1, 1],
            block: BLOCK,
            shared: 0,
            arguments: &of_trees,
            queue: Queue::Hash,
        })?;
        Ok(Roots {
            first,
            hashes: roots,
            count: trees,
            mark: self.driver.mark(Queue::Hash)?,
            held: vec![rows, cvs, hashes, leaves, positions, layers, kv, outs],
        })
    }

    fn run(&self, kernel: &'static str, threads: usize, arguments: &Arguments) -> Result<(), KernelError> {
        self.driver.launch(Launch {
            kernel,
            grid: [threads.div_ceil(BLOCK as usize) as u32, 1, 1],
            block: BLOCK,
            shared: 0,
            arguments,
            queue: Queue::Hash,
        })
    }
}
