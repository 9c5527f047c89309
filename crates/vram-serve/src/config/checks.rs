//! Whether the parts of a configuration fit together.

use super::{Config, LimitsConfig, ScrubConfig};

impl Config {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.devices.is_empty() {
            return Err("no [[device]]: name at least one, such as device = \"host:8GiB\"".into());
        }
        for (at, model) in self.models.iter().enumerate() {
            model.check(self.devices.len())?;
            if self.models.iter().take(at).any(|earlier| earlier.name == model.name) {
                return Err(format!("two [[model]] are named {:?}", model.name));
            }
        }
        let sources = [&self.key.env, &self.key.credential];
        let named = sources.into_iter().flatten().count();
        if named.saturating_add(usize::from(self.key.file.is_some())) > 1 {
            return Err("[key] names more than one of file, env and credential".into());
        }
        if self.key.group_readable && self.key.file.is_none() {
            return Err("[key] group_readable is said of a file, and there is none".into());
        }
        let stored = self.models.iter().find(|model| model.store.is_some());
        match stored {
            Some(model) if self.key.is_random() => {
                return Err(format!(
                    "[[model]] {:?} is in a store, which needs [key]: the key that its images were \
                     sealed with",
                    model.name
                ));
            }
            None if self.cache.is_some() => {
                return Err("[cache] keeps images of stores, and no [[model]] has a store".into());
            }
            _ => {}
        }
        if let Some(scrub) = &self.scrub {
            scrub.check()?;
        }
        if self.tls.is_none()
            && let Some(open) = self.listen.iter().find(|listen| !listen.is_local())
        {
            return Err(format!(
                "listen on {open} is more than loopback, which needs [tls] with certificate and key"
            ));
        }
        for (at, listen) in self.listen.iter().enumerate() {
            if let Some(earlier) = self.listen.iter().take(at).find(|other| other.takes(listen)) {
                return Err(if earlier == listen {
                    format!("listen names {listen} twice")
                } else {
                    format!(
                        "listen names {earlier} and {listen}, of which one takes the other's port"
                    )
                });
            }
        }
        self.limits.check()
    }
}

impl ScrubConfig {
    fn check(&self) -> Result<(), String> {
        if self.within.is_some() == self.bytes_per_second.is_some() {
            return Err("[scrub] needs either within or bytes_per_second".into());
        }
        let nothing = |zero: bool| zero.then_some("[scrub] would never finish a pass".to_owned());
        let within = self.within.and_then(|within| nothing(within.is_zero()));
        let rate = self.bytes_per_second.and_then(|rate| nothing(rate.is_zero()));
        within.or(rate).map_or(Ok(()), Err)
    }
}

impl LimitsConfig {
    fn check(&self) -> Result<(), String> {
        /// The most that any of the counts can be.
        const MOST: usize = 1_000_000;

        for (name, value) in [
            ("connections", self.connections),
            ("event_readers", self.event_readers),
            ("leases", self.leases),
            ("events_kept", self.events_kept),
            ("calls", self.calls),
        ] {
            if value == 0 || value > MOST {
                return Err(format!("[limits] {name} is from 1 to {MOST}, not {value}"));
            }
        }
        if self.calls_waiting > MOST {
            return Err(format!("[limits] calls_waiting is at most {MOST}"));
        }
        for (name, value) in
            [("call_deadline", self.call_deadline), ("receive", self.receive), ("send", self.send)]
        {
            if value.is_zero() {
                return Err(format!("[limits] {name} is more than no time"));
            }
        }
        Ok(())
    }
}
