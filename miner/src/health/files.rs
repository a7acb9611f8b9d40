//! What lies on this machine's disk: space, models, keys.

use alloy_primitives::Address;

use super::{Report, machine::gib};
use crate::{
    cli::DoctorArgs,
    config::Layers,
    datadir::DataDir,
    exit::Failure,
    models::{self, Listed},
    space, wallet,
};

/// Free bytes below which the journal is in danger.
const LEAST: u64 = 64 << 20;
/// Free bytes below which it should be seen to.
const LITTLE: u64 = 1 << 30;

/// A line about the disk of the data directory.
pub(super) fn disk(report: &mut Report, data: &DataDir) {
    match space::free(data.root()) {
        Err(failure) => report.fault("disk", failure),
        Ok(free) => {
            let words = format!("{} free at {}", gib(free), data.root().display());
            if free < LEAST {
                let full = format!("{words}; the journal needs room: free some");
                report.fault("disk", Failure::disk(data.root(), full));
            } else if free < LITTLE {
                report.warn("disk", format!("{words}; a model needs more"));
            } else {
                report.ok("disk", words);
            }
        }
    }
}

/// Lines about the models; gives those whose every byte is right.
pub(super) fn models(report: &mut Report, data: &DataDir) -> Vec<Listed> {
    let all = match models::list(data) {
        Ok(all) => all,
        Err(failure) => {
            report.fault("model", failure);
            return Vec::new();
        }
    };
    let mut healthy = Vec::new();
    for model in all {
        match model.and_then(|m| models::open(data, Some(&m.name))) {
            Ok((m, _)) => {
                report.ok(
                    "model",
                    format!("{} matches its root {:#x}", m.name, m.model_root),
                );
                healthy.push(m);
            }
            Err(failure) => report.fault("model", failure),
        }
    }
    if healthy.is_empty() {
        let missing = Failure::NoModel {
            name: "imported".into(),
            dir: data.models(),
            have: "none".into(),
        };
        report.fault("model", missing);
    }
    healthy
}

/// A line about the key; gives the address.
pub(super) fn key(
    report: &mut Report,
    data: &DataDir,
    layers: &Layers,
    args: &DoctorArgs,
) -> Option<Address> {
    if let Some(address) = args.address {
        report.ok("key", format!("{address}, as asked"));
        return Some(address);
    }
    // The key that `run` would take; a devnet's account only where there is no other.
    let own = layers.key(&args.key, &args.chain, false);
    let key = match wallet::choose(data, &own) {
        Ok(_) => own,
        Err(_) => layers.key(&args.key, &args.chain, true),
    };
    let found = wallet::choose(data, &key).and_then(|path| Ok((wallet::address(&path)?, path)));
    match found {
        Err(failure) => {
            report.fault("key", failure);
            None
        }
        Ok((address, path)) => {
            let secrets = [Some(path.as_path()), key.password_file.as_deref()];
            for file in secrets.into_iter().flatten() {
                if let Some(why) = wallet::readable_by_others(file) {
                    report.warn("key", why);
                }
            }
            report.ok("key", format!("{address} ({})", path.display()));
            Some(address)
        }
    }
}
