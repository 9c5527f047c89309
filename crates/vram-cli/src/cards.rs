//! What NVIDIA's management library says of the cards that a command uses.

use core::time::Duration;
use std::time::Instant;

use vram_residency::DeviceUuid;
use vram_residency::nvml::{Answer, Monitor, MonitorOptions};

/// How long a list waits for the library: a driver that has no program may take seconds to start.
const LIST_WAIT: Duration = Duration::from_secs(5);
/// How long an error waits for it.
const ERROR_WAIT: Duration = Duration::from_secs(2);

/// What is known of each card, in order. Waits for all of them together for at most five seconds.
pub(crate) fn answers(cards: &[DeviceUuid]) -> Vec<Answer> {
    ask(cards, LIST_WAIT)
}

fn ask(cards: &[DeviceUuid], most: Duration) -> Vec<Answer> {
    let monitor = Monitor::start(MonitorOptions::new(cards.iter().copied()));
    let began = Instant::now();
    let left = || most.saturating_sub(began.elapsed());
    cards.iter().map(|&card| monitor.card(card, left())).collect()
}

/// Who else holds memory of each of these cards, in words, where that is known.
pub(crate) fn others(cards: &[DeviceUuid]) -> Vec<Option<String>> {
    let answers = ask(cards, ERROR_WAIT);
    answers.iter().map(|answer| answer.health()?.others_in_words()).collect()
}

/// What is wrong with a card that failed, in words.
pub(crate) fn trouble(card: DeviceUuid) -> Option<String> {
    let monitor = Monitor::start(MonitorOptions::new([card]));
    let answer = monitor.card(card, ERROR_WAIT);
    monitor.loss_in_words(card, &answer)
}
