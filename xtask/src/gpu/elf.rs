//! The libraries that a program needs to start, read from its ELF file: the `DT_NEEDED` entries.
//!
//! Source: the System V gABI, chapters 4 and 5; 64-bit little-endian files.

/// The names of the needed libraries, in the file's order. A static program needs none.
pub(crate) fn needed(file: &[u8]) -> Result<Vec<String>, String> {
    const DYNAMIC: u32 = 2;
    const DT_NEEDED: u64 = 1;
    const DT_STRTAB: u64 = 5;

    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("not a 64-bit little-endian ELF file".to_owned());
    }
    let headers = segments(file)?;
    let Some(dynamic) = headers.iter().find(|header| header.kind == DYNAMIC) else {
        return Ok(Vec::new());
    };
    let (mut names, mut strings) = (Vec::new(), None);
    for place in (dynamic.offset..dynamic.offset.saturating_add(dynamic.len)).step_by(16) {
        match (u64_at(file, place)?, u64_at(file, place.saturating_add(8))?) {
            (0, _) => break,
            (DT_NEEDED, name) => names.push(name),
            (DT_STRTAB, address) => strings = Some(address),
            _ => {}
        }
    }
    // The table's address is its address after loading; a load segment maps it to a position in the
    // file.
    let strings = strings.ok_or("a dynamic section without a string table")?;
    let place = headers
        .iter()
        .find_map(|header| header.file_offset(strings))
        .ok_or("a string table outside of every load segment")?;
    names.into_iter().map(|name| text_at(file, place.saturating_add(name))).collect()
}

/// One program header.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    len: u64,
}

impl Segment {
    /// The position in the file of the byte at that address, if this is the load segment that
    /// contains it.
    fn file_offset(&self, address: u64) -> Option<u64> {
        const LOAD: u32 = 1;

        let within = address.checked_sub(self.address)?;
        (self.kind == LOAD && within < self.len).then(|| self.offset.saturating_add(within))
    }
}

fn segments(file: &[u8]) -> Result<Vec<Segment>, String> {
    let (table, size, count) = (u64_at(file, 0x20)?, u16_at(file, 0x36)?, u16_at(file, 0x38)?);
    let read = |index: u16| {
        let place = table.saturating_add(u64::from(index).saturating_mul(u64::from(size)));
        let field = |offset| u64_at(file, place.saturating_add(offset));
        Ok(Segment {
            kind: u32::from_le_bytes(bytes(file, place)?),
            offset: field(8)?,
            address: field(16)?,
            len: field(32)?,
        })
    };
    (0..count).map(read).collect()
}

fn bytes<const N: usize>(file: &[u8], place: u64) -> Result<[u8; N], String> {
    usize::try_from(place)
        .ok()
        .and_then(|place| file.get(place..)?.first_chunk().copied())
        .ok_or_else(|| format!("the file ends before byte {place}"))
}

fn u64_at(file: &[u8], place: u64) -> Result<u64, String> {
    bytes(file, place).map(u64::from_le_bytes)
}

fn u16_at(file: &[u8], place: u64) -> Result<u16, String> {
    bytes(file, place).map(u16::from_le_bytes)
}

fn text_at(file: &[u8], place: u64) -> Result<String, String> {
    let text = usize::try_from(place)
        .ok()
        .and_then(|place| file.get(place..)?.split(|byte| *byte == 0).next())
        .ok_or_else(|| format!("the file ends before byte {place}"))?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_program_tells_what_it_needs() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needed = needed(&file).unwrap();
        assert!(needed.iter().any(|name| name.starts_with("libc.so")), "{needed:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_cut_short_anywhere_is_refused_and_never_a_panic() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for len in (0..0x400.min(file.len())).chain([file.len() / 2]) {
            let _any_answer = needed(&file[..len]);
        }
        assert!(needed(&file[..5]).is_err() && needed(b"#!/bin/sh\n").is_err());
        assert!(needed(&file[..0x40]).is_err(), "no program headers");
    }
}
