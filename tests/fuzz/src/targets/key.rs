//! Keys as text and as files: exactly the documented forms are read, and no refusal shows a byte.

use vram_residency::KeySource;
use vram_seal::{KeyError, KeyId, SealKey};

use crate::Target;
use crate::choices::Choices;
use crate::specimens::hex;

/// The target.
pub const TARGET: Target = Target {
    name: "key",
    promise: "exactly the documented forms of a key are read, and no refusal shows a byte",
    run,
    seeds,
    len_max: 200,
    cases: 100_000,
};

/// The 32 bytes that 64 digits spell.
fn spelled(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).unwrap();
    }
    Some(bytes)
}

/// What the documentation says of the content of a key file.
fn reference(content: &[u8]) -> Option<[u8; 32]> {
    let bytes = match <[u8; 32]>::try_from(content) {
        Ok(raw) if raw.iter().all(u8::is_ascii_hexdigit) => None,
        Ok(raw) => Some(raw),
        Err(_) => spelled(content.strip_suffix(b"\n").unwrap_or(content)),
    };
    bytes.filter(|bytes| *bytes != [0; 32])
}

fn compare(answer: Result<SealKey, KeyError>, wanted: Option<[u8; 32]>, content: &[u8]) {
    match answer {
        Ok(key) => {
            let Some(wanted) = wanted else {
                panic!("a form that is not documented is read as a key");
            };
            assert_eq!(key.expose_hex().as_bytes(), hex(&wanted).as_bytes());
            assert_eq!(SealKey::from_bytes(&wanted).id(), key.id());
            assert!(!format!("{key:?}").contains(&hex(&wanted)[..16]));
            assert_eq!(key.id().to_string().parse::<KeyId>(), Ok(key.id()));
        }
        Err(error) => {
            assert_eq!(wanted, None, "a documented form is refused: {error}");
            // A refusal says the same for all contents of one length.
            let len = content.len();
            let said = [
                KeyError::NotHex { found: len },
                KeyError::NotAKeyFile { found: len },
                KeyError::HalfAKey,
                KeyError::AllZero,
            ];
            assert!(said.contains(&error), "{error:?}");
        }
    }
}

fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.byte() % 4 {
        0 => {
            let content = choices.rest();
            compare(SealKey::from_key_file_bytes(content), reference(content), content);
        }
        1 => {
            let content = choices.rest();
            if let Ok(text) = core::str::from_utf8(content) {
                let wanted = spelled(content).filter(|bytes| *bytes != [0; 32]);
                compare(SealKey::from_hex(text), wanted, content);
                let id = text.parse::<KeyId>();
                let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                assert_eq!(id.is_ok(), digits);
                assert!(id.is_err() || id.unwrap().to_string() == text.to_ascii_lowercase());
            }
        }
        2 => {
            // Raw bytes, spelled: any case, with and without a newline.
            let mut text = hex(choices.take(32)).into_bytes();
            if choices.byte() & 1 == 1 {
                text.make_ascii_uppercase();
            }
            text.extend_from_slice(choices.rest());
            compare(SealKey::from_key_file_bytes(&text), reference(&text), &text);
        }
        _ => {
            let mut bytes = [0; 32];
            let taken = choices.take(32);
            bytes[..taken.len()].copy_from_slice(taken);
            let loaded = KeySource::bytes(&bytes).load();
            assert_eq!(loaded.is_ok(), bytes != [0; 32]);
            if let Ok(key) = loaded {
                assert_eq!(key.id(), SealKey::from_bytes(&bytes).id());
            }
        }
    }
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let digits = "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100";
    let file = |content: &[u8]| [&[0][..], content].concat();
    vec![
        ("digits", file(digits.as_bytes())),
        ("digits-and-newline", file(format!("{digits}\n").as_bytes())),
        ("two-newlines", file(format!("{digits}\n\n").as_bytes())),
        ("windows-newline", file(format!("{digits}\r\n").as_bytes())),
        ("half", file(&digits.as_bytes()[..32])),
        ("raw", file(&[0x80; 32])),
        ("zeros", file(&[0; 32])),
        ("zero-digits", file(&[b'0'; 64])),
        ("text", [&[1], digits.as_bytes()].concat()),
        ("key-id", [&[1], &digits.as_bytes()[..32]].concat()),
        ("spelled", [&[2][..], &[7; 32], &[1], b"\n"].concat()),
        ("bytes", [&[3][..], &[7; 32]].concat()),
    ]
}
