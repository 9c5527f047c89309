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

    /// The part of one of `count` GPUs, by the cost of what lies on it and on all of them. While
    /// nothing lies on it, an equal part is planned for what may come.
    pub(crate) fn among(own: u64, all: u64, count: usize) -> Self {
        let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
        match (own, all) {
            (0, 0) => Self { own: 1, all: count },
            (0, _) => Self { own: all.checked_div(count).unwrap_or(0), all },
            _ => Self { own, all },
        }
    }

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
    fn a_rate_is_divided_by_what_is_resident_and_nobody_stands_still() {
        let parts = |rate, loads: [u64; 3]| {
            let all = loads.iter().sum();
            loads.map(|own| Part::among(own, all, 3).of(rate))
        };
        assert_eq!(parts(1000, [1, 1, 2]), [250, 250, 500]);
        assert_eq!(parts(1000, [1, 0, u64::MAX >> 1]), [1, 333, 999]);
        assert_eq!(parts(900, [0, 0, 9]), [300, 300, 900], "nothing lies there, but may come");
        assert_eq!(parts(900, [0, 0, 0]), [300; 3]);
        assert_eq!(parts(u64::MAX, [u64::MAX, 0, 0])[0], u64::MAX);
        assert_eq!(Part::among(0, 5, 0).of(10), 10);
        assert_eq!(Part::WHOLE.of(u64::MAX), u64::MAX);
    }
}
