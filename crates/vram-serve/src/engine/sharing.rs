//! Models whose memory a worker process has open: leases that last as long as that process may use it.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::watch;
use vram_residency::ModelPiece;

use super::Engine;
use super::leases::{Held, LeaseRequest, Open, Worker};
use crate::client::{SharedModel, SharedTensor};
use crate::net::Peer;
use crate::problem::Problem;

impl Engine {
    /// Leases a model for a process, and names its memory to it.
    pub(crate) fn share(
        self: &Arc<Self>,
        request: &LeaseRequest,
        peer: &Peer,
    ) -> Result<(Held, SharedModel), Problem> {
        if !self.may_share(&request.model)? {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "not-shared",
                format!("the configuration does not share model {:?}", request.model),
                "set share = true for it in vram.toml, and start the server again",
            ));
        }
        let worker = Worker { pid: peer.pid, closed: watch::channel(false).0 };
        let held = self.lease_for(request, Some(worker))?;
        let shared = SharedModel {
            lease: held.number,
            model: request.model.clone(),
            holder: request.holder.clone(),
            pid: peer.pid,
            tensors: held.tensors()?,
        };
        Ok((held, shared))
    }

    /// Whether the configuration shares a model.
    fn may_share(&self, name: &str) -> Result<bool, Problem> {
        let slots = self.slots();
        let slot = slots.get(name).ok_or_else(|| Problem::no_such_model(name))?;
        Ok(slot.config.share)
    }

    /// Ends the lease of a process that has closed all memory. Only that process knows when it has.
    pub(crate) fn end_shared(&self, lease: u64, peer: Option<&Peer>) -> Result<(), Problem> {
        let worker = self.leases.worker(lease).ok_or_else(|| {
            let message = format!("no process holds lease {lease} by its handles");
            let next = "GET /v1/leases lists them; a lease by connection ends with its connection";
            Problem::new(StatusCode::NOT_FOUND, "no-such-lease", message, next)
        })?;
        if peer.map(|peer| peer.pid) != Some(worker.pid) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "not-yours",
                format!("process {} has the memory of lease {lease} open", worker.pid),
                "it ends the lease itself, over the Unix socket, when it has closed the memory; or \
                 end that process",
            ));
        }
        worker.closed.send_replace(true);
        Ok(())
    }
}

impl Held {
    /// The tensors, with the names of their memory.
    fn tensors(&self) -> Result<Vec<SharedTensor>, Problem> {
        let mut tensors = Vec::new();
        for (piece, lease) in self.pieces() {
            let mut tensor = described(piece);
            if !lease.is_empty() {
                tensor.place(&lease.share()?);
            }
            tensors.push(tensor);
        }
        Ok(tensors)
    }
}

fn described(piece: &ModelPiece) -> SharedTensor {
    let ModelPiece { piece, .. } = piece;
    SharedTensor::new(
        &piece.name,
        (piece.part, piece.part_count),
        piece.format.map(|format| format.to_string()),
        &piece.shape,
        piece.len.get(),
    )
}

/// The refusal to free what processes have open.
pub(crate) fn still_open(open: &[Open]) -> Problem {
    let who: Vec<_> = open
        .iter()
        .map(|one| {
            format!("process {} has model {:?} open (lease {})", one.pid, one.model, one.lease)
        })
        .collect();
    Problem::new(
        StatusCode::CONFLICT,
        "in-use",
        format!("{}: its memory is not freed", who.join("; ")),
        "stop these processes, and the server ends; or drain with force, which frees memory that they \
         use",
    )
    .retry_in(1)
}
