//! What differs from run to run of the same command, replaced by signs that do not.

/// How much of an output differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Volatile {
    /// Times, rates, dates, and what follows from a random key.
    Usual,
    /// Every number, with its unit of bytes: how far it came in its time.
    Numbers,
}

/// One line, masked. `kept` is a digest of content, which is the same in every run.
pub(super) fn masked(line: &str, volatile: Volatile, kept: &str) -> String {
    // Bytes as the device holds them: encrypted under a random key.
    let ciphertext = line.trim_start().starts_with("bytes in device memory:");
    let words: Vec<&str> = line.split(' ').collect();
    let mut shown = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let next = words.get(place.saturating_add(1)).copied().unwrap_or_default();
        shown.push(match volatile {
            Volatile::Numbers => number(word),
            Volatile::Usual if ciphertext && is_hex(word) => "xx".to_owned(),
            Volatile::Usual => usual(word, next, kept),
        });
    }
    shown.join(" ")
}

fn usual(word: &str, next: &str, kept: &str) -> String {
    let core = word.trim_matches(|c: char| ",;:.()".contains(c));
    let digits_hidden = || hidden(core, |c| c.is_ascii_digit(), '#');
    let new = if core == kept {
        return word.to_owned();
    } else if core.len() >= 32 && is_hex(core) {
        hidden(core, |_| true, 'x')
    } else if let Some(id) = core.strip_prefix("orch-shard-") {
        format!("orch-shard-{}", hidden(id, |_| true, 'x'))
    } else if is_time(core) {
        digits_hidden()
    } else if decimals(core) >= 2
        || (is_number(core) && next.trim_end_matches([',', '.']) == "s")
        || core.strip_prefix("ms=").is_some_and(is_number)
    {
        runs_hidden(core)
    } else {
        return word.to_owned();
    };
    word.replacen(core, &new, 1)
}

/// In place of each number one sign, and one word for every unit of bytes.
fn number(word: &str) -> String {
    let core = word.trim_matches(|c: char| ",;".contains(c));
    if ["B", "KiB", "MiB", "GiB", "TiB"].contains(&core) {
        return word.replacen(core, "bytes", 1);
    }
    // The name of a device, or a value to be typed, is no figure.
    let is_name = word.contains(|c: char| c.is_ascii_alphabetic());
    if is_name { word.to_owned() } else { runs_hidden(&word.replace('.', "")) }
}

/// Each run of digits before a point is one sign; those behind it keep their number.
fn runs_hidden(text: &str) -> String {
    let mut shown = String::new();
    let (mut within, mut behind) = (false, false);
    for c in text.chars() {
        let digit = c.is_ascii_digit();
        if !digit || !within || behind {
            shown.push(if digit { '#' } else { c });
        }
        behind = if digit { behind } else { c == '.' };
        within = digit;
    }
    shown
}

fn hidden(text: &str, hides: impl Fn(char) -> bool, sign: char) -> String {
    text.chars().map(|c| if hides(c) { sign } else { c }).collect()
}

/// Whether it is a digest of 32 bytes.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit())
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// The digits behind the point of a number.
fn decimals(text: &str) -> usize {
    match text.split_once('.') {
        Some((_, behind)) if is_number(text) && !behind.contains('.') => behind.len(),
        _ => 0,
    }
}

/// Whether it is a time as RFC 3339 writes it.
fn is_time(text: &str) -> bool {
    text.ends_with('Z') && text.contains('T') && text.starts_with("20") && text.contains('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_hidden_and_nothing_else() {
        let kept = "ab".repeat(32);
        let key = "c1".repeat(16);
        let x = "x".repeat(32);
        for (line, shown) in [
            (
                "sealed at 0.21 GB/s, verified at 12.87 GB/s",
                "sealed at #.## GB/s, verified at #.## GB/s",
            ),
            ("  seal        0.43    0.010", "  seal        #.##    #.###"),
            ("All of that took 0.1 s. Now", "All of that took #.# s. Now"),
            ("resident  2 s ago", "resident  # s ago"),
            ("used 6.0 MiB, free 0 B, 309 shards", "used 6.0 MiB, free 0 B, 309 shards"),
            ("outcome=\"ok\" ms=6", "outcome=\"ok\" ms=#"),
            ("at 2026-11-27T14:59:36Z", "at ####-##-##T##:##:##Z"),
            ("read: orch-shard-01M8ER: is", "read: orch-shard-xxxxxx: is"),
            ("  bytes in device memory:  85 eb 4f", "  bytes in device memory:  xx xx xx"),
            ("  weights in the file:     e8 be eb", "  weights in the file:     e8 be eb"),
        ] {
            assert_eq!(masked(line, Volatile::Usual, &kept), shown);
        }
        let line = format!("key {key}, digest {kept}");
        assert_eq!(masked(&line, Volatile::Usual, &kept), format!("key {x}, digest {kept}"));
    }

    #[test]
    fn every_number_can_be_hidden() {
        let line = "  fill   573   99.7 MiB  0.18 of (GPU-686f-1) after 0:00:02, --for 12h, 9 -";
        let shown = "  fill   #   # bytes  # of (GPU-686f-1) after #:#:#, --for 12h, # -";
        assert_eq!(masked(line, Volatile::Numbers, ""), shown);
    }
}
