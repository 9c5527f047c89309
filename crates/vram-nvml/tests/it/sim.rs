//! A simulated library in a folder of its own, and what it answers.

use std::fs;
use std::path::PathBuf;

use core::time::Duration;
use tempfile::TempDir;
use vram_alloc::DeviceUuid;
use vram_nvml::{Answer, CardHealth, Monitor, MonitorOptions};

/// Long enough for any answer that comes.
pub(crate) const LONG: Duration = Duration::from_mins(1);

/// The UUID of the card of these tests.
pub(crate) fn uuid(number: u8) -> DeviceUuid {
    DeviceUuid::new([number; 16])
}

/// A copy of the simulated library. Removed when the test ends; what was loaded stays.
pub(crate) struct Sim {
    folder: TempDir,
}

impl Sim {
    /// A library that answers this.
    pub(crate) fn new(text: &str) -> Self {
        let sim = Self { folder: tempfile::tempdir().unwrap() };
        let own = std::env::current_exe().unwrap();
        let mut places = own.ancestors().map(|folder| folder.join("libnvml_sim_so.so"));
        fs::copy(places.find(|path| path.is_file()).unwrap(), sim.library()).unwrap();
        sim.say(text);
        sim
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    /// From now on it answers this. The file is replaced whole: the library may read it now.
    pub(crate) fn say(&self, text: &str) {
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.folder.path().join("libnvidia-ml.so.1.txt")).unwrap();
    }

    pub(crate) fn options(&self, cards: &[DeviceUuid]) -> MonitorOptions {
        let every = Duration::from_millis(100);
        MonitorOptions::new(cards.iter().copied()).library(self.library()).every(every)
    }

    pub(crate) fn monitor(&self) -> Monitor {
        Monitor::start(self.options(&[uuid(1)]))
    }
}

/// What is said of card 1.
pub(crate) fn health(text: &str) -> CardHealth {
    let sim = Sim::new(text);
    match sim.monitor().card(uuid(1), LONG) {
        Answer::Told(reading) => reading.health,
        other => panic!("{text}: {other:?}"),
    }
}

/// Tries until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
