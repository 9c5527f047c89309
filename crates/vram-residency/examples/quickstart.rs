use vram_residency::*;
fn main() {
    let manager = |key: [u8; 32]| {
        VramManager::builder()
            .host_device(ByteLen::new(64 * 1024))
            .key(SealKey::from_bytes(key))
            .build()
    };
    for key in [[0; 32], [1; 32], [0; 32]] {
        println!(
            "{} {:?}",
            SealKey::from_bytes(key).id(),
            manager(key).unwrap().seal_model("m", 0, &[]).unwrap().sealed_data
        );
        println!(
            "{} {:?}",
            SealKey::from_bytes(key).id(),
            manager(key).unwrap().seal_model("m", 0, &[]).unwrap().sealed_data
        );
    }
}
