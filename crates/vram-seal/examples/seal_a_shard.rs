//! Seals a shard segment by segment, as a loader with a small staging buffer does, reads one range
//! back, and shows the error for an altered bit.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_seal::{
    Expected, OpenLimits, SealContext, SealKey, SealParams, Sealer, SegmentCollector, Threads,
    open_record, verify,
};

fn main() -> Result<(), Box<dyn Error>> {
    let key = SealKey::random()?;
    let context = SealContext::new("llama-3-8b")?.metadata(b"bf16 [4096, 512]");
    let weights: Vec<u8> = (0..4096 * 512 * 2_u32).map(|i| i.to_le_bytes()[0]).collect();

    // Each segment is hashed and sealed in one pass, in a copy of its own.
    let len = ByteLen::from_usize(weights.len());
    let sealer = Sealer::new(&key, &context, SealParams::new(), len)?.one_pass()?;
    let layout = *sealer.layout();
    let collector = SegmentCollector::new(sealer)?;
    let mut device = Vec::with_capacity(weights.len());
    for (segment, piece) in (0..).zip(weights.chunks(256 << 10)) {
        let mut staging = piece.to_vec();
        collector.put(segment, collector.sealer().seal_segment(segment, &mut staging)?)?;
        device.extend_from_slice(&staging);
    }
    let finished = collector.finish()?;
    println!("sealed {} in {} segments", layout.plaintext_len(), layout.count());
    println!("record of {} bytes, table of {}", finished.record.len(), finished.tags.len_bytes());
    println!("content digest {}", finished.digest);

    let expected = Expected::new("llama-3-8b")?;
    let opener = open_record(&key, &finished.record, &expected, OpenLimits::default())?
        .with_table(finished.tags)?;
    let range =
        ByteRange::checked(ByteOffset::new(1_000_000), ByteLen::new(1000), layout.plaintext_len())?;
    let touched = layout.covering(range)?;
    println!("bytes 1000000 to 1000999 lie in segments {touched:?}");
    for segment in touched {
        let place = layout.range(segment).and_then(ByteRange::to_usize_range);
        let mut scratch = place.and_then(|place| device.get(place)).unwrap_or_default().to_vec();
        opener.open_segment(segment, &mut scratch)?;
        println!("segment {segment} opened, {} bytes", scratch.len());
    }

    if let Some(byte) = device.get_mut(2_000_000) {
        *byte ^= 1;
    }
    println!("a bit flipped: altered segments {:?}", verify(&opener, Threads::AUTO, &device)?);
    Ok(())
}
