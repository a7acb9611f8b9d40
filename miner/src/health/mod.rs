//! `doctor`: everything that a neuron needs, checked in the order in which it needs it. Each line is ok, a warning or a
//! fault with its mend; the command ends with the code of the first fault.

mod chain;
mod files;
mod machine;

use serde::Serialize;

pub use machine::{Gpu, Machine, look_within};
pub(crate) use machine::{gib, holds};

use crate::{
    cli::DoctorArgs,
    config::{File, Layers},
    datadir::DataDir,
    exit::Failure,
};

/// How a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The neuron can earn, but something should be seen to.
    Warning,
    /// It cannot earn until this is mended.
    Fault,
}

/// One thing that was checked.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// What was checked, in one word.
    pub what: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found; where it is no good, what mends it.
    pub words: String,
    /// Exit code of a fault.
    pub code: Option<u8>,
}

/// All that was checked.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<Line>,
    first: Option<Failure>,
    is_quiet: bool,
}

impl Report {
    fn line(&mut self, what: &'static str, verdict: Verdict, words: String, code: Option<u8>) {
        let line = Line {
            what,
            verdict,
            words,
            code,
        };
        if !self.is_quiet {
            // Each line as it is found: a check may take as long as reading every byte of a model.
            println!("{}", line.text());
        }
        self.lines.push(line);
    }

    /// As it should be.
    pub fn ok(&mut self, what: &'static str, words: impl Into<String>) {
        self.line(what, Verdict::Ok, words.into(), None);
    }

    /// Should be seen to.
    pub fn warn(&mut self, what: &'static str, words: impl Into<String>) {
        self.line(what, Verdict::Warning, words.into(), None);
    }

    /// Keeps the neuron from earning.
    pub fn fault(&mut self, what: &'static str, failure: Failure) {
        self.line(what, Verdict::Fault, failure.to_string(), Some(failure.code()));
        self.first.get_or_insert(failure);
    }

    /// Ok or a fault.
    pub fn say(&mut self, what: &'static str, found: Result<String, Failure>) {
        match found {
            Ok(words) => self.ok(what, words),
            Err(failure) => self.fault(what, failure),
        }
    }
}

impl Line {
    fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "WARNING",
            Verdict::Fault => "FAULT  ",
        };
        let code = self.code.map_or_else(String::new, |c| format!(" (code {c})"));
        format!("{verdict} {:<9} {}{code}", self.what, self.words)
    }
}

/// Addresses that sections of the configuration name to listen at, as `section.key`.
fn listening(file: &File) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (section, values) in file.sections() {
        for (key, value) in values.as_object().into_iter().flatten() {
            if (key == "listen" || key == "address")
                && let Some(address) = value.as_str()
            {
                found.push((format!("{section}.{key}"), address.to_owned()));
            }
        }
    }
    found
}

/// Runs `doctor`.
pub async fn run(data: &DataDir, layers: &Layers, args: &DoctorArgs) -> Result<(), Failure> {
    let mut report = Report {
        is_quiet: args.json,
        ..Default::default()
    };
    let device = layers.device(&args.device);
    let machine = look_within(machine::PATIENCE).await;
    machine::driver(&mut report, machine.as_ref(), device.kind);
    files::disk(&mut report, data);
    let healthy = files::models(&mut report, data);
    machine::fits(&mut report, machine.as_ref(), device.kind, &healthy);
    let who = files::key(&mut report, data, layers, args);
    for (key, address) in listening(layers.file()) {
        machine::port(&mut report, &key, &address);
    }
    chain::check(&mut report, data, layers, args, who, &healthy).await;
    if args.json {
        let code = report.first.as_ref().map_or(0, Failure::code);
        println!("{}", serde_json::json!({ "lines": report.lines, "code": code }));
    }
    report.first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_decides_and_warnings_do_not() {
        let mut report = Report {
            is_quiet: true,
            ..Default::default()
        };
        report.warn("disk", "little is free");
        report.fault("model", Failure::PackRoot("damaged".into()));
        report.fault("key", Failure::Usage("none".into()));
        assert_eq!(report.first.unwrap().code(), 11);
        assert_eq!(report.lines[0].code, None);
        assert!(report.lines[1].text().ends_with("damaged (code 11)"));
    }
}
