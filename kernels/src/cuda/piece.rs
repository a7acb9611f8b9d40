//! One piece of a batch on the device, site by site: the body for all of its rows, the epilogue for those that a
//! result comes from.

use super::{
    attention::{Lengths, attention},
    blocks::{Block, Pool, Quant, read_ints},
    cache::Cache,
    driver::{Buffer, Driver},
    hashing::Outs,
    ops::{Ops, Rows},
    weights::{DeviceWeight, Extra},
};
use crate::{
    KernelError, Op, Probe, Program, Sampler, Site, SiteRows,
    blocks::{kv_rows, quant_rows},
    num::Scale,
    ops::{AttentionParams, QuantParams},
    plan::{Loaded, Plan},
    program::{Pooling, SiteId},
    program_check::Shape,
    reference::sample,
};

/// Sampled rows that go through the epilogue together: a row of logits is large.
const EPILOGUE_ROWS: usize = 64;

/// A sequence's rows in a piece.
pub(crate) struct Span<'a> {
    pub(crate) slot: u32,
    /// Position of the first row.
    pub(crate) first: u32,
    pub(crate) tokens: &'a [u32],
    /// The last so many rows are sampled.
    pub(crate) sample: u32,
    pub(crate) sampler: &'a Sampler,
}

/// A piece under way: everything a site may touch.
pub(crate) struct Piece<'a> {
    pub(crate) program: &'a Program,
    pub(crate) plan: &'a Plan<DeviceWeight>,
    pub(crate) extras: &'a [Extra],
    pub(crate) ops: &'a Ops,
    pub(crate) pool: &'a mut Pool,
    pub(crate) cache: &'a Cache,
    pub(crate) outs: &'a mut Outs,
    pub(crate) driver: &'a dyn Driver,
    pub(crate) lengths: Lengths,
    /// Where this piece's `out` rows go.
    pub(crate) out_place: usize,
    pub(crate) probe: Option<&'a mut dyn Probe>,
    pub(crate) blocks: Vec<Option<Block>>,
    /// Of the rows now running, for the probe and the sampler.
    pub(crate) positions: Vec<u32>,
    pub(crate) samplers: Vec<Sampler>,
    pub(crate) sampled: Vec<u32>,
}

fn wrong_block() -> KernelError {
    KernelError::Shape {
        what: "input of a site",
        expected: "the kind of rows that the program check proved".into(),
        got: "another kind, or none".into(),
    }
}

impl Piece<'_> {
    /// Runs all of it; the sampled ids (or an encoder's words) are in `sampled` afterwards.
    pub(crate) fn run(&mut self, spans: &[Span<'_>]) -> Result<(), KernelError> {
        let ids: Vec<u32> = spans.iter().flat_map(|s| s.tokens.iter().copied()).collect();
        let each = |f: &dyn Fn(&Span<'_>) -> u32| -> Vec<u32> {
            spans
                .iter()
                .flat_map(|s| std::iter::repeat_n(f(s), s.tokens.len()))
                .collect()
        };
        self.positions = spans
            .iter()
            .flat_map(|s| (s.first..).take(s.tokens.len()))
            .collect();
        let slots = each(&|s| s.slot);
        let lens = each(&|s| s.first + s.tokens.len() as u32);
        let rows = Rows {
            count: ids.len(),
            ids: self.pool.words(&ids)?,
            positions: self.pool.words(&self.positions)?,
            slots: self.pool.words(&slots)?,
            lens: self.pool.words(&lens)?,
        };
        for site in 0..self.plan.epilogue {
            self.site(site, &rows)?;
        }
        if self.plan.emits.is_some() {
            self.encode(spans, &rows)?;
        } else {
            self.sample(spans, &rows)?;
        }
        self.give_rows(rows);
        self.give_blocks();
        Ok(())
    }

    fn give_rows(&mut self, rows: Rows) {
        for buffer in [rows.ids, rows.positions, rows.slots, rows.lens] {
            self.pool.give(buffer);
        }
    }

    fn give_blocks(&mut self) {
        for block in self.blocks.iter_mut().filter_map(Option::take) {
            self.pool.give_block(block);
        }
    }

    /// Pools the rows of every sequence whose result is wanted and runs the rest for the pooled rows.
    fn encode(&mut self, spans: &[Span<'_>], rows: &Rows) -> Result<(), KernelError> {
        let at = self.plan.epilogue;
        let program = self.program;
        let site = &program.sites[at];
        let (Op::Pool { how }, Some(input)) = (&site.op, site.inputs.first()) else {
            return Err(wrong_block());
        };
        let wanted = spans.iter().filter(|s| s.sample > 0).count();
        if wanted == 0 {
            return Ok(());
        }
        let Some(Block::Acts { data, cols }) = self.blocks[self.plan.source[*input as usize]].take() else {
            return Err(wrong_block());
        };
        let out = self.pool.take(wanted * cols * 4)?;
        let (mut first, mut to) = (0, 0);
        for span in spans {
            let count = span.tokens.len();
            if span.sample > 0 {
                let mean = *how == Pooling::Mean;
                self.ops.pool(mean, &data, (first, count, cols), (&out, to))?;
                to += 1;
            }
            first += count;
        }
        self.pool.give(data);
        self.give_blocks();
        self.positions = spans
            .iter()
            .filter(|s| s.sample > 0)
            .map(|s| s.tokens.len() as u32 - 1)
            .collect();
        let pooled = self.picked(rows, &vec![0; wanted])?;
        self.finish(at, site, Some(Block::Acts { data: out, cols }))?;
        for site in at + 1..program.sites.len() {
            self.site(site, &pooled)?;
        }
        self.give_rows(pooled);
        Ok(())
    }

    /// Lists for rows picked from others; sites after the layers read no cache, so ids, slots and lengths stay behind.
    fn picked(&mut self, _: &Rows, index: &[u32]) -> Result<Rows, KernelError> {
        Ok(Rows {
            count: index.len(),
            ids: self.pool.words(index)?,
            positions: self.pool.words(&self.positions)?,
            slots: self.pool.words(index)?,
            lens: self.pool.words(index)?,
        })
    }

    /// The epilogue, a few sampled rows at a time.
    fn sample(&mut self, spans: &[Span<'_>], rows: &Rows) -> Result<(), KernelError> {
        let mut wanted: Vec<(u32, Sampler)> = vec![];
        let mut end = 0;
        for span in spans {
            end += span.tokens.len() as u32;
            wanted.extend((end - span.sample..end).map(|r| (r, *span.sampler)));
        }
        let body: Vec<(usize, Block)> = self
            .blocks
            .iter_mut()
            .enumerate()
            .filter_map(|(i, b)| b.take().map(|b| (i, b)))
            .collect();
        let all = std::mem::take(&mut self.positions);
        for chunk in wanted.chunks(EPILOGUE_ROWS) {
            let index: Vec<u32> = chunk.iter().map(|(r, _)| *r).collect();
            self.positions = index.iter().map(|r| all[*r as usize]).collect();
            self.samplers = chunk.iter().map(|(_, s)| *s).collect();
            let picked = self.picked(rows, &index)?;
            for (i, block) in &body {
                self.blocks[*i] = Some(self.gather(block, &picked)?);
            }
            for site in self.plan.epilogue..self.program.sites.len() {
                self.site(site, &picked)?;
            }
            self.give_rows(picked);
            self.give_blocks();
        }
        for (_, block) in body {
            self.pool.give_block(block);
        }
        Ok(())
    }

    /// The picked rows of a block; their list stands in `picked.ids`.
    fn gather(&mut self, block: &Block, picked: &Rows) -> Result<Block, KernelError> {
        let rows = picked.count;
        let mut one = |from: &Buffer, bytes: usize| -> Result<Buffer, KernelError> {
            let out = self.pool.take(rows * bytes)?;
            self.ops.gather(from, &picked.ids, rows, bytes, &out)?;
            Ok(out)
        };
        Ok(match block {
            Block::Acts { data, cols } => Block::Acts {
                data: one(data, cols * 4)?,
                cols: *cols,
            },
            Block::Quant(q) => Block::Quant(Quant {
                hi: one(&q.hi, q.cols)?,
                lo: q.lo.as_ref().map(|lo| one(lo, q.cols)).transpose()?,
                scales: one(&q.scales, q.cols / q.group * 4)?,
                ..*q
            }),
        })
    }

    /// Runs one site for the rows at hand, shows it to the probe, gives back what nobody reads any more.
    fn site(&mut self, i: usize, rows: &Rows) -> Result<(), KernelError> {
        let program = self.program;
        let site = &program.sites[i];
        let block = self.compute(i, site, rows)?;
        self.finish(i, site, block)
    }

    fn finish(&mut self, i: usize, site: &Site, block: Option<Block>) -> Result<(), KernelError> {
        self.show(i, site, block.as_ref())?;
        if let Some(block) = block {
            if self.plan.last_reader[i] > i {
                self.blocks[i] = Some(block);
            } else {
                self.pool.give_block(block);
            }
        }
        for input in &site.inputs {
            let source = self.plan.source[*input as usize];
            if self.plan.last_reader[source] == i
                && let Some(block) = self.blocks[source].take()
            {
                self.pool.give_block(block);
            }
        }
        Ok(())
    }

    fn acts(&self, site: &Site, input: usize) -> Result<(&Buffer, usize), KernelError> {
        match &self.blocks[self.plan.source[site.inputs[input] as usize]] {
            Some(Block::Acts { data, cols }) => Ok((data, *cols)),
            _ => Err(wrong_block()),
        }
    }

    fn quants(&self, site: &Site, input: usize) -> Result<&Quant, KernelError> {
        match &self.blocks[self.plan.source[site.inputs[input] as usize]] {
            Some(Block::Quant(q)) => Ok(q),
            _ => Err(wrong_block()),
        }
    }

    fn weight(&self, i: usize) -> Result<&DeviceWeight, KernelError> {
        match &self.plan.loaded[i] {
            Loaded::Weight(w) => Ok(w),
            _ => Err(wrong_block()),
        }
    }

    /// The site's rows; None where it puts out none of its own.
    fn compute(&mut self, i: usize, site: &Site, rows: &Rows) -> Result<Option<Block>, KernelError> {
        match (&site.op, self.plan.shapes[i]) {
            (
                Op::Quant {
                    planes,
                    wht,
                    group,
                    f_in,
                },
                Shape::Quant { cols, .. },
            ) => {
                let p = QuantParams {
                    planes: *planes,
                    wht: usize::from(*wht),
                    group: *group as usize,
                    f_in: *f_in,
                };
                let cols = cols as usize;
                let out = self.pool.quant(rows.count, cols, p.group, *planes)?;
                let tmp = (p.wht > 0)
                    .then(|| self.pool.take(rows.count * cols * 4))
                    .transpose()?;
                let (x, _) = self.acts(site, 0)?;
                self.ops.quant(p, rows.count, x, tmp.as_ref(), &out)?;
                if let Some(tmp) = tmp {
                    self.pool.give(tmp);
                }
                Ok(Some(Block::Quant(out)))
            }
            (Op::KvAppend { .. }, _) => {
                let cache = self.cache.arguments(site.layer.unwrap_or_default());
                let kv = (self.quants(site, 0)?, self.quants(site, 1)?);
                self.ops.kv_append(cache, rows, kv, self.cache.row_len())?;
                Ok(None)
            }
            (Op::Out, _) => {
                let checkpoint = self.plan.checkpoints.iter().position(|l| Some(*l) == site.layer);
                if let Some(checkpoint) = checkpoint
                    && let Some(Block::Acts { data, .. }) =
                        &self.blocks[self.plan.source[site.inputs[0] as usize]]
                {
                    self.outs.store(checkpoint, self.out_place, data, rows.count)?;
                }
                Ok(None)
            }
            (Op::Emit, _) => {
                let (x, cols) = self.acts(site, 0)?;
                let words = read_ints(x, rows.count * cols)?;
                self.sampled.extend(words.iter().map(|v| v.cast_unsigned()));
                Ok(None)
            }
            (Op::Sample { f }, _) => {
                let ids = self.tokens(site, *f, rows.count)?;
                self.sampled.extend(ids);
                Ok(None)
            }
            (_, Shape::Acts { cols }) => {
                let data = self.pool.take(rows.count * cols as usize * 4)?;
                self.int32_site(i, site, rows, cols as usize, &data)?;
                let cols = cols as usize;
                Ok(Some(Block::Acts { data, cols }))
            }
            _ => Err(wrong_block()),
        }
    }

    /// Greedy rows are decided on the device; logits of a random draw come to the host.
    fn tokens(&mut self, site: &Site, f: u8, rows: usize) -> Result<Vec<u32>, KernelError> {
        if self.samplers.iter().all(|s| *s == Sampler::Greedy) {
            let out = self.pool.take(rows * 4)?;
            let (logits, cols) = self.acts(site, 0)?;
            self.ops.greedy(logits, rows, cols, &out)?;
            let ids = read_ints(&out, rows)?;
            self.pool.give(out);
            return Ok(ids.iter().map(|id| id.cast_unsigned()).collect());
        }
        let (logits, cols) = self.acts(site, 0)?;
        let logits = read_ints(logits, rows * cols)?;
        Ok(logits
            .chunks_exact(cols)
            .zip(&self.samplers)
            .zip(&self.positions)
            .map(|((l, s), pos)| sample::sample(l, f, s, *pos))
            .collect())
    }

    /// Ops whose output is int32 rows.
    fn int32_site(
        &mut self,
        i: usize,
        site: &Site,
        rows: &Rows,
        cols: usize,
        out: &Buffer,
    ) -> Result<(), KernelError> {
        let (ops, extras, n) = (self.ops, self.extras, rows.count);
        match (&site.op, &extras[i]) {
            (Op::Embed { f_out, .. }, _) => ops.embed(self.weight(i)?, &rows.ids, n, *f_out, out),
            (Op::PosEmbed { f_out, .. }, _) => ops.embed(self.weight(i)?, &rows.positions, n, *f_out, out),
            (
                Op::RmsNorm {
                    gain_f,
                    eps,
                    group,
                    f_out,
                    ..
                },
                Extra::Norm(gain, _),
            ) => {
                let eps = u128::from(*group) * u128::from(*eps);
                let shape = (n, cols, *group as usize);
                ops.norm(
                    (gain, None),
                    shape,
                    (*gain_f, *f_out, eps),
                    self.acts(site, 0)?.0,
                    out,
                )
            }
            (
                Op::LayerNorm {
                    gain_f,
                    eps,
                    group,
                    f_out,
                    ..
                },
                Extra::Norm(gain, bias),
            ) => {
                let eps = u128::from(*group).pow(3) * u128::from(*eps);
                let shape = (n, cols, *group as usize);
                let norm = (gain, bias.as_ref());
                ops.norm(norm, shape, (*gain_f, *f_out, eps), self.acts(site, 0)?.0, out)
            }
            (Op::Linear { f_out, .. }, _) => {
                ops.linear(self.weight(i)?, self.quants(site, 0)?, n, *f_out, out)
            }
            (Op::Rope { head_dim, style, .. }, Extra::Table(table)) => {
                let head = (*head_dim as usize, *style);
                ops.rope(table, head, rows, cols, self.acts(site, 0)?.0, out)
            }
            (Op::Attention { .. }, _) => self.attention(site, rows, out),
            (Op::Glu { act, f }, _) => {
                let inputs = (self.acts(site, 0)?.0, Some(self.acts(site, 1)?.0));
                ops.glu(*act, *f, n * cols, inputs, out)
            }
            (Op::Act { act, f }, _) => ops.glu(*act, *f, n * cols, (self.acts(site, 0)?.0, None), out),
            (Op::Add, _) => ops.add(n * cols, self.acts(site, 0)?.0, self.acts(site, 1)?.0, out),
            _ => Err(wrong_block()),
        }
    }

    fn attention(&mut self, site: &Site, rows: &Rows, out: &Buffer) -> Result<(), KernelError> {
        let Op::Attention {
            heads,
            kv_heads,
            head_dim,
            scale_m,
            scale_e,
            p_bits,
            window,
            causal,
            f_out,
        } = &site.op
        else {
            return Err(wrong_block());
        };
        let p = AttentionParams {
            heads: *heads as usize,
            kv_heads: *kv_heads as usize,
            head_dim: *head_dim as usize,
            scale: Scale {
                m: *scale_m,
                e: *scale_e,
            },
            p_bits: *p_bits,
            window: *window,
            causal: *causal,
            f_out: *f_out,
        };
        let cache = self.cache.arguments(site.layer.unwrap_or_default());
        let Some(Block::Quant(q)) = &self.blocks[self.plan.source[site.inputs[0] as usize]] else {
            return Err(wrong_block());
        };
        attention(self.driver, self.pool, p, &cache, rows, self.lengths, q, out)
    }

    /// Copies the site's rows to the host for the probe, where there is one.
    fn show(&mut self, i: usize, site: &Site, block: Option<&Block>) -> Result<(), KernelError> {
        if self.probe.is_none() {
            return Ok(());
        }
        let rows = self.positions.len();
        let shown = match (block, &site.op) {
            (Some(Block::Acts { data, cols }), _) => SiteRows::Acts {
                cols: *cols,
                data: read_ints(data, rows * cols)?,
            },
            (Some(Block::Quant(q)), _) => quant_rows(&q.read(rows)?),
            (None, Op::KvAppend { .. }) => {
                let (k, v) = (
                    self.quants(site, 0)?.read(rows)?,
                    self.quants(site, 1)?.read(rows)?,
                );
                kv_rows(&k, &v)
            }
            (None, Op::Out) => {
                let (data, cols) = self.acts(site, 0)?;
                SiteRows::Acts {
                    cols,
                    data: read_ints(data, rows * cols)?,
                }
            }
            (None, _) => {
                let words = self.plan.emits.unwrap_or(1);
                SiteRows::Tokens(self.sampled[self.sampled.len() - rows * words..].to_vec())
            }
        };
        let first = self.positions.first().copied().unwrap_or(0);
        if let Some(probe) = &mut self.probe {
            probe.site(i as SiteId, first, &shown);
        }
        Ok(())
    }
}
