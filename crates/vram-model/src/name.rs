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

/// Returns true if a character shows as itself: no control character, and no mark that changes the
/// reading direction.
fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
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
