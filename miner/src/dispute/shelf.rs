//! The models that disputes run: each pack is opened and checked once. Rows are made again in layers, one layer of one
//! model in memory at a time. Only where a claim is to be run again on a device that has whole models alone is one loaded:
//! once, whoever asks and about how many claims, beside the one that mines, with a cache for the longest claim asked
//! about. Where the device refuses, or fails, the processor takes over.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use alloy_primitives::B256;
use bitai_kernels::{
    Device, DeviceInfo, Hash, HostTensor, KernelError, Probe, Program, Runner, SeqId, SeqStep, cpu::CpuDevice,
};
use bitai_model::pack::Pack;

use super::turns::{Turn, Turns};
use crate::{config, datadir::DataDir, engine, exit::Failure, models};

/// What is whole whatever happened to its last user: every lock here guards such.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where models are loaded: first here, where that fails there.
struct Processors {
    /// Opened when the first model is needed, so that a seat can be taken while the device is away.
    open: Box<dyn Fn() -> Result<Arc<dyn Device>, Failure> + Send + Sync>,
    device: OnceLock<Arc<dyn Device>>,
    threads: usize,
}

impl Processors {
    fn device(&self) -> Result<Arc<dyn Device>, Failure> {
        if let Some(device) = self.device.get() {
            return Ok(Arc::clone(device));
        }
        let opened = (self.open)()?;
        Ok(Arc::clone(self.device.get_or_init(|| opened)))
    }

    fn spare(&self) -> Result<Arc<dyn Device>, Failure> {
        let spare = CpuDevice::new(self.threads).map_err(|e| Failure::Device(e.to_string()))?;
        Ok(Arc::new(spare))
    }
}

/// Packs and loaded models.
pub struct Shelf {
    data: DataDir,
    processors: Processors,
    packs: Mutex<BTreeMap<B256, Pack>>,
    /// Loaded as long as somebody holds one of its copies.
    lent: Mutex<BTreeMap<B256, Weak<Loaded>>>,
    /// How often the device under a model failed: each time the other processor is next.
    failures: Mutex<BTreeMap<B256, u32>>,
    /// Whose layer is in memory.
    turn: Turn,
}

/// A model on a processor.
struct Loaded {
    pack: Pack,
    state: Mutex<State>,
    /// Told when the sequence that was open is closed.
    is_free: Condvar,
}

impl Loaded {
    /// The model while no sequence is open on it: its cache holds one.
    fn free(&self) -> MutexGuard<'_, State> {
        let state = lock(&self.state);
        let free = self.is_free.wait_while(state, |state| state.is_taken);
        free.unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    /// None only where loading it for a longer claim failed.
    runner: Option<Box<dyn Runner>>,
    info: DeviceInfo,
    /// Positions that its cache holds.
    room: u32,
    is_taken: bool,
}

impl Shelf {
    /// Packs of a data directory, on a device that is opened when it is needed.
    pub fn new(data: DataDir, device: config::Device) -> Self {
        let open = move || engine::device(device).map(Arc::from);
        Self::with(data, Box::new(open), device.threads)
    }

    /// The same on a device that is there.
    pub fn on(data: DataDir, device: Arc<dyn Device>, threads: usize) -> Self {
        Self::with(data, Box::new(move || Ok(Arc::clone(&device))), threads)
    }

    fn with(
        data: DataDir,
        open: Box<dyn Fn() -> Result<Arc<dyn Device>, Failure> + Send + Sync>,
        threads: usize,
    ) -> Self {
        Self {
            data,
            processors: Processors {
                open,
                device: OnceLock::new(),
                threads,
            },
            packs: Mutex::default(),
            lent: Mutex::default(),
            failures: Mutex::default(),
            turn: Turn::default(),
        }
    }

    /// The data directory.
    pub fn data(&self) -> &DataDir {
        &self.data
    }

    /// The pack with this root; every byte is hashed the first time, which takes seconds of a large one.
    pub fn pack(&self, root: B256) -> Result<Pack, Failure> {
        if let Some(pack) = lock(&self.packs).get(&root) {
            return Ok(pack.clone());
        }
        let (_, pack) = models::open_root(&self.data, &root)?;
        lock(&self.packs).insert(root, pack.clone());
        Ok(pack)
    }

    /// The model of a pack, as a device that holds nothing else: whatever is loaded from it shares one runner, with room
    /// for a sequence of `positions`. Users take turns: whoever opens a sequence waits until the one before is closed.
    pub fn lend(&self, pack: &Pack, positions: u32) -> Result<Lent, Failure> {
        let root = B256::from(pack.root());
        let mut lent = lock(&self.lent);
        lent.retain(|_, held| held.strong_count() != 0);
        if let Some(loaded) = lent.get(&root).and_then(Weak::upgrade) {
            let mut state = loaded.free();
            if state.runner.is_none() || state.room < positions {
                // The old one goes first: the device may not have room for both.
                state.runner = None;
                *state = self.load(pack, positions.max(state.room))?;
            }
            drop(state);
            return Ok(Lent(loaded));
        }
        let loaded = Arc::new(Loaded {
            pack: pack.clone(),
            state: Mutex::new(self.load(pack, positions)?),
            is_free: Condvar::new(),
        });
        lent.insert(root, Arc::downgrade(&loaded));
        Ok(Lent(loaded))
    }

    /// Whether claims about this model are run again in layers: its processor can do that, so no whole model is loaded.
    pub fn in_layers(&self, root: B256) -> bool {
        let device = self.processors.device();
        self.spare_first(root) || device.map_or(true, |device| device.has_parts())
    }

    /// A device that runs this model's layers one by one: this seat's, where it can, else the processor. All who run
    /// layers from this shelf take turns, so that one layer at a time is in memory.
    pub fn layers(&self, pack: &Pack) -> Result<Arc<dyn Device>, Failure> {
        let spare_first = self.spare_first(B256::from(pack.root()));
        let mut why = Vec::new();
        for spare in [spare_first, !spare_first] {
            let device = match spare {
                true => self.processors.spare(),
                false => self.processors.device(),
            };
            match device {
                Ok(device) if device.has_parts() => {
                    let turns = Turns::new(device, &self.turn);
                    // Not the largest: the unit before the layers shows whether the device works at all.
                    match turns.load_part(pack.program(), &pack.tensors(), 0) {
                        Ok(_) => return Ok(Arc::new(turns)),
                        Err(e) => why.push(e.to_string()),
                    }
                }
                Ok(_) => {}
                Err(failure) => why.push(failure.to_string()),
            }
        }
        Err(Failure::Device(why.join("; ")))
    }

    /// Whether the processor comes before the device: it does after every other failure.
    fn spare_first(&self, root: B256) -> bool {
        lock(&self.failures).get(&root).copied().unwrap_or(0) % 2 == 1
    }

    /// The device failed under this model: it is loaded anew once its copies are dropped, on the other processor first.
    pub fn failed(&self, root: B256) {
        *lock(&self.failures).entry(root).or_default() += 1;
        lock(&self.lent).remove(&root);
    }

    fn load(&self, pack: &Pack, positions: u32) -> Result<State, Failure> {
        let spare_first = self.spare_first(B256::from(pack.root()));
        let mut why = Vec::new();
        for spare in [spare_first, !spare_first] {
            let device = if spare {
                self.processors.spare()
            } else {
                self.processors.device()
            };
            let loaded = device.and_then(|device| {
                let runner = device.load_for(pack.program(), &pack.tensors(), positions);
                Ok((runner.map_err(|e| Failure::Device(e.to_string()))?, device.info()))
            });
            match loaded {
                Ok((runner, info)) => {
                    tracing::info!(root = %B256::from(pack.root()), device = info.name, positions, "model loaded for disputes");
                    return Ok(State {
                        runner: Some(runner),
                        info,
                        room: positions,
                        is_taken: false,
                    });
                }
                Err(failure) => {
                    tracing::warn!(root = %B256::from(pack.root()), "not loaded for disputes: {failure}");
                    why.push(failure.to_string());
                }
            }
        }
        Err(Failure::Device(why.join("; ")))
    }
}

/// A loaded model in the place of a device: what it loads is a copy of the handle.
#[derive(Clone)]
pub struct Lent(Arc<Loaded>);

impl Lent {
    /// The pack.
    pub fn pack(&self) -> &Pack {
        &self.0.pack
    }
}

impl Device for Lent {
    fn info(&self) -> DeviceInfo {
        lock(&self.0.state).info.clone()
    }

    fn load(&self, program: Arc<Program>, _: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        if program != self.0.pack.program() {
            return Err(KernelError::Device {
                device: self.info().name,
                why: "this model is lent for its own pack only".into(),
            });
        }
        Ok(Box::new(Handle {
            program,
            loaded: Arc::clone(&self.0),
            mine: None,
        }))
    }
}

/// The runner that all share.
struct Handle {
    program: Arc<Program>,
    loaded: Arc<Loaded>,
    /// The sequence that this one has open.
    mine: Option<SeqId>,
}

impl Handle {
    fn with<R>(&self, act: impl FnOnce(&mut dyn Runner) -> Result<R, KernelError>) -> Result<R, KernelError> {
        match &mut lock(&self.loaded.state).runner {
            Some(runner) => act(runner.as_mut()),
            None => Err(unloaded()),
        }
    }
}

fn unloaded() -> KernelError {
    KernelError::Device {
        device: "the model lent".into(),
        why: "it could not be loaded again for a longer claim".into(),
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(seq) = self.mine {
            self.close(seq);
        }
    }
}

impl Runner for Handle {
    fn program(&self) -> &Program {
        &self.program
    }

    fn open(&mut self, max_tokens: u32) -> Result<SeqId, KernelError> {
        let mut state = self.loaded.free();
        let Some(runner) = &mut state.runner else {
            return Err(unloaded());
        };
        let seq = runner.open(max_tokens)?;
        state.is_taken = true;
        self.mine = Some(seq);
        Ok(seq)
    }

    fn close(&mut self, seq: SeqId) {
        if self.mine != Some(seq) {
            return;
        }
        let mut state = lock(&self.loaded.state);
        if let Some(runner) = &mut state.runner {
            runner.close(seq);
        }
        state.is_taken = false;
        self.mine = None;
        self.loaded.is_free.notify_all();
    }

    fn len(&self, seq: SeqId) -> Result<u32, KernelError> {
        self.with(|r| r.len(seq))
    }

    fn step(
        &mut self,
        batch: &[SeqStep<'_>],
        probe: Option<&mut dyn Probe>,
    ) -> Result<Vec<Vec<u32>>, KernelError> {
        self.with(|r| r.step(batch, probe))
    }

    fn hash(&mut self, seq: SeqId) -> Result<(), KernelError> {
        self.with(|r| r.hash(seq))
    }

    fn take_bodies(&mut self, seq: SeqId, wait: bool) -> Result<(u32, Vec<Hash>), KernelError> {
        self.with(|r| r.take_bodies(seq, wait))
    }
}
