//! Every kind of file that is taken for a safetensors file, as the programs that write it write it.

use std::io::Write as _;

use vram_model::{Limits, Lookalike, ModelError, ModelFile, SafetensorsHeader};

const fn text(kind: &'static str) -> Lookalike {
    Lookalike::Text { kind }
}

/// The first entry of a zip archive, with this name.
fn zip(name: &str) -> Vec<u8> {
    let len = u16::try_from(name.len()).unwrap().to_le_bytes();
    let mut bytes = b"PK\x03\x04\0\0\0\x08\0\0".to_vec();
    bytes.resize(26, 0);
    bytes.extend_from_slice(&len);
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(600, 0);
    bytes
}

fn tar() -> Vec<u8> {
    let mut bytes = b"model/config.json".to_vec();
    bytes.resize(257, 0);
    bytes.extend_from_slice(b"ustar\x0000");
    bytes.resize(1024, 0);
    bytes
}

#[test]
fn another_format_is_called_by_its_name() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12345\n";
    let xet = b"# xet version 0\nfilesize = 12345\nhash = 'aa'\n";
    let gated = "Access to model meta-llama/Llama is restricted.\nYou must be authenticated.";
    let s3 = b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>";
    // 559,903 as a length of a header: a gzip archive without a time, in a file that is long enough.
    let mut long_gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
    long_gzip.resize(600_000, 0x55);
    let cases: Vec<(Vec<u8>, Lookalike, &str)> = vec![
        (vec![], Lookalike::Empty, "0 bytes"),
        (b"GGUF\x03\0\0\0\x02\0\0\0".to_vec(), Lookalike::Gguf, "GGUF"),
        (zip("archive/data.pkl"), Lookalike::PytorchZip, "PyTorch"),
        (zip("m/.format_version"), Lookalike::PytorchZip, "PyTorch"),
        (zip("a.npy"), Lookalike::Npz, ".npz"),
        (zip("readme.txt"), Lookalike::Zip, "zip archive"),
        (b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), Lookalike::Zip, "zip archive"),
        (b"PK\x05\x06\0\0\0\0\0\0".to_vec(), Lookalike::Zip, "zip archive"),
        (b"\x93NUMPY\x01\0v\0{'descr'".to_vec(), Lookalike::Npy, ".npy"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), Lookalike::Pickle, "pickle"),
        (b"\x80\x04\x95\x11\0\0\0\0\0\0\0}".to_vec(), Lookalike::Pickle, "pickle"),
        (b"(dp0\nS'a'\np1\nI1\ns.".to_vec(), Lookalike::Pickle, "pickle"),
        (b"\x08\x07\x12\x07pytorch\x1a\x051.9.0".to_vec(), Lookalike::Onnx, "ONNX"),
        (b"\x08\x0a:\xa2\x01\n\x0cadd".to_vec(), Lookalike::Onnx, "ONNX"),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0".to_vec(), Lookalike::Hdf5, "HDF5"),
        (long_gzip, Lookalike::Compressed { with: "gzip" }, "gzip"),
        (
            b"\x1f\x8b\x08\x08\xff\xff\xff\xff\0\x03".to_vec(),
            Lookalike::Compressed { with: "gzip" },
            "unpack",
        ),
        (
            b"\x28\xb5\x2f\xfd\x04\x58\x41\0\0".to_vec(),
            Lookalike::Compressed { with: "zstd" },
            "zstd",
        ),
        (b"\xfd7zXZ\0\0\x04".to_vec(), Lookalike::Compressed { with: "xz" }, "xz"),
        (b"BZh91AY&SY".to_vec(), Lookalike::Compressed { with: "bzip2" }, "bzip2"),
        (b"\x04\x22\x4d\x18\x64\x40\xa7\0".to_vec(), Lookalike::Compressed { with: "lz4" }, "lz4"),
        (tar(), Lookalike::Tar, "tar archive"),
        (lfs.to_vec(), Lookalike::LfsPointer, "git lfs pull"),
        (xet.to_vec(), Lookalike::XetPointer, "Xet"),
        (b"VRSEAL1\0\x01\0\x01\x02\x01\x01\x12\0".to_vec(), Lookalike::SealedImage, "image"),
        (
            br#"{"metadata": {}, "weight_map": {"a": "b"}}"#.to_vec(),
            Lookalike::Index,
            "index of a sharded model",
        ),
        (br#"{"error":"Repository not found"}"#.to_vec(), text("a JSON"), "JSON"),
        (b"<!DOCTYPE html><html><body>401</body></html>".to_vec(), text("an HTML"), "HTML"),
        (b"\n  <HTML>\n".to_vec(), text("an HTML"), "HTML"),
        (s3.to_vec(), text("an XML"), "XML"),
        (gated.into(), text("a plain"), "look at how it begins"),
        (b"401\r\n".to_vec(), text("a plain"), "plain"),
        (vec![7; 32], Lookalike::Key, "key"),
        (b"0123456789abcdefABCDEF0123456789".repeat(2), Lookalike::Key, "key"),
        ([&b"ab".repeat(32)[..], b"\r\n"].concat(), Lookalike::Key, "key"),
    ];
    for (bytes, expected, words) in cases {
        match SafetensorsHeader::read("m.safetensors", &bytes, &Limits::default()) {
            Err(ModelError::OtherFormat { found, .. }) => {
                assert_eq!(found, expected);
                assert!(found.to_string().contains(words), "{found}");
            }
            other => panic!("{expected:?}: {other:?}"),
        }
    }
}

/// P156: what is taken for a model file may be a key, a token or a list of passwords.
#[test]
fn no_error_quotes_a_file_that_is_no_model() {
    let secrets = [
        "root:$6$abcsalt$hashhash:20228:0:99999:7:::\nsecond",
        r#"{"token":"hashhash"}"#,
        "hashhashhashhashhashhashhashhash",
        "-----BEGIN PRIVATE KEY-----\nhashhash\n",
        "<html>hashhash</html>",
    ];
    let raw = b"\x01\x02\x03\x04\x05\x06\x07\x08".repeat(4);
    for secret in secrets.map(str::as_bytes).into_iter().chain([&raw[..]]) {
        let Err(error) = SafetensorsHeader::read("m", secret, &Limits::default()) else {
            panic!("a secret is no model")
        };
        let shown = format!("{error} {error:?}");
        // The first eight bytes, as the length that they would be.
        let as_number = u64::from_le_bytes(secret[..8].try_into().unwrap()).to_string();
        for part in ["hashhash", "abcsalt", "BEGIN", &as_number] {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}

#[test]
fn a_path_is_shown_whole_however_long_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshots".repeat(20)).join("model-00002-of-00002.safetensors");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let limits = Limits::default();
    let shown = || ModelFile::open(&path, &limits).unwrap_err().to_string();
    assert!(shown().contains(path.to_str().unwrap()));
    std::fs::File::create(&path).unwrap().write_all(b"not a model").unwrap();
    assert!(shown().contains(path.to_str().unwrap()));
}
