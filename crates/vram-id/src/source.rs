//! Sources of ids: the generator of the process, or one that is repeatable from a seed.

use ulid::Ulid;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::rising::Rising;
use crate::shard_id::ShardId;
use crate::split_mix::SplitMix;
use crate::sync::{Mutex, lock};

/// A source of ids.
#[derive(Debug)]
#[non_exhaustive]
pub enum IdSource {
    /// The generator of the process, on the system clock: ids of all its users are distinct.
    Process,
    /// A separate generator, for runs that are repeatable from a seed: see
    /// [`seeded`](Self::seeded).
    Seeded(Seeded),
}

/// A generator of ids that is repeatable from its seed.
#[derive(Debug)]
pub struct Seeded {
    rising: Mutex<Rising>,
    entropy: Mutex<SplitMix>,
}

impl IdSource {
    /// A separate generator. Two with the same seed and the same clock create the same ids.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self::Seeded(Seeded {
            rising: Mutex::new(Rising::new()),
            entropy: Mutex::new(SplitMix::new(seed)),
        })
    }

    /// The next id. Only a seeded source reads `clock`.
    pub fn next(&self, clock: &dyn Clock) -> ShardId {
        ShardId::from_ulid(self.draw(clock, Rising::next))
    }

    /// The next `count` ids, in ascending order. Time and randomness are asked for once: of ids of one
    /// moment each is the one before plus one, however they are drawn.
    pub fn next_many(&self, clock: &dyn Clock, count: usize) -> Vec<ShardId> {
        let mut ulids = Vec::with_capacity(count);
        if count > 0 {
            self.draw(clock, |rising, now, fresh| {
                ulids.push(rising.next(now, fresh));
                ulids.extend((1..count).map(|_| rising.next(now, 0)));
            });
        }
        ulids.into_iter().map(ShardId::from_ulid).collect()
    }

    /// Lets `draw` take ids of a moment, under the lock of the generator.
    fn draw<T>(
        &self,
        clock: &dyn Clock,
        draw: impl FnOnce(&mut Rising, Timestamp, u128) -> T,
    ) -> T {
        static PROCESS: Mutex<Rising> = Mutex::new(Rising::new());

        match self {
            Self::Process => {
                // Both are called before the lock is taken: they are foreign code.
                let (now, fresh) = (SystemClock.now(), Ulid::generate().random());
                draw(&mut lock(&PROCESS), now, fresh)
            }
            Self::Seeded(Seeded { rising, entropy }) => {
                let now = clock.now();
                let fresh = lock(entropy).next_u128();
                draw(&mut lock(rising), now, fresh)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stuck(u64);

    impl Clock for Stuck {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_millis(self.0)
        }

        fn monotonic(&self) -> core::time::Duration {
            core::time::Duration::ZERO
        }
    }

    #[test]
    fn the_same_seed_and_clock_give_the_same_ids() {
        let ids = |seed| -> Vec<_> {
            let source = IdSource::seeded(seed);
            (0..50).map(|_| source.next(&Stuck(1_000_000))).collect()
        };
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
    }

    #[test]
    fn ids_of_many_threads_are_unique_and_each_thread_sees_them_rise() {
        let all: Vec<Vec<ShardId>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..2000).map(|_| IdSource::Process.next(&SystemClock)).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for ids in &all {
            assert!(ids.is_sorted_by(|a, b| a < b));
        }
        let distinct: std::collections::HashSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 8000);
    }

    /// Many at once are distinct from all others, rise with them, and repeat from a seed.
    #[test]
    fn many_ids_at_once_rise_among_the_others() {
        for source in [IdSource::Process, IdSource::seeded(7)] {
            let mut ids = vec![source.next(&Stuck(1_000_000))];
            for count in [0, 1, 2, 1000, 3] {
                let more = source.next_many(&Stuck(1_000_000), count);
                assert_eq!(more.len(), count);
                ids.extend(more);
                ids.push(source.next(&Stuck(1_000_000)));
            }
            assert!(ids.is_sorted_by(|one, next| one < next));
        }
        let many = |seed| IdSource::seeded(seed).next_many(&Stuck(9), 50);
        assert!(many(7) == many(7) && many(7) != many(8));
    }

    #[test]
    fn an_id_reads_back_and_nothing_else_is_one() {
        use crate::shard_id::ParseShardIdError;

        let id = IdSource::Process.next(&SystemClock);
        assert!(id.starts_with("orch-shard-") && id.len() == 37);
        assert_eq!(id.parse::<ShardId>(), Ok(id.clone()));
        for bad in ["", "orch-shard-", &id.to_lowercase(), &id[1..], &format!("{id} ")] {
            assert_eq!(bad.parse::<ShardId>(), Err(ParseShardIdError), "{bad}");
        }
        let last_digit_ambiguous = format!("{}O", &id[..36]);
        assert_eq!(last_digit_ambiguous.parse::<ShardId>(), Err(ParseShardIdError));
    }
}
