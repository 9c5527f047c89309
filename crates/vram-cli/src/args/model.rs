//! How the headers of model files are read: what every command on them takes.

use core::str::FromStr;

use clap::Args;
use vram_model::{Limits, ModelOptions};
use vram_residency::ByteLen;

/// Bounds on the headers of model files.
#[derive(Args, Debug)]
pub(crate) struct LimitArgs {
    /// Accept larger headers of model files than by default: `header=SIZE` (100MB, at most 16GiB), `tensors=N`
    /// (262144), `name=BYTES` (1024), `rank=N` (64, at most 4096), `keys=N` of metadata (65536),
    /// `files=N` of one model (16384); may be given several times.
    #[arg(long = "limit", value_name = "WHAT=N")]
    pub(crate) limits: Vec<Limit>,
}

/// One bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Header(ByteLen),
    Tensors(usize),
    Name(usize),
    Rank(usize),
    Keys(usize),
    Files(usize),
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, value) = text.split_once('=').ok_or_else(|| {
            format!("`{text}` is no limit; write it as in header=200MB or name=4096")
        })?;
        let number = |most: usize| match value.parse::<usize>() {
            Ok(number) if number <= most => Ok(number),
            Ok(number) => Err(format!("a limit of {number} for `{what}` is more than {most}")),
            Err(_not_a_number) => Err(format!("`{value}` is no whole number")),
        };
        let most = Limits::MOST;
        Ok(match what {
            "header" => {
                let len: ByteLen = value.parse().map_err(|error| format!("{error}"))?;
                if len > most.header_len_max {
                    let most = most.header_len_max;
                    return Err(format!("a limit of {len} for `header` is more than {most}"));
                }
                Self::Header(len)
            }
            "tensors" => Self::Tensors(number(most.tensor_count_max)?),
            "name" => Self::Name(number(most.name_len_max)?),
            "rank" => Self::Rank(number(most.rank_max)?),
            "keys" => Self::Keys(number(most.metadata_count_max)?),
            "files" => Self::Files(number(most.file_count_max)?),
            other => {
                return Err(format!(
                    "there is no limit `{other}`; there are header, tensors, name, rank, keys, files"
                ));
            }
        })
    }
}

impl LimitArgs {
    /// The bounds, of which the last of each kind counts.
    pub(crate) fn options(&self) -> ModelOptions {
        let set = |limits: Limits, limit: &Limit| match *limit {
            Limit::Header(len) => limits.with_header_len_max(len),
            Limit::Tensors(count) => limits.with_tensor_count_max(count),
            Limit::Name(len) => limits.with_name_len_max(len),
            Limit::Rank(rank) => limits.with_rank_max(rank),
            Limit::Keys(count) => limits.with_metadata_count_max(count),
            Limit::Files(count) => limits.with_file_count_max(count),
        };
        ModelOptions::from(self.limits.iter().fold(Limits::default(), set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_name_and_a_number() {
        for (text, limit) in [
            ("header=1GB", Limit::Header(ByteLen::new(1_000_000_000))),
            ("tensors=5", Limit::Tensors(5)),
            ("name=4096", Limit::Name(4096)),
            ("rank=4096", Limit::Rank(4096)),
            ("keys=0", Limit::Keys(0)),
            ("files=1", Limit::Files(1)),
        ] {
            assert_eq!(text.parse(), Ok(limit));
        }
        for text in [
            "",
            "name",
            "name=",
            "name=-1",
            "name=x",
            "rank=4097",
            "header=8G",
            "size=1",
            "header=99EiB",
            "header=17GiB",
            "tensors=99999999",
            "name=99999",
        ] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
        let limits = ["name=1", "name=2"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(LimitArgs { limits }.options().limits.name_len_max, 2);
    }
}
