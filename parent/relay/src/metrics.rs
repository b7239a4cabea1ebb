//! Figures for Prometheus.
//!
//! No label holds anything of a request, a client or an address: routes, statuses, outcomes and
//! reasons are closed lists, and what the enclave counts comes under names of its own, checked to be
//! names. So the number of series is bounded, whatever is asked.

use std::fmt;
use std::time::Duration;

use casemate_door::Status;
use casemate_door::frame::{BUCKETS_MS, Phase};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::enclave::View;

/// The media type of the text that [`Metrics::text`] gives.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Most counters, and most durations, that are taken from an enclave.
const MAX_NAMES: usize = 64;

type One = [(&'static str, &'static str); 1];
type Two = [(&'static str, &'static str); 2];

/// What a parent counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// HTTP requests answered, by route and status.
    pub http_requests: Family<Two, Counter>,
    /// How long they took, by route.
    http_seconds: Family<One, Histogram, fn() -> Histogram>,
    /// HTTP connections open.
    pub http_connections: Gauge,
    /// HTTP connections refused, by reason.
    pub http_refused: Family<One, Counter>,
    /// What the enclave answered, by kind.
    pub answers: Family<One, Counter>,
    /// Submissions and queries that wait for the enclave.
    pub waiting: Gauge,
    /// Control connections made.
    pub enclave_connections: Counter,
    /// Frames from the enclave that answer nothing that waits.
    pub late_answers: Counter,
    /// Links open.
    pub links: Gauge,
    /// Links made, by direction.
    pub links_made: Family<One, Counter>,
    /// Links that could not be made, by reason.
    pub links_failed: Family<One, Counter>,
    /// Bytes relayed, by direction.
    pub link_bytes: Family<One, Counter>,
    /// Files of the store, by what became of them.
    pub store_files: Family<One, Counter>,
    /// Times that the disk refused a file.
    pub store_errors: Counter,
}

impl Metrics {
    /// All at zero. The enclave's own come from what it last said.
    #[must_use]
    pub fn new(view: watch::Receiver<View>) -> Self {
        let mut registry = Registry::with_prefix("casemate");
        // 1 ms doubling to 65 s: a long poll waits for up to a minute
        let histogram: fn() -> Histogram = || {
            Histogram::new((0..17_u32).map(|at| seconds(1_u64.checked_shl(at).unwrap_or(u64::MAX))))
        };
        let metrics = Self {
            http_requests: Family::default(),
            http_seconds: Family::new_with_constructor(histogram),
            http_connections: Gauge::default(),
            http_refused: Family::default(),
            answers: Family::default(),
            waiting: Gauge::default(),
            enclave_connections: Counter::default(),
            late_answers: Counter::default(),
            links: Gauge::default(),
            links_made: Family::default(),
            links_failed: Family::default(),
            link_bytes: Family::default(),
            store_files: Family::default(),
            store_errors: Counter::default(),
            registry: Registry::default(),
        };
        let m = &metrics;
        let r = &mut registry;
        r.register("http_requests", "Requests answered", m.http_requests.clone());
        r.register("http_request_seconds", "How long requests took", m.http_seconds.clone());
        r.register("http_connections", "Connections open", m.http_connections.clone());
        r.register("http_refused", "Connections refused", m.http_refused.clone());
        r.register("answers", "What the enclave answered", m.answers.clone());
        r.register("waiting", "What waits for the enclave", m.waiting.clone());
        r.register(
            "enclave_connections",
            "Connections made to the enclave",
            m.enclave_connections.clone(),
        );
        r.register("late_answers", "Answers that nothing waited for", m.late_answers.clone());
        r.register("links", "Links between nodes open here", m.links.clone());
        r.register("links_made", "Links made", m.links_made.clone());
        r.register("links_failed", "Links that could not be made", m.links_failed.clone());
        r.register("link_bytes", "Bytes relayed", m.link_bytes.clone());
        r.register("store_files", "Files of the auditors' store", m.store_files.clone());
        r.register("store_errors", "Times the disk refused a file", m.store_errors.clone());
        r.register_collector(Box::new(EnclaveFigures { view }));
        Self { registry, ..metrics }
    }

    /// Counts an HTTP request.
    pub fn answered(&self, route: &'static str, status: u16, took: Duration) {
        let labels = [("route", route), ("status", status_text(status))];
        self.http_requests.get_or_create(&labels).inc();
        self.http_seconds.get_or_create(&[("route", route)]).observe(took.as_secs_f64());
    }

    /// All of it, in OpenMetrics' text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // writing to a string cannot fail; were it to, what is there is given
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// The statuses that a parent gives.
const fn status_text(status: u16) -> &'static str {
    match status {
        200 => "200",
        202 => "202",
        400 => "400",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        410 => "410",
        413 => "413",
        415 => "415",
        429 => "429",
        500 => "500",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}

/// Milliseconds as seconds.
fn seconds(milliseconds: u64) -> f64 {
    // by way of text, which is exact and needs no arithmetic on floating-point numbers
    let text = format!("{}.{:03}", milliseconds / 1_000, milliseconds % 1_000);
    text.parse().unwrap_or(f64::MAX)
}

/// What the enclave said last.
struct EnclaveFigures {
    view: watch::Receiver<View>,
}

impl fmt::Debug for EnclaveFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnclaveFigures")
    }
}

impl Collector for EnclaveFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (connected, status) = {
            let view = self.view.borrow();
            (view.connected, view.status.as_ref().map(|(status, _)| status.clone()))
        };
        gauge(&mut encoder, "enclave_connected", "Whether it is connected", u64::from(connected))?;
        let Some(status) = status else { return Ok(()) };
        let phase = match status.phase {
            Phase::Waiting => 0,
            Phase::Birth => 1,
            Phase::Joining => 2,
            Phase::Member => 3,
            Phase::Halted => 4,
            Phase::Recovering => 5,
        };
        let linked = u64::try_from(status.linked.len()).unwrap_or(u64::MAX);
        for (name, help, value) in [
            ("phase", "0 waiting, 1 birth, 2 joining, 3 member, 4 halted, 5 recovering", phase),
            ("entries", "Entries applied", status.size),
            ("published", "Records given to the store", status.published),
            ("linked", "Nodes whose channel is up", linked),
            ("keys", "Live keys", status.keys),
            ("shares", "Live keys that it holds a share of", status.shares),
            ("triples", "Pairs of triples in stock", status.triples),
            ("frozen", "Whether a freeze is obeyed", u64::from(status.frozen)),
        ] {
            gauge(&mut encoder, &format!("enclave_{name}"), help, value)?;
        }
        if let Some(age) = status.majority_age {
            let help = "Time since a majority was last heard from";
            gauge(&mut encoder, "enclave_majority_age_milliseconds", help, age.0)?;
        }
        own_figures(&mut encoder, &status)
    }
}

/// What the enclave counts under names of its own.
fn own_figures(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in status.counters.iter().take(MAX_NAMES) {
        if !is_name(name) || !seen.insert(name) {
            continue;
        }
        let counter = ConstCounter::new(*value);
        let name = format!("enclave_{name}");
        let help = "Counted by the enclave since its boot";
        counter.encode(encoder.encode_descriptor(&name, help, None, counter.metric_type())?)?;
    }
    for (name, values) in status.durations.iter().take(MAX_NAMES) {
        let Some((cumulative, [count, sum])) = values.split_last_chunk::<2>() else { continue };
        if !is_name(name) || cumulative.len() != BUCKETS_MS.len() || !seen.insert(name) {
            continue;
        }
        let mut below = 0_u64;
        let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(BUCKETS_MS.len());
        for (bound, up_to) in BUCKETS_MS.iter().zip(cumulative) {
            buckets.push((seconds(*bound), up_to.saturating_sub(below)));
            below = below.max(*up_to);
        }
        buckets.push((f64::MAX, count.saturating_sub(below)));
        let name = format!("enclave_{name}_seconds");
        let help = "Measured by the enclave since its boot";
        let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
        let none: Option<&std::collections::HashMap<usize, Exemplar<One, f64>>> = None;
        metric.encode_histogram(seconds(*sum), *count, &buckets, none)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// Whether an enclave's text can be a part of a metric's name.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use casemate_proto::{Millis, UnixMillis};

    use super::*;

    fn status(counters: &[(&str, u64)], durations: &[(&str, Vec<u64>)]) -> Status {
        Status {
            phase: Phase::Member,
            boot: None,
            genesis: None,
            now: UnixMillis(1),
            size: 7,
            published: 6,
            leader: None,
            majority_age: Some(Millis(40)),
            linked: Vec::new(),
            keys: 1,
            shares: 1,
            triples: 8,
            frozen: false,
            counters: counters.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            durations: durations.iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect(),
        }
    }

    fn text_of(status: Status) -> String {
        let view =
            View { connected: true, status: Some((status, Instant::now())), ..View::default() };
        let (_sender, receiver) = watch::channel(view);
        Metrics::new(receiver).text()
    }

    #[test]
    fn figures_of_enclave_and_parent_are_told() {
        let text = text_of(status(&[("signed", 3)], &[]));
        for line in [
            "casemate_enclave_connected 1",
            "casemate_enclave_phase 3",
            "casemate_enclave_entries 7",
            "casemate_enclave_majority_age_milliseconds 40",
            "casemate_enclave_signed_total 3",
            "casemate_late_answers_total 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn durations_become_a_cumulative_histogram_in_seconds() {
        // one at most 1 ms, two more at most 20 ms, one longer than all buckets
        let mut values = vec![1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3];
        values.extend([4, 40_021]);
        let text = text_of(status(&[], &[("sign", values)]));
        for line in [
            "casemate_enclave_sign_seconds_bucket{le=\"0.001\"} 1",
            "casemate_enclave_sign_seconds_bucket{le=\"0.01\"} 1",
            "casemate_enclave_sign_seconds_bucket{le=\"0.02\"} 3",
            "casemate_enclave_sign_seconds_bucket{le=\"30.0\"} 3",
            "casemate_enclave_sign_seconds_bucket{le=\"+Inf\"} 4",
            "casemate_enclave_sign_seconds_count 4",
            "casemate_enclave_sign_seconds_sum 40.021",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn names_that_are_none_are_left_out() {
        let bad = "x\ncasemate_forged 1";
        let many: Vec<String> = (0..200).map(|at| format!("n{at}")).collect();
        let mut counters: Vec<(&str, u64)> =
            vec![(bad, 1), ("", 1), ("A", 1), ("twice", 1), ("twice", 2)];
        counters.extend(many.iter().map(|name| (name.as_str(), 1)));
        let text = text_of(status(&counters, &[("short", vec![1, 2]), (bad, vec![0; 14])]));
        assert!(!text.contains("forged") && !text.contains("short"), "{text}");
        assert_eq!(text.matches("\ncasemate_enclave_twice_total").count(), 1);
        assert!(text.matches("\ncasemate_enclave_n").count() <= MAX_NAMES);
    }

    #[test]
    fn requests_are_counted_by_route_and_status_of_closed_lists() {
        let (_sender, receiver) = watch::channel(View::default());
        let metrics = Metrics::new(receiver);
        metrics.answered("/v1/requests", 200, Duration::from_millis(30));
        metrics.answered("/v1/requests", 299, Duration::from_millis(30));
        let text = metrics.text();
        let line = "casemate_http_requests_total{route=\"/v1/requests\",status=\"200\"} 1";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("status=\"other\""), "{text}");
        assert!(text.contains("casemate_http_request_seconds_count{route=\"/v1/requests\"} 2"));
    }
}
