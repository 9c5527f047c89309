//! Each reader against what its bench prints, and against text that it does not know.

use super::table::{Measured, Plot};
use super::text;

fn ratio(measured: &Measured, name: &str) -> Option<f64> {
    measured.ratios.iter().find(|ratio| ratio.name == name).map(|ratio| ratio.value)
}

#[test]
fn limits_are_read() {
    let measured = text::limits(
        "reads ahead None bytes at a time, chosen in 4ms\n\
         Aes256Gcm, 256 KiB, 1 threads\n\
         \x20 memcpy                  58.50 GB/s\n\
         \x20 seal in place            4.55 GB/s  0.94 of the hot limit, 0.93 of the cold one\n\
         \x20 seal                     4.10 GB/s  0.85 of the hot limit, 0.84 of the cold one\n\
         Aes256Gcm, 4096 KiB, 2 threads\n\
         \x20 unseal                   9.74 GB/s  0.87 of the hot limit, 0.88 of the cold one\n\
         left out: 2097152 KiB, which takes 6144 MiB: 18432 MiB must be available, and 9000 MiB are\n",
    );
    assert_eq!(measured.tables.len(), 2);
    assert!(measured.notes[0].starts_with("left out: 2097152 KiB"), "{:?}", measured.notes);
    assert_eq!(measured.tables[0].rows[0], ["memcpy", "58.50", "", ""]);
    assert_eq!(measured.tables[0].rows[1], ["seal in place", "4.55", "0.94", "0.93"]);
    assert_eq!(measured.ratios.len(), 7);
    let beside = ratio(&measured, "Aes256Gcm, 256 KiB, 1 threads: seal, of in place");
    assert_eq!(beside, Some(4.10 / 4.55));
    assert_eq!(ratio(&measured, "Aes256Gcm, 4096 KiB, 2 threads: unseal, of cold"), Some(0.88));
}

#[test]
fn ratios_are_read() {
    let measured = text::ratios(
        "\n256 MiB, all threads, 21 turns each, as a share of `bare seal`\n\
         \x20 seal_model, no read-back           median    38.3 ms  0.85   best    36.0 ms  0.90\n",
    );
    assert_eq!(
        measured.tables[0].rows,
        [["seal_model, no read-back", "38.3", "0.85", "36.0", "0.90"]]
    );
    assert_eq!(ratio(&measured, "256 MiB, all threads: seal_model, no read-back"), Some(0.85));
}

#[test]
fn mixes_are_read() {
    let head = format!("{:14}{:>22}{:>22}", "", "10000 x 4 KiB", "4 x 65536 KiB");
    let row =
        format!("{:14}{:>22}{:>22}", "verify each", "0.31 (0.05) 13.2", "6.00 (1.00) 11000.0");
    let fixed =
        "fixed cost of seal: 4.10 us, of 5.60; one thread takes 1.50 for 4 KiB at 2.73 GB/s";
    let text = format!("GB/s (share of the last column's rate)\n{head}\n{row}\n{fixed}\n");
    let measured = text::mixes(&text);
    // A time is no ratio.
    assert_eq!(measured.figures[0].name, "fixed cost of seal, µs");
    assert_eq!((measured.figures[0].value, &measured.notes[..]), (4.1, &[fixed.to_owned()][..]));
    assert_eq!(measured.tables[0].columns, ["call", "10000 x 4 KiB", "4 x 65536 KiB"]);
    assert_eq!(
        measured.tables[0].rows,
        [["verify each", "0.31 (0.05) 13.2", "6.00 (1.00) 11000.0"]]
    );
    // The largest shards are the reference.
    assert_eq!(measured.ratios.len(), 1);
    assert_eq!(ratio(&measured, "verify each, 10000 x 4 KiB"), Some(0.05));
}

#[test]
fn ranges_are_read_beside_a_copy() {
    let measured = text::ranges(
        "4 KiB of 1024 MiB, 4000 reads each\n\
         \x20 a plain copy                       p50     0.20 us  p99     1.50 us\n\
         \x20 read_into                          p50    40.00 us  p99    85.50 us\n\
         \x20 at most 2 segments a read\n",
    );
    assert_eq!(measured.tables[0].rows[1], ["read_into", "40", "85.5"]);
    assert_eq!(ratio(&measured, "4 KiB of 1024 MiB: read_into, time of a plain copy"), Some(200.0));
    assert_eq!(measured.ratios.len(), 1);
    let names: Vec<_> = measured.figures.iter().map(|figure| figure.name.as_str()).collect();
    assert_eq!(
        names[3..],
        ["4 KiB of 1024 MiB: read_into, p99, µs", "4 KiB of 1024 MiB: segments read at most"]
    );
}

#[test]
fn tiny_pieces_are_read_as_growth() {
    let measured = text::tiny_pieces(
        "   pieces               admit                park                wake                free\n\
         \x20    1000    0.012 s   12.0 us    0.010 s   10.0 us    0.020 s   20.0 us    0.005 s    5.0 us\n\
         \x20  160000    2.400 s   15.0 us    1.600 s   10.0 us    3.200 s   20.0 us    1.200 s    7.5 us\n",
    );
    assert_eq!(measured.tables[0].rows[1], ["160000", "15", "10", "20", "7.5"]);
    assert_eq!(ratio(&measured, "admit: time at 160000 against 1000"), Some(1.25));
    let Some(Plot::Lines { lines, .. }) = &measured.tables[0].plot else { panic!("no lines") };
    assert_eq!(lines[3], ("free".to_owned(), vec![(1e3, 5.0), (1.6e5, 7.5)]));
}

#[test]
fn growth_of_the_arena_is_read_beside_its_peer() {
    let measured = text::growth(
        "   pieces   arena pair  offset-allocator    report   place_at   holes/hole   live/piece  clone/piece\n\
         \x20    1000          100                50         2        169           12            3           11\n\
         \x20   10000          200                50         2        290           14            3            6\n",
    );
    assert_eq!(ratio(&measured, "10000 pieces: a pair, speed beside offset-allocator"), Some(0.25));
    assert_eq!(ratio(&measured, "arena pair: time at 10000 against 1000"), Some(2.0));
}

#[test]
fn rooms_are_read() {
    let measured = text::rooms(
        "refuse       1000 shards         0.0 ms  without one\n\
         refuse       1000 shards         1.0 ms  with a policy\n\
         refuse      10000 shards        20.0 ms  with a policy\n\
         each of      1000 shards  seal 21.00 µs, lease 6.30 µs, its end 0.64 µs, in a report 0.46 µs\n\
         compact      1000 shards        45.0 ms     999 moves    255 KiB moved  1 hole, Done\n",
    );
    assert_eq!(measured.tables[0].rows.len(), 4);
    assert_eq!(measured.tables[1].rows, [["1000", "21", "6.3", "0.64", "0.46"]]);
    let grown = ratio(&measured, "refuse with a policy: time a shard at 10000 against 1000");
    assert_eq!(grown, Some(2.0));
    assert_eq!(measured.ratios.len(), 1);
}

#[test]
fn placement_is_read_beside_its_peers() {
    let row = |allocator: &str, nanos: u32| {
        format!(
            "{:<25} {allocator:<40} {:>23}  {nanos:>9}\n",
            "LLM by layer", "0.002 / 0.067 / 1.740"
        )
    };
    let measured = text::placement(&format!("{}{}", row("arena", 60), row("offset-allocator", 30)));
    assert_eq!(
        measured.tables[0].rows[0],
        ["LLM by layer", "arena", "0.002 / 0.067 / 1.740", "60"]
    );
    assert_eq!(ratio(&measured, "LLM by layer: speed beside offset-allocator"), Some(0.5));
}

#[test]
fn peers_are_read_and_compared_with_ours_on_one_thread() {
    let measured = text::peers(
        "memory\tvram-seal, AES-256-GCM\t1\t3.000\t6.000\tmuch\tlittle\n\
         memory\tvram-seal, AES-256-GCM\t2\t6.000\t9.000\tmuch\tlittle\n\
         memory\tage\t1\t0.500\t0.600\tp\tl\n\
         in place\tvram-seal, AES-256-GCM\t1\t4.000\t8.000\tmuch\tlittle\n\
         in place\tsiv\t1\t2.000\t1.000\tp\tl\n\
         file\ta plain copy\t1\t1.000\t-\tp\tl\n\
         file\tvram image\t1\t0.500\t0.900\tp\tl\n",
    );
    assert_eq!(measured.tables.len(), 3);
    assert_eq!(ratio(&measured, "in place: open, one thread, beside siv"), Some(8.0));
    assert_eq!(ratio(&measured, "memory: seal, one thread, beside age"), Some(6.0));
    assert_eq!(ratio(&measured, "memory: open, one thread, beside age"), Some(10.0));
    assert_eq!(ratio(&measured, "file: seal, one thread, beside a plain copy"), Some(0.5));
    assert_eq!(measured.ratios.len(), 5);
}

#[test]
fn a_text_that_no_reader_knows_leaves_nothing() {
    let readers: [text::Reader; 9] = [
        text::limits,
        text::ratios,
        text::mixes,
        text::ranges,
        text::tiny_pieces,
        text::growth,
        text::rooms,
        text::placement,
        text::peers,
    ];
    for reader in readers {
        assert!(reader("thread 'main' panicked at 3 shards\n(1 / 2) x 4 KiB?\n").ratios.is_empty());
        assert_eq!(reader(""), Measured::default());
    }
}
