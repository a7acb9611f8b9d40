//! What a bench says: a table for people, Markdown, JSON or CSV, with the limits measured beside it.

use std::fmt::Write;

use alloy_primitives::B256;
use bitai_kernels::{DeviceInfo, Peaks, Program};
use clap::ValueEnum;
use serde::Serialize;

use super::measure::{Test, Times, work};
use crate::exit::Failure;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal
    Table,
    /// Markdown
    Md,
    /// One JSON object, with every single time
    Json,
    /// A line a test
    Csv,
}

/// One test as it is printed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// `pp512`: prompt, `tg64`: decode.
    pub test: String,
    /// Sequences side by side.
    pub batch: u32,
    /// Tokens a second: median of the repetitions, with hashing.
    pub tokens_per_s: f64,
    /// The slowest repetition.
    pub lowest: f64,
    /// The fastest.
    pub highest: f64,
    /// Bytes of weights read a second over the bandwidth measured, in per cent (decode).
    pub bandwidth_percent: Option<f64>,
    /// Multiply-adds of the linear sites a second over the peak measured, in per cent (prompt).
    pub peak_percent: Option<f64>,
    /// What hashing takes, in per cent of the median without it.
    pub hashing_percent: Option<f64>,
    /// Cost of a million tokens, in the currency of `--price-per-hour`.
    pub cost_per_million: Option<f64>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What ran.
    pub model: String,
    /// Where.
    pub device: String,
    /// Which backend.
    pub backend: &'static str,
    /// This program.
    pub version: &'static str,
    /// Bytes a second, measured.
    pub bandwidth: Option<u64>,
    /// int8 multiply-adds a second, measured.
    pub multiply_adds: Option<u64>,
    /// Trace root of the fixed job.
    pub checksum: B256,
    /// What it has to be, where it is known.
    pub recorded: Option<B256>,
    /// The tests.
    pub lines: Vec<Line>,
    /// Every time taken.
    pub times: Vec<Times>,
}

impl Report {
    /// Puts times and limits together.
    pub fn new(
        model: String,
        device: DeviceInfo,
        peaks: Peaks,
        program: &Program,
        (checksum, recorded): (B256, Option<B256>),
        price_per_hour: Option<f64>,
        times: Vec<Times>,
    ) -> Self {
        let lines = times
            .iter()
            .filter(|t| t.hashing)
            .map(|t| line(t, &times, peaks, program, price_per_hour))
            .collect();
        Self {
            model,
            device: device.name,
            backend: device.backend,
            version: env!("CARGO_PKG_VERSION"),
            bandwidth: peaks.bytes_per_s,
            multiply_adds: peaks.multiply_adds_per_s,
            checksum,
            recorded,
            lines,
            times,
        }
    }

    /// The report in the format asked for.
    pub fn text(&self, format: Format) -> Result<String, Failure> {
        Ok(match format {
            Format::Json => {
                let text = serde_json::to_string_pretty(self)
                    .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("writing JSON")))?;
                text + "\n"
            }
            Format::Csv => self.csv(),
            Format::Md => self.table("| ", " | ", " |", true),
            Format::Table => self.table("", "  ", "", false),
        })
    }

    fn csv(&self) -> String {
        let mut out = String::from(
            "model,device,test,batch,tokens_per_s,lowest,highest,bandwidth_percent,peak_percent,hashing_percent,cost_per_million\n",
        );
        for l in &self.lines {
            let some = |v: Option<f64>| v.map_or(String::new(), |v| format!("{v:.3}"));
            let cells = [
                quoted(&self.model),
                quoted(&self.device),
                l.test.clone(),
                l.batch.to_string(),
                format!("{:.2}", l.tokens_per_s),
                format!("{:.2}", l.lowest),
                format!("{:.2}", l.highest),
                some(l.bandwidth_percent),
                some(l.peak_percent),
                some(l.hashing_percent),
                some(l.cost_per_million),
            ];
            out += &cells.join(",");
            out.push('\n');
        }
        out
    }

    fn table(&self, left: &str, between: &str, right: &str, rule: bool) -> String {
        let heads = [
            "test",
            "batch",
            "tokens/s",
            "lowest",
            "highest",
            "bandwidth",
            "int8 peak",
            "hashing",
            "per million",
        ];
        let mut rows: Vec<Vec<String>> = vec![heads.map(String::from).to_vec()];
        for l in &self.lines {
            let percent = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.1} %"));
            rows.push(vec![
                l.test.clone(),
                l.batch.to_string(),
                format!("{:.1}", l.tokens_per_s),
                format!("{:.1}", l.lowest),
                format!("{:.1}", l.highest),
                percent(l.bandwidth_percent),
                percent(l.peak_percent),
                percent(l.hashing_percent),
                l.cost_per_million.map_or("-".into(), |v| format!("{v:.3}")),
            ]);
        }
        let width = |c: usize| rows.iter().map(|r| r[c].len()).max().unwrap_or(0);
        let mut out = self.head(rule);
        for (i, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(c, cell)| format!("{cell:>0$}", width(c)))
                .collect();
            out += &format!("{left}{}{right}\n", cells.join(between));
            if rule && i == 0 {
                out += &format!("|{}\n", " ---: |".repeat(heads.len()));
            }
        }
        out + &self.verdict()
    }

    /// What ran where, with the limits.
    fn head(&self, markdown: bool) -> String {
        let end = if markdown { "  \n" } else { "\n" };
        let mut out = format!("model      {}{end}device     {}{end}", self.model, self.device);
        if let Some(b) = self.bandwidth {
            // Writing into a string cannot fail.
            let _ = write!(out, "memory     {:.1} GB/s read, measured{end}", b as f64 / 1e9);
        }
        if let Some(m) = self.multiply_adds {
            let _ = write!(
                out,
                "int8       {:.1} G multiply-adds/s, measured{end}",
                m as f64 / 1e9
            );
        }
        out + "\n"
    }

    fn verdict(&self) -> String {
        let words = match self.recorded {
            Some(recorded) if recorded == self.checksum => "right: the recorded trace root",
            Some(_) => "WRONG: not the recorded trace root",
            None => "no root is recorded for this model; compare with another device's",
        };
        format!("\nchecksum   {:#x}  {words}\n", self.checksum)
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn line(t: &Times, all: &[Times], peaks: Peaks, program: &Program, price: Option<f64>) -> Line {
    let (lowest, median, highest) = t.rates();
    let (bytes, multiply_adds) = work(program);
    let of = |done: f64, most: Option<u64>| most.map(|most| 100.0 * done / most as f64);
    let steps_per_s = median / f64::from(t.batch);
    let without = all
        .iter()
        .find(|o| !o.hashing && o.test == t.test && o.batch == t.batch);
    let decode = matches!(t.test, Test::Decode(_));
    Line {
        test: t.test.name(),
        batch: t.batch,
        tokens_per_s: median,
        lowest,
        highest,
        bandwidth_percent: of(bytes as f64 * steps_per_s, peaks.bytes_per_s).filter(|_| decode),
        peak_percent: of(multiply_adds as f64 * median, peaks.multiply_adds_per_s).filter(|_| !decode),
        hashing_percent: without.map(|o| 100.0 * (o.rates().1 / median - 1.0)),
        cost_per_million: price.map(|p| p / 3600.0 / median * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(recorded: Option<B256>) -> Report {
        let times = |hashing, ns: [u64; 3]| Times {
            test: Test::Decode(10),
            batch: 2,
            hashing,
            nanoseconds: ns.to_vec(),
        };
        let program = bitai_model::synthetic::pack(&bitai_model::synthetic::Shape::tiny(), 1)
            .unwrap()
            .program();
        let info = DeviceInfo {
            backend: "cpu",
            name: "cpu, \"fast\"".into(),
            memory_bytes: None,
        };
        let peaks = Peaks {
            bytes_per_s: Some(1 << 30),
            multiply_adds_per_s: None,
        };
        Report::new(
            "m".into(),
            info,
            peaks,
            &program,
            (B256::repeat_byte(1), recorded),
            Some(3.6),
            vec![
                times(true, [2_000_000_000, 1_000_000_000, 4_000_000_000]),
                times(false, [1_000_000_000; 3]),
            ],
        )
    }

    #[test]
    fn rates_are_of_all_sequences_and_the_median_counts() {
        let r = report(None);
        let l = &r.lines[0];
        assert_eq!((l.lowest, l.tokens_per_s, l.highest), (5.0, 10.0, 20.0));
        assert_eq!(l.hashing_percent, Some(100.0));
        assert_eq!(l.cost_per_million, Some(100.0));
        assert!(l.bandwidth_percent.unwrap() > 0.0 && l.peak_percent.is_none());
    }

    #[test]
    fn a_wrong_root_is_called_wrong() {
        let words = |recorded| report(recorded).text(Format::Table).unwrap();
        assert!(words(Some(B256::repeat_byte(1))).contains("right: the recorded"));
        assert!(words(Some(B256::repeat_byte(2))).contains("WRONG"));
        assert!(words(None).contains("no root is recorded"));
    }

    #[test]
    fn every_format_says_the_same() {
        let r = report(None);
        let json: serde_json::Value = serde_json::from_str(&r.text(Format::Json).unwrap()).unwrap();
        assert_eq!(json["lines"][0]["tokens_per_s"], 10.0);
        assert_eq!(json["times"][0]["nanoseconds"][2], 4_000_000_000u64);
        let csv = r.text(Format::Csv).unwrap();
        assert!(
            csv.lines()
                .nth(1)
                .unwrap()
                .starts_with("\"m\",\"cpu, \"\"fast\"\"\",tg10,2,10.00"),
            "{csv}"
        );
        assert!(r.text(Format::Md).unwrap().contains("| ---: |"));
    }
}
