//! Prometheus's text format as `OpenMetrics`: counters are declared without `_total`, and the end is
//! marked.
//!
//! # Source
//!
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>

/// The content type of the format.
pub(super) const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Translates a whole exposition.
pub(super) fn of(prometheus: &str) -> String {
    let mut text = String::with_capacity(prometheus.len().saturating_add(16));
    for line in prometheus.lines() {
        match declared(line) {
            Some((keyword, name, rest)) => {
                let name = name.strip_suffix("_total").unwrap_or(name);
                text.extend(["# ", keyword, " ", name, " ", rest]);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text.push_str("# EOF\n");
    text
}

/// The keyword, the name and the rest of a line that declares a metric.
fn declared(line: &str) -> Option<(&str, &str, &str)> {
    let (keyword, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    matches!(keyword, "HELP" | "TYPE").then_some((keyword, name, rest))
}

/// Whether a client asks for the format by its header `Accept`.
pub(super) fn is_asked(accept: &str) -> bool {
    let range = |part: &str| part.split(';').next().unwrap_or_default().trim().to_owned();
    accept.split(',').any(|part| range(part).eq_ignore_ascii_case("application/openmetrics-text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_lose_their_ending_where_they_are_declared_and_the_end_is_marked() {
        let text = "# HELP a_total How many.\n# TYPE a_total counter\na_total{b=\"# x\"} 1\n";
        let made = "# HELP a How many.\n# TYPE a counter\na_total{b=\"# x\"} 1\n# EOF\n";
        assert_eq!(of(text), made);
        assert!(is_asked("text/plain;q=0.5, application/openmetrics-text; version=1.0.0"));
        assert!(!is_asked("text/plain; version=0.0.4") && !is_asked("*/*") && !is_asked(""));
    }
}
