//! The parts of the page, and the page made of them.

/// The style.
pub(crate) const STYLE: &str = include_str!("page/style.css");

/// The script: its files in the order in which they build on each other.
pub(crate) const SCRIPT: &str = concat!(
    include_str!("page/js/words.js"),
    include_str!("page/js/model.js"),
    include_str!("page/js/bars.js"),
    include_str!("page/js/tables.js"),
    include_str!("page/js/main.js"),
    include_str!("page/js/live.js"),
);

/// What is read before the script runs.
const BODY: &str = include_str!("page/page.html");

/// The whole page.
///
/// # Arguments
///
/// * `policy`: of its content, without double quotes.
/// * `title`: without characters that HTML escapes.
/// * `data`: a snapshot as [`embedded`](crate::data::embedded) returns it; without one, the page is live.
pub(crate) fn page(policy: &str, title: &str, data: Option<&str>) -> String {
    let data = data.map_or_else(String::new, |data| {
        format!("<script type=\"application/json\" id=\"snapshot\">{data}</script>\n")
    });
    [
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
        "<meta http-equiv=\"Content-Security-Policy\" content=\"",
        policy,
        "\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
        "<meta name=\"referrer\" content=\"no-referrer\">\n",
        "<link rel=\"icon\" href=\"data:,\">\n<title>",
        title,
        "</title>\n<style>",
        STYLE,
        "</style>\n</head>\n",
        BODY,
        &data,
        "<script>",
        SCRIPT,
        "</script>\n</body>\n</html>\n",
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use ring::digest::{SHA256, digest};

    use super::*;
    use crate::hashes;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/hashes.rs");

    /// Base 64 of RFC 4648, section 4.
    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let group = [0, 1, 2].map(|at| u32::from(chunk.get(at).copied().unwrap_or(0)));
            let bits = (group[0] << 16) | (group[1] << 8) | group[2];
            for digit in 0..4_usize {
                let index = usize::try_from((bits >> [18, 12, 6, 0][digit]) & 63).unwrap();
                text.push(if digit <= chunk.len() { char::from(DIGITS[index]) } else { '=' });
            }
        }
        text
    }

    #[test]
    fn base_64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    /// With another hash a browser would run nothing, and show nothing.
    #[test]
    fn the_policy_names_the_hashes_of_the_script_and_of_the_style() {
        let now = [STYLE, SCRIPT].map(|part| base64(digest(&SHA256, part.as_bytes()).as_ref()));
        let written = [hashes::style!(), hashes::script!()];
        if env::var_os("VRAM_BLESS").is_some() {
            let mut text = fs::read_to_string(FILE).unwrap();
            for (written, now) in written.iter().zip(&now) {
                text = text.replace(&format!("\"{written}\""), &format!("\"{now}\""));
            }
            fs::write(FILE, text).unwrap();
            return;
        }
        assert_eq!(written, now, "VRAM_BLESS=1 writes src/hashes.rs anew");
    }

    #[test]
    fn nothing_in_the_page_ends_its_script_early_or_comes_from_elsewhere() {
        for part in [STYLE, SCRIPT, BODY] {
            let lower = part.to_ascii_lowercase();
            for word in
                ["</script", "</style", "<!--", "http:", "https:", "url(", "@import", "eval("]
            {
                assert!(!lower.contains(word), "{word}");
            }
        }
        for word in ["style=\"", "onclick", "onload", "src=\""] {
            assert!(!BODY.contains(word), "{word}");
        }
        assert!(!SCRIPT.contains("innerHTML ="), "texts are set as texts");
        assert!(!SCRIPT.contains("insertAdjacentHTML") && !SCRIPT.contains("document.write"));
    }
}
