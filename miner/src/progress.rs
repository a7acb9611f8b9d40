//! Progress bars for whatever may take more than two seconds; silent where there is no terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error over `total` steps of something (`what` says of what).
pub fn bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{msg} [{bar:32}] {pos}/{len} {elapsed} (eta {eta})")
            .expect("the template is constant and well-formed"),
    );
    bar.set_message(what);
    bar
}

/// How long something may take before its bar appears.
const LATE_AFTER: Duration = Duration::from_secs(2);

/// A bar that appears only where the work turns out to take longer than two seconds, and goes when it drops.
pub struct LateBar {
    bar: ProgressBar,
    since: Instant,
    shown: bool,
}

impl LateBar {
    /// A bar over `total` steps of something, not shown yet.
    pub fn new(total: u64, what: &'static str) -> Self {
        let bar = bar(total, what);
        bar.set_draw_target(ProgressDrawTarget::hidden());
        Self {
            bar,
            since: Instant::now(),
            shown: false,
        }
    }

    /// Says how many steps are done.
    pub fn at(&mut self, done: u64) {
        self.bar.set_position(done);
        if !self.shown && self.since.elapsed() >= LATE_AFTER {
            self.shown = true;
            // Draws nothing where standard error is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for LateBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A spinner with the time that has passed, for what has no known length.
pub fn spinner(what: impl Into<std::borrow::Cow<'static, str>>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} {elapsed}")
            .expect("the template is constant and well-formed"),
    );
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
