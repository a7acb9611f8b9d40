//! `verify`: computes a claimed answer again as one prefill and compares trace roots; names the first token,
//! layer, site and number that differ where both sides can be computed here, and re-checks whole block ranges.

mod check;
mod claim;
pub mod jobs;
pub mod locate;

use bitai_model::pack::Pack;

pub use check::{Against, Checked, Verdict, Work, check, check_against, check_part, work};
pub use claim::{Claim, claims};

use crate::{
    cli::{DeviceKind, VerifyArgs},
    config::{self, Layers},
    datadir::DataDir,
    engine::{self, Loaded},
    exit::Failure,
    models,
};
use locate::Side;

/// The second way of computing that the arguments name.
struct Other {
    pack: Option<Pack>,
    device: config::Device,
    name: String,
}

impl Other {
    fn of(data: &DataDir, args: &VerifyArgs, device: config::Device) -> Result<Option<Self>, Failure> {
        let pack = args
            .other_pack
            .as_deref()
            .map(|text| Ok::<_, Failure>(models::open_at(data, text)?.1))
            .transpose()?;
        if pack.is_none() && args.against.is_none() {
            return Ok(None);
        }
        let kind = args.against.unwrap_or(device.kind);
        let mut name = match kind {
            DeviceKind::Auto => "auto",
            DeviceKind::Cpu => "cpu",
            DeviceKind::CpuPortable => "cpu-portable",
            DeviceKind::Cuda => "cuda",
            DeviceKind::Reference => "reference",
        }
        .to_owned();
        if let Some(pack) = &pack {
            name.push_str(&format!(" with pack {}", hex::encode(pack.root())));
        }
        Ok(Some(Self {
            pack,
            device: config::Device { kind, ..device },
            name,
        }))
    }
}

/// Runs the command.
pub async fn run(data: &DataDir, layers: &Layers, args: &VerifyArgs) -> Result<(), Failure> {
    let (chain, device) = (layers.chain(&args.chain), layers.device(&args.device));
    if let Some(heights) = args.jobs {
        return jobs::run(data, &chain, device, heights, args.json).await;
    }
    let what = args
        .what
        .as_deref()
        .ok_or_else(|| Failure::Usage("name a job id or a receipt file, or --jobs FROM..TO".into()))?;
    let claims = claims(data, &chain, what).await?;
    let Some(first) = claims.first() else {
        return Err(Failure::Internal(anyhow::anyhow!("no claim to check")));
    };
    let (model, pack) = models::open_root(data, &first.job.model_root)?;
    let other = Other::of(data, args, device)?;
    let device = engine::device(device)?;
    let mut loaded = Loaded::on(&pack, device.as_ref())?;
    let mut worst = None;
    for claim in &claims {
        let mut checked = one(&mut loaded, &pack, device.as_ref(), other.as_ref(), claim, args)?;
        if !args.no_timing {
            checked.work = work(&mut loaded, claim, &checked)?;
        }
        if args.json {
            let line = serde_json::json!({
                "model": model.name, "device": loaded.info.name, "result": checked
            });
            println!("{line}");
        } else {
            print(&model.name, &loaded.info.name, claim, &checked);
        }
        // A wrong claim outweighs a wrong device of this machine.
        match failure(&checked, other.as_ref()) {
            Some(wrong @ Failure::TraceRoot(_)) if !matches!(worst, Some(Failure::TraceRoot(_))) => {
                worst = Some(wrong)
            }
            Some(other) => worst = worst.or(Some(other)),
            None => {}
        }
    }
    worst.map_or(Ok(()), Err)
}

fn one(
    loaded: &mut Loaded,
    pack: &Pack,
    device: &dyn bitai_kernels::Device,
    other: Option<&Other>,
    claim: &Claim,
    args: &VerifyArgs,
) -> Result<Checked, Failure> {
    if args.from.is_some() || args.to.is_some() {
        return check_part(loaded, claim, args.from, args.to);
    }
    let Some(other) = other else {
        return check(loaded, claim);
    };
    let second = engine::device(other.device)?;
    let there = Side {
        pack: other.pack.as_ref().unwrap_or(pack),
        device: second.as_ref(),
    };
    check_against(loaded, Side { pack, device }, there, &other.name, claim)
}

/// How the command ends: a wrong claim, or two devices of this machine that disagree about a right one.
fn failure(checked: &Checked, other: Option<&Other>) -> Option<Failure> {
    match checked.verdict() {
        Verdict::Mismatch => return Some(Failure::TraceRoot(checked.words())),
        Verdict::Misregistered => return Some(Failure::Misregistered(checked.words())),
        Verdict::Ok => {}
    }
    let against = checked.against.as_ref().filter(|a| !a.same)?;
    // Another pack computes other numbers: that is no fault of anybody.
    other.filter(|o| o.pack.is_none())?;
    Some(Failure::Device(format!(
        "{} computes another trace root than the claimed one, which is right: {}",
        against.name, against.finding
    )))
}

fn print(model: &str, device: &str, claim: &Claim, checked: &Checked) {
    if let Some(neuron) = claim.who {
        println!("neuron      {neuron}");
    }
    println!("model       {model} ({:#x})", claim.job.model_root);
    println!(
        "tokens      {} in, {} {}",
        claim.job.input_ids.len(),
        claim.output_ids.len(),
        // Only an embedding asks for no tokens.
        if claim.job.max_new == 0 {
            "words out"
        } else {
            "out"
        }
    );
    println!("claimed     {}", checked.claimed);
    if let Some(computed) = checked.computed {
        println!("computed    {computed}");
    }
    if let Some((from, to)) = checked.part {
        println!("compared    positions {from} to {to}");
    }
    if checked.positions != 0 {
        println!(
            "check       {} positions in {:.2} s: {:.1} a second on {device} (measured here)",
            checked.positions,
            checked.seconds,
            checked.positions as f64 / checked.seconds.max(1e-9)
        );
    }
    if let Some(w) = checked.work {
        println!(
            "generating  {:.1} tokens a second (measured here, {} tokens one by one): about {:.2} s for this answer",
            w.decode_rate, w.decode_tokens, w.generating_seconds
        );
        println!(
            "work        the check took {:.2} of the time of generating (both on this machine)",
            w.ratio
        );
    }
    if let Some(a) = &checked.against {
        println!(
            "against     {}: {}{}",
            a.name,
            a.computed,
            if a.is_claim { ", the claimed root" } else { "" }
        );
        println!("difference  {}", a.finding);
    }
    println!(
        "verdict     {}{}",
        match checked.verdict() {
            Verdict::Ok => "OK: ",
            Verdict::Mismatch => "MISMATCH: ",
            Verdict::Misregistered => "MISREGISTERED: ",
        },
        checked.words()
    );
    // Where the root is right no row differs.
    let rows_differ = checked.computed.is_some_and(|c| c != checked.claimed);
    if !checked.ok && rows_differ && checked.against.is_none() {
        println!(
            "            layer, site and number: add --against DEVICE or --other-pack PACK, what the claimant computed with"
        );
    }
}
