//! Safetensors files: the JSON of a header, and the header checked against its file.

mod header;
mod json;

pub use self::header::SafetensorsHeader;
