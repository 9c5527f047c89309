//! Writes Prometheus's text exposition format, version 0.0.4.
//!
//! # Source
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use core::fmt;
use core::fmt::Write;
use core::time::Duration;

use vram_events::SinkCounts;
use vram_space::{KernelFigures, LifeState};

use crate::reports::{CallMetrics, GpuMetrics, Metrics, ModelFigures, ModelMetrics};
use crate::scrub::ScrubMetrics;

/// A gauge of one GPU: its name, its help, its value.
type GpuGauge = (&'static str, &'static str, fn(&GpuMetrics) -> u64);

/// A counter of one sink: its name, its help, its value.
type SinkCounter = (&'static str, &'static str, fn(&SinkCounts) -> u64);

const GPU_GAUGES: &[GpuGauge] = &[
    ("vram_gpu_total_bytes", "The budget, less what the kernels take.", |gpu| {
        gpu.capacity.total.get()
    }),
    (
        "vram_gpu_used_bytes",
        "Bytes that hold shards, and bytes that could not be returned.",
        |gpu| gpu.capacity.used.get(),
    ),
    ("vram_gpu_reserved_bytes", "Bytes promised and not yet in use.", |gpu| {
        gpu.capacity.reserved.get()
    }),
    ("vram_gpu_headroom_bytes", "Bytes that the configuration keeps free.", |gpu| {
        gpu.capacity.headroom.get()
    }),
    (
        "vram_gpu_kernel_scratch_bytes",
        "Bytes beside the total that the device's kernels take.",
        |gpu| gpu.capacity.scratch.get(),
    ),
    ("vram_gpu_foreign_bytes", "Bytes of the budget that other processes hold.", |gpu| {
        gpu.capacity.foreign.get()
    }),
    ("vram_gpu_free_bytes", "Bytes neither used nor promised.", |gpu| gpu.capacity.free.get()),
    ("vram_gpu_room_bytes", "Bytes that could be granted.", |gpu| gpu.capacity.room.get()),
    ("vram_gpu_largest_hole_bytes", "The longest shard that could be placed.", |gpu| {
        gpu.capacity.largest_hole.get()
    }),
    ("vram_gpu_holes", "Pieces that the free bytes are in.", |gpu| gpu.capacity.hole_count),
    ("vram_gpu_unreturned_bytes", "Bytes that could not be given back and stay counted.", |gpu| {
        gpu.capacity.unreturned.get()
    }),
    ("vram_gpu_shards", "Shards that are resident.", |gpu| gpu.shard_count),
    ("vram_gpu_quarantined_shards", "Shards that were found altered.", |gpu| gpu.quarantined),
    ("vram_gpu_lost", "Whether the device is lost: 0 or 1.", |gpu| u64::from(gpu.lost)),
];

/// A gauge of one model: its name, its help, its value if it has one.
type ModelAge = (&'static str, &'static str, fn(&ModelFigures) -> Option<Seconds>);

/// A whole number of one model: its name, its help, its value.
type ModelNumber = (&'static str, &'static str, fn(&ModelFigures) -> u64);

const MODEL_NUMBERS: &[ModelNumber] = &[
    ("vram_model_bytes", "Device bytes of a model, or of all that are not listed.", |figures| {
        figures.bytes.get()
    }),
    ("vram_model_shards", "Shards of it that lie on a GPU.", |figures| figures.shard_count),
    ("vram_model_leased_shards", "Shards of it that are leased.", |figures| figures.leased_count),
];

const MODEL_AGES: &[ModelAge] = &[
    ("vram_model_oldest_lease_seconds", "The age of its oldest lease.", |figures| {
        figures.oldest_lease.map(Seconds)
    }),
    (
        "vram_model_oldest_unverified_seconds",
        "How long nobody has found the shard of it sound that waits longest.",
        |figures| figures.oldest_unverified.map(Seconds),
    ),
];

/// Writes all figures. The samples of each metric follow its `HELP` and `TYPE`.
pub(crate) fn write(metrics: &Metrics, f: &mut impl Write) -> fmt::Result {
    head(f, "vram_gpu_info", "gauge", "The devices, always 1.")?;
    for gpu in &metrics.gpus {
        writeln!(f, "vram_gpu_info{{{},name=\"{}\"}} 1", Gpu(gpu), Escaped(&gpu.name))?;
    }
    for (name, help, value) in GPU_GAUGES {
        head(f, name, "gauge", help)?;
        for gpu in &metrics.gpus {
            writeln!(f, "{name}{{{}}} {}", Gpu(gpu), value(gpu))?;
        }
    }
    let name = "vram_gpu_state";
    head(f, name, "gauge", "Whether this is the GPU's state: 0 or 1.")?;
    for gpu in &metrics.gpus {
        for state in LifeState::ALL {
            let is = u8::from(state == gpu.state);
            writeln!(f, "{name}{{{},state=\"{state}\"}} {is}", Gpu(gpu))?;
        }
    }
    let name = "vram_gpu_oldest_unverified_seconds";
    head(f, name, "gauge", "How long nobody has found the shard sound that waits longest.")?;
    for gpu in &metrics.gpus {
        let Some(oldest) = gpu.oldest_unverified else { continue };
        writeln!(f, "{name}{{{}}} {}", Gpu(gpu), Seconds(oldest))?;
    }
    write_kernels(metrics, f)?;
    let park = &metrics.park;
    let alone = [
        ("vram_parked_limit_bytes", "Host bytes that parked shards may take.", park.limit.get()),
        ("vram_parked_bytes", "Host bytes that parked shards take.", park.used.get()),
        ("vram_parked_shards", "Shards that are parked.", park.shard_count),
        ("vram_reservations", "Reservations that are open.", metrics.reservations),
        (
            "vram_reservations_bytes",
            "Bytes that open reservations still hold.",
            metrics.reserved.get(),
        ),
        ("vram_leases", "Leases that exist.", metrics.lease_count),
        (
            "vram_distrusted_links",
            "Pairs of GPUs whose direct copies arrived altered.",
            metrics.distrusted_links,
        ),
    ];
    for (name, help, value) in alone {
        head(f, name, "gauge", help)?;
        writeln!(f, "{name} {value}")?;
    }
    write_models(metrics, f)?;
    write_scrub(&metrics.scrub, f)?;
    write_scrub_of_gpus(metrics, f)?;
    write_calls(&metrics.calls, f)?;
    write_events(metrics, f)
}

type Count = fn(&KernelFigures) -> u64;

fn write_kernels(metrics: &Metrics, f: &mut impl Write) -> fmt::Result {
    let name = "vram_gpu_kernels_used";
    head(f, name, "gauge", "Whether checks were computed by the device itself last: 0 or 1.")?;
    for gpu in &metrics.gpus {
        writeln!(f, "{name}{{{}}} {}", Gpu(gpu), u8::from(gpu.kernels.used))?;
    }
    let name = "vram_gpu_kernel_bytes_total";
    head(f, name, "counter", "Bytes that kernels of the device worked on, by what they computed.")?;
    for gpu in &metrics.gpus {
        let done = &gpu.kernels;
        for (work, bytes) in
            [("hash", done.hashed), ("fingerprint", done.fingerprinted), ("tag", done.tagged)]
        {
            writeln!(f, "{name}{{{},work=\"{work}\"}} {}", Gpu(gpu), bytes.get())?;
        }
    }
    let counts: [(&str, &str, Count); 2] = [
        (
            "vram_gpu_kernel_disagreements_total",
            "Segments that kernels called altered and the host found sound.",
            |done| done.disagreements,
        ),
        (
            "vram_gpu_kernel_fallbacks_total",
            "Times that kernels were wanted and gave nothing: the host computed.",
            |done| done.fallbacks,
        ),
    ];
    for (name, help, value) in counts {
        head(f, name, "counter", help)?;
        for gpu in &metrics.gpus {
            writeln!(f, "{name}{{{}}} {}", Gpu(gpu), value(&gpu.kernels))?;
        }
    }
    Ok(())
}

fn write_models(metrics: &Metrics, f: &mut impl Write) -> fmt::Result {
    let name = "vram_models";
    head(f, name, "gauge", "Models that were admitted, by what is there of each.")?;
    let counts = &metrics.models;
    for (state, count) in [
        ("whole", counts.whole),
        ("partial", counts.partial),
        ("parked", counts.parked),
        ("under_way", counts.under_way),
    ] {
        writeln!(f, "{name}{{state=\"{state}\"}} {count}")?;
    }
    let name = "vram_oldest_lease_seconds";
    head(f, name, "gauge", "The age of the oldest lease: 0 without leases.")?;
    let age = metrics.oldest_lease.as_ref().map_or(Duration::ZERO, |oldest| oldest.age);
    writeln!(f, "{name} {}", Seconds(age))?;
    write_by_model(&metrics.by_model, &metrics.other_models, f)
}

/// Writes the samples of models: the listed ones by model and owner, all others as one.
fn write_by_model(
    listed: &[ModelMetrics],
    others: &ModelFigures,
    f: &mut impl Write,
) -> fmt::Result {
    for (name, help, value) in MODEL_NUMBERS {
        head(f, name, "gauge", help)?;
        for model in listed {
            writeln!(f, "{name}{{{}}} {}", Model(model), value(&model.figures))?;
        }
        writeln!(f, "{name}{{others=\"true\"}} {}", value(others))?;
    }
    for (name, help, value) in MODEL_AGES {
        head(f, name, "gauge", help)?;
        for model in listed {
            if let Some(age) = value(&model.figures) {
                writeln!(f, "{name}{{{}}} {age}", Model(model))?;
            }
        }
        if let Some(age) = value(others) {
            writeln!(f, "{name}{{others=\"true\"}} {age}")?;
        }
    }
    Ok(())
}

fn write_scrub(scrub: &ScrubMetrics, f: &mut impl Write) -> fmt::Result {
    let flags = [
        ("vram_scrub_running", "Whether a scrubber is running: 0 or 1.", scrub.running),
        ("vram_scrub_paused", "Whether it is paused: 0 or 1.", scrub.paused),
        ("vram_scrub_kept", "Whether the time that it states is kept: 0 or 1.", scrub.kept),
    ];
    for (name, help, value) in flags {
        head(f, name, "gauge", help)?;
        writeln!(f, "{name} {}", u64::from(value))?;
    }
    let name = "vram_scrub_worst_case_seconds";
    head(f, name, "gauge", "The longest that an alteration can go unnoticed, as it states.")?;
    if let Some(worst) = scrub.worst_case {
        writeln!(f, "{name} {}", Seconds(worst))?;
    }
    let counters = [
        ("vram_scrub_passes_total", "Whole passes.", scrub.passes),
        ("vram_scrub_bytes_total", "Device bytes that were looked at.", scrub.bytes.get()),
        ("vram_scrub_verified_total", "Times that a whole shard was found sound.", scrub.verified),
        ("vram_scrub_altered_total", "Shards that were found altered.", scrub.altered),
        ("vram_scrub_skipped_total", "Times that a shard was busy.", scrub.skipped),
        ("vram_scrub_errors_total", "Times that a shard could not be read.", scrub.errors),
    ];
    for (name, help, value) in counters {
        head(f, name, "counter", help)?;
        writeln!(f, "{name} {value}")?;
    }
    Ok(())
}

/// The threads of the running scrubber, one for each GPU.
fn write_scrub_of_gpus(metrics: &Metrics, f: &mut impl Write) -> fmt::Result {
    let threads = || metrics.gpus.iter().zip(&metrics.scrub.gpus);
    let name = "vram_gpu_scrub_step_seconds";
    head(f, name, "gauge", "How long the scrubber's present step has lasted: 0 between steps.")?;
    for (gpu, scrub) in threads() {
        let time = Seconds(scrub.step_for.unwrap_or_default());
        writeln!(f, "{name}{{{}}} {time}", Gpu(gpu))?;
    }
    let name = "vram_gpu_scrub_kept";
    head(f, name, "gauge", "Whether the time that the scrubber states is kept here: 0 or 1.")?;
    for (gpu, scrub) in threads() {
        writeln!(f, "{name}{{{}}} {}", Gpu(gpu), u64::from(scrub.kept))?;
    }
    Ok(())
}

fn write_calls(calls: &[CallMetrics], f: &mut impl Write) -> fmt::Result {
    head(f, "vram_calls_total", "counter", "Calls that ended, in whatever way.")?;
    for call in calls {
        writeln!(f, "vram_calls_total{{call=\"{}\"}} {}", call.call, call.count)?;
    }
    head(f, "vram_call_failures_total", "counter", "Calls that failed, by the code of the error.")?;
    for call in calls {
        for failure in &call.failures {
            let (code, count) = (Escaped(&failure.code), failure.count);
            let name = call.call;
            writeln!(f, "vram_call_failures_total{{call=\"{name}\",code=\"{code}\"}} {count}")?;
        }
    }
    // The figures below are left out for calls that were never made.
    let made = || calls.iter().filter(|call| call.count > 0);
    head(f, "vram_call_bytes_total", "counter", "Bytes handled by calls that succeeded.")?;
    for call in made() {
        writeln!(f, "vram_call_bytes_total{{call=\"{}\"}} {}", call.call, call.bytes.get())?;
    }
    head(f, "vram_call_duration_seconds", "histogram", "How long calls took.")?;
    for call in made() {
        let name = call.call;
        let mut sum = 0_u64;
        for (end, count) in CallMetrics::BUCKETS.iter().zip(&call.buckets) {
            sum = sum.saturating_add(*count);
            let end = Seconds(*end);
            writeln!(f, "vram_call_duration_seconds_bucket{{call=\"{name}\",le=\"{end}\"}} {sum}")?;
        }
        let count = call.count;
        writeln!(f, "vram_call_duration_seconds_bucket{{call=\"{name}\",le=\"+Inf\"}} {count}")?;
        let time = Seconds(call.time);
        writeln!(f, "vram_call_duration_seconds_sum{{call=\"{name}\"}} {time}")?;
        writeln!(f, "vram_call_duration_seconds_count{{call=\"{name}\"}} {count}")?;
    }
    Ok(())
}

fn write_events(metrics: &Metrics, f: &mut impl Write) -> fmt::Result {
    head(f, "vram_events_total", "counter", "Events that were emitted.")?;
    writeln!(f, "vram_events_total {}", metrics.events)?;
    let columns: [SinkCounter; 3] = [
        ("vram_events_delivered_total", "Events that a sink was given.", |sink| sink.delivered),
        ("vram_events_dropped_total", "Events that a sink missed.", |sink| sink.dropped),
        ("vram_events_failed_total", "Events that a sink could not keep.", |sink| sink.failed),
    ];
    for (name, help, value) in columns {
        head(f, name, "counter", help)?;
        for (index, sink) in metrics.sinks.iter().enumerate() {
            writeln!(f, "{name}{{sink=\"{index}\"}} {}", value(sink))?;
        }
    }
    let name = "vram_sink_out_of_service";
    head(f, name, "gauge", "Whether a sink panicked and is told nothing any more: 0 or 1.")?;
    for (index, sink) in metrics.sinks.iter().enumerate() {
        writeln!(f, "{name}{{sink=\"{index}\"}} {}", u64::from(sink.out_of_service))?;
    }
    Ok(())
}

fn head(f: &mut impl Write, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// The labels that distinguish GPUs.
struct Gpu<'a>(&'a GpuMetrics);

impl fmt::Display for Gpu<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpu=\"{}\",uuid=\"{}\"", self.0.capacity.gpu, self.0.uuid)
    }
}

/// The labels that distinguish models. A model id is never empty, and an owner that is not there is
/// an empty label.
struct Model<'a>(&'a ModelMetrics);

impl fmt::Display for Model<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = Escaped(self.0.owner.as_deref().unwrap_or_default());
        write!(f, "model=\"{}\",owner=\"{owner}\"", Escaped(&self.0.model_id))
    }
}

/// The value of a label: backslash, quote and newline are written as escapes, all other characters
/// unchanged.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A time in seconds, exact and without trailing zeros.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{}.{:09}", self.0.as_secs(), self.0.subsec_nanos());
        f.write_str(digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact_and_short() {
        let seconds = |nanos| Seconds(Duration::from_nanos(nanos)).to_string();
        assert_eq!(seconds(0), "0");
        assert_eq!(seconds(10_000), "0.00001");
        assert_eq!(seconds(60_000_000_000), "60");
        assert_eq!(seconds(1_000_000_001), "1.000000001");
    }
}
