//! GGUF files: every type, and one test for each rule, each with a file that breaks only that rule.

use core::cell::Cell;
use std::io;

use vram_alloc::{BlockFormat, Dtype, TensorFormat, tensor_bytes};
use vram_model::gguf::{GgufArray, GgufType};
use vram_model::synth::SynthGguf;
use vram_model::{
    FileHeader, GgufHeader, GgufProblem, GgufValue, Limits, ModelError, ModelOptions, ReadAt,
};

/// A file put together byte by byte.
#[derive(Clone, Debug)]
struct Raw {
    version: u32,
    tensor_count: Option<u64>,
    key_count: Option<u64>,
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

fn text(text: &[u8]) -> Vec<u8> {
    [&u64::try_from(text.len()).unwrap().to_le_bytes(), text].concat()
}

fn key(name: &[u8], of: u32, value: &[u8]) -> Vec<u8> {
    [&text(name)[..], &of.to_le_bytes(), value].concat()
}

fn tensor(name: &[u8], dims: &[u64], of: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend_from_slice(&u32::try_from(dims.len()).unwrap().to_le_bytes());
    for dim in dims {
        bytes.extend_from_slice(&dim.to_le_bytes());
    }
    bytes.extend_from_slice(&of.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes
}

impl Raw {
    /// A sound file: one key, two tensors of 4 and 12 bytes.
    fn sound() -> Self {
        Self {
            version: 3,
            tensor_count: None,
            key_count: None,
            keys: vec![key(b"general.name", 8, &text(b"tiny"))],
            tensors: vec![tensor(b"a", &[1], 0, 0), tensor(b"b", &[3, 2], 1, 32)],
            data: 44,
        }
    }

    fn keys(keys: Vec<Vec<u8>>) -> Self {
        Self { keys, ..Self::sound() }
    }

    fn tensors(tensors: Vec<Vec<u8>>, data: usize) -> Self {
        Self { tensors, data, ..Self::sound() }
    }

    fn bytes(&self) -> Vec<u8> {
        let count = |given: Option<u64>, len: usize| given.unwrap_or(u64::try_from(len).unwrap());
        let mut bytes = b"GGUF".to_vec();
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&count(self.tensor_count, self.tensors.len()).to_le_bytes());
        bytes.extend_from_slice(&count(self.key_count, self.keys.len()).to_le_bytes());
        self.keys.iter().chain(&self.tensors).for_each(|part| bytes.extend_from_slice(part));
        if self.data > 0 {
            bytes.resize(bytes.len().next_multiple_of(32) + self.data, 7);
        }
        bytes
    }
}

fn read(file: &Raw) -> Result<GgufHeader, ModelError> {
    GgufHeader::read("m.gguf", &file.bytes(), &Limits::default())
}

#[track_caller]
fn problem(file: &Raw) -> GgufProblem {
    problem_of(&file.bytes())
}

#[track_caller]
fn problem_of(bytes: &[u8]) -> GgufProblem {
    match GgufHeader::read("m.gguf", bytes, &Limits::default()) {
        Err(ModelError::Gguf { file, problem }) => {
            assert_eq!(file, "m.gguf");
            assert!(problem.to_string().len() < 1000, "{problem}");
            *problem
        }
        other => panic!("{other:?}"),
    }
}

/// A file of any length of which only the beginning has bytes, and how many of them were read.
struct Counted {
    head: Vec<u8>,
    len: u64,
    read: Cell<u64>,
}

impl ReadAt for Counted {
    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let len = u64::try_from(target.len()).unwrap();
        self.read.set(self.read.get() + len);
        assert!(offset + len <= self.len);
        target.fill(0);
        let from = usize::try_from(offset).unwrap().min(self.head.len());
        for (byte, stored) in target.iter_mut().zip(&self.head[from..]) {
            *byte = *stored;
        }
        Ok(())
    }
}

/// Reads a file that claims to be a TiB, and refuses it after at most `most` bytes.
#[track_caller]
fn refused_after(file: &Raw, most: u64) -> GgufProblem {
    let source = Counted { head: file.bytes(), len: 1 << 40, read: Cell::new(0) };
    let refused = GgufHeader::read("m.gguf", &source, &Limits::default());
    assert!(source.read.get() <= most, "{} bytes were read", source.read.get());
    match refused {
        Err(ModelError::Gguf { problem, .. }) => *problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_file_of_either_version_is_read() {
    for version in [2, 3] {
        let header = read(&Raw { version, ..Raw::sound() }).unwrap();
        assert_eq!((header.version(), header.alignment()), (version, 32));
        let found: Vec<_> = header.tensors().iter().map(|t| (&*t.name, &t.shape[..])).collect();
        // The file has the fastest dimension first.
        assert_eq!(found, [("a", &[1][..]), ("b", &[2, 3])]);
        let places: Vec<_> = header.tensors().iter().map(|t| t.file_offset % 32).collect();
        assert_eq!(places, [0, 0]);
        assert_eq!(header.tensors()[1].file_offset - header.tensors()[0].file_offset, 32);
        assert_eq!(header.metadata()["general.name"].as_text(), Some("tiny"));
        assert!(header.missing().is_zero());
        assert!(header.unused().get() >= 28, "the padding");
    }
}

#[test]
fn every_type_of_value_is_read_alone_and_in_a_list() {
    let scalars: [(u32, Vec<u8>, GgufValue, &str); 12] = [
        (0, vec![200], GgufValue::Unsigned(200), "200"),
        (1, vec![0xff], GgufValue::Signed(-1), "-1"),
        (2, vec![1, 2], GgufValue::Unsigned(513), "513"),
        (3, vec![0xfe, 0xff], GgufValue::Signed(-2), "-2"),
        (4, vec![0xff; 4], GgufValue::Unsigned(u32::MAX.into()), "4294967295"),
        (5, vec![0xff; 4], GgufValue::Signed(-1), "-1"),
        (6, 1.5_f32.to_le_bytes().to_vec(), GgufValue::F32(1.5), "1.5"),
        (7, vec![1], GgufValue::Bool(true), "true"),
        (8, text(b"a\xffb"), GgufValue::Text("a\u{fffd}b".to_owned()), "a\u{fffd}b"),
        (10, vec![0xff; 8], GgufValue::Unsigned(u64::MAX), "18446744073709551615"),
        (11, vec![0xff; 8], GgufValue::Signed(-1), "-1"),
        (12, 0.25_f64.to_le_bytes().to_vec(), GgufValue::F64(0.25), "0.25"),
    ];
    for (of, bytes, value, shown) in scalars {
        let header = read(&Raw::keys(vec![key(b"k", of, &bytes)])).unwrap();
        assert_eq!((&header.metadata()["k"], &*value.to_string()), (&value, shown));

        // Longer than what is kept, and than one window of truth values.
        for count in [0_u64, 1, 16, 17, 9000] {
            let list = [&of.to_le_bytes()[..], &count.to_le_bytes()].concat();
            let list = [list, bytes.repeat(usize::try_from(count).unwrap())].concat();
            let header = read(&Raw::keys(vec![key(b"k", 9, &list)])).unwrap();
            let GgufValue::Array(found) = &header.metadata()["k"] else { panic!("no list") };
            assert_eq!((found.of.number(), found.len), (of, count));
            assert_eq!(found.first.len(), usize::try_from(count.min(16)).unwrap());
            assert!(found.first.iter().all(|one| *one == value));
            let said = header.metadata()["k"].to_string();
            assert_eq!(said.contains(&format!("… {count} of type")), count > 16, "{said}");
        }
    }
}

#[test]
fn lists_in_lists_are_passed_over_to_a_fixed_depth() {
    let nested = |depth: usize| {
        let mut value = [&0_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), &[1, 2]].concat();
        for _ in 1..depth {
            value = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &value].concat();
        }
        Raw::keys(vec![key(b"k", 9, &value), key(b"after", 4, &[7, 0, 0, 0])])
    };
    for depth in 1..=8 {
        let header = read(&nested(depth)).unwrap();
        assert_eq!(header.metadata()["after"], GgufValue::Unsigned(7), "{depth}");
    }
    assert!(matches!(problem(&nested(9)), GgufProblem::Nested { max: 8, .. }));
    assert!(matches!(problem(&nested(5000)), GgufProblem::Nested { .. }));
}

#[test]
fn every_tensor_type_has_its_size() {
    let plain = Dtype::ALL.iter().map(|dtype| TensorFormat::Plain(*dtype));
    let block = BlockFormat::ALL.iter().map(|format| TensorFormat::Block(*format));
    let formats: Vec<_> =
        plain.chain(block).filter(|format| format.ggml_type().is_some()).collect();
    assert_eq!(formats.len(), 35);
    let mut file = SynthGguf::new(1);
    for format in &formats {
        let row = match format {
            TensorFormat::Block(block) => block.block_len() * 3,
            _ => 5,
        };
        file = file.tensor(format.name(), *format, [2, row]);
    }
    let mut bytes = Vec::new();
    file.write_to(&mut bytes).unwrap();
    let header = GgufHeader::read("m.gguf", &bytes, &Limits::default()).unwrap();
    let mut end = header.data_offset();
    for (tensor, format) in header.tensors().iter().zip(&formats) {
        assert_eq!((&tensor.format, &*tensor.name), (format, format.name()));
        assert_eq!(tensor.len, tensor_bytes(*format, &tensor.shape).unwrap());
        assert_eq!(tensor.file_offset, end.next_multiple_of(32));
        end = tensor.file_offset + tensor.len.get();
    }
    assert_eq!(end.next_multiple_of(32), header.file_len().get());
    // A row that ends inside a block; numbers that were withdrawn, and that nobody has.
    let half = Raw::tensors(vec![tensor(b"a", &[33], 2, 0)], 64);
    assert!(matches!(problem(&half), GgufProblem::Shape { format: "Q4_0", .. }));
    for number in [4, 5, 9999, 31, 36, u32::MAX] {
        if TensorFormat::from_ggml_type(number).is_none() {
            let file = Raw::tensors(vec![tensor(b"a", &[32], number, 0)], 64);
            assert!(matches!(problem(&file), GgufProblem::TensorType { .. }), "{number}");
        }
    }
}

#[test]
fn other_versions_and_byte_orders_are_refused_in_words() {
    for version in [0, 1, 4, u32::MAX] {
        let refused = problem(&Raw { version, ..Raw::sound() });
        assert!(matches!(refused, GgufProblem::Version { .. }), "{refused}");
    }
    for version in [1_u32, 2, 3] {
        let refused = problem(&Raw { version: version.swap_bytes(), ..Raw::sound() });
        assert_eq!(refused, GgufProblem::BigEndian);
    }
    assert_eq!(problem_of(b"GGUT\x03\0\0\0"), GgufProblem::Magic);
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let bytes = Raw::sound().bytes();
    for len in 0..bytes.len() {
        match problem_of(&bytes[..len]) {
            GgufProblem::Cut { .. }
            | GgufProblem::Truncated { .. }
            | GgufProblem::CountBeyondFile { .. } => {}
            other => panic!("{len}: {other}"),
        }
    }
    // Headers alone, if that is asked for.
    let header_len = read(&Raw::sound()).unwrap().header_len().to_usize().unwrap();
    let options = ModelOptions::default().headers_only(true);
    for len in header_len..bytes.len() {
        let header = GgufHeader::read_with("m", &bytes[..len], &options).unwrap();
        assert_eq!(header.missing().to_usize().unwrap(), bytes.len() - len);
    }
    assert!(GgufHeader::read_with("m", &bytes[..header_len - 1], &options).is_err());
}

#[test]
fn counts_that_lie_cost_nothing() {
    const WINDOW: u64 = 64 << 10;
    let sound = Raw::sound();
    for count in [1_000_000, 1 << 40, u64::MAX] {
        let keys = Raw { key_count: Some(count), ..sound.clone() };
        assert!(matches!(refused_after(&keys, WINDOW), GgufProblem::TooMuchMetadata { .. }));
        let tensors = Raw { tensor_count: Some(count), ..sound.clone() };
        assert!(matches!(refused_after(&tensors, WINDOW), GgufProblem::TooManyTensors { .. }));
    }
    // Within the limits, and more than the file has bytes for.
    let keys = Raw { key_count: Some(60_000), ..sound.clone() };
    assert!(matches!(problem(&keys), GgufProblem::CountBeyondFile { count: 60_000, .. }));
    let tensors = Raw { tensor_count: Some(200_000), ..sound };
    assert!(matches!(problem(&tensors), GgufProblem::CountBeyondFile { .. }));

    let long = u64::MAX.to_le_bytes();
    let value = |of: u32, value: &[u8]| Raw::keys(vec![key(b"k", of, value)]);
    assert!(matches!(refused_after(&value(8, &long), WINDOW), GgufProblem::Cut { .. }));
    // A text that the file could have, and that no header may.
    let longer = 200_000_000_u64.to_le_bytes();
    assert!(matches!(refused_after(&value(8, &longer), WINDOW), GgufProblem::HeaderTooLong { .. }));
    for of in 0..=12_u32 {
        let list = [&of.to_le_bytes()[..], &long].concat();
        let refused = refused_after(&value(9, &list), WINDOW);
        assert!(matches!(refused, GgufProblem::CountBeyondFile { .. }), "{of}: {refused}");
        let list = [&of.to_le_bytes()[..], &(1_u64 << 35).to_le_bytes()].concat();
        let refused = refused_after(&value(9, &list), 120_000_000);
        let fine = match of {
            // What follows are no values of these types.
            7 => matches!(refused, GgufProblem::TruthValue { .. }),
            9 => true,
            _ => matches!(refused, GgufProblem::HeaderTooLong { .. }),
        };
        assert!(fine, "{of}: {refused}");
    }
    let named = [&long[..], b"name"].concat();
    assert!(matches!(
        refused_after(&Raw { keys: vec![named.clone()], ..Raw::sound() }, WINDOW),
        GgufProblem::NameTooLong { what: "key", .. }
    ));
    assert!(matches!(
        refused_after(&Raw::tensors(vec![named], 0), WINDOW),
        GgufProblem::NameTooLong { .. }
    ));
    let ranked = [&text(b"a")[..], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(
        refused_after(&Raw::tensors(vec![ranked], 0), WINDOW),
        GgufProblem::RankTooHigh { rank: u32::MAX, .. }
    ));
}

#[test]
fn a_million_keys_are_refused_at_once_and_read_if_that_is_asked_for() {
    let keys: Vec<_> =
        (0..1_000_000_u32).map(|number| key(format!("k{number}").as_bytes(), 0, &[1])).collect();
    let bytes = Raw::keys(keys).bytes();
    let source =
        Counted { len: u64::try_from(bytes.len()).unwrap(), head: bytes, read: Cell::new(0) };
    let refused = GgufHeader::read("m", &source, &Limits::default());
    assert!(refused.is_err_and(|error| error.to_string().contains("1000000 keys")));
    assert!(source.read.get() <= 64 << 10);
    let limits = Limits::default().with_metadata_count_max(1_000_000);
    let header = GgufHeader::read("m", &source, &limits).unwrap();
    assert_eq!(header.metadata().len(), 1_000_000);
    // Each byte once, and the last window.
    assert!(source.read.get() <= source.len + (64 << 10) * 3, "{}", source.read.get());
}

#[test]
fn names_and_keys_are_utf_8_within_the_limit_and_stand_once() {
    let twice = Raw::keys(vec![key(b"k", 0, &[1]), key(b"k", 0, &[1])]);
    assert_eq!(problem(&twice), GgufProblem::DuplicateKey { key: "k".to_owned() });
    let twice = Raw::tensors(vec![tensor(b"a", &[1], 0, 0), tensor(b"a", &[1], 0, 32)], 64);
    assert_eq!(problem(&twice), GgufProblem::DuplicateName { tensor: "a".to_owned() });
    assert!(matches!(
        problem(&Raw::keys(vec![key(b"\xff", 0, &[1])])),
        GgufProblem::NotText { .. }
    ));
    let bytes = Raw::tensors(vec![tensor(b"\xff", &[1], 0, 0)], 4);
    assert!(matches!(problem(&bytes), GgufProblem::NotText { .. }));

    let long = [b'x'; 1025];
    assert!(matches!(
        problem(&Raw::keys(vec![key(&long, 0, &[1])])),
        GgufProblem::NameTooLong { .. }
    ));
    let file = Raw::tensors(vec![tensor(&long, &[1; 65], 0, 0)], 4);
    assert!(matches!(problem(&file), GgufProblem::NameTooLong { max: 1024, .. }));
    let limits = Limits::default().with_name_len_max(2000);
    let refused = GgufHeader::read("m", &file.bytes(), &limits).unwrap_err();
    assert!(refused.to_string().contains("65 dimensions, more than 64"), "{refused}");
    assert!(GgufHeader::read("m", &file.bytes(), &limits.with_rank_max(65)).is_ok());
    let limits = Limits::default().with_header_len_max(vram_alloc::ByteLen::new(100));
    let refused = GgufHeader::read("m", &Raw::sound().bytes(), &limits).unwrap_err();
    assert!(refused.to_string().contains("longer than 100 bytes"), "{refused}");
}

#[test]
fn values_of_no_type_and_truth_that_is_neither_are_refused() {
    for of in [13, 99, u32::MAX] {
        let file = Raw::keys(vec![key(b"k", of, &[0; 8])]);
        assert!(matches!(problem(&file), GgufProblem::ValueType { number, .. } if number == of));
        let list = [&of.to_le_bytes()[..], &1_u64.to_le_bytes(), &[0; 8]].concat();
        let file = Raw::keys(vec![key(b"k", 9, &list)]);
        assert!(matches!(problem(&file), GgufProblem::ValueType { number, .. } if number == of));
    }
    assert!(matches!(
        problem(&Raw::keys(vec![key(b"k", 7, &[2])])),
        GgufProblem::TruthValue { .. }
    ));
    let list = [&7_u32.to_le_bytes()[..], &5000_u64.to_le_bytes(), &[1; 4999], &[2]].concat();
    let file = Raw::keys(vec![key(b"k", 9, &list)]);
    assert!(matches!(problem(&file), GgufProblem::TruthValue { byte: 2, .. }));
}

#[test]
fn the_alignment_is_a_power_of_two_of_32_bits() {
    for alignment in [1_u32, 8, 64, 4096] {
        let mut bytes = Vec::new();
        let tensor = TensorFormat::Plain(Dtype::U8);
        assert!(tensor.ggml_type().is_none());
        let tensor = TensorFormat::Plain(Dtype::I8);
        let file = SynthGguf::new(1).alignment(alignment);
        let file = file.tensor("a", tensor, [3]).tensor("b", tensor, [3]);
        file.write_to(&mut bytes).unwrap();
        let header = GgufHeader::read("m", &bytes, &Limits::default()).unwrap();
        assert_eq!(header.alignment(), u64::from(alignment));
        let [a, b] = header.tensors() else { panic!("two tensors") };
        assert_eq!(b.file_offset - a.file_offset, u64::from(alignment).max(3));
    }
    for (of, value) in [
        (4, vec![0, 0, 0, 0]),
        (4, vec![3, 0, 0, 0]),
        (4, vec![24, 0, 0, 0]),
        (8, text(b"32")),
        (6, 32_f32.to_le_bytes().to_vec()),
        (10, (1_u64 << 32).to_le_bytes().to_vec()),
    ] {
        let file = Raw::keys(vec![key(b"general.alignment", of, &value)]);
        assert!(matches!(problem(&file), GgufProblem::Alignment { .. }), "{of}");
    }
}

#[test]
fn tensors_lie_in_the_file_aligned_and_apart() {
    let two = |offset, data| {
        Raw::tensors(vec![tensor(b"a", &[9], 0, 0), tensor(b"b", &[1], 0, offset)], data)
    };
    assert!(read(&two(64, 68)).is_ok());
    assert!(
        matches!(problem(&two(32, 68)), GgufProblem::Overlap { other_end, .. } if other_end > 0)
    );
    assert!(matches!(problem(&two(0, 68)), GgufProblem::Overlap { .. }));
    assert!(matches!(problem(&two(36, 68)), GgufProblem::Misaligned { offset: 36, .. }));
    assert!(matches!(problem(&two(64, 67)), GgufProblem::Truncated { .. }));
    assert!(matches!(problem(&two(u64::MAX - 31, 68)), GgufProblem::Overflow { .. }));
    assert!(matches!(problem(&two(1 << 62, 68)), GgufProblem::Truncated { .. }));
    // The order of the table is not that of the bytes.
    let file = Raw::tensors(vec![tensor(b"z", &[1], 0, 32), tensor(b"a", &[1], 0, 0)], 36);
    let header = read(&file).unwrap();
    let names: Vec<_> = header.tensors().iter().map(|tensor| &*tensor.name).collect();
    assert_eq!(names, ["a", "z"]);
    for dims in [&[u64::MAX, 2][..], &[1 << 40, 1 << 40], &[u64::MAX]] {
        let file = Raw::tensors(vec![tensor(b"a", dims, 0, 0)], 4);
        assert!(matches!(problem(&file), GgufProblem::Shape { .. }), "{dims:?}");
    }
    // Empty tensors lie anywhere, also where others begin.
    let file = Raw::tensors(vec![tensor(b"e", &[0], 0, 0), tensor(b"a", &[1], 0, 0)], 4);
    assert_eq!(read(&file).unwrap().tensors().len(), 2);
}

#[test]
fn a_file_without_tensors_needs_no_data_section() {
    let file = Raw { data: 0, ..Raw::tensors(Vec::new(), 0) };
    let header = read(&file).unwrap();
    assert!(header.tensors().is_empty() && header.unused().is_zero());
    assert!(header.data_offset() >= header.file_len().get());
    // Bytes of no tensor are counted.
    let header = read(&Raw { data: 100, ..file }).unwrap();
    assert!(header.unused().get() >= 100);
}

#[test]
fn the_first_bytes_tell_the_format() {
    let options = ModelOptions::default();
    let header = FileHeader::read("m", &Raw::sound().bytes(), &options).unwrap();
    assert_eq!((header.format(), header.tensors().len()), ("gguf", 2));
    assert_eq!(header.texts(), [("general.name", "tiny".to_owned())]);
    let other = FileHeader::read("m", &b"nothing of the kind"[..], &options);
    assert!(matches!(other, Err(ModelError::OtherFormat { .. })));
}

#[test]
fn a_value_that_is_written_is_read_back() {
    let list = GgufArray::of(GgufType::Text, vec![GgufValue::Text("<s>".to_owned()); 3]);
    let values = [
        ("a", GgufValue::Unsigned(1 << 40)),
        ("b", GgufValue::Signed(-5)),
        ("c", GgufValue::F32(0.1)),
        ("d", GgufValue::Bool(false)),
        ("e", GgufValue::Text("\u{1b}[2J".to_owned())),
    ];
    let file =
        values.iter().fold(SynthGguf::new(1), |file, (key, value)| file.key(*key, value.clone()));
    let bytes = file.key("f", GgufValue::Array(list)).header().unwrap();
    let header = GgufHeader::read("m", &bytes, &Limits::default()).unwrap();
    for (key, value) in values {
        assert_eq!(header.metadata()[key], value);
    }
    assert_eq!(header.metadata()["f"].to_string(), r#"["<s>", "<s>", "<s>"]"#);
}
