//! The computing side of the endpoint: a thread a model, which answers any number of requests as one batch and says each
//! piece of text as it comes. A request whose asker has gone leaves the batch at the next token.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use alloy_primitives::B256;
use bitai_kernels::{Device, Hash, Trace};
use bitai_model::{
    engine::{Batch, Event, JobId, Request},
    pack::Pack,
    tokenizer::{Tokenizer, TokenizerError},
};
use bitai_poc::{Header, Transcript};
use bitai_types::Job;
use tokio::sync::mpsc::UnboundedSender;

use super::text::Writer;
use crate::{
    engine::{Loaded, engine_failure, kernel_sampler},
    exit::Failure,
};

/// Why an answer ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// At a token or a text that stops.
    Stop,
    /// At `max_new`.
    Length,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The job that was computed: what was ordered, or, where a stop string ended the text, the same job with `max_new`
    /// tokens up to there. A sampler does not look at `max_new`, so that job has this answer.
    pub job: Job,
    /// Its ids, or the words of an embedding.
    pub output_ids: Vec<u32>,
    /// Root over everything computed.
    pub trace_root: B256,
    /// Why it ends.
    pub finish: Finish,
}

/// What an asker hears, in order.
#[derive(Debug)]
pub enum Piece {
    /// Text that became certain.
    Text(String),
    /// The end: the whole answer.
    Done(Box<Answer>),
    /// The end: it cannot be answered.
    Failed(Failure),
}

/// What is to be answered.
pub struct Order {
    /// The job; checked against the model's shape before.
    pub job: Job,
    /// Texts that end the answer, none of them empty.
    pub stops: Vec<String>,
    /// Who hears of it. Once nobody does the order is dropped.
    pub to: UnboundedSender<Piece>,
}

/// A model's thread.
pub struct Computer {
    orders: Option<mpsc::Sender<Order>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Computer {
    /// Loads the pack and starts the thread, which runs at most `width` jobs side by side.
    pub fn start(
        pack: &Pack,
        device: &dyn Device,
        tokenizer: Arc<Tokenizer>,
        width: usize,
    ) -> Result<Self, Failure> {
        let loaded = Loaded::on(pack, device)?;
        let (orders, inbox) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("gateway".into())
            .spawn(move || {
                if loaded.shape().embeds() {
                    embed(loaded, &inbox, &heard);
                } else {
                    generate(loaded, &tokenizer, &inbox, &heard, width.max(1));
                }
            })
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("starting the computing thread")))?;
        Ok(Self {
            orders: Some(orders),
            stop,
            thread: Some(thread),
        })
    }

    /// Orders an answer; `false` where the thread has died.
    pub fn order(&self, order: Order) -> bool {
        self.orders.as_ref().is_some_and(|o| o.send(order).is_ok())
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        // The thread ends after its current step, an idle one because its inbox closes.
        self.stop.store(true, Ordering::Relaxed);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own message.
            let _ = thread.join();
        }
    }
}

/// Says the end of an order; that nobody listens any more is no matter.
fn end(to: &UnboundedSender<Piece>, result: Result<Answer, Failure>) {
    let _ = to.send(match result {
        Ok(answer) => Piece::Done(Box::new(answer)),
        Err(failure) => Piece::Failed(failure),
    });
}

/// The thread of an encoder: each text is a single step.
fn embed(mut loaded: Loaded, inbox: &mpsc::Receiver<Order>, stop: &AtomicBool) {
    while let Ok(Order { job, to, .. }) = inbox.recv() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if to.is_closed() {
            continue;
        }
        let result = loaded.answer(&job, &mut |_| ()).map(|run| Answer {
            output_ids: run.transcript.outputs().to_vec(),
            trace_root: run.trace_root.0,
            finish: Finish::Stop,
            job,
        });
        end(&to, result);
    }
}

/// A transcript that a batch writes to and the thread takes back at the end.
#[derive(Clone)]
struct Shared(Arc<Mutex<Transcript>>);

impl Shared {
    fn with<R>(&self, f: impl FnOnce(&mut Transcript) -> R) -> R {
        f(&mut self
            .0
            .lock()
            .expect("one thread uses it, and writing a transcript does not panic"))
    }
}

impl Trace for Shared {
    fn bodies(&mut self, first: u32, bodies: &[Hash]) {
        self.with(|t| t.bodies(first, bodies));
    }

    fn sampled(&mut self, pos: u32, token: u32) {
        self.with(|t| t.sampled(pos, token));
    }
}

/// A job in the batch.
struct Running<'t> {
    job: Job,
    transcript: Shared,
    /// None once its text has ended.
    writer: Option<Writer<'t>>,
    to: UnboundedSender<Piece>,
    /// Met a stop string.
    stopped: bool,
}

fn undecodable(e: TokenizerError) -> Failure {
    Failure::Internal(anyhow::Error::new(e).context("decoding the answer"))
}

impl Running<'_> {
    /// Says what a token adds to the text; true where the text has ended there.
    fn token(&mut self, id: u32) -> Result<bool, Failure> {
        let Some(writer) = &mut self.writer else {
            return Ok(false);
        };
        let (text, stopped) = writer.push(id).map_err(undecodable)?;
        self.say(text);
        if stopped {
            self.writer = None;
            self.stopped = true;
        }
        Ok(stopped)
    }

    fn say(&self, text: String) {
        if !text.is_empty() {
            // Nobody listens any more: the next look at the channel takes the job out of the batch.
            let _ = self.to.send(Piece::Text(text));
        }
    }

    /// The answer, when every id of it is committed.
    fn answer(mut self, program: &bitai_kernels::Program) -> Result<Answer, Failure> {
        if let Some(writer) = self.writer.take() {
            let (text, stopped) = writer.finish().map_err(undecodable)?;
            self.say(text);
            self.stopped |= stopped;
        }
        let mut transcript = self.transcript.with(|t| t.clone());
        let output_ids = transcript.outputs().to_vec();
        let ended = output_ids.last().is_some_and(|id| self.job.stop_ids.contains(id));
        let asked = self.job.max_new as usize;
        if !ended && output_ids.len() < asked {
            // A stop string ended it: the job is the one that asks for so many tokens, the commitments are the same.
            self.job.max_new = u32::try_from(output_ids.len()).unwrap_or(u32::MAX);
            let mut shorter = Transcript::new(Header::new(&self.job, program));
            shorter.bodies(0, transcript.body_roots());
            let first = self.job.input_ids.len() - 1;
            for (i, id) in output_ids.iter().enumerate() {
                // A sequence is shorter than its context, a u32.
                shorter.sampled(u32::try_from(first + i).unwrap_or(u32::MAX), *id);
            }
            transcript = shorter;
        }
        let trace_root = transcript
            .root()
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("the run's transcript")))?;
        Ok(Answer {
            finish: if ended || self.stopped {
                Finish::Stop
            } else {
                Finish::Length
            },
            job: self.job,
            output_ids,
            trace_root: trace_root.0,
        })
    }
}

/// The thread of a model that generates.
fn generate(
    mut loaded: Loaded,
    tokenizer: &Tokenizer,
    inbox: &mpsc::Receiver<Order>,
    stop: &AtomicBool,
    width: usize,
) {
    let program = Arc::new(loaded.engine().program().clone());
    let mut batch = loaded.engine().batch();
    let mut running: BTreeMap<JobId, Running<'_>> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        // Sleeps only while there is nothing to compute.
        let order = if running.is_empty() {
            match inbox.recv() {
                Ok(order) => Some(order),
                Err(_) => return,
            }
        } else if running.len() < width {
            match inbox.try_recv() {
                Ok(order) => Some(order),
                Err(mpsc::TryRecvError::Empty) => None,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        } else {
            None
        };
        if let Some(Order { job, stops, to }) = order {
            if to.is_closed() {
                continue;
            }
            let transcript = Shared(Arc::new(Mutex::new(Transcript::new(Header::new(&job, &program)))));
            let request = Request {
                input_ids: job.input_ids.clone(),
                max_new: job.max_new,
                stop_ids: job.stop_ids.clone(),
                sampler: kernel_sampler(&job),
            };
            match batch.join(request, Box::new(transcript.clone())) {
                Ok(id) => {
                    let writer = Some(Writer::new(tokenizer, stops));
                    let stopped = false;
                    running.insert(
                        id,
                        Running {
                            job,
                            transcript,
                            writer,
                            to,
                            stopped,
                        },
                    );
                }
                Err(e) => end(&to, Err(engine_failure(e))),
            }
            continue;
        }
        let gone: Vec<JobId> = running
            .iter()
            .filter(|(_, r)| r.to.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            batch.cancel(id);
            running.remove(&id);
            tracing::info!("an asker has gone; its job is dropped");
        }
        step(&mut batch, &mut running, &program);
    }
}

/// One token of every job.
fn step(batch: &mut Batch<'_>, running: &mut BTreeMap<JobId, Running<'_>>, program: &bitai_kernels::Program) {
    let events = match batch.step() {
        Ok(events) => events,
        Err(e) => {
            // The device failed under all of them; each is told.
            let words = e.to_string();
            for (id, r) in std::mem::take(running) {
                batch.cancel(id);
                end(&r.to, Err(Failure::Device(words.clone())));
            }
            return;
        }
    };
    for event in events {
        match event {
            Event::Token(id, token) => {
                let Some(r) = running.get_mut(&id) else { continue };
                let ended = match r.token(token) {
                    Ok(false) => continue,
                    // The last token of all: `Done` follows.
                    Ok(true) => batch.finish(id).map_err(engine_failure),
                    Err(e) => Err(e),
                };
                match ended {
                    Ok(false) => {}
                    Ok(true) => {
                        if let Some(r) = running.remove(&id) {
                            let to = r.to.clone();
                            end(&to, r.answer(program));
                        }
                    }
                    Err(e) => {
                        batch.cancel(id);
                        if let Some(r) = running.remove(&id) {
                            end(&r.to, Err(e));
                        }
                    }
                }
            }
            Event::Done(id, _) => {
                if let Some(r) = running.remove(&id) {
                    let to = r.to.clone();
                    end(&to, r.answer(program));
                }
            }
        }
    }
}
