//! One test for each rule of the format, each with a file that breaks only that rule.

use core::fmt::Write as _;
use std::io::Write as _;

use vram_alloc::{ByteLen, Dtype, TensorFormat};
use vram_model::{HeaderProblem, Limits, ModelError, ModelFile, SafetensorsHeader, plan, plan_of};

/// A file of the given header text and as many data bytes.
fn file(text: &str, data_len: usize) -> Vec<u8> {
    let mut bytes = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(bytes.len() + data_len, 0xa5);
    bytes
}

fn read(bytes: &[u8]) -> Result<SafetensorsHeader, ModelError> {
    SafetensorsHeader::read("m.safetensors", bytes, &Limits::default())
}

#[track_caller]
fn problem(text: &str, data_len: usize) -> HeaderProblem {
    refusal(&file(text, data_len), &Limits::default())
}

#[track_caller]
fn refusal(bytes: &[u8], limits: &Limits) -> HeaderProblem {
    match SafetensorsHeader::read("m.safetensors", bytes, limits) {
        Err(ModelError::Header { file, problem }) => {
            assert_eq!(file, "m.safetensors");
            problem
        }
        other => panic!("{other:?}"),
    }
}

fn bytes(len: u64) -> ByteLen {
    ByteLen::new(len)
}

#[test]
fn a_sound_file_gives_its_tensors_in_the_order_of_their_bytes() {
    let text = r#"{"b":{"dtype":"F32","shape":[2,3],"data_offsets":[2,26]},
        "__metadata__":{"format":"pt","note":"x"},
        "a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},
        "z":{"dtype":"U8","shape":[0,7],"data_offsets":[2,2]}}  "#;
    let header = read(&file(text, 26)).unwrap();
    let start = 8 + u64::try_from(text.len()).unwrap();
    let found: Vec<_> = header
        .tensors()
        .iter()
        .map(|t| (t.name.as_str(), t.format, t.shape.clone(), t.file_offset - start, t.len.get()))
        .collect();
    assert_eq!(
        found,
        [
            ("a", TensorFormat::Plain(Dtype::BF16), vec![], 0, 2),
            ("z", TensorFormat::Plain(Dtype::U8), vec![0, 7], 2, 0),
            ("b", TensorFormat::Plain(Dtype::F32), vec![2, 3], 2, 24)
        ]
    );
    assert_eq!(header.metadata().get("format").map(String::as_str), Some("pt"));
    assert_eq!(header.data_offset(), start);
    assert_eq!(header.data_len(), bytes(26));
    assert_eq!(header.file_len(), bytes(start + 26));
}

#[test]
fn a_file_without_tensors_is_sound_and_plans_to_nothing() {
    for text in ["{}", "{}      ", r#"{"__metadata__":{}}"#] {
        let header = read(&file(text, 0)).unwrap();
        assert!(header.tensors().is_empty());
        assert!(plan_of([&header]).unwrap().is_empty());
    }
}

#[test]
fn a_file_shorter_than_its_length_field_is_refused() {
    for len in 1..8_u64 {
        let short = vec![0; usize::try_from(len).unwrap()];
        let found = refusal(&short, &Limits::default());
        assert_eq!(found, HeaderProblem::TooShort { file_len: bytes(len) });
    }
}

#[test]
fn a_header_longer_than_the_limit_or_the_file_is_refused_before_it_is_read() {
    let mut huge = file("{}", 0);
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(
        refusal(&huge, &Limits::default()),
        HeaderProblem::HeaderTooLong { header_len, .. } if header_len == bytes(u64::MAX)
    ));
    huge[..8].copy_from_slice(&3_u64.to_le_bytes());
    assert_eq!(
        refusal(&huge, &Limits::default()),
        HeaderProblem::HeaderBeyondFile { header_len: bytes(3), file_len: bytes(10) }
    );
    // 99 MB are within the format's limit, but not within a file of ten bytes.
    huge[..8].copy_from_slice(&99_000_000_u64.to_le_bytes());
    assert!(matches!(refusal(&huge, &Limits::default()), HeaderProblem::HeaderBeyondFile { .. }));
    let limits = Limits::default().with_header_len_max(bytes(1));
    assert!(matches!(
        refusal(&file("{}", 0), &limits),
        HeaderProblem::HeaderTooLong { max, .. } if max == bytes(1)
    ));
}

#[test]
fn a_header_that_is_no_json_object_is_refused() {
    for text in ["", "[]", " {}", "null", "\u{feff}{}"] {
        assert_eq!(problem(text, 0), HeaderProblem::NotAnObject, "{text:?}");
    }
    for text in [
        "{",
        "{}{}",
        "{\"a\"}",
        r#"{"a":1}"#,
        r#"{"a":{}}"#,
        r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}}"#,
        r#"{"__metadata__":{"a":1}}"#,
        r#"{"__metadata__":null}"#,
    ] {
        assert!(matches!(problem(text, 0), HeaderProblem::Json { .. }), "{text:?}");
    }
    let mut not_utf8 = file(r#"{"a":"b"}"#, 0);
    not_utf8[10] = 0xff;
    assert!(matches!(refusal(&not_utf8, &Limits::default()), HeaderProblem::Json { .. }));
}

#[test]
fn an_error_in_one_tensor_names_that_tensor() {
    let text = r#"{"layer.7":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#;
    assert!(problem(text, 4).to_string().contains("layer.7"));
}

#[test]
fn deep_json_is_refused_and_does_not_exhaust_the_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!(
            "{{\"a\":{{\"extra\":{}1{},\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}}}",
            open.repeat(200_000),
            close.repeat(200_000)
        );
        // Refused or skipped, as the reader decides; never a crash.
        let _ = read(&file(&deep, 1));
        let deep = format!("{{\"a\":{}", open.repeat(200_000));
        assert!(matches!(problem(&deep, 0), HeaderProblem::Json { .. }));
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let same = r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},
        "a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    assert_eq!(problem(same, 0), HeaderProblem::DuplicateName { name: "a".into() });
    let twice = r#"{"__metadata__":{},"__metadata__":{}}"#;
    assert!(matches!(problem(twice, 0), HeaderProblem::DuplicateName { .. }));
    let inside = r#"{"__metadata__":{"k":"1","k":"2"}}"#;
    assert_eq!(problem(inside, 0), HeaderProblem::DuplicateName { name: "k".into() });
}

#[test]
fn counts_and_names_are_limited() {
    let limits = Limits::default().with_tensor_count_max(1);
    let two = r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},
        "b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    assert_eq!(refusal(&file(two, 0), &limits), HeaderProblem::TooManyTensors { max: 1 });

    let limits = Limits::default().with_name_len_max(3);
    let long = r#"{"abcd":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    assert!(matches!(refusal(&file(long, 0), &limits), HeaderProblem::NameTooLong { max: 3, .. }));

    let limits = Limits::default().with_metadata_count_max(1);
    let much = r#"{"__metadata__":{"a":"","b":""}}"#;
    assert_eq!(refusal(&file(much, 0), &limits), HeaderProblem::TooMuchMetadata { max: 1 });

    let dims = vec!["1"; 65].join(",");
    let high = format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{dims}],\"data_offsets\":[0,1]}}}}");
    assert!(problem(&high, 1).to_string().contains("64 dimensions"));
    let dims = vec!["1"; 64].join(",");
    let fine = format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{dims}],\"data_offsets\":[0,1]}}}}");
    assert!(read(&file(&fine, 1)).is_ok());
}

#[test]
fn offsets_that_run_backwards_are_refused() {
    let text = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#;
    assert_eq!(problem(text, 4), HeaderProblem::Reversed { tensor: "a".into(), start: 4, end: 0 });
}

#[test]
fn offsets_that_disagree_with_dtype_and_shape_are_refused() {
    let text = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,15]}}"#;
    assert!(matches!(
        problem(text, 15),
        HeaderProblem::WrongLength { needed, found, .. }
            if needed == bytes(16) && found == bytes(15)
    ));
}

#[test]
fn a_shape_that_overflows_or_splits_a_byte_is_refused() {
    for text in [
        r#"{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"U8","shape":[18446744073709551615,2],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#,
    ] {
        assert!(matches!(problem(text, 1), HeaderProblem::Shape { .. }), "{text}");
    }
}

#[test]
fn tensors_that_share_bytes_are_refused_and_both_are_named() {
    let text = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
        "b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}}"#;
    assert_eq!(
        problem(text, 7),
        HeaderProblem::Overlap { tensor: "b".into(), start: 3, other: "a".into(), other_end: 4 }
    );
}

#[test]
fn bytes_that_belong_to_no_tensor_are_refused() {
    let first = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}"#;
    assert_eq!(
        problem(first, 5),
        HeaderProblem::Hole { tensor: "a".into(), from: 0, gap: bytes(1) }
    );
    let between = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
        "b":{"dtype":"U8","shape":[1],"data_offsets":[6,7]}}"#;
    assert_eq!(
        problem(between, 7),
        HeaderProblem::Hole { tensor: "b".into(), from: 4, gap: bytes(2) }
    );
}

#[test]
fn a_file_that_ends_early_or_late_is_refused_with_both_lengths() {
    let text = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let start = 8 + u64::try_from(text.len()).unwrap();
    assert_eq!(
        problem(text, 3),
        HeaderProblem::Truncated { needed: bytes(start + 4), file_len: bytes(start + 3) }
    );
    assert_eq!(
        problem(text, 5),
        HeaderProblem::TrailingBytes { needed: bytes(start + 4), file_len: bytes(start + 5) }
    );
}

#[test]
fn an_offset_far_beyond_the_file_or_at_the_end_of_the_number_range_is_refused() {
    let far = r#"{"a":{"dtype":"U8","shape":[1152921504606846976],
        "data_offsets":[0,1152921504606846976]}}"#;
    assert!(matches!(problem(far, 16), HeaderProblem::Truncated { .. }));
    // This number of bits does not fit in 64 bits, for any length of the file.
    let last = r#"{"a":{"dtype":"U8","shape":[18446744073709551615],
        "data_offsets":[0,18446744073709551615]}}"#;
    assert!(matches!(
        problem(last, 16),
        HeaderProblem::Truncated { .. } | HeaderProblem::Shape { .. }
    ));
}

#[test]
fn a_name_cannot_write_to_the_terminal() {
    let text = "{\"\\u001b[31mred\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}";
    let message = problem(text, 4).to_string();
    assert!(!message.contains('\u{1b}'), "{message:?}");
    assert!(message.contains("\\u{1b}[31mred"), "{message:?}");
}

#[test]
fn paths_that_lead_to_no_file_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.safetensors");
    let limits = Limits::default();
    match ModelFile::open(&missing, &limits) {
        Err(ModelError::Open { file, source }) => {
            assert!(file.ends_with("missing.safetensors"));
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(ModelFile::open(folder.path(), &limits), Err(ModelError::NotAFile { .. })));
    #[cfg(target_os = "linux")]
    assert!(matches!(ModelFile::open("/dev/zero", &limits), Err(ModelError::NotAFile { .. })));
}

#[test]
fn a_plan_of_two_files_numbers_them_and_refuses_a_tensor_in_both() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, len| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(&file(text, len)).unwrap();
        path
    };
    let a = write("a", r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
    let b = write("b", r#"{"y":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#, 3);
    let limits = Limits::default();

    let both = plan(&[&a, &b], &limits).unwrap();
    let pieces: Vec<_> = both.pieces().iter().map(|p| (p.name.as_str(), p.file, p.len)).collect();
    assert_eq!(pieces, [("x", 0, bytes(8)), ("y", 1, bytes(3))]);
    assert_eq!(both.total(), bytes(11));

    match plan(&[&a, &b, &a], &limits) {
        Err(ModelError::TensorInTwoFiles { tensor, first, second }) => {
            assert_eq!(tensor, "x");
            assert_eq!(first, second);
        }
        other => panic!("{other:?}"),
    }
}

/// A source that returns a length and then fails, as a file on a broken disk does.
#[test]
fn a_source_that_cannot_be_read_is_reported_with_position_and_length() {
    struct Broken;
    impl vram_model::ReadAt for Broken {
        fn byte_len(&self) -> std::io::Result<u64> {
            Ok(1000)
        }
        fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
            if offset == 0 && target.len() == 8 {
                target.copy_from_slice(&100_u64.to_le_bytes());
                return Ok(());
            }
            Err(std::io::Error::other("disk on fire"))
        }
    }
    match SafetensorsHeader::read("m", &Broken, &Limits::default()) {
        Err(ModelError::Read { offset: 8, wanted, source, .. }) => {
            assert_eq!(wanted, bytes(100));
            assert_eq!(source.to_string(), "disk on fire");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_dtype_of_the_reference_is_known_and_has_its_size() {
    let mut start = 0;
    let mut text = String::from("{");
    for dtype in Dtype::ALL {
        // Eight elements are whole bytes for every width.
        let end = start + u64::from(dtype.bits());
        let comma = if start == 0 { "" } else { "," };
        let name = dtype.name();
        write!(
            text,
            "{comma}\"{name}\":{{\"dtype\":\"{name}\",\"shape\":[8],\"data_offsets\":[{start},{end}]}}"
        )
        .unwrap();
        start = end;
    }
    text += "}";
    let file = file(&text, usize::try_from(start).unwrap());
    assert_eq!(read(&file).unwrap().tensors().len(), Dtype::ALL.len());
    // The reference reads the file, so names and widths match its own.
    let (_, reference) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(reference.tensors().len(), Dtype::ALL.len());
}
