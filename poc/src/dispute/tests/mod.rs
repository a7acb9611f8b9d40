//! A small model with every op, honest and faulty runs of it, and the games that they play.

mod attack;
mod attestations;
mod decoder;
mod draw_games;
mod fudge;
mod games;
mod honest;
mod model;
mod model_games;
mod parallel;
mod programs;
mod restart;
mod row_games;
mod rows;
mod setup;
mod shapes;

use std::sync::Arc;

use alloy_primitives::{Address, B256, U256};
use bitai_kernels::{
    DType, Device, Hash, HostTensor, Op, Program, ReferenceDevice, Runner, SeqStep, Site, Trace,
    program::{Activation, RopeStyle, Weight},
    reference::ReferenceOps,
    testing::{Fault, FaultyDevice},
};
use bitai_types::{Job, Sampler};

use super::*;
use crate::{Header, Pack, TraceRoot, Transcript};

/// Bytes from a seed.
pub(super) fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(seed.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Builds sites and tensors side by side.
#[derive(Default)]
struct Builder {
    sites: Vec<Site>,
    names: Vec<String>,
    tensors: Vec<HostTensor>,
    layer: Option<u32>,
}

impl Builder {
    fn site(&mut self, op: Op, inputs: &[u32]) -> u32 {
        self.sites.push(Site {
            layer: self.layer,
            op,
            inputs: inputs.to_vec(),
        });
        u32::try_from(self.sites.len() - 1).unwrap()
    }

    fn tensor(&mut self, dtype: DType, rows: usize, cols: usize, bytes: Vec<u8>) -> u32 {
        self.tensors.push(HostTensor::owned(dtype, rows, cols, bytes));
        self.names.push(format!("tensor {}", self.names.len()));
        u32::try_from(self.tensors.len() - 1).unwrap()
    }

    fn weight(&mut self, n: u32, k: u32, grouped: bool, bias: bool) -> Weight {
        let (rows, cols) = (n as usize, k as usize);
        let seed = format!("w{}", self.tensors.len());
        let small = |b: u8| (i8::try_from(b % 121).unwrap() - 60).to_le_bytes()[0];
        let q = noise(&seed, rows * cols).into_iter().map(small).collect();
        let scale = |b: u8| {
            let [a, c] = (33_000 + u16::from(b) * 100).to_le_bytes();
            let [d, e] = (-26i16 + i16::from(b % 2)).to_le_bytes();
            [a, c, d, e]
        };
        let scales = noise(&(seed.clone() + "s"), rows)
            .into_iter()
            .flat_map(scale)
            .collect();
        let mults = || {
            noise(&(seed.clone() + "m"), rows * cols / 32)
                .into_iter()
                .map(|b| 1 + b % 15)
                .collect()
        };
        let biases = || {
            noise(&(seed.clone() + "b"), rows)
                .into_iter()
                .flat_map(|b| (i32::from(b) * 300).to_le_bytes())
                .collect()
        };
        Weight {
            q: self.tensor(DType::I8, rows, cols, q),
            scale: self.tensor(DType::Scale, 1, rows, scales),
            mult: grouped.then(|| self.tensor(DType::U8, rows, cols / 32, mults())),
            bias: bias.then(|| self.tensor(DType::I32, 1, rows, biases())),
        }
    }

    fn norm(&mut self, d: u32, x: u32) -> u32 {
        let gains = noise(&format!("g{}", self.tensors.len()), d as usize)
            .into_iter()
            .flat_map(|b| ((1 << 21) + i32::from(b) * 3000).to_le_bytes())
            .collect();
        let gain = self.tensor(DType::I32, 1, d as usize, gains);
        self.site(
            Op::RmsNorm {
                gain,
                gain_f: 21,
                eps: 2684,
                group: d,
                f_in: 14,
                f_out: 16,
            },
            &[x],
        )
    }

    fn linear(&mut self, weight: Weight, (n, k): (u32, u32), k_segments: u8, f_out: u8, x: u32) -> u32 {
        self.site(
            Op::Linear {
                weight,
                n,
                k,
                k_segments,
                f_out,
            },
            &[x],
        )
    }
}

/// Shapes of the test model.
const D: u32 = 64;
const HEAD: u32 = 16;
const HEADS: u32 = 4;
const KV: u32 = 2;
const FF: u32 = 320;
/// Logits take more than one piece of a row.
const VOCAB: u32 = 300;

/// A model with every op, both plane counts, groups, biases, segments, transforms and a window.
pub(super) struct Model {
    program: Arc<Program>,
    names: Vec<String>,
    tensors: Vec<HostTensor>,
}

impl Model {
    fn new(layers: u32) -> Self {
        Self::wide(layers, FF)
    }

    /// The same with another inner width; a down projection wider than usual is grouped.
    fn wide(layers: u32, ff: u32) -> Self {
        let mut b = Builder::default();
        let quant = |planes, wht, group| Op::Quant {
            planes,
            wht,
            group,
            f_in: 16,
        };
        let context = 400;
        let table = b.tensor(DType::I16, context as usize, HEAD as usize, {
            noise("rope", context as usize * HEAD as usize * 2)
        });
        let embed = b.weight(VOCAB, D, true, false);
        let mut h = b.site(
            Op::Embed {
                weight: embed,
                f_out: 14,
            },
            &[],
        );
        for l in 0..layers {
            b.layer = Some(l);
            let n = b.norm(D, h);
            let x = b.site(quant(2, 0, D), &[n]);
            let project = |b: &mut Builder, heads: u32| {
                let w = b.weight(heads * HEAD, D, false, true);
                b.linear(w, (heads * HEAD, D), 1, 16, x)
            };
            let (q, k, v) = (project(&mut b, HEADS), project(&mut b, KV), project(&mut b, KV));
            let rope = |b: &mut Builder, x| {
                b.site(
                    Op::Rope {
                        table,
                        head_dim: HEAD,
                        style: RopeStyle::Interleaved,
                    },
                    &[x],
                )
            };
            let (q, k) = (rope(&mut b, q), rope(&mut b, k));
            let q = b.site(quant(1, 16, HEAD), &[q]);
            let k = b.site(quant(1, 16, HEAD), &[k]);
            let v = b.site(quant(1, 0, HEAD), &[v]);
            let kv = b.site(
                Op::KvAppend {
                    heads: KV,
                    head_dim: HEAD,
                },
                &[k, v],
            );
            let attention = Op::Attention {
                heads: HEADS,
                kv_heads: KV,
                head_dim: HEAD,
                scale_m: 46_000,
                scale_e: -21,
                p_bits: if l == 0 { 15 } else { 23 },
                window: if l == 0 { 0 } else { 5 },
                causal: true,
                f_out: 16,
            };
            let a = b.site(attention, &[q, kv]);
            let a = b.site(quant(2, 0, HEADS * HEAD), &[a]);
            let w = b.weight(D, HEADS * HEAD, false, false);
            let a = b.linear(w, (D, HEADS * HEAD), 1, 14, a);
            h = b.site(Op::Add, &[h, a]);
            let n = b.norm(D, h);
            let x = b.site(quant(1, 0, D), &[n]);
            let w = b.weight(ff, D, false, false);
            let gate = b.linear(w, (ff, D), 1, 16, x);
            let w = b.weight(ff, D, false, false);
            let up = b.linear(w, (ff, D), 1, 16, x);
            let m = b.site(
                Op::Glu {
                    act: Activation::Silu,
                    f: 16,
                },
                &[gate, up],
            );
            // Layer 0 sums K = 320 in two parts, layer 1 in two segments after a transform.
            let (segments, wht) = if l == 0 { (1, 0) } else { (2, 32) };
            let m = b.site(quant(2, wht, ff / u32::from(segments)), &[m]);
            let w = b.weight(D, ff, ff > FF, false);
            let m = b.linear(w, (D, ff), segments, 14, m);
            h = b.site(Op::Add, &[h, m]);
            b.site(Op::Out, &[h]);
        }
        b.layer = None;
        let n = b.norm(D, h);
        let x = b.site(quant(2, 0, D), &[n]);
        let logits = b.linear(embed, (VOCAB, D), 1, 16, x);
        b.site(Op::Sample { f: 16 }, &[logits]);
        let program = Program {
            layers,
            d_model: D,
            vocab: VOCAB,
            context,
            kv_heads: KV,
            head_dim: HEAD,
            // The last layer is a checkpoint, so that whatever a token gets wrong is committed.
            checkpoint_stride: layers,
            sites: b.sites,
        };
        program.validate().unwrap();
        Self {
            program: Arc::new(program),
            names: b.names,
            tensors: b.tensors,
        }
    }

    fn pack(&self) -> Pack {
        Pack::new([1; 32], &self.program, &self.names, self.tensors.clone(), [2; 32]).unwrap()
    }

    fn job(&self, input_ids: Vec<u32>, max_new: u32, sampler: Sampler) -> Job {
        Job {
            model_root: self.pack().root(),
            spec_version: 0,
            input_ids,
            max_new,
            stop_ids: vec![],
            sampler,
            seed: 11,
        }
    }

    fn load(&self, fault: Option<Fault>) -> Box<dyn Runner> {
        let program = self.program.clone();
        match fault {
            None => ReferenceDevice.load(program, &self.tensors).unwrap(),
            Some(fault) => FaultyDevice::new(ReferenceOps, fault)
                .load(program, &self.tensors)
                .unwrap(),
        }
    }

    /// A neuron's run: decodes token by token from `prompt` (the job's own, if it is honest).
    fn decode(&self, job: &Job, prompt: &[u32], fault: Option<Fault>) -> Player<RunnerRegen> {
        let mut runner = self.load(fault);
        let sampler = kernel_sampler(job);
        let seq = runner.open(200.max(prompt.len() as u32 + job.max_new)).unwrap();
        let mut outputs: Vec<u32> = vec![];
        let mut feed = prompt.to_vec();
        for _ in 0..job.max_new {
            let step = SeqStep {
                seq,
                tokens: &feed,
                sample: 1,
                sampler: &sampler,
            };
            outputs.push(runner.step(&[step], None).unwrap()[0][0]);
            feed = vec![*outputs.last().unwrap()];
        }
        runner.hash(seq).unwrap();
        let (first, bodies) = runner.take_bodies(seq, true).unwrap();
        self.player(job, prompt, &outputs, &outputs, (first, &bodies), fault)
    }

    /// A challenger's run: prompt and claimed outputs as one prefill.
    fn recheck(&self, job: &Job, claimed: &[u32], fault: Option<Fault>) -> Player<RunnerRegen> {
        let mut runner = self.load(fault);
        let sampler = kernel_sampler(job);
        let seq = runner.open(400).unwrap();
        let tokens = [&job.input_ids[..], &claimed[..claimed.len() - 1]].concat();
        let step = SeqStep {
            seq,
            tokens: &tokens,
            sample: claimed.len() as u32,
            sampler: &sampler,
        };
        let sampled = runner.step(&[step], None).unwrap().remove(0);
        runner.hash(seq).unwrap();
        let (first, bodies) = runner.take_bodies(seq, true).unwrap();
        self.player(job, &job.input_ids, claimed, &sampled, (first, &bodies), fault)
    }

    fn player(
        &self,
        job: &Job,
        prompt: &[u32],
        fed: &[u32],
        sampled: &[u32],
        (first, bodies): (u32, &[[u8; 32]]),
        fault: Option<Fault>,
    ) -> Player<RunnerRegen> {
        let mut t = Transcript::new(Header::new(job, &self.program));
        t.bodies(first, bodies);
        for (pos, id) in (prompt.len() as u32 - 1..).zip(sampled) {
            t.sampled(pos, *id);
        }
        let ids = [prompt, &fed[..fed.len() - 1]].concat();
        let sampler = kernel_sampler(job);
        let regen = RunnerRegen::new(self.load(fault), ids, prompt.len() as u32, sampler);
        Player::new(t, regen, self.pack(), (*self.program).clone(), sampler).unwrap()
    }

    fn judge_root(&self, job: &Job, outputs: &[u32], root: TraceRoot) -> Judge {
        let branches = self.pack().branches();
        Judge::new(revealed(job, outputs, root), (*self.program).clone(), branches).unwrap()
    }

    /// Sites of a layer (or of none) with an op of this name.
    fn sites(&self, layer: Option<u32>, name: &str) -> Vec<u32> {
        (0u32..)
            .zip(&self.program.sites)
            .filter(|(_, s)| s.layer == layer && s.op.name() == name)
            .map(|(i, _)| i)
            .collect()
    }
}

/// The challenger of tests that have one.
pub(super) const WHO: Address = Address::repeat_byte(0xc1);

/// The neuron of tests.
pub(super) const NEURON: Address = Address::repeat_byte(0xe1);

/// What a neuron revealed.
pub(super) fn revealed(job: &Job, outputs: &[u32], root: TraceRoot) -> Claim {
    Claim {
        chain_id: 31_337,
        hub: Address::repeat_byte(0x0b),
        job_id: U256::from(7),
        neuron: NEURON,
        job: job.clone(),
        outputs: outputs.to_vec(),
        root,
    }
}

/// Asks for what builds on what is published (or names nothing, where that is not).
pub(super) fn ask(judge: &mut Judge, ask: Ask) -> Result<Hash, DisputeError> {
    let to = judge.builds_on(&ask).unwrap_or_default();
    judge.ask(WHO, to, ask)
}

/// Accuses a step of what is published.
pub(super) fn accuse(judge: &mut Judge, accusation: &Accusation) -> Result<Verdict, DisputeError> {
    let to = judge.rests_on(accusation).unwrap_or_default();
    judge.accuse(WHO, to, accusation)
}

/// A run whose published rows are edited at one position, nothing else following from the edit.
pub(super) struct Tampered {
    inner: RunnerRegen,
    pos: u32,
    edit: Box<dyn Fn(&mut TokenRows)>,
}

impl Regenerate for Tampered {
    fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
        let mut rows = self.inner.token(pos)?;
        if pos == self.pos {
            (self.edit)(&mut rows);
        }
        Ok(rows)
    }

    fn kv(&mut self, pos: u32, layer: u32) -> Result<Vec<u8>, DisputeError> {
        self.inner.kv(pos, layer)
    }
}

/// A player whose rows at `pos` (of the prompt, or the last one) are edited and committed so.
pub(super) fn tampered(
    model: &Model,
    job: &Job,
    pos: u32,
    edit: impl Fn(&mut TokenRows) + 'static,
) -> Player<Tampered> {
    let honest = model.decode(job, &job.input_ids, None);
    let header = *honest.transcript.header();
    let mut regen = Tampered {
        inner: honest.regen,
        pos,
        edit: Box::new(edit),
    };
    let node = regen
        .token(pos)
        .unwrap()
        .node(pos, &model.program, &header)
        .unwrap();
    let mut t = Transcript::new(header);
    for (i, body) in (0u32..).zip(honest.transcript.body_roots()) {
        t.bodies(i, &[if i == pos { node.body } else { *body }]);
        if let Some(token) = honest.transcript.sampled_at(i) {
            t.sampled(i, if i == pos { node.sampled.unwrap() } else { token });
        }
    }
    Player::new(t, regen, honest.pack, honest.program, honest.sampler).unwrap()
}

/// A sampler that draws.
pub(super) fn random(top_k: u32, top_p_q16: u32) -> Sampler {
    Sampler {
        temperature_q16: 300 << 16,
        top_k,
        top_p_q16,
    }
}

/// A job of seven ids and six outputs.
pub(super) fn small(model: &Model, sampler: Sampler) -> Job {
    model.job(vec![5, 17, 255, 3, 99, 42, 7], 6, sampler)
}

/// Plays an honest challenger against a claim.
pub(super) fn challenge<R: Regenerate>(model: &Model, job: &Job, claim: &mut Player<R>) -> Game {
    let (outputs, root) = (
        claim.transcript.outputs().to_vec(),
        claim.transcript.root().unwrap(),
    );
    challenge_claim(model, job, &outputs, root, claim)
}

/// Plays an honest challenger against any defendant of a claim.
pub(super) fn challenge_claim(
    model: &Model,
    job: &Job,
    outputs: &[u32],
    root: TraceRoot,
    defendant: &mut dyn Defend,
) -> Game {
    let mut judge = model.judge_root(job, outputs, root);
    let mut challenger = Challenger::new(model.recheck(job, outputs, None));
    play(&mut judge, WHO, &mut challenger, defendant)
}

/// The step that decided a game, if one did.
pub(super) fn step(game: &Game) -> Option<(bool, &'static str)> {
    match game.verdict {
        Verdict::Guilty(Ground::Step(s)) => Some((true, s)),
        Verdict::Cleared(Ground::Step(s)) => Some((false, s)),
        _ => None,
    }
}

/// A root that nobody computed.
pub(super) const NOBODYS: B256 = B256::ZERO;
