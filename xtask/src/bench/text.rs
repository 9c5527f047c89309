//! The tables that benches print, read back.

use super::table::{Line, Measured, Plot, Table};

/// Reads what a part has printed.
pub(crate) type Reader = fn(&str) -> Measured;

/// `--bench limits` of vram-seal.
pub(crate) fn limits(text: &str) -> Measured {
    let mut measured = Measured::default();
    let (mut section, mut in_place) = (String::new(), f64::NAN);
    for line in text.lines() {
        if line.starts_with("left out: ") {
            measured.notes.push(line.to_owned());
        }
        if line.contains(" KiB, ") && line.ends_with(" threads") {
            line.trim().clone_into(&mut section);
            in_place = f64::NAN;
            let columns = ["what", "GB/s", "of the hot limit", "of the cold limit"];
            measured.tables.push(Table::new(&section, &columns));
            continue;
        }
        let Some((left, right)) = line.strip_prefix("  ").and_then(|row| row.split_once("GB/s"))
        else {
            continue;
        };
        let Some((name, rate)) = left.trim().rsplit_once(' ') else { continue };
        let name = name.trim();
        let shares: Vec<f64> = numbers(right);
        if let (Some(hot), Some(cold)) = (shares.first(), shares.get(1)) {
            measured.ratio(format!("{section}: {name}, of hot"), *hot);
            measured.ratio(format!("{section}: {name}, of cold"), *cold);
        }
        match (name, rate.parse()) {
            ("seal in place", Ok(rate)) => in_place = rate,
            ("seal", Ok(rate)) => {
                measured.ratio(format!("{section}: seal, of in place"), rate / in_place);
            }
            _ => {}
        }
        let cell = |at: usize| shares.get(at).map_or_else(String::new, |x| format!("{x:.2}"));
        let row = vec![name.to_owned(), rate.to_owned(), cell(0), cell(1)];
        push(&mut measured, row);
    }
    bars_of_last(&mut measured, 2, "share of the hot limit");
    measured
}

/// `--bench ratios` of vram-residency, and `--bench load`.
pub(crate) fn ratios(text: &str) -> Measured {
    let mut measured = Measured::default();
    let mut section = String::new();
    for line in text.lines() {
        if let Some((what, _)) = line.split_once(" turns each, as a share of ") {
            what.rsplit_once(", ").map_or(what, |(what, _)| what).clone_into(&mut section);
            let title = line.replace('`', "");
            measured
                .tables
                .push(Table::new(title, &["what", "ms", "share", "best, ms", "share of best"]));
        } else if let Some((name, figures)) = line.split_once(" median ") {
            let figures = numbers(&figures.replace("ms", " ").replace("best", " "));
            if let [ms, share, best, of_best] = figures[..] {
                measured.ratio(format!("{section}: {}", name.trim()), share);
                let cells = [
                    format!("{ms:.1}"),
                    format!("{share:.2}"),
                    format!("{best:.1}"),
                    format!("{of_best:.2}"),
                ];
                push(
                    &mut measured,
                    core::iter::once(name.trim().to_owned()).chain(cells).collect(),
                );
            }
        }
    }
    bars_of_last(&mut measured, 2, "speed, as a share of the reference's");
    measured
}

/// `--bench mixes` of vram-residency: GB/s, share and µs a shard in each cell.
pub(crate) fn mixes(text: &str) -> Measured {
    let mut measured = Measured::default();
    let mut mixes: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some((call, figures)) =
            line.strip_prefix("fixed cost of ").and_then(|line| line.split_once(": "))
        {
            measured.notes.push(line.to_owned());
            let fixed = numbers(figures).first().copied().unwrap_or(f64::NAN);
            measured.figure(format!("fixed cost of {call}, µs"), fixed);
        } else if line.contains(" KiB") && line.contains(" x ") {
            mixes = line
                .split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .map(str::to_owned)
                .collect();
            let title =
                "Models of many shards: GB/s (share of the rate of the largest shards), µs a shard";
            let mut table = Table::new(title, &["call"]);
            table.columns.extend(mixes.iter().cloned());
            measured.tables.push(table);
        } else if let Some(at) = line.find('(').filter(|_| !mixes.is_empty()) {
            let Some((name, _)) = line.get(..at).and_then(|start| start.trim().rsplit_once(' '))
            else {
                continue;
            };
            let name = name.trim();
            let cells: Vec<&str> =
                line.get(name.len()..).unwrap_or_default().split_whitespace().collect();
            let mut row = vec![name.to_owned()];
            for (mix, cell) in mixes.iter().zip(cells.chunks(3)) {
                if let Some(share) = cell.get(1).and_then(|share| numbers(share).first().copied())
                    && Some(mix) != mixes.last()
                {
                    measured.ratio(format!("{name}, {mix}"), share);
                }
                row.push(cell.join(" "));
            }
            push(&mut measured, row);
        }
    }
    bars_of_ratios(&mut measured, "speed, as a share of the largest shards'");
    measured
}

/// `--bench ranges` of vram-residency.
pub(crate) fn ranges(text: &str) -> Measured {
    let mut measured = Measured::default();
    let (mut section, mut copy) = (String::new(), f64::NAN);
    for line in text.lines() {
        if let Some((what, _)) = line.split_once(" reads each") {
            what.rsplit_once(", ").map_or(what, |(what, _)| what).clone_into(&mut section);
            measured.tables.push(Table::new(line, &["read", "p50, µs", "p99, µs"]));
        } else if let Some((name, figures)) = line.split_once(" p50 ") {
            let (name, figures) = (name.trim(), figures.replace(" p99 ", " "));
            let [half, most] = numbers(&figures)[..] else { continue };
            if name == "a plain copy" {
                copy = half;
            } else {
                measured.ratio(format!("{section}: {name}, time of a plain copy"), half / copy);
            }
            measured.figure(format!("{section}: {name}, p50, µs"), half);
            measured.figure(format!("{section}: {name}, p99, µs"), most);
            let row = [name.to_owned(), half.to_string(), most.to_string()];
            push(&mut measured, row.to_vec());
        } else if let Some(line) = line.trim().strip_prefix("at most ") {
            let most = numbers(line).first().copied().unwrap_or(f64::NAN);
            measured.figure(format!("{section}: segments read at most"), most);
            measured.notes.push(format!("At most {line}."));
        }
    }
    measured
}

/// `--bench tiny_pieces` of vram-residency.
pub(crate) fn tiny_pieces(text: &str) -> Measured {
    let columns = ["pieces", "admit", "park", "wake", "free"];
    let rows = rows_of_numbers(&text.replace(" us", " ").replace(" s ", " "), 9);
    let each = |row: &[f64]| {
        [row.first(), row.get(2), row.get(4), row.get(6), row.get(8)]
            .map(|cell| cell.copied().unwrap_or(f64::NAN))
    };
    let rows: Vec<[f64; 5]> = rows.iter().map(|row| each(row)).collect();
    growth_of("Models of pieces of 16 bytes: µs a piece", &columns, &rows)
}

/// `--example fragmentation -- growth` of vram-alloc.
pub(crate) fn growth(text: &str) -> Measured {
    let columns = [
        "pieces",
        "arena pair",
        "offset-allocator pair",
        "report",
        "place_at",
        "holes/hole",
        "live/piece",
        "clone/piece",
    ];
    let rows: Vec<[f64; 8]> =
        rows_of_numbers(text, 8).iter().filter_map(|row| row[..].try_into().ok()).collect();
    let mut measured =
        growth_of("The arena by the number of live pieces: ns a call", &columns, &rows);
    for [pieces, ours, theirs, ..] in rows {
        measured.ratio(
            format!("{pieces} pieces: a pair, speed beside offset-allocator"),
            theirs / ours,
        );
    }
    measured
}

/// A table of calls by a number, a line a call, and how much more each takes at the largest number
/// than at the smallest.
fn growth_of<const N: usize>(title: &str, columns: &[&str], rows: &[[f64; N]]) -> Measured {
    let mut measured = Measured::default();
    if rows.is_empty() {
        return measured;
    }
    let mut table = Table::new(title, columns);
    table.rows = rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
    let mut lines: Vec<Line> = Vec::new();
    for (at, column) in columns.iter().enumerate().skip(1) {
        let points: Vec<_> =
            rows.iter().filter_map(|row| Some((*row.first()?, *row.get(at)?))).collect();
        if let (Some((few, least)), Some((many, most))) = (points.first(), points.last())
            && few < many
        {
            measured.ratio(format!("{column}: time at {many} against {few}"), most / least);
        }
        lines.push(((*column).to_owned(), points));
    }
    table.plot = Some(Plot::Lines {
        x: "pieces".to_owned(),
        y: title.rsplit(": ").next().unwrap_or(title).to_owned(),
        lines,
    });
    measured.tables.push(table);
    measured
}

/// `--bench rooms` of vram-residency.
pub(crate) fn rooms(text: &str) -> Measured {
    let mut measured = Measured::default();
    let mut calls = Table::new("Calls by the number of shards", &["call", "shards", "ms", ""]);
    let mut each = Table::new(
        "What one of many shards costs, µs",
        &["shards", "seal", "lease", "its end", "in a report"],
    );
    let mut lines: Vec<Line> = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" shards ") else { continue };
        let Some((call, count)) = left.trim().rsplit_once(' ') else { continue };
        let (call, Ok(shards)) = (call.trim(), count.parse::<f64>()) else { continue };
        if call == "each of" {
            let figures = numbers(right).into_iter().map(|figure| figure.to_string());
            each.rows.push(core::iter::once(count.to_owned()).chain(figures).collect());
            continue;
        }
        let Some((ms, more)) = right.split_once(" ms") else { continue };
        let Ok(took) = ms.trim().parse::<f64>() else { continue };
        let more = more.split_whitespace().collect::<Vec<_>>().join(" ");
        let call = if more.ends_with("policy") || more.ends_with("one") {
            format!("{call} {more}")
        } else {
            call.to_owned()
        };
        if took > 0.0 {
            match lines.iter_mut().find(|(name, _)| *name == call) {
                Some((_, points)) => points.push((shards, took)),
                None => lines.push((call.clone(), vec![(shards, took)])),
            }
        }
        calls.rows.push(vec![call, count.to_owned(), ms.trim().to_owned(), more]);
    }
    for (call, points) in &lines {
        // Below half a millisecond the last digit would decide.
        let mut clear = points.iter().filter(|(_, took)| *took >= 0.5);
        if let (Some((few, least)), Some((many, most))) = (clear.next(), clear.next_back()) {
            measured.ratio(
                format!("{call}: time a shard at {many} against {few}"),
                (most / many) / (least / few),
            );
        }
    }
    if !lines.is_empty() {
        calls.plot = Some(Plot::Lines { x: "shards".to_owned(), y: "ms".to_owned(), lines });
    }
    measured.tables.extend([calls, each].into_iter().filter(|table| !table.rows.is_empty()));
    measured
}

/// `--example fragmentation -- peers` of vram-alloc.
pub(crate) fn placement(text: &str) -> Measured {
    let mut measured = Measured::default();
    let mut table = Table::new(
        "Placement: refused pieces at 85 / 90 / 95 % occupancy, and time",
        &["trace", "allocator", "refused, %", "ns a pair"],
    );
    let mut bars = Vec::new();
    let mut arena = f64::NAN;
    for line in text.lines().filter(|line| line.contains(" / ")) {
        let chars: Vec<char> = line.chars().collect();
        let column = |range: core::ops::Range<usize>| {
            chars.get(range).map(|part| part.iter().collect::<String>().trim().to_owned())
        };
        let (Some(trace), Some(allocator), Some(rest)) =
            (column(0..25), column(26..66), column(66..chars.len()))
        else {
            continue;
        };
        let Some((refused, nanos)) = rest.rsplit_once(' ') else { continue };
        let Ok(took) = nanos.parse::<f64>() else { continue };
        if allocator == "arena" {
            arena = took;
        } else {
            measured.ratio(format!("{trace}: speed beside {allocator}"), took / arena);
        }
        bars.push((format!("{trace}, {allocator}"), took));
        table.rows.push(vec![trace, allocator, refused.trim().to_owned(), nanos.to_owned()]);
    }
    if !bars.is_empty() {
        table.plot = Some(Plot::Bars { unit: "ns a pair, less is better".to_owned(), bars });
        measured.tables.push(table);
    }
    measured
}

/// `tests/peers`: fields separated by tabs.
pub(crate) fn peers(text: &str) -> Measured {
    let mut measured = Measured::default();
    for (kind, title) in [
        ("memory", "Peers, from buffer to buffer"),
        ("in place", "Peers, in place"),
        ("file", "Peers, from file to file"),
    ] {
        let columns = ["peer", "threads", "seal, GB/s", "open, GB/s", "promises", "lacks"];
        let mut table = Table::new(title, &columns);
        let mut bars = Vec::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [of, name, threads, seal, open, promises, lacks] = fields[..] else { continue };
            if of != kind {
                continue;
            }
            table
                .rows
                .push([name, threads, seal, open, promises, lacks].map(str::to_owned).to_vec());
            let one = if threads == "1" { "one thread" } else { "all threads" };
            if let Ok(rate) = seal.parse::<f64>() {
                bars.push((format!("{name}, {one}"), rate));
            }
        }
        // Ours with AES on one thread, which is what a caller gets who chooses nothing.
        let ours =
            table.rows.iter().find(|row| row.first().is_some_and(|name| name.starts_with("vram")));
        let rate =
            |row: &[String], at: usize| row.get(at).and_then(|cell| cell.parse::<f64>().ok());
        let ours = ours.map(|row| (rate(row, 2), rate(row, 3)));
        for row in &table.rows {
            let Some(name) = row.first().filter(|name| !name.starts_with("vram")) else { continue };
            for (call, at, ours) in [
                ("seal", 2, ours.and_then(|ours| ours.0)),
                ("open", 3, ours.and_then(|ours| ours.1)),
            ] {
                if let (Some(ours), Some(theirs)) = (ours, rate(row, at)) {
                    measured
                        .ratio(format!("{kind}: {call}, one thread, beside {name}"), ours / theirs);
                }
            }
        }
        if !table.rows.is_empty() {
            table.plot = Some(Plot::Bars { unit: "sealing, GB/s".to_owned(), bars });
            measured.tables.push(table);
        }
    }
    measured
}

fn push(measured: &mut Measured, row: Vec<String>) {
    if let Some(table) = measured.tables.last_mut() {
        table.rows.push(row);
    }
}

/// Bars of one column of each table, where it has a number.
fn bars_of_last(measured: &mut Measured, column: usize, unit: &str) {
    for table in &mut measured.tables {
        let bar = |row: &Vec<String>| Some((row.first()?.clone(), row.get(column)?.parse().ok()?));
        let bars: Vec<(String, f64)> = table.rows.iter().filter_map(bar).collect();
        if !bars.is_empty() {
            table.plot = Some(Plot::Bars { unit: unit.to_owned(), bars });
        }
    }
}

fn bars_of_ratios(measured: &mut Measured, unit: &str) {
    let bars = measured.ratios.iter().map(|ratio| (ratio.name.clone(), ratio.value)).collect();
    if let Some(table) = measured.tables.last_mut() {
        table.plot = Some(Plot::Bars { unit: unit.to_owned(), bars });
    }
}

/// All numbers in a text, in their order.
fn numbers(text: &str) -> Vec<f64> {
    let parts = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    parts.filter_map(|part| part.trim_matches('.').parse().ok()).collect()
}

/// The lines that are so many numbers and nothing else.
fn rows_of_numbers(text: &str, count: usize) -> Vec<Vec<f64>> {
    let row = |line: &str| -> Option<Vec<f64>> {
        line.split_whitespace().map(|cell| cell.parse().ok()).collect()
    };
    text.lines().filter_map(row).filter(|row| row.len() == count).collect()
}
