//! What a server would do: for `vram serve --check`.

use core::fmt;

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;
use vram_residency::model::Limits;
use vram_residency::{Alignment, ByteLen, Device, Fit, GpuChoice, KeyRing, ModelPlan, Piece};

use crate::config::{Config, EvictionConfig, ModelConfig};
use crate::engine::from_store::look;
use crate::engine::load::look_at_files;
use crate::engine::stored::plan_of;
use crate::net::is_in_use;
use crate::problem::Problem;
use crate::server::prepare::{Devices, Prepared};

/// What a configuration would do. Nothing is made for it, no address is opened, and nothing is taken of a
/// device.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// Where the server would listen.
    pub listen: Vec<String>,
    /// The file of its token, and whether it would be made.
    pub token_file: String,
    /// Whether the token file is there.
    pub token_is_there: bool,
    /// Where the key comes from, in words.
    pub key: String,
    /// The devices, with their budgets in words.
    pub devices: Vec<String>,
    /// The models, in the order of their loads.
    pub models: Vec<ModelCheck>,
    /// Whether a server would start with it, and load all models.
    pub usable: bool,
    /// What a start would refuse, and models that never fit beside each other.
    pub problems: Vec<String>,
    /// What is no mistake, and may be none of what is wanted: an address that is in use now, an index that
    /// states another size than its files.
    pub notes: Vec<String>,
}

/// One model that would be loaded.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ModelCheck {
    /// Its name.
    pub name: String,
    /// Tensors, or parts of them.
    pub pieces: usize,
    /// Bytes of content.
    pub bytes: u64,
    /// Device bytes that they take.
    pub footprint: u64,
    /// Why it cannot be loaded.
    pub problem: Option<Problem>,
}

impl Check {
    /// Reads what a start would read, the headers of all model files, and the manifests of models in stores
    /// with the start of their first image (20 s for each).
    ///
    /// # Arguments
    ///
    /// * `devices`: open, in the order of [`Config::devices`]; or why they cannot be opened, in words.
    #[must_use]
    pub fn of(config: &Config, devices: Result<Vec<Arc<dyn Device>>, String>) -> Self {
        let prepared = Prepared::of(config, devices);
        let mut problems: Vec<_> = prepared.problems().iter().map(ToString::to_string).collect();
        // Perhaps the server that is to be started again: no mistake.
        let in_use = config.listen().into_iter().filter(is_in_use).map(|listen| {
            format!("somebody listens on {listen} now: a start fails until that has ended")
        });
        let mut notes: Vec<_> = in_use.collect();
        let usable = prepared.devices.as_ref().ok();
        let keys = prepared.key.ok().map(KeyRing::new);
        let limits = config.limits.of_models();
        let models: Vec<_> = config
            .models
            .iter()
            .map(|model| {
                let name = model.name.clone();
                match plan_of_model(config, model, keys.as_ref(), limits, &mut notes) {
                    Ok(plan) => {
                        let takes = footprint(config, model, &plan);
                        let fits = |devices| never_fits(devices, model, &plan, takes);
                        ModelCheck {
                            name,
                            pieces: plan.pieces().len(),
                            bytes: plan.total().get(),
                            footprint: takes.get(),
                            problem: usable.and_then(fits),
                        }
                    }
                    Err(problem) => {
                        let problem = Some(problem);
                        ModelCheck { name, pieces: 0, bytes: 0, footprint: 0, problem }
                    }
                }
            })
            .collect();
        if let Some(devices) = usable.filter(|_| models.iter().all(|model| model.problem.is_none()))
        {
            problems.extend(too_much(config, devices, &models));
        }
        let devices = config.devices.iter().enumerate().map(|(gpu, device)| {
            let budget = device.budget.map(|budget| format!(", of which {budget}"));
            let kept = device.headroom.map(|kept| format!(", {kept} of it kept free"));
            let (budget, kept) = (budget.unwrap_or_default(), kept.unwrap_or_default());
            format!("gpu {gpu}: {}{budget}{kept}", device.device)
        });
        Self {
            listen: config.listen().iter().map(ToString::to_string).collect(),
            token_is_there: config.token_file().exists(),
            token_file: config.token_file().display().to_string(),
            key: config.key.to_string(),
            devices: devices.collect(),
            usable: problems.is_empty() && models.iter().all(|model| model.problem.is_none()),
            models,
            problems,
            notes,
        }
    }
}

/// Why a model that takes so many device bytes finds no place, also where nothing else is resident.
fn never_fits(
    devices: &Devices,
    model: &ModelConfig,
    plan: &ModelPlan,
    takes: ByteLen,
) -> Option<Problem> {
    let gpus = model.gpu.map_or(GpuChoice::MostRoomFirst, GpuChoice::One);
    let placements = match devices.builder.placements(plan, gpus) {
        Ok(placements) => placements,
        Err(error) => return Some(error.into()),
    };
    let Fit::ShortOf { needed, largest_hole, .. } = placements.fit else { return None };
    let usable = devices.usable(model.gpu);
    // Where other programs hold memory now, it may come free: a server may be running.
    let foreign = placements.before.iter().any(|one| !one.foreign.is_zero());
    if foreign && takes <= usable {
        return None;
    }
    let place = model.gpu.map_or_else(|| "all devices".to_owned(), |gpu| format!("gpu {gpu}"));
    Some(Problem::new(
        StatusCode::INSUFFICIENT_STORAGE,
        "insufficient-vram",
        format!(
            "it never fits: it takes {takes} of the {usable} that may be used of {place}, and for {needed} in \
             one piece the largest hole is {largest_hole}"
        ),
        "give a larger device or budget, or another model: `vram plan` says what would fit",
    ))
}

/// What is too much for a device, or for all of them, where no model makes room for another.
fn too_much(config: &Config, devices: &Devices, models: &[ModelCheck]) -> Option<String> {
    let evicts = config.eviction != EvictionConfig::Never;
    // With eviction, what is pinned stays.
    let stays = |model: &&(&ModelConfig, &ModelCheck)| !evicts || model.0.pin;
    let all: Vec<_> = config.models.iter().zip(models).collect();
    let gpus = (0..).zip(&config.devices).map(|(gpu, _)| Some(gpu));
    let (which, why) =
        if evicts { ("pinned models", "") } else { ("models", ", and `eviction` is \"never\"") };
    gpus.chain([None]).find_map(|only| {
        let here =
            all.iter().filter(stays).filter(|(model, _)| only.is_none() || model.gpu == only);
        let sum = here.fold(0_u64, |sum, (_, check)| sum.saturating_add(check.footprint));
        let usable = devices.usable(only);
        let place = only.map_or_else(|| "all devices".to_owned(), |gpu| format!("gpu {gpu}"));
        (sum > usable.get()).then(|| {
            format!(
                "the {which} of {place} take {} together, and {usable} may be used{why}",
                ByteLen::new(sum)
            )
        })
    })
}

/// What a load would bring: read from the headers of its files, or from the manifest in its store.
fn plan_of_model(
    config: &Config,
    model: &ModelConfig,
    keys: Option<&KeyRing>,
    limits: Limits,
    notes: &mut Vec<String>,
) -> Result<ModelPlan, Problem> {
    let Some(stored) = model.stored() else {
        let (files, odd) = look_at_files(model, limits)?;
        notes.extend(odd.map(|odd| format!("model {:?}: {odd}", model.name)));
        return Ok(files.into_parts().0);
    };
    let keys = keys.ok_or_else(|| {
        let what = "its store was not asked, since the key cannot be had";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key-source", what, "mend [key] first")
    })?;
    let manifest = look(&stored, config.cache.as_ref(), keys)?;
    Ok(plan_of(manifest.shards())?)
}

/// Device bytes that a model takes: whole granules, or whole pages on a device with shared memory.
fn footprint(config: &Config, model: &ModelConfig, plan: &ModelPlan) -> ByteLen {
    let shares = match model.gpu {
        Some(gpu) => config.shares(gpu),
        // It may lie on any: the least that it takes.
        None => (0..).zip(&config.devices).all(|(gpu, _)| config.shares(gpu)),
    };
    if !shares {
        return plan.footprint();
    }
    let page = |len: ByteLen| len.round_up(Alignment::MIB_2).unwrap_or(len);
    let sum = |sum: ByteLen, piece: &Piece| sum.saturating_add(page(piece.len));
    plan.pieces().iter().fold(ByteLen::ZERO, sum)
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for listen in &self.listen {
            writeln!(f, "listens on  {listen}")?;
        }
        let there = if self.token_is_there { "is there" } else { "is made at the start" };
        writeln!(f, "token       {} ({there})", self.token_file)?;
        writeln!(f, "key         {}", self.key)?;
        for device in &self.devices {
            writeln!(f, "device      {device}")?;
        }
        for model in &self.models {
            let ModelCheck { name, pieces, bytes, footprint, problem } = model;
            match problem {
                None => writeln!(
                    f,
                    "model       {name}: {pieces} pieces, {bytes} bytes, {footprint} on a device"
                )?,
                Some(problem) => writeln!(f, "model       {name}: {}", problem.message)?,
            }
        }
        for note in &self.notes {
            writeln!(f, "note        {note}")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem     {problem}")?;
        }
        Ok(())
    }
}
