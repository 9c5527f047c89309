//! Whether the parts of a configuration fit together.

use vram_residency::model::Limits;

use super::{Config, LimitsConfig, Listen, ScrubConfig};

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
        if self.tls.is_some() && self.listen().iter().all(Listen::is_local) {
            return Err(
                "[tls] is for addresses beyond loopback, and listen names none: name one, such \
                        as listen = [\"0.0.0.0:8726\"], or leave [tls] out"
                    .into(),
            );
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
        /// The most calls that run at the same time: each has a thread, and uses all processors.
        const CALLS_MOST: usize = 256;

        let Limits {
            tensor_count_max,
            name_len_max,
            rank_max,
            metadata_count_max,
            file_count_max,
            ..
        } = Limits::MOST;
        for (name, value, most) in [
            ("connections", self.connections, MOST),
            ("event_readers", self.event_readers, MOST),
            ("leases", self.leases, MOST),
            ("events_kept", self.events_kept, MOST),
            ("calls", self.calls, CALLS_MOST),
            ("tensors", self.tensors, tensor_count_max),
            ("name", self.name, name_len_max),
            ("rank", self.rank, rank_max),
            ("keys", self.keys, metadata_count_max),
            ("files", self.files, file_count_max),
        ] {
            if value == 0 || value > most {
                return Err(format!("[limits] {name} is from 1 to {most}, not {value}"));
            }
        }
        if self.header.is_zero() || self.header > Limits::MOST.header_len_max {
            let most = Limits::MOST.header_len_max;
            return Err(format!("[limits] header is from 1 byte to {most}, not {}", self.header));
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
