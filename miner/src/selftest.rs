//! `selftest`: every rule of the tensor spec on this device, compared with the plain loops of the spec bit for bit.

use bitai_kernels::conformance::{cases, check_case};

use crate::{cli::SelftestArgs, config::Layers, engine::device, exit::Failure, progress::bar};

/// Runs the command.
pub fn run(layers: &Layers, args: &SelftestArgs) -> Result<(), Failure> {
    let device = device(layers.device(&args.device))?;
    let name = device.info().name;
    let cases = cases::all();
    let progress = bar(cases.len() as u64, "comparing");
    for case in &cases {
        check_case(device.as_ref(), case).map_err(|e| Failure::Device(format!("{name}: {e}")))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    if args.json {
        println!(
            "{}",
            serde_json::json!({ "device": name, "cases": cases.len(), "equal": true })
        );
    } else {
        println!(
            "{name}: {} programs, every row, token and root equal to the reference",
            cases.len()
        );
    }
    Ok(())
}
