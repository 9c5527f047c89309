//! The text beside the library, from which it answers.

use std::path::PathBuf;
use std::sync::OnceLock;

/// What the text says.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) init: u32,
    pub(crate) driver: String,
    pub(crate) hang: Vec<String>,
    pub(crate) cards: Vec<Card>,
}

/// A card of the text. A figure that the text does not give is one that the card does not have.
#[derive(Debug, Default)]
pub(crate) struct Card {
    pub(crate) uuid: String,
    pub(crate) mig: Option<String>,
    pub(crate) lost: bool,
    /// Corrected, uncorrected; or a code.
    pub(crate) volatile: Option<Result<[u64; 2], u32>>,
    pub(crate) aggregate: Option<Result<[u64; 2], u32>>,
    /// Corrected, uncorrected, pending, failed.
    pub(crate) remapped: Option<Result<[u64; 4], u32>>,
    pub(crate) retired: Option<Result<bool, u32>>,
    pub(crate) processes: Vec<Process>,
    /// The code that is answered in place of the processes.
    pub(crate) holders: Option<u32>,
    /// XIDs, and the wait that reports each.
    pub(crate) xids: Vec<(u64, u64)>,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) bytes: Option<u64>,
    pub(crate) name: String,
}

/// Reads the text. Without one there is a library without a card; a word that is not known, or a
/// value that is none, stops the test.
pub(crate) fn read() -> Text {
    let text = std::fs::read_to_string(place()).unwrap_or_default();
    parse(&text).unwrap_or_else(|word| {
        eprintln!("{}: not understood: {word}", place().display());
        std::process::abort()
    })
}

fn parse(text: &str) -> Result<Text, String> {
    let mut parsed = Text { driver: "570.86.15".to_owned(), ..Text::default() };
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        if word == "card" {
            let uuid = words.next().ok_or("card")?.to_owned();
            parsed.cards.push(Card { uuid, ..Card::default() });
            continue;
        }
        let (name, value) = word.split_once('=').ok_or(word)?;
        let wrong = || word.to_owned();
        let number = |value: &str| value.parse::<u64>().map_err(|_| wrong());
        let code = |value: &str| value.parse::<u32>().map_err(|_| wrong());
        match (name, parsed.cards.last_mut()) {
            ("init", _) => parsed.init = code(value)?,
            ("driver", _) => value.clone_into(&mut parsed.driver),
            ("hang", _) => parsed.hang.push(value.to_owned()),
            ("mig", Some(card)) => card.mig = Some(value.replacen("GPU-", "MIG-", 1)),
            ("lost", Some(card)) => card.lost = value == "1",
            ("volatile" | "aggregate", Some(card)) => {
                let counts = match value.split_once('/') {
                    Some((corrected, not)) => Ok([number(corrected)?, number(not)?]),
                    None => Err(code(value)?),
                };
                if name == "volatile" {
                    card.volatile = Some(counts);
                } else {
                    card.aggregate = Some(counts);
                }
            }
            ("remapped", Some(card)) => {
                let parts: Vec<&str> = value.split('/').collect();
                let has = |word| u64::from(parts.contains(&word));
                card.remapped = Some(match parts[..] {
                    [refused] => Err(code(refused)?),
                    [corrected, not, ..] => {
                        Ok([number(corrected)?, number(not)?, has("pending"), has("failed")])
                    }
                    [] => return Err(wrong()),
                });
            }
            ("retired", Some(card)) => {
                card.retired = Some(match value {
                    "pending" => Ok(true),
                    "no" => Ok(false),
                    refused => Err(code(refused)?),
                });
            }
            ("process", Some(card)) => {
                let mut parts = value.splitn(3, ':');
                let pid = code(parts.next().ok_or_else(wrong)?)?;
                let bytes = match parts.next().ok_or_else(wrong)? {
                    "-" => None,
                    bytes => Some(number(bytes)?),
                };
                let name = parts.next().unwrap_or_default().to_owned();
                card.processes.push(Process { pid, bytes, name });
            }
            ("holders", Some(card)) => card.holders = Some(code(value)?),
            ("xid", Some(card)) => {
                let (xid, wait) = value.split_once('@').ok_or_else(wrong)?;
                card.xids.push((number(xid)?, number(wait)?));
            }
            _ => return Err(wrong()),
        }
    }
    Ok(parsed)
}

/// The file of this copy of the library, by the system's map of the process, and `.txt`.
fn place() -> &'static PathBuf {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let address = parse as fn(&str) -> Result<Text, String> as *const () as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let found = maps.lines().find_map(|line| {
            let (start, rest) = line.split_once('-')?;
            let (end, rest) = rest.split_once(' ')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            let file = rest.get(rest.find('/')?..)?;
            (start..end).contains(&address).then(|| format!("{file}.txt"))
        });
        PathBuf::from(found.unwrap_or_default())
    })
}
