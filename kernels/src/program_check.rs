//! Whether a program is well-formed: order, shapes, parameters (rules V1 to V12 of `docs/spec/tensor.md`).
//! What passes here can be run by any backend without another check of shapes.

use crate::{
    KernelError,
    program::{Op, Program, Site, SiteId},
    reference::linear::{GROUP, SEGMENTS_MAX},
};

/// Longest context: attention's sums are proven to fit up to here (rule A7).
pub const CONTEXT_MAX: u32 = 131_072;
/// Largest vocabulary.
pub const VOCAB_MAX: u32 = 1 << 20;
/// Widest residual and norm group (rule R2).
pub const WIDTH_MAX: u32 = 32_768;
/// Longest dot product (rule L1).
pub const K_MAX: u32 = 65_536;
/// Most elements of a head.
pub const HEAD_DIM_MAX: u32 = 1_024;
/// Most layers.
pub const LAYERS_MAX: u32 = 1_024;
/// Most sites.
pub const SITES_MAX: usize = 65_536;
/// Most fraction bits of a row.
pub const F_MAX: u8 = 30;
/// Largest Walsh-Hadamard block (rule W1).
pub const WHT_MAX: u16 = 512;

/// What a site puts out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// int32 rows.
    Acts {
        /// Elements a row.
        cols: u32,
    },
    /// Quantised rows.
    Quant {
        /// Elements a row.
        cols: u32,
        /// Elements a scale.
        group: u32,
        /// 1 or 2.
        planes: u8,
    },
    /// A cached row of its layer.
    Kv,
    /// A token id.
    Token,
    /// The words of an encoder's output.
    Words {
        /// Words.
        cols: u32,
    },
}

/// Checks a site's own parameters and inputs.
struct Checker<'a> {
    program: &'a Program,
    shapes: Vec<Shape>,
    at: usize,
}

/// See [`Program::validate`].
pub(crate) fn validate(program: &Program) -> Result<(), KernelError> {
    shapes(program).map(|_| ())
}

/// Every site's output shape; an error where the program breaks a rule.
pub fn shapes(program: &Program) -> Result<Vec<Shape>, KernelError> {
    head(program)?;
    let mut c = Checker {
        program,
        shapes: Vec::with_capacity(program.sites.len()),
        at: 0,
    };
    for (i, site) in program.sites.iter().enumerate() {
        c.at = i;
        c.inputs_are_earlier(site)?;
        c.layer_order(site)?;
        let shape = c.shape(site)?;
        c.shapes.push(shape);
    }
    layers(program)?;
    pooling(program)?;
    Ok(c.shapes)
}

/// See [`Program::emits`].
pub(crate) fn emits(program: &Program) -> Option<u32> {
    match shapes(program).ok()?.last()? {
        Shape::Words { cols } => Some(*cols),
        _ => None,
    }
}

/// First site after the last layer.
pub(crate) fn epilogue(program: &Program) -> usize {
    let last = program.sites.iter().rposition(|s| s.layer.is_some());
    last.map_or(program.sites.len(), |i| i + 1)
}

/// V14: an encoder (attention that looks at later tokens) ends in Pool ... Emit: Pool is the first site after the
/// layers, the later ones read nothing before it. No other program has either.
fn pooling(p: &Program) -> Result<(), KernelError> {
    let start = epilogue(p);
    let pools = |s: &Site| matches!(s.op, Op::Pool { .. });
    let emits = p.sites.last().is_some_and(|s| s.op == Op::Emit);
    if !emits && !p.sites.iter().any(pools) {
        return Ok(());
    }
    let tail = p.sites.get(start..).unwrap_or_default();
    let placed = emits
        && tail.first().is_some_and(pools)
        && p.sites.iter().filter(|s| pools(s)).count() == 1
        && tail[1..]
            .iter()
            .flat_map(|s| &s.inputs)
            .all(|i| *i as usize >= start);
    if !placed {
        return Err(spec(
            "program",
            "Pool must be the first site after the layers, Emit the last, and what lies between reads neither layers nor what is before them",
        ));
    }
    if !p.is_bidirectional() {
        return Err(spec(
            "program",
            "pools rows, but its attention is causal: its rows come in pieces",
        ));
    }
    Ok(())
}

fn spec(what: impl Into<String>, why: impl Into<String>) -> KernelError {
    KernelError::Spec {
        what: what.into(),
        why: why.into(),
    }
}

/// V1: the program's own numbers.
fn head(p: &Program) -> Result<(), KernelError> {
    let range = |name: &str, value: u32, max: u32| {
        if (1..=max).contains(&value) {
            Ok(())
        } else {
            Err(spec(
                "program",
                format!("{name} is {value}, must be in 1..={max}"),
            ))
        }
    };
    range("layers", p.layers, LAYERS_MAX)?;
    range("d_model", p.d_model, WIDTH_MAX)?;
    range("vocab", p.vocab, VOCAB_MAX)?;
    range("context", p.context, CONTEXT_MAX)?;
    range("kv_heads", p.kv_heads, WIDTH_MAX)?;
    range("head_dim", p.head_dim, HEAD_DIM_MAX)?;
    range("checkpoint_stride", p.checkpoint_stride, u32::MAX)?;
    if p.sites.len() > SITES_MAX {
        return Err(spec(
            "program",
            format!("{} sites, at most {SITES_MAX}", p.sites.len()),
        ));
    }
    Ok(())
}

/// V4: every layer has one `Out` and at most one `KvAppend`; `Sample`, where there is one, is last.
fn layers(p: &Program) -> Result<(), KernelError> {
    let mut outs = vec![0u32; p.layers as usize];
    let mut kvs = vec![0u32; p.layers as usize];
    for (i, site) in p.sites.iter().enumerate() {
        let layer = site.layer.map(|l| l as usize);
        match (&site.op, layer) {
            (Op::Out, Some(l)) => outs[l] += 1,
            (Op::KvAppend { .. }, Some(l)) => kvs[l] += 1,
            (Op::Sample { .. } | Op::Emit, _) if i + 1 != p.sites.len() => {
                let why = "puts out the job's result, but is not the last site";
                return Err(spec(format!("site {i}"), why));
            }
            _ => {}
        }
    }
    for (l, (outs, kvs)) in outs.iter().zip(&kvs).enumerate() {
        if *outs != 1 || *kvs > 1 {
            let why = format!("has {outs} Out and {kvs} KvAppend sites; it needs 1 and at most 1");
            return Err(spec(format!("layer {l}"), why));
        }
    }
    Ok(())
}

impl Checker<'_> {
    fn fail(&self, why: impl Into<String>) -> KernelError {
        spec(
            format!("site {} ({})", self.at, self.program.sites[self.at].op.name()),
            why,
        )
    }

    fn need(&self, holds: bool, why: impl FnOnce() -> String) -> Result<(), KernelError> {
        if holds { Ok(()) } else { Err(self.fail(why())) }
    }

    /// V2: a site reads earlier sites only.
    fn inputs_are_earlier(&self, site: &Site) -> Result<(), KernelError> {
        match site.inputs.iter().find(|s| **s as usize >= self.at) {
            Some(late) => Err(self.fail(format!("reads site {late}, which is not before it"))),
            None => Ok(()),
        }
    }

    /// V3: sites of no layer come first or last, layers ascend; committed and caching sites have a layer,
    /// sites after the last layer read nothing that caches.
    fn layer_order(&self, site: &Site) -> Result<(), KernelError> {
        let before = &self.program.sites[..self.at];
        let last_layer = before.iter().rev().find_map(|s| s.layer);
        if let Some(l) = site.layer {
            self.need(l < self.program.layers, || {
                format!("is in layer {l} of {}", self.program.layers)
            })?;
            let after_epilogue = last_layer.is_some() && before.last().is_some_and(|s| s.layer.is_none());
            self.need(!after_epilogue && last_layer.is_none_or(|p| p <= l), || {
                format!("is in layer {l}, but a later layer or the epilogue comes before it")
            })
        } else {
            let placed = matches!(site.op, Op::KvAppend { .. } | Op::Attention { .. } | Op::Out);
            self.need(!placed, || "needs a layer".into())
        }
    }

    fn shape(&self, site: &Site) -> Result<Shape, KernelError> {
        let p = self.program;
        match &site.op {
            Op::Embed { weight, f_out } | Op::PosEmbed { weight, f_out } => {
                self.arity(site, 0)?;
                self.fraction(*f_out)?;
                self.need(weight.bias.is_none(), || "an embedding takes no bias".into())?;
                self.grouped(weight.mult.is_some(), p.d_model)?;
                Ok(Shape::Acts { cols: p.d_model })
            }
            Op::RmsNorm {
                group, f_in, f_out, ..
            }
            | Op::LayerNorm {
                group, f_in, f_out, ..
            } => {
                let cols = self.acts(site, 0, 1)?;
                self.fraction(*f_in)?;
                self.fraction(*f_out)?;
                self.group(*group, cols, WIDTH_MAX)?;
                Ok(Shape::Acts { cols })
            }
            Op::Quant {
                planes,
                wht,
                group,
                f_in,
            } => {
                let cols = self.acts(site, 0, 1)?;
                self.fraction(*f_in)?;
                self.group(*group, cols, K_MAX)?;
                self.need(matches!(planes, 1 | 2), || {
                    format!("planes is {planes}, must be 1 or 2")
                })?;
                let fits = *wht == 0
                    || ((2..=WHT_MAX).contains(wht)
                        && wht.is_power_of_two()
                        && group.is_multiple_of(u32::from(*wht)));
                self.need(fits, || {
                    format!("transform block {wht} must be 0 or a power of two in 2..={WHT_MAX} that divides {group}")
                })?;
                Ok(Shape::Quant {
                    cols,
                    group: *group,
                    planes: *planes,
                })
            }
            Op::Linear {
                weight,
                n,
                k,
                k_segments,
                f_out,
            } => {
                let (cols, group, _) = self.quant(site, 0, 1)?;
                self.fraction(*f_out)?;
                self.need((1..=VOCAB_MAX).contains(n), || {
                    format!("n is {n}, must be in 1..={VOCAB_MAX}")
                })?;
                self.need(*k == cols && *k <= K_MAX, || {
                    format!("k is {k}; the input has {cols} elements and at most {K_MAX} are allowed")
                })?;
                let segments = u32::from(*k_segments);
                self.need(
                    segments.is_power_of_two() && segments <= SEGMENTS_MAX as u32,
                    || format!("k_segments is {segments}, must be 1, 2, 4 or 8"),
                )?;
                self.need(u64::from(group) * u64::from(segments) == u64::from(*k), || {
                    format!("{segments} segments of k = {k} need input groups of k / segments, got {group}")
                })?;
                self.grouped(weight.mult.is_some(), group)?;
                Ok(Shape::Acts { cols: *n })
            }
            Op::Rope { head_dim, .. } => {
                let cols = self.acts(site, 0, 1)?;
                self.need(head_dim.is_multiple_of(2), || {
                    format!("head_dim {head_dim} is odd")
                })?;
                self.group(*head_dim, cols, HEAD_DIM_MAX)?;
                Ok(Shape::Acts { cols })
            }
            Op::KvAppend { heads, head_dim } => {
                self.need((*heads, *head_dim) == (p.kv_heads, p.head_dim), || {
                    format!(
                        "{heads} heads of {head_dim}, the program says {} of {}",
                        p.kv_heads, p.head_dim
                    )
                })?;
                for input in 0..2 {
                    self.heads(site, input, 2, *heads, *head_dim)?;
                }
                Ok(Shape::Kv)
            }
            Op::Attention {
                heads,
                kv_heads,
                head_dim,
                p_bits,
                f_out,
                ..
            } => {
                self.fraction(*f_out)?;
                self.need((*kv_heads, *head_dim) == (p.kv_heads, p.head_dim), || {
                    format!(
                        "{kv_heads} KV heads of {head_dim}, the program says {} of {}",
                        p.kv_heads, p.head_dim
                    )
                })?;
                self.need(*heads > 0 && heads.is_multiple_of(*kv_heads), || {
                    format!("{heads} heads do not share {kv_heads} KV heads evenly")
                })?;
                self.need(matches!(p_bits, 15 | 23), || {
                    format!("p_bits is {p_bits}, must be 15 or 23")
                })?;
                self.heads(site, 0, 2, *heads, *head_dim)?;
                let kv = self.input(site, 1, 2)?;
                let same_layer = self.program.sites[kv as usize].layer == site.layer;
                self.need(self.shapes[kv as usize] == Shape::Kv && same_layer, || {
                    format!("input 1 is site {kv}, which is not its layer's KvAppend")
                })?;
                Ok(Shape::Acts {
                    cols: heads * head_dim,
                })
            }
            Op::Glu { f, .. } => {
                self.fraction(*f)?;
                self.pair(site)
            }
            Op::Act { f, .. } => {
                self.fraction(*f)?;
                let cols = self.acts(site, 0, 1)?;
                Ok(Shape::Acts { cols })
            }
            Op::Add => self.pair(site),
            Op::Pool { .. } => {
                let cols = self.acts(site, 0, 1)?;
                Ok(Shape::Acts { cols })
            }
            Op::Emit => {
                let cols = self.acts(site, 0, 1)?;
                self.need(site.layer.is_none(), || "must be outside the layers".into())?;
                Ok(Shape::Words { cols })
            }
            Op::Out => {
                let cols = self.acts(site, 0, 1)?;
                self.need(cols == p.d_model, || {
                    format!("commits {cols} elements, d_model is {}", p.d_model)
                })?;
                Ok(Shape::Acts { cols })
            }
            Op::Sample { f } => {
                self.fraction(*f)?;
                let cols = self.acts(site, 0, 1)?;
                self.need(cols == p.vocab, || {
                    format!("{cols} logits, the vocabulary is {}", p.vocab)
                })?;
                self.need(site.layer.is_none(), || "must be outside the layers".into())?;
                Ok(Shape::Token)
            }
        }
    }

    fn arity(&self, site: &Site, want: usize) -> Result<(), KernelError> {
        self.need(site.inputs.len() == want, || {
            format!("reads {} sites, needs {want}", site.inputs.len())
        })
    }

    fn input(&self, site: &Site, i: usize, arity: usize) -> Result<SiteId, KernelError> {
        self.arity(site, arity)?;
        Ok(site.inputs[i])
    }

    fn acts(&self, site: &Site, i: usize, arity: usize) -> Result<u32, KernelError> {
        let id = self.input(site, i, arity)?;
        match self.shapes[id as usize] {
            Shape::Acts { cols } => Ok(cols),
            other => Err(self.fail(format!("input {i} is site {id} with {other:?}, needs int32 rows"))),
        }
    }

    fn quant(&self, site: &Site, i: usize, arity: usize) -> Result<(u32, u32, u8), KernelError> {
        let id = self.input(site, i, arity)?;
        match self.shapes[id as usize] {
            Shape::Quant { cols, group, planes } => Ok((cols, group, planes)),
            other => Err(self.fail(format!(
                "input {i} is site {id} with {other:?}, needs quantised rows"
            ))),
        }
    }

    /// int8 heads with a scale each.
    fn heads(
        &self,
        site: &Site,
        i: usize,
        arity: usize,
        heads: u32,
        head_dim: u32,
    ) -> Result<(), KernelError> {
        let got = self.quant(site, i, arity)?;
        let cols = u64::from(heads) * u64::from(head_dim);
        self.need(
            u64::from(got.0) == cols && cols <= u64::from(K_MAX) && got.1 == head_dim && got.2 == 1,
            || {
                format!(
                    "input {i} must be {heads} heads of {head_dim}, one plane, one scale a head, at most {K_MAX} \
                     elements; got {} elements in groups of {}, {} planes",
                    got.0, got.1, got.2
                )
            },
        )
    }

    fn pair(&self, site: &Site) -> Result<Shape, KernelError> {
        let (a, b) = (self.acts(site, 0, 2)?, self.acts(site, 1, 2)?);
        self.need(a == b, || format!("inputs have {a} and {b} elements"))?;
        Ok(Shape::Acts { cols: a })
    }

    fn fraction(&self, f: u8) -> Result<(), KernelError> {
        self.need(f <= F_MAX, || format!("{f} fraction bits, at most {F_MAX}"))
    }

    fn group(&self, group: u32, cols: u32, max: u32) -> Result<(), KernelError> {
        self.need((1..=max).contains(&group) && cols.is_multiple_of(group), || {
            format!("groups of {group} must divide {cols} and be in 1..={max}")
        })
    }

    fn grouped(&self, grouped: bool, k: u32) -> Result<(), KernelError> {
        self.need(!grouped || k.is_multiple_of(GROUP as u32), || {
            format!("group multipliers need a multiple of {GROUP} elements, got {k}")
        })
    }
}
