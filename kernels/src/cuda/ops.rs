//! One launch an op: which kernel, how many blocks, what it is told. Shapes were proven when the program was loaded.

use std::sync::Arc;

use super::{
    blocks::Quant,
    driver::{Arguments, Buffer, Driver, Launch, Queue},
    linear,
    weights::DeviceWeight,
};
use crate::{
    KernelError,
    ops::QuantParams,
    program::{Activation, RopeStyle},
    reference::tables,
};

/// Threads of a block where the work is cut by elements.
const BLOCK: u32 = 256;
/// Most blocks of a launch that strides over its elements.
const BLOCKS_MAX: usize = 4096;

/// Where the rows of a launch stand: device lists, a word a row.
pub(crate) struct Rows {
    pub(crate) count: usize,
    pub(crate) ids: Buffer,
    pub(crate) positions: Buffer,
    pub(crate) slots: Buffer,
    /// Lengths of the rows' sequences, this batch included.
    pub(crate) lens: Buffer,
}

/// The ops of a device.
pub(crate) struct Ops {
    driver: Arc<dyn Driver>,
    sigmoid: Buffer,
    phi: Buffer,
}

/// Threads for `elements` that a block shares: a power of two of whole warps.
fn block_for(elements: usize) -> u32 {
    let each_four = elements.div_ceil(4).next_power_of_two();
    each_four.clamp(32, 512) as u32
}

/// Blocks and threads for `count` elements that every thread strides over, four at a time.
fn strided(count: usize) -> ([u32; 3], u32) {
    let block = block_for(count).min(BLOCK);
    let blocks = count.div_ceil(4 * block as usize).clamp(1, BLOCKS_MAX);
    ([blocks as u32, 1, 1], block)
}

impl Ops {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Result<Self, KernelError> {
        let ints = |v: &[i32]| Buffer::from_bytes(&driver, bytemuck::cast_slice(v));
        Ok(Self {
            sigmoid: ints(&tables::SIGMOID)?,
            phi: ints(&tables::PHI)?,
            driver,
        })
    }

    fn run(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: u32,
        arguments: &Arguments,
    ) -> Result<(), KernelError> {
        self.driver.launch(Launch {
            kernel,
            grid,
            block,
            shared: 0,
            arguments,
            queue: Queue::Work,
        })
    }

    /// Rows of a table by id or by position.
    pub(crate) fn embed(
        &self,
        w: &DeviceWeight,
        ids: &Buffer,
        rows: usize,
        f_out: u8,
        out: &Buffer,
    ) -> Result<(), KernelError> {
        let arguments = Arguments::new()
            .buffer(&w.q)
            .maybe(w.mult.as_ref())
            .buffer(&w.scales)
            .buffer(ids)
            .buffer(out)
            .words([rows as u32, w.k as u32, u32::from(f_out), 0]);
        self.run("embed", [rows as u32, 1, 1], block_for(w.k), &arguments)
    }

    /// RMS norm, or layer norm where there is a bias; `eps` is for the whole group.
    pub(crate) fn norm(
        &self,
        (gain, bias): (&Buffer, Option<&Buffer>),
        (rows, cols, group): (usize, usize, usize),
        (gain_f, f_out, eps): (i8, u8, u128),
        x: &Buffer,
        out: &Buffer,
    ) -> Result<(), KernelError> {
        let arguments = Arguments::new()
            .buffer(x)
            .buffer(gain)
            .maybe(bias)
            .buffer(out)
            .word64(eps as u64)
            .word64((eps >> 64) as u64)
            .words([
                rows as u32,
                cols as u32,
                group as u32,
                u32::from(f_out),
                i32::from(gain_f).cast_unsigned(),
                0,
            ]);
        self.run(
            "norm_groups",
            [(rows * (cols / group)) as u32, 1, 1],
            block_for(group),
            &arguments,
        )
    }

    /// Quantisation; `tmp` holds transformed values where there is a transform.
    pub(crate) fn quant(
        &self,
        p: QuantParams,
        rows: usize,
        x: &Buffer,
        tmp: Option<&Buffer>,
        out: &Quant,
    ) -> Result<(), KernelError> {
        let arguments = Arguments::new()
            .buffer(x)
            .maybe(tmp)
            .buffer(&out.hi)
            .maybe(out.lo.as_ref())
            .buffer(&out.scales)
            .words([
                rows as u32,
                out.cols as u32,
                p.group as u32,
                u32::from(p.planes),
                p.wht as u32,
                u32::from(p.f_in),
            ]);
        self.run(
            "quant",
            [(rows * (out.cols / p.group)) as u32, 1, 1],
            block_for(p.group),
            &arguments,
        )
    }

    /// Quantised rows x weight.
    pub(crate) fn linear(
        &self,
        w: &DeviceWeight,
        x: &Quant,
        rows: usize,
        f_out: u8,
        out: &Buffer,
    ) -> Result<(), KernelError> {
        let segments = x.cols / x.group;
        let arguments = Arguments::new()
            .buffer(&w.q)
            .maybe(w.mult.as_ref())
            .buffer(&w.scales)
            .maybe(w.bias.as_ref())
            .buffer(&x.hi)
            .maybe(x.lo.as_ref())
            .buffer(&x.scales)
            .buffer(out)
            .words([
                rows as u32,
                w.n as u32,
                w.k as u32,
                segments as u32,
                u32::from(x.planes),
                u32::from(f_out),
            ]);
        let shape = linear::Shape {
            rows,
            n: w.n,
            k: w.k,
            segments,
            planes: x.planes,
            grouped: w.mult.is_some(),
        };
        let choice = linear::choose(shape, self.driver.shared_max());
        self.driver.launch(Launch {
            kernel: choice.kernel,
            grid: choice.grid,
            block: choice.block,
            shared: choice.shared,
            arguments: &arguments,
            queue: Queue::Work,
        })
    }

    /// RoPE of rows of heads.
    pub(crate) fn rope(
        &self,
        table: &Buffer,
        (head_dim, style): (usize, RopeStyle),
        rows: &Rows,
        cols: usize,
        x: &Buffer,
        out: &Buffer,
    ) -> Result<(), KernelError> {
        let halves = u32::from(style == RopeStyle::Halves);
        let arguments = Arguments::new()
            .buffer(table)
            .buffer(&rows.positions)
            .buffer(x)
            .buffer(out)
            .words([
                rows.count as u32,
                (cols / head_dim) as u32,
                head_dim as u32,
                halves,
            ]);
        self.run("rope", [rows.count as u32, 1, 1], block_for(cols), &arguments)
    }

    /// Canonical rows into the cache; `cache` are its fields for the layer.
    pub(crate) fn kv_append(
        &self,
        cache: Arguments,
        rows: &Rows,
        (k, v): (&Quant, &Quant),
        row_len: usize,
    ) -> Result<(), KernelError> {
        let arguments = cache
            .buffer(&rows.slots)
            .buffer(&rows.positions)
            .buffer(&k.hi)
            .buffer(&k.scales)
            .buffer(&v.hi)
            .buffer(&v.scales)
            .words([
                rows.count as u32,
                (k.cols / k.group) as u32,
                k.group as u32,
                row_len as u32,
            ]);
        self.run(
            "kv_append",
            [rows.count as u32, 1, 1],
            block_for(row_len / 4),
            &arguments,
        )
    }

    /// act(gate) * up, or act(gate) alone.
    pub(crate) fn glu(
        &self,
        act: Activation,
        f: u8,
        count: usize,
        (gate, up): (&Buffer, Option<&Buffer>),
        out: &Buffer,
    ) -> Result<(), KernelError> {
        let act = match act {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
            Activation::GeluErf => 2,
        };
        let arguments = Arguments::new()
            .buffer(gate)
            .maybe(up)
            .buffer(out)
            .buffer(&self.sigmoid)
            .buffer(&self.phi)
            .word64(count as u64)
            .words([act, u32::from(f)]);
        let (grid, block) = strided(count);
        self.run("glu", grid, block, &arguments)
    }

    /// a + b.
    pub(crate) fn add(&self, count: usize, a: &Buffer, b: &Buffer, out: &Buffer) -> Result<(), KernelError> {
        let arguments = Arguments::new()
            .buffer(a)
            .buffer(b)
            .buffer(out)
            .word64(count as u64);
        let (grid, block) = strided(count);
        self.run("add", grid, block, &arguments)
    }

    /// Rows of `bytes` each, picked by `index`.
    pub(crate) fn gather(
        &self,
        x: &Buffer,
        index: &Buffer,
        rows: usize,
        bytes: usize,
        out: &Buffer,
    ) -> Result<(), KernelError> {
        let arguments = Arguments::new()
            .buffer(x)
            .buffer(index)
            .buffer(out)
            .words([rows as u32, bytes as u32]);
        self.run("gather", [rows as u32, 1, 1], block_for(bytes / 4), &arguments)
    }

    /// Rows `first .. first + count` of x become row `to` of out.
    pub(crate) fn pool(
        &self,
        mean: bool,
        x: &Buffer,
        (first, count, cols): (usize, usize, usize),
        (out, to): (&Buffer, usize),
    ) -> Result<(), KernelError> {
        let arguments = Arguments::new().buffer(x).buffer_at(out, to * cols * 4).words([
            first as u32,
            count as u32,
            cols as u32,
            u32::from(mean),
        ]);
        let (grid, block) = strided(cols);
        self.run("pool", grid, block, &arguments)
    }

    /// The id of every row's largest logit.
    pub(crate) fn greedy(
        &self,
        logits: &Buffer,
        rows: usize,
        cols: usize,
        out: &Buffer,
    ) -> Result<(), KernelError> {
        let arguments = Arguments::new()
            .buffer(logits)
            .buffer(out)
            .words([rows as u32, cols as u32]);
        self.run("greedy", [rows as u32, 1, 1], block_for(cols), &arguments)
    }
}
