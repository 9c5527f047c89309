//! The attribute `#[test]` with a time limit: `vram_testkit` passes it on and keeps the limit.

#![forbid(unsafe_code)]

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// The standard `#[test]`, with the body of the function under the limit of `vram_testkit::limit`.
///
/// A crate puts it in the place of the standard one, for all of its modules, by
/// `#[macro_use] extern crate vram_testkit;` at its root.
#[proc_macro_attribute]
pub fn test(_arguments: TokenStream, function: TokenStream) -> TokenStream {
    let mut tokens: Vec<TokenTree> = function.into_iter().collect();
    let keyword =
        |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn");
    let name = tokens.iter().skip_while(|token| !keyword(token)).nth(1).map(TokenTree::to_string);
    // The body is the last token. Without a function, the standard attribute says what is wrong.
    if let (Some(name), Some(body)) = (name, tokens.pop()) {
        tokens.push(limited(&name, body));
    }
    parsed("#[::core::prelude::v1::test]").into_iter().chain(tokens).collect()
}

/// The body, in a block that begins with the limit. The body stays a block of its own, so that its
/// items are still the first in it.
fn limited(name: &str, body: TokenTree) -> TokenTree {
    let limit = format!(
        "let _limit = ::vram_testkit::limit(::core::concat!(::core::module_path!(), \"::{name}\"));"
    );
    let span = body.span();
    let mut block =
        Group::new(Delimiter::Brace, parsed(&limit).into_iter().chain([body]).collect());
    // The function ends where it ended: lints look at its extent.
    block.set_span(span);
    TokenTree::Group(block)
}

#[expect(clippy::expect_used, reason = "both texts above are Rust")]
fn parsed(text: &str) -> TokenStream {
    text.parse().expect("it is Rust")
}
