//! A publisher seals a model file into an image; a reader verifies, inspects and opens the image.
//!
//! ```console
//! cargo run -p vram-files --example publish_model
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use std::fs;

use vram_files::{
    FileSource, ImageOptions, KeySource, Overwrite, create_key_file, inspect_image, seal_image,
    unseal_image, verify_image,
};
use vram_seal::{Expected, KeyRing, SealContext, SealKey, SealParams};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    fs::write(at("model"), vec![7; 3_000_000])?;
    create_key_file(&at("key"), &SealKey::random()?)?;

    // The publisher.
    let key = KeySource::File(at("key")).load()?;
    let context = SealContext::new("llama-3-8b")?.context(b"tenant-1");
    let source = FileSource::open(at("model"))?;
    let options = || ImageOptions::new().input(at("key")).overwrite(Overwrite::Replace);
    let made = seal_image(&key, &context, SealParams::new(), &source, &at("image"), options())?;
    println!("sealed {} into {}", made.digest, made.image_len);

    // A target that is an input is refused, and the input stays as it is.
    let refused = seal_image(&key, &context, SealParams::new(), &source, &at("key"), options());
    println!("over the key: {}", refused.err().ok_or("the key was replaced")?);

    // A reader.
    let info = inspect_image(&at("image"))?;
    println!("it says of itself: {} segments", info.fields.segment_count());
    let keys = KeyRing::new(key);
    let expected = Expected::from(&context);
    let verdict = verify_image(&keys, &expected, &at("image"), ImageOptions::new())?;
    println!("sound: {}", verdict.is_sound());
    unseal_image(&keys, &expected, &at("image"), &at("copy"), options())?;
    println!("the same bytes: {}", fs::read(at("copy"))? == fs::read(at("model"))?);
    Ok(())
}
