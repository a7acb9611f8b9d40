//! Keeps the pool's threads awake while a batch runs.
//!
//! A batch is a few hundred parallel pieces of work, each some tens of microseconds long, with serial work in
//! between. A thread that falls asleep in every gap is woken as often through the operating system, which
//! costs as much as the work. So while a batch runs, every other thread of the pool looks for work without
//! pause. Where threads outnumber processors, or another batch runs on the same pool, nobody waits like that.

use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{available_parallelism, yield_now},
};

use rayon::Yield;

/// Looks for work in vain before a thread lets others have its processor.
const PATIENCE: u32 = 64;
/// Looks in vain before it gives up: this is no gap between two pieces of work. The pool wakes it as it wakes any other.
const LONG: u32 = 1024;

/// Batches under way on a pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Warm(Arc<AtomicUsize>);

/// Takes its batch off the count, panic or not, and sends the waiting threads home.
struct Leave<'a>(&'a Warm, Arc<AtomicBool>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
        self.1.store(true, Ordering::Release);
    }
}

impl Warm {
    /// Runs `f` on `pool`, whose other threads stay awake. They are told when it is over and not waited for: on a
    /// busy machine a thread that gave its processor away comes back some milliseconds later.
    pub(super) fn run<R: Send>(&self, pool: &rayon::ThreadPool, f: impl FnOnce() -> R + Send) -> R {
        let threads = pool.current_num_threads();
        let processors = available_parallelism().map_or(1, usize::from);
        let inside = pool.current_thread_index().is_some();
        if threads == 1 || threads > processors || inside {
            return pool.install(f);
        }
        pool.install(|| {
            let done = Arc::new(AtomicBool::new(false));
            let alone = self.0.fetch_add(1, Ordering::Relaxed) == 0;
            let _leave = Leave(self, Arc::clone(&done));
            if alone {
                let own = rayon::current_thread_index();
                let warm = self.clone();
                rayon::spawn_broadcast(move |thread| {
                    if Some(thread.index()) != own {
                        warm.wait(&done);
                    }
                });
            }
            f()
        })
    }

    /// Works and looks for work until `done`, or until another batch comes: that one may have to run here.
    fn wait(&self, done: &AtomicBool) {
        let mut idle = 0;
        while !done.load(Ordering::Acquire) && self.0.load(Ordering::Relaxed) <= 1 {
            if rayon::yield_now() == Some(Yield::Executed) {
                idle = 0;
                continue;
            }
            match idle {
                0..PATIENCE => spin_loop(),
                PATIENCE..LONG => yield_now(),
                // This may run on top of a piece of the same batch, which took it up while it waited for its other
                // half: the batch ends only after that piece, so nobody waits here for ever.
                _ => return,
            }
            idle += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
    }

    #[test]
    fn work_is_done_and_its_result_comes_back() {
        for threads in [1, 2, 8] {
            let (pool, warm) = (pool(threads), Warm::default());
            for _ in 0..20 {
                let sum: u64 = warm.run(&pool, || (0..1000u64).into_par_iter().sum());
                assert_eq!(sum, 499_500);
            }
            assert_eq!(warm.0.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn batches_side_by_side_and_inside_each_other_end() {
        let (pool, warm) = (pool(2), Warm::default());
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..20 {
                        let sum: u64 =
                            warm.run(&pool, || warm.run(&pool, || (0..1000u64).into_par_iter().sum()));
                        assert_eq!(sum, 499_500);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_sends_the_others_home() {
        let (pool, warm) = (pool(2), Warm::default());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            warm.run(&pool, || panic!("a batch that fails"))
        }));
        assert!(caught.is_err());
        assert_eq!(warm.run(&pool, || 7), 7);
    }
}
