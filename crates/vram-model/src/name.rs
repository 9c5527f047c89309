//! Display of names from untrusted files: escaped, and never longer than a line.

use core::fmt::Write as _;
use std::path::Path;

/// The maximum number of characters of a name in an error message.
const SHOWN_MAX: usize = 80;

/// `name` with control characters escaped, and cut at its end if it is long.
///
/// A tensor name may contain any JSON string, including terminal escapes, and errors are printed.
pub(crate) fn shown(name: &str) -> String {
    shown_up_to(name, SHOWN_MAX)
}

/// A text from outside, whole, with everything escaped that writes to a terminal or changes the
/// reading direction there: such as a path, whose end tells it from others.
///
/// ```
/// assert_eq!(vram_model::shown_whole("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
/// ```
#[must_use]
pub fn shown_whole(text: &str) -> String {
    shown_up_to(text, usize::MAX)
}

/// A path, as [`shown_whole`].
pub(crate) fn shown_path(path: &Path) -> String {
    shown_whole(&path.to_string_lossy())
}

fn shown_up_to(name: &str, max: usize) -> String {
    let mut shown = String::new();
    for (count, character) in name.chars().enumerate() {
        if count == max {
            // Writing to a `String` cannot fail.
            let _ = write!(shown, "… ({} bytes)", name.len());
            break;
        }
        if is_plain(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_unicode());
        }
    }
    shown
}

/// Returns true if a character shows as itself in a line: no control or format character, none without
/// width, and no mark that changes the reading direction. Combining marks show on the letter before them.
///
/// ```
/// assert!(['a', 'ä', '模', '\u{301}'].into_iter().all(vram_model::is_plain));
/// assert!(!['\n', '\u{1b}', '\u{200b}', '\u{202e}', '\u{fe0f}'].into_iter().any(vram_model::is_plain));
/// ```
#[must_use]
pub fn is_plain(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    // Letters and marks that have no width. What has no form at all, the standard library escapes.
    let invisible = matches!(
        character,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}'
    );
    // Behind a letter, where a combining mark is shown as itself.
    let behind = String::from_iter(['a', character]);
    !invisible && behind.escape_debug().eq(behind.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_name_is_shown_as_it_is() {
        let name = "model.layers.0.self_attn.q_proj.weight";
        assert_eq!(shown(name), name);
    }

    #[test]
    fn terminal_escapes_and_direction_marks_are_disarmed() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
        let hidden = "\u{ad}\u{61c}\u{115f}\u{180e}\u{200b}\u{200d}\u{200e}\u{2028}\u{2060}\u{2066}\u{3164}\u{fe0f}\u{feff}\u{fff9}\u{e0001}\u{e0041}";
        for character in hidden.chars() {
            assert!(!is_plain(character), "{}", character.escape_unicode());
        }
        let plain = "aé e\u{301} 模型 Ж ﷺ 한 ~\u{2013}\u{1f600}";
        assert_eq!(shown(plain), plain);
    }

    #[test]
    fn a_path_is_shown_whole_and_disarmed() {
        let long = format!("/{}/model\u{1b}-00002-of-00002.safetensors", "x".repeat(4000));
        let shown = shown_path(Path::new(&long));
        assert_eq!(shown, long.replace('\u{1b}', "\\u{1b}"));
    }

    #[test]
    fn a_long_name_is_cut_and_its_length_told() {
        let long = "x".repeat(5000);
        let shown = shown(&long);
        assert!(shown.len() < 120, "{shown}");
        assert!(shown.ends_with("… (5000 bytes)"), "{shown}");
    }
}
