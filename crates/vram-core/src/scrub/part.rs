//! How a rate for all GPUs is divided among their threads.

/// The part of a rate for all GPUs that falls to one of them: `own` of `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) own: u64,
    pub(crate) all: u64,
}

impl Part {
    #[cfg(test)]
    pub(crate) const WHOLE: Self = Self { own: 1, all: 1 };

    /// This part of a rate: never 0, so that no thread stands still.
    pub(crate) fn of(self, rate: u64) -> u64 {
        let wide = u128::from(rate).saturating_mul(u128::from(self.own));
        let part = wide.checked_div(u128::from(self.all)).unwrap_or(u128::from(rate));
        u64::try_from(part).unwrap_or(u64::MAX).min(rate).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_rate_are_no_more_than_the_rate_together_and_none_stands_still() {
        let parts = |rate, loads: [u64; 3]| {
            let all = loads.iter().sum();
            loads.map(|own| Part { own, all }.of(rate))
        };
        assert_eq!(parts(1000, [1, 1, 2]), [250, 250, 500]);
        assert_eq!(parts(1000, [0, 0, 7]), [1, 1, 1000]);
        assert_eq!(parts(u64::MAX, [u64::MAX, 0, 0]), [u64::MAX, 1, 1]);
        assert_eq!(parts(1000, [0, 0, 0]), [1000; 3], "nothing is known yet");
        assert_eq!(Part::WHOLE.of(u64::MAX), u64::MAX);
    }
}
