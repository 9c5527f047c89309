//! How large the same model would be in another format, by the shapes of its tensors.

use vram_alloc::{BlockFormat, Dtype, ModelPlan, Piece, TensorFormat, tensor_bytes};

use crate::{ModelError, Tensor, TensorTable};

/// Formats that [`quantised`] is worth asking for, from the largest to the smallest.
pub const QUANTISATIONS: [TensorFormat; 8] = [
    TensorFormat::Plain(Dtype::F16),
    TensorFormat::Block(BlockFormat::Q8_0),
    TensorFormat::Block(BlockFormat::Q6K),
    TensorFormat::Block(BlockFormat::Q5K),
    TensorFormat::Block(BlockFormat::Q4K),
    TensorFormat::Block(BlockFormat::Q4_0),
    TensorFormat::Block(BlockFormat::Q3K),
    TensorFormat::Block(BlockFormat::Q2K),
];

/// A model as it would be in another format: an estimate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quantised {
    /// Its tensors; their positions in a file are not known and all 0.
    pub plan: ModelPlan,
    /// Tensors that stay as they are, since their elements are no floats: of models that were
    /// quantised by packing weights into integers, most of the bytes.
    pub kept_count: usize,
}

/// Estimates the sizes of the tensors of a model in `format`.
///
/// Every tensor of floats with two dimensions or more takes `format`, every other one of floats 32
/// bits an element; tensors of integers stay. Where rows do not divide into blocks, the format is
/// the one that llama.cpp falls back to. Files of mixed formats, such as `Q4_K_M`, keep some tensors in larger
/// formats and are some per cent larger.
///
/// # Errors
///
/// [`ModelError::Plan`] if the sum of all lengths overflows, or a name occurs twice.
///
/// # Source
///
/// `llama_tensor_get_type` in <https://github.com/ggml-org/llama.cpp>, `src/llama-quant.cpp`
pub fn quantised<'a, H: TensorTable + 'a>(
    headers: impl IntoIterator<Item = &'a H>,
    format: TensorFormat,
) -> Result<Quantised, ModelError> {
    let (mut pieces, mut kept_count) = (Vec::new(), 0_usize);
    for tensor in headers.into_iter().flat_map(TensorTable::tensors) {
        let new = if is_float(tensor.format) {
            fitting(format, tensor)
        } else {
            kept_count = kept_count.saturating_add(1);
            tensor.format
        };
        // A shape that has a size in one format may have none in another: too large for 64 bits.
        let (new, len) = match tensor_bytes(new, &tensor.shape) {
            Ok(len) => (new, len),
            Err(_) => (tensor.format, tensor.len),
        };
        let piece = Piece::new(tensor.name.clone(), 0, 0, len);
        pieces.push(piece.stored_as(new, tensor.shape.clone()));
    }
    Ok(Quantised { plan: ModelPlan::new(pieces)?, kept_count })
}

/// Whether elements are weights that can be stored in fewer bits.
const fn is_float(format: TensorFormat) -> bool {
    match format {
        TensorFormat::Block(_) => true,
        TensorFormat::Plain(dtype) => matches!(
            dtype,
            Dtype::F64
                | Dtype::F32
                | Dtype::F16
                | Dtype::BF16
                | Dtype::F8E5M2
                | Dtype::F8E4M3
                | Dtype::F8E4M3FNUZ
                | Dtype::F8E5M2FNUZ
        ),
        _ => false,
    }
}

/// The format that a tensor gets where `format` is asked for.
fn fitting(format: TensorFormat, tensor: &Tensor) -> TensorFormat {
    if tensor.shape.len() < 2 {
        return TensorFormat::Plain(Dtype::F32);
    }
    let TensorFormat::Block(block) = format else { return format };
    let row_len = tensor.shape.last().copied().unwrap_or(1);
    let instead = match block {
        BlockFormat::Q2K | BlockFormat::Q3K => BlockFormat::IQ4NL,
        BlockFormat::Q4K => BlockFormat::Q5_0,
        BlockFormat::Q5K => BlockFormat::Q5_1,
        BlockFormat::Q6K => BlockFormat::Q8_0,
        other => other,
    };
    let divides = |block: &BlockFormat| row_len.is_multiple_of(block.block_len());
    let found = [block, instead].into_iter().find(divides);
    found.map_or(TensorFormat::Plain(Dtype::F16), TensorFormat::Block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::{LlamaShape, SynthGguf};
    use crate::{GgufHeader, Limits};

    fn tensor(format: TensorFormat, shape: &[u64]) -> Tensor {
        let len = tensor_bytes(format, shape).unwrap();
        Tensor { name: "t".to_owned(), format, shape: shape.to_vec(), file_offset: 0, len }
    }

    #[test]
    fn rows_that_do_not_divide_into_blocks_get_what_llama_cpp_gives_them() {
        let float = TensorFormat::Plain(Dtype::BF16);
        let at =
            |format, shape: &[u64]| fitting(TensorFormat::Block(format), &tensor(float, shape));
        let block = TensorFormat::Block;
        assert_eq!(at(BlockFormat::Q4K, &[3, 512]), block(BlockFormat::Q4K));
        assert_eq!(at(BlockFormat::Q4K, &[3, 96]), block(BlockFormat::Q5_0));
        assert_eq!(at(BlockFormat::Q6K, &[3, 96]), block(BlockFormat::Q8_0));
        assert_eq!(at(BlockFormat::Q4K, &[3, 33]), TensorFormat::Plain(Dtype::F16));
        assert_eq!(at(BlockFormat::Q4K, &[512]), TensorFormat::Plain(Dtype::F32));
        assert_eq!(at(BlockFormat::Q4K, &[]), TensorFormat::Plain(Dtype::F32));
    }

    #[test]
    fn an_estimate_is_the_size_of_a_file_that_has_that_format() {
        let shape = LlamaShape::LLAMA_3_8B;
        for format in QUANTISATIONS {
            let read = |format| {
                let file = SynthGguf::llama(&shape, format, 1).header().unwrap();
                let options = crate::ModelOptions::from(Limits::default()).headers_only(true);
                GgufHeader::read_with("m", &file, &options).unwrap()
            };
            let (there, source) = (read(format), read(TensorFormat::Plain(Dtype::BF16)));
            let wanted: u64 = there.tensors().iter().map(|tensor| tensor.len.get()).sum();
            let estimate = quantised([&source], format).unwrap();
            assert_eq!(estimate.plan.total().get(), wanted, "{format}");
            assert_eq!(estimate.kept_count, 0);
        }
    }
}
