//! The summary as Prometheus reads it (OpenMetrics 1.0, <https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{DeviceView, Summary};
use crate::devices::State;

/// What the reply of `/metrics` is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn counter(to: &mut Registry, name: &str, help: &str, value: u64) {
    let c = Counter::<u64>::default();
    c.inc_by(value);
    to.register(name, help, c);
}

fn seconds(to: &mut Registry, name: &str, help: &str, milliseconds: u64) {
    let c = Counter::<f64, AtomicU64>::default();
    // For people and their charts: thousandths are enough.
    c.inc_by(milliseconds as f64 / 1_000.0);
    to.register_with_unit(name, help, Unit::Seconds, c);
}

fn gauge(to: &mut Registry, name: &str, help: &str, value: u64) {
    let g = Gauge::<i64>::default();
    g.set(i64::try_from(value).unwrap_or(i64::MAX));
    to.register(name, help, g);
}

/// Labels of a line, by name.
type Labels = Vec<(&'static str, String)>;

/// A gauge a device; one that its driver does not give has no line.
fn by_device(
    to: &mut Registry,
    name: &str,
    help: &str,
    devices: &[DeviceView],
    value: impl Fn(&DeviceView) -> Option<f64>,
) {
    let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
    for d in devices {
        if let Some(value) = value(d) {
            let labels = vec![("device", d.reading.id.clone()), ("name", d.reading.name.clone())];
            family.get_or_create(&labels).set(value);
        }
    }
    to.register(name, help, family);
}

fn devices(to: &mut Registry, devices: &[DeviceView]) {
    let r = |f: fn(&DeviceView) -> Option<u32>| move |d: &DeviceView| f(d).map(f64::from);
    by_device(to, "device_up", "1 while the device takes jobs", devices, |d| {
        Some(f64::from(u8::from(matches!(
            d.reading.state,
            State::Working | State::Idle
        ))))
    });
    by_device(to, "device_watts", "Power drawn", devices, |d| {
        d.reading.milliwatts.map(|mw| f64::from(mw) / 1_000.0)
    });
    by_device(
        to,
        "device_celsius",
        "Temperature",
        devices,
        r(|d| d.reading.temperature),
    );
    by_device(
        to,
        "device_busy_percent",
        "Part of the time that it computed",
        devices,
        r(|d| d.reading.busy_percent),
    );
    by_device(
        to,
        "device_fan_percent",
        "Fan speed",
        devices,
        r(|d| d.reading.fan_percent),
    );
    // Bytes of a memory are far below 2^53: the float is exact.
    by_device(to, "device_memory_used_bytes", "Memory in use", devices, |d| {
        d.reading.memory_used.map(|b| b as f64)
    });
    by_device(to, "device_memory_bytes", "Memory", devices, |d| {
        d.reading.memory_total.map(|b| b as f64)
    });
    let family = Family::<Labels, Counter<u64>>::default();
    for d in devices {
        let f = d.faults;
        for (kind, count) in [
            ("hung", f.hung),
            ("lost", f.lost),
            ("failed", f.failed),
            ("no_room", f.no_room),
            ("hot", f.hot),
            ("unread", f.unread),
            ("wrong", f.wrong),
        ] {
            let labels = vec![("device", d.reading.id.clone()), ("kind", kind.to_owned())];
            family.get_or_create(&labels).inc_by(count);
        }
    }
    to.register(
        "device_faults",
        "Faults of a device since the start, by kind",
        family,
    );
}

/// The text of one scrape.
pub(super) fn text(s: &Summary) -> Result<String, std::fmt::Error> {
    let mut all = Registry::with_prefix("bitai");
    let r = &mut all;
    counter(
        r,
        "jobs_ordered",
        "Jobs given to a device, tries counted",
        s.jobs.ordered,
    );
    counter(r, "jobs_computed", "Answers computed", s.jobs.computed);
    counter(r, "jobs_failed", "Tries that a device failed at", s.jobs.failed);
    counter(
        r,
        "jobs_committed",
        "Jobs whose commit was sent",
        s.jobs.committed,
    );
    counter(r, "jobs_revealed", "Jobs whose reveal was sent", s.jobs.revealed);
    // Gauges, since a reorg may take an end back.
    gauge(r, "jobs_paid", "Jobs seen paid since the start", s.jobs.paid);
    gauge(
        r,
        "jobs_refunded",
        "Jobs seen refunded since the start",
        s.jobs.refunded,
    );
    gauge(
        r,
        "jobs_unpaid",
        "Jobs that ended in another way since the start",
        s.jobs.unpaid,
    );
    gauge(r, "jobs_open", "Jobs in hand", s.jobs.open);
    counter(
        r,
        "steps_refused",
        "Steps that the node or the contract refused",
        s.jobs.refused,
    );
    counter(r, "input_tokens", "Ids of prompts computed", s.work.input_ids);
    counter(r, "output_tokens", "Ids of answers computed", s.work.output_ids);
    let steps = [
        ("compute", s.latency.compute),
        ("commit", s.latency.commit),
        ("reveal", s.latency.reveal),
        ("payment", s.latency.payment),
    ];
    for (name, l) in steps {
        let help = format!("Time before the step `{name}` was done, summed over jobs");
        seconds(r, &format!("step_{name}"), &help, l.sum_milliseconds);
        counter(
            r,
            &format!("step_{name}_jobs"),
            &format!("Jobs in step_{name}_seconds"),
            l.count,
        );
    }
    let earned = Gauge::<f64, AtomicU64>::default();
    // A coin has 10^18 wei; for charts a float is near enough, /1/summary has the exact wei.
    earned.set(s.earned_wei.to_string().parse::<f64>().unwrap_or(0.0) / 1e18);
    r.register(
        "earned_coins",
        "Coins earned by jobs seen paid since the start",
        earned,
    );
    gauge(
        r,
        "node_up",
        "1 while the node answers",
        u64::from(s.node_fault.is_none()),
    );
    if let Some(height) = s.height {
        gauge(r, "node_height", "Newest height seen", height);
    }
    gauge(
        r,
        "uptime_seconds",
        "Seconds that the process has run",
        s.uptime_seconds,
    );
    devices(r, &s.devices);
    let mut out = String::new();
    encode(&mut out, &all)?;
    Ok(out)
}
