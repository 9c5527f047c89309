//! From headers to a plan: the pieces of a model, and the position of each one's bytes.

mod quantised;

use std::collections::HashMap;
use std::path::Path;

use vram_alloc::{ModelPlan, Piece};

use crate::name::shown;
use crate::{Limits, ModelError, ModelFile, TensorTable};

pub use self::quantised::{QUANTISATIONS, Quantised, quantised};

/// Reads the headers of `files` and plans one model of all their tensors.
///
/// Pieces are in the order of the files, and within each file in the order of their bytes: a load
/// that follows the plan reads every file from front to back. A piece's `file` is an index into
/// `files`. Only headers are read.
///
/// # Errors
///
/// As [`ModelFile::open`] for each file, and as [`plan_of`] for all of them together.
pub fn plan<P: AsRef<Path>>(files: &[P], limits: &Limits) -> Result<ModelPlan, ModelError> {
    let headers =
        files.iter().map(|file| ModelFile::read(file, limits)).collect::<Result<Vec<_>, _>>()?;
    plan_of(&headers)
}

/// Plans one model of the tensors in `headers`, as [`plan()`] does for paths.
///
/// # Errors
///
/// [`ModelError::TensorInTwoFiles`] if two files contain a tensor with the same name,
/// [`ModelError::TooManyFiles`] beyond `u32::MAX` files, [`ModelError::Plan`] if the sum of all
/// lengths overflows.
pub fn plan_of<'a, H: TensorTable + 'a>(
    headers: impl IntoIterator<Item = &'a H>,
) -> Result<ModelPlan, ModelError> {
    let mut holder: HashMap<&str, &H> = HashMap::new();
    let mut pieces = Vec::new();
    for (index, header) in headers.into_iter().enumerate() {
        let file = u32::try_from(index)
            .map_err(|_too_many| ModelError::TooManyFiles { count: index.saturating_add(1) })?;
        for tensor in header.tensors() {
            if let Some(first) = holder.insert(&tensor.name, header) {
                return Err(ModelError::TensorInTwoFiles {
                    tensor: shown(&tensor.name),
                    first: first.file().to_owned(),
                    second: header.file().to_owned(),
                });
            }
            pieces.push(
                Piece::new(tensor.name.clone(), file, tensor.file_offset, tensor.len)
                    .stored_as(tensor.format, tensor.shape.clone()),
            );
        }
    }
    Ok(ModelPlan::new(pieces)?)
}
