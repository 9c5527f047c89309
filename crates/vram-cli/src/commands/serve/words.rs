//! The advice of a server, which names its routes, in the words of the command line.

/// A route as the server writes it, and the command that calls it.
const COMMANDS: [(&str, &str); 18] = [
    ("POST /v1/models/NAME/free", "`vram stop NAME`"),
    ("POST /v1/models/NAME/load", "`vram ctl load NAME`"),
    ("POST /v1/models/NAME/verify", "`vram ctl verify NAME`"),
    ("POST /v1/models/NAME/repair", "`vram ctl repair NAME`"),
    ("POST /v1/models/NAME/park", "`vram ctl park NAME`"),
    ("POST /v1/models/NAME/wake", "`vram ctl wake NAME`"),
    ("POST /v1/models/NAME/migrate", "`vram ctl migrate NAME --gpu N`"),
    ("POST /v1/models/NAME/pin", "`vram ctl pin NAME`"),
    ("POST /v1/models/NAME/unpin", "`vram ctl unpin NAME`"),
    ("POST /v1/gpus/N/reset", "`vram ctl reset N`"),
    ("POST /v1/drain", "`vram ctl drain`"),
    ("GET /v1/models", "`vram ps`"),
    ("GET /v1/leases", "`vram ps`"),
    ("with {\"force\":true} ", "with --force "),
    ("drain with force", "`vram ctl drain --force`"),
    ("see /openapi.json", "use the program in the version of its server"),
    ("GET /openapi.json lists the routes", "use the program in the version of its server"),
    (
        "send the header `Authorization: Bearer TOKEN`, with the content of the token file",
        "give the server's own --token-file",
    ),
];

/// The same advice, with a command in place of each route.
pub(super) fn in_commands(advice: &str) -> String {
    let put = |advice: String, (route, command): &(&str, &str)| advice.replace(route, command);
    COMMANDS.iter().fold(advice.to_owned(), put)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The texts of a line of code.
    fn texts(line: &str) -> impl Iterator<Item = String> {
        let line = line.replace("\\\"", "\u{1}");
        let texts: Vec<_> = line.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        texts.into_iter().map(|text| text.replace('\u{1}', "\""))
    }

    #[test]
    fn no_advice_of_a_server_names_a_route_once_it_is_in_the_words_of_the_command_line() {
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vram-serve/src");
        let mut seen = 0;
        for file in [
            "problem.rs",
            "engine/slot.rs",
            "engine/view.rs",
            "engine/calls.rs",
            "engine/sharing.rs",
            "http/auth.rs",
            "http.rs",
        ] {
            let code = fs::read_to_string(server.join(file)).unwrap();
            for advice in code.lines().flat_map(texts).filter(|text| text.contains(' ')) {
                let named = |text: &str| {
                    ["GET /", "POST /", "openapi", "{\"", "Authorization"]
                        .iter()
                        .any(|one| text.contains(one))
                };
                seen += u32::from(named(&advice));
                assert!(!named(&in_commands(&advice)), "{file}: {advice}");
            }
        }
        assert!(seen > 10, "{seen}");
    }
}
