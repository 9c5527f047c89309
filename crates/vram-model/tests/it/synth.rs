//! Generated models: the same bytes on every machine, through any writer.

use std::io::{self, Write};

use vram_alloc::{ByteLen, Dtype};
use vram_model::synth::{LlamaShape, SynthModel};
use vram_model::{HeaderProblem, Limits, ModelError, ModelFile};

/// FNV-1a: sufficient to detect a changed byte.
#[derive(Debug)]
struct Sum {
    hash: u64,
    len: u64,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            self.len = self.len.wrapping_add(1);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn sum(model: &SynthModel) -> Sum {
    let mut sum = Sum { hash: 0xcbf2_9ce4_8422_2325, len: 0 };
    model.write_to(&mut sum).unwrap();
    sum
}

#[test]
fn a_seed_gives_the_same_bytes_on_every_machine_and_version() {
    let shape = LlamaShape::about(ByteLen::MIB);
    let model = SynthModel::llama(&shape, 1).unwrap();
    let written = sum(&model);
    assert_eq!(written.len, model.file_len().get());
    assert_eq!(written.hash, FROZEN, "{:#x}", written.hash);
    assert_ne!(sum(&SynthModel::llama(&shape, 2).unwrap()).hash, FROZEN);
}

/// The sum of the model above, frozen when this test was written.
const FROZEN: u64 = 0x84e1_8ad9_60d7_3baf;

#[test]
fn a_file_is_written_once_and_never_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let model = SynthModel::llama(&LlamaShape::about(ByteLen::MIB), 3).unwrap();
    model.write_file(&path).unwrap();
    let header = ModelFile::read(&path, &Limits::default()).unwrap();
    assert_eq!(header.file_len(), model.file_len());
    assert_eq!(header.tensors().len(), model.tensor_count());
    assert_eq!(model.write_file(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn a_writer_that_fails_stops_the_writing_with_its_own_error() {
    struct Full(u64);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = u64::try_from(bytes.len()).unwrap();
            self.0 = self.0.checked_sub(len).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let model = SynthModel::llama(&LlamaShape::about(ByteLen::MIB), 3).unwrap();
    let error = model.write_to(Full(700_000)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn tensors_that_make_no_file_are_refused() {
    let refused = |tensors: Vec<(&str, Dtype, Vec<u64>)>| {
        let tensors = tensors.into_iter().map(|(name, dtype, shape)| (name.into(), dtype, shape));
        match SynthModel::new(tensors, 0) {
            Err(ModelError::Header { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(
        refused(vec![("a", Dtype::U8, vec![1]), ("a", Dtype::U8, vec![1])]),
        HeaderProblem::DuplicateName { .. }
    ));
    assert!(matches!(
        refused(vec![("a", Dtype::F64, vec![u64::MAX, 2])]),
        HeaderProblem::Shape { .. }
    ));
    assert!(matches!(refused(vec![("a", Dtype::F4, vec![3])]), HeaderProblem::Shape { .. }));
}
