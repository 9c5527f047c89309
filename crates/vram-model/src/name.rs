//! Display of names from untrusted files: escaped, and never longer than a line.

use core::fmt::Write as _;

/// The maximum number of characters of a name in an error message.
const SHOWN_MAX: usize = 80;

/// `name` with control characters escaped, and shortened in the middle if it is long.
///
/// A tensor name may contain any JSON string, including terminal escapes, and errors are printed.
pub(crate) fn shown(name: &str) -> String {
    let mut shown = String::new();
    for (count, character) in name.chars().enumerate() {
        if count == SHOWN_MAX {
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
    fn a_long_name_is_cut_and_its_length_told() {
        let long = "x".repeat(5000);
        let shown = shown(&long);
        assert!(shown.len() < 120, "{shown}");
        assert!(shown.ends_with("… (5000 bytes)"), "{shown}");
    }
}
