//! A worker that leases weights while an orchestrator moves things around it: what is leased stays,
//! what is not can be parked, woken elsewhere, compacted and carried to another node.

use vram_residency::{
    AdmitRequest, ByteLen, CompactBudget, GpuChoice, ImportRequest, ModelPlan, Piece, Protection,
    SealKey, SliceSource, Verify, VramError, VramManager,
};

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn core::error::Error>> {
    let key = || SealKey::from_bytes(&[42; 32]);
    let gpu = ByteLen::from_mib_saturating(4);
    let manager = VramManager::builder()
        .host_device(gpu)
        .host_device(gpu)
        .key(key())
        .park_limit(ByteLen::from_mib_saturating(8))
        .build()?;

    // A model whose weights kernels read in place.
    let file: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    let plan = ModelPlan::new([
        Piece::new("embeddings", 0, 0, ByteLen::new(1_000_000)),
        Piece::new("layer.0", 0, 1_000_000, ByteLen::new(1_500_000)),
        Piece::new("head", 0, 2_500_000, ByteLen::new(500_000)),
    ])?;
    let request =
        AdmitRequest::new("tiny", GpuChoice::One(0)).protection(Protection::Authenticated);
    let model = manager.admit(request, &plan, &vec![SliceSource::new(&file)])?;
    println!("{}", manager.report());

    // A worker leases it, and gets pointers. Nobody moves it meanwhile.
    let worker = std::thread::scope(|scope| {
        let leases = manager.lease_model(&model)?;
        let refused = manager.park_model(&model);
        if let Err(error @ VramError::InUse { .. }) = &refused {
            println!("the orchestrator wants it parked: {error}");
        }
        assert!(refused.is_err(), "a leased model was parked");
        let reader = scope.spawn(move || {
            // A real worker would launch kernels on these pointers.
            leases.iter().filter(|lease| lease.device_pointer().is_some()).count()
        });
        Ok::<_, VramError>(reader.join())
    })?;
    println!("the worker had {} pointers, and is done", worker.unwrap_or(0));

    // Off the GPU: encrypted in host memory. And back, on the other GPU, verified there.
    let parked = manager.park_model(&model)?;
    println!("parked in {}; gpu 0 uses {} bytes", parked.host_len(), manager.get_used_vram(0)?);
    let model = manager.wake_model(parked, GpuChoice::One(1))?;
    assert!(manager.verify_model(&model, Verify::Full)?.sound);

    // One piece goes, and what is left moves together.
    if let Some(piece) = model.tensor("embeddings").next() {
        manager.free_shard(&piece.shard)?;
    }
    let report = manager.compact(1, CompactBudget::new())?;
    assert_eq!(report.hole_count, 1, "the holes did not join");
    println!(
        "compacted: {} moved, the largest hole grew from {} to {}",
        report.moved_bytes, report.largest_hole_before, report.largest_hole
    );

    // To another node that has the key, as an image without plaintext.
    if let Some(head) = model.tensor("head").next() {
        let mut image = Vec::new();
        manager.export(&head.shard, &mut image)?;
        let elsewhere = VramManager::builder().host_device(gpu).key(key()).build()?;
        let shard = elsewhere.import(ImportRequest::new("tiny", 0), image.as_slice())?;
        assert!(elsewhere.unseal_model(&shard)? == file.get(2_500_000..).unwrap_or_default());
        println!("carried {} to another node as an image of {} bytes", shard.shard_id, image.len());
    }
    Ok(())
}
