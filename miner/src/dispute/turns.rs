//! Units of models taken in turns: whoever loads one waits until the one before is dropped, whichever thread and model it
//! belongs to.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bitai_kernels::{
    Carried, Device, DeviceInfo, HostTensor, KernelError, Part, PartDone, PartStep, Probe, Program, Runner,
};

/// Whether a unit is in memory.
#[derive(Default, Clone)]
pub(super) struct Turn(Arc<(Mutex<bool>, Condvar)>);

impl Turn {
    /// Waits for the turn; it ends when what is given here is dropped.
    fn take(&self) -> Taken {
        let (taken, freed) = &*self.0;
        // A flag is whole whatever happened to its last user.
        let held = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let held = freed.wait_while(held, |taken| *taken);
        *held.unwrap_or_else(PoisonError::into_inner) = true;
        Taken(self.clone())
    }
}

/// A turn; dropping it ends it.
struct Taken(Turn);

impl Drop for Taken {
    fn drop(&mut self) {
        let (taken, freed) = &*self.0.0;
        *taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        freed.notify_one();
    }
}

/// A device whose units are loaded in turns.
pub(super) struct Turns {
    inner: Arc<dyn Device>,
    turn: Turn,
}

impl Turns {
    pub(super) fn new(inner: Arc<dyn Device>, turn: &Turn) -> Self {
        Self {
            inner,
            turn: turn.clone(),
        }
    }
}

impl Device for Turns {
    fn info(&self) -> DeviceInfo {
        self.inner.info()
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        self.inner.load(program, tensors)
    }

    fn has_parts(&self) -> bool {
        self.inner.has_parts()
    }

    fn load_part(
        &self,
        program: Arc<Program>,
        tensors: &[HostTensor],
        unit: u32,
    ) -> Result<Box<dyn Part>, KernelError> {
        let taken = self.turn.take();
        Ok(Box::new(Mine {
            part: self.inner.load_part(program, tensors, unit)?,
            _taken: taken,
        }))
    }
}

/// A unit while it is its turn. Fields are dropped in order: the unit before the turn.
struct Mine {
    part: Box<dyn Part>,
    _taken: Taken,
}

impl Part for Mine {
    fn run(
        &mut self,
        step: PartStep<'_>,
        carried: Carried,
        cache: &mut Vec<u8>,
        probe: Option<&mut dyn Probe>,
    ) -> Result<PartDone, KernelError> {
        self.part.run(step, carried, cache, probe)
    }
}
