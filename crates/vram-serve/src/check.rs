//! What a server would do: for `vram serve --check`.

use core::fmt;

use serde::Serialize;
use vram_residency::{Alignment, ByteLen, ModelPlan, Piece};

use crate::config::{Config, ModelConfig};
use crate::engine::calls::files_of;
use crate::net::acceptor;
use crate::problem::Problem;

/// What a configuration would do. No device is opened for it, and nothing is made.
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
    /// Whether the files of all models, the key and the certificate can be used.
    pub usable: bool,
    /// Why key or certificate cannot be used.
    pub problems: Vec<String>,
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
    /// Reads the headers of all model files, the key and the certificate.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let models: Vec<_> = config
            .models
            .iter()
            .map(|model| {
                let name = model.name.clone();
                match files_of(model) {
                    Ok(files) => ModelCheck {
                        name,
                        pieces: files.plan().pieces().len(),
                        bytes: files.plan().total().get(),
                        footprint: footprint(config, model, files.plan()),
                        problem: None,
                    },
                    Err(problem) => {
                        let problem = Some(problem);
                        ModelCheck { name, pieces: 0, bytes: 0, footprint: 0, problem }
                    }
                }
            })
            .collect();
        let mut problems = Vec::new();
        if let Err(error) = config.key.source().load() {
            problems.push(error.to_string());
        }
        if let Some(Err(what)) = config.tls.as_ref().map(acceptor) {
            problems.push(what);
        }
        let devices = config.devices.iter().enumerate().map(|(gpu, device)| {
            let budget = device.budget.map(|budget| format!(", of which {budget}"));
            format!("gpu {gpu}: {}{}", device.device, budget.unwrap_or_default())
        });
        let token_file = config.token_file();
        Self {
            listen: config.listen().iter().map(ToString::to_string).collect(),
            token_is_there: token_file.exists(),
            token_file: token_file.display().to_string(),
            key: config.key.to_string(),
            devices: devices.collect(),
            usable: problems.is_empty() && models.iter().all(|model| model.problem.is_none()),
            models,
            problems,
        }
    }
}

/// Device bytes that a model takes: whole granules, or whole pages on a device with shared memory.
fn footprint(config: &Config, model: &ModelConfig, plan: &ModelPlan) -> u64 {
    let shares = match model.gpu {
        Some(gpu) => config.shares(gpu),
        // It may lie on any: the least that it takes.
        None => (0..).zip(&config.devices).all(|(gpu, _)| config.shares(gpu)),
    };
    if !shares {
        return plan.footprint().get();
    }
    let page = |len: ByteLen| len.round_up(Alignment::MIB_2).unwrap_or(len);
    let sum = |sum: ByteLen, piece: &Piece| sum.saturating_add(page(piece.len));
    plan.pieces().iter().fold(ByteLen::ZERO, sum).get()
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
        for problem in &self.problems {
            writeln!(f, "problem     {problem}")?;
        }
        Ok(())
    }
}
