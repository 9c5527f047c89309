//! Copying a shard between two devices.

use core::ops::ControlFlow;

use vram_gpu::GpuError;
use vram_seal::parallel::for_each_segment;
use vram_space::{Lanes, Worker, locate};

use crate::error::VramError;
use crate::shard::View;
use crate::transfer::{Selection, Window, Windows};

impl View {
    /// The segments that are not what was sealed.
    pub(crate) fn altered(&self) -> Result<Vec<u64>, VramError> {
        self.altered_segments(Selection::Run(0..self.seal.opener.layout().count()))
    }
}

/// Copies through host memory, window by window.
pub(crate) fn copy_staged(source: &View, target: &View) -> Result<(), VramError> {
    let windows = Windows::on(&target.gpu, *source.seal.opener.layout())?;
    let lanes = Lanes::new(&target.gpu, windows.window_len(), windows.buffers());
    for_each_segment(
        windows.threads(),
        windows.count(),
        || Ok(lanes.worker()),
        |worker, index| match windows.get(index) {
            Some(window) if !window.bytes.is_empty() => {
                copy_window(worker, source, target, &window)
            }
            _ => Ok(()),
        },
    )?;
    Ok(lanes.finish()?)
}

/// Copies directly between the devices. `Break` if they turn out not to be able to.
pub(crate) fn copy_by_peer(source: &View, target: &View) -> Result<ControlFlow<()>, VramError> {
    if source.range.is_empty() {
        return Ok(ControlFlow::Continue(()));
    }
    let from = source.memory()?;
    match target.memory()?.copy_from(target.range, &**from, source.range) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(GpuError::PeerUnsupported { .. }) => Ok(ControlFlow::Break(())),
        Err(error) => Err(blame(source, target, error)),
    }
}

fn copy_window(
    worker: &mut Worker<'_>,
    source: &View,
    target: &View,
    window: &Window,
) -> Result<(), VramError> {
    let (from, to) = (locate(source.range, window.bytes)?, locate(target.range, window.bytes)?);
    let mut staging = worker.buffer()?;
    let buffer = from.len().to_usize().and_then(|len| staging.as_mut_slice().get_mut(..len));
    let outcome = match (buffer, source.memory(), target.memory()) {
        (Some(buffer), Ok(memory), Ok(target_memory)) => memory
            .read(from, buffer)
            .map(|()| target_memory)
            .map_err(|error| source.gpu.failed(error).into()),
        (None, _, _) => Err(VramError::HostMemory { wanted: from.len() }),
        (_, Err(error), _) | (_, _, Err(error)) => Err(error),
    };
    match outcome {
        Ok(memory) => {
            worker.queue_write(&**memory, to.start(), staging, to.len());
            Ok(())
        }
        Err(error) => {
            worker.put(staging);
            Err(error)
        }
    }
}

/// Gives the error of a copy between two devices to the one that it names.
fn blame(source: &View, target: &View, error: GpuError) -> VramError {
    let named = error.gpu();
    let (from, to) = (&source.gpu, &target.gpu);
    let of_source = named == Some(from.device.info().index);
    let blamed = if of_source && named != Some(to.device.info().index) { from } else { to };
    blamed.failed(error).into()
}
