//! Answers on this machine and checks of answers, as typed.

use std::path::PathBuf;

use clap::Args;

use super::{ChainArgs, DeviceArgs, DeviceKind, Heights};

/// How to choose tokens, in the words of people.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// Most tokens to generate
    #[arg(long, default_value_t = 128)]
    pub max_new: u32,
    /// 0 = always the likeliest token
    #[arg(long, default_value = "0", value_parser = q16)]
    pub temperature: u32,
    /// Draw among so many of the likeliest tokens; 0 = all
    #[arg(long, default_value_t = 0)]
    pub top_k: u32,
    /// Draw among the likeliest tokens that hold this much of the mass
    #[arg(long, default_value = "1", value_parser = q16)]
    pub top_p: u32,
    /// Seed of the draw
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Feed the prompt as it is, without the model's chat template
    #[arg(long)]
    pub raw: bool,
}

/// Reads a decimal like `0.7` as Q16, exactly: digits, no float, at most 6 after the point, at most 16.
pub fn q16(text: &str) -> Result<u32, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) || part.len() > 6 {
        return Err(format!(
            "`{text}` is no decimal number with at most 6 digits after the point"
        ));
    }
    let whole: u32 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| format!("`{text}` is too large"))?
    };
    if whole > 16 {
        return Err(format!("`{text}` is above 16"));
    }
    let micros: u64 = format!("{part:0<6}")
        .parse()
        .map_err(|_| format!("`{text}` is no number"))?;
    let q = (u64::from(whole) << 16) + ((micros << 16) + 500_000) / 1_000_000;
    u32::try_from(q).map_err(|_| format!("`{text}` is too large"))
}

/// `infer`
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The prompt
    pub prompt: String,
    /// Turn the prompt into an embedding; the model must be an encoder
    #[arg(long, conflicts_with_all = ["max_new", "temperature", "top_k", "top_p", "seed", "raw"])]
    pub embed: bool,
    /// Name or root of the model
    #[arg(long, env = "BITAI_MODEL")]
    pub model: Option<String>,
    /// How to choose tokens.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Write the receipt here [default: receipts/ in the data directory]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A job id on the chain, or a receipt file
    #[arg(required_unless_present = "jobs")]
    pub what: Option<String>,
    /// Re-check every job that was paid between two BitAI heights, both included; TO may be left out
    #[arg(long, value_name = "FROM..TO", conflicts_with_all = ["what", "against", "other_pack", "from", "to"])]
    pub jobs: Option<Heights>,
    /// Compute on this processor as well and name the first token, layer, site and number that differ
    #[arg(long, value_enum, value_name = "DEVICE")]
    pub against: Option<DeviceKind>,
    /// Compute with this pack as well (a name or a file) and name the first place that differs
    #[arg(long, value_name = "PACK")]
    pub other_pack: Option<String>,
    /// First position to compare (prompt and output, from 0)
    #[arg(long, value_name = "POSITION", conflicts_with_all = ["against", "other_pack"])]
    pub from: Option<u32>,
    /// Last position to compare; nothing after it is computed
    #[arg(long, value_name = "POSITION", conflicts_with_all = ["against", "other_pack"])]
    pub to: Option<u32>,
    /// Leave out the timing of generation that the check is compared with
    #[arg(long)]
    pub no_timing: bool,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_q16_exactly() {
        assert_eq!(q16("0"), Ok(0));
        assert_eq!(q16("1"), Ok(65536));
        assert_eq!(q16(".5"), Ok(32768));
        assert_eq!(q16("0.7"), Ok(45875));
        assert_eq!(q16("16"), Ok(16 << 16));
    }

    #[test]
    fn rejects_what_is_no_decimal() {
        for bad in [
            "",
            ".",
            "-1",
            "1e3",
            "0.1234567",
            "17",
            "abc",
            "1.2.3",
            "99999999999",
        ] {
            assert!(q16(bad).is_err(), "{bad}");
        }
    }
}
