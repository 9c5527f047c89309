//! The one form of a time in a manifest: `2026-11-26T11:40:00Z`.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time as a manifest has it. A time before 1970 is 1970, and one after 9999 is 9999.
#[must_use]
pub fn created_at(time: SystemTime) -> String {
    /// The last second of the year 9999.
    const LAST: u64 = 253_402_300_799;

    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(LAST);
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970_u64;
    while days >= days_of(year) {
        days = days.saturating_sub(days_of(year));
        year = year.saturating_add(1);
    }
    let mut month = 1_u64;
    for len in months(year) {
        if days < len {
            break;
        }
        days = days.saturating_sub(len);
        month = month.saturating_add(1);
    }
    let day = days.saturating_add(1);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

const fn days_of(year: u64) -> u64 {
    let leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    if leap { 366 } else { 365 }
}

/// Bytes of such a text.
pub(super) const TIME_LEN: usize = 20;

/// Whether a text has that form, and is a day of a month and a time of a day.
pub(super) fn is_time(text: &str) -> bool {
    let form = "dddd-dd-ddTdd:dd:ddZ";
    let fits = |(found, wanted): (u8, u8)| match wanted {
        b'd' => found.is_ascii_digit(),
        other => found == other,
    };
    let number = |at: core::ops::Range<usize>| text.get(at)?.parse::<u64>().ok();
    let is_day = || {
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let of = month.checked_sub(1).and_then(|month| usize::try_from(month).ok())?;
        Some((1..=*months(year).get(of)?).contains(&day))
    };
    let below = |at, end: u64| number(at).is_some_and(|found| found < end);
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(fits)
        && is_day() == Some(true)
        && below(11..13, 24)
        && below(14..16, 60)
        && below(17..19, 60)
}

/// Days of the months of a year.
const fn months(year: u64) -> [u64; 12] {
    let february = if days_of(year) == 366 { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn no_other_text_is_a_time() {
        for wrong in [
            "9999-99-99T99:99:99Z",
            "2026-00-10T00:00:00Z",
            "2026-13-10T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-04-00T00:00:00Z",
            "2026-04-01T24:00:00Z",
            "2026-04-01T00:60:00Z",
            "2026-04-01T00:00:60Z",
            "2026-04-01T00:00:00z",
            "2026-04-01 00:00:00Z",
            "2026-4-01T00:00:000Z",
            "",
        ] {
            assert!(!is_time(wrong), "{wrong}");
        }
    }

    #[test]
    fn times_are_written_as_others_write_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_779_600, "2026-11-27T11:40:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_800, "9999-12-31T23:59:59Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(created_at(time), text);
            assert!(is_time(text));
        }
        assert_eq!(created_at(UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00Z");
    }
}
