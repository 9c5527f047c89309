//! The arguments of the commands for operators: view, soak, bench, completions, man.

use core::time::Duration;
use std::path::PathBuf;

use clap::{Args, value_parser};
use clap_complete::Shell;
use vram_residency::ByteLen;
use vram_residency::device::DeviceSpec;

use super::choice;

/// `vram view`.
#[derive(Args, Debug)]
pub(crate) struct ViewArgs {
    /// The snapshot as JSON, as `vram serve` answers it at /snapshot and `vram demo --snapshot` writes it; `-` is
    /// standard input.
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshot: PathBuf,
    /// Where to write the page; `-` is standard output. An existing file is replaced, in one step.
    #[arg(short, long, value_name = "FILE", value_parser = choice::local())]
    pub(crate) output: PathBuf,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram soak`.
#[derive(Args, Debug)]
pub(crate) struct SoakArgs {
    /// A device to burn in, as for `vram load`; may be given several times: shards then also move between them
    /// [default: every CUDA device; in a build without CUDA, 256 MiB of host memory]
    #[arg(long = "device", value_name = "DEVICE")]
    pub(crate) devices: Vec<DeviceSpec>,
    /// For how long: 90s, 10m, 12h, 3d.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = time)]
    pub(crate) time: Duration,
    /// Use at most so much of each device [default: all of a host device, nine tenths of what is free on
    /// a card]
    #[arg(long, value_name = "SIZE")]
    pub(crate) size: Option<ByteLen>,
    /// The number that contents, sizes and places follow from, below 2^53; the same one repeats the same
    /// steps.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(..=SEED_MAX))]
    pub(crate) seed: Option<u64>,
    /// On host devices: flip a bit of device memory now and then, and expect that it is found.
    #[arg(long)]
    pub(crate) flip: bool,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// The device to measure, as for `vram load` [default: host memory]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceSpec>,
    /// Take a few seconds instead of about half a minute; the figures vary more.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Bytes that each figure is measured with.
    #[arg(long, value_name = "SIZE", hide = true)]
    pub(crate) size: Option<ByteLen>,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder for the pages, such as /usr/local/share/man/man1; it is made if there is none. Pages
    /// that are there are replaced.
    #[arg(long, value_name = "FOLDER", value_parser = choice::local())]
    pub(crate) out: PathBuf,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The highest seed: any reader of JSON keeps all of its digits.
pub(crate) const SEED_MAX: u64 = (1 << 53) - 1;

/// The longest time that a soak may be asked for.
const TIME_MAX: Duration = Duration::from_hours(24 * 365);

/// A number of seconds, minutes, hours or days, as in `90s` or `12h`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write for instance 90s, 10m, 12h or 3d");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_not_a_number| wrong())?;
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let time = number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wrong)?;
    if time.is_zero() || time > TIME_MAX {
        return Err(format!("`{text}` is not between 1s and 365d"));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, seconds) in
            [("1s", 1), ("10m", 600), ("10min", 600), ("12h", 43_200), ("3d", 259_200)]
        {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in
            ["", "10", "m", "0s", "1.5h", "-1m", "366d", "99999999999999999999d", "1h30m", "1µ"]
        {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert!(time(&format!("{}d", u64::MAX)).is_err());
    }
}
