//! From a device's name to a model that runs on it, and one job from prompt to transcript.

use std::time::{Duration, Instant};

use bitai_contracts::ModelKey;
use bitai_kernels::{
    Device, DeviceInfo, Hash, KernelError, ReferenceDevice, Sampler as KernelSampler, Trace, cpu::CpuDevice,
};
use bitai_model::{
    engine::{Engine, EngineError},
    pack::Pack,
};
use bitai_poc::{Header, TraceRoot, Transcript, model_shape};
use bitai_types::{Job, JobError, ModelShape, Sampler};

use crate::{cli::DeviceKind, config, exit::Failure, gpu};

/// The processor that was chosen.
pub fn device(config: config::Device) -> Result<Box<dyn Device>, Failure> {
    let failed = |e: KernelError| kernel_failure(&e);
    Ok(match config.kind {
        DeviceKind::Auto if gpu::any() => Box::new(gpu::open(config.gpu)?),
        DeviceKind::Reference => Box::new(ReferenceDevice),
        DeviceKind::Cpu | DeviceKind::Auto => Box::new(CpuDevice::new(config.threads).map_err(failed)?),
        DeviceKind::CpuPortable => Box::new(CpuDevice::portable(config.threads).map_err(failed)?),
        DeviceKind::Cuda => Box::new(gpu::open(config.gpu)?),
    })
}

/// What an engine refuses, as the command that asked ends.
pub fn engine_failure(error: EngineError) -> Failure {
    match error {
        EngineError::EmptyInput => Failure::Job(JobError::EmptyInput),
        EngineError::NothingAsked => Failure::Job(JobError::NothingAsked),
        EngineError::ContextOverflow { input, new, context } => Failure::Job(JobError::ContextOverflow {
            input,
            max_new: u32::try_from(new).unwrap_or(u32::MAX),
            context,
        }),
        EngineError::IdOutOfRange { id, vocab, .. } => Failure::Job(JobError::IdOutOfRange { id, vocab }),
        e @ (EngineError::NotADecoder | EngineError::NotAnEncoder | EngineError::NoAnswer(_)) => {
            Failure::Usage(e.to_string())
        }
        EngineError::Kernel(e) => kernel_failure(&e),
    }
}

/// What a device refuses or says when it fails, as the command that asked ends.
pub fn kernel_failure(error: &KernelError) -> Failure {
    match error {
        KernelError::OutOfMemory { .. } => Failure::NoRoom(error.to_string()),
        KernelError::Lost { .. } => Failure::Lost(error.to_string()),
        e => Failure::Device(e.to_string()),
    }
}

/// A job's sampler as kernels take it.
pub fn kernel_sampler(job: &Job) -> KernelSampler {
    let Sampler {
        temperature_q16,
        top_k,
        top_p_q16,
    } = job.sampler;
    if temperature_q16 == 0 {
        KernelSampler::Greedy
    } else {
        KernelSampler::Random {
            temperature_q16,
            top_k,
            top_p_q16,
            seed: job.seed,
        }
    }
}

/// Prompt ids that a timing of generation runs first.
const RATE_PROMPT: usize = 64;

/// A finished run.
#[derive(Debug, Clone)]
pub struct Run {
    /// What was committed, complete.
    pub transcript: Transcript,
    /// Its root.
    pub trace_root: TraceRoot,
    /// Wall time of the run, prompt included.
    pub took: Duration,
}

/// Some positions of a claimed answer, computed again.
#[derive(Debug, Clone)]
pub struct PartRun {
    /// Body roots of the positions asked for.
    pub bodies: Vec<Hash>,
    /// (position, id) of those among them that sample.
    pub sampled: Vec<(u32, u32)>,
    /// Positions computed: those before the part have to be run too, though nothing of them is sampled.
    pub positions: usize,
    /// Wall time.
    pub took: Duration,
}

/// How fast this machine generates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeRate {
    /// Tokens timed, one by one, after the first.
    pub tokens: usize,
    /// What they took.
    pub took: Duration,
}

/// Hands a run's commitments on and says how many positions are done.
struct Heard<'a> {
    trace: &'a mut dyn Trace,
    on_position: &'a mut (dyn FnMut(u32) + Send),
}

impl Trace for Heard<'_> {
    fn bodies(&mut self, first: u32, bodies: &[Hash]) {
        self.trace.bodies(first, bodies);
        // A sequence is shorter than its context, a u32.
        (self.on_position)(first.saturating_add(u32::try_from(bodies.len()).unwrap_or(u32::MAX)));
    }

    fn sampled(&mut self, pos: u32, token: u32) {
        self.trace.sampled(pos, token);
    }

    fn words(&mut self, words: &[u32]) {
        self.trace.words(words);
    }
}

/// Keeps what a run commits to, from one position on.
struct Tail {
    from: u32,
    bodies: Vec<Hash>,
    sampled: Vec<(u32, u32)>,
}

impl Tail {
    fn new(from: u32) -> Self {
        Self {
            from,
            bodies: Vec::new(),
            sampled: Vec::new(),
        }
    }
}

impl Trace for Tail {
    fn bodies(&mut self, first: u32, bodies: &[Hash]) {
        let skip = self.from.saturating_sub(first) as usize;
        self.bodies.extend(bodies.iter().skip(skip));
    }

    fn sampled(&mut self, pos: u32, token: u32) {
        if pos >= self.from {
            self.sampled.push((pos, token));
        }
    }
}

/// Refuses a pack whose program neither generates nor embeds.
pub fn runs(pack: &Pack) -> Result<(), Failure> {
    Engine::runs(&pack.program()).map_err(|e| Failure::ModelFile {
        path: pack.path().to_owned(),
        why: e.to_string(),
    })
}

/// Loads a pack onto a device.
pub fn load(pack: &Pack, device: &dyn Device) -> Result<Engine, Failure> {
    runs(pack)?;
    Engine::new(pack, device).map_err(engine_failure)
}

/// A model on a device.
pub struct Loaded {
    engine: Engine,
    spec_version: u32,
    /// The device.
    pub info: DeviceInfo,
}

impl Loaded {
    /// Loads a (verified) pack.
    pub fn new(pack: &Pack, config: config::Device) -> Result<Self, Failure> {
        Self::on(pack, device(config)?.as_ref())
    }

    /// Loads a pack onto a device that the caller made.
    pub fn on(pack: &Pack, device: &dyn Device) -> Result<Self, Failure> {
        Ok(Self {
            engine: load(pack, device)?,
            spec_version: pack.manifest().info.spec_version,
            info: device.info(),
        })
    }

    /// What the chain knows the model by, if it is registered with its own numbers.
    pub fn key(&self) -> ModelKey {
        ModelKey {
            model_root: self.engine.model_root().into(),
            spec_version: self.spec_version,
            shape: self.shape(),
        }
    }

    /// The model's public numbers.
    pub fn shape(&self) -> ModelShape {
        model_shape(self.engine.program())
    }

    /// Refuses a job that is malformed or does not fit the model.
    pub fn check(&self, job: &Job) -> Result<(), Failure> {
        Ok(job.check(&self.shape())?)
    }

    /// Answers a job of the model's kind; `on_token` hears each id as it comes (words it does not hear).
    pub fn answer(&mut self, job: &Job, on_token: &mut dyn FnMut(u32)) -> Result<Run, Failure> {
        self.check(job)?;
        let started = Instant::now();
        let mut transcript = Transcript::new(Header::new(job, self.engine.program()));
        if self.shape().embeds() {
            self.engine
                .embed(&job.input_ids, &mut transcript)
                .map_err(engine_failure)?;
            return finish(transcript, started);
        }
        self.engine
            .generate(
                &job.input_ids,
                job.max_new,
                &job.stop_ids,
                &kernel_sampler(job),
                &mut transcript as &mut dyn Trace,
                on_token,
            )
            .map_err(engine_failure)?;
        finish(transcript, started)
    }

    /// Computes a claimed answer again, as one prefill; `on_position` hears how many positions (of an encoder: layers)
    /// are done. An embedding does not depend on the claimed words, so it is computed as it was.
    pub fn recheck(
        &mut self,
        job: &Job,
        output_ids: &[u32],
        on_position: &mut (dyn FnMut(u32) + Send),
    ) -> Result<Run, Failure> {
        self.check(job)?;
        let started = Instant::now();
        let mut transcript = Transcript::new(Header::new(job, self.engine.program()));
        let mut heard = Heard {
            trace: &mut transcript,
            on_position,
        };
        if model_shape(self.engine.program()).embeds() {
            self.engine
                .embed(&job.input_ids, &mut heard)
                .map_err(engine_failure)?;
            return finish(transcript, started);
        }
        self.engine
            .recheck(&job.input_ids, output_ids, &kernel_sampler(job), &mut heard)
            .map_err(engine_failure)?;
        finish(transcript, started)
    }

    /// Computes positions `from ..= to` of a claimed answer again. Those before have to be run as well, but
    /// sample nothing; those after are left out. The caller has checked that the answer reaches to `to`.
    pub fn recheck_part(
        &mut self,
        job: &Job,
        output_ids: &[u32],
        (from, to): (u32, u32),
        on_position: &mut (dyn FnMut(u32) + Send),
    ) -> Result<PartRun, Failure> {
        self.check(job)?;
        let started = Instant::now();
        let ids = [&job.input_ids[..], output_ids].concat();
        let prompt = job.input_ids.len();
        let (from_at, to_at) = (from as usize, to as usize);
        // Position t samples id t + 1 where t + 1 >= the prompt's length. What lies inside the prompt samples
        // nothing; the engine samples at least once, so the last position does, and it is not heard.
        let first_sampled = from_at.max(prompt - 1).min(to_at);
        let mut part = Tail::new(from);
        let mut heard = Heard {
            trace: &mut part,
            on_position,
        };
        self.engine
            .recheck(
                &ids[..=first_sampled],
                &ids[first_sampled + 1..=to_at + 1],
                &kernel_sampler(job),
                &mut heard,
            )
            .map_err(engine_failure)?;
        part.sampled.retain(|(pos, _)| *pos as usize + 1 >= prompt);
        Ok(PartRun {
            bodies: part.bodies,
            sampled: part.sampled,
            positions: to_at + 1,
            took: started.elapsed(),
        })
    }

    /// Times generating: up to `tokens` tokens one by one, after a piece of the job's prompt. `None` where the
    /// context leaves no room to time any, and for a model that generates nothing.
    pub fn decode_rate(&mut self, job: &Job, tokens: u32) -> Result<Option<DecodeRate>, Failure> {
        self.check(job)?;
        if self.shape().embeds() {
            return Ok(None);
        }
        let prompt = &job.input_ids[..job.input_ids.len().min(RATE_PROMPT)];
        let room = (self.engine.program().context as usize).saturating_sub(prompt.len());
        // The first one comes out of the prefill.
        let new = (tokens as usize + 1).min(room);
        if new < 2 {
            return Ok(None);
        }
        let mut at = Vec::with_capacity(new);
        self.engine
            .generate(
                prompt,
                u32::try_from(new).unwrap_or(u32::MAX),
                &[],
                &kernel_sampler(job),
                &mut Tail::new(u32::MAX),
                &mut |_| at.push(Instant::now()),
            )
            .map_err(engine_failure)?;
        Ok(match (at.first(), at.last()) {
            (Some(first), Some(last)) if at.len() > 1 => Some(DecodeRate {
                tokens: at.len() - 1,
                took: last.duration_since(*first),
            }),
            _ => None,
        })
    }

    /// The engine itself, for many jobs at once.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

fn finish(transcript: Transcript, started: Instant) -> Result<Run, Failure> {
    let trace_root = transcript
        .root()
        .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("the run's transcript")))?;
    Ok(Run {
        transcript,
        trace_root,
        took: started.elapsed(),
    })
}
