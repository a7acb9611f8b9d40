//! One batch on the host: site by site over blocks of rows (see [`crate::interp`]).

use std::{collections::BTreeMap, ops::Range};

use crate::{
    Program, Sampler, SeqId, SeqStep,
    batch::pieces,
    blocks::{Block, Pool, acts_rows, gather, kv_rows, quant_rows},
    interp::BODY_ROWS,
    num::Scale,
    ops::{AttentionParams, KvSpan, NormParams, Ops, QuantParams, QuantRows},
    plan::{Loaded, Plan},
    program::{Op, Site},
    program_check::Shape,
    reference::pool,
    rows::kv_row_len,
    sequence::Sequence,
    trace::{Probe, SiteRows},
};

/// Sampled rows that go through the epilogue together.
const EPILOGUE_ROWS: usize = 64;

/// Consecutive rows of one sequence in a block of rows.
pub(crate) struct Span {
    seq: SeqId,
    first: u32,
    count: usize,
}

/// One batch under way: everything a site may touch.
pub(crate) struct Run<'a, O: Ops> {
    pub(crate) ops: &'a O,
    pub(crate) program: &'a Program,
    pub(crate) plan: &'a Plan<O::Weight>,
    pub(crate) seqs: &'a mut BTreeMap<SeqId, Sequence>,
    pub(crate) pool: &'a mut Pool,
    pub(crate) probe: Option<&'a mut dyn Probe>,
    pub(crate) blocks: Vec<Option<Block>>,
    /// Of the rows now running.
    pub(crate) positions: Vec<u32>,
    pub(crate) ids: Vec<u32>,
    pub(crate) spans: Vec<Span>,
    pub(crate) samplers: Vec<Sampler>,
    pub(crate) sampled: Vec<u32>,
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fault: Option<crate::testing::Fault>,
}

impl<O: Ops> Run<'_, O> {
    /// The whole batch, in pieces of [`BODY_ROWS`]; where it is cut cannot change a bit.
    pub(crate) fn batch(&mut self, batch: &[SeqStep<'_>]) {
        let limit = if self.plan.bidirectional {
            usize::MAX
        } else {
            BODY_ROWS
        };
        for piece in pieces(batch, limit) {
            self.piece(&piece);
        }
    }

    /// The sites of one unit for consecutive rows of one sequence; what they read of other units lies in the blocks.
    pub(crate) fn unit(&mut self, sites: Range<usize>, step: &SeqStep<'_>, first: u32) {
        let count = step.tokens.len();
        self.ids.extend_from_slice(step.tokens);
        self.positions.extend((first..).take(count));
        self.spans.push(Span {
            seq: step.seq,
            first,
            count,
        });
        if sites.start == self.plan.epilogue {
            self.epilogue(std::slice::from_ref(step));
        } else {
            for site in sites {
                self.site(site);
            }
        }
    }

    /// The body for all rows of a piece, the epilogue for sampled ones.
    fn piece(&mut self, batch: &[SeqStep<'_>]) {
        self.ids.clear();
        self.positions.clear();
        self.spans.clear();
        for step in batch {
            let first = self.seqs.get(&step.seq).map_or(0, |s| s.len);
            self.spans.push(Span {
                seq: step.seq,
                first,
                count: step.tokens.len(),
            });
            self.ids.extend_from_slice(step.tokens);
            self.positions.extend((first..).take(step.tokens.len()));
        }
        for site in 0..self.plan.epilogue {
            self.site(site);
        }
        for span in &self.spans {
            if let Some(seq) = self.seqs.get_mut(&span.seq) {
                seq.len += span.count as u32;
            }
        }
        self.epilogue(batch);
        for block in self.blocks.iter_mut().filter_map(Option::take) {
            self.pool.give(block);
        }
    }

    /// The sites after the layers, for the rows that a result comes from: every sampled row, or an encoder's one
    /// row a sequence.
    fn epilogue(&mut self, batch: &[SeqStep<'_>]) {
        if self.plan.emits.is_some() {
            self.encode(batch);
        } else {
            self.sample(batch);
        }
    }

    /// Pools the rows of every sequence whose result is wanted and runs the rest for the pooled rows.
    fn encode(&mut self, batch: &[SeqStep<'_>]) {
        let site = self.plan.epilogue;
        let (Op::Pool { how }, Some(input)) = (
            &self.program.sites[site].op,
            self.program.sites[site].inputs.first(),
        ) else {
            return;
        };
        let source = self.plan.source[*input as usize];
        let Some(Block::Acts(rows)) = self.blocks[source].take() else {
            return;
        };
        let cols = rows.len() / self.positions.len();
        let wanted = batch.iter().filter(|s| s.sample > 0);
        let mut out = self.pool.acts(wanted.clone().count() * cols);
        let mut rest = rows.as_slice();
        let mut pooled = out.chunks_exact_mut(cols);
        for step in batch {
            let (own, later) = rest.split_at(step.tokens.len() * cols);
            rest = later;
            if step.sample > 0
                && let Some(out) = pooled.next()
            {
                pool::pool(*how, own, out);
            }
        }
        self.pool.give(Block::Acts(rows));
        self.positions = wanted.map(|s| s.tokens.len() as u32 - 1).collect();
        if self.positions.is_empty() {
            self.pool.give(Block::Acts(out));
            return;
        }
        let program = self.program;
        self.finish(site, &program.sites[site], Some(Block::Acts(out)));
        for site in site + 1..self.program.sites.len() {
            self.site(site);
        }
    }

    fn sample(&mut self, batch: &[SeqStep<'_>]) {
        let mut rows: Vec<(usize, Sampler)> = vec![];
        let mut end = 0;
        for step in batch {
            end += step.tokens.len();
            rows.extend((end - step.sample as usize..end).map(|r| (r, *step.sampler)));
        }
        let body: Vec<(usize, Block)> = self
            .blocks
            .iter_mut()
            .enumerate()
            .filter_map(|(i, b)| b.take().map(|b| (i, b)))
            .collect();
        let (all_ids, all_positions) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.positions));
        for chunk in rows.chunks(EPILOGUE_ROWS) {
            self.ids = chunk.iter().map(|(r, _)| all_ids[*r]).collect();
            self.positions = chunk.iter().map(|(r, _)| all_positions[*r]).collect();
            self.samplers = chunk.iter().map(|(_, s)| *s).collect();
            for (i, block) in &body {
                let gathered = gather(self.pool, block, chunk, all_ids.len());
                self.blocks[*i] = Some(gathered);
            }
            for site in self.plan.epilogue..self.program.sites.len() {
                self.site(site);
            }
            for block in self.blocks.iter_mut().filter_map(Option::take) {
                self.pool.give(block);
            }
        }
        for (_, block) in body {
            self.pool.give(block);
        }
    }

    /// Runs one site for the rows at hand, shows it to the probe, gives back what nobody reads any more.
    fn site(&mut self, i: usize) {
        let site = &self.program.sites[i];
        let block = self.compute(i, site);
        self.finish(i, site, block);
    }

    fn finish(&mut self, i: usize, site: &Site, block: Option<Block>) {
        #[cfg(any(test, feature = "testing"))]
        let block = self.spoil(i, block);
        self.show(i, site, block.as_ref());
        if let Some(block) = block {
            if self.plan.last_reader[i] > i {
                self.blocks[i] = Some(block);
            } else {
                self.pool.give(block);
            }
        }
        for input in &site.inputs {
            let source = self.plan.source[*input as usize];
            if self.plan.last_reader[source] == i
                && let Some(block) = self.blocks[source].take()
            {
                self.pool.give(block);
            }
        }
    }

    /// Makes the one integer wrong that a test asked for.
    #[cfg(any(test, feature = "testing"))]
    fn spoil(&mut self, i: usize, mut block: Option<Block>) -> Option<Block> {
        use crate::testing::Fault;
        let Some(fault) = self.fault.filter(|f| f.site as usize == i) else {
            return block;
        };
        let rows = self.positions.len();
        for (r, _) in self
            .positions
            .iter()
            .enumerate()
            .filter(|(_, p)| **p == fault.position)
        {
            match &mut block {
                Some(Block::Acts(v)) => {
                    let at = r * (v.len() / rows) + fault.element;
                    Fault::act(&mut v[at]);
                }
                Some(Block::Quant(q)) => Fault::quant(q, r * q.cols + fault.element),
                None => {
                    let words = self.plan.emits.unwrap_or(1);
                    let at = self.sampled.len() - (rows - r) * words + fault.element % words;
                    let wrong = self.sampled[at].wrapping_add(1);
                    self.sampled[at] = match self.plan.emits {
                        Some(_) => wrong,
                        None => wrong % self.program.vocab,
                    };
                }
            }
        }
        block
    }

    fn acts(&self, site: &Site, input: usize) -> &[i32] {
        match &self.blocks[self.plan.source[site.inputs[input] as usize]] {
            Some(Block::Acts(v)) => v,
            _ => unreachable!("the program check proved that this input is int32 rows, read in time"),
        }
    }

    fn quants(&self, site: &Site, input: usize) -> &QuantRows {
        match &self.blocks[self.plan.source[site.inputs[input] as usize]] {
            Some(Block::Quant(q)) => q,
            _ => unreachable!("the program check proved that this input is quantised rows, read in time"),
        }
    }

    fn weight(&self, i: usize) -> &O::Weight {
        match &self.plan.loaded[i] {
            Loaded::Weight(w) => w,
            _ => unreachable!("loading gave this site its weight"),
        }
    }

    /// The site's rows; None where it puts out none of its own.
    fn compute(&mut self, i: usize, site: &Site) -> Option<Block> {
        let rows = self.positions.len();
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
                let mut out = self.pool.quant(rows, cols as usize, p.group, *planes);
                self.ops.quant(p, self.acts(site, 0), &mut out);
                Some(Block::Quant(out))
            }
            (Op::KvAppend { .. }, _) => {
                self.append(site);
                None
            }
            (Op::Out, _) => {
                self.commit(site);
                None
            }
            (Op::Emit, _) => {
                // The words are the row's bits: an embedding's elements are signed.
                let words: Vec<u32> = self.acts(site, 0).iter().map(|v| v.cast_unsigned()).collect();
                self.sampled.extend(words);
                None
            }
            (Op::Sample { f }, _) => {
                let logits = self.acts(site, 0);
                let cols = logits.len() / rows;
                let ids: Vec<u32> = logits
                    .chunks_exact(cols)
                    .zip(&self.samplers)
                    .zip(&self.positions)
                    .map(|((l, s), pos)| self.ops.sample(l, *f, s, *pos))
                    .collect();
                self.sampled.extend(ids);
                None
            }
            (_, Shape::Acts { cols }) => {
                let mut out = self.pool.acts(rows * cols as usize);
                self.int32_site(i, site, &mut out);
                Some(Block::Acts(out))
            }
            _ => unreachable!("the program check gives int32 rows to every other op"),
        }
    }

    /// Ops whose output is int32 rows.
    fn int32_site(&self, i: usize, site: &Site, out: &mut [i32]) {
        match (&site.op, &self.plan.loaded[i]) {
            (Op::Embed { f_out, .. }, _) => self.ops.embed(self.weight(i), &self.ids, *f_out, out),
            (Op::PosEmbed { f_out, .. }, _) => {
                // A row's position is its id: the table is an embedding's.
                self.ops.embed(self.weight(i), &self.positions, *f_out, out)
            }
            (
                Op::LayerNorm {
                    gain_f, eps, f_out, ..
                },
                Loaded::GainBias(gain, bias),
            ) => {
                let p = NormParams {
                    gain,
                    gain_f: *gain_f,
                    eps: *eps,
                    f_out: *f_out,
                };
                self.ops.layer_norm(p, bias, self.acts(site, 0), out);
            }
            (Op::Act { act, f }, _) => self.ops.act(*act, *f, self.acts(site, 0), out),
            (Op::Linear { f_out, .. }, _) => {
                self.ops.linear(self.weight(i), self.quants(site, 0), *f_out, out)
            }
            (
                Op::RmsNorm {
                    gain_f, eps, f_out, ..
                },
                Loaded::Gain(gain),
            ) => {
                let p = NormParams {
                    gain,
                    gain_f: *gain_f,
                    eps: *eps,
                    f_out: *f_out,
                };
                self.ops.rms_norm(p, self.acts(site, 0), out);
            }
            (Op::Rope { head_dim, style, .. }, Loaded::Table(table)) => {
                let d = *head_dim as usize;
                self.ops
                    .rope(table, d, *style, &self.positions, self.acts(site, 0), out);
            }
            (Op::Attention { .. }, _) => self.attention(site, out),
            (Op::Glu { act, f }, _) => self
                .ops
                .glu(*act, *f, self.acts(site, 0), self.acts(site, 1), out),
            (Op::Add, _) => self.ops.add(self.acts(site, 0), self.acts(site, 1), out),
            _ => unreachable!("every other op puts out no int32 rows of its own"),
        }
    }

    fn attention(&self, site: &Site, out: &mut [i32]) {
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
            return;
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
        let layer = site.layer.unwrap_or_default() as usize;
        let spans: Vec<KvSpan<'_>> = self
            .spans
            .iter()
            .map(|s| KvSpan {
                rows: self.seqs.get(&s.seq).map_or(&[], |seq| &seq.kv[layer]),
                row_len: kv_row_len(p.kv_heads, p.head_dim),
                first: s.first,
                count: s.count,
            })
            .collect();
        self.ops.attention(p, self.quants(site, 0), &spans, out);
    }

    fn append(&mut self, site: &Site) {
        let layer = site.layer.unwrap_or_default() as usize;
        // Taken out for a moment, so that sequences can be written while they are read.
        let [k, v] = [0, 1].map(|n| self.plan.source[site.inputs[n] as usize]);
        let k_block = self.blocks[k].take();
        let v_block = if v == k { None } else { self.blocks[v].take() };
        if let Some(Block::Quant(kq)) = &k_block {
            let vq = match &v_block {
                Some(Block::Quant(vq)) => vq,
                _ => kq,
            };
            let mut at = 0;
            for span in &self.spans {
                if let Some(seq) = self.seqs.get_mut(&span.seq) {
                    seq.push_kv(layer, kq, vq, at, span.count);
                }
                at += span.count;
            }
        }
        self.blocks[k] = k_block;
        if v != k {
            self.blocks[v] = v_block;
        }
    }

    fn commit(&mut self, site: &Site) {
        let Some(checkpoint) = self.plan.checkpoints.iter().position(|l| Some(*l) == site.layer) else {
            return;
        };
        let source = self.plan.source[site.inputs[0] as usize];
        if let Some(Block::Acts(rows)) = &self.blocks[source] {
            let d = self.program.d_model as usize;
            let mut rest = rows.as_slice();
            for span in &self.spans {
                let (own, later) = rest.split_at(span.count * d);
                rest = later;
                if let Some(seq) = self.seqs.get_mut(&span.seq) {
                    seq.push_out(checkpoint, own);
                }
            }
        }
    }

    /// Copies the site's rows for the probe, where there is one.
    fn show(&mut self, i: usize, site: &Site, block: Option<&Block>) {
        if self.probe.is_none() {
            return;
        }
        let rows = match (block, &site.op) {
            (Some(Block::Acts(v)), _) => acts_rows(v, self.positions.len()),
            (Some(Block::Quant(q)), _) => quant_rows(q),
            (None, Op::Out) => acts_rows(self.acts(site, 0), self.positions.len()),
            (None, Op::KvAppend { .. }) => kv_rows(self.quants(site, 0), self.quants(site, 1)),
            (None, Op::Emit) => {
                let words = self.plan.emits.unwrap_or_default() * self.positions.len();
                SiteRows::Tokens(self.sampled[self.sampled.len() - words..].to_vec())
            }
            (None, _) => {
                let n = self.positions.len();
                SiteRows::Tokens(self.sampled[self.sampled.len() - n..].to_vec())
            }
        };
        let first = self.positions.first().copied().unwrap_or(0);
        if let Some(probe) = &mut self.probe {
            probe.site(i as u32, first, &rows);
        }
    }
}
