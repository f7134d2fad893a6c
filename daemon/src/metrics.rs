//! Metrics in Prometheus' text format, with the buckets that each histogram names.

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Installs the process's recorder. A histogram without buckets here would become a summary, which
/// cannot be added up over replicas.
pub fn install(histograms: &[(&str, &[f64])]) -> anyhow::Result<PrometheusHandle> {
    let with_buckets = |builder: PrometheusBuilder, (name, buckets): &(&str, &[f64])| {
        builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)
    };
    let builder = histograms.iter().try_fold(PrometheusBuilder::new(), with_buckets)?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("a recorder of metrics was installed before")?;
    Ok(handle)
}
