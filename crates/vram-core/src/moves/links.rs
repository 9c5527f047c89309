//! Links between GPUs: which of them delivered other bytes than were sent.

use core::fmt;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_id::SplitMix;
use vram_space::{Gpu, Space, SpaceError};

use crate::error::VramError;
use crate::parts::{Core, LinkState};
use crate::transfer::read::zeroed;

/// The numbers of bytes that a probe sends: the first that there is room for.
const PROBE_LENS: [u64; 4] = [1 << 20, 1 << 16, 1 << 12, 1 << 8];

/// One direction between two GPUs.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct LinkReport {
    pub source: u32,
    pub target: u32,
    pub state: LinkState,
    /// The number of bytes that the probe sent; 0 if it sent none.
    pub probed: ByteLen,
    pub error: Option<VramError>,
}

impl fmt::Display for LinkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpu {} to gpu {}: ", self.source, self.target)?;
        match (self.state, &self.error) {
            (LinkState::Direct, _) => f.write_str("direct"),
            (LinkState::Staged, _) => f.write_str("staged through the host"),
            (LinkState::Distrusted, _) => {
                f.write_str("staged through the host, direct copies arrived altered")
            }
            (LinkState::Unknown, Some(error)) => write!(f, "not probed: {error}"),
            (LinkState::Unknown, None) => f.write_str("not probed"),
        }
    }
}

pub(crate) fn probe(core: &Core, source: &Arc<Gpu>, target: &Arc<Gpu>) -> LinkReport {
    let mut report = LinkReport {
        source: source.index,
        target: target.index,
        state: LinkState::Staged,
        probed: ByteLen::ZERO,
        error: None,
    };
    if let Err(error) = core.check_open() {
        (report.state, report.error) = (LinkState::Unknown, Some(error));
    } else if core.links.is_distrusted(source.index, target.index) {
        report.state = LinkState::Distrusted;
    } else if target.device.can_copy_from_peer(&*source.device) {
        match send(source, target) {
            Ok((len, true)) => (report.state, report.probed) = (LinkState::Direct, len),
            Ok((len, false)) => {
                distrust(core, source.index, target.index);
                (report.state, report.probed) = (LinkState::Distrusted, len);
            }
            Err(VramError::Device { source, .. })
                if matches!(*source, vram_gpu::GpuError::PeerUnsupported { .. }) => {}
            Err(error) => (report.state, report.error) = (LinkState::Unknown, Some(error)),
        }
    }
    report
}

/// Marks a link as distrusted: copies from `source` to `target` are staged through the host from
/// now on.
pub(crate) fn distrust(core: &Core, source: u32, target: u32) {
    if core.links.distrust(source, target) {
        tracing::error!(source, target, "direct copies arrive altered, staging from now on");
        core.events.emit(EventKind::LinkDistrusted { from: source, to: target });
    }
}

/// Sends a pattern, and returns whether it arrived.
fn send(source: &Arc<Gpu>, target: &Arc<Gpu>) -> Result<(ByteLen, bool), VramError> {
    let mut refusal = None;
    for len in PROBE_LENS.map(ByteLen::new) {
        match (source.place(len), target.place(len)) {
            (Ok(from), Ok(to)) => return send_between(from, to, len),
            (Err(error), _) | (_, Err(error)) if error.is_capacity() => refusal = Some(error),
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        }
    }
    Err(refusal.unwrap_or(SpaceError::HostMemory { wanted: ByteLen::ZERO }).into())
}

fn send_between(
    mut from: Space,
    mut to: Space,
    len: ByteLen,
) -> Result<(ByteLen, bool), VramError> {
    let mut random = SplitMix::new(len.get());
    let (mut pattern, mut arrived) = (zeroed(len)?, zeroed(len)?);
    for byte in &mut pattern {
        *byte = u8::try_from(random.below(256)).unwrap_or(0);
    }
    // The bytes that lie there before the copy differ from the pattern everywhere.
    let before: Vec<u8> = pattern.iter().map(|byte| !byte).collect();
    from.written()?;
    to.written()?;
    let (source, target) = (Arc::clone(from.gpu()), Arc::clone(to.gpu()));
    let (there, here) = (to.memory()?, from.memory()?);
    here.write(from.range(), &pattern).map_err(|error| source.failed(error))?;
    there.write(to.range(), &before).map_err(|error| target.failed(error))?;
    there.copy_from(to.range(), &**here, from.range()).map_err(|error| {
        if error.gpu() == Some(source.device.info().index) {
            source.failed(error)
        } else {
            target.failed(error)
        }
    })?;
    there.read(to.range(), &mut arrived).map_err(|error| target.failed(error))?;
    Ok((len, arrived == pattern))
}

/// Probes every pair of GPUs in both directions.
pub fn probe_all(core: &Core) -> Vec<LinkReport> {
    let mut reports = Vec::new();
    for source in &core.gpus {
        for target in core.gpus.iter().filter(|target| target.index != source.index) {
            reports.push(probe(core, source, target));
        }
    }
    reports
}
