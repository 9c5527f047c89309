//! Loads of models from files and stores, as the configuration or a call names them.

use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use serde::Deserialize;
use vram_residency::model::{Limits, ModelOptions, ModelSet};
use vram_residency::{AdmitRequest, GpuChoice, ModelFiles, ModelFilesError, ModelHandle};

use super::Engine;
use super::slot::{Slot, State, Turn};
use crate::config::{ModelConfig, ProtectionConfig};
use crate::feed::Own;
use crate::lane::Awaited;
use crate::problem::Problem;

/// What a load asks for. A configured model needs none of it: what it says holds for this load alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LoadRequest {
    pub(crate) path: Option<PathBuf>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) gpu: Option<u32>,
    pub(crate) pin: Option<bool>,
    pub(crate) priority: Option<u32>,
    pub(crate) protection: Option<ProtectionConfig>,
}

/// What a load begins with, before its request changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// The configuration, for a model that it names.
    Configured,
    /// What was loaded last.
    Last,
}

impl Engine {
    /// Makes a model resident. A failure is kept for listings, and told as an event.
    pub(crate) fn load(&self, name: &str, request: &LoadRequest) -> Result<(), Problem> {
        self.load_for(name, request, &Awaited::default())
    }

    /// As [`load`](Self::load), of a configured model when the server starts: a reset of its device ends by
    /// itself, and is waited for.
    pub(crate) fn load_at_start(&self, name: &str) -> Result<(), Problem> {
        const PATIENCE: Duration = Duration::from_mins(1);

        let began = Instant::now();
        loop {
            let loaded = self.load(name, &LoadRequest::default());
            let reset = |problem: &Problem| {
                matches!(&*problem.code, "gpu-in-use" | "reset-meanwhile")
                    && began.elapsed() < PATIENCE
                    && !self.is_draining()
            };
            if !loaded.as_ref().is_err_and(reset) {
                return loaded;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// As [`load`](Self::load), of what was loaded last, also where a call had named it.
    pub(super) fn load_again_as(&self, name: &str, request: &LoadRequest) -> Result<(), Problem> {
        self.load_as(name, request, Base::Last, &Awaited::default())
    }

    /// As [`load`](Self::load), for a caller that may give up: what was loaded for it is freed then.
    pub(crate) fn load_for(
        &self,
        name: &str,
        request: &LoadRequest,
        awaited: &Awaited,
    ) -> Result<(), Problem> {
        self.load_as(name, request, Base::Configured, awaited)
    }

    fn load_as(
        &self,
        name: &str,
        request: &LoadRequest,
        base: Base,
        awaited: &Awaited,
    ) -> Result<(), Problem> {
        self.check_open()?;
        let config = self.config_for(name, request, base)?;
        let turn = self.turn(name, "loading")?;
        if !matches!(turn.before(), State::Absent) {
            return Err(super::slot::not_absent(name, turn.before()));
        }
        turn.loads(&config);
        // What is shown while it loads is not of the load before.
        turn.came_from(None);
        let loaded = match config.stored() {
            Some(stored) => self
                .load_stored(&config, &stored, &turn)
                .map(|(model, origin)| (model, Some(origin))),
            None => self.load_files(&config, &turn).map(|model| (model, None)),
        };
        let loaded = loaded.and_then(|(model, origin)| {
            if awaited.end() {
                return Ok((model, origin));
            }
            // Nobody uses it yet, so this is refused only where it was evicted meanwhile.
            match self.manager.free_model(&model) {
                Ok(_receipts) => Err(given_up(name)),
                Err(_evicted) => Ok((model, origin)),
            }
        });
        // What it parked to make room is said now, and not when somebody asks.
        self.collect_evicted();
        match loaded {
            Ok((model, origin)) => {
                turn.note(None);
                turn.came_from(origin);
                turn.end_resident(model)
            }
            Err(problem) => {
                let (code, message) = (&*problem.code, &*problem.message);
                self.feed.tell(&Own::LoadFailed { model: name, code, message });
                turn.note(Some(problem.clone()));
                turn.end(State::Absent);
                self.forget_failed();
                Err(problem)
            }
        }
    }

    fn load_files(&self, config: &ModelConfig, turn: &Turn<'_>) -> Result<ModelHandle, Problem> {
        let files = files_of(config, self.limits)?;
        let gpus = config.gpu.map_or(GpuChoice::MostRoomFirst, GpuChoice::One);
        let progress = Arc::clone(&turn.progress);
        let admit = AdmitRequest::new(&config.name, gpus)
            .protection(config.protection.into())
            .priority(config.priority)
            .pinned(config.pin)
            .progress(move |at| progress.set(at.done, at.total))
            .cancel(turn.cancel.clone());
        self.manager.admit(admit, files.plan(), &files).map_err(|error| self.told(&error))
    }

    /// The configuration of a model that is to be loaded. A name that is not known yet gets a slot.
    fn config_for(
        &self,
        name: &str,
        request: &LoadRequest,
        base: Base,
    ) -> Result<ModelConfig, Problem> {
        let mut slots = self.slots();
        let LoadRequest { path, files, gpu, pin, priority, protection } = request.clone();
        let named = path.is_some() || !files.is_empty();
        if let Some(file) = path.iter().chain(&files).find(|file| !file.is_absolute()) {
            let message = format!("the path {} is not absolute", file.display());
            return Err(Problem::bad_request(message));
        }
        let known = slots.get(name);
        let mut config = match known {
            // What a call named is loaded for that call, and never stands in the way of the
            // configuration.
            Some(slot) => match (&slot.configured, base) {
                (Some(configured), Base::Configured) => configured.clone(),
                _ => slot.config.clone(),
            },
            None if named => ModelConfig { name: name.to_owned(), ..ModelConfig::default() },
            None => return Err(Problem::no_such_model(name)),
        };
        if named {
            config.take_files(path, files);
        }
        config.gpu = gpu.or(config.gpu);
        config.pin = pin.unwrap_or(config.pin);
        config.priority = priority.unwrap_or(config.priority);
        config.protection = protection.unwrap_or(config.protection);
        let devices = usize::try_from(self.manager.gpu_count()).unwrap_or(usize::MAX);
        config.check(devices).map_err(|why| {
            let message = why.trim_start_matches("[[model]] ").to_owned();
            let next = "name the model, its device and its files as the configuration would";
            Problem::new(StatusCode::BAD_REQUEST, "bad-request", message, next)
        })?;
        if !slots.contains_key(name) {
            if slots.len() >= MODELS_MAX {
                return Err(Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "limit-exceeded",
                    format!("{MODELS_MAX} models are known"),
                    "free some first",
                ));
            }
            slots.insert(name.to_owned(), Slot::asked_for(config.clone()));
        }
        Ok(config)
    }
}

fn given_up(name: &str) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "cancelled",
        format!("model {name:?} was loaded when its deadline had passed, and was freed again"),
        "load it again, with a longer deadline",
    )
    .retry_in(1)
}

/// Models that a server knows at the same time.
const MODELS_MAX: usize = 4096;

/// Opens the files of a model: safetensors, GGUF, a folder or an index of them. Says in the log what is
/// odd about them.
pub(crate) fn files_of(config: &ModelConfig, limits: Limits) -> Result<ModelFiles, Problem> {
    let (files, odd) = look_at_files(config, limits)?;
    if let Some(odd) = odd {
        tracing::warn!(model = %config.name, "{odd}");
    }
    Ok(files)
}

/// As [`files_of`], and says what is odd about them.
pub(crate) fn look_at_files(
    config: &ModelConfig,
    limits: Limits,
) -> Result<(ModelFiles, Option<String>), Problem> {
    let options = ModelOptions::from(limits);
    let set = ModelSet::find(config.path.iter().chain(&config.files), &options);
    let set = set.map_err(ModelFilesError::from)?;
    let files = ModelFiles::open_set(&set, &options)?;
    let odd = set.odd_size(files.plan().total());
    Ok((files, odd))
}
