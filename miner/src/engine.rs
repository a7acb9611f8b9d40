//! From a device's name to a model that runs on it, and one job from prompt to transcript.

use std::time::{Duration, Instant};

use bitai_kernels::{Device, DeviceInfo, ReferenceDevice, Sampler as KernelSampler, Trace, cpu::CpuDevice};
use bitai_model::{
    engine::{Engine, EngineError},
    pack::Pack,
};
use bitai_poc::{Header, TraceRoot, Transcript};
use bitai_types::{Job, JobError, Sampler};

use crate::{cli::DeviceKind, config, exit::Failure};

/// The processor that was chosen.
pub fn device(config: config::Device) -> Result<Box<dyn Device>, Failure> {
    Ok(match config.kind {
        DeviceKind::Reference => Box::new(ReferenceDevice),
        DeviceKind::Cpu => {
            Box::new(CpuDevice::new(config.threads).map_err(|e| Failure::Device(e.to_string()))?)
        }
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
        EngineError::Kernel(e) => Failure::Device(e.to_string()),
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

/// A model on a device.
pub struct Loaded {
    engine: Engine,
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
            engine: Engine::new(pack, device).map_err(engine_failure)?,
            info: device.info(),
        })
    }

    /// Refuses a job that is malformed or does not fit the model.
    pub fn check(&self, job: &Job) -> Result<(), Failure> {
        let program = self.engine.program();
        Ok(job.check(program.vocab, program.context)?)
    }

    /// Answers a job; `on_token` hears each id as it comes.
    pub fn answer(&mut self, job: &Job, on_token: &mut dyn FnMut(u32)) -> Result<Run, Failure> {
        self.check(job)?;
        let started = Instant::now();
        let mut transcript = Transcript::new(Header::new(job, self.engine.program()));
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

    /// Computes a claimed answer again, as one prefill.
    pub fn recheck(&mut self, job: &Job, output_ids: &[u32]) -> Result<Run, Failure> {
        self.check(job)?;
        let started = Instant::now();
        let mut transcript = Transcript::new(Header::new(job, self.engine.program()));
        self.engine
            .recheck(&job.input_ids, output_ids, &kernel_sampler(job), &mut transcript)
            .map_err(engine_failure)?;
        finish(transcript, started)
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
