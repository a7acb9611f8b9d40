//! Reads the GPUs' figures in a thread of its own, since a driver may hang, and sets their power limit first.

use std::{collections::BTreeSet, sync::mpsc};

use super::{Gpus, Health, fleet::Msg};
use crate::exit::Failure;

/// Starts the thread; it ends with the fleet.
pub(super) fn watch(
    mut health: Box<dyn Health>,
    gpus: Vec<(usize, String)>,
    settings: &Gpus,
    to: mpsc::Sender<Msg>,
) -> Result<(), Failure> {
    let (every, limit) = (settings.look_every, settings.power_limit_watts);
    let body = move || {
        for (_, id) in gpus.iter().filter(|_| limit.is_some()) {
            let watts = limit.unwrap_or_default();
            match health.limit(id, watts.saturating_mul(1000)) {
                Ok(()) => tracing::info!(device = id, watts, "power limit set"),
                Err(why) => tracing::warn!(device = id, watts, "power limit not set: {why}"),
            }
        }
        let mut silent = BTreeSet::new();
        loop {
            for (number, id) in &gpus {
                let figures = match health.read(id) {
                    Ok(figures) => {
                        silent.remove(number);
                        Some(figures)
                    }
                    Err(why) => {
                        if silent.insert(*number) {
                            tracing::warn!(
                                device = id,
                                "NVML gives no figures: {why}. Mining goes on, heat is not watched"
                            );
                        }
                        None
                    }
                };
                let number = *number;
                if to.send(Msg::Figures { number, figures }).is_err() {
                    return;
                }
            }
            std::thread::sleep(every);
        }
    };
    std::thread::Builder::new()
        .name("figures".into())
        .spawn(body)
        .map(|_| ())
        .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("starting the thread of figures")))
}
