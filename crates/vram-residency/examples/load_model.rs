//! A model file goes into device memory piece by piece, all or nothing; its weights are opened for
//! kernels and closed again; and one tensor leaves as a sealed image that only the key opens.
//!
//! `cargo run -p vram-residency --example load_model`

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use core::error::Error;
use std::fs;

use vram_residency::{
    AdmitRequest, ByteLen, Expected, FileSource, GpuChoice, ImageOptions, KeyRing, KeySource,
    ModelPlan, Piece, SealContext, SealKey, SealParams, Verify, VramManager, create_key_file,
    seal_image, unseal_image,
};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;

    // A key that outlives the process, in a file that only its owner can read.
    let key_file = folder.path().join("seal.key");
    create_key_file(&key_file, &SealKey::random()?)?;

    // A model file: two tensors behind a header of eight bytes.
    let model_file = folder.path().join("model.bin");
    let (embeddings, head) = (vec![1_u8; 3 << 20], vec![2_u8; 1 << 20]);
    fs::write(&model_file, [&[0; 8], &embeddings[..], &head[..]].concat())?;
    let plan = ModelPlan::new([
        Piece::new("embeddings", 0, 8, ByteLen::new(3 << 20)),
        Piece::new("head", 0, 8 + (3 << 20), ByteLen::MIB),
    ])?;

    let manager = VramManager::builder()
        .host_device(ByteLen::from_mib_saturating(8))
        .host_device(ByteLen::from_mib_saturating(4))
        .key_source(KeySource::File(key_file.clone()))
        .build()?;

    let request = AdmitRequest::new("tiny-llama", GpuChoice::MostRoomFirst).progress(|progress| {
        if progress.done == progress.total {
            println!("sealed all of {} bytes", progress.total);
        }
    });
    let model = manager.admit(request, &plan, &FileSource::open(&model_file)?)?;
    for made in &model.pieces {
        println!("{} is {} on gpu {}", made.piece.name, made.shard.shard_id, made.shard.gpu_index);
    }

    // Plaintext in place for kernels; watched over, and closed again when nobody needs it.
    let head_piece = model.tensor("head").next().ok_or("the plan has a head")?;
    let open = manager.open_resident(&head_piece.shard)?;
    println!("{}", manager.verify(&open, Verify::Full)?);
    let closed = manager.close_resident(&open)?;
    println!("closed again: {}", closed.protection == head_piece.shard.protection);

    // The same bytes as a file, for another node that has the key.
    let keys = KeyRing::new(KeySource::File(key_file).load()?);
    let context = SealContext::new("tiny-llama")?;
    let image = folder.path().join("head.vseal");
    let source = FileSource::open(&model_file)?.range(8 + (3 << 20), 1 << 20)?;
    let params = SealParams::new();
    let sealed = seal_image(keys.active(), &context, params, &source, &image, ImageOptions::new())?;
    println!("sealed image of {}, content {}", sealed.image_len, sealed.digest);
    let out = folder.path().join("head.bin");
    unseal_image(&keys, &Expected::from(&context), &image, &out, ImageOptions::new())?;
    println!("and back: {}", fs::read(out)? == head);

    // The head was sealed anew twice, so the model's own handle of it is out of date.
    let model = manager.refresh_model(&model)?;
    println!("freed {} pieces", manager.free_model(&model)?.len());
    println!("{}", manager.report());
    Ok(())
}
