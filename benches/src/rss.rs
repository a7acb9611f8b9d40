//! Memory of this process.

/// Largest resident set so far, in bytes (Linux; `None` elsewhere).
pub fn peak_bytes() -> Option<u64> {
    field("VmHWM:")
}

/// Resident memory that is not backed by a file, in bytes, now.
pub fn anonymous_bytes() -> Option<u64> {
    field("RssAnon:")
}

fn field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// Lets the peak start anew from what is resident now (Linux; nothing elsewhere).
pub fn reset_peak() {
    // Where the system does not allow it, peaks are those since the start: more, never less.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}
