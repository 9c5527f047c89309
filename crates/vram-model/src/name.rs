//! How a name out of a stranger's file is shown: escaped, and never longer than a line.

use core::fmt::Write as _;

/// Most characters of a name that an error message shows.
const SHOWN_MAX: usize = 80;

/// `name` with control characters escaped and the middle left out if it is long.
///
/// A tensor name may hold anything JSON can hold, terminal escapes included; an error is printed.
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

/// Whether a character shows as itself: no control, no mark that turns the reading direction.
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
