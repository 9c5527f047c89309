//! The guarantees to a user of this crate alone.

#[macro_use]
extern crate vram_testkit;

use std::collections::HashMap;

use vram_id::{Clock, IdSource, ParseShardIdError, ShardId, SystemClock, Timestamp};

#[test]
fn an_id_is_looked_up_by_its_text_and_compares_with_it() {
    let id = IdSource::Process.next(&SystemClock);
    let by_id = HashMap::from([(id.clone(), 1)]);
    assert_eq!(by_id.get(id.as_str()), Some(&1));
    let text = id.to_string();
    assert!(id == *id.as_str() && id == id.as_str() && id == text);
    assert_eq!(format!("{id:>40}").len(), 40, "it pads like text");
    assert_eq!(format!("{id:?}"), format!("{:?}", id.as_str()));
}

#[test]
fn an_id_of_now_tells_apart_what_is_made_later() {
    let before = SystemClock.now();
    let id = IdSource::Process.next(&SystemClock);
    // The ids of the moments before and after, in the same spelling.
    let at = |moment: Timestamp| IdSource::seeded(1).next(&Fixed(moment));
    assert!(before.unix_millis() > 1_600_000_000_000, "{before}");
    assert!(at(Timestamp::from_unix_millis(before.unix_millis() / 2)) < id);
    assert!(id < at(Timestamp::from_unix_millis(u64::MAX)));
}

#[derive(Debug)]
struct Fixed(Timestamp);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> core::time::Duration {
        core::time::Duration::ZERO
    }
}

#[test]
fn the_monotonic_clock_never_goes_back() {
    let mut last = SystemClock.monotonic();
    for _ in 0..1000 {
        let now = SystemClock.monotonic();
        assert!(now >= last);
        last = now;
    }
}

#[test]
fn a_text_that_is_no_id_says_what_one_is() {
    let error = "shard-1".parse::<ShardId>().unwrap_err();
    assert_eq!(error, ParseShardIdError);
    assert!(error.to_string().contains("orch-shard-"), "{error}");
}

#[cfg(feature = "serde")]
#[test]
fn ids_travel_as_text_and_timestamps_as_milliseconds() {
    let id: ShardId = "orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    let text = serde_json::to_string(&(&id, Timestamp::from_unix_millis(5))).unwrap();
    assert_eq!(text, r#"["orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV",5]"#);
    assert_eq!(serde_json::from_str::<(ShardId, Timestamp)>(&text).unwrap().0, id);
    assert!(serde_json::from_str::<ShardId>("\"orch-shard-01arz3ndektsv4rrffq69g5fav\"").is_err());
}
