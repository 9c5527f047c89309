//! The tables of planted changes, `tests/planted/changes/*.txt`: see the README beside them.

use std::fs;
use std::path::Path;

/// Where the tables are.
const FOLDER: &str = "tests/planted/changes";

/// One fault that is planted on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) name: String,
    /// What would happen to a user.
    pub(super) why: String,
    /// The changed file, from the top of the workspace.
    pub(super) file: String,
    pub(super) tries: Vec<Try>,
    /// Why no suite notices it yet: then it is no failure.
    pub(super) open: Option<String>,
    /// What stands exactly once in the file, and what replaces it in the copy.
    pub(super) replacements: Vec<(String, String)>,
}

/// A suite that should notice the fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Try {
    pub(super) kind: Kind,
    pub(super) package: String,
    /// `lib`, or the name of a test target.
    pub(super) target: String,
    /// A part of the names of the tests to run; empty for all.
    pub(super) filter: String,
}

/// How a suite is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Plain,
    Loom,
    Shuttle,
}

/// All changes, in the order of the tables.
pub(super) fn read() -> Result<Vec<Change>, String> {
    let folder = fs::read_dir(FOLDER).map_err(|error| format!("{FOLDER}: {error}"))?;
    let mut paths = folder
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{FOLDER}: {error}"))?;
    paths.sort();
    let mut changes: Vec<Change> = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        changes.extend(parse(&text).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    for (at, change) in changes.iter().enumerate() {
        change.complete()?;
        if changes.iter().skip(at.saturating_add(1)).any(|other| other.name == change.name) {
            return Err(format!("two changes are named {}", change.name));
        }
    }
    Ok(changes)
}

/// The changes of one table.
fn parse(text: &str) -> Result<Vec<Change>, String> {
    let mut changes: Vec<Change> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        if key == "change" {
            changes.push(Change { name: value.to_owned(), ..Change::default() });
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let change = changes.last_mut().ok_or_else(|| format!("`{line}` before any change"))?;
        let mut until = |end: &str| {
            lines.by_ref().take_while(|line| *line != end).collect::<Vec<_>>().join("\n")
        };
        match key {
            "why" => value.clone_into(&mut change.why),
            "file" => value.clone_into(&mut change.file),
            "open" => change.open = Some(value.to_owned()),
            "try" => change.tries.push(Try::parse(value)?),
            "find" => change.replacements.push((until("with"), until("end"))),
            _ => return Err(format!("{}: what is `{line}`?", change.name)),
        }
    }
    Ok(changes)
}

impl Try {
    fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (kind, rest) = match words.split_first() {
            Some((&"loom", rest)) => (Kind::Loom, rest),
            Some((&"shuttle", rest)) => (Kind::Shuttle, rest),
            _ => (Kind::Plain, words.as_slice()),
        };
        let (package, target, filter) = match rest {
            [package, target] => (package, target, &""),
            [package, target, filter] => (package, target, filter),
            _ => return Err(format!("try {text}: want a package, a target and perhaps a test")),
        };
        let [package, target, filter] = [package, target, filter].map(|&word| word.to_owned());
        Ok(Self { kind, package, target, filter })
    }

    /// The same words as in the table.
    pub(super) fn line(&self) -> String {
        let kind = match self.kind {
            Kind::Plain => "",
            Kind::Loom => "loom ",
            Kind::Shuttle => "shuttle ",
        };
        let Self { package, target, filter, .. } = self;
        format!("{kind}{package} {target} {filter}").trim_end().to_owned()
    }
}

impl Change {
    /// An error if a part is missing.
    fn complete(&self) -> Result<(), String> {
        let switch = format!("vram_planted::on!(\"{}\")", self.name);
        let switched = self.replacements.iter().any(|(_, with)| with.contains(&switch));
        let missing = [
            (self.why.is_empty(), "`why`"),
            (self.file.is_empty(), "`file`"),
            (self.tries.is_empty(), "`try`"),
            (!switched, switch.as_str()),
        ];
        match missing.iter().find(|(missing, _)| *missing) {
            Some((_, what)) => Err(format!("{} has no {what}", self.name)),
            None => Ok(()),
        }
    }

    /// The text of its file with the switch in it.
    pub(super) fn planted(&self, mut text: String) -> Result<String, String> {
        for (find, with) in &self.replacements {
            let times = text.matches(find.as_str()).count();
            if times != 1 {
                let (name, file) = (&self.name, &self.file);
                return Err(format!("{name}: stands {times} times in {file}, not once:\n{find}"));
            }
            text = text.replacen(find, with, 1);
        }
        Ok(text)
    }

    /// The folder of the changed package.
    pub(super) fn package_folder(&self) -> Result<&Path, String> {
        let folder = self.file.split_once("/src/").map(|(folder, _)| Path::new(folder));
        folder.ok_or_else(|| format!("{}: {} is in no package", self.name, self.file))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ENTRY: &str = "# a table\n\nchange one\nwhy because\nfile crates/a/src/b.rs\n\
        try a lib\ntry loom a loom_b c\nfind\n    x < y\nwith\n    vram_planted::on!(\"one\") || x < y\nend\n";

    #[test]
    fn an_entry_is_read_and_planted_where_its_snippet_stands_once() {
        let changes = parse(ENTRY).unwrap();
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        change.complete().unwrap();
        assert_eq!(change.package_folder(), Ok(Path::new("crates/a")));
        assert_eq!(change.tries[1].kind, Kind::Loom);
        let text = change.planted("if\n    x < y\n{}".to_owned()).unwrap();
        assert_eq!(text, "if\n    vram_planted::on!(\"one\") || x < y\n{}");
        for text in ["", "    x < y\n    x < y"] {
            assert!(change.planted(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_that_lacks_a_part_is_refused() {
        for part in ["why because\n", "try a lib\ntry loom a loom_b c\n", "vram_planted::on!"] {
            let change = parse(&ENTRY.replace(part, "")).unwrap().remove(0);
            assert!(change.complete().is_err(), "{part}");
        }
        assert!(parse("wy because\n").is_err());
        assert!(parse(&ENTRY.replace("why", "wy")).is_err());
    }

    /// All of them together: those of one file change it one after the other.
    #[test]
    fn every_planted_change_still_finds_its_place() {
        std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
        let changes = read().unwrap();
        assert!(changes.len() > 40, "{}", changes.len());
        let mut files: BTreeMap<&str, String> = BTreeMap::new();
        for change in &changes {
            let text = match files.remove(change.file.as_str()) {
                Some(text) => text,
                None => fs::read_to_string(&change.file).unwrap(),
            };
            files.insert(&change.file, change.planted(text).unwrap());
        }
    }
}
