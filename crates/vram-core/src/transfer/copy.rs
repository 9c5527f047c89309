//! Copies a shard between two devices.

use core::ops::ControlFlow;

use vram_gpu::GpuError;
use vram_space::{Worker, locate};

use crate::error::VramError;
use crate::shard::View;
use crate::transfer::convert::part;
use crate::transfer::walk::send;
use crate::transfer::{Selection, Window, Windows};

impl View {
    /// The segments that differ from what was sealed.
    pub(crate) fn altered(&self) -> Result<Vec<u64>, VramError> {
        self.altered_segments(Selection::Run(0..self.seal.opener.layout().count()))
    }
}

/// Copies through host memory, window by window.
pub(crate) fn copy_staged(source: &View, target: &View) -> Result<(), VramError> {
    let windows = Windows::on(&target.gpu, *source.seal.opener.layout())?;
    windows.run(&target.gpu, windows.buffers(), windows.count(), |worker, index| {
        match windows.get(index) {
            Some(window) if !window.bytes.is_empty() => {
                copy_window(worker, source, target, &window)
            }
            _ => Ok(()),
        }
    })
}

/// Copies directly between the devices. Returns `Break` if they turn out to have no peer access.
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
    let staging = worker.buffer()?;
    send(worker, staging, |buffer| {
        let bytes = part(buffer, from.len())?;
        let (memory, there) = (source.memory()?, target.memory()?);
        memory.read(from, bytes).map_err(|error| source.gpu.failed(error))?;
        Ok(Some((there, to)))
    })
}

/// Assigns the error of a copy between two devices to the device that it names.
fn blame(source: &View, target: &View, error: GpuError) -> VramError {
    let named = error.gpu();
    let (from, to) = (&source.gpu, &target.gpu);
    let of_source = named == Some(from.device.info().index);
    let blamed = if of_source && named != Some(to.device.info().index) { from } else { to };
    blamed.failed(error).into()
}
