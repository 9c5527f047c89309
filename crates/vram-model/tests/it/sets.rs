//! Models in several files: folders, indexes, files that count themselves.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vram_alloc::{ByteLen, Dtype, TensorFormat};
use vram_model::synth::{SynthGguf, SynthModel};
use vram_model::{
    FileHeader, GgufValue, Limits, ModelError, ModelFile, ModelOptions, ModelSet, plan_of,
};

fn write(folder: &TempDir, name: &str, tensors: &[&str]) -> PathBuf {
    let path = folder.path().join(name);
    let tensors = tensors.iter().map(|name| ((*name).to_owned(), Dtype::U8, vec![4]));
    SynthModel::new(tensors, 1).unwrap().write_file(&path).unwrap();
    path
}

fn index(folder: &TempDir, entries: &[(&str, &str)]) -> PathBuf {
    let path = folder.path().join("model.safetensors.index.json");
    let entries: Vec<_> = entries.iter().map(|(t, file)| format!("{t:?}: {file:?}")).collect();
    let text = format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", entries.join(", "));
    fs::write(&path, text).unwrap();
    path
}

fn open_with(path: &Path, options: &ModelOptions) -> Result<Vec<FileHeader>, ModelError> {
    let set = ModelSet::find([path], options)?;
    let read = |file| ModelFile::read_with(file, options);
    let headers = set.files().iter().map(read).collect::<Result<Vec<_>, _>>()?;
    set.check(&headers)?;
    Ok(headers)
}

fn open(path: &Path) -> Result<Vec<FileHeader>, ModelError> {
    open_with(path, &ModelOptions::default())
}

#[track_caller]
fn refused(path: &Path, words: &[&str]) {
    let shown = open(path).unwrap_err().to_string();
    for word in words {
        assert!(shown.contains(word), "{word} is not in {shown}");
    }
}

#[test]
fn a_folder_and_its_index_are_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "m-2.safetensors", &["c"]);
    write(&folder, "m-1.safetensors", &["a", "b"]);
    write(&folder, "consolidated.safetensors", &["a", "b", "c"]);
    let entries = [("c", "m-2.safetensors"), ("a", "m-1.safetensors"), ("b", "m-1.safetensors")];
    let index = index(&folder, &entries);
    for path in [folder.path(), &index] {
        let headers = open(path).unwrap();
        let plan = plan_of(&headers).unwrap();
        let names: Vec<_> = plan.pieces().iter().map(|piece| &*piece.name).collect();
        assert_eq!((names, headers.len()), (vec!["a", "b", "c"], 2));
    }
    let name = |path: &Path| ModelSet::find([path], &ModelOptions::default()).unwrap().name();
    assert_eq!(name(&index), "model");
    assert_eq!(name(folder.path()), folder.path().file_name().unwrap().to_str().unwrap());
    assert_eq!(name(&folder.path().join("m-1.safetensors")), "m-1");
}

#[test]
fn each_tensor_is_where_the_index_says_or_the_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "1.safetensors", &["a"]);
    write(&folder, "2.safetensors", &["b"]);
    let (one, two) = ("1.safetensors", "2.safetensors");
    let with = |entries: &[(&str, &str)]| index(&folder, entries);
    assert!(open(&with(&[("a", one), ("b", two)])).is_ok());
    refused(&with(&[("a", two), ("b", one)]), &["`a`", "in 2.safetensors"]);
    refused(&with(&[("a", one), ("b", two), ("c", two)]), &["`c`", "does not contain it"]);
    refused(&with(&[("a", one), ("c", two)]), &["`b`", "in none"]);
    // A file that the index does not name is no part of the model.
    assert_eq!(open(&with(&[("a", one)])).unwrap().len(), 1);
}

#[test]
fn files_that_are_missing_are_named_up_to_eight_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "0.safetensors", &["a"]);
    let names: Vec<String> = (1..=20).map(|number| format!("missing-{number:02}")).collect();
    let entries = names.iter().map(|name| (&**name, &**name));
    let entries: Vec<_> = entries.chain([("a", "0.safetensors")]).collect();
    let index = index(&folder, &entries);
    refused(&index, &["21 files", "missing-01, missing-02", "missing-08 and 12 more"]);
    refused(folder.path(), &["missing-01"]);
    let partial = ModelOptions::default().partial(true);
    assert_eq!(open_with(&index, &partial).unwrap().len(), 1);
    fs::remove_file(folder.path().join("0.safetensors")).unwrap();
    assert!(open_with(&index, &partial).is_err(), "nothing is there");
}

#[test]
fn an_index_that_leaves_out_a_part_of_a_numbered_set_is_refused_and_its_odd_size_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let name = |number: u32| format!("m-0000{number}-of-00004.safetensors");
    for (number, tensor) in (1..=4).zip(["a", "b", "c", "d"]) {
        write(&folder, &name(number), &[tensor]);
    }
    let half = index(&folder, &[("a", &name(1)), ("b", &name(2))]);
    refused(&half, &["set of 4", "leaves out", &name(3), &name(4)]);
    assert_eq!(open_with(&half, &ModelOptions::default().partial(true)).unwrap().len(), 2);
    let all = [("a", &*name(1)), ("b", &name(2)), ("c", &name(3)), ("d", &name(4))];
    let path = index(&folder, &all);
    assert_eq!(open(&path).unwrap().len(), 4);
    let odd = |total| ModelSet::find([&path], &ModelOptions::default()).unwrap().odd_size(total);
    assert_eq!(odd(ByteLen::new(16)), None, "it states none");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("{}", "{\"total_size\": 20}", 1)).unwrap();
    assert_eq!(odd(ByteLen::new(20)), None);
    let told = odd(ByteLen::new(16)).unwrap();
    assert!(told.contains("20 bytes") && told.contains("16"), "{told}");
}

#[test]
fn a_folder_of_numbered_files_is_whole_without_an_index() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "m-00001-of-00003.safetensors", &["a"]);
    write(&folder, "m-00003-of-00003.safetensors", &["c"]);
    refused(folder.path(), &["3 files", "m-00002-of-00003.safetensors", "are missing"]);
    let partial = ModelOptions::default().partial(true);
    assert_eq!(open_with(folder.path(), &partial).unwrap().len(), 2);
    write(&folder, "m-00002-of-00003.safetensors", &["b"]);
    assert_eq!(open(folder.path()).unwrap().len(), 3);
    refused(&folder.path().join("m-00002-of-00003.safetensors"), &["were not given"]);
}

#[test]
fn names_in_an_index_stay_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    write(&folder, "outside.safetensors", &["a"]);
    write(&folder, "sub/inside.safetensors", &["a"]);
    let outside = folder.path().join("outside.safetensors").display().to_string();
    for name in ["../x.safetensors", &outside, "sub/../outside.safetensors", "", "."] {
        refused(&index(&folder, &[("a", name)]), &["no name of a file in its folder"]);
    }
    assert!(open(&index(&folder, &[("a", "sub/inside.safetensors")])).is_ok());
}

/// Caches of hubs consist of links into a folder of contents.
#[cfg(unix)]
#[test]
fn links_are_followed_and_a_link_to_nothing_is_missing() {
    use std::os::unix::fs::symlink;

    let cache = tempfile::tempdir().unwrap();
    fs::create_dir_all(cache.path().join("snapshots")).unwrap();
    write(&cache, "blob", &["a"]);
    symlink("../blob", cache.path().join("snapshots/m.safetensors")).unwrap();
    assert_eq!(open(&cache.path().join("snapshots")).unwrap().len(), 1);
    symlink("../gone", cache.path().join("snapshots/n.safetensors")).unwrap();
    let text = r#"{"weight_map":{"a":"m.safetensors","b":"n.safetensors"}}"#;
    fs::write(cache.path().join("snapshots/m.safetensors.index.json"), text).unwrap();
    refused(&cache.path().join("snapshots"), &["2 files", "n.safetensors"]);
}

#[test]
fn an_index_that_is_too_long_or_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let index = index(&folder, &[("a", "1")]);
    let limits = Limits::default().with_header_len_max(ByteLen::new(10));
    let refused = open_with(&index, &limits.into()).unwrap_err().to_string();
    assert!(refused.contains("more than 10 bytes, the limit"), "{refused}");
    assert!(matches!(open(&folder.path().join("x.json")), Err(ModelError::Open { .. })));
    let limits = Limits::default().with_file_count_max(0);
    let refused = open_with(folder.path(), &limits.into()).unwrap_err().to_string();
    assert!(refused.contains("more than 0 entries"), "{refused}");
}

#[test]
fn parts_of_a_gguf_model_make_up_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let split = |name: &str, number: u64, count: u64, total: u64, tensor: &str| {
        let path = folder.path().join(name);
        let _old = fs::remove_file(&path);
        SynthGguf::new(1)
            .key("split.no", GgufValue::Unsigned(number))
            .key("split.count", GgufValue::Unsigned(count))
            .key("split.tensors.count", GgufValue::Signed(i64::try_from(total).unwrap()))
            .tensor(tensor, TensorFormat::Plain(Dtype::F32), [3])
            .write_file(&path)
            .unwrap();
        path
    };
    let (one, two) = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf");
    let first = split(one, 0, 2, 2, "a");
    refused(folder.path(), &[two]);
    refused(&first, &[two, "were not given"]);
    split(two, 1, 2, 2, "b");
    assert_eq!(open(folder.path()).unwrap().len(), 2);
    split(two, 1, 2, 3, "b");
    split(one, 0, 2, 3, "a");
    refused(folder.path(), &["2 tensors together", "says 3"]);
    split(two, 0, 2, 3, "b");
    refused(folder.path(), &["it is part 0 as"]);
    split(two, 1, 3, 3, "b");
    refused(folder.path(), &["one of 3 parts"]);
    split(two, 7, 2, 3, "b");
    refused(folder.path(), &["part 7, counted from 0, and that there are 2 parts"]);
    // A part by another name still says what it is.
    let alone = split("renamed.gguf", 1, 3, 3, "b");
    refused(&alone, &["one of 3 parts", "from 0: 0, 2"]);
    assert!(open_with(&alone, &ModelOptions::default().partial(true)).is_ok());
}

#[test]
fn headers_alone_are_enough_if_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "m.safetensors", &["a", "b"]);
    let whole = ModelFile::read(&path, &Limits::default()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let options = ModelOptions::default().headers_only(true);
    for missing in 1..=8_usize {
        fs::write(&path, &bytes[..bytes.len() - missing]).unwrap();
        assert!(ModelFile::read(&path, &Limits::default()).is_err());
        let header = ModelFile::read_with(&path, &options).unwrap();
        assert_eq!(
            (header.missing().get(), header.tensors()),
            (u64::try_from(missing).unwrap(), whole.tensors())
        );
    }
    fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert!(ModelFile::read_with(&path, &options).is_err(), "the header itself is cut");
    // A sparse file is as long as a whole one.
    let sparse = folder.path().join("sparse.gguf");
    let big = TensorFormat::Plain(Dtype::F32);
    SynthGguf::new(1).tensor("a", big, [1 << 20, 1 << 16]).write_sparse(&sparse).unwrap();
    let header = ModelFile::read(&sparse, &Limits::default()).unwrap();
    assert_eq!(header.tensor_bytes().get(), 1 << 38);
}
