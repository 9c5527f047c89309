//! What another library needs to use leased weights in place: the address, and `DLPack`'s description of
//! each tensor as plain data, without a line of unsafe code.
//!
//! `cargo run -p vram-residency --features models --example interop`

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use core::error::Error;

use vram_residency::model::synth::{LlamaShape, SynthModel};
use vram_residency::{
    AdmitRequest, ByteLen, DeviceInfo, DeviceKind, GpuChoice, Lease, ModelFiles, Piece, Protection,
    VramManager,
};

/// The fields of `DLTensor` that describe a tensor. Elements lie row by row without gaps, so there are
/// no strides (a null pointer in C), and the first lies at `data`.
///
/// It borrows the lease: the address is that of the tensor for as long as the lease lives, and for
/// reading only.
#[derive(Debug)]
struct Description<'a> {
    data: u64,
    /// 1 is host memory, 2 is CUDA.
    device_type: i32,
    /// As the driver counts its devices.
    device_id: i32,
    /// Code, bits, lanes.
    dtype: (u8, u8, u16),
    shape: Vec<i64>,
    lease: &'a Lease,
}

impl<'a> Description<'a> {
    /// `None` for a part of a tensor, for a type that `DLPack` has not (quantised blocks, types below a
    /// byte), and for a lease without an address: of an Encrypted shard, or of one that is no longer sound.
    fn new(piece: &Piece, lease: &'a Lease, device: &DeviceInfo) -> Option<Self> {
        if piece.part_count != 1 {
            return None;
        }
        let (device_type, device_id) = match device.kind {
            DeviceKind::Host => (1, 0),
            // Where the manager was built by `VramManager::detect`, its list is the driver's.
            DeviceKind::Cuda => (2, i32::try_from(device.index.get()).ok()?),
            _ => return None,
        };
        let shape = piece.shape.iter().map(|&extent| i64::try_from(extent).ok());
        Some(Self {
            data: lease.device_pointer()?.get(),
            device_type,
            device_id,
            dtype: dtype(piece.format?.name())?,
            shape: shape.collect::<Option<_>>()?,
            lease,
        })
    }
}

/// The type of an element, by its name in a safetensors header: `DLDataTypeCode`, bits, lanes.
fn dtype(name: &str) -> Option<(u8, u8, u16)> {
    let (code, bits) = match name {
        "I8" => (0, 8),
        "I16" => (0, 16),
        "I32" => (0, 32),
        "I64" => (0, 64),
        "U8" => (1, 8),
        "U16" => (1, 16),
        "U32" => (1, 32),
        "U64" => (1, 64),
        "F16" => (2, 16),
        "F32" => (2, 32),
        "F64" => (2, 64),
        "BF16" => (4, 16),
        "C64" => (5, 64),
        "BOOL" => (6, 8),
        "F8_E4M3" => (10, 8),
        "F8_E5M2" => (12, 8),
        _ => return None,
    };
    Some((code, bits, 1))
}

/// Elements of a tensor.
fn count(shape: &[i64]) -> Result<i64, &'static str> {
    shape.iter().try_fold(1, |all: i64, extent| all.checked_mul(*extent)).ok_or("too many elements")
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("llama.safetensors");
    SynthModel::llama(&LlamaShape::about(ByteLen::MIB), 1)?.write_file(&path)?;
    let manager = VramManager::builder().host_device(ByteLen::from_mib_saturating(16)).build()?;
    let devices = manager.gpus();

    let files = ModelFiles::open([path])?;
    let request = AdmitRequest::new("llama", GpuChoice::MostRoomFirst);
    let request = request.protection(Protection::Authenticated).holder("worker-1");
    let (model, leases) = manager.admit_leased(request, files.plan(), &files)?;

    let mut described = Vec::new();
    for (piece, lease) in model.pieces.iter().zip(&leases) {
        let device = devices.iter().find(|device| device.index.get() == piece.shard.gpu_index);
        let description = Description::new(&piece.piece, lease, device.ok_or("no such GPU")?);
        described.push(description.ok_or("a tensor that DLPack cannot describe")?);
    }
    for tensor in described.iter().take(3) {
        let device = (tensor.device_type, tensor.device_id);
        println!("{:?} of {:?} on {device:?}", tensor.shape, tensor.dtype);
        // A kernel takes `tensor.data` as its argument.
        assert_ne!(tensor.data, 0);
        // Shape and type cover the bytes of the lease, no more and no less.
        let bits = u64::from(tensor.dtype.1).checked_mul(u64::try_from(count(&tensor.shape)?)?);
        assert_eq!(bits, tensor.lease.len().get().checked_mul(8));
    }
    println!("{} tensors, none of them copied", described.len());
    drop(leases);
    manager.free_model(&model)?;
    Ok(())
}
