//! The paged KV cache: canonical rows, so that hashing reads them where they lie. A sequence gets all pages that it
//! may need when it is opened, so a job that was taken never runs out of memory.

use std::sync::Arc;

use super::driver::{Arguments, Buffer, Driver};
use crate::{KernelError, Op, Program, rows::kv_row_len};

/// Tokens of a page; the kernels' own number (`kernels/cuda/args.h`).
pub(crate) const PAGE: usize = 32;
/// Most sequences at once.
pub(crate) const SLOTS: usize = 256;

/// Pages of every layer that caches, and which sequence has which.
pub(crate) struct Cache {
    driver_name: String,
    pool: Buffer,
    table: Buffer,
    /// Layer -> its number among layers that cache.
    of_layer: Vec<Option<u32>>,
    caches: usize,
    row_len: usize,
    row_stride: usize,
    /// Pages that the longest sequence has in one layer.
    pages_a_layer: usize,
    free_pages: Vec<u32>,
    free_slots: Vec<u32>,
}

/// A sequence's place in the cache.
pub(crate) struct Place {
    /// Line of the table.
    pub(crate) slot: u32,
    /// Page groups (one page in every layer that caches), in order of positions.
    groups: Vec<u32>,
}

/// Bytes of a page in every layer that caches.
fn group_bytes(program: &Program) -> u64 {
    let (_, caches) = numbered(program);
    (PAGE * caches.max(1) * stride(program)) as u64
}

/// Bytes of the table that says which page is whose.
fn table_bytes(program: &Program) -> u64 {
    let (_, caches) = numbered(program);
    (SLOTS * caches.max(1) * (program.context as usize).div_ceil(PAGE) * 4) as u64
}

/// Bytes of a cache for one sequence of `tokens` positions.
pub(crate) fn bytes_for(program: &Program, tokens: u32) -> u64 {
    table_bytes(program) + u64::from(tokens).div_ceil(PAGE as u64) * group_bytes(program)
}

impl Cache {
    /// A cache of at most `bytes`, no more than [`SLOTS`] sequences of the longest kind need, at least one page group.
    pub(crate) fn new(driver: &Arc<dyn Driver>, program: &Program, bytes: u64) -> Result<Self, KernelError> {
        let (of_layer, caches) = numbered(program);
        let row_stride = stride(program);
        let group = group_bytes(program);
        let pages_a_layer = (program.context as usize).div_ceil(PAGE);
        let most = (SLOTS * pages_a_layer) as u64;
        let table = vec![0u8; table_bytes(program) as usize];
        let bytes = bytes.saturating_sub(table.len() as u64);
        let groups = (bytes / group).min(most).max(1) as usize;
        Ok(Self {
            driver_name: driver.name(),
            pool: Buffer::new(driver, groups * group as usize)?,
            table: Buffer::from_bytes(driver, &table)?,
            of_layer,
            caches,
            row_len: kv_row_len(program.kv_heads as usize, program.head_dim as usize),
            row_stride,
            pages_a_layer,
            free_pages: (0..groups as u32).rev().collect(),
            free_slots: (0..SLOTS as u32).rev().collect(),
        })
    }

    /// Bytes of a canonical row.
    pub(crate) fn row_len(&self) -> usize {
        self.row_len
    }

    /// Room for a sequence of `tokens` positions, or how much is missing.
    pub(crate) fn open(&mut self, tokens: u32) -> Result<Place, KernelError> {
        let need = (tokens as usize).div_ceil(PAGE);
        let group = (PAGE * self.caches.max(1) * self.row_stride) as u64;
        let refused = |need: u64, free: u64, device: &str| KernelError::OutOfMemory {
            device: format!("{device}, KV cache"),
            need,
            free,
        };
        if need > self.free_pages.len() {
            let free = self.free_pages.len() as u64 * group;
            return Err(refused(need as u64 * group, free, &self.driver_name));
        }
        let Some(slot) = self.free_slots.pop() else {
            let full = format!("{}: {SLOTS} sequences are open", self.driver_name);
            return Err(refused(group, 0, &full));
        };
        let groups = self.free_pages.split_off(self.free_pages.len() - need);
        let place = Place { slot, groups };
        if let Err(e) = self.write(&place) {
            self.close(place);
            return Err(e);
        }
        Ok(place)
    }

    /// Writes the sequence's line of the table.
    fn write(&mut self, place: &Place) -> Result<(), KernelError> {
        for cache in 0..self.caches {
            let pages: Vec<u32> = place
                .groups
                .iter()
                .map(|g| g * self.caches as u32 + cache as u32)
                .collect();
            let line = (place.slot as usize * self.caches + cache) * self.pages_a_layer;
            self.table.write(line * 4, bytemuck::cast_slice(&pages))?;
        }
        Ok(())
    }

    /// Takes a sequence's pages back.
    pub(crate) fn close(&mut self, place: Place) {
        self.free_pages.extend(place.groups);
        self.free_slots.push(place.slot);
    }

    /// The fields of `Cache` in args.h for a layer.
    pub(crate) fn arguments(&self, layer: u32) -> Arguments {
        let cache = self.of_layer.get(layer as usize).copied().flatten().unwrap_or(0);
        Arguments::new().buffer(&self.pool).buffer(&self.table).words([
            (self.caches * self.pages_a_layer) as u32,
            self.pages_a_layer as u32,
            self.row_stride as u32,
            cache,
        ])
    }

    /// Where a position's canonical row lies; None where the layer caches nothing.
    pub(crate) fn row(&self, place: &Place, layer: usize, pos: u32) -> Option<u64> {
        let cache = self.of_layer[layer]? as usize;
        let group = *place.groups.get(pos as usize / PAGE)? as usize;
        let row = (group * self.caches + cache) * PAGE + pos as usize % PAGE;
        Some(self.pool.address(row * self.row_stride))
    }
}

/// Layers that cache, numbered, and how many they are.
fn numbered(program: &Program) -> (Vec<Option<u32>>, usize) {
    let mut of_layer = vec![None; program.layers as usize];
    let mut count = 0;
    for site in &program.sites {
        if let (Op::KvAppend { .. }, Some(layer)) = (&site.op, site.layer) {
            of_layer[layer as usize] = Some(count);
            count += 1;
        }
    }
    (of_layer, count as usize)
}

/// Bytes from one row to the next: vectors of 16 bytes start at a row's start.
fn stride(program: &Program) -> usize {
    kv_row_len(program.kv_heads as usize, program.head_dim as usize).next_multiple_of(16)
}
