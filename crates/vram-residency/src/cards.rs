//! What NVIDIA's management library says of a manager's cards.

use core::time::Duration;

use vram_core::error::VramError;
use vram_gpu::{DeviceKind, DeviceUuid, GpuError};
use vram_nvml::{Answer, NamedCard, to_prometheus};

use crate::manager::VramManager;

/// The last answer on a GPU.
pub(crate) fn answer(manager: &VramManager, gpu: u32) -> Result<Answer, VramError> {
    let count = manager.gpu_count();
    let card = card_of(manager, gpu).ok_or(VramError::UnknownGpu { gpu, count })?;
    let monitor = manager.cards.as_ref();
    Ok(monitor.map_or(Answer::NotWatched, |monitor| monitor.card(card, Duration::ZERO)))
}

/// What the library adds to an error.
pub(crate) fn words(manager: &VramManager, error: &VramError, most: Duration) -> Option<String> {
    let (gpu, of_room) = about(error)?;
    let (monitor, card) = (manager.cards.as_ref()?, card_of(manager, gpu)?);
    let answer = monitor.fresh(card, most);
    if of_room {
        let others = answer.health()?.others_in_words()?;
        return Some(format!("on the card, {others}"));
    }
    monitor.loss_in_words(card, &answer)
}

/// The GPU that an error is about, and whether it is about room on it.
fn about(error: &VramError) -> Option<(u32, bool)> {
    match error {
        VramError::InsufficientVram(shortfall) => Some((shortfall.gpu, true)),
        VramError::Device { gpu, source } => match **source {
            GpuError::OutOfMemory { .. } => Some((*gpu, true)),
            GpuError::Driver { .. } | GpuError::Lost { .. } => Some((*gpu, false)),
            _ => None,
        },
        VramError::DeviceLost { gpu, .. } => Some((*gpu, false)),
        _ => None,
    }
}

/// The last answers on all GPUs, in Prometheus's text format.
pub(crate) fn metrics(manager: &VramManager) -> String {
    let Some(monitor) = &manager.cards else { return String::new() };
    let gpus = (0..).zip(manager.core.gpus());
    let cards = gpus.filter(|(_, gpu)| gpu.device.info().kind == DeviceKind::Cuda);
    let named = cards.map(|(gpu, one)| NamedCard { gpu, uuid: one.device.info().uuid });
    to_prometheus(monitor, &named.collect::<Vec<_>>())
}

fn card_of(manager: &VramManager, gpu: u32) -> Option<DeviceUuid> {
    let gpu = manager.core.gpus().get(usize::try_from(gpu).ok()?)?;
    Some(gpu.device.info().uuid)
}
